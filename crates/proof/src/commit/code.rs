//! The Reed–Solomon code: coefficients to evaluations on 2^log_inv_rate cosets of a subgroup.
//!
//! Position s·2^log_len + j holds the value at Ω^(s + 2^log_inv_rate·rev(j)), where Ω generates the whole
//! domain and rev reverses log_len bits: the order in which a transform without reordering leaves them.

use p3_field::{PrimeCharacteristicRing, TwoAdicField};

use super::schedule::Shape;
use crate::field::F;

/// Twiddles of a transform of 2^log_len points, one table for each size that its recursion meets.
pub(super) struct Transform {
    log_len: usize,
    /// At depth d, size n = 2^(log_len − 2d): w^2j, w^j, w^3j for j < n/4.
    twiddles: Vec<Vec<[F; 3]>>,
    /// A fourth root of unity: w^(n/4) for every n.
    quarter: F,
}

impl Transform {
    pub fn new(log_len: usize) -> Self {
        let table = |depth: usize| {
            let log = log_len - 2 * depth;
            let w = F::two_adic_generator(log);
            let powers = w.powers().take(1 << (log - 2));
            powers
                .map(|p| [p * p, p, p * p * p])
                .collect::<Vec<[F; 3]>>()
        };
        Transform {
            log_len,
            twiddles: (0..log_len / 2).map(table).collect(),
            quarter: F::two_adic_generator(2),
        }
    }

    /// In place, values in order to evaluations in bit-reversed order.
    pub fn run(&self, values: &mut [F]) {
        debug_assert_eq!(values.len(), 1 << self.log_len);
        self.step(values, 0);
    }

    /// Depth first, so that all but the first steps work within the cache.
    fn step(&self, values: &mut [F], depth: usize) {
        match values {
            [] | [_] => {}
            [a, b] => (*a, *b) = (*a + *b, *a - *b),
            _ => {
                let quarter = values.len() / 4;
                self.butterflies(values, &self.twiddles[depth]);
                for part in values.chunks_exact_mut(quarter) {
                    self.step(part, depth + 1);
                }
            }
        }
    }

    /// Two radix-2 steps at once, which saves a quarter of the products.
    #[inline(always)]
    fn butterflies(&self, values: &mut [F], twiddles: &[[F; 3]]) {
        let quarter = values.len() / 4;
        let (low, high) = values.split_at_mut(2 * quarter);
        let (a, b) = low.split_at_mut(quarter);
        let (c, d) = high.split_at_mut(quarter);
        let all = a.iter_mut().zip(b).zip(c.iter_mut().zip(d)).zip(twiddles);
        for (((a, b), (c, d)), [w2, w1, w3]) in all {
            let (sum_ac, diff_ac) = (*a + *c, *a - *c);
            let (sum_bd, diff_bd) = (*b + *d, (*b - *d) * self.quarter);
            *a = sum_ac + sum_bd;
            *b = (sum_ac - sum_bd) * *w2;
            *c = (diff_ac + diff_bd) * *w1;
            *d = (diff_ac - diff_bd) * *w3;
        }
    }
}

/// The generator of an oracle's whole domain.
fn generator(shape: &Shape) -> F {
    F::two_adic_generator(shape.log_positions())
}

/// The point of a position.
pub(super) fn point(shape: &Shape, position: usize) -> F {
    let (coset, j) = (position >> shape.log_len, position & (shape.len() - 1));
    let exponent = coset + (reverse(j, shape.log_len) << shape.log_inv_rate);
    generator(shape).exp_u64(exponent as u64)
}

pub(super) fn reverse(index: usize, bits: usize) -> usize {
    match bits {
        0 => 0,
        _ => index.reverse_bits() >> (usize::BITS as usize - bits),
    }
}

/// Multiplies value i by Ω^(coset·i), which turns a transform on the subgroup into one on its coset.
pub(super) fn shift(shape: &Shape, coset: usize, values: &mut [F]) {
    if coset == 0 {
        return;
    }
    let step = generator(shape).exp_u64(coset as u64);
    let chunk = 1 << (shape.log_len / 2);
    let low: Vec<F> = step.powers().take(chunk).collect();
    let mut high = F::ONE;
    let next = step.exp_u64(chunk as u64);
    for values in values.chunks_mut(chunk) {
        for (value, low) in values.iter_mut().zip(&low) {
            *value *= *low * high;
        }
        high *= next;
    }
}

/// Writes the evaluations on all cosets of a column of coefficients.
pub(super) fn encode(shape: &Shape, transform: &Transform, column: &[F], out: &mut [F]) {
    for (coset, out) in out.chunks_exact_mut(shape.len()).enumerate() {
        out.copy_from_slice(column);
        shift(shape, coset, out);
        transform.run(out);
    }
}

/// The sum of weights[k]·point(positions[k])^i for each i < 2^log_len: the code's transpose.
///
/// The same transform serves, from natural places to reversed ones; the exponents commute.
pub(super) fn transpose(shape: &Shape, transform: &Transform, at: &[(usize, F)], add: &mut [F]) {
    let mut values = vec![F::ZERO; shape.len()];
    for coset in 0..1 << shape.log_inv_rate {
        values.fill(F::ZERO);
        for (position, weight) in at {
            if position >> shape.log_len == coset {
                values[reverse(position & (shape.len() - 1), shape.log_len)] += *weight;
            }
        }
        transform.run(&mut values);
        let step = generator(shape).exp_u64(coset as u64);
        let mut power = F::ONE;
        for (i, add) in add.iter_mut().enumerate() {
            *add += power * values[reverse(i, shape.log_len)];
            power *= step;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(log_len: usize, log_inv_rate: usize) -> Shape {
        Shape {
            log_len,
            columns: 1,
            log_inv_rate,
            queries: 1,
        }
    }

    #[test]
    fn a_codeword_holds_the_polynomial_at_the_points_of_its_positions() {
        for (log_len, rate) in [(0, 1), (1, 1), (2, 2), (5, 1), (6, 3)] {
            let shape = shape(log_len, rate);
            let column: Vec<F> = (0..shape.len() as u64).map(|i| F::new(i * i + 3)).collect();
            let mut out = vec![F::ZERO; shape.positions()];
            encode(&shape, &Transform::new(log_len), &column, &mut out);
            for (position, value) in out.iter().enumerate() {
                let x = point(&shape, position);
                let expected = column.iter().rev().fold(F::ZERO, |sum, c| sum * x + *c);
                assert_eq!(*value, expected, "position {position} of {shape:?}");
            }
        }
    }

    #[test]
    fn the_transpose_sums_powers_of_the_points() {
        for (log_len, rate) in [(1, 1), (4, 1), (5, 2)] {
            let shape = shape(log_len, rate);
            let at = [
                (0, F::new(9)),
                (3, F::new(5)),
                (shape.positions() - 1, F::new(8)),
            ];
            let mut out = vec![F::new(100); shape.len()];
            transpose(&shape, &Transform::new(log_len), &at, &mut out);
            for (i, value) in out.iter().enumerate() {
                let power = |(position, weight): &(usize, F)| {
                    *weight * point(&shape, *position).exp_u64(i as u64)
                };
                let expected = F::new(100) + at.iter().map(power).sum::<F>();
                assert_eq!(*value, expected, "coefficient {i} of {shape:?}");
            }
        }
    }
}
