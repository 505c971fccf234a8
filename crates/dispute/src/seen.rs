//! What is known of the other side's trace: every node that it showed under its root, on chain or off
//! it, each checked against the hash above it. Trusts nobody, computes no element.

use std::collections::BTreeMap;

use assay_protocol::trace::{LeafId, Program, tree};
use assay_protocol::{B256, merkle};

use crate::error::SeenError;
use crate::game::{Below, Node, Reveal};

/// The known part of a trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    root: B256,
    nodes: BTreeMap<Node, B256>,
    chunks: BTreeMap<(LeafId, u32), Vec<u8>>,
}

impl Seen {
    /// Nothing but the root.
    pub fn new(program: &Program, root: B256) -> Self {
        Seen {
            root,
            nodes: BTreeMap::from([(Node::root(program), root)]),
            chunks: BTreeMap::new(),
        }
    }

    pub fn root(&self) -> B256 {
        self.root
    }

    /// A node's hash, where it is known.
    pub fn hash(&self, node: &Node) -> Option<B256> {
        self.nodes.get(node).copied()
    }

    /// A chunk's bytes, where they are known.
    pub fn chunk(&self, leaf: LeafId, chunk: u32) -> Option<&[u8]> {
        self.chunks.get(&(leaf, chunk)).map(Vec::as_slice)
    }

    /// Takes what was revealed below a known node, if it hashes to it.
    pub fn learn(&mut self, program: &Program, reveal: &Reveal) -> Result<(), SeenError> {
        let node = reveal.node;
        let known = self.hash(&node).ok_or(SeenError::Unknown { node })?;
        match &reveal.below {
            Below::Bytes(bytes) => self.learn_bytes(program, node, known, bytes),
            Below::Children(hashes) => self.learn_children(program, node, known, hashes),
        }
    }

    fn learn_bytes(
        &mut self,
        program: &Program,
        node: Node,
        known: B256,
        bytes: &[u8],
    ) -> Result<(), SeenError> {
        let Some((leaf, chunk)) = node.chunk() else {
            return Err(SeenError::OtherHash { node });
        };
        let (expected, got) = (program.chunk_len(leaf, chunk), bytes.len());
        if got != expected {
            return Err(SeenError::Count {
                node,
                expected,
                got,
            });
        }
        if merkle::leaf(bytes) != known {
            return Err(SeenError::OtherHash { node });
        }
        self.chunks.insert((leaf, chunk), bytes.to_vec());
        Ok(())
    }

    fn learn_children(
        &mut self,
        program: &Program,
        node: Node,
        known: B256,
        hashes: &[B256],
    ) -> Result<(), SeenError> {
        let Some((height, range)) = node.child_range(program) else {
            return Err(SeenError::OtherHash { node });
        };
        let (expected, got) = ((range.end - range.start) as usize, hashes.len());
        if got != expected {
            return Err(SeenError::Count {
                node,
                expected,
                got,
            });
        }
        // Level by level, so that what lies between is known as well: siblings are taken from there.
        let mut found = BTreeMap::new();
        let (mut level, mut first) = (hashes.to_vec(), range.start);
        for at in height..node.height {
            note(&mut found, program, &node, at, first, &level);
            // A pair at a time: a chunk of one has the zero word beside it.
            level = level
                .chunks(2)
                .filter_map(|pair| tree::fold(pair, 1))
                .collect();
            first /= 2;
        }
        if height == node.height {
            note(&mut found, program, &node, height, first, &level);
        }
        let top = level.first().copied().unwrap_or_default();
        let folded = match node.is_top(program) {
            true => merkle::bind(node.count(program), &top),
            false => top,
        };
        if folded != known {
            return Err(SeenError::OtherHash { node });
        }
        self.nodes.append(&mut found);
        Ok(())
    }
}

fn note(
    found: &mut BTreeMap<Node, B256>,
    program: &Program,
    within: &Node,
    height: u32,
    first: u64,
    level: &[B256],
) {
    for (index, hash) in (first..).zip(level) {
        found.insert(within.beside(program, height, index), *hash);
    }
}
