//! When to audit: a private coin for every answer, more often for a provider's first answers.
//! Pure: the secret and the counts are arguments. Never tells a provider anything in advance.
//!
//! The coin is `keccak(secret, request id)`. The secret never leaves the payer, so a provider that
//! sees the request id still cannot tell which of its answers will be re-executed; the same secret
//! and id always give the same coin, so that a decision can be repeated after a crash.

use alloy_primitives::{B256, Keccak256};
use serde::{Deserialize, Serialize};

/// A share of one, in millionths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PartsPerMillion(pub u32);

impl PartsPerMillion {
    pub const ZERO: Self = Self(0);
    pub const ONE: Self = Self(1_000_000);

    pub fn percent(percent: u32) -> Self {
        Self(percent.saturating_mul(10_000)).min(Self::ONE)
    }

    fn clamped(self) -> u128 {
        u128::from(self.min(Self::ONE).0)
    }
}

impl std::fmt::Display for PartsPerMillion {
    /// As a percentage with four places: `0.3906%`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (whole, rest) = (self.0 / 10_000, self.0 % 10_000);
        if rest == 0 {
            return write!(f, "{whole}%");
        }
        let digits = format!("{rest:04}");
        write!(f, "{whole}.{}%", digits.trim_end_matches('0'))
    }
}

/// How often a payer re-executes answers of one provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditPolicy {
    /// The share of answers that is re-executed once a provider is known.
    pub rate: PartsPerMillion,
    /// How many first answers of a provider count as those of a newcomer.
    pub newcomer_answers: u32,
    /// The share of a newcomer's answers that is re-executed.
    pub newcomer_rate: PartsPerMillion,
}

impl Default for AuditPolicy {
    /// Half of the first eight answers, then one in ten.
    fn default() -> Self {
        Self {
            rate: PartsPerMillion::percent(10),
            newcomer_answers: 8,
            newcomer_rate: PartsPerMillion::percent(50),
        }
    }
}

/// 2^64, the fixed point in which chances are multiplied; they are rounded up, so that a printed
/// chance to survive is never smaller than the true one.
const ONE: u128 = 1 << 64;

impl AuditPolicy {
    /// Audits every answer.
    pub fn always() -> Self {
        Self::flat(PartsPerMillion::ONE)
    }

    /// Audits at one rate, newcomer or not.
    pub fn flat(rate: PartsPerMillion) -> Self {
        Self {
            rate,
            newcomer_answers: 0,
            newcomer_rate: rate,
        }
    }

    /// The rate for an answer of a provider that gave `answers_before` answers to this payer.
    pub fn rate_after(&self, answers_before: u64) -> PartsPerMillion {
        if answers_before < u64::from(self.newcomer_answers) {
            self.newcomer_rate.max(self.rate)
        } else {
            self.rate
        }
    }

    /// Whether this answer is audited.
    pub fn audits(&self, secret: &B256, request_id: &B256, answers_before: u64) -> bool {
        let mut hash = Keccak256::new();
        hash.update(b"assay/audit-coin/v1");
        hash.update(secret);
        hash.update(request_id);
        let digest = hash.finalize();
        let mut first = [0u8; 8];
        first.copy_from_slice(&digest[..8]);
        // The coin lies in [0, 10^6): the product stays below 2^84.
        let coin = (u128::from(u64::from_be_bytes(first)) * PartsPerMillion::ONE.clamped()) >> 64;
        coin < self.rate_after(answers_before).clamped()
    }

    /// The chance that a provider which falsifies a share `cheats` of its answers is not caught
    /// within `requests` of them, having given `answers_before` before; rounded up. Re-execution
    /// itself misses nothing: a false answer that is audited is caught.
    pub fn survival(
        &self,
        answers_before: u64,
        requests: u64,
        cheats: PartsPerMillion,
    ) -> PartsPerMillion {
        let as_newcomer = u64::from(self.newcomer_answers)
            .saturating_sub(answers_before)
            .min(requests);
        let newcomer = miss(self.newcomer_rate.max(self.rate), cheats);
        let later = miss(self.rate, cheats);
        let chance = mul_ceil(
            pow_ceil(newcomer, as_newcomer),
            pow_ceil(later, requests - as_newcomer),
        );
        let ppm = (chance * PartsPerMillion::ONE.clamped()).div_ceil(ONE);
        PartsPerMillion(ppm as u32) // at most 10^6, as chance ≤ 2^64
    }

    /// The least number of requests after which such a provider survives with a chance of at most
    /// `survival`, if a million are enough.
    pub fn requests_until(
        &self,
        answers_before: u64,
        survival: PartsPerMillion,
        cheats: PartsPerMillion,
    ) -> Option<u64> {
        const MOST: u64 = 1_000_000;
        let enough = |n: u64| self.survival(answers_before, n, cheats) <= survival;
        if !enough(MOST) {
            return None;
        }
        let (mut low, mut high) = (0, MOST);
        while low < high {
            let middle = low + (high - low) / 2;
            if enough(middle) {
                high = middle
            } else {
                low = middle + 1
            }
        }
        Some(low)
    }
}

/// The chance that one answer is not caught, in 2^-64, rounded up.
fn miss(rate: PartsPerMillion, cheats: PartsPerMillion) -> u128 {
    let caught = rate.clamped() * cheats.clamped(); // in 10^-12, so at most 2^40
    let one = PartsPerMillion::ONE.clamped().pow(2);
    ((one - caught) * ONE).div_ceil(one)
}

fn mul_ceil(a: u128, b: u128) -> u128 {
    debug_assert!(a <= ONE && b <= ONE);
    if a == ONE {
        return b;
    }
    if b == ONE {
        return a;
    }
    (a * b).div_ceil(ONE) // both below 2^64: no overflow
}

fn pow_ceil(base: u128, mut exponent: u64) -> u128 {
    let (mut result, mut square) = (ONE, base);
    while exponent > 0 {
        if exponent & 1 == 1 {
            result = mul_ceil(result, square);
        }
        square = mul_ceil(square, square);
        exponent >>= 1;
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALWAYS: PartsPerMillion = PartsPerMillion::ONE;

    fn id(n: u64) -> B256 {
        B256::left_padding_from(&n.to_be_bytes())
    }

    #[test]
    fn the_coin_lands_as_often_as_the_rate_says() {
        let policy = AuditPolicy::flat(PartsPerMillion::percent(10));
        let hits = (0..20_000)
            .filter(|n| policy.audits(&id(7), &id(*n), 0))
            .count();
        assert!((1_850..2_150).contains(&hits), "{hits} of 20000 at 10%");
    }

    #[test]
    fn another_secret_flips_other_coins_so_that_a_provider_cannot_foresee_them() {
        let policy = AuditPolicy::flat(PartsPerMillion::percent(50));
        let same = (0..4_096u64)
            .filter(|n| policy.audits(&id(1), &id(*n), 0) == policy.audits(&id(2), &id(*n), 0))
            .count();
        assert!((1_900..2_200).contains(&same), "{same} of 4096 coins agree");
    }

    #[test]
    fn one_secret_and_request_always_give_one_coin() {
        let policy = AuditPolicy::default();
        for n in 0..100 {
            assert_eq!(
                policy.audits(&id(3), &id(n), 100),
                policy.audits(&id(3), &id(n), 100)
            );
        }
    }

    #[test]
    fn rate_zero_never_audits_and_rate_one_always_does() {
        for n in 0..1_000 {
            assert!(!AuditPolicy::flat(PartsPerMillion::ZERO).audits(&id(1), &id(n), 0));
            assert!(AuditPolicy::always().audits(&id(1), &id(n), 0));
        }
    }

    #[test]
    fn a_newcomer_is_audited_more_often() {
        let policy = AuditPolicy::default();
        assert_eq!(policy.rate_after(7), PartsPerMillion::percent(50));
        assert_eq!(policy.rate_after(8), PartsPerMillion::percent(10));
    }

    #[test]
    fn survival_is_what_a_hand_computes() {
        let policy = AuditPolicy::default();
        assert_eq!(policy.survival(0, 0, ALWAYS), ALWAYS);
        assert_eq!(policy.survival(0, 1, ALWAYS), PartsPerMillion(500_000));
        // 0.5^8 = 0.00390625
        assert_eq!(policy.survival(0, 8, ALWAYS), PartsPerMillion(3_907));
        // 0.9^44 = 0.0096977…
        assert_eq!(policy.survival(8, 44, ALWAYS), PartsPerMillion(9_698));
        // A cheat on one answer in ten at a rate of one in ten: 0.99^100 = 0.36603…
        let rare = PartsPerMillion::percent(10);
        assert_eq!(policy.survival(8, 100, rare), PartsPerMillion(366_033));
    }

    #[test]
    fn the_number_of_requests_is_the_least_that_suffices() {
        let policy = AuditPolicy::default();
        let one_percent = PartsPerMillion::percent(1);
        assert_eq!(policy.requests_until(0, one_percent, ALWAYS), Some(7));
        assert_eq!(policy.requests_until(8, one_percent, ALWAYS), Some(44));
        let never = AuditPolicy::flat(PartsPerMillion::ZERO);
        assert_eq!(never.requests_until(0, one_percent, ALWAYS), None);
    }

    #[test]
    fn a_rate_reads_as_a_percentage() {
        assert_eq!(PartsPerMillion(3_907).to_string(), "0.3907%");
        assert_eq!(PartsPerMillion::percent(10).to_string(), "10%");
        assert_eq!(PartsPerMillion(125_000).to_string(), "12.5%");
    }
}
