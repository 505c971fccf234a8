//! What is shown of the elements of attention. Order and ranges are those of docs/dispute.md.

use assay_protocol::trace::{BLOCK, LeafId, Op, Segment, TableRef};

use super::At;
use super::shown::Shown;
use crate::arith::exp_entry;
use crate::error::DisputeError;

type Done = Result<(), DisputeError>;

/// The value that is copied here; nothing where no token stands at this position.
pub(super) fn columns(s: &mut Shown, at: At, layer: u32) -> Done {
    let block = u64::from(BLOCK);
    let (column, within) = (at.index() / block, at.index() % block);
    let position = u64::from(at.row()) * block + within;
    match u32::try_from(position) {
        Ok(row) if row < s.program().tokens() => {
            s.open_one(projected(s, layer, row), Segment::V, column)
        }
        _ => Ok(()),
    }
}

/// The best position of a head against a better one; or its score.
pub(super) fn seen(s: &mut Shown, at: At, layer: u32, witness: Option<u64>) -> Done {
    let (head, is_max) = (at.index() / 2, at.index() % 2 == 1);
    let claimed = s.value(at.leaf(), Segment::Seen, 2 * head)?;
    let sight = i64::from(s.program().first_seen(layer, at.row()))..=i64::from(at.row());
    if !sight.contains(&claimed) {
        // Out of sight: that alone is false.
        return Ok(());
    }
    let claimed = projected(s, layer, claimed as u32);
    let query = projected(s, layer, at.row());
    if is_max {
        s.load(&[query, claimed])?;
        open_query(s, query, head)?;
        return open_key(s, claimed, head);
    }
    let own = s.own_value(at.leaf(), Segment::Seen, 2 * head)?;
    s.step.witness = witness.unwrap_or(own as u64);
    let better = u32::try_from(s.step.witness).map_err(|_| s.missing())?;
    let better = projected(s, layer, better);
    s.load(&[query, claimed, better])?;
    open_query(s, query, head)?;
    open_key(s, claimed, head)?;
    open_key(s, better, head)
}

/// What weighs one position for one head; nothing where the head does not see it.
pub(super) fn exps(s: &mut Shown, at: At, layer: u32) -> Done {
    let block = u64::from(BLOCK);
    let blocks = s.program().blocks(layer, at.row());
    let nb = u64::from(blocks.end - blocks.start);
    let (head, within) = (at.index() / (nb * block), at.index() % (nb * block));
    let position = u64::from(blocks.start) * block + within;
    let sight = u64::from(s.program().first_seen(layer, at.row()))..=u64::from(at.row());
    if !sight.contains(&position) {
        return Ok(());
    }
    // In sight, so below the row.
    let key = projected(s, layer, position as u32);
    let query = projected(s, layer, at.row());
    s.load(&[query, key])?;
    s.open(at.leaf(), Segment::Seen, 2 * head..2 * head + 2)?;
    open_query(s, query, head)?;
    open_key(s, key, head)?;
    let max = s.value(at.leaf(), Segment::Seen, 2 * head + 1)?;
    let below = max.saturating_sub(score(s, query, key, head)?);
    let manifest = s.manifest();
    let entry = manifest.layers.get(layer as usize);
    let f = entry.ok_or_else(|| s.missing())?.fractions;
    let scale = manifest.attention_scale;
    let csh = i32::from(scale.csh) + i32::from(f.q) + i32::from(f.k);
    match exp_entry(below, scale.c, csh) {
        Some(entry) => s.entry(TableRef::Exp, entry.into()),
        None => Ok(()),
    }
}

/// The previous sum of the head, then the block that this one adds.
pub(super) fn sums(s: &mut Shown, at: At, layer: u32) -> Done {
    let block = u64::from(BLOCK);
    let blocks = s.program().blocks(layer, at.row());
    if !at
        .index()
        .is_multiple_of(u64::from(blocks.end - blocks.start))
    {
        s.open_one(at.leaf(), Segment::Sums, at.index() - 1)?;
    }
    // Heads and their blocks stand in the same order in both.
    let from = at.index() * block;
    s.open(at.leaf(), Segment::Exps, from..from + block)
}

/// The mix over earlier blocks, and what this block adds to it.
pub(super) fn mixes(s: &mut Shown, at: At, layer: u32) -> Done {
    let d = s.program().dims();
    let block = u64::from(BLOCK);
    let (dim, width) = (
        u64::from(d.head_dim),
        u64::from(d.heads) * u64::from(d.head_dim),
    );
    let blocks = s.program().blocks(layer, at.row());
    let nb = u64::from(blocks.end - blocks.start);
    let (number, element) = (at.index() / width, at.index() % width);
    let (head, i) = (element / dim, element % dim);
    if number > 0 {
        s.open_one(at.leaf(), Segment::Mixes, at.index() - width)?;
    }
    s.open_one(at.leaf(), Segment::Sums, (head + 1) * nb - 1)?;
    let from = (head * nb + number) * block;
    s.open(at.leaf(), Segment::Exps, from..from + block)?;
    let row = blocks.start + number as u32;
    let column = key_head(s, head) * dim + i;
    let columns = s.program().leaf(Op::Columns(layer), row);
    s.open(
        columns,
        Segment::Columns,
        column * block..(column + 1) * block,
    )
}

fn projected(s: &Shown, layer: u32, row: u32) -> LeafId {
    s.program().leaf(Op::Project(layer), row)
}

/// The key head that a query head reads.
fn key_head(s: &Shown, head: u64) -> u64 {
    let d = s.program().dims();
    head / u64::from(d.heads / d.kv_heads)
}

fn open_query(s: &mut Shown, query: LeafId, head: u64) -> Done {
    let dim = u64::from(s.program().dims().head_dim);
    s.open(query, Segment::Q, head * dim..(head + 1) * dim)
}

fn open_key(s: &mut Shown, key: LeafId, head: u64) -> Done {
    let dim = u64::from(s.program().dims().head_dim);
    let head = key_head(s, head);
    s.open(key, Segment::K, head * dim..(head + 1) * dim)
}

fn score(s: &mut Shown, query: LeafId, key: LeafId, head: u64) -> Result<i64, DisputeError> {
    let dim = u64::from(s.program().dims().head_dim);
    let at = key_head(s, head) * dim;
    (0..dim).try_fold(0, |sum, i| {
        let q = s.value(query, Segment::Q, head * dim + i)?;
        // Both are i16, and a head has at most 2^10 of them.
        Ok(sum + q * s.value(key, Segment::K, at + i)?)
    })
}
