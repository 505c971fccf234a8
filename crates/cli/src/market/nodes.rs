//! The nodes of a local market: each with its own keys, ledger, price and stake, registered on the chain.

use crate::home::Home;
use crate::keyring::{self, LocalKeys};
use crate::market::chain::OpenedChain;
use crate::market::file::NodeEntry;
use crate::market::plan::{Conduct, NodePlan};
use crate::network;
use crate::refusal::refusal;
use anyhow::{Context, Result};
use assay_chain::{Key, Registration};
use assay_model::LoadedModel;
use assay_node::dishonest::{SkipsLayers, Truncates};
use assay_node::{Defended, NodeConfig, ProofConfig, RunningNode, ServedModel};
use assay_protocol::{Address, MicroUsd, MicroUsdPerMillionTokens, StopReason};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// What each node of a local market puts at risk.
pub(crate) const STAKE: MicroUsd = MicroUsd(25_000_000);
/// Answers that one of several nodes on one machine makes at once.
const SEQUENCES_MAX: usize = 4;
/// What a proof costs on top, for a million tokens of prompt and answer.
const PROOF_PRICE: MicroUsdPerMillionTokens = MicroUsdPerMillionTokens(5_000_000);
/// Memory that each of them has for keys and values.
const CACHE_MIB: usize = 256;
/// How often both sides of a dispute look at the chain, which lies in this process.
pub(crate) const POLL: Duration = Duration::from_millis(150);
/// Output tokens after which the truncating cheat stops.
const TRUNCATED_AFTER: u32 = 6;

pub(crate) struct LocalNode {
    plan: NodePlan,
    owner: Key,
    running: RunningNode,
}

pub(crate) async fn start(
    home: &Home,
    keys: &LocalKeys<'_>,
    opened: &OpenedChain,
    model: &LoadedModel,
    plan: &NodePlan,
    threads: usize,
) -> Result<LocalNode> {
    let folder = home.node(&plan.name);
    let owner = keys.open_or_make(&folder.join("owner.json"))?;
    let hot = keys.open_or_make(&folder.join("offer.json"))?;
    let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let mut config = NodeConfig::new(
        any_port,
        folder.clone(),
        opened.market.clone(),
        owner.address(),
        hot.clone(),
    );
    config.models = vec![ServedModel {
        loaded: model.clone(),
        price: plan.price,
    }];
    config.limits.threads = threads;
    config.limits.sequences_max = SEQUENCES_MAX;
    config.limits.cache_mib = CACHE_MIB;
    config.defence.poll = POLL;
    config.defence.threads = threads;
    match plan.conduct {
        // Whoever is honest can prove it; a proof is made only where one is bought.
        Conduct::Honest => {
            let mut proofs = ProofConfig::new(PROOF_PRICE);
            proofs.threads = threads;
            config.proofs = Some(proofs);
        }
        Conduct::SkipsLayers => {
            let layers = model.model.manifest().dims.layers as usize;
            // A few in the middle: cheaper, and still fluent enough that nobody would doubt it by reading.
            let skip = (layers / 2..layers.saturating_sub(2)).step_by(6).collect();
            config.conduct = Arc::new(SkipsLayers { skip });
            // It helps nobody: who doubts it has to ask on the chain.
            config.defence.off_chain = false;
        }
        Conduct::Truncates => {
            config.conduct = Arc::new(Truncates {
                after: TRUNCATED_AFTER,
                claim: StopReason::EndOfText,
            });
        }
    }
    books(opened, &folder, &owner, &hot, plan).await?;
    register(opened, &owner, &hot, model)
        .await
        .with_context(|| format!("cannot register {}", plan.name))?;
    let running = assay_node::start(config)
        .await
        .with_context(|| format!("cannot start {}", plan.name))?;
    let node = LocalNode {
        plan: plan.clone(),
        owner,
        running,
    };
    let known = opened.market.provider(node.address()).await?;
    if known.is_none_or(|known| known.endpoint != node.endpoint()) {
        opened
            .market
            .update_endpoint(&node.owner, &node.endpoint())
            .await?;
    }
    Ok(node)
}

/// A node that was never registered gets its books first, so that no crash leaves it registered without them; one that
/// was must have them.
async fn books(
    opened: &OpenedChain,
    folder: &Path,
    owner: &Key,
    hot: &Key,
    plan: &NodePlan,
) -> Result<()> {
    let ledger = assay_node::ledger_path(folder);
    if ledger.exists() {
        return Ok(());
    }
    if opened.market.provider(owner.address()).await?.is_some() {
        return Err(refusal(
            format!(
                "{} is registered, and its ledger {} is missing",
                plan.name,
                ledger.display()
            ),
            "restore it from a backup, or start a new market with another --data-dir",
        ));
    }
    network::new_books(folder, &opened.market, owner.address(), hot).await
}

/// Brings the registry's entry to what runs here, but for the port, which is known once the node listens.
async fn register(opened: &OpenedChain, owner: &Key, hot: &Key, model: &LoadedModel) -> Result<()> {
    let market = &opened.market;
    let models = vec![model.model.id()];
    let Some(known) = market.provider(owner.address()).await? else {
        opened.top_up(owner.address(), STAKE).await?;
        let registration = Registration {
            offer_key: hot.address(),
            payout: owner.address(),
            endpoint: "http://127.0.0.1:0".to_owned(),
            models,
            stake: STAKE,
        };
        market.register(owner, &registration).await?;
        return Ok(());
    };
    if known.models != models {
        market.update_models(owner, &models).await?;
    }
    if known.offer_key != hot.address() {
        market.rotate_offer_key(owner, hot.address()).await?;
    }
    Ok(())
}

/// Nodes of an earlier start that this one does not run serve nothing any more.
pub(crate) async fn retire_others(
    home: &Home,
    keys: &LocalKeys<'_>,
    opened: &OpenedChain,
    running: &[LocalNode],
) -> Result<()> {
    let Ok(folders) = std::fs::read_dir(home.nodes()) else {
        return Ok(());
    };
    for folder in folders.flatten() {
        let runs = |node: &LocalNode| folder.file_name().to_str() == Some(&node.plan.name);
        if running.iter().any(runs) {
            continue;
        }
        let owner = keyring::found(&folder.path().join("owner.json"));
        let Some(owner) = owner.and_then(|path| keys.own(&path)) else {
            continue;
        };
        let serves = opened
            .market
            .provider(owner.address())
            .await?
            .is_some_and(|known| !known.models.is_empty());
        if serves {
            opened.market.update_models(&owner, &[]).await?;
        }
    }
    Ok(())
}

impl LocalNode {
    fn endpoint(&self) -> String {
        format!("http://{}", self.running.addr())
    }

    pub(crate) fn entry(&self) -> NodeEntry {
        NodeEntry {
            name: self.plan.name.clone(),
            address: self.owner.address(),
            endpoint: self.endpoint(),
            price: self.plan.price,
            conduct: self.plan.conduct,
        }
    }

    pub(crate) fn address(&self) -> Address {
        self.owner.address()
    }

    pub(crate) fn disputes(&self) -> Vec<Defended> {
        self.running.disputes()
    }

    pub(crate) async fn claim(&self) -> Result<()> {
        let claimed = self.running.claim_now().await;
        claimed.map_err(|error| anyhow::anyhow!("{} cannot claim: {error}", self.plan.name))?;
        Ok(())
    }

    /// Lets running answers end and cashes the vouchers; returns what they were worth.
    pub(crate) async fn stop(self) -> Result<MicroUsd> {
        let report = self.running.shutdown().await;
        match report.claim_error {
            None => Ok(report.claimed),
            Some(error) => anyhow::bail!(
                "{} could not claim: {error}; the next start does",
                self.plan.name
            ),
        }
    }
}
