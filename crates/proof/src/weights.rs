//! A matrix of the model against the rows' weights of a random point: `Σ_r point(r)·A(r)·w(r, k)` for every
//! column k. Both sides need it, the verifier only where it holds the weights.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use assay_engine::values::{Constants, PANEL};
use assay_protocol::trace::MatrixRef;
use p3_field::{BasedVectorSpace, PrimeCharacteristicRing, PrimeField64};

use crate::field::{F, K};

/// Halves of 32 bits of both coordinates.
const HALVES: usize = 4;
/// Products of a half and a weight made unsigned stay below 2^48: so many rows fit 64 bits.
const ROWS_MAX: usize = 1 << 15;
const OFFSET: i32 = 1 << 15;

/// All of these matrices, each `rows × cols`, on as many threads.
pub(crate) fn contracted(
    constants: &Constants<'_>,
    matrices: &[(MatrixRef, usize, usize)],
    point: &[K],
    threads: usize,
) -> Vec<Vec<K>> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some((matrix, rows, cols)) = matrices.get(index) else {
                return done;
            };
            done.push((index, one(constants, *matrix, *rows, *cols, point)));
        }
    };
    let mut all = vec![Vec::new(); matrices.len()];
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            for (index, sums) in worker.join().expect("a sum of a matrix does not panic") {
                all[index] = sums;
            }
        }
    });
    all
}

fn halves(weight: K) -> [u32; HALVES] {
    let coordinates: &[F] = weight.as_basis_coefficients_slice();
    let [a, b] = [0, 1].map(|i| coordinates[i].as_canonical_u64());
    [a as u32, (a >> 32) as u32, b as u32, (b >> 32) as u32]
}

fn one(
    constants: &Constants<'_>,
    matrix: MatrixRef,
    rows: usize,
    cols: usize,
    point: &[K],
) -> Vec<K> {
    let mut all = vec![K::ZERO; cols];
    for first in (0..rows).step_by(ROWS_MAX) {
        let rows = first..rows.min(first + ROWS_MAX);
        for (all, sum) in all
            .iter_mut()
            .zip(some(constants, matrix, rows, cols, point))
        {
            *all += sum;
        }
    }
    all
}

/// Of at most [`ROWS_MAX`] rows, from a panel's first.
fn some(
    constants: &Constants<'_>,
    matrix: MatrixRef,
    rows: Range<usize>,
    cols: usize,
    point: &[K],
) -> Vec<K> {
    let mut sums = vec![0u64; HALVES * cols];
    let mut panel = vec![0i16; PANEL * cols];
    let mut total = K::ZERO;
    for number in rows.start / PANEL..rows.end.div_ceil(PANEL) {
        constants.panel(matrix, number, &mut panel);
        let first = number * PANEL;
        for (row, w) in (first..rows.end).zip(panel.chunks_exact(cols)) {
            let weight = point[row] * F::from_u16(constants.scale(matrix, row));
            total += weight;
            let halves = halves(weight);
            for (sums, half) in sums.chunks_exact_mut(cols).zip(halves) {
                add(sums, half, w);
            }
        }
    }
    // Each weight was made unsigned.
    let offset = total * F::from_i32(OFFSET);
    let value = |k: usize| {
        let half = |h: usize| F::from_u64(sums[h * cols + k]);
        let up = F::from_u64(1 << 32);
        K::new([half(0) + half(1) * up, half(2) + half(3) * up]) - offset
    };
    (0..cols).map(value).collect()
}

/// Adds `half·(w + 2^15)`: 32-bit factors, which every machine multiplies two or more at a time.
#[inline(always)]
fn add(sums: &mut [u64], half: u32, w: &[i16]) {
    for (sum, w) in sums.iter_mut().zip(w) {
        let w = (i32::from(*w) + OFFSET) as u32;
        *sum = sum.wrapping_add(u64::from(half).wrapping_mul(u64::from(w)));
    }
}
