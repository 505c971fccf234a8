//! What a referee is shown to recompute one element: plain data, as `IReferee.sol` has it. The order
//! of openings is that of docs/dispute.md; `build` makes them.

use assay_protocol::trace::{EntryShown, RowShown};
use assay_protocol::{B256, TokenId};

use crate::packing;

/// How an opening's bytes are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Packing {
    /// The chunks as they are.
    Plain = 0,
    /// `i16`s as 12-bit two's complement, or 8 where sixteen of them fit.
    Twelve = 1,
}

/// A contiguous range of chunks of one leaf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opening {
    pub op: u32,
    pub row: u32,
    /// The range's first chunk.
    pub first: u32,
    pub packing: Packing,
    pub data: Vec<u8>,
    /// They prove the range within the vector (`protocol::trace::tree::range_siblings`).
    pub siblings: Vec<B256>,
    /// The leaf's siblings among the op's rows, then the op's among the ops; empty where an earlier
    /// opening of the step is of this leaf.
    pub path: Vec<B256>,
}

impl Opening {
    /// The range's bytes, of which there are `len`; nothing where `data` is not a packing of so many.
    pub fn bytes(&self, len: usize) -> Option<Vec<u8>> {
        packing::unpack(self.packing, &self.data, len)
    }
}

/// A token of the statement's prompt or output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenShown {
    pub token: TokenId,
    pub path: Vec<B256>,
}

/// The element in question and all that it is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// [`assay_protocol::trace::TOKEN_OP`] where the claim is about an output token; `row` is then
    /// its place.
    pub op: u32,
    pub row: u32,
    pub chunk: u32,
    pub slot: u32,
    /// A better place of a maximum, or a better token.
    pub witness: u64,
    pub openings: Vec<Opening>,
    pub rows: Vec<RowShown>,
    pub entries: Vec<EntryShown>,
    pub tokens: Vec<TokenShown>,
    /// The sampler's canonical bytes.
    pub sampler: Vec<u8>,
}
