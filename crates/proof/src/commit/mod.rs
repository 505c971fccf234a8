//! The commitment to the trace, and its opening at one point: WHIR over the base field, in the regime of
//! unique decoding.
//!
//! The values are cut into columns, each the coefficients of a polynomial that is evaluated on a domain of
//! twice its length; the commitment is a Merkle root over the rows of that matrix. An opening
//! 1. states each column's value at the part of the point within a column; they have to sum to the claim;
//! 2. folds the columns to one polynomial g by independent random shares, commits to g, and opens rows of
//!    the first oracle at random positions: each row's fold is g at a point, one more linear functional of g;
//! 3. folds g by a sumcheck of all its functionals, commits to the fold, queries g's oracle, and so on;
//! 4. sends the last polynomial, on which every functional that is left is checked.
//!
//! Soundness (`security` sums it up). Let N be an oracle's positions and ρ its rate. Far words: where no one
//! set of (1+ρ)/2·N positions on which every column agrees with a codeword exists, the columns' random fold
//! is as far from the code but for N/|K| (Ben-Sasson, Carmon, Ishai, Kopparty, Saraf 2020, theorem 1.6, for
//! affine spaces) or, where a sumcheck's challenges bind one variable after the other, N/|K| for each
//! (Diamond, Gruen 2025, for interleaved codes). Near words: the columns are unique, their fold g' is
//! determined, and any other g agrees with the word's fold at fewer than (1+ρ)/2·N positions: at most ρ·N
//! with g', and (1−ρ)/2·N where the word is wrong. Either way a query misses with probability (1+ρ)/2 at
//! most. If g is right and a claim is wrong, the random shares, the batching challenge or the sumcheck tell,
//! but for a few/|K|. There is one candidate for the committed polynomial throughout, so that nothing has to
//! be sampled out of the domain.
//!
//! We wrote this instead of calling Plonky3's `p3-whir`: that keeps polynomial and codeword, 24 bytes a
//! value, and its verifier may panic. Here a codeword is hashed away eight columns at a time, and encoded again
//! where it is opened.

mod code;
mod descent;
mod oracle;
mod parallel;
mod prove;
mod run;
mod schedule;
mod tree;
mod verify;
mod weights;
mod words;

#[cfg(test)]
mod tests;

use assay_protocol::codec::{CodecError, Reader, Writer};

use crate::field::K;
use crate::security::{Probability, Security};
use crate::transcript::Transcript;
use run::{Cut, Run};
use schedule::Schedule;
use tree::Tree;

/// The versioned tag of an opening's bytes.
const OPENING: &str = "assay/opening/v1";

/// A Merkle root over the encoded values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Commitment(pub [u8; 32]);

/// What the prover keeps between committing and opening: the tree, 64 bytes for each position of a column.
pub struct Committed {
    schedule: Schedule,
    commitment: Commitment,
    tree: Tree,
    len: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpeningError {
    #[error("a commitment to {0} values is not possible")]
    Len(usize),
    #[error("the point has {got} variables, {expected} expected")]
    Variables { expected: usize, got: usize },
    #[error("the columns' values do not sum to the value claimed")]
    Value,
    #[error("the nonce does not show the work that is asked for")]
    Nonce,
    #[error("the rows shown are not those committed to")]
    Rows,
    #[error("the last polynomial does not satisfy what was claimed on the way")]
    LastPolynomial,
    #[error(transparent)]
    Codec(#[from] CodecError),
}

/// Variables of the point at which so many values are opened.
pub fn variables(len: usize) -> usize {
    Schedule::variables(len)
}

/// Whether a commitment holds so many values.
pub fn fits(len: usize) -> bool {
    Schedule::new(len).is_some()
}

/// Commits to the multilinear polynomial with these values, zero beyond; the lowest bit of an index is the
/// first variable.
///
/// # Panics
/// Without values, or with more than 2^31.
pub fn commit(values: &[i32], threads: usize) -> (Commitment, Committed) {
    let schedule = Schedule::new(values.len()).expect("1 to 2^31 values");
    let columns = oracle::Columns::Integers(values);
    let tree = oracle::commit(columns, &schedule.first, threads);
    let commitment = Commitment(tree::to_bytes(&tree.root()));
    let committed = Committed {
        schedule,
        commitment,
        tree,
        len: values.len(),
    };
    (commitment, committed)
}

impl Committed {
    /// Shows that the polynomial has this value at this point, lowest variable first. The values are those
    /// that were committed to.
    ///
    /// # Panics
    /// If the value is another one.
    pub fn open(
        &self,
        values: &[i32],
        point: &[K],
        value: K,
        threads: usize,
        transcript: &mut Transcript,
    ) -> Vec<u8> {
        assert_eq!(values.len(), self.len, "the values committed to");
        assert_eq!(point.len(), variables(self.len), "variables of the point");
        let mut out = Writer::new(OPENING);
        let cut = Cut::new(&self.schedule, point);
        let run = Run::new(&self.commitment, self.len, point, value, transcript);
        prove::open(
            &self.schedule,
            values,
            &self.tree,
            cut,
            run,
            &mut out,
            threads,
        );
        out.finish()
    }
}

/// Checks an opening of the polynomial of `len` values.
///
/// What it has beyond them, up to the end of a column, is what the prover chose, zero or not: a claim that is
/// reduced to the value here must give those places no weight.
pub fn verify(
    commitment: &Commitment,
    len: usize,
    point: &[K],
    value: K,
    proof: &[u8],
    transcript: &mut Transcript,
) -> Result<(), OpeningError> {
    let schedule = Schedule::new(len).ok_or(OpeningError::Len(len))?;
    if point.len() != variables(len) {
        return Err(OpeningError::Variables {
            expected: variables(len),
            got: point.len(),
        });
    }
    let mut from = Reader::new(OPENING, proof)?;
    let cut = Cut::new(&schedule, point);
    let root = tree::from_bytes(&commitment.0);
    let run = Run::new(commitment, len, point, value, transcript);
    verify::verify(&schedule, root, cut, run, &mut from)?;
    Ok(from.finish()?)
}

/// The errors of an opening of so many values.
///
/// # Panics
/// If no such commitment is possible.
pub fn security(len: usize) -> Security {
    let schedule = Schedule::new(len).expect("1 to 2^31 values");
    let first = schedule.first;
    let mut security = Security::default();
    security.add(
        "columns' values, by random shares",
        Probability::over_field(1),
    );
    security.add(
        "proximity of the columns' fold",
        Probability::over_field(first.positions() as u128),
    );
    security.add("queries of the first oracle", first.query_error());
    security.add(
        "batching of its queries",
        Probability::over_field(first.queries as u128),
    );
    let mut variables = first.log_len;
    for shape in &schedule.later {
        let folded = (variables - shape.log_len) as u128;
        variables = shape.log_len;
        let fold = folded * (shape.positions() as u128 + 2);
        security.add(
            "sumcheck and proximity of a fold",
            Probability::over_field(fold),
        );
        security.add("queries of a fold", shape.query_error());
        security.add(
            "batching of its queries",
            Probability::over_field(shape.queries as u128),
        );
    }
    security
}
