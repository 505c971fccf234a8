//! Packed weights against the vector of a decoding step: sixteen rows side by side, four a register. The
//! sums of a block are multiplied by its factor.
//!
//! With x = 32·h + l, codes of up to five bits times h or l are summed in 16 bits, a byte's products apart:
//! a block brings eight, of 31·64 at most; two such sums together are at most 31,744.

use std::arch::aarch64::*;

use super::super::Single;
use super::strip::{both, pair};
use super::{QUARTER, ROWS, factor, fifth, halves, load};
use crate::layout::{BLOCK, Format, MatrixView, PANEL};

/// One sum a row.
pub(super) type Sums = [int32x4_t; PANEL / ROWS];

#[target_feature(enable = "neon")]
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
    store(acc, sums);
}

#[target_feature(enable = "neon")]
#[inline]
pub(super) fn store(acc: &mut [i32], sums: Sums) {
    assert!(acc.len() == PANEL);
    for (acc, sum) in acc.chunks_exact_mut(ROWS).zip(sums) {
        // Safety: a chunk of four.
        unsafe { vst1q_s32(acc.as_mut_ptr(), sum) };
    }
}

/// What each element of x is multiplied with besides its code, in codes of four bits and of five: M, or
/// the 16 that codes have added.
#[target_feature(enable = "neon")]
#[inline]
pub(super) fn offset<const FIVE: bool>(factors: &[u8], quarter: usize) -> int32x4_t {
    match FIVE {
        true => vnegq_s32(vshll_n_s16::<4>(factor(factors, quarter))),
        false => vmovl_s16(factor(&factors[2 * PANEL..], quarter)),
    }
}

/// The four bytes from the `at`-th on, to every lane of 32 bits.
#[target_feature(enable = "neon")]
#[inline]
fn spread<T: Copy>(x: &[T], at: usize) -> int8x16_t {
    let four = &x[at..][..4 / size_of::<T>()];
    // Safety: four bytes are there, and an i32 may be any bytes.
    let four = unsafe { four.as_ptr().cast::<i32>().read_unaligned() };
    vreinterpretq_s8_s32(vdupq_n_s32(four))
}

/// Codes of four bits and an offset, or of five with 16 added.
#[target_feature(enable = "neon")]
#[inline]
fn narrow<const FIVE: bool>(tiles: &[u8], xs: &Single<'_>) -> Sums {
    let format = if FIVE { Format::I5 } else { Format::U4 };
    let mut acc = [vdupq_n_s32(0); 4];
    let blocks = xs.split.blocks();
    for (tile, ((high, low), sum)) in tiles.chunks_exact(format.tile_len()).zip(blocks) {
        let (codes, factors) = tile.split_at(format.codes_len());
        let lines = |quarter, line: usize| load(&codes[(line * 4 + quarter) * QUARTER..]);
        for (quarter, acc) in acc.iter_mut().enumerate() {
            // A byte's products with h, with l: of the first two rows, of the others.
            let mut sums = [[vdupq_n_s16(0); 2]; 2];
            for number in 0..4 {
                let bytes = lines(quarter, number);
                let q = [vandq_u8(bytes, vdupq_n_u8(15)), vshrq_n_u8::<4>(bytes)];
                for (part, mut q) in q.into_iter().enumerate() {
                    if FIVE {
                        q = vorrq_u8(q, fifth(lines(quarter, 4), 4 * part + number));
                    }
                    let (q, at) = (vreinterpretq_s8_u8(q), part * 16 + number * 4);
                    for (sums, x) in sums.iter_mut().zip([spread(high, at), spread(low, at)]) {
                        sums[0] = vmlal_s8(sums[0], vget_low_s8(q), vget_low_s8(x));
                        sums[1] = vmlal_high_s8(sums[1], q, x);
                    }
                }
            }
            let [high, low] = sums.map(|[first, second]| vpaddlq_s16(vpaddq_s16(first, second)));
            let whole = vaddq_s32(vshlq_n_s32::<5>(high), low);
            *acc = vmlaq_s32(*acc, whole, vmovl_s16(factor(factors, quarter)));
            *acc = vmlaq_n_s32(*acc, offset::<FIVE>(factors, quarter), *sum);
        }
    }
    acc
}

/// Signed bytes, with one factor a block or two, widened to 16 bits.
#[target_feature(enable = "neon")]
#[inline]
fn bytes<const FACTORS: usize>(tiles: &[u8], xs: &Single<'_>) -> Sums {
    let format = match FACTORS {
        1 => Format::I8x32,
        _ => Format::I8x16,
    };
    let mut acc = [vdupq_n_s32(0); 4];
    let tiles = tiles.chunks_exact(format.tile_len());
    for (tile, x) in tiles.zip(xs.x.chunks_exact(BLOCK)) {
        let (codes, factors) = tile.split_at(format.codes_len());
        for part in 0..FACTORS {
            let lines = 8 / FACTORS;
            for (quarter, acc) in acc.iter_mut().enumerate() {
                // Of the first two rows, of the others; even columns and odd ones apart.
                let mut sums = [vdupq_n_s32(0); 2];
                for number in part * lines..(part + 1) * lines {
                    let (even, odd) = halves(load(&codes[(number * 4 + quarter) * QUARTER..]));
                    for (q, at) in [(even, number * 4), (odd, number * 4 + 2)] {
                        let x = vreinterpretq_s16_s8(spread(x, at));
                        sums[0] = vmlal_s16(sums[0], vget_low_s16(q), vget_low_s16(x));
                        sums[1] = vmlal_high_s16(sums[1], q, x);
                    }
                }
                let d = vmovl_s16(factor(&factors[part * 2 * PANEL..], quarter));
                *acc = vmlaq_s32(*acc, vpaddq_s32(sums[0], sums[1]), d);
            }
        }
    }
    acc
}

/// Weights as they are.
#[target_feature(enable = "neon")]
#[inline]
pub(super) fn plain(tiles: &[u8], xs: &Single<'_>) -> Sums {
    let mut acc = [[vdupq_n_s32(0); 4]];
    for (codes, x) in tiles.chunks_exact(4 * PANEL).zip(xs.x.chunks_exact(2)) {
        // Safety: a line and a pair of elements.
        unsafe { pair(&mut acc, codes.as_ptr().cast(), [both(x.as_ptr())]) };
    }
    acc[0]
}
