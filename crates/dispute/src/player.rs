//! A player: one's own trace as trees, with the vectors that were asked of it so far, since each may
//! cost a run of the model. What to do is decided in `rules`, what to show in `build`.

use std::collections::BTreeMap;

use assay_protocol::trace::{ElementId, LeafId, Program, chunk_hashes, op_root, tree};
use assay_protocol::{B256, TokenId, merkle};

use crate::build;
use crate::error::DisputeError;
use crate::game::{Below, Node, Stage};
use crate::parting::{Parting, parting};
use crate::seen::Seen;
use crate::step::Step;
use crate::trace::{Trace, TraceError};

/// Bytes of vectors kept; beyond it all are forgotten, so that strangers who ask for node after node
/// fill no memory.
const KEPT_BYTES_MAX: usize = 256 << 20;

struct Vector {
    bytes: Vec<u8>,
    chunks: Vec<B256>,
}

/// One's own trace, ready to play with.
pub struct Player<'a> {
    trace: &'a dyn Trace,
    op_roots: Vec<B256>,
    vectors: BTreeMap<LeafId, Vector>,
}

impl<'a> Player<'a> {
    /// Hashes the trace's upper trees.
    pub fn new(trace: &'a dyn Trace) -> Result<Self, DisputeError> {
        let program = trace.program();
        let op_roots = (0..program.ops())
            .map(|op| {
                let leaves = trace.leaves(op);
                match leaves.len() as u64 == u64::from(program.rows(op)) {
                    true => Ok(op_root(leaves)),
                    false => Err(short("leaves of op", op)),
                }
            })
            .collect::<Result<_, _>>()?;
        Ok(Player {
            trace,
            op_roots,
            vectors: BTreeMap::new(),
        })
    }

    pub(crate) fn trace(&self) -> &'a dyn Trace {
        self.trace
    }

    pub(crate) fn program(&self) -> &'a Program {
        self.trace.program()
    }

    /// Where the other side's trace parts from one's own, as far as it is known.
    pub fn parting(&mut self, seen: &Seen) -> Result<Parting, DisputeError> {
        parting(self, seen)
    }

    /// The step about one element of the other side's trace: it convicts where that element is the
    /// first to differ. Of a maximum, `witness` stands in for the better place that one's own trace has.
    pub fn step(
        &mut self,
        seen: &Seen,
        element: ElementId,
        witness: Option<u64>,
    ) -> Result<Step, DisputeError> {
        build::element(self, seen, element, witness)
    }

    /// The step about the statement's output token `output`: it convicts where the trace that is seen,
    /// equal to one's own, chooses another. Of greedy sampling, `better` is the token that it chooses.
    pub fn token_step(
        &mut self,
        seen: &Seen,
        output: u32,
        better: TokenId,
    ) -> Result<Step, DisputeError> {
        build::token(self, seen, output, better)
    }

    /// The first output token that the trace does not choose, and the one that it does.
    pub fn false_token(&self) -> Result<Option<(u32, TokenId)>, DisputeError> {
        let choices = self.trace.choices()?;
        let stated = self.trace.output();
        if choices.len() != stated.len() {
            return Err(short("choices", 0));
        }
        let found = (0..).zip(stated.iter().zip(choices));
        Ok(found
            .into_iter()
            .find(|(_, (stated, chosen))| *stated != chosen)
            .map(|(output, (_, chosen))| (output, chosen)))
    }

    /// Has these vectors at hand, by one call for those that are not yet.
    pub(crate) fn load(&mut self, leaves: &[LeafId]) -> Result<(), DisputeError> {
        let mut wanted: Vec<LeafId> = leaves
            .iter()
            .filter(|leaf| !self.vectors.contains_key(leaf))
            .copied()
            .collect();
        wanted.sort();
        wanted.dedup();
        if wanted.is_empty() {
            return Ok(());
        }
        let kept: usize = self.vectors.values().map(|v| v.bytes.len()).sum();
        if kept > KEPT_BYTES_MAX {
            self.vectors.clear();
        }
        let vectors = self.trace.vectors(&wanted)?;
        for (leaf, bytes) in wanted.iter().zip(vectors) {
            let chunks = chunk_hashes(&self.program().parts(*leaf), &bytes)
                .ok_or_else(|| short("vector of op", leaf.op))?;
            self.vectors.insert(*leaf, Vector { bytes, chunks });
        }
        Ok(())
    }

    fn vector(&mut self, leaf: LeafId) -> Result<&Vector, DisputeError> {
        self.load(&[leaf])?;
        self.vectors
            .get(&leaf)
            .ok_or_else(|| short("vector of op", leaf.op))
    }

    /// A chunk's bytes.
    pub(crate) fn chunk(&mut self, leaf: LeafId, chunk: u32) -> Result<&[u8], DisputeError> {
        let range = self.program().chunk_range(leaf, chunk);
        range
            .and_then(|range| {
                let range = usize::try_from(range.start).ok()?..usize::try_from(range.end).ok()?;
                Some(self.vector(leaf).map(|vector| vector.bytes.get(range)))
            })
            .transpose()?
            .flatten()
            .ok_or_else(|| short("chunks of op", leaf.op))
    }

    /// A node's hash: a tree's top has its count bound in.
    pub(crate) fn hash(&mut self, node: &Node) -> Result<B256, DisputeError> {
        self.check(node)?;
        let program = self.program();
        let top = node.is_top(program);
        let hash = match node.stage {
            // A tree's top is a leaf of the tree above, which costs no vector.
            Stage::Rows if top => self.op_roots.get(node.op as usize).copied(),
            Stage::Chunks if top => self.trace.leaves(node.op).get(node.row as usize).copied(),
            Stage::Bytes => {
                let leaves = self.leaves(node)?;
                leaves.get(node.index as usize).copied()
            }
            _ => tree::node(self.leaves(node)?, node.height, node.index),
        };
        let hash = hash.ok_or(DisputeError::NoNode(*node))?;
        Ok(match node.stage {
            Stage::Ops if top => merkle::bind(node.count(program), &hash),
            _ => hash,
        })
    }

    /// The root of one's own trace.
    pub fn root(&mut self) -> Result<B256, DisputeError> {
        self.hash(&Node::root(self.program()))
    }

    /// What stands below a node: what a provider reveals on chain, and serves to who asks off it.
    pub fn below(&mut self, node: &Node) -> Result<Below, DisputeError> {
        self.check(node)?;
        if let Some((leaf, chunk)) = node.chunk() {
            return Ok(Below::Bytes(self.chunk(leaf, chunk)?.to_vec()));
        }
        tree::reveal(self.leaves(node)?, node.height, node.index)
            .map(Below::Children)
            .ok_or(DisputeError::NoNode(*node))
    }

    /// A trace is not asked for what it cannot have: nodes come from strangers.
    fn check(&self, node: &Node) -> Result<(), DisputeError> {
        let count = match node.stage {
            Stage::Bytes => {
                let (op, row) = (node.op, node.row);
                Node::leaf(self.program(), LeafId { op, row }).count(self.program())
            }
            _ => node.count(self.program()),
        };
        (count > 0).then_some(()).ok_or(DisputeError::NoNode(*node))
    }

    /// The leaves of the tree that a node lies in.
    fn leaves(&mut self, node: &Node) -> Result<&[B256], DisputeError> {
        let (op, row) = (node.op, node.row);
        Ok(match node.stage {
            Stage::Ops => &self.op_roots,
            Stage::Rows => self.trace.leaves(op),
            Stage::Chunks | Stage::Bytes => &self.vector(LeafId { op, row })?.chunks,
        })
    }
}

/// A trace that is not laid out as its program says is no trace.
fn short(what: &str, op: u32) -> DisputeError {
    TraceError(format!("its {what} {op} are not those of its layout")).into()
}
