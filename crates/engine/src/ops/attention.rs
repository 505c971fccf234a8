//! Attention: scores, softmax in powers of two, and the mix of values.

use super::V_MAX;
use super::arith::{clamp, rsh};

/// v at Q.12 on its way into the cache, 12 bits at the layer's fraction.
#[inline(always)]
pub fn quantize_v(v: i32, fraction: i32) -> i16 {
    clamp(rsh(i64::from(v), 12 - fraction), V_MAX) as i16
}

/// `Σ q·k`. Both are within ±4095, so a head of up to 128 fits an i32 and one of 256 needs 33 bits:
/// the definition is 64-bit for all.
pub fn score(q: &[i16], k: &[i16]) -> i64 {
    q.iter()
        .zip(k)
        .map(|(q, k)| i64::from(*q) * i64::from(*k))
        .sum()
}

/// How far below the maximum, in Q.8 of log2: `rsh(below·c, csh)`; below < 2^35, c ≤ 2^24.
#[inline(always)]
pub fn distance(below: i64, c: u32, csh: i32) -> i64 {
    rsh(below * i64::from(c), csh)
}

/// `2^15·2^(−t/256)`, 0 from 16 octaves on.
#[inline(always)]
pub fn exponential(t: i64, exp: &[u16; 256]) -> u32 {
    match t >> 8 {
        octaves @ 0..16 => rsh(i64::from(exp[(t & 255) as usize]), octaves as i32) as u32,
        _ => 0,
    }
}

/// The reciprocal of the sum; `Z ≥ 2^15` as the maximum itself contributes EXP[0] = 2^15.
pub fn reciprocal(z: u64) -> u64 {
    (1 << 45) / z
}

/// One position's share in Q.15; it reaches 2^15 only where it is alone.
#[inline(always)]
pub fn share(e: u32, reciprocal: u64) -> u32 {
    rsh((u64::from(e) * reciprocal) as i64, 30) as u32
}

/// Shares of all positions that a query sees.
pub fn softmax(scores: &[i64], c: u32, csh: i32, exp: &[u16; 256]) -> Vec<u32> {
    let max = scores.iter().copied().max().unwrap_or(0);
    let e: Vec<u32> = scores
        .iter()
        .map(|s| exponential(distance(max - s, c, csh), exp))
        .collect();
    let reciprocal = reciprocal(e.iter().map(|e| u64::from(*e)).sum());
    e.iter().map(|e| share(*e, reciprocal)).collect()
}

/// `Σ p·v` of one element over all positions: below `(2^15 + n/2)·2047`, which the context's limit
/// keeps within an i32.
pub fn mix(shares: &[u32], values: impl Iterator<Item = i16>) -> i32 {
    shares
        .iter()
        .zip(values)
        .map(|(p, v)| *p as i32 * i32::from(v))
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> [u16; 256] {
        // A straight line from 2^15 to 2^14 has the table's shape and needs no float.
        std::array::from_fn(|i| (32_768 - 64 * i) as u16)
    }

    #[test]
    fn a_position_alone_has_the_whole_share() {
        assert_eq!(softmax(&[-5], 47_274, 20, &table()), [1 << 15]);
        assert_eq!(
            softmax(&[1 << 33, -(1 << 33)], 47_274, 20, &table()),
            [1 << 15, 0]
        );
    }

    #[test]
    fn equal_scores_share_evenly() {
        assert_eq!(softmax(&[9, 9, 9, 9], 47_274, 20, &table()), [1 << 13; 4]);
    }

    #[test]
    fn what_is_sixteen_octaves_down_is_nothing() {
        assert_eq!(exponential(16 << 8, &table()), 0);
        assert_eq!(exponential((16 << 8) - 1, &table()), 1);
        assert_eq!(exponential(i64::MAX, &table()), 0);
    }
}
