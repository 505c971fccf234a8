//! The program `assay`: reads arguments and the environment, calls one command, and says what went wrong.
//!
//! It decides nothing about money or truth. One module of `commands` is one command.

mod ask;
mod commands;
mod home;
mod output;
mod progress;
mod refusal;
mod sse;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
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
    #[arg(
        long,
        global = true,
        env = "ASSAY_LOG",
        default_value = "warn",
        value_name = "FILTER"
    )]
    log: String,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Talk to the market: answers stream, with who served them and what they cost
    Chat(commands::chat::Args),
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
        .init();
    // TLS is rustls with ring; an already installed provider is the same one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let _home = cli.home.resolve()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        match cli.command {
            Command::Chat(args) => commands::chat::run(args).await,
        }
    })
}
