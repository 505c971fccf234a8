//! The values that a trace has too, against the trace that is written plainly; and the logits.

use std::path::Path;
use std::sync::Arc;

use assay_engine::ops::linear;
use assay_engine::trace::{Traced, reference as plain};
use assay_engine::values::{BfpValues, LayerValues, Pass};
use assay_engine::{Model, reference};
use assay_protocol::trace::{LeafId, MatrixRef, Op, Program, Segment};
use assay_protocol::{SamplerParams, TokenId};

use crate::text;
use crate::tiny::Tiny;

/// Element t of each row.
fn column<T: Copy + Into<i64>>(rows: &[T], tokens: usize, t: usize) -> Vec<i64> {
    let at = |row: &[T]| row[t].into();
    rows.chunks_exact(tokens).map(at).collect()
}

/// A plainly written trace, and where its vectors are.
struct Plain {
    program: Program,
    vectors: Vec<Vec<Vec<u8>>>,
}

impl Plain {
    fn of(model: &Model, tokens: &[TokenId]) -> Plain {
        let traced = Traced {
            model,
            threads: 1,
            prompt: tokens,
            output: &[1],
            sampler: &SamplerParams::greedy(9),
        };
        Plain {
            program: traced.program().unwrap(),
            vectors: plain::vectors(&traced).unwrap(),
        }
    }

    fn segment(&self, op: Op, row: usize, segment: Segment) -> Vec<i64> {
        let op = self.program.number(op);
        let bytes = &self.vectors[op as usize][row];
        let leaf = LeafId {
            op,
            row: row as u32,
        };
        let mut at = 0;
        for part in self.program.parts(leaf) {
            let (width, len) = (part.segment.width(), part.len as usize);
            let end = at + len * width.bytes();
            if part.segment == segment {
                let elements = bytes[at..end].chunks_exact(width.bytes());
                return elements.map(|e| width.read(e, 0).unwrap()).collect();
            }
            at = end;
        }
        panic!("{segment:?} is no part of op {op}");
    }

    /// The last of prefix sums over blocks, for each of so many vectors.
    fn whole(&self, op: Op, row: usize, segment: Segment, vectors: usize) -> Vec<i64> {
        let sums = self.segment(op, row, segment);
        let each = sums.chunks_exact(sums.len() / vectors);
        each.map(|sums| sums[sums.len() - 1]).collect()
    }
}

fn peak(bfp: &BfpValues, t: usize) -> Vec<i64> {
    vec![bfp.peak_at[t].into(), bfp.e[t].into()]
}

fn sums(ss: &[u64], tokens: usize, t: usize) -> Vec<i64> {
    ss.chunks_exact(tokens).map(|ss| ss[t] as i64).collect()
}

/// One token of a layer against the trace.
fn token(
    plain: &Plain,
    model: &Model,
    layer: usize,
    values: &LayerValues,
    tokens: usize,
    t: usize,
) {
    let dims = &model.manifest().dims;
    let (heads, kv_heads) = (dims.heads as usize, dims.kv_heads as usize);
    let op = Op::Project(layer as u32);
    let check = |op, segment, found: Vec<i64>| {
        let expected = plain.segment(op, t, segment);
        assert!(found == expected, "{segment:?} of layer {layer} at {t}");
    };
    let check_whole = |op, segment, found: Vec<i64>| {
        let expected = plain.whole(op, t, segment, found.len());
        assert!(found == expected, "{segment:?} of layer {layer} at {t}");
    };
    let of = |rows: &[i32]| column(rows, tokens, t);
    let short = |rows: &[i16]| column(rows, tokens, t);
    let norm = &values.attention_norm;
    check_whole(op, Segment::Squares, sums(&norm.ss, tokens, t));
    check(op, Segment::Peak, peak(&norm.y, t));
    check(op, Segment::X12, short(&norm.y.x12));
    let qkv = [&values.q, &values.k, &values.v].map(|linear| of(&linear.z));
    check(op, Segment::Qkv, qkv.concat());
    if let Some([q, k]) = &values.head_norms {
        let both = [sums(&q.ss, tokens, t), sums(&k.ss, tokens, t)].concat();
        assert_eq!(both.len(), heads + kv_heads);
        check_whole(op, Segment::HeadSquares, both);
    }
    check(op, Segment::Q, short(&values.q13));
    check(op, Segment::K, short(&values.k13));
    check(op, Segment::V, short(&values.v12));

    let op = Op::Layer(layer as u32);
    let attention = &values.attention;
    let at = |head: usize| head * tokens + t;
    let seen = (0..heads).flat_map(|h| [attention.max_at[at(h)].into(), attention.max[at(h)]]);
    check(op, Segment::Seen, seen.collect());
    let blocks = plain.program.blocks(layer as u32, t as u32);
    let positions = 128 * blocks.start as usize..128 * blocks.end as usize;
    let e = |(h, j): (usize, usize)| match j < tokens {
        true => i64::from(attention.e[at(h * tokens + j)]),
        false => 0,
    };
    let pairs = |h| positions.clone().map(move |j| (h, j));
    let exps = (0..heads).flat_map(|h| pairs(h).map(e));
    check(op, Segment::Exps, exps.collect());
    let z = (0..heads).map(|h| attention.sum[at(h)] as i64);
    check_whole(op, Segment::Sums, z.collect());
    let mixes = plain.segment(op, t, Segment::Mixes);
    let mix = of(&values.mix);
    assert!(mixes.ends_with(&mix), "mix of layer {layer} at {t}");
    check(op, Segment::MixPeak, peak(&values.mix_bfp, t));
    check(op, Segment::MixX12, short(&values.mix_bfp.x12));
    check(op, Segment::Branch, of(&values.o.z));
    if let Some(post) = &values.attention_post {
        check_whole(op, Segment::PostSquares, sums(&post.ss, tokens, t));
    }
    check(op, Segment::Middle, of(&values.middle));
    let norm = &values.ffn_norm;
    check_whole(op, Segment::FfnSquares, sums(&norm.ss, tokens, t));
    check(op, Segment::FfnPeak, peak(&norm.y, t));
    check(op, Segment::FfnX12, short(&norm.y.x12));
    let gate_up = [of(&values.gate.z), of(&values.up.z)].concat();
    check(op, Segment::GateUp, gate_up);
    check(op, Segment::ActPeak, peak(&values.product_bfp, t));
    check(op, Segment::ActX12, short(&values.product_bfp.x12));
    check(op, Segment::Down, of(&values.down.z));
    if let Some(post) = &values.ffn_post {
        check_whole(op, Segment::DownSquares, sums(&post.ss, tokens, t));
    }
    check(op, Segment::Residual, of(&values.residual));
}

/// All that a trace has, on so many threads; gives the layers' values.
fn check_traced(model: &Model, tokens: &[TokenId], threads: usize) -> Vec<LayerValues> {
    let (plain, n) = (Plain::of(model, tokens), tokens.len());
    let mut pass = Pass::new(model, tokens, threads).unwrap();
    for t in 0..n {
        let embedded = plain.segment(Op::Embed, t, Segment::Residual);
        assert!(
            column(pass.residual(), n, t) == embedded,
            "embedding of {t}"
        );
    }
    let mut layers = Vec::new();
    while let Some(values) = pass.next_layer() {
        let values = values.unwrap();
        for t in 0..n {
            token(&plain, model, layers.len(), &values, n, t);
        }
        layers.push(values);
    }
    assert_eq!(layers.len(), model.manifest().layers.len());
    check_logits(model, tokens, &pass);
    layers
}

/// The final norm, by the logits that its values give.
fn check_logits(model: &Model, tokens: &[TokenId], pass: &Pass<'_>) {
    let (n, head) = (tokens.len(), pass.constants().head);
    let last = pass.final_norm();
    let mut w = vec![0; head.cols];
    for (t, logits) in reference::logits(model, tokens).unwrap().iter().enumerate() {
        let x12: Vec<i16> = last.y.x12.chunks_exact(n).map(|row| row[t]).collect();
        for (row, logit) in logits.iter().enumerate() {
            pass.constants().row(MatrixRef::Head, row, &mut w);
            let shift = head.shift - i32::from(last.y.e[t]);
            let acc = linear::dot(&x12, &w);
            let found = linear::requantize(acc, head.scale(row), shift, head.limit);
            assert_eq!(found, *logit, "logit {row} at {t}");
        }
    }
}

#[test]
fn both_architectures_have_the_values_that_are_written_plainly() {
    for (tiny, n) in [
        (Tiny::llama(1), 128),
        (Tiny::gemma3(2), 128),
        (Tiny::llama(3), 1),
        (Tiny::gemma3(4), 8),
        (Tiny::gemma3(5), 145),
    ] {
        let tokens = text(n, 288);
        let model = tiny.model();
        let layers = check_traced(&model, &tokens, 1);
        for threads in [2, 3] {
            let mut pass = Pass::new(&model, &tokens, threads).unwrap();
            for expected in &layers {
                assert!(pass.next_layer().unwrap().unwrap() == *expected);
            }
            assert!(pass.next_layer().is_none());
        }
    }
}

#[test]
fn shapes_at_odds_with_blocks_have_the_values_that_are_written_plainly() {
    for (width, ffn, heads, kv_heads, head_dim, window) in [
        (96, 160, 3, 1, 32, 1),
        (32, 32, 2, 2, 16, 2),
        (160, 224, 2, 1, 144, 63),
        (64, 96, 1, 1, 256, 33),
    ] {
        for mut tiny in [Tiny::llama(7), Tiny::gemma3(8)] {
            tiny.dims.width = width;
            tiny.dims.ffn = ffn;
            tiny.dims.heads = heads;
            tiny.dims.kv_heads = kv_heads;
            tiny.dims.head_dim = head_dim;
            tiny.window = window;
            check_traced(&tiny.model(), &text(64, 288), 2);
        }
    }
}

/// The real models: `ASSAY_MODELS_DIR` names a folder that has them.
#[test]
#[ignore = "needs the real models"]
fn real_models_have_the_values_that_are_written_plainly() {
    let folder = std::env::var_os("ASSAY_MODELS_DIR").expect("ASSAY_MODELS_DIR is set");
    for name in ["smollm2-135m-instruct", "gemma-3-270m"] {
        let path = Path::new(&folder)
            .join("models")
            .join(name)
            .join("model.assay");
        let model = Model::open(Arc::new(std::fs::read(path).unwrap())).unwrap();
        let tokens = text(16, model.manifest().dims.vocab);
        check_traced(&model, &tokens, 2);
    }
}
