//! Every product of two committed vectors, in one batched sumcheck: Σ_x weight(x)·left(x)·right(x) = sum.
//!
//! Vectors differ in length; each is padded with zeros to the variables of the longest, in thought only:
//! once its own variables are bound, a short one is multiplied by (1 − r) a round.

mod factor;
mod running;
#[cfg(test)]
mod tests;

use std::sync::Mutex;
use std::thread;

use assay_protocol::codec::{CodecError, Reader, Writer};
use p3_field::PrimeCharacteristicRing;

use crate::field::{K, eq_table, log2_ceil};
use crate::rounds::{self, Round};
use crate::transcript::Transcript;

pub use factor::Factor;
use running::{Running, add};

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
    pub fn at(&self, point: &[K]) -> K {
        let Weight::Tensor { rows, tokens } = self else {
            return K::ONE;
        };
        let (token, row) = point.split_at(log2_ceil(tokens.len()));
        along(tokens, token) * along(rows, row)
    }

    fn assert_shape(&self, len: usize) {
        assert!(len > 0, "a product of empty vectors");
        if let Weight::Tensor { rows, tokens } = self {
            assert!(tokens.len().is_power_of_two(), "{} tokens", tokens.len());
            assert_eq!(rows.len() * tokens.len(), len, "length of the weight");
        }
    }
}

fn along(values: &[K], point: &[K]) -> K {
    let table = eq_table(point, values.len());
    values
        .iter()
        .zip(table)
        .map(|(value, eq)| *value * eq)
        .sum()
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
    pub fn write(&self, out: &mut Writer) {
        rounds::write_rounds(&self.rounds, out);
        for (left, right) in &self.factors {
            rounds::write_element(*left, out);
            rounds::write_element(*right, out);
        }
    }

    /// `lens`: of the products' vectors.
    pub fn read(lens: &[usize], from: &mut Reader) -> Result<Self, CodecError> {
        let rounds = rounds::read_rounds(variables(lens), from)?;
        let mut pair = || Ok((rounds::read_element(from)?, rounds::read_element(from)?));
        let factors = lens.iter().map(|_| pair()).collect::<Result<_, _>>()?;
        Ok(ProductsProof { rounds, factors })
    }
}

/// Of the point that products of these lengths end in.
pub fn variables(lens: &[usize]) -> usize {
    lens.iter().map(|len| log2_ceil(*len)).max().unwrap_or(0)
}

/// The soundness error is at most this over the number of elements of K: powers of the batching challenge
/// up to the number of products less one, and three for each round. `lens`: of the products' vectors.
pub fn error_over_field(lens: &[usize]) -> u128 {
    (lens.len().saturating_sub(1) + 3 * variables(lens)) as u128
}

/// What each sum is multiplied by, so that one claim stands for all.
fn open(sums: &[K], t: &mut Transcript) -> Vec<K> {
    t.absorb("products", sums);
    let batching = t.challenge("products' batching");
    batching.powers().take(sums.len()).collect()
}

fn close(factors: &[(K, K)], t: &mut Transcript) {
    let values: Vec<K> = factors
        .iter()
        .flat_map(|(left, right)| [*left, *right])
        .collect();
    t.absorb("products' factors", &values);
}

pub fn prove(
    products: Vec<Product>,
    threads: usize,
    t: &mut Transcript,
) -> (ProductsProof, Reduced) {
    let lens: Vec<usize> = products.iter().map(|product| product.left.len()).collect();
    let sums: Vec<K> = products.iter().map(|product| product.sum).collect();
    let scales = open(&sums, t);
    let mut claim = sums
        .iter()
        .zip(&scales)
        .map(|(sum, scale)| *sum * *scale)
        .sum();
    let all = products.into_iter().zip(scales);
    let mut running: Vec<Running> = all
        .map(|(product, scale)| Running::new(product, scale))
        .collect();

    let mut rounds = Vec::new();
    let mut point = Vec::new();
    for _ in 0..variables(&lens) {
        let round = Round(sum_of_all(&mut running, point.last().copied(), threads));
        point.push(round.step(&mut claim, t));
        rounds.push(round);
    }
    let last = point.last().copied();
    let factors: Vec<(K, K)> = running
        .into_iter()
        .map(|product| product.ends(last))
        .collect();
    close(&factors, t);
    (
        ProductsProof {
            rounds,
            factors: factors.clone(),
        },
        Reduced { point, factors },
    )
}

/// Binds every product's variable that was drawn last, and adds up their polynomials in the next.
fn sum_of_all(products: &mut [Running], bound: Option<K>, threads: usize) -> [K; 3] {
    /// Below this many elements a thread costs more than it brings.
    const ALONE: usize = 1 << 13;
    let work: usize = products.iter().map(|product| product.len()).sum();
    let queue = Mutex::new(products.iter_mut());
    let share = || {
        let mut sum = [K::ZERO; 3];
        loop {
            let next = queue.lock().expect("no other share panics").next();
            let Some(product) = next else {
                return sum;
            };
            if let Some(r) = bound {
                product.bind(r);
            }
            sum = add(sum, product.round());
        }
    };
    if threads <= 1 || work < ALONE {
        return share();
    }
    thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(share)).collect();
        let shares = running
            .into_iter()
            .map(|share| share.join().expect("a share's sum"));
        shares.fold([K::ZERO; 3], add)
    })
}

/// Each product is told by its length, its weight and its sum.
pub fn verify(
    shapes: &[(usize, &Weight, K)],
    proof: &ProductsProof,
    t: &mut Transcript,
) -> Result<Reduced, ProductsError> {
    shapes
        .iter()
        .for_each(|(len, weight, _)| weight.assert_shape(*len));
    let lens: Vec<usize> = shapes.iter().map(|(len, ..)| *len).collect();
    let (expected, got) = (variables(&lens), proof.rounds.len());
    if got != expected {
        return Err(ProductsError::Rounds { expected, got });
    }
    let (expected, got) = (lens.len(), proof.factors.len());
    if got != expected {
        return Err(ProductsError::Factors { expected, got });
    }
    let sums: Vec<K> = shapes.iter().map(|(.., sum)| *sum).collect();
    let scales = open(&sums, t);
    let claim = sums
        .iter()
        .zip(&scales)
        .map(|(sum, scale)| *sum * *scale)
        .sum();
    let (point, claim) = rounds::follow(&proof.rounds, claim, t);
    let mut ends = K::ZERO;
    for (((_, weight, _), scale), (left, right)) in shapes.iter().zip(&scales).zip(&proof.factors) {
        ends += *scale * weight.at(&point) * *left * *right;
    }
    if ends != claim {
        return Err(ProductsError::Value);
    }
    close(&proof.factors, t);
    let factors = proof.factors.clone();
    Ok(Reduced { point, factors })
}
