//! Questions to a market with two cheats in it, until both are convicted on the chain: who was deceived, who moved, what
//! it cost, where the traces part, and who got what. Shows what happens; makes nothing happen but questions.

use super::{QUESTIONS, ask, receipt_of, time};
use crate::ask::Gateway;
use crate::market::LocalMarket;
use crate::market::events::Listener;
use crate::market::plan::Conduct;
use crate::narrate;
use crate::output;
use crate::refusal::refusal;
use crate::tell::Tell;
use anyhow::{Context, Result};
use assay_gateway::Verdict;
use assay_play::Played;
use assay_protocol::{Address, B256, MicroUsd, Receipt};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// A verdict takes a prefill, a dispute a dozen transactions and two traces; on a loaded machine slow ones.
const CONVICTION_LIMIT: Duration = Duration::from_secs(180);
/// Questions after which a cheat that is not convicted has beaten the demo.
const QUESTIONS_MAX: u64 = 24;
/// How long a node's own account of a move may come after the chain's.
const ACCOUNT_LIMIT: Duration = Duration::from_secs(2);

/// What is known of the cheats while questions go on.
#[derive(Default)]
struct Hunt {
    cheats: BTreeSet<Address>,
    asked: u64,
    /// Answers of dishonest nodes that were read before they were caught.
    deceived: u64,
    convicted: BTreeSet<Address>,
    honest_benched: BTreeSet<Address>,
    paid_to_cheats: MicroUsd,
    bounties: MicroUsd,
    refunds: MicroUsd,
}

pub(super) async fn run(
    tell: &Tell,
    market: &LocalMarket,
    gateway: &Gateway,
    news: &mut Listener,
) -> Result<()> {
    let begun = Instant::now();
    let deployment = market.market.deployment();
    if deployment.dispute_game.is_zero() {
        return Err(refusal(
            "this market was deployed before there were disputes: nobody can be convicted in it",
            "start a new one in another folder with --data-dir",
        ));
    }
    let nodes = market.file.nodes.iter();
    let cheats = nodes.filter(|node| node.conduct != Conduct::Honest);
    let mut hunt = Hunt {
        cheats: cheats.map(|node| node.address).collect(),
        ..Hunt::default()
    };
    tell.say(&format!(
        "two of these nodes cheat, and are the cheapest. you ask for the tier `optimistic`: this gateway re-executes every\n\
         such answer, and takes a false one to the chain, where one wrong element costs the whole stake. clocks of this chain:\n\
         \x20 {} s to challenge an answer, {} s to respond, {} s of extension in all; a challenger's bond is {}\n",
        deployment.challenge_window_s,
        deployment.response_s,
        deployment.extension_s,
        output::usd(deployment.bond)
    ));
    convicted_before(tell, market, &mut hunt).await?;
    for question in QUESTIONS.iter().cycle() {
        if hunt.convicted.len() == hunt.cheats.len() {
            break;
        }
        if hunt.asked >= QUESTIONS_MAX {
            return Err(refusal(
                format!(
                    "after {} questions only {} of {} cheats were convicted",
                    hunt.asked,
                    hunt.convicted.len(),
                    hunt.cheats.len()
                ),
                "see `assay gateway status` and `assay dispute list`, and report this",
            ));
        }
        hunt.asked += 1;
        tell.say(&format!("#{} you ask: {question}", hunt.asked));
        let answered = ask(tell, market, gateway, question, 40, "optimistic").await?;
        let receipt = receipt_of(&answered)?;
        if hunt.cheats.contains(&receipt.provider) {
            hunt.deceived += 1;
            hunt.paid_to_cheats = hunt.paid_to_cheats.checked_add(receipt.charged)?;
        }
        tell.say(&format!(
            "     {} answered with {} tokens for {}",
            name_of(market, &receipt.provider),
            receipt.statement.n_output.0,
            output::usd(receipt.charged)
        ));
        Answer::new(tell, market, &receipt)
            .follow(news, &mut hunt)
            .await?;
    }
    conclude(tell, market, gateway, &hunt, begun).await
}

fn name_of<'a>(market: &'a LocalMarket, provider: &Address) -> &'a str {
    market.file.name_of(provider).unwrap_or("a node")
}

/// Cheats that an earlier run of this market has convicted: they have no stake, and nobody asks them.
async fn convicted_before(tell: &Tell, market: &LocalMarket, hunt: &mut Hunt) -> Result<()> {
    for cheat in hunt.cheats.clone() {
        let known = market.market.provider(cheat).await?;
        if known.is_none_or(|known| known.stake == MicroUsd::ZERO) {
            let name = name_of(market, &cheat);
            tell.say(&format!(
                "{name} was convicted by an earlier run: it has no stake left, and nobody asks it"
            ));
            hunt.convicted.insert(cheat);
        }
    }
    Ok(())
}

/// One answer and what becomes of it.
struct Answer<'a> {
    tell: &'a Tell,
    market: &'a LocalMarket,
    receipt: &'a Receipt,
    name: &'a str,
    begun: Instant,
    /// Of the game about it.
    moves: Vec<(String, Played)>,
    gas_gateway: u64,
    gas_provider: u64,
}

impl<'a> Answer<'a> {
    fn new(tell: &'a Tell, market: &'a LocalMarket, receipt: &'a Receipt) -> Self {
        Self {
            tell,
            market,
            receipt,
            name: name_of(market, &receipt.provider),
            begun: Instant::now(),
            moves: Vec::new(),
            gas_gateway: 0,
            gas_provider: 0,
        }
    }

    /// Hears what becomes of it, up to an honest verdict or the end of its dispute.
    async fn follow(mut self, news: &mut Listener, hunt: &mut Hunt) -> Result<()> {
        let end = Instant::now() + CONVICTION_LIMIT;
        loop {
            let patience = end.saturating_duration_since(Instant::now());
            let event = match tokio::time::timeout(patience, news.next()).await {
                Ok(Some(event)) => event,
                Ok(None) => anyhow::bail!("the gateway stopped"),
                Err(_) => anyhow::bail!(
                    "nothing came of answer {} within {CONVICTION_LIMIT:?}",
                    self.receipt.request_id
                ),
            };
            let over = self.hear(&event, hunt).await?;
            self.tell.event(&crate::commands::up::event_line(event));
            if over {
                return Ok(());
            }
        }
    }

    /// Whether that was the last that is heard of it.
    async fn hear(&mut self, event: &Value, hunt: &mut Hunt) -> Result<bool> {
        let (tell, market) = (self.tell, self.market);
        let words = market
            .file
            .with_names(event["text"].as_str().unwrap_or_default());
        let ours = event["request_id"] == json!(self.receipt.request_id);
        let provider: Option<Address> = serde_json::from_value(event["provider"].clone()).ok();
        match event["kind"].as_str().unwrap_or_default() {
            "audited" => {
                tell.say(&format!("     {words}"));
                return Ok(ours && event["honest"] == true);
            }
            "benched" => {
                tell.say(&format!("     {words}\n"));
                let honest = provider.filter(|provider| !hunt.cheats.contains(provider));
                hunt.honest_benched.extend(honest);
            }
            "disputed" if ours => self.opened(event)?,
            "moved" if ours => self.moved(event).await?,
            "convicted" if ours => {
                self.convicted(event, hunt)?;
                return Ok(true);
            }
            "not_convicted" | "not_disputed" if ours => {
                return Err(refusal(words, "report this: a false answer must convict"));
            }
            "refused" | "retried" | "failed" => tell.say(&format!("     {words}")),
            _ => {}
        }
        Ok(false)
    }

    fn opened(&mut self, event: &Value) -> Result<()> {
        let game: B256 = serde_json::from_value(event["game"].clone())?;
        let gas = event["gas"].as_u64().unwrap_or_default();
        self.tell.say(&format!(
            "     on the chain: dispute {}",
            output::short_hex(&game)
        ));
        let played = Played {
            ours: true,
            action: format!(
                "doubts the receipt with a bond of {}; {}'s stake is locked",
                event["bond"]
                    .as_u64()
                    .map_or("?".to_owned(), |bond| output::usd(MicroUsd(bond))),
                self.name
            ),
            gas: Some(gas),
            transaction: None,
            parted: None,
        };
        self.show("gateway", played);
        Ok(())
    }

    async fn moved(&mut self, event: &Value) -> Result<()> {
        let mut played: Played =
            serde_json::from_value(event.clone()).context("a move of unknown shape")?;
        if played.ours {
            self.show("gateway", played);
            return Ok(());
        }
        // What it cost is its sender's to know: this market's nodes run in this process.
        let game: B256 = serde_json::from_value(event["game"].clone())?;
        let before = self.moves.iter().filter(|(_, played)| !played.ours).count();
        let end = Instant::now() + ACCOUNT_LIMIT;
        while Instant::now() < end {
            let games = self.market.disputes_of(&self.receipt.provider);
            let moves = games.iter().find(|told| told.game == game);
            let mut own = moves.into_iter().flat_map(|told| &told.moves);
            let same = own.by_ref().filter(|played| played.ours).nth(before);
            if let Some(same) = same {
                (played.gas, played.transaction) = (same.gas, same.transaction);
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.show(self.name, played);
        Ok(())
    }

    fn show(&mut self, who: &str, played: Played) {
        let gas = played.gas.unwrap_or_default();
        match played.ours {
            true => self.gas_gateway += gas,
            false => self.gas_provider += gas,
        }
        self.tell
            .say(&format!("       {}", narrate::line(who, &played)));
        self.moves.push((who.to_owned(), played));
    }

    fn convicted(&self, event: &Value, hunt: &mut Hunt) -> Result<()> {
        let verdict: Verdict = serde_json::from_value(event["conviction"].clone())
            .context("a conviction of unknown shape")?;
        let proof = self
            .moves
            .iter()
            .rev()
            .find_map(|(_, played)| played.parted.as_ref());
        if let Some(parted) = proof {
            self.tell.say("     where the two traces part");
            for line in parted.picture().lines() {
                self.tell.say(&format!("       {line}"));
            }
        }
        let usd = output::usd;
        self.tell.say(&format!(
            "     {} is convicted and loses its whole stake of {}\n\
             \x20      {:>8}  to the challenger, who has its bond back: this gateway\n\
             \x20      {:>8}  to the payer, who paid {} for the false answer: this gateway\n\
             \x20      {:>8}  burned, so that nobody gains by convicting itself\n\
             \x20      {} from the answer; {} gas: {} by the gateway, {} by {}\n",
            self.name,
            usd(verdict.slashed),
            usd(verdict.to_winner),
            usd(verdict.to_payer),
            usd(self.receipt.charged),
            usd(verdict.burned),
            time(self.begun.elapsed()),
            self.gas_gateway + self.gas_provider,
            self.gas_gateway,
            self.gas_provider,
            self.name,
        ));
        self.tell.event(&json!({
            "event": "convicted",
            "node": self.name,
            "provider": self.receipt.provider,
            "request_id": self.receipt.request_id,
            "game": event["game"],
            "charged": self.receipt.charged,
            "conviction": verdict,
            "parted": proof,
            "moves": self.moves.iter().map(|(who, played)| json!({ "by": who, "move": played })).collect::<Vec<_>>(),
            "gas_gateway": self.gas_gateway,
            "gas_provider": self.gas_provider,
            "answer_to_conviction_ms": output::millis(self.begun.elapsed()),
        }));
        hunt.convicted.insert(self.receipt.provider);
        hunt.bounties = hunt.bounties.checked_add(verdict.to_winner)?;
        hunt.refunds = hunt.refunds.checked_add(verdict.to_payer)?;
        Ok(())
    }
}

async fn conclude(
    tell: &Tell,
    market: &LocalMarket,
    gateway: &Gateway,
    hunt: &Hunt,
    begun: Instant,
) -> Result<()> {
    if hunt.asked > 0 {
        tell.say(&format!(
            "both cheats are convicted after {} questions and {}. {} false answers were read, for {} in all; {} and {} came back",
            hunt.asked,
            time(begun.elapsed()),
            hunt.deceived,
            output::usd(hunt.paid_to_cheats),
            output::usd(hunt.refunds),
            output::usd(hunt.bounties),
        ));
        tell.say("  as the payer's share and as the challenger's. look again with `assay dispute list`, `assay receipt list`\n");
    }
    let question = QUESTIONS[3];
    tell.say(&format!(
        "one more question, to see who is asked now: {question}"
    ));
    let answered = ask(tell, market, gateway, question, 40, "staked").await?;
    let receipt = receipt_of(&answered)?;
    tell.say(&format!(
        "     {} answered with {} tokens for {}",
        name_of(market, &receipt.provider),
        receipt.statement.n_output.0,
        output::usd(receipt.charged)
    ));
    let mut stakes = Vec::new();
    for node in &market.file.nodes {
        let known = market.market.provider(node.address).await?;
        stakes.push(json!({ "node": node.name, "stake": known.map(|known| known.stake) }));
    }
    tell.event(&json!({
        "event": "caught",
        "questions": hunt.asked,
        "false_answers": hunt.deceived,
        "paid_to_cheats": hunt.paid_to_cheats,
        "caught": hunt.convicted,
        "bounties": hunt.bounties,
        "refunds": hunt.refunds,
        "honest_benched": hunt.honest_benched,
        "stakes": stakes,
        "hunt_ms": output::millis(begun.elapsed()),
        "then_served_by": receipt.provider,
    }));
    if hunt.cheats.contains(&receipt.provider) || !hunt.honest_benched.is_empty() {
        return Err(refusal(
            "the market judged wrongly",
            "report this: it must never happen",
        ));
    }
    Ok(())
}
