//! Products of 32-bit floats for the reference: `y[t][r] = Σ_k x[t][k]·w[r][k]`, with the weights
//! unpacked from the GGUF a few rows at a time. For the quality report alone: sums are in whatever
//! order is quick, so nothing here is exact, and nothing exact may use it.

use crate::gguf::{Gguf, TensorInfo};
use crate::parallel::over_ranges;

/// Rows and tokens whose products are summed together: twelve sums fill the registers.
const ROWS: usize = 4;
const TOKENS: usize = 3;
const LANES: usize = 8;

/// Multiplies vectors of the tensor's row length, one after the other in `x`, by the whole tensor.
pub(super) fn multiply(gguf: &Gguf, tensor: &TensorInfo, x: &[f32]) -> Vec<f32> {
    let (rows, cols) = (tensor.rows(), tensor.columns());
    let tokens = x.len() / cols;
    // Each range comes as [row][token]; the result is wanted as [token][row].
    let parts = over_ranges(rows, |range| {
        let mut part = vec![0.0; range.len() * tokens];
        let mut weights = Vec::new();
        for (out, start) in part
            .chunks_mut(ROWS * tokens)
            .zip(range.clone().step_by(ROWS))
        {
            weights.clear();
            for row in start..(start + ROWS).min(range.end) {
                weights.extend(tensor.kind.values(gguf.row(tensor, row)));
            }
            // A last group with fewer rows is filled up with zeros.
            weights.resize(ROWS * cols, 0.0);
            group(x, &weights, cols, out);
        }
        part
    });
    let mut y = vec![0.0; rows * tokens];
    let products = parts.iter().flat_map(|part| part.chunks_exact(tokens));
    for (row, products) in products.enumerate() {
        for (t, product) in products.iter().enumerate() {
            y[t * rows + row] = *product;
        }
    }
    y
}

/// Inner product of two vectors.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let (a, rest_a) = a.as_chunks::<LANES>();
    let (b, rest_b) = b.as_chunks::<LANES>();
    let mut lanes = [0.0f32; LANES];
    for (a, b) in a.iter().zip(b) {
        for l in 0..LANES {
            lanes[l] += a[l] * b[l];
        }
    }
    let rest: f32 = rest_a.iter().zip(rest_b).map(|(a, b)| a * b).sum();
    lanes.iter().sum::<f32>() + rest
}

/// Sums of the products of every row with every token of a tile.
type Tile = [[f32; TOKENS]; ROWS];

/// A group of rows against every token; `out` is [row][token] and may have fewer rows.
fn group(x: &[f32], weights: &[f32], cols: usize, out: &mut [f32]) {
    let tokens = x.len() / cols;
    let rows = std::array::from_fn(|r| &weights[r * cols..(r + 1) * cols]);
    for first in (0..tokens).step_by(TOKENS) {
        // The last group repeats its last token; writing it again changes nothing.
        let token = |t: usize| (first + t).min(tokens - 1);
        let vectors = std::array::from_fn(|t| &x[token(t) * cols..(token(t) + 1) * cols]);
        let sums = tile(vectors, rows);
        for (out, sums) in out.chunks_exact_mut(tokens).zip(sums) {
            for (t, sum) in sums.into_iter().enumerate() {
                out[token(t)] = sum;
            }
        }
    }
}

fn tile(x: [&[f32]; TOKENS], w: [&[f32]; ROWS]) -> Tile {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        // SAFETY: the two features were just found.
        return unsafe { tile_avx2(x, w) };
    }
    w.map(|w| x.map(|x| dot(x, w)))
}

/// # Safety
/// The processor must have AVX2 and FMA.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn tile_avx2(x: [&[f32]; TOKENS], w: [&[f32]; ROWS]) -> Tile {
    use std::arch::x86_64::{
        _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_setzero_ps, _mm256_storeu_ps,
    };
    let cols = x
        .iter()
        .chain(&w)
        .map(|vector| vector.len())
        .min()
        .unwrap_or(0);
    let mut sums = [[_mm256_setzero_ps(); TOKENS]; ROWS];
    // Columns are whole blocks of 32, so none is left over.
    for k in (0..cols / LANES * LANES).step_by(LANES) {
        // SAFETY: every vector has at least `cols` elements, and k + LANES ≤ cols.
        let load = |vector: &[f32]| unsafe { _mm256_loadu_ps(vector.as_ptr().add(k)) };
        let x = [load(x[0]), load(x[1]), load(x[2])];
        for r in 0..ROWS {
            let w = load(w[r]);
            for t in 0..TOKENS {
                sums[r][t] = _mm256_fmadd_ps(x[t], w, sums[r][t]);
            }
        }
    }
    sums.map(|row| {
        row.map(|lanes| {
            let mut values = [0.0f32; LANES];
            // SAFETY: the array has room for eight lanes.
            unsafe { _mm256_storeu_ps(values.as_mut_ptr(), lanes) };
            values.iter().sum()
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_gives_the_plain_sum() {
        let x: Vec<f32> = (0..64 * 4).map(|i| (i as f32 * 0.37).sin()).collect();
        let w: Vec<f32> = (0..256).map(|i| (i as f32 * 0.11).cos()).collect();
        let mut out = vec![0.0; 16];
        group(&x, &w, 64, &mut out);
        for (r, row) in w.chunks_exact(64).enumerate() {
            for (t, x) in x.chunks_exact(64).enumerate() {
                let product = |(a, b): (&f32, &f32)| f64::from(*a) * f64::from(*b);
                let exact: f64 = x.iter().zip(row).map(product).sum();
                for value in [out[r * 4 + t], dot(x, row)] {
                    assert!((f64::from(value) - exact).abs() < 1e-4, "{value} {exact}");
                }
            }
        }
    }
}
