//! Sums of fractions: honest ones of every size, each message tampered with, and bytes that are no proof.

use proptest::prelude::*;

use super::*;
use crate::field::eq_table;

fn random(seed: u64, i: u64) -> K {
    let word = |j: u64| {
        let mut x = (seed << 40 ^ i << 1 ^ j).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for _ in 0..3 {
            x = (x ^ x >> 31).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        }
        F::new(x)
    };
    K::new([word(0), word(1)])
}

fn ones(count: usize) -> Leaves {
    Leaves {
        numerators: None,
        denominators: (0..count as u64).map(|i| random(1, i)).collect(),
    }
}

fn given_numerators(count: usize) -> Leaves {
    let numerators = (0..count as u64).map(|i| F::new(i * i % 7)).collect();
    Leaves {
        numerators: Some(numerators),
        ..ones(count)
    }
}

fn transcript() -> Transcript {
    Transcript::new("fractions test")
}

fn proven(leaves: &Leaves, threads: usize) -> (FractionProof, FractionClaim) {
    prove_in(&mut Memory::default(), leaves, threads, &mut transcript()).unwrap()
}

fn numerator(leaves: &Leaves, i: usize) -> K {
    let numerators = leaves.numerators.as_ref();
    numerators.map_or(K::ONE, |numerators| K::from(numerators[i]))
}

/// The sum is the field's, the claim is the padded vectors' value, and both sides end in one transcript.
fn check(leaves: &Leaves, memory: &mut Memory, threads: usize) {
    let count = leaves.denominators.len();
    let (mut ours, mut theirs) = (transcript(), transcript());
    let (proof, claim) = prove_in(memory, leaves, threads, &mut ours).unwrap();
    assert_eq!(verify(count, &proof, &mut theirs), Ok(claim.clone()));
    assert_eq!(ours.challenge("next"), theirs.challenge("next"));

    let sum: K = (0..count)
        .map(|i| numerator(leaves, i) / leaves.denominators[i])
        .sum();
    assert_eq!(proof.root.0, sum * proof.root.1, "{count}");

    assert_eq!(claim.point.len(), log2_ceil(count));
    let eq = eq_table(&claim.point, 1 << claim.point.len());
    let (mut p, mut q) = (K::ZERO, K::ZERO);
    for (i, eq) in eq.into_iter().enumerate() {
        if i < count {
            p += eq * numerator(leaves, i);
            q += eq * leaves.denominators[i];
        } else {
            q += eq;
        }
    }
    assert_eq!((claim.numerator, claim.denominator), (p, q), "{count}");
    if leaves.numerators.is_none() {
        assert_eq!(eq_below(&claim.point, count), p);
    }

    let mut bytes = Vec::new();
    proof.write(&mut bytes);
    let mut rest = bytes.as_slice();
    assert_eq!(FractionProof::read(&mut rest, count), Ok(proof));
    assert!(rest.is_empty());
}

#[test]
fn honest_sums_verify_at_every_size() {
    // One memory for all, so that a proof finds another's remains in it.
    let memory = &mut Memory::default();
    for count in (0..70).chain([100, 127, 128, 129, 1000, 1023, 1025, 5000]) {
        check(&ones(count), memory, 1);
        check(&given_numerators(count), memory, 1);
    }
}

#[test]
fn threads_change_nothing() {
    for count in [30_000, 32_768, 40_961, 65_537] {
        for leaves in [ones(count), given_numerators(count)] {
            check(&leaves, &mut Memory::default(), 3);
            assert_eq!(proven(&leaves, 1), proven(&leaves, 2));
        }
    }
}

/// A proof with one element changed.
fn tampered(proof: &FractionProof, at: usize, by: K) -> FractionProof {
    let mut proof = proof.clone();
    match at {
        0 => proof.root.0 += by,
        1 => proof.root.1 += by,
        _ => proof.messages[at - 2] += by,
    }
    proof
}

#[test]
fn every_element_of_a_proof_is_checked() {
    for leaves in [ones(21), given_numerators(21), ones(2), ones(3)] {
        let count = leaves.denominators.len();
        let (proof, _) = proven(&leaves, 1);
        for at in 0..proof.messages.len() + 2 {
            for by in [K::ONE, K::new([F::new(0), F::new(1)])] {
                let proof = tampered(&proof, at, by);
                let result = verify(count, &proof, &mut transcript());
                assert!(result.is_err(), "element {at} of {count} leaves");
            }
        }
    }
}

/// Two proofs that differ in one element alone fail at the same check: only what was absorbed tells their
/// transcripts apart.
#[test]
fn every_element_of_a_proof_moves_the_challenges() {
    let (proof, _) = proven(&ones(21), 1);
    for at in 0..proof.messages.len() + 2 {
        let after = |by| {
            let mut transcript = transcript();
            let error = verify(21, &tampered(&proof, at, by), &mut transcript).unwrap_err();
            (error, transcript.challenge("after"))
        };
        let (one, two) = (after(K::ONE), after(K::from_u64(2)));
        assert_eq!(one.0, two.0);
        assert_ne!(one.1, two.1, "element {at}");
    }
}

#[test]
fn another_root_is_refused() {
    let (proof, _) = proven(&ones(5), 1);
    // The same sum, not in the tree's terms.
    let two = K::from_u64(2);
    let mut scaled = proof.clone();
    scaled.root = (two * proof.root.0, two * proof.root.1);
    let wrong = Err(FractionError::WrongRoot);
    assert_eq!(verify(5, &scaled, &mut transcript()), wrong);
    assert_eq!(
        verify(5, &tampered(&proof, 0, K::ONE), &mut transcript()),
        wrong
    );
}

#[test]
fn a_level_that_does_not_add_up_is_named() {
    let (proof, _) = proven(&ones(8), 1);
    for (at, variables) in [(6, 1), (10, 1), (11, 2), (17, 2)] {
        let result = verify(8, &tampered(&proof, at, K::ONE), &mut transcript());
        assert_eq!(result, Err(FractionError::WrongLevel { variables }));
    }
}

#[test]
fn a_zero_denominator_is_refused_by_both_sides() {
    let zero = Err(FractionError::ZeroDenominator);
    for count in [1, 2, 5] {
        let mut leaves = ones(count);
        leaves.denominators[count / 2] = K::ZERO;
        let result = prove(leaves, 1, &mut transcript());
        assert_eq!(result.map(|_| ()), Err(FractionError::ZeroDenominator));
    }
    // 1/0 + 1/q: all but the check for zero would pass.
    let q = K::from_u64(5);
    let proof = FractionProof {
        root: (q, K::ZERO),
        messages: vec![K::ONE, K::ONE, K::ZERO, q],
    };
    assert_eq!(verify(2, &proof, &mut transcript()), zero);
    let single = FractionProof {
        root: (K::ONE, K::ZERO),
        messages: Vec::new(),
    };
    assert_eq!(verify(1, &single, &mut transcript()), zero);
}

#[test]
fn a_proof_for_another_number_of_leaves_is_refused() {
    let (proof, _) = proven(&ones(8), 1);
    // The same shape, but the count is absorbed.
    assert!(verify(7, &proof, &mut transcript()).is_err());
    let error = FractionError::WrongLength {
        leaves: 9,
        expected: 25,
        got: 16,
    };
    assert_eq!(verify(9, &proof, &mut transcript()), Err(error));
}

#[test]
fn a_proof_for_another_transcript_is_refused() {
    let (proof, _) = proven(&ones(8), 1);
    let mut other = transcript();
    other.absorb("more", &[K::ONE]);
    assert!(verify(8, &proof, &mut other).is_err());
}

#[test]
fn the_error_s_numerator_is_the_square_of_the_variables() {
    for (leaves, error) in [(1, 0), (2, 1), (3, 4), (8, 9), (11_000_000, 576)] {
        assert_eq!(error_over_field(leaves), error);
    }
}

fn encoded(count: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    proven(&ones(count), 1).0.write(&mut bytes);
    bytes
}

#[test]
fn bytes_cut_short_are_refused() {
    let bytes = encoded(11);
    for len in 0..bytes.len() {
        let result = FractionProof::read(&mut &bytes[..len], 11);
        assert!(matches!(result, Err(CodecError::Truncated { .. })), "{len}");
    }
}

#[test]
fn bytes_beyond_a_proof_are_left_to_the_caller() {
    let mut bytes = encoded(11);
    bytes.push(0);
    let mut rest = bytes.as_slice();
    FractionProof::read(&mut rest, 11).unwrap();
    assert_eq!(codec::finish(rest), Err(CodecError::Trailing { left: 1 }));
}

proptest! {
    #[test]
    fn changed_bytes_never_panic_and_never_verify(at in any::<prop::sample::Index>(), with in 1u8..) {
        let mut bytes = encoded(11);
        bytes[at.index(encoded(11).len())] ^= with;
        for leaves in 0..40 {
            if let Ok(proof) = FractionProof::read(&mut bytes.as_slice(), leaves) {
                let result = verify(leaves, &proof, &mut transcript());
                prop_assert!(leaves != 11 || result.is_err());
            }
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000), leaves in any::<usize>()) {
        for leaves in [leaves % 64, leaves >> 1] {
            if let Ok(proof) = FractionProof::read(&mut bytes.as_slice(), leaves) {
                let _ = verify(leaves, &proof, &mut transcript());
            }
        }
    }
}

/// `cargo test --release -p assay-proof what_a_leaf_costs -- --ignored --nocapture`
#[test]
#[ignore = "measures"]
fn what_a_leaf_costs() {
    const COUNT: usize = 11_000_000;
    for (name, leaves) in [("ones", ones(COUNT)), ("given", given_numerators(COUNT))] {
        let memory = &mut Memory::default();
        for threads in [1, 2] {
            let nanoseconds = (0..4).map(|_| {
                let start = std::time::Instant::now();
                prove_in(memory, &leaves, threads, &mut transcript()).unwrap();
                start.elapsed().as_nanos()
            });
            let best = nanoseconds.min().unwrap() / (COUNT as u128 / 10);
            println!(
                "{name}, {threads} threads: {}.{} ns a leaf",
                best / 10,
                best % 10
            );
        }
    }
}
