//! The gateway's parts in one place: what every other file of this crate asks for. Holds state and
//! hands it out; the decisions stand in `routing`, `receipts` and `assay_audit`.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use assay_audit::{AuditPolicy, Evidence};
use assay_chain::Market;
use assay_model::LoadedModel;
use assay_openai::{ApiError, Fallback};
use assay_protocol::{
    Address, B256, MicroUsd, ModelId, ProofOffer, Receipt, SignatureChecked, Tier, Timestamp,
};
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::answer::{self, Answering};
use crate::cloud::CloudUpstream;
use crate::config::{GatewayConfig, GatewayLimits};
use crate::disputes::Work;
use crate::events::{Events, What};
use crate::http::store_error;
use crate::lanes::Lanes;
use crate::prepare::Job;
use crate::proofs::UnderWay;
use crate::providers::Providers;
use crate::receipts::Refused;
use crate::record::{Bench, Seen};
use crate::routing::{self, Choice, NoRoute};
use crate::serve;
use crate::status::LastRoute;
use crate::store::{
    AuditState, DisputeState, DisputeTotals, Due, Entry, ProofState, ReceiptEntry, Store,
    StoreError, Totals, UnverifiedEntry,
};

/// A running gateway's state.
pub struct Gateway {
    config: GatewayConfig,
    http: reqwest::Client,
    store: Arc<Store>,
    events: Events,
    providers: Providers,
    lanes: Lanes,
    totals: Mutex<Totals>,
    dispute_totals: Mutex<DisputeTotals>,
    /// Behind the audit coins; known to nobody else.
    secret: B256,
    started_at: Timestamp,
    /// Answers on their way.
    active: watch::Sender<usize>,
    audits: mpsc::Sender<Due>,
    /// False answers on their way to the chain; each is marked on disk, and there are few.
    disputes: mpsc::UnboundedSender<Work>,
    /// Answers whose proof is to come; each is marked on disk, and takes no more than its place here.
    proofs: mpsc::UnboundedSender<B256>,
    /// How far they are, by their provers' word.
    under_way: UnderWay,
    /// The newest choice with its reasons.
    last_route: Mutex<Option<LastRoute>>,
    /// Some audit did not fit the queue and waits on disk.
    overflow: AtomicBool,
    look_again: Notify,
    care_again: Notify,
    /// Channels whose provider was asked for a refund; once in a life of this process.
    refunds: Mutex<HashSet<B256>>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// What `Gateway::new` is made from, beside the config.
pub(crate) struct Parts {
    pub(crate) http: reqwest::Client,
    pub(crate) store: Store,
    pub(crate) lanes: Lanes,
    pub(crate) secret: B256,
    pub(crate) totals: Totals,
    pub(crate) dispute_totals: DisputeTotals,
    pub(crate) audits: mpsc::Sender<Due>,
    pub(crate) disputes: mpsc::UnboundedSender<Work>,
    pub(crate) proofs: mpsc::UnboundedSender<B256>,
}

impl Gateway {
    pub(crate) fn new(config: GatewayConfig, parts: Parts) -> Result<Self, StoreError> {
        let records = parts.store.records()?;
        Ok(Self {
            http: parts.http,
            store: Arc::new(parts.store),
            events: Events::new(config.limits.events_kept),
            providers: Providers::new(records),
            lanes: parts.lanes,
            totals: Mutex::new(parts.totals),
            dispute_totals: Mutex::new(parts.dispute_totals),
            secret: parts.secret,
            started_at: clock(),
            active: watch::Sender::new(0),
            audits: parts.audits,
            disputes: parts.disputes,
            proofs: parts.proofs,
            under_way: UnderWay::default(),
            last_route: Mutex::new(None),
            overflow: AtomicBool::new(false),
            look_again: Notify::new(),
            care_again: Notify::new(),
            refunds: Mutex::default(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            config,
        })
    }

    pub(crate) fn limits(&self) -> &GatewayLimits {
        &self.config.limits
    }

    pub(crate) fn config(&self) -> &GatewayConfig {
        &self.config
    }

    pub(crate) fn market(&self) -> &Market {
        &self.config.market
    }

    pub(crate) fn payer_key(&self) -> &assay_chain::Key {
        &self.config.payer
    }

    /// Hands a false answer to the task that disputes.
    pub(crate) fn bring(&self, work: Work) {
        // The task is gone only when the gateway stops; the next start finds the mark on disk.
        let _ = self.disputes.send(work);
    }

    pub(crate) fn payer(&self) -> Address {
        self.config.payer.address()
    }

    pub(crate) fn audit_policy(&self) -> &AuditPolicy {
        &self.config.audit
    }

    pub(crate) fn default_tier(&self) -> Tier {
        self.config.tier
    }

    pub(crate) fn default_fallback(&self) -> Fallback {
        self.config.fallback
    }

    pub(crate) fn clouds(&self) -> &[CloudUpstream] {
        &self.config.clouds
    }

    pub(crate) fn http(&self) -> &reqwest::Client {
        &self.http
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    pub(crate) fn events(&self) -> &Events {
        &self.events
    }

    pub(crate) fn providers(&self) -> &Providers {
        &self.providers
    }

    pub(crate) fn lanes(&self) -> &Lanes {
        &self.lanes
    }

    pub(crate) fn totals(&self) -> Totals {
        *self.totals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn dispute_totals(&self) -> DisputeTotals {
        *self
            .dispute_totals
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// A dispute begins, or one that was pending has ended.
    pub(crate) fn count_dispute(&self, state: &DisputeState, was_pending: bool) {
        let totals = self.dispute_totals.lock();
        let mut totals = totals.unwrap_or_else(PoisonError::into_inner);
        totals.pending = totals.pending.saturating_sub(u64::from(was_pending));
        totals.add(state);
    }

    pub(crate) fn last_route(&self) -> Option<LastRoute> {
        self.last_route
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn started_at(&self) -> u64 {
        self.started_at.0
    }

    pub(crate) fn now(&self) -> Timestamp {
        clock()
    }

    pub(crate) fn shutdown_token(&self) -> CancellationToken {
        self.stop.clone()
    }

    pub(crate) fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    pub(crate) fn active(&self) -> watch::Receiver<usize> {
        self.active.subscribe()
    }

    pub(crate) fn take_overflow(&self) -> bool {
        self.overflow.swap(false, Ordering::Relaxed)
    }

    pub(crate) async fn look_again(&self) {
        self.look_again.notified().await;
    }

    /// Completes when a lane was closed.
    pub(crate) async fn care_again(&self) {
        self.care_again.notified().await;
    }

    /// True the first time that this channel's provider is to be asked for a refund.
    pub(crate) fn first_refund(&self, channel_id: B256) -> bool {
        let asked = self.refunds.lock();
        asked
            .unwrap_or_else(PoisonError::into_inner)
            .insert(channel_id)
    }

    pub(crate) fn tell(&self, what: What) {
        self.events.tell(self.now(), what);
    }

    pub(crate) fn random(&self) -> Result<B256, ApiError> {
        random_word().ok_or_else(|| ApiError::internal("this machine gives no randomness"))
    }

    pub(crate) fn knows(&self, id: &B256) -> Result<bool, ApiError> {
        Ok(self.store.entry(id).map_err(store_error)?.is_some())
    }

    pub(crate) fn model_names(&self) -> Vec<String> {
        self.config
            .models
            .iter()
            .map(|model| model.name.clone())
            .collect()
    }

    /// The model of this name or, as 0x-hex, of this id.
    pub(crate) fn model(&self, name: &str) -> Result<&LoadedModel, ApiError> {
        let by_id = name.parse::<B256>().ok();
        let wanted = |m: &&LoadedModel| m.name == name || Some(m.model.id()) == by_id;
        self.config.models.iter().find(wanted).ok_or_else(|| {
            let names: Vec<&str> = self.config.models.iter().map(|m| m.name.as_str()).collect();
            ApiError::model_not_found(name, &names)
        })
    }

    pub(crate) fn model_by_id(&self, id: &ModelId) -> Option<&LoadedModel> {
        self.config
            .models
            .iter()
            .find(|model| model.model.id() == *id)
    }

    pub(crate) fn serves_any(&self, models: &[ModelId]) -> bool {
        models.iter().any(|id| self.model_by_id(id).is_some())
    }

    /// The longest context that anybody offers for this model; its own if nobody does.
    pub(crate) fn context(&self, model: &LoadedModel) -> u32 {
        let candidates = self.providers.candidates(&model.model.id());
        let offered = candidates.iter().filter(|c| c.benched.is_none());
        let own = model.model.manifest().dims.context_max;
        offered
            .map(|c| c.offer.max_context.0)
            .max()
            .map_or(own, |offered| offered.min(own))
    }

    /// The most tokens that anybody proves of this model, prompt and answer together.
    pub(crate) fn provable(&self, model: &LoadedModel) -> u64 {
        let candidates = self.providers.candidates(&model.model.id());
        let able = candidates.iter().filter(|c| c.benched.is_none());
        let most = able.filter_map(|c| Some(c.proof?.max_tokens.0)).max();
        most.map_or(0, u64::from)
    }

    pub(crate) fn under_way(&self) -> &UnderWay {
        &self.under_way
    }

    /// What was paid for a proof belongs to the bill.
    pub(crate) fn count_proof(&self, price: MicroUsd) {
        let totals = self.totals.lock();
        let charged = &mut totals.unwrap_or_else(PoisonError::into_inner).charged;
        charged.0 = charged.0.saturating_add(price.0);
    }

    /// The auditor looks for what waits on disk.
    pub(crate) fn audit_soon(&self, due: Due) {
        if self.audits.try_send(due).is_err() {
            self.overflow.store(true, Ordering::Relaxed);
        }
    }

    /// Chooses a provider for a job; the coin is the request's own id.
    pub(crate) fn route(&self, job: &Job, tried: &[Address]) -> Result<Choice, NoRoute> {
        let mut candidates = self.providers.candidates(&job.model.model.id());
        let lanes = u32::try_from(self.config.spending.lanes_per_provider).unwrap_or(u32::MAX);
        for candidate in &mut candidates {
            // A lane serves one request at a time.
            candidate.offer.concurrency = candidate.offer.concurrency.min(lanes);
        }
        let mut coin = [0u8; 8];
        coin.copy_from_slice(&job.request_id[..8]);
        let policy = &self.config.routing;
        let coin = u64::from_be_bytes(coin);
        let choice = routing::choose(policy, &job.wanted(), &candidates, tried, clock_ms(), coin)?;
        let route = LastRoute {
            request_id: job.request_id,
            provider: choice.provider,
            why: choice.why.clone(),
            passed_over: choice.passed_over.clone(),
        };
        tracing::debug!(?route, "routed");
        *self
            .last_route
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(route);
        Ok(choice)
    }

    /// Starts to answer; the answer goes on by itself until it is whole or its client leaves.
    pub(crate) fn answer(self: &Arc<Self>, job: Job) -> Answering {
        let (mut client, answering) = answer::channel(self.limits().client_stall);
        let gateway = self.clone();
        self.active.send_modify(|active| *active += 1);
        self.tasks.spawn(async move {
            if *gateway.active.borrow() > gateway.limits().answers_max {
                client.fail(ApiError::busy(500)).await;
            } else {
                serve::run(&gateway, job, client).await;
            }
            gateway.active.send_modify(|active| *active -= 1);
        });
        answering
    }

    /// Runs a change of the ledger where waiting for the disk stalls nobody.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        change: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let store = self.store.clone();
        tokio::task::spawn_blocking(move || change(&store))
            .await
            .map_err(|_| StoreError::Stopping)?
    }

    /// A provider failed before its first token, or broke off after it.
    pub(crate) async fn note_failure(&self, provider: Address, reason: &str) {
        let rest = self.limits().rest;
        let (record, ()) = self.providers.amend(&provider, |record| {
            record.failed(reason.to_owned(), &rest, clock_ms())
        });
        if let Err(error) = self
            .write(move |store| store.set_record(&provider, &record))
            .await
        {
            tracing::error!(%error, "a provider's record cannot be stored");
        }
    }

    /// Keeps a checked receipt with its evidence and flips the audit coin for it.
    pub(crate) async fn keep_receipt(
        &self,
        job: &Job,
        receipt: &SignatureChecked<Receipt>,
        evidence: &Evidence,
        seen: Seen,
        proof: Option<ProofState>,
    ) -> Result<(), StoreError> {
        let (provider, id) = (receipt.provider, receipt.request_id);
        let (record, before) = self.providers.amend(&provider, |record| {
            let before = record.answers;
            record.answered(seen, receipt.charged, clock_ms());
            before
        });
        // Who asked for the optimistic tier was promised that every such answer is re-executed.
        let sampled = match job.tier {
            Tier::None => false,
            Tier::Optimistic => true,
            // Its proof says more than a sample.
            Tier::Proven if proof.is_some() => false,
            _ => self.config.audit.audits(&self.secret, &id, before),
        };
        let audit = if sampled {
            AuditState::Waiting
        } else {
            AuditState::NotSampled
        };
        let mut entry = entry(job, receipt, self.now(), audit);
        entry.final_at = self.final_at(receipt);
        entry.proof = proof;
        let (due, proven) = (entry.due(), entry.proof.is_some());
        self.totals
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .add(&Entry::Receipt(entry.clone()));
        let evidence = evidence.clone();
        self.write(move |store| store.add_receipt(&entry, &evidence, &record))
            .await?;
        if sampled {
            // It is marked as waiting on disk, and the auditor looks there when its queue is empty.
            self.audit_soon(due);
        }
        if proven {
            // The task is gone only when the gateway stops; the next start finds the mark on disk.
            let _ = self.proofs.send(id);
        }
        Ok(())
    }

    /// What was promised of the proof of this answer, if it was bought with one.
    pub(crate) fn proof_of(&self, terms: &ProofOffer, receipt: &Receipt) -> Option<ProofState> {
        let statement = &receipt.statement;
        if receipt.tier != Tier::Proven {
            return None;
        }
        let price = terms.charge(statement.n_prompt, statement.n_output).ok()?;
        let due = receipt.served_at.plus_seconds(u64::from(terms.delay_s));
        Some(ProofState::Waiting { due, price })
    }

    /// When an answer of a tier that waits for its window becomes final.
    pub(crate) fn final_at(&self, receipt: &Receipt) -> Option<Timestamp> {
        let window_s = self.market().deployment().challenge_window_s;
        (receipt.tier == Tier::Optimistic).then(|| receipt.served_at.plus_seconds(window_s))
    }

    /// Keeps a receipt that does not hold, and draws the consequence.
    pub(crate) async fn refuse_receipt(&self, job: &Job, evidence: &Evidence, refused: &Refused) {
        // Who it was bought from, whatever name the receipt carries.
        let provider = evidence.offer.body.provider;
        let reason = refused.to_string();
        let request_id = job.request_id;
        self.tell(What::Refused {
            request_id,
            provider,
            reason: reason.clone(),
        });
        let rest = self.limits().rest;
        let (record, in_a_row) = self.providers.amend(&provider, |record| {
            record.failed(reason.clone(), &rest, clock_ms());
            record.refused_in_a_row = record.refused_in_a_row.saturating_add(1);
            record.refused_in_a_row
        });
        let audit = AuditState::Refused {
            reason: reason.clone(),
        };
        let mut entry = entry(job, &evidence.receipt.body, self.now(), audit);
        (entry.id, entry.provider) = (request_id, provider);
        self.totals
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .add(&Entry::Receipt(entry.clone()));
        let receipt = evidence.receipt;
        let evidence = evidence.clone();
        let kept = self
            .write(move |store| store.add_receipt(&entry, &evidence, &record))
            .await;
        if let Err(error) = kept {
            tracing::error!(%error, "a refused receipt cannot be stored");
        }
        if refused.is_a_lie() || in_a_row >= ACCIDENTS_MAX {
            self.bench(provider, reason, request_id).await;
        }
        if let Refused::OtherRequest { .. } = refused {
            self.accuse_twice(receipt);
        }
        if let Refused::Accounting(fault) = refused
            && fault.convinces_a_third_party()
        {
            self.accuse(request_id).await;
        }
    }

    /// Asks this provider no more, and signs no further voucher for it.
    pub(crate) async fn bench(&self, provider: Address, reason: String, request_id: B256) {
        let bench = Bench {
            at: self.now(),
            reason: reason.clone(),
            request_id,
        };
        let (record, fresh) = self
            .providers
            .amend(&provider, |record| record.bench(bench));
        if let Err(error) = self
            .write(move |store| store.set_record(&provider, &record))
            .await
        {
            tracing::error!(%error, "a bench cannot be stored");
        }
        // Its vault follows from its address, but asking the registry's copy costs no call.
        if let Some(known) = self.providers.get(&provider) {
            match self.lanes.close(known.registered.vault).await {
                Ok(closed) => {
                    tracing::info!(%provider, closed, "lanes closed");
                    self.care_again.notify_one();
                }
                Err(error) => tracing::error!(%error, "lanes cannot be closed"),
            }
        }
        if fresh {
            self.tell(What::Benched {
                request_id,
                provider,
                reason,
            });
            self.look_again.notify_one();
        }
    }

    /// Keeps an answer that nobody signed.
    pub(crate) async fn keep_unverified(&self, entry: UnverifiedEntry) {
        self.tell(What::Unverified {
            request_id: entry.id,
            cloud: entry.cloud.clone(),
        });
        self.totals
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .add(&Entry::Unverified(entry.clone()));
        if let Err(error) = self.write(move |store| store.add_unverified(&entry)).await {
            tracing::error!(%error, "an unverified answer cannot be listed");
        }
    }

    pub(crate) fn stop(&self) {
        self.stop.cancel();
        self.tasks.close();
    }
}

/// A receipt that does not hold may be an accident, once or twice: see `Refused::is_a_lie`.
const ACCIDENTS_MAX: u32 = 3;

fn entry(job: &Job, receipt: &Receipt, at: Timestamp, audit: AuditState) -> ReceiptEntry {
    let statement = &receipt.statement;
    ReceiptEntry {
        id: receipt.request_id,
        at,
        model: job.model_name().to_owned(),
        model_id: statement.model_id,
        provider: receipt.provider,
        tier: receipt.tier,
        prompt_tokens: statement.n_prompt.0,
        output_tokens: statement.n_output.0,
        stop_reason: statement.stop_reason,
        charged: receipt.charged,
        audit,
        final_at: None,
        dispute: None,
        proof: None,
    }
}

fn since_epoch() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

pub(crate) fn clock() -> Timestamp {
    Timestamp(since_epoch().as_secs())
}

pub(crate) fn clock_ms() -> u64 {
    u64::try_from(since_epoch().as_millis()).unwrap_or(u64::MAX)
}

/// 32 bytes of the operating system's randomness.
pub(crate) fn random_word() -> Option<B256> {
    let mut word = B256::ZERO;
    getrandom::fill(&mut word.0).ok().map(|()| word)
}
