//! The trace written plainly, straight from the tables of docs/dispute.md: op after op, all rows of one
//! before the next, scalar operations, every element as an `i64`. Slow, and holds everything; the tap on
//! the fast pass must give the same bytes.

use assay_protocol::trace::{BLOCK, IDS_BLOCK, Op, Program, SEARCH_BITS, Segment, Width};
use assay_protocol::{SamplerParams, Temperature};

use super::{TraceError, Traced};
use crate::model::{BASE_MIX, BASE_MLP, BASE_NORM, Inner, Layer, Norm};
use crate::ops::{act, attention, bfp, linear, norm, rope, sampler};
use crate::reference::{embedded, normalized_to, product};

/// A vector's segments.
type Vector = Vec<(Segment, Vec<i64>)>;

/// A token on its way through the layers.
struct Row {
    x: Vec<i32>,
    q: Vec<i16>,
    k: Vec<i16>,
    v: Vec<i16>,
}

/// The bytes of every vector: by op, by row.
pub fn vectors(traced: &Traced<'_>) -> Result<Vec<Vec<Vec<u8>>>, TraceError> {
    let program = traced.program()?;
    let (model, inner) = (traced.model, &*traced.model.inner);
    let tokens = [traced.prompt, traced.output].concat();
    let mut rows: Vec<Row> = tokens[..program.tokens() as usize]
        .iter()
        .map(|token| Row {
            x: embedded(inner, *token),
            q: vec![0; inner.layers[0].q.matrix.view(inner).rows],
            k: vec![0; inner.layers[0].k.matrix.view(inner).rows],
            v: vec![0; inner.layers[0].v.matrix.view(inner).rows],
        })
        .collect();
    let mut ops: Vec<Vec<Vector>> = Vec::new();
    let embed = |row: &Row| vec![(Segment::Residual, wide(&row.x))];
    ops.push(rows.iter().map(embed).collect());
    for (index, layer) in inner.layers.iter().enumerate() {
        let skipped = model.skipped.contains(&index);
        let mut projected = Vec::new();
        for (position, row) in rows.iter_mut().enumerate() {
            if skipped {
                row.v.fill(0);
                projected.push(nothing(&program, Op::Project(index as u32), position));
            } else {
                projected.push(project(inner, layer, position, row));
            }
        }
        let columns = (0..rows.len().div_ceil(BLOCK as usize)).map(|block| columns(&rows, block));
        let columns = columns.collect();
        let mut rest = Vec::new();
        for position in 0..rows.len() {
            if skipped {
                let mut vector = nothing(&program, Op::Layer(index as u32), position);
                if let Some((_, residual)) = vector.last_mut() {
                    *residual = wide(&rows[position].x);
                }
                rest.push(vector);
            } else {
                rest.push(finish(inner, layer, position, &mut rows));
            }
        }
        ops.extend([projected, columns, rest]);
    }
    let before = &rows[program.row_before(0) as usize..];
    let finals = before.iter().map(|row| normed(&row.x, &inner.final_norm));
    let finals: Vec<(Vector, Vec<i16>, i32)> = finals.collect();
    let logits = finals
        .iter()
        .map(|(_, x12, e)| product(inner, &inner.head, 0, x12, *e));
    let samples: Vec<Vector> = match program.drawn() {
        true => logits
            .map(|logits| sample(inner, &program, traced.sampler, &logits))
            .collect(),
        false => Vec::new(),
    };
    ops.push(finals.into_iter().map(|(vector, ..)| vector).collect());
    if program.drawn() {
        ops.push(samples);
    }
    let encode_all = |rows: &Vec<Vector>| rows.iter().map(encode).collect();
    Ok(ops.iter().map(encode_all).collect())
}

fn wide<T: Copy + Into<i64>>(elements: &[T]) -> Vec<i64> {
    elements.iter().map(|e| (*e).into()).collect()
}

fn encode(vector: &Vector) -> Vec<u8> {
    let element = |width: Width, e: &i64| e.to_be_bytes()[8 - width.bytes()..].to_vec();
    let segment = |(segment, elements): &(Segment, Vec<i64>)| -> Vec<u8> {
        let bytes = elements.iter().flat_map(|e| element(segment.width(), e));
        bytes.collect()
    };
    vector.iter().flat_map(segment).collect()
}

/// What a layer that is left out leaves.
fn nothing(program: &Program, op: Op, position: usize) -> Vector {
    let parts = program.parts(program.leaf(op, position as u32));
    let parts = parts.iter();
    parts
        .map(|part| (part.segment, vec![0; part.len as usize]))
        .collect()
}

fn squares(x: &[i32], eps: u64) -> Vec<i64> {
    (1..=x.len().div_ceil(64))
        .map(|blocks| norm::sum_of_squares(&x[..x.len().min(64 * blocks)], eps) as i64)
        .collect()
}

/// The peak of these values, and what a matrix takes of them.
fn quantized(v: &[i64], base: i32) -> (Vec<i64>, Vec<i16>, i32) {
    let max = v.iter().map(|v| v.abs()).max().unwrap_or(0);
    let at = v.iter().position(|v| v.abs() == max).unwrap_or(0);
    let mut x12 = vec![0; v.len()];
    let e = bfp::bfp(v, base, &mut x12);
    (vec![at as i64, e.into()], x12, e)
}

fn normed(x: &[i32], by: &Norm) -> (Vector, Vec<i16>, i32) {
    let (peak, x12, e) = quantized(&norm::norm(x, by.eps, &by.gains), BASE_NORM);
    let vector = vec![
        (Segment::Squares, squares(x, by.eps)),
        (Segment::Peak, peak),
        (Segment::X12, wide(&x12)),
    ];
    (vector, x12, e)
}

fn project(inner: &Inner, layer: &Layer, position: usize, row: &mut Row) -> Vector {
    let dim = inner.manifest.dims.head_dim as usize;
    let (mut vector, x12, e) = normed(&row.x, &layer.attention_norm);
    let [q, k, v] = [&layer.q, &layer.k, &layer.v].map(|by| product(inner, by, 0, &x12, e));
    vector.push((Segment::Qkv, wide(&[&q[..], &k, &v].concat())));
    if let Some(gemma) = &layer.gemma {
        let of = |heads: &[i32], eps| -> Vec<i64> {
            let heads = heads.chunks(dim);
            heads.flat_map(|head| squares(head, eps)).collect()
        };
        let sums = [of(&q, gemma.q_norm.eps), of(&k, gemma.k_norm.eps)].concat();
        vector.push((Segment::HeadSquares, sums));
    }
    let at = inner.rope_at(layer.rope, position);
    let table: Vec<(i16, i16)> = (0..at.frequencies()).map(|i| at.get(i)).collect();
    let turned = |heads: &[i32], by: Option<&Norm>, fraction: i8| -> Vec<i16> {
        let head = |head: &[i32]| {
            let normed = match by {
                Some(by) => normalized_to(head, by, 12),
                None => head.to_vec(),
            };
            rope::rope(&normed, &table, inner.pairing, fraction.into())
        };
        heads.chunks(dim).flat_map(head).collect()
    };
    let f = layer.fractions;
    row.q = turned(&q, layer.gemma.as_ref().map(|gemma| &gemma.q_norm), f.q);
    row.k = turned(&k, layer.gemma.as_ref().map(|gemma| &gemma.k_norm), f.k);
    row.v = v
        .iter()
        .map(|v| attention::quantize_v(*v, f.v.into()))
        .collect();
    vector.push((Segment::Q, wide(&row.q)));
    vector.push((Segment::K, wide(&row.k)));
    vector.push((Segment::V, wide(&row.v)));
    vector
}

fn columns(rows: &[Row], block: usize) -> Vector {
    let mut all = Vec::new();
    for c in 0..rows[0].v.len() {
        for j in 128 * block..128 * (block + 1) {
            all.push(rows.get(j).map_or(0, |row| row.v[c].into()));
        }
    }
    vec![(Segment::Columns, all)]
}

/// From attention to the next layer's residual.
fn finish(inner: &Inner, layer: &Layer, t: usize, rows: &mut [Row]) -> Vector {
    let d = &inner.manifest.dims;
    let [heads, kv_heads, dim] = [d.heads, d.kv_heads, d.head_dim].map(|n| n as usize);
    let from = match layer.window {
        0 => 0,
        window => (t + 1).saturating_sub(window),
    };
    let blocks: Vec<usize> = (from / 128..=t / 128).collect();
    let scale = inner.manifest.attention_scale;
    let csh = i32::from(scale.csh) + i32::from(layer.fractions.q) + i32::from(layer.fractions.k);
    let (mut seen, mut exps, mut sums) = (Vec::new(), Vec::new(), Vec::new());
    // By head, by block.
    let mut mixes = Vec::new();
    for h in 0..heads {
        let g = h / (heads / kv_heads);
        let of = |v: &[i16], h: usize| v[h * dim..(h + 1) * dim].to_vec();
        let q = of(&rows[t].q, h);
        let score = |j: usize| attention::score(&q, &of(&rows[j].k, g));
        let max = (from..=t).map(score).max().unwrap_or(0);
        let at = (from..=t).find(|j| score(*j) == max).unwrap_or(0);
        seen.extend([at as i64, max]);
        let exponential = |j: usize| match (from..=t).contains(&j) {
            true => attention::exponential(
                attention::distance(max - score(j), scale.c, csh),
                &inner.exp.narrow,
            ),
            false => 0,
        };
        let e: Vec<u32> = blocks
            .iter()
            .flat_map(|b| 128 * b..128 * (b + 1))
            .map(exponential)
            .collect();
        exps.extend(wide(&e));
        let prefix = |n: usize| e[..128 * n].iter().map(|e| i64::from(*e)).sum::<i64>();
        sums.extend((1..=blocks.len()).map(prefix));
        let reciprocal = attention::reciprocal(prefix(blocks.len()) as u64);
        let mix = |n: usize| -> Vec<i64> {
            let element = |i: usize| {
                let first = 128 * blocks[0];
                (from..=t.min(first + 128 * n - 1))
                    .map(|j| {
                        let share = attention::share(e[j - first], reciprocal);
                        i64::from(share) * i64::from(rows[j].v[g * dim + i])
                    })
                    .sum()
            };
            (0..dim).map(element).collect()
        };
        mixes.push((1..=blocks.len()).map(mix).collect::<Vec<_>>());
    }
    let by_block = |b: usize| mixes.iter().flat_map(move |head| head[b].clone());
    let mixed: Vec<i64> = by_block(blocks.len() - 1).collect();
    let (mix_peak, mix_x12, e) = quantized(&mixed, BASE_MIX);
    let branch = product(inner, &layer.o, layer.fractions.v.into(), &mix_x12, e);
    let mut vector = vec![
        (Segment::Seen, seen),
        (Segment::Exps, exps),
        (Segment::Sums, sums),
        (
            Segment::Mixes,
            (0..blocks.len()).flat_map(by_block).collect(),
        ),
        (Segment::MixPeak, mix_peak),
        (Segment::MixX12, wide(&mix_x12)),
        (Segment::Branch, wide(&branch)),
    ];
    let fraction = inner.manifest.residual_fraction.into();
    let x = &mut rows[t].x;
    let add = |x: &mut Vec<i32>, branch: &[i32], by: Option<&Norm>| {
        let branch = match by {
            Some(by) => normalized_to(branch, by, fraction),
            None => branch.to_vec(),
        };
        *x = x
            .iter()
            .zip(&branch)
            .map(|(x, y)| linear::add(*x, *y))
            .collect();
    };
    let post = layer.gemma.as_ref().map(|gemma| &gemma.attention_post);
    if let Some(post) = post {
        vector.push((Segment::PostSquares, squares(&branch, post.eps)));
    }
    add(x, &branch, post);
    vector.push((Segment::Middle, wide(x)));
    let (norm, x12, e) = normed(x, &layer.ffn_norm);
    let names = [Segment::FfnSquares, Segment::FfnPeak, Segment::FfnX12];
    vector.extend(names.into_iter().zip(norm.into_iter().map(|(_, e)| e)));
    let [gate, up] = [&layer.gate, &layer.up].map(|by| product(inner, by, 0, &x12, e));
    vector.push((Segment::GateUp, wide(&[&gate[..], &up].concat())));
    let products: Vec<i64> = gate
        .iter()
        .zip(&up)
        .map(|(g, u)| act::product(*g, *u, &inner.act))
        .collect();
    let (act_peak, act_x12, e) = quantized(&products, BASE_MLP);
    let down = product(inner, &layer.down, 0, &act_x12, e);
    vector.push((Segment::ActPeak, act_peak));
    vector.push((Segment::ActX12, wide(&act_x12)));
    vector.push((Segment::Down, wide(&down)));
    let post = layer.gemma.as_ref().map(|gemma| &gemma.ffn_post);
    if let Some(post) = post {
        vector.push((Segment::DownSquares, squares(&down, post.eps)));
    }
    add(x, &down, post);
    vector.push((Segment::Residual, wide(x)));
    vector
}

fn sample(inner: &Inner, program: &Program, params: &SamplerParams, logits: &[i32]) -> Vector {
    let Temperature::Beta(beta) = params.temperature else {
        return Vec::new();
    };
    let at = sampler::argmax(logits);
    let max = i64::from(logits[at as usize]);
    let weights: Vec<i64> = logits
        .iter()
        .map(|logit| sampler::weight(max - i64::from(*logit), beta, &inner.exp.narrow) as i64)
        .collect();
    // Prefix sums over blocks of what each id counts for.
    let prefix = |counts: &dyn Fn(usize) -> i64| -> Vec<i64> {
        (1..=logits.len().div_ceil(IDS_BLOCK as usize))
            .map(|blocks| (0..logits.len().min(256 * blocks)).map(counts).sum())
            .collect()
    };
    let totals = prefix(&|id| weights[id]);
    let total = i128::from(totals[totals.len() - 1]);
    let search = |counts: &dyn Fn(usize) -> i64, suffices: &dyn Fn(i64) -> bool| {
        let (mut all, mut theta) = (Vec::new(), 0i64);
        for b in (0..SEARCH_BITS).rev() {
            let candidate = theta | 1 << b;
            let sums = prefix(&|id| match i64::from(logits[id]) + (1 << 27) >= candidate {
                true => counts(id),
                false => 0,
            });
            if suffices(sums[sums.len() - 1]) {
                theta = candidate;
            }
            all.extend(sums);
            all.push(theta);
        }
        (all, theta - (1 << 27))
    };
    let mut vector = vec![
        (Segment::Logits, wide(logits)),
        (Segment::Top, vec![at.into(), max]),
        (Segment::Weights, weights.clone()),
        (Segment::Totals, totals),
    ];
    let mut least = i64::MIN;
    if program.searches_count() {
        let (all, theta) = search(&|_| 1, &|sum| sum >= params.top_k.into());
        vector.push((Segment::CountSearch, all));
        assert_eq!(theta, sampler::threshold_k(logits, params.top_k).into());
        least = least.max(theta);
    }
    if program.searches_sum() {
        let wanted = i128::from(params.top_p_q16) * total;
        let (all, theta) = search(&|id| weights[id], &|sum| i128::from(sum) * 65_536 >= wanted);
        vector.push((Segment::SumSearch, all));
        least = least.max(theta);
    }
    let kept = prefix(&|id| match i64::from(logits[id]) >= least {
        true => weights[id],
        false => 0,
    });
    vector.push((Segment::Kept, kept));
    vector
}
