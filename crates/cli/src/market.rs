//! A whole market in one process: the embedded chain, its nodes and a gateway, over one model in memory.
//!
//! Everything is found again on the next start: keys, chain, stakes, channels, receipts. Nothing here knows a
//! terminal; `assay up` says what happens.

mod chain;
pub(crate) mod events;
pub(crate) mod file;
mod nodes;
pub(crate) mod plan;

use crate::home::{Home, HomeLock};
use crate::keyring::LocalKeys;
use crate::refusal::refusal;
use anyhow::{Context, Result};
use assay_audit::AuditPolicy;
use assay_chain::Market;
use assay_gateway::{CloudUpstream, GatewayConfig, RunningGateway, StartError};
use assay_model::LoadedModel;
use assay_node::Defended;
use assay_openai::Fallback;
use assay_protocol::{Address, MicroUsd};
pub(crate) use chain::serve as serve_chain;
use file::MarketFile;
use nodes::LocalNode;
pub(crate) use nodes::STAKE;
use plan::NodePlan;
use std::net::SocketAddr;
use std::time::Duration;

/// How often the gateway of a local market tells what was served.
const RECORD_INTERVAL: Duration = Duration::from_secs(5);

/// What to start.
pub(crate) struct MarketPlan {
    pub(crate) nodes: Vec<NodePlan>,
    pub(crate) listen: SocketAddr,
    pub(crate) rpc_listen: SocketAddr,
    pub(crate) threads: usize,
    pub(crate) audit: AuditPolicy,
    /// Whether the gateway takes false answers to the chain.
    pub(crate) disputes: bool,
    pub(crate) clouds: Vec<CloudUpstream>,
}

/// A market that runs until it is stopped.
pub(crate) struct LocalMarket {
    pub(crate) file: MarketFile,
    pub(crate) market: Market,
    pub(crate) payer: assay_protocol::Address,
    /// Whether the contracts were deployed by this start.
    pub(crate) is_new: bool,
    gateway: RunningGateway,
    nodes: Vec<LocalNode>,
    rpc: chain::RpcServer,
    _lock: HomeLock,
}

impl LocalMarket {
    pub(crate) async fn start(
        home: &Home,
        lock: HomeLock,
        model: LoadedModel,
        plan: MarketPlan,
    ) -> Result<Self> {
        let keys = LocalKeys::of(home)?;
        let opened = chain::open(home, &keys).await?;
        let rpc = chain::serve(&opened.chain, plan.rpc_listen).await?;
        let payer = chain::funded_payer(home, &keys, &opened).await?;
        let mut nodes = Vec::new();
        for node in &plan.nodes {
            nodes.push(nodes::start(home, &keys, &opened, &model, node, plan.threads).await?);
        }
        nodes::retire_others(home, &keys, &opened, &nodes).await?;
        let mut config = GatewayConfig::new(
            plan.listen,
            home.gateway(),
            opened.market.clone(),
            payer.clone(),
            vec![model.clone()],
        );
        config.audit = plan.audit;
        config.disputes.open = plan.disputes;
        config.disputes.poll = nodes::POLL;
        config.audit_threads = plan.threads;
        config.fallback = if plan.clouds.is_empty() {
            Fallback::Never
        } else {
            Fallback::Cloud
        };
        config.clouds = plan.clouds;
        config.records.interval = RECORD_INTERVAL;
        let (data_dir, market) = (config.data_dir.clone(), config.market.clone());
        assay_gateway::create_ledgers(&data_dir, &market, payer.address())
            .await
            .context("the gateway has no ledgers")?;
        let gateway = assay_gateway::start(config)
            .await
            .map_err(|error| cannot_start(error, plan.listen))?;
        let file = MarketFile {
            url: format!("http://{}", gateway.addr()),
            rpc_url: rpc.url(),
            model: model.name.clone(),
            process: std::process::id(),
            nodes: nodes.iter().map(LocalNode::entry).collect(),
        };
        file.write(home)?;
        Ok(Self {
            file,
            market: opened.market,
            payer: payer.address(),
            is_new: opened.is_new,
            gateway,
            nodes,
            rpc,
            _lock: lock,
        })
    }

    /// What a node of this market tells of the disputes about its receipts.
    pub(crate) fn disputes_of(&self, provider: &Address) -> Vec<Defended> {
        let node = self.nodes.iter().find(|node| node.address() == *provider);
        node.map(LocalNode::disputes).unwrap_or_default()
    }

    /// Cashes every voucher that a node holds, so that nothing earned is only a promise.
    pub(crate) async fn claim_all(&self) -> Result<()> {
        for node in &self.nodes {
            node.claim().await?;
        }
        Ok(())
    }

    /// Stops in the order of the money: no new questions, then answers and claims, the chain last.
    /// Returns what was claimed on the way.
    pub(crate) async fn stop(self) -> Result<MicroUsd> {
        self.gateway.shutdown().await;
        let mut claimed = MicroUsd::ZERO;
        let mut trouble = None;
        // One node's trouble keeps no other from its money.
        for node in self.nodes {
            match node.stop().await {
                Ok(amount) => claimed = claimed.checked_add(amount)?,
                Err(error) => trouble = Some(error),
            }
        }
        self.rpc.stop().await;
        trouble.map_or(Ok(claimed), Err)
    }
}

fn cannot_start(error: StartError, listen: SocketAddr) -> anyhow::Error {
    match &error {
        StartError::Listen { source, .. } if source.kind() == std::io::ErrorKind::AddrInUse => {
            refusal(
                format!("{listen} is in use by another program"),
                "choose another port with --listen 127.0.0.1:PORT",
            )
        }
        _ => anyhow::Error::new(error).context("cannot start the gateway"),
    }
}
