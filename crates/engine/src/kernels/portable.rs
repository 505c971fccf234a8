//! Kernels in plain Rust, shaped so that a compiler can vectorize them.

use std::ops::Range;

use super::{Dots, ExpTable, Vectors};
use crate::layout::MatrixView;
use crate::ops::{attention, linear};

pub(super) fn row_sum(matrix: &MatrixView<'_>, row: usize, w: &mut [i16]) -> i64 {
    row_sum_body(matrix, row, w)
}

#[inline(always)]
pub(super) fn row_sum_body(matrix: &MatrixView<'_>, row: usize, w: &mut [i16]) -> i64 {
    matrix.row(row, w);
    // In chunks, so that sums of 16-bit magnitudes stay in 32 bits.
    w.chunks(4096)
        .map(|w| i64::from(w.iter().map(|w| u32::from(w.unsigned_abs())).sum::<u32>()))
        .sum()
}

pub(super) fn unpack(matrix: &MatrixView<'_>, row: usize, w: &mut [i16]) {
    matrix.row(row, w);
}

fn dot(x: &[i16], w: &[i16]) -> i32 {
    x.iter().zip(w).fold(0i32, |sum, (x, w)| {
        sum.wrapping_add(i32::from(*x) * i32::from(*w))
    })
}

pub(super) fn dots(task: Dots<'_>, out: &mut [i32], out_stride: usize) {
    let Dots {
        w,
        w_stride,
        rows,
        x,
        x_stride,
        count,
        len,
    } = task;
    for j in 0..count {
        let x = &x[j * x_stride..][..len];
        for i in 0..rows {
            out[j * out_stride + i] = dot(x, &w[i * w_stride..][..len]);
        }
    }
}

pub(super) fn gemv(
    matrix: &MatrixView<'_>,
    rows: Range<usize>,
    xs: &Vectors,
    acc: &mut [i32],
    tile: &mut Vec<i16>,
) {
    tile.resize(matrix.cols, 0);
    for (row, acc) in rows.zip(acc) {
        matrix.row(row, tile);
        *acc = dot(&xs.x, tile);
    }
}

pub(super) fn requantize(acc: &[i32], scales: &[u8], shift: i32, limit: i32, out: &mut [i32]) {
    for ((acc, a), y) in acc.iter().zip(scales.chunks_exact(2)).zip(out) {
        *y = linear::requantize(*acc, u16::from_le_bytes([a[0], a[1]]), shift, limit);
    }
}

pub(super) fn mix(p: &[i16], pairs: &[i16], out: &mut [i32]) {
    out.fill(0);
    for (p, v) in p.chunks_exact(2).zip(pairs.chunks_exact(2 * out.len())) {
        let (first, second) = (i32::from(p[0]), i32::from(p[1]));
        for (out, v) in out.iter_mut().zip(v.chunks_exact(2)) {
            let both = first * i32::from(v[0]) + second * i32::from(v[1]);
            *out = out.wrapping_add(both);
        }
    }
}

pub(super) fn exponentials(
    below: &[u32],
    (c, csh): (u32, i32),
    exp: &ExpTable,
    e: &mut [u32],
) -> u64 {
    let mut sum = 0;
    for (e, below) in e.iter_mut().zip(below) {
        *e = attention::exponential(attention::distance((*below).into(), c, csh), &exp.narrow);
        sum += u64::from(*e);
    }
    sum
}

pub(super) fn shares(e: &[u32], reciprocal: u64, p: &mut [i16]) {
    for (p, e) in p.iter_mut().zip(e) {
        *p = attention::share(*e, reciprocal) as i16;
    }
}
