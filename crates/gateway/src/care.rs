//! Looks after lanes in the background: compares each with the chain, sends on what a crash left unsent, and brings the
//! money of closed lanes back: by the provider's leave where it gives it, else by the channel's delay.

use std::sync::Arc;

use assay_chain::Provider;
use assay_payments::payer::Lane;
use assay_payments::x402::{self, PaymentRequired, PaymentRequirements, PaymentResponse};
use assay_payments::{Terms, x402::PAYMENT_REQUIRED};
use assay_protocol::{B256, MicroUsd};

use crate::gateway::Gateway;
use crate::lanes::{LaneTrouble, Lanes};

/// Looks again and again until the gateway stops.
pub(crate) async fn run(gateway: Arc<Gateway>) {
    let stop = gateway.shutdown_token();
    loop {
        tokio::select! {
            () = tokio::time::sleep(gateway.limits().chain.look) => {}
            () = gateway.care_again() => {}
            () = stop.cancelled() => return,
        }
        tokio::select! {
            () = look(&gateway) => {}
            // What is under way is written down, and the next start goes on.
            () = stop.cancelled() => return,
        }
    }
}

/// One look at all lanes, and what follows from it.
pub(crate) async fn look(gateway: &Gateway) {
    let lanes = gateway.lanes();
    let held = lanes.held();
    let asked = match lanes.look_at_all().await {
        Ok(asked) => asked,
        Err(LaneTrouble::Away(_)) => return,
        Err(error) => {
            tracing::warn!(%error, "the lanes cannot be compared with the chain now");
            return;
        }
    };
    for (lane, amount) in asked {
        let provider = gateway.providers().of_vault(lane.config.receiver);
        if let Err(error) = bring_back(gateway, &lane, amount, provider).await {
            tracing::warn!(channel_id = %lane.channel_id, %error, "money in a closed lane cannot be asked back now");
        }
    }
    let back = held.0.saturating_sub(lanes.held().0);
    if back > 0 {
        tracing::info!(back = %MicroUsd(back), "money came back from closed lanes");
    }
}

/// Asks a provider for what is left of a closed lane, and the chain if it gives nothing.
async fn bring_back(
    gateway: &Gateway,
    lane: &Lane,
    amount: MicroUsd,
    provider: Option<Provider>,
) -> Result<(), LaneTrouble> {
    let (id, lanes) = (lane.channel_id, gateway.lanes());
    let mut left = (lane.clone(), amount);
    if let Some(provider) = provider
        && gateway.first_refund(id)
    {
        let asking = refund(gateway.http(), lanes, lane, &provider.endpoint);
        match tokio::time::timeout(gateway.limits().courtesy, asking).await {
            Ok(Ok(())) => {
                left = lanes.look_again(id).await?;
                tracing::info!(channel_id = %id, provider = %provider.address, "a provider gave back what was left");
            }
            Ok(Err(reason)) => {
                tracing::info!(channel_id = %id, provider = %provider.address, reason, "a provider gives nothing back; its delay runs");
            }
            Err(_) => {
                tracing::info!(channel_id = %id, provider = %provider.address, "a provider says nothing to a refund; its delay runs");
                // It may have sent one all the same.
                left = lanes.look_again(id).await?;
            }
        }
    }
    let (lane, amount) = left;
    if amount > MicroUsd::ZERO {
        lanes.ask_back(&lane, amount).await?;
    }
    Ok(())
}

/// The official refund: a voucher for no more than was charged, and the provider gives back the rest. If it says that
/// more was charged, and shows our own voucher for it, that is taken once.
async fn refund(
    http: &reqwest::Client,
    lanes: &Lanes,
    lane: &Lane,
    endpoint: &str,
) -> Result<(), String> {
    let url = format!("{}/v1/completions", endpoint.trim_end_matches('/'));
    for corrections_left in [1, 0] {
        let payload = lanes
            .refund(lane.channel_id, requirements(lanes, lane))
            .map_err(|error| error.to_string())?;
        // The official client asks with a GET of what it bought there.
        let sending = http
            .get(&url)
            .header(x402::PAYMENT_SIGNATURE, x402::encode(&payload));
        let response = sending
            .send()
            .await
            .map_err(|error| format!("it cannot be reached: {}", error.without_url()))?;
        let status = response.status().as_u16();
        if status != 402 || corrections_left == 0 {
            return taken(&response);
        }
        if !corrected(lanes, lane.channel_id, &response).await {
            return Err("it refuses with status 402".into());
        }
    }
    Err("it refuses a corrected refund".into())
}

fn taken(response: &reqwest::Response) -> Result<(), String> {
    let status = response.status().as_u16();
    let said = response.headers().get(x402::PAYMENT_RESPONSE);
    let said = said.and_then(|said| x402::decode::<PaymentResponse>(said.as_bytes()).ok());
    match said {
        Some(said) if said.success && status == 200 => Ok(()),
        _ => Err(format!("it refuses with status {status}")),
    }
}

async fn corrected(lanes: &Lanes, channel_id: B256, response: &reqwest::Response) -> bool {
    let Some(required) = response.headers().get(PAYMENT_REQUIRED) else {
        return false;
    };
    let Ok(required) = x402::decode::<PaymentRequired>(required.as_bytes()) else {
        return false;
    };
    matches!(lanes.correct(channel_id, required).await, Ok(true))
}

/// What the lane was opened under, as the payee would ask for nothing more.
fn requirements(lanes: &Lanes, lane: &Lane) -> PaymentRequirements {
    let (market, config) = (lanes.market(), &lane.config);
    let mut terms = Terms::usual(
        market.channel_domain(),
        market.token_domain(),
        config.receiver,
        config.receiver_authorizer,
    );
    terms.withdraw_delay_s = config.withdraw_delay_s;
    terms.requirements(MicroUsd::ZERO)
}
