//! What is shown of the elements of embedding, norms, products with matrices, rotation and the
//! residual. Order and ranges are those of the table in docs/dispute.md.

use assay_protocol::trace::{LeafId, MatrixRef, Op, SQUARES_BLOCK, Segment, TableRef};

use super::At;
use super::shown::Shown;
use crate::arith::act_entry;
use crate::error::DisputeError;

type Done = Result<(), DisputeError>;

pub(super) fn embed(s: &mut Shown, at: At) -> Done {
    let token = s.token_at(at.row())?;
    s.row(MatrixRef::Embedding, token.into())
}

/// The previous sum, then the block that this one adds.
pub(super) fn squares(s: &mut Shown, at: At) -> Done {
    let (leaf, block) = (at.leaf(), at.index());
    let (source, segment) = match (at.op, at.element.segment) {
        (Op::Project(l), _) => (s.program().residual_before(l, at.row()), Segment::Residual),
        (Op::Final, _) => (last_residual(s, at.row()), Segment::Residual),
        (_, Segment::PostSquares) => (leaf, Segment::Branch),
        (_, Segment::FfnSquares) => (leaf, Segment::Middle),
        (_, Segment::DownSquares) => (leaf, Segment::Down),
        _ => return Err(s.missing()),
    };
    if block > 0 {
        s.open_one(leaf, at.element.segment, block - 1)?;
    }
    let len = s.len(source, segment)?;
    let from = block * u64::from(SQUARES_BLOCK);
    s.open(
        source,
        segment,
        from..len.min(from + u64::from(SQUARES_BLOCK)),
    )
}

/// The same within one head of q or k, whose rows stand first in `qkv`.
pub(super) fn head_squares(s: &mut Shown, at: At) -> Done {
    let dim = u64::from(s.program().dims().head_dim);
    let blocks = dim.div_ceil(SQUARES_BLOCK.into());
    let (head, block) = (at.index() / blocks, at.index() % blocks);
    if block > 0 {
        s.open_one(at.leaf(), Segment::HeadSquares, at.index() - 1)?;
    }
    let from = block * u64::from(SQUARES_BLOCK);
    let to = dim.min(from + u64::from(SQUARES_BLOCK));
    s.open(at.leaf(), Segment::Qkv, head * dim + from..head * dim + to)
}

/// A vector before block floating point, with the segments that hold what comes of it.
struct Site {
    leaf: LeafId,
    values: Values,
    peak: Segment,
    x12: Segment,
    /// Elements.
    len: u64,
}

#[derive(Clone, Copy)]
enum Values {
    Norm {
        squares: Segment,
        source: (LeafId, Segment),
        gains: TableRef,
    },
    /// From this element of `mixes` on.
    Mix {
        from: u64,
    },
    Product,
}

/// The site of a peak, of 12-bit inputs, or of what is multiplied with these.
fn site(s: &Shown, at: At) -> Result<Site, DisputeError> {
    use Segment::*;
    let program = s.program();
    let d = program.dims();
    let leaf = at.leaf();
    let norm = |leaf, layer, gains| Site {
        leaf,
        values: Values::Norm {
            squares: Squares,
            source: (program.residual_before(layer, at.row()), Residual),
            gains,
        },
        peak: Peak,
        x12: X12,
        len: d.width.into(),
    };
    Ok(match (at.op, at.element.segment) {
        (Op::Project(l), _) => norm(leaf, l, TableRef::AttentionNorm(l)),
        (Op::Final | Op::Sample, _) => Site {
            values: Values::Norm {
                squares: Squares,
                source: (last_residual(s, at.row()), Residual),
                gains: TableRef::FinalNorm,
            },
            ..norm(
                program.leaf(Op::Final, at.row()),
                d.layers,
                TableRef::FinalNorm,
            )
        },
        (Op::Layer(_), MixPeak | MixX12 | Branch) => {
            let len = u64::from(d.heads) * u64::from(d.head_dim);
            Site {
                leaf,
                values: Values::Mix {
                    from: s.len(leaf, Mixes)? - len,
                },
                peak: MixPeak,
                x12: MixX12,
                len,
            }
        }
        (Op::Layer(l), FfnPeak | FfnX12 | GateUp) => Site {
            leaf,
            values: Values::Norm {
                squares: FfnSquares,
                source: (leaf, Middle),
                gains: TableRef::FfnNorm(l),
            },
            peak: FfnPeak,
            x12: FfnX12,
            len: d.width.into(),
        },
        (Op::Layer(_), ActPeak | ActX12 | Down) => Site {
            leaf,
            values: Values::Product,
            peak: ActPeak,
            x12: ActX12,
            len: d.ffn.into(),
        },
        _ => return Err(s.missing()),
    })
}

/// What these of a site's values are made of. The sum of squares is shown once, before the first.
fn values(s: &mut Shown, site: &Site, indices: &[u64]) -> Done {
    if let Values::Norm { squares, .. } = site.values {
        s.open_last(site.leaf, squares)?;
    }
    for i in indices {
        match site.values {
            Values::Norm { source, gains, .. } => {
                s.open_one(source.0, source.1, *i)?;
                s.entry(gains, *i)?;
            }
            Values::Mix { from } => s.open_one(site.leaf, Segment::Mixes, from + i)?,
            Values::Product => {
                s.open_one(site.leaf, Segment::GateUp, *i)?;
                s.open_one(site.leaf, Segment::GateUp, site.len + i)?;
                let gate = s.value(site.leaf, Segment::GateUp, *i)?;
                s.entry(TableRef::Act, act_entry(gate).into())?;
            }
        }
    }
    Ok(())
}

/// The place of the largest value, against a better one; or the exponent that its value asks for.
pub(super) fn peak(s: &mut Shown, at: At, witness: Option<u64>) -> Done {
    let site = site(s, at)?;
    let claimed = s.value(at.leaf(), site.peak, 0)?;
    let Some(claimed) = u64::try_from(claimed).ok().filter(|m| *m < site.len) else {
        // Out of range: that alone is false.
        return Ok(());
    };
    if at.index() == 1 {
        return values(s, &site, &[claimed]);
    }
    let own = s.own_value(at.leaf(), site.peak, 0)?;
    let better = witness.unwrap_or(own as u64);
    s.step.witness = better;
    values(s, &site, &[claimed, better])
}

pub(super) fn x12(s: &mut Shown, at: At) -> Done {
    let site = site(s, at)?;
    s.open_all(site.leaf, site.peak)?;
    values(s, &site, &[at.index()])
}

/// A row of a matrix against all of a site.
pub(super) fn linear(s: &mut Shown, at: At) -> Done {
    let site = site(s, at)?;
    s.open_all(site.leaf, site.peak)?;
    s.open_all(site.leaf, site.x12)?;
    let d = s.program().dims();
    let (q, kv) = (
        u64::from(d.heads) * u64::from(d.head_dim),
        u64::from(d.kv_heads) * u64::from(d.head_dim),
    );
    let (r, ffn) = (at.index(), u64::from(d.ffn));
    let (matrix, row) = match (at.op, at.element.segment) {
        (Op::Project(l), _) if r < q => (MatrixRef::Q(l), r),
        (Op::Project(l), _) if r < q + kv => (MatrixRef::K(l), r - q),
        (Op::Project(l), _) => (MatrixRef::V(l), r - q - kv),
        (Op::Layer(l), Segment::Branch) => (MatrixRef::O(l), r),
        (Op::Layer(l), Segment::GateUp) if r < ffn => (MatrixRef::Gate(l), r),
        (Op::Layer(l), Segment::GateUp) => (MatrixRef::Up(l), r - ffn),
        (Op::Layer(l), Segment::Down) => (MatrixRef::Down(l), r),
        (Op::Sample, Segment::Logits) => (MatrixRef::Head, r),
        _ => return Err(s.missing()),
    };
    s.row(matrix, row)
}

/// A pair of a head of q or k, and what turns it.
pub(super) fn turned(s: &mut Shown, at: At, layer: u32) -> Done {
    let program = s.program();
    let d = program.dims();
    let is_q = at.element.segment == Segment::Q;
    let dim = u64::from(d.head_dim);
    let (head, i) = (at.index() / dim, at.index() % dim);
    // llama turns neighbours, gemma the halves against each other.
    let (a, b) = match program.gemma() {
        false => (i & !1, i | 1),
        true => (i % (dim / 2), i % (dim / 2) + dim / 2),
    };
    let all = if is_q {
        head
    } else {
        u64::from(d.heads) + head
    };
    s.open_one(at.leaf(), Segment::Qkv, all * dim + a)?;
    s.open_one(at.leaf(), Segment::Qkv, all * dim + b)?;
    if program.gemma() {
        let blocks = dim.div_ceil(SQUARES_BLOCK.into());
        s.open_one(at.leaf(), Segment::HeadSquares, (all + 1) * blocks - 1)?;
    }
    let entry = s.manifest().layers.get(layer as usize);
    let table = entry.ok_or_else(|| s.missing())?.rope;
    s.entry(TableRef::Rope(table), at.row().into())?;
    if program.gemma() {
        let gains = match is_q {
            true => TableRef::QNorm(layer),
            false => TableRef::KNorm(layer),
        };
        s.entry(gains, a)?;
        s.entry(gains, b)?;
    }
    Ok(())
}

pub(super) fn value(s: &mut Shown, at: At) -> Done {
    let d = s.program().dims();
    let before = u64::from(d.heads + d.kv_heads) * u64::from(d.head_dim);
    s.open_one(at.leaf(), Segment::Qkv, before + at.index())
}

/// What was there and what is added, with the post-norm of gemma.
pub(super) fn added(s: &mut Shown, at: At, layer: u32) -> Done {
    let (leaf, i) = (at.leaf(), at.index());
    let before = s.program().residual_before(layer, at.row());
    let (source, branch, squares, gains) = match at.element.segment {
        Segment::Middle => (
            (before, Segment::Residual),
            Segment::Branch,
            Segment::PostSquares,
            TableRef::AttentionPost(layer),
        ),
        _ => (
            (leaf, Segment::Middle),
            Segment::Down,
            Segment::DownSquares,
            TableRef::FfnPost(layer),
        ),
    };
    s.open_one(source.0, source.1, i)?;
    s.open_one(leaf, branch, i)?;
    if s.program().gemma() {
        s.open_last(leaf, squares)?;
        s.entry(gains, i)?;
    }
    Ok(())
}

/// Where the residual before output token `output` leaves the layers.
fn last_residual(s: &Shown, output: u32) -> LeafId {
    let program = s.program();
    program.residual_before(program.dims().layers, program.row_before(output))
}
