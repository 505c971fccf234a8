//! A chain that does not answer is left alone for a while that grows, so that every request that needs it is refused at
//! once instead of waiting, and it is not run over when it comes back. Knows time, not the chain.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use assay_chain::ChainError;

const PAUSE_FIRST: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Whether the chain answers, as far as anybody here knows.
#[derive(Debug, Default)]
pub(crate) struct Away(Mutex<State>);

#[derive(Clone, Copy, Debug, Default)]
struct State {
    failures: u32,
    until: Option<Instant>,
}

/// The pause after so many failures in a row.
fn pause(failures: u32) -> Duration {
    PAUSE_FIRST
        .saturating_mul(1 << failures.saturating_sub(1).min(16))
        .min(PAUSE_MAX)
}

impl Away {
    /// How long it is to be left alone still; nothing if it may be asked.
    pub(crate) fn wait(&self) -> Option<Duration> {
        let state = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let left = state.until?.saturating_duration_since(Instant::now());
        (left > Duration::ZERO).then_some(left)
    }

    /// Runs a question to the chain within `patience` and notes whether it answered. What a contract refuses, it
    /// answered.
    pub(crate) async fn ask<T>(
        &self,
        patience: Duration,
        question: impl Future<Output = Result<T, ChainError>>,
    ) -> Result<T, ChainError> {
        let late = || ChainError::Unreachable(format!("no answer in {} ms", patience.as_millis()));
        let told = tokio::time::timeout(patience, question).await;
        let told = told.unwrap_or_else(|_| Err(late()));
        self.note(!matches!(told, Err(ChainError::Unreachable(_))));
        told
    }

    fn note(&self, answered: bool) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if answered {
            *state = State::default();
            return;
        }
        state.failures = state.failures.saturating_add(1);
        state.until = Some(Instant::now() + pause(state.failures));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound() {
        let pauses = [1, 2, 3, 6, 7, u32::MAX].map(|failures| pause(failures).as_millis());
        assert_eq!(pauses, [500, 1_000, 2_000, 16_000, 30_000, 30_000]);
    }

    #[test]
    fn a_chain_that_failed_is_left_alone_and_an_answer_ends_that() {
        let away = Away::default();
        assert!(away.wait().is_none());
        away.note(false);
        assert!(away.wait().is_some());
        away.note(true);
        assert!(away.wait().is_none());
    }

    #[tokio::test]
    async fn a_chain_that_says_nothing_is_away_and_a_refusal_is_an_answer() {
        let away = Away::default();
        let silence = std::future::pending::<Result<(), ChainError>>();
        assert!(away.ask(Duration::from_millis(1), silence).await.is_err());
        assert!(away.wait().is_some());
        let refusal = async { Err::<(), _>(ChainError::Rpc("no".into())) };
        assert!(away.ask(Duration::from_secs(1), refusal).await.is_err());
        assert!(away.wait().is_none());
    }
}
