//! The layout of small programs, spelled out, and that every name leads back to its element.

use proptest::prelude::*;

use super::*;
use crate::manifest::{
    Architecture, AttentionScale, Dims, Fractions, GainEntry, GemmaNorms, LayerEntry, Manifest,
    MatrixEntry,
};
use crate::sampler::{SamplerParams, TOP_P_ALL, Temperature};
use crate::{B256, merkle};

fn manifest(gemma: bool) -> Manifest {
    let matrix = MatrixEntry {
        rows: 0,
        cols: 0,
        sh: 30,
        root: B256::ZERO,
    };
    let gain = GainEntry {
        len: 0,
        fs: 40,
        eps: 1,
        root: B256::ZERO,
    };
    let layer = |window| LayerEntry {
        fractions: Fractions { q: 9, k: 8, v: 8 },
        window,
        rope: 0,
        attention_norm: gain,
        q: matrix,
        k: matrix,
        v: matrix,
        o: matrix,
        ffn_norm: gain,
        gate: matrix,
        up: matrix,
        down: matrix,
        gemma: gemma.then_some(GemmaNorms {
            q_norm: gain,
            k_norm: gain,
            attention_post: gain,
            ffn_post: gain,
        }),
    };
    Manifest {
        architecture: if gemma {
            Architecture::Gemma3
        } else {
            Architecture::Llama
        },
        dims: Dims {
            layers: 2,
            width: 96,
            heads: 4,
            kv_heads: 2,
            head_dim: 48,
            ffn: 160,
            vocab: 300,
            context_max: 1024,
        },
        residual_fraction: 10,
        attention_scale: AttentionScale { c: 47_274, csh: 10 },
        layers: vec![layer(if gemma { 130 } else { 0 }), layer(0)],
        final_norm: gain,
        embedding: matrix,
        head: None,
        exp_root: B256::ZERO,
        act_root: B256::ZERO,
        rope_roots: vec![B256::ZERO],
        tokenizer_hash: B256::ZERO,
        chat_template_hash: B256::ZERO,
        bos: None,
        eos: vec![1],
    }
}

fn drawn(top_k: u32, top_p_q16: u32) -> SamplerParams {
    SamplerParams {
        temperature: Temperature::Beta(256),
        top_k,
        top_p_q16,
        ..SamplerParams::greedy(9)
    }
}

fn program(gemma: bool, sampler: &SamplerParams) -> Program {
    Program::new(&manifest(gemma), 250, 11, sampler).unwrap()
}

/// Segments as `name len@first_chunk+chunks`.
fn spelled(program: &Program, op: u32, row: u32) -> String {
    let parts = program.parts(LeafId { op, row });
    let part = |p: &Part| {
        let (segment, width) = (p.segment, p.width);
        format!(
            "{segment:?} {}x{width:?}@{}+{}",
            p.len, p.first_chunk, p.chunks
        )
    };
    parts.iter().map(part).collect::<Vec<_>>().join(", ")
}

#[test]
fn a_llama_program_is_spelled_out() {
    let program = program(false, &SamplerParams::greedy(11));
    assert_eq!((program.tokens(), program.ops()), (260, 8));
    let ops: Vec<_> = (0..9)
        .map(|op| (program.op(op), program.rows(op)))
        .collect();
    assert_eq!(
        ops,
        [
            (Some(Op::Embed), 260),
            (Some(Op::Project(0)), 260),
            (Some(Op::Columns(0)), 3),
            (Some(Op::Layer(0)), 260),
            (Some(Op::Project(1)), 260),
            (Some(Op::Columns(1)), 3),
            (Some(Op::Layer(1)), 260),
            (Some(Op::Final), 11),
            (None, 0),
        ]
    );
    assert_eq!(spelled(&program, 0, 0), "Residual 96xI32@0+2");
    assert_eq!(
        spelled(&program, 1, 259),
        "Squares 2xI64@0+1, Peak 2xI64@1+1, X12 96xI16@2+1, Qkv 384xI32@3+6, Q 192xI16@9+2, \
         K 96xI16@11+1, V 96xI16@12+1"
    );
    assert_eq!(spelled(&program, 2, 2), "Columns 12288xI16@0+96");
    assert_eq!(
        spelled(&program, 3, 128),
        "Seen 8xI64@0+1, Exps 1024xU16@1+8, Sums 8xI64@9+1, Mixes 384xI32@10+6, MixPeak 2xI64@16+1, \
         MixX12 192xI16@17+2, Branch 96xI32@19+2, Middle 96xI32@21+2, FfnSquares 2xI64@23+1, \
         FfnPeak 2xI64@24+1, FfnX12 96xI16@25+1, GateUp 320xI32@26+5, ActPeak 2xI64@31+1, \
         ActX12 160xI16@32+2, Down 96xI32@34+2, Residual 96xI32@36+2"
    );
    assert_eq!(
        spelled(&program, 7, 10),
        "Squares 2xI64@0+1, Peak 2xI64@1+1, X12 96xI16@2+1"
    );
    for (op, row) in [(0, 260), (2, 3), (7, 11), (8, 0), (TOKEN_OP, 0)] {
        assert_eq!(spelled(&program, op, row), "", "{op} {row}");
    }
}

#[test]
fn gemmas_norms_and_windows_have_their_place() {
    let program = program(true, &SamplerParams::greedy(11));
    assert_eq!(
        spelled(&program, 1, 0),
        "Squares 2xI64@0+1, Peak 2xI64@1+1, X12 96xI16@2+1, Qkv 384xI32@3+6, HeadSquares 6xI64@9+1, \
         Q 192xI16@10+2, K 96xI16@12+1, V 96xI16@13+1"
    );
    // From 130 on the first block is out of a window of 130, but for what 257 and later see of it.
    for (row, blocks) in [
        (0, 0..1),
        (127, 0..1),
        (128, 0..2),
        (256, 0..3),
        (257, 1..3),
    ] {
        assert_eq!(program.blocks(0, row), blocks, "{row}");
    }
    assert_eq!(program.blocks(1, 257), 0..3);
    assert_eq!(
        (program.first_seen(0, 257), program.first_seen(1, 257)),
        (128, 0)
    );
    assert!(spelled(&program, 3, 257).starts_with(
        "Seen 8xI64@0+1, Exps 1024xU16@1+8, Sums 8xI64@9+1, Mixes 384xI32@10+6, MixPeak"
    ));
    assert!(spelled(&program, 3, 257).ends_with(
        "Branch 96xI32@19+2, PostSquares 2xI64@21+1, Middle 96xI32@22+2, FfnSquares 2xI64@24+1, \
         FfnPeak 2xI64@25+1, FfnX12 96xI16@26+1, GateUp 320xI32@27+5, ActPeak 2xI64@32+1, \
         ActX12 160xI16@33+2, Down 96xI32@35+2, DownSquares 2xI64@37+1, Residual 96xI32@38+2"
    ));
}

#[test]
fn a_draw_has_the_searches_that_are_active() {
    let check = |top_k, top_p, expected: &str| {
        let program = program(false, &drawn(top_k, top_p));
        assert_eq!((program.ops(), program.op(8)), (9, Some(Op::Sample)));
        assert_eq!(program.rows(8), 11);
        assert_eq!(spelled(&program, 8, 10), expected, "{top_k} {top_p}");
    };
    let first = "Logits 300xI32@0+5, Top 2xI64@5+1, Weights 300xU32@6+5, Totals 2xI64@11+1";
    for top_k in [0, 300, u32::MAX] {
        check(top_k, TOP_P_ALL, &format!("{first}, Kept 2xI64@12+1"));
    }
    check(
        299,
        TOP_P_ALL,
        &format!("{first}, CountSearch 84xI64@12+3, Kept 2xI64@15+1"),
    );
    check(
        0,
        1,
        &format!("{first}, SumSearch 84xI64@12+3, Kept 2xI64@15+1"),
    );
    check(
        1,
        65_535,
        &format!("{first}, CountSearch 84xI64@12+3, SumSearch 84xI64@15+3, Kept 2xI64@18+1"),
    );
}

#[test]
fn every_slot_of_every_vector_leads_to_its_element_and_back() {
    for gemma in [false, true] {
        let program = program(gemma, &drawn(5, 60_000));
        for op in 0..program.ops() {
            for row in [0, 127, 128, 200, 259].map(|row| row % program.rows(op)) {
                let leaf = LeafId { op, row };
                let (mut elements, mut bytes) = (0, 0);
                for chunk in 0..program.chunks(leaf) {
                    let len = program.chunk_len(leaf, chunk);
                    assert_eq!(
                        program.chunk_range(leaf, chunk),
                        Some(bytes..bytes + len as u64)
                    );
                    bytes += len as u64;
                    let mut slot = 0;
                    while let Some(e) = program.locate(ElementId { leaf, chunk, slot }) {
                        assert_eq!(
                            program.element(leaf, e.segment, e.index),
                            Some(ElementId { leaf, chunk, slot })
                        );
                        (slot, elements) = (slot + 1, elements + 1);
                        assert!(slot as usize * e.segment.width().bytes() <= len);
                    }
                    assert!(slot > 0 && len <= CHUNK);
                }
                assert_eq!(
                    elements,
                    program.parts(leaf).iter().map(|p| p.len).sum::<u64>()
                );
                assert_eq!(bytes, program.bytes(leaf));
                assert_eq!(program.chunk_len(leaf, program.chunks(leaf)), 0);
            }
        }
    }
}

#[test]
fn numbers_and_ops_lead_to_each_other() {
    let program = program(true, &drawn(0, TOP_P_ALL));
    for number in 0..program.ops() {
        assert_eq!(program.number(program.op(number).unwrap()), number);
    }
    for number in [program.ops(), TOKEN_OP, TOKEN_OP - 1] {
        assert_eq!(program.op(number), None);
    }
}

#[test]
fn hostile_shapes_are_refused() {
    let sampler = drawn(5, 60_000);
    let good = manifest(true);
    let check = |change: &dyn Fn(&mut Manifest)| {
        let mut bad = good.clone();
        change(&mut bad);
        let refused = Program::new(&bad, 250, 11, &sampler);
        assert!(
            matches!(refused, Err(ProgramError::Shape { .. })),
            "{refused:?}"
        );
    };
    for value in [0, u32::MAX] {
        check(&|m| m.dims.layers = value);
        check(&|m| m.dims.width = value);
        check(&|m| m.dims.heads = value);
        check(&|m| m.dims.kv_heads = value);
        check(&|m| m.dims.head_dim = value);
        check(&|m| m.dims.ffn = value);
        check(&|m| m.dims.vocab = value);
        check(&|m| m.dims.context_max = value);
    }
    check(&|m| m.dims.kv_heads = 3);
    check(&|m| m.dims.layers = 1);
    for (n_prompt, n_output) in [(0, 5), (5, 0), (u32::MAX, u32::MAX), (1020, 5)] {
        assert!(Program::new(&good, n_prompt, n_output, &sampler).is_err());
    }
    let mut huge = good.clone();
    huge.dims = Dims {
        heads: 1 << 16,
        kv_heads: 1,
        head_dim: 1 << 10,
        context_max: 1 << 20,
        ..good.dims
    };
    assert!(Program::new(&huge, 1 << 19, 1 << 19, &sampler).is_err());
    assert!(Program::new(&huge, 100, 28, &sampler).is_ok());
}

#[test]
fn a_leaf_is_the_root_over_its_chunks() {
    let program = program(false, &SamplerParams::greedy(11));
    let parts = program.parts(LeafId { op: 1, row: 0 });
    let bytes: Vec<u8> = (0..program.bytes(LeafId { op: 1, row: 0 }))
        .map(|i| i as u8)
        .collect();
    let hashes = chunk_hashes(&parts, &bytes).unwrap();
    assert_eq!(hashes.len(), 13);
    assert_eq!(hashes[0], merkle::leaf(&bytes[..16]));
    assert_eq!(hashes[2], merkle::leaf(&bytes[32..224]));
    assert_eq!(hashes[4], merkle::leaf(&bytes[480..736]));
    assert_eq!(leaf_hash(&hashes), merkle::root(&hashes));
    assert_eq!(chunk_hashes(&parts, &bytes[1..]), None);
    let more = [&bytes[..], &[0]].concat();
    assert_eq!(chunk_hashes(&parts, &more), None);
    assert_eq!(
        hex::encode(trace_root(&[op_root(&[leaf_hash(&hashes)])])),
        GOLDEN
    );
}
const GOLDEN: &str = "0b029f786eb2b0272f32278139a488dc6e1629e78e7210c2ec216ea2db511125";

#[test]
fn a_reveal_goes_down_in_even_steps() {
    let descents: Vec<u32> = (0..14).map(tree::descent).collect();
    assert_eq!(descents, [0, 1, 2, 3, 4, 5, 3, 4, 4, 5, 5, 4, 4, 5]);
    assert_eq!(tree::descent(40), 5);
    // 11 leaves: 4 levels; of the second node at height 2 only three leaves exist.
    assert_eq!(tree::children(11, 4, 0), Some((0, 0..11)));
    assert_eq!(tree::children(11, 2, 2), Some((0, 8..11)));
    assert_eq!(tree::children(1, 0, 0), Some((0, 0..1)));
    assert_eq!(tree::children(0, 0, 0), None);
    assert_eq!(tree::children(11, 2, 3), None);
    assert_eq!(tree::children(11, 5, 0), None);
    assert_eq!(tree::children(u64::MAX, 63, 0), None);
    assert_eq!(tree::children(11, u32::MAX, u64::MAX), None);
    assert_eq!(tree::count_at(11, u32::MAX), 1);
}

#[test]
fn a_range_of_leaves_is_spelled_out() {
    let leaves: Vec<B256> = (0..5u8).map(|i| merkle::leaf(&[i])).collect();
    let siblings = |range| tree::range_siblings(&leaves, range).unwrap();
    let pair = tree::node(&leaves, 1, 0).unwrap();
    assert!(siblings(0..5).is_empty());
    // Leaf 4 has no right neighbour at its level nor at the next: only the left half is listed.
    assert_eq!(siblings(4..5), [tree::node(&leaves, 2, 0).unwrap()]);
    assert_eq!(siblings(3..5), [leaves[2], pair]);
    assert_eq!(
        siblings(1..3),
        [leaves[0], leaves[3], tree::node(&leaves, 2, 1).unwrap()]
    );
    assert_eq!(tree::range_siblings(&leaves, 5..6), None);
    assert_eq!(tree::range_siblings(&leaves, 2..2), None);
}

proptest! {
    #[test]
    fn a_range_leads_to_the_root_and_no_other_does(
        count in 1u64..70, a in any::<u64>(), b in any::<u64>(), bit in 0usize..256,
    ) {
        let leaves: Vec<B256> = (0..count).map(|i| merkle::leaf(&i.to_be_bytes())).collect();
        let (a, b) = (a % count, b % count);
        let (first, end) = (a.min(b), a.max(b) + 1);
        let siblings = tree::range_siblings(&leaves, first..end).unwrap();
        let mut shown = leaves[first as usize..end as usize].to_vec();
        let root = merkle::root(&leaves);
        prop_assert_eq!(tree::range_root(count, first, &shown, &siblings), Ok(root));
        // One sibling more or less, a place beside it, another count, another leaf.
        let more = [&siblings[..], &[B256::ZERO]].concat();
        prop_assert!(tree::range_root(count, first, &shown, &more).is_err());
        if let Some((_, less)) = siblings.split_last() {
            prop_assert!(tree::range_root(count, first, &shown, less).is_err());
        }
        prop_assert_ne!(tree::range_root(count, first + 1, &shown, &siblings), Ok(root));
        prop_assert_ne!(tree::range_root(count + 1, first, &shown, &siblings), Ok(root));
        shown[0].0[bit / 8] ^= 1 << (bit % 8);
        prop_assert_ne!(tree::range_root(count, first, &shown, &siblings), Ok(root));
    }

    #[test]
    fn hostile_ranges_are_refused(count in any::<u64>(), first in any::<u64>(), len in 0usize..3) {
        let _ = tree::range_root(count, first, &vec![B256::ZERO; len], &[]);
        let _ = tree::children(count, first as u32, count);
        let _ = tree::children(count, first as u32 % 70, first % 9);
    }

    #[test]
    fn what_is_revealed_folds_to_its_node(count in 1u64..300, height in 0u32..10, index in any::<u64>()) {
        let leaves: Vec<B256> = (0..count).map(|i| merkle::leaf(&i.to_be_bytes())).collect();
        let height = height % (merkle::depth(count) + 1);
        let index = index % tree::count_at(count, height);
        let level = tree::level(&leaves, height);
        prop_assert_eq!(level.len() as u64, tree::count_at(count, height));
        let node = tree::node(&leaves, height, index).unwrap();
        prop_assert_eq!(level[index as usize], node);
        let revealed = tree::reveal(&leaves, height, index).unwrap();
        prop_assert_eq!(tree::fold(&revealed, tree::descent(height)), Some(node));
        let (at, range) = tree::children(count, height, index).unwrap();
        prop_assert_eq!(&tree::level(&leaves, at)[range.start as usize..range.end as usize], &revealed[..]);
        if height == merkle::depth(count) {
            prop_assert_eq!(merkle::bind(count, &node), merkle::root(&leaves));
        }
    }

    #[test]
    fn hostile_names_lead_nowhere(op in any::<u32>(), row in any::<u32>(), chunk in any::<u32>(), slot in any::<u32>(), index in any::<u64>()) {
        let program = program(true, &drawn(5, 60_000));
        for leaf in [LeafId { op, row }, LeafId { op: op % 10, row }, LeafId { op: op % 10, row: row % 300 }] {
            for chunk in [chunk, chunk % 300] {
                let _ = program.chunk_len(leaf, chunk);
                for slot in [slot, slot % 140] {
                    let id = ElementId { leaf, chunk, slot };
                    if let Some(e) = program.locate(id) {
                        prop_assert_eq!(program.element(leaf, e.segment, e.index), Some(id));
                    }
                }
            }
            let _ = program.element(leaf, Segment::Exps, index);
            let _ = program.blocks(op, row);
            let _ = program.residual_before(op, row);
            let _ = program.row_before(row);
        }
    }

    #[test]
    fn a_row_of_any_bytes_expands_or_is_refused(format in any::<u8>(), data in prop::collection::vec(any::<u8>(), 0..240), cols in any::<usize>()) {
        for cols in [cols, cols % 65, 32, 128] {
            let row = RowShown { format: format % 6, data: data.clone(), path: vec![] };
            if let Some((_, weights)) = row.expand(cols) {
                prop_assert_eq!(weights.len(), cols);
            }
        }
    }
}

#[test]
fn packed_rows_are_spelled_out() {
    let check = |format, body: Vec<u8>, cols, first: &[i16], last: i16| {
        let data = [vec![0x12, 0x34], body].concat();
        let row = RowShown {
            format,
            data,
            path: vec![],
        };
        let (scale, weights) = row.expand(cols).unwrap();
        assert_eq!((scale, weights.len()), (0x1234, cols));
        assert_eq!(&weights[..first.len()], first);
        assert_eq!(weights[cols - 1], last);
        let leaf = row.leaf_data(cols).unwrap();
        assert_eq!((leaf.len(), &leaf[..2]), (2 + 2 * cols, &[0x12, 0x34][..]));
        assert_eq!(row.expand(cols + 32), None);
    };
    check(0, vec![0xff, 0xfe, 1, 0], 2, &[-2, 256], 256);
    let mut u4 = vec![0, 10, 0xff, 0xff];
    u4.extend([0x21; 15]);
    u4.push(0xf0);
    check(1, u4, 32, &[9; 15], 149);
    let mut bytes = vec![0xff, 0xfd];
    bytes.extend([5; 31]);
    bytes.push(0x80);
    check(2, bytes, 32, &[-15; 31], 384);
    let mut bytes = vec![0, 2];
    bytes.extend([0xff; 16]);
    check(3, bytes, 16, &[-2; 16], -2);
    let mut bytes: Vec<u8> = (1..=8).flat_map(|d| [0, d]).collect();
    // Codes -32 and 31 in groups 0 and 1; 0 and 1 in 2 and 3; -1 and 2 in 4 and 5; -2 and 3 in 6 and 7.
    for (pair, nibble) in [(63, 0b0111), (32 << 6 | 33, 0b1010), (31 << 6 | 34, 0b0011)] {
        bytes.extend([u16::to_be_bytes(pair << 4 | nibble); 16].as_flattened());
    }
    let first = [
        [-32; 16], [62; 16], [0; 16], [4; 16], [-5; 16], [12; 16], [-14; 16],
    ];
    check(4, bytes, 128, first.as_flattened(), 24);
}

#[test]
fn elements_are_read_as_wide_as_they_are() {
    let bytes = [0xff, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe];
    let check = |width: Width, slot, expected| assert_eq!(width.read(&bytes, slot), expected);
    check(Width::I16, 0, Some(-2));
    check(Width::U16, 0, Some(65_534));
    check(Width::I32, 1, Some(-2));
    check(Width::U32, 1, Some(0xffff_fffe));
    check(Width::I64, 0, Some(i64::from_be_bytes(bytes)));
    check(Width::I64, 1, None);
}
