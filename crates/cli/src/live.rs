//! Where a command gets its data: from the running gateway over HTTP, or from the ledger on disk when none runs.
//!
//! A ledger has one owner at a time, so a running gateway is always asked first.

use crate::ask::Gateway;
use crate::home::Home;
use crate::market::file::MarketFile;
use anyhow::{Context, Result};
use assay_audit::Evidence;
use assay_gateway::{Entry, Store};
use assay_protocol::{Address, B256, Timestamp};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub(crate) const DEFAULT_URL: &str = "http://127.0.0.1:8080";

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct UrlArgs {
    /// The gateway's address [default: the market of the data folder, else http://127.0.0.1:8080]
    #[arg(long, env = "ASSAY_URL")]
    url: Option<String>,
}

impl UrlArgs {
    pub(crate) fn gateway(&self, home: &Home) -> Result<Gateway> {
        let from_file = || MarketFile::read(home).map(|market| market.url);
        let url = self
            .url
            .clone()
            .or_else(from_file)
            .unwrap_or_else(|| DEFAULT_URL.to_owned());
        Gateway::at(&url)
    }
}

/// Answers and their evidence, wherever they are.
pub(crate) enum Answers {
    Live(Gateway),
    OnDisk(Box<Store>),
}

impl Answers {
    pub(crate) async fn open(home: &Home, url: &UrlArgs) -> Result<Self> {
        let gateway = url.gateway(home)?;
        let alive = gateway
            .get_within("/assay/v1/status", Duration::from_secs(5))
            .await;
        let trouble = match alive {
            Ok(_) => return Ok(Self::Live(gateway)),
            Err(error) => error,
        };
        let ledger = home.gateway_ledger();
        // A gateway that was named by hand is the one that is meant.
        if url.url.is_some() || !ledger.is_file() {
            return Err(trouble);
        }
        let store =
            Store::open(&ledger).context("no gateway answers, and its ledger cannot be read")?;
        Ok(Self::OnDisk(Box::new(store)))
    }

    pub(crate) async fn newest(&self, most: usize) -> Result<Vec<Entry>> {
        match self {
            Self::Live(gateway) => {
                let mut list = gateway
                    .get(&format!("/assay/v1/receipts?limit={most}"))
                    .await?;
                serde_json::from_value(list["data"].take())
                    .context("the gateway's list is of unknown shape")
            }
            Self::OnDisk(store) => Ok(store.newest(most)?),
        }
    }

    /// The evidence behind a receipt, by its id or by the beginning of it.
    pub(crate) async fn evidence(&self, id: &str) -> Result<Evidence> {
        let id = self.full_id(id).await?;
        match self {
            Self::Live(gateway) => {
                let value = gateway.get(&format!("/assay/v1/receipts/{id}")).await?;
                serde_json::from_value(value).context("the gateway's evidence is of unknown shape")
            }
            Self::OnDisk(store) => store
                .evidence(&id)?
                .ok_or_else(|| no_such_receipt(&id.to_string())),
        }
    }

    /// The proof of an answer, where one was bought and holds.
    pub(crate) async fn proof(&self, id: &B256) -> Result<Vec<u8>> {
        match self {
            Self::Live(gateway) => {
                let path = format!("/v1/receipts/{id}/proof");
                match gateway.bytes(&path, assay_proof::Proof::BYTES_MAX).await? {
                    Some(bytes) => Ok(bytes),
                    None => Err(no_proof_yet(id)),
                }
            }
            Self::OnDisk(store) => store.proof(id)?.ok_or_else(|| no_proof_yet(id)),
        }
    }

    /// Resolves `0x1234abcd` or `1234abcd` to the one answer that begins so.
    pub(crate) async fn full_id(&self, id: &str) -> Result<B256> {
        let wanted = format!("0x{}", id.trim_start_matches("0x").to_ascii_lowercase());
        if let Ok(id) = wanted.parse() {
            return Ok(id);
        }
        const SEARCHED: usize = 10_000;
        let entries = self.newest(SEARCHED).await?;
        let mut fits = entries
            .iter()
            .map(Entry::id)
            .filter(|id| id.to_string().starts_with(&wanted));
        match (fits.next(), fits.next()) {
            (Some(id), None) => Ok(id),
            (Some(_), Some(_)) => Err(crate::refusal::refusal(
                format!("several receipts begin with {wanted}"),
                "write more of the id",
            )),
            (None, _) => Err(no_such_receipt(&wanted)),
        }
    }
}

fn no_proof_yet(id: &B256) -> anyhow::Error {
    crate::refusal::refusal(
        format!("there is no proof of receipt {id} here yet"),
        "see `assay receipt show ID`, or make one with `assay prove ID`",
    )
}

fn no_such_receipt(id: &str) -> anyhow::Error {
    crate::refusal::refusal(
        format!("there is no receipt {id}"),
        "see `assay receipt list`",
    )
}

/// This machine's clock.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    Timestamp(since.map_or(0, |since| since.as_secs()))
}

/// A node's name in the local market, or its address.
pub(crate) fn provider_name(home: &Home, provider: &Address) -> String {
    MarketFile::read(home)
        .and_then(|market| market.name_of(provider).map(str::to_owned))
        .unwrap_or_else(|| crate::output::short_address(provider))
}
