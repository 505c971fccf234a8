//! Builds the step for one element: exactly the openings, rows, entries and tokens that the table in
//! docs/dispute.md names, in its order. One function a family of elements, in the files below. It
//! assumes that the element is the first that differs, so that all that stands before it is one's own.

mod attend;
mod draw;
mod pass;
mod shown;

use assay_protocol::trace::{Element, ElementId, LeafId, Op, Segment, TOKEN_OP};

use crate::error::DisputeError;
use crate::player::Player;
use crate::seen::Seen;
use crate::step::Step;
use shown::Shown;

/// An element, with what its leaf's op says.
#[derive(Clone, Copy)]
struct At {
    element: Element,
    op: Op,
}

impl At {
    fn leaf(&self) -> LeafId {
        self.element.leaf
    }

    fn row(&self) -> u32 {
        self.element.leaf.row
    }

    fn index(&self) -> u64 {
        self.element.index
    }
}

/// The step about an element. `witness` stands in for the own trace's better place of a maximum.
pub(crate) fn element(
    player: &mut Player,
    seen: &Seen,
    id: ElementId,
    witness: Option<u64>,
) -> Result<Step, DisputeError> {
    let program = player.program();
    let found = program.locate(id).zip(program.op(id.leaf.op));
    let (element, op) = found.ok_or(DisputeError::NoElement(id))?;
    let at = At { element, op };
    let mut shown = Shown::new(player, seen, id);
    shown.open(at.leaf(), element.segment, at.index()..at.index() + 1)?;
    if op == Op::Sample {
        shown.sampler();
    }
    family(&mut shown, at, witness)?;
    Ok(shown.step)
}

/// What is shown after the element itself.
fn family(s: &mut Shown, at: At, witness: Option<u64>) -> Result<(), DisputeError> {
    use Segment::*;
    match (at.op, at.element.segment) {
        (Op::Embed, Residual) => pass::embed(s, at),
        (_, Squares | PostSquares | FfnSquares | DownSquares) => pass::squares(s, at),
        (Op::Project(_), HeadSquares) => pass::head_squares(s, at),
        (_, Peak | MixPeak | FfnPeak | ActPeak) => pass::peak(s, at, witness),
        (_, X12 | MixX12 | FfnX12 | ActX12) => pass::x12(s, at),
        (_, Qkv | Branch | GateUp | Down | Logits) => pass::linear(s, at),
        (Op::Project(l), Q | K) => pass::turned(s, at, l),
        (Op::Project(_), V) => pass::value(s, at),
        (Op::Layer(l), Middle | Residual) => pass::added(s, at, l),
        (Op::Columns(l), Columns) => attend::columns(s, at, l),
        (Op::Layer(l), Seen) => attend::seen(s, at, l, witness),
        (Op::Layer(l), Exps) => attend::exps(s, at, l),
        (Op::Layer(l), Sums) => attend::sums(s, at, l),
        (Op::Layer(l), Mixes) => attend::mixes(s, at, l),
        (Op::Sample, Top) => draw::top(s, at, witness),
        (Op::Sample, Weights) => draw::weights(s, at),
        (Op::Sample, Totals) => draw::totals(s, at),
        (Op::Sample, CountSearch | SumSearch) => draw::search(s, at),
        (Op::Sample, Kept) => draw::kept(s, at),
        _ => Err(s.missing()),
    }
}

/// The step that says: output token `output` is not what the trace chooses. Under greedy sampling,
/// `better` is the token that is.
pub(crate) fn token(
    player: &mut Player,
    seen: &Seen,
    output: u32,
    better: u32,
) -> Result<Step, DisputeError> {
    let leaf = LeafId {
        op: TOKEN_OP,
        row: output,
    };
    let id = ElementId {
        leaf,
        chunk: 0,
        slot: 0,
    };
    let mut shown = Shown::new(player, seen, id);
    shown.sampler();
    draw::token(&mut shown, output, better)?;
    Ok(shown.step)
}
