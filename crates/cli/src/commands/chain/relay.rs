//! `assay chain relay`: whoever has a node's signed claims brings them to the chain and pays the gas.

use crate::ask::Gateway;
use crate::files;
use crate::home::Home;
use crate::keyring::Keyring;
use crate::network::NetworkArgs;
use crate::output;
use crate::refusal::{hint, refusal};
use anyhow::{Context, Result};
use assay_chain::{Key, Market, SignedClaims};
use serde_json::{Value, json};
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(super) struct RelayArgs {
    #[command(flatten)]
    network: NetworkArgs,
    /// The node whose claims to ask for
    #[arg(
        long,
        value_name = "URL",
        required_unless_present = "file",
        conflicts_with = "file"
    )]
    node: Option<String>,
    /// Claims as `assay node claims --export` wrote them
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Whose gas; anybody's [default: `relay` of `assay key list`, made if it is not there]
    #[arg(long, value_name = "NAME|FILE")]
    key: Option<String>,
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: RelayArgs, home: &Home) -> Result<()> {
    home.create()?;
    let (from, value) = claims(&args).await?;
    let path = home.key_named(args.key.as_deref().unwrap_or("relay"));
    let market = args.network.market(home).await?;
    let batches: Vec<SignedClaims> =
        serde_json::from_value(value).with_context(|| format!("{from} holds no signed claims"))?;
    if batches.iter().all(|batch| batch.claims.is_empty()) {
        println!("{from} has nothing that waits for gas");
        return Ok(());
    }
    let keyring = Keyring::on(home, &market);
    let key = keyring.open_or_make(&path)?;
    keyring.check_fit(&market)?;
    for batch in &batches {
        submit(&market, &key, batch, args.json).await?;
    }
    Ok(())
}

async fn claims(args: &RelayArgs) -> Result<(String, Value)> {
    if let Some(path) = &args.file {
        let name = path.display().to_string();
        let bytes = files::read(path)?.ok_or_else(|| {
            refusal(
                format!("there is no file {name}"),
                "make one with `assay node claims --export FILE`",
            )
        })?;
        let value = serde_json::from_slice(&bytes)
            .with_context(|| format!("{name} holds no signed claims"))?;
        return Ok((name, value));
    }
    let url = args.node.as_deref().unwrap_or_default();
    let value = Gateway::at(url)?.get("/assay/v1/claims").await;
    let value = value.map_err(|error| {
        refusal(
            format!("no node tells its claims at {url}: {error:#}"),
            "check --node, or ask its operator for a file of `assay node claims --export`",
        )
    })?;
    Ok((url.to_owned(), value))
}

async fn submit(market: &Market, key: &Key, claims: &SignedClaims, json: bool) -> Result<()> {
    let gas = market.claims_gas(key.address(), claims, None).await;
    let gas = gas.with_context(|| {
        hint(
            "the chain would refuse these claims",
            "ask the node for them again: they may be of another market, or older than its last claim",
        )
    })?;
    let cost = market.chain().gas_price().await?.saturating_mul(gas.into());
    let has = market.chain().coin_balance(key.address()).await?;
    if has < cost {
        return Err(refusal(
            format!(
                "{} holds {}, and about {} are needed for gas",
                key.address(),
                output::coins(has),
                output::coins(cost)
            ),
            "send it coins, or name another key with --key",
        ));
    }
    let done = market.submit_claims(key, claims, None).await?;
    if json {
        return output::print_json(&json!({
            "transaction": done.mined.hash,
            "block": done.mined.block,
            "gas_used": done.mined.gas_used,
            "claimed": done.claimed,
        }));
    }
    println!(
        "{} of {} channels claimed in block {}, for {} gas",
        done.claimed.len(),
        claims.claims.len(),
        done.mined.block,
        done.mined.gas_used
    );
    println!("transaction {}", done.mined.hash);
    Ok(())
}
