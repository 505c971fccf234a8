//! A linear functional of the trace, reduced to the trace at one point: the last step before the opening.

use assay_protocol::codec::{CodecError, Reader, Writer};

use crate::field::K;
use crate::matrix::TraceMatrix;
use crate::rounds::Round;
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

impl Functional {
    /// The left side by its definition.
    pub fn evaluate(&self, _f: &TraceMatrix) -> K {
        todo!()
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionalProof {
    rounds: Vec<Round<2>>,
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
    pub fn write(&self, _out: &mut Writer) {
        todo!()
    }

    pub fn read(_rows: usize, _tokens: usize, _from: &mut Reader) -> Result<Self, CodecError> {
        todo!()
    }
}

/// The soundness error is at most this over the number of elements of K.
pub fn error_over_field(_rows: usize, _tokens: usize) -> u128 {
    todo!()
}

/// Reduces the functional to f at one point: variables of the token first, then of the row.
pub fn prove(
    _functional: &Functional,
    _f: &TraceMatrix,
    _threads: usize,
    _t: &mut Transcript,
) -> (FunctionalProof, Vec<K>, K) {
    todo!()
}

/// The point and f's value there, which the commitment has to open.
pub fn verify(
    _functional: &Functional,
    _rows: usize,
    _proof: &FunctionalProof,
    _t: &mut Transcript,
) -> Result<(Vec<K>, K), FunctionalError> {
    todo!()
}
