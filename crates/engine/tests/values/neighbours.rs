//! The values that no trace has: by `ops` alone, from those next to them.

use std::sync::Arc;

use assay_engine::ops::{act, arith, attention, bfp, linear, norm, rope};
use assay_engine::values::{
    AttentionValues, BASE_MIX, BASE_MLP, BASE_NORM, BfpValues, Constants, FixedValues,
    LayerConstants, LayerValues, LinearConstants, LinearValues, NormConstants, NormValues, PANEL,
    Pass,
};

use crate::text;
use crate::tiny::Tiny;

#[test]
fn what_no_trace_has_follows_by_the_operations() {
    for tiny in [Tiny::llama(9), Tiny::gemma3(10)] {
        let (model, n) = (tiny.model(), 80);
        let mut pass = Pass::new(&model, &text(n, 288), 2).unwrap();
        let constants = Constants::new(&model);
        for layer in 0..constants.layers.len() {
            let values = pass.next_layer().unwrap().unwrap();
            check_between(&constants, layer, &values, n);
        }
    }
}

/// What of the values no trace has, by `ops` alone.
fn check_between(constants: &Constants<'_>, layer: usize, values: &LayerValues, n: usize) {
    let by = &constants.layers[layer];
    let dim = constants.dims.head_dim as usize;
    check_norm(&values.attention_norm, &by.attention_norm, n);
    check_norm(&values.ffn_norm, &by.ffn_norm, n);
    let (norm, ffn) = (&values.attention_norm.y, &values.ffn_norm.y);
    for (linear, by, input) in [
        (&values.q, &by.q, norm),
        (&values.k, &by.k, norm),
        (&values.v, &by.v, norm),
        (&values.o, &by.o, &values.mix_bfp),
        (&values.gate, &by.gate, ffn),
        (&values.up, &by.up, ffn),
        (&values.down, &by.down, &values.product_bfp),
    ] {
        check_linear(constants, linear, by, input, n);
    }
    let wide: Vec<i64> = values.mix.iter().map(|mix| (*mix).into()).collect();
    check_bfp(&values.mix_bfp, &wide, BASE_MIX, n);
    check_bfp(&values.product_bfp, &values.product, BASE_MLP, n);
    let gated = values.gate.z.iter().zip(values.up.z.iter());
    let products: Vec<i64> = gated
        .map(|(g, u)| act::product(*g, *u, constants.act))
        .collect();
    assert!(values.product == products);
    if let (Some([q, k]), Some(gemma)) = (&values.head_norms, &by.gemma) {
        check_fixed(q, &values.q, &gemma.q_norm, n);
        check_fixed(k, &values.k, &gemma.k_norm, n);
        let posts = [&values.attention_post, &values.ffn_post];
        let branches = [
            (&values.o, &gemma.attention_post),
            (&values.down, &gemma.ffn_post),
        ];
        for (post, (branch, by)) in posts.into_iter().zip(branches) {
            check_fixed(post.as_ref().unwrap(), branch, by, n);
        }
    }
    // RoPE, by the constants' own table.
    let heads = match &values.head_norms {
        Some([q, _]) => &q.y,
        None => &values.q.z,
    };
    for t in 0..n {
        let table: Vec<(i16, i16)> = (0..dim / 2)
            .map(|i| constants.rope(by.rope, t, i))
            .collect();
        let head: Vec<i32> = (0..dim).map(|i| heads[i * n + t]).collect();
        let turned = rope::rope(&head, &table, constants.pairing, by.fractions.q.into());
        let found = values.q13.chunks_exact(n).map(|row| row[t]);
        assert!(found.take(dim).eq(turned));
    }
    check_pairs(constants, by, values, n);
}

fn check_norm(values: &NormValues<BfpValues>, by: &NormConstants<'_>, n: usize) {
    let mut v = vec![0; values.x.len()];
    for t in 0..n {
        let inverse = norm::inverse_root(values.ss[t]);
        for (row, gain) in by.gains.iter().enumerate() {
            let at = row * n + t;
            v[at] = norm::element(values.x[at], inverse, *gain);
            assert_eq!(v[at], i64::from(values.u[at]) * i64::from(*gain));
        }
    }
    assert_eq!(by.shift, BASE_NORM);
    check_bfp(&values.y, &v, by.shift, n);
}

fn check_bfp(values: &BfpValues, v: &[i64], base: i32, n: usize) {
    for t in 0..n {
        let v: Vec<i64> = v.chunks_exact(n).map(|row| row[t]).collect();
        let mut x12 = vec![0; v.len()];
        assert_eq!(i32::from(values.e[t]), bfp::bfp(&v, base, &mut x12));
        let max = v.iter().map(|v| v.abs()).max().unwrap();
        let at = v.iter().position(|v| v.abs() == max).unwrap();
        assert_eq!((values.peak_at[t] as usize, values.peak[t]), (at, v[at]));
        assert!(values.x12.chunks_exact(n).map(|row| row[t]).eq(x12));
    }
}

fn check_fixed(
    values: &NormValues<FixedValues>,
    of: &LinearValues,
    by: &NormConstants<'_>,
    n: usize,
) {
    assert!(Arc::ptr_eq(&values.x, &of.z));
    let len = by.gains.len();
    for vector in 0..values.x.len() / n / len {
        for t in 0..n {
            let rows = vector * len..(vector + 1) * len;
            let x: Vec<i32> = rows.clone().map(|row| of.z[row * n + t]).collect();
            let ss = norm::sum_of_squares(&x, by.eps);
            assert_eq!(values.ss[vector * n + t], ss);
            for (row, v) in rows.zip(norm::norm(&x, by.eps, by.gains)) {
                let u = i64::from(values.u[row * n + t]);
                assert_eq!(u * i64::from(by.gains[row % len]), v);
                let y = arith::rsh(v, by.shift);
                assert_eq!(i64::from(values.y[row * n + t]), y);
            }
        }
    }
}

fn check_linear(
    constants: &Constants<'_>,
    values: &LinearValues,
    by: &LinearConstants<'_>,
    input: &BfpValues,
    n: usize,
) {
    let (mut w, mut panel) = (vec![0; by.cols], vec![0; PANEL * by.cols]);
    let columns: Vec<Vec<i16>> = (0..n)
        .map(|t| input.x12.chunks_exact(n).map(|row| row[t]).collect())
        .collect();
    for row in 0..by.rows {
        constants.row(by.matrix, row, &mut w);
        by.panel(row / PANEL, &mut panel);
        assert!(panel[row % PANEL * by.cols..][..by.cols] == w);
        assert_eq!(by.scale(row), constants.scale(by.matrix, row));
        for (t, x12) in columns.iter().enumerate() {
            let acc = linear::dot(x12, &w);
            assert_eq!(values.acc[row * n + t], acc);
            let shift = by.shift - i32::from(input.e[t]);
            let z = linear::requantize(acc, by.scale(row), shift, by.limit);
            assert_eq!(values.z[row * n + t], z, "{:?}", by.matrix);
        }
    }
}

/// Scores of all pairs, and the shares of those that are seen.
fn check_pairs(constants: &Constants<'_>, by: &LayerConstants<'_>, values: &LayerValues, n: usize) {
    let dims = &constants.dims;
    let (heads, dim) = (dims.heads as usize, dims.head_dim as usize);
    let AttentionValues {
        max,
        sum,
        below,
        e,
        p,
        ..
    } = &values.attention;
    let vector = |rows: &[i16], head: usize, t: usize| -> Vec<i16> {
        let head = rows.chunks_exact(n).skip(head * dim).take(dim);
        head.map(|row| row[t]).collect()
    };
    for h in 0..heads {
        let group = heads / dims.kv_heads as usize;
        let keys: Vec<Vec<i16>> = (0..n).map(|j| vector(&values.k13, h / group, j)).collect();
        for t in 0..n {
            let q = vector(&values.q13, h, t);
            let (max, z) = (max[h * n + t], sum[h * n + t]);
            for (j, k) in keys.iter().enumerate() {
                let at = (h * n + j) * n + t;
                assert_eq!(below[at], max - attention::score(&q, k));
                let seen = j <= t && (by.window == 0 || j + by.window > t);
                let expected = match seen {
                    true => {
                        let distance = attention::distance(below[at], constants.c, by.csh);
                        attention::exponential(distance, constants.exp)
                    }
                    false => 0,
                };
                assert_eq!(u32::from(e[at]), expected);
                let share = attention::share(expected, attention::reciprocal(z));
                assert_eq!(u32::from(p[at]), share);
            }
        }
    }
}
