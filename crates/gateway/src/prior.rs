//! What the scoreboard says of a provider that this gateway never used, as a place to start from. Pure. The chain's word
//! can make a stranger look worse than unknown, never better: a provider can pay itself for a good name.

use assay_chain::Score;
use assay_protocol::{Timestamp, TokenCount};
use serde::{Deserialize, Serialize};

use crate::routing::Speed;

/// Upper ends of the classes of the time to the first token; the last one has none, and is taken as twice the one before.
const TTFT_MS: [u32; 8] = [100, 250, 500, 1_000, 2_000, 4_000, 8_000, 16_000];
/// Lower ends of the classes of pace, in microseconds a token; below two tokens a second is taken as one.
const US_PER_TOKEN: [u32; 8] = [
    1_000_000, 500_000, 200_000, 100_000, 50_000, 25_000, 12_500, 6_250,
];
/// Requests below which the counts say nothing yet.
const REQUESTS_MIN: u64 = 8;

/// A provider by the chain's word, not by this gateway's measure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainsWord {
    /// Answers that payers counted.
    pub requests: u64,
    /// Medians, by the worse end of their class; nothing where too little was counted.
    pub ttft_ms: Option<u32>,
    pub us_per_token: Option<u32>,
    /// The part of what was paid that no failure spoiled, in millionths; nothing where nothing was paid.
    pub success_ppm: Option<u32>,
    pub convictions: u32,
    /// Zero where it is in no jail.
    pub jailed_until: Timestamp,
}

impl ChainsWord {
    pub(crate) fn of(score: &Score) -> Self {
        let enough = score.requests >= REQUESTS_MIN;
        let median = |histogram: &assay_protocol::Histogram, ends: &[u32; 8]| {
            let class = histogram.quantile(50).filter(|_| enough);
            class.map(|class| ends[class])
        };
        Self {
            requests: score.requests,
            ttft_ms: median(&score.ttft, &TTFT_MS),
            us_per_token: median(&score.speed, &US_PER_TOKEN),
            success_ppm: score.success_ppm().filter(|_| enough),
            convictions: score.convictions,
            jailed_until: score.jailed_until,
        }
    }

    pub(crate) fn speed(&self) -> Option<Speed> {
        Some(Speed {
            ttft_ms: self.ttft_ms?,
            us_per_token: self.us_per_token.unwrap_or(0),
        })
    }

    /// By how much an answer from it is thought to cost more, in thousandths: what fails has to be asked again, and each
    /// conviction doubles it, up to eight times.
    pub(crate) fn doubt_permille(&self) -> u128 {
        let success = u128::from(self.success_ppm.unwrap_or(1_000_000)).max(50_000);
        let doubled = 1u128 << self.convictions.min(3);
        1_000 * 1_000_000 / success * doubled
    }

    /// Whether it is in jail at this time.
    pub(crate) fn is_jailed(&self, now: Timestamp) -> bool {
        self.jailed_until > now
    }
}

/// The time that an answer of so many tokens takes.
pub(crate) fn time_ms(speed: &Speed, output: TokenCount) -> u64 {
    u64::from(speed.ttft_ms) + u64::from(output.0) * u64::from(speed.us_per_token) / 1_000
}

#[cfg(test)]
mod tests {
    use super::*;
    use assay_protocol::{Histogram, MicroUsd};

    fn score() -> Score {
        Score {
            revenue: MicroUsd(1_000),
            weighted_failures: MicroUsd(200),
            requests: 10,
            ttft: Histogram([1, 1, 6, 2, 0, 0, 0, 0]),
            speed: Histogram([0, 0, 0, 9, 1, 0, 0, 0]),
            ..Score::default()
        }
    }

    #[test]
    fn the_chains_medians_are_taken_by_the_worse_end_of_their_class() {
        let word = ChainsWord::of(&score());
        assert_eq!(
            word.speed(),
            Some(Speed {
                ttft_ms: 500,
                us_per_token: 100_000
            })
        );
        assert_eq!(word.success_ppm, Some(800_000));
        assert_eq!(word.doubt_permille(), 1_250);
    }

    #[test]
    fn a_handful_of_answers_says_nothing() {
        let few = Score {
            requests: 7,
            ..score()
        };
        let word = ChainsWord::of(&few);
        assert_eq!((word.speed(), word.success_ppm), (None, None));
        assert_eq!(word.doubt_permille(), 1_000);
    }

    #[test]
    fn convictions_weigh_up_to_a_bound() {
        let doubts = [0, 1, 2, 3, 9].map(|convictions| {
            ChainsWord {
                convictions,
                ..ChainsWord::default()
            }
            .doubt_permille()
        });
        assert_eq!(doubts, [1_000, 2_000, 4_000, 8_000, 8_000]);
    }
}
