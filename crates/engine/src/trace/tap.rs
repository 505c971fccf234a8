//! Listens to the fast pass at the borders of its stages and records what a trace lists there. Reads
//! the pass's buffers, never writes them; what no buffer holds (sums, positions of maxima, attention's
//! insides) is computed again from what they hold.

use std::collections::BTreeMap;

use assay_protocol::trace::{BLOCK, LeafId, Op, Program, SQUARES_BLOCK, Segment};
use assay_protocol::{B256, SamplerParams};

use super::attention::Attention;
use super::record::Record;
use super::sample::Sample;
use crate::cache::Cache;
use crate::crew::Crew;
use crate::kernels::Vectors;
use crate::model::{Inner, Layer, Norm};
use crate::ops;
use crate::shared::Shared;

/// What is recorded of one sequence, chunk after chunk of the pass.
pub(crate) struct Tap {
    program: Program,
    sampler: SamplerParams,
    hashing: bool,
    /// By op, by row; empty where hashes are not wanted.
    leaves: Vec<Vec<B256>>,
    /// Vectors whose bytes are wanted.
    kept: BTreeMap<LeafId, Vec<u8>>,
    /// The op that is being recorded, and which of its rows are in `records`.
    op: Op,
    first: u32,
    count: usize,
    /// Kept from op to op for their memory, so there may be more than rows.
    records: Vec<Record>,
    /// Position of the chunk's first token, and the layer that it is in.
    position: u32,
    layer: u32,
}

impl Tap {
    /// Hashes every vector.
    pub(super) fn hashing(program: Program, sampler: &SamplerParams) -> Tap {
        let leaves = (0..program.ops())
            .map(|op| vec![B256::ZERO; program.rows(op) as usize])
            .collect();
        Tap {
            leaves,
            hashing: true,
            ..Tap::keeping(program, sampler, &[])
        }
    }

    /// Keeps the bytes of these vectors, which the program has.
    pub(super) fn keeping(program: Program, sampler: &SamplerParams, wanted: &[LeafId]) -> Tap {
        Tap {
            sampler: sampler.clone(),
            hashing: false,
            leaves: Vec::new(),
            kept: wanted.iter().map(|leaf| (*leaf, Vec::new())).collect(),
            op: Op::Embed,
            first: 0,
            count: 0,
            records: Vec::new(),
            position: 0,
            layer: 0,
            program,
        }
    }

    pub(super) fn into_leaves(self) -> Vec<Vec<B256>> {
        self.leaves
    }

    pub(super) fn into_kept(self) -> BTreeMap<LeafId, Vec<u8>> {
        self.kept
    }

    /// Positions that the pass must run.
    pub(super) fn positions(&self) -> u32 {
        let tokens = self.program.tokens();
        let needed = |leaf: &LeafId| match self.program.op(leaf.op) {
            Some(Op::Columns(_)) => (leaf.row + 1).saturating_mul(BLOCK).min(tokens),
            Some(Op::Final | Op::Sample) => self.program.row_before(leaf.row) + 1,
            _ => leaf.row + 1,
        };
        match self.hashing {
            true => tokens,
            false => self.kept.keys().map(needed).max().unwrap_or(0),
        }
    }

    /// Layers that the pass must run.
    pub(crate) fn layers(&self) -> usize {
        let all = self.program.dims().layers;
        let needed = |leaf: &LeafId| match self.program.op(leaf.op) {
            Some(Op::Embed) => 0,
            Some(Op::Project(layer) | Op::Columns(layer) | Op::Layer(layer)) => layer + 1,
            _ => all,
        };
        let most = match self.hashing {
            true => all,
            false => self.kept.keys().map(needed).max().unwrap_or(0),
        };
        most as usize
    }

    /// The chunk's tokens that an output follows from.
    pub(crate) fn outputs(&self, count: usize) -> Vec<usize> {
        let first = self.program.row_before(0).saturating_sub(self.position);
        (first as usize..count).collect()
    }

    /// Whether the logits of any of these tokens of the chunk are wanted.
    pub(crate) fn samples(&self, tokens: &[usize]) -> bool {
        let first = self.output(tokens);
        let wanted = |row| {
            let leaf = self.program.leaf(Op::Sample, row);
            self.kept.contains_key(&leaf)
        };
        let rows = first..first + tokens.len() as u32;
        self.program.drawn() && (self.hashing || rows.into_iter().any(wanted))
    }

    /// Starts a chunk of the pass with its embedded tokens.
    pub(crate) fn embedded(&mut self, crew: &Crew, position: usize, x: &[i32]) {
        self.position = position as u32;
        let width = self.program.dims().width as usize;
        self.begin(crew, Op::Embed, self.position, x.len() / width);
        self.each(crew, |t, record| record.i32s(row(x, t, width)));
        self.end(crew);
    }

    /// Comes to a layer of the pass.
    pub(crate) fn enter(&mut self, layer: usize) {
        self.layer = layer as u32;
    }

    /// A layer that the pass leaves out: zeros for all that it would have computed.
    pub(crate) fn skipped(&mut self, crew: &Crew, x: &[i32]) {
        let width = self.program.dims().width as usize;
        let (count, layer) = (x.len() / width, self.layer);
        for op in [Op::Project(layer), Op::Columns(layer), Op::Layer(layer)] {
            match op {
                Op::Columns(_) => self.begin(crew, op, self.position / BLOCK, 1),
                _ => self.begin(crew, op, self.position, count),
            }
            let (first, program) = (self.first, self.program.clone());
            self.each(crew, |t, record| {
                for part in program.parts(program.leaf(op, first + t as u32)) {
                    match part.segment {
                        Segment::Residual => record.i32s(row(x, t, width)),
                        _ => record.zeros(part.bytes() as usize),
                    }
                }
            });
            self.end(crew);
        }
    }

    /// The first norm, and q ‖ k ‖ v as they leave their matrices.
    pub(crate) fn projected(
        &mut self,
        crew: &Crew,
        layer: &Layer,
        x: &[i32],
        input: &Vectors,
        qkv: &[i32],
    ) {
        let d = *self.program.dims();
        let (width, dim) = (d.width as usize, d.head_dim as usize);
        let (q, kv) = (d.heads as usize * dim, d.kv_heads as usize * dim);
        self.begin(
            crew,
            Op::Project(self.layer),
            self.position,
            x.len() / width,
        );
        self.each(crew, |t, record| {
            norm(record, row(x, t, width), &layer.attention_norm, input, t);
            let qkv = row(qkv, t, q + 2 * kv);
            record.i32s(qkv);
            if let Some(gemma) = &layer.gemma {
                let of = |heads: &[i32], eps| -> Vec<i64> {
                    let heads = heads.chunks_exact(dim);
                    heads.flat_map(|head| squares(head, eps)).collect()
                };
                let mut all = of(&qkv[..q], gemma.q_norm.eps);
                all.extend(of(&qkv[q..q + kv], gemma.k_norm.eps));
                record.i64s(&all);
            }
        });
    }

    /// q, k and v as they are used, and the block's columns.
    pub(crate) fn turned(&mut self, crew: &Crew, q: &[i16], k: &[i16], v: &[i16]) {
        let d = *self.program.dims();
        let (q_len, kv_len) = (
            (d.heads * d.head_dim) as usize,
            (d.kv_heads * d.head_dim) as usize,
        );
        self.each(crew, |t, record| {
            record.i16s(row(q, t, q_len));
            record.i16s(row(k, t, kv_len));
            record.i16s(row(v, t, kv_len));
        });
        self.end(crew);
        self.begin(crew, Op::Columns(self.layer), self.position / BLOCK, 1);
        self.each(crew, |_, record| {
            let block = BLOCK as usize;
            let mut columns = vec![0; kv_len * block];
            for (j, v) in v.chunks_exact(kv_len).enumerate() {
                for (column, v) in columns.chunks_exact_mut(block).zip(v) {
                    column[j] = *v;
                }
            }
            record.i16s(&columns);
        });
        self.end(crew);
    }

    /// Attention's insides, and the mix as the output matrix takes it.
    pub(crate) fn attended(
        &mut self,
        crew: &Crew,
        inner: &Inner,
        layer: &Layer,
        cache: &Cache,
        (q, mixed): (&[i16], &[i32]),
        input: &Vectors,
    ) {
        let d = *self.program.dims();
        let q_len = (d.heads * d.head_dim) as usize;
        let (number, first) = (self.layer, self.position);
        self.begin(crew, Op::Layer(number), first, q.len() / q_len);
        let (program, path) = (self.program.clone(), crew.path);
        self.each(crew, |t, record| {
            let position = first + t as u32;
            let attention = Attention {
                path,
                inner,
                layer,
                cache,
                number: number as usize,
                position: position as usize,
                blocks: program.blocks(number, position),
            };
            attention.record(row(q, t, q_len), record);
            let mixed = row(mixed, t, q_len);
            record.i64s(&peak(mixed.iter().map(|a| i64::from(*a)), input.e[t]));
            record.i16s(row(&input.x, t, q_len));
        });
    }

    /// A matrix's result before it is added, and the squares of its post-norm.
    pub(crate) fn branched(&mut self, crew: &Crew, branch: &[i32], post: Option<&Norm>) {
        let width = self.program.dims().width as usize;
        self.each(crew, |t, record| {
            let branch = row(branch, t, width);
            record.i32s(branch);
            if let Some(norm) = post {
                record.i64s(&squares(branch, norm.eps));
            }
        });
    }

    /// The residual after an addition.
    pub(crate) fn added(&mut self, crew: &Crew, x: &[i32]) {
        let width = self.program.dims().width as usize;
        self.each(crew, |t, record| record.i32s(row(x, t, width)));
    }

    /// The second norm, and gate ‖ up.
    pub(crate) fn gated(
        &mut self,
        crew: &Crew,
        layer: &Layer,
        x: &[i32],
        input: &Vectors,
        gate_up: &[i32],
    ) {
        let d = *self.program.dims();
        let (width, ffn) = (d.width as usize, d.ffn as usize);
        self.each(crew, |t, record| {
            norm(record, row(x, t, width), &layer.ffn_norm, input, t);
            record.i32s(row(gate_up, t, 2 * ffn));
        });
    }

    /// The MLP's products as the down matrix takes them.
    pub(crate) fn activated(
        &mut self,
        crew: &Crew,
        inner: &Inner,
        gate_up: &[i32],
        input: &Vectors,
    ) {
        let ffn = self.program.dims().ffn as usize;
        self.each(crew, |t, record| {
            let (gate, up) = row(gate_up, t, 2 * ffn).split_at(ffn);
            let products = gate.iter().zip(up);
            let products = products.map(|(g, u)| ops::act::product(*g, *u, &inner.act));
            record.i64s(&peak(products, input.e[t]));
            record.i16s(row(&input.x, t, ffn));
        });
    }

    /// The layer's vectors are whole.
    pub(crate) fn leave(&mut self, crew: &Crew) {
        self.end(crew);
    }

    /// The final norm of some tokens of the chunk.
    pub(crate) fn normed(
        &mut self,
        crew: &Crew,
        inner: &Inner,
        tokens: &[usize],
        x: &[i32],
        input: &Vectors,
    ) {
        let width = self.program.dims().width as usize;
        self.begin(crew, Op::Final, self.output(tokens), tokens.len());
        self.each(crew, |i, record| {
            let x = row(x, tokens[i], width);
            norm(record, x, &inner.final_norm, input, i);
        });
        self.end(crew);
    }

    /// The logits of these tokens of the chunk, and what is drawn from them.
    pub(crate) fn sampled(&mut self, crew: &Crew, inner: &Inner, tokens: &[usize], logits: &[i32]) {
        let vocab = self.program.dims().vocab as usize;
        self.begin(crew, Op::Sample, self.output(tokens), tokens.len());
        let (program, sampler) = (self.program.clone(), self.sampler.clone());
        self.each(crew, |i, record| {
            let sample = Sample {
                program: &program,
                sampler: &sampler,
                exp: &inner.exp.narrow,
            };
            sample.record(row(logits, i, vocab), record);
        });
        self.end(crew);
    }

    /// The output that follows from the first of these tokens.
    fn output(&self, tokens: &[usize]) -> u32 {
        let first = tokens.first().map_or(0, |token| *token as u32);
        self.position + first - self.program.row_before(0)
    }

    fn begin(&mut self, crew: &Crew, op: Op, first: u32, count: usize) {
        (self.op, self.first, self.count) = (op, first, count);
        let more = count.saturating_sub(self.records.len());
        self.records
            .extend((0..more).map(|_| Record::new(crew.path)));
        for (row, record) in (first..).zip(&mut self.records[..count]) {
            let leaf = self.program.leaf(op, row);
            record.start(self.hashing, self.kept.contains_key(&leaf));
        }
    }

    /// Records something of every row that is wanted, one task a row.
    fn each(&mut self, crew: &Crew, body: impl Fn(usize, &mut Record) + Sync) {
        let path = crew.path;
        let count = self.count;
        let records = Shared::new(&mut self.records);
        crew.pool.run(count, &|t| {
            // Safety: one task a row.
            let record = unsafe { &mut records.slice(t..t + 1)[0] };
            if record.wanted() {
                path.run(|| body(t, record));
            }
        });
    }

    /// Closes the op's vectors of this chunk.
    fn end(&mut self, crew: &Crew) {
        let op = self.program.number(self.op);
        let count = self.count;
        let mut finished = vec![(None, None); count];
        {
            let (records, finished) = (Shared::new(&mut self.records), Shared::new(&mut finished));
            crew.pool.run(count, &|t| {
                // Safety: one task a row.
                let (record, finished) =
                    unsafe { (&mut records.slice(t..t + 1)[0], finished.slice(t..t + 1)) };
                if record.wanted() {
                    finished[0] = record.finish();
                }
            });
        }
        for (row, (leaf, bytes)) in (self.first..).zip(finished) {
            if let Some(leaf) = leaf {
                self.leaves[op as usize][row as usize] = leaf;
            }
            if let Some(bytes) = bytes {
                self.kept.insert(LeafId { op, row }, bytes);
            }
        }
    }
}

/// Token `t`'s part of a buffer.
fn row<T>(all: &[T], t: usize, len: usize) -> &[T] {
    &all[t * len..(t + 1) * len]
}

/// Prefix sums of squares over blocks, from the norm's epsilon on. 64 bits without a sign.
fn squares(x: &[i32], eps: u64) -> Vec<i64> {
    let mut sum = eps;
    x.chunks(SQUARES_BLOCK as usize)
        .map(|block| {
            sum = ops::norm::sum_of_squares(block, sum);
            sum as i64
        })
        .collect()
}

/// The lowest index of the largest magnitude, and the exponent.
fn peak(values: impl Iterator<Item = i64>, exponent: i32) -> [i64; 2] {
    let mut best = (0, -1);
    for (i, v) in values.enumerate() {
        if v.abs() > best.1 {
            best = (i as i64, v.abs());
        }
    }
    [best.0, exponent.into()]
}

/// A norm before a matrix: sums, peak and what the matrix takes.
fn norm(record: &mut Record, x: &[i32], norm: &Norm, input: &Vectors, t: usize) {
    let sums = squares(x, norm.eps);
    let ss = sums.last().map_or(norm.eps, |ss| *ss as u64);
    let inverse = ops::norm::inverse_root(ss);
    record.i64s(&sums);
    let values = x
        .iter()
        .zip(&norm.gains)
        .map(|(x, g)| ops::norm::element(*x, inverse, *g));
    record.i64s(&peak(values, input.e[t]));
    record.i16s(row(&input.x, t, x.len()));
}
