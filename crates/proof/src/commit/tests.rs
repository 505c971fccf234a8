//! Openings that hold, and every way to break one.

use p3_field::{Field, PrimeField64};

use super::*;
use crate::field::{F, eq_table, signed};
use crate::rounds::testing::Random;
use crate::rounds::write_element;

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

#[test]
fn variables_are_told_apart() {
    // The polynomial is its first variable: odd indices are one.
    let values: Vec<i32> = (0..1 << 12).map(|i| i & 1).collect();
    let point = point(values.len());
    let (commitment, committed) = commit(&values, 1);
    let proof = committed.open(&values, &point, point[0], 1, &mut Transcript::new("test"));
    let check = |point: &[K]| {
        let mut transcript = Transcript::new("test");
        verify(
            &commitment,
            1 << 12,
            point,
            point[0],
            &proof,
            &mut transcript,
        )
    };
    assert_eq!(check(&point), Ok(()));
    let mut turned = point.clone();
    turned.reverse();
    assert_ne!(check(&turned), Ok(()));
}

#[test]
fn an_opening_holds_for_its_statement_alone() {
    let opened = open(3000);
    let check = |commitment: &Commitment, len, point: &[K], value, domain| {
        let mut transcript = Transcript::new(domain);
        verify(
            commitment,
            len,
            point,
            value,
            &opened.proof,
            &mut transcript,
        )
    };
    let Opened {
        commitment,
        len,
        ref point,
        value,
        ..
    } = opened;
    assert_eq!(check(&commitment, len, point, value, "test"), Ok(()));
    assert_ne!(check(&commitment, len, point, value, "other"), Ok(()));
    let another = K::new([F::new(1), F::new(0)]);
    let wrong = check(&commitment, len, point, value + another, "test");
    assert_eq!(wrong, Err(OpeningError::Value));
    // As many columns, but another length.
    assert_ne!(check(&commitment, len + 1, point, value, "test"), Ok(()));
    for i in 0..point.len() {
        let mut other = point.clone();
        other[i] += another;
        assert_ne!(check(&commitment, len, &other, value, "test"), Ok(()));
    }
    for i in 0..32 {
        let mut other = commitment;
        other.0[i] ^= 1;
        assert_ne!(check(&other, len, point, value, "test"), Ok(()));
    }
    let short = check(&commitment, len, &point[1..], value, "test");
    let (expected, got) = (12, 11);
    assert_eq!(short, Err(OpeningError::Variables { expected, got }));
    for len in [0, usize::MAX] {
        let none = check(&commitment, len, point, value, "test");
        assert_eq!(none, Err(OpeningError::Len(len)));
    }
}

#[test]
fn damaged_bytes_are_refused() {
    // One oracle besides the first.
    let opened = open((1 << 16) + 5);
    assert_eq!(opened.verify(), Ok(()));
    let size = opened.proof.len();
    let mut random = Random(29);
    println!("{size} bytes");
    for round in 0..300 {
        let mut proof = opened.proof.clone();
        match round % 4 {
            0 => proof.truncate(random.below(size)),
            1 => proof.extend(vec![0; 1 + random.below(40)]),
            2 => proof[random.below(size)] ^= 1 << random.below(8),
            _ => {
                // A field element's bytes, all ones among them.
                let at = random.below(size - 8);
                let value = [u64::MAX, 0, random.below(usize::MAX) as u64][random.below(3)];
                proof[at..at + 8].copy_from_slice(&value.to_be_bytes());
            }
        }
        let same = proof == opened.proof;
        assert_eq!(opened.verify_bytes(&proof) == Ok(()), same, "round {round}");
    }
    for size in [0, 1, 4, 20] {
        let noise: Vec<u8> = (0..size).map(|_| random.below(256) as u8).collect();
        assert!(matches!(
            opened.verify_bytes(&noise),
            Err(OpeningError::Codec(_))
        ));
    }
}

/// What a dishonest prover does; all else is as honest as it can be.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Lie {
    None,
    /// Claims another value, with the true columns' values.
    Value,
    /// Claims another value, and a column's value that makes up for it.
    Column,
    /// And a last polynomial that makes up for that.
    Fold,
    /// Opens other values than were committed to.
    Rows,
    /// Does not grind.
    Work,
}

/// An opening without a later oracle, step by step.
fn dishonest(lie: Lie) -> (Opened, Result<(), OpeningError>) {
    let one = K::new([F::new(1), F::new(0)]);
    let mut values = values(5000);
    let point = point(values.len());
    let (commitment, committed) = commit(&values, 1);
    if lie == Lie::Rows {
        values[1234] += 1;
    }
    let truth = value_at(&values, &point);
    let value = match lie {
        Lie::Value | Lie::Column | Lie::Fold => truth + one,
        _ => truth,
    };
    let schedule = committed.schedule;
    let first = schedule.first;
    assert!(schedule.later.is_empty());
    let mut transcript = Transcript::new("test");
    let mut out = Writer::new(OPENING);
    let cut = Cut::new(&schedule, &point);
    let mut run = Run::new(&commitment, values.len(), &point, value, &mut transcript);
    if lie == Lie::Value {
        run.claim = truth;
    }
    let weight = eq_table(&cut.within, first.len());
    let mut columns = prove::column_values(&values, &weight, first.columns, 1);
    if matches!(lie, Lie::Column | Lie::Fold) {
        columns[0] += cut.over[0].inverse();
    }
    columns
        .iter()
        .for_each(|value| write_element(*value, &mut out));
    let shares = run.columns(cut, &columns).expect("they sum to the claim");
    let mut last = prove::fold_columns(&values, &shares, first.len(), 1);
    if lie == Lie::Fold {
        let missing = run.claim - run.weights[0].apply(&last);
        last[0] += missing * weight[0].inverse();
        assert!(run.holds(&last), "but for the queries");
    }
    run.last(&last);
    last.iter()
        .for_each(|value| write_element(*value, &mut out));
    match lie {
        Lie::Work => {
            assert!(!run.check_nonce(F::new(0)), "one nonce in 2^18 would do");
            out.u64(0);
        }
        _ => {
            out.u64(run.grind().as_canonical_u64());
        }
    }
    let positions = run.positions(&first);
    let rows = oracle::rows(oracle::Columns::Integers(&values), &first, &positions, 1);
    rows.iter().flatten().for_each(|value| {
        out.u64(value.as_canonical_u64());
    });
    for sibling in committed.tree.siblings(&positions) {
        out.b256(&tree::to_bytes(&sibling).into());
    }
    let folds: Vec<K> = rows
        .iter()
        .map(|row| run::fold_first(row, &shares))
        .collect();
    run.queried(&first, &positions, &folds);
    let honest = !matches!(lie, Lie::Column | Lie::Fold);
    assert_eq!(run.holds(&last), honest, "{lie:?}");
    let opened = Opened {
        commitment,
        len: values.len(),
        point,
        value,
        proof: out.finish(),
    };
    let verified = opened.verify();
    (opened, verified)
}

#[test]
fn each_lie_is_caught_by_the_one_check_that_is_for_it() {
    for (lie, expected) in [
        (Lie::None, Ok(())),
        (Lie::Value, Err(OpeningError::Value)),
        (Lie::Column, Err(OpeningError::LastPolynomial)),
        (Lie::Fold, Err(OpeningError::LastPolynomial)),
        (Lie::Rows, Err(OpeningError::Rows)),
        (Lie::Work, Err(OpeningError::Nonce)),
    ] {
        assert_eq!(dishonest(lie).1, expected, "{lie:?}");
    }
    assert_eq!(dishonest(Lie::None).0.proof, open(5000).proof);
}
