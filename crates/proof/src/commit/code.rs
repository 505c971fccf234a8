//! The Reed–Solomon code: a column's coefficients to its values on the oracle's domain, wholly or at a few
//! positions, and the code's transpose.
//!
//! Position p of N holds the value at Ω^rev(p), where Ω generates the domain and rev reverses log N bits. In
//! that order the positions of a run of n, where n divides the run's start, are the roots of X^n − a. So a
//! polynomial's remainder by X^n − a is all that such a run depends on, and encoding is a descent from
//! X^N − 1 to the linear factors, four branches at a step:
//! X^n − b^4 = Π_j (X^(n/4) − b·i^j), and the remainder of f0 + f1·Y + f2·Y² + f3·Y³, Y = X^(n/4), by
//! Y − c is f0 + f1·c + f2·c² + f3·c³.

use p3_field::{PrimeCharacteristicRing, PrimeField64, TwoAdicField};

use super::descent::{Roots, Rows, evaluate, gather, halve, join, join_halves, split, split_all};
use super::schedule::Shape;
use super::words::{Four, add, scale};
use crate::field::F;

/// Values of four columns that the nearest cache holds.
const IN_CACHE: usize = 1 << 10;
/// Values of four columns that the next cache holds, and bits of the first steps, which are taken there.
const BUFFER: usize = 1 << 12;
const STRIP_STEPS: usize = 8;

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
    table: Vec<[u64; 3]>,
    /// A fourth root of unity.
    i: u64,
}

impl Domain {
    pub(super) fn new(shape: &Shape) -> Self {
        // Run k of 2^l has a = ω^rev(k) with ω of order 2^l; b = ω'^rev(k) with ω' of order 2^(l+2). Run
        // k + 2^l of twice as many has one more factor, of order 2^(l+3).
        let mut roots = vec![F::ONE];
        for l in 0..shape.log_positions().saturating_sub(2) {
            let step = F::two_adic_generator(l + 3);
            roots.extend_from_within(..);
            roots[1 << l..].iter_mut().for_each(|root| *root *= step);
        }
        let powers = |b: &F| [*b, *b * *b, *b * *b * *b].map(|power| power.as_canonical_u64());
        Domain {
            shape: *shape,
            table: roots.iter().map(powers).collect(),
            i: F::two_adic_generator(2).as_canonical_u64(),
        }
    }

    /// Length of the runs that a descent comes to in its first steps.
    pub(super) fn stride(&self) -> usize {
        let log_len = self.shape.log_len;
        match self.shape.len() <= BUFFER {
            true => 1,
            false => 1 << (log_len - STRIP_STEPS - log_len % 2),
        }
    }

    /// The first steps: writes four columns' remainders by every run of that length.
    pub(super) fn begin(&self, columns: impl Fn(usize) -> Four, out: &mut [Four]) {
        let (len, stride) = (self.shape.len(), self.stride());
        self.strips(columns, |run, first, parts, wide| {
            let out = &mut out[run * len..][..len];
            for (row, part) in parts.chunks_exact(wide).enumerate() {
                out[row * stride + first..][..wide].copy_from_slice(part);
            }
        });
    }

    /// The steps after those: a run's remainders become the values at its positions.
    pub(super) fn finish(&self, values: &mut [Four], run: usize) {
        if values.len() <= IN_CACHE {
            return split_all(values, 1, &self.table, run, self.i);
        }
        split(values, self.roots(run));
        let quarter = values.len() / 4;
        for (j, part) in values.chunks_exact_mut(quarter).enumerate() {
            self.finish(part, 4 * run + j);
        }
    }

    /// The values at some positions: after the first steps, each by itself.
    pub(super) fn values_at(
        &self,
        columns: impl Fn(usize) -> Four,
        positions: &[usize],
    ) -> Vec<Four> {
        let (len, stride) = (self.shape.len(), self.stride());
        let mut wanted: Vec<Wanted> = positions.iter().map(|p| self.wanted(*p)).collect();
        self.strips(columns, |run, _, parts, wide| {
            for wanted in wanted
                .iter_mut()
                .filter(|wanted| wanted.position / len == run)
            {
                let row = wanted.position % len / stride;
                let part = evaluate(&parts[row * wide..][..wide], &wanted.powers);
                wanted.value = add(wanted.value, scale(part, word(wanted.power)));
                wanted.power *= wanted.step;
            }
        });
        wanted.iter().map(|wanted| wanted.value).collect()
    }

    fn wanted(&self, position: usize) -> Wanted {
        let x = point_of(&self.shape, position);
        let wide = self.wide();
        Wanted {
            position,
            powers: x.powers().take(wide).map(word).collect(),
            power: F::ONE,
            step: x.exp_u64(wide as u64),
            value: [0; 4],
        }
    }

    /// Values of each part that a strip holds.
    fn wide(&self) -> usize {
        let parts = self.shape.len() / self.stride();
        (BUFFER / parts).clamp(1, self.stride())
    }

    /// Takes the first steps for a strip of the columns at a time, copied to where the cache holds it: one way
    /// through memory instead of one for each step. Shows run, first place, and `wide` values of each part.
    fn strips(
        &self,
        columns: impl Fn(usize) -> Four,
        mut show: impl FnMut(usize, usize, &[Four], usize),
    ) {
        let (stride, wide) = (self.stride(), self.wide());
        let mut strip = vec![[0; 4]; self.shape.len() / stride * wide];
        let mut parts = strip.clone();
        for first in (0..stride).step_by(wide) {
            gather(
                &columns,
                &mut strip,
                Rows {
                    stride,
                    first,
                    wide,
                },
            );
            for run in 0..1 << self.shape.log_inv_rate {
                parts.copy_from_slice(&strip);
                self.steps(&mut parts, wide, run);
                show(run, first, &parts, wide);
            }
        }
    }

    fn roots(&self, run: usize) -> Roots {
        Roots {
            powers: self.table[run],
            i: self.i,
        }
    }

    /// The first steps on a run or on a strip of it, as far as parts of this length. An odd number of
    /// bits begins with a step of two branches, so that the rest are of four.
    fn steps(&self, values: &mut [Four], until: usize, run: usize) {
        let (table, i) = (&self.table, self.i);
        if self.shape.log_len.is_multiple_of(2) {
            return split_all(values, until, table, run, i);
        }
        halve(values, self.table[run][1]);
        let half = values.len() / 2;
        for (j, part) in values.chunks_exact_mut(half).enumerate() {
            split_all(part, until, table, 2 * run + j, i);
        }
    }

    /// Four sums at once, each Σ_k weights[k]·point(positions[k])^i for every i below the columns' length.
    pub(super) fn transpose(&self, at: &[(usize, Four)]) -> Vec<Four> {
        let len = self.shape.len();
        let mut all = vec![[0; 4]; len];
        let mut sums = all.clone();
        for run in 0..1 << self.shape.log_inv_rate {
            sums.fill([0; 4]);
            let of_run = at.iter().filter(|(position, _)| position / len == run);
            for (position, weight) in of_run {
                let sum = &mut sums[position % len];
                *sum = add(*sum, *weight);
            }
            self.ascend(&mut sums, run);
            for (all, sum) in all.iter_mut().zip(&sums) {
                *all = add(*all, *sum);
            }
        }
        all
    }

    /// The descent's steps transposed, in the opposite order.
    fn ascend(&self, sums: &mut [Four], run: usize) {
        if sums.len() == 1 {
            return;
        }
        let two = sums.len() == self.shape.len() && self.shape.log_len % 2 == 1;
        let parts = if two { 2 } else { 4 };
        let part = sums.len() / parts;
        for (j, part) in sums.chunks_exact_mut(part).enumerate() {
            self.ascend(part, parts * run + j);
        }
        match two {
            true => join_halves(sums, self.table[run][1]),
            false => join(sums, self.roots(run)),
        }
    }
}

/// A position whose values are summed up, strip by strip.
struct Wanted {
    position: usize,
    /// Of the point, for a strip's places.
    powers: Vec<u64>,
    /// Of the point, for the next strip's first place, and what takes it to the one after.
    power: F,
    step: F,
    value: Four,
}

fn word(value: F) -> u64 {
    value.as_canonical_u64()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(log_len: usize, log_inv_rate: usize) -> Shape {
        Shape {
            log_len,
            columns: 4,
            log_inv_rate,
            queries: 1,
        }
    }

    const SHAPES: [(usize, usize); 9] = [
        (0, 1),
        (2, 2),
        (3, 1),
        (5, 4),
        (6, 3),
        (12, 1),
        (13, 1),
        (15, 2),
        (16, 1),
    ];

    fn column(i: usize) -> Four {
        let i = i as u64;
        [i, i * i + 3, F::ORDER_U64 - 1 - i, i * i * i]
    }

    fn horner(shape: &Shape, x: F) -> Four {
        let mut sum = [F::ZERO; 4];
        for i in (0..shape.len()).rev() {
            for (sum, coefficient) in sum.iter_mut().zip(column(i)) {
                *sum = *sum * x + F::new(coefficient);
            }
        }
        sum.map(word)
    }

    #[test]
    fn a_codeword_holds_the_polynomial_at_the_points_of_its_positions() {
        for (log_len, rate) in SHAPES {
            let shape = shape(log_len, rate);
            let domain = Domain::new(&shape);
            let mut out = vec![[0; 4]; shape.positions()];
            domain.begin(column, &mut out);
            let stride = domain.stride();
            for (run, part) in out.chunks_exact_mut(stride).enumerate() {
                domain.finish(part, run);
            }
            let step = (shape.positions() / 63).max(1);
            for position in (0..shape.positions()).step_by(step) {
                let expected = horner(&shape, point_of(&shape, position));
                assert_eq!(out[position], expected, "position {position} of {shape:?}");
            }
            for count in [1, 2, 5, 40] {
                let step = shape.positions() / count;
                let at: Vec<usize> = (0..shape.positions()).step_by(step.max(1)).collect();
                let expected: Vec<Four> = at.iter().map(|position| out[*position]).collect();
                assert_eq!(
                    domain.values_at(column, &at),
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
            assert_ne!(point_of(&shape, a), point_of(&shape, b), "{a} and {b}");
        }
    }

    #[test]
    fn the_transpose_sums_powers_of_the_points() {
        for (log_len, rate) in SHAPES {
            let shape = shape(log_len, rate);
            let last = shape.positions() - 1;
            let at = [(0, column(9)), (last / 3, column(5)), (last, column(8))];
            let out = Domain::new(&shape).transpose(&at);
            for i in (0..shape.len()).step_by((shape.len() / 63).max(1)) {
                for lane in 0..4 {
                    let power = |(position, weight): &(usize, Four)| {
                        F::new(weight[lane]) * point_of(&shape, *position).exp_u64(i as u64)
                    };
                    let expected = at.iter().map(power).sum::<F>();
                    assert_eq!(F::new(out[i][lane]), expected, "{i} of {shape:?}");
                }
            }
        }
    }
}
