//! Arithmetic of the base field on four words at once, without branches, so that the compiler can keep them
//! in one register where there is one.
//!
//! Every word is canonical, below p = 2^64 − 2^32 + 1, on the way in and out. `field.rs` is the definition;
//! the tests hold this file to it.

use p3_field::PrimeField64;

use crate::field::F;

/// A value from each of four columns.
pub(super) type Four = [u64; 4];

/// 2^64 − p.
const EPSILON: u64 = 0xffff_ffff;

/// `value` where it holds, zero where not.
#[inline(always)]
fn when(holds: bool, value: u64) -> u64 {
    value & 0u64.wrapping_sub(u64::from(holds))
}

#[inline(always)]
fn sub_word(a: u64, b: u64) -> u64 {
    a.wrapping_sub(b).wrapping_add(when(a < b, F::ORDER_U64))
}

#[inline(always)]
fn mul_word(a: u64, b: u64) -> u64 {
    let (a_low, a_high) = (a & EPSILON, a >> 32);
    let (b_low, b_high) = (b & EPSILON, b >> 32);
    // Each product is at most (2^32 − 1)², so that two words below 2^32 may be added to it.
    let low = a_low.wrapping_mul(b_low);
    let cross = a_high.wrapping_mul(b_low).wrapping_add(low >> 32);
    let other = a_low.wrapping_mul(b_high).wrapping_add(cross & EPSILON);
    let high = a_high
        .wrapping_mul(b_high)
        .wrapping_add(cross >> 32)
        .wrapping_add(other >> 32);
    let low = (low & EPSILON) | (other << 32);
    // 2^64 = 2^32 − 1 and 2^96 = −1.
    let (top, middle) = (high >> 32, high & EPSILON);
    let difference = low.wrapping_sub(top).wrapping_sub(when(low < top, EPSILON));
    let folded = (middle << 32).wrapping_sub(middle);
    let sum = difference.wrapping_add(folded);
    let sum = sum.wrapping_add(when(sum < folded, EPSILON));
    sum.wrapping_sub(when(sum >= F::ORDER_U64, F::ORDER_U64))
}

#[inline(always)]
pub(super) fn add(a: Four, b: Four) -> Four {
    // a − (p − b): p itself may be taken away.
    std::array::from_fn(|lane| sub_word(a[lane], F::ORDER_U64.wrapping_sub(b[lane])))
}

#[inline(always)]
pub(super) fn sub(a: Four, b: Four) -> Four {
    std::array::from_fn(|lane| sub_word(a[lane], b[lane]))
}

/// Each word times the same factor.
#[inline(always)]
pub(super) fn scale(a: Four, by: u64) -> Four {
    std::array::from_fn(|lane| mul_word(a[lane], by))
}

/// Without a branch on the sign.
#[inline(always)]
pub(super) fn small(value: i32) -> u64 {
    (i64::from(value) as u64).wrapping_add(when(value < 0, F::ORDER_U64))
}

#[cfg(test)]
mod tests {
    use p3_field::PrimeField64;

    use super::*;
    use crate::field::signed;
    use crate::rounds::testing::Random;

    #[test]
    fn words_are_the_field() {
        let p = F::ORDER_U64;
        let edges = [0, 1, 2, EPSILON - 1, EPSILON, EPSILON + 1, p / 2, p / 2 + 1];
        let mut random = Random(41);
        let drawn: Vec<u64> = (0..200).map(|_| random.below(p as usize) as u64).collect();
        let edges = edges.iter().flat_map(|edge| [*edge, p - 1 - edge]);
        let all: Vec<u64> = edges.chain(drawn).collect();
        for (a, b) in all.iter().flat_map(|a| all.iter().map(move |b| (*a, *b))) {
            let (x, y) = (F::new(a), F::new(b));
            let is = |value: F| [value.as_canonical_u64(); 4];
            assert_eq!(add([a; 4], [b; 4]), is(x + y), "{a} + {b}");
            assert_eq!(sub([a; 4], [b; 4]), is(x - y), "{a} - {b}");
            assert_eq!(scale([a; 4], b), is(x * y), "{a} · {b}");
        }
        for value in [i32::MIN, -5, -1, 0, 1, i32::MAX] {
            let expected = signed(i64::from(value)).as_canonical_u64();
            assert_eq!(small(value), expected, "{value}");
        }
    }
}
