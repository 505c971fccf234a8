//! Kernels for AVX2. Every function is `unsafe` only in that the CPU must have AVX2; slices are read
//! within their bounds, which callers in `kernels` have asserted or the layout guarantees.

mod gemv;
pub(super) mod keccak;
mod softmax;
mod split;
mod strip;
mod unpack;

use std::arch::x86_64::*;

pub(super) use gemv::gemv;
pub(super) use softmax::{exponentials, shares};
pub(super) use split::split;
pub(super) use strip::strip;
pub(super) use unpack::unpack;

use super::portable;

#[target_feature(enable = "avx2")]
pub(super) fn run<R>(f: impl FnOnce() -> R) -> R {
    f()
}

/// 32 bytes of anything.
#[target_feature(enable = "avx2")]
#[inline]
fn load<T: Copy>(slice: &[T]) -> __m256i {
    assert!(size_of_val(slice) >= 32);
    // Safety: 32 bytes are there, and a vector may be any bytes.
    unsafe { _mm256_loadu_si256(slice.as_ptr().cast()) }
}

#[target_feature(enable = "avx2")]
#[inline]
fn store<T: Copy>(to: &mut [T], v: __m256i) {
    assert!(size_of_val(to) >= 32);
    // Safety: 32 bytes are there, and numbers may be any bytes: callers pass integers alone.
    unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), v) }
}

/// Results eight at a time. The product of a sum and a scale is below 2^46 in size; with a shift of 15 and
/// more a result fits 32 bits. AVX2 shifts 64-bit lanes only without sign: a bias of 2^62 makes them
/// positive, and comes off again after the shift, as far as it is within 32 bits.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn requantize(
    acc: &[i32],
    scales: &[u8],
    shift: i32,
    limit: i32,
    out: &mut [i32],
) -> u64 {
    let whole = if (15..=62).contains(&shift) {
        acc.len() / 8 * 8
    } else {
        0
    };
    let mut clamped = _mm256_setzero_si256();
    if whole > 0 {
        let by = _mm_cvtsi32_si128(shift);
        let bias = _mm256_set1_epi64x((1 << 62) + (1 << (shift - 1)));
        let unbias = _mm256_set1_epi32((1i64 << (62 - shift)) as i32);
        let (top, bottom) = (_mm256_set1_epi32(limit), _mm256_set1_epi32(-limit));
        let shifted = |product| _mm256_srl_epi64(_mm256_add_epi64(product, bias), by);
        let groups = acc
            .chunks_exact(8)
            .zip(scales.chunks_exact(16))
            .zip(out.chunks_exact_mut(8));
        for ((acc, a), out) in groups {
            let acc = load(acc);
            // Safety: a chunk of 16 bytes.
            let a = _mm256_cvtepu16_epi32(unsafe { _mm_loadu_si128(a.as_ptr().cast()) });
            let even = shifted(_mm256_mul_epi32(acc, a));
            let odd = shifted(_mm256_mul_epi32(
                _mm256_srli_epi64::<32>(acc),
                _mm256_srli_epi64::<32>(a),
            ));
            let y = _mm256_blend_epi32::<0b1010_1010>(even, _mm256_slli_epi64::<32>(odd));
            let y = _mm256_sub_epi32(y, unbias);
            let y = _mm256_max_epi32(_mm256_min_epi32(y, top), bottom);
            let at_limit = _mm256_cmpeq_epi32(_mm256_abs_epi32(y), top);
            clamped = _mm256_sub_epi32(clamped, at_limit);
            store(out, y);
        }
    }
    let mut lanes = [0i32; 8];
    store(&mut lanes, clamped);
    let clamped = lanes.iter().map(|lane| *lane as u64).sum::<u64>();
    if whole == acc.len() {
        return clamped;
    }
    let (scales, out) = (&scales[whole * 2..], &mut out[whole..]);
    clamped + portable::requantize(&acc[whole..], scales, shift, limit, out)
}
