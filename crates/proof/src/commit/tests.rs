//! Openings that hold, and every way to break one.

use super::*;
use crate::field::{F, eq_table, signed};

fn values(len: usize) -> Vec<i32> {
    let value = |i: u64| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as i32 - (1 << 23);
    (0..len as u64).map(value).collect()
}

fn point(len: usize) -> Vec<K> {
    let k = |i: u64| K::new([F::new(i * i + 17), F::new(31 * i + 5)]);
    (0..variables(len) as u64).map(k).collect()
}

fn value_at(values: &[i32], point: &[K]) -> K {
    let eq = eq_table(point, values.len());
    let terms = values.iter().zip(eq);
    terms.map(|(v, eq)| eq * signed(i64::from(*v))).sum()
}

struct Opened {
    commitment: Commitment,
    len: usize,
    point: Vec<K>,
    value: K,
    proof: Vec<u8>,
}

fn open(len: usize) -> Opened {
    let values = values(len);
    let point = point(len);
    let value = value_at(&values, &point);
    let (commitment, committed) = commit(&values, 2);
    let mut transcript = Transcript::new("test");
    let proof = committed.open(&values, &point, value, 2, &mut transcript);
    Opened {
        commitment,
        len,
        point,
        value,
        proof,
    }
}

impl Opened {
    fn verify(&self) -> Result<(), OpeningError> {
        self.verify_bytes(&self.proof)
    }

    fn verify_bytes(&self, proof: &[u8]) -> Result<(), OpeningError> {
        let mut transcript = Transcript::new("test");
        verify(
            &self.commitment,
            self.len,
            &self.point,
            self.value,
            proof,
            &mut transcript,
        )
    }
}

#[test]
fn an_opening_holds_for_every_length() {
    for len in [
        1,
        2,
        3,
        255,
        256,
        257,
        1 << 14,
        (1 << 16) + 1,
        100_000,
        3 << 17,
    ] {
        assert_eq!(open(len).verify(), Ok(()), "{len} values");
    }
}

#[test]
fn the_largest_values_do_not_overflow() {
    let values: Vec<i32> = (0..1 << 15).map(|i| [i32::MIN, i32::MAX][i & 1]).collect();
    let point = point(values.len());
    let value = value_at(&values, &point);
    let (commitment, committed) = commit(&values, 1);
    let proof = committed.open(&values, &point, value, 1, &mut Transcript::new("test"));
    let mut transcript = Transcript::new("test");
    let verified = verify(&commitment, 1 << 15, &point, value, &proof, &mut transcript);
    assert_eq!(verified, Ok(()));
}

#[test]
fn both_sides_leave_the_same_transcript() {
    let values = values(5000);
    let point = point(5000);
    let value = value_at(&values, &point);
    let (commitment, committed) = commit(&values, 1);
    let (mut one, mut two) = (Transcript::new("test"), Transcript::new("test"));
    let proof = committed.open(&values, &point, value, 1, &mut one);
    verify(&commitment, 5000, &point, value, &proof, &mut two).expect("holds");
    assert_eq!(one.challenge("after"), two.challenge("after"));
}

#[test]
fn soundness_is_at_least_100_bits_at_every_size() {
    for log in 0..=31 {
        let security = security(1 << log);
        if [20, 24, 28, 29].contains(&log) {
            println!("2^{log} values\n{security}");
        }
        assert!(
            security.total().centibits() >= 10_000,
            "2^{log}:\n{security}"
        );
    }
}
