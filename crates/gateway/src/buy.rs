//! Buying an answer from one node: how it wants to be paid, a voucher within the signed offer, and the
//! open stream. Never signs for more than the offer makes the request's ceiling.

use std::time::{Duration, Instant};

use assay_payments::PayerLedgerError;
use assay_payments::payer::{LaneError, Payee};
use assay_payments::x402::{PaymentRequired, PaymentRequirements};
use assay_protocol::{Answered, MicroUsd};

use crate::answer::Client;
use crate::events::What;
use crate::gateway::Gateway;
use crate::lanes::{Ask, LaneTrouble, Payment};
use crate::prepare::Job;
use crate::routing::Choice;
use crate::upstream::{self, NodeStream, Reply, UpstreamError};

/// Why an attempt at one provider ended without a whole answer.
pub(crate) enum Attempt {
    /// Not now, and nobody's fault.
    Busy {
        retry_after: Duration,
        reason: String,
    },
    /// The provider's fault, before its first token.
    Failed(String),
    /// After the first token; the client was told.
    Broke,
    Left,
}

/// A limit that grows with the prompt: reading a long one is not a stall.
fn first_token_wait(gateway: &Gateway, job: &Job) -> Duration {
    let limits = gateway.limits();
    let thousands = u32::try_from(job.prompt.len() / 1000).unwrap_or(u32::MAX);
    limits
        .first_token
        .saturating_add(limits.first_token_per_1k_prompt.saturating_mul(thousands))
}

/// A paid request and the stream that answers it.
pub(crate) struct Bought {
    pub(crate) payment: Payment,
    pub(crate) stream: NodeStream,
    /// When the paid request was sent, and until when its first token has to come.
    pub(crate) sent_at: Instant,
    pub(crate) deadline: Instant,
}

/// Why waiting ended.
pub(crate) enum Impatience {
    TooLate,
    Left,
}

/// Waits for `future`, but not longer than the client and the clock do.
pub(crate) async fn patiently<F: Future>(
    client: &Client,
    deadline: Instant,
    future: F,
) -> Result<F::Output, Impatience> {
    tokio::select! {
        biased;
        output = future => Ok(output),
        () = client.left() => Err(Impatience::Left),
        () = tokio::time::sleep_until(deadline.into()) => Err(Impatience::TooLate),
    }
}

/// Pays and sends the request, with one corrected voucher if the provider proves that it is owed
/// more. Only the network is waited for impatiently: once a voucher is signed, its lane is settled or
/// lost before this returns an error.
pub(crate) async fn buy(
    gateway: &Gateway,
    job: &Job,
    provider: &assay_chain::Provider,
    choice: &Choice,
    client: &Client,
) -> Result<Bought, Attempt> {
    let ceiling = choice.ceiling;
    // What it may cost with its proof was found to fit.
    let whole = MicroUsd(ceiling.0.saturating_add(choice.proof.0));
    let body = upstream::body(job, whole);
    let wait = first_token_wait(gateway, job);
    let late = || Attempt::Failed(format!("it gave no token within {} s", wait.as_secs()));
    let asking = requirements(gateway, provider, &body, ceiling);
    let requirements = match patiently(client, Instant::now() + wait, asking).await {
        Ok(requirements) => requirements?,
        Err(Impatience::TooLate) => return Err(late()),
        Err(Impatience::Left) => return Err(Attempt::Left),
    };
    let payee = Payee::from(&requirements);
    let ask = Ask {
        payee,
        ceiling,
        request_id: job.request_id,
        now: gateway.now(),
    };
    let mut payment = gateway.lanes().pay(ask).await.map_err(lane_trouble)?;
    if let Some(deposit) = payment.deposited {
        // A new lane under new terms: what is left in those under old ones comes back.
        match gateway.lanes().close_outdated(payee).await {
            Ok(0) => {}
            Ok(closed) => {
                tracing::info!(provider = %provider.address, closed, "lanes by old terms closed")
            }
            Err(error) => tracing::error!(%error, "lanes by old terms cannot be closed"),
        }
        let channel_id = payment.paid.channel_id();
        gateway.tell(What::Funded {
            provider: provider.address,
            channel_id,
            deposit,
        });
    }
    for corrections_left in [1, 0] {
        let sent_at = Instant::now();
        let deadline = sent_at + wait;
        let payload = payment.paid.payload(requirements.clone());
        let limit = gateway.limits().event_bytes_max;
        let sending = upstream::send(
            gateway.http(),
            &provider.endpoint,
            &body,
            Some(&payload),
            limit,
        );
        let reply = match patiently(client, deadline, sending).await {
            Ok(reply) => reply,
            Err(Impatience::TooLate) => {
                fail(gateway, &payment).await;
                return Err(late());
            }
            Err(Impatience::Left) => {
                lose(gateway, &payment).await;
                return Err(Attempt::Left);
            }
        };
        match reply {
            Ok(Reply::Stream(stream)) => {
                return Ok(Bought {
                    payment,
                    stream,
                    sent_at,
                    deadline,
                });
            }
            Ok(Reply::PaymentRequired(required)) => {
                payment =
                    again(gateway, ask, payment, *required, corrections_left, provider).await?;
            }
            Ok(Reply::Busy { retry_after }) => {
                refused(gateway, &payment).await;
                let reason = "all its places are taken".into();
                return Err(Attempt::Busy {
                    retry_after,
                    reason,
                });
            }
            Ok(Reply::Refused(reason)) => {
                refused(gateway, &payment).await;
                return Err(Attempt::Failed(format!("it refused with {reason}")));
            }
            // The voucher never left this machine.
            Err(error @ UpstreamError::NoConnection(_)) => {
                refused(gateway, &payment).await;
                return Err(Attempt::Failed(error.to_string()));
            }
            Err(error) => {
                fail(gateway, &payment).await;
                return Err(Attempt::Failed(error.to_string()));
            }
        }
    }
    lose(gateway, &payment).await;
    Err(Attempt::Failed("it refuses a corrected payment".into()))
}

/// After a 402 to a paid request: the corrected payment, if the correction holds and none was made before.
pub(crate) async fn again(
    gateway: &Gateway,
    ask: Ask,
    payment: Payment,
    required: PaymentRequired,
    corrections_left: u32,
    provider: &assay_chain::Provider,
) -> Result<Payment, Attempt> {
    let said = required.error.clone().unwrap_or_default();
    let channel_id = payment.paid.channel_id();
    match gateway.lanes().correct(channel_id, required).await {
        Ok(true) if corrections_left > 0 => gateway
            .lanes()
            .pay_again(ask, channel_id)
            .await
            .map_err(lane_trouble),
        Ok(true) => Err(Attempt::Failed("it refuses a corrected payment".into())),
        Ok(false) => {
            refused(gateway, &payment).await;
            gateway.providers().forget_requirements(&provider.address);
            Err(Attempt::Failed(format!("it refuses the payment: {said}")))
        }
        // A voucher that the books do not know, but with our signature, is our own forgetting.
        Err(LaneTrouble::Ledger(PayerLedgerError::Lane(error @ LaneError::OverClaimed { .. }))) => {
            let reason = format!("it claims what was never promised: {error}");
            let id = ask.request_id;
            gateway.bench(provider.address, reason.clone(), id).await;
            Err(Attempt::Failed(reason))
        }
        Err(trouble) => Err(lane_trouble(trouble)),
    }
}

fn lane_trouble(trouble: LaneTrouble) -> Attempt {
    let reason = trouble.to_string();
    match trouble {
        // These are this gateway's own limits, not the provider's failures.
        LaneTrouble::AllBusy(_)
        | LaneTrouble::Limit { .. }
        | LaneTrouble::Empty { .. }
        | LaneTrouble::Chain(_)
        | LaneTrouble::Slow
        | LaneTrouble::NoRandomness
        | LaneTrouble::Stopping => Attempt::Busy {
            retry_after: Duration::from_secs(1),
            reason,
        },
        LaneTrouble::Away(retry_after) => Attempt::Busy {
            retry_after,
            reason,
        },
        LaneTrouble::WithdrawDelay(_) | LaneTrouble::Ledger(_) => Attempt::Failed(reason),
    }
}

/// How the provider wants to be paid: remembered, or asked for with an unpaid request.
async fn requirements(
    gateway: &Gateway,
    provider: &assay_chain::Provider,
    body: &serde_json::Value,
    ceiling: MicroUsd,
) -> Result<PaymentRequirements, Attempt> {
    let known = gateway
        .providers()
        .get(&provider.address)
        .and_then(|p| p.requirements);
    let mut requirements = match known {
        Some(known) => known,
        None => {
            let limit = gateway.limits().event_bytes_max;
            let reply = upstream::send(gateway.http(), &provider.endpoint, body, None, limit).await;
            let required = match reply {
                Ok(Reply::PaymentRequired(required)) => required,
                Ok(Reply::Busy { retry_after }) => {
                    let reason = "all its places are taken".into();
                    return Err(Attempt::Busy {
                        retry_after,
                        reason,
                    });
                }
                Ok(Reply::Refused(reason)) => {
                    return Err(Attempt::Failed(format!("it refused with {reason}")));
                }
                Ok(Reply::Stream(_)) => {
                    return Err(Attempt::Failed(
                        "it answers without asking for payment".into(),
                    ));
                }
                Err(error) => return Err(Attempt::Failed(error.to_string())),
            };
            let fitting = acceptable(gateway, provider, &required, ceiling)
                .map_err(|why| Attempt::Failed(format!("its demand for payment {why}")))?;
            gateway
                .providers()
                .set_requirements(&provider.address, fitting.clone());
            fitting
        }
    };
    requirements.amount.0 = ceiling;
    Ok(requirements)
}

/// The demand that this gateway can meet: on this chain, in its token, to the registered vault, and
/// for no more than the signed offer says.
pub(crate) fn acceptable(
    gateway: &Gateway,
    provider: &assay_chain::Provider,
    required: &PaymentRequired,
    ceiling: MicroUsd,
) -> Result<PaymentRequirements, String> {
    let deployment = gateway.market().deployment();
    let ours = required.accepts.iter().find(|r| {
        r.scheme == assay_payments::x402::SCHEME
            && r.network.0 == deployment.chain_id
            && r.asset == deployment.token
    });
    let Some(ours) = ours else {
        return Err("names no scheme, chain and token that are used here".into());
    };
    if ours.pay_to != provider.vault {
        return Err(format!(
            "is to {}, not to its registered vault",
            ours.pay_to
        ));
    }
    if ours.amount.0 > ceiling {
        return Err(format!(
            "is {}, its signed offer makes it {ceiling}",
            ours.amount.0
        ));
    }
    let mut ours = ours.clone();
    ours.extra.channel_state = None;
    ours.extra.voucher_state = None;
    Ok(ours)
}

/// The provider refused before it served anything.
pub(crate) async fn refused(gateway: &Gateway, payment: &Payment) {
    if let Err(error) = gateway.lanes().refused(&payment.paid).await {
        tracing::error!(%error, "a lane cannot be settled");
    }
}

/// A receipt that holds came.
pub(crate) async fn answered(gateway: &Gateway, payment: &Payment, answer: Answered) {
    if let Err(error) = gateway.lanes().answered(&payment.paid, answer).await {
        tracing::error!(%error, "a lane cannot be settled");
    }
}

/// The provider was paid and gave no receipt that holds, without our leaving: its failure, and counted as such.
pub(crate) async fn fail(gateway: &Gateway, payment: &Payment) {
    if let Err(error) = gateway.lanes().fail(&payment.paid).await {
        tracing::error!(%error, "a lane cannot be marked as unresolved");
    }
}

/// What became of the request is unknown, and nobody's fault.
pub(crate) async fn lose(gateway: &Gateway, payment: &Payment) {
    if let Err(error) = gateway.lanes().lose(&payment.paid).await {
        tracing::error!(%error, "a lane cannot be marked as unresolved");
    }
}
