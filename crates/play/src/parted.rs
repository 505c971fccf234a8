//! Where two traces part, as people read it: the op, the row, the segment and the element, with both values. Made from
//! the step that proves it and from one's own trace; proves nothing by itself.

use std::fmt;

use assay_dispute::{Fact, Node, Stage, Step, Trace, TraceError};
use assay_protocol::TokenId;
use assay_protocol::trace::{ElementId, LeafId, Op, Program, Segment, TOKEN_OP};
use serde::{Deserialize, Serialize};

use crate::words::fact_words;

/// What a proof shows to be false.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum Parted {
    /// One element of the provider's trace.
    Element {
        op: Progress,
        /// The op in words, with its layer.
        name: String,
        row: Progress,
        /// What the row stands for.
        row_name: String,
        chunk: Progress,
        segment: String,
        element: Progress,
        /// In the provider's trace.
        theirs: Option<i64>,
        /// In an honest one.
        ours: Option<i64>,
    },
    /// A token that even the provider's own trace does not choose.
    Token {
        output: Progress,
        claimed: TokenId,
        chosen: Option<TokenId>,
    },
    /// The statement itself.
    Statement { why: String },
    /// Among these, of which the provider has not shown more yet.
    Hidden {
        /// The op, if that is known, and the row in it.
        op: Option<Progress>,
        name: String,
        row: Option<Progress>,
        among: String,
        from: u64,
        to: u64,
        of: u64,
    },
    /// Nowhere: the provider's trace is the honest one, and its every token is chosen.
    Nowhere,
}

/// The number of something among its like: all before it agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    pub at: u64,
    pub of: u64,
}

impl Parted {
    pub fn by_fact(fact: &Fact) -> Self {
        let why = fact_words(fact.kind).into();
        Self::Statement { why }
    }

    /// What this step is about. Costs one vector of one's own trace.
    pub fn by_step(step: &Step, trace: &dyn Trace) -> Result<Self, TraceError> {
        let program = trace.program();
        if step.op == TOKEN_OP {
            let chosen = trace.choices()?.get(step.row as usize).copied();
            return Ok(Self::token(trace, step.row, chosen));
        }
        let (op, row) = (step.op, step.row);
        let id = ElementId {
            leaf: LeafId { op, row },
            chunk: step.chunk,
            slot: step.slot,
        };
        let ours = Self::own_chunk(trace, id)?;
        let len = program.chunk_len(id.leaf, id.chunk);
        let theirs = step.openings.first().and_then(|first| first.bytes(len));
        Self::at(program, id, ours.as_deref(), theirs.as_deref())
            .ok_or_else(|| TraceError(format!("it has no element {id:?}")))
    }

    /// A token of the output, and what the trace chooses there.
    pub fn token(trace: &dyn Trace, output: u32, chosen: Option<TokenId>) -> Self {
        let claimed = trace.output().get(output as usize).copied();
        Self::Token {
            output: progress(output, trace.program().n_output()),
            claimed: claimed.unwrap_or_default(),
            chosen,
        }
    }

    /// Somewhere below this node; nothing where there is no such node.
    pub fn hidden(program: &Program, node: &Node) -> Option<Self> {
        let ops = progress(node.op, program.ops());
        let rows = progress(node.row, program.rows(node.op));
        let name = || program.op(node.op).map(op_name);
        let (op, name, row, among) = match node.stage {
            Stage::Ops => (None, String::new(), None, "ops"),
            Stage::Rows => (Some(ops), name()?, None, "rows"),
            Stage::Chunks => (Some(ops), name()?, Some(rows), "chunks"),
            Stage::Bytes => (Some(ops), name()?, Some(rows), "bytes of the chunk"),
        };
        let (from, to, of) = match node.chunk() {
            Some((leaf, chunk)) => {
                let len = program.chunk_len(leaf, chunk) as u64;
                (0, len, len)
            }
            None => {
                let of = node.count(program);
                let from = node.index.checked_shl(node.height)?;
                (from, (node.index + 1).checked_shl(node.height)?.min(of), of)
            }
        };
        let among = among.into();
        Some(Self::Hidden {
            op,
            name,
            row,
            among,
            from,
            to,
            of,
        })
    }

    /// The chunk of one's own trace that holds an element. Costs one vector.
    pub fn own_chunk(trace: &dyn Trace, id: ElementId) -> Result<Option<Vec<u8>>, TraceError> {
        let range = trace.program().chunk_range(id.leaf, id.chunk);
        let vector = trace.vectors(&[id.leaf])?.pop();
        Ok(range.zip(vector).and_then(|(range, vector)| {
            let range = usize::try_from(range.start).ok()?..usize::try_from(range.end).ok()?;
            vector.get(range).map(<[u8]>::to_vec)
        }))
    }

    /// An element with the chunks that hold it, as far as they are known.
    pub fn at(
        program: &Program,
        id: ElementId,
        ours: Option<&[u8]>,
        theirs: Option<&[u8]>,
    ) -> Option<Self> {
        let op = program.op(id.leaf.op)?;
        let part = program.part_at(id.leaf, id.chunk)?;
        let element = program.locate(id)?;
        let read = |chunk: Option<&[u8]>| chunk.and_then(|chunk| part.width.read(chunk, id.slot));
        Some(Self::Element {
            op: progress(id.leaf.op, program.ops()),
            name: op_name(op),
            row: progress(id.leaf.row, program.rows(id.leaf.op)),
            row_name: row_name(program, op, id.leaf.row),
            chunk: progress(id.chunk, program.chunks(id.leaf)),
            segment: segment_name(element.segment),
            element: Progress {
                at: element.index,
                of: part.len,
            },
            theirs: read(theirs),
            ours: read(ours),
        })
    }

    /// A picture for a terminal: how much agrees at every level, down to the element.
    pub fn picture(&self) -> String {
        match self {
            Self::Element {
                op,
                name,
                row,
                row_name,
                chunk,
                segment,
                element,
                theirs,
                ours,
            } => {
                let value = |value: &Option<i64>| value.map_or("?".into(), |v| v.to_string());
                format!(
                    "op       {} {name}\nrow      {} {row_name}\nchunk    {} {segment}\nelement  {} {segment}[{}]\n         the provider's trace says {}, the model says {}\n",
                    bar(op),
                    bar(row),
                    bar(chunk),
                    bar(element),
                    element.at,
                    value(theirs),
                    value(ours),
                )
            }
            Self::Token {
                output,
                claimed,
                chosen,
            } => {
                let chosen = chosen.map_or("another".into(), |id| id.to_string());
                format!(
                    "trace    {} all of it agrees\noutput   {} token {}: the receipt says {claimed}, the provider's own trace chooses {chosen}\n",
                    "█".repeat(WIDTH as usize),
                    bar(output),
                    output.at,
                )
            }
            Self::Statement { why } => format!("statement  {why}\n"),
            Self::Hidden {
                op,
                name,
                row,
                among,
                from,
                to,
                of,
            } => {
                let mut text = String::new();
                if let Some(op) = op {
                    text.push_str(&format!("op       {} {name}\n", bar(op)));
                }
                if let Some(row) = row {
                    text.push_str(&format!("row      {} row {}\n", bar(row), row.at));
                }
                text.push_str(&format!(
                    "hidden   among {among} {from} to {to} of {of}: the provider has not shown more yet\n"
                ));
                text
            }
            Self::Nowhere => "nowhere  the provider's trace is the honest one\n".into(),
        }
    }
}

impl fmt::Display for Parted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Element {
                name,
                row_name,
                segment,
                element,
                theirs,
                ours,
                ..
            } => {
                write!(f, "{name}, {row_name}, {segment}[{}]", element.at)?;
                match (theirs, ours) {
                    (Some(theirs), Some(ours)) => {
                        write!(f, ": {theirs} in the provider's trace, {ours} by the model")
                    }
                    _ => Ok(()),
                }
            }
            Self::Token {
                output,
                claimed,
                chosen,
            } => {
                write!(f, "output token {} is {claimed}", output.at)?;
                match chosen {
                    Some(chosen) => write!(f, ", the provider's own trace chooses {chosen}"),
                    None => Ok(()),
                }
            }
            Self::Statement { why } => f.write_str(why),
            Self::Hidden {
                among, from, to, ..
            } => write!(f, "somewhere among {among} {from} to {to}"),
            Self::Nowhere => f.write_str("nowhere: the provider's trace is the honest one"),
        }
    }
}

fn progress(at: u32, of: u32) -> Progress {
    Progress {
        at: at.into(),
        of: of.into(),
    }
}

/// Letters of a bar.
const WIDTH: u64 = 24;

/// What agrees, what parts, and what was not looked at.
fn bar(progress: &Progress) -> String {
    let (at, of) = (progress.at, progress.of.max(1));
    let before = (at.saturating_mul(WIDTH) / of).min(WIDTH);
    let parts = u64::from(before < WIDTH);
    let filled = "█".repeat(before as usize);
    let rest = "·".repeat((WIDTH - before - parts) as usize);
    let mark = if parts == 1 { "╳" } else { "" };
    format!("{filled}{mark}{rest} {at} of {of} agree,")
}

fn op_name(op: Op) -> String {
    match op {
        Op::Embed => "embedding".into(),
        Op::Project(layer) => format!("layer {layer}: norm, q, k and v"),
        Op::Columns(layer) => format!("layer {layer}: columns of v"),
        Op::Layer(layer) => format!("layer {layer}: attention and feed-forward"),
        Op::Final => "final norm".into(),
        Op::Sample => "logits and sampling".into(),
    }
}

fn row_name(program: &Program, op: Op, row: u32) -> String {
    match op {
        Op::Columns(_) => format!("block {row} of positions"),
        Op::Final | Op::Sample => format!("before output token {row}"),
        Op::Embed | Op::Project(_) | Op::Layer(_) => match row.checked_sub(program.n_prompt()) {
            None => format!("prompt token {row}"),
            Some(output) => format!("output token {output}"),
        },
    }
}

/// As docs/dispute.md writes it.
fn segment_name(segment: Segment) -> String {
    let mut name = String::new();
    for letter in format!("{segment:?}").chars() {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.extend(letter.to_lowercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_have_the_names_of_the_specification() {
        let names = [
            (Segment::Residual, "residual"),
            (Segment::X12, "x12"),
            (Segment::MixPeak, "mix_peak"),
            (Segment::GateUp, "gate_up"),
        ];
        for (segment, name) in names {
            assert_eq!(segment_name(segment), name);
        }
    }

    #[test]
    fn a_bar_shows_what_agrees_and_where_it_ends() {
        let bar = |at, of| bar(&Progress { at, of });
        assert_eq!(bar(0, 92), "╳······················· 0 of 92 agree,");
        assert_eq!(bar(46, 92), "████████████╳··········· 46 of 92 agree,");
        assert_eq!(bar(91, 92), "███████████████████████╳ 91 of 92 agree,");
        assert_eq!(bar(1, 1), "████████████████████████ 1 of 1 agree,");
    }
}
