//! `assay chain …`: the shared state of a market, here or on any EVM network.

mod check;
mod deploy;
mod relay;
mod status;

use crate::home::Home;
use crate::network::NetworkArgs;
use crate::output::{self, Table};
use crate::{deployments, interrupt, network};
use anyhow::Result;
use assay_chain::networks::{self, Network};
use assay_chain::{Chain, EmbeddedConfig};
use assay_protocol::MicroUsd;
use std::net::SocketAddr;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Contracts, providers, how they served, and what they have on the way
    Status {
        #[command(flatten)]
        network: NetworkArgs,
        #[arg(long)]
        json: bool,
    },
    /// Networks that are known here: stablecoin, confirmations, price of gas' coin
    Networks {
        #[arg(long)]
        json: bool,
    },
    /// Deploy a market's contracts, after saying what it costs; what this writes is what nodes and gateways need
    Deploy(deploy::DeployArgs),
    /// Bring a node's signed claims to the chain with your own gas; the money can only go to the node's vault
    Relay(relay::RelayArgs),
    /// Compare the code at every address with this program's, and the contracts with each other
    Verify(check::VerifyArgs),
    /// What each move of a market costs in gas, measured now on a chain in memory
    Gas(check::GasArgs),
    /// Serve an embedded chain to nodes and gateways of this machine
    Serve {
        /// Its JSON-RPC; it asks nobody who they are, so keep it on loopback
        #[arg(long, default_value = "127.0.0.1:8545", value_name = "ADDR:PORT")]
        listen: SocketAddr,
    },
}

pub(crate) async fn run(args: Args, home: &Home) -> Result<()> {
    match args.action {
        Action::Status { network, json } => status::run(home, &network, json).await,
        Action::Networks { json } => list(json),
        Action::Deploy(args) => deploy::run(args, home).await,
        Action::Relay(args) => relay::run(args, home).await,
        Action::Verify(args) => check::verify(args, home).await,
        Action::Gas(args) => check::gas(args).await,
        Action::Serve { listen } => serve(home, listen).await,
    }
}

fn list(json: bool) -> Result<()> {
    if json {
        return output::print_json(&networks::all());
    }
    let mut table = Table::new(&[
        "network",
        "chain",
        "stablecoin",
        "confirmations",
        "coin",
        "ERC-8004",
        "market",
    ]);
    for known in networks::all() {
        let token = known.token.as_ref();
        let yes = |there: bool| if there { "yes" } else { "-" }.to_owned();
        table.row([
            network::handle(known),
            known.chain_id.to_string(),
            token.map_or("a test dollar".to_owned(), |t| t.address.to_string()),
            known.confirmations.to_string(),
            coin(known),
            yes(known.erc8004.is_some()),
            yes(known.market.is_some()),
        ]);
    }
    print!("{}", table.render(""));
    println!("\ncoins' prices are assumptions: say better with --coin-price");
    Ok(())
}

fn coin(known: &Network) -> String {
    match known.coin_price_micro_usd {
        0 => format!("{}, worth nothing", known.coin),
        price => format!("{} at {}", known.coin, output::usd(MicroUsd(price))),
    }
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
    if deployments::of_home(home, chain.chain_id())?.is_none() {
        println!(
            "it has no market yet: assay chain deploy --rpc-url {}",
            server.url()
        );
    }
    interrupt::asked().await;
    server.stop().await;
    Ok(())
}
