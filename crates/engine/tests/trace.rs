//! The trace that is tapped from the fast pass equals the one that is written plainly, byte for byte.

#[path = "../../testkit/src/tiny.rs"]
#[allow(dead_code, unreachable_pub)]
mod tiny;

use assay_engine::trace::{TraceError, Traced, entry, reference, weight_row};
use assay_engine::{Model, replay};
use assay_protocol::manifest::Architecture;
use assay_protocol::merkle::{self, Opening};
use assay_protocol::trace::{
    LeafId, MatrixRef, Program, Segment, TableRef, chunk_hashes, leaf_hash,
};
use assay_protocol::{B256, SamplerParams, Temperature, TokenId};
use tiny::Tiny;

fn text(len: usize, vocab: u32) -> Vec<TokenId> {
    (0..len as u32)
        .map(|i| (i * i * 31 + i * 7 + 3) % vocab)
        .collect()
}

fn drawn(top_k: u32, top_p_q16: u32) -> SamplerParams {
    SamplerParams {
        temperature: Temperature::Beta(300),
        top_k,
        top_p_q16,
        seed: B256::repeat_byte(5),
        ..SamplerParams::greedy(64)
    }
}

fn leaf_of(program: &Program, leaf: LeafId, bytes: &[u8]) -> B256 {
    let parts = program.parts(leaf);
    leaf_hash(&chunk_hashes(&parts, bytes).expect("the vector has the layout's length"))
}

/// Every leaf on several thread counts, and every vector, against the plain trace.
fn check(model: &Model, n_prompt: usize, n_output: usize, sampler: &SamplerParams) {
    let tokens = text(n_prompt + n_output, 288);
    let (prompt, output) = tokens.split_at(n_prompt);
    let traced = Traced {
        model,
        threads: 1,
        prompt,
        output,
        sampler,
    };
    let program = traced.program().unwrap();
    let plain = reference::vectors(&traced).unwrap();
    let hash = |op: usize, row: usize| {
        let leaf = LeafId {
            op: op as u32,
            row: row as u32,
        };
        leaf_of(&program, leaf, &plain[op][row])
    };
    let expected: Vec<Vec<B256>> = (0..plain.len())
        .map(|op| (0..plain[op].len()).map(|row| hash(op, row)).collect())
        .collect();
    assert_eq!(expected.len(), program.ops() as usize);
    for threads in [1, 2, 3] {
        let traced = Traced { threads, ..traced };
        let mut done = 0;
        let leaves = traced.leaves(&mut |tokens| done = tokens).unwrap();
        assert_eq!(done, program.tokens());
        for (op, (found, expected)) in leaves.iter().zip(&expected).enumerate() {
            let at = found.iter().zip(expected).position(|(a, b)| a != b);
            assert_eq!(at, None, "{:?} on {threads} threads", program.op(op as u32));
            assert_eq!(found.len(), expected.len());
        }
    }
    let all: Vec<LeafId> = (0..program.ops())
        .flat_map(|op| (0..program.rows(op)).map(move |row| LeafId { op, row }))
        .collect();
    let vectors = traced.vectors(&all).unwrap();
    for (leaf, bytes) in all.iter().zip(&vectors) {
        let plain = &plain[leaf.op as usize][leaf.row as usize];
        assert!(bytes == plain, "{leaf:?}");
    }
    // A few alone, so that the pass stops early.
    for leaf in all.iter().step_by(all.len() / 23 + 1) {
        let bytes = traced.vectors(&[*leaf]).unwrap();
        assert!(
            bytes[0] == plain[leaf.op as usize][leaf.row as usize],
            "{leaf:?} alone"
        );
    }
}

#[test]
fn both_architectures_trace_as_they_are_written() {
    for mut tiny in [Tiny::llama(1), Tiny::gemma3(2)] {
        tiny.window = 100;
        let model = tiny.model();
        check(&model, 1, 1, &SamplerParams::greedy(9));
        check(&model, 127, 2, &SamplerParams::greedy(9));
        check(&model, 120, 150, &SamplerParams::greedy(9));
    }
}

#[test]
fn windows_that_start_anywhere_in_a_block_trace_as_they_are_written() {
    for window in [1, 2, 63, 127, 128, 129, 200] {
        let mut tiny = Tiny::gemma3(3);
        tiny.window = window;
        tiny.dims.layers = 1;
        check(&tiny.model(), 260, 20, &SamplerParams::greedy(9));
    }
}

#[test]
fn draws_trace_as_they_are_written() {
    for tiny in [Tiny::llama(4), Tiny::gemma3(5)] {
        let model = tiny.model();
        for (top_k, top_p) in [
            (0, 65_536),
            (1, 65_536),
            (5, 60_000),
            (287, 1),
            (288, 65_535),
            (0, 30_000),
        ] {
            check(&model, 5, 4, &drawn(top_k, top_p));
        }
    }
}

#[test]
fn shapes_at_odds_with_blocks_trace_as_they_are_written() {
    for (width, ffn, heads, kv_heads, head_dim, vocab) in [
        (96, 160, 3, 1, 32, 288),
        (32, 32, 2, 2, 16, 511),
        (160, 224, 2, 1, 144, 300),
        (64, 96, 1, 1, 256, 289),
    ] {
        for mut tiny in [Tiny::llama(7), Tiny::gemma3(8)] {
            tiny.dims.width = width;
            tiny.dims.ffn = ffn;
            tiny.dims.heads = heads;
            tiny.dims.kv_heads = kv_heads;
            tiny.dims.head_dim = head_dim;
            tiny.dims.vocab = vocab;
            check(&tiny.model(), 130, 3, &drawn(7, 50_000));
        }
    }
}

#[test]
fn a_layer_left_out_leaves_zeros_and_passes_the_residual_through() {
    for tiny in [Tiny::llama(9), Tiny::gemma3(10)] {
        let honest = tiny.model();
        let cheat = honest.without_layers(&[1]);
        check(&cheat, 130, 3, &SamplerParams::greedy(9));
        let (prompt, sampler) = (text(130, 288), SamplerParams::greedy(9));
        let traced = |model| Traced {
            model,
            threads: 2,
            prompt: &prompt,
            output: &[1, 2],
            sampler: &sampler,
        };
        let [a, b] = [&honest, &cheat].map(|m| traced(m).leaves(&mut |_| ()).unwrap());
        // The two part at the first op of the layer that was left out, and nowhere earlier.
        assert_eq!((0..a.len()).find(|op| a[*op] != b[*op]), Some(4));
        assert_eq!(a.len(), b.len());
    }
}

#[test]
fn the_last_vector_chooses_what_the_pass_chooses() {
    let model = Tiny::llama(11).model();
    let (prompt, sampler) = (text(40, 288), drawn(9, 55_000));
    let mut output = Vec::new();
    for _ in 0..8 {
        output.push(0);
        let last = replay::choices(&model, 2, &prompt, &sampler, &output).unwrap();
        output = last;
    }
    let traced = Traced {
        model: &model,
        threads: 2,
        prompt: &prompt,
        output: &output,
        sampler: &sampler,
    };
    let program = traced.program().unwrap();
    let sample = program.ops() - 1;
    for row in 0..8u32 {
        let leaf = LeafId { op: sample, row };
        let bytes = traced.vectors(&[leaf]).unwrap().remove(0);
        let segment = |segment| {
            let chunk = |c| program.chunk_range(leaf, c).unwrap();
            let part = program.part(leaf, segment).unwrap();
            let (from, to) = (
                chunk(part.first_chunk),
                chunk(part.first_chunk + part.chunks - 1),
            );
            &bytes[from.start as usize..to.end as usize]
        };
        let long = |bytes: &[u8]| i64::from_be_bytes(bytes.try_into().unwrap());
        let theta = |s| long(segment(s).last_chunk::<8>().unwrap()) - (1 << 27);
        let least = theta(Segment::CountSearch).max(theta(Segment::SumSearch));
        let z = long(segment(Segment::Kept).last_chunk::<8>().unwrap()) as u128;
        let position = u64::from(program.row_before(row)) + 1;
        let uniform = assay_engine::ops::sampler::uniform(&sampler.seed, position);
        let r = ((u128::from(uniform) * z) >> 64) as u64;
        let mut sum = 0u64;
        let logits = segment(Segment::Logits).chunks(4);
        let ids = logits.zip(segment(Segment::Weights).chunks(4));
        let chosen = ids
            .map(|(l, w)| {
                let logit = i32::from_be_bytes(l.try_into().unwrap());
                let kept = i64::from(logit) >= least;
                sum += u64::from(kept) * u64::from(u32::from_be_bytes(w.try_into().unwrap()));
                sum
            })
            .position(|sum| sum > r);
        assert_eq!(chosen, Some(output[row as usize] as usize), "{row}");
    }
}

#[test]
fn what_is_not_there_is_not_traced() {
    let model = Tiny::llama(12).model();
    let sampler = SamplerParams::greedy(9);
    let traced = Traced {
        model: &model,
        threads: 1,
        prompt: &[1, 2, 3],
        output: &[4, 5],
        sampler: &sampler,
    };
    for (op, row) in [(0, 4), (8, 0), (u32::MAX, u32::MAX), (2, 1)] {
        let leaf = LeafId { op, row };
        assert_eq!(traced.vectors(&[leaf]), Err(TraceError::NoSuchLeaf(leaf)));
    }
    let refused = |traced: Traced<'_>| assert!(traced.leaves(&mut |_| ()).is_err());
    refused(Traced {
        output: &[],
        ..traced
    });
    refused(Traced {
        prompt: &[],
        ..traced
    });
    refused(Traced {
        output: &[288],
        ..traced
    });
    refused(Traced {
        prompt: &[u32::MAX],
        ..traced
    });
    let long = vec![1; 2047];
    refused(Traced {
        prompt: &long,
        ..traced
    });
    let bad = drawn(0, 0);
    refused(Traced {
        sampler: &bad,
        ..traced
    });
    assert!(weight_row(&model, 1, MatrixRef::Q(2), 0).is_err());
    assert!(weight_row(&model, 1, MatrixRef::Head, 288).is_err());
    assert!(entry(&model, TableRef::QNorm(0), 0).is_err());
    assert!(entry(&model, TableRef::Rope(1), 0).is_err());
    assert!(entry(&model, TableRef::Exp, 256).is_err());
}

#[test]
fn rows_and_entries_lead_to_the_manifests_roots() {
    for tiny in [Tiny::llama(13), Tiny::gemma3(14)] {
        let model = tiny.model();
        let manifest = model.manifest();
        let matrices = [
            MatrixRef::Embedding,
            MatrixRef::Head,
            MatrixRef::Q(0),
            MatrixRef::K(1),
            MatrixRef::V(0),
            MatrixRef::O(1),
            MatrixRef::Gate(0),
            MatrixRef::Up(1),
            MatrixRef::Down(0),
        ];
        for matrix in matrices {
            let stated = matrix.entry(manifest).unwrap();
            for row in [0, 1, stated.rows - 1] {
                let shown = weight_row(&model, 2, matrix, row).unwrap();
                let leaf = shown.leaf_data(stated.cols as usize).unwrap();
                let opening = Opening {
                    count: stated.rows.into(),
                    index: row.into(),
                    siblings: shown.path,
                };
                assert_eq!(opening.verify(&stated.root, &merkle::leaf(&leaf)), Ok(()));
            }
        }
        let mut tables = vec![
            TableRef::Exp,
            TableRef::Act,
            TableRef::Rope(0),
            TableRef::AttentionNorm(0),
            TableRef::FfnNorm(1),
            TableRef::FinalNorm,
        ];
        if tiny.architecture == Architecture::Gemma3 {
            tables.extend([
                TableRef::Rope(1),
                TableRef::QNorm(0),
                TableRef::KNorm(1),
                TableRef::AttentionPost(0),
                TableRef::FfnPost(1),
            ]);
        }
        for table in tables {
            let (root, count) = table.root(manifest).unwrap();
            for index in [0, 5, count - 1] {
                let shown = entry(&model, table, index).unwrap();
                let opening = Opening {
                    count,
                    index,
                    siblings: shown.path,
                };
                let leaf = merkle::leaf(&shown.data);
                assert_eq!(opening.verify(&root, &leaf), Ok(()), "{table:?} {index}");
            }
        }
    }
}
