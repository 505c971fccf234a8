//! The softmax in powers of two for AVX2. `unsafe` only in that the CPU must have it.

use std::arch::x86_64::*;

use super::super::{ExpTable, portable};

/// Eight `u32` products with a factor below 2^31, rounded and shifted: even lanes, odd lanes.
#[target_feature(enable = "avx2")]
#[inline]
fn scaled(v: __m256i, factor: __m256i, half: __m256i, by: __m128i) -> (__m256i, __m256i) {
    let even = _mm256_mul_epu32(v, factor);
    let odd = _mm256_mul_epu32(_mm256_srli_epi64::<32>(v), factor);
    let shifted = |product| _mm256_srl_epi64(_mm256_add_epi64(product, half), by);
    (shifted(even), shifted(odd))
}

#[target_feature(enable = "avx2")]
pub(in super::super) fn exponentials(
    below: &[u32],
    (c, csh): (u32, i32),
    exp: &ExpTable,
    e: &mut [u32],
) -> u64 {
    let whole = below.len() / 8 * 8;
    let (factor, by) = (_mm256_set1_epi64x(c.into()), _mm_cvtsi32_si128(csh));
    let half = _mm256_set1_epi64x((1 << csh) >> 1);
    // 16 octaves of 256 steps; what is further down is nothing.
    let end = _mm256_set1_epi64x(16 << 8);
    let mut total = 0;
    // Sums of 4096 values up to 2^15 stay in 32 bits.
    for (below, e) in below[..whole].chunks(4096).zip(e[..whole].chunks_mut(4096)) {
        let mut sum = _mm256_setzero_si256();
        for (below, e) in below.chunks_exact(8).zip(e.chunks_exact_mut(8)) {
            // Safety: chunks of 8.
            let v = unsafe { _mm256_loadu_si256(below.as_ptr().cast()) };
            let (even, odd) = scaled(v, factor, half, by);
            let (near_even, near_odd) =
                (_mm256_cmpgt_epi64(end, even), _mm256_cmpgt_epi64(end, odd));
            let near = _mm256_blend_epi32::<0b1010_1010>(near_even, near_odd);
            let t = _mm256_or_si256(
                _mm256_and_si256(even, near_even),
                _mm256_slli_epi64::<32>(_mm256_and_si256(odd, near_odd)),
            );
            let octaves = _mm256_srli_epi32::<8>(t);
            let at = _mm256_and_si256(t, _mm256_set1_epi32(255));
            // Safety: indices are below 256.
            let table = unsafe { _mm256_i32gather_epi32::<4>(exp.wide.as_ptr().cast(), at) };
            let half = _mm256_srli_epi32::<1>(_mm256_sllv_epi32(_mm256_set1_epi32(1), octaves));
            let value = _mm256_srlv_epi32(_mm256_add_epi32(table, half), octaves);
            let value = _mm256_and_si256(value, near);
            sum = _mm256_add_epi32(sum, value);
            // Safety: chunks of 8.
            unsafe { _mm256_storeu_si256(e.as_mut_ptr().cast(), value) };
        }
        let mut lanes = [0u32; 8];
        // Safety: eight lanes.
        unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), sum) };
        total += lanes.iter().map(|lane| u64::from(*lane)).sum::<u64>();
    }
    total + portable::exponentials(&below[whole..], (c, csh), exp, &mut e[whole..])
}

#[target_feature(enable = "avx2")]
pub(in super::super) fn shares(e: &[u32], reciprocal: u64, p: &mut [i16]) {
    let whole = e.len() / 8 * 8;
    let (factor, by) = (_mm256_set1_epi64x(reciprocal as i64), _mm_cvtsi32_si128(30));
    let half = _mm256_set1_epi64x(1 << 29);
    for (e, p) in e[..whole]
        .chunks_exact(8)
        .zip(p[..whole].chunks_exact_mut(8))
    {
        // Safety: chunks of 8.
        let v = unsafe { _mm256_loadu_si256(e.as_ptr().cast()) };
        let (even, odd) = scaled(v, factor, half, by);
        let v = _mm256_or_si256(even, _mm256_slli_epi64::<32>(odd));
        let packed = _mm256_permute4x64_epi64::<0b1000>(_mm256_packus_epi32(v, v));
        // Safety: chunks of 8.
        unsafe { _mm_storeu_si128(p.as_mut_ptr().cast(), _mm256_castsi256_si128(packed)) };
    }
    portable::shares(&e[whole..], reciprocal, &mut p[whole..]);
}
