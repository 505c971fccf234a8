//! How long and how often a chain is asked before it counts as failed: every bound in one place.

use std::time::Duration;

/// Bounds on asking again. The defaults fit real networks; tests shorten them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// A read is tried so often on every node, with growing pauses between.
    pub read_attempts: u32,
    pub pause_first: Duration,
    pub pause_most: Duration,
    /// How long a transaction is waited for.
    pub mined: Duration,
    /// A transaction that is in no block is looked for in the pool so often, and sent again if it is not there.
    pub look_every: Duration,
    /// One that the pool keeps so long without a block is replaced by one that pays more.
    pub replace_after: Duration,
    /// Replacements at most; each pays a quarter more, or what the chain asks by then.
    pub replacements: u32,
}

impl Default for Patience {
    fn default() -> Self {
        Patience {
            read_attempts: 6,
            pause_first: Duration::from_millis(100),
            pause_most: Duration::from_secs(4),
            mined: Duration::from_secs(180),
            look_every: Duration::from_secs(6),
            replace_after: Duration::from_secs(45),
            replacements: 3,
        }
    }
}

impl Patience {
    /// The pause after this many rounds, doubled each time.
    pub(crate) fn pause(&self, round: u32) -> Duration {
        let doubled = self
            .pause_first
            .saturating_mul(1 << round.saturating_sub(1).min(16));
        doubled.min(self.pause_most)
    }
}
