//! `assay chain status`: what the contracts say of the market and of each provider.

use crate::home::Home;
use crate::live::provider_name;
use crate::network::NetworkArgs;
use crate::output::{self, Table};
use anyhow::Result;
use assay_chain::{ChainError, DisputeFilter, Market, PendingPayout, Provider, Score};

use assay_protocol::{Address, Histogram, SPEED_BELOW, TTFT_MS_BELOW, Timestamp};
use serde_json::json;
use std::collections::BTreeSet;

/// The middle of what was counted.
const MEDIAN: u64 = 50;

struct Row {
    provider: Provider,
    payout: PendingPayout,
    /// None in a market of a version before there was a scoreboard.
    score: Option<Score>,
}

pub(super) async fn run(home: &Home, network: &NetworkArgs, json: bool) -> Result<()> {
    let market = network.market(home).await?;
    let block = market.chain().block_number().await?;
    let now = market.chain().now().await?;
    let mut rows = Vec::new();
    for provider in providers(&market).await? {
        let score = match market.score(provider.address).await {
            Ok(score) => Some(score),
            Err(ChainError::NoScoreboard) => None,
            Err(error) => return Err(error.into()),
        };
        let payout = market.pending_payout(provider.address).await?;
        rows.push(Row {
            provider,
            payout,
            score,
        });
    }
    let deployment = market.deployment();
    if json {
        let rows: Vec<_> = rows.iter().map(|row| row.json(now)).collect();
        return output::print_json(&json!({
            "chain_id": deployment.chain_id, "block": block, "deployment": deployment, "providers": rows,
        }));
    }
    head(&market, block);
    print!("{}", money(home, &rows).render(""));
    if rows.iter().any(|row| row.score.is_some()) {
        print!("\n{}", service(home, &rows, now).render(""));
    }
    Ok(())
}

/// Whoever is listed, and whoever was convicted and is not.
async fn providers(market: &Market) -> Result<Vec<Provider>> {
    let mut listed = market.providers().await?;
    if market.deployment().dispute_game.is_zero() {
        return Ok(listed);
    }
    let disputes = market.disputes(&DisputeFilter::default()).await?;
    let convicted: BTreeSet<Address> = disputes
        .iter()
        .filter(|dispute| dispute.conviction.is_some())
        .map(|dispute| dispute.receipt.body.provider)
        .filter(|address| listed.iter().all(|known| known.address != *address))
        .collect();
    for address in convicted {
        listed.extend(market.provider(address).await?);
    }
    Ok(listed)
}

fn head(market: &Market, block: u64) {
    let deployment = market.deployment();
    println!("chain     {} at block {block}", deployment.chain_id);
    println!("dollar    {} ({})", deployment.token, deployment.token_name);
    println!("channels  {}", deployment.channels);
    println!("registry  {}", deployment.registry);
    println!(
        "window    {} s in which an answer can be challenged",
        deployment.challenge_window_s
    );
    if deployment.scoreboard.is_zero() {
        println!("scores    none: this market was deployed before there were any");
    } else {
        println!("scores    {}", deployment.scoreboard);
    }
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
}

fn money(home: &Home, rows: &[Row]) -> Table {
    let mut table = Table::new(&[
        "provider",
        "stake",
        "unsettled",
        "in its window",
        "releasable",
        "held",
        "at",
    ]);
    for Row {
        provider, payout, ..
    } in rows
    {
        table.row([
            provider_name(home, &provider.address),
            output::usd(provider.stake),
            output::usd(payout.unsettled),
            output::usd(payout.waiting),
            output::usd(payout.releasable),
            output::usd(payout.held),
            provider.endpoint.clone(),
        ]);
    }
    table
}

fn service(home: &Home, rows: &[Row], now: Timestamp) -> Table {
    let mut table = Table::new(&[
        "provider",
        "answered",
        "good, by payment",
        "first token",
        "tokens a second",
        "paid",
        "convictions",
        "jail",
    ]);
    for row in rows {
        let Some(score) = &row.score else { continue };
        let answered = match score.reported {
            0 => format!("{} of {}", score.requests, asked(score)),
            reported => format!(
                "{} of {}, {reported} reported",
                score.requests,
                asked(score)
            ),
        };
        table.row([
            provider_name(home, &row.provider.address),
            answered,
            score.success_ppm().map_or("-".to_owned(), percent),
            class(&score.ttft, &TTFT_MS_BELOW, " ms"),
            class(&score.speed, &SPEED_BELOW, ""),
            output::usd(score.revenue),
            score.convictions.to_string(),
            jail(score, row.provider.active, now),
        ]);
    }
    table
}

fn asked(score: &Score) -> u64 {
    score.requests.saturating_add(score.failures)
}

fn percent(ppm: u32) -> String {
    format!("{}.{:02}%", ppm / 10_000, ppm % 10_000 / 100)
}

/// The class that the median lies in, as `100–250 ms`.
fn class(counted: &Histogram, below: &[u32; 7], unit: &str) -> String {
    let Some(class) = counted.quantile(MEDIAN) else {
        return "-".to_owned();
    };
    let end = below.get(class);
    match (class.checked_sub(1).and_then(|lower| below.get(lower)), end) {
        (None, Some(end)) => format!("below {end}{unit}"),
        (Some(start), Some(end)) => format!("{start}–{end}{unit}"),
        (start, None) => format!("{}{unit} and above", start.unwrap_or(&0)),
    }
}

fn jail(score: &Score, active: bool, now: Timestamp) -> String {
    match score.jailed_until {
        Timestamp(0) => "-".to_owned(),
        until if until > now => format!("until {}", output::date(until)),
        _ if active => "-".to_owned(),
        _ => "over: its owner may release it".to_owned(),
    }
}

impl Row {
    fn json(&self, now: Timestamp) -> serde_json::Value {
        let (provider, payout) = (&self.provider, &self.payout);
        let score = self.score.as_ref().map(|score| {
            json!({
                "requests": score.requests,
                "failures": score.failures,
                "reported": score.reported,
                "prompt_tokens": score.prompt_tokens.to_string(),
                "output_tokens": score.output_tokens.to_string(),
                "revenue": score.revenue,
                "weighted_failures": score.weighted_failures,
                "success_ppm": score.success_ppm(),
                "ttft": score.ttft,
                "ttft_median_class": score.ttft.quantile(MEDIAN),
                "speed": score.speed,
                "speed_median_class": score.speed.quantile(MEDIAN),
                "records": score.records,
                "convictions": score.convictions,
                "jailed_until": score.jailed_until,
                "in_jail": score.jailed_until > now,
            })
        });
        json!({
            "address": provider.address,
            "vault": provider.vault,
            "offer_key": provider.offer_key,
            "endpoint": provider.endpoint,
            "models": provider.models,
            "stake": provider.stake,
            "listed": provider.active,
            "unsettled": payout.unsettled,
            "waiting": payout.waiting,
            "releasable": payout.releasable,
            "held": payout.held,
            "score": score,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_is_told_by_its_ends() {
        let only = |class: usize| {
            let mut counts = [0; 8];
            counts[class] = 3;
            Histogram(counts)
        };
        let cases = [
            (Histogram::default(), "-"),
            (only(0), "below 100 ms"),
            (only(1), "100–250 ms"),
            (only(7), "8000 ms and above"),
        ];
        for (counted, words) in cases {
            assert_eq!(class(&counted, &TTFT_MS_BELOW, " ms"), words);
        }
        assert_eq!(percent(999_950), "99.99%");
    }
}
