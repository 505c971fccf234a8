//! One job from routing to its answer. Before the first token another provider may be asked; after
//! it, an error ends the answer openly. A cloud is asked last, and only if the request allows it.

use std::time::Duration;

use assay_openai::{ApiError, Fallback};

use crate::answer::{Client, Part};
use crate::buy::{Attempt, buy};
use crate::cloud::{self, CloudError, CloudRequest, CloudTimeouts, CloudUpstream};
use crate::events::What;
use crate::follow::{Agreed, follow};
use crate::gateway::Gateway;
use crate::prepare::Job;
use crate::routing::{Choice, NoRoute};
use crate::store::UnverifiedEntry;

/// Answers a job to its client, somehow.
pub(crate) async fn run(gateway: &Gateway, job: Job, mut client: Client) {
    let mut tried = Vec::new();
    let mut retry_after = None;
    let mut last_reason = None;
    let no_route = loop {
        if tried.len() >= gateway.limits().attempts_max {
            break None;
        }
        let choice = match gateway.route(&job, &tried) {
            Ok(choice) => choice,
            Err(no_route) => break Some(no_route),
        };
        let provider = choice.provider;
        tried.push(provider);
        gateway.tell(What::Routed {
            request_id: job.request_id,
            provider,
            ceiling: choice.ceiling,
            why: choice.why.clone(),
        });
        let _place = gateway.providers().take_place(provider);
        match attempt(gateway, &job, &choice, &mut client).await {
            Ok(()) | Err(Attempt::Left | Attempt::Broke) => return,
            Err(Attempt::Busy {
                retry_after: after,
                reason,
            }) => {
                retry_after = Some(retry_after.unwrap_or(after).min(after));
                gateway.tell(What::Retried {
                    request_id: job.request_id,
                    provider,
                    reason: reason.clone(),
                });
                last_reason = Some(reason);
            }
            Err(Attempt::Failed(reason)) => {
                gateway.note_failure(provider, &reason).await;
                gateway.tell(What::Retried {
                    request_id: job.request_id,
                    provider,
                    reason: reason.clone(),
                });
                last_reason = Some(reason);
            }
        }
    };
    fall_back(
        gateway,
        &job,
        &mut client,
        no_route,
        retry_after,
        last_reason,
    )
    .await;
}

async fn attempt(
    gateway: &Gateway,
    job: &Job,
    choice: &Choice,
    client: &mut Client,
) -> Result<(), Attempt> {
    let gone = || Attempt::Failed("it left the registry".into());
    let provider = gateway.providers().get(&choice.provider);
    let provider = provider.ok_or_else(gone)?;
    let model = job.model.model.id();
    let terms = Agreed {
        offer: *provider.offers.get(&model).ok_or_else(gone)?,
        proof: choice.terms,
    };
    let bought = buy(gateway, job, &provider.registered, choice, client).await?;
    follow(gateway, job, &provider.registered, terms, bought, client).await
}

/// Nobody in the market could: a cloud if it may, or the reason.
async fn fall_back(
    gateway: &Gateway,
    job: &Job,
    client: &mut Client,
    no_route: Option<NoRoute>,
    retry_after: Option<Duration>,
    last_reason: Option<String>,
) {
    let error = refusal(&no_route, retry_after, last_reason);
    let request = CloudRequest {
        request_id: job.request_id,
        surface: job.surface,
        body: job.body.clone(),
        prompt: job.wanted().prompt,
        max_tokens: job.sampler.max_tokens,
    };
    let within_price = |cloud: &&CloudUpstream| {
        job.max_price
            .is_none_or(|max| cloud::ceiling(cloud, &request) <= max)
    };
    let clouds: Vec<_> = match job.fallback {
        Fallback::Never => Vec::new(),
        Fallback::Cloud => {
            let named = gateway
                .clouds()
                .iter()
                .filter(|cloud| cloud.serves(job.model_name()));
            named.filter(within_price).collect()
        }
    };
    let timeouts = CloudTimeouts {
        first_token: gateway.limits().first_token,
        next_token: gateway.limits().next_token,
    };
    let mut last = None;
    for cloud in clouds {
        match cloud::answer(gateway.http(), cloud, &request, timeouts, client).await {
            Ok((bill, ending)) => {
                let entry = UnverifiedEntry {
                    id: job.request_id,
                    at: gateway.now(),
                    model: job.model_name().to_owned(),
                    cloud: cloud.name.clone(),
                    cloud_model: cloud.model.clone(),
                    tier: assay_protocol::Tier::Unverified,
                    prompt_tokens: bill.prompt_tokens,
                    output_tokens: bill.output_tokens,
                    estimated: bill.estimated,
                };
                gateway.keep_unverified(entry).await;
                // Whether the client is still there changes nothing any more.
                let _ = client.send(Part::Done(Box::new(ending))).await;
                return;
            }
            Err(CloudError::Left(_)) => return,
            Err(failed) => {
                tracing::warn!(%failed, "the fallback failed");
                let error = cloud::api_error(&failed);
                if client.has_begun() {
                    client.fail(error).await;
                    return;
                }
                last = Some(error);
            }
        }
    }
    let error = last.unwrap_or(error);
    let reason = error.body.message.clone();
    gateway.tell(What::Failed {
        request_id: job.request_id,
        reason,
    });
    client.fail(error).await;
}

/// What the client reads when the market cannot serve.
fn refusal(
    no_route: &Option<NoRoute>,
    retry_after: Option<Duration>,
    last_reason: Option<String>,
) -> ApiError {
    let after = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(60_000);
    if let Some(wait) = retry_after {
        return ApiError::busy(after(wait));
    }
    if let Some(reason) = last_reason {
        let message =
            format!("every provider that was asked failed, the last because {reason}: try again");
        let mut error = ApiError::new(502, "server_error", "providers_failed", message);
        error.retry_after_ms = Some(1_000);
        return error;
    }
    match no_route {
        Some(no_route) if no_route.is_too_dear() => {
            let message = format!("{}: raise assay.max_price", no_route.explain());
            ApiError::new(402, "invalid_request_error", "max_price_too_low", message)
                .at("assay.max_price")
        }
        Some(no_route) if no_route.is_unproven() => {
            let message = format!(
                "{}: ask for fewer tokens, or for 'staked' or 'optimistic'",
                no_route.explain()
            );
            ApiError::new(503, "server_error", "proofs_not_offered", message)
                .at("assay.verification")
        }
        Some(no_route) if no_route.is_busy() => {
            let mut error = ApiError::busy(1_000);
            error.body.message = format!("{}: try again in a second", no_route.explain());
            error
        }
        Some(no_route) => {
            ApiError::unavailable(format!("{}: try again", no_route.explain()), 2_000)
        }
        None => ApiError::unavailable("no provider could be asked: try again", 2_000),
    }
}
