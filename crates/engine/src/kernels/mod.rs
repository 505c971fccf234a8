//! Fast forms of the operations, equal to `ops` bit for bit: one portable, one for AVX2, one for AVX-512
//! with VNNI, one for NEON and one for it with `dotprod`, chosen when the program runs. Dot products wrap at 32 bits, which is exact because the loader
//! proved that the whole sum fits; so blocks, lanes and threads may add in any order.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod keccak;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;
mod vectors;

use std::ops::Range;

pub(crate) use keccak::{Hash, Message, hash_all};
use vectors::Single;
pub(crate) use vectors::Vectors;

use crate::layout::{BLOCK, MatrixView, PANEL};
use crate::shared::Shared;

#[cfg(target_endian = "big")]
compile_error!("kernels read the model file in place, which is little-endian");

/// Which kernels run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Path {
    Portable,
    /// Made by [`Path::all`] alone, on a CPU that has it.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// Likewise: AVX2 too, and of AVX-512 F, BW, VL and VNNI.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// On every CPU of this kind.
    #[cfg(target_arch = "aarch64")]
    Neon,
    /// Made by [`Path::all`] alone, on a CPU that has it.
    #[cfg(target_arch = "aarch64")]
    Dotprod,
}

impl Path {
    /// What this CPU can run, the fastest last.
    pub(crate) fn all() -> Vec<Path> {
        #[allow(unused_mut)]
        let mut paths = vec![Path::Portable];
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx2") {
            paths.push(Path::Avx2);
            if std::arch::is_x86_feature_detected!("avx512f")
                && std::arch::is_x86_feature_detected!("avx512bw")
                && std::arch::is_x86_feature_detected!("avx512vl")
                && std::arch::is_x86_feature_detected!("avx512vnni")
            {
                paths.push(Path::Avx512);
            }
        }
        #[cfg(target_arch = "aarch64")]
        {
            paths.push(Path::Neon);
            if std::arch::is_aarch64_feature_detected!("dotprod") {
                paths.push(Path::Dotprod);
            }
        }
        paths
    }

    pub(crate) fn detect() -> Path {
        Path::all().pop().unwrap_or(Path::Portable)
    }

    /// Runs `f` compiled for the path: plain code that is inlined into it may use wider registers.
    #[inline(always)]
    pub(crate) fn run<R>(self, f: impl FnOnce() -> R) -> R {
        match self {
            Path::Portable => f(),
            // Safety: these paths are made only where the CPU has AVX2.
            #[cfg(target_arch = "x86_64")]
            Path::Avx2 | Path::Avx512 => unsafe { avx2::run(f) },
            // Plain code is compiled for NEON as it is.
            #[cfg(target_arch = "aarch64")]
            Path::Neon | Path::Dotprod => f(),
        }
    }
}

/// Calls the same function of the path's module; for AVX-512 those of `avx2` where its registers gain
/// nothing, for `dotprod` likewise those of `neon`.
macro_rules! on {
    ($path:expr, $function:ident($($argument:expr),*)) => {
        match $path {
            Path::Portable => portable::$function($($argument),*),
            // Safety: these paths are made only where the CPU has AVX2.
            #[cfg(target_arch = "x86_64")]
            Path::Avx2 | Path::Avx512 => unsafe { avx2::$function($($argument),*) },
            // Safety: every CPU of this kind has NEON.
            #[cfg(target_arch = "aarch64")]
            Path::Neon | Path::Dotprod => unsafe { neon::$function($($argument),*) },
        }
    };
    (wide $path:expr, $function:ident($($argument:expr),*)) => {
        match $path {
            Path::Portable => portable::$function($($argument),*),
            // Safety: each path is made only where the CPU has what it names.
            #[cfg(target_arch = "x86_64")]
            Path::Avx2 => unsafe { avx2::$function($($argument),*) },
            #[cfg(target_arch = "x86_64")]
            Path::Avx512 => unsafe { avx512::$function($($argument),*) },
            #[cfg(target_arch = "aarch64")]
            Path::Neon => unsafe { neon::$function($($argument),*) },
            #[cfg(target_arch = "aarch64")]
            Path::Dotprod => unsafe { neon::dotprod::$function($($argument),*) },
        }
    };
}

/// Plain weights of a panel as a strip reads them: for each pair of columns, two weights of each of its
/// rows.
pub(crate) fn unpack(path: Path, matrix: &MatrixView<'_>, panel: usize, w: &mut [i16]) {
    assert!(w.len() == PANEL * matrix.cols);
    on!(path, unpack(matrix, panel, w));
}

/// As [`unpack`], row after row.
pub(crate) fn unpack_rows(path: Path, matrix: &MatrixView<'_>, panel: usize, rows: &mut [i16]) {
    assert!(rows.len() == PANEL * matrix.cols);
    let mut w = vec![0; rows.len()];
    unpack(path, matrix, panel, &mut w);
    for (pair, w) in w.chunks_exact(2 * PANEL).enumerate() {
        for (row, w) in rows.chunks_exact_mut(matrix.cols).zip(w.chunks_exact(2)) {
            row[2 * pair..2 * pair + 2].copy_from_slice(w);
        }
    }
}

/// `Σ|w|` of each row of a panel.
pub(crate) fn row_sums(path: Path, matrix: &MatrixView<'_>, panel: usize) -> [u64; PANEL] {
    TILE.with_borrow_mut(|(w, _)| {
        w.resize(PANEL * matrix.cols, 0);
        unpack(path, matrix, panel, w);
        let mut sums = [0; PANEL];
        // In stretches, so that sums of 16-bit magnitudes stay in 32 bits.
        for w in w.chunks(1024 * 2 * PANEL) {
            let part = path.run(|| {
                let mut part = [0u32; 2 * PANEL];
                for w in w.chunks_exact(2 * PANEL) {
                    for (sum, w) in part.iter_mut().zip(w) {
                        *sum += u32::from(w.unsigned_abs());
                    }
                }
                part
            });
            for (sum, pair) in sums.iter_mut().zip(part.chunks_exact(2)) {
                *sum += u64::from(pair[0]) + u64::from(pair[1]);
            }
        }
        sums
    })
}

/// Sixteen rows against vectors, both in pairs of elements: `out[j][r] = Σ_t w[t][r]·x[j][t]`, where pair t
/// of row r lies at `t·step + 2r` of `w`. Sums wrap.
#[derive(Clone, Copy)]
pub(crate) struct Strip<'a> {
    pub w: &'a [i16],
    pub step: usize,
    pub pairs: usize,
    pub x: &'a [i16],
    pub x_stride: usize,
    pub count: usize,
}

/// Vectors' results are `stride` apart; `add` adds to what is there.
pub(crate) fn strip(path: Path, task: Strip<'_>, out: &mut [i32], stride: usize, add: bool) {
    let Strip {
        w,
        step,
        pairs,
        x,
        x_stride,
        count,
    } = task;
    assert!(count > 0 && pairs > 0);
    assert!((pairs - 1) * step + 2 * PANEL <= w.len());
    assert!((count - 1) * x_stride + 2 * pairs <= x.len());
    assert!((count - 1) * stride + PANEL <= out.len());
    on!(wide path, strip(task, out, stride, add));
}

/// The EXP table in the two widths that kernels read.
pub(crate) struct ExpTable {
    pub(crate) narrow: [u16; 256],
    #[cfg(target_arch = "x86_64")]
    wide: [u32; 256],
}

impl ExpTable {
    pub(crate) fn new(narrow: [u16; 256]) -> Self {
        ExpTable {
            narrow,
            #[cfg(target_arch = "x86_64")]
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

/// The panels of `matrix` against all `xs`, requantized; gives how many results stand at the limit.
///
/// # Safety
/// No other thread may touch these panels' outputs (`offset` and their rows, of each token) meanwhile.
pub(crate) unsafe fn matmul(
    path: Path,
    matrix: &MatrixView<'_>,
    panels: Range<usize>,
    xs: &Vectors,
    output: &Output<'_>,
) -> u64 {
    assert!(matrix.cols == xs.cols && panels.end <= matrix.panels());
    TILE.with_borrow_mut(|(tile, acc)| {
        acc.resize(PANEL * xs.count, 0);
        let mut clamped = 0;
        for panel in panels {
            if xs.few() {
                for (token, acc) in acc.chunks_exact_mut(PANEL).enumerate() {
                    gemv(path, matrix, panel, &xs.single(token), acc);
                }
            } else {
                tile.resize(PANEL * matrix.cols, 0);
                unpack(path, matrix, panel, tile);
                let task = Strip {
                    w: tile,
                    step: 2 * PANEL,
                    pairs: matrix.cols / 2,
                    x: &xs.x,
                    x_stride: xs.cols,
                    count: xs.count,
                };
                strip(path, task, acc, PANEL, false);
            }
            let rows = panel * PANEL..matrix.rows.min((panel + 1) * PANEL);
            let scales = matrix.scales(rows.clone());
            // In one piece for the path: a token's sixteen results are too few for a call.
            clamped += path.run(|| {
                let mut clamped = 0;
                for (token, acc) in acc.chunks_exact(PANEL).enumerate() {
                    let at = token * output.stride + output.offset;
                    // Safety: the caller's, for this token's share of the rows.
                    let out = unsafe { output.to.slice(at + rows.start..at + rows.end) };
                    let (acc, shift) = (&acc[..rows.len()], output.shift - xs.e[token]);
                    clamped += requantize(path, acc, scales, shift, output.limit, out);
                }
                clamped
            });
        }
        clamped
    })
}

/// The halves and block sums of a vector (see [`vectors::Split`]).
fn split(path: Path, x: &[i16], high: &mut [i8], low: &mut [u8], sums: &mut [i32]) {
    assert!(x.len() == high.len() && x.len() == low.len() && x.len() == BLOCK * sums.len());
    on!(path, split(x, high, low, sums));
}

/// A panel, as it is packed, against a single vector.
fn gemv(path: Path, matrix: &MatrixView<'_>, panel: usize, xs: &Single<'_>, acc: &mut [i32]) {
    let (cols, split) = (matrix.cols, &xs.split);
    assert!(xs.x.len() == cols && acc.len() == PANEL && split.sums.len() == cols / BLOCK);
    assert!(split.high.len() == cols && split.low.len() == cols);
    on!(wide path, gemv(matrix, panel, xs, acc));
}

/// `ops::linear::requantize` over rows; `scales` are their A as little-endian `u16`. Gives how many results
/// stand at the limit.
#[inline(always)]
pub(crate) fn requantize(
    path: Path,
    acc: &[i32],
    scales: &[u8],
    shift: i32,
    limit: i32,
    out: &mut [i32],
) -> u64 {
    assert!(acc.len() * 2 == scales.len() && acc.len() == out.len());
    on!(path, requantize(acc, scales, shift, limit, out))
}

#[cfg(test)]
mod tests;
