//! A product's factor: a vector as it is given, and as it is held while a sumcheck binds its variables.

use p3_field::PrimeField64;

use crate::fast::{self, Sum, Words, sub, words};
use crate::field::{F, K};

/// A vector that the prover knows and the verifier meets at one point only.
#[derive(Debug, Clone)]
pub enum Factor {
    Dense(Vec<K>),
    /// At most 2^47 in absolute value.
    Integers(Vec<i64>),
    /// Zero but for the cells, which stand in ascending order.
    Sparse {
        len: usize,
        cells: Vec<(usize, K)>,
    },
}

impl Factor {
    pub fn len(&self) -> usize {
        match self {
            Factor::Dense(values) => values.len(),
            Factor::Integers(values) => values.len(),
            Factor::Sparse { len, .. } => *len,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A factor with the point's first variables bound.
pub(super) enum Held {
    Dense(Vec<Words>),
    Integers(Vec<i64>),
    Sparse {
        len: usize,
        cells: Vec<(usize, Words)>,
    },
}

/// The two neighbours that the lowest variable tells apart; behind the vector's end stand zeros.
pub(super) type Pair = (Words, Words);

impl From<Factor> for Held {
    fn from(factor: Factor) -> Held {
        match factor {
            Factor::Dense(values) => Held::Dense(values.into_iter().map(words).collect()),
            Factor::Integers(values) => Held::Integers(values),
            Factor::Sparse { len, cells } => {
                assert!(
                    cells.is_sorted_by(|a, b| a.0 < b.0),
                    "cells in ascending order"
                );
                assert!(
                    cells.last().is_none_or(|last| last.0 < len),
                    "a cell in the vector"
                );
                let cell = |(i, value)| (i, words(value));
                Held::Sparse {
                    len,
                    cells: cells.into_iter().map(cell).collect(),
                }
            }
        }
    }
}

impl Held {
    pub(super) fn len(&self) -> usize {
        match self {
            Held::Dense(values) => values.len(),
            Held::Integers(values) => values.len(),
            Held::Sparse { len, .. } => *len,
        }
    }

    #[inline(always)]
    pub(super) fn pair(&self, i: usize) -> Pair {
        match self {
            Held::Dense(values) => pair(values, i),
            Held::Integers(values) => {
                let element = |i| [values.get(i).map_or(0, |value| word(*value)), 0];
                (element(2 * i), element(2 * i + 1))
            }
            Held::Sparse { cells, .. } => {
                let at = cells.partition_point(|cell| cell.0 < 2 * i);
                sparse_pair(&cells[at..], i).0
            }
        }
    }

    /// Binds the lowest variable. Integers become field elements, a sparse vector grows dense.
    pub(super) fn bind(&mut self, r: K) {
        let r = fast::Factor::new(r);
        self.bind_by(|_, (low, high)| r.times_plus(sub(high, low), low));
    }

    /// Binds the lowest variable and multiplies each row, of `1 << row_bits` pairs, by its scale.
    pub(super) fn bind_and_scale(&mut self, r: K, scales: &[K], row_bits: u32) {
        let scales: Vec<(Words, Words)> =
            scales.iter().map(|s| (words(*s), words(r * *s))).collect();
        self.bind_by(|i, (low, high)| {
            let (scale, r) = scales[i >> row_bits];
            Sum::product(scale, low).plus(r, sub(high, low)).reduce()
        });
    }

    #[inline(always)]
    fn bind_by(&mut self, bound: impl Fn(usize, Pair) -> Words) {
        let half = self.len().div_ceil(2);
        match self {
            Held::Dense(values) => {
                for i in 0..half {
                    values[i] = bound(i, pair(values, i));
                }
                values.truncate(half);
            }
            Held::Integers(values) => {
                let (pairs, last) = values.as_chunks();
                let both = |(i, [low, high]): (usize, &[i64; 2])| {
                    bound(i, ([word(*low), 0], [word(*high), 0]))
                };
                let mut all = Vec::with_capacity(half);
                all.extend(pairs.iter().enumerate().map(both));
                all.extend(
                    last.iter()
                        .map(|low| bound(half - 1, ([word(*low), 0], [0, 0]))),
                );
                *self = Held::Dense(all);
            }
            Held::Sparse { cells, .. } => {
                let mut all = Vec::with_capacity(cells.len());
                for_sparse_pairs(cells, |i, pair| all.push((i, bound(i, pair))));
                *self = match all.len() * 4 < half {
                    true => Held::Sparse {
                        len: half,
                        cells: all,
                    },
                    false => Held::Dense(dense(half, &all)),
                };
            }
        }
    }

    pub(super) fn scale(&mut self, scales: &[K]) {
        let times =
            |value: &mut Words, i: usize| *value = Sum::product(*value, words(scales[i])).reduce();
        match self {
            Held::Dense(values) => values.iter_mut().enumerate().for_each(|(i, v)| times(v, i)),
            Held::Sparse { cells, .. } => cells.iter_mut().for_each(|(i, v)| times(v, *i)),
            Held::Integers(_) => unreachable!("what is scaled was bound before"),
        }
    }

    /// The one element that is left when every variable is bound.
    pub(super) fn only(&self) -> K {
        debug_assert_eq!(self.len(), 1);
        fast::element(self.pair(0).0)
    }
}

/// Every pair at which both factors may be something other than zero.
#[inline(always)]
pub(super) fn for_pairs(left: &Held, right: &Held, mut take: impl FnMut(usize, Pair, Pair)) {
    match (left, right) {
        (Held::Sparse { cells, .. }, other) => {
            for_sparse_pairs(cells, |i, pair| take(i, pair, other.pair(i)));
        }
        (other, Held::Sparse { cells, .. }) => {
            for_sparse_pairs(cells, |i, pair| take(i, other.pair(i), pair));
        }
        (Held::Dense(left), Held::Dense(right)) => {
            for i in 0..left.len().div_ceil(2) {
                take(i, pair(left, i), pair(right, i));
            }
        }
        (left, right) => {
            for i in 0..left.len().div_ceil(2) {
                take(i, left.pair(i), right.pair(i));
            }
        }
    }
}

#[inline(always)]
fn pair(values: &[Words], i: usize) -> Pair {
    (
        values[2 * i],
        values.get(2 * i + 1).copied().unwrap_or_default(),
    )
}

/// Pair `i`, whose cells come first if there are any, and how many these are.
fn sparse_pair(cells: &[(usize, Words)], i: usize) -> (Pair, usize) {
    let zero = Words::default();
    match cells {
        [(low, a), (high, b), ..] if *low == 2 * i && *high == 2 * i + 1 => ((*a, *b), 2),
        [(low, a), ..] if *low == 2 * i => ((*a, zero), 1),
        [(high, b), ..] if *high == 2 * i + 1 => ((zero, *b), 1),
        _ => ((zero, zero), 0),
    }
}

fn for_sparse_pairs(mut cells: &[(usize, Words)], mut take: impl FnMut(usize, Pair)) {
    while let Some((first, _)) = cells.first() {
        let i = first / 2;
        let (pair, taken) = sparse_pair(cells, i);
        take(i, pair);
        cells = &cells[taken..];
    }
}

fn dense(len: usize, cells: &[(usize, Words)]) -> Vec<Words> {
    let mut values = vec![Words::default(); len];
    for (i, value) in cells {
        values[*i] = *value;
    }
    values
}

/// An integer's residue: p is added to a negative one.
#[inline(always)]
pub(super) fn word(value: i64) -> u64 {
    let negative = (value >> 63) as u64;
    (value as u64).wrapping_add(negative & F::ORDER_U64)
}

/// The product of two integers.
#[inline(always)]
pub(super) fn product(a: i64, b: i64) -> u64 {
    (F::new(word(a)) * F::new(word(b))).as_canonical_u64()
}
