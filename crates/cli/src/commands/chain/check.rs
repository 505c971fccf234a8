//! `assay chain verify` and `assay chain gas`: whether a market is what it says, and what its moves cost.

use crate::home::Home;
use crate::network::{self, NetworkArgs};
use crate::output::{self, Table};
use crate::parse;
use crate::refusal::refusal;
use anyhow::Result;
use assay_chain::gas;
use assay_protocol::MicroUsd;
use serde_json::json;

#[derive(Debug, clap::Args)]
pub(super) struct VerifyArgs {
    #[command(flatten)]
    network: NetworkArgs,
    /// Also rebuild channels, receivers, providers, vaults and scores from the events, and compare them with the contracts
    #[arg(long)]
    history: bool,
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct GasArgs {
    /// Also in dollars: what a unit of gas costs, in gwei
    #[arg(long, value_parser = parse::gwei, value_name = "GWEI", requires = "coin_price")]
    gas_price: Option<u128>,
    /// What a coin costs, in dollars
    #[arg(long, value_parser = parse::dollars, value_name = "DOLLARS", requires = "gas_price")]
    coin_price: Option<MicroUsd>,
    #[arg(long)]
    json: bool,
}

pub(super) async fn verify(args: VerifyArgs, home: &Home) -> Result<()> {
    // Not `market()`: what is wrong with a deployment is to be told in full.
    let chain = args.network.chain(home).await?;
    let deployment = args.network.deployment(home, chain.chain_id())?;
    let checks = chain.verify(&deployment).await?;
    let mut wrong = checks.iter().filter(|check| !check.holds).count();
    let differences = match args.history {
        true => {
            let market = chain.market(deployment).await?;
            let history = market.history().await?;
            let differences = market.differences(&history).await?;
            wrong += differences.len();
            Some((history, differences))
        }
        false => None,
    };
    if args.json {
        let rows = checks.iter().map(|check| {
            json!({ "what": check.what, "address": check.address, "holds": check.holds, "found": check.found })
        });
        let told = differences.as_ref().map(|(history, differences)| {
            let rows = differences
                .iter()
                .map(|d| json!({ "what": d.what, "events": d.events, "view": d.view }));
            json!({ "block": history.block, "differences": rows.collect::<Vec<_>>() })
        });
        output::print_json(&json!({ "checks": rows.collect::<Vec<_>>(), "history": told }))?;
    } else {
        let mut table = Table::new(&["", "what should be so", "at", "found"]);
        for check in &checks {
            let word = if check.holds { "holds" } else { "FAILS" };
            table.row([
                word.to_owned(),
                check.what.clone(),
                output::short_address(&check.address),
                check.found.clone(),
            ]);
        }
        print!("{}", table.render(""));
        if let Some((history, differences)) = &differences {
            println!(
                "\n{} channels, {} receivers, {} providers and {} scores rebuilt from the events up to block {}",
                history.channels.len(),
                history.receivers.len(),
                history.providers.len(),
                history.scores.len(),
                history.block
            );
            for difference in differences {
                println!(
                    "FAILS  {}: {} by the events, {} by the contract",
                    difference.what, difference.events, difference.view
                );
            }
        }
    }
    if wrong > 0 {
        return Err(refusal(
            format!("{wrong} of these do not hold"),
            "do not use this market before you know why",
        ));
    }
    Ok(())
}

pub(super) async fn gas(args: GasArgs) -> Result<()> {
    let table = gas::table().await?;
    let worth = |gas: u64| -> Option<MicroUsd> {
        let wei = args.gas_price?.checked_mul(gas.into())?;
        network::worth(wei, args.coin_price?.0)
    };
    if args.json {
        let rows = table.rows.iter().map(
            |row| json!({ "operation": row.operation, "gas": row.gas, "worth": worth(row.gas) }),
        );
        let per = table.per_request.iter().map(|row| {
            json!({ "requests": row.requests, "claim": row.claim, "claim_and_record": row.claim_and_record })
        });
        return output::print_json(&json!({
            "operations": rows.collect::<Vec<_>>(),
            "per_request": per.collect::<Vec<_>>(),
        }));
    }
    let dollars = |gas: u64| worth(gas).map_or(String::new(), output::usd);
    let mut operations = Table::new(&["operation", "gas", ""]);
    for row in &table.rows {
        operations.row([
            row.operation.to_owned(),
            row.gas.to_string(),
            dollars(row.gas),
        ]);
    }
    print!("{}", operations.render(""));
    let mut per = Table::new(&[
        "requests a claim",
        "gas a request",
        "with a record of service",
        "",
    ]);
    for row in &table.per_request {
        per.row([
            row.requests.to_string(),
            row.claim.to_string(),
            row.claim_and_record.to_string(),
            dollars(row.claim_and_record),
        ]);
    }
    print!("\n{}", per.render(""));
    println!("\nmeasured on a chain in memory; a rollup's fee for data comes on top");
    Ok(())
}
