//! Quantities with their units; arithmetic is checked and rounding is named.

use serde::{Deserialize, Serialize};

/// A count of tokens.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct TokenCount(pub u32);

/// Millionths of a US dollar: the base unit of a stablecoin with six decimals.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct MicroUsd(pub u64);

/// A price: micro-USD for a million tokens.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct MicroUsdPerMillionTokens(pub u64);

/// Seconds since the Unix epoch.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

/// A span of time in milliseconds.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct DurationMs(pub u32);

/// An amount that does not fit its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("amount overflows")]
pub struct Overflow;

impl MicroUsd {
    pub const ZERO: MicroUsd = MicroUsd(0);

    pub fn checked_add(self, other: MicroUsd) -> Result<MicroUsd, Overflow> {
        self.0.checked_add(other.0).map(MicroUsd).ok_or(Overflow)
    }

    pub fn checked_sub(self, other: MicroUsd) -> Result<MicroUsd, Overflow> {
        self.0.checked_sub(other.0).map(MicroUsd).ok_or(Overflow)
    }
}

impl std::fmt::Display for MicroUsd {
    /// Dollars with all six decimals, as in `$0.000123`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "${}.{:06}", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}

impl Timestamp {
    /// The moment `seconds` later; saturates at the end of time.
    pub fn plus_seconds(self, seconds: u64) -> Timestamp {
        Timestamp(self.0.saturating_add(seconds))
    }
}

/// What a request consumed. Cached prompt tokens are a part of `prompt`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    pub prompt: TokenCount,
    pub cached: TokenCount,
    pub output: TokenCount,
}

/// The three prices of a provider.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Price {
    pub input: MicroUsdPerMillionTokens,
    pub cached_input: MicroUsdPerMillionTokens,
    pub output: MicroUsdPerMillionTokens,
}

impl Price {
    /// What `usage` costs, rounded up once to a whole micro-USD. Nothing served costs nothing:
    /// without an output token the charge is zero.
    pub fn charge(&self, usage: &Usage) -> Result<MicroUsd, Overflow> {
        if usage.output.0 == 0 {
            return Ok(MicroUsd::ZERO);
        }
        let cached = usage.cached.0.min(usage.prompt.0);
        let fresh = usage.prompt.0 - cached;
        // Each product is below 2^96 and their sum below 2^98.
        let sum = u128::from(fresh) * u128::from(self.input.0)
            + u128::from(cached) * u128::from(self.cached_input.0)
            + u128::from(usage.output.0) * u128::from(self.output.0);
        u64::try_from(sum.div_ceil(1_000_000))
            .map(MicroUsd)
            .map_err(|_| Overflow)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_charge_is_rounded_up_once() {
        let price = Price {
            input: MicroUsdPerMillionTokens(50_000),
            cached_input: MicroUsdPerMillionTokens(5_000),
            output: MicroUsdPerMillionTokens(100_000),
        };
        let check = |prompt, cached, output, expected| {
            let usage = Usage {
                prompt: TokenCount(prompt),
                cached: TokenCount(cached),
                output: TokenCount(output),
            };
            assert_eq!(price.charge(&usage), Ok(MicroUsd(expected)), "{usage:?}");
        };
        check(100, 0, 10, 6);
        check(100, 0, 11, 7);
        check(100, 100, 10, 2);
        check(10, 99, 10, 2);
        check(1_000_000, 0, 0, 0);
    }

    #[test]
    fn an_absurd_price_overflows_by_name() {
        let dear = MicroUsdPerMillionTokens(u64::MAX);
        let price = Price {
            input: dear,
            cached_input: dear,
            output: dear,
        };
        let usage = Usage {
            prompt: TokenCount(u32::MAX),
            cached: TokenCount(0),
            output: TokenCount(u32::MAX),
        };
        assert_eq!(price.charge(&usage), Err(Overflow));
    }

    #[test]
    fn dollars_show_all_decimals() {
        assert_eq!(MicroUsd(1_000_123).to_string(), "$1.000123");
    }
}
