//! One product while its sumcheck runs: its polynomial in the next variable, and the binding of that variable.
//!
//! While a token's variables are bound, a tensor's rows are summed first, since the tokens' weights are the
//! same in every row. From the second round on, the left factor carries its row's weight, so that a pair
//! costs three products; when the tokens are bound, it is divided out.

use p3_field::{PrimeCharacteristicRing, batch_multiplicative_inverse};

use super::factor::{Held, Pair, for_pairs, product};
use super::{Product, Weight};
use crate::fast::{self, Sum, Words, element, sub, words};
use crate::field::K;
use crate::rounds;

/// A product with the point's first variables bound, scaled for the batch.
pub(super) struct Running {
    weight: Bound,
    left: Held,
    right: Held,
}

/// A weight while its variables are bound.
enum Bound {
    Everywhere(K),
    Tokens {
        rows: Vec<K>,
        tokens: Vec<K>,
        /// Whether the left factor carries its row's weight.
        carried: bool,
    },
    Rows(Vec<K>),
}

impl Running {
    pub(super) fn new(product: Product, scale: K) -> Self {
        let Product {
            weight,
            left,
            right,
            ..
        } = product;
        weight.assert_shape(left.len());
        assert_eq!(left.len(), right.len(), "length of a product's factors");
        let weight = match weight {
            Weight::One => Bound::Everywhere(scale),
            Weight::Tensor { mut rows, tokens } => {
                rows.iter_mut().for_each(|row| *row *= scale);
                Bound::tokens(rows, tokens, false)
            }
        };
        Running {
            weight,
            left: left.into(),
            right: right.into(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.left.len()
    }

    /// The factors, when the last variable is bound.
    pub(super) fn ends(mut self, last: Option<K>) -> (K, K) {
        if let Some(r) = last {
            self.bind(r);
        }
        (self.left.only(), self.right.only())
    }

    pub(super) fn bind(&mut self, r: K) {
        self.right.bind(r);
        match &mut self.weight {
            Bound::Everywhere(_) => self.left.bind(r),
            Bound::Rows(rows) => {
                rounds::bind(rows, r);
                self.left.bind(r);
            }
            Bound::Tokens {
                rows,
                tokens,
                carried,
            } => {
                match carried {
                    true => self.left.bind(r),
                    false => self
                        .left
                        .bind_and_scale(r, &scales(rows), tokens.len().ilog2() - 1),
                }
                rounds::bind(tokens, r);
                if tokens.len() == 1 {
                    self.left
                        .scale(&batch_multiplicative_inverse(&scales(rows)));
                }
                let (rows, tokens) = (std::mem::take(rows), std::mem::take(tokens));
                self.weight = Bound::tokens(rows, tokens, true);
            }
        }
    }

    /// The polynomial in the lowest variable that is not bound: coefficients of X^0, X^2 and X^3.
    pub(super) fn round(&self) -> [K; 3] {
        match &self.weight {
            Bound::Everywhere(scale) => {
                let mut sums = [Sum::default(); 2];
                for_pairs(&self.left, &self.right, |_, left, right| {
                    sums[0] = sums[0].plus(left.0, right.0);
                    sums[1] = sums[1].plus(sub(left.1, left.0), sub(right.1, right.0));
                });
                let [low, top] = sums.map(|sum| element(sum.reduce()) * *scale);
                [low, top, K::ZERO]
            }
            Bound::Tokens {
                rows,
                tokens,
                carried,
            } => {
                let sums = self.by_token(rows, tokens.len() / 2, *carried);
                let token = |(u, sum): (usize, &Quadratic)| sum.times(rounds::pair(tokens, u));
                sums.iter().enumerate().map(token).fold([K::ZERO; 3], add)
            }
            Bound::Rows(rows) => {
                let mut sum = [K::ZERO; 3];
                for_pairs(&self.left, &self.right, |i, left, right| {
                    let mut weighted = Quadratic::default();
                    let row = rounds::pair(rows, i);
                    weighted.add(terms((words(row.0), words(row.1)), left).map(one));
                    sum = add(sum, weighted.times((element(right.0), element(right.1))));
                });
                sum
            }
        }
    }

    /// The factors' products, weighted by rows and summed over them, for each pair of tokens.
    fn by_token(&self, rows: &[K], half: usize, carried: bool) -> Vec<Quadratic> {
        let weights: Vec<Words> = rows.iter().map(|row| words(*row)).collect();
        let weigh = |row: usize, (low, high): Pair| match carried {
            true => (low, high),
            false => (one((weights[row], low)), one((weights[row], high))),
        };
        // A row of weight zero may carry anything.
        let rows: Vec<usize> = (0..rows.len())
            .filter(|row| rows[*row] != K::ZERO)
            .collect();
        match (&self.left, &self.right, carried) {
            (Held::Sparse { .. }, ..) | (_, Held::Sparse { .. }, _) => {
                let mut sums = vec![Quadratic::default(); half];
                for_pairs(&self.left, &self.right, |i, left, right| {
                    let row = i >> half.trailing_zeros();
                    if weights[row] != Words::default() {
                        sums[i & (half - 1)].add(terms(weigh(row, left), right).map(one));
                    }
                });
                sums
            }
            (Held::Integers(left), Held::Integers(right), false) => {
                let (left, right) = (left.as_chunks().0, right.as_chunks().0);
                sum_rows(&rows, half, |row, i| {
                    let ([a, b], [c, d]): ([i64; 2], [i64; 2]) = (left[i], right[i]);
                    let products = [product(a, c), product(b, d), product(b - a, d - c)];
                    products.map(|product| (weights[row], [product, 0]))
                })
            }
            (Held::Dense(left), Held::Dense(right), true) => {
                let (left, right) = (left.as_chunks().0, right.as_chunks().0);
                sum_rows(&rows, half, |_, i| {
                    let ([a, b], [c, d]): ([Words; 2], [Words; 2]) = (left[i], right[i]);
                    terms((a, b), (c, d))
                })
            }
            (left, right, _) => sum_rows(&rows, half, |row, i| {
                terms(weigh(row, left.pair(i)), right.pair(i))
            }),
        }
    }
}

impl Bound {
    fn tokens(mut rows: Vec<K>, tokens: Vec<K>, carried: bool) -> Self {
        match tokens[..] {
            [last] => {
                rows.iter_mut().for_each(|row| *row *= last);
                Bound::Rows(rows)
            }
            _ => Bound::Tokens {
                rows,
                tokens,
                carried,
            },
        }
    }
}

/// What rows are multiplied by: their weights, but for zeros, which could not be divided out.
fn scales(rows: &[K]) -> Vec<K> {
    let scale = |row: &K| if *row == K::ZERO { K::ONE } else { *row };
    rows.iter().map(scale).collect()
}

/// Three sums of products over the rows, for each pair of tokens. A few rows are taken at a time, so that
/// most sums need no reduction and all factors are read in order.
#[inline(always)]
fn sum_rows(
    rows: &[usize],
    half: usize,
    terms: impl Fn(usize, usize) -> [(Words, Words); 3],
) -> Vec<Quadratic> {
    const TOGETHER: usize = 8;
    let mut all = vec![Quadratic::default(); half];
    for rows in rows.chunks(TOGETHER) {
        for (u, all) in all.iter_mut().enumerate() {
            let mut sums = [Sum::default(); 3];
            for row in rows {
                let terms = terms(*row, row * half + u);
                for (sum, (a, b)) in sums.iter_mut().zip(terms) {
                    *sum = sum.plus(a, b);
                }
            }
            all.add(sums.map(|sum| sum.reduce()));
        }
    }
    all
}

/// The factors of a product of linear polynomials at 0 and 1, and of its leading coefficient.
#[inline(always)]
fn terms(left: Pair, right: Pair) -> [(Words, Words); 3] {
    [
        (left.0, right.0),
        (left.1, right.1),
        (sub(left.1, left.0), sub(right.1, right.0)),
    ]
}

#[inline(always)]
fn one((a, b): (Words, Words)) -> Words {
    Sum::product(a, b).reduce()
}

/// A sum of products of two linear polynomials, by its values at 0 and 1 and its leading coefficient.
#[derive(Clone, Copy, Default)]
struct Quadratic([Words; 3]);

impl Quadratic {
    #[inline(always)]
    fn add(&mut self, others: [Words; 3]) {
        for (sum, other) in self.0.iter_mut().zip(others) {
            *sum = fast::add(*sum, other);
        }
    }

    /// Times one more linear polynomial: coefficients of X^0, X^2 and X^3.
    #[inline(always)]
    fn times(&self, (low, high): (K, K)) -> [K; 3] {
        let [at_zero, at_one, top] = self.0.map(element);
        let linear = at_one - at_zero - top;
        let rise = high - low;
        [at_zero * low, top * low + linear * rise, top * rise]
    }
}

pub(super) fn add(mut sums: [K; 3], others: [K; 3]) -> [K; 3] {
    for (sum, other) in sums.iter_mut().zip(others) {
        *sum += other;
    }
    sums
}
