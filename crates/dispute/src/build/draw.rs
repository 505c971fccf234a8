//! What is shown of the elements of the sampler, and of the statement's own tokens. Order and ranges
//! are those of docs/dispute.md.

use std::ops::Range;

use assay_protocol::Temperature;
use assay_protocol::trace::{IDS_BLOCK, LeafId, MatrixRef, Op, Segment, TableRef};

use super::At;
use super::shown::Shown;
use crate::arith::weight_entry;
use crate::error::DisputeError;

type Done = Result<(), DisputeError>;

/// The id of the largest logit against a better one; or that logit.
pub(super) fn top(s: &mut Shown, at: At, witness: Option<u64>) -> Done {
    let vocab = i64::from(s.program().dims().vocab);
    let claimed = s.value(at.leaf(), Segment::Top, 0)?;
    if !(0..vocab).contains(&claimed) {
        // Out of range: that alone is false.
        return Ok(());
    }
    s.open_one(at.leaf(), Segment::Logits, claimed as u64)?;
    if at.index() == 1 {
        return Ok(());
    }
    let own = s.own_value(at.leaf(), Segment::Top, 0)?;
    s.step.witness = witness.unwrap_or(own as u64);
    s.open_one(at.leaf(), Segment::Logits, s.step.witness)
}

pub(super) fn weights(s: &mut Shown, at: At) -> Done {
    s.open_all(at.leaf(), Segment::Top)?;
    s.open_one(at.leaf(), Segment::Logits, at.index())?;
    let max = s.value(at.leaf(), Segment::Top, 1)?;
    let below = max.saturating_sub(s.value(at.leaf(), Segment::Logits, at.index())?);
    let Temperature::Beta(beta) = s.temperature() else {
        return Err(s.missing());
    };
    match weight_entry(below, beta) {
        Some(entry) => s.entry(TableRef::Exp, entry.into()),
        None => Ok(()),
    }
}

pub(super) fn totals(s: &mut Shown, at: At) -> Done {
    previous(s, at)?;
    let ids = ids(s, at.index());
    s.open(at.leaf(), Segment::Weights, ids)
}

/// A sum over ids that reach the candidate, or the threshold that a whole row of sums leads to.
pub(super) fn search(s: &mut Shown, at: At) -> Done {
    let (leaf, segment) = (at.leaf(), at.element.segment);
    let blocks = blocks(s);
    let (bit, block) = (at.index() / (blocks + 1), at.index() % (blocks + 1));
    if bit > 0 {
        s.open_one(leaf, segment, bit * (blocks + 1) - 1)?;
    }
    let by_sum = segment == Segment::SumSearch;
    if block == blocks {
        s.open_one(leaf, segment, at.index() - 1)?;
        return match by_sum {
            true => s.open_last(leaf, Segment::Totals),
            false => Ok(()),
        };
    }
    if block > 0 {
        s.open_one(leaf, segment, at.index() - 1)?;
    }
    let ids = ids(s, block);
    s.open(leaf, Segment::Logits, ids.clone())?;
    match by_sum {
        true => s.open(leaf, Segment::Weights, ids),
        false => Ok(()),
    }
}

pub(super) fn kept(s: &mut Shown, at: At) -> Done {
    previous(s, at)?;
    thresholds(s, at.leaf())?;
    let ids = ids(s, at.index());
    s.open(at.leaf(), Segment::Logits, ids.clone())?;
    s.open(at.leaf(), Segment::Weights, ids)
}

/// That output token `output` is not the one chosen; `better` is, where tokens are not drawn.
pub(super) fn token(s: &mut Shown, output: u32, better: u32) -> Done {
    if !s.program().drawn() {
        let last = s.program().leaf(Op::Final, output);
        s.open_all(last, Segment::Peak)?;
        s.open_all(last, Segment::X12)?;
        let token = s.output_token(output)?;
        s.step.witness = better.into();
        s.row(MatrixRef::Head, token.into())?;
        return s.row(MatrixRef::Head, better.into());
    }
    let leaf = s.program().leaf(Op::Sample, output);
    s.open_last(leaf, Segment::Kept)?;
    let token = s.output_token(output)?;
    let block = u64::from(token / IDS_BLOCK);
    if block > 0 {
        s.open_one(leaf, Segment::Kept, block - 1)?;
    }
    thresholds(s, leaf)?;
    let ids = ids(s, block);
    s.open(leaf, Segment::Logits, ids.clone())?;
    s.open(leaf, Segment::Weights, ids)
}

/// The sum before this one, if any.
fn previous(s: &mut Shown, at: At) -> Done {
    match at.index().checked_sub(1) {
        Some(before) => s.open_one(at.leaf(), at.element.segment, before),
        None => Ok(()),
    }
}

/// What each active search has found.
fn thresholds(s: &mut Shown, leaf: LeafId) -> Done {
    if s.program().searches_count() {
        s.open_last(leaf, Segment::CountSearch)?;
    }
    if s.program().searches_sum() {
        s.open_last(leaf, Segment::SumSearch)?;
    }
    Ok(())
}

/// Blocks of ids.
fn blocks(s: &Shown) -> u64 {
    u64::from(s.program().dims().vocab.div_ceil(IDS_BLOCK))
}

/// The ids of a block.
fn ids(s: &Shown, block: u64) -> Range<u64> {
    let from = block * u64::from(IDS_BLOCK);
    let vocab = u64::from(s.program().dims().vocab);
    from..vocab.min(from + u64::from(IDS_BLOCK))
}
