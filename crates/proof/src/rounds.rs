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
