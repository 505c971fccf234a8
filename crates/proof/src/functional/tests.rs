//! Functionals against their definition, and what a verifier must not accept.

use super::*;
use crate::field::signed;
use crate::rounds::testing::{Random, damaged, next_of};

const TAG: &str = "functional";

fn some(seed: u64) -> (Functional, TraceMatrix) {
    let mut random = Random(seed);
    let (rows, tokens) = (1 + random.below(70), 1 << random.below(5));
    let value = |_| (random.integer(31) as i32).wrapping_sub(1);
    let f = TraceMatrix::new(tokens, (0..rows * tokens).map(value).collect());
    let vectors: Vec<Vec<K>> = (0..1 + random.below(5))
        .map(|_| random.elements(tokens))
        .collect();
    let entry = |random: &mut Random| {
        let (first_row, stride) = (random.below(rows), 1 + random.below(4));
        let count = random.below((rows - first_row).div_ceil(stride) + 1);
        let vector = random.below(vectors.len());
        Entry {
            vector,
            first_row,
            stride,
            weights: random.elements(count),
        }
    };
    let entries = (0..random.below(20)).map(|_| entry(&mut random)).collect();
    let value = K::ZERO;
    let mut functional = Functional {
        vectors,
        entries,
        value,
    };
    functional.value = functional.evaluate(&f);
    (functional, f)
}

fn transcript() -> Transcript {
    Transcript::new(TAG)
}

fn check(
    functional: &Functional,
    f: &TraceMatrix,
    proof: &FunctionalProof,
) -> Result<(Vec<K>, K), FunctionalError> {
    verify(functional, f.rows(), proof, &mut transcript())
}

fn bytes(proof: &FunctionalProof) -> Vec<u8> {
    let mut out = Writer::new(TAG);
    proof.write(&mut out);
    out.finish()
}

fn read(f: &TraceMatrix, bytes: &[u8]) -> Result<FunctionalProof, CodecError> {
    let mut from = Reader::new(TAG, bytes)?;
    let proof = FunctionalProof::read(f.rows(), f.tokens(), &mut from)?;
    from.finish()?;
    Ok(proof)
}

#[test]
fn a_functionals_value_is_the_sum_that_it_says() {
    for seed in 0..20 {
        let (functional, f) = some(seed);
        let mut sum = K::ZERO;
        for entry in &functional.entries {
            for (i, weight) in entry.weights.iter().enumerate() {
                for (t, b) in functional.vectors[entry.vector].iter().enumerate() {
                    let row = entry.first_row + i * entry.stride;
                    let value = i64::from(f.values()[row * f.tokens() + t]);
                    sum += *weight * *b * signed(value);
                }
            }
        }
        assert_eq!(functional.value, sum, "seed {seed}");
    }
}

#[test]
fn a_functional_reduces_to_the_trace_at_one_point() {
    for seed in 0..60 {
        let (functional, f) = some(seed);
        let (mut proving, mut verifying) = (transcript(), transcript());
        let (proof, point, value) = prove(&functional, &f, 1 + seed as usize % 4, &mut proving);
        assert_eq!(read(&f, &bytes(&proof)), Ok(proof.clone()), "seed {seed}");
        let verified = verify(&functional, f.rows(), &proof, &mut verifying);
        assert_eq!(verified, Ok((point.clone(), value)), "seed {seed}");
        assert_eq!(value, f.at(&point), "seed {seed}");
        assert_eq!(
            next_of(&mut proving),
            next_of(&mut verifying),
            "seed {seed}"
        );
    }
}

#[test]
fn a_wrong_value_is_rejected() {
    let (honest, f) = some(1);
    let mut wrong = honest.clone();
    wrong.value += K::ONE;
    for proven in [&honest, &wrong] {
        let (proof, ..) = prove(proven, &f, 1, &mut transcript());
        assert_eq!(check(&wrong, &f, &proof), Err(FunctionalError::Value));
    }
}

#[test]
fn every_element_of_a_proof_is_bound() {
    let (functional, f) = some(2);
    let (proof, ..) = prove(&functional, &f, 1, &mut transcript());
    let bytes = bytes(&proof);
    assert_eq!(
        bytes.len(),
        4 + TAG.len() + 16 * (2 * f.variables() + 1),
        "nothing but elements"
    );
    for damaged in damaged(&bytes, 4 + TAG.len()) {
        let proof = read(&f, &damaged).expect("as many elements");
        assert_eq!(check(&functional, &f, &proof), Err(FunctionalError::Value));
    }
}

#[test]
fn another_number_of_rounds_is_rejected() {
    let (functional, f) = some(3);
    let (proof, ..) = prove(&functional, &f, 1, &mut transcript());
    let expected = f.variables();
    let mut short = proof.clone();
    short.rounds.pop();
    let got = expected - 1;
    assert_eq!(
        check(&functional, &f, &short),
        Err(FunctionalError::Rounds { expected, got })
    );
    let mut long = proof;
    long.rounds.push(Round([K::ZERO; 2]));
    let got = expected + 1;
    assert_eq!(
        check(&functional, &f, &long),
        Err(FunctionalError::Rounds { expected, got })
    );
}

#[test]
fn bytes_cut_short_or_made_up_are_refused_without_a_panic() {
    let (functional, f) = some(4);
    let (proof, ..) = prove(&functional, &f, 1, &mut transcript());
    let bytes = bytes(&proof);
    for len in 0..bytes.len() {
        assert!(read(&f, &bytes[..len]).is_err(), "{len} bytes");
    }
    let mut random = Random(5);
    for _ in 0..500 {
        let mut other = bytes.clone();
        for _ in 0..1 + random.below(8) {
            let at = 4 + TAG.len() + random.below(bytes.len() - 4 - TAG.len());
            other[at] ^= 1 + random.below(255) as u8;
        }
        if let Ok(proof) = read(&f, &other) {
            assert!(check(&functional, &f, &proof).is_err() || other == bytes);
        }
    }
}

/// What follows in the transcript depends on the functional's value and on the trace's.
#[test]
fn both_values_are_absorbed() {
    let after = |claimed: K, value: K| {
        let mut t = transcript();
        let functional = Functional {
            vectors: Vec::new(),
            entries: Vec::new(),
            value: claimed,
        };
        open(&functional, &mut t);
        close(value, &mut t);
        next_of(&mut t)
    };
    let plain = after(K::ONE, K::ONE);
    assert_ne!(plain, after(K::TWO, K::ONE));
    assert_ne!(plain, after(K::ONE, K::TWO));
}

#[test]
fn entries_are_shared_out_in_order() {
    let entry = |weights: usize| Entry {
        vector: 0,
        first_row: 0,
        stride: 1,
        weights: vec![K::ONE; weights],
    };
    for sizes in [
        vec![],
        vec![0],
        vec![5, 1, 1, 9, 0, 3],
        vec![100, 1],
        vec![1, 100],
    ] {
        let entries: Vec<Entry> = sizes.iter().map(|size| entry(*size)).collect();
        let entries: Vec<&Entry> = entries.iter().collect();
        for threads in 0..5 {
            let shares: Vec<&[&Entry]> = equal_shares(&entries, threads).collect();
            assert!(shares.len() <= threads.max(1), "{sizes:?} on {threads}");
            let joined: Vec<usize> = shares
                .concat()
                .iter()
                .map(|entry| entry.weights.len())
                .collect();
            assert_eq!(joined, sizes);
        }
    }
}

#[test]
fn the_error_counts_the_rounds() {
    assert_eq!(error_over_field(1, 1), 0);
    assert_eq!(error_over_field(1_500_000, 256), 2 * (21 + 8));
}

/// `cargo test --release -p assay-proof -- --ignored --nocapture typical_functional`
#[test]
#[ignore = "a measurement"]
fn typical_functional_costs_so_much() {
    const ROWS: usize = 1_500_000;
    let mut random = Random(6);
    let f = TraceMatrix::new(
        256,
        (0..ROWS * 256).map(|_| random.integer(15) as i32).collect(),
    );
    let vectors: Vec<Vec<K>> = (0..4000).map(|_| random.elements(256)).collect();
    let mut entries = Vec::new();
    let mut touched = 0;
    for i in 0..9000 {
        let stride = if i % 3 == 2 { 3 } else { 1 };
        let rows = if i % 10 == 0 { 1536 } else { 500 };
        let first_row = random.below(ROWS - rows);
        touched += rows / stride;
        let vector = random.below(vectors.len());
        entries.push(Entry {
            vector,
            first_row,
            stride,
            weights: random.elements(rows / stride),
        });
    }
    let mut functional = Functional {
        vectors,
        entries,
        value: K::ZERO,
    };
    functional.value = functional.evaluate(&f);
    let cells = (ROWS + touched) * 256;
    for threads in [1, 2] {
        let start = std::time::Instant::now();
        let (proof, ..) = prove(&functional, &f, threads, &mut transcript());
        let took = start.elapsed();
        let verified = (0..5).map(|_| {
            let start = std::time::Instant::now();
            let _ = check(&functional, &f, &proof).expect("an honest proof");
            start.elapsed()
        });
        let verified = verified.min().expect("five times");
        println!(
            "{touched} rows in entries, {threads} threads: {took:?}, {} ps for each of {cells} cells; verified in {verified:?}, {} bytes",
            1000 * took.as_nanos() / cells as u128,
            bytes(&proof).len(),
        );
    }
}
