//! Proofs that were bought: asked for until their promise has passed, checked here, and only then paid. A proof that does
//! not come, or does not hold, is not paid, and its answer goes the way of every doubted answer: it is re-executed, and
//! disputed if it is false. What is under way is marked on disk, so a start goes on from there.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use assay_audit::Evidence;
use assay_engine::Model;
use assay_payments::payer::Payee;
use assay_payments::x402::PaymentRequirements;
use assay_proof::{Chosen, Claim, Key, Proof};
use assay_protocol::{Address, B256, MicroUsd, Receipt, Signed, Timestamp, proof_payment_id};
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, mpsc};

use crate::buy::{Attempt, acceptable, again, lose, refused};
use crate::events::What;
use crate::gateway::Gateway;
use crate::lanes::Ask;
use crate::store::{Due, Entry, ProofState, ReceiptEntry};
use crate::upstream::{self, PriceReply, ProofReply, UpstreamError};

/// Verifications at once: each takes memory and threads that answers need.
const VERIFIED_AT_ONCE: usize = 1;
/// How often a price is tried to be paid in one life of this process.
const PAY_TRIES: u32 = 6;

/// Checks proofs: a seam for tests, in which nobody waits minutes for one.
pub trait Verify: Send + Sync + 'static {
    /// Whether `proof` shows that the claim is true, or why not. `proof` is a stranger's.
    fn verify(
        &self,
        model: &Model,
        claim: &Claim<'_>,
        proof: &[u8],
        threads: usize,
    ) -> Result<(), String>;
}

/// Believes nothing but a proof.
#[derive(Clone, Copy, Debug, Default)]
pub struct Verifier;

impl Verify for Verifier {
    fn verify(
        &self,
        model: &Model,
        claim: &Claim<'_>,
        proof: &[u8],
        threads: usize,
    ) -> Result<(), String> {
        let proof = Proof::from_bytes(proof.to_vec()).map_err(|error| error.to_string())?;
        let verified = assay_proof::verify(&Key::Weights(model), claim, &proof, threads);
        match verified.map_err(|error| error.to_string())?.chosen {
            Chosen::Checked => Ok(()),
            Chosen::Shown => Err("it leaves open which tokens the model chooses".into()),
        }
    }
}

/// How far a prover says that it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProofProgress {
    #[serde(default)]
    pub status: ProofStatus,
    /// Proofs that it makes first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ahead: Option<u32>,
    /// `done` of `of` steps of its present phase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<ProofPhase>,
    #[serde(default)]
    pub done: u32,
    #[serde(default)]
    pub of: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProofStatus {
    #[default]
    Unknown,
    Waiting,
    Proving,
}

/// `assay_proof`'s phases, as a node names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProofPhase {
    Witness,
    Commit,
    Lookup,
    Sumcheck,
    Open,
    #[serde(other)]
    Other,
}

/// What provers said last of proofs that are still to come.
#[derive(Debug, Default)]
pub(crate) struct UnderWay(Mutex<BTreeMap<B256, ProofProgress>>);

impl UnderWay {
    pub(crate) fn of(&self, id: &B256) -> Option<ProofProgress> {
        let map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        map.get(id).cloned()
    }

    fn set(&self, id: B256, progress: Option<ProofProgress>) {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match progress {
            Some(progress) => drop(map.insert(id, progress)),
            None => drop(map.remove(&id)),
        }
    }
}

/// Works until the gateway stops: first what an earlier life left, then what comes.
pub(crate) async fn run(
    gateway: Arc<Gateway>,
    mut coming: mpsc::UnboundedReceiver<B256>,
    left_over: Vec<B256>,
) {
    let stop = gateway.shutdown_token();
    let room = Arc::new(Semaphore::new(VERIFIED_AT_ONCE));
    let mut left_over = left_over.into_iter();
    loop {
        let id = match left_over.next() {
            Some(id) => id,
            None => tokio::select! {
                id = coming.recv() => match id {
                    Some(id) => id,
                    None => return,
                },
                () = stop.cancelled() => return,
            },
        };
        let (gateway, room) = (gateway.clone(), room.clone());
        let tasks = gateway.tasks().clone();
        tasks.spawn(async move {
            let stop = gateway.shutdown_token();
            tokio::select! {
                () = pursue(&gateway, id, &room) => {}
                () = stop.cancelled() => {}
            }
            gateway.under_way().set(id, None);
        });
    }
}

/// One proof, from its promise to its price.
async fn pursue(gateway: &Gateway, id: B256, room: &Semaphore) {
    let read = move |store: &crate::store::Store| Ok((store.entry(&id)?, store.evidence(&id)?));
    let (entry, evidence) = match gateway.write(read).await {
        Ok((Some(Entry::Receipt(entry)), Some(evidence))) => (entry, evidence),
        Ok(_) => return,
        Err(error) => {
            tracing::error!(%error, %id, "an answer whose proof is due cannot be read");
            return;
        }
    };
    let price = match entry.proof {
        Some(ProofState::Waiting { due, price }) => {
            let proven = match fetch(gateway, &entry, due).await {
                Ok(bytes) => check(gateway, &evidence, bytes, room).await,
                Err(reason) => Err(reason),
            };
            match proven {
                Ok(checked) => {
                    if !keep(gateway, &entry, checked, price).await {
                        return;
                    }
                    price
                }
                Err(reason) => return fail(gateway, &entry, reason).await,
            }
        }
        Some(ProofState::Holds {
            price, paid: false, ..
        }) => price,
        _ => return,
    };
    settle(gateway, &entry, &evidence, price).await;
}

/// Asks for the proof until it is there, its prover gives up, or its promise has passed.
async fn fetch(gateway: &Gateway, entry: &ReceiptEntry, due: Timestamp) -> Result<Vec<u8>, String> {
    let policy = gateway.config().proofs;
    let mut pause = policy.pause;
    loop {
        let trouble = match gateway.providers().get(&entry.provider) {
            None => "it left the registry".to_owned(),
            Some(provider) => {
                let (http, endpoint) = (gateway.http(), &provider.registered.endpoint);
                let asking = upstream::proof(http, endpoint, &entry.id, policy.bytes_max);
                match tokio::time::timeout(policy.transfer, asking).await {
                    Ok(Ok(ProofReply::Bytes(bytes))) => return Ok(bytes),
                    Ok(Ok(ProofReply::Refused(reason))) => return Err(reason),
                    Ok(Ok(ProofReply::NotYet(progress))) => {
                        gateway.under_way().set(entry.id, Some(progress));
                        "it is not made yet".to_owned()
                    }
                    Ok(Err(error)) => error.to_string(),
                    Err(_) => "its transfer took too long".to_owned(),
                }
            }
        };
        let last = due.plus_seconds(policy.grace.as_secs());
        let now = gateway.now();
        if now > last {
            return Err(format!("it did not come in time: {trouble}"));
        }
        // The last look comes when the promise has just passed.
        let left = Duration::from_secs(last.0.saturating_sub(now.0).saturating_add(1));
        tokio::time::sleep(pause.min(left)).await;
        pause = (pause * 2).min(policy.pause_max);
    }
}

/// A proof that holds.
struct Checked {
    bytes: Vec<u8>,
    verified_ms: u64,
}

async fn check(
    gateway: &Gateway,
    evidence: &Evidence,
    bytes: Vec<u8>,
    room: &Semaphore,
) -> Result<Checked, String> {
    let model_id = evidence.receipt.body.statement.model_id;
    let model = gateway.model_by_id(&model_id).cloned();
    let model = model.ok_or_else(|| format!("this gateway does not hold model {model_id}"))?;
    let _room = room.acquire().await.map_err(|error| error.to_string())?;
    let verifier = Arc::clone(&gateway.config().verifier);
    let threads = gateway.config().proofs.threads.max(1);
    let evidence = evidence.clone();
    let work = move || {
        let started = Instant::now();
        let claim = Claim {
            statement: &evidence.receipt.body.statement,
            prompt: &evidence.prompt,
            sampler: &evidence.sampler,
            output: &evidence.output,
        };
        let held = verifier.verify(&model.model, &claim, &bytes, threads);
        let verified_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        held.map(|()| Checked { bytes, verified_ms })
            .map_err(|reason| format!("it does not hold: {reason}"))
    };
    let checked = tokio::task::spawn_blocking(work).await;
    checked.map_err(|_| "the verification broke off".to_owned())?
}

/// Makes the answer final; durable when this returns true.
async fn keep(gateway: &Gateway, entry: &ReceiptEntry, checked: Checked, price: MicroUsd) -> bool {
    let (id, verified_ms) = (entry.id, checked.verified_ms);
    let bytes = checked.bytes.len() as u64;
    let state = ProofState::Holds {
        at: gateway.now(),
        bytes,
        verified_ms,
        price,
        paid: price == MicroUsd::ZERO,
    };
    let write =
        move |store: &crate::store::Store| store.set_proof(&id, state, Some(&checked.bytes));
    if let Err(error) = gateway.write(write).await {
        tracing::error!(%error, %id, "a proof cannot be kept; the next start asks for it again");
        return false;
    }
    gateway.tell(What::Proven {
        request_id: id,
        provider: entry.provider,
        bytes,
        verified_ms,
        price,
    });
    true
}

/// No proof holds: nothing is paid for it, and the answer is re-executed.
async fn fail(gateway: &Gateway, entry: &ReceiptEntry, reason: String) {
    let (id, provider) = (entry.id, entry.provider);
    let why = reason.clone();
    if let Err(error) = gateway.write(move |store| store.fail_proof(&id, why)).await {
        tracing::error!(%error, %id, "a failed proof cannot be noted");
    }
    gateway.audit_soon(Due { id, by: None });
    let failure = format!("the proof that it promised: {reason}");
    gateway.note_failure(provider, &failure).await;
    gateway.tell(What::NotProven {
        request_id: id,
        provider,
        reason,
    });
}

/// Pays for a proof that holds, and notes it. What cannot be paid now is paid after the next start.
async fn settle(gateway: &Gateway, entry: &ReceiptEntry, evidence: &Evidence, price: MicroUsd) {
    if price == MicroUsd::ZERO {
        return;
    }
    let mut pause = gateway.config().proofs.pause;
    for _ in 0..PAY_TRIES {
        match pay(gateway, entry, evidence, price).await {
            Ok(()) => return note_paid(gateway, entry.id, price).await,
            Err(reason) => {
                tracing::warn!(id = %entry.id, reason, "the price of a proof cannot be paid now");
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(gateway.config().proofs.pause_max);
    }
}

async fn note_paid(gateway: &Gateway, id: B256, price: MicroUsd) {
    let change = move |store: &crate::store::Store| match store.entry(&id)? {
        Some(Entry::Receipt(ReceiptEntry {
            proof:
                Some(ProofState::Holds {
                    at,
                    bytes,
                    verified_ms,
                    price,
                    ..
                }),
            ..
        })) => {
            let state = ProofState::Holds {
                at,
                bytes,
                verified_ms,
                price,
                paid: true,
            };
            store.set_proof(&id, state, None)
        }
        _ => Ok(()),
    };
    gateway.count_proof(price);
    if let Err(error) = gateway.write(change).await {
        tracing::error!(%error, %id, "the price of a proof cannot be noted");
    }
}

/// Pays the price with a voucher of its own. No second one is signed before the provider said that it lacks the first: a
/// price that was taken, and whose receipt was lost, stands in its books.
async fn pay(
    gateway: &Gateway,
    entry: &ReceiptEntry,
    evidence: &Evidence,
    price: MicroUsd,
) -> Result<(), String> {
    let provider = gateway.providers().get(&entry.provider);
    let provider = provider.ok_or("it left the registry")?;
    let registered = provider.registered;
    let (http, endpoint) = (gateway.http(), &registered.endpoint);
    let request_id = proof_payment_id(&entry.id);
    let Some(mut requirements) =
        requirements(gateway, &registered, entry.id, price, provider.requirements).await?
    else {
        return Ok(());
    };
    requirements.amount.0 = price;
    let ask = Ask {
        payee: Payee::from(&requirements),
        ceiling: price,
        request_id,
        now: gateway.now(),
    };
    let payment = gateway.lanes().pay(ask).await;
    let mut payment = payment.map_err(|trouble| trouble.to_string())?;
    for corrections_left in [1, 0] {
        let payload = payment.paid.payload(requirements.clone());
        let sending = upstream::pay_for_proof(http, endpoint, &entry.id, Some(&payload));
        let patience = gateway.limits().courtesy;
        match tokio::time::timeout(patience, sending).await {
            Ok(Ok(PriceReply::Receipt(receipt))) => {
                let expected = Expected {
                    signer: registered.offer_key,
                    payer: gateway.payer(),
                    channel_id: payment.paid.channel_id(),
                    request_id,
                    charged: price,
                    cumulative: MicroUsd(payment.cumulative_before.0.saturating_add(price.0)),
                };
                if let Err(wrong) = expected.check(gateway, evidence, &receipt) {
                    lose(gateway, &payment).await;
                    return Err(wrong);
                }
                let booked = gateway.lanes().proof_bought(&payment.paid, price).await;
                booked.map_err(|trouble| trouble.to_string())?;
                gateway.tell(What::Paid {
                    request_id: entry.id,
                    provider: entry.provider,
                    charged: price,
                    cumulative: receipt.body.cumulative,
                });
                return Ok(());
            }
            Ok(Ok(PriceReply::PaymentRequired(required))) => {
                let corrected = again(
                    gateway,
                    ask,
                    payment,
                    *required,
                    corrections_left,
                    &registered,
                );
                payment = corrected.await.map_err(|attempt| match attempt {
                    Attempt::Busy { reason, .. } | Attempt::Failed(reason) => reason,
                    Attempt::Broke | Attempt::Left => "it broke off".to_owned(),
                })?;
            }
            // By an earlier voucher; this one was not taken, but nobody proves that.
            Ok(Ok(PriceReply::Paid)) => {
                lose(gateway, &payment).await;
                return Ok(());
            }
            Ok(Ok(PriceReply::Refused(reason))) => {
                refused(gateway, &payment).await;
                return Err(reason);
            }
            Ok(Err(error @ UpstreamError::NoConnection(_))) => {
                refused(gateway, &payment).await;
                return Err(error.to_string());
            }
            Ok(Err(error)) => {
                lose(gateway, &payment).await;
                return Err(error.to_string());
            }
            Err(_) => {
                lose(gateway, &payment).await;
                return Err("it did not answer in time".into());
            }
        }
    }
    lose(gateway, &payment).await;
    Err("it refuses a corrected payment".into())
}

/// How the price is to be paid; nothing if it is paid already. Always asked, since the answer tells that too.
async fn requirements(
    gateway: &Gateway,
    registered: &assay_chain::Provider,
    id: B256,
    price: MicroUsd,
    known: Option<PaymentRequirements>,
) -> Result<Option<PaymentRequirements>, String> {
    let (http, endpoint) = (gateway.http(), &registered.endpoint);
    let patience = gateway.limits().courtesy;
    let payment_id = proof_payment_id(&id);
    let receipt = upstream::receipt_once(http, endpoint, &payment_id);
    if tokio::time::timeout(patience, receipt)
        .await
        .ok()
        .flatten()
        .is_some()
    {
        return Ok(None);
    }
    if let Some(known) = known {
        return Ok(Some(known));
    }
    let asking = upstream::pay_for_proof(http, endpoint, &id, None);
    match tokio::time::timeout(patience, asking).await {
        Ok(Ok(PriceReply::PaymentRequired(required))) => {
            let fitting = acceptable(gateway, registered, &required, price);
            let fitting = fitting.map_err(|why| format!("its demand for payment {why}"))?;
            Ok(Some(fitting))
        }
        Ok(Ok(PriceReply::Paid)) => Ok(None),
        Ok(Ok(PriceReply::Refused(reason))) => Err(reason),
        Ok(Ok(PriceReply::Receipt(_))) => Err("it gives a receipt without a payment".into()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("it did not answer in time".into()),
    }
}

/// What the receipt for a price has to say.
struct Expected {
    signer: Address,
    payer: Address,
    channel_id: B256,
    request_id: B256,
    charged: MicroUsd,
    cumulative: MicroUsd,
}

impl Expected {
    fn check(
        &self,
        gateway: &Gateway,
        evidence: &Evidence,
        receipt: &Signed<Receipt>,
    ) -> Result<(), String> {
        let receipt = receipt.check(&gateway.market().domain(), self.signer);
        let receipt = receipt.map_err(|error| format!("its receipt does not hold: {error}"))?;
        let answered = &evidence.receipt.body;
        for (holds, what) in [
            (receipt.request_id == self.request_id, "request"),
            (receipt.payer == self.payer, "payer"),
            (receipt.provider == answered.provider, "provider"),
            (receipt.channel_id == self.channel_id, "channel"),
            (receipt.statement == answered.statement, "statement"),
            (receipt.charged == self.charged, "charge"),
            (receipt.cumulative == self.cumulative, "sum"),
        ] {
            if !holds {
                return Err(format!("its receipt for the proof names another {what}"));
            }
        }
        Ok(())
    }
}
