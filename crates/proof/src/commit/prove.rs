//! The prover's side of an opening.

use assay_protocol::codec::Writer;
use p3_field::{BasedVectorSpace, PrimeCharacteristicRing, PrimeField64};

use super::code::Domain;
use super::oracle::{self, Columns};
use super::parallel::each;
use super::run::{Cut, Run, fold_first, fold_later, fold_shares};
use super::schedule::{Schedule, Shape};
use super::tree::{Tree, to_bytes};
use crate::field::{F, K, eq_table};
use crate::rounds::{Round, write_element, write_rounds};

/// Values that a thread takes at a time.
const PIECE: usize = 1 << 12;

/// An oracle that queries are still due to.
struct Due<'a> {
    columns: Columns<'a>,
    shape: Shape,
    tree: &'a Tree,
    /// What each element of a row contributes to the fold.
    shares: Vec<K>,
}

pub(super) fn open(
    schedule: &Schedule,
    values: &[i32],
    tree: &Tree,
    cut: Cut,
    mut run: Run,
    out: &mut Writer,
    threads: usize,
) {
    let first = schedule.first;
    let mut weight = eq_table(&cut.within, first.len());
    let columns = column_values(values, &weight, first.columns, threads);
    columns.iter().for_each(|value| write_element(*value, out));
    let shares = run
        .columns(cut, &columns)
        .expect("the prover claims the value at the point");
    let mut polynomial = fold_columns(values, &shares, first.len(), threads);
    let due = Due {
        columns: Columns::Integers(values),
        shape: first,
        tree,
        shares,
    };
    let Some(next) = schedule.later.first() else {
        last(&polynomial, due, run, out, threads);
        return;
    };
    let mut tree = next_oracle(next, &polynomial, &due, &mut weight, &mut run, out, threads);
    drop(due);
    for (i, shape) in schedule.later.iter().enumerate() {
        let unfolded = polynomial.clone();
        let shares = sumcheck(*shape, &mut polynomial, &mut weight, &mut run, out);
        let due = Due {
            columns: Columns::Elements(&unfolded),
            shape: *shape,
            tree: &tree,
            shares,
        };
        match schedule.later.get(i + 1) {
            Some(next) => {
                tree = next_oracle(next, &polynomial, &due, &mut weight, &mut run, out, threads);
            }
            None => return last(&polynomial, due, run, out, threads),
        }
    }
}

/// Commits to the polynomial at hand, and answers the queries that tie it to the oracle before.
fn next_oracle(
    shape: &Shape,
    polynomial: &[K],
    due: &Due,
    weight: &mut [K],
    run: &mut Run,
    out: &mut Writer,
    threads: usize,
) -> Tree {
    let tree = oracle::commit(Columns::Elements(polynomial), shape, threads);
    run.commit(&tree.root());
    out.b256(&to_bytes(&tree.root()).into());
    let (positions, values) = answer(due, run, out, threads);
    let scales = run.queried(&due.shape, &positions, &values);
    add_powers(&due.shape, &positions, &scales, weight);
    tree
}

fn last(polynomial: &[K], due: Due, mut run: Run, out: &mut Writer, threads: usize) {
    run.last(polynomial);
    polynomial
        .iter()
        .for_each(|value| write_element(*value, out));
    let (positions, values) = answer(&due, &mut run, out, threads);
    run.queried(&due.shape, &positions, &values);
    debug_assert!(run.holds(polynomial));
}

/// The queried rows, and their folds.
fn answer(due: &Due, run: &mut Run, out: &mut Writer, threads: usize) -> (Vec<usize>, Vec<K>) {
    out.u64(run.grind().as_canonical_u64());
    let positions = run.positions(&due.shape);
    let rows = oracle::rows(due.columns, &due.shape, &positions, threads);
    for value in rows.iter().flatten() {
        out.u64(value.as_canonical_u64());
    }
    for sibling in due.tree.siblings(&positions) {
        out.b256(&to_bytes(&sibling).into());
    }
    let fold = |row: &Vec<F>| match due.columns {
        Columns::Integers(_) => fold_first(row, &due.shares),
        Columns::Elements(_) => fold_later(row, &due.shares),
    };
    let values = rows.iter().map(fold).collect();
    (positions, values)
}

/// Binds the variables over an oracle's columns, highest first; returns what each block contributes.
fn sumcheck(
    shape: Shape,
    polynomial: &mut Vec<K>,
    weight: &mut Vec<K>,
    run: &mut Run,
    out: &mut Writer,
) -> Vec<K> {
    let mut challenges = Vec::new();
    while polynomial.len() > shape.len() {
        let half = polynomial.len() / 2;
        let (p_low, p_high) = polynomial.split_at(half);
        let (w_low, w_high) = weight.split_at(half);
        let mut sums = [K::ZERO; 2];
        for i in 0..half {
            sums[0] += p_low[i] * w_low[i];
            sums[1] += (p_high[i] - p_low[i]) * (w_high[i] - w_low[i]);
        }
        let round = Round(sums);
        write_rounds(&[round], out);
        let r = run.round(&round);
        bind_highest(polynomial, r);
        bind_highest(weight, r);
        challenges.push(r);
    }
    fold_shares(&challenges)
}

fn bind_highest(values: &mut Vec<K>, r: K) {
    let half = values.len() / 2;
    let (low, high) = values.split_at_mut(half);
    for (low, high) in low.iter_mut().zip(high) {
        *low += r * (*high - *low);
    }
    values.truncate(half);
}

/// The batched functionals of the queries, written out.
fn add_powers(shape: &Shape, positions: &[usize], scales: &[K], weight: &mut [K]) {
    let at = positions.iter().zip(scales).map(|(position, scale)| {
        let [first, second] = raw(scale);
        (*position, [first, second, 0, 0])
    });
    let sums = Domain::new(shape).transpose(&at.collect::<Vec<_>>());
    for (weight, [first, second, ..]) in weight.iter_mut().zip(sums) {
        *weight += K::new([first, second].map(F::new));
    }
}

/// Integers are taken as value + 2^31, which is below 2^32: a product with a coefficient is below 2^96, and
/// 2^31 of them sum below 2^127.
const SHIFT: u64 = 1 << 31;

#[inline(always)]
fn shifted(value: i32) -> u128 {
    u128::from((value as u32) ^ SHIFT as u32)
}

/// Sums of products of shifted integers, and what the shift added.
#[derive(Clone, Copy, Default)]
struct Sum([u128; 2]);

impl Sum {
    #[inline(always)]
    fn add(&mut self, by: [u64; 2], value: i32) {
        let value = shifted(value);
        self.0[0] += u128::from(by[0]) * value;
        self.0[1] += u128::from(by[1]) * value;
    }

    fn less_shift(self, all: K) -> K {
        K::new(self.0.map(F::from_u128)) - all * F::new(SHIFT)
    }
}

#[inline(always)]
fn raw(value: &K) -> [u64; 2] {
    let coefficients: &[F] = value.as_basis_coefficients_slice();
    [
        coefficients[0].as_canonical_u64(),
        coefficients[1].as_canonical_u64(),
    ]
}

/// Each column's functional `weight`.
pub(super) fn column_values(
    values: &[i32],
    weight: &[K],
    columns: usize,
    threads: usize,
) -> Vec<K> {
    let mut out = vec![K::ZERO; columns];
    let columns = out.iter_mut().zip(values.chunks(weight.len()));
    each(columns, threads, |(out, values)| {
        let mut sum = Sum::default();
        let mut all = K::ZERO;
        for (weight, value) in weight.iter().zip(values) {
            sum.add(raw(weight), *value);
            all += *weight;
        }
        *out = sum.less_shift(all);
    });
    out
}

/// The columns' sum, each times its share.
pub(super) fn fold_columns(values: &[i32], shares: &[K], len: usize, threads: usize) -> Vec<K> {
    let mut out = vec![K::ZERO; len];
    let shares: Vec<(K, [u64; 2])> = shares.iter().map(|share| (*share, raw(share))).collect();
    each(
        out.chunks_mut(PIECE).enumerate(),
        threads,
        |(piece, out)| {
            let mut sums = vec![Sum::default(); out.len()];
            let mut all = vec![K::ZERO; out.len()];
            for ((share, raw), column) in shares.iter().zip(values.chunks(len)) {
                let values = column.iter().skip(piece * PIECE);
                for ((sum, all), value) in sums.iter_mut().zip(&mut all).zip(values) {
                    sum.add(*raw, *value);
                    *all += *share;
                }
            }
            for ((out, sum), all) in out.iter_mut().zip(sums).zip(all) {
                *out = sum.less_shift(all);
            }
        },
    );
    out
}
