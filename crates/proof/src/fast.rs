//! Arithmetic of K for hot loops: products are summed in three machine words and reduced once. A word is any
//! representative below 2^64. `field.rs` is the definition; the tests hold this file to it.

use p3_field::{BasedVectorSpace, PrimeField64};

use crate::field::{F, K};

/// a + b·X with X² = 7.
pub(crate) type Words = [u64; 2];

/// 2^64 − p, which 2^64 is congruent to.
const EPSILON: u64 = 0xffff_ffff;

#[inline(always)]
pub(crate) fn words(value: K) -> Words {
    let coefficients: &[F] = value.as_basis_coefficients_slice();
    [
        coefficients[0].as_canonical_u64(),
        coefficients[1].as_canonical_u64(),
    ]
}

#[inline(always)]
pub(crate) fn element(value: Words) -> K {
    K::new(value.map(F::new))
}

/// ε where a word has passed 2^64. Half of all words do: a branch would be mispredicted as often, and the
/// compiler takes one unless told.
#[inline(always)]
fn wrapped(carry: bool) -> u64 {
    std::hint::select_unpredictable(carry, EPSILON, 0)
}

/// Only where both words lie within 2^32 of the wrong end of the range: never taken in practice, so a branch
/// costs less than arithmetic.
#[cold]
fn rarely(value: u64) -> u64 {
    value
}

#[inline(always)]
fn add_word(a: u64, b: u64) -> u64 {
    let (sum, over) = a.overflowing_add(b);
    let (sum, again) = sum.overflowing_add(wrapped(over));
    if again {
        return rarely(sum.wrapping_add(EPSILON));
    }
    sum
}

#[inline(always)]
fn sub_word(a: u64, b: u64) -> u64 {
    let (difference, under) = a.overflowing_sub(b);
    let (difference, again) = difference.overflowing_sub(wrapped(under));
    if again {
        return rarely(difference.wrapping_sub(EPSILON));
    }
    difference
}

#[inline(always)]
pub(crate) fn add(a: Words, b: Words) -> Words {
    [add_word(a[0], b[0]), add_word(a[1], b[1])]
}

#[inline(always)]
pub(crate) fn sub(a: Words, b: Words) -> Words {
    [sub_word(a[0], b[0]), sub_word(a[1], b[1])]
}

/// A sum of products of words: sum + carries·2^128, with fewer than 2^31 carries.
#[derive(Clone, Copy, Default)]
struct Wide {
    sum: u128,
    carries: u64,
}

impl Wide {
    #[inline(always)]
    fn product(a: u64, b: u64) -> Wide {
        Wide {
            sum: u128::from(a) * u128::from(b),
            carries: 0,
        }
    }

    #[inline(always)]
    fn plus(self, a: u64, b: u64) -> Wide {
        let (sum, over) = self.sum.overflowing_add(u128::from(a) * u128::from(b));
        let carries = self.carries.wrapping_add(u64::from(over));
        Wide { sum, carries }
    }

    /// a·b + c, which stays below 2^128.
    #[inline(always)]
    fn product_plus(a: u64, b: u64, c: u64) -> Wide {
        Wide {
            sum: (u128::from(a) * u128::from(b)).wrapping_add(u128::from(c)),
            carries: 0,
        }
    }

    /// self + 7·other.
    #[inline(always)]
    fn plus_seven(self, other: Wide) -> Wide {
        let half = |wide: u128| (wide as u64, (wide >> 64) as u64);
        let ((a0, a1), (b0, b1)) = (half(self.sum), half(other.sum));
        let low = u128::from(b0).wrapping_mul(7).wrapping_add(u128::from(a0));
        let high = u128::from(b1).wrapping_mul(7).wrapping_add(u128::from(a1));
        let high = high.wrapping_add(low >> 64);
        let carries = other.carries.wrapping_mul(7).wrapping_add(self.carries);
        Wide {
            sum: high << 64 | u128::from(low as u64),
            carries: carries.wrapping_add((high >> 64) as u64),
        }
    }

    /// With 2^64 ≡ ε, 2^96 ≡ −1 and 2^128 ≡ −2^32: low − (all from bit 96) + ε·(bits 64 to 95).
    #[inline(always)]
    fn reduce(self) -> u64 {
        let (low, high) = (self.sum as u64, (self.sum >> 64) as u64);
        let top = high >> 32 | self.carries << 32;
        // top < 2^63, so that what passed zero stands above 2^63 and ε can be taken off.
        let (value, under) = low.overflowing_sub(top);
        let value = value.wrapping_sub(wrapped(under));
        // At most (2^32 − 1)² < p is added, so that it does not pass 2^64 twice.
        let (value, over) = value.overflowing_add((high & EPSILON).wrapping_mul(EPSILON));
        value.wrapping_add(wrapped(over))
    }
}

/// A sum of fewer than 2^28 products of K, reduced at the end.
#[derive(Clone, Copy, Default)]
pub(crate) struct Sum {
    units: Wide,
    squares: Wide,
    cross: Wide,
}

impl Sum {
    #[inline(always)]
    pub(crate) fn product(a: Words, b: Words) -> Sum {
        Sum {
            units: Wide::product(a[0], b[0]),
            squares: Wide::product(a[1], b[1]),
            cross: Wide::product(a[0], b[1]).plus(a[1], b[0]),
        }
    }

    #[inline(always)]
    pub(crate) fn plus(self, a: Words, b: Words) -> Sum {
        Sum {
            units: self.units.plus(a[0], b[0]),
            squares: self.squares.plus(a[1], b[1]),
            cross: self.cross.plus(a[0], b[1]).plus(a[1], b[0]),
        }
    }

    #[inline(always)]
    pub(crate) fn reduce(self) -> Words {
        let units = self.units.plus_seven(self.squares);
        [units.reduce(), self.cross.reduce()]
    }
}

/// A factor that is used many times.
#[derive(Clone, Copy)]
pub(crate) struct Factor {
    value: Words,
    seven: u64,
}

impl Factor {
    pub(crate) fn new(value: K) -> Factor {
        let value = words(value);
        let seven = Wide::product(value[1], 7).reduce();
        Factor { value, seven }
    }

    /// a + self·b.
    #[inline(always)]
    pub(crate) fn times_plus(&self, b: Words, a: Words) -> Words {
        let [r, s] = self.value;
        let units = Wide::product_plus(r, b[0], a[0]).plus(self.seven, b[1]);
        let cross = Wide::product_plus(r, b[1], a[1]).plus(s, b[0]);
        [units.reduce(), cross.reduce()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use p3_field::PrimeCharacteristicRing;

    /// Words at every edge of the representation, and some between.
    fn values() -> Vec<Words> {
        let p = F::ORDER_U64;
        let edges = [
            0,
            1,
            EPSILON - 1,
            EPSILON,
            1 << 32,
            1 << 63,
            p - 1,
            p,
            p + 1,
        ];
        let more = [u64::MAX, u64::MAX - 1, 0x1234_5678_9abc_def0];
        let words = [edges.as_slice(), &more].concat();
        let pairs = |a: &u64| words.iter().map(|b| [*a, *b]).collect::<Vec<_>>();
        words.iter().flat_map(pairs).collect()
    }

    #[test]
    fn fast_arithmetic_is_the_field_s() {
        let values = values();
        for &a in &values {
            assert_eq!(element(words(element(a))), element(a));
            for &b in &values {
                let (x, y) = (element(a), element(b));
                assert_eq!(element(add(a, b)), x + y, "{a:?} + {b:?}");
                assert_eq!(element(sub(a, b)), x - y, "{a:?} - {b:?}");
                assert_eq!(element(Sum::product(a, b).reduce()), x * y, "{a:?} {b:?}");
                let factor = Factor::new(x);
                assert_eq!(element(factor.times_plus(b, a)), x + x * y, "{a:?} {b:?}");
            }
        }
    }

    #[test]
    fn many_of_the_largest_products_sum_without_loss() {
        let largest = [u64::MAX; 2];
        let mut sum = Sum::default();
        let mut expected = K::ZERO;
        for _ in 0..10_000 {
            sum = sum.plus(largest, largest);
            expected += element(largest) * element(largest);
        }
        assert_eq!(element(sum.reduce()), expected);
    }
}
