//! A sumcheck's rounds: the polynomial of one round, what both sides do with it, and its bytes.

use assay_protocol::codec::{CodecError, Reader, Writer};
use p3_field::{BasedVectorSpace, PrimeCharacteristicRing, PrimeField64};

use crate::field::{F, K};
use crate::transcript::Transcript;

/// A round's polynomial of degree D, without its linear coefficient: that one follows from the claim,
/// g(0) + g(1), so that no proof can state a polynomial that misses its claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Round<const D: usize>(pub [K; D]);

impl<const D: usize> Round<D> {
    /// Both sides' step: absorb the polynomial, draw the challenge, and go on with its value there.
    pub fn step(&self, claim: &mut K, t: &mut Transcript) -> K {
        t.absorb("round", &self.0);
        let challenge = t.challenge("round challenge");
        *claim = self.at(*claim, challenge);
        challenge
    }

    fn at(&self, claim: K, x: K) -> K {
        let [constant, higher @ ..] = &self.0[..] else {
            unreachable!("a round's polynomial has a constant")
        };
        let linear = claim - constant.double() - higher.iter().copied().sum::<K>();
        let above = higher.iter().rev().fold(K::ZERO, |sum, c| (sum + *c) * x);
        (above + linear) * x + *constant
    }
}

/// Every round of a proof in turn: the point, and what is claimed there.
pub fn follow<const D: usize>(
    rounds: &[Round<D>],
    mut claim: K,
    t: &mut Transcript,
) -> (Vec<K>, K) {
    let point = rounds.iter().map(|round| round.step(&mut claim, t));
    (point.collect(), claim)
}

pub fn write_rounds<const D: usize>(rounds: &[Round<D>], out: &mut Writer) {
    for value in rounds.iter().flat_map(|round| &round.0) {
        write_element(*value, out);
    }
}

/// As many rounds as the reader knows there to be.
pub fn read_rounds<const D: usize>(
    count: usize,
    from: &mut Reader,
) -> Result<Vec<Round<D>>, CodecError> {
    let mut rounds = Vec::new();
    for _ in 0..count {
        let mut round = Round([K::ZERO; D]);
        for value in &mut round.0 {
            *value = read_element(from)?;
        }
        rounds.push(round);
    }
    Ok(rounds)
}

/// Both coefficients in canonical form.
pub fn write_element(value: K, out: &mut Writer) {
    let coefficients: &[F] = value.as_basis_coefficients_slice();
    for coefficient in coefficients {
        out.u64(coefficient.as_canonical_u64());
    }
}

/// One value has one encoding: a coefficient that is not reduced is refused.
pub fn read_element(from: &mut Reader) -> Result<K, CodecError> {
    let mut coefficient = || match from.u64()? {
        value if value < F::ORDER_U64 => Ok(F::new(value)),
        value => Err(CodecError::BadValue {
            what: "field element",
            value,
        }),
    };
    Ok(K::new([coefficient()?, coefficient()?]))
}

/// Binds the lowest variable of a vector with a zero-padded tail: `v[2i] + r·(v[2i+1] − v[2i])`.
pub fn bind(values: &mut Vec<K>, r: K) {
    let half = values.len().div_ceil(2);
    for i in 0..half {
        let (low, high) = pair(values, i);
        values[i] = low + r * (high - low);
    }
    values.truncate(half);
}

/// The two neighbours that the lowest variable tells apart.
#[inline(always)]
pub fn pair(values: &[K], i: usize) -> (K, K) {
    match values.get(2 * i + 1) {
        Some(high) => (values[2 * i], *high),
        None => (values[2 * i], K::ZERO),
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// A stream of values that its seed determines.
    pub(crate) struct Random(pub(crate) u64);

    impl Random {
        fn word(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
            mixed ^ mixed >> 31
        }

        pub(crate) fn below(&mut self, bound: usize) -> usize {
            (self.word() % bound as u64) as usize
        }

        /// At most 2^bits in absolute value; one in eight is at the bound.
        pub(crate) fn integer(&mut self, bits: u32) -> i64 {
            let value = match self.below(8) {
                0 => 1 << bits,
                _ => (self.word() % (1 << bits)) as i64,
            };
            if self.below(2) == 0 { value } else { -value }
        }

        pub(crate) fn element(&mut self) -> K {
            K::new([F::new(self.word()), F::new(self.word())])
        }

        pub(crate) fn elements(&mut self, len: usize) -> Vec<K> {
            (0..len).map(|_| self.element()).collect()
        }
    }

    /// A proof's bytes with each coefficient in turn made another.
    pub(crate) fn damaged(bytes: &[u8], from: usize) -> impl Iterator<Item = Vec<u8>> {
        (from..bytes.len()).step_by(8).map(|at| {
            let mut other = bytes.to_vec();
            let word = &mut other[at..at + 8];
            let value = u64::from_be_bytes(word.try_into().expect("eight bytes"));
            word.copy_from_slice(&((value + 1) % F::ORDER_U64).to_be_bytes());
            other
        })
    }

    /// What a transcript draws next: equal for equal histories.
    pub(crate) fn next_of(t: &mut Transcript) -> K {
        t.challenge("next")
    }
}

#[cfg(test)]
mod tests {
    use super::testing::Random;
    use super::*;

    #[test]
    fn a_round_is_its_polynomial_at_the_challenge() {
        let mut random = Random(1);
        let [c0, c1, c2, c3] = random.elements(4)[..] else {
            panic!("four elements")
        };
        let claim = c0 + (c0 + c1 + c2 + c3);
        let x = random.element();
        assert_eq!(
            Round([c0, c2, c3]).at(claim, x),
            c0 + x * (c1 + x * (c2 + x * c3))
        );
        let claim = c0 + (c0 + c1 + c2);
        assert_eq!(Round([c0, c2]).at(claim, x), c0 + x * (c1 + x * c2));
    }

    #[test]
    fn a_rounds_polynomial_is_absorbed_before_its_challenge() {
        let draw =
            |round: Round<2>| round.step(&mut K::ONE.clone(), &mut Transcript::new("rounds"));
        let plain = draw(Round([K::ONE, K::ONE]));
        assert_ne!(plain, draw(Round([K::TWO, K::ONE])));
        assert_ne!(plain, draw(Round([K::ONE, K::TWO])));
    }

    #[test]
    fn elements_come_back_and_coefficients_that_are_not_reduced_are_refused() {
        let value = K::new([F::NEG_ONE, F::TWO]);
        let mut out = Writer::new("");
        write_element(value, &mut out);
        let bytes = out.finish();
        assert_eq!(
            bytes[4..],
            [(F::ORDER_U64 - 1).to_be_bytes(), 2u64.to_be_bytes()].concat()
        );
        assert_eq!(
            read_element(&mut Reader::new("", &bytes).unwrap()),
            Ok(value)
        );
        for at in [4, 12] {
            for unreduced in [F::ORDER_U64, u64::MAX] {
                let mut bytes = bytes.clone();
                bytes[at..at + 8].copy_from_slice(&unreduced.to_be_bytes());
                let refused = read_element(&mut Reader::new("", &bytes).unwrap());
                let what = "field element";
                assert_eq!(
                    refused,
                    Err(CodecError::BadValue {
                        what,
                        value: unreduced
                    })
                );
            }
        }
    }

    #[test]
    fn a_bound_vector_is_its_extension_in_what_is_left() {
        let mut random = Random(2);
        for len in [1, 2, 3, 7, 8] {
            let values = random.elements(len);
            let point = random.elements(3);
            let mut bound = values.clone();
            point.iter().for_each(|r| bind(&mut bound, *r));
            let table = crate::field::eq_table(&point, len);
            let expected: K = values.iter().zip(table).map(|(v, eq)| *v * eq).sum();
            assert_eq!(bound, [expected]);
        }
    }
}
