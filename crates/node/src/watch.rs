//! Asks the chain about every channel that still matters, and lets its word replace the books': at start, and then
//! round by round. What is found is `payments::payee_chain`'s to judge.

use std::sync::Arc;

use assay_chain::ChainError;
use assay_payments::LedgerError;
use assay_payments::payee_chain::{Seen, to_read};
use assay_protocol::B256;
use futures::{StreamExt, stream};

use crate::clock::now;
use crate::till::Till;

/// Channels asked about at once.
const AT_ONCE: usize = 8;
/// Channels asked about in one round; the longest unseen come first.
const ROUND_MAX: usize = 512;
/// How many times a channel is looked at within a payer's delay, at least.
const LOOKS_IN_A_DELAY: u64 = 8;

/// Why the chain's word could not be had or kept.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WatchError {
    #[error(transparent)]
    Chain(#[from] ChainError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// Reads every account with an open interest, whenever it was read last: for a start.
pub(crate) async fn all(till: &Arc<Till>) -> Result<(), WatchError> {
    let ids = to_read(till.ledger().accounts(), 0, usize::MAX, now());
    // First the deposits: what is read after them is what they made of it.
    till.tend_deposits().await;
    read(till, ids).await
}

/// Reads what runs, settles, or was not looked at for a while.
pub(crate) async fn round(till: &Arc<Till>) -> Result<(), WatchError> {
    let every_s = till.terms.withdraw_delay_s / LOOKS_IN_A_DELAY;
    let ids = to_read(till.ledger().accounts(), every_s, ROUND_MAX, now());
    // First the deposits: what is read after them is what they made of it.
    till.tend_deposits().await;
    read(till, ids).await
}

/// Reads these channels and enters what the chain says. What could be read is kept, whatever could not.
pub(crate) async fn read(till: &Arc<Till>, ids: Vec<B256>) -> Result<(), WatchError> {
    if ids.is_empty() {
        return Ok(());
    }
    let one = |id| async move { Ok::<_, ChainError>((id, till.read_seen(id).await?)) };
    let told: Vec<Result<(B256, Seen), ChainError>> = stream::iter(ids)
        .map(one)
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    let (mut seen, mut failed) = (Vec::new(), None);
    for channel in told {
        match channel {
            Ok(channel) => seen.push(channel),
            Err(error) => failed = Some(error),
        }
    }
    till.with_ledger(move |ledger| ledger.see(&seen, now()))
        .await?;
    failed.map_or(Ok(()), |error| Err(error.into()))
}
