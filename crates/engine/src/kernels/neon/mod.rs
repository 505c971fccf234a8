//! Kernels for NEON, which every 64-bit Arm has, and in `dotprod` for its products of four bytes. Functions
//! are `unsafe` only in that the CPU must have what they name; slices are read within their bounds, which
//! callers in `kernels` have asserted or the layout guarantees.

pub(super) mod dotprod;
mod gemv;
mod softmax;
mod split;
mod strip;
mod unpack;

use std::arch::aarch64::*;

pub(super) use gemv::gemv;
pub(super) use softmax::{exponentials, shares};
pub(super) use split::split;
pub(super) use strip::strip;
pub(super) use unpack::unpack;

use super::portable;

/// Rows of a register: a line of codes is four of them.
const ROWS: usize = 4;
/// Bytes of a line that belong to four rows.
const QUARTER: usize = 4 * ROWS;

/// 16 bytes of anything.
#[target_feature(enable = "neon")]
#[inline]
fn load<T: Copy>(slice: &[T]) -> uint8x16_t {
    assert!(size_of_val(slice) >= 16);
    // Safety: 16 bytes are there, and a vector may be any bytes.
    unsafe { vld1q_u8(slice.as_ptr().cast()) }
}

/// A factor of four rows.
#[target_feature(enable = "neon")]
#[inline]
fn factor(factors: &[u8], quarter: usize) -> int16x4_t {
    let four = &factors[quarter * 2 * ROWS..][..2 * ROWS];
    // Safety: 8 bytes are there.
    vreinterpret_s16_u8(unsafe { vld1_u8(four.as_ptr()) })
}

/// Bit `bit` of each byte as 16.
#[target_feature(enable = "neon")]
#[inline]
fn fifth(bits: uint8x16_t, bit: usize) -> uint8x16_t {
    // A negative count shifts to the right.
    let moved = vshlq_u8(bits, vdupq_n_s8(4 - bit as i8));
    vandq_u8(moved, vdupq_n_u8(16))
}

/// Even and odd bytes, widened with their sign.
#[target_feature(enable = "neon")]
#[inline]
fn halves(bytes: uint8x16_t) -> (int16x8_t, int16x8_t) {
    let pairs = vreinterpretq_s16_u8(bytes);
    let even = vshrq_n_s16::<8>(vshlq_n_s16::<8>(pairs));
    (even, vshrq_n_s16::<8>(pairs))
}

/// Results four at a time. The product of a sum and a scale is below 2^46 in size, and a shift to the left
/// is of 15 at most, so nothing leaves 64 bits; the rounding shift is exact, and narrowing saturates beyond
/// any limit.
#[target_feature(enable = "neon")]
pub(super) fn requantize(
    acc: &[i32],
    scales: &[u8],
    shift: i32,
    limit: i32,
    out: &mut [i32],
) -> u64 {
    let whole = if (-15..=62).contains(&shift) {
        acc.len() / 4 * 4
    } else {
        0
    };
    let by = vdupq_n_s64(i64::from(-shift));
    let (top, bottom) = (vdupq_n_s32(limit), vdupq_n_s32(-limit));
    let mut clamped = vdupq_n_u32(0);
    let groups = acc[..whole]
        .chunks_exact(4)
        .zip(scales.chunks_exact(8))
        .zip(out.chunks_exact_mut(4));
    for ((acc, a), out) in groups {
        let acc = vreinterpretq_s32_u8(load(acc));
        let a = vmovl_u16(vreinterpret_u16_s16(factor(a, 0)));
        let a = vreinterpretq_s32_u32(a);
        let low = vrshlq_s64(vmull_s32(vget_low_s32(acc), vget_low_s32(a)), by);
        let high = vrshlq_s64(vmull_high_s32(acc, a), by);
        let y = vqmovn_high_s64(vqmovn_s64(low), high);
        let y = vmaxq_s32(vminq_s32(y, top), bottom);
        // All ones, which is −1.
        clamped = vsubq_u32(clamped, vceqq_s32(vabsq_s32(y), top));
        // Safety: a chunk of four.
        unsafe { vst1q_s32(out.as_mut_ptr(), y) };
    }
    let rest = portable::requantize(
        &acc[whole..],
        &scales[whole * 2..],
        shift,
        limit,
        &mut out[whole..],
    );
    u64::from(vaddvq_u32(clamped)) + rest
}
