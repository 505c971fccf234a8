//! The product with a single vector where the CPU has `sdot`: four products of bytes, summed in 32 bits.
//! With x = 32·h + l, h, l and every code are signed bytes. A strip's weights are of 16 bits, and the rest
//! is no product: both are as in `neon`.

use std::arch::aarch64::*;
use std::arch::asm;

use super::super::Single;
use super::gemv::{Sums, offset, plain, store};
use super::{QUARTER, factor, fifth, load};
use crate::layout::{BLOCK, Format, MatrixView, PANEL};

pub(in super::super) use super::strip;

#[target_feature(enable = "neon,dotprod")]
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

/// `sdot` with one group of four bytes of x: row by row, the products of its four codes. Spelled out, as
/// the compiler keeps the intrinsic to itself as yet.
#[target_feature(enable = "neon,dotprod")]
#[inline]
fn dot<const GROUP: usize>(mut sum: int32x4_t, q: uint8x16_t, x: uint8x16_t) -> int32x4_t {
    // Safety: registers alone, and the function's target has the instruction.
    unsafe {
        asm!("sdot {0:v}.4s, {1:v}.16b, {2:v}.4b[{3}]", inout(vreg) sum, in(vreg) q, in(vreg) x,
            const GROUP, options(pure, nomem, nostack, preserves_flags));
    }
    sum
}

/// Four lines of codes against sixteen bytes of x.
#[target_feature(enable = "neon,dotprod")]
#[inline]
fn dots(sum: int32x4_t, q: [uint8x16_t; 4], x: uint8x16_t) -> int32x4_t {
    let sum = dot::<1>(dot::<0>(sum, q[0], x), q[1], x);
    dot::<3>(dot::<2>(sum, q[2], x), q[3], x)
}

/// Both halves of a block's bytes.
#[target_feature(enable = "neon")]
#[inline]
fn block<T: Copy>(x: &[T]) -> [uint8x16_t; 2] {
    [load(x), load(&x[16..])]
}

/// Codes of four bits and an offset, or of five with 16 added.
#[target_feature(enable = "neon,dotprod")]
#[inline]
fn narrow<const FIVE: bool>(tiles: &[u8], xs: &Single<'_>) -> Sums {
    let format = if FIVE { Format::I5 } else { Format::U4 };
    let mut acc = [vdupq_n_s32(0); 4];
    let blocks = xs.split.blocks();
    for (tile, ((high, low), sum)) in tiles.chunks_exact(format.tile_len()).zip(blocks) {
        let (codes, factors) = tile.split_at(format.codes_len());
        let (high, low) = (block(high), block(low));
        let line = |quarter, line: usize| load(&codes[(line * 4 + quarter) * QUARTER..]);
        for (quarter, acc) in acc.iter_mut().enumerate() {
            let (mut sum_high, mut sum_low) = (vdupq_n_s32(0), vdupq_n_s32(0));
            let bytes = [0, 1, 2, 3].map(|number| line(quarter, number));
            let mut q = [
                bytes.map(|bytes| vandq_u8(bytes, vdupq_n_u8(15))),
                bytes.map(|bytes| vshrq_n_u8::<4>(bytes)),
            ];
            for (part, q) in q.iter_mut().enumerate() {
                if FIVE {
                    let fifths = line(quarter, 4);
                    for (number, q) in q.iter_mut().enumerate() {
                        *q = vorrq_u8(*q, fifth(fifths, 4 * part + number));
                    }
                }
                sum_high = dots(sum_high, *q, high[part]);
                sum_low = dots(sum_low, *q, low[part]);
            }
            let whole = vaddq_s32(vshlq_n_s32::<5>(sum_high), sum_low);
            *acc = vmlaq_s32(*acc, whole, vmovl_s16(factor(factors, quarter)));
            *acc = vmlaq_n_s32(*acc, offset::<FIVE>(factors, quarter), *sum);
        }
    }
    acc
}

/// Signed bytes, with one factor a block or two.
#[target_feature(enable = "neon,dotprod")]
#[inline]
fn bytes<const FACTORS: usize>(tiles: &[u8], xs: &Single<'_>) -> Sums {
    let format = match FACTORS {
        1 => Format::I8x32,
        _ => Format::I8x16,
    };
    let mut acc = [vdupq_n_s32(0); 4];
    let split = &xs.split;
    let blocks = split
        .high
        .chunks_exact(BLOCK)
        .zip(split.low.chunks_exact(BLOCK));
    for (tile, (high, low)) in tiles.chunks_exact(format.tile_len()).zip(blocks) {
        let (codes, factors) = tile.split_at(format.codes_len());
        let (high, low) = (block(high), block(low));
        for (quarter, acc) in acc.iter_mut().enumerate() {
            let d = |part: usize| vmovl_s16(factor(&factors[part * 2 * PANEL..], quarter));
            let (mut sum_high, mut sum_low) = (vdupq_n_s32(0), vdupq_n_s32(0));
            for part in 0..2 {
                let lines = [0, 1, 2, 3].map(|line| 4 * part + line);
                let q = lines.map(|line| load(&codes[(line * 4 + quarter) * QUARTER..]));
                sum_high = dots(sum_high, q, high[part]);
                sum_low = dots(sum_low, q, low[part]);
                // Both sixteens have a factor of their own, or one together.
                if part + 1 == 2 || FACTORS == 2 {
                    let whole = vaddq_s32(vshlq_n_s32::<5>(sum_high), sum_low);
                    *acc = vmlaq_s32(*acc, whole, d(part * (FACTORS - 1)));
                    (sum_high, sum_low) = (vdupq_n_s32(0), vdupq_n_s32(0));
                }
            }
        }
    }
    acc
}
