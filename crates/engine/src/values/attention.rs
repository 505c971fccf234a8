//! Attention of all tokens among each other: RoPE, scores of every pair, shares and the mix.

use std::ops::Range;

use super::parts::each_part;
use super::{AttentionValues, Constants, LayerConstants};
use crate::crew::Crew;
use crate::ops::{attention, rope};

/// Elements of a head whose products fit an i32 together: 128·4095² < 2^31.
const PIECE: usize = 128;

/// One layer's attention over so many tokens.
pub(super) struct Attention<'a> {
    pub(super) constants: &'a Constants<'a>,
    pub(super) layer: &'a LayerConstants<'a>,
    pub(super) tokens: usize,
}

impl Attention<'_> {
    /// All heads of q or k, turned to their positions.
    pub(super) fn turned(&self, crew: &Crew, x: &[i32], fraction: i8) -> Vec<i16> {
        let (tokens, path) = (self.tokens, crew.path);
        let dim = self.constants.dims.head_dim as usize;
        let frequencies = dim / 2;
        let table: Vec<(i16, i16)> = (0..frequencies * tokens)
            .map(|at| {
                let (frequency, position) = (at / tokens, at % tokens);
                self.constants.rope(self.layer.rope, position, frequency)
            })
            .collect();
        let mut out = vec![0; x.len()];
        each_part(&crew.pool, &mut out, tokens, |row, out| {
            let (head, i) = (row / dim, row % dim);
            let pairs = (0..frequencies).map(|f| self.constants.pairing.indices(f, frequencies));
            let mut pairs = pairs.enumerate();
            let (frequency, (a, b)) = pairs
                .find(|(_, (a, b))| i == *a || i == *b)
                .expect("every element is turned");
            let of = |i: usize| x[(head * dim + i) * tokens..][..tokens].iter();
            let table = &table[frequency * tokens..];
            let both = of(a).zip(of(b)).zip(table);
            let turned = both.map(|((a, b), at)| rope::turn(*a, *b, *at));
            path.run(|| {
                for (out, (first, second)) in out.iter_mut().zip(turned) {
                    let turned = if i == a { first } else { second };
                    *out = rope::quantize(turned, fraction.into());
                }
            });
        });
        out
    }

    /// v as the cache holds it.
    pub(super) fn cached(&self, crew: &Crew, v: &[i32]) -> Vec<i16> {
        let (tokens, path) = (self.tokens, crew.path);
        let fraction = self.layer.fractions.v.into();
        let mut out = vec![0; v.len()];
        each_part(&crew.pool, &mut out, tokens, |row, out| {
            let v = v[row * tokens..][..tokens].iter();
            path.run(|| {
                for (out, v) in out.iter_mut().zip(v) {
                    *out = attention::quantize_v(*v, fraction);
                }
            });
        });
        out
    }

    /// The tokens that see position j.
    fn seeing(&self, j: usize) -> Range<usize> {
        match self.layer.window {
            0 => j..self.tokens,
            window => j..self.tokens.min(j + window),
        }
    }

    /// The key head of a query head.
    fn key_head(&self, head: usize) -> usize {
        let dims = &self.constants.dims;
        head / (dims.heads / dims.kv_heads) as usize
    }

    /// q·k of every pair.
    fn scores(&self, crew: &Crew, q: &[i16], k: &[i16]) -> Vec<i64> {
        let (tokens, path) = (self.tokens, crew.path);
        let dims = &self.constants.dims;
        let dim = dims.head_dim as usize;
        let mut scores = vec![0; dims.heads as usize * tokens * tokens];
        each_part(&crew.pool, &mut scores, tokens, |row, scores| {
            let (head, j) = (row / tokens, row % tokens);
            let at = self.key_head(head);
            path.run(|| {
                let mut piece = vec![0i32; tokens];
                for start in (0..dim).step_by(PIECE) {
                    piece.fill(0);
                    for i in start..dim.min(start + PIECE) {
                        let k = i32::from(k[(at * dim + i) * tokens + j]);
                        let q = &q[(head * dim + i) * tokens..];
                        for (piece, q) in piece.iter_mut().zip(q) {
                            *piece += k * i32::from(*q);
                        }
                    }
                    for (score, piece) in scores.iter_mut().zip(&piece) {
                        *score += i64::from(*piece);
                    }
                }
            });
        });
        scores
    }

    /// Everything up to the shares.
    pub(super) fn shares(&self, crew: &Crew, q: &[i16], k: &[i16]) -> AttentionValues {
        let (tokens, pool) = (self.tokens, &crew.pool);
        let square = tokens * tokens;
        let heads = self.constants.dims.heads as usize;
        let mut below = self.scores(crew, q, k);
        let mut top = vec![(i64::MIN, 0u32); heads * tokens];
        each_part(pool, &mut top, tokens, |head, top| {
            for j in 0..tokens {
                let seeing = self.seeing(j);
                let scores = &below[head * square + j * tokens..][..tokens];
                for (top, score) in top[seeing.clone()].iter_mut().zip(&scores[seeing]) {
                    // The lowest of equals.
                    if *score > top.0 {
                        *top = (*score, j as u32);
                    }
                }
            }
        });
        let (max, max_at): (Vec<i64>, Vec<u32>) = top.into_iter().unzip();
        each_part(pool, &mut below, tokens, |row, below| {
            let max = &max[row / tokens * tokens..];
            for (below, max) in below.iter_mut().zip(max) {
                *below = max - *below;
            }
        });
        let mut e = vec![0; below.len()];
        each_part(pool, &mut e, tokens, |row, e| {
            let (seeing, below) = (self.seeing(row % tokens), &below[row * tokens..][..tokens]);
            for (e, below) in e[seeing.clone()].iter_mut().zip(&below[seeing]) {
                let distance = attention::distance(*below, self.constants.c, self.layer.csh);
                // At most 2^15: the loader has checked the table.
                *e = attention::exponential(distance, self.constants.exp) as u16;
            }
        });
        let mut sum = vec![0; max.len()];
        each_part(pool, &mut sum, tokens, |head, sum| {
            for e in e[head * square..][..square].chunks_exact(tokens) {
                for (sum, e) in sum.iter_mut().zip(e) {
                    *sum += u64::from(*e);
                }
            }
        });
        let reciprocal: Vec<u64> = sum.iter().map(|z| attention::reciprocal(*z)).collect();
        let mut p = vec![0; e.len()];
        each_part(pool, &mut p, tokens, |row, p| {
            let reciprocal = &reciprocal[row / tokens * tokens..];
            for ((p, e), reciprocal) in p.iter_mut().zip(&e[row * tokens..]).zip(reciprocal) {
                *p = attention::share((*e).into(), *reciprocal) as u16;
            }
        });
        AttentionValues {
            max_at,
            max,
            sum,
            below,
            e,
            p,
        }
    }

    /// `Σ p·v`, which the context's limit keeps within an i32.
    pub(super) fn mix(&self, crew: &Crew, p: &[u16], v: &[i16]) -> Vec<i32> {
        let (tokens, path) = (self.tokens, crew.path);
        let dims = &self.constants.dims;
        let dim = dims.head_dim as usize;
        let mut mix = vec![0; dims.heads as usize * dim * tokens];
        each_part(&crew.pool, &mut mix, tokens, |row, mix| {
            let (head, i) = (row / dim, row % dim);
            let v = &v[(self.key_head(head) * dim + i) * tokens..][..tokens];
            path.run(|| {
                for (j, v) in v.iter().enumerate() {
                    let seeing = self.seeing(j);
                    let p = &p[(head * tokens + j) * tokens..][seeing.clone()];
                    for (mix, p) in mix[seeing].iter_mut().zip(p) {
                        *mix += i32::from(*p) * i32::from(*v);
                    }
                }
            });
        });
        mix
    }
}
