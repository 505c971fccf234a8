//! A token's row of the embedding as the first residual.

use super::RESIDUAL_MAX;
use super::arith::{clamp, isqrt, rsh};

/// `E = rint(A·256·sqrt(scale_squared))`: 1 for llama, the width for gemma. With A < 2^16 and the scale
/// at most 1023, `4·(256·A)²·scale` stays below 2^60. Rounding half up of a root: `(⌊2y⌋ + 1) / 2`.
pub fn row_scale(a: u16, scale_squared: u32) -> i64 {
    let a = u64::from(a) * 256;
    isqrt(4 * a * a * u64::from(scale_squared)).div_ceil(2) as i64
}

/// `rsh(w·E, SH + 8 − rf)`; the product is below 2^45.
#[inline(always)]
pub fn element(w: i16, e: i64, shift: i32) -> i32 {
    clamp(rsh(i64::from(w) * e, shift), RESIDUAL_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_row_scale_is_rounded_to_the_nearest() {
        assert_eq!(row_scale(1, 1), 256);
        assert_eq!(row_scale(65_535, 1), 65_535 * 256);
        for (a, scale) in [(1, 640), (40_000, 640), (65_535, 1023), (12_345, 2)] {
            let (e, square) = (
                row_scale(a, scale) as i128,
                i128::from(a) * i128::from(a) * 65_536,
            );
            // |E − y| ≤ 1/2, squared and times four: (2E − 1)² ≤ 4y² ≤ (2E + 1)².
            let four = 4 * square * i128::from(scale);
            assert!(
                (2 * e - 1).pow(2) <= four && four <= (2 * e + 1).pow(2),
                "{a} {scale}"
            );
        }
    }
}
