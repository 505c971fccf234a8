//! Field elements as bytes: eight bytes big-endian a coefficient, canonical ones only, so that an element has
//! one encoding. Readers take from the front of a slice and allocate nothing that its length does not cover.

use p3_field::{BasedVectorSpace, PrimeField64};

use crate::field::{F, K};

/// Bytes of an element of K.
pub const ELEMENT_BYTES: usize = 16;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    #[error("{left} bytes are left where {needed} are needed")]
    Truncated { needed: usize, left: usize },
    #[error("{value} is no canonical field element")]
    NotCanonical { value: u64 },
    #[error("{left} bytes follow the end")]
    Trailing { left: usize },
}

pub fn write_base(out: &mut Vec<u8>, value: F) {
    out.extend(value.as_canonical_u64().to_be_bytes());
}

pub fn write_element(out: &mut Vec<u8>, value: K) {
    let coefficients: &[F] = value.as_basis_coefficients_slice();
    for coefficient in coefficients {
        write_base(out, *coefficient);
    }
}

pub fn write_elements(out: &mut Vec<u8>, values: &[K]) {
    for value in values {
        write_element(out, *value);
    }
}

/// The next `count` bytes.
pub fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Result<&'a [u8], CodecError> {
    let (taken, rest) = bytes.split_at_checked(count).ok_or(CodecError::Truncated {
        needed: count,
        left: bytes.len(),
    })?;
    *bytes = rest;
    Ok(taken)
}

pub fn read_base(bytes: &mut &[u8]) -> Result<F, CodecError> {
    let taken = take(bytes, 8)?;
    let value = taken
        .iter()
        .fold(0u64, |all, byte| all << 8 | u64::from(*byte));
    match value < F::ORDER_U64 {
        true => Ok(F::new(value)),
        // A second encoding of an element would give a proof a second hash.
        false => Err(CodecError::NotCanonical { value }),
    }
}

pub fn read_element(bytes: &mut &[u8]) -> Result<K, CodecError> {
    Ok(K::new([read_base(bytes)?, read_base(bytes)?]))
}

pub fn read_elements(bytes: &mut &[u8], count: usize) -> Result<Vec<K>, CodecError> {
    let mut taken = take(bytes, count.saturating_mul(ELEMENT_BYTES))?;
    (0..count).map(|_| read_element(&mut taken)).collect()
}

/// What was read is all there is.
pub fn finish(bytes: &[u8]) -> Result<(), CodecError> {
    match bytes.is_empty() {
        true => Ok(()),
        false => Err(CodecError::Trailing { left: bytes.len() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(values: &[K]) -> Vec<u8> {
        let mut out = Vec::new();
        write_elements(&mut out, values);
        out
    }

    #[test]
    fn elements_come_back_and_have_one_encoding() {
        let largest = F::new(F::ORDER_U64 - 1);
        let values = [K::new([F::new(1), F::new(258)]), K::new([largest, largest])];
        let encoded = bytes(&values);
        assert_eq!(
            encoded[..16],
            [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 2]
        );
        let mut rest = encoded.as_slice();
        assert_eq!(read_elements(&mut rest, 2), Ok(values.to_vec()));
        assert_eq!(finish(rest), Ok(()));
        // Words of p and more stand in memory for small elements; they are written reduced.
        assert_eq!(
            bytes(&[K::new([F::new(F::ORDER_U64), F::new(u64::MAX)])]),
            { bytes(&[K::new([F::new(0), F::new(u64::MAX - F::ORDER_U64)])]) }
        );
    }

    #[test]
    fn what_is_no_canonical_element_is_refused() {
        for value in [F::ORDER_U64, F::ORDER_U64 + 1, u64::MAX] {
            for at in [0, 8] {
                let mut encoded = [0; 16];
                encoded[at..at + 8].copy_from_slice(&value.to_be_bytes());
                let error = CodecError::NotCanonical { value };
                assert_eq!(read_element(&mut encoded.as_slice()), Err(error));
            }
        }
    }

    #[test]
    fn lengths_are_checked_before_anything_is_allocated() {
        let error = |needed| CodecError::Truncated { needed, left: 31 };
        assert_eq!(read_elements(&mut [0; 31].as_slice(), 2), Err(error(32)));
        let all = usize::MAX;
        assert_eq!(read_elements(&mut [0; 31].as_slice(), all), Err(error(all)));
        assert_eq!(finish(&[0]), Err(CodecError::Trailing { left: 1 }));
    }
}
