//! Finds providers: the registry says who there is, each node says under its signature what it
//! offers. An offer counts only if the registered offer key signed it and it has not expired.

use std::sync::Arc;
use std::time::Duration;

use assay_protocol::ListedOffer;
use futures::StreamExt as _;

use crate::events::What;
use crate::gateway::Gateway;
use crate::prior::ChainsWord;
use crate::providers::check_offer;

/// Nodes that are asked for their offers at once.
const ASKED_AT_ONCE: usize = 32;
/// The longest list of offers that is read, and the longest wait for it.
const OFFERS_BYTES_MAX: usize = 256 * 1024;
const OFFERS_WAIT: Duration = Duration::from_secs(3);

/// Looks again and again until the gateway stops.
pub(crate) async fn run(gateway: Arc<Gateway>) {
    let stop = gateway.shutdown_token();
    loop {
        look(&gateway).await;
        tokio::select! {
            () = tokio::time::sleep(gateway.limits().discovery) => {}
            () = gateway.look_again() => {}
            () = stop.cancelled() => return,
        }
    }
}

/// One look at the registry and at every node in it.
pub(crate) async fn look(gateway: &Gateway) {
    // Nodes are asked for their offers whether or not the chain answers: an offer lives for minutes only.
    let useful = match registered(gateway).await {
        Some(useful) => useful,
        None => gateway.providers().registered(),
    };
    futures::stream::iter(useful)
        .for_each_concurrent(ASKED_AT_ONCE, |provider| async move {
            let offers = offers(gateway, &provider).await;
            if let Err(trouble) = &offers {
                tracing::debug!(provider = %provider.address, %trouble, "no offers");
            }
            gateway.providers().set_offers(&provider.address, offers);
        })
        .await;
}

/// The registry's word, and the scoreboard's on who is new here; nothing if the chain does not answer.
async fn registered(gateway: &Gateway) -> Option<Vec<assay_chain::Provider>> {
    let away = &gateway.lanes().away;
    if away.wait().is_some() {
        return None;
    }
    let patience = gateway.limits().chain.answer;
    let registered = match away.ask(patience, gateway.market().providers()).await {
        Ok(registered) => registered,
        Err(error) => {
            tracing::warn!(%error, "the registry cannot be read; going on with what is known");
            return None;
        }
    };
    let useful: Vec<_> = registered
        .into_iter()
        .filter(|p| gateway.serves_any(&p.models))
        .collect();
    for fresh in gateway.providers().update(useful.clone()) {
        if let Some(provider) = useful.iter().find(|p| p.address == fresh) {
            let endpoint = provider.endpoint.clone();
            gateway.tell(What::Discovered {
                provider: fresh,
                endpoint,
            });
        }
    }
    scores(gateway).await;
    Some(useful)
}

/// What the scoreboard says of providers that were never used here.
async fn scores(gateway: &Gateway) {
    if gateway.market().deployment().scoreboard.is_zero() {
        return;
    }
    let (away, patience) = (&gateway.lanes().away, gateway.limits().chain.answer);
    let untold = gateway.providers().untold(gateway.limits().score);
    futures::stream::iter(untold)
        .for_each_concurrent(ASKED_AT_ONCE, |provider| async move {
            if away.wait().is_some() {
                return;
            }
            match away.ask(patience, gateway.market().score(provider)).await {
                Ok(score) => {
                    let word = ChainsWord::of(&score);
                    gateway.providers().set_told(&provider, word);
                }
                Err(error) => tracing::warn!(%provider, %error, "a score cannot be read now"),
            }
        })
        .await;
}

async fn offers(
    gateway: &Gateway,
    provider: &assay_chain::Provider,
) -> Result<Vec<ListedOffer>, String> {
    let url = format!(
        "{}/assay/v1/offers",
        provider.endpoint.trim_end_matches('/')
    );
    let reading = async {
        let response = gateway
            .http()
            .get(url)
            .send()
            .await
            .map_err(|error| format!("cannot be reached: {}", error.without_url()))?;
        if !response.status().is_success() {
            return Err(format!(
                "its offers came with status {}",
                response.status().as_u16()
            ));
        }
        let mut bytes = Vec::new();
        let mut stream = response.bytes_stream();
        while let Some(chunk) = stream.next().await {
            bytes.extend_from_slice(&chunk.map_err(|_| "its offers broke off".to_owned())?);
            if bytes.len() > OFFERS_BYTES_MAX {
                return Err("its list of offers is too long".into());
            }
        }
        let listed: Vec<ListedOffer> = serde_json::from_slice(&bytes)
            .map_err(|error| format!("its offers do not parse: {error}"))?;
        Ok(listed)
    };
    let listed = tokio::time::timeout(OFFERS_WAIT, reading)
        .await
        .map_err(|_| "did not send its offers in time".to_owned())??;
    let (domain, now) = (gateway.market().domain(), gateway.now());
    listed
        .into_iter()
        .filter(|listed| gateway.serves_any(&[listed.offer.body.model_id]))
        .map(|listed| {
            check_offer(listed, provider, &domain, now).map_err(|refused| refused.to_string())
        })
        .collect()
}
