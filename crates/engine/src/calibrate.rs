//! Finds the fractions of q, k and v that an import writes into the manifest: the integer engine runs
//! over a text, and each layer's fractions are chosen before the next layer runs, so that later layers
//! see what they will see.

use assay_protocol::TokenId;
use assay_protocol::manifest::Fractions;

use crate::forward::{Runner, Span};
use crate::model::Model;
use crate::run::{RunError, check_tokens};

/// Fractions outside these say nothing more, or are not read back by the loader.
const FRACTION_MIN: i32 = -12;
const FRACTION_MAX: i32 = 14;

/// Largest magnitudes of one layer: q and k after RoPE at Q.26, v at Q.12.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Maxima {
    pub(crate) q: i64,
    pub(crate) k: i64,
    pub(crate) v: i64,
}

impl Maxima {
    /// `f = kb − 1 − ceil(log2(1.5·max))`, kb = 13 for q and k, 12 for v.
    pub(crate) fn fractions(&self) -> Fractions {
        Fractions {
            q: fraction(13, self.q, 26),
            k: fraction(13, self.k, 26),
            v: fraction(12, self.v, 12),
        }
    }
}

/// `max·2^-at` is the real maximum; its 1.5-fold must stay below `2^(bits − 1 − f)`.
fn fraction(bits: i32, max: i64, at: i32) -> i8 {
    // The smallest c with 2^c ≥ 1.5·max·2^-at, that is 2^(c + at + 1) ≥ 3·max.
    let c = match 3 * max {
        0 => i32::MIN / 2,
        three => (three as u64).next_power_of_two().trailing_zeros() as i32 - at - 1,
    };
    (bits - 1 - c).clamp(FRACTION_MIN, FRACTION_MAX) as i8
}

/// Fractions for every layer, from running these sequences through the model together. Whatever
/// fractions the model was opened with have no part in it.
pub fn fractions(
    model: &Model,
    threads: usize,
    sequences: &[Vec<TokenId>],
) -> Result<Vec<Fractions>, RunError> {
    for tokens in sequences {
        check_tokens(model, tokens, tokens.len())?;
    }
    let mut runner = Runner::new(model, threads);
    let mut caches: Vec<_> = sequences
        .iter()
        .map(|tokens| runner.cache(tokens.len()))
        .collect();
    let mut spans: Vec<_> = caches
        .iter_mut()
        .zip(sequences)
        .map(|(cache, tokens)| Span { cache, tokens })
        .collect();
    Ok(runner.calibrate(&mut spans))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_and_a_half_times_the_maximum_still_fits() {
        let check =
            |bits, max, at, expected| assert_eq!(fraction(bits, max, at), expected, "{max}");
        check(13, 8 << 26, 26, 12 - 4); // 12 ≤ 2^4
        check(13, 10 << 26, 26, 12 - 4); // 15 ≤ 2^4
        check(13, 11 << 26, 26, 12 - 5); // 16.5 ≤ 2^5
        check(12, 2 << 12, 12, 11 - 2); // 3 ≤ 2^2
        check(12, 1, 12, 14);
        check(13, 0, 26, 14);
        check(13, 1 << 60, 26, -12);
        for max in 1..5000i64 {
            let f = i32::from(fraction(12, max << 4, 12));
            assert!(3 * (max << 4) <= 2 << (11 - f + 12), "{max}");
        }
    }
}
