//! The forward pass written plainly: one sequence, one token at a time, scalar operations in the order
//! of NUMERICS.md. The law of how `ops` compose; the fast pass must give the same logits, bit for bit.

use assay_protocol::TokenId;

use crate::attend::first_seen;
use crate::model::{BASE_MIX, BASE_MLP, BASE_NORM, F_INNER, Inner, Layer, Linear, Model, Norm};
use crate::ops::{act, arith::rsh, attention, bfp, embed, linear, norm, rope};
use crate::run::{RunError, check_tokens};

/// Keys and values of one layer, position after position.
#[derive(Default)]
struct LayerCache {
    k: Vec<Vec<i16>>,
    v: Vec<Vec<i16>>,
}

/// The logits after each token.
pub fn logits(model: &Model, tokens: &[TokenId]) -> Result<Vec<Vec<i32>>, RunError> {
    check_tokens(model, tokens, tokens.len())?;
    let inner = &*model.inner;
    let mut caches: Vec<LayerCache> = inner.layers.iter().map(|_| LayerCache::default()).collect();
    Ok((0..tokens.len())
        .map(|position| {
            let mut x = embedded(inner, tokens[position]);
            for (index, (layer, cache)) in inner.layers.iter().zip(&mut caches).enumerate() {
                if !model.skipped.contains(&index) {
                    attention(inner, layer, cache, position, &mut x);
                    mlp(inner, layer, &mut x);
                }
            }
            let (x12, e) = normalized(&x, &inner.final_norm);
            product(inner, &inner.head, 0, &x12, e)
        })
        .collect())
}

pub(crate) fn embedded(inner: &Inner, token: TokenId) -> Vec<i32> {
    let matrix = inner.embedding.view(inner);
    let mut w = vec![0; matrix.cols];
    matrix.row(token as usize, &mut w);
    let e = embed::row_scale(matrix.scale(token as usize), inner.embedding_scale_squared);
    w.iter()
        .map(|w| embed::element(*w, e, inner.embedding_shift))
        .collect()
}

/// Norm and bfp before a matrix.
fn normalized(x: &[i32], n: &Norm) -> (Vec<i16>, i32) {
    quantized(&norm::norm(x, n.eps, &n.gains), BASE_NORM)
}

fn quantized(v: &[i64], base: i32) -> (Vec<i16>, i32) {
    let mut x12 = vec![0; v.len()];
    let e = bfp::bfp(v, base, &mut x12);
    (x12, e)
}

/// Norm that no matrix follows.
pub(crate) fn normalized_to(x: &[i32], n: &Norm, fraction: i32) -> Vec<i32> {
    let v = norm::norm(x, n.eps, &n.gains);
    v.iter().map(|v| rsh(*v, n.fs - fraction) as i32).collect()
}

/// A matrix against one vector; `fraction` is what of the input's fraction is not in the linear's shift.
pub(crate) fn product(inner: &Inner, by: &Linear, fraction: i32, x12: &[i16], e: i32) -> Vec<i32> {
    let matrix = by.matrix.view(inner);
    let mut w = vec![0; matrix.cols];
    (0..matrix.rows)
        .map(|row| {
            matrix.row(row, &mut w);
            let acc = linear::dot(x12, &w);
            linear::requantize(acc, matrix.scale(row), by.shift + fraction - e, by.limit)
        })
        .collect()
}

fn add(x: &mut [i32], branch: Vec<i32>, post: Option<&Norm>, fraction: i32) {
    let branch = match post {
        Some(norm) => normalized_to(&branch, norm, fraction),
        None => branch,
    };
    for (x, y) in x.iter_mut().zip(branch) {
        *x = linear::add(*x, y);
    }
}

fn attention(inner: &Inner, layer: &Layer, cache: &mut LayerCache, position: usize, x: &mut [i32]) {
    let dims = &inner.manifest.dims;
    let dim = dims.head_dim as usize;
    let f = layer.fractions;
    let (x12, e) = normalized(x, &layer.attention_norm);
    let [q, k, v] = [&layer.q, &layer.k, &layer.v].map(|by| product(inner, by, 0, &x12, e));
    let row = inner.rope_at(layer.rope, position);
    let table: Vec<(i16, i16)> = (0..row.frequencies()).map(|i| row.get(i)).collect();
    let turned = |heads: Vec<i32>, norm: Option<&Norm>, f: i8| -> Vec<i16> {
        heads
            .chunks_exact(dim)
            .flat_map(|head| {
                let head = match norm {
                    Some(norm) => normalized_to(head, norm, F_INNER),
                    None => head.to_vec(),
                };
                rope::rope(&head, &table, inner.pairing, f.into())
            })
            .collect()
    };
    let q = turned(q, layer.gemma.as_ref().map(|gemma| &gemma.q_norm), f.q);
    cache.k.push(turned(
        k,
        layer.gemma.as_ref().map(|gemma| &gemma.k_norm),
        f.k,
    ));
    cache.v.push(
        v.iter()
            .map(|v| attention::quantize_v(*v, f.v.into()))
            .collect(),
    );

    let seen = first_seen(position, layer.window)..position + 1;
    let scale = inner.manifest.attention_scale;
    let csh = i32::from(scale.csh) + i32::from(f.q) + i32::from(f.k);
    let group = (dims.heads / dims.kv_heads) as usize;
    let mut mixed = Vec::new();
    for (head, q) in q.chunks_exact(dim).enumerate() {
        let at = head / group * dim;
        let scores: Vec<i64> = cache.k[seen.clone()]
            .iter()
            .map(|k| attention::score(q, &k[at..at + dim]))
            .collect();
        let shares = attention::softmax(&scores, scale.c, csh, &inner.exp.narrow);
        for i in 0..dim {
            let values = cache.v[seen.clone()].iter().map(|v| v[at + i]);
            mixed.push(i64::from(attention::mix(&shares, values)));
        }
    }
    let (x12, e) = quantized(&mixed, BASE_MIX);
    let branch = product(inner, &layer.o, f.v.into(), &x12, e);
    let post = layer.gemma.as_ref().map(|gemma| &gemma.attention_post);
    add(x, branch, post, inner.manifest.residual_fraction.into());
}

fn mlp(inner: &Inner, layer: &Layer, x: &mut [i32]) {
    let (x12, e) = normalized(x, &layer.ffn_norm);
    let [gate, up] = [&layer.gate, &layer.up].map(|by| product(inner, by, 0, &x12, e));
    let products: Vec<i64> = gate
        .iter()
        .zip(&up)
        .map(|(g, u)| act::product(*g, *u, &inner.act))
        .collect();
    let (x12, e) = quantized(&products, BASE_MLP);
    let branch = product(inner, &layer.down, 0, &x12, e);
    let post = layer.gemma.as_ref().map(|gemma| &gemma.ffn_post);
    add(x, branch, post, inner.manifest.residual_fraction.into());
}
