//! Re-execution, the dispute's trace, the revealed trace and the proof say the same of a statement, true or
//! false: random tiny models, prompts, samplers and answers.

use assay_engine::ops::bfp;
use assay_engine::replay;
use assay_engine::trace::Traced;
use assay_engine::values::{self, BASE_NORM};
use assay_protocol::sampler::{TOP_P_ALL, Temperature};
use assay_protocol::trace::{Op, Segment};
use assay_protocol::{B256, SamplerParams, Statement};
use assay_testkit::tiny::Tiny;

use super::Case;
use crate::clear::{ChoiceClear, Clear};
use crate::rounds::testing::Random;
use crate::verify::Rejection;

/// Every so many statements, the proof is asked, too.
const PROVEN_EVERY: usize = 40;
const MODELS: usize = 8;

fn model(number: usize) -> Tiny {
    let seed = 100 + number as u64;
    match number % 2 {
        0 => Tiny::llama(seed),
        _ => Tiny {
            window: 3,
            ..Tiny::gemma3(seed)
        },
    }
}

fn sampler(random: &mut Random) -> SamplerParams {
    let greedy = SamplerParams::greedy(1 + random.below(4) as u32);
    match random.below(2) {
        0 => greedy,
        _ => SamplerParams {
            temperature: Temperature::Beta(1 + random.below(1000) as u32),
            top_k: random.below(3) as u32 * 20,
            top_p_q16: TOP_P_ALL - random.below(2) as u32 * 9000,
            seed: B256::repeat_byte(random.below(256) as u8),
            ..greedy
        },
    }
}

/// What re-execution says: the audit's verdict.
fn reexecuted(case: &Case) -> bool {
    let chosen = replay::choices(&case.model, 1, &case.prompt, &case.sampler, &case.output);
    chosen.expect("tokens that run") == case.output
}

/// The last activations of the dispute's trace, in the order of a proof's.
fn disputed(case: &Case) -> Vec<i16> {
    let traced = Traced {
        model: &case.model,
        threads: 1,
        prompt: &case.prompt,
        output: &case.output,
        sampler: &case.sampler,
    };
    let program = traced.program().expect("a layout");
    let choices = case.output.len();
    let outputs = 0..choices as u32;
    let leaves: Vec<_> = outputs
        .map(|output| program.leaf(Op::Final, output))
        .collect();
    let mut shown = vec![0; program.dims().width as usize * choices];
    for (n, (leaf, bytes)) in leaves
        .iter()
        .zip(traced.vectors(&leaves).unwrap())
        .enumerate()
    {
        let part = program
            .part(*leaf, Segment::X12)
            .expect("the norm's result");
        let from = program.chunk_range(*leaf, part.first_chunk).unwrap().start as usize;
        let x12 = bytes[from..]
            .as_chunks()
            .0
            .iter()
            .map(|x| i16::from_be_bytes(*x));
        for (i, x) in x12.take(part.len as usize).enumerate() {
            shown[i * choices + n] = x;
        }
    }
    shown
}

/// What the values in the clear choose; shown activations must be the dispute's.
fn chosen(case: &Case, clear: &Clear) -> Vec<u32> {
    let positions = case.tokens().1;
    let here = positions.first_choice..positions.first_choice + positions.choices;
    let shown = match &clear.choice {
        ChoiceClear::Greedy(greedy) => return greedy.chosen[here].to_vec(),
        ChoiceClear::Shown(shown) => shown,
    };
    assert_eq!(*shown, disputed(case));
    let peak = clear.final_norm.peak.as_ref().expect("the last norm's");
    let exponents = peak.value[here]
        .iter()
        .map(|v| bfp::exponent(v.abs(), BASE_NORM) as u8);
    let exponents: Vec<u8> = exponents.collect();
    let first = positions.first_choice;
    values::choices(&case.model, shown, &exponents, &case.sampler, first, 1).unwrap()
}

#[test]
fn all_that_judge_a_statement_agree() {
    agree(66, 400);
}

#[test]
#[ignore = "minutes: thousands of statements"]
fn all_that_judge_thousands_of_statements_agree() {
    agree(67, 4000);
}

fn agree(seed: u64, statements: usize) {
    let mut random = Random(seed);
    let models: Vec<_> = (0..MODELS).map(|number| model(number).model()).collect();
    let (mut truths, mut lies) = (0, 0);
    for number in 0..statements {
        let model = models[random.below(MODELS)].clone();
        let prompt: Vec<u32> = (0..1 + random.below(8))
            .map(|_| random.below(288) as u32)
            .collect();
        let mut case = Case::of(model, &prompt, sampler(&mut random));
        if random.below(2) == 0 {
            let at = random.below(case.output.len());
            case.output[at] = random.below(256) as u32;
            let (prompt, output) = (&case.prompt, &case.output);
            let stop = case.statement.stop_reason;
            case.statement = Statement::new(case.model.id(), prompt, &case.sampler, output, stop);
        }
        let truth = reexecuted(&case);
        let made = case.witness();
        let what = format!("statement {number}: {:?} -> {:?}", case.prompt, case.output);
        assert_eq!(case.revealed(&made), Ok(()), "{what}");
        assert_eq!(chosen(&case, &made.clear) == case.output, truth, "{what}");
        if number % PROVEN_EVERY == 0 {
            let proof = case.argue(made).expect("a proof, of whatever is stated");
            let verdict = case.verify(&proof);
            match truth {
                true => assert!(verdict.is_ok(), "{what}: {verdict:?}"),
                false => {
                    let wrong = matches!(verdict, Err(Rejection::WrongToken { .. }));
                    assert!(wrong, "{what}: {verdict:?}");
                }
            }
        }
        *if truth { &mut truths } else { &mut lies } += 1;
    }
    println!("{truths} true statements, {lies} false ones");
    assert!(truths.min(lies) > statements / 4, "both kinds");
}
