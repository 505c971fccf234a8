//! Vouchers become money: claims are batched by value and age, sent with our signature, and moved on into the vault.
//! Claims state totals, so sending one twice pays once.

use std::sync::Arc;
use std::time::Duration;

use assay_chain::{ChainError, Claim};
use assay_payments::payee::ClaimPolicy;
use assay_payments::{LedgerError, PayeeLedger};
use assay_protocol::{B256, MicroUsd};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::clock::now;
use crate::config::ClaimConfig;
use crate::till::Till;

/// The longest pause after claims that failed.
const BACKOFF_MAX: Duration = Duration::from_secs(300);

/// What a node has earned, and where the money is. All in micro-USD.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Earnings {
    /// Charged in all, by the ledger.
    pub charged: MicroUsd,
    /// Of that, not yet claimed from the channels.
    pub unclaimed: MicroUsd,
    /// Claimed, not yet moved into the vault.
    pub unsettled: MicroUsd,
    /// In the vault, within the challenge window.
    pub waiting: MicroUsd,
    /// Out of the window: the next release pays it.
    pub releasable: MicroUsd,
    /// Held by disputes.
    pub held: MicroUsd,
    pub requests: u64,
    pub output_tokens: u64,
}

/// Why a round of claims came to nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClaimError {
    #[error(transparent)]
    Chain(#[from] ChainError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

pub(crate) async fn earnings(app: &App) -> Result<Earnings, ChainError> {
    let pending = app.till.market.pending_payout(app.provider).await?;
    let (charged, unclaimed) = app.till.with_ledger(|ledger| ledger.totals()).await;
    Ok(Earnings {
        charged,
        unclaimed,
        unsettled: pending.unsettled,
        waiting: pending.waiting,
        releasable: pending.releasable,
        held: pending.held,
        requests: app.pace.answered.load(std::sync::atomic::Ordering::Relaxed),
        output_tokens: app.pace.tokens.load(std::sync::atomic::Ordering::Relaxed),
    })
}

/// Claims by the policy until told to stop. Failures wait longer each time, and never stop the node from serving.
pub(crate) async fn run(app: Arc<App>, config: ClaimConfig, stop: CancellationToken) {
    let mut pause = config.interval;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        pause = match round(&app, &config.policy).await {
            Ok(_) => config.interval,
            Err(error) => {
                tracing::warn!(%error, "claims failed; the vouchers are safe, trying again later");
                (pause * 2).min(BACKOFF_MAX.max(config.interval))
            }
        };
    }
}

/// Claims whatever is charged, whatever it costs: for a shutdown.
pub(crate) async fn all(app: &App) -> Result<MicroUsd, ClaimError> {
    let policy = ClaimPolicy {
        value: MicroUsd(0),
        age_s: 0,
        batch_max: usize::MAX,
    };
    round(app, &policy).await
}

/// One round: claims what is due, moves it into the vault, and releases what has waited long enough.
async fn round(app: &App, policy: &ClaimPolicy) -> Result<MicroUsd, ClaimError> {
    let claimed = claim(&app.till, policy).await?;
    let pending = app.till.market.pending_payout(app.provider).await?;
    if pending.unsettled > MicroUsd::ZERO {
        app.till
            .market
            .collect(&app.till.relay, app.provider)
            .await?;
    }
    if pending.releasable > MicroUsd::ZERO {
        app.till
            .market
            .release(&app.till.relay, app.provider)
            .await?;
    }
    Ok(claimed)
}

async fn claim(till: &Arc<Till>, policy: &ClaimPolicy) -> Result<MicroUsd, ClaimError> {
    let policy_now = *policy;
    let due = till
        .with_ledger(move |ledger| {
            ledger
                .due(&policy_now, now())
                .into_iter()
                .cloned()
                .collect::<Vec<_>>()
        })
        .await;
    let (mut claims, mut known, mut value) = (Vec::new(), Vec::new(), 0u64);
    for account in due {
        // The chain's word counts: an earlier claim may have gone through although its answer was lost.
        let chain = till.read_channel(account.channel_id).await?;
        known.push((account.channel_id, chain.claimed));
        let total = account.charged.min(chain.balance);
        if total < account.charged {
            tracing::error!(channel = %account.channel_id, charged = %account.charged, balance = %chain.balance,
                "a channel holds less than was charged on it");
        }
        if total > chain.claimed {
            value = value.saturating_add(total.0 - chain.claimed.0);
            claims.push(Claim {
                config: account.config,
                voucher: account.voucher,
                total_claimed: total,
            });
        }
    }
    mark(till, known).await?;
    for batch in claims.chunks(policy.batch_max.clamp(1, 100)) {
        let mined = till.market.claim(&till.relay, &till.relay, batch).await?;
        let totals = batch
            .iter()
            .map(|claim| (claim.voucher.voucher.channel_id, claim.total_claimed))
            .collect();
        mark(till, totals).await?;
        tracing::info!(channels = batch.len(), transaction = %mined.hash, "claimed");
    }
    Ok(MicroUsd(value))
}

async fn mark(till: &Arc<Till>, totals: Vec<(B256, MicroUsd)>) -> Result<(), LedgerError> {
    till.with_ledger(move |ledger: &mut PayeeLedger| ledger.mark_claimed(&totals))
        .await
}
