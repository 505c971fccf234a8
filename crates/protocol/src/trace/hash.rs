//! Hashes of a trace: chunks to a leaf, leaves to an op's root, those to the trace's.

use super::{CHUNK, Part};
use crate::{B256, merkle};

/// Hashes of a vector's chunks. `bytes` is the vector, segment after segment; a length other than the
/// parts' makes `None`.
pub fn chunk_hashes(parts: &[Part], bytes: &[u8]) -> Option<Vec<B256>> {
    let mut rest = bytes;
    let mut hashes = Vec::new();
    for part in parts {
        let len = usize::try_from(part.bytes()).ok()?;
        let (segment, after) = rest.split_at_checked(len)?;
        hashes.extend(segment.chunks(CHUNK).map(merkle::leaf));
        rest = after;
    }
    rest.is_empty().then_some(hashes)
}

/// The leaf of a vector, from the hashes of its chunks.
pub fn leaf_hash(chunk_hashes: &[B256]) -> B256 {
    merkle::root(chunk_hashes)
}

/// The root of an op, from the leaves of its rows.
pub fn op_root(leaves: &[B256]) -> B256 {
    merkle::root(leaves)
}

/// The root of the trace, from the roots of its ops.
pub fn trace_root(op_roots: &[B256]) -> B256 {
    merkle::root(op_roots)
}
