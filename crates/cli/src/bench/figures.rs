//! What was measured, in the shape that `--json` prints: field names are for scripts and stay. Every raw run is there,
//! so that a script can do its own statistics.

use super::roofline::{Cost, Roofline, Share};
use assay_protocol::ModelId;
use serde::Serialize;
use std::time::Duration;

#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    pub(crate) models: Vec<ModelFigures>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) cores: usize,
    /// One for each count of threads; none where they were not asked for.
    pub(crate) rooflines: Vec<Roofline>,
}

#[derive(Debug, Serialize)]
pub(crate) struct ModelFigures {
    pub(crate) name: String,
    pub(crate) id: ModelId,
    pub(crate) file_bytes: u64,
    pub(crate) cost: Cost,
    pub(crate) open: Option<Open>,
    pub(crate) rows: Vec<Row>,
}

/// From nothing in memory, with the file in the machine's cache.
#[derive(Debug, Serialize)]
pub(crate) struct Open {
    pub(crate) threads: usize,
    pub(crate) prompt_tokens: usize,
    /// Until the model could run.
    pub(crate) open_us: Vec<u64>,
    /// Until its first token, the opening included.
    pub(crate) first_token_us: Vec<u64>,
}

/// Everything on so many threads.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) threads: usize,
    pub(crate) prefill: Option<Speed>,
    pub(crate) decode: Vec<Decode>,
    pub(crate) audit: Option<Audit>,
    /// Mapped weights included.
    pub(crate) peak_memory_bytes: Option<u64>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Decode {
    pub(crate) batch: usize,
    #[serde(flatten)]
    pub(crate) speed: Speed,
}

#[derive(Debug, Serialize)]
pub(crate) struct Speed {
    /// Of all sequences together.
    pub(crate) tokens_per_s: Spread,
    pub(crate) roofline: Option<Share>,
    pub(crate) runs: Vec<Run>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Run {
    pub(crate) tokens: usize,
    pub(crate) micros: u64,
}

#[derive(Debug, Serialize)]
pub(crate) struct Audit {
    /// Re-executing as a share of generating.
    pub(crate) percent: Spread,
    pub(crate) runs: Vec<AuditRun>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct AuditRun {
    pub(crate) tokens: usize,
    pub(crate) generate_us: u64,
    pub(crate) audit_us: u64,
}

/// The middle of some values, and how far they lie apart.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// Of nothing it is all 0.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Spread {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let at = |index: usize| values.get(index).copied().unwrap_or_default();
        let last = values.len().saturating_sub(1);
        Spread {
            median: (at(last / 2) + at(last.div_ceil(2))) / 2.0,
            min: at(0),
            max: at(last),
        }
    }
}

impl Run {
    pub(crate) fn new(tokens: usize, time: Duration) -> Run {
        Run {
            tokens,
            micros: micros(time),
        }
    }

    pub(crate) fn seconds(&self) -> f64 {
        self.micros as f64 / 1e6
    }

    pub(crate) fn tokens_per_s(runs: &[Run]) -> Spread {
        Spread::of(runs.iter().map(|run| run.tokens as f64 / run.seconds()))
    }
}

impl Audit {
    pub(crate) fn new(runs: Vec<AuditRun>) -> Audit {
        let percent = |run: &AuditRun| 100.0 * run.audit_us as f64 / run.generate_us as f64;
        Audit {
            percent: Spread::of(runs.iter().map(percent)),
            runs,
        }
    }
}

/// At least one: nothing takes no time.
pub(crate) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_the_middle_the_least_and_the_most() {
        let check = |values: &[f64], median, min, max| {
            let expected = Spread { median, min, max };
            assert_eq!(Spread::of(values.iter().copied()), expected, "{values:?}");
        };
        check(&[3.0, 1.0, 2.0], 2.0, 1.0, 3.0);
        check(&[4.0, 1.0, 2.0, 3.0], 2.5, 1.0, 4.0);
        check(&[7.0], 7.0, 7.0, 7.0);
        check(&[], 0.0, 0.0, 0.0);
    }

    #[test]
    fn speeds_and_shares_come_from_each_run() {
        let runs = [
            Run::new(128, Duration::from_millis(500)),
            Run::new(128, Duration::from_secs(1)),
        ];
        let speed = Run::tokens_per_s(&runs);
        assert_eq!((speed.min, speed.median, speed.max), (128.0, 192.0, 256.0));
        let run = |generate_us, audit_us| AuditRun {
            tokens: 256,
            generate_us,
            audit_us,
        };
        let audit = Audit::new(vec![run(1_000, 100), run(1_000, 200), run(2_000, 300)]);
        assert_eq!(audit.percent.median, 15.0);
    }
}
