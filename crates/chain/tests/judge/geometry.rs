//! `TraceGeometry.sol` against `protocol::trace::Program`: ops, rows, chunks and their lengths, for random
//! shapes, counts and samplers, and for names of what is not there.

use alloy_sol_types::{SolCall, SolValue, sol};
use assay_chain::abi::IModels;
use assay_chain::artifacts;
use assay_protocol::manifest::Manifest;
use assay_protocol::trace::{LeafId, Program};
use assay_protocol::{Address, B256, SamplerParams, Temperature};
use assay_testkit::tiny::Tiny;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::evm::Evm;

sol! {
    interface IGeometry {
        function samplingFlags(bytes32 modelId, bytes calldata sampler) external view returns (uint8 flags);
        function opCount(bytes32 modelId, uint32 nPrompt, uint32 nOutput, uint8 flags) external view returns (uint32);
        function rowCount(bytes32 modelId, uint32 nPrompt, uint32 nOutput, uint8 flags, uint32 op) external view returns (uint32);
        function chunkCount(bytes32 modelId, uint32 nPrompt, uint32 nOutput, uint8 flags, uint32 op, uint32 row) external view returns (uint32);
        function chunkLength(bytes32 modelId, uint32 nPrompt, uint32 nOutput, uint8 flags, uint32 op, uint32 row, uint32 chunk) external view returns (uint32);
    }
}

/// A referee, and one statement's shape before it.
struct Asked {
    evm: Evm,
    models: Address,
    referee: Address,
    model_id: B256,
    n_prompt: u32,
    n_output: u32,
    flags: u8,
}

impl Asked {
    fn new() -> Asked {
        let mut evm = Evm::new();
        let models = evm.create(artifacts::models());
        let samples = artifacts::with_arguments(artifacts::sample_referee(), &models.abi_encode());
        let samples = evm.create(samples);
        let referee = artifacts::with_arguments(artifacts::referee(), &samples.abi_encode());
        Asked {
            referee: evm.create(referee),
            evm,
            models,
            model_id: B256::ZERO,
            n_prompt: 0,
            n_output: 0,
            flags: 0,
        }
    }

    fn set(&mut self, manifest: &Manifest, (n_prompt, n_output): (u32, u32), s: &SamplerParams) {
        let publish = IModels::publishCall {
            manifest: manifest.encode().into(),
        };
        // A second time is refused, and changes nothing.
        let _ = self.evm.send(self.models, &publish);
        (self.n_prompt, self.n_output) = (n_prompt, n_output);
        self.model_id = manifest.id();
        self.flags = self
            .ask(&IGeometry::samplingFlagsCall {
                modelId: self.model_id,
                sampler: s.encode().into(),
            })
            .expect("flags of a sampler");
    }

    /// `None` where the referee reverts.
    fn ask<C: SolCall>(&mut self, call: &C) -> Option<C::Return> {
        let answer = self.evm.call(self.referee, call).ok()?;
        Some(answer.value)
    }

    fn ops(&mut self) -> Option<u32> {
        self.ask(&IGeometry::opCountCall {
            modelId: self.model_id,
            nPrompt: self.n_prompt,
            nOutput: self.n_output,
            flags: self.flags,
        })
    }

    fn rows(&mut self, op: u32) -> Option<u32> {
        self.ask(&IGeometry::rowCountCall {
            modelId: self.model_id,
            nPrompt: self.n_prompt,
            nOutput: self.n_output,
            flags: self.flags,
            op,
        })
    }

    fn chunks(&mut self, LeafId { op, row }: LeafId) -> Option<u32> {
        self.ask(&IGeometry::chunkCountCall {
            modelId: self.model_id,
            nPrompt: self.n_prompt,
            nOutput: self.n_output,
            flags: self.flags,
            op,
            row,
        })
    }

    fn chunk_len(&mut self, LeafId { op, row }: LeafId, chunk: u32) -> Option<u32> {
        self.ask(&IGeometry::chunkLengthCall {
            modelId: self.model_id,
            nPrompt: self.n_prompt,
            nOutput: self.n_output,
            flags: self.flags,
            op,
            row,
            chunk,
        })
    }
}

/// A manifest of any shape: what its matrices hold does not matter here.
fn manifests() -> impl Strategy<Value = Manifest> {
    let small = 1u32..700;
    let dims = (
        small.clone(),
        1u32..5,
        1u32..5,
        1u32..150,
        small,
        1u32..1400,
    );
    let windows = prop::collection::vec(prop_oneof![Just(0u32), 1u32..400], 1..5);
    (any::<bool>(), dims, windows).prop_map(|(gemma, dims, windows)| {
        let tiny = match gemma {
            true => Tiny::gemma3(1),
            false => Tiny::llama(1),
        };
        let mut manifest = tiny.model().manifest().clone();
        let (width, groups, kv_heads, half_head, ffn, vocab) = dims;
        let d = &mut manifest.dims;
        (d.width, d.ffn, d.vocab, d.context_max) = (width, ffn, vocab, 1 << 13);
        (d.heads, d.kv_heads, d.head_dim) = (groups * kv_heads, kv_heads, 2 * half_head);
        d.layers = windows.len() as u32;
        let layer = manifest.layers[0];
        manifest.layers = windows
            .into_iter()
            .map(|window| assay_protocol::manifest::LayerEntry { window, ..layer })
            .collect();
        manifest
    })
}

fn samplers() -> impl Strategy<Value = SamplerParams> {
    let temperature = prop_oneof![
        Just(Temperature::Greedy),
        (1u32..999).prop_map(Temperature::Beta)
    ];
    let top_k = prop_oneof![Just(0), 1u32..1500];
    let top_p = prop_oneof![Just(1 << 16), 1u32..=1 << 16];
    (temperature, top_k, top_p).prop_map(|(temperature, top_k, top_p_q16)| SamplerParams {
        temperature,
        top_k,
        top_p_q16,
        ..SamplerParams::greedy(9)
    })
}

#[test]
fn both_layouts_are_one() {
    // GEOMETRIES=1000 tries more.
    let cases = std::env::var("GEOMETRIES").map_or(40, |cases| cases.parse().expect("a number"));
    let mut runner = TestRunner::new(Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    });
    let asked = std::cell::RefCell::new(Asked::new());
    let statements = (manifests(), samplers(), 1u32..700, 1u32..300);
    let picks = prop::collection::vec((any::<u32>(), any::<u32>(), any::<u32>()), 12);
    let checked = runner.run(&(statements, picks), |(statement, picks)| {
        let (manifest, sampler, n_prompt, n_output) = statement;
        let program = Program::new(&manifest, n_prompt, n_output, &sampler).expect("a layout");
        let mut asked = asked.borrow_mut();
        asked.set(&manifest, (n_prompt, n_output), &sampler);
        prop_assert_eq!(asked.ops(), Some(program.ops()));
        for op in 0..program.ops() {
            prop_assert_eq!(asked.rows(op), Some(program.rows(op)), "rows of {}", op);
        }
        for (a, b, c) in picks {
            let op = a % program.ops();
            let row = b % program.rows(op);
            let leaf = LeafId { op, row };
            let chunks = program.chunks(leaf);
            prop_assert_eq!(asked.chunks(leaf), Some(chunks), "chunks of {:?}", leaf);
            for chunk in [c % chunks, 0, chunks - 1, (c >> 8) % chunks] {
                let len = program.chunk_len(leaf, chunk) as u32;
                prop_assert_eq!(
                    asked.chunk_len(leaf, chunk),
                    Some(len),
                    "{:?} {}",
                    leaf,
                    chunk
                );
            }
            // What is not there.
            let beyond = program.rows(op);
            for leaf in [
                LeafId { op, row: beyond },
                LeafId {
                    op: program.ops(),
                    row,
                },
            ] {
                prop_assert_eq!(program.chunks(leaf), 0);
                prop_assert!(matches!(asked.chunks(leaf), None | Some(0)), "{:?}", leaf);
            }
            prop_assert!(matches!(asked.chunk_len(leaf, chunks), None | Some(0)));
        }
        Ok(())
    });
    checked.expect("both are one");
}
