//! Tells providers what was counted of their service, signed, for the scoreboard; and posts alone what they will not
//! let count, where this gateway is told to pay for that. What is due is `assay_payments::payer`'s to say.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use assay_chain::{ServiceEntry, ServicePost};
use assay_payments::payer::{Lane, Reported};
use assay_protocol::{Address, B256, ServiceRecord, Signed};
use serde::Deserialize;

use crate::gateway::Gateway;
use crate::lanes::LaneTrouble;

/// Records in one request at most.
const BATCH_MAX: usize = 32;
/// The longest answer that is read.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Totals that a provider took, and that the chain does not show, are told again after this.
const AGAIN_S: u64 = 6 * 60 * 60;

/// What a provider answers to records.
#[derive(Debug, Default, Deserialize)]
struct Said {
    taken: Vec<B256>,
    refused: Vec<Refused>,
}

#[derive(Debug, Deserialize)]
struct Refused {
    channel_id: B256,
    reason: String,
}

/// Tells, compares and posts until the gateway stops.
pub(crate) async fn run(gateway: Arc<Gateway>) {
    let stop = gateway.shutdown_token();
    // Intervals are of whole seconds, so looking more often would find nothing.
    let pause = gateway
        .config()
        .records
        .interval
        .max(Duration::from_secs(1));
    loop {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.cancelled() => return,
        }
        let round = async {
            tell_all(&gateway).await;
            compare(&gateway).await;
            if gateway.config().records.post_alone
                && let Err(error) = gateway.post_failures().await
            {
                tracing::warn!(%error, "failures cannot be posted now");
            }
        };
        tokio::select! {
            () = round => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Sends every provider the records that are due.
pub(crate) async fn tell_all(gateway: &Gateway) {
    let interval_s = gateway.config().records.interval.as_secs();
    let due = gateway
        .lanes()
        .records_due(gateway.now(), interval_s, AGAIN_S);
    let mut by_receiver: BTreeMap<Address, Vec<Signed<ServiceRecord>>> = BTreeMap::new();
    for (receiver, record) in due {
        by_receiver.entry(receiver).or_default().push(record);
    }
    for (receiver, records) in by_receiver {
        let endpoint = gateway.providers().of_vault(receiver);
        for batch in records.chunks(BATCH_MAX) {
            let said = match &endpoint {
                Some(provider) => tell(gateway, &provider.endpoint, batch).await,
                None => Err("it is not registered".to_owned()),
            };
            note(gateway, batch, said).await;
        }
    }
}

async fn tell(
    gateway: &Gateway,
    endpoint: &str,
    records: &[Signed<ServiceRecord>],
) -> Result<Said, String> {
    let url = format!("{}/assay/v1/records", endpoint.trim_end_matches('/'));
    let telling = async {
        let sent = gateway.http().post(url).json(records).send().await;
        let mut response = sent.map_err(|error| error.without_url().to_string())?;
        if !response.status().is_success() {
            return Err(format!("status {}", response.status().as_u16()));
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = response
            .chunk()
            .await
            .map_err(|error| error.without_url().to_string())?
        {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > ANSWER_BYTES_MAX {
                return Err("its answer is too long".into());
            }
        }
        serde_json::from_slice(&bytes)
            .map_err(|error| format!("its answer does not parse: {error}"))
    };
    tokio::time::timeout(gateway.limits().courtesy, telling)
        .await
        .map_err(|_| "it does not answer".to_owned())?
}

/// Enters what was said to each record; a record that the answer leaves out was not heard.
async fn note(gateway: &Gateway, records: &[Signed<ServiceRecord>], said: Result<Said, String>) {
    if let Err(reason) = &said {
        tracing::debug!(reason, "records were not heard");
    }
    let said = said.unwrap_or_default();
    for record in records {
        let id = record.body.channel_id;
        let refused = said.refused.iter().find(|refused| refused.channel_id == id);
        let reported = match refused {
            // A stranger's text.
            Some(Refused { reason, .. }) => {
                let printable = reason.chars().filter(|c| !c.is_control());
                Reported::Refused(printable.take(200).collect())
            }
            None if said.taken.contains(&id) => Reported::Taken,
            None => Reported::Unheard,
        };
        let kept = gateway
            .lanes()
            .reported(record.body, reported, gateway.now());
        if let Err(error) = kept.await {
            tracing::error!(%error, "what a provider said to a record cannot be stored");
        }
    }
}

/// Asks the scoreboard which totals it shows of lanes that were told and not seen there yet.
pub(crate) async fn compare(gateway: &Gateway) {
    if gateway.market().deployment().scoreboard.is_zero() {
        return;
    }
    let open = gateway.lanes().all().into_iter();
    for lane in open.filter(|lane| lane.report.unposted_since.is_some()) {
        if gateway.lanes().away.wait().is_some() {
            return;
        }
        if let Err(error) = compare_one(gateway, &lane).await {
            tracing::warn!(channel_id = %lane.channel_id, %error, "the scoreboard cannot be read now");
        }
    }
}

async fn compare_one(gateway: &Gateway, lane: &Lane) -> Result<(), LaneTrouble> {
    let (id, market, lanes) = (lane.channel_id, gateway.market(), gateway.lanes());
    let patience = gateway.limits().chain;
    let asking = market.posted_service(id);
    let hash = lanes.away.ask(patience.answer, asking).await?;
    let known = [lane.report.posted, lane.service, lane.report.taken];
    let record = |service| ServiceRecord {
        channel_id: id,
        service,
    };
    let shown = known
        .into_iter()
        .find(|service| record(*service).struct_hash() == hash);
    let posted = match shown {
        Some(service) => service,
        None if hash == B256::ZERO => Default::default(),
        // Totals from between: rare, and only the events know them.
        None => {
            let searching = market.posted_record(id);
            let found = lanes.away.ask(patience.mined, searching).await?;
            found.map(|record| record.service).unwrap_or_default()
        }
    };
    lanes.posted(id, posted, gateway.now()).await
}

impl Gateway {
    /// Posts failures that their providers have not let count for long, without their signature; the payer pays the gas.
    /// Returns the channels that were reported.
    pub async fn post_failures(&self) -> Result<Vec<B256>, PostError> {
        let market = self.market();
        if market.deployment().scoreboard.is_zero() {
            return Ok(Vec::new());
        }
        let domain = market.deployment().scoreboard_domain();
        compare(self).await;
        let after_s = self.config().records.alone_after.as_secs();
        let mut done = Vec::new();
        for lane in self.lanes().all() {
            let Some((record, previous)) = lane.overdue(self.now(), after_s) else {
                continue;
            };
            let Some(provider) = self.providers().of_vault(lane.config.receiver) else {
                continue;
            };
            let entry = ServiceEntry {
                config: lane.config,
                record: self.payer_key().sign(record, &domain),
                previous,
            };
            let post = ServicePost {
                provider: provider.address,
                entries: vec![entry],
                signature: None,
            };
            market.post_service(self.payer_key(), &post).await?;
            let kept = self
                .lanes()
                .posted(lane.channel_id, record.service, self.now());
            kept.await
                .map_err(|error| PostError::Ledger(error.to_string()))?;
            done.push(lane.channel_id);
        }
        Ok(done)
    }

    /// Sends what is due to providers, and reads what the scoreboard shows, now.
    pub async fn tell_records(&self) {
        tell_all(self).await;
        compare(self).await;
    }
}

/// Why failures cannot be posted.
#[derive(Debug, thiserror::Error)]
pub enum PostError {
    #[error(transparent)]
    Chain(#[from] assay_chain::ChainError),
    #[error("{0}")]
    Ledger(String),
}
