//! The engine's values fulfil the relation, and no changed cell does.

use assay_engine::Model;
use assay_engine::values::Constants;
use assay_proof::matrix::TraceMatrix;
use assay_proof::public::Public;
use assay_proof::relation::program::Positions;
use assay_proof::revealed::{Revealed, Violation};
use assay_proof::witness::{Witness, witness};
use assay_testkit::tiny::Tiny;

const TOKENS: [u32; 8] = [256, 72, 101, 108, 108, 111, 0, 0];
const POSITIONS: Positions = Positions {
    tokens: 8,
    first_choice: 3,
    choices: 3,
};

fn made(model: &Model, greedy: bool) -> Witness {
    let public = Public::of(model, POSITIONS.tokens);
    witness(model, &public, &TOKENS, POSITIONS, greedy, 1, &mut |_| ()).unwrap()
}

fn checked(model: &Model, witness: &Witness, trace: &TraceMatrix) -> Result<(), Violation> {
    Revealed {
        constants: &Constants::new(model),
        relation: &witness.relation,
        clear: &witness.clear,
        tokens: &TOKENS,
        trace,
        first_choice: POSITIONS.first_choice,
        choices: POSITIONS.choices,
    }
    .check()
}

#[test]
fn the_engines_values_fulfil_the_relation() {
    for tiny in [
        Tiny::llama(1),
        Tiny::gemma3(1),
        Tiny::llama(2),
        Tiny::gemma3(3),
    ] {
        let model = tiny.model();
        for greedy in [false, true] {
            let witness = made(&model, greedy);
            assert_eq!(checked(&model, &witness, &witness.trace), Ok(()));
        }
    }
}
