//! A checked-in proof of each format version keeps verifying: what was proven once stays proven.

use std::path::PathBuf;

use assay_engine::replay;
use assay_proof::{Claim, Key, Proof, prove, verify};
use assay_protocol::{SamplerParams, Statement, StopReason};
use assay_testkit::tiny::Tiny;

const PROMPT: [u32; 6] = [256, 72, 101, 108, 108, 111];

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("vectors/gemma3-v1.proof")
}

/// Takes the statement that the file is about: a tiny gemma's greedy answer.
fn with_claim<T>(take: impl FnOnce(&assay_engine::Model, &Claim<'_>) -> T) -> T {
    let model = Tiny::gemma3(1).model();
    let sampler = SamplerParams::greedy(2);
    let mut output = Vec::new();
    for _ in 0..2 {
        let guess = [&output[..], &[0]].concat();
        let chosen = replay::choices(&model, 1, &PROMPT, &sampler, &guess).unwrap();
        output.push(*chosen.last().unwrap());
    }
    let stop = StopReason::MaxTokens;
    let statement = Statement::new(model.id(), &PROMPT, &sampler, &output, stop);
    let claim = Claim {
        statement: &statement,
        prompt: &PROMPT,
        sampler: &sampler,
        output: &output,
    };
    take(&model, &claim)
}

#[test]
fn the_checked_in_proof_keeps_verifying() {
    let proof = Proof::from_bytes(std::fs::read(path()).unwrap()).unwrap();
    with_claim(|model, claim| {
        verify(&Key::Weights(model), claim, &proof, 1).unwrap();
    });
}

#[test]
#[ignore = "writes the file: only with a new version of the format, under a new name"]
fn the_checked_in_proof_is_written() {
    with_claim(|model, claim| {
        let proof = prove(model, claim, 2, &mut |_| ()).unwrap();
        verify(&Key::Weights(model), claim, &proof, 1).unwrap();
        std::fs::write(path(), proof.as_bytes()).unwrap();
    });
}
