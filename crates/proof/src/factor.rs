//! A product's factor: a vector as it is stored, while a sumcheck binds its variables.

use p3_field::PrimeCharacteristicRing;

use crate::field::{K, signed};
use crate::rounds;

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

    pub(crate) fn assert_shape(&self) {
        if let Factor::Sparse { len, cells } = self {
            assert!(
                cells.is_sorted_by(|a, b| a.0 < b.0),
                "cells in ascending order"
            );
            assert!(
                cells.last().is_none_or(|last| last.0 < *len),
                "a cell in the vector"
            );
        }
    }

    /// The two neighbours that the lowest variable tells apart.
    #[inline(always)]
    fn pair(&self, i: usize) -> (K, K) {
        match self {
            Factor::Dense(values) => rounds::pair(values, i),
            Factor::Integers(values) => integer_pair(values, i),
            Factor::Sparse { cells, .. } => {
                let at = cells.partition_point(|cell| cell.0 < 2 * i);
                sparse_pair(&cells[at..], i).0
            }
        }
    }

    /// Every pair of neighbours at which both factors may be something other than zero.
    #[inline(always)]
    pub(crate) fn for_pairs(
        left: &Factor,
        right: &Factor,
        mut take: impl FnMut(usize, (K, K), (K, K)),
    ) {
        match (left, right) {
            (Factor::Sparse { cells, .. }, other) => {
                for_sparse_pairs(cells, |i, pair| take(i, pair, other.pair(i)));
            }
            (other, Factor::Sparse { cells, .. }) => {
                for_sparse_pairs(cells, |i, pair| take(i, other.pair(i), pair));
            }
            (Factor::Dense(left), Factor::Dense(right)) => {
                for i in 0..left.len().div_ceil(2) {
                    take(i, rounds::pair(left, i), rounds::pair(right, i));
                }
            }
            (left, right) => {
                for i in 0..left.len().div_ceil(2) {
                    take(i, left.pair(i), right.pair(i));
                }
            }
        }
    }

    /// Binds the lowest variable. Integers become field elements, a sparse vector grows dense.
    pub(crate) fn bind(&mut self, r: K) {
        match self {
            Factor::Dense(values) => rounds::bind(values, r),
            Factor::Integers(values) => {
                let bound = |i| {
                    let (low, high) = (values[2 * i], values.get(2 * i + 1).copied().unwrap_or(0));
                    r * signed(high - low) + signed(low)
                };
                *self = Factor::Dense((0..values.len().div_ceil(2)).map(bound).collect());
            }
            Factor::Sparse { len, cells } => {
                let mut bound = Vec::with_capacity(cells.len());
                for_sparse_pairs(cells, |i, (low, high)| {
                    bound.push((i, low + r * (high - low)))
                });
                let len = len.div_ceil(2);
                *self = match bound.len() * 4 < len {
                    true => Factor::Sparse { len, cells: bound },
                    false => Factor::Dense(dense(len, &bound)),
                };
            }
        }
    }

    /// The one element that is left when every variable is bound.
    pub(crate) fn only(&self) -> K {
        debug_assert_eq!(self.len(), 1);
        self.pair(0).0
    }
}

fn integer_pair(values: &[i64], i: usize) -> (K, K) {
    let element = |i| {
        values
            .get(i)
            .map_or(K::ZERO, |value| K::from(signed(*value)))
    };
    (element(2 * i), element(2 * i + 1))
}

/// Pair `i`, whose cells come first if there are any, and how many these are.
fn sparse_pair(cells: &[(usize, K)], i: usize) -> ((K, K), usize) {
    match cells {
        [(low, value), (high, other), ..] if *low == 2 * i && *high == 2 * i + 1 => {
            ((*value, *other), 2)
        }
        [(low, value), ..] if *low == 2 * i => ((*value, K::ZERO), 1),
        [(high, value), ..] if *high == 2 * i + 1 => ((K::ZERO, *value), 1),
        _ => ((K::ZERO, K::ZERO), 0),
    }
}

fn for_sparse_pairs(mut cells: &[(usize, K)], mut take: impl FnMut(usize, (K, K))) {
    while let Some((first, _)) = cells.first() {
        let i = first / 2;
        let (pair, taken) = sparse_pair(cells, i);
        take(i, pair);
        cells = &cells[taken..];
    }
}

fn dense(len: usize, cells: &[(usize, K)]) -> Vec<K> {
    let mut values = vec![K::ZERO; len];
    for (i, value) in cells {
        values[*i] = *value;
    }
    values
}
