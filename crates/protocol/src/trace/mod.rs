//! The geometry of a trace: which vectors a statement's pass computes, in which order, and where each
//! element lies in the trees over them (docs/dispute.md). Lays out and hashes; computes no element.
//! `TraceGeometry.sol` is the same for the EVM. Start at [`Program`].

mod hash;
mod program;
mod shown;
pub mod tree;

#[cfg(test)]
mod tests;

pub use hash::{chunk_hashes, leaf_hash, op_root, trace_root};
pub use program::{Element, ElementId, LeafId, Op, Part, Program, ProgramError, Segment, Width};
pub use shown::{EntryShown, MatrixRef, RowShown, TableRef};

/// Positions of a block: what one column, and one head's exponentials, cover in one chunk.
pub const BLOCK: u32 = 128;
/// Bytes of a chunk, but for a segment's last.
pub const CHUNK: usize = 256;
/// Vocabulary ids of a block of the sampler's sums.
pub const IDS_BLOCK: u32 = 256;
/// Elements of a block of a sum of squares.
pub const SQUARES_BLOCK: u32 = 64;
/// Bits of a threshold that the sampler's searches find, one after another.
pub const SEARCH_BITS: u32 = 28;
/// The number that stands for an op where a claim is about the statement's own tokens.
pub const TOKEN_OP: u32 = u32::MAX;
