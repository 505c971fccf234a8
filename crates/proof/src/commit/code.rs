//! The Reed–Solomon code: a column's coefficients to its values on the oracle's domain, wholly or at a few
//! positions, and the code's transpose.
//!
//! Position p of N holds the value at Ω^rev(p), where Ω generates the domain and rev reverses log N bits. In
//! that order the positions of a run of n, where n divides the run's start, are the roots of X^n − a. So a
//! polynomial's remainder by X^n − a is all that such a run depends on, and encoding is a descent from
//! X^N − 1 to the linear factors, four branches at a step:
//! X^n − b^4 = Π_j (X^(n/4) − b·i^j), and the remainder of f0 + f1·Y + f2·Y² + f3·Y³, Y = X^(n/4), by
//! Y − c is f0 + f1·c + f2·c² + f3·c³.

use p3_field::{PrimeCharacteristicRing, TwoAdicField};

use super::schedule::Shape;
use crate::field::F;

/// The point of a position.
pub(super) fn point_of(shape: &Shape, position: usize) -> F {
    let log = shape.log_positions();
    let exponent = position.reverse_bits() >> (usize::BITS as usize - log);
    F::two_adic_generator(log).exp_u64(exponent as u64)
}

/// An oracle's domain, and the constants of the descent.
pub(super) struct Domain {
    shape: Shape,
    /// b, b² and b³ of the k-th run among those of its length, whatever the length.
    roots: Vec<[F; 3]>,
    /// A fourth root of unity.
    i: F,
}

impl Domain {
    pub fn new(shape: &Shape) -> Self {
        // Run k of 2^l has a = ω^rev(k) with ω of order 2^l; b = ω'^rev(k) with ω' of order 2^(l+2). Run
        // k + 2^l of twice as many has one more factor, of order 2^(l+3).
        let mut roots = vec![[F::ONE; 3]];
        for l in 0..shape.log_positions().saturating_sub(2) {
            let step = F::two_adic_generator(l + 3);
            roots.extend_from_within(..);
            let (_, new) = roots.split_at_mut(1 << l);
            for root in new {
                let b = root[0] * step;
                *root = [b, b * b, b * b * b];
            }
        }
        Domain {
            shape: *shape,
            roots,
            i: F::two_adic_generator(2),
        }
    }

    /// Writes the values at every position.
    pub fn encode(&self, column: &[F], out: &mut [F]) {
        // The column is its own remainder by every X^len − a.
        for (run, out) in out.chunks_exact_mut(self.shape.len()).enumerate() {
            out.copy_from_slice(column);
            self.descend(out, run, 1);
        }
    }

    /// The values at ascending positions: a descent as far as most branches lead to one of them, and from
    /// there each value by itself.
    pub fn values_at(&self, column: &[F], positions: &[usize]) -> Vec<F> {
        let len = self.shape.len();
        let short = (len / positions.len().next_power_of_two()).max(1);
        let mut remainder = vec![F::ZERO; len];
        let mut out = Vec::with_capacity(positions.len());
        for positions in positions.chunk_by(|a, b| a / len == b / len) {
            remainder.copy_from_slice(column);
            let reached = self.descend(&mut remainder, positions[0] / len, short);
            for position in positions {
                let at = position % len / reached * reached;
                out.push(evaluate(
                    &remainder[at..][..reached],
                    point_of(&self.shape, *position),
                ));
            }
        }
        out
    }

    /// From the remainder of run `run` to those of its parts of at most this length; returns their length.
    fn descend(&self, values: &mut [F], run: usize, short: usize) -> usize {
        // A step of two branches leaves an even number of bits, so that the rest are of four.
        if self.shape.log_len % 2 == 1 && values.len() == self.shape.len() {
            let half = values.len() / 2;
            let (low, high) = values.split_at_mut(half);
            let root = self.roots[run][1];
            for (low, high) in low.iter_mut().zip(high) {
                let product = *high * root;
                (*low, *high) = (*low + product, *low - product);
            }
            let (low, high) = values.split_at_mut(half);
            self.quarter(low, 2 * run, short);
            return self.quarter(high, 2 * run + 1, short);
        }
        self.quarter(values, run, short)
    }

    /// Depth first, so that all but the first steps work within the cache.
    fn quarter(&self, values: &mut [F], run: usize, short: usize) -> usize {
        if values.len() <= short {
            return values.len();
        }
        if values.len() > IN_CACHE || short > 1 {
            self.split(values, self.roots[run]);
            let quarter = values.len() / 4;
            let mut reached = 0;
            for (j, part) in values.chunks_exact_mut(quarter).enumerate() {
                reached = self.quarter(part, 4 * run + j, short);
            }
            return reached;
        }
        let (mut len, mut first) = (values.len(), run);
        while len > 4 {
            let roots = &self.roots[first..];
            for (part, roots) in values.chunks_exact_mut(len).zip(roots) {
                self.split(part, *roots);
            }
            (len, first) = (len / 4, first * 4);
        }
        let fours = values.as_chunks_mut::<4>().0;
        for (four, roots) in fours.iter_mut().zip(&self.roots[first..]) {
            *four = self.branches(*four, *roots);
        }
        1
    }

    #[inline(always)]
    fn split(&self, values: &mut [F], roots: [F; 3]) {
        let [a, b, c, d] = quarters(values);
        for (((a, b), c), d) in a.iter_mut().zip(b).zip(c).zip(d) {
            [*a, *b, *c, *d] = self.branches([*a, *b, *c, *d], roots);
        }
    }

    /// f0 + f1·c + f2·c² + f3·c³ for c = b, −b, ib and −ib.
    #[inline(always)]
    fn branches(&self, f: [F; 4], roots: [F; 3]) -> [F; 4] {
        let (f1, f2, f3) = (f[1] * roots[0], f[2] * roots[1], f[3] * roots[2]);
        let (even, odd) = (f[0] + f2, f1 + f3);
        let (turned, across) = (f[0] - f2, (f1 - f3) * self.i);
        [even + odd, even - odd, turned + across, turned - across]
    }

    /// Adds Σ_k weights[k]·point(positions[k])^i to value i, for each i below the column's length.
    pub fn transpose(&self, at: &[(usize, F)], add: &mut [F]) {
        let len = self.shape.len();
        let mut sums = vec![F::ZERO; len];
        for run in 0..1 << self.shape.log_inv_rate {
            sums.fill(F::ZERO);
            let of_run = at.iter().filter(|(position, _)| position / len == run);
            for (position, weight) in of_run {
                sums[position % len] += *weight;
            }
            self.ascend(&mut sums, run);
            for (add, sum) in add.iter_mut().zip(&sums) {
                *add += *sum;
            }
        }
    }

    /// The descent's steps transposed, in the opposite order.
    fn ascend(&self, sums: &mut [F], run: usize) {
        if self.shape.log_len % 2 == 1 && sums.len() == self.shape.len() {
            let half = sums.len() / 2;
            let (low, high) = sums.split_at_mut(half);
            self.ascend(low, 2 * run);
            self.ascend(high, 2 * run + 1);
            let root = self.roots[run][1];
            for (low, high) in low.iter_mut().zip(high) {
                (*low, *high) = (*low + *high, (*low - *high) * root);
            }
            return;
        }
        if sums.len() == 1 {
            return;
        }
        let quarter = sums.len() / 4;
        for (j, part) in sums.chunks_exact_mut(quarter).enumerate() {
            self.ascend(part, 4 * run + j);
        }
        let [b1, b2, b3] = self.roots[run];
        let [a, b, c, d] = quarters(sums);
        for (((a, b), c), d) in a.iter_mut().zip(b).zip(c).zip(d) {
            let (plus, minus) = (*a + *b, *a - *b);
            let (across, turned) = (*c + *d, (*c - *d) * self.i);
            *a = plus + across;
            *b = (minus + turned) * b1;
            *c = (plus - across) * b2;
            *d = (minus - turned) * b3;
        }
    }
}

/// Values that the nearest caches hold.
const IN_CACHE: usize = 1 << 12;

fn quarters(values: &mut [F]) -> [&mut [F]; 4] {
    let quarter = values.len() / 4;
    let (low, high) = values.split_at_mut(2 * quarter);
    let (a, b) = low.split_at_mut(quarter);
    let (c, d) = high.split_at_mut(quarter);
    [a, b, c, d]
}

/// A polynomial at a point; runs of coefficients by one table of powers.
fn evaluate(coefficients: &[F], x: F) -> F {
    let run = 512.min(coefficients.len());
    let powers: Vec<F> = x.powers().take(run).collect();
    let next = x.exp_u64(run as u64);
    let along = |values: &[F]| {
        let (values, powers) = (values.as_chunks::<16>(), powers.as_chunks::<16>());
        let rest = values.1.iter().zip(powers.1).map(|(v, p)| *v * *p);
        let whole = values.0.iter().zip(powers.0);
        whole.map(|(v, p)| F::dot_product(v, p)).sum::<F>() + rest.sum::<F>()
    };
    let runs = coefficients.chunks_exact(run).rev();
    runs.fold(F::ZERO, |sum, values| sum * next + along(values))
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

    const SHAPES: [(usize, usize); 7] = [(0, 1), (2, 2), (3, 1), (5, 4), (6, 3), (13, 1), (14, 2)];

    fn column(shape: &Shape) -> Vec<F> {
        (0..shape.len() as u64).map(|i| F::new(i * i + 3)).collect()
    }

    #[test]
    fn a_codeword_holds_the_polynomial_at_the_points_of_its_positions() {
        for (log_len, rate) in SHAPES {
            let shape = shape(log_len, rate);
            let domain = Domain::new(&shape);
            let column = column(&shape);
            let mut out = vec![F::ZERO; shape.positions()];
            domain.encode(&column, &mut out);
            let step = (shape.positions() / 63).max(1);
            for position in (0..shape.positions()).step_by(step) {
                let x = point_of(&shape, position);
                let expected = column.iter().rev().fold(F::ZERO, |sum, c| sum * x + *c);
                assert_eq!(out[position], expected, "position {position} of {shape:?}");
                assert_eq!(evaluate(&column, x), expected);
            }
            for count in [1, 2, 5, 40] {
                let step = shape.positions() / count;
                let at: Vec<usize> = (0..shape.positions()).step_by(step.max(1)).collect();
                let expected: Vec<F> = at.iter().map(|position| out[*position]).collect();
                assert_eq!(
                    domain.values_at(&column, &at),
                    expected,
                    "{at:?} of {shape:?}"
                );
            }
        }
    }

    #[test]
    fn the_points_differ() {
        let shape = shape(3, 2);
        for (a, b) in (0..32).flat_map(|a| (0..a).map(move |b| (a, b))) {
            assert_ne!(
                point_of(&shape, a),
                point_of(&shape, b),
                "positions {a} and {b}"
            );
        }
    }

    #[test]
    fn the_transpose_sums_powers_of_the_points() {
        for (log_len, rate) in SHAPES {
            let shape = shape(log_len, rate);
            let domain = Domain::new(&shape);
            let last = shape.positions() - 1;
            let at = [(0, F::new(9)), (last / 3, F::new(5)), (last, F::new(8))];
            let mut out = vec![F::new(100); shape.len()];
            domain.transpose(&at, &mut out);
            for i in (0..shape.len()).step_by((shape.len() / 63).max(1)) {
                let power = |(position, weight): &(usize, F)| {
                    *weight * point_of(&shape, *position).exp_u64(i as u64)
                };
                let expected = F::new(100) + at.iter().map(power).sum::<F>();
                assert_eq!(out[i], expected, "coefficient {i} of {shape:?}");
            }
        }
    }
}
