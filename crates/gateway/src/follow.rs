//! Follows one paid stream to its receipt. The text a client sees is decoded here from token ids, so
//! it is always what the receipt's output root stands for. A receipt that does not hold is kept as
//! evidence, and its provider is not paid further.

use std::time::{Duration, Instant};

use assay_model::StopWatcher;
use assay_openai::{ApiError, AssayAnswer};
use assay_protocol::{
    Answered, DurationMs, Offer, ProofOffer, Receipt, Signed, TokenCount, TokenId,
};

use crate::answer::{Client, Ending, Label, Part};
use crate::buy::{Attempt, Bought, Impatience, answered, fail, lose, patiently};
use crate::events::What;
use crate::gateway::Gateway;
use crate::prepare::Job;
use crate::receipts::{self, Asked, Delivered};
use crate::record::Seen;
use crate::store::ProofState;
use crate::upstream::{self, NodeStream, Piece};

/// What the provider signed before it was asked.
pub(crate) struct Agreed {
    pub(crate) offer: Signed<Offer>,
    /// For a proof of the answer, if one is wanted.
    pub(crate) proof: Option<ProofOffer>,
}

/// A stream on its way.
struct Running<'a> {
    gateway: &'a Gateway,
    job: &'a Job,
    asked: Asked,
    proof: Option<ProofOffer>,
    bought: Bought,
    label: Label,
    watcher: StopWatcher,
    output: Vec<TokenId>,
    first_token_at: Option<Instant>,
    last_token_at: Option<Instant>,
}

/// How the tokens ended.
enum End {
    Receipt {
        receipt: Box<Signed<Receipt>>,
        cached: TokenCount,
    },
    Left,
    Failed(String),
}

/// Streams the answer on and settles what it cost.
pub(crate) async fn follow(
    gateway: &Gateway,
    job: &Job,
    provider: &assay_chain::Provider,
    agreed: Agreed,
    bought: Bought,
    client: &mut Client,
) -> Result<(), Attempt> {
    let Agreed { offer, proof } = agreed;
    let asked = Asked {
        domain: gateway.market().domain(),
        provider: provider.address,
        signer: provider.offer_key,
        offer,
        payer: gateway.payer(),
        channel_id: bought.payment.paid.channel_id(),
        request_id: job.request_id,
        tier: job.tier,
        cumulative_before: bought.payment.cumulative_before,
        prompt: job.prompt.clone(),
        sampler: job.sampler.clone(),
    };
    let label = Label {
        request_id: job.request_id,
        provider: provider.address.to_string(),
        tier: job.tier,
        price: offer.body.price,
        ceiling: bought.payment.paid.ceiling,
    };
    let mut running = Running {
        gateway,
        job,
        asked,
        proof,
        bought,
        label,
        watcher: StopWatcher::new(job.model.tokenizer.clone(), &job.sampler),
        output: Vec::new(),
        first_token_at: None,
        last_token_at: None,
    };
    match running.tokens(client).await {
        End::Receipt { receipt, cached } => running.finish(*receipt, cached, false, client).await,
        End::Left => running.cut(provider, client).await,
        End::Failed(reason) => running.fail(reason, client).await,
    }
}

impl Running<'_> {
    /// Passes tokens on until the receipt comes.
    async fn tokens(&mut self, client: &mut Client) -> End {
        loop {
            let deadline = match self.last_token_at {
                None => self.bought.deadline,
                Some(at) => at + self.gateway.limits().next_token,
            };
            let piece = match patiently(client, deadline, self.bought.stream.next()).await {
                Ok(piece) => piece,
                Err(Impatience::Left) => return End::Left,
                Err(Impatience::TooLate) => {
                    let what = if self.output.is_empty() {
                        "first"
                    } else {
                        "next"
                    };
                    return End::Failed(format!("its {what} token did not come in time"));
                }
            };
            match piece {
                Ok(Piece::Tokens(ids)) => {
                    if let Err(reason) = self.take(&ids) {
                        return End::Failed(reason);
                    }
                    let text = self.watcher.take_text();
                    let begun = client.begin(self.label.clone());
                    let sent = match begun {
                        Ok(()) => client.send(Part::Text { text, ids }).await,
                        left => left,
                    };
                    if sent.is_err() {
                        return End::Left;
                    }
                }
                Ok(Piece::Receipt { receipt, cached }) => {
                    return End::Receipt { receipt, cached };
                }
                Ok(Piece::Done) => return End::Failed("it ended without a receipt".into()),
                Err(error) => return End::Failed(error.to_string()),
            }
        }
    }

    /// Takes ids that exist and were asked for; more than that is not shown, and ends the answer.
    fn take(&mut self, ids: &[TokenId]) -> Result<(), String> {
        let vocab = self.job.model.tokenizer.vocab_size();
        for &id in ids {
            if id as usize >= vocab {
                return Err(format!(
                    "it sent token {id}, but the vocabulary ends at {vocab}"
                ));
            }
            if let Some(reason) = self.watcher.reason() {
                return Err(format!(
                    "it went on after the answer had ended for {reason:?}"
                ));
            }
            self.watcher.push(id);
            self.output.push(id);
        }
        let now = Instant::now();
        self.first_token_at.get_or_insert(now);
        self.last_token_at = Some(now);
        Ok(())
    }

    /// Checks the receipt, books it, keeps the evidence, and only then says that the answer is whole.
    async fn finish(
        mut self,
        receipt: Signed<Receipt>,
        cached: TokenCount,
        we_left: bool,
        client: &mut Client,
    ) -> Result<(), Attempt> {
        let ended_at = Instant::now();
        let delivered = Delivered {
            receipt,
            output: std::mem::take(&mut self.output),
            cached,
            we_left,
            at: self.gateway.now(),
            took: millis(ended_at.duration_since(self.bought.sent_at)),
        };
        let evidence = receipts::evidence(&self.asked, &delivered);
        let accepted = receipts::accept(
            &self.asked,
            &delivered,
            &evidence,
            &self.job.model.tokenizer,
        );
        let request_id = self.job.request_id;
        let provider = self.asked.provider;
        let checked = match accepted {
            Ok(checked) => checked,
            Err(refused) => {
                let reason = refused.to_string();
                // The voucher is out, and what it promised may be claimed; nothing more is promised.
                fail(self.gateway, &self.bought.payment).await;
                self.gateway
                    .refuse_receipt(self.job, &evidence, &refused)
                    .await;
                return self
                    .broken(client, format!("its receipt does not hold: {reason}"))
                    .await;
            }
        };
        let n = evidence.output.len();
        let first = self.first_token_at.unwrap_or(ended_at);
        let seen = Seen {
            ttft_ms: millis(first.duration_since(self.bought.sent_at)).0,
            rest_ms: millis(self.last_token_at.unwrap_or(first).duration_since(first)).0,
            output_tokens: u32::try_from(n).unwrap_or(u32::MAX),
        };
        let counted = Answered {
            charged: checked.charged,
            prompt_tokens: checked.statement.n_prompt.0,
            output_tokens: seen.output_tokens,
            ttft: DurationMs(seen.ttft_ms),
            rest: DurationMs(seen.rest_ms),
        };
        answered(self.gateway, &self.bought.payment, counted).await;
        self.gateway.tell(What::Receipt {
            request_id,
            provider,
            tokens: seen.output_tokens,
        });
        self.gateway.tell(What::Paid {
            request_id,
            provider,
            charged: checked.charged,
            cumulative: checked.cumulative,
        });
        // Whoever left does not wait for a proof, and no node makes one for it.
        let terms = self.proof.as_ref().filter(|_| !we_left);
        let proof = terms.and_then(|terms| self.gateway.proof_of(terms, &checked));
        let proof_due = match &proof {
            Some(ProofState::Waiting { due, .. }) => Some(*due),
            _ => None,
        };
        if let Err(error) = self
            .gateway
            .keep_receipt(self.job, &checked, &evidence, seen, proof)
            .await
        {
            return self.broken(client, error.to_string()).await;
        }
        let text = self.watcher.take_text();
        let usage = evidence.usage();
        let ending = Ending {
            stop: checked.statement.stop_reason,
            usage,
            charged: checked.charged,
            assay: AssayAnswer {
                token_ids: Vec::new(),
                sampler: Some(self.job.sampler.clone()),
                receipt: Some(evidence.receipt),
                payment: None,
                final_at: self.gateway.final_at(&checked),
                proof_due,
            },
        };
        self.say(client, text, ending).await
    }

    async fn say(self, client: &mut Client, text: String, ending: Ending) -> Result<(), Attempt> {
        client
            .begin(self.label.clone())
            .map_err(|_| Attempt::Left)?;
        if !text.is_empty() {
            let part = Part::Text {
                text,
                ids: Vec::new(),
            };
            client.send(part).await.map_err(|_| Attempt::Left)?;
        }
        client
            .send(Part::Done(Box::new(ending)))
            .await
            .map_err(|_| Attempt::Left)
    }

    /// The client left: so does this gateway, and asks for the receipt of what was sent until then.
    async fn cut(
        self,
        provider: &assay_chain::Provider,
        client: &mut Client,
    ) -> Result<(), Attempt> {
        let Self {
            gateway,
            job,
            asked,
            proof,
            bought,
            label,
            watcher,
            output,
            first_token_at,
            last_token_at,
        } = self;
        let Bought {
            payment,
            stream,
            sent_at,
            deadline,
        } = bought;
        // Closing the connection is how a node learns of it.
        drop(stream);
        let left_at = Instant::now();
        let patience = gateway.limits().cut_receipt;
        let receipt = upstream::receipt(
            gateway.http(),
            &provider.endpoint,
            &job.request_id,
            patience,
        )
        .await;
        let Some(receipt) = receipt else {
            // Nothing was served, or the node shows with the next payment what it charged.
            lose(gateway, &payment).await;
            return Err(Attempt::Left);
        };
        let ours = u32::try_from(output.len()).unwrap_or(u32::MAX);
        if receipt.body.statement.n_output.0 == ours {
            let bought = Bought {
                payment,
                stream: NodeStream::ended(),
                sent_at,
                deadline,
            };
            let running = Running {
                gateway,
                job,
                asked,
                proof,
                bought,
                label,
                watcher,
                output,
                first_token_at,
                last_token_at,
            };
            let _ = running.finish(receipt, TokenCount(0), true, client).await;
            return Err(Attempt::Left);
        }
        // Some tokens were still on their way when the connection closed: paid for, but never seen,
        // so there is nothing to audit.
        match receipts::accept_unseen(&asked, receipt, ours, gateway.now()) {
            Ok(checked) => {
                let first = first_token_at.unwrap_or(left_at);
                let last = last_token_at.unwrap_or(first);
                let counted = Answered {
                    charged: checked.charged,
                    prompt_tokens: checked.statement.n_prompt.0,
                    output_tokens: checked.statement.n_output.0,
                    ttft: millis(first.duration_since(sent_at)),
                    rest: millis(last.duration_since(first)),
                };
                answered(gateway, &payment, counted).await;
                gateway.tell(What::Paid {
                    request_id: job.request_id,
                    provider: asked.provider,
                    charged: checked.charged,
                    cumulative: checked.cumulative,
                });
            }
            Err(refused) => {
                tracing::warn!(%refused, "the receipt of a cut answer was refused");
                fail(gateway, &payment).await;
            }
        }
        Err(Attempt::Left)
    }

    /// No receipt came. What the node will charge is unknown until it shows its state.
    async fn fail(self, reason: String, client: &mut Client) -> Result<(), Attempt> {
        fail(self.gateway, &self.bought.payment).await;
        if !client.has_begun() {
            return Err(Attempt::Failed(reason));
        }
        self.gateway
            .note_failure(self.asked.provider, &reason)
            .await;
        self.broken(client, reason).await
    }

    /// Ends an answer that had begun with an open error, or lets another provider have a try.
    async fn broken(self, client: &mut Client, reason: String) -> Result<(), Attempt> {
        if !client.has_begun() {
            return Err(Attempt::Failed(reason));
        }
        let request_id = self.job.request_id;
        let message = format!(
            "provider {} broke off: {reason}; what was shown is not a whole answer: ask again",
            self.asked.provider
        );
        self.gateway.tell(What::Failed {
            request_id,
            reason: message.clone(),
        });
        client
            .fail(ApiError::new(
                502,
                "server_error",
                "provider_broke_off",
                message,
            ))
            .await;
        Err(Attempt::Broke)
    }
}

fn millis(duration: Duration) -> DurationMs {
    DurationMs(u32::try_from(duration.as_millis()).unwrap_or(u32::MAX))
}
