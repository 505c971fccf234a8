//! Provers that lie about the weights, each caught by the one check that its lie is about.

use std::sync::Arc;

use assay_engine::Model;
use assay_engine::layout::{File, LayerPart, Section};
use assay_engine::values::Constants;
use assay_protocol::trace::MatrixRef;
use assay_protocol::{SamplerParams, Statement, StopReason};
use assay_testkit::tiny::Tiny;

use crate::claim::{Claim, Key};
use crate::commit::OpeningError;
use crate::committed::WeightsCommitted;
use crate::functional::FunctionalError;
use crate::key::{KeyFile, setup};
use crate::prove::{Options, prove_from};
use crate::verify::{Rejection, verify};

const PROMPT: [u32; 4] = [256, 72, 101, 108];
const OUTPUT: [u32; 2] = [1, 2];

struct Case {
    honest: Model,
    key: KeyFile,
    committed: WeightsCommitted,
    sampler: SamplerParams,
    statement: Statement,
}

impl Case {
    fn new(tiny: &Tiny) -> Case {
        let honest = tiny.model();
        let (key, committed) = setup(&honest, 2).unwrap();
        let sampler = SamplerParams::greedy(OUTPUT.len() as u32);
        let (id, stop) = (honest.id(), StopReason::MaxTokens);
        let statement = Statement::new(id, &PROMPT, &sampler, &OUTPUT, stop);
        Case {
            honest,
            key,
            committed,
            sampler,
            statement,
        }
    }

    /// Runs one model, opens another one's weights against some commitment, and is verified by both keys.
    fn rejections(
        &self,
        run: &Model,
        opened: &Model,
        committed: &WeightsCommitted,
    ) -> [Option<Rejection>; 2] {
        let claim = Claim {
            statement: &self.statement,
            prompt: &PROMPT,
            sampler: &self.sampler,
            output: &OUTPUT,
        };
        let options = Options {
            threads: 2,
            weights: Some(committed),
        };
        let proof = prove_from(run, opened, &claim, &options, &mut |_| ()).unwrap();
        let keys = [Key::Committed(&self.key), Key::Weights(&self.honest)];
        keys.map(|key| {
            let found = verify(&key, &claim, &proof, 2).err();
            // Whether the answer is the model's is asked last.
            found.filter(|why| !matches!(why, Rejection::WrongToken { .. }))
        })
    }
}

/// The model with one weight of a row changed, under the id that it had.
fn changed(tiny: &Tiny, section: Section, matrix: MatrixRef, row: usize) -> Model {
    let bytes = tiny.bytes();
    let honest = tiny.model();
    let weights = |model: &Model| {
        let cols = matrix.entry(model.manifest()).unwrap().cols as usize;
        let mut w = vec![0i16; cols];
        Constants::new(model).row(matrix, row, &mut w);
        w
    };
    let before = weights(&honest);
    let range = File::parse(&bytes).unwrap().range(section).unwrap();
    let changed = |at: usize| {
        let mut bytes = bytes.clone();
        bytes[at] ^= 1;
        let model = Model::open(Arc::new(bytes)).ok()?;
        let after = weights(&model);
        let differ = after.iter().zip(&before).filter(|(a, b)| a != b).count();
        (differ == 1).then_some(model)
    };
    let model = range
        .into_iter()
        .find_map(changed)
        .expect("the row has a code");
    assert_eq!(model.id(), honest.id());
    model
}

fn opening(why: &Option<Rejection>) -> bool {
    matches!(why, Some(Rejection::WeightsOpening(OpeningError::Rows)))
}

fn functional(why: &Option<Rejection>) -> bool {
    let value = FunctionalError::Value;
    *why == Some(Rejection::WeightsFunctional(value))
}

#[test]
fn an_honest_prover_is_not_rejected() {
    for tiny in [Tiny::llama(1), Tiny::gemma3(1)] {
        let case = Case::new(&tiny);
        let found = case.rejections(&case.honest, &case.honest, &case.committed);
        assert_eq!(found, [None, None]);
    }
}

#[test]
fn a_changed_weight_is_not_the_one_committed_to() {
    let tiny = Tiny::llama(1);
    let case = Case::new(&tiny);
    let section = Section::Layer(1, LayerPart::Up);
    let other = changed(&tiny, section, MatrixRef::Up(1), 0);
    // It runs other weights and opens them.
    let [key, weights] = case.rejections(&other, &other, &case.committed);
    assert!(opening(&key), "{key:?}");
    assert_eq!(weights, Some(Rejection::Weights));
    // It claims the right factors and opens other weights.
    let [key, weights] = case.rejections(&case.honest, &other, &case.committed);
    assert!(functional(&key), "{key:?}");
    assert!(functional(&weights), "whole or not at all: {weights:?}");
}

#[test]
fn a_factor_that_is_not_the_weights_is_not_opened() {
    let tiny = Tiny::llama(1);
    let case = Case::new(&tiny);
    for (part, matrix) in [
        (LayerPart::Q, MatrixRef::Q(0)),
        (LayerPart::Down, MatrixRef::Down(1)),
    ] {
        let layer = u16::from(matrix == MatrixRef::Down(1));
        let other = changed(&tiny, Section::Layer(layer, part), matrix, 0);
        let [key, weights] = case.rejections(&other, &case.honest, &case.committed);
        assert!(functional(&key), "{matrix:?}: {key:?}");
        assert_eq!(weights, Some(Rejection::Weights), "{matrix:?}");
    }
}

#[test]
fn an_embedding_that_is_not_the_weights_is_not_opened() {
    for tiny in [Tiny::llama(1), Tiny::gemma3(1)] {
        let case = Case::new(&tiny);
        let row = PROMPT[1] as usize;
        let other = changed(&tiny, Section::Embedding, MatrixRef::Embedding, row);
        let [key, weights] = case.rejections(&other, &case.honest, &case.committed);
        assert!(functional(&key), "{key:?}");
        assert_eq!(weights, Some(Rejection::Embedding));
    }
}

#[test]
fn weights_that_another_commitment_opens_are_refused() {
    let tiny = Tiny::llama(1);
    let case = Case::new(&tiny);
    let other = changed(&tiny, Section::Embedding, MatrixRef::Embedding, 3);
    let (_, committed) = setup(&other, 2).unwrap();
    let [key, weights] = case.rejections(&other, &other, &committed);
    let why = Rejection::WrongKey {
        opened: committed.commitment().0.into(),
        known: case.key.weights().0.into(),
    };
    assert_eq!(key, Some(why));
    // No token of the statement has that row.
    assert_eq!(weights, None);
}
