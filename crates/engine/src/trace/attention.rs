//! What attention computes on its way from q to the mix, listed for one token. Same kernels as the pass,
//! block by block.

use std::ops::Range;

use assay_protocol::trace::BLOCK;

use super::record::Record;
use crate::attend::{self, Mix, Queries, first_seen, weigh};
use crate::cache::{Cache, PAGE};
use crate::kernels::{self, Path};
use crate::model::{Inner, Layer};
use crate::ops::attention::reciprocal;

/// One token in one layer.
pub(super) struct Attention<'a> {
    pub(super) path: Path,
    pub(super) inner: &'a Inner,
    pub(super) layer: &'a Layer,
    pub(super) cache: &'a Cache,
    /// The layer's number.
    pub(super) number: usize,
    pub(super) position: usize,
    /// Blocks of positions that the token sees.
    pub(super) blocks: Range<u32>,
}

impl Attention<'_> {
    /// `seen`, `exps`, `sums` and `mixes`, from the token's q, head after head.
    pub(super) fn record(&self, q: &[i16], record: &mut Record) {
        let dims = &self.inner.manifest.dims;
        let (dim, kv_heads) = (dims.head_dim as usize, dims.kv_heads as usize);
        let block = BLOCK as usize;
        let (first_block, blocks) = (self.blocks.start as usize, self.blocks.len());
        let start = first_block * block;
        let scale = self.inner.manifest.attention_scale;
        let fractions = self.layer.fractions;
        let mut seen = Vec::with_capacity(q.len() / dim * 2);
        let mut exps = vec![0u16; q.len() / dim * blocks * block];
        let mut sums = Vec::with_capacity(q.len() / dim * blocks);
        let mut mixes = vec![0i32; blocks * q.len()];
        let mut e = vec![0u32; blocks * block];
        let mut p = vec![0i16; blocks * block];
        let mut mix = vec![0i32; dim];
        let group = q.len() / kv_heads;
        for (kv_head, q) in q.chunks_exact(group).enumerate() {
            let heads = group / dim;
            let queries = Queries {
                cache: self.cache,
                layer: self.number,
                kv_head,
                heads,
                head_dim: dim,
                first: self.position,
                count: 1,
                window: self.layer.window,
                c: scale.c,
                csh: i32::from(scale.csh) + i32::from(fractions.q) + i32::from(fractions.k),
                exp: &self.inner.exp,
            };
            let from = first_seen(self.position, self.layer.window);
            let lead = from - start;
            weigh(self.path, queries, q, |within, scores, weights, z| {
                let head = kv_head * heads + within;
                let max = scores.iter().copied().max().unwrap_or(0);
                let at = scores.iter().position(|s| *s == max).unwrap_or(0);
                seen.extend([(from + at) as i64, max]);
                e[lead..lead + weights.len()].copy_from_slice(weights);
                let exps = &mut exps[head * blocks * block..][..blocks * block];
                for (to, e) in exps.iter_mut().zip(&e) {
                    *to = *e as u16;
                }
                let mut sum = 0;
                for e in e.chunks_exact(block) {
                    sum += e.iter().map(|e| i64::from(*e)).sum::<i64>();
                    sums.push(sum);
                }
                // One that has the whole share of 2^15 alone is mixed as it is: 16 bits do not hold it.
                let alone = (z == 1 << 15).then_some(from + at);
                if alone.is_none() {
                    kernels::shares(self.path, &e, reciprocal(z), &mut p);
                }
                for b in 0..blocks {
                    let positions = start + b * block..start + (b + 1) * block;
                    match alone {
                        Some(alone) if positions.contains(&alone) => {
                            for (i, mix) in mix.iter_mut().enumerate() {
                                let v = self.cache.value(self.number, kv_head, alone, i);
                                *mix = i32::from(v) << 15;
                            }
                        }
                        Some(_) => mix.fill(0),
                        None => {
                            let end = positions.end.min(self.position + 1);
                            let task = Mix {
                                start: positions.start / PAGE,
                                positions: end - positions.start,
                                p: &p[b * block..(b + 1) * block],
                                width: block,
                            };
                            attend::mix(self.path, &queries, task, &mut mix);
                        }
                    }
                    let width = kv_heads * group;
                    let (before, from) = mixes.split_at_mut(b * width);
                    let to = &mut from[head * dim..(head + 1) * dim];
                    to.copy_from_slice(&mix);
                    if b > 0 {
                        let before = &before[(b - 1) * width + head * dim..][..dim];
                        for (to, before) in to.iter_mut().zip(before) {
                            *to += before;
                        }
                    }
                }
            });
        }
        record.i64s(&seen);
        record.u16s(&exps);
        record.i64s(&sums);
        record.i32s(&mixes);
    }
}
