//! The steps of an opening that prover and verifier take alike: what is absorbed, what is drawn, and what
//! is left to be shown. Neither side touches the transcript but through here.

use p3_challenger::{CanSampleBits, GrindingChallenger};
use p3_field::PrimeCharacteristicRing;

use super::Commitment;
use super::code::point_of;
use super::schedule::{GRIND_BITS, Schedule, Shape};
use super::tree::{Digest, to_bytes};
use super::weights::Weight;
use crate::field::{F, K, eq_table};
use crate::rounds::Round;
use crate::transcript::Transcript;

/// The polynomial at hand, g, has to satisfy Σ_weights weight(g) = claim.
pub(super) struct Run<'t> {
    transcript: &'t mut Transcript,
    pub(super) weights: Vec<Weight>,
    pub(super) claim: K,
}

/// The caller's point, as the first oracle cuts it: within a column, and over the columns.
pub(super) struct Cut {
    pub(super) within: Vec<K>,
    /// eq of the variables over the columns, for each column.
    pub(super) over: Vec<K>,
}

impl Cut {
    /// A point with fewer variables than a column reads zeros for the missing ones: the tail is zero.
    pub(super) fn new(schedule: &Schedule, point: &[K]) -> Self {
        let mut point = point.to_vec();
        point.resize(point.len().max(schedule.first.log_len), K::ZERO);
        let (within, over) = point.split_at(schedule.first.log_len);
        Cut {
            within: within.to_vec(),
            over: eq_table(over, schedule.first.columns),
        }
    }
}

impl<'t> Run<'t> {
    pub(super) fn new(
        commitment: &Commitment,
        len: usize,
        point: &[K],
        value: K,
        transcript: &'t mut Transcript,
    ) -> Self {
        transcript.absorb_bytes("commitment", &commitment.0);
        transcript.absorb_bytes("commitment length", &(len as u64).to_be_bytes());
        transcript.absorb("opening point", point);
        transcript.absorb("opening value", &[value]);
        Run {
            transcript,
            weights: Vec::new(),
            claim: value,
        }
    }

    /// Each column's value at the part of the point within it. They sum to the claim, or this is None; then
    /// a column's share of the polynomial at hand is drawn for each, independently, so that the proximity
    /// gap of an affine space applies: a far column stays far but for positions/|K|.
    pub(super) fn columns(&mut self, cut: Cut, values: &[K]) -> Option<Vec<K>> {
        let products = values.iter().zip(&cut.over).map(|(v, eq)| *v * *eq);
        if products.sum::<K>() != self.claim {
            return None;
        }
        self.transcript.absorb("column values", values);
        let shares = self.transcript.point("column share", values.len());
        self.claim = values.iter().zip(&shares).map(|(v, r)| *v * *r).sum();
        self.weights = vec![Weight::eq(&cut.within)];
        Some(shares)
    }

    pub(super) fn commit(&mut self, root: &Digest) {
        self.transcript.absorb_bytes("fold root", &to_bytes(root));
    }

    pub(super) fn last(&mut self, polynomial: &[K]) {
        self.transcript.absorb("last polynomial", polynomial);
    }

    pub(super) fn grind(&mut self) -> F {
        self.transcript.challenger().grind(GRIND_BITS)
    }

    pub(super) fn check_nonce(&mut self, nonce: F) -> bool {
        let challenger = self.transcript.challenger();
        challenger.check_witness(GRIND_BITS, nonce)
    }

    /// Positions of an oracle, ascending, equal ones once.
    pub(super) fn positions(&mut self, shape: &Shape) -> Vec<usize> {
        let challenger = self.transcript.challenger();
        let mut draw = || challenger.sample_bits(shape.log_positions());
        let mut positions: Vec<usize> = (0..shape.queries).map(|_| draw()).collect();
        positions.sort_unstable();
        positions.dedup();
        positions
    }

    /// The polynomial at hand, encoded, has these values at these positions of an oracle's domain: more
    /// functionals of it, batched with the others by powers of one challenge. Returns each one's scale.
    pub(super) fn queried(&mut self, shape: &Shape, positions: &[usize], values: &[K]) -> Vec<K> {
        let gamma = self.transcript.challenge("batch");
        let scales: Vec<K> = gamma.powers().skip(1).take(values.len()).collect();
        for ((position, value), scale) in positions.iter().zip(values).zip(&scales) {
            self.claim += *scale * *value;
            let x = point_of(shape, *position);
            self.weights.push(Weight::powers(*scale, x, shape.log_len));
        }
        scales
    }

    /// A round of the sumcheck that binds the highest variable.
    pub(super) fn round(&mut self, round: &Round<2>) -> K {
        let r = round.step(&mut self.claim, self.transcript);
        self.weights.iter_mut().for_each(|weight| weight.bind(r));
        r
    }

    pub(super) fn holds(&self, polynomial: &[K]) -> bool {
        let sum: K = self.weights.iter().map(|w| w.apply(polynomial)).sum();
        sum == self.claim
    }
}

/// A row of base-field values, folded by a share for each element of it.
pub(super) fn fold_first(row: &[F], shares: &[K]) -> K {
    row.iter().zip(shares).map(|(v, share)| *share * *v).sum()
}

/// A row of elements of K, two columns each, folded by a share for each element.
pub(super) fn fold_later(row: &[F], shares: &[K]) -> K {
    let elements = row.as_chunks().0.iter().map(|pair: &[F; 2]| K::new(*pair));
    elements.zip(shares).map(|(v, share)| v * *share).sum()
}

/// What each block of a polynomial contributes to its fold, for challenges that bind the highest variable
/// first.
pub(super) fn fold_shares(challenges: &[K]) -> Vec<K> {
    let lowest_first: Vec<K> = challenges.iter().rev().copied().collect();
    eq_table(&lowest_first, 1 << challenges.len())
}
