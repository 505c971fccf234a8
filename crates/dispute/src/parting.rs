//! Where two traces part: the first element of the other side's that differs from one's own. Walks
//! down from the root along what is known; asks for no node itself.

use assay_protocol::B256;
use assay_protocol::trace::{ElementId, LeafId, Op, Program};

use crate::error::DisputeError;
use crate::game::{Node, Stage};
use crate::player::Player;
use crate::seen::Seen;

/// What is known of the first difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parting {
    /// The roots are equal, so everything is.
    Nowhere,
    /// It lies below this node, whose children, or bytes, the other side has not shown.
    Below(Node),
    /// Here.
    At(ElementId),
}

pub(crate) fn parting(own: &mut Player, seen: &Seen) -> Result<Parting, DisputeError> {
    let program = own.program();
    let mut node = Node::root(program);
    if own.hash(&node)? == seen.root() {
        return Ok(Parting::Nowhere);
    }
    while let Some(children) = node.children(program) {
        let Some(known) = children
            .iter()
            .map(|child| seen.hash(child))
            .collect::<Option<Vec<_>>>()
        else {
            return Ok(Parting::Below(node));
        };
        if node.stage == Stage::Chunks {
            let (op, row) = (node.op, node.row);
            own.load(&with_sources(program, LeafId { op, row }))?;
        }
        node = first_other(own, &children, &known)?.ok_or(DisputeError::NothingDiffers(node))?;
    }
    let (leaf, chunk) = node.chunk().ok_or(DisputeError::NoNode(node))?;
    let Some(theirs) = seen.chunk(leaf, chunk) else {
        return Ok(Parting::Below(node));
    };
    let ours = own.chunk(leaf, chunk)?;
    let at = ours.iter().zip(theirs).position(|(a, b)| a != b);
    match at.zip(program.part_at(leaf, chunk)) {
        Some((byte, part)) => Ok(Parting::At(ElementId {
            leaf,
            chunk,
            slot: (byte / part.width.bytes()) as u32,
        })),
        None => Err(DisputeError::NothingDiffers(node)),
    }
}

/// A vector, and those that most of its elements are made of: the step about one of them will show
/// these, and one run of the model gives them all.
fn with_sources(program: &Program, leaf: LeafId) -> Vec<LeafId> {
    let mut wanted = vec![leaf];
    match program.op(leaf.op) {
        Some(Op::Project(l)) => wanted.push(program.residual_before(l, leaf.row)),
        Some(Op::Layer(l)) => {
            wanted.push(program.residual_before(l, leaf.row));
            wanted.push(program.leaf(Op::Project(l), leaf.row));
            let blocks = program.blocks(l, leaf.row);
            wanted.extend(blocks.map(|block| program.leaf(Op::Columns(l), block)));
        }
        Some(Op::Final) => {
            let row = program.row_before(leaf.row);
            wanted.push(program.residual_before(program.dims().layers, row));
        }
        Some(Op::Sample) => wanted.push(program.leaf(Op::Final, leaf.row)),
        Some(Op::Embed | Op::Columns(_)) | None => {}
    }
    wanted
}

/// The first child whose hash is not one's own.
pub(crate) fn first_other(
    own: &mut Player,
    children: &[Node],
    theirs: &[B256],
) -> Result<Option<Node>, DisputeError> {
    for (child, hash) in children.iter().zip(theirs) {
        if own.hash(child)? != *hash {
            return Ok(Some(*child));
        }
    }
    Ok(None)
}
