//! Every kind of value in the clear: none can be another, though the relation is built from the lie.

use assay_testkit::tiny::Tiny;

use super::Case;
use crate::clear::{ChoiceClear, Clear, GreedyClear, NormClear, Peak};
use crate::relation::program;
use crate::witness::Witness;

type Lie = (&'static str, fn(&mut Clear));

fn peak(norm: &mut NormClear) -> &mut Peak {
    norm.peak.as_mut().expect("a norm before a matrix")
}

fn greedy(clear: &mut Clear) -> &mut GreedyClear {
    match &mut clear.choice {
        ChoiceClear::Greedy(greedy) => greedy,
        ChoiceClear::Shown(_) => panic!("a greedy answer's"),
    }
}

pub(super) fn shown(clear: &mut Clear) -> &mut [i16] {
    match &mut clear.choice {
        ChoiceClear::Greedy(_) => panic!("a drawn answer's"),
        ChoiceClear::Shown(shown) => shown,
    }
}

/// Each at a position that is not padding.
const LIES: &[Lie] = &[
    ("a sum of squares, more", |c| {
        c.layers[0].attention_norm.ss[2] += 1
    }),
    ("a sum of squares, less", |c| {
        c.layers[1].ffn_norm.ss[0] -= 1
    }),
    ("the last sum of squares", |c| c.final_norm.ss[4] += 2),
    ("a norm's peak", |c| {
        peak(&mut c.layers[0].attention_norm).value[1] += 1
    }),
    ("the place of a norm's peak", |c| {
        peak(&mut c.layers[1].ffn_norm).at[3] ^= 1;
    }),
    ("the last peak", |c| peak(&mut c.final_norm).value[5] -= 1),
    ("the mix's peak", |c| c.layers[0].mix.value[2] += 1),
    ("the place of the mix's peak", |c| {
        c.layers[1].mix.at[2] ^= 1
    }),
    ("the product's peak", |c| c.layers[1].product.value[0] -= 1),
    ("the place of the product's peak", |c| {
        c.layers[0].product.at[5] ^= 1
    }),
    ("the place of a largest score", |c| {
        let at = &mut c.layers[0].max_at[5];
        *at = (*at + 1) % 5;
    }),
    ("a largest score, more", |c| c.layers[1].max[3] += 1),
    ("a largest score, less", |c| c.layers[1].max[2] -= 1),
    ("a sum of exponentials, more", |c| c.layers[0].sum[4] += 1),
    ("a sum of exponentials, less", |c| c.layers[1].sum[5] -= 1),
];

const GREEDY: &[Lie] = &[
    ("a chosen token", |c| greedy(c).chosen[4] ^= 1),
    ("the first token", |c| greedy(c).chosen[3] = 0),
    ("a chosen logit, more", |c| greedy(c).logits[5] += 1),
    ("a chosen logit, less", |c| greedy(c).logits[3] -= 1),
    ("how much more a logit could be", |c| {
        greedy(c).slacks[4] ^= 1
    }),
];

const SHOWN: &[Lie] = &[("a last activation", |c| shown(c)[7] += 1)];

const GEMMAS: &[Lie] = &[
    ("a query's sum of squares", |c| {
        c.layers[0].head_norms.as_mut().expect("gemma's")[0].ss[3] += 1;
    }),
    ("a key's sum of squares", |c| {
        c.layers[1].head_norms.as_mut().expect("gemma's")[1].ss[2] += 1;
    }),
    ("a post-norm's sum of squares", |c| {
        c.layers[0].attention_post.as_mut().expect("gemma's").ss[1] += 1;
    }),
    ("the MLP's post-norm's sum of squares", |c| {
        c.layers[1].ffn_post.as_mut().expect("gemma's").ss[1] -= 1;
    }),
];

/// The trace with a lie beside it, and the relation that follows from the lie; None where none does.
fn lied(case: &Case, lie: fn(&mut Clear)) -> Option<Witness> {
    let mut made = case.witness();
    let rows = made.relation.rows;
    lie(&mut made.clear);
    made.relation = program::build(&case.public(), &made.clear, case.tokens().1).ok()?;
    assert_eq!(
        made.relation.rows, rows,
        "a lie that leaves the columns as they are"
    );
    Some(made)
}

#[test]
fn no_value_in_the_clear_can_be_another() {
    for (case, lies) in [
        (Case::new(&Tiny::llama(1)), [LIES, GREEDY, &[]]),
        (Case::drawn(&Tiny::gemma3(1)), [LIES, GEMMAS, SHOWN]),
    ] {
        for (name, lie) in lies.into_iter().flatten() {
            if let Some(made) = lied(&case, *lie) {
                assert!(case.revealed(&made).is_err(), "{name} is accepted");
            }
        }
    }
}

fn proven(case: &Case, lies: &[Lie]) {
    for (name, lie) in lies {
        let Some(made) = lied(case, *lie) else {
            continue;
        };
        if let Ok(proof) = case.argue(made) {
            let verdict = case.verify(&proof);
            println!("{name}: {verdict:?}");
            assert!(verdict.is_err(), "{name} is proven");
        }
    }
}

#[test]
fn a_lie_in_the_clear_is_not_proven() {
    let few = ["a sum of squares, more", "a largest score, more"];
    let few: Vec<Lie> = LIES
        .iter()
        .filter(|lie| few.contains(&lie.0))
        .copied()
        .collect();
    proven(&Case::new(&Tiny::llama(1)), &few);
    proven(&Case::new(&Tiny::llama(1)), GREEDY);
    proven(&Case::drawn(&Tiny::llama(1)), SHOWN);
}

#[test]
#[ignore = "a minute: every kind"]
fn no_lie_in_the_clear_is_proven() {
    let case = Case::drawn(&Tiny::gemma3(1));
    proven(&case, LIES);
    proven(&case, GEMMAS);
}
