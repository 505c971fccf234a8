//! An oracle on the prover's side: columns are encoded a group at a time and hashed away, and encoded again
//! where they are opened, so that no codeword is ever kept.

use p3_field::{BasedVectorSpace, PrimeCharacteristicRing, PrimeField64};

use super::code::Domain;
use super::parallel::each;
use super::schedule::Shape;
use super::tree::{BLOCK_VALUES, Leaves, Tree};
use crate::field::{F, K};

/// The coefficients of all columns, one after the other; what is missing is zero.
#[derive(Clone, Copy)]
pub(super) enum Columns<'a> {
    Integers(&'a [i32]),
    /// Each block of values is two columns: its first coefficients and its second.
    Elements(&'a [K]),
}

impl Columns<'_> {
    fn read(&self, shape: &Shape, column: usize, out: &mut [F]) {
        match self {
            Columns::Integers(values) => {
                let values = &values[column << shape.log_len..];
                let values = &values[..values.len().min(shape.len())];
                let (head, tail) = out.split_at_mut(values.len());
                for (out, value) in head.iter_mut().zip(values) {
                    *out = small(*value);
                }
                tail.fill(F::ZERO);
            }
            Columns::Elements(values) => {
                let values = &values[(column / 2) << shape.log_len..][..shape.len()];
                for (out, value) in out.iter_mut().zip(values) {
                    let coefficients: &[F] = value.as_basis_coefficients_slice();
                    *out = coefficients[column % 2];
                }
            }
        }
    }
}

/// Without a branch on the sign.
#[inline(always)]
fn small(value: i32) -> F {
    let sign = (value >> 31) as i64 as u64;
    F::new((i64::from(value) as u64).wrapping_add(F::ORDER_U64 & sign))
}

pub(super) fn commit(columns: Columns, shape: &Shape, threads: usize) -> Tree {
    let domain = Domain::new(shape);
    let mut leaves = Leaves::new(shape.positions());
    let wide = BLOCK_VALUES.min(shape.columns);
    let mut group = vec![vec![F::ZERO; shape.positions()]; wide];
    for first in (0..shape.columns).step_by(BLOCK_VALUES) {
        let group = &mut group[..wide.min(shape.columns - first)];
        each(group.iter_mut().enumerate(), threads, |(i, out)| {
            let mut column = vec![F::ZERO; shape.len()];
            columns.read(shape, first + i, &mut column);
            domain.encode(&column, out);
        });
        leaves.absorb(group, threads);
    }
    leaves.finish(threads)
}

/// The rows at these positions.
pub(super) fn rows(
    columns: Columns,
    shape: &Shape,
    positions: &[usize],
    threads: usize,
) -> Vec<Vec<F>> {
    let domain = Domain::new(shape);
    let mut by_column = vec![Vec::new(); shape.columns];
    each(by_column.iter_mut().enumerate(), threads, |(i, out)| {
        let mut column = vec![F::ZERO; shape.len()];
        columns.read(shape, i, &mut column);
        *out = domain.values_at(&column, positions);
    });
    let row = |i: usize| by_column.iter().map(|column| column[i]).collect();
    (0..positions.len()).map(row).collect()
}
