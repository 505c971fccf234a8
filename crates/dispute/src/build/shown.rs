//! A step in the making: opens ranges of chunks of the other side's trace, with the siblings that prove
//! them, and takes rows, entries and tokens. Chooses nothing: the families say what is shown.

use std::ops::Range;

use assay_protocol::trace::{
    ElementId, LeafId, MatrixRef, Part, Program, Segment, TableRef, Width,
};
use assay_protocol::{B256, Temperature, TokenId};

use crate::error::DisputeError;
use crate::facts::show;
use crate::game::Node;
use crate::packing;
use crate::player::Player;
use crate::seen::Seen;
use crate::step::{Opening, Packing, Step};

pub(super) struct Shown<'s, 'a> {
    player: &'s mut Player<'a>,
    seen: &'s Seen,
    id: ElementId,
    pub(super) step: Step,
}

impl<'s, 'a> Shown<'s, 'a> {
    pub(super) fn new(player: &'s mut Player<'a>, seen: &'s Seen, id: ElementId) -> Self {
        let step = Step {
            op: id.leaf.op,
            row: id.leaf.row,
            chunk: id.chunk,
            slot: id.slot,
            witness: 0,
            openings: Vec::new(),
            rows: Vec::new(),
            entries: Vec::new(),
            tokens: Vec::new(),
            sampler: Vec::new(),
        };
        Shown {
            player,
            seen,
            id,
            step,
        }
    }

    pub(super) fn program(&self) -> &'a Program {
        self.player.program()
    }

    pub(super) fn manifest(&self) -> &'a assay_protocol::manifest::Manifest {
        self.player.trace().manifest()
    }

    /// What the builder's own assumptions fail with.
    pub(super) fn missing(&self) -> DisputeError {
        DisputeError::NoElement(self.id)
    }

    /// Foresees vectors that the family reads, so that they come of one run.
    pub(super) fn load(&mut self, leaves: &[LeafId]) -> Result<(), DisputeError> {
        self.player.load(leaves)
    }

    fn part(&self, leaf: LeafId, segment: Segment) -> Result<Part, DisputeError> {
        self.program()
            .part(leaf, segment)
            .ok_or_else(|| self.missing())
    }

    /// Elements of a segment.
    pub(super) fn len(&self, leaf: LeafId, segment: Segment) -> Result<u64, DisputeError> {
        Ok(self.part(leaf, segment)?.len)
    }

    /// Opens the fewest chunks that hold these elements.
    pub(super) fn open(
        &mut self,
        leaf: LeafId,
        segment: Segment,
        elements: Range<u64>,
    ) -> Result<(), DisputeError> {
        let part = self.part(leaf, segment)?;
        let chunks = part.cover(elements).ok_or_else(|| self.missing())?;
        let mut data = Vec::new();
        for chunk in chunks.clone() {
            data.extend_from_slice(self.chunk(leaf, chunk)?);
        }
        let (packing, data) = match part.width {
            Width::I16 => packing::pack(data),
            _ => (Packing::Plain, data),
        };
        let opened = |opening: &Opening| (opening.op, opening.row) == (leaf.op, leaf.row);
        let path = match self.step.openings.iter().any(opened) {
            true => Vec::new(),
            false => self.path(leaf)?,
        };
        let siblings = self.range_siblings(leaf, chunks.clone())?;
        self.step.openings.push(Opening {
            op: leaf.op,
            row: leaf.row,
            first: chunks.start,
            packing,
            data,
            siblings,
            path,
        });
        Ok(())
    }

    /// One element.
    pub(super) fn open_one(
        &mut self,
        leaf: LeafId,
        segment: Segment,
        index: u64,
    ) -> Result<(), DisputeError> {
        self.open(leaf, segment, index..index.saturating_add(1))
    }

    /// A segment's last element.
    pub(super) fn open_last(&mut self, leaf: LeafId, segment: Segment) -> Result<(), DisputeError> {
        let len = self.len(leaf, segment)?;
        self.open(leaf, segment, len.saturating_sub(1)..len)
    }

    /// A whole segment.
    pub(super) fn open_all(&mut self, leaf: LeafId, segment: Segment) -> Result<(), DisputeError> {
        let len = self.len(leaf, segment)?;
        self.open(leaf, segment, 0..len)
    }

    pub(super) fn row(&mut self, matrix: MatrixRef, row: u64) -> Result<(), DisputeError> {
        let row = u32::try_from(row).map_err(|_| self.missing())?;
        let shown = self.player.trace().weight_row(matrix, row)?;
        self.step.rows.push(shown);
        Ok(())
    }

    pub(super) fn entry(&mut self, table: TableRef, index: u64) -> Result<(), DisputeError> {
        let index = u32::try_from(index).map_err(|_| self.missing())?;
        let shown = self.player.trace().entry(table, index)?;
        self.step.entries.push(shown);
        Ok(())
    }

    /// The token that the pass runs at this row.
    pub(super) fn token_at(&mut self, row: u32) -> Result<TokenId, DisputeError> {
        match row.checked_sub(self.program().n_prompt()) {
            None => self.token(self.player.trace().prompt(), row),
            Some(output) => self.output_token(output),
        }
    }

    pub(super) fn output_token(&mut self, output: u32) -> Result<TokenId, DisputeError> {
        self.token(self.player.trace().output(), output)
    }

    fn token(&mut self, tokens: &[TokenId], at: u32) -> Result<TokenId, DisputeError> {
        let shown = show(tokens, at as usize).ok_or(DisputeError::NoToken(at))?;
        let token = shown.token;
        self.step.tokens.push(shown);
        Ok(token)
    }

    pub(super) fn temperature(&self) -> Temperature {
        self.player.trace().sampler().temperature
    }

    pub(super) fn sampler(&mut self) {
        self.step.sampler = self.player.trace().sampler().encode();
    }

    /// An element as the other side has it.
    pub(super) fn value(
        &mut self,
        leaf: LeafId,
        segment: Segment,
        index: u64,
    ) -> Result<i64, DisputeError> {
        let part = self.part(leaf, segment)?;
        let (chunk, slot) = part.place(index).ok_or_else(|| self.missing())?;
        let value = part.width.read(self.chunk(leaf, chunk)?, slot);
        value.ok_or_else(|| self.missing())
    }

    /// An element as one's own trace has it.
    pub(super) fn own_value(
        &mut self,
        leaf: LeafId,
        segment: Segment,
        index: u64,
    ) -> Result<i64, DisputeError> {
        let part = self.part(leaf, segment)?;
        let (chunk, slot) = part.place(index).ok_or_else(|| self.missing())?;
        let value = part.width.read(self.player.chunk(leaf, chunk)?, slot);
        value.ok_or_else(|| self.missing())
    }

    /// A chunk of the other side's: as it showed it, else one's own.
    fn chunk(&mut self, leaf: LeafId, chunk: u32) -> Result<&[u8], DisputeError> {
        match self.seen.chunk(leaf, chunk) {
            Some(bytes) => Ok(bytes),
            None => self.player.chunk(leaf, chunk),
        }
    }

    /// A node of the other side's: as it showed it, else one's own. A sibling that is neither shown nor
    /// before the first difference does not occur: siblings to the right of an opened range either
    /// hold the difference or stand beside one of its ancestors, which were all revealed.
    fn hash(&mut self, node: &Node) -> Result<B256, DisputeError> {
        match self.seen.hash(node) {
            Some(hash) => Ok(hash),
            None => self.player.hash(node),
        }
    }

    /// The leaf's siblings among the op's rows, then the op's among the ops.
    fn path(&mut self, leaf: LeafId) -> Result<Vec<B256>, DisputeError> {
        let program = self.program();
        let root = Node::root(program);
        let op = root.beside(program, 0, leaf.op.into());
        let mut path = self.siblings(&op, leaf.row.into())?;
        path.extend(self.siblings(&root, leaf.op.into())?);
        Ok(path)
    }

    /// The siblings from a leaf of a tree to its top; missing ones are zero words.
    fn siblings(&mut self, top: &Node, index: u64) -> Result<Vec<B256>, DisputeError> {
        let program = self.program();
        let count = top.count(program);
        (0..top.height)
            .map(|height| {
                let sibling = (index >> height) ^ 1;
                match sibling < assay_protocol::trace::tree::count_at(count, height) {
                    true => self.hash(&top.beside(program, height, sibling)),
                    false => Ok(B256::ZERO),
                }
            })
            .collect()
    }

    /// `protocol::trace::tree::range_siblings`, by nodes that are known.
    fn range_siblings(
        &mut self,
        leaf: LeafId,
        range: Range<u32>,
    ) -> Result<Vec<B256>, DisputeError> {
        let program = self.program();
        let top = Node::leaf(program, leaf);
        let mut size = top.count(program);
        let (mut start, mut end) = (u64::from(range.start), u64::from(range.end));
        let mut siblings = Vec::new();
        for height in 0..top.height {
            if start % 2 == 1 {
                siblings.push(self.hash(&top.beside(program, height, start - 1))?);
            }
            if end % 2 == 1 && end < size {
                siblings.push(self.hash(&top.beside(program, height, end))?);
            }
            (start, end, size) = (start / 2, end.div_ceil(2), size.div_ceil(2));
        }
        Ok(siblings)
    }
}
