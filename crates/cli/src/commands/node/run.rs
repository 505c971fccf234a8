//! `assay node run`: serves a model, claims what it earned, defends its receipts. Needs the offer key alone.

use super::{own_offer_key, provider};
use crate::home::Home;
use crate::keyring::Keyring;
use crate::network::{self, DepthArgs, NetworkArgs};
use crate::refusal::refusal;
use crate::{interrupt, models, narrate, output, parse};
use anyhow::{Context, Result};
use assay_audit::PartsPerMillion;
use assay_node::{DefenceState, Defended, NodeConfig, ProofConfig, ServedModel};
use assay_protocol::{B256, MicroUsd, MicroUsdPerMillionTokens, Price};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

#[derive(Debug, clap::Args)]
pub(super) struct RunArgs {
    #[command(flatten)]
    network: NetworkArgs,
    #[command(flatten)]
    depth: DepthArgs,
    /// Where it listens
    #[arg(long, default_value = "127.0.0.1:9000", value_name = "ADDR:PORT")]
    listen: SocketAddr,
    /// A model of `assay model list`, or the beginning of its name
    #[arg(long, default_value = models::DEFAULT)]
    model: String,
    /// What it asks, in dollars per million tokens of input and output
    #[arg(long, value_parser = parse::price_pair, default_value = "0.02/0.06", value_name = "IN/OUT")]
    price: Price,
    /// Answers that it makes at once
    #[arg(long, default_value_t = 8)]
    concurrency: usize,
    /// The part of what is claimed that gas may cost
    #[arg(long, value_parser = parse::share, default_value = "2%", value_name = "PERCENT")]
    gas_share: PartsPerMillion,
    /// What a coin for gas costs, in dollars [default: what is assumed of the network, see `assay chain networks`]
    #[arg(long, value_parser = parse::dollars, value_name = "DOLLARS")]
    coin_price: Option<MicroUsd>,
    /// Threads that compute [default: all cores]
    #[arg(long)]
    threads: Option<usize>,
    /// Keeps each of them on a core of its own: for a machine that does little else
    #[arg(long)]
    pin: bool,
    /// Memory for what answers under way and kept prompts need, in MiB; also bounds the longest context
    #[arg(long, default_value_t = 1024, value_name = "MIB")]
    cache_mib: usize,
    /// Runs every prompt from its start, even one that begins like an earlier one of the same payer
    #[arg(long)]
    no_prefix_cache: bool,
    /// Makes every token by itself, where several could be guessed and checked at once
    #[arg(long)]
    no_speculation: bool,
    #[command(flatten)]
    proofs: ProofArgs,
}

/// Proofs of answers, for who asks and pays for one.
#[derive(Debug, clap::Args)]
struct ProofArgs {
    /// Offers proofs, for so many dollars per million tokens of prompt and answer on top
    #[arg(long, value_parser = parse::price, value_name = "DOLLARS")]
    proof_price: Option<MicroUsdPerMillionTokens>,
    /// The longest prompt and answer together that it proves; the memory of a proof grows with it
    #[arg(
        long,
        default_value_t = 256,
        requires = "proof_price",
        value_name = "TOKENS"
    )]
    proof_tokens: u32,
    /// Seconds from an answer to its proof that it promises; long enough for those that wait before it
    #[arg(
        long,
        default_value_t = 3_600,
        requires = "proof_price",
        value_name = "SECONDS"
    )]
    proof_delay: u64,
    /// Proofs that may wait; one is made at a time
    #[arg(
        long,
        default_value_t = 8,
        requires = "proof_price",
        value_name = "COUNT"
    )]
    proof_queue: usize,
    /// Threads that prove, beside those that serve [default: all cores]
    #[arg(long, requires = "proof_price", value_name = "THREADS")]
    proof_threads: Option<usize>,
}

impl ProofArgs {
    fn config(&self) -> Option<ProofConfig> {
        let mut proofs = ProofConfig::new(self.proof_price?);
        proofs.tokens_max = self.proof_tokens;
        proofs.delay = Duration::from_secs(self.proof_delay);
        proofs.queue_max = self.proof_queue;
        if let Some(threads) = self.proof_threads {
            proofs.threads = threads.max(1);
        }
        Some(proofs)
    }
}

pub(super) async fn serve(args: RunArgs, home: &Home) -> Result<()> {
    let keyring = Keyring::new(home);
    let offer = keyring.open(&own_offer_key(home)?)?;
    let provider = provider(home)?;
    let market = args.network.market_at(home, args.depth).await?;
    keyring.check_fit(&market)?;
    let loaded = models::ready(home, &args.model).await?.loaded;
    let name = loaded.name.clone();
    let mut config = NodeConfig::new(
        args.listen,
        home.node("own"),
        market.clone(),
        provider,
        offer,
    );
    if let Some(known) = market.provider(provider).await? {
        config.public_url = Some(known.endpoint);
    }
    config.models = vec![ServedModel {
        loaded,
        price: args.price,
    }];
    config.claims.policy.gas_share_ppm = args.gas_share.0;
    config.claims.coin_price = args.coin_price;
    config.limits.threads = args.threads.unwrap_or_else(crate::judge::threads);
    config.limits.pin = args.pin;
    config.limits.cache_mib = args.cache_mib;
    config.limits.share_prefixes = !args.no_prefix_cache;
    config.limits.speculate = !args.no_speculation;
    config.limits.sequences_max = args.concurrency.max(1);
    config.defence.poll = network::poll(&market);
    config.proofs = args.proofs.config();
    let node = assay_node::start(config)
        .await
        .context("cannot start the node")?;
    println!(
        "node {} serves {name} at http://{}; ctrl-c stops it",
        provider,
        node.addr()
    );
    tokio::select! {
        () = interrupt::asked() => {}
        () = tell_disputes(&node) => {}
    }
    println!("stopping: answers end, vouchers are claimed …");
    let report = node.shutdown().await;
    if let Some(error) = report.claim_error {
        return Err(refusal(
            format!("not everything could be claimed: {error}"),
            "nothing is lost: the next start claims it",
        ));
    }
    println!(
        "stopped; {} claimed on the way out",
        output::usd(report.claimed)
    );
    Ok(())
}

/// Says how disputes about this node's receipts go, for as long as it runs.
async fn tell_disputes(node: &assay_node::RunningNode) {
    let mut told: BTreeMap<B256, (usize, DefenceState)> = BTreeMap::new();
    let mut look = tokio::time::interval(Duration::from_secs(1));
    loop {
        look.tick().await;
        for dispute in node.disputes() {
            let name = output::short_hex(&dispute.game);
            if !told.contains_key(&dispute.game) {
                println!(
                    "dispute {name}: receipt {} is doubted; this node defends it",
                    output::short_hex(&dispute.request_id)
                );
            }
            let before = told.get(&dispute.game).map_or(0, |(moves, _)| *moves);
            for played in dispute.moves.iter().skip(before) {
                let who = if played.ours { "we" } else { "challenger" };
                println!("dispute {name}: {}", narrate::line(who, played));
            }
            let fresh = (dispute.moves.len(), dispute.state.clone());
            let before = told.insert(dispute.game, fresh);
            if before.is_none_or(|(_, state)| state != dispute.state) {
                println!("dispute {name}: {}", defence_words(&dispute));
            }
        }
    }
}

pub(super) fn defence_words(dispute: &Defended) -> String {
    match &dispute.state {
        DefenceState::Playing => format!("defended, {} moves so far", dispute.moves.len()),
        DefenceState::Won { bond } => format!("won, with a bond of {}", output::usd(*bond)),
        DefenceState::Lost => "LOST, and the stake with it".to_owned(),
        DefenceState::Stuck { reason } => format!("NOT DEFENDED: {reason}"),
    }
}
