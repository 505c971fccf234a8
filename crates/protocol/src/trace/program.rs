//! What a statement's pass computes, laid out: ops, their rows, the segments of a row's vector, and
//! where an element lies. Follows from the manifest's shapes, two counts and the sampler alone; every
//! number of a stranger is bounded before anything is made of it.

use std::ops::Range;

use super::{BLOCK, CHUNK, IDS_BLOCK, SEARCH_BITS, SQUARES_BLOCK};
use crate::SamplerParams;
use crate::manifest::{Architecture, Dims, LAYERS_MAX, Manifest};
use crate::sampler::{TOP_P_ALL, Temperature};

/// Bounds within which no count of a layout overflows: those of the engine.
const DIM_MAX: u32 = 1 << 16;
const HEAD_DIM_MAX: u32 = 1 << 10;
const VOCAB_MAX: u32 = 1 << 24;
const CONTEXT_MAX: u32 = 1 << 20;
/// Most chunks of one vector.
const CHUNKS_MAX: u64 = 1 << 31;

/// One kind of vector; a number below [`Program::ops`] each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Op {
    Embed,
    /// A layer's way from the residual to q, k and v.
    Project(u32),
    /// A layer's values of a block of positions, column by column.
    Columns(u32),
    /// The rest of a layer.
    Layer(u32),
    /// The norm before the head, of the token before each output token.
    Final,
    /// Logits and what is drawn from them.
    Sample,
}

/// A part of a vector; the table in docs/dispute.md says what its elements are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Segment {
    Residual,
    Squares,
    Peak,
    X12,
    Qkv,
    HeadSquares,
    Q,
    K,
    V,
    Columns,
    Seen,
    Exps,
    Sums,
    Mixes,
    MixPeak,
    MixX12,
    Branch,
    PostSquares,
    Middle,
    FfnSquares,
    FfnPeak,
    FfnX12,
    GateUp,
    ActPeak,
    ActX12,
    Down,
    DownSquares,
    Logits,
    Top,
    Weights,
    Totals,
    CountSearch,
    SumSearch,
    Kept,
}

/// How an element is written, big-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Width {
    I16,
    U16,
    I32,
    U32,
    I64,
}

impl Width {
    pub fn bytes(self) -> usize {
        match self {
            Width::I16 | Width::U16 => 2,
            Width::I32 | Width::U32 => 4,
            Width::I64 => 8,
        }
    }

    /// Elements of a whole chunk.
    pub fn per_chunk(self) -> u32 {
        (CHUNK / self.bytes()) as u32
    }

    /// Element `slot` of a chunk; `None` where the chunk does not reach that far.
    pub fn read(self, chunk: &[u8], slot: u32) -> Option<i64> {
        let bytes = chunk.chunks_exact(self.bytes()).nth(slot as usize)?;
        let unsigned = bytes.iter().fold(0, |v, byte| v << 8 | u64::from(*byte));
        Some(match self {
            Width::I16 => (unsigned as u16 as i16).into(),
            Width::I32 => (unsigned as u32 as i32).into(),
            Width::U16 | Width::U32 | Width::I64 => unsigned as i64,
        })
    }
}

impl Segment {
    pub fn width(self) -> Width {
        use Segment::*;
        match self {
            X12 | MixX12 | FfnX12 | ActX12 | Q | K | V | Columns => Width::I16,
            Exps => Width::U16,
            Weights => Width::U32,
            Residual | Qkv | Mixes | Branch | Middle | GateUp | Down | Logits => Width::I32,
            Squares | HeadSquares | PostSquares | FfnSquares | DownSquares | Peak | MixPeak
            | FfnPeak | ActPeak | Seen | Sums | Top | Totals | CountSearch | SumSearch | Kept => {
                Width::I64
            }
        }
    }
}

/// One vector of the trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeafId {
    pub op: u32,
    pub row: u32,
}

/// One element, as the referee names it. The order is that of computation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ElementId {
    pub leaf: LeafId,
    pub chunk: u32,
    /// Which element of the chunk.
    pub slot: u32,
}

/// One element, as docs/dispute.md names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Element {
    pub leaf: LeafId,
    pub segment: Segment,
    pub index: u64,
}

/// A segment and where it lies in its vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Part {
    pub segment: Segment,
    pub width: Width,
    /// Elements.
    pub len: u64,
    pub first_chunk: u32,
    pub chunks: u32,
}

impl Part {
    /// Bytes of the segment.
    pub fn bytes(&self) -> u64 {
        self.len * self.width.bytes() as u64
    }

    /// Which chunk of the vector holds this element, and where in it.
    pub fn place(&self, index: u64) -> Option<(u32, u32)> {
        let per_chunk = u64::from(self.width.per_chunk());
        let within = |index: u64| (index / per_chunk) as u32;
        (index < self.len).then(|| (self.first_chunk + within(index), (index % per_chunk) as u32))
    }

    /// The chunks that cover these elements; empty for none.
    pub fn cover(&self, elements: Range<u64>) -> Option<Range<u32>> {
        if elements.is_empty() {
            return None;
        }
        let (first, _) = self.place(elements.start)?;
        let (last, _) = self.place(elements.end - 1)?;
        Some(first..last + 1)
    }
}

/// Why a statement has no trace to lay out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProgramError {
    #[error("{n_output} output tokens after {n_prompt} of prompt: nothing is computed")]
    Nothing { n_prompt: u32, n_output: u32 },
    #[error("{wanted} positions are stated and the model's context has {max}")]
    Context { wanted: u64, max: u32 },
    #[error("manifest: {what} is {value}, for which no trace is laid out")]
    Shape { what: &'static str, value: u64 },
}

/// The layout of one statement's trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    dims: Dims,
    gemma: bool,
    windows: Vec<u32>,
    n_prompt: u32,
    n_output: u32,
    drawn: bool,
    top_k: bool,
    top_p: bool,
}

impl Program {
    /// The layout for so many tokens of prompt and output.
    pub fn new(
        manifest: &Manifest,
        n_prompt: u32,
        n_output: u32,
        sampler: &SamplerParams,
    ) -> Result<Program, ProgramError> {
        let d = manifest.dims;
        check_dims(&d, manifest.layers.len())?;
        if n_prompt == 0 || n_output == 0 {
            return Err(ProgramError::Nothing { n_prompt, n_output });
        }
        let wanted = u64::from(n_prompt) + u64::from(n_output);
        if wanted > d.context_max.into() {
            return Err(ProgramError::Context {
                wanted,
                max: d.context_max,
            });
        }
        let program = Program {
            dims: d,
            gemma: manifest.architecture == Architecture::Gemma3,
            windows: manifest.layers.iter().map(|layer| layer.window).collect(),
            n_prompt,
            n_output,
            drawn: sampler.temperature != Temperature::Greedy,
            top_k: (1..d.vocab).contains(&sampler.top_k),
            top_p: sampler.top_p_q16 < TOP_P_ALL,
        };
        // A layer's vector is the only one that grows with the context; one beyond the last has no window.
        let longest = program.spans(Op::Layer(d.layers), program.tokens() - 1);
        let chunks: u64 = longest.iter().map(|(s, len)| chunks(*s, *len)).sum();
        if chunks > CHUNKS_MAX {
            return Err(ProgramError::Shape {
                what: "number of chunks of a layer",
                value: chunks,
            });
        }
        Ok(program)
    }

    pub fn dims(&self) -> &Dims {
        &self.dims
    }

    /// Whether the layers have gemma's norms.
    pub fn gemma(&self) -> bool {
        self.gemma
    }

    pub fn n_prompt(&self) -> u32 {
        self.n_prompt
    }

    pub fn n_output(&self) -> u32 {
        self.n_output
    }

    /// Whether tokens are drawn, so that there is a [`Op::Sample`].
    pub fn drawn(&self) -> bool {
        self.drawn
    }

    /// Whether a draw looks for θ_k.
    pub fn searches_count(&self) -> bool {
        self.drawn && self.top_k
    }

    /// Whether a draw looks for θ_p.
    pub fn searches_sum(&self) -> bool {
        self.drawn && self.top_p
    }

    /// Tokens that the pass runs: the last output token is never run.
    pub fn tokens(&self) -> u32 {
        self.n_prompt + self.n_output - 1
    }

    /// The row of the pass that output token `output` follows from.
    pub fn row_before(&self, output: u32) -> u32 {
        (self.n_prompt - 1).saturating_add(output)
    }

    pub fn ops(&self) -> u32 {
        2 + 3 * self.dims.layers + u32::from(self.drawn)
    }

    /// The op of this number.
    pub fn op(&self, number: u32) -> Option<Op> {
        let layers = 3 * self.dims.layers;
        Some(match number.checked_sub(1) {
            None => Op::Embed,
            Some(n) if n < layers => match n % 3 {
                0 => Op::Project(n / 3),
                1 => Op::Columns(n / 3),
                _ => Op::Layer(n / 3),
            },
            Some(n) if n == layers => Op::Final,
            Some(n) if n == layers + 1 && self.drawn => Op::Sample,
            Some(_) => return None,
        })
    }

    /// The number of this op, whether or not the program has it.
    pub fn number(&self, op: Op) -> u32 {
        let layer = |l: u32, at: u32| l.saturating_mul(3).saturating_add(at);
        match op {
            Op::Embed => 0,
            Op::Project(l) => layer(l, 1),
            Op::Columns(l) => layer(l, 2),
            Op::Layer(l) => layer(l, 3),
            Op::Final => layer(self.dims.layers, 1),
            Op::Sample => layer(self.dims.layers, 2),
        }
    }

    /// The vector of an op's row, whether or not the program has it.
    pub fn leaf(&self, op: Op, row: u32) -> LeafId {
        LeafId {
            op: self.number(op),
            row,
        }
    }

    /// The vector in which the residual that enters a layer, or the final norm, stands at this row.
    pub fn residual_before(&self, layer: u32, row: u32) -> LeafId {
        match layer.checked_sub(1) {
            None => self.leaf(Op::Embed, row),
            Some(before) => self.leaf(Op::Layer(before), row),
        }
    }

    /// Rows of an op; 0 where there is no such op.
    pub fn rows(&self, number: u32) -> u32 {
        match self.op(number) {
            Some(Op::Embed | Op::Project(_) | Op::Layer(_)) => self.tokens(),
            Some(Op::Columns(_)) => self.tokens().div_ceil(BLOCK),
            Some(Op::Final | Op::Sample) => self.n_output,
            None => 0,
        }
    }

    /// The first position that a token at `row` sees in this layer.
    pub fn first_seen(&self, layer: u32, row: u32) -> u32 {
        match self.windows.get(layer as usize) {
            None | Some(0) => 0,
            Some(window) => row.saturating_add(1).saturating_sub(*window),
        }
    }

    /// The blocks of positions that a token at `row` sees in this layer.
    pub fn blocks(&self, layer: u32, row: u32) -> Range<u32> {
        self.first_seen(layer, row) / BLOCK..row / BLOCK + 1
    }

    /// The segments of a vector, in order; none where there is no such vector.
    pub fn parts(&self, leaf: LeafId) -> Vec<Part> {
        let mut first_chunk = 0;
        self.op(leaf.op)
            .filter(|_| leaf.row < self.rows(leaf.op))
            .map(|op| self.spans(op, leaf.row))
            .unwrap_or_default()
            .into_iter()
            .map(|(segment, len)| {
                // `new` bounds the chunks of the longest vector.
                let part = Part {
                    segment,
                    width: segment.width(),
                    len,
                    first_chunk,
                    chunks: chunks(segment, len) as u32,
                };
                first_chunk += part.chunks;
                part
            })
            .collect()
    }

    /// One segment of a vector.
    pub fn part(&self, leaf: LeafId, segment: Segment) -> Option<Part> {
        self.parts(leaf)
            .into_iter()
            .find(|part| part.segment == segment)
    }

    /// The segment that a chunk of a vector is of.
    pub fn part_at(&self, leaf: LeafId, chunk: u32) -> Option<Part> {
        self.parts(leaf).into_iter().find(|part| {
            let within = chunk.checked_sub(part.first_chunk);
            within.is_some_and(|within| within < part.chunks)
        })
    }

    /// Chunks of a vector; 0 where there is no such vector.
    pub fn chunks(&self, leaf: LeafId) -> u32 {
        self.parts(leaf)
            .last()
            .map_or(0, |part| part.first_chunk + part.chunks)
    }

    /// Bytes of a vector.
    pub fn bytes(&self, leaf: LeafId) -> u64 {
        self.parts(leaf).iter().map(Part::bytes).sum()
    }

    /// Bytes of a chunk; 0 where there is none.
    pub fn chunk_len(&self, leaf: LeafId, chunk: u32) -> usize {
        self.chunk_range(leaf, chunk)
            .map_or(0, |range| (range.end - range.start) as usize)
    }

    /// Where a chunk's bytes lie within its vector's.
    pub fn chunk_range(&self, leaf: LeafId, chunk: u32) -> Option<Range<u64>> {
        let mut start = 0;
        for part in self.parts(leaf) {
            if let Some(within) = chunk.checked_sub(part.first_chunk)
                && within < part.chunks
            {
                let from = u64::from(within) * CHUNK as u64;
                let to = part.bytes().min(from + CHUNK as u64);
                return Some(start + from..start + to);
            }
            start += part.bytes();
        }
        None
    }

    /// The referee's name of an element.
    pub fn element(&self, leaf: LeafId, segment: Segment, index: u64) -> Option<ElementId> {
        let (chunk, slot) = self.part(leaf, segment)?.place(index)?;
        Some(ElementId { leaf, chunk, slot })
    }

    /// What the referee's name stands for.
    pub fn locate(&self, id: ElementId) -> Option<Element> {
        let part = self.part_at(id.leaf, id.chunk)?;
        let (within, per_chunk) = (id.chunk - part.first_chunk, part.width.per_chunk());
        let index = u64::from(within) * u64::from(per_chunk) + u64::from(id.slot);
        (id.slot < per_chunk && index < part.len).then_some(Element {
            leaf: id.leaf,
            segment: part.segment,
            index,
        })
    }

    /// The segments of an op's vector and their lengths; `new` has bounded every factor.
    fn spans(&self, op: Op, row: u32) -> Vec<(Segment, u64)> {
        use Segment::*;
        let d = &self.dims;
        let [width, heads, kv_heads, dim, ffn, vocab] =
            [d.width, d.heads, d.kv_heads, d.head_dim, d.ffn, d.vocab].map(u64::from);
        let (q, kv) = (heads * dim, kv_heads * dim);
        let squares = |n: u64| n.div_ceil(SQUARES_BLOCK.into());
        let ids = vocab.div_ceil(IDS_BLOCK.into());
        let search = u64::from(SEARCH_BITS) * (ids + 1);
        let block = u64::from(BLOCK);
        let spans: &[(Segment, u64, bool)] = match op {
            Op::Embed => &[(Residual, width, true)],
            Op::Project(_) => &[
                (Squares, squares(width), true),
                (Peak, 2, true),
                (X12, width, true),
                (Qkv, q + 2 * kv, true),
                (HeadSquares, (heads + kv_heads) * squares(dim), self.gemma),
                (Q, q, true),
                (K, kv, true),
                (V, kv, true),
            ],
            Op::Columns(_) => &[(Columns, kv * block, true)],
            Op::Layer(layer) => {
                let seen = self.blocks(layer, row);
                let blocks = u64::from(seen.end - seen.start);
                &[
                    (Seen, heads * 2, true),
                    (Exps, heads * blocks * block, true),
                    (Sums, heads * blocks, true),
                    (Mixes, blocks * q, true),
                    (MixPeak, 2, true),
                    (MixX12, q, true),
                    (Branch, width, true),
                    (PostSquares, squares(width), self.gemma),
                    (Middle, width, true),
                    (FfnSquares, squares(width), true),
                    (FfnPeak, 2, true),
                    (FfnX12, width, true),
                    (GateUp, 2 * ffn, true),
                    (ActPeak, 2, true),
                    (ActX12, ffn, true),
                    (Down, width, true),
                    (DownSquares, squares(width), self.gemma),
                    (Residual, width, true),
                ]
            }
            Op::Final => &[
                (Squares, squares(width), true),
                (Peak, 2, true),
                (X12, width, true),
            ],
            Op::Sample => &[
                (Logits, vocab, true),
                (Top, 2, true),
                (Weights, vocab, true),
                (Totals, ids, true),
                (CountSearch, search, self.top_k),
                (SumSearch, search, self.top_p),
                (Kept, ids, true),
            ],
        };
        let present = spans.iter().filter(|(_, _, present)| *present);
        present.map(|(segment, len, _)| (*segment, *len)).collect()
    }
}

fn chunks(segment: Segment, len: u64) -> u64 {
    len.div_ceil(segment.width().per_chunk().into())
}

fn check_dims(d: &Dims, layers: usize) -> Result<(), ProgramError> {
    let check = |what, value: u64, ok: bool| match ok {
        true => Ok(()),
        false => Err(ProgramError::Shape { what, value }),
    };
    for (what, value, max) in [
        ("layers", d.layers, LAYERS_MAX as u32),
        ("width", d.width, DIM_MAX),
        ("heads", d.heads, DIM_MAX),
        ("kv_heads", d.kv_heads, d.heads),
        ("head_dim", d.head_dim, HEAD_DIM_MAX),
        ("ffn", d.ffn, DIM_MAX),
        ("vocab", d.vocab, VOCAB_MAX),
        ("context_max", d.context_max, CONTEXT_MAX),
    ] {
        check(what, value.into(), (1..=max).contains(&value))?;
    }
    let grouped = d.heads.is_multiple_of(d.kv_heads);
    check("kv_heads", d.kv_heads.into(), grouped)?;
    check("head_dim", d.head_dim.into(), d.head_dim.is_multiple_of(2))?;
    let stated = layers as u64;
    check("number of layers", stated, stated == u64::from(d.layers))
}
