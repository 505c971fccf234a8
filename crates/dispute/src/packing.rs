//! How an opening's bytes are written: as they are, or `i16`s as twelve bits where that is cheaper to
//! send. `Lanes.unpack12` is the other half; docs/dispute.md has the format.

use crate::step::Packing;

/// Elements of a block, the last one padded with zeros.
const BLOCK: usize = 32;
/// Elements that one flag is of.
const HALF: usize = 16;

/// The cheaper way to write `i16`s, by what calldata costs.
pub(crate) fn pack(data: Vec<u8>) -> (Packing, Vec<u8>) {
    match twelve(&data) {
        Some(packed) if tokens(&packed) < tokens(&data) => (Packing::Twelve, packed),
        _ => (Packing::Plain, data),
    }
}

/// The `len` bytes that are written so; nothing where they are not.
pub(crate) fn unpack(packing: Packing, data: &[u8], len: usize) -> Option<Vec<u8>> {
    match packing {
        Packing::Plain => (data.len() == len).then(|| data.to_vec()),
        Packing::Twelve => untwelve(data, len),
    }
}

/// What calldata is charged by (EIP-7623).
fn tokens(data: &[u8]) -> usize {
    data.iter().map(|byte| if *byte == 0 { 1 } else { 4 }).sum()
}

/// A flag for each half of a block that is wide, the low bytes of all blocks, then eight bytes of
/// nibbles for each wide half. Nothing where an element has more than twelve bits.
fn twelve(data: &[u8]) -> Option<Vec<u8>> {
    let mut elements: Vec<i16> = data
        .chunks_exact(2)
        .map(|pair| i16::from_be_bytes([pair[0], pair[1]]))
        .collect();
    if !elements.iter().all(|v| (-2048..2048).contains(v)) {
        return None;
    }
    elements.resize(elements.len().next_multiple_of(BLOCK), 0);
    let wide = |half: &[i16]| half.iter().any(|v| i8::try_from(*v).is_err());
    let flags: Vec<bool> = elements.chunks_exact(HALF).map(wide).collect();
    let mut packed: Vec<u8> = flags
        .chunks(8)
        .map(|flags| {
            let bits = flags.iter().enumerate();
            bits.fold(0, |byte, (i, flag)| byte | u8::from(*flag) << (7 - i))
        })
        .collect();
    for block in elements.chunks_exact(BLOCK) {
        let (first, second) = block.split_at(HALF);
        packed.extend(
            first
                .iter()
                .zip(second)
                .flat_map(|(a, b)| [*a as u8, *b as u8]),
        );
    }
    for (half, wide) in elements.chunks_exact(HALF).zip(flags) {
        if wide {
            packed.extend((0..4).flat_map(|c| nibbles(half, c).to_be_bytes()));
        }
    }
    Some(packed)
}

/// The high four bits of elements c, 4 + c, 8 + c and 12 + c of a half, from the lowest nibble up.
fn nibbles(half: &[i16], c: usize) -> u16 {
    let nibble = |m: usize| (half[4 * m + c] >> 8 & 15) as u16;
    (0..4).fold(0, |number, m| number | nibble(m) << (4 * m))
}

fn untwelve(data: &[u8], len: usize) -> Option<Vec<u8>> {
    let blocks = (len / 2).div_ceil(BLOCK);
    let (flags, rest) = data.split_at_checked((2 * blocks).div_ceil(8))?;
    let (lows, mut highs) = rest.split_at_checked(blocks.checked_mul(BLOCK)?)?;
    let mut bytes = Vec::new();
    for half in 0..2 * blocks {
        let low = |i: usize| lows[half / 2 * BLOCK + 2 * i + half % 2];
        if flags[half / 8] << (half % 8) & 128 == 0 {
            bytes.extend((0..HALF).flat_map(|i| i16::from(low(i) as i8).to_be_bytes()));
            continue;
        }
        let (high, after) = highs.split_at_checked(8)?;
        highs = after;
        let number = |c: usize| u16::from_be_bytes([high[2 * c], high[2 * c + 1]]);
        bytes.extend((0..HALF).flat_map(|i| {
            let nibble = number(i % 4) >> (4 * (i / 4)) & 15;
            let v = nibble << 8 | u16::from(low(i));
            ((v << 4) as i16 >> 4).to_be_bytes()
        }));
    }
    bytes.truncate(len);
    (highs.is_empty() && len.is_multiple_of(2)).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(elements: &[i16]) -> Vec<u8> {
        elements.iter().flat_map(|v| v.to_be_bytes()).collect()
    }

    #[test]
    fn a_packing_is_spelled_out() {
        // The first half is wide, the second is not, the third is cut short and padded.
        let mut elements: Vec<i16> = (0..16).map(|i| 0x100 * (i % 8) + 0x70 + i).collect();
        elements.extend((0..16).map(|i| i - 8));
        elements.extend([-1, 5]);
        let mut expected = vec![0b1000_0000];
        for i in 0..16u8 {
            expected.extend([0x70 + i, i.wrapping_sub(8)]);
        }
        expected.extend([0xff, 0, 5, 0]);
        expected.extend([0; 28]);
        // Elements 0, 4, 8, 12 have the nibbles 0, 4, 0, 4, the first the lowest.
        expected.extend([0x40, 0x40, 0x51, 0x51, 0x62, 0x62, 0x73, 0x73]);
        assert_eq!(twelve(&bytes(&elements)), Some(expected.clone()));
        assert_eq!(
            unpack(Packing::Twelve, &expected, 68),
            Some(bytes(&elements))
        );
    }

    #[test]
    fn twelve_bits_come_back_whatever_they_are() {
        let mut random = 7u64;
        for n in 0..200usize {
            let elements: Vec<i16> = (0..n)
                .map(|i| {
                    random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                    match (random >> 40) % 40 {
                        0 => 2047,
                        1 => -2048,
                        2 => 128,
                        3 => -129,
                        _ => (random >> 50) as i8 as i16 / (1 + i as i16 / 50),
                    }
                })
                .collect();
            let packed = twelve(&bytes(&elements)).expect("twelve bits");
            assert_eq!(
                unpack(Packing::Twelve, &packed, 2 * n),
                Some(bytes(&elements))
            );
            assert_eq!(unpack(Packing::Twelve, &packed, 2 * n + 64), None, "more");
            let longer = [&packed[..], &[0]].concat();
            assert_eq!(
                unpack(Packing::Twelve, &longer, 2 * n),
                None,
                "a byte too many"
            );
            if let Some((_, shorter)) = packed.split_last() {
                assert_eq!(
                    unpack(Packing::Twelve, shorter, 2 * n),
                    None,
                    "a byte short"
                );
            }
        }
    }

    #[test]
    fn the_cheaper_packing_is_chosen() {
        let chosen = |elements: &[i16]| pack(bytes(elements)).0;
        assert_eq!(chosen(&[2047; 128]), Packing::Twelve);
        assert_eq!(chosen(&[-3; 128]), Packing::Twelve);
        assert_eq!(chosen(&[2048; 128]), Packing::Plain, "thirteen bits");
        assert_eq!(chosen(&[-2049; 128]), Packing::Plain, "thirteen bits");
        assert_eq!(chosen(&[1]), Packing::Plain, "padding would cost more");
    }
}
