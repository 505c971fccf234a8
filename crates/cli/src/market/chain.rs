//! The chain of a local market: opened or made, its contracts deployed once, its accounts funded with test dollars.
//!
//! Whatever a kill interrupts is done again on the next start; nothing is done twice that costs money.

use crate::deployments;
use crate::home::Home;
use crate::keyring::LocalKeys;
use crate::refusal::{hint, refusal};
use anyhow::{Context, Result};
use assay_chain::{Chain, DeployParams, EmbeddedConfig, Key, Market};
use assay_protocol::{Address, MicroUsd};
use std::net::SocketAddr;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// What the buyer of a local market has to spend when it starts.
const PAYER_FUNDS: MicroUsd = MicroUsd(100_000_000);

pub(crate) struct OpenedChain {
    pub(crate) chain: Chain,
    pub(crate) market: Market,
    /// Deploys, mints and relays on this chain.
    pub(crate) operator: Key,
    pub(crate) is_new: bool,
}

pub(crate) async fn open(home: &Home, keys: &LocalKeys<'_>) -> Result<OpenedChain> {
    let operator = keys.open_or_make(&home.key("operator"))?;
    let chain = Chain::embedded(EmbeddedConfig::at(home.chain_file())).await?;
    let (market, is_new) = match deployments::of_home(home, chain.chain_id())? {
        Some(deployment) => {
            let market = chain.market(deployment).await.map_err(|error| {
                let next = format!(
                    "restore {}, or start a new market in another folder with --data-dir",
                    home.chain_file().display()
                );
                anyhow::Error::new(error).context(hint(
                    "the chain on disk is not the one that deployments.json tells of",
                    next,
                ))
            })?;
            (market, false)
        }
        None => {
            let deployment = chain
                .deploy(&operator, &DeployParams::devnet())
                .await
                .context("cannot deploy the contracts")?;
            deployments::add(home, &deployment)?;
            (chain.market(deployment).await?, true)
        }
    };
    Ok(OpenedChain {
        chain,
        market,
        operator,
        is_new,
    })
}

impl OpenedChain {
    /// Mints what an account lacks of `amount`.
    pub(crate) async fn top_up(&self, account: Address, amount: MicroUsd) -> Result<()> {
        let has = self.market.balance(account).await?;
        if let Ok(lacks) = amount.checked_sub(has)
            && lacks > MicroUsd::ZERO
        {
            self.market
                .mint(&self.operator, account, lacks)
                .await
                .context("cannot mint test dollars")?;
        }
        Ok(())
    }
}

/// The buyer's key, with money to spend.
pub(crate) async fn funded_payer(
    home: &Home,
    keys: &LocalKeys<'_>,
    opened: &OpenedChain,
) -> Result<Key> {
    let payer = keys.open_or_make(&home.key("payer"))?;
    opened.top_up(payer.address(), PAYER_FUNDS).await?;
    Ok(payer)
}

/// The chain's JSON-RPC for other programs, on a loopback port.
pub(crate) struct RpcServer {
    addr: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

pub(crate) async fn serve(chain: &Chain, listen: SocketAddr) -> Result<RpcServer> {
    let embedded = chain
        .as_embedded()
        .context("only the embedded chain can be served")?;
    let router = embedded.router();
    let listener = tokio::net::TcpListener::bind(listen)
        .await
        .map_err(|error| {
            refusal(
                format!("the chain cannot listen on {listen}: {error}"),
                "choose another address with --rpc-listen",
            )
        })?;
    let addr = listener.local_addr()?;
    let stop = CancellationToken::new();
    let stopped = stop.clone().cancelled_owned();
    let task = tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router)
            .with_graceful_shutdown(stopped)
            .await
        {
            tracing::error!(%error, "the chain's JSON-RPC server failed");
        }
    });
    Ok(RpcServer { addr, stop, task })
}

impl RpcServer {
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    pub(crate) async fn stop(self) {
        self.stop.cancel();
        // A client that keeps its connection open shall not keep the program.
        let abort = self.task.abort_handle();
        if tokio::time::timeout(std::time::Duration::from_secs(1), self.task)
            .await
            .is_err()
        {
            abort.abort();
        }
    }
}
