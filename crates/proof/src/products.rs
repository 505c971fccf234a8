//! Every product of two committed vectors, in one batched sumcheck: Σ_x weight(x)·left(x)·right(x) = sum.

use assay_protocol::codec::{CodecError, Reader, Writer};

use crate::field::K;
use crate::rounds::Round;
use crate::transcript::Transcript;

/// The public weight of a product.
#[derive(Debug, Clone)]
pub enum Weight {
    /// One everywhere, the padding included: that is zero by the factors.
    One,
    /// rows[i]·tokens[t] at i·tokens.len() + t, where tokens.len() is a power of two.
    Tensor { rows: Vec<K>, tokens: Vec<K> },
}

impl Weight {
    /// The zero-padded weight's extension.
    pub fn at(&self, _point: &[K]) -> K {
        todo!()
    }
}

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

#[derive(Debug, Clone)]
pub struct Product {
    pub weight: Weight,
    pub left: Factor,
    pub right: Factor,
    pub sum: K,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProductsProof {
    rounds: Vec<Round<3>>,
    factors: Vec<(K, K)>,
}

/// What is left to show: each product's factors at one point. A factor with fewer variables than the point
/// is zero-padded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reduced {
    pub point: Vec<K>,
    pub factors: Vec<(K, K)>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProductsError {
    #[error("the products' proof has {got} rounds, {expected} expected")]
    Rounds { expected: usize, got: usize },
    #[error("the products' proof ends in {got} pairs of factors, {expected} expected")]
    Factors { expected: usize, got: usize },
    #[error("the products' proof ends in factors that its rounds do not lead to")]
    Value,
}

impl ProductsProof {
    pub fn write(&self, _out: &mut Writer) {
        todo!()
    }

    /// `lens`: of the products' vectors.
    pub fn read(_lens: &[usize], _from: &mut Reader) -> Result<Self, CodecError> {
        todo!()
    }
}

/// The soundness error is at most this over the number of elements of K. `lens`: of the products' vectors.
pub fn error_over_field(_lens: &[usize]) -> u128 {
    todo!()
}

pub fn prove(
    _products: Vec<Product>,
    _threads: usize,
    _t: &mut Transcript,
) -> (ProductsProof, Reduced) {
    todo!()
}

/// Each product is told by its length, its weight and its sum.
pub fn verify(
    _shapes: &[(usize, &Weight, K)],
    _proof: &ProductsProof,
    _t: &mut Transcript,
) -> Result<Reduced, ProductsError> {
    todo!()
}
