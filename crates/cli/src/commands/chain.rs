//! `assay chain status|deploy|serve`: the shared state of a market, here or on any EVM network.

use crate::home::Home;
use crate::interrupt;
use crate::keyring::Keyring;
use crate::live::provider_name;
use crate::network::NetworkArgs;
use crate::output::{self, Table};
use crate::refusal::refusal;
use anyhow::{Context, Result};
use assay_chain::{Chain, DeployParams, EmbeddedConfig, Key};
use assay_protocol::{Address, MicroUsd};
use serde_json::json;
use std::net::SocketAddr;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Contracts, providers and what they have on the way
    Status {
        #[command(flatten)]
        network: NetworkArgs,
        #[arg(long)]
        json: bool,
    },
    /// Deploy a market's contracts; the file that this writes is what nodes and gateways need
    Deploy {
        /// The chain's JSON-RPC
        #[arg(long, env = "ASSAY_RPC_URL", value_name = "URL")]
        rpc_url: String,
        /// The deployer's key, which pays the gas; made if it is not there
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
        /// The stablecoin, with EIP-3009; without one a test dollar is deployed
        #[arg(long, value_name = "ADDRESS")]
        token: Option<Address>,
        /// The least stake of a provider, in dollars
        #[arg(long, value_parser = crate::parse::dollars, default_value = "10")]
        min_stake: MicroUsd,
        /// The clocks of a real network instead of a development chain's
        #[arg(long, requires = "token")]
        real_clocks: bool,
        /// Where to write the deployment [default: where node and gateway of this data folder look for it]
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Serve an embedded chain to nodes and gateways of this machine
    Serve {
        /// Its JSON-RPC; it asks nobody who they are, so keep it on loopback
        #[arg(long, default_value = "127.0.0.1:8545", value_name = "ADDR:PORT")]
        listen: SocketAddr,
    },
}

pub(crate) async fn run(args: Args, home: &Home) -> Result<()> {
    match args.action {
        Action::Status { network, json } => status(home, &network, json).await,
        Action::Deploy {
            rpc_url,
            key,
            token,
            min_stake,
            real_clocks,
            out,
        } => {
            let key = key.unwrap_or_else(|| home.key("deployer"));
            let mut params = match token {
                Some(token) if real_clocks => DeployParams::network(token, min_stake),
                _ => DeployParams {
                    token,
                    ..DeployParams::devnet()
                },
            };
            params.min_stake = min_stake;
            let out = out.unwrap_or_else(|| home.deployment());
            deploy(
                &rpc_url,
                &Keyring::new(home).open_or_make(&key)?,
                params,
                out,
            )
            .await
        }
        Action::Serve { listen } => serve(home, listen).await,
    }
}

async fn status(home: &Home, network: &NetworkArgs, json: bool) -> Result<()> {
    let market = network.market(home).await?;
    let block = market.chain().block_number().await?;
    let deployment = market.deployment();
    let providers = market.providers().await?;
    let mut rows = Vec::new();
    let mut table = Table::new(&[
        "provider",
        "stake",
        "unsettled",
        "in its window",
        "releasable",
        "held",
        "at",
    ]);
    for provider in &providers {
        let payout = market.pending_payout(provider.address).await?;
        table.row([
            provider_name(home, &provider.address),
            output::usd(provider.stake),
            output::usd(payout.unsettled),
            output::usd(payout.waiting),
            output::usd(payout.releasable),
            output::usd(payout.held),
            provider.endpoint.clone(),
        ]);
        rows.push(json!({
            "address": provider.address,
            "vault": provider.vault,
            "offer_key": provider.offer_key,
            "endpoint": provider.endpoint,
            "models": provider.models,
            "stake": provider.stake,
            "unsettled": payout.unsettled,
            "waiting": payout.waiting,
            "releasable": payout.releasable,
            "held": payout.held,
        }));
    }
    if json {
        return output::print_json(&json!({
            "chain_id": deployment.chain_id, "block": block, "deployment": deployment, "providers": rows,
        }));
    }
    println!("chain     {} at block {block}", deployment.chain_id);
    println!("dollar    {} ({})", deployment.token, deployment.token_name);
    println!("channels  {}", deployment.channels);
    println!("registry  {}", deployment.registry);
    println!(
        "window    {} s in which an answer can be challenged",
        deployment.challenge_window_s
    );
    if deployment.dispute_game.is_zero() {
        println!("disputes  none: this market was deployed before there were any\n");
    } else {
        println!(
            "disputes  {}: a bond of {}, {} s to respond, {} s of extension in all\n",
            deployment.dispute_game,
            output::usd(deployment.bond),
            deployment.response_s,
            deployment.extension_s
        );
    }
    print!("{}", table.render(""));
    Ok(())
}

async fn deploy(rpc_url: &str, key: &Key, params: DeployParams, out: PathBuf) -> Result<()> {
    if out.exists() {
        let next = "choose another file with --out, or move this one away";
        return Err(refusal(format!("{} is there already", out.display()), next));
    }
    let chain = Chain::connect(rpc_url).await?;
    println!(
        "deploying from {} to chain {} …",
        key.address(),
        chain.chain_id()
    );
    let deployment = chain.deploy(key, &params).await.with_context(|| {
        refusal(
            "the contracts cannot be deployed",
            format!("see that {} can pay the gas", key.address()),
        )
    })?;
    if let Some(folder) = out.parent() {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
    }
    std::fs::write(&out, serde_json::to_string_pretty(&deployment)?)
        .with_context(|| format!("cannot write {}", out.display()))?;
    println!("registry  {}", deployment.registry);
    println!("channels  {}", deployment.channels);
    println!("dollar    {}", deployment.token);
    println!(
        "{} names them all; nodes and gateways take it with --deployment",
        out.display()
    );
    Ok(())
}

async fn serve(home: &Home, listen: SocketAddr) -> Result<()> {
    let _lock = home.lock()?;
    let chain = Chain::embedded(EmbeddedConfig::at(home.chain_file())).await?;
    let server = crate::market::serve_chain(&chain, listen).await?;
    println!(
        "chain {} at {}; ctrl-c stops it",
        chain.chain_id(),
        server.url()
    );
    if !home.deployment().is_file() {
        println!(
            "it has no market yet: assay chain deploy --rpc-url {}",
            server.url()
        );
    }
    interrupt::asked().await;
    server.stop().await;
    Ok(())
}
