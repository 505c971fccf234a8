//! Dishonest provers, and what must become of each: no forged cell, value in the clear, model or byte is
//! accepted. What each check of the verifier is for is shown by a forgery that nothing else stops.

mod agreement;
mod bytes;
mod cells;
mod checks;
mod clear;
mod edges;
mod frozen;

use assay_engine::Model;
use assay_engine::replay;
use assay_engine::values::Constants;
use assay_protocol::{SamplerParams, Statement, StopReason, Temperature};
use assay_testkit::tiny::Tiny;

use crate::claim::{Claim, Key};
use crate::proof::Proof;
use crate::prove::{ProveError, Setting, argue, is_greedy};
use crate::public::Public;
use crate::relation::Leaf;
use crate::relation::program::Positions;
use crate::revealed::{Revealed, Violation};
use crate::schedule;
use crate::verify::{Proven, Rejection, verify};
use crate::witness::{Witness, WitnessError, witness};

const THREADS: usize = 2;
const PROMPT: [u32; 4] = [256, 72, 101, 108];

/// A model and a true statement about it.
struct Case {
    model: Model,
    prompt: Vec<u32>,
    sampler: SamplerParams,
    output: Vec<u32>,
    statement: Statement,
}

impl Case {
    /// A greedy answer, whose choice is proven.
    fn new(tiny: &Tiny) -> Case {
        Case::of(tiny.model(), &PROMPT, SamplerParams::greedy(3))
    }

    /// A drawn one, for which the last activations are shown.
    fn drawn(tiny: &Tiny) -> Case {
        let sampler = SamplerParams {
            temperature: Temperature::Beta(256),
            ..SamplerParams::greedy(3)
        };
        Case::of(tiny.model(), &PROMPT, sampler)
    }

    /// The model's own answer, as long as the sampler lets it be.
    fn of(model: Model, prompt: &[u32], sampler: SamplerParams) -> Case {
        let mut output = Vec::new();
        let is_end = |token: &u32| model.manifest().is_eos(*token);
        while output.len() < sampler.max_tokens as usize && !output.last().is_some_and(is_end) {
            let guess = [&output[..], &[0]].concat();
            let chosen = replay::choices(&model, 1, prompt, &sampler, &guess);
            output.push(*chosen.expect("tokens that run").last().expect("a choice"));
        }
        let stop = match output.last().is_some_and(is_end) {
            true => StopReason::EndOfText,
            false => StopReason::MaxTokens,
        };
        let statement = Statement::new(model.id(), prompt, &sampler, &output, stop);
        Case {
            model,
            prompt: prompt.to_vec(),
            sampler,
            output,
            statement,
        }
    }

    fn claim(&self) -> Claim<'_> {
        Claim {
            statement: &self.statement,
            prompt: &self.prompt,
            sampler: &self.sampler,
            output: &self.output,
        }
    }

    fn public(&self) -> Public {
        Public::of(&self.model, self.tokens().0.len())
    }

    fn tokens(&self) -> (Vec<u32>, Positions) {
        schedule::tokens(&self.claim(), self.model.manifest()).expect("a short statement")
    }

    fn try_witness(&self) -> Result<Witness, WitnessError> {
        let (tokens, positions) = self.tokens();
        let (public, greedy) = (self.public(), is_greedy(&self.claim()));
        witness(
            &self.model,
            &public,
            &tokens,
            positions,
            greedy,
            1,
            &mut |_| (),
        )
    }

    fn witness(&self) -> Witness {
        self.try_witness().expect("a trace")
    }

    /// A proof from any trace, with this case's model.
    fn argue(&self, made: Witness) -> Result<Proof, ProveError> {
        let (tokens, positions) = self.tokens();
        let setting = Setting {
            public: &self.public(),
            constants: &Constants::new(&self.model),
            claim: &self.claim(),
            tokens: &tokens,
            positions,
            threads: THREADS,
            opened: None,
        };
        argue(&setting, made, &mut |_| ())
    }

    fn honest(&self) -> Proof {
        self.argue(self.witness()).expect("a proof")
    }

    fn verify(&self, proof: &Proof) -> Result<Proven, Rejection> {
        verify(&Key::Weights(&self.model), &self.claim(), proof, THREADS)
    }

    fn revealed(&self, made: &Witness) -> Result<(), Violation> {
        let (tokens, positions) = self.tokens();
        Revealed {
            constants: &Constants::new(&self.model),
            relation: &made.relation,
            clear: &made.clear,
            tokens: &tokens,
            trace: &made.trace,
            first_choice: positions.first_choice,
            choices: positions.choices,
        }
        .check()
    }
}

/// Writes a cell and counts its look-ups anew, so that what is in the table has the right multiplicity.
/// Says whether the table has it; where it has not, its old entry stays counted.
fn rewrite(made: &mut Witness, row: usize, token: usize, value: i32) -> bool {
    let tokens = made.relation.tokens;
    let first = made.relation.multiplicities.first * tokens;
    let places = |made: &Witness| -> Vec<Option<usize>> {
        let leaves = made.relation.groups.iter().flatten();
        let place = |leaf: &Leaf| {
            let Leaf::Key { tags, values } = leaf else {
                return None;
            };
            let i = values.iter().find_map(|column| {
                let i = row.checked_sub(column.first)? / column.stride;
                (i < column.rows && column.row(i) == row).then_some(i)
            })?;
            let tuple: Vec<i64> = values
                .iter()
                .map(|column| made.trace.values()[column.row(i) * tokens + token].into())
                .collect();
            Some(made.relation.table.find(tags.at(i, token), &tuple))
        };
        leaves.filter_map(place).collect()
    };
    let before = places(made);
    made.trace.run_mut(row, 1)[token] = value;
    let after = places(made);
    for (before, after) in before.iter().zip(&after) {
        if let (Some(before), Some(after)) = (before, after) {
            let counts = made.trace.run_mut(0, made.relation.rows);
            counts[first + before] -= 1;
            counts[first + after] += 1;
        }
    }
    after.iter().all(Option::is_some)
}
