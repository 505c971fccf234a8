//! An oracle on the prover's side: columns are encoded a group at a time and hashed away, and encoded again
//! where they are opened, so that no codeword is ever kept.

use p3_field::{BasedVectorSpace, PrimeField64};

use super::code::Domain;
use super::parallel::each;
use super::schedule::Shape;
use super::tree::{BLOCK_FOURS, Leaves, PIECE, Tree};
use super::words::{Four, small};
use crate::field::{F, K};

/// The coefficients of all columns, one after the other; what is missing is zero.
#[derive(Clone, Copy)]
pub(super) enum Columns<'a> {
    Integers(&'a [i32]),
    /// Each block of values is two columns: its first coefficients and its second.
    Elements(&'a [K]),
}

impl<'a> Columns<'a> {
    /// The four columns from this one on; those past the last are zero.
    fn four(&self, shape: &Shape, first: usize) -> FourColumns<'a> {
        let len = shape.len();
        match self {
            Columns::Integers(values) => FourColumns::Integers([0, 1, 2, 3].map(|i| {
                let rest = values.get((first + i) * len..).unwrap_or_default();
                &rest[..len.min(rest.len())]
            })),
            Columns::Elements(values) => {
                let block = |i| &values[(first / 2 + i) * len..][..len];
                FourColumns::Elements([block(0), block(1)])
            }
        }
    }
}

#[derive(Clone, Copy)]
enum FourColumns<'a> {
    Integers([&'a [i32]; 4]),
    Elements([&'a [K]; 2]),
}

fn begin(domain: &Domain, columns: FourColumns, out: &mut [Four]) {
    match columns {
        FourColumns::Integers(columns) => domain.begin(integers(&columns), out),
        FourColumns::Elements(blocks) => domain.begin(elements(&blocks), out),
    }
}

#[inline(always)]
fn integers(columns: &[&[i32]; 4]) -> impl Fn(usize) -> Four {
    |i| columns.map(|column| column.get(i).map_or(0, |value| small(*value)))
}

#[inline(always)]
fn elements(blocks: &[&[K]; 2]) -> impl Fn(usize) -> Four {
    |i| {
        let [[a, b], [c, d]] = blocks.map(|block| {
            let coefficients: &[F] = block[i].as_basis_coefficients_slice();
            [coefficients[0], coefficients[1]].map(|value| value.as_canonical_u64())
        });
        [a, b, c, d]
    }
}

pub(super) fn commit(columns: Columns, shape: &Shape, threads: usize) -> Tree {
    let domain = Domain::new(shape);
    let mut leaves = Leaves::new(shape.positions());
    let wide = BLOCK_FOURS.min(shape.columns.div_ceil(4));
    let mut group = vec![vec![[0; 4]; shape.positions()]; wide];
    for first in (0..shape.columns).step_by(4 * BLOCK_FOURS) {
        let left = (shape.columns - first).div_ceil(4);
        let group = &mut group[..wide.min(left)];
        each(group.iter_mut().enumerate(), threads, |(i, out)| {
            begin(&domain, columns.four(shape, first + 4 * i), out);
        });
        // A run at a time, values are no sooner there than hashed.
        let stride = domain.stride();
        let per_piece = PIECE.div_ceil(stride).min(shape.positions() / stride);
        leaves.absorb(per_piece * stride, threads, |piece, fours| {
            for (four, begun) in fours.iter_mut().zip(&*group) {
                four.clear();
                four.extend_from_slice(&begun[piece * per_piece * stride..][..per_piece * stride]);
                for (j, part) in four.chunks_exact_mut(stride).enumerate() {
                    domain.finish(part, piece * per_piece + j);
                }
            }
        });
    }
    leaves.finish(threads)
}

/// The rows at these ascending positions.
pub(super) fn rows(
    columns: Columns,
    shape: &Shape,
    positions: &[usize],
    threads: usize,
) -> Vec<Vec<F>> {
    let domain = Domain::new(shape);
    let mut fours = vec![Vec::new(); shape.columns.div_ceil(4)];
    each(fours.iter_mut().enumerate(), threads, |(i, out)| {
        *out = match columns.four(shape, 4 * i) {
            FourColumns::Integers(columns) => domain.values_at(integers(&columns), positions),
            FourColumns::Elements(blocks) => domain.values_at(elements(&blocks), positions),
        };
    });
    let row = |i: usize| {
        let values = fours.iter().flat_map(|four| four[i]);
        values.take(shape.columns).map(F::new).collect()
    };
    (0..positions.len()).map(row).collect()
}
