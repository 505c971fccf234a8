//! Vouchers become money: what is due and pays is tried, signed and sent, moved on into the vault, and released from
//! it. Claims state totals, so sending one twice pays once. Without money for gas the signed claims wait where anybody
//! can take them to the chain.

use std::collections::{BTreeSet, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use assay_chain::{ChainError, Claim, ServicePost, SignedClaims};
use assay_payments::LedgerError;
use assay_payments::payee::Account;
use assay_payments::payee_claims::{ClaimPolicy, GasPrice, due, pays};
use assay_protocol::{B256, MicroUsd, Timestamp};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::clock::now;
use crate::config::ClaimConfig;
use crate::records;
use crate::till::Till;
use crate::watch::{self, WatchError};

/// The longest pause after claims that failed.
const BACKOFF_MAX: Duration = Duration::from_secs(300);
/// Rows in one transaction, whatever the policy says.
const ROWS_MAX: usize = 200;
/// Signed batches that wait for gas.
const WAITING_MAX: usize = 16;
/// What moving claims into the vault, and out of it, takes about.
const COLLECT_GAS: u64 = 150_000;
const RELEASE_GAS: u64 = 150_000;

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
    /// Channels whose signed claims wait for somebody to pay the gas: `/assay/v1/claims`.
    #[serde(default)]
    pub claims_without_gas: u64,
    /// Deposits of payers that a reorganization could still take back.
    #[serde(default)]
    pub deposits_settling: u64,
    /// Channels whose payers have signed a record of service, and of these, how many are posted as they are.
    #[serde(default)]
    pub records: u64,
    #[serde(default)]
    pub records_posted: u64,
}

/// Claims on their way, in memory only: every voucher behind them is on disk.
#[derive(Default)]
pub(crate) struct Board(Mutex<Waiting>, AtomicBool);

#[derive(Default)]
struct Waiting {
    /// Signed, and nobody paid the gas.
    batches: Vec<SignedClaims>,
    /// Rows that the contract refuses, so that each is named once.
    refused: HashSet<B256>,
    /// Since when claimed money is not in the vault, and vault money not released.
    unsettled_since: Option<Timestamp>,
    releasable_since: Option<Timestamp>,
}

impl Board {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn waiting(&self) -> Vec<SignedClaims> {
        self.lock().batches.clone()
    }

    /// True the first time, until there was gas again.
    fn is_news(&self, empty: bool) -> bool {
        self.1.swap(empty, Ordering::Relaxed) != empty
    }
}

/// Why a round of claims came to nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClaimError {
    #[error(transparent)]
    Chain(#[from] ChainError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl From<WatchError> for ClaimError {
    fn from(error: WatchError) -> Self {
        match error {
            WatchError::Chain(error) => error.into(),
            WatchError::Ledger(error) => error.into(),
        }
    }
}

pub(crate) async fn earnings(app: &App) -> Result<Earnings, ChainError> {
    let pending = app.till.market.pending_payout(app.provider).await?;
    let count = |rows: usize| u64::try_from(rows).unwrap_or(u64::MAX);
    let (totals, deposits, records, posted) = app
        .till
        .with_ledger(|ledger| {
            let is_posted = |row: &&_| {
                let row: &assay_payments::payee_records::RecordRow = row;
                row.posted == Some(row.record.body)
            };
            let posted = ledger.records().filter(is_posted).count();
            let deposits = ledger.deposits().count();
            (ledger.totals(), deposits, ledger.records().count(), posted)
        })
        .await;
    let batches = app.board.waiting();
    Ok(Earnings {
        charged: totals.0,
        unclaimed: totals.1,
        unsettled: pending.unsettled,
        waiting: pending.waiting,
        releasable: pending.releasable,
        held: pending.held,
        requests: app.pace.answered.load(Ordering::Relaxed),
        output_tokens: app.pace.tokens.load(Ordering::Relaxed),
        claims_without_gas: batches.iter().map(|batch| count(batch.claims.len())).sum(),
        deposits_settling: count(deposits),
        records: count(records),
        records_posted: count(posted),
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

/// Claims whatever brings more than its gas costs: for a shutdown, or an owner who asks.
pub(crate) async fn all(app: &App, policy: &ClaimPolicy) -> Result<MicroUsd, ClaimError> {
    round(app, &policy.at_once()).await
}

/// One round: hears the chain, claims what is due and pays, moves it into the vault, and releases what has waited long
/// enough.
async fn round(app: &App, policy: &ClaimPolicy) -> Result<MicroUsd, ClaimError> {
    watch::round(&app.till).await?;
    let price = app.till.gas_price().await?;
    let claimed = claim(app, policy, &price).await?;
    settle(app, policy, &price).await?;
    Ok(claimed)
}

/// Moves money on as far as that pays. Needs gas of our own; who has none waits for somebody who collects for it.
async fn settle(app: &App, policy: &ClaimPolicy, price: &GasPrice) -> Result<(), ClaimError> {
    let (market, relay) = (&app.till.market, &app.till.relay);
    let pending = market.pending_payout(app.provider).await?;
    let (unsettled_since, releasable_since) = {
        let mut waiting = app.board.lock();
        let since = |amount: MicroUsd, since: Option<Timestamp>| {
            (amount > MicroUsd::ZERO).then(|| since.unwrap_or_else(now))
        };
        waiting.unsettled_since = since(pending.unsettled, waiting.unsettled_since);
        waiting.releasable_since = since(pending.releasable, waiting.releasable_since);
        (waiting.unsettled_since, waiting.releasable_since)
    };
    let pays = |amount: MicroUsd, since, gas| {
        amount > MicroUsd::ZERO && price.cost(gas) <= policy.budget(amount, since, now())
    };
    let collects = pays(pending.unsettled, unsettled_since, COLLECT_GAS);
    let releases = pays(pending.releasable, releasable_since, RELEASE_GAS);
    if !collects && !releases || !has_gas(app, price, COLLECT_GAS).await? {
        return Ok(());
    }
    if collects {
        market.collect(relay, app.provider).await?;
    }
    if releases {
        market.release(relay, app.provider).await?;
    }
    Ok(())
}

/// Whether our own key can pay for so much gas.
async fn has_gas(app: &App, price: &GasPrice, gas: u64) -> Result<bool, ChainError> {
    if price.wei == 0 {
        return Ok(true);
    }
    // What is offered has slack, in gas and in price.
    let needed = u128::from(gas).saturating_mul(price.wei).saturating_mul(3) / 2;
    let market = &app.till.market;
    Ok(market
        .chain()
        .coin_balance(app.till.relay.address())
        .await?
        >= needed)
}

async fn claim(app: &App, policy: &ClaimPolicy, price: &GasPrice) -> Result<MicroUsd, ClaimError> {
    let till = &app.till;
    // The chain's word counts: an earlier claim may have gone through unheard, or somebody else sent it.
    let mut ids: BTreeSet<B256> = {
        let ledger = till.ledger();
        let due = due(ledger.accounts(), policy, price, now());
        due.iter().map(|account| account.channel_id).collect()
    };
    let shown = app.board.waiting();
    let rows = shown.iter().flat_map(|batch| &batch.claims);
    ids.extend(rows.map(|claim| claim.voucher.voucher.channel_id));
    if ids.is_empty() {
        return Ok(MicroUsd::ZERO);
    }
    watch::read(till, ids.iter().copied().collect()).await?;
    let due: Vec<Account> = {
        let ledger = till.ledger();
        let accounts = ids.iter().filter_map(|id| ledger.account(id));
        due(accounts, policy, price, now())
            .into_iter()
            .cloned()
            .collect()
    };
    let mut claimed = 0u64;
    let mut waiting = Vec::new();
    for batch in due.chunks(policy.batch_max.clamp(1, ROWS_MAX)) {
        match send(app, policy, price, batch).await? {
            Sent::Claimed(value) => claimed = claimed.saturating_add(value.0),
            Sent::NoGas(signed) => waiting.push(signed),
            Sent::NotNow => {}
        }
    }
    waiting.truncate(WAITING_MAX);
    app.board.lock().batches = waiting;
    Ok(MicroUsd(claimed))
}

/// What became of a batch.
enum Sent {
    Claimed(MicroUsd),
    /// Signed; our own key cannot pay.
    NoGas(SignedClaims),
    /// Nothing in it holds, or the gas is too dear after all.
    NotNow,
}

async fn send(
    app: &App,
    policy: &ClaimPolicy,
    price: &GasPrice,
    accounts: &[Account],
) -> Result<Sent, ClaimError> {
    let till = &app.till;
    let rows: Vec<(&Account, Claim)> = accounts
        .iter()
        .map(|account| (account, row(account)))
        .collect();
    let rows = tried(app, rows).await?;
    if rows.is_empty() {
        return Ok(Sent::NotNow);
    }
    let claims: Vec<Claim> = rows.iter().map(|(_, claim)| *claim).collect();
    let signed = till.market.sign_claims(&till.relay, &claims);
    let from = till.relay.address();
    let affordable = |gas: u64| {
        let accounts = rows.iter().map(|(account, _)| *account);
        pays(accounts, policy, price.cost(gas), now())
    };
    let alone = till.market.claims_gas(from, &signed, None).await?;
    if !affordable(alone) {
        tracing::debug!(
            gas = alone,
            "claiming costs more than it may; the vouchers wait"
        );
        return Ok(Sent::NotNow);
    }
    if !has_gas(app, price, alone).await? {
        if app.board.is_news(true) {
            tracing::error!(address = %from, "no coins for gas: send some to this address, or have the claims submitted by anybody: `assay chain relay --node URL`");
        }
        return Ok(Sent::NoGas(signed));
    }
    let post = records_with(app, &claims, &signed, affordable).await;
    let submitted = match till
        .market
        .submit_claims(&till.relay, &signed, post.as_ref())
        .await
    {
        Ok(submitted) => submitted,
        Err(ChainError::Rpc(why)) if why.contains("insufficient funds") => {
            if app.board.is_news(true) {
                tracing::error!(address = %from, why, "no coins for gas: send some to this address");
            }
            return Ok(Sent::NoGas(signed));
        }
        Err(error) => return Err(error.into()),
    };
    app.board.is_news(false);
    if let Some(why) = &submitted.left_out {
        tracing::warn!(%why, "records of service were not posted; the claims went through");
    }
    tracing::info!(channels = rows.len(), records = submitted.posted.len(), transaction = %submitted.mined.hash, "claimed");
    if let Some(post) = post {
        note_posted(till, post, submitted.posted).await?;
    }
    let ids = rows.iter().map(|(account, _)| account.channel_id).collect();
    watch::read(till, ids).await?;
    let value = rows.iter().fold(0u64, |sum, (account, _)| {
        sum.saturating_add(account.claimable().0)
    });
    Ok(Sent::Claimed(MicroUsd(value)))
}

fn row(account: &Account) -> Claim {
    let total_claimed = account.charged.min(account.chain.balance);
    if total_claimed < account.charged {
        tracing::error!(channel = %account.channel_id, charged = %account.charged, balance = %account.chain.balance,
            "a channel holds less than was charged on it");
    }
    Claim {
        config: account.config,
        voucher: account.voucher,
        total_claimed,
    }
}

/// The rows that the contract would take. Each that it would not is named once.
async fn tried<'a>(
    app: &App,
    rows: Vec<(&'a Account, Claim)>,
) -> Result<Vec<(&'a Account, Claim)>, ChainError> {
    let claims: Vec<Claim> = rows.iter().map(|(_, claim)| *claim).collect();
    let told = app.till.market.try_claims(&claims).await?;
    let mut good = Vec::with_capacity(rows.len());
    for (row, told) in rows.into_iter().zip(told) {
        let channel = row.0.channel_id;
        match told {
            Ok(()) => {
                app.board.lock().refused.remove(&channel);
                good.push(row);
            }
            Err(why) => {
                if app.board.lock().refused.insert(channel) {
                    tracing::error!(%channel, %why, "a claim is refused and left out; its voucher is kept");
                }
            }
        }
    }
    Ok(good)
}

/// The records to send along, if they are to be had and may be paid for. Whatever is wrong with them, the claims go.
async fn records_with(
    app: &App,
    claims: &[Claim],
    signed: &SignedClaims,
    affordable: impl Fn(u64) -> bool,
) -> Option<ServicePost> {
    let post = match records::to_post(app, claims).await {
        Ok(post) => post?,
        Err(error) => {
            tracing::warn!(%error, "records of service wait for the next claims");
            return None;
        }
    };
    let till = &app.till;
    let gas = till
        .market
        .claims_gas(till.relay.address(), signed, Some(&post));
    match gas.await {
        Ok(gas) if affordable(gas) => Some(post),
        Ok(gas) => {
            tracing::debug!(gas, "records of service wait for cheaper gas");
            None
        }
        Err(error) => {
            tracing::warn!(%error, "records of service wait for the next claims");
            None
        }
    }
}

async fn note_posted(
    till: &Arc<Till>,
    post: ServicePost,
    posted: Vec<B256>,
) -> Result<(), LedgerError> {
    till.with_ledger(move |ledger| {
        for entry in &post.entries {
            let record = entry.record.body;
            if posted.contains(&record.channel_id) {
                ledger.posted(&record.channel_id, Some(record))?;
            }
        }
        Ok(())
    })
    .await
}
