//! Packed tiles as plain weights, in the order that a strip reads them.

use std::arch::aarch64::*;

use super::{QUARTER, ROWS, factor, fifth, halves, load};
use crate::layout::{Format, MatrixView, PANEL};

/// Weights of a tile.
const TILE: usize = 32 * PANEL;
/// A line holds four of these.
const QUARTERS: usize = PANEL / ROWS;

#[target_feature(enable = "neon")]
pub(in super::super) fn unpack(matrix: &MatrixView<'_>, panel: usize, w: &mut [i16]) {
    let (format, tiles) = (matrix.format, matrix.panel(panel));
    let tiles = tiles.chunks_exact(format.tile_len());
    for (tile, w) in tiles.zip(w.chunks_exact_mut(TILE)) {
        let w = w.try_into().expect("a chunk has its length");
        let (codes, factors) = tile.split_at(format.codes_len());
        match format {
            Format::U4 => nibbles::<false>(codes, factors, w),
            Format::I5 => nibbles::<true>(codes, factors, w),
            Format::I8x32 => bytes(codes, factors, factors, w),
            Format::I8x16 => bytes(codes, factors, &factors[2 * PANEL..], w),
            Format::I16 => {
                for (w, part) in w.chunks_exact_mut(8).zip(codes.chunks_exact(16)) {
                    store(w, vreinterpretq_s16_u8(load(part)));
                }
            }
        }
    }
}

#[target_feature(enable = "neon")]
#[inline]
fn store(w: &mut [i16], v: int16x8_t) {
    assert!(w.len() >= 8);
    // Safety: eight are there.
    unsafe { vst1q_s16(w.as_mut_ptr(), v) }
}

/// A factor of four rows, twice for each row.
#[target_feature(enable = "neon")]
#[inline]
fn twice(factors: &[u8], quarter: usize) -> int16x8_t {
    let four = factor(factors, quarter);
    vcombine_s16(vzip1_s16(four, four), vzip2_s16(four, four))
}

/// Codes of four bits and an offset, or of five with 16 added.
#[target_feature(enable = "neon")]
#[inline]
fn nibbles<const FIVE: bool>(codes: &[u8], factors: &[u8], w: &mut [i16; TILE]) {
    let codes = &codes[..if FIVE { 5 } else { 4 } * QUARTERS * QUARTER];
    for quarter in 0..QUARTERS {
        let d = twice(factors, quarter);
        // What a code's product is moved by: M, or the 16 that codes have added.
        let m = match FIVE {
            true => vnegq_s16(vshlq_n_s16::<4>(d)),
            false => twice(&factors[2 * PANEL..], quarter),
        };
        for line in 0..4 {
            let bytes = load(&codes[(line * QUARTERS + quarter) * QUARTER..]);
            let q = [vandq_u8(bytes, vdupq_n_u8(15)), vshrq_n_u8::<4>(bytes)];
            for (part, mut q) in q.into_iter().enumerate() {
                if FIVE {
                    let fifths = load(&codes[(4 * QUARTERS + quarter) * QUARTER..]);
                    q = vorrq_u8(q, fifth(fifths, 4 * part + line));
                }
                // Codes are not negative: widening them needs no sign.
                let q = vreinterpretq_u16_u8(q);
                let even = vreinterpretq_s16_u16(vandq_u16(q, vdupq_n_u16(255)));
                let odd = vreinterpretq_s16_u16(vshrq_n_u16::<8>(q));
                let at = (part * 8 + line * 2) * 2 * PANEL + quarter * 2 * ROWS;
                store(&mut w[at..], vmlaq_s16(m, even, d));
                store(&mut w[at + 2 * PANEL..], vmlaq_s16(m, odd, d));
            }
        }
    }
}

/// Signed bytes; the factors of the first sixteen columns and of the others.
#[target_feature(enable = "neon")]
#[inline]
fn bytes(codes: &[u8], first: &[u8], second: &[u8], w: &mut [i16; TILE]) {
    let codes = &codes[..8 * QUARTERS * QUARTER];
    for quarter in 0..QUARTERS {
        let d = [twice(first, quarter), twice(second, quarter)];
        for line in 0..8 {
            let (even, odd) = halves(load(&codes[(line * QUARTERS + quarter) * QUARTER..]));
            let at = line * 4 * PANEL + quarter * 2 * ROWS;
            store(&mut w[at..], vmulq_s16(even, d[line / 4]));
            store(&mut w[at + 2 * PANEL..], vmulq_s16(odd, d[line / 4]));
        }
    }
}
