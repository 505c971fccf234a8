//! What the gateway remembers of a provider: speed, failures, audits, and why it is benched.
//! Pure: time is an argument. Nothing here forgives a proven lie.

use assay_protocol::{B256, MicroUsd, Timestamp};
use serde::{Deserialize, Serialize};

use crate::routing::Speed;

/// A provider's history with this gateway; durable.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderRecord {
    pub answers: u64,
    pub tokens: u64,
    pub spent: MicroUsd,
    pub failures: u64,
    pub failures_in_a_row: u32,
    #[serde(default)]
    pub resting_until_ms: u64,
    pub last_failure: Option<String>,
    /// Receipts in a row that did not hold.
    #[serde(default)]
    pub refused_in_a_row: u32,
    pub last_used_ms: u64,
    pub audited: u64,
    pub found_honest: u64,
    pub ttft_ms: Option<u32>,
    pub us_per_token: Option<u32>,
    pub bench: Option<Bench>,
}

/// A provider that is not asked, and not paid, any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bench {
    pub at: Timestamp,
    /// In plain words.
    pub reason: String,
    /// The answer that shows it.
    pub request_id: B256,
}

/// How long a provider rests after failures in a row: doubling, up to a bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rest {
    pub first_ms: u64,
    pub most_ms: u64,
}

impl Default for Rest {
    fn default() -> Self {
        Self {
            first_ms: 500,
            most_ms: 60_000,
        }
    }
}

/// One answer's speed, as this gateway saw it.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    pub ttft_ms: u32,
    /// From the first token to the last.
    pub rest_ms: u32,
    pub output_tokens: u32,
}

impl ProviderRecord {
    pub fn answered(&mut self, seen: Seen, charged: MicroUsd, now_ms: u64) {
        self.answers += 1;
        self.tokens = self.tokens.saturating_add(u64::from(seen.output_tokens));
        self.spent = MicroUsd(self.spent.0.saturating_add(charged.0));
        self.failures_in_a_row = 0;
        self.refused_in_a_row = 0;
        self.resting_until_ms = 0;
        self.last_used_ms = now_ms;
        self.ttft_ms = Some(blend(self.ttft_ms, seen.ttft_ms));
        // One token says nothing about the pace.
        if seen.output_tokens > 1 {
            let pace =
                u64::from(seen.rest_ms).saturating_mul(1000) / u64::from(seen.output_tokens - 1);
            let pace = u32::try_from(pace).unwrap_or(u32::MAX);
            self.us_per_token = Some(blend(self.us_per_token, pace));
        }
    }

    pub fn failed(&mut self, why: String, rest: &Rest, now_ms: u64) {
        self.failures += 1;
        self.failures_in_a_row = self.failures_in_a_row.saturating_add(1);
        let doublings = (self.failures_in_a_row - 1).min(20);
        let pause = rest
            .first_ms
            .saturating_mul(1 << doublings)
            .min(rest.most_ms);
        self.resting_until_ms = now_ms.saturating_add(pause);
        self.last_failure = Some(why);
        self.last_used_ms = now_ms;
    }

    /// The first proven reason stays.
    pub fn bench(&mut self, bench: Bench) -> bool {
        let fresh = self.bench.is_none();
        self.bench.get_or_insert(bench);
        fresh
    }

    /// Measured speed; pace is taken as zero until an answer had a second token.
    pub fn speed(&self) -> Option<Speed> {
        self.ttft_ms.map(|ttft_ms| Speed {
            ttft_ms,
            us_per_token: self.us_per_token.unwrap_or(0),
        })
    }
}

/// An exponentially weighted mean with weight one quarter for the newest.
fn blend(old: Option<u32>, new: u32) -> u32 {
    match old {
        None => new,
        // A mean of u32s is a u32.
        Some(old) => ((u64::from(old) * 3 + u64::from(new)) / 4) as u32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(ttft_ms: u32, rest_ms: u32, output_tokens: u32) -> Seen {
        Seen {
            ttft_ms,
            rest_ms,
            output_tokens,
        }
    }

    #[test]
    fn speed_is_a_moving_mean() {
        let mut record = ProviderRecord::default();
        assert_eq!(record.speed(), None);
        record.answered(seen(100, 990, 100), MicroUsd(5), 1);
        assert_eq!(
            record.speed(),
            Some(Speed {
                ttft_ms: 100,
                us_per_token: 10_000
            })
        );
        record.answered(seen(500, 1980, 100), MicroUsd(5), 2);
        assert_eq!(
            record.speed(),
            Some(Speed {
                ttft_ms: 200,
                us_per_token: 12_500
            })
        );
        assert_eq!(
            (record.answers, record.tokens, record.spent),
            (2, 200, MicroUsd(10))
        );
    }

    #[test]
    fn an_answer_of_one_token_does_not_pretend_to_a_pace() {
        let mut record = ProviderRecord::default();
        record.answered(seen(100, 0, 1), MicroUsd(1), 1);
        assert_eq!(record.us_per_token, None);
    }

    #[test]
    fn failures_in_a_row_rest_longer_and_an_answer_clears_them() {
        let mut record = ProviderRecord::default();
        let rest = Rest {
            first_ms: 100,
            most_ms: 350,
        };
        let pauses: Vec<_> = (0..4)
            .map(|_| {
                record.failed("refused".into(), &rest, 1000);
                record.resting_until_ms - 1000
            })
            .collect();
        assert_eq!(pauses, [100, 200, 350, 350]);
        record.answered(seen(1, 1, 1), MicroUsd(0), 2000);
        assert_eq!((record.failures, record.failures_in_a_row), (4, 0));
        assert_eq!(record.resting_until_ms, 0);
    }

    #[test]
    fn the_first_reason_for_the_bench_stays() {
        let mut record = ProviderRecord::default();
        let bench = |reason: &str| Bench {
            at: Timestamp(1),
            reason: reason.into(),
            request_id: B256::ZERO,
        };
        assert!(record.bench(bench("first")));
        assert!(!record.bench(bench("second")));
        assert_eq!(record.bench.unwrap().reason, "first");
    }
}
