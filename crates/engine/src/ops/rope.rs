//! Rotary positions: two elements of a head turned by their position's angle, and quantized.

use super::QK_MAX;
use super::arith::{clamp, rsh};

/// Which two elements turn together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pairing {
    /// (2i, 2i+1): llama GGUFs.
    Pairs,
    /// (i, i + head_dim/2): gemma.
    Halves,
}

impl Pairing {
    /// The elements that frequency `i` of `n` turns.
    #[inline(always)]
    pub fn indices(self, i: usize, n: usize) -> (usize, usize) {
        match self {
            Pairing::Pairs => (2 * i, 2 * i + 1),
            Pairing::Halves => (i, i + n),
        }
    }
}

/// (a, b) at Q.12 turned by (cos, sin) at Q.14, both at Q.26: |a|, |b| < 2^31, so below 2^46.
#[inline(always)]
pub fn turn(a: i32, b: i32, (cos, sin): (i16, i16)) -> (i64, i64) {
    let (a, b) = (i64::from(a), i64::from(b));
    let (cos, sin) = (i64::from(cos), i64::from(sin));
    (a * cos - b * sin, a * sin + b * cos)
}

/// From Q.26 to the layer's fraction, clamped to 13 bits.
#[inline(always)]
pub fn quantize(turned: i64, fraction: i32) -> i16 {
    clamp(rsh(turned, 26 - fraction), QK_MAX) as i16
}

/// A whole head; `table` holds (cos, sin) of this position by frequency.
pub fn rope(head: &[i32], table: &[(i16, i16)], pairing: Pairing, fraction: i32) -> Vec<i16> {
    let mut out = vec![0; head.len()];
    for (i, at) in table.iter().enumerate() {
        let (first, second) = pairing.indices(i, table.len());
        let (a, b) = turn(head[first], head[second], *at);
        out[first] = quantize(a, fraction);
        out[second] = quantize(b, fraction);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_turn_swaps_the_two_elements_of_a_pair() {
        let quarter = [(0, 1 << 14), (1 << 14, 0)];
        let head = [100 << 12, 7 << 12, -3 << 12, 50 << 12];
        assert_eq!(rope(&head, &quarter, Pairing::Pairs, 0), [-7, 100, -3, 50]);
        assert_eq!(rope(&head, &quarter, Pairing::Halves, 0), [3, 7, 100, 50]);
    }

    #[test]
    fn what_does_not_fit_is_clamped_evenly() {
        assert_eq!(quantize(i64::from(QK_MAX + 1) << 26, 0), 4095);
        assert_eq!(quantize(i64::from(-QK_MAX - 9) << 26, 0), -4095);
    }
}
