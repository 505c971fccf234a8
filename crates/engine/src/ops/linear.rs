//! A matrix row against a 12-bit vector, and the row's scale brought in.

use super::arith::{clamp, rsh};

/// `Σ x·w`. The loader has checked `2047·Σ|w| ≤ 2^30 − 1`, so no partial sum leaves an i32, in any
/// order; kernels may therefore add as they like.
pub fn dot(x: &[i16], w: &[i16]) -> i32 {
    x.iter()
        .zip(w)
        .map(|(x, w)| i32::from(*x) * i32::from(*w))
        .sum()
}

/// `clamp(rsh(acc·A, shift), limit)` with `shift = SH + fx − fo − e`; the product is below 2^46.
#[inline(always)]
pub fn requantize(acc: i32, a: u16, shift: i32, limit: i32) -> i32 {
    clamp(rsh(i64::from(acc) * i64::from(a), shift), limit)
}

/// The residual's addition.
#[inline(always)]
pub fn add(x: i32, y: i32) -> i32 {
    clamp(i64::from(x) + i64::from(y), super::RESIDUAL_MAX)
}
