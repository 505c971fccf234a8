//! How likely a false proof passes: every step's error, rounded up, and their sum in bits. Integers only.

use std::fmt;

/// A probability, rounded up to a multiple of 2^-128.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Probability(u128);

impl Probability {
    /// 2^-bits.
    pub fn bits(bits: u32) -> Self {
        assert!((1..=128).contains(&bits), "{bits} bits");
        Probability(1 << (128 - bits))
    }

    /// This over the number of elements of K, p² = (2^64 − 2^32 + 1)² > 2^128·(1 − 2^-31).
    pub fn over_field(numerator: u128) -> Self {
        let excess = (numerator >> 30).saturating_add(1);
        Probability(numerator.saturating_add(excess))
    }

    /// Times numerator/2^shift, a probability itself.
    pub fn times(self, numerator: u128, shift: u32) -> Self {
        assert!(shift < 64 && numerator <= 1 << shift, "a probability");
        let (high, low) = (self.0 >> shift, self.0 & ((1 << shift) - 1));
        let up = (low * numerator).div_ceil(1 << shift);
        Probability(high * numerator + up)
    }

    pub fn plus(self, other: Self) -> Self {
        Probability(self.0.saturating_add(other.0))
    }

    /// −log2 in hundredths, rounded down.
    pub fn centibits(self) -> u32 {
        if self.0 <= 1 {
            return 12_800;
        }
        // A mantissa in [2^62, 2^63], rounded up, and bit by bit the fraction of its logarithm by squaring.
        let whole = self.0.ilog2();
        let mut mantissa = match whole {
            63.. => (self.0 >> (whole - 62)) + 1,
            _ => self.0 << (62 - whole),
        };
        let mut fraction = 0;
        for _ in 0..FRACTION_BITS {
            mantissa = (mantissa * mantissa).div_ceil(1 << 62);
            fraction *= 2;
            if mantissa >= 1 << 63 {
                fraction += 1;
                mantissa = mantissa.div_ceil(2);
            }
        }
        // The bits not computed could carry one more.
        let log = (u64::from(whole) << FRACTION_BITS) + fraction + 1;
        let minus = (128 << FRACTION_BITS) - log;
        u32::try_from((100 * minus) >> FRACTION_BITS).expect("at most 12800")
    }
}

const FRACTION_BITS: u32 = 20;

/// The errors of a proof's steps.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Security {
    pub parts: Vec<(&'static str, Probability)>,
}

impl Security {
    pub fn add(&mut self, part: &'static str, error: Probability) {
        self.parts.push((part, error));
    }

    /// The union bound.
    pub fn total(&self) -> Probability {
        let errors = self.parts.iter().map(|(_, error)| *error);
        errors.fold(Probability(0), Probability::plus)
    }
}

/// A table of bits.
impl fmt::Display for Security {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |name: &str, error: Probability| {
            let bits = error.centibits();
            writeln!(f, "{:>4}.{:02}  {name}", bits / 100, bits % 100)
        };
        for (name, error) in &self.parts {
            line(name, *error)?;
        }
        line("all together", self.total())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_rounded_down() {
        for (error, centibits) in [
            (Probability(0), 12_800),
            (Probability(1), 12_800),
            // log2 3 = 1.58496…
            (Probability(3), 12_641),
            (Probability(3 << 100), 2_641),
            (Probability(u128::MAX), 0),
            // log2 (4/3) = 0.41503…, a hundred times.
            (
                (0..100).fold(Probability(1 << 127), |p, _| p.times(3, 2)),
                4_250,
            ),
        ] {
            assert_eq!(error.centibits(), centibits, "{error:?}");
        }
        for bits in 1..128 {
            let exact = Probability::bits(bits).centibits();
            assert!(exact == 100 * bits || exact == 100 * bits - 1, "{bits}");
        }
    }

    #[test]
    fn errors_add_up() {
        let mut security = Security::default();
        for part in ["a", "b", "c", "d"] {
            security.add(part, Probability::bits(102));
        }
        assert_eq!(security.total(), Probability::bits(100));
        assert!(Probability::over_field(1 << 28) > Probability::bits(100));
        assert_eq!(Probability::over_field(1 << 20).centibits(), 10_799);
    }
}
