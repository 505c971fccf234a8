//! A market on a chain of its own, for programs that join one: `node run`, `gateway run`, `chain status`.
//!
//! Named by an RPC address and the deployment's file; without them, the market that runs in the data folder is meant.

use crate::home::Home;
use crate::market::file::MarketFile;
use crate::refusal::refusal;
use anyhow::{Context, Result};
use assay_chain::{Chain, Deployment, Key, Market};
use assay_protocol::{Address, MicroUsd};
use std::path::PathBuf;
use std::time::Duration;

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct NetworkArgs {
    /// A chain's JSON-RPC [default: the chain of the market that runs in the data folder]
    #[arg(long, env = "ASSAY_RPC_URL", value_name = "URL")]
    rpc_url: Option<String>,

    /// The file that `assay chain deploy` wrote [default: deployment.json of the data folder]
    #[arg(long, env = "ASSAY_DEPLOYMENT", value_name = "FILE")]
    deployment: Option<PathBuf>,
}

impl NetworkArgs {
    pub(crate) async fn chain(&self, home: &Home) -> Result<Chain> {
        let from_file = || MarketFile::read(home).map(|market| market.rpc_url);
        let Some(url) = self.rpc_url.clone().or_else(from_file) else {
            return Err(refusal(
                "no chain is known",
                "name one with --rpc-url, or start a market with `assay up`",
            ));
        };
        Chain::connect(&url).await.map_err(|error| {
            let what = format!("no chain answers at {url}: {error}");
            refusal(what, "check --rpc-url, or start a market with `assay up`")
        })
    }

    pub(crate) async fn market(&self, home: &Home) -> Result<Market> {
        let chain = self.chain(home).await?;
        let path = self.deployment.clone().unwrap_or_else(|| home.deployment());
        let bytes = std::fs::read(&path).map_err(|error| {
            let what = format!("cannot read the deployment {}: {error}", path.display());
            refusal(
                what,
                "name the file with --deployment, or make one with `assay chain deploy`",
            )
        })?;
        let deployment: Deployment = serde_json::from_slice(&bytes)
            .with_context(|| format!("{} is no deployment", path.display()))?;
        Ok(chain.market(deployment).await?)
    }
}

/// How often a side of a dispute looks at the chain: several times within a response, and no more than a public node
/// bears.
pub(crate) fn poll(market: &Market) -> Duration {
    let response_s = u64::from(market.deployment().response_s);
    Duration::from_secs((response_s / 20).clamp(1, 60))
}

/// Sees to it that an account holds `amount`: by minting where the stablecoin is the test dollar, else by refusing.
pub(crate) async fn funds(
    market: &Market,
    account: &Key,
    amount: MicroUsd,
    mint: bool,
) -> Result<()> {
    let has = market.balance(account.address()).await?;
    let Ok(lacks) = amount.checked_sub(has) else {
        return Ok(());
    };
    if lacks == MicroUsd::ZERO {
        return Ok(());
    }
    if !mint {
        return Err(lacking(account.address(), has, amount));
    }
    market
        .mint(account, account.address(), lacks)
        .await
        .context("cannot mint; only the test dollar allows it")?;
    Ok(())
}

fn lacking(account: Address, has: MicroUsd, wants: MicroUsd) -> anyhow::Error {
    let usd = crate::output::usd;
    refusal(
        format!(
            "account {account} holds {}, {} are needed",
            usd(has),
            usd(wants)
        ),
        "send it stablecoins, or add --mint where the stablecoin is the test dollar",
    )
}
