//! Money on its way to providers: takes a lane, settles it, says what lanes hold. The books are `assay_payments`'; this
//! file keeps them off the async threads. How lanes meet the chain stands in `lanes/funding.rs`.

mod funding;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use assay_chain::{ChainError, Key, Market};
use assay_payments::payer::{Lane, LaneState, Payee, Reported};
use assay_payments::x402::{PaymentPayload, PaymentRequired, PaymentRequirements};
use assay_payments::{Paid, PayerLedger, PayerLedgerError};
use assay_protocol::{
    Address, Answered, B256, MicroUsd, Service, ServiceRecord, Signed, Timestamp,
};
use serde::{Deserialize, Serialize};

use crate::away::Away;
use crate::config::{ChainPatience, Spending};

/// All lanes of this gateway.
pub(crate) struct Lanes {
    ledger: Arc<Mutex<PayerLedger>>,
    /// One look at the chain at a time: what it says is entered before it is asked again, and each deposit changes what
    /// the next may be.
    turn: tokio::sync::Mutex<()>,
    market: Market,
    payer: Key,
    spending: Spending,
    patience: ChainPatience,
    pub(crate) away: Away,
}

/// What a request needs of a lane.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask {
    pub(crate) payee: Payee,
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
    #[error("a deposit is due, and the chain does not answer; it is asked again in {} ms", .0.as_millis())]
    Away(Duration),
    #[error("its deposit is not on the chain yet")]
    Slow,
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
    /// In one word or two: `opening`, `idle`, `in flight`, `unresolved` or `closed`.
    pub state: String,
    /// What was counted here for the scoreboard.
    #[serde(default)]
    pub service: Service,
    /// What the scoreboard shows of it.
    #[serde(default)]
    pub posted: Service,
    /// Why the provider refused the newest record, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record_refused: Option<String>,
}

impl Lanes {
    pub(crate) fn new(
        ledger: PayerLedger,
        market: Market,
        payer: Key,
        spending: Spending,
        patience: ChainPatience,
    ) -> Self {
        Self {
            ledger: Arc::new(Mutex::new(ledger)),
            turn: tokio::sync::Mutex::new(()),
            market,
            payer,
            spending,
            patience,
            away: Away::default(),
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
    pub(crate) async fn pay(&self, ask: Ask) -> Result<Payment, LaneTrouble> {
        if let Some(paid) = self.try_pay(ask).await? {
            return Ok(payment(paid, None));
        }
        // Dropped when it takes too long: what it wrote down is looked after by the next look at the lanes.
        match tokio::time::timeout(self.patience.deposit, self.pay_funded(ask)).await {
            Ok(paid) => paid,
            Err(_) => Err(LaneTrouble::Slow),
        }
    }

    async fn pay_funded(&self, ask: Ask) -> Result<Payment, LaneTrouble> {
        let _turn = self.turn.lock().await;
        // Another request may have brought a lane meanwhile.
        if let Some(paid) = self.try_pay(ask).await? {
            return Ok(payment(paid, None));
        }
        // Whoever comes without waiting may take the lane that was just funded; then another is, as
        // long as `fund` allows one.
        for _ in 0..=self.spending.lanes_per_provider {
            let deposited = self.fund(ask).await?;
            if let Some(paid) = self.try_pay(ask).await? {
                return Ok(payment(paid, deposited));
            }
        }
        Err(LaneTrouble::AllBusy(self.spending.lanes_per_provider))
    }

    async fn try_pay(&self, ask: Ask) -> Result<Option<Paid>, LaneTrouble> {
        let key = self.payer.clone();
        let paid = self
            .books(move |ledger| {
                let sign = |digest: &B256| key.sign_digest(*digest);
                ledger.pay(&ask.payee, ask.ceiling, ask.request_id, ask.now, sign)
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

    /// The request was refused before anything was served: it costs nothing and counts for nothing.
    pub(crate) async fn refused(&self, paid: &Paid) -> Result<(), LaneTrouble> {
        let (channel_id, request_id) = (paid.channel_id(), paid.request_id);
        self.books(move |ledger| ledger.settle(channel_id, request_id, MicroUsd::ZERO))
            .await
    }

    /// The request ended in a receipt that holds: it is charged and counted.
    pub(crate) async fn answered(&self, paid: &Paid, answer: Answered) -> Result<(), LaneTrouble> {
        let (channel_id, request_id) = (paid.channel_id(), paid.request_id);
        self.books(move |ledger| ledger.answered(channel_id, request_id, &answer))
            .await
    }

    /// A proof was bought: charged, and no further answer to count.
    pub(crate) async fn proof_bought(
        &self,
        paid: &Paid,
        charged: MicroUsd,
    ) -> Result<(), LaneTrouble> {
        let (channel_id, request_id) = (paid.channel_id(), paid.request_id);
        self.books(move |ledger| ledger.settle(channel_id, request_id, charged))
            .await
    }

    /// The request's fate is unknown, and nobody's fault.
    pub(crate) async fn lose(&self, paid: &Paid) -> Result<(), LaneTrouble> {
        let (channel_id, request_id) = (paid.channel_id(), paid.request_id);
        self.books(move |ledger| ledger.lose(channel_id, request_id))
            .await
    }

    /// The request was paid, and its provider gave no receipt that holds: counted as its failure.
    pub(crate) async fn fail(&self, paid: &Paid) -> Result<(), LaneTrouble> {
        let (channel_id, request_id) = (paid.channel_id(), paid.request_id);
        self.books(move |ledger| ledger.fail(channel_id, request_id))
            .await
    }

    /// Takes a corrective 402; true if the request can be paid anew.
    pub(crate) async fn correct(
        &self,
        channel_id: B256,
        required: PaymentRequired,
    ) -> Result<bool, LaneTrouble> {
        self.books(move |ledger| ledger.correct(channel_id, &required))
            .await
    }

    /// Signs no voucher to this receiver any more. Returns how many lanes that closed.
    pub(crate) async fn close(&self, receiver: Address) -> Result<usize, LaneTrouble> {
        self.close_where(move |lane| lane.config.receiver == receiver)
            .await
    }

    /// Closes lanes to this receiver by terms that it does not keep any more, as after it lost its key.
    pub(crate) async fn close_outdated(&self, payee: Payee) -> Result<usize, LaneTrouble> {
        self.close_where(move |lane| {
            let ends = !matches!(lane.state, LaneState::InFlight(_));
            lane.config.receiver == payee.receiver && !lane.pays(&payee) && ends
        })
        .await
    }

    async fn close_where(
        &self,
        which: impl Fn(&Lane) -> bool + Send + 'static,
    ) -> Result<usize, LaneTrouble> {
        self.books(move |ledger| {
            let open = ledger.lanes().filter(|lane| lane.is_open() && which(lane));
            let open: Vec<B256> = open.map(|lane| lane.channel_id).collect();
            for channel_id in &open {
                ledger.quarantine(*channel_id)?;
            }
            Ok(open.len())
        })
        .await
    }

    /// What is due to be told about service now, signed, by receiver.
    pub(crate) fn records_due(
        &self,
        now: Timestamp,
        interval_s: u64,
        again_s: u64,
    ) -> Vec<(Address, Signed<ServiceRecord>)> {
        let deployment = self.market.deployment();
        if deployment.scoreboard.is_zero() {
            return Vec::new();
        }
        let domain = deployment.scoreboard_domain();
        let ledger = self.lock();
        let due = ledger.lanes().filter_map(|lane| {
            let record = lane.report_due(now, interval_s, again_s)?;
            Some((lane.config.receiver, self.payer.sign(record, &domain)))
        });
        due.collect()
    }

    pub(crate) async fn reported(
        &self,
        record: ServiceRecord,
        said: Reported,
        at: Timestamp,
    ) -> Result<(), LaneTrouble> {
        self.books(move |ledger| ledger.reported(&record, said, at))
            .await
    }

    pub(crate) async fn posted(
        &self,
        channel_id: B256,
        posted: Service,
        at: Timestamp,
    ) -> Result<(), LaneTrouble> {
        self.books(move |ledger| ledger.posted(channel_id, posted, at))
            .await
    }

    /// A payment that asks for what is left of a closed lane.
    pub(crate) fn refund(
        &self,
        channel_id: B256,
        accepted: PaymentRequirements,
    ) -> Result<PaymentPayload, PayerLedgerError> {
        let sign = |digest: &B256| self.payer.sign_digest(*digest);
        self.lock().refund(channel_id, accepted, sign)
    }

    /// What is in channels or on its way there.
    pub(crate) fn held(&self) -> MicroUsd {
        self.lock().held()
    }

    /// The lanes as they are now.
    pub(crate) fn all(&self) -> Vec<Lane> {
        self.lock().lanes().cloned().collect()
    }

    pub(crate) fn market(&self) -> &Market {
        &self.market
    }

    pub(crate) fn status(&self) -> Vec<LaneStatus> {
        self.lock().lanes().map(status).collect()
    }

    /// Charged in all, and what could be claimed on top by vouchers of unsettled requests.
    pub(crate) fn totals(&self) -> (MicroUsd, MicroUsd) {
        self.lock().totals()
    }
}

fn status(lane: &Lane) -> LaneStatus {
    LaneStatus {
        channel_id: lane.channel_id,
        receiver: lane.config.receiver,
        balance: lane.balance,
        charged: lane.charged,
        signed: lane.signed_max,
        state: match lane.state {
            LaneState::Idle if lane.deposit.is_some() && lane.balance == MicroUsd::ZERO => {
                "opening"
            }
            LaneState::Idle => "idle",
            LaneState::InFlight(_) => "in flight",
            LaneState::Unresolved(_) => "unresolved",
            LaneState::Quarantined => "closed",
        }
        .into(),
        service: lane.service,
        posted: lane.report.posted,
        record_refused: lane.report.refused.as_ref().map(|(_, why)| why.clone()),
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
