//! Cases at the edges: of lengths, of what the limits hold, of the rounding that a guard is there for.

use std::sync::Arc;

use assay_engine::Model;
use assay_engine::layout::manifest_range;
use assay_protocol::SamplerParams;
use assay_protocol::manifest::{Manifest, MatrixEntry};
use assay_testkit::tiny::Tiny;
use p3_field::PrimeField64;

use super::{Case, rewrite};
use crate::fractions::FractionError;
use crate::prove::ProveError;
use crate::relation::{Column, Leaf};
use crate::revealed::Violation;

fn proven(tiny: &Tiny, prompt: &[u32], answer: u32, padded: usize) {
    let case = Case::of(tiny.model(), prompt, SamplerParams::greedy(answer));
    assert_eq!(case.tokens().0.len(), padded);
    assert!(
        case.verify(&case.honest()).is_ok(),
        "{} and {answer} tokens",
        prompt.len()
    );
}

#[test]
fn statements_of_all_lengths_are_proven() {
    let windowed = Tiny {
        window: 4,
        ..Tiny::gemma3(3)
    };
    let prompt: Vec<u32> = (0..40).map(|i| i * 7 % 256).collect();
    // One token each way; a power of two; one more; windows that many positions have left behind.
    proven(&Tiny::llama(3), &prompt[..1], 1, 8);
    proven(&Tiny::llama(4), &prompt[..6], 3, 8);
    proven(&Tiny::llama(4), &prompt[..7], 3, 16);
    proven(&windowed, &prompt[..14], 3, 16);
    proven(&windowed, &prompt[..31], 5, 64);
}

/// A matrix's results made larger by powers of two, until nothing holds them.
fn scaled(tiny: &Tiny, by: u8, pick: impl Fn(&mut Manifest) -> &mut MatrixEntry) -> Option<Model> {
    let mut bytes = tiny.bytes();
    let range = manifest_range(&bytes).unwrap();
    let mut manifest = Manifest::decode(&bytes[range.clone()]).unwrap();
    pick(&mut manifest).sh -= by;
    bytes[range].copy_from_slice(&manifest.encode());
    Model::open(Arc::new(bytes)).ok()
}

type Pick = (&'static str, fn(&mut Manifest) -> &mut MatrixEntry);

const MATRICES: [Pick; 8] = [
    ("embedding", |m| &mut m.embedding),
    ("q", |m| &mut m.layers[0].q),
    ("k", |m| &mut m.layers[1].k),
    ("v", |m| &mut m.layers[0].v),
    ("o", |m| &mut m.layers[0].o),
    ("gate", |m| &mut m.layers[1].gate),
    ("up", |m| &mut m.layers[0].up),
    ("down", |m| &mut m.layers[1].down),
];

/// A pass that saturates is refused by name; what is not refused is a trace that the relation admits.
#[test]
fn what_saturates_is_refused_and_what_does_not_is_admitted() {
    for tiny in [Tiny::llama(5), Tiny::gemma3(5)] {
        let (mut admitted, mut refused) = (0, 0);
        for (name, pick) in MATRICES {
            for by in [1, 3, 5, 7, 9, 12, 16] {
                let Some(model) = scaled(&tiny, by, pick) else {
                    continue;
                };
                let case = Case::of(model, &super::PROMPT, SamplerParams::greedy(1));
                match case.try_witness() {
                    Ok(made) => {
                        assert_eq!(case.revealed(&made), Ok(()), "{name} by 2^{by}");
                        admitted += 1;
                    }
                    Err(_) => refused += 1,
                }
            }
        }
        assert!(admitted > 10 && refused > 10, "{admitted} and {refused}");
    }
}

/// −2047.5·2^s rounds to −2047, yet its magnitude needs a larger exponent: x12 = −2047 with remainder 0.
#[test]
fn the_lowest_activation_without_remainder_is_the_edge() {
    let case = Case::new(&Tiny::llama(1));
    let mut made = case.witness();
    let guards: Vec<(Vec<Column>, usize)> = made
        .relation
        .groups
        .iter()
        .flatten()
        .filter_map(|leaf| match leaf {
            Leaf::NotZero { terms, constant } => {
                Some((terms.iter().map(|term| term.0).collect(), *constant))
            }
            Leaf::Key { .. } => None,
        })
        .collect();
    let t = 3;
    for (columns, constant) in &guards {
        let shifted = made.relation.by_token[*constant][t].as_canonical_u64() != 2048;
        let at = |column: &Column| column.row(1);
        let before: Vec<i32> = columns
            .iter()
            .map(|c| made.trace.run(at(c), 1)[t])
            .collect();
        for (index, column) in columns.iter().enumerate() {
            let edge = if index == 0 { -2047 } else { 0 };
            assert!(rewrite(&mut made, at(column), t, edge));
        }
        let edge = matches!(case.revealed(&made), Err(Violation::Edge { token: 3, .. }));
        assert_eq!(edge, shifted, "only where something is rounded");
        // One more of the remainder is a magnitude that the exponent holds.
        if let [_, remainder, ..] = columns[..] {
            rewrite(&mut made, at(&remainder), t, 1);
            let verdict = case.revealed(&made);
            assert!(
                !matches!(verdict, Err(Violation::Edge { .. })),
                "{verdict:?}"
            );
        }
        for (column, value) in columns.iter().zip(before) {
            rewrite(&mut made, at(column), t, value);
        }
    }
    assert_eq!(case.revealed(&made), Ok(()));
    // The argument cannot be made about such a trace: its guard's denominator is 0.
    let (columns, _) = &guards[0];
    for (index, column) in columns.iter().enumerate() {
        rewrite(
            &mut made,
            column.row(1),
            t,
            if index == 0 { -2047 } else { 0 },
        );
    }
    let refused = case.argue(made).map(|proof| proof.as_bytes().len());
    assert_eq!(
        refused,
        Err(ProveError::Tree(FractionError::ZeroDenominator))
    );
}
