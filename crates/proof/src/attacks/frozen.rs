//! What each absorption is there for: with it left out, either a false claim is accepted that is refused with
//! it, or at least the challenges no longer depend on the message.
//!
//! A forgery stands for `products`, `round` (of both sumchecks), `fraction square`, `fraction halves` with
//! `fraction sum`, and `statement`. For `model`, `weights read` and `opened`, `tokens`, `clear`,
//! `trace`, `products: values` and `products' factors` the tests show the dependence alone. Of a proof's messages these are absorbed twice,
//! so that neither place alone is needed: the model (in the statement), a tree's root (in its halves), the
//! claimed products (as the products' sums), and what an opening absorbs again of what led to it.

use assay_protocol::Statement;
use assay_protocol::StopReason;
use assay_protocol::codec::{Reader, Writer};
use assay_testkit::tiny::Tiny;
use p3_field::{Field, PrimeCharacteristicRing};

use super::{Case, THREADS, checks::edited};
use crate::claim::{Claim, Key};
use crate::codec;
use crate::commit::Commitment;
use crate::field::{F, K, signed};
use crate::fractions::{self, FractionProof, Leaves};
use crate::functional::{self, Entry, Functional, FunctionalProof};
use crate::matrix::TraceMatrix;
use crate::products::{self, Factor, Product, ProductsProof, Weight};
use crate::proof::Proof;
use crate::relation;
use crate::rounds::testing::Random;
use crate::rounds::{self, Round};
use crate::schedule::{self, Weights};
use crate::transcript::Transcript;
use crate::transcript::testing::{drawn, without};
use crate::verify::verify;

/// Accepted without these absorptions, refused with them.
fn check(labels: &[&str], mut forge_and_verify: impl FnMut() -> bool) {
    assert!(
        without(labels, &mut forge_and_verify),
        "not accepted without {labels:?}"
    );
    assert!(!forge_and_verify(), "accepted with {labels:?}");
}

/// The value that an affine function takes to `wanted`.
fn solve(wanted: K, f: impl Fn(K) -> K) -> K {
    let zero = f(K::ZERO);
    (wanted - zero) * (f(K::ONE) - zero).inverse()
}

/// What the rounds lead to, with the first one's constant raised.
fn led_to<const D: usize>(rounds: &[Round<D>], claim: K, t: &Transcript, raised: K) -> K {
    let mut rounds = rounds.to_vec();
    rounds[0].0[0] += raised;
    rounds::follow(&rounds, claim, &mut t.clone()).1
}

fn written(write: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut out = Writer::new("");
    write(&mut out);
    out.finish()
}

/// Two products of four.
fn two_products(random: &mut Random) -> Vec<Product> {
    let mut product = || {
        let (left, right) = (random.elements(4), random.elements(4));
        let sum = left.iter().zip(&right).map(|(a, b)| *a * *b).sum();
        Product {
            weight: Weight::One,
            left: Factor::Dense(left),
            right: Factor::Dense(right),
            sum,
        }
    };
    vec![product(), product()]
}

fn shapes(sums: &[K]) -> Vec<(usize, &'static Weight, K)> {
    sums.iter().map(|sum| (4, &Weight::One, *sum)).collect()
}

#[test]
fn sums_of_products_that_are_not_absorbed_make_up_for_each_other() {
    let products = two_products(&mut Random(1));
    let sums: Vec<K> = products.iter().map(|product| product.sum).collect();
    check(&["products"], || {
        let mut t = Transcript::new("frozen");
        let (proof, _) = products::prove(products.clone(), 1, &mut t.clone());
        // The batching challenge is known before the sums are.
        let batching = t.clone().challenge("products' batching");
        let lie = [sums[0] + batching, sums[1] - K::ONE];
        products::verify(&shapes(&lie), &proof, &mut t).is_ok()
    });
}

#[test]
fn a_sumchecks_rounds_that_are_not_absorbed_lead_anywhere() {
    let products = two_products(&mut Random(2));
    let sums: Vec<K> = products.iter().map(|product| product.sum).collect();
    check(&["round"], || {
        let mut t = Transcript::new("frozen");
        let mut lie = products.clone();
        lie[0].sum += K::ONE;
        let false_sums = [sums[0] + K::ONE, sums[1]];
        let (proof, _) = products::prove(lie, 1, &mut t.clone());
        let bytes = written(|out| proof.write(out));
        let mut from = Reader::new("", &bytes).unwrap();
        let mut rounds = rounds::read_rounds::<3>(2, &mut from).unwrap();
        // Where the rounds are not absorbed, the challenges after the sums are known.
        let mut opened = t.clone();
        opened.absorb("products", &false_sums);
        let batching = opened.challenge("products' batching");
        let [told, honest] = [&false_sums[..], &sums].map(|sums| sums[0] + batching * sums[1]);
        let wanted = led_to(&rounds, honest, &opened, K::ZERO);
        let raised = solve(wanted, |x| led_to(&rounds, told, &opened, x));
        rounds[0].0[0] += raised;
        let forged = written(|out| rounds::write_rounds(&rounds, out));
        let forged = [&forged[..], &bytes[forged.len()..]].concat();
        let forged = ProductsProof::read(&[4, 4], &mut Reader::new("", &forged).unwrap()).unwrap();
        products::verify(&shapes(&false_sums), &forged, &mut t).is_ok()
    });
}

#[test]
fn a_functionals_rounds_that_are_not_absorbed_lead_anywhere() {
    let mut random = Random(3);
    let trace = TraceMatrix::new(4, (0..16).map(|v| v * v - 40).collect());
    let mut told = Functional {
        vectors: vec![random.elements(4)],
        entries: vec![Entry {
            vector: 0,
            first_row: 0,
            stride: 1,
            weights: random.elements(4),
        }],
        value: K::ZERO,
    };
    let honest = told.evaluate(&trace);
    told.value = honest + K::ONE;
    check(&["round"], || {
        let mut t = Transcript::new("frozen");
        let (proof, ..) = functional::prove(&told, &trace, 1, &mut t.clone());
        let bytes = written(|out| proof.write(out));
        let mut rounds =
            rounds::read_rounds::<2>(4, &mut Reader::new("", &bytes).unwrap()).unwrap();
        let mut opened = t.clone();
        opened.absorb("functional", &[told.value]);
        let wanted = led_to(&rounds, honest, &opened, K::ZERO);
        let raised = solve(wanted, |x| led_to(&rounds, told.value, &opened, x));
        rounds[0].0[0] += raised;
        let forged = written(|out| rounds::write_rounds(&rounds, out));
        let forged = [&forged[..], &bytes[forged.len()..]].concat();
        let forged = FunctionalProof::read(4, 4, &mut Reader::new("", &forged).unwrap()).unwrap();
        let verdict = functional::verify(&told, 4, &forged, &mut t);
        // And the opening would succeed: the value is the trace's.
        verdict.is_ok_and(|(point, value)| trace.at(&point) == value)
    });
}

const LEAVES: [i64; 4] = [3, 5, 7, 11];

fn four_leaves() -> Leaves {
    Leaves {
        numerators: None,
        denominators: LEAVES.map(|q| K::from(signed(q))).to_vec(),
    }
}

/// Root, halves, a square, halves again.
fn tree(elements: &[K]) -> FractionProof {
    let mut bytes = Vec::new();
    codec::write_elements(&mut bytes, elements);
    FractionProof::read(&mut bytes.as_slice(), 4).unwrap()
}

fn elements(proof: &FractionProof) -> Vec<K> {
    let mut bytes = Vec::new();
    proof.write(&mut bytes);
    codec::read_elements(&mut bytes.as_slice(), bytes.len() / codec::ELEMENT_BYTES).unwrap()
}

/// The leaves that a claim about them is held against: the numerators are all one.
fn accepted(proof: &FractionProof, t: &mut Transcript) -> bool {
    let denominators = LEAVES.map(|q| K::from(signed(q)));
    fractions::verify(4, proof, t).is_ok_and(|claim| {
        let eq = crate::field::eq_table(&claim.point, 4);
        let at: K = eq.iter().zip(denominators).map(|(eq, q)| *eq * q).sum();
        claim.numerator == K::ONE && claim.denominator == at
    })
}

#[test]
fn an_honest_sum_of_four_is_accepted() {
    let mut t = Transcript::new("frozen");
    let (proof, _) = fractions::prove(four_leaves(), 1, &mut t.clone()).unwrap();
    assert_eq!(tree(&elements(&proof)), proof);
    assert!(accepted(&proof, &mut t));
}

#[test]
fn a_square_that_is_not_absorbed_hides_a_false_sum() {
    check(&["fraction square"], || {
        let t = Transcript::new("frozen");
        let (proof, _) = fractions::prove(four_leaves(), 1, &mut t.clone()).unwrap();
        let mut all = elements(&proof);
        // A numerator one too large, and the root that follows from it.
        all[2] += K::ONE;
        let [p0, p1, q0, q1] = all[2..6] else {
            unreachable!()
        };
        all[0] = p0 * q1 + p1 * q0;
        let mut after = t.clone();
        after.absorb_bytes("fractions", &4u64.to_be_bytes());
        after.absorb("fraction sum", &all[..2]);
        after.absorb("fraction halves", &all[2..6]);
        let lambda = after.challenge("fraction lambda");
        after.absorb("fraction square", &all[6..7]);
        let r = after.challenge("fraction round");
        // Below, the truth: both halves of the leaves' denominators at r.
        let q = LEAVES.map(|q| K::from(signed(q)));
        let [low, high] = [0, 1].map(|b| q[b] + r * (q[2 + b] - q[b]));
        all[7..].copy_from_slice(&[K::ONE, K::ONE, low, high]);
        let wanted = low + high + lambda * low * high;
        let (zero, one) = (p0 + lambda * q0, p1 + lambda * q1);
        all[6] = solve(wanted, |square| {
            zero + r * (one - zero - square + r * square)
        });
        accepted(&tree(&all), &mut t.clone())
    });
}

/// The root says as much as the halves do, so both are left out.
#[test]
fn halves_that_are_not_absorbed_hide_a_false_sum() {
    check(&["fraction sum", "fraction halves"], || {
        let t = Transcript::new("frozen");
        let (proof, _) = fractions::prove(four_leaves(), 1, &mut t.clone()).unwrap();
        let mut all = elements(&proof);
        let mut after = t.clone();
        after.absorb_bytes("fractions", &4u64.to_be_bytes());
        after.absorb("fraction sum", &all[..2]);
        after.absorb("fraction halves", &all[2..6]);
        let lambda = after.challenge("fraction lambda");
        // What a numerator gains its denominator loses: their combination stays.
        all[2] += lambda;
        all[4] -= K::ONE;
        let [p0, p1, q0, q1] = all[2..6] else {
            unreachable!()
        };
        (all[0], all[1]) = (p0 * q1 + p1 * q0, q0 * q1);
        accepted(&tree(&all), &mut t.clone())
    });
}

#[test]
fn a_statement_that_is_not_absorbed_lends_its_proof_to_another() {
    let case = Case::new(&Tiny::llama(1));
    let other = Statement {
        stop_reason: StopReason::Cut,
        ..case.statement
    };
    check(&["statement"], || {
        let proof = case.honest();
        let claim = Claim {
            statement: &other,
            ..case.claim()
        };
        verify(&Key::Weights(&case.model), &claim, &proof, THREADS).is_ok()
    });
}

/// What begins the transcript, each changed alone.
#[test]
fn the_first_challenge_follows_from_all_that_is_known_before() {
    let case = Case::new(&Tiny::llama(1));
    let s = case.statement;
    let other = Statement {
        stop_reason: StopReason::Cut,
        ..s
    };
    let read = Weights::Read;
    let opened = Weights::Opened(Commitment([6; 32]));
    let draw = |statement: &Statement, weights, tokens: &[u32], clear: &[u8], root| {
        let mut t = schedule::begin(statement, weights, tokens, clear, &Commitment([root; 32]));
        t.challenge("first")
    };
    let plain = || draw(&s, &read, &[1, 2], &[3], 4);
    let check = |labels: &[&str], changed: &dyn Fn() -> K| {
        assert_ne!(plain(), changed(), "{labels:?}");
        without(labels, || assert_eq!(plain(), changed(), "{labels:?}"));
    };
    let model = Statement {
        model_id: s.output_root,
        ..s
    };
    check(&["statement"], &|| draw(&other, &read, &[1, 2], &[3], 4));
    check(&["statement", "model"], &|| {
        draw(&model, &read, &[1, 2], &[3], 4)
    });
    check(&["weights read", "weights opened"], &|| {
        draw(&s, &opened, &[1, 2], &[3], 4)
    });
    check(&["tokens"], &|| draw(&s, &read, &[1, 3], &[3], 4));
    check(&["clear"], &|| draw(&s, &read, &[1, 2], &[5], 4));
    check(&["trace"], &|| draw(&s, &read, &[1, 2], &[3], 5));
}

/// Edits of a proof's later messages: the challenges before are the same, those after are others; without
/// the absorption all are the same.
#[test]
fn challenges_follow_from_the_proofs_later_messages() {
    let case = Case::new(&Tiny::llama(1));
    let proof = case.honest();
    let challenges = |proof: &Proof| drawn(|| drop(case.verify(proof))).1;
    let check = |labels: &[&str], next: &str, edit: &dyn Fn(&mut schedule::Parts)| {
        let forged = edited(&case, &proof, |_, parts| edit(parts));
        let (honest, changed) = (challenges(&proof), challenges(&forged));
        let apart = honest.iter().zip(&changed).position(|(a, b)| a != b);
        let apart = apart.unwrap_or_else(|| panic!("{labels:?}: no challenge follows"));
        assert_eq!(honest[apart].0, next, "{labels:?}");
        let frozen = |proof| without(labels, || challenges(proof));
        let (honest, changed) = (frozen(&proof), frozen(&forged));
        assert!(changed.len() > apart, "{labels:?}: drawn as far");
        let same = honest[..=apart] == changed[..=apart];
        assert!(same, "{labels:?}: the challenge still follows");
    };
    check(
        &["products: values", "products"],
        "products' batching",
        &|parts| {
            parts.claimed[0] += K::ONE;
        },
    );
    let relation = case.witness().relation;
    let lens = schedule::product_lens(&relation);
    let is_scores =
        |product: &relation::Product| matches!(product, relation::Product::Scores { .. });
    let scores = relation
        .products
        .iter()
        .position(is_scores)
        .expect("attention");
    check(&["products' factors"], "functional: batching", &|parts| {
        // The first scores' factors, which only the trace is held against: one doubled and one halved.
        let mut bytes = written(|out| parts.products.write(out));
        let first = bytes.len() - 2 * (lens.len() - scores) * codec::ELEMENT_BYTES;
        let mut pair = codec::read_elements(&mut &bytes[first..], 2).unwrap();
        pair[0] *= F::TWO;
        pair[1] *= F::TWO.inverse();
        let mut out = Vec::new();
        codec::write_elements(&mut out, &pair);
        bytes[first..first + out.len()].copy_from_slice(&out);
        parts.products = ProductsProof::read(&lens, &mut Reader::new("", &bytes).unwrap()).unwrap();
    });
}
