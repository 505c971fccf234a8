//! A vector in the two halves that packed weights are multiplied with.

use std::arch::x86_64::*;

use super::{load, store};

/// 32 columns at a time: high and low bytes are picked out of 16 bits in the order of a line.
#[target_feature(enable = "avx2")]
pub(in super::super) fn split(x: &[i16], high: &mut [i8], low: &mut [u8], sums: &mut [i32]) {
    let first = _mm256_broadcastsi128_si256(_mm_setr_epi8(
        0, 4, 2, 6, 8, 12, 10, 14, -1, -1, -1, -1, -1, -1, -1, -1,
    ));
    let second = _mm256_broadcastsi128_si256(_mm_setr_epi8(
        -1, -1, -1, -1, -1, -1, -1, -1, 0, 4, 2, 6, 8, 12, 10, 14,
    ));
    // Sixteen columns' bytes stand in the lower halves of both lanes, the others' in the upper ones.
    let pack = |a, b| {
        let bytes = _mm256_or_si256(
            _mm256_shuffle_epi8(a, first),
            _mm256_shuffle_epi8(b, second),
        );
        _mm256_permute4x64_epi64::<0b11_01_10_00>(bytes)
    };
    let (ones, mask) = (_mm256_set1_epi16(1), _mm256_set1_epi16(31));
    let halves = high.chunks_exact_mut(32).zip(low.chunks_exact_mut(32));
    for ((x, (high, low)), sum) in x.chunks_exact(32).zip(halves).zip(sums) {
        let (a, b) = (load(x), load(&x[16..]));
        store(
            high,
            pack(_mm256_srai_epi16::<5>(a), _mm256_srai_epi16::<5>(b)),
        );
        store(
            low,
            pack(_mm256_and_si256(a, mask), _mm256_and_si256(b, mask)),
        );
        let pairs = _mm256_add_epi32(_mm256_madd_epi16(a, ones), _mm256_madd_epi16(b, ones));
        let mut lanes = [0i32; 8];
        store(&mut lanes, pairs);
        *sum = lanes.iter().sum();
    }
}
