//! Proofs of tiny statements, from the engine's pass to the verifier.

use assay_engine::Model;
use assay_engine::replay;
use assay_proof::{Claim, Key, Proof, Rejection, prove, verify};
use assay_protocol::{SamplerParams, Statement, StopReason, Temperature};
use assay_testkit::tiny::Tiny;

const PROMPT: [u32; 6] = [256, 72, 101, 108, 108, 111];

/// What the model answers, greedily.
fn answer(model: &Model, sampler: &SamplerParams, n: usize) -> Vec<u32> {
    let mut output = Vec::new();
    while output.len() < n {
        let guess = [output.clone(), vec![0]].concat();
        let chosen = replay::choices(model, 1, &PROMPT, sampler, &guess).unwrap();
        output.push(*chosen.last().unwrap());
    }
    output
}

struct Case {
    model: Model,
    sampler: SamplerParams,
    output: Vec<u32>,
    statement: Statement,
}

impl Case {
    fn new(tiny: &Tiny, n: usize, temperature: Temperature) -> Case {
        let model = tiny.model();
        let sampler = SamplerParams {
            temperature,
            ..SamplerParams::greedy(n as u32)
        };
        let output = answer(&model, &sampler, n);
        let statement = Statement::new(
            model.id(),
            &PROMPT,
            &sampler,
            &output,
            StopReason::MaxTokens,
        );
        Case {
            model,
            sampler,
            output,
            statement,
        }
    }

    fn claim(&self) -> Claim<'_> {
        Claim {
            statement: &self.statement,
            prompt: &PROMPT,
            sampler: &self.sampler,
            output: &self.output,
        }
    }

    fn prove(&self) -> Proof {
        prove(&self.model, &self.claim(), 2, &mut |_| ()).unwrap()
    }
}

#[test]
fn a_true_statement_is_proven() {
    for tiny in [Tiny::llama(1), Tiny::gemma3(1)] {
        for temperature in [Temperature::Greedy, Temperature::Beta(256)] {
            let case = Case::new(&tiny, 3, temperature);
            let proof = case.prove();
            let key = Key::Weights(&case.model);
            let proven = verify(&key, &case.claim(), &proof, 2).unwrap();
            assert_eq!(proven.statement, case.statement);
            println!("{} bytes\n{}", proof.as_bytes().len(), proven.security);
        }
    }
}

#[test]
fn a_token_that_is_not_the_models_choice_is_named() {
    for temperature in [Temperature::Greedy, Temperature::Beta(256)] {
        let mut case = Case::new(&Tiny::llama(1), 3, temperature);
        case.output[1] ^= 1;
        let output = &case.output;
        let (model, sampler) = (&case.model, &case.sampler);
        case.statement =
            Statement::new(model.id(), &PROMPT, sampler, output, StopReason::MaxTokens);
        let found = verify(&Key::Weights(model), &case.claim(), &case.prove(), 2);
        assert!(
            matches!(found, Err(Rejection::WrongToken { position: 1, .. })),
            "{found:?}"
        );
    }
}
