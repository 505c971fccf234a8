//! The game's state, as the chain tells it, and the moves that there are. Plain data: `rules`
//! decides, `DisputeGame.sol` enforces.

use std::ops::Range;

use assay_protocol::merkle;
use assay_protocol::trace::{LeafId, Program, tree};
use assay_protocol::{Address, B256, Statement, Timestamp};
use serde::{Deserialize, Serialize};

use crate::facts::Fact;
use crate::step::Step;

/// Which of the trace's trees a node lies in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum Stage {
    /// Over the roots of the ops.
    Ops = 0,
    /// Over the rows of one op.
    Rows = 1,
    /// Over the chunks of one row's vector.
    Chunks = 2,
    /// A chunk's bytes.
    Bytes = 3,
}

impl Stage {
    /// The stage of this number, as the contract and the providers' addresses name it.
    pub fn numbered(number: u8) -> Option<Stage> {
        [Stage::Ops, Stage::Rows, Stage::Chunks, Stage::Bytes]
            .into_iter()
            .find(|stage| *stage as u8 == number)
    }
}

/// A node of the trace. What is a leaf of one tree is named as the top of the next, with which it
/// shares its hash: `new` and `child` see to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Node {
    pub stage: Stage,
    /// 0 where the stage has no op yet.
    pub op: u32,
    /// 0 where the stage has no row yet.
    pub row: u32,
    /// Levels above the tree's leaves; 0 for a chunk's bytes.
    pub height: u32,
    /// Among the nodes of this height; the chunk's number for its bytes.
    pub index: u64,
}

impl Node {
    /// The top of the whole trace.
    pub fn root(program: &Program) -> Node {
        Node {
            stage: Stage::Ops,
            op: 0,
            row: 0,
            height: merkle::depth(program.ops().into()),
            index: 0,
        }
    }

    /// The top of a vector's tree, which is the leaf of an op's row.
    pub fn leaf(program: &Program, leaf: LeafId) -> Node {
        Node {
            stage: Stage::Chunks,
            op: leaf.op,
            row: leaf.row,
            height: merkle::depth(program.chunks(leaf).into()),
            index: 0,
        }
    }

    /// The node at this height and index of this node's tree.
    pub fn beside(&self, program: &Program, height: u32, index: u64) -> Node {
        let node = Node {
            height,
            index,
            ..*self
        };
        if height > 0 {
            return node;
        }
        match self.stage {
            Stage::Ops => Node {
                stage: Stage::Rows,
                // A tree's indices are below its count, which is a u32.
                op: index as u32,
                height: merkle::depth(program.rows(index as u32).into()),
                index: 0,
                ..node
            },
            Stage::Rows => {
                let (op, row) = (self.op, index as u32);
                Node::leaf(program, LeafId { op, row })
            }
            Stage::Chunks => Node {
                stage: Stage::Bytes,
                ..node
            },
            Stage::Bytes => node,
        }
    }

    /// Leaves of the tree that it lies in; 0 for a chunk's bytes.
    pub fn count(&self, program: &Program) -> u64 {
        let (op, row) = (self.op, self.row);
        match self.stage {
            Stage::Ops => program.ops().into(),
            Stage::Rows => program.rows(op).into(),
            Stage::Chunks => program.chunks(LeafId { op, row }).into(),
            Stage::Bytes => 0,
        }
    }

    /// Whether it is its tree's top, whose hash has the count bound in.
    pub fn is_top(&self, program: &Program) -> bool {
        self.stage != Stage::Bytes && self.height == merkle::depth(self.count(program))
    }

    /// What a reveal below it lists, in order; `None` for a chunk's bytes and where there is no such node.
    pub fn children(&self, program: &Program) -> Option<Vec<Node>> {
        let (height, range) = self.child_range(program)?;
        Some(
            range
                .map(|index| self.beside(program, height, index))
                .collect(),
        )
    }

    /// Their height and indices within this node's tree.
    pub fn child_range(&self, program: &Program) -> Option<(u32, Range<u64>)> {
        match self.stage {
            Stage::Bytes => None,
            _ => tree::children(self.count(program), self.height, self.index),
        }
    }

    /// The chunk whose bytes it is.
    pub fn chunk(&self) -> Option<(LeafId, u32)> {
        let (op, row) = (self.op, self.row);
        (self.stage == Stage::Bytes).then_some((LeafId { op, row }, self.index as u32))
    }
}

/// What stands below a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Below {
    /// The hashes of [`Node::children`].
    Children(Vec<B256>),
    /// A chunk's bytes.
    Bytes(Vec<u8>),
}

/// What a provider said of its trace, on chain or off it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reveal {
    pub node: Node,
    pub below: Below,
}

/// A side of a game.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    Provider,
    Challenger,
    /// Anybody else.
    Watcher,
}

/// Whose turn it is, for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// The provider's: no trace's root was ever posted for this receipt.
    Post,
    /// The challenger's: what is below the held node was revealed.
    Request,
    /// The provider's: the held node was requested.
    Reveal,
    /// Decided; nothing is left to do.
    Over(Outcome),
    /// The receipt was convicted in another game; this one waits to be closed, and its bond returned.
    Decided,
}

/// How a game ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// By a step, a fact, or the provider's clock.
    Convicted,
    /// The challenger's clock ran out.
    Rejected,
    /// Another game convicted the receipt first.
    Closed,
}

/// The one node whose hash the contract holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Held {
    pub node: Node,
    pub hash: B256,
}

/// One game.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Game {
    /// The contract's name for it: one challenger's game about one receipt.
    pub id: B256,
    /// The digest of the receipt in question.
    pub receipt: B256,
    pub statement: Statement,
    /// Bit 0: a temperature, bit 1: top-k, bit 2: top-p is active.
    pub sampling: u8,
    pub provider: Address,
    pub challenger: Address,
    /// The root that the provider posted for this receipt, in this game or an earlier one.
    pub trace_root: Option<B256>,
    pub phase: Phase,
    /// The top of the trace before the first request; `None` until a root is posted.
    pub held: Option<Held>,
    /// All that the provider revealed under this root, in any game, in order.
    pub reveals: Vec<Reveal>,
    /// The last second at which the side whose turn it is may move.
    pub deadline: Timestamp,
    /// Seconds left of each side's extension.
    pub purse_provider: u32,
    pub purse_challenger: u32,
}

impl Game {
    /// Whose clock runs.
    pub fn turn(&self) -> Option<Side> {
        match self.phase {
            Phase::Post | Phase::Reveal => Some(Side::Provider),
            Phase::Request => Some(Side::Challenger),
            Phase::Over(_) | Phase::Decided => None,
        }
    }
}

/// What a player can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Move {
    /// The provider's first: the trace's root and what is below it.
    PostTrace {
        root: B256,
        children: Vec<B256>,
    },
    /// The challenger asks for what is below a child of the held node: its number among those that the
    /// last reveal listed, its hash, and the siblings that lead up to the held node; missing ones are
    /// zero words.
    Request {
        index: u32,
        hash: B256,
        siblings: Vec<B256>,
    },
    /// The provider answers a request.
    Reveal {
        below: Below,
    },
    Prove {
        step: Step,
    },
    ProveFact {
        fact: Fact,
    },
    /// Ends a game whose clock ran out.
    Timeout,
    /// Ends a game about a receipt that another one convicted.
    Close,
}
