//! Kernels in plain Rust, shaped so that a compiler can vectorize them.

use super::{ExpTable, Single, Strip};
use crate::layout::{MatrixView, PANEL};
use crate::ops::{attention, linear};

pub(super) fn unpack(matrix: &MatrixView<'_>, panel: usize, w: &mut [i16]) {
    for (pair, w) in w.chunks_exact_mut(2 * PANEL).enumerate() {
        for (lane, w) in w.chunks_exact_mut(2).enumerate() {
            let row = panel * PANEL + lane;
            let (d, m) = matrix.factors(row, 2 * pair);
            for (i, w) in w.iter_mut().enumerate() {
                let code = matrix.code(row, 2 * pair + i);
                *w = d.wrapping_mul(code).wrapping_add(m);
            }
        }
    }
}

pub(super) fn strip(task: Strip<'_>, out: &mut [i32], stride: usize, add: bool) {
    for j in 0..task.count {
        let x = &task.x[j * task.x_stride..][..2 * task.pairs];
        let out = &mut out[j * stride..][..PANEL];
        let mut acc = [0i32; PANEL];
        if add {
            acc.copy_from_slice(out);
        }
        for (t, x) in x.chunks_exact(2).enumerate() {
            let w = &task.w[t * task.step..][..2 * PANEL];
            let (first, second) = (i32::from(x[0]), i32::from(x[1]));
            for (acc, w) in acc.iter_mut().zip(w.chunks_exact(2)) {
                let both = (i32::from(w[0]) * first).wrapping_add(i32::from(w[1]) * second);
                *acc = acc.wrapping_add(both);
            }
        }
        out.copy_from_slice(&acc);
    }
}

pub(super) fn split(x: &[i16], high: &mut [i8], low: &mut [u8], sums: &mut [i32]) {
    let bytes = high.chunks_exact_mut(4).zip(low.chunks_exact_mut(4));
    for (x, (high, low)) in x.chunks_exact(4).zip(bytes) {
        for (to, from) in [0, 2, 1, 3].into_iter().enumerate() {
            high[to] = (x[from] >> 5) as i8;
            low[to] = (x[from] & 31) as u8;
        }
    }
    for (sum, x) in sums.iter_mut().zip(x.chunks_exact(32)) {
        *sum = x.iter().map(|x| i32::from(*x)).sum();
    }
}

pub(super) fn gemv(matrix: &MatrixView<'_>, panel: usize, xs: &Single<'_>, acc: &mut [i32]) {
    let mut w = vec![0; PANEL * matrix.cols];
    unpack(matrix, panel, &mut w);
    let task = Strip {
        w: &w,
        step: 2 * PANEL,
        pairs: matrix.cols / 2,
        x: xs.x,
        x_stride: matrix.cols,
        count: 1,
    };
    strip(task, acc, PANEL, false);
}

pub(super) fn requantize(
    acc: &[i32],
    scales: &[u8],
    shift: i32,
    limit: i32,
    out: &mut [i32],
) -> u64 {
    let mut clamped = 0;
    for ((acc, a), y) in acc.iter().zip(scales.chunks_exact(2)).zip(out) {
        *y = linear::requantize(*acc, u16::from_le_bytes([a[0], a[1]]), shift, limit);
        clamped += u64::from(y.abs() == limit);
    }
    clamped
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
