//! The forward pass over a batch of tokens of any sequences and positions, and the logits of chosen
//! ones. Threads share out rows and tokens; the bits do not depend on how, nor on what else is in the
//! batch. `reference` is the same pass written plainly.

use std::ops::Range;

use assay_protocol::TokenId;
use assay_protocol::manifest::Fractions;

use crate::attend::{Queries, attend};
use crate::cache::{Cache, Shape};
use crate::calibrate;
use crate::clamps::{ClampCounts, Clamps};
use crate::crew::{Crew, Product};
use crate::kernels::{Path, Vectors};
use crate::model::{Inner, Layer, Model, Norm};
use crate::ops;
use crate::pool::{Pool, Threads};
use crate::shared::Shared;
use crate::tokenwise;
use crate::trace::tap::Tap;

/// Most tokens of a sequence that attention takes together: keys and values are read once for all.
const TILE: usize = 8;
/// Most logits held at once.
const LOGITS_MAX: usize = 1 << 23;

/// A model with threads and memory to run it.
pub(crate) struct Runner {
    model: Model,
    crew: Crew,
    work: Work,
    clamps: Clamps,
    /// Records a trace of the one sequence that is run.
    tap: Option<Box<Tap>>,
}

/// Consecutive tokens of one sequence, to be appended to its cache.
pub(crate) struct Span<'a> {
    pub(crate) cache: &'a mut Cache,
    pub(crate) tokens: &'a [TokenId],
}

/// One token of the batch.
#[derive(Clone, Copy)]
struct Row {
    span: usize,
    position: usize,
    token: TokenId,
}

/// Buffers, token after token.
#[derive(Default)]
struct Work {
    rows: Vec<Row>,
    x: Vec<i32>,
    input: Vectors,
    /// q ‖ k ‖ v, later gate ‖ up.
    wide: Vec<i32>,
    q: Vec<i16>,
    k: Vec<i16>,
    v: Vec<i16>,
    mixed: Vec<i32>,
    branch: Vec<i32>,
    logits: Vec<i32>,
}

/// Runs of neighbouring tokens of one sequence: what attention takes together.
fn tiles(rows: &[Row]) -> Vec<Range<usize>> {
    let mut tiles: Vec<Range<usize>> = Vec::new();
    for (index, row) in rows.iter().enumerate() {
        match tiles.last_mut() {
            Some(tile) if rows[tile.start].span == row.span && tile.len() < TILE => tile.end += 1,
            _ => tiles.push(index..index + 1),
        }
    }
    tiles
}

impl Runner {
    pub(crate) fn new(model: &Model, threads: impl Into<Threads>) -> Runner {
        Runner {
            model: model.clone(),
            crew: Crew {
                pool: Pool::new(threads),
                path: Path::detect(),
            },
            work: Work::default(),
            clamps: Clamps::default(),
            tap: None,
        }
    }

    pub(crate) fn model(&self) -> &Model {
        &self.model
    }

    /// How many results stood at their limits since the runner was made.
    pub(crate) fn clamps(&self) -> ClampCounts {
        self.clamps.counts()
    }

    /// An empty cache for a sequence of this model.
    pub(crate) fn cache(&self, capacity: usize) -> Cache {
        let dims = &self.model.manifest().dims;
        let shape = Shape {
            layers: dims.layers as usize,
            kv_heads: dims.kv_heads as usize,
            head_dim: dims.head_dim as usize,
        };
        Cache::new(shape, capacity)
    }

    /// Runs all spans' tokens through all layers and appends them to their caches. Tokens are in the
    /// vocabulary and positions within cache and context: the callers' check.
    pub(crate) fn forward(&mut self, spans: &mut [Span<'_>]) {
        let fractions: Vec<Fractions> = self
            .model
            .inner
            .layers
            .iter()
            .map(|layer| layer.fractions)
            .collect();
        self.pass(spans, &mut |index, _| fractions[index]);
    }

    /// As `forward`, but each layer's fractions are chosen from what its q, k and v turn out to be.
    pub(crate) fn calibrate(&mut self, spans: &mut [Span<'_>]) -> Vec<Fractions> {
        let mut chosen = Vec::new();
        self.pass(spans, &mut |_, maxima| {
            let fractions = maxima().fractions();
            chosen.push(fractions);
            fractions
        });
        chosen
    }

    fn pass(
        &mut self,
        spans: &mut [Span<'_>],
        fractions: &mut dyn FnMut(usize, &dyn Fn() -> calibrate::Maxima) -> Fractions,
    ) {
        let model = self.model.clone();
        let inner = &*model.inner;
        self.begin(inner, spans);
        let layers = self
            .tap
            .as_ref()
            .map_or(inner.layers.len(), |tap| tap.layers());
        for (index, layer) in inner.layers.iter().enumerate().take(layers) {
            if let Some(tap) = &mut self.tap {
                tap.enter(index);
            }
            if !model.skipped.contains(&index) {
                self.project(inner, layer);
                let chosen = {
                    let maxima = || self.maxima(inner, layer);
                    fractions(index, &maxima)
                };
                self.attention(inner, index, layer, chosen, spans);
                self.mlp(inner, layer);
            } else if let Some(tap) = &mut self.tap {
                tap.skipped(&self.crew, &self.work.x);
            }
        }
        for span in spans {
            span.cache.len += span.tokens.len();
        }
    }

    /// Lists the batch's tokens and embeds them.
    fn begin(&mut self, inner: &Inner, spans: &[Span<'_>]) {
        let rows = spans.iter().enumerate().flat_map(|(index, span)| {
            let positions = span.cache.len..;
            positions
                .zip(span.tokens)
                .map(move |(position, token)| Row {
                    span: index,
                    position,
                    token: *token,
                })
        });
        let Runner {
            work,
            crew,
            clamps,
            tap,
            ..
        } = self;
        work.rows.clear();
        work.rows.extend(rows);
        let width = inner.manifest.dims.width as usize;
        work.x.resize(work.rows.len() * width, 0);
        let (rows, x) = (&work.rows, Shared::new(&mut work.x));
        let embedding = inner.embedding.view(inner);
        crew.pool.run(rows.len(), &|t| {
            // Safety: one task a token.
            let x = unsafe { x.slice(t * width..(t + 1) * width) };
            let token = rows[t].token as usize;
            let e = ops::embed::row_scale(embedding.scale(token), inner.embedding_scale_squared);
            let mut w = vec![0; width];
            embedding.row(token, &mut w);
            for (x, w) in x.iter_mut().zip(w) {
                *x = ops::embed::element(w, e, inner.embedding_shift);
            }
            clamps.residual.add(
                x.iter()
                    .map(|x| u64::from(x.abs() == ops::RESIDUAL_MAX))
                    .sum(),
            );
        });
        if let (Some(tap), Some(first)) = (tap, work.rows.first()) {
            tap.embedded(crew, first.position, &work.x);
        }
    }

    /// Norm, then q ‖ k ‖ v into `wide`.
    fn project(&mut self, inner: &Inner, layer: &Layer) {
        self.norm_input(inner, &layer.attention_norm);
        let dims = &inner.manifest.dims;
        let (q, kv) = (
            (dims.heads * dims.head_dim) as usize,
            (dims.kv_heads * dims.head_dim) as usize,
        );
        let stride = q + 2 * kv;
        let Runner {
            work,
            crew,
            clamps,
            tap,
            ..
        } = self;
        let path = crew.path;
        work.wide.resize(work.rows.len() * stride, 0);
        let products = [
            Product::new(&layer.q, 0),
            Product::new(&layer.k, q),
            Product::new(&layer.v, q + kv),
        ];
        clamps
            .qkv
            .add(crew.multiply(inner, &products, &work.input, &mut work.wide, stride));
        if let Some(tap) = tap {
            tap.projected(crew, layer, &work.x, &work.input, &work.wide);
        }
        let Some(gemma) = &layer.gemma else { return };
        let (wide, dim) = (Shared::new(&mut work.wide), dims.head_dim as usize);
        crew.pool.run(work.rows.len(), &|t| {
            // Safety: one task a token.
            let wide = unsafe { wide.slice(t * stride..(t + 1) * stride) };
            let (heads, rest) = wide.split_at_mut(q);
            for head in heads.chunks_exact_mut(dim) {
                path.run(|| tokenwise::normalize_head(head, &gemma.q_norm));
            }
            for head in rest[..kv].chunks_exact_mut(dim) {
                path.run(|| tokenwise::normalize_head(head, &gemma.k_norm));
            }
        });
    }

    /// The largest q and k after RoPE and v that `wide` holds.
    fn maxima(&self, inner: &Inner, layer: &Layer) -> calibrate::Maxima {
        let dims = &inner.manifest.dims;
        let dim = dims.head_dim as usize;
        let (q, kv) = (dims.heads as usize * dim, dims.kv_heads as usize * dim);
        let mut maxima = calibrate::Maxima::default();
        for (row, wide) in self
            .work
            .rows
            .iter()
            .zip(self.work.wide.chunks_exact(q + 2 * kv))
        {
            let at = inner.rope_at(layer.rope, row.position);
            let turned = |heads: &[i32]| {
                let max = |head| tokenwise::rope_max(head, at, inner.pairing);
                heads.chunks_exact(dim).map(max).max().unwrap_or(0)
            };
            maxima.q = maxima.q.max(turned(&wide[..q]));
            maxima.k = maxima.k.max(turned(&wide[q..q + kv]));
            let v = wide[q + kv..].iter().map(|v| i64::from(v.abs())).max();
            maxima.v = maxima.v.max(v.unwrap_or(0));
        }
        maxima
    }

    /// RoPE, cache, attention, output matrix, residual.
    fn attention(
        &mut self,
        inner: &Inner,
        index: usize,
        layer: &Layer,
        fractions: Fractions,
        spans: &mut [Span<'_>],
    ) {
        let dims = &inner.manifest.dims;
        let dim = dims.head_dim as usize;
        let kv_heads = dims.kv_heads as usize;
        let (q_len, kv_len) = (dims.heads as usize * dim, kv_heads * dim);
        let Runner {
            work,
            crew,
            clamps,
            tap,
            ..
        } = self;
        let path = crew.path;
        let count = work.rows.len();
        work.q.resize(count * q_len, 0);
        work.k.resize(count * kv_len, 0);
        work.v.resize(count * kv_len, 0);
        work.mixed.resize(count * q_len, 0);
        let rows = &work.rows;
        {
            let stride = q_len + 2 * kv_len;
            let (wide, q, k, v) = (
                &work.wide,
                Shared::new(&mut work.q),
                Shared::new(&mut work.k),
                Shared::new(&mut work.v),
            );
            crew.pool.run(count, &|t| {
                // Safety: one task a token.
                let (q, k, v) = unsafe {
                    let kv = t * kv_len..(t + 1) * kv_len;
                    (
                        q.slice(t * q_len..(t + 1) * q_len),
                        k.slice(kv.clone()),
                        v.slice(kv),
                    )
                };
                let wide = &wide[t * stride..][..stride];
                let at = inner.rope_at(layer.rope, rows[t].position);
                let turn = |heads: &[i32], f: i8, out: &mut [i16]| {
                    let heads = heads.chunks_exact(dim).zip(out.chunks_exact_mut(dim));
                    heads
                        .map(|(h, out)| {
                            path.run(|| tokenwise::rope(h, at, inner.pairing, f.into(), out))
                        })
                        .sum()
                };
                clamps.qk.add(turn(&wide[..q_len], fractions.q, q));
                clamps
                    .qk
                    .add(turn(&wide[q_len..q_len + kv_len], fractions.k, k));
                clamps.v.add(tokenwise::quantize_v(
                    &wide[q_len + kv_len..],
                    fractions.v.into(),
                    v,
                ));
            });
        }
        if let Some(tap) = tap {
            tap.turned(crew, &work.q, &work.k, &work.v);
        }
        let stored = work.k.chunks_exact(kv_len).zip(work.v.chunks_exact(kv_len));
        for (row, (k, v)) in rows.iter().zip(stored) {
            spans[row.span].cache.store(index, row.position, k, v);
        }
        {
            let (q, mixed) = (&work.q, Shared::new(&mut work.mixed));
            let caches: Vec<&Cache> = spans.iter().map(|span| &*span.cache).collect();
            let scale = inner.manifest.attention_scale;
            let csh = i32::from(scale.csh) + i32::from(fractions.q) + i32::from(fractions.k);
            let group = q_len / kv_heads;
            let tiles = tiles(rows);
            // The latest tokens see most: first, so that no thread is left alone with one.
            crew.pool.run(tiles.len() * kv_heads, &|task| {
                let tile = &tiles[tiles.len() - 1 - task / kv_heads];
                let kv_head = task % kv_heads;
                let at = |t: usize| {
                    let at = (tile.start + t) * q_len + kv_head * group;
                    at..at + group
                };
                let first = rows[tile.start];
                let queries = Queries {
                    cache: caches[first.span],
                    layer: index,
                    kv_head,
                    heads: group / dim,
                    head_dim: dim,
                    first: first.position,
                    count: tile.len(),
                    window: layer.window,
                    c: scale.c,
                    csh,
                    exp: &inner.exp,
                };
                // Safety: one task a tile of tokens and key head.
                let put = |t, mix: &[i32]| unsafe { mixed.slice(at(t)) }.copy_from_slice(mix);
                attend(path, queries, |t| &q[at(t)], put);
            });
        }
        let mixed = &work.mixed;
        crew.fill(&mut work.input, count, q_len, &|t, wide, x| {
            path.run(|| tokenwise::mixed(&mixed[t * q_len..(t + 1) * q_len], wide, x))
        });
        if let (Some(tap), Some(span)) = (tap, spans.first()) {
            let (q, cache) = (&work.q, &*span.cache);
            tap.attended(crew, inner, layer, cache, (q, mixed), &work.input);
        }
        let o = Product {
            linear: &layer.o,
            fraction: fractions.v.into(),
            offset: 0,
        };
        self.branch(
            inner,
            o,
            layer.gemma.as_ref().map(|gemma| &gemma.attention_post),
        );
    }

    /// Norm, gate and up, product, down matrix, residual.
    fn mlp(&mut self, inner: &Inner, layer: &Layer) {
        self.norm_input(inner, &layer.ffn_norm);
        let Runner {
            work,
            crew,
            clamps,
            tap,
            ..
        } = self;
        let path = crew.path;
        let (count, ffn) = (work.rows.len(), inner.manifest.dims.ffn as usize);
        work.wide.resize(count * 2 * ffn, 0);
        let products = [Product::new(&layer.gate, 0), Product::new(&layer.up, ffn)];
        clamps
            .mlp
            .add(crew.multiply(inner, &products, &work.input, &mut work.wide, 2 * ffn));
        if let Some(tap) = tap {
            tap.gated(crew, layer, &work.x, &work.input, &work.wide);
        }
        let outputs = &work.wide;
        crew.fill(&mut work.input, count, ffn, &|t, wide, x| {
            let (gate, up) = outputs[t * 2 * ffn..(t + 1) * 2 * ffn].split_at(ffn);
            path.run(|| tokenwise::product(gate, up, &inner.act, wide, x))
        });
        if let Some(tap) = tap {
            tap.activated(crew, inner, outputs, &work.input);
        }
        let down = Product::new(&layer.down, 0);
        self.branch(
            inner,
            down,
            layer.gemma.as_ref().map(|gemma| &gemma.ffn_post),
        );
        if let Some(tap) = &mut self.tap {
            tap.leave(&self.crew);
        }
    }

    /// All tokens' residuals, normalized, as the next matrix's input.
    fn norm_input(&mut self, inner: &Inner, norm: &Norm) {
        let Runner { work, crew, .. } = self;
        let path = crew.path;
        let (x, width) = (&work.x, inner.manifest.dims.width as usize);
        crew.fill(&mut work.input, work.rows.len(), width, &|t, wide, out| {
            path.run(|| tokenwise::normalize(&x[t * width..(t + 1) * width], norm, wide, out))
        });
    }

    /// A matrix's result added to the residual.
    fn branch(&mut self, inner: &Inner, product: Product<'_>, post: Option<&Norm>) {
        let Runner {
            work,
            crew,
            clamps,
            tap,
            ..
        } = self;
        let path = crew.path;
        let width = inner.manifest.dims.width as usize;
        work.branch.resize(work.rows.len() * width, 0);
        let products = [product];
        clamps
            .branch
            .add(crew.multiply(inner, &products, &work.input, &mut work.branch, width));
        if let Some(tap) = tap.as_mut() {
            tap.branched(crew, &work.branch, post);
        }
        let (x, branch) = (Shared::new(&mut work.x), Shared::new(&mut work.branch));
        let fraction = inner.manifest.residual_fraction.into();
        crew.pool.run(work.rows.len(), &|t| {
            let range = t * width..(t + 1) * width;
            // Safety: one task a token.
            let (x, branch) = unsafe { (x.slice(range.clone()), branch.slice(range)) };
            clamps
                .residual
                .add(path.run(|| tokenwise::add(x, branch, post, fraction)));
        });
        if let Some(tap) = tap {
            tap.added(crew, &work.x);
        }
    }

    /// Gives `each` the logits of these tokens of the last batch, by their index in it (spans in order),
    /// and collects what it makes of them, in the order of `tokens`.
    pub(crate) fn logits<R: Send + Default>(
        &mut self,
        tokens: &[usize],
        each: &(dyn Fn(usize, &[i32]) -> R + Sync),
    ) -> Vec<R> {
        let model = self.model.clone();
        let inner = &*model.inner;
        let vocab = inner.manifest.dims.vocab as usize;
        let mut results: Vec<R> = tokens.iter().map(|_| R::default()).collect();
        let at_once = (LOGITS_MAX / vocab).clamp(1, 64);
        for (tokens, results) in tokens.chunks(at_once).zip(results.chunks_mut(at_once)) {
            self.head_input(inner, tokens);
            self.head(inner);
            let (logits, results) = (&self.work.logits, Shared::new(results));
            self.crew.pool.run(tokens.len(), &|i| {
                // Safety: one task a token.
                let result = unsafe { results.slice(i..i + 1) };
                result[0] = each(tokens[i], &logits[i * vocab..(i + 1) * vocab]);
            });
        }
        results
    }

    /// The residuals of these tokens of the last batch, normalized, as the head's input.
    fn head_input(&mut self, inner: &Inner, tokens: &[usize]) {
        let width = inner.manifest.dims.width as usize;
        let Runner { work, crew, .. } = self;
        let (path, x) = (crew.path, &work.x);
        crew.fill(&mut work.input, tokens.len(), width, &|i, wide, out| {
            let x = &x[tokens[i] * width..][..width];
            path.run(|| tokenwise::normalize(x, &inner.final_norm, wide, out))
        });
    }

    /// The logits of the head's inputs.
    fn head(&mut self, inner: &Inner) {
        let vocab = inner.manifest.dims.vocab as usize;
        let Runner {
            work, crew, clamps, ..
        } = self;
        work.logits.resize(work.input.count * vocab, 0);
        let head = [Product::new(&inner.head, 0)];
        clamps
            .logits
            .add(crew.multiply(inner, &head, &work.input, &mut work.logits, vocab));
    }

    /// From now on records a trace: batches are chunks of one sequence, from its start on.
    pub(crate) fn set_tap(&mut self, tap: Tap) {
        self.tap = Some(Box::new(tap));
    }

    /// What was recorded.
    ///
    /// # Panics
    /// Where no tap was set.
    pub(crate) fn take_tap(&mut self) -> Tap {
        *self.tap.take().expect("a tap was set")
    }

    /// Records what follows after the layers from those tokens of the last batch that an output follows
    /// from.
    pub(crate) fn tap_outputs(&mut self) {
        let model = self.model.clone();
        let inner = &*model.inner;
        let Some(mut tap) = self.tap.take() else {
            return;
        };
        let vocab = inner.manifest.dims.vocab as usize;
        let at_once = (LOGITS_MAX / vocab).clamp(1, 64);
        for tokens in tap.outputs(self.work.rows.len()).chunks(at_once) {
            self.head_input(inner, tokens);
            let (work, crew) = (&self.work, &self.crew);
            tap.normed(crew, inner, tokens, &work.x, &work.input);
            if tap.samples(tokens) {
                self.head(inner);
                tap.sampled(&self.crew, inner, tokens, &self.work.logits);
            }
        }
        self.tap = Some(tap);
    }
}
