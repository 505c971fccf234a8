//! Nodes of a trace's trees: what a provider reveals of one, how it folds, and how a range of leaves is
//! shown under its root. The trees are those of [`crate::merkle`]; a node is named by its height above
//! the leaves and its index among the nodes there.

use std::ops::Range;

use crate::B256;
use crate::merkle::{self, LEAVES_MAX};

/// Most levels that a reveal goes down.
pub const REVEAL_LEVELS_MAX: u32 = 5;

/// Why a range of leaves does not lead to a root.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    #[error("{len} leaves from {first} on do not lie within {count}")]
    OutOfRange { first: u64, len: u64, count: u64 },
    #[error("a range of this place has {expected} siblings, {got} are given")]
    Siblings { expected: usize, got: usize },
}

/// Levels that a reveal below a node of this height goes down: `⌈height / ⌈height/5⌉⌉`.
pub fn descent(height: u32) -> u32 {
    match height.div_ceil(REVEAL_LEVELS_MAX) {
        0 => 0,
        reveals => height.div_ceil(reveals),
    }
}

/// Nodes that exist at a height of a tree over `count` leaves.
pub fn count_at(count: u64, height: u32) -> u64 {
    match 1u64.checked_shl(height) {
        Some(size) => count.div_ceil(size),
        None => count.min(1),
    }
}

/// Which nodes a reveal below node `(height, index)` lists: their height, and their indices there.
/// `None` where there is no such node.
pub fn children(count: u64, height: u32, index: u64) -> Option<(u32, Range<u64>)> {
    let exists = count <= LEAVES_MAX && height <= merkle::depth(count);
    if !exists || index >= count_at(count, height) {
        return None;
    }
    let levels = descent(height);
    let end = count_at(count, height - levels).min((index + 1) << levels);
    Some((height - levels, index << levels..end))
}

/// All nodes at a height, from the leaves' hashes.
pub fn level(leaves: &[B256], height: u32) -> Vec<B256> {
    let mut level = leaves.to_vec();
    for _ in 0..height.min(merkle::depth(leaves.len() as u64)) {
        level = merkle::parents(&level);
    }
    level
}

/// One node, before any count is bound to it.
pub fn node(leaves: &[B256], height: u32, index: u64) -> Option<B256> {
    if height > merkle::depth(leaves.len() as u64) {
        return None;
    }
    let first = usize::try_from(index).ok()?.checked_mul(1 << height)?;
    let under = leaves.get(first..leaves.len().min(first.checked_add(1 << height)?))?;
    fold(under, height)
}

/// What a provider reveals below node `(height, index)`.
pub fn reveal(leaves: &[B256], height: u32, index: u64) -> Option<Vec<B256>> {
    let (at, range) = children(leaves.len() as u64, height, index)?;
    range.map(|index| node(leaves, at, index)).collect()
}

/// The node so many levels above neighbouring nodes, of which the first is leftmost; missing ones to
/// their right are zero words. `None` for no nodes, or more than there is room for.
pub fn fold(nodes: &[B256], levels: u32) -> Option<B256> {
    let room = 1usize.checked_shl(levels)?;
    if nodes.is_empty() || nodes.len() > room {
        return None;
    }
    let mut level = nodes.to_vec();
    for _ in 0..levels {
        level = merkle::parents(&level);
    }
    level.first().copied()
}

/// The siblings that show a range of leaves under their root. Level by level from the leaves up: the
/// left neighbour where the range starts at an odd index, then the right one where it ends (exclusively)
/// at an odd index and there is one. A missing neighbour is the zero word and is not listed.
pub fn range_siblings(leaves: &[B256], range: Range<u64>) -> Option<Vec<B256>> {
    let count = leaves.len() as u64;
    if range.is_empty() || range.end > count {
        return None;
    }
    let (mut start, mut end) = (range.start as usize, range.end as usize);
    let mut siblings = Vec::new();
    let mut level = leaves.to_vec();
    for _ in 0..merkle::depth(count) {
        if !start.is_multiple_of(2) {
            siblings.push(level[start - 1]);
        }
        if !end.is_multiple_of(2) {
            siblings.extend(level.get(end));
        }
        (start, end) = (start / 2, end.div_ceil(2));
        level = merkle::parents(&level);
    }
    Some(siblings)
}

/// The root of a tree of `count` leaves that has `hashes` from leaf `first` on.
pub fn range_root(
    count: u64,
    first: u64,
    hashes: &[B256],
    siblings: &[B256],
) -> Result<B256, RangeError> {
    let len = hashes.len() as u64;
    let end = first.checked_add(len);
    let within = end.is_some_and(|end| end <= count);
    if len == 0 || count > LEAVES_MAX || !within {
        return Err(RangeError::OutOfRange { first, len, count });
    }
    let expected = range_sibling_count(count, first..first + len);
    if siblings.len() != expected {
        return Err(RangeError::Siblings {
            expected,
            got: siblings.len(),
        });
    }
    let mut siblings = siblings.iter().copied();
    let (mut start, mut end, mut size) = (first, first + len, count);
    let mut level = hashes.to_vec();
    for _ in 0..merkle::depth(count) {
        if start % 2 == 1 {
            level.splice(0..0, siblings.next());
        }
        if end % 2 == 1 && end < size {
            level.extend(siblings.next());
        }
        level = merkle::parents(&level);
        (start, end, size) = (start / 2, end.div_ceil(2), size.div_ceil(2));
    }
    // Every level halves the range, so that one node is left.
    Ok(merkle::bind(count, level.first().unwrap_or(&B256::ZERO)))
}

/// How many siblings a range has.
fn range_sibling_count(count: u64, range: Range<u64>) -> usize {
    let (mut start, mut end, mut size) = (range.start, range.end, count);
    let mut siblings = 0;
    for _ in 0..merkle::depth(count) {
        siblings += usize::from(start % 2 == 1) + usize::from(end % 2 == 1 && end < size);
        (start, end, size) = (start / 2, end.div_ceil(2), size.div_ceil(2));
    }
    siblings
}
