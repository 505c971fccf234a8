//! A linear functional of the trace, reduced to the trace at one point: the last step before the opening.
//!
//! With a_m(R) the weights of the entries along vector b_m, the value is Σ_t Σ_m b_m(t)·Σ_R a_m(R)·f(R, t),
//! and one sumcheck binds first t, then R. Once t is bound to r_t, what is left is a sum over the rows of
//! w(R)·f(R, r_t) with w = Σ_m b_m(r_t)·a_m, which the verifier knows.

#[cfg(test)]
mod tests;

use std::thread;

use assay_protocol::codec::{CodecError, Reader, Writer};
use p3_field::PrimeCharacteristicRing;

use crate::contract::{RowSums, TokenWeights};
use crate::fast::{self, Sum};
use crate::field::{K, eq_table, log2_ceil};
use crate::matrix::TraceMatrix;
use crate::rounds::{self, Round};
use crate::transcript::Transcript;

/// Σ_entries Σ_i Σ_t weights[i]·vectors[vector][t]·f(first_row + i·stride, t) = value.
///
/// Both sides build it from the transcript's challenges; nothing here is read from a proof.
#[derive(Debug, Clone)]
pub struct Functional {
    /// Each of `tokens` elements.
    pub vectors: Vec<Vec<K>>,
    pub entries: Vec<Entry>,
    pub value: K,
}

/// Rows of the trace, each with its weight, all along one vector of tokens.
#[derive(Debug, Clone)]
pub struct Entry {
    pub vector: usize,
    pub first_row: usize,
    pub stride: usize,
    pub weights: Vec<K>,
}

impl Entry {
    fn row(&self, i: usize) -> usize {
        self.first_row + i * self.stride
    }

    /// `Σ_i weights[i]·rows[row i]`.
    fn along(&self, rows: &[K]) -> K {
        match self.weights.is_empty() {
            true => K::ZERO,
            false => dot(
                &self.weights,
                rows[self.first_row..].iter().step_by(self.stride),
            ),
        }
    }

    fn rows(&self) -> impl Iterator<Item = (usize, &K)> {
        let weights = self.weights.iter().enumerate();
        weights.map(|(i, weight)| (self.row(i), weight))
    }
}

impl Functional {
    /// The left side by its definition.
    pub fn evaluate(&self, f: &TraceMatrix) -> K {
        let along: Vec<TokenWeights> = self.vectors.iter().map(|v| TokenWeights::new(v)).collect();
        let entry = |entry: &Entry| -> K {
            let row =
                |(row, weight): (usize, &K)| *weight * along[entry.vector].along(f.run(row, 1));
            entry.rows().map(row).sum()
        };
        self.entries.iter().map(entry).sum()
    }

    /// Vectors have as many elements as there are tokens, entries name rows and vectors that exist.
    fn assert_shape(&self, rows: usize) {
        let tokens = self.tokens();
        assert!(tokens.is_power_of_two(), "{tokens} tokens");
        assert!(
            self.vectors.iter().all(|v| v.len() == tokens),
            "tokens of a vector"
        );
        for entry in self
            .entries
            .iter()
            .filter(|entry| !entry.weights.is_empty())
        {
            assert!(entry.vector < self.vectors.len(), "an entry's vector");
            assert!(entry.stride > 0, "an entry's stride");
            assert!(entry.row(entry.weights.len() - 1) < rows, "an entry's rows");
        }
    }

    fn tokens(&self) -> usize {
        self.vectors.first().map_or(1, Vec::len)
    }

    /// `Σ_R a_m(R)·f(R, t)` for all m and t, at m·tokens + t.
    fn contract_rows(&self, f: &TraceMatrix, threads: usize) -> Vec<K> {
        // By row, so that a row is still near when the next entry wants it.
        let mut entries: Vec<&Entry> = self.entries.iter().collect();
        entries.sort_by_key(|entry| entry.first_row);
        let tokens = self.tokens();
        let share = |entries: &[&Entry]| {
            let mut into = vec![K::ZERO; self.vectors.len() * tokens];
            let mut sums = RowSums::new(tokens);
            for entry in entries {
                let into = &mut into[entry.vector * tokens..][..tokens];
                sums.add(&entry.weights, |i| f.run(entry.row(i), 1), into);
            }
            into
        };
        thread::scope(|scope| {
            let shares = equal_shares(&entries, threads);
            let running: Vec<_> = shares
                .map(|entries| scope.spawn(move || share(entries)))
                .collect();
            let shares = running
                .into_iter()
                .map(|share| share.join().expect("a share's sums"));
            shares.reduce(add).unwrap_or_default()
        })
    }

    /// `w(R)` for every row, the tokens' variables bound.
    fn row_weights(&self, at_tokens: &[K], rows: usize) -> Vec<K> {
        let mut weights = vec![K::ZERO; rows];
        for entry in &self.entries {
            let scale = at_tokens[entry.vector];
            for (row, weight) in entry.rows() {
                weights[row] += scale * *weight;
            }
        }
        weights
    }
}

fn add(mut sums: Vec<K>, others: Vec<K>) -> Vec<K> {
    for (sum, other) in sums.iter_mut().zip(others) {
        *sum += other;
    }
    sums
}

/// Cuts the entries where about equally many rows stand on each side.
fn equal_shares<'a, 'e>(
    entries: &'a [&'e Entry],
    threads: usize,
) -> impl Iterator<Item = &'a [&'e Entry]> {
    let work = |entry: &Entry| entry.weights.len() + 1;
    let share = entries
        .iter()
        .map(|entry| work(entry))
        .sum::<usize>()
        .div_ceil(threads.max(1));
    let mut rest = entries;
    std::iter::from_fn(move || {
        let mut left = share;
        let fits = |entry: &&&Entry| {
            let taken = left > 0;
            left = left.saturating_sub(work(entry));
            taken
        };
        let taken = rest.iter().take_while(fits).count();
        let (first, others) = rest.split_at(taken);
        rest = others;
        (!first.is_empty()).then_some(first)
    })
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionalProof {
    rounds: Vec<Round<2>>,
    /// Of f at the point.
    value: K,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FunctionalError {
    #[error("the functional's proof has {got} rounds, {expected} expected")]
    Rounds { expected: usize, got: usize },
    #[error("the functional's proof ends in a value that its rounds do not lead to")]
    Value,
}

impl FunctionalProof {
    pub fn write(&self, out: &mut Writer) {
        rounds::write_rounds(&self.rounds, out);
        rounds::write_element(self.value, out);
    }

    pub fn read(rows: usize, tokens: usize, from: &mut Reader) -> Result<Self, CodecError> {
        Ok(FunctionalProof {
            rounds: rounds::read_rounds(log2_ceil(tokens) + log2_ceil(rows), from)?,
            value: rounds::read_element(from)?,
        })
    }
}

/// The soundness error is at most this over the number of elements of K: two for each round.
pub fn error_over_field(rows: usize, tokens: usize) -> u128 {
    2 * (log2_ceil(tokens) + log2_ceil(rows)) as u128
}

fn open(functional: &Functional, t: &mut Transcript) {
    t.absorb("functional", &[functional.value]);
}

fn close(value: K, t: &mut Transcript) {
    t.absorb("functional's trace", &[value]);
}

/// Reduces the functional to f at one point: variables of the token first, then of the row.
pub fn prove(
    functional: &Functional,
    f: &TraceMatrix,
    threads: usize,
    t: &mut Transcript,
) -> (FunctionalProof, Vec<K>, K) {
    functional.assert_shape(f.rows());
    assert_eq!(functional.tokens(), f.tokens(), "tokens of the functional");
    open(functional, t);
    let mut proving = Proving {
        rounds: Vec::new(),
        point: Vec::new(),
        claim: functional.value,
    };

    // Vector after vector, each of a power of two: binding the lowest variable binds the token's in all.
    let mut vectors = functional.vectors.concat();
    let mut contracted = functional.contract_rows(f, threads);
    proving.bind(&mut vectors, &mut contracted, log2_ceil(f.tokens()), t);
    drop(contracted);

    let mut weights = functional.row_weights(&vectors, f.rows());
    let mut values = contract_tokens(f, &proving.point, threads);
    proving.bind(&mut weights, &mut values, log2_ceil(f.rows()), t);
    let value = values.first().copied().unwrap_or_default();
    close(value, t);
    (
        FunctionalProof {
            rounds: proving.rounds,
            value,
        },
        proving.point,
        value,
    )
}

/// `f(R, point)` for every row.
fn contract_tokens(f: &TraceMatrix, point: &[K], threads: usize) -> Vec<K> {
    let weights = TokenWeights::new(&eq_table(point, f.tokens()));
    let mut values = vec![K::ZERO; f.rows()];
    let share = f.rows().div_ceil(threads.max(1)).max(1);
    thread::scope(|scope| {
        for (values, rows) in values
            .chunks_mut(share)
            .zip(f.values().chunks(share * f.tokens()))
        {
            let weights = &weights;
            scope.spawn(move || {
                for (value, row) in values.iter_mut().zip(rows.chunks_exact(f.tokens())) {
                    *value = weights.along(row);
                }
            });
        }
    });
    values
}

struct Proving {
    rounds: Vec<Round<2>>,
    point: Vec<K>,
    claim: K,
}

impl Proving {
    /// Rounds of Σ_x left(x)·right(x).
    fn bind(&mut self, left: &mut Vec<K>, right: &mut Vec<K>, count: usize, t: &mut Transcript) {
        for _ in 0..count {
            let mut round = Round([K::ZERO; 2]);
            for i in 0..left.len().div_ceil(2) {
                let (left_low, left_high) = rounds::pair(left, i);
                let (right_low, right_high) = rounds::pair(right, i);
                round.0[0] += left_low * right_low;
                round.0[1] += (left_high - left_low) * (right_high - right_low);
            }
            let r = round.step(&mut self.claim, t);
            rounds::bind(left, r);
            rounds::bind(right, r);
            self.rounds.push(round);
            self.point.push(r);
        }
    }
}

fn dot<'a>(a: &[K], b: impl IntoIterator<Item = &'a K>) -> K {
    let terms = a.iter().zip(b);
    let sum = terms.fold(Sum::default(), |sum, (a, b)| {
        sum.plus(fast::words(*a), fast::words(*b))
    });
    fast::element(sum.reduce())
}

/// The point and f's value there, which the commitment has to open.
pub fn verify(
    functional: &Functional,
    rows: usize,
    proof: &FunctionalProof,
    t: &mut Transcript,
) -> Result<(Vec<K>, K), FunctionalError> {
    functional.assert_shape(rows);
    let tokens = functional.tokens();
    let expected = log2_ceil(tokens) + log2_ceil(rows);
    if proof.rounds.len() != expected {
        let got = proof.rounds.len();
        return Err(FunctionalError::Rounds { expected, got });
    }
    open(functional, t);
    let (point, claim) = rounds::follow(&proof.rounds, functional.value, t);
    let (token, row) = point.split_at(log2_ceil(tokens));
    let tokens = eq_table(token, tokens);
    let rows = eq_table(row, rows);
    let at = |vector: &Vec<K>| dot(vector, &tokens);
    let at_tokens: Vec<K> = functional.vectors.iter().map(at).collect();
    let entry = |entry: &Entry| at_tokens[entry.vector] * entry.along(&rows);
    let weight: K = functional.entries.iter().map(entry).sum();
    if weight * proof.value != claim {
        return Err(FunctionalError::Value);
    }
    close(proof.value, t);
    Ok((point, proof.value))
}
