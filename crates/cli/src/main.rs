//! The program `assay`: reads arguments and the environment, calls one command, and says what went wrong.
//!
//! It decides nothing about money or truth. One module of `commands` is one command.

mod ask;
mod bench;
mod commands;
mod demo;
mod deployments;
mod files;
mod home;
mod interrupt;
mod judge;
mod keyring;
mod live;
mod market;
mod models;
mod narrate;
mod network;
mod output;
mod parse;
mod progress;
mod proof_file;
mod refusal;
mod sse;
mod tell;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use std::io::IsTerminal;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

/// An inference market in which every answer can be checked.
#[derive(Debug, Parser)]
#[command(
    name = "assay",
    version,
    propagate_version = true,
    arg_required_else_help = true
)]
struct Cli {
    #[command(flatten)]
    home: home::HomeArgs,

    /// Log filter, as in `info,assay_node=debug`
    #[arg(long, global = true, env = "ASSAY_LOG", default_value = QUIET, value_name = "FILTER")]
    log: String,

    #[command(subcommand)]
    command: Command,
}

/// Warnings, but for those that `assay up` and `assay node run` put into words themselves: who cheats on purpose, and how
/// disputes go.
const QUIET: &str = "warn,assay_node::server=error,assay_node::defence=off";

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a whole local market: a chain, nodes and a gateway that speaks OpenAI
    Up(commands::up::Args),
    /// Talk to the market: answers stream, with who served them and what they cost
    Chat(commands::chat::Args),
    /// What was bought, from whom, for how much, and whether it holds
    Receipt(commands::receipt::Args),
    /// Run the model again on an answer and say whether it is the model's own
    Audit(commands::audit::Args),
    /// Prove an answer: a file that shows it to be the model's own, to whoever has the model
    Prove(commands::prove::Args),
    /// Check a proof
    Verify(commands::verify::Args),
    /// Disputes on the chain: see them, open one, play it by hand
    Dispute(commands::dispute::Args),
    /// Be a watchtower: re-execute receipts, convict what is false, collect the bounties
    Watch(commands::watch::Args),
    /// Models on this machine: pull, import, list, show, bench
    Model(commands::model::Args),
    /// Be a provider: serve a model and be paid for it
    Node(commands::node::Args),
    /// Be a consumer: buy from any market's nodes
    Gateway(commands::gateway::Args),
    /// Your keys, each an encrypted file: make, import, list
    Key(commands::key::Args),
    /// The shared state: contracts, providers, payouts
    Chain(commands::chain::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}", refusal::report(&error));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<()> {
    let filter = EnvFilter::try_new(&cli.log).map_err(|error| {
        refusal::refusal(format!("--log: {error}"), "write for example --log info")
    })?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    // TLS is rustls with ring; an already installed provider is the same one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let home = cli.home.resolve()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        match cli.command {
            Command::Up(args) => commands::up::run(args, &home).await,
            Command::Chat(args) => commands::chat::run(args, &home).await,
            Command::Receipt(args) => commands::receipt::run(args, &home).await,
            Command::Audit(args) => commands::audit::run(args, &home).await,
            Command::Prove(args) => commands::prove::run(args, &home).await,
            Command::Verify(args) => commands::verify::run(args, &home).await,
            Command::Dispute(args) => commands::dispute::run(args, &home).await,
            Command::Watch(args) => commands::watch::run(args, &home).await,
            Command::Model(args) => commands::model::run(args, &home).await,
            Command::Node(args) => commands::node::run(args, &home).await,
            Command::Gateway(args) => commands::gateway::run(args, &home).await,
            Command::Key(args) => commands::key::run(args, &home),
            Command::Chain(args) => commands::chain::run(args, &home).await,
        }
    })
}
