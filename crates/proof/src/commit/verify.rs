//! The verifier's side of an opening. The proof is read as far as the schedule asks for, never by a length of
//! its own, so that its size is bounded before it is parsed.

use assay_protocol::codec::{CodecError, Reader};
use p3_field::PrimeField64;

use super::OpeningError;
use super::run::{Cut, Run, fold_first, fold_later, fold_shares};
use super::schedule::{Schedule, Shape};
use super::tree::{Digest, from_bytes, leaf, root_from};
use crate::field::{F, K};
use crate::rounds::{read_element, read_rounds};

/// An oracle that queries are still due to.
struct Due {
    shape: Shape,
    root: Digest,
    shares: Vec<K>,
    fold: fn(&[F], &[K]) -> K,
}

pub(super) fn verify(
    schedule: &Schedule,
    root: Digest,
    cut: Cut,
    mut run: Run,
    from: &mut Reader,
) -> Result<(), OpeningError> {
    let columns = elements(schedule.first.columns, from)?;
    let shares = run.columns(cut, &columns).ok_or(OpeningError::Value)?;
    let mut due = Due {
        shape: schedule.first,
        root,
        shares,
        fold: fold_first,
    };
    for shape in &schedule.later {
        let root = digest(from)?;
        run.commit(&root);
        answered(&due, &mut run, from)?;
        let rounds = read_rounds::<2>(due.shape.log_len - shape.log_len, from)?;
        let challenges: Vec<K> = rounds.iter().map(|round| run.round(round)).collect();
        due = Due {
            shape: *shape,
            root,
            shares: fold_shares(&challenges),
            fold: fold_later,
        };
    }
    let polynomial = elements(due.shape.len(), from)?;
    run.last(&polynomial);
    answered(&due, &mut run, from)?;
    match run.holds(&polynomial) {
        true => Ok(()),
        false => Err(OpeningError::LastPolynomial),
    }
}

/// Reads the queried rows, holds them against the oracle's root, and notes what they ask of its fold.
fn answered(due: &Due, run: &mut Run, from: &mut Reader) -> Result<(), OpeningError> {
    let nonce = base(from)?;
    if !run.check_nonce(nonce) {
        return Err(OpeningError::Nonce);
    }
    let positions = run.positions(&due.shape);
    let mut leaves = Vec::new();
    let mut values = Vec::new();
    for _ in &positions {
        let row = (0..due.shape.columns).map(|_| base(from));
        let row = row.collect::<Result<Vec<F>, CodecError>>()?;
        leaves.push(leaf(&row));
        values.push((due.fold)(&row, &due.shares));
    }
    let log_positions = due.shape.log_positions();
    if root_from(log_positions, &positions, leaves, || digest(from))? != due.root {
        return Err(OpeningError::Rows);
    }
    run.queried(&due.shape, &positions, &values);
    Ok(())
}

fn elements(count: usize, from: &mut Reader) -> Result<Vec<K>, CodecError> {
    (0..count).map(|_| read_element(from)).collect()
}

/// One value has one encoding: what is not reduced is refused.
fn base(from: &mut Reader) -> Result<F, CodecError> {
    match from.u64()? {
        value if value < F::ORDER_U64 => Ok(F::new(value)),
        value => Err(CodecError::BadValue {
            what: "field element",
            value,
        }),
    }
}

fn digest(from: &mut Reader) -> Result<Digest, CodecError> {
    Ok(from_bytes(&from.b256()?.0))
}
