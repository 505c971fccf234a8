//! The record of service on a channel: how much was asked, answered, failed and paid, and how fast. The payer counts
//! and signs it, the provider signs the batch that it stands in, the scoreboard adds it up. Totals, never steps: a
//! newer record replaces an older one, so posting twice changes nothing.

use alloy_primitives::{B256, U256, keccak256};
use alloy_sol_types::{SolStruct, sol};
use serde::{Deserialize, Serialize};

use crate::typed_data::{Domain, TypedData};
use crate::{DurationMs, MicroUsd, Overflow};

mod solidity {
    use super::sol;
    sol! {
        struct ServiceRecord {
            bytes32 channelId;
            uint64 revenue;
            uint64 promptTokens;
            uint64 outputTokens;
            uint32 requests;
            uint32 failures;
            uint256 ttft;
            uint256 speed;
        }
        struct ServiceBatch {
            ServiceRecord[] records;
        }
    }
}

/// Counts in eight classes; one 256-bit word on the chain, class 0 in its lowest 32 bits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Histogram(pub [u32; 8]);

/// Upper ends, exclusive, of the first seven classes of the time to the first token, in milliseconds.
pub const TTFT_MS_BELOW: [u32; 7] = [100, 250, 500, 1_000, 2_000, 4_000, 8_000];
/// Upper ends, exclusive, of the first seven classes of the pace after the first token, in tokens a second.
pub const SPEED_BELOW: [u32; 7] = [2, 5, 10, 20, 40, 80, 160];

impl Histogram {
    fn with(mut self, value: u64, below: &[u32; 7]) -> Result<Self, Overflow> {
        let class = below
            .iter()
            .position(|end| value < u64::from(*end))
            .unwrap_or(below.len());
        self.0[class] = self.0[class].checked_add(1).ok_or(Overflow)?;
        Ok(self)
    }

    /// As the contract reads it.
    pub fn word(&self) -> U256 {
        self.0.iter().rev().fold(U256::ZERO, |word, count| {
            (word << 32usize) | U256::from(*count)
        })
    }

    pub fn from_word(word: U256) -> Self {
        let class = |index: usize| ((word >> (32 * index)) & U256::from(u32::MAX)).to::<u32>();
        Self(std::array::from_fn(class))
    }

    /// How many were counted. Eight counts of 32 bits fit.
    pub fn count(&self) -> u64 {
        self.0.iter().map(|count| u64::from(*count)).sum()
    }

    /// The class in which this share of the counts, in percent, is reached; none where nothing was counted.
    pub fn quantile(&self, percent: u64) -> Option<usize> {
        // At most 2^35 counts times a hundred.
        let wanted = (self.count() * percent.min(100)).div_ceil(100).max(1);
        let mut seen = 0;
        self.0.iter().position(|count| {
            seen += u64::from(*count);
            seen >= wanted
        })
    }

    fn holds(&self, older: &Self) -> bool {
        self.0.iter().zip(older.0).all(|(new, old)| *new >= old)
    }
}

/// What happened on a channel so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Service {
    /// The sum of the charges of the requests counted here.
    pub revenue: MicroUsd,
    pub prompt_tokens: u64,
    pub output_tokens: u64,
    /// Requests that ended in a receipt.
    pub requests: u32,
    /// Requests that were paid for and did not.
    pub failures: u32,
    /// Time to the first token, as the payer saw it: one count a request.
    pub ttft: Histogram,
    /// Pace after the first token: one count a request with two tokens or more.
    pub speed: Histogram,
}

/// One answered request, as the payer saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answered {
    pub charged: MicroUsd,
    pub prompt_tokens: u32,
    pub output_tokens: u32,
    pub ttft: DurationMs,
    /// From the first token to the last.
    pub rest: DurationMs,
}

impl Service {
    pub fn answered(&self, answer: &Answered) -> Result<Self, Overflow> {
        let add = |sum: u64, more: u32| sum.checked_add(u64::from(more)).ok_or(Overflow);
        let mut next = *self;
        next.revenue = self.revenue.checked_add(answer.charged)?;
        next.prompt_tokens = add(self.prompt_tokens, answer.prompt_tokens)?;
        next.output_tokens = add(self.output_tokens, answer.output_tokens)?;
        next.requests = self.requests.checked_add(1).ok_or(Overflow)?;
        next.ttft = self.ttft.with(u64::from(answer.ttft.0), &TTFT_MS_BELOW)?;
        if answer.output_tokens > 1 {
            let after_first = u64::from(answer.output_tokens - 1);
            let pace = after_first * 1_000 / u64::from(answer.rest.0.max(1));
            next.speed = self.speed.with(pace, &SPEED_BELOW)?;
        }
        Ok(next)
    }

    pub fn failed(&self) -> Result<Self, Overflow> {
        let mut next = *self;
        next.failures = self.failures.checked_add(1).ok_or(Overflow)?;
        Ok(next)
    }

    /// Whether the counts fit each other, as the contract demands.
    pub fn is_sound(&self) -> bool {
        self.ttft.count() == u64::from(self.requests)
            && self.speed.count() <= u64::from(self.requests)
    }

    /// Whether nothing that `older` counted is missing here.
    pub fn holds(&self, older: &Self) -> bool {
        self.revenue >= older.revenue
            && self.prompt_tokens >= older.prompt_tokens
            && self.output_tokens >= older.output_tokens
            && self.requests >= older.requests
            && self.failures >= older.failures
            && self.ttft.holds(&older.ttft)
            && self.speed.holds(&older.speed)
    }
}

/// The service on one channel: what the payer signs, with its voucher key, for the scoreboard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ServiceRecord {
    pub channel_id: B256,
    pub service: Service,
}

impl ServiceRecord {
    /// EIP-712's struct hash: what the scoreboard keeps of the last record of a channel.
    pub fn struct_hash(&self) -> B256 {
        self.solidity().eip712_hash_struct()
    }

    fn solidity(&self) -> solidity::ServiceRecord {
        let service = &self.service;
        solidity::ServiceRecord {
            channelId: self.channel_id,
            revenue: service.revenue.0,
            promptTokens: service.prompt_tokens,
            outputTokens: service.output_tokens,
            requests: service.requests,
            failures: service.failures,
            ttft: service.ttft.word(),
            speed: service.speed.word(),
        }
    }
}

/// The domain is the scoreboard's: `("Assay", "1")`, its chain and its address.
impl TypedData for ServiceRecord {
    fn digest(&self, domain: &Domain) -> B256 {
        self.solidity().eip712_signing_hash(&domain.eip712())
    }
}

/// What the provider signs under the records that it lets count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceBatch(pub Vec<ServiceRecord>);

impl TypedData for ServiceBatch {
    fn digest(&self, domain: &Domain) -> B256 {
        let records = self.0.iter().map(ServiceRecord::solidity).collect();
        solidity::ServiceBatch { records }.eip712_signing_hash(&domain.eip712())
    }
}

/// The type's hash, which contract and program must agree on.
pub fn service_record_typehash() -> B256 {
    keccak256(solidity::ServiceRecord::eip712_encode_type().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(ttft: u32, rest: u32, output_tokens: u32) -> Answered {
        Answered {
            charged: MicroUsd(7),
            prompt_tokens: 10,
            output_tokens,
            ttft: DurationMs(ttft),
            rest: DurationMs(rest),
        }
    }

    #[test]
    fn every_answer_is_counted_once_in_its_class() {
        let service = Service::default()
            .answered(&answer(99, 1_000, 11))
            .and_then(|service| service.answered(&answer(100, 0, 1)))
            .and_then(|service| service.answered(&answer(u32::MAX, 1, 1_000)))
            .and_then(|service| service.failed())
            .unwrap();
        assert_eq!(service.ttft, Histogram([1, 1, 0, 0, 0, 0, 0, 1]));
        assert_eq!(service.speed, Histogram([0, 0, 0, 1, 0, 0, 0, 1]));
        assert_eq!(
            (service.requests, service.failures, service.revenue),
            (3, 1, MicroUsd(21))
        );
        assert!(service.is_sound());
    }

    #[test]
    fn a_word_holds_the_classes_from_the_lowest_up() {
        let histogram = Histogram([1, 2, 3, 4, 5, 6, 7, u32::MAX]);
        let word = histogram.word();
        assert_eq!(word & U256::from(u32::MAX), U256::from(1));
        assert_eq!(word >> 224usize, U256::from(u32::MAX));
        assert_eq!(Histogram::from_word(word), histogram);
    }

    #[test]
    fn a_quantile_is_the_class_that_reaches_it() {
        let histogram = Histogram([50, 49, 0, 1, 0, 0, 0, 0]);
        assert_eq!(
            [0, 50, 51, 99, 100].map(|percent| histogram.quantile(percent).unwrap()),
            [0, 0, 1, 1, 3]
        );
        assert_eq!(Histogram::default().quantile(50), None);
    }

    #[test]
    fn a_record_that_forgets_anything_does_not_hold_the_older_one() {
        let older = Service::default().answered(&answer(50, 10, 5)).unwrap();
        let newer = older.answered(&answer(50, 10, 5)).unwrap();
        assert!(newer.holds(&older) && newer.holds(&newer) && !older.holds(&newer));
        let mut moved = newer;
        moved.ttft = Histogram([0, 2, 0, 0, 0, 0, 0, 0]);
        assert!(!moved.holds(&older), "a count may not change its class");
    }
}
