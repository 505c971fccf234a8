//! Bytes that are no proof, or not quite one: never a panic, never accepted.

use assay_testkit::tiny::Tiny;

use super::Case;
use crate::proof::Proof;
use crate::rounds::testing::Random;
use crate::schedule::VERSION;

fn refused(case: &Case, bytes: Vec<u8>, what: &str) {
    if let Ok(proof) = Proof::from_bytes(bytes) {
        assert!(case.verify(&proof).is_err(), "{what} is accepted");
    }
}

#[test]
fn damaged_proofs_are_refused_without_a_panic() {
    let mut random = Random(64);
    let case = Case::new(&Tiny::llama(1));
    let bytes = case.honest().as_bytes().to_vec();
    let len = bytes.len();
    let tag = 4 + VERSION.len();
    let clear = u32::from_be_bytes(bytes[tag + 1..tag + 5].try_into().unwrap()) as usize;
    // What stands before the opening is short and read first: more damage there.
    for round in 0..500 {
        let at = match round % 4 {
            0 => random.below(tag + 8),
            1 => tag + random.below(clear),
            2 => random.below(len / 4),
            _ => random.below(len),
        };
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << random.below(8);
        refused(&case, damaged, &format!("a bit of byte {at}"));
    }
    for round in 0..500 {
        let left = match round % 2 {
            0 => random.below(len),
            _ => len - 1 - random.below(64),
        };
        refused(
            &case,
            bytes[..left].to_vec(),
            &format!("the first {left} bytes"),
        );
    }
    for more in [1, 16, 4096] {
        let longer = [&bytes[..], &vec![0; more]].concat();
        refused(&case, longer, &format!("{more} bytes more"));
    }
    for _ in 0..200 {
        let (from, to) = (random.below(len), random.below(len));
        let run = random.below(400).min(len - from.max(to));
        let mut moved = bytes.clone();
        moved.copy_within(from..from + run, to);
        if moved != bytes {
            refused(&case, moved, &format!("{run} bytes from {from} at {to}"));
        }
    }
    for _ in 0..200 {
        let noise = (0..random.below(2000)).map(|_| random.below(256) as u8);
        let noise = bytes[..tag].iter().copied().chain(noise).collect();
        refused(&case, noise, "noise");
    }
}

/// Two proofs of one model: of another answer's statement, cut anywhere.
#[test]
fn proofs_spliced_from_two_are_refused() {
    let mut random = Random(65);
    let tiny = Tiny::gemma3(2);
    let case = Case::new(&tiny);
    let sampler = case.sampler.clone();
    let other = Case::of(tiny.model(), &[256, 7, 9, 101], sampler);
    let (one, two) = (case.honest(), other.honest());
    let (one, two) = (one.as_bytes(), two.as_bytes());
    for _ in 0..200 {
        let at = random.below(one.len().min(two.len()));
        let spliced = [&one[..at], &two[at..]].concat();
        if spliced != one {
            refused(&case, spliced, &format!("spliced at {at}"));
        }
    }
    refused(&case, two.to_vec(), "the other's proof");
    refused(&other, one.to_vec(), "the other's proof");
}
