//! Packed weights against the vector of a decoding step: eight rows side by side, codes never widened to
//! weights where that costs more than it saves. The sums of a block are multiplied by its factor.
//!
//! With x = 32·h + l, codes of up to five bits times h or l are summed in 16 bits: `vpmaddubsw` gives
//! |q·h + q·h| ≤ 2·31·64, and eight such are at most 31,744.

use std::arch::x86_64::*;

use super::super::Single;
use super::store;
use super::unpack::{ahead, fifth, halves, twice};
use crate::layout::{BLOCK, Format, MatrixView, PANEL};

/// Bytes of a line that belong to eight rows.
const HALF: usize = 32;

#[target_feature(enable = "avx2")]
pub(in super::super) fn gemv(
    matrix: &MatrixView<'_>,
    panel: usize,
    xs: &Single<'_>,
    acc: &mut [i32],
) {
    let tiles = matrix.panel(panel);
    let sums = match matrix.format {
        Format::U4 => narrow::<false>(tiles, xs),
        Format::I5 => narrow::<true>(tiles, xs),
        Format::I8x32 => bytes::<1>(tiles, xs),
        Format::I8x16 => bytes::<2>(tiles, xs),
        Format::I16 => plain(tiles, xs),
    };
    store(acc, sums[0]);
    store(&mut acc[PANEL / 2..], sums[1]);
}

/// A factor of eight rows as `i32`.
#[target_feature(enable = "avx2")]
#[inline]
fn wide(factors: &[u8], half: usize) -> __m256i {
    let eight = &factors[half * PANEL..][..PANEL];
    // Safety: 16 bytes are there.
    _mm256_cvtepi16_epi32(unsafe { _mm_loadu_si128(eight.as_ptr().cast()) })
}

/// The eight rows' bytes of a line.
///
/// # Safety
/// The line must be one of the tile's codes.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn line(codes: &[u8], line: usize, half: usize) -> __m256i {
    debug_assert!((line * 2 + half + 1) * HALF <= codes.len());
    // Safety: the caller's.
    unsafe { _mm256_loadu_si256(codes.as_ptr().add((line * 2 + half) * HALF).cast()) }
}

/// The four bytes from the `at`-th element on, to every lane of 32 bits.
///
/// # Safety
/// They must be there.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn spread<T>(x: &[T], at: usize) -> __m256i {
    debug_assert!(at + 4 / size_of::<T>() <= x.len());
    // Safety: the caller's, and an i32 may be any bytes.
    _mm256_set1_epi32(unsafe { x.as_ptr().add(at).cast::<i32>().read_unaligned() })
}

/// Codes of four bits and an offset, or of five with 16 added.
#[target_feature(enable = "avx2")]
#[inline]
fn narrow<const FIVE: bool>(tiles: &[u8], xs: &Single<'_>) -> [__m256i; 2] {
    let format = if FIVE { Format::I5 } else { Format::U4 };
    let nibble = _mm256_set1_epi8(15);
    let zero = _mm256_setzero_si256();
    let (mut acc_high, mut acc_low) = ([zero; 2], [zero; 2]);
    let blocks = xs.split.blocks();
    for (tile, ((high, low), sum)) in tiles.chunks_exact(format.tile_len()).zip(blocks) {
        ahead(tile);
        let (codes, factors) = tile.split_at(format.codes_len());
        let (mut sum_high, mut sum_low) = ([zero; 2], [zero; 2]);
        for number in 0..4 {
            // Safety, here and below: a tile has four lines of codes, five with the fifth bits, and a block
            // of x has 32 elements.
            let h = unsafe { [spread(high, number * 4), spread(high, 16 + number * 4)] };
            let l = unsafe { [spread(low, number * 4), spread(low, 16 + number * 4)] };
            for half in 0..2 {
                let bytes = unsafe { line(codes, number, half) };
                let mut q = [
                    _mm256_and_si256(bytes, nibble),
                    _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), nibble),
                ];
                for (part, q) in q.iter_mut().enumerate() {
                    if FIVE {
                        let fifths = unsafe { line(codes, 4, half) };
                        *q = _mm256_or_si256(*q, fifth(fifths, 4 * part + number));
                    }
                    let (h, l) = (
                        _mm256_maddubs_epi16(*q, h[part]),
                        _mm256_maddubs_epi16(*q, l[part]),
                    );
                    sum_high[half] = _mm256_add_epi16(sum_high[half], h);
                    sum_low[half] = _mm256_add_epi16(sum_low[half], l);
                }
            }
        }
        for half in 0..2 {
            let d = twice(factors, half);
            // What each element of x is multiplied with besides its code: M, or the 16 that codes have
            // added.
            let offset = match FIVE {
                true => _mm256_slli_epi32::<4>(_mm256_sub_epi32(zero, wide(factors, half))),
                false => wide(&factors[2 * PANEL..], half),
            };
            let rest = _mm256_mullo_epi32(offset, _mm256_set1_epi32(*sum));
            let low = _mm256_add_epi32(_mm256_madd_epi16(sum_low[half], d), rest);
            acc_low[half] = _mm256_add_epi32(acc_low[half], low);
            let high = _mm256_madd_epi16(sum_high[half], d);
            acc_high[half] = _mm256_add_epi32(acc_high[half], high);
        }
    }
    let whole = |half: usize| {
        let high = _mm256_slli_epi32::<5>(acc_high[half]);
        _mm256_add_epi32(high, acc_low[half])
    };
    [whole(0), whole(1)]
}

/// Signed bytes, with one factor a block or two.
#[target_feature(enable = "avx2")]
#[inline]
fn bytes<const FACTORS: usize>(tiles: &[u8], xs: &Single<'_>) -> [__m256i; 2] {
    let format = match FACTORS {
        1 => Format::I8x32,
        _ => Format::I8x16,
    };
    let zero = _mm256_setzero_si256();
    let mut acc = [zero; 2];
    let tiles = tiles.chunks_exact(format.tile_len());
    for (tile, x) in tiles.zip(xs.x.chunks_exact(BLOCK)) {
        ahead(tile);
        let (codes, factors) = tile.split_at(format.codes_len());
        for part in 0..FACTORS {
            let mut sums = [zero; 2];
            let lines = 8 / FACTORS;
            for number in part * lines..(part + 1) * lines {
                // Safety, here and below: a tile has eight lines of codes, and a block of x has 32 elements.
                let x = unsafe { [spread(x, number * 4), spread(x, number * 4 + 2)] };
                for (half, sum) in sums.iter_mut().enumerate() {
                    let (even, odd) = halves(unsafe { line(codes, number, half) });
                    *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(even, x[0]));
                    *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(odd, x[1]));
                }
            }
            for (half, (acc, sum)) in acc.iter_mut().zip(sums).enumerate() {
                let d = wide(&factors[part * 2 * PANEL..], half);
                *acc = _mm256_add_epi32(*acc, _mm256_mullo_epi32(sum, d));
            }
        }
    }
    acc
}

/// Weights as they are.
#[target_feature(enable = "avx2")]
#[inline]
fn plain(tiles: &[u8], xs: &Single<'_>) -> [__m256i; 2] {
    let mut acc = [_mm256_setzero_si256(); 2];
    for (codes, x) in tiles.chunks_exact(2 * HALF).zip(xs.x.chunks_exact(2)) {
        for (half, acc) in acc.iter_mut().enumerate() {
            // Safety: a line and a pair of elements.
            let (w, both) = unsafe { (line(codes, 0, half), spread(x, 0)) };
            *acc = _mm256_add_epi32(*acc, _mm256_madd_epi16(w, both));
        }
    }
    acc
}
