//! Packed tiles as plain weights, in the order that a strip reads them.

use std::arch::x86_64::*;

use super::{load, store};
use crate::layout::{Format, MatrixView, PANEL};

/// Weights of a tile.
const TILE: usize = 32 * PANEL;
/// How far ahead of its use a tile is asked for.
const AHEAD: usize = 2048;
/// Bytes of a line that belong to eight rows.
const HALF: usize = 32;

#[target_feature(enable = "avx2")]
pub(in super::super) fn unpack(matrix: &MatrixView<'_>, panel: usize, w: &mut [i16]) {
    let (format, tiles) = (matrix.format, matrix.panel(panel));
    let tiles = tiles.chunks_exact(format.tile_len());
    for (tile, w) in tiles.zip(w.chunks_exact_mut(TILE)) {
        ahead(tile);
        let w = w.try_into().expect("a chunk has its length");
        let (codes, factors) = tile.split_at(format.codes_len());
        match format {
            Format::U4 => nibbles::<false>(codes, factors, w),
            Format::I5 => nibbles::<true>(codes, factors, w),
            Format::I8x32 => bytes(codes, factors, factors, w),
            Format::I8x16 => bytes(codes, factors, &factors[2 * PANEL..], w),
            Format::I16 => {
                for (w, line) in w.chunks_exact_mut(16).zip(codes.chunks_exact(HALF)) {
                    store(w, load(line));
                }
            }
        }
    }
}

/// Asks for the bytes that come so much later: tiles follow each other through the whole matrix, and the
/// hardware alone does not keep enough of them on their way. A hint only; nothing is read.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn ahead(tile: &[u8]) {
    for at in (0..tile.len()).step_by(64) {
        _mm_prefetch::<_MM_HINT_T0>(tile.as_ptr().wrapping_add(AHEAD + at).cast());
    }
}

/// A factor of eight rows, `i16` each, twice for each row.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn twice(factors: &[u8], half: usize) -> __m256i {
    let eight = &factors[half * PANEL..][..PANEL];
    // Safety: 16 bytes are there.
    let eight = unsafe { _mm_loadu_si128(eight.as_ptr().cast()) };
    let order = _mm256_setr_epi8(
        0, 1, 0, 1, 2, 3, 2, 3, 4, 5, 4, 5, 6, 7, 6, 7, 8, 9, 8, 9, 10, 11, 10, 11, 12, 13, 12, 13,
        14, 15, 14, 15,
    );
    _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(eight), order)
}

/// Even and odd bytes, widened with their sign.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn halves(bytes: __m256i) -> (__m256i, __m256i) {
    let even = _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(bytes));
    (even, _mm256_srai_epi16::<8>(bytes))
}

/// Bit `bit` of each byte as 16.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn fifth(bits: __m256i, bit: usize) -> __m256i {
    let moved = match bit {
        0 => _mm256_slli_epi16::<4>(bits),
        1 => _mm256_slli_epi16::<3>(bits),
        2 => _mm256_slli_epi16::<2>(bits),
        3 => _mm256_slli_epi16::<1>(bits),
        4 => bits,
        5 => _mm256_srli_epi16::<1>(bits),
        6 => _mm256_srli_epi16::<2>(bits),
        _ => _mm256_srli_epi16::<3>(bits),
    };
    _mm256_and_si256(moved, _mm256_set1_epi8(16))
}

/// Codes of four bits and an offset, or of five with 16 added.
#[target_feature(enable = "avx2")]
#[inline]
fn nibbles<const FIVE: bool>(codes: &[u8], factors: &[u8], w: &mut [i16; TILE]) {
    let nibble = _mm256_set1_epi8(15);
    let codes = &codes[..if FIVE { 5 } else { 4 } * 2 * HALF];
    for half in 0..2 {
        let d = twice(factors, half);
        // What a code's product is moved by: M, or the 16 that codes have added.
        let m = match FIVE {
            true => _mm256_sub_epi16(_mm256_setzero_si256(), _mm256_slli_epi16::<4>(d)),
            false => twice(&factors[2 * PANEL..], half),
        };
        for line in 0..4 {
            let bytes = load(&codes[(line * 2 + half) * HALF..]);
            let q = [
                _mm256_and_si256(bytes, nibble),
                _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), nibble),
            ];
            for (part, mut q) in q.into_iter().enumerate() {
                if FIVE {
                    let fifths = load(&codes[(4 * 2 + half) * HALF..]);
                    q = _mm256_or_si256(q, fifth(fifths, 4 * part + line));
                }
                // Codes are not negative: widening them needs no sign.
                let even = _mm256_and_si256(q, _mm256_set1_epi16(255));
                let odd = _mm256_srli_epi16::<8>(q);
                let at = (part * 8 + line * 2) * 2 * PANEL + half * PANEL;
                let weights = |q| _mm256_add_epi16(_mm256_mullo_epi16(q, d), m);
                store(&mut w[at..], weights(even));
                store(&mut w[at + 2 * PANEL..], weights(odd));
            }
        }
    }
}

/// Signed bytes; the factors of the first sixteen columns and of the others.
#[target_feature(enable = "avx2")]
#[inline]
fn bytes(codes: &[u8], first: &[u8], second: &[u8], w: &mut [i16; TILE]) {
    let codes = &codes[..8 * 2 * HALF];
    for half in 0..2 {
        let d = [twice(first, half), twice(second, half)];
        for line in 0..8 {
            let (even, odd) = halves(load(&codes[(line * 2 + half) * HALF..]));
            let at = line * 4 * PANEL + half * PANEL;
            store(&mut w[at..], _mm256_mullo_epi16(even, d[line / 4]));
            store(
                &mut w[at + 2 * PANEL..],
                _mm256_mullo_epi16(odd, d[line / 4]),
            );
        }
    }
}
