//! One paid answer, from the engine's first token to the signed receipt. Runs as its own task, so that a client who
//! leaves cannot take it down half way: what was delivered is signed and charged, the rest is not made.

use std::sync::Arc;
use std::time::{Duration, Instant};

use assay_engine::{GenerationRequest, Model};
use assay_model::StopWatcher;
use assay_openai::ApiError;
use assay_payments::x402::PaymentResponse;
use assay_protocol::{
    DurationMs, Receipt, SamplerParams, Signed, Statement, StopReason, TokenCount, TokenId, Usage,
};
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::Sender;

use crate::app::App;
use crate::clock::now;
use crate::keep::{KeepError, Kept, Promised};
use crate::order::Order;
use crate::till::Taken;
use crate::worker::{Job, Output};

/// How often a client that waits for its first token hears that we are alive.
const ALIVE_EVERY: Duration = Duration::from_secs(10);

/// What the HTTP side gets to send.
pub(crate) enum Part {
    /// Text that no later token takes back, and all ids since the last part.
    Text {
        text: String,
        ids: Vec<TokenId>,
    },
    /// Nothing yet.
    Alive,
    Done(Box<Done>),
    Failed(ApiError),
}

/// A finished answer: charged, and its receipt durable.
pub(crate) struct Done {
    pub(crate) stop: StopReason,
    pub(crate) usage: Usage,
    pub(crate) sampler: SamplerParams,
    pub(crate) receipt: Signed<Receipt>,
    pub(crate) payment: PaymentResponse,
}

/// Whether tokens count as delivered one by one or all at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivery {
    Stream,
    Whole,
}

pub(crate) struct Session {
    pub(crate) app: Arc<App>,
    /// Index of the ware and of its engine.
    pub(crate) ware: usize,
    pub(crate) order: Order,
    pub(crate) taken: Taken,
    pub(crate) place: OwnedSemaphorePermit,
    pub(crate) arrived: Instant,
    pub(crate) delivery: Delivery,
}

/// The answer so far.
struct Made {
    watcher: StopWatcher,
    ids: Vec<TokenId>,
    /// How many of them the client has been sent.
    sent: usize,
    first: Option<Instant>,
    /// Prompt tokens that were found in the cache.
    cached: TokenCount,
}

/// Why no more tokens come.
enum End {
    Answered(StopReason),
    /// The client is gone.
    Left,
    Failed(ApiError),
}

impl Session {
    pub(crate) async fn run(self, parts: Sender<Part>) {
        let ware = &self.app.wares[self.ware];
        let mut made = Made {
            watcher: StopWatcher::new(ware.loaded.tokenizer.clone(), &self.order.sampler),
            ids: Vec::new(),
            sent: 0,
            first: None,
            cached: TokenCount(0),
        };
        // How fast a first token comes tells whether a prompt began like an earlier one: payers share
        // nothing with each other.
        let mut job = self.app.workers[self.ware].submit(GenerationRequest {
            prompt: self.order.prompt.clone(),
            sampler: self.order.sampler.clone(),
            cache_salt: self.taken.payer.into_word(),
        });
        let end = self.generate(&mut job, &mut made, &parts).await;
        drop(job);
        let stop = match end {
            End::Answered(stop) => stop,
            End::Left if self.delivery == Delivery::Stream => {
                // What was not sent was not served.
                made.ids.truncate(made.sent);
                StopReason::Cut
            }
            // A whole answer is delivered at its end or not at all.
            End::Left => return,
            End::Failed(error) => {
                drop(self.taken);
                drop(self.place);
                let _ = parts.send(Part::Failed(error)).await;
                return;
            }
        };
        self.close(made, stop, &parts).await;
    }

    /// Passes tokens on until the answer ends.
    async fn generate(&self, job: &mut Job, made: &mut Made, parts: &Sender<Part>) -> End {
        let mut alive = tokio::time::interval(ALIVE_EVERY);
        alive.tick().await;
        loop {
            let output = tokio::select! {
                biased;
                () = parts.closed() => return End::Left,
                // Nobody asked for a shorter answer, so nobody pays for one: a true prefix would still be signed as
                // less than was ordered.
                () = self.app.cutoff.cancelled() => return End::Failed(ApiError::unavailable(
                    "this node is shutting down: ask another, nothing was charged",
                    1_000,
                )),
                output = job.outputs.recv() => output,
                _ = alive.tick() => {
                    // A full channel means that the client has enough to read.
                    let _ = parts.try_send(Part::Alive);
                    continue;
                }
            };
            let reason = match output {
                Some(Output::Prefilled { reused }) => {
                    made.cached = TokenCount(reused);
                    continue;
                }
                Some(Output::Token(id)) => self.token(made, id),
                // The watcher ends an answer with the same token as the engine; this is for an engine that does not.
                Some(Output::Finished(reason)) => Some(reason),
                Some(Output::Refused(reason)) => {
                    tracing::error!(reason, "the engine refused an order");
                    return End::Failed(ApiError::internal(
                        "the engine refused the request: try again, nothing was charged",
                    ));
                }
                None => {
                    return End::Failed(ApiError::unavailable(
                        "the engine has stopped: nothing was charged",
                        5_000,
                    ));
                }
            };
            if let Err(left) = self.send(made, parts, reason.is_some()).await {
                return left;
            }
            if let Some(reason) = reason {
                return End::Answered(reason);
            }
        }
    }

    /// Takes one token; the conduct may end the answer with it.
    fn token(&self, made: &mut Made, id: TokenId) -> Option<StopReason> {
        made.first.get_or_insert_with(Instant::now);
        made.ids.push(id);
        if let Some(reason) = made.watcher.push(id) {
            return Some(reason);
        }
        let eos = eos(&self.app.wares[self.ware].loaded.model);
        let early = self.app.conduct.end_early(made.watcher.tokens(), eos)?;
        if let Some(id) = early.append {
            made.ids.push(id);
            made.watcher.push(id);
        } else {
            made.watcher.cut();
        }
        Some(early.reason)
    }

    /// Sends what is certain. Ids wait for the text they belong to, unless the answer is over.
    async fn send(&self, made: &mut Made, parts: &Sender<Part>, over: bool) -> Result<(), End> {
        let text = made.watcher.take_text();
        if made.sent == made.ids.len() || (text.is_empty() && !over) {
            return Ok(());
        }
        let ids = made.ids[made.sent..].to_vec();
        let part = Part::Text { text, ids };
        match tokio::time::timeout(self.app.limits.stall_timeout, parts.send(part)).await {
            Ok(Ok(())) => {
                made.sent = made.ids.len();
                Ok(())
            }
            Ok(Err(_)) | Err(_) => Err(End::Left),
        }
    }

    /// Charges, signs, and hands over the receipt. An answer without a token costs nothing and has no receipt.
    async fn close(self, made: Made, stop: StopReason, parts: &Sender<Part>) {
        let Self {
            app,
            ware,
            order,
            taken,
            place,
            arrived,
            ..
        } = self;
        let Some(first) = made.first.filter(|_| !made.ids.is_empty()) else {
            return;
        };
        let ware = &app.wares[ware];
        let count =
            |tokens: &[TokenId]| TokenCount(u32::try_from(tokens.len()).unwrap_or(u32::MAX));
        // A receipt does not sign how much was found in the cache, and whoever loses the stream's end never
        // learns it: it is told only where it does not change the bill.
        let price = &ware.price;
        let told = price.cached_input == price.input;
        let usage = Usage {
            prompt: count(&order.prompt),
            cached: if told { made.cached } else { TokenCount(0) },
            output: count(&made.ids),
        };
        let charged = ware.price.charge(&usage).ok();
        let Some((charged, cumulative)) = charged
            .and_then(|charged| Some((charged, taken.reservation.cumulative(charged).ok()?)))
        else {
            // Output never exceeds max_tokens, so this is a bug of ours; the client does not pay for it.
            tracing::error!(?usage, ceiling = %taken.reservation.ceiling, "an answer costs more than its ceiling");
            drop(taken);
            let _ = parts
                .send(Part::Failed(ApiError::internal(
                    "the charge is beyond the ceiling: nothing was charged",
                )))
                .await;
            return;
        };
        let body = Receipt {
            statement: Statement::new(ware.id, &order.prompt, &order.sampler, &made.ids, stop),
            provider: app.provider,
            payer: taken.payer,
            channel_id: taken.reservation.channel_id,
            charged,
            cumulative,
            served_at: now(),
            ttft: since(arrived, first),
            duration: since(arrived, Instant::now()),
            tier: order.tier,
            request_id: order.request_id,
        };
        // Who left does not wait for a proof, and is not asked to pay for one.
        let left = stop == StopReason::Cut || parts.is_closed();
        let wanted = order.proof.filter(|_| !left);
        let promised = wanted.map(|terms| Promised {
            price: terms
                .charge(usage.prompt, usage.output)
                .expect("the price for max_tokens did not overflow"),
            due: body.served_at.plus_seconds(u64::from(terms.delay_s)),
        });
        let receipt = app.key.sign(body, &app.domain);
        app.pace
            .note(u64::from(body.duration.0), u64::from(usage.output.0));
        let kept = Kept {
            receipt,
            prompt: order.prompt,
            sampler: order.sampler.clone(),
            output: made.ids,
            proof: promised,
        };
        // From the charge on the receipt can be fetched, and whoever has it may open a game about it.
        let kept = keep(&app, kept).await;
        let charged = match kept {
            Ok(()) => app
                .till
                .charge(taken, receipt)
                .await
                .map_err(|error| error.to_string()),
            Err(error) => {
                drop(taken);
                Err(error.to_string())
            }
        };
        if let (Ok(_), Some(proofs), Some(promised)) = (&charged, &app.proofs, promised) {
            proofs.promise(body.request_id, body.payer, promised);
        }
        let part = match charged {
            Ok(payment) => Part::Done(Box::new(Done {
                stop,
                usage,
                sampler: order.sampler,
                receipt,
                payment,
            })),
            Err(error) => {
                tracing::error!(%error, "an answer could not be charged");
                Part::Failed(ApiError::internal(
                    "the ledger cannot be written: nothing was charged",
                ))
            }
        };
        // The place is free before the client can ask again.
        drop(place);
        // Whoever left can still fetch the receipt.
        let _ = tokio::time::timeout(app.limits.stall_timeout, parts.send(part)).await;
    }
}

/// Keeps what would defend the receipt, off the async threads, since it waits for the disk.
async fn keep(app: &Arc<App>, kept: Kept) -> Result<(), KeepError> {
    let keep = Arc::clone(&app.keep);
    tokio::task::spawn_blocking(move || keep.add(&kept))
        .await
        .expect("keeping neither panics nor is cancelled")
}

/// The token that a liar would put at the end.
fn eos(model: &Model) -> Option<TokenId> {
    model.manifest().eos.first().copied()
}

fn since(start: Instant, end: Instant) -> DurationMs {
    DurationMs(u32::try_from(end.saturating_duration_since(start).as_millis()).unwrap_or(u32::MAX))
}
