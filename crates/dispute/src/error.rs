//! What can keep a side from deciding its move.

use assay_protocol::B256;
use assay_protocol::trace::ElementId;

use crate::game::Node;
use crate::trace::TraceError;

/// Why what the other side is said to have revealed is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SeenError {
    #[error("{node:?} was never shown under the trace's root")]
    Unknown { node: Node },
    #[error("{got} nodes or bytes are shown below {node:?}, which has {expected}")]
    Count {
        node: Node,
        expected: usize,
        got: usize,
    },
    #[error("what is shown below {node:?} does not hash to it")]
    OtherHash { node: Node },
}

/// Why no move, and no step, can be told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DisputeError {
    #[error(transparent)]
    Trace(#[from] TraceError),
    #[error(transparent)]
    Seen(#[from] SeenError),
    #[error("the trace has no node {0:?}")]
    NoNode(Node),
    #[error("the trace has no element {0:?}")]
    NoElement(ElementId),
    #[error("the trace has no output token {0}")]
    NoToken(u32),
    #[error("nothing below {0:?} differs from the own trace, though its hash does")]
    NothingDiffers(Node),
    #[error("one's own trace is of another statement than the game's")]
    OtherStatement,
    #[error("one's own trace has {root} where {posted} was posted")]
    OtherRoot { posted: B256, root: B256 },
    #[error("the chain tells of a held node before any trace was posted, or of none after")]
    NothingHeld,
}
