//! The real models before the referee: random elements of random vectors pass, a flip of every kind is
//! convicted, and what a step of each kind costs. Ignored unless asked for, as it pulls them (346 MB):
//! `cargo test --release -p assay-chain --test judge real -- --ignored --nocapture`.
//! `ASSAY_MODELS_DIR` names a folder that has them.

use std::path::PathBuf;

use assay_model::{Store, catalog};
use assay_protocol::trace::{Element, LeafId, Program};
use assay_protocol::{SamplerParams, TokenId};

use crate::court::{Case, Court, own_root, pick};
use crate::honest::{drawn, elsewhere, greedy};
use crate::liars::convict;

pub(crate) fn model(name: &str) -> assay_engine::Model {
    let folder = std::env::var_os("ASSAY_MODELS_DIR").map(PathBuf::from);
    let folder =
        folder.unwrap_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("models"));
    let store = Store::new(&folder);
    let entry = catalog::find(name).expect("a model of the catalogue");
    store
        .pull(&entry, &mut |_| {})
        .expect("the model is pulled");
    store.open(name).expect("the model opens").model
}

pub(crate) fn prompt(len: u32, vocab: u32) -> Vec<TokenId> {
    (0..len)
        .map(|i| pick(u64::from(i) ^ 0xabc, u64::from(vocab)) as u32)
        .collect()
}

/// Some vectors of every family of ops, from all layers and rows.
fn leaves(program: &Program, each: u64) -> Vec<LeafId> {
    let layers = u64::from(program.dims().layers);
    let mut leaves = Vec::new();
    for i in 0..each {
        let layer = pick(i ^ 77, layers) as u32;
        let mut ops = vec![0, 1 + 3 * layer, 2 + 3 * layer, 3 + 3 * layer];
        ops.extend(1 + 3 * program.dims().layers..program.ops());
        for op in ops {
            let row = pick(i << 8 ^ u64::from(op), program.rows(op).into()) as u32;
            leaves.push(LeafId { op, row });
        }
    }
    leaves
}

/// Random elements of every segment of these vectors.
fn elements(program: &Program, leaves: &[LeafId], each: u64) -> Vec<Element> {
    let mut elements = Vec::new();
    for leaf in leaves {
        for part in program.parts(*leaf) {
            for i in 0..each.min(part.len) {
                let seed = u64::from(leaf.op) << 40 ^ u64::from(leaf.row) << 20 ^ i;
                elements.push(Element {
                    leaf: *leaf,
                    segment: part.segment,
                    index: pick(seed ^ (part.segment as u64) << 56, part.len),
                });
            }
        }
    }
    elements
}

fn judge(name: &str, sampler: &SamplerParams, n_prompt: u32, vectors: u64, each: u64) {
    let model = model(name);
    let mut court = Court::new();
    court.publish(model.manifest());
    let prompt = prompt(n_prompt, model.manifest().dims.vocab);
    let case = Case::honest(&model, &prompt, sampler);
    let program = case.program();
    let leaves = leaves(program, vectors);
    let mut player = case.player();
    let seen = own_root(&mut player, program);
    let all = elements(program, &leaves, each);
    for (at, element) in (0u64..).zip(&all) {
        let id = program
            .element(element.leaf, element.segment, element.index)
            .expect("an element of the trace");
        let witness = Some(elsewhere(program, *element, at));
        let step = player.step(&seen, id, witness).expect("a step");
        let said = court.convicts(&case, seen.root(), &step);
        assert_eq!(said, Ok(false), "{element:?}");
    }
    println!("{name}: {} honest elements pass", all.len());
    let mut flips = elements(program, &leaves[..leaves.len() / vectors as usize], 1);
    flips.sort_by_key(|element| (element.leaf, element.segment));
    for (seed, element) in (0u64..).zip(&flips) {
        let reveals = convict(&mut court, &case, *element, seed);
        assert!(reveals <= 9, "{reveals} reveals for {element:?}");
    }
    println!("{name}: {} flips convicted", flips.len());
    let better = player.token_step(&seen, 0, 1).expect("a step");
    assert_eq!(court.convicts(&case, seen.root(), &better), Ok(false));
    court.print_gas(&format!(
        "{name}, {n_prompt} + {} tokens",
        program.n_output()
    ));
}

#[test]
#[ignore = "pulls the real models"]
fn real_smollm2_greedy() {
    judge("smollm2-135m-instruct", &greedy(16), 60, 12, 8);
}

#[test]
#[ignore = "pulls the real models"]
fn real_smollm2_drawn() {
    judge("smollm2-135m-instruct", &drawn(4, 40, 60_000), 20, 4, 8);
}

#[test]
#[ignore = "pulls the real models"]
fn real_gemma_greedy() {
    judge("gemma-3-270m", &greedy(16), 60, 12, 8);
}

#[test]
#[ignore = "pulls the real models"]
fn real_gemma_drawn() {
    judge("gemma-3-270m", &drawn(3, 40, 60_000), 20, 3, 4);
}

/// What the longest statement that the goals name costs: 512 + 256 tokens.
#[test]
#[ignore = "pulls the real models"]
fn real_long_answers() {
    for name in ["smollm2-135m-instruct", "gemma-3-270m"] {
        judge(name, &greedy(256), 512, 2, 2);
    }
}
