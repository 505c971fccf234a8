//! Money on its way to providers: takes a lane, opens or tops one up within limits, settles it.
//! The books are `assay_payments`'; this file only meets them with the chain, off the async threads.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use assay_chain::{ChainError, Key, Market};
use assay_payments::payer::LaneState;
use assay_payments::x402::{PaymentRequired, PaymentRequirements};
use assay_payments::{Paid, PayerLedger, PayerLedgerError};
use assay_protocol::channel::ChannelConfig;
use assay_protocol::{Address, B256, MicroUsd, Timestamp};
use serde::{Deserialize, Serialize};

use crate::config::Spending;

/// All lanes of this gateway.
pub(crate) struct Lanes {
    ledger: Arc<Mutex<PayerLedger>>,
    /// One deposit at a time: each changes what the next may be.
    funding: tokio::sync::Mutex<()>,
    market: Market,
    payer: Key,
    spending: Spending,
}

/// What a request needs of a lane.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask {
    pub(crate) receiver: Address,
    pub(crate) ceiling: MicroUsd,
    pub(crate) request_id: B256,
    pub(crate) now: Timestamp,
}

/// A payment, and the deposit that was made for it, if one was.
#[derive(Clone, Debug)]
pub(crate) struct Payment {
    pub(crate) paid: Paid,
    /// What the lane owed before.
    pub(crate) cumulative_before: MicroUsd,
    pub(crate) deposited: Option<MicroUsd>,
}

/// Why nothing can be paid.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LaneTrouble {
    #[error("all {0} lanes to it are in use")]
    AllBusy(usize),
    #[error(
        "it could cost {needed}, and this gateway's limit on deposits ({limit}) leaves {left}: raise the limit"
    )]
    Limit {
        needed: MicroUsd,
        limit: MicroUsd,
        left: MicroUsd,
    },
    #[error("the account {payer} holds {balance}, a deposit of {needed} is due: put money into it")]
    Empty {
        payer: Address,
        balance: MicroUsd,
        needed: MicroUsd,
    },
    #[error("it wants to hold money for {0} s before a withdrawal, which is too long")]
    WithdrawDelay(u64),
    #[error(transparent)]
    Ledger(#[from] PayerLedgerError),
    #[error(transparent)]
    Chain(#[from] ChainError),
    #[error("the machine gives no randomness")]
    NoRandomness,
    #[error("the gateway is stopping")]
    Stopping,
}

/// A lane as `/assay/v1/status` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneStatus {
    pub channel_id: B256,
    pub receiver: Address,
    pub balance: MicroUsd,
    pub charged: MicroUsd,
    /// The most that the provider could claim by vouchers that it holds.
    pub signed: MicroUsd,
    pub state: String,
}

impl Lanes {
    pub(crate) fn new(ledger: PayerLedger, market: Market, payer: Key, spending: Spending) -> Self {
        let ledger = Arc::new(Mutex::new(ledger));
        Self {
            ledger,
            funding: tokio::sync::Mutex::new(()),
            market,
            payer,
            spending,
        }
    }

    fn lock(&self) -> MutexGuard<'_, PayerLedger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a change of the books where waiting for the disk stalls nobody.
    async fn books<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut PayerLedger) -> Result<T, PayerLedgerError> + Send + 'static,
    ) -> Result<T, LaneTrouble> {
        let ledger = self.ledger.clone();
        let done = tokio::task::spawn_blocking(move || {
            change(&mut ledger.lock().unwrap_or_else(PoisonError::into_inner))
        });
        Ok(done.await.map_err(|_| LaneTrouble::Stopping)??)
    }

    /// Signs a voucher for a request, after a deposit if one is needed.
    pub(crate) async fn pay(
        &self,
        ask: Ask,
        requirements: &PaymentRequirements,
    ) -> Result<Payment, LaneTrouble> {
        if let Some(paid) = self.try_pay(ask).await? {
            return Ok(payment(paid, None));
        }
        let _one_at_a_time = self.funding.lock().await;
        // Another request may have brought a lane meanwhile.
        if let Some(paid) = self.try_pay(ask).await? {
            return Ok(payment(paid, None));
        }
        // Whoever comes without waiting may take the lane that was just funded; then another is, as
        // long as `fund` allows one.
        for _ in 0..=self.spending.lanes_per_provider {
            let deposited = self.fund(ask, requirements).await?;
            if let Some(paid) = self.try_pay(ask).await? {
                return Ok(payment(paid, Some(deposited)));
            }
        }
        Err(LaneTrouble::AllBusy(self.spending.lanes_per_provider))
    }

    async fn try_pay(&self, ask: Ask) -> Result<Option<Paid>, LaneTrouble> {
        let key = self.payer.clone();
        let paid = self
            .books(move |ledger| {
                let sign = |digest: &B256| key.sign_digest(*digest);
                ledger.pay(ask.receiver, ask.ceiling, ask.request_id, ask.now, sign)
            })
            .await;
        match paid {
            Ok(paid) => Ok(Some(paid)),
            Err(LaneTrouble::Ledger(PayerLedgerError::NoLane { .. })) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The same request on the same lane again, after a correction.
    pub(crate) async fn pay_again(
        &self,
        ask: Ask,
        channel_id: B256,
    ) -> Result<Payment, LaneTrouble> {
        let key = self.payer.clone();
        let paid = self
            .books(move |ledger| {
                let sign = |digest: &B256| key.sign_digest(*digest);
                ledger.pay_on(channel_id, ask.ceiling, ask.request_id, ask.now, sign)
            })
            .await?;
        Ok(payment(paid, None))
    }

    /// Tops up a free lane that holds too little, or opens another one.
    async fn fund(
        &self,
        ask: Ask,
        requirements: &PaymentRequirements,
    ) -> Result<MicroUsd, LaneTrouble> {
        let delay = requirements.extra.withdraw_delay;
        if delay > self.spending.withdraw_delay_s_max {
            return Err(LaneTrouble::WithdrawDelay(delay));
        }
        let amount = self.spending.deposit.max(ask.ceiling);
        let (free, usable, deposits) = {
            let ledger = self.lock();
            let usable = |state| !matches!(state, LaneState::Quarantined);
            let lanes: Vec<_> = ledger
                .lanes_to(ask.receiver)
                .filter(|lane| usable(lane.state))
                .cloned()
                .collect();
            let free = lanes
                .iter()
                .find(|lane| !matches!(lane.state, LaneState::InFlight(_)));
            let deposits = ledger
                .lanes()
                .fold(0u64, |sum, lane| sum.saturating_add(lane.balance.0));
            (free.cloned(), lanes.len(), deposits)
        };
        let left = MicroUsd(self.spending.deposits_max.0.saturating_sub(deposits));
        if amount > left {
            let limit = self.spending.deposits_max;
            return Err(LaneTrouble::Limit {
                needed: amount,
                limit,
                left,
            });
        }
        if free.is_none() && usable >= self.spending.lanes_per_provider {
            return Err(LaneTrouble::AllBusy(usable));
        }
        let payer = self.payer.address();
        let balance = self.market.balance(payer).await?;
        if balance < amount {
            return Err(LaneTrouble::Empty {
                payer,
                balance,
                needed: amount,
            });
        }
        let config = match &free {
            Some(lane) => lane.config,
            None => ChannelConfig {
                payer,
                payer_authorizer: payer,
                receiver: ask.receiver,
                receiver_authorizer: requirements.extra.receiver_authorizer,
                token: requirements.asset,
                withdraw_delay_s: delay,
                salt: crate::gateway::random_word().ok_or(LaneTrouble::NoRandomness)?,
            },
        };
        self.market
            .open_channel(&self.payer, &config, amount)
            .await?;
        let channel_id = self.market.channel_id(&config).map_err(ChainError::from)?;
        let state = self.market.channel(channel_id).await?;
        let known = free.is_some();
        self.books(move |ledger| {
            if known {
                ledger.set_balance(channel_id, state.balance)
            } else {
                ledger
                    .add(config, state.balance, state.total_claimed)
                    .map(|_| ())
            }
        })
        .await?;
        Ok(amount)
    }

    /// The request ended with this charge.
    pub(crate) async fn settle(&self, paid: &Paid, charged: MicroUsd) -> Result<(), LaneTrouble> {
        let (channel_id, request_id) = (paid.channel_id(), paid.request_id);
        self.books(move |ledger| ledger.settle(channel_id, request_id, charged))
            .await
    }

    /// The request's fate is unknown.
    pub(crate) async fn lose(&self, paid: &Paid) -> Result<(), LaneTrouble> {
        let (channel_id, request_id) = (paid.channel_id(), paid.request_id);
        self.books(move |ledger| ledger.lose(channel_id, request_id))
            .await
    }

    /// Takes a corrective 402; true if the request can be paid anew.
    pub(crate) async fn correct(
        &self,
        paid: &Paid,
        required: PaymentRequired,
    ) -> Result<bool, LaneTrouble> {
        let channel_id = paid.channel_id();
        self.books(move |ledger| ledger.correct(channel_id, &required))
            .await
    }

    /// Signs no voucher to this receiver any more. Returns how many lanes that closed.
    pub(crate) async fn close(&self, receiver: Address) -> Result<usize, LaneTrouble> {
        self.books(move |ledger| {
            let open: Vec<B256> = ledger
                .lanes_to(receiver)
                .filter(|lane| !matches!(lane.state, LaneState::Quarantined))
                .map(|lane| lane.channel_id)
                .collect();
            for channel_id in &open {
                ledger.quarantine(*channel_id)?;
            }
            Ok(open.len())
        })
        .await
    }

    /// Asks the chain for the unspent money of closed lanes, and takes it once its delay is over.
    /// Returns what came back.
    pub(crate) async fn reclaim(&self) -> Result<MicroUsd, LaneTrouble> {
        let closed: Vec<_> = {
            let ledger = self.lock();
            let closed = ledger
                .lanes()
                .filter(|l| matches!(l.state, LaneState::Quarantined));
            closed.filter(|l| l.balance > l.charged).cloned().collect()
        };
        let mut back = MicroUsd::ZERO;
        for lane in closed {
            let state = self.market.channel(lane.channel_id).await?;
            let unclaimed = MicroUsd(state.balance.0.saturating_sub(state.total_claimed.0));
            match state.withdrawal {
                None if unclaimed > MicroUsd::ZERO => {
                    self.market
                        .initiate_withdraw(&self.payer, &lane.config, unclaimed)
                        .await?;
                }
                Some(withdrawal) => {
                    let ready = withdrawal
                        .initiated_at
                        .plus_seconds(lane.config.withdraw_delay_s);
                    if self.market.chain().now().await? < ready {
                        continue;
                    }
                    self.market
                        .finalize_withdraw(&self.payer, &lane.config)
                        .await?;
                    let after = self.market.channel(lane.channel_id).await?.balance;
                    back.0 = back
                        .0
                        .saturating_add(state.balance.0.saturating_sub(after.0));
                    let id = lane.channel_id;
                    self.books(move |ledger| ledger.set_balance(id, after))
                        .await?;
                }
                None if lane.balance == state.balance => {}
                None => {
                    let (id, after) = (lane.channel_id, state.balance);
                    self.books(move |ledger| ledger.set_balance(id, after))
                        .await?;
                }
            }
        }
        Ok(back)
    }

    pub(crate) fn status(&self) -> Vec<LaneStatus> {
        let ledger = self.lock();
        let lanes = ledger.lanes().map(|lane| LaneStatus {
            channel_id: lane.channel_id,
            receiver: lane.config.receiver,
            balance: lane.balance,
            charged: lane.charged,
            signed: lane.signed_max,
            state: match lane.state {
                LaneState::Idle => "idle",
                LaneState::InFlight(_) => "in flight",
                LaneState::Unresolved(_) => "unresolved",
                LaneState::Quarantined => "closed",
            }
            .into(),
        });
        lanes.collect()
    }

    /// Charged in all, and what could be claimed on top by vouchers of unsettled requests.
    pub(crate) fn totals(&self) -> (MicroUsd, MicroUsd) {
        self.lock().totals()
    }
}

fn payment(paid: Paid, deposited: Option<MicroUsd>) -> Payment {
    // The voucher is what was charged before plus this request's ceiling.
    let before = paid
        .voucher
        .voucher
        .max_claimable
        .0
        .saturating_sub(paid.ceiling.0);
    Payment {
        paid,
        cumulative_before: MicroUsd(before),
        deposited,
    }
}
