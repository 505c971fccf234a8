//! `assay node init|run|status|earnings`: the provider's side alone, on any market.

use crate::ask::Gateway;
use crate::home::Home;
use crate::interrupt;
use crate::keyring::{self, Keyring};
use crate::models;
use crate::narrate;
use crate::network::{self, NetworkArgs};
use crate::output;
use crate::parse;
use crate::refusal::refusal;
use anyhow::{Context, Result};
use assay_chain::Registration;
use assay_node::{DefenceState, Defended, NodeConfig, ServedModel};
use assay_protocol::{B256, MicroUsd, Price};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Make this node's keys and register it with its stake
    Init(InitArgs),
    /// Serve a model and be paid for it
    Run(RunArgs),
    /// Whether a node is well
    Status(AskArgs),
    /// What a node has earned, and where the money is
    Earnings(AskArgs),
}

#[derive(Debug, clap::Args)]
struct InitArgs {
    #[command(flatten)]
    network: NetworkArgs,
    /// What it puts at risk, in dollars
    #[arg(long, value_parser = parse::dollars, default_value = "25", value_name = "DOLLARS")]
    stake: MicroUsd,
    /// Where buyers reach it, as in http://203.0.113.7:9000
    #[arg(long, value_name = "URL")]
    public_url: String,
    /// A model of `assay model list`, or the beginning of its name
    #[arg(long, default_value = models::DEFAULT)]
    model: String,
    /// Mint the stake where the stablecoin is the test dollar
    #[arg(long)]
    mint: bool,
}

#[derive(Debug, clap::Args)]
struct RunArgs {
    #[command(flatten)]
    network: NetworkArgs,
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
    /// Threads that compute [default: all cores]
    #[arg(long)]
    threads: Option<usize>,
}

#[derive(Debug, clap::Args)]
struct AskArgs {
    /// The node's address
    #[arg(long, default_value = "http://127.0.0.1:9000")]
    url: String,
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: Args, home: &Home) -> Result<()> {
    match args.action {
        Action::Init(args) => init(args, home).await,
        Action::Run(args) => serve(args, home).await,
        Action::Status(args) => status(args).await,
        Action::Earnings(args) => earnings(args).await,
    }
}

struct Keys {
    owner: PathBuf,
    offer: PathBuf,
}

fn keys(home: &Home) -> Keys {
    let folder = home.node("own");
    Keys {
        owner: folder.join("owner.json"),
        offer: folder.join("offer.json"),
    }
}

async fn init(args: InitArgs, home: &Home) -> Result<()> {
    home.create()?;
    let keys = keys(home);
    let keyring = Keyring::new(home);
    let owner = keyring.open_or_make(&keys.owner)?;
    let offer = keyring.open_or_make(&keys.offer)?;
    let market = args.network.market(home).await?;
    let model = models::ready(home, &args.model).await?.loaded;
    let models = vec![model.model.id()];
    match market.provider(owner.address()).await? {
        Some(known) => {
            if known.endpoint != args.public_url {
                market.update_endpoint(&owner, &args.public_url).await?;
            }
            if known.models != models {
                market.update_models(&owner, &models).await?;
            }
            println!(
                "{} was registered already, with {} at stake; its entry is up to date",
                owner.address(),
                output::usd(known.stake)
            );
        }
        None => {
            network::funds(&market, &owner, args.stake, args.mint).await?;
            let registration = Registration {
                offer_key: offer.address(),
                payout: owner.address(),
                endpoint: args.public_url.clone(),
                models,
                stake: args.stake,
            };
            market.register(&owner, &registration).await?;
            println!(
                "{} is registered with {} at stake",
                owner.address(),
                output::usd(args.stake)
            );
        }
    }
    println!(
        "owner key  {} (keep it safe; it owns stake and payouts)",
        keys.owner.display()
    );
    println!(
        "offer key  {} (signs offers and receipts; it pays the gas of claims)",
        keys.offer.display()
    );
    println!("next: assay node run");
    Ok(())
}

async fn serve(args: RunArgs, home: &Home) -> Result<()> {
    let keys = keys(home);
    let keyring = Keyring::new(home);
    let not_yet = || refusal("this node has no keys yet", "run `assay node init` first");
    let owner = keyring.open(&keyring::found(&keys.owner).ok_or_else(not_yet)?)?;
    let offer = keyring.open(&keyring::found(&keys.offer).ok_or_else(not_yet)?)?;
    let market = args.network.market(home).await?;
    let loaded = models::ready(home, &args.model).await?.loaded;
    let name = loaded.name.clone();
    let mut config = NodeConfig::new(
        args.listen,
        home.node("own"),
        market.clone(),
        owner.address(),
        offer,
    );
    if let Some(known) = market.provider(owner.address()).await? {
        config.public_url = Some(known.endpoint);
    }
    config.models = vec![ServedModel {
        loaded,
        price: args.price,
    }];
    config.limits.threads = args.threads.unwrap_or_else(crate::judge::threads);
    config.limits.sequences_max = args.concurrency.max(1);
    config.defence.poll = network::poll(&market);
    let node = assay_node::start(config)
        .await
        .context("cannot start the node")?;
    println!(
        "node {} serves {name} at http://{}; ctrl-c stops it",
        owner.address(),
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

fn defence_words(dispute: &Defended) -> String {
    match &dispute.state {
        DefenceState::Playing => format!("defended, {} moves so far", dispute.moves.len()),
        DefenceState::Won { bond } => format!("won, with a bond of {}", output::usd(*bond)),
        DefenceState::Lost => "LOST, and the stake with it".to_owned(),
        DefenceState::Stuck { reason } => format!("NOT DEFENDED: {reason}"),
    }
}

/// A node speaks the same HTTP as a gateway where these commands are concerned.
async fn get(url: &str, path: &str) -> Result<Value> {
    let error = |_| {
        refusal(
            format!("no node answers at {url}"),
            "start one with `assay node run`, or name one with --url",
        )
    };
    Gateway::at(url)?.get(path).await.map_err(error)
}

async fn status(args: AskArgs) -> Result<()> {
    let health = get(&args.url, "/healthz").await?;
    let offers = get(&args.url, "/assay/v1/offers").await?;
    let mut disputes = get(&args.url, "/assay/v1/disputes").await?;
    if args.json {
        return output::print_json(
            &json!({ "health": health, "offers": offers, "disputes": disputes["data"] }),
        );
    }
    let disputes: Vec<Defended> = serde_json::from_value(disputes["data"].take())
        .context("the node's disputes are of unknown shape")?;
    let text = |name: &str| {
        health[name]
            .as_str()
            .map_or_else(|| health[name].to_string(), str::to_owned)
    };
    for name in [
        "status",
        "provider",
        "conduct",
        "models",
        "places_free",
        "answered",
        "output_tokens",
    ] {
        println!("{:<14} {}", name.replace('_', " "), text(name));
    }
    for dispute in &disputes {
        println!(
            "{:<14} {} {}",
            "dispute",
            output::short_hex(&dispute.game),
            defence_words(dispute)
        );
    }
    for offer in offers.as_array().into_iter().flatten() {
        let body = &offer["body"];
        println!(
            "{:<14} {} for {} input, {} output micro-USD per million tokens",
            "offer", body["model_id"], body["price"]["input"], body["price"]["output"]
        );
    }
    Ok(())
}

async fn earnings(args: AskArgs) -> Result<()> {
    let value = get(&args.url, "/assay/v1/earnings").await?;
    if args.json {
        return output::print_json(&value);
    }
    let earned: assay_node::Earnings =
        serde_json::from_value(value).context("the node's earnings are of unknown shape")?;
    let rows = [
        ("charged", earned.charged, "in all, by its ledger"),
        ("unclaimed", earned.unclaimed, "vouchers in hand"),
        (
            "unsettled",
            earned.unsettled,
            "claimed, not yet in the vault",
        ),
        (
            "waiting",
            earned.waiting,
            "in the vault, within the challenge window",
        ),
        (
            "releasable",
            earned.releasable,
            "out of the window, paid with the next release",
        ),
        ("held", earned.held, "held by disputes"),
    ];
    for (name, amount, meaning) in rows {
        println!("{name:<11} {:>12}  {meaning}", output::usd(amount));
    }
    println!(
        "{} answers, {} output tokens since it started",
        earned.requests, earned.output_tokens
    );
    Ok(())
}
