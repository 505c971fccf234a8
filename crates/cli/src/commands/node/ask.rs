//! What a running node tells: how it is, what it earned, and its claims for others to bring to the chain.

use super::run::defence_words;
use crate::ask::Gateway;
use crate::output;
use crate::refusal::refusal;
use anyhow::{Context, Result};
use assay_node::Defended;
use serde_json::{Value, json};
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(super) struct AskArgs {
    /// The node's address
    #[arg(long, default_value = "http://127.0.0.1:9000")]
    pub(super) url: String,
    #[arg(long)]
    json: bool,
}

/// A node speaks the same HTTP as a gateway where these commands are concerned.
pub(super) async fn get(url: &str, path: &str) -> Result<Value> {
    let error = |_| {
        refusal(
            format!("no node answers at {url}"),
            "start one with `assay node run`, or name one with --url",
        )
    };
    Gateway::at(url)?.get(path).await.map_err(error)
}

pub(super) async fn status(args: AskArgs) -> Result<()> {
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
        if let Some(proof) = offer.get("proof") {
            let proof = &proof["body"];
            println!(
                "{:<14} of up to {} tokens within {} s, for {} micro-USD per million tokens",
                "proofs", proof["max_tokens"], proof["delay_s"], proof["price"]
            );
        }
    }
    Ok(())
}

pub(super) async fn earnings(args: AskArgs) -> Result<()> {
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

#[derive(Debug, clap::Args)]
pub(super) struct ClaimsArgs {
    /// The node's address
    #[arg(long, default_value = "http://127.0.0.1:9000")]
    url: String,
    /// Where to write them, for `assay chain relay --file` [default: standard output]
    #[arg(long, value_name = "FILE")]
    export: Option<PathBuf>,
}

pub(super) async fn claims(args: ClaimsArgs) -> Result<()> {
    let value = get(&args.url, "/assay/v1/claims").await?;
    let Some(path) = args.export else {
        return output::print_json(&value);
    };
    crate::files::write_whole(&path, &serde_json::to_string_pretty(&value)?)?;
    println!(
        "{} written; whoever has it can bring the money to the node's vault with `assay chain relay --file {0}`",
        path.display()
    );
    Ok(())
}
