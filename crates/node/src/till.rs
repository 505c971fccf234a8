//! Takes payments: reads the header, asks the chain what it must, and enters the voucher into the ledger before anything
//! is served. Decisions are `payments::payee`'s; this shell does the waiting.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use assay_chain::{ChainError, Key, Market};
use assay_payments::payee::{
    self, Account, OnChain, Presented, Refusal, Reservation, channel_state,
};
use assay_payments::payee_chain::Seen;
use assay_payments::payee_claims::GasPrice;
use assay_payments::x402::{
    Amount, ChannelState, Code, Network, Payload, PaymentPayload, PaymentRequirements,
    PaymentResponse, ResponseExtra, SCHEME,
};
use assay_payments::{AcceptError, LedgerError, PayeeLedger, Terms};
use assay_protocol::{Address, B256, MicroUsd, Receipt, Signed, Timestamp};

use crate::clock::now;
use crate::deposits::Submitting;

/// While the chain is away, channels are served by its last word for so many times as long as otherwise.
const AWAY_FACTOR: u64 = 10;
/// How long a payer with a known channel waits for a chain that may be away.
const AWAY_PATIENCE: Duration = Duration::from_secs(2);
/// How long a chain that was away is not asked about known channels.
const AWAY_S: u64 = 5;

/// The books and what is needed to keep them.
pub(crate) struct Till {
    ledger: Mutex<PayeeLedger>,
    pub(crate) market: Market,
    /// Pays the gas of deposits and claims.
    pub(crate) relay: Key,
    pub(crate) terms: Terms,
    /// The depth at which the chain's word is final.
    pub(crate) confirmations: u64,
    /// What a coin for gas costs.
    coin: MicroUsd,
    pub(crate) submitting: Submitting,
    channel_ttl_s: u64,
    /// Until when the chain counts as away.
    away_until: AtomicU64,
}

/// A payment that was taken: the request may be served. Dropped without a charge it frees its channel, so that no way
/// out of a request, not even a client that leaves between two steps, keeps a channel busy.
pub(crate) struct Taken {
    till: Arc<Till>,
    pub(crate) reservation: Reservation,
    pub(crate) payer: Address,
    /// The deposit's transaction, if the payment brought one.
    transaction: Option<B256>,
    charged: bool,
}

impl Taken {
    /// Holds a channel that is reserved for something else than a request.
    pub(crate) fn hold(till: &Arc<Till>, reservation: Reservation, payer: Address) -> Self {
        Self {
            till: Arc::clone(till),
            reservation,
            payer,
            transaction: None,
            charged: false,
        }
    }

    /// The books have let go of the channel already.
    pub(crate) fn done(&mut self, done: bool) {
        self.charged = done;
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if self.charged {
            return;
        }
        if let Err(error) = self.till.ledger().release(&self.reservation) {
            tracing::error!(%error, "a reservation could not be released");
        }
    }
}

/// An entry of the books that charges a reserved request.
type Charge =
    fn(&mut PayeeLedger, &Reservation, &Signed<Receipt>, Timestamp) -> Result<(), AcceptError>;

/// Why a payment was not taken.
#[derive(Debug)]
pub(crate) enum Declined {
    /// Pay again by these requirements.
    Payment {
        code: &'static str,
        message: String,
        requirements: Box<PaymentRequirements>,
    },
    /// The request id has its receipt already.
    Answered(B256),
    /// Not the payer's fault.
    Unavailable(String),
}

impl Till {
    pub(crate) fn new(
        ledger: PayeeLedger,
        market: Market,
        relay: Key,
        coin: MicroUsd,
        channel_ttl: Duration,
    ) -> Self {
        let terms = ledger.terms().clone();
        Self {
            ledger: Mutex::new(ledger),
            confirmations: market.deployment().confirmations,
            market,
            relay,
            terms,
            coin,
            submitting: Submitting::default(),
            channel_ttl_s: channel_ttl.as_secs(),
            away_until: AtomicU64::new(0),
        }
    }

    /// What gas costs now.
    pub(crate) async fn gas_price(&self) -> Result<GasPrice, ChainError> {
        Ok(GasPrice {
            wei: self.market.chain().gas_price().await?,
            coin: self.coin,
        })
    }

    /// The books, for a short while. A panic while holding them poisons nothing: every change is written as a whole
    /// before the copy in memory changes.
    pub(crate) fn ledger(&self) -> MutexGuard<'_, PayeeLedger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Works on the books off the async threads, since every entry waits for the disk.
    pub(crate) async fn with_ledger<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&mut PayeeLedger) -> T + Send + 'static,
    ) -> T {
        let till = Arc::clone(self);
        let task = tokio::task::spawn_blocking(move || work(&mut till.ledger()));
        task.await
            .expect("ledger work neither panics nor is cancelled")
    }

    /// What this payment is, judged without books or chain. The signature is checked here, so that only somebody with
    /// a channel's key makes us read the chain.
    pub(crate) fn present(
        &self,
        payment: &PaymentPayload,
        required: MicroUsd,
        request_id: B256,
    ) -> Result<Presented, Declined> {
        if matches!(payment.payload, Payload::Refund(_)) {
            let message = "a refund pays for nothing: ask for it with GET on this path";
            let code = Code::PayloadType.as_str();
            return Err(self.decline(code, message.to_owned(), required));
        }
        self.judge(payment, required, request_id)
    }

    /// The same for any kind of payment.
    pub(crate) fn judge(
        &self,
        payment: &PaymentPayload,
        required: MicroUsd,
        request_id: B256,
    ) -> Result<Presented, Declined> {
        let decline =
            |code: Code, message: &str| self.decline(code.as_str(), message.to_owned(), required);
        if payment.accepted.scheme != SCHEME {
            return Err(decline(
                Code::Scheme,
                "only the scheme batch-settlement is taken: pay by the requirements",
            ));
        }
        if payment.accepted.network != Network(self.terms.channels.chain_id) {
            return Err(decline(
                Code::NetworkMismatch,
                "the payment is for another network: pay by the requirements",
            ));
        }
        let (config, voucher) = payment.payload.voucher();
        let presented = Presented {
            config: (*config).into(),
            voucher: (*voucher).into(),
            offered: payment.accepted.amount.0,
            required,
            request_id,
        };
        match presented.check(&self.terms) {
            Ok(()) => Ok(presented),
            Err(refusal) => {
                Err(self.decline(refusal.code().as_str(), refusal.to_string(), required))
            }
        }
    }

    /// Takes the payment. When this returns, the voucher is durable and its channel is reserved for the request.
    pub(crate) async fn take(
        self: &Arc<Self>,
        payment: &PaymentPayload,
        presented: Presented,
    ) -> Result<Taken, Declined> {
        let mut transaction = None;
        let chain = match &payment.payload {
            Payload::Deposit(deposit) => {
                let (chain, hash) = self.deposit(deposit, &presented).await?;
                transaction = hash;
                chain
            }
            _ => self.on_chain(&presented).await?,
        };
        let till = Arc::clone(self);
        let take = move |ledger: &mut PayeeLedger| {
            let reservation = ledger.accept(&presented, chain, now())?;
            Ok(Taken {
                till,
                reservation,
                payer: presented.config.payer,
                transaction,
                charged: false,
            })
        };
        match self.with_ledger(take).await {
            Ok(taken) => Ok(taken),
            Err(AcceptError::Refused(refusal)) => {
                Err(self.refused(&refusal, &presented, Some(chain)))
            }
            Err(AcceptError::Answered(id)) => Err(Declined::Answered(id)),
            Err(AcceptError::Ledger(error)) => Err(Declined::Unavailable(error.to_string())),
            Err(AcceptError::Charge(error)) => Err(Declined::Unavailable(error.to_string())),
        }
    }

    /// Charges what was served and keeps the receipt; both are durable when this returns.
    pub(crate) async fn charge(
        self: &Arc<Self>,
        taken: Taken,
        receipt: Signed<Receipt>,
    ) -> Result<PaymentResponse, AcceptError> {
        self.enter(taken, receipt, PayeeLedger::charge).await
    }

    /// The same for a proof, which is no further answer.
    pub(crate) async fn charge_proof(
        self: &Arc<Self>,
        taken: Taken,
        receipt: Signed<Receipt>,
    ) -> Result<PaymentResponse, AcceptError> {
        self.enter(taken, receipt, PayeeLedger::charge_proof).await
    }

    async fn enter(
        self: &Arc<Self>,
        taken: Taken,
        receipt: Signed<Receipt>,
        charge: Charge,
    ) -> Result<PaymentResponse, AcceptError> {
        let (payer, transaction) = (taken.payer, taken.transaction);
        let work = move |ledger: &mut PayeeLedger| {
            // The whole guard moves in, and out again: dropping it takes the books, which are held here.
            let mut taken = taken;
            let result = charge(ledger, &taken.reservation, &receipt, now());
            taken.charged = result.is_ok();
            let state = ledger
                .account(&taken.reservation.channel_id)
                .map(payee::Account::state);
            (taken, result.map(|()| state))
        };
        let (taken, result) = self.with_ledger(work).await;
        drop(taken);
        let state = result?;
        Ok(self.response(payer, transaction, receipt.body.charged, state))
    }

    /// The response when a stream begins and nothing is charged yet. It tells an official client that its deposit went
    /// through; what the stream costs stands in its last event.
    pub(crate) fn begun(&self, taken: &Taken) -> PaymentResponse {
        self.response(taken.payer, taken.transaction, MicroUsd::ZERO, None)
    }

    fn response(
        &self,
        payer: Address,
        transaction: Option<B256>,
        charged: MicroUsd,
        channel_state: Option<ChannelState>,
    ) -> PaymentResponse {
        PaymentResponse {
            success: true,
            error_reason: None,
            error_message: None,
            payer: Some(payer),
            transaction: transaction.map(|hash| hash.to_string()).unwrap_or_default(),
            network: Network(self.terms.channels.chain_id),
            amount: Some(String::new()),
            extra: Some(ResponseExtra {
                charged_amount: Some(Amount(charged)),
                channel_state,
            }),
        }
    }

    pub(crate) fn requirements(&self, amount: MicroUsd) -> PaymentRequirements {
        self.terms.requirements(amount)
    }

    pub(crate) fn decline(
        &self,
        code: &'static str,
        message: String,
        required: MicroUsd,
    ) -> Declined {
        Declined::Payment {
            code,
            message,
            requirements: Box::new(self.requirements(required)),
        }
    }

    pub(crate) async fn read_channel(&self, channel_id: B256) -> Result<OnChain, ChainError> {
        let state = self.market.channel(channel_id).await?;
        Ok(OnChain {
            balance: state.balance,
            claimed: state.total_claimed,
            withdraw_requested_at: state
                .withdrawal
                .map_or(Timestamp(0), |withdrawal| withdrawal.initiated_at),
            refund_nonce: state.refund_nonce,
        })
    }

    /// The channel's newest state, and what of its claims is final.
    pub(crate) async fn read_seen(&self, channel_id: B256) -> Result<Seen, ChainError> {
        let newest = self.read_channel(channel_id).await?;
        let settled_claims = if self.confirmations == 0 || newest.claimed == MicroUsd::ZERO {
            newest.claimed
        } else {
            let settled = self.market.channel_at(channel_id, self.confirmations);
            settled.await?.total_claimed
        };
        Ok(Seen {
            newest,
            settled_claims,
        })
    }

    /// What the chain says about the channel: what it said a moment ago, if that is enough. While the chain is away, what
    /// it said a while ago is enough for a channel that we know; what we do not know has to wait.
    async fn on_chain(self: &Arc<Self>, presented: &Presented) -> Result<OnChain, Declined> {
        let voucher = presented.voucher.voucher;
        let known = self.ledger().account(&voucher.channel_id).cloned();
        let known = known.filter(|known| voucher.max_claimable <= known.chain.balance);
        let age_s = |known: &Account| now().0.saturating_sub(known.read_at.0);
        if let Some(known) = &known
            && age_s(known) < self.channel_ttl_s
        {
            return Ok(known.chain);
        }
        let bound_s = self.channel_ttl_s.saturating_mul(AWAY_FACTOR);
        let fallback = known.filter(|known| age_s(known) < bound_s && !known.is_leaving());
        let Some(known) = fallback else {
            return self.ask(voucher.channel_id).await.map_err(|error| {
                Declined::Unavailable(format!(
                    "the chain cannot be asked about the channel: {error}"
                ))
            });
        };
        if now().0 < self.away_until.load(Ordering::Relaxed) {
            return Ok(known.chain);
        }
        match tokio::time::timeout(AWAY_PATIENCE, self.ask(voucher.channel_id)).await {
            Ok(Ok(chain)) => Ok(chain),
            trouble => {
                let error = trouble.map_or_else(
                    |_| "it does not answer in time".to_owned(),
                    |told| {
                        told.err()
                            .map(|error| error.to_string())
                            .unwrap_or_default()
                    },
                );
                tracing::warn!(
                    error,
                    "the chain is away; known channels are served by its last word"
                );
                let until = now().0.saturating_add(AWAY_S);
                self.away_until.store(until, Ordering::Relaxed);
                Ok(known.chain)
            }
        }
    }

    /// Reads a channel for a payment, and enters what the chain says.
    async fn ask(self: &Arc<Self>, channel_id: B256) -> Result<OnChain, ChainError> {
        let newest = self.read_channel(channel_id).await?;
        let entered = self
            .with_ledger(move |ledger| {
                let known = ledger.account(&channel_id);
                let settled_claims = known.map_or(MicroUsd::ZERO, |known| known.settled_claims);
                let seen = Seen {
                    newest,
                    settled_claims,
                };
                ledger.see(&[(channel_id, seen)], now())
            })
            .await;
        if let Err(error) = entered {
            tracing::warn!(%error, "what the chain says could not be entered");
        }
        Ok(newest)
    }

    /// A refusal with what the payer needs to do better: on a wrong base, our state and its proof.
    pub(crate) fn refused(
        &self,
        refusal: &Refusal,
        presented: &Presented,
        chain: Option<OnChain>,
    ) -> Declined {
        let channel_id = presented.voucher.voucher.channel_id;
        let mut requirements = self.requirements(presented.required);
        if matches!(refusal, Refusal::WrongBase { .. }) {
            match (self.ledger().account(&channel_id), chain) {
                (Some(account), _) => requirements = account.corrective(requirements),
                // Without books of our own, the chain's word is all there is, and needs no proof.
                (None, Some(chain)) => {
                    requirements.extra.channel_state =
                        Some(channel_state(channel_id, &chain, chain.claimed));
                }
                (None, None) => {}
            }
        }
        let (code, message) = (refusal.code().as_str(), refusal.to_string());
        Declined::Payment {
            code,
            message,
            requirements: Box::new(requirements),
        }
    }

    /// The receipt of an answered request.
    pub(crate) async fn receipt(
        self: &Arc<Self>,
        id: B256,
    ) -> Result<Option<Signed<Receipt>>, LedgerError> {
        self.with_ledger(move |ledger| ledger.receipt(&id)).await
    }
}
