//! The field, and the few evaluations of multilinear extensions that every part needs. Points list the
//! variable of the lowest index bit first.

use p3_field::PrimeCharacteristicRing;
use p3_field::extension::BinomialExtensionField;

/// Goldilocks, p = 2^64 − 2^32 + 1: integers below 2^62 add and multiply without wrapping.
pub type F = p3_goldilocks::Goldilocks;
/// Challenges: the quadratic extension, 2^128 elements.
pub type K = BinomialExtensionField<F, 2>;

/// A signed integer as a field element.
#[inline(always)]
pub fn signed(v: i64) -> F {
    match v >= 0 {
        true => F::from_u64(v.unsigned_abs()),
        false => -F::from_u64(v.unsigned_abs()),
    }
}

/// `eq(point, i)` for i < len.
pub fn eq_table(point: &[K], len: usize) -> Vec<K> {
    debug_assert!(len <= 1 << point.len());
    let mut table = vec![K::ONE];
    // The highest variable first, so that each step doubles the low end; only what is asked for is kept.
    for (bit, r) in point.iter().enumerate().rev() {
        let keep = len.div_ceil(1 << bit);
        let mut next = Vec::with_capacity(2 * table.len());
        for value in &table {
            let high = *value * *r;
            next.push(*value - high);
            next.push(high);
        }
        next.truncate(keep);
        table = next;
    }
    table
}

/// `eq(a, b)` over all variables.
pub fn eq(a: &[K], b: &[K]) -> K {
    let one = |(a, b): (&K, &K)| {
        let both = *a * *b;
        both + both + K::ONE - *a - *b
    };
    a.iter().zip(b).map(one).product()
}

/// Variables that number `len` things.
pub fn log2_ceil(len: usize) -> usize {
    len.next_power_of_two().trailing_zeros() as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_the_product_over_bits() {
        let point: Vec<K> = (3..8u64).map(K::from_u64).collect();
        for len in [1, 2, 7, 8, 21, 32] {
            let table = eq_table(&point, len);
            assert_eq!(table.len(), len);
            for (i, value) in table.iter().enumerate() {
                let bits: Vec<K> = (0..5).map(|b| K::from_u64((i >> b & 1) as u64)).collect();
                assert_eq!(*value, eq(&point, &bits), "{i} of {len}");
            }
        }
    }

    #[test]
    fn signed_values_negate() {
        assert_eq!(signed(-5) + signed(5), F::ZERO);
        assert_eq!(signed(i64::MIN + 1) + signed(i64::MAX), F::ZERO);
    }
}
