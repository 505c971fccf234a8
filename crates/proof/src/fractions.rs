//! The fraction-sum argument of LogUp-GKR (Papini and Haböck, ePrint 2023/1284): P/Q = Σ p_i/q_i, reduced to
//! one evaluation of the numerators and one of the denominators.
//!
//! A tree adds neighbours, (p₀q₁ + p₁q₀)/(q₀q₁), down to the root. From the root to the leaves, a sumcheck a
//! level turns a claim about its sums into one about what they are sums of. Beyond the leaves given stands
//! the fraction 0/1, at every level, and is never materialized: all claims are about the vectors padded so.
//! The prover's side is `fractions/prover.rs`; the order of messages is `schedule`, for both sides.

mod cells;
mod prover;
mod sumcheck;
#[cfg(test)]
mod tests;

use p3_field::PrimeCharacteristicRing;

use crate::codec::{self, CodecError};
use crate::field::{F, K, log2_ceil};
use crate::transcript::Transcript;

pub use prover::{Memory, prove, prove_in};

/// The fractions to add.
pub struct Leaves {
    /// None: all one.
    pub numerators: Option<Vec<F>>,
    pub denominators: Vec<K>,
}

/// What is left to check: the leaves at a point, as evaluations of their vectors padded with 0/1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FractionClaim {
    /// The variable of the lowest index bit first.
    pub point: Vec<K>,
    pub numerator: K,
    pub denominator: K,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FractionProof {
    /// P and Q: the sum, not in lowest terms.
    pub root: (K, K),
    /// Everything else, in the schedule's order.
    messages: Vec<K>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FractionError {
    #[error("{got} messages for a sum of {leaves} fractions, {expected} expected")]
    WrongLength {
        leaves: usize,
        expected: usize,
        got: usize,
    },
    #[error("the sum's denominator is zero, and so is a leaf's")]
    ZeroDenominator,
    #[error("the two halves do not add up to the sum")]
    WrongRoot,
    #[error("the sumcheck over {variables} variables ends in another value than its level's")]
    WrongLevel { variables: usize },
}

/// Checks a sum of that many fractions. What the caller must still check is the claim.
pub fn verify(
    leaves: usize,
    proof: &FractionProof,
    transcript: &mut Transcript,
) -> Result<FractionClaim, FractionError> {
    let (expected, got) = (message_count(leaves), proof.messages.len());
    if expected != got {
        return Err(FractionError::WrongLength {
            leaves,
            expected,
            got,
        });
    }
    let mut reader = Reader {
        root: proof.root,
        messages: proof.messages.iter(),
    };
    Ok(schedule(leaves, &mut reader, transcript)?.1)
}

/// The error is at most this over |K|. With v variables at the leaves: a level of j < v variables above
/// them has one random combination of two claims (degree 1) and j rounds of degree 2, together 2j + 1; the
/// leaves' halves are joined by a line (1). Σ_{0<j<v} (2j + 1) + 1 = v².
pub fn error_over_field(leaves: usize) -> u128 {
    let variables = log2_ceil(leaves) as u128;
    variables * variables
}

/// Σ eq(point, i) over i < count: the numerators' extension where all are one; what it lacks to one is the
/// denominators' tail.
pub fn eq_below(point: &[K], count: usize) -> K {
    if count >> point.len() != 0 {
        return K::ONE;
    }
    // From the highest bit: an index is below `count` from the first bit that is 0 where count's is 1.
    let (mut below, mut prefix) = (K::ZERO, K::ONE);
    for (bit, r) in point.iter().enumerate().rev() {
        let high = prefix * *r;
        match count >> bit & 1 {
            0 => prefix -= high,
            _ => {
                below += prefix - high;
                prefix = high;
            }
        }
    }
    below
}

impl FractionProof {
    pub fn write(&self, out: &mut Vec<u8>) {
        codec::write_elements(out, &[self.root.0, self.root.1]);
        codec::write_elements(out, &self.messages);
    }

    /// Takes the proof for that many leaves from the front.
    pub fn read(bytes: &mut &[u8], leaves: usize) -> Result<Self, CodecError> {
        let root = (codec::read_element(bytes)?, codec::read_element(bytes)?);
        let messages = codec::read_elements(bytes, message_count(leaves))?;
        Ok(FractionProof { root, messages })
    }
}

/// The root's two halves take 4; each further level of v variables one square, v − 2 rounds of 2, 4 halves.
fn message_count(leaves: usize) -> usize {
    match log2_ceil(leaves) {
        0 => 0,
        variables => 4 + (2..=variables).map(|v| 2 * v + 1).sum::<usize>(),
    }
}

/// The two halves of a level, folded to one fraction each: lowest bit 0 and lowest bit 1.
#[derive(Clone, Copy)]
struct Halves {
    numerators: [K; 2],
    denominators: [K; 2],
}

impl Halves {
    fn flat(&self) -> [K; 4] {
        let ([p0, p1], [q0, q1]) = (self.numerators, self.denominators);
        [p0, p1, q0, q1]
    }

    fn from_flat([p0, p1, q0, q1]: [K; 4]) -> Self {
        Halves {
            numerators: [p0, p1],
            denominators: [q0, q1],
        }
    }

    /// The sum's numerator and denominator.
    fn sum(&self) -> (K, K) {
        let ([p0, p1], [q0, q1]) = (self.numerators, self.denominators);
        (p0 * q1 + p1 * q0, q0 * q1)
    }
}

/// One side of the protocol: the prover computes a message where the verifier reads it.
trait Side {
    fn root(&mut self) -> (K, K);
    /// The next level: eq(point, ·) joins its positions, lambda its two sums.
    fn enter(&mut self, lambda: K, point: &[K]) -> Box<dyn Level + '_>;
}

/// A level's messages, in order.
trait Level {
    /// The first variable's polynomial is known at 0 and at 1; its coefficient of X² is missing.
    fn square(&mut self) -> K;
    /// A further variable's polynomial h over eq(z, X): its coefficients of X and X², where
    /// (1 − z)·h(0) + z·h(1) is the claim.
    fn round(&mut self, claim: K, z: K) -> [K; 2];
    /// Binds the variable.
    fn bind(&mut self, r: K);
    /// What is left when all variables are bound.
    fn halves(&mut self) -> Halves;
}

/// The whole protocol, for either side: every message is absorbed, and kept, before what follows it.
fn schedule(
    leaves: usize,
    side: &mut impl Side,
    transcript: &mut Transcript,
) -> Result<(FractionProof, FractionClaim), FractionError> {
    transcript.absorb_bytes("fractions", &(leaves as u64).to_be_bytes());
    let root = side.root();
    transcript.absorb("fraction sum", &[root.0, root.1]);
    // Q is the product of all denominators, those of the tail being one. So Q ≠ 0 says that no leaf's is
    // zero: a leaf p/0 would make P/Q meaningless, and 0/0 would let any sum pass.
    if root.1 == K::ZERO {
        return Err(FractionError::ZeroDenominator);
    }
    let mut messages = Vec::with_capacity(message_count(leaves));
    let variables = log2_ceil(leaves);
    if variables == 0 {
        let point = Vec::new();
        let (numerator, denominator) = root;
        let claim = FractionClaim {
            point,
            numerator,
            denominator,
        };
        return Ok((FractionProof { root, messages }, claim));
    }

    // No variables and so no rounds: any lambda will do.
    let mut halves = side.enter(K::ONE, &[]).halves();
    send("fraction halves", &halves.flat(), transcript, &mut messages);
    if halves.sum() != root {
        return Err(FractionError::WrongRoot);
    }
    let mut point = Vec::with_capacity(variables);
    for variables in 1..variables {
        (halves, point) = descend(halves, &point, side, transcript, &mut messages)
            .ok_or(FractionError::WrongLevel { variables })?;
    }

    // A line through both halves: one claim each for numerators and denominators.
    let line = transcript.challenge("fraction line");
    point.insert(0, line);
    let at = |[zero, one]: [K; 2]| zero + line * (one - zero);
    let claim = FractionClaim {
        point,
        numerator: at(halves.numerators),
        denominator: at(halves.denominators),
    };
    Ok((FractionProof { root, messages }, claim))
}

fn send(label: &str, values: &[K], transcript: &mut Transcript, messages: &mut Vec<K>) {
    transcript.absorb(label, values);
    messages.extend(values);
}

/// From the halves of a level's sums at `point` to the halves of what they are sums of, at the point that
/// the rounds draw. The sumcheck is over g = p₀q₁ + p₁q₀ + λ·q₀q₁.
///
/// The lowest variable of the sums comes first and has no factor eq: both values of its polynomial, at 0 and
/// at 1, are what the halves say. From there on eq(z, X) is factored out of each round's polynomial (Gruen,
/// ePrint 2024/108, section 3): what is sent is h, of degree 2, and its constant term follows from the claim.
fn descend(
    halves: Halves,
    point: &[K],
    side: &mut impl Side,
    transcript: &mut Transcript,
    messages: &mut Vec<K>,
) -> Option<(Halves, Vec<K>)> {
    // Drawn after both sums' claims, so that a wrong one shows in the combination.
    let lambda = transcript.challenge("fraction lambda");
    let mut level = side.enter(lambda, point);
    let [zero, one] = [0, 1].map(|b| halves.numerators[b] + lambda * halves.denominators[b]);

    let square = level.square();
    send("fraction square", &[square], transcript, messages);
    let mut r = transcript.challenge("fraction round");
    level.bind(r);
    let mut claim = zero + r * (one - zero - square + r * square);
    let mut bound = vec![r];
    for z in point {
        let [linear, square] = level.round(claim, *z);
        send("fraction round", &[linear, square], transcript, messages);
        r = transcript.challenge("fraction round");
        level.bind(r);
        claim += r * (linear + r * square) - *z * (linear + square);
        bound.push(r);
    }

    let below = level.halves();
    send("fraction halves", &below.flat(), transcript, messages);
    let (p, q) = below.sum();
    (claim == p + lambda * q).then_some((below, bound))
}

/// The verifier's side.
struct Reader<'a> {
    root: (K, K),
    messages: std::slice::Iter<'a, K>,
}

impl Reader<'_> {
    fn next<const N: usize>(&mut self) -> [K; N] {
        std::array::from_fn(|_| *self.messages.next().expect("the count was checked"))
    }
}

impl Side for Reader<'_> {
    fn root(&mut self) -> (K, K) {
        self.root
    }

    fn enter(&mut self, _: K, _: &[K]) -> Box<dyn Level + '_> {
        Box::new(self)
    }
}

impl Level for &mut Reader<'_> {
    fn square(&mut self) -> K {
        let [square] = self.next();
        square
    }

    fn round(&mut self, _: K, _: K) -> [K; 2] {
        self.next()
    }

    fn bind(&mut self, _: K) {}

    fn halves(&mut self) -> Halves {
        Halves::from_flat(self.next())
    }
}
