//! A forgery for each check of the verifier. Where it can be had, everything else about the forgery holds:
//! the dishonest prover runs another model under the same id, and a verifier of that model accepts the proof.

use std::sync::Arc;

use assay_engine::Model;
use assay_engine::layout::{File, LayerPart, Section};
use assay_engine::ops::bfp;
use assay_engine::values::BASE_NORM;
use assay_protocol::codec::{Reader, Writer};
use assay_protocol::{SamplerParams, Statement, StopReason, TokenCount};
use assay_testkit::tiny::Tiny;
use p3_field::{PrimeCharacteristicRing, PrimeField64};

use super::{Case, PROMPT, THREADS, rewrite};
use crate::claim::{Claim, ClaimError, Key};
use crate::clear::{ChoiceClear, Clear};
use crate::field::{F, K};
use crate::products::ProductsProof;
use crate::proof::Proof;
use crate::prove::is_greedy;
use crate::relation::program;
use crate::relation::{Known, Leaf, ONES, Term};
use crate::revealed::Violation;
use crate::schedule::{self, Parts, VERSION, Weights};
use crate::verify::{Proven, Rejection, verify};

/// The verdict's first words, as they are derived.
fn expect(name: &str, verdict: &Result<Proven, Rejection>, expected: &str) {
    let found = format!("{:?}", verdict.as_ref().err());
    let expected = format!("Some({expected}");
    assert!(
        found.starts_with(&expected),
        "{name}: {found}, not {expected}"
    );
}

/// A proof of the same statement with other parts.
pub(super) fn edited(
    case: &Case,
    proof: &Proof,
    edit: impl FnOnce(&mut Clear, &mut Parts),
) -> Proof {
    let positions = case.tokens().1;
    let greedy = is_greedy(&case.claim());
    let shape = schedule::clear_shape(case.model.manifest(), positions, greedy);
    let mut from = Reader::new(VERSION, proof.as_bytes()).unwrap();
    let weights = Weights::read(&mut from).unwrap();
    let (mut clear, _) = schedule::read_clear(&mut from, &shape).unwrap();
    let relation = program::build(&case.public(), &clear, positions).unwrap();
    let mut parts = Parts::read(&relation, None, &mut from).unwrap();
    edit(&mut clear, &mut parts);
    let mut out = Writer::new(VERSION);
    weights.write(&mut out);
    out.bytes(&clear.to_bytes(&shape));
    parts.write(&mut out);
    Proof::from_bytes(out.finish()).unwrap()
}

/// Another model under the same id: what is opened is not hashed. The prover has this one.
fn other(tiny: &Tiny, section: Section, byte: usize) -> Case {
    let mut bytes = tiny.bytes();
    let range = File::parse(&bytes).unwrap().range(section).unwrap();
    bytes[range.start + byte] ^= 1;
    let other = Model::open(Arc::new(bytes)).expect("a flip that breaks no bound");
    assert_eq!(other.id(), tiny.model().id());
    Case::of(other, &PROMPT, SamplerParams::greedy(3))
}

/// The prover's own verifier accepts; only this check of the other's does not.
fn check_model(section: Section, byte: usize, expected: &str) {
    let tiny = Tiny::llama(1);
    let forger = other(&tiny, section, byte);
    let proof = forger.honest();
    let name = format!("{section:?}");
    assert!(
        forger.verify(&proof).is_ok(),
        "{name}: the forger's own check"
    );
    let model = tiny.model();
    let verdict = verify(&Key::Weights(&model), &forger.claim(), &proof, THREADS);
    expect(&name, &verdict, expected);
}

#[test]
fn a_proof_about_other_weights_is_refused() {
    check_model(Section::Layer(1, LayerPart::Gate), 4000, "Weights");
}

#[test]
fn a_proof_about_other_tables_is_refused() {
    check_model(Section::Exp, 40, "Table");
    check_model(Section::Rope(0), 4 * 32, "Functional(Value");
}

#[test]
fn a_proof_about_other_gains_is_refused() {
    check_model(Section::Layer(0, LayerPart::FfnNorm), 8, "Functional(Value");
}

/// Both limbs of a residual, one carried into the other: no equation sees it.
#[test]
fn a_limb_out_of_its_range_is_refused_by_the_look_ups() {
    let case = Case::new(&Tiny::llama(1));
    let mut made = case.witness();
    let column = |name| {
        made.relation
            .names
            .iter()
            .find(|(of, _)| *of == name)
            .unwrap()
            .1
            .first
    };
    let (lo, hi) = (column("residual.lo"), column("residual.hi"));
    let (low, high) = (made.trace.run(lo, 1)[2], made.trace.run(hi, 1)[2]);
    assert!(!rewrite(&mut made, lo, 2, low + (1 << 16)));
    assert!(rewrite(&mut made, hi, 2, high - 1));
    let proof = case.argue(made).unwrap();
    expect("limb", &case.verify(&proof), "LookUps");
}

/// A look-up whose numerators are 0 counts nothing. Its denominators are not those of the look-up either:
/// were the numerators not checked, the trace would have to be.
#[test]
fn a_look_up_that_does_not_count_is_refused() {
    let case = Case::new(&Tiny::llama(1));
    let mut made = case.witness();
    let tokens = made.relation.tokens;
    let Leaf::Key { tags, values } = made.relation.groups[0][0].clone() else {
        panic!("a look-up of the embedding")
    };
    let column = values[0];
    for i in 0..column.rows {
        for t in 0..tokens {
            let value = made.trace.run(column.row(i), 1)[t];
            let place = made
                .relation
                .table
                .find(tags.at(i, t), &[value.into()])
                .unwrap();
            made.trace.run_mut(
                made.relation.multiplicities.first,
                made.relation.multiplicities.rows,
            )[place] -= 1;
        }
    }
    made.relation
        .by_token
        .push(vec![F::from_u64(1 << 40); tokens]);
    made.relation.groups[0][0] = Leaf::NotZero {
        terms: vec![(column, 1, ONES)],
        constant: made.relation.by_token.len() - 1,
    };
    let proof = case.argue(made).unwrap();
    expect(
        "a look-up that counts 0",
        &case.verify(&proof),
        "Numerators",
    );
}

/// The clear names a peak's place; the forger gathers from another, which has the value that it states.
#[test]
fn a_peak_that_stands_elsewhere_is_refused() {
    let case = Case::new(&Tiny::llama(1));
    let mut made = case.witness();
    let relation = &mut made.relation;
    let gather = relation.known.iter_mut().find_map(|known| match known {
        Known::Gather { terms, at, values } => Some((terms, at, values)),
        Known::Squares { .. } => None,
    });
    let (terms, at, values) = gather.unwrap();
    let peak = made.clear.layers[0].attention_norm.peak.as_mut().unwrap();
    let t = 1;
    let half = values[t] - peak.value[t];
    let exponent = |v: i64| bfp::exponent(v.abs(), BASE_NORM);
    let value = |row: usize| -> i64 {
        let term = |(column, k, by): &(crate::relation::Column, i64, usize)| {
            let by = relation.by_token[*by][t].as_canonical_u64() as i64;
            i64::from(made.trace.run(column.row(row), 1)[t]) * k * by
        };
        terms.iter().map(term).sum()
    };
    let same = |row: &usize| {
        let v = value(*row) - half;
        *row as u32 != peak.at[t] && v != peak.value[t] && exponent(v) == exponent(peak.value[t])
    };
    let elsewhere = (0..64).find(same).expect("a second value of that exponent");
    let v = value(elsewhere);
    (at[t], values[t], peak.value[t]) = (elsewhere as u32, v, v - half);
    let proof = case.argue(made).unwrap();
    expect("peak", &case.verify(&proof), "Places");
}

#[test]
fn each_part_of_a_proof_is_held_against_the_others() {
    let case = Case::new(&Tiny::llama(1));
    let proof = case.honest();
    assert!(case.verify(&proof).is_ok());
    let check = |name: &str, expected: &str, edit: &dyn Fn(&mut Clear, &mut Parts)| {
        let forged = edited(&case, &proof, |clear, parts| edit(clear, parts));
        expect(name, &case.verify(&forged), expected);
    };
    let relation = case.witness().relation;
    let lens = schedule::product_lens(&relation);
    let bytes = |products: &ProductsProof| {
        let mut out = Writer::new("");
        products.write(&mut out);
        out.finish()
    };
    check("root", "Tree(WrongRoot", &|_, p| {
        p.trees[1].root.0 += K::ONE
    });
    check("zero root", "Tree(ZeroDenominator", &|_, p| {
        p.trees[1].root.1 = K::ZERO
    });
    check("nonce", "Nonce", &|_, p| p.nonce += F::ONE);
    check("no commitment of this trace", "Nonce", &|_, p| {
        p.commitment.0[3] ^= 1
    });
    check("a tree of another group", "Tree", &|_, p| {
        p.trees[1] = p.trees[2].clone()
    });
    check("claimed product", "Products(Value", &|_, p| {
        p.claimed[3] += K::ONE
    });
    check("products' last factor", "Products(Value", &|_, p| {
        let mut edited = bytes(&p.products);
        *edited.last_mut().unwrap() ^= 1;
        p.products = ProductsProof::read(&lens, &mut Reader::new("", &edited).unwrap()).unwrap();
    });
    check("opening", "Opening", &|_, p| {
        let at = p.opening.len() / 2;
        p.opening[at] ^= 1;
    });
    check("opening cut", "Opening(Codec", &|_, p| {
        p.opening.pop();
    });
    check("opening and more", "Opening(Codec", &|_, p| {
        p.opening.push(0)
    });
    check("a score that is told otherwise", "Nonce", &|c, _| {
        c.layers[0].max[4] += 1
    });
    check("no square", "Relation(Clear(\"a sum of squares", &|c, _| {
        c.final_norm.ss[0] = 0
    });
    check(
        "no exponential",
        "Relation(Clear(\"a sum of exp",
        &|c, _| c.layers[0].sum[3] = 0,
    );
    check(
        "too many exponentials",
        "Relation(Clear(\"a sum of exp",
        &|c, _| {
            c.layers[0].sum[3] = u64::MAX;
        },
    );
    check("a score ahead", "Relation(Clear(\"the place of", &|c, _| {
        c.layers[0].max_at[2] = 3
    });
    check("a score", "Relation(Clear(\"a largest score", &|c, _| {
        c.layers[0].max[2] = i64::MIN
    });
    check("a peak nowhere", "Relation(Clear(\"mix", &|c, _| {
        c.layers[0].mix.at[0] = u32::MAX
    });
    check("an endless peak", "Relation(Clear(\"product", &|c, _| {
        c.layers[0].product.value[0] = i64::MIN;
    });
}

/// What is shown beside the statement, and the statement itself.
#[test]
fn what_is_shown_must_be_what_is_stated() {
    let case = Case::new(&Tiny::llama(1));
    let proof = Proof::from_bytes(Writer::new(VERSION).finish()).unwrap();
    let key = Key::Weights(&case.model);
    let check = |claim: Claim<'_>, expected: ClaimError| {
        let verdict = verify(&key, &claim, &proof, 1);
        assert_eq!(verdict, Err(Rejection::Claim(expected)));
    };
    let honest = case.claim();
    let other = Tiny::llama(2).model();
    let verdict = verify(&Key::Weights(&other), &honest, &proof, 1);
    let (stated, found) = (case.model.id(), other.id());
    assert_eq!(
        verdict,
        Err(Rejection::Claim(ClaimError::WrongModel { stated, found }))
    );
    let reversed: Vec<u32> = case.prompt.iter().rev().copied().collect();
    check(
        Claim {
            prompt: &reversed,
            ..honest
        },
        ClaimError::WrongTokens("prompt"),
    );
    let changed: Vec<u32> = case.output.iter().map(|token| token ^ 1).collect();
    check(
        Claim {
            output: &changed,
            ..honest
        },
        ClaimError::WrongTokens("output"),
    );
    let count = |what, stated, found| ClaimError::WrongCount {
        what,
        stated,
        found,
    };
    check(
        Claim {
            prompt: &case.prompt[1..],
            ..honest
        },
        count("prompt", 4, 3),
    );
    check(
        Claim {
            output: &case.output[..2],
            ..honest
        },
        count("output", 3, 2),
    );
    let sampler = SamplerParams::greedy(4);
    check(
        Claim {
            sampler: &sampler,
            ..honest
        },
        ClaimError::WrongSampler,
    );
    let counted = Statement {
        n_output: TokenCount(2),
        ..case.statement
    };
    check(
        Claim {
            statement: &counted,
            ..honest
        },
        count("output", 2, 3),
    );
    let unknown = [256, 72, 101, 288];
    check(
        Claim {
            prompt: &unknown,
            ..honest
        },
        ClaimError::UnknownToken {
            token: 288,
            vocab: 288,
        },
    );
    let nothing = Statement::new(
        case.model.id(),
        &PROMPT,
        &case.sampler,
        &[],
        StopReason::Cut,
    );
    check(
        Claim {
            statement: &nothing,
            output: &[],
            ..honest
        },
        ClaimError::Empty,
    );
    let long = vec![1; 2048];
    let stated = Statement::new(
        case.model.id(),
        &long,
        &case.sampler,
        &case.output,
        StopReason::Cut,
    );
    let verdict = verify(
        &key,
        &Claim {
            statement: &stated,
            prompt: &long,
            ..honest
        },
        &proof,
        1,
    );
    expect("long", &verdict, "TooLong");
}

/// A proof of what the statement says that is not the model's answer, or not its end.
#[test]
fn a_false_answer_is_named() {
    let check = |case: &mut Case, at: usize, token: u32, stop: StopReason, expected: &str| {
        case.output[at] = token;
        let (prompt, output) = (&case.prompt, &case.output);
        case.statement = Statement::new(case.model.id(), prompt, &case.sampler, output, stop);
        let proof = case.honest();
        expect("answer", &case.verify(&proof), expected);
    };
    use StopReason::{EndOfText, MaxTokens};
    for mut case in [Case::new(&Tiny::llama(1)), Case::drawn(&Tiny::llama(1))] {
        let token = case.output[2] ^ 1;
        check(&mut case, 2, token, MaxTokens, "WrongToken { position: 2");
    }
    let mut case = Case::new(&Tiny::llama(1));
    let last = case.output[2];
    check(&mut case, 2, last, EndOfText, "WrongEnd");
}

/// The second best id, told as the choice with its own logit: the best one's slack would be negative.
#[test]
fn no_token_but_the_largest_logits_can_be_chosen() {
    let case = Case::new(&Tiny::llama(1));
    let mut made = case.witness();
    let t = case.prompt.len();
    let relation = &made.relation;
    let constraint = relation.constraints.last().expect("the choice");
    let step = constraint.terms.iter().find_map(|term| match term {
        Term::Before { tokens, .. } => Some(relation.by_token[*tokens][t].as_canonical_u64()),
        _ => None,
    });
    let step = step.expect("the choice's step") as i64;
    let limbs: Vec<(usize, i64)> = constraint
        .terms
        .iter()
        .filter_map(|term| match term {
            Term::Cells { column, scale, .. } => {
                Some((column.first, scale.as_canonical_u64() as i64))
            }
            _ => None,
        })
        .collect();
    let ChoiceClear::Greedy(greedy) = &mut made.clear.choice else {
        panic!("a greedy answer's")
    };
    let (best, logit) = (greedy.chosen[t] as usize, greedy.logits[t]);
    let bound = |logit: i64, chosen: usize, id: usize| {
        (logit + 1 - i64::from(id < chosen)) * step - step / 2 - 1
    };
    let slack = |id: usize| -> i64 {
        let cell = |(first, k): &(usize, i64)| i64::from(made.trace.run(first + id, 1)[t]) * k;
        limbs.iter().map(cell).sum()
    };
    let scaled: Vec<i64> = (0..constraint.rows)
        .map(|id| bound(logit, best, id) - slack(id))
        .collect();
    let others = (0..scaled.len()).filter(|id| *id != best);
    let second = others.max_by_key(|id| scaled[*id]).expect("a second id");
    let lower = (scaled[second] + step / 2).div_euclid(step);
    (greedy.chosen[t], greedy.logits[t]) = (second as u32, lower);
    greedy.slacks[t] = (bound(lower, second, second) - scaled[second]) as u64;
    for (id, scaled) in scaled.iter().enumerate() {
        let slack = bound(lower, second, id) - scaled;
        for (limb, (first, _)) in limbs.iter().enumerate() {
            let value = slack >> (18 * limb) & ((1 << 18) - 1);
            assert!(rewrite(&mut made, first + id, t, value as i32));
        }
    }
    made.relation = program::build(&case.public(), &made.clear, case.tokens().1).unwrap();
    let row = best;
    let expected = Violation::Constraint {
        name: "largest logit",
        row,
        token: t,
    };
    assert_eq!(case.revealed(&made), Err(expected));
    // The answer says what the clear does.
    let mut lying = case;
    lying.output[1] = second as u32;
    let (prompt, output) = (&lying.prompt, &lying.output);
    let stop = lying.statement.stop_reason;
    lying.statement = Statement::new(lying.model.id(), prompt, &lying.sampler, output, stop);
    let proof = lying.argue(made).unwrap();
    expect("second best", &lying.verify(&proof), "Functional(Value");
}

/// A proof binds its whole statement, also what nothing is computed from.
#[test]
fn a_proof_is_of_its_statement_alone() {
    let case = Case::new(&Tiny::llama(1));
    let proof = case.honest();
    let other = Statement {
        stop_reason: StopReason::Cut,
        ..case.statement
    };
    let claim = Claim {
        statement: &other,
        ..case.claim()
    };
    let verdict = verify(&Key::Weights(&case.model), &claim, &proof, THREADS);
    expect("another end", &verdict, "Nonce");
}
