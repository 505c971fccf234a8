//! What all requests of a node share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use assay_chain::Key;
use assay_protocol::{Address, Domain, Timestamp};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::claims::Board;
use crate::conduct::Conduct;
use crate::config::Limits;
use crate::defence::Games;
use crate::keep::Keep;
use crate::offers::Offers;
use crate::order::Ware;
use crate::proofs::Proofs;
use crate::till::Till;
use crate::worker::Worker;

pub(crate) struct App {
    pub(crate) provider: Address,
    pub(crate) key: Key,
    pub(crate) domain: Domain,
    pub(crate) public_url: String,
    pub(crate) limits: Limits,
    pub(crate) conduct: Arc<dyn Conduct>,
    pub(crate) wares: Vec<Ware>,
    /// The engines, one a ware, in the same order.
    pub(crate) workers: Vec<Worker>,
    pub(crate) till: Arc<Till>,
    /// Claims on their way.
    pub(crate) board: Board,
    /// What stands behind signed receipts.
    pub(crate) keep: Arc<Keep>,
    /// Proofs of them, where they are offered.
    pub(crate) proofs: Option<Arc<Proofs>>,
    /// Disputes about them.
    pub(crate) games: Games,
    /// Whether it answers for its traces off the chain as well.
    pub(crate) serves_traces: bool,
    pub(crate) offers: Offers,
    /// Who may tokenize a prompt now.
    pub(crate) readers: Semaphore,
    /// Places for running and waiting requests together.
    pub(crate) places: Arc<Semaphore>,
    pub(crate) sessions: TaskTracker,
    /// Cancelled when running answers must end now.
    pub(crate) cutoff: CancellationToken,
    pub(crate) pace: Pace,
    pub(crate) started_at: Timestamp,
}

/// How long answers take here lately, for an honest `retry-after`.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    average_ms: AtomicU64,
    pub(crate) answered: AtomicU64,
    pub(crate) tokens: AtomicU64,
}

impl Pace {
    pub(crate) fn note(&self, duration_ms: u64, tokens: u64) {
        // Two requests that end at once may lose one of their notes; an average can bear that.
        let before = self.average_ms.load(Ordering::Relaxed);
        let next = if before == 0 {
            duration_ms
        } else {
            (before * 7 + duration_ms) / 8
        };
        self.average_ms.store(next, Ordering::Relaxed);
        self.answered.fetch_add(1, Ordering::Relaxed);
        self.tokens.fetch_add(tokens, Ordering::Relaxed);
    }

    /// When a place should be free, if all are taken: the running answers' average, shared by those answered at once.
    pub(crate) fn retry_after_ms(&self, sequences_max: usize) -> u64 {
        let average = self.average_ms.load(Ordering::Relaxed).max(500);
        (average / sequences_max.max(1) as u64).clamp(250, 30_000)
    }
}
