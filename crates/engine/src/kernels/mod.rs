//! Fast forms of the operations, equal to `ops` bit for bit: one portable, one for AVX2, chosen when the
//! program runs. Dot products wrap at 32 bits, which is exact because the loader proved that the whole
//! sum fits; so blocks, lanes and threads may add in any order.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx2_keccak;
mod keccak;
mod portable;
mod vectors;

use std::ops::Range;

pub(crate) use keccak::{Hash, Message, hash_all};
pub(crate) use vectors::Vectors;

use crate::layout::MatrixView;
use crate::shared::Shared;

#[cfg(target_endian = "big")]
compile_error!("kernels read the model file in place, which is little-endian");

/// Which kernels run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Path {
    Portable,
    /// Made by [`Path::detect`] alone, on a CPU that has it.
    #[cfg(target_arch = "x86_64")]
    Avx2,
}

impl Path {
    pub(crate) fn detect() -> Path {
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx2") {
            return Path::Avx2;
        }
        Path::Portable
    }

    /// Runs `f` compiled for the path: plain code that is inlined into it may use wider registers.
    #[inline(always)]
    pub(crate) fn run<R>(self, f: impl FnOnce() -> R) -> R {
        match self {
            Path::Portable => f(),
            // Safety: `Path::Avx2` is made only where the CPU has AVX2.
            #[cfg(target_arch = "x86_64")]
            Path::Avx2 => unsafe { avx2::run(f) },
        }
    }
}

/// Calls the same function of the path's module.
macro_rules! on {
    ($path:expr, $function:ident($($argument:expr),*)) => {
        match $path {
            Path::Portable => portable::$function($($argument),*),
            // Safety: `Path::Avx2` is made only where the CPU has AVX2.
            #[cfg(target_arch = "x86_64")]
            Path::Avx2 => unsafe { avx2::$function($($argument),*) },
        }
    };
}

/// The row with the largest `Σ|w|`, and that sum.
pub(crate) fn largest_row_sum(matrix: &MatrixView<'_>) -> (usize, i64) {
    let mut w = vec![0; matrix.cols];
    let path = Path::detect();
    (0..matrix.rows)
        .map(|row| (row, on!(path, row_sum(matrix, row, &mut w))))
        .max_by_key(|(row, sum)| (*sum, std::cmp::Reverse(*row)))
        .unwrap_or((0, 0))
}

/// Plain weights of a row.
pub(crate) fn unpack(path: Path, matrix: &MatrixView<'_>, row: usize, w: &mut [i16]) {
    on!(path, unpack(matrix, row, w));
}

/// `out[j·out_stride + i] = Σ_k x[j·x_stride + k]·w[i·w_stride + k]` for `len` elements, a multiple of 16;
/// sums wrap.
#[derive(Clone, Copy)]
pub(crate) struct Dots<'a> {
    pub w: &'a [i16],
    pub w_stride: usize,
    pub rows: usize,
    pub x: &'a [i16],
    pub x_stride: usize,
    pub count: usize,
    pub len: usize,
}

pub(crate) fn dots(path: Path, task: Dots<'_>, out: &mut [i32], out_stride: usize) {
    let Dots {
        w,
        w_stride,
        rows,
        x,
        x_stride,
        count,
        len,
    } = task;
    assert!(rows > 0 && count > 0 && len.is_multiple_of(16));
    assert!((rows - 1) * w_stride + len <= w.len() && (count - 1) * x_stride + len <= x.len());
    assert!(rows <= out_stride && (count - 1) * out_stride + rows <= out.len());
    on!(path, dots(task, out, out_stride));
}

/// `Σ_j p[j]·v[j]` for every element of a head; `pairs` is the head's cache in its interleaved order
/// (see `cache`), `p` one share a position, each below 2^15.
pub(crate) fn mix(path: Path, p: &[i16], pairs: &[i16], out: &mut [i32]) {
    assert!(p.len().is_multiple_of(2) && out.len().is_multiple_of(16));
    assert!(p.len() * out.len() <= pairs.len());
    on!(path, mix(p, pairs, out));
}

/// The EXP table in the two widths that kernels read.
pub(crate) struct ExpTable {
    pub(crate) narrow: [u16; 256],
    wide: [u32; 256],
}

impl ExpTable {
    pub(crate) fn new(narrow: [u16; 256]) -> Self {
        ExpTable {
            narrow,
            wide: narrow.map(u32::from),
        }
    }
}

/// `exponential(distance(below))` of `ops::attention` for each score's distance below the largest; gives
/// their sum. As there, csh is within 0..=62 and c at most 2^24.
pub(crate) fn exponentials(
    path: Path,
    below: &[u32],
    (c, csh): (u32, i32),
    exp: &ExpTable,
    e: &mut [u32],
) -> u64 {
    assert!(below.len() == e.len() && (0..=62).contains(&csh) && c <= 1 << 24);
    on!(path, exponentials(below, (c, csh), exp, e))
}

/// `share` of `ops::attention` for each; none may come out as 2^15.
pub(crate) fn shares(path: Path, e: &[u32], reciprocal: u64, p: &mut [i16]) {
    assert!(e.len() == p.len() && reciprocal <= 1 << 30);
    on!(path, shares(e, reciprocal, p));
}

thread_local! {
    static TILE: std::cell::RefCell<(Vec<i16>, Vec<i32>)> = const { std::cell::RefCell::new((Vec::new(), Vec::new())) };
}

/// What a matrix product writes: where a token's outputs start, and how they are requantized.
pub(crate) struct Output<'a> {
    pub to: &'a Shared<'a, i32>,
    pub stride: usize,
    pub offset: usize,
    /// Before the token's exponent is taken off.
    pub shift: i32,
    pub limit: i32,
}

/// Rows `rows` of `matrix` against all `xs`, requantized; gives how many results stand at the limit.
///
/// # Safety
/// No other thread may touch these rows' outputs (`offset + rows` of each token) meanwhile.
pub(crate) unsafe fn matmul(
    path: Path,
    matrix: &MatrixView<'_>,
    rows: Range<usize>,
    xs: &Vectors,
    output: &Output<'_>,
) -> u64 {
    assert!(matrix.cols == xs.cols && rows.end <= matrix.rows);
    // Safety: the caller's, for this token's share of the rows.
    let slice = |token: usize, rows: Range<usize>| unsafe {
        let at = token * output.stride + output.offset;
        output.to.slice(at + rows.start..at + rows.end)
    };
    TILE.with_borrow_mut(|(tile, acc)| {
        if xs.count == 1 {
            acc.resize(rows.len(), 0);
            on!(path, gemv(matrix, rows.clone(), xs, acc, tile));
            let (scales, shift) = (matrix.scales(rows.clone()), output.shift - xs.e[0]);
            return requantize(path, acc, scales, shift, output.limit, slice(0, rows));
        }
        // A tile of plain weights that stays in the first-level cache.
        let tile_rows = (12_288 / matrix.cols).clamp(4, 16) & !3;
        tile.resize(tile_rows * matrix.cols, 0);
        acc.resize(tile_rows * xs.count, 0);
        let mut clamped = 0;
        for start in rows.clone().step_by(tile_rows) {
            let rows = start..(start + tile_rows).min(rows.end);
            for (row, w) in rows.clone().zip(tile.chunks_exact_mut(matrix.cols)) {
                unpack(path, matrix, row, w);
            }
            let task = Dots {
                w: tile,
                w_stride: matrix.cols,
                rows: rows.len(),
                x: &xs.x,
                x_stride: xs.cols,
                count: xs.count,
                len: xs.cols,
            };
            dots(path, task, acc, tile_rows);
            let scales = matrix.scales(rows.clone());
            for (token, acc) in acc.chunks_exact(tile_rows).take(xs.count).enumerate() {
                let (acc, shift) = (&acc[..rows.len()], output.shift - xs.e[token]);
                clamped += requantize(
                    path,
                    acc,
                    scales,
                    shift,
                    output.limit,
                    slice(token, rows.clone()),
                );
            }
        }
        clamped
    })
}

/// `ops::linear::requantize` over rows; `scales` are their A as little-endian `u16`.
pub(crate) fn requantize(
    path: Path,
    acc: &[i32],
    scales: &[u8],
    shift: i32,
    limit: i32,
    out: &mut [i32],
) -> u64 {
    assert!(acc.len() * 2 == scales.len() && acc.len() == out.len());
    on!(path, requantize(acc, scales, shift, limit, out));
    path.run(|| {
        out.iter()
            .map(|y| u32::from(y.abs() == limit))
            .sum::<u32>()
            .into()
    })
}

#[cfg(test)]
mod tests;
