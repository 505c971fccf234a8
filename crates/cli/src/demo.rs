//! The demo: a question, its streamed answer, the receipt, the payment and the audit; and with cheats in the
//! market, questions until both are caught. Everything it shows comes from the gateway and the chain.

use crate::ask::{Answered, Gateway};
use crate::market::LocalMarket;
use crate::market::events::Listener;
use crate::market::plan::Conduct;
use crate::output;
use crate::refusal::refusal;
use crate::tell::Tell;
use anyhow::{Context, Result};
use assay_audit::{AuditPolicy, PartsPerMillion};
use assay_gateway::{AuditReport, Status};
use assay_protocol::{Address, B256, DurationMs, MicroUsd, Receipt};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

pub(crate) struct DemoPlan {
    pub(crate) with_cheaters: bool,
    pub(crate) audit: AuditPolicy,
    pub(crate) program_started: Instant,
}

/// A verdict takes a prefill; on a loaded machine a slow one.
const VERDICT_LIMIT: Duration = Duration::from_secs(120);
/// A cheat that is still not caught when its chance to survive is below this has beaten the demo.
const SURVIVAL: PartsPerMillion = PartsPerMillion(1_000);

const QUESTIONS: [&str; 8] = [
    "What is the capital of France?",
    "Write one sentence about the sea.",
    "Name three colours of the rainbow.",
    "Why is the sky blue? Answer briefly.",
    "What do bees make?",
    "Tell me a very short story about a cat.",
    "How many days does a week have?",
    "What is gold used for?",
];

pub(crate) async fn run(
    plan: &DemoPlan,
    tell: &Tell,
    market: &LocalMarket,
    gateway: &Gateway,
    news: &mut Listener,
) -> Result<()> {
    if plan.with_cheaters {
        hunt(plan, tell, market, gateway, news).await
    } else {
        one_answer(plan, tell, market, gateway).await
    }
}

async fn ask(
    tell: &Tell,
    market: &LocalMarket,
    gateway: &Gateway,
    question: &str,
    max_tokens: u32,
) -> Result<Answered> {
    let body = json!({
        "model": market.file.model,
        "messages": [{ "role": "user", "content": question }],
        "max_tokens": max_tokens,
        "temperature": 0,
        "stream": true,
        "stream_options": { "include_usage": true },
    });
    tell.piece("  ");
    let answered = gateway
        .chat(&body, |text| tell.piece(&text.replace('\n', "\n  ")))
        .await?;
    tell.say("");
    Ok(answered)
}

fn receipt_of(answered: &Answered) -> Result<Receipt> {
    let signed = answered
        .assay
        .receipt
        .context("the answer came without a receipt")?;
    Ok(signed.body)
}

/// The happy path, with all that stands behind one answer.
async fn one_answer(
    plan: &DemoPlan,
    tell: &Tell,
    market: &LocalMarket,
    gateway: &Gateway,
) -> Result<()> {
    let question = QUESTIONS[0];
    tell.say(&format!("you ask: {question}\n"));
    let before_ask = plan.program_started.elapsed();
    let answered = ask(tell, market, gateway, question, 96).await?;
    let receipt = receipt_of(&answered)?;
    let name = market
        .file
        .name_of(&receipt.provider)
        .unwrap_or("a node")
        .to_owned();
    let first_token = before_ask + answered.first_token;
    tell.event(&json!({
        "event": "answer",
        "text": answered.text,
        "provider": receipt.provider,
        "node": name,
        "receipt": answered.assay.receipt,
        "first_token_ms": output::millis(answered.first_token),
        "whole_ms": output::millis(answered.whole),
        "start_to_first_token_ms": output::millis(first_token),
    }));

    tell.say("\nreceipt: what the node signed");
    tell.say(&format!("  id        {}", receipt.request_id));
    tell.say(&format!(
        "  says      {name} ran model {} on these {} prompt tokens and got these {} tokens",
        output::short(&receipt.statement.model_id),
        receipt.statement.n_prompt.0,
        receipt.statement.n_output.0
    ));
    tell.say(&format!(
        "  price     {} of {}'s offer, exactly",
        output::usd(receipt.charged),
        name
    ));
    tell.say(&format!(
        "  speed     first token after {}, whole answer in {}",
        output::duration(receipt.ttft),
        output::duration(receipt.duration)
    ));

    payment(tell, market, &receipt, &name).await?;

    tell.say("\naudit: this machine runs the model again, on the whole answer at once");
    let report = audit_now(gateway, &receipt.request_id).await?;
    tell.event(&json!({ "event": "verdict", "node": name, "audit": report }));
    tell.say(&format!("  verdict   {}", report.text));
    tell.say(&format!(
        "  cost      {} ms, {} of the {} ms that the answer took to generate",
        report.audited_ms,
        share(report.audited_ms, report.generated_ms),
        report.generated_ms
    ));
    tell.say(&format!(
        "\nfrom start to first token: {}",
        time(first_token)
    ));
    tell.say(&format!(
        "look again with: assay receipt show {}",
        output::short_hex(&receipt.request_id)
    ));
    if !report.verdict.is_honest() {
        return Err(refusal(
            "an honest node was found dishonest",
            "report this: it must never happen",
        ));
    }
    Ok(())
}

async fn payment(tell: &Tell, market: &LocalMarket, receipt: &Receipt, name: &str) -> Result<()> {
    let chain = &market.market;
    tell.say("\npayment: a voucher on a funded channel, no transaction per answer");
    let before = chain.channel(receipt.channel_id).await?;
    tell.say(&format!(
        "  channel   {} holds {}",
        output::short(&receipt.channel_id),
        output::usd(before.balance)
    ));
    tell.say(&format!(
        "  voucher   {name} is owed {} on it so far",
        output::usd(receipt.cumulative)
    ));
    market.claim_all().await?;
    let after = chain.channel(receipt.channel_id).await?;
    let payout = chain.pending_payout(receipt.provider).await?;
    tell.say(&format!(
        "  claim     {name} cashed its voucher: {} claimed on chain",
        output::usd(after.total_claimed)
    ));
    let window = chain.deployment().challenge_window_s;
    tell.say(&format!(
        "  vault     {} wait out the {window} s in which the answer can be challenged",
        output::usd(payout.waiting)
    ));
    tell.event(&json!({
        "event": "payment",
        "channel_id": receipt.channel_id,
        "deposit": before.balance,
        "owed": receipt.cumulative,
        "claimed": after.total_claimed,
        "in_vault": payout.waiting,
        "challenge_window_s": window,
    }));
    Ok(())
}

async fn audit_now(gateway: &Gateway, id: &B256) -> Result<AuditReport> {
    let value = gateway
        .post(
            &format!("/assay/v1/receipts/{id}/audit"),
            &Value::Null,
            VERDICT_LIMIT,
        )
        .await?;
    serde_json::from_value(value).context("the gateway's audit report is of unknown shape")
}

/// What is known of the cheats while questions go on.
#[derive(Default)]
struct Hunt {
    asked: u64,
    /// Answers of dishonest nodes that were read before they were caught.
    deceived: u64,
    caught: BTreeSet<Address>,
    honest_benched: BTreeSet<Address>,
    paid_to_cheats: MicroUsd,
}

async fn hunt(
    plan: &DemoPlan,
    tell: &Tell,
    market: &LocalMarket,
    gateway: &Gateway,
    news: &mut Listener,
) -> Result<()> {
    let cheats: BTreeSet<Address> = market
        .file
        .nodes
        .iter()
        .filter(|node| node.conduct != Conduct::Honest)
        .map(|node| node.address)
        .collect();
    let expected = plan.audit.requests_until(0, SURVIVAL, PartsPerMillion::ONE);
    let per_cheat = expected.unwrap_or(1_000);
    tell.say("two of these nodes cheat, and are the cheapest. which answers are re-executed is this gateway's secret:");
    tell.say(&format!(
        "  {} of a provider's first {} answers, {} of the later ones. a liar gets past {per_cheat} answers with a chance below {}\n",
        plan.audit.newcomer_rate, plan.audit.newcomer_answers, plan.audit.rate, SURVIVAL
    ));
    let mut hunt = Hunt {
        caught: benched_before(tell, market, gateway, &cheats).await?,
        ..Hunt::default()
    };
    let most = per_cheat
        .saturating_mul(cheats.len() as u64)
        .saturating_mul(2);
    for question in QUESTIONS.iter().cycle() {
        if hunt.caught.len() == cheats.len() {
            break;
        }
        if hunt.asked >= most {
            return Err(refusal(
                format!(
                    "after {} questions only {} of {} cheats were caught",
                    hunt.asked,
                    hunt.caught.len(),
                    cheats.len()
                ),
                "raise --audit-rate",
            ));
        }
        hunt.asked += 1;
        tell.say(&format!("#{} you ask: {question}", hunt.asked));
        let answered = ask(tell, market, gateway, question, 40).await?;
        let receipt = receipt_of(&answered)?;
        if cheats.contains(&receipt.provider) {
            hunt.deceived += 1;
            hunt.paid_to_cheats = hunt.paid_to_cheats.checked_add(receipt.charged)?;
        }
        let name = market.file.name_of(&receipt.provider).unwrap_or("a node");
        tell.say(&format!(
            "     {name} answered with {} tokens for {}",
            receipt.statement.n_output.0,
            output::usd(receipt.charged)
        ));
        follow(tell, market, gateway, news, &receipt, &cheats, &mut hunt).await?;
    }
    conclude(tell, market, gateway, &hunt, &cheats).await
}

/// Cheats that an earlier run of this market has caught: nobody asks them any more.
async fn benched_before(
    tell: &Tell,
    market: &LocalMarket,
    gateway: &Gateway,
    cheats: &BTreeSet<Address>,
) -> Result<BTreeSet<Address>> {
    let status: Status = serde_json::from_value(gateway.get("/assay/v1/status").await?)
        .context("the gateway's status is of unknown shape")?;
    let mut benched = BTreeSet::new();
    for provider in status
        .providers
        .iter()
        .filter(|provider| cheats.contains(&provider.address))
    {
        if let Some(bench) = &provider.record.bench {
            let name = market.file.name_of(&provider.address).unwrap_or("a node");
            tell.say(&format!(
                "{name} was caught on {} and stays benched: {}",
                output::date(bench.at),
                bench.reason
            ));
            benched.insert(provider.address);
        }
    }
    Ok(benched)
}

/// Hears what becomes of one answer: audited or not, and with what consequence.
async fn follow(
    tell: &Tell,
    market: &LocalMarket,
    gateway: &Gateway,
    news: &mut Listener,
    receipt: &Receipt,
    cheats: &BTreeSet<Address>,
    hunt: &mut Hunt,
) -> Result<()> {
    let sampled = is_waiting(gateway, &receipt.request_id).await?;
    if !sampled {
        tell.say("     the coin did not choose this answer: signed and paid, not re-executed");
    }
    let end = Instant::now() + VERDICT_LIMIT;
    let mut settled = !sampled;
    // Events up to this answer's verdict, and the consequence that follows a bad one.
    loop {
        let patience = if settled {
            Duration::from_millis(50)
        } else {
            end.saturating_duration_since(Instant::now())
        };
        let event = match tokio::time::timeout(patience, news.next()).await {
            Ok(Some(event)) => event,
            Ok(None) => anyhow::bail!("the gateway stopped"),
            Err(_) if settled => return Ok(()),
            Err(_) => anyhow::bail!(
                "no verdict on {} within {VERDICT_LIMIT:?}",
                receipt.request_id
            ),
        };
        let provider: Option<Address> = serde_json::from_value(event["provider"].clone()).ok();
        let words = market
            .file
            .with_names(event["text"].as_str().unwrap_or_default());
        let ours = event["request_id"] == json!(receipt.request_id);
        match event["kind"].as_str().unwrap_or_default() {
            "audited" => {
                tell.say(&format!("     {words}"));
                settled |= ours && event["honest"] == true;
            }
            "benched" => {
                tell.say(&format!("     >> {words}\n"));
                settled |= ours;
                if let Some(provider) = provider {
                    let is_cheat = cheats.contains(&provider);
                    let convicted = if is_cheat {
                        &mut hunt.caught
                    } else {
                        &mut hunt.honest_benched
                    };
                    convicted.insert(provider);
                }
            }
            "refused" | "retried" | "failed" => tell.say(&format!("     {words}")),
            _ => {}
        }
        tell.event(&crate::commands::up::event_line(event));
    }
}

async fn is_waiting(gateway: &Gateway, id: &B256) -> Result<bool> {
    let list = gateway.get("/assay/v1/receipts?limit=20").await?;
    let entries = list["data"]
        .as_array()
        .context("the gateway's list is of unknown shape")?;
    let entry = entries.iter().find(|entry| entry["id"] == json!(id));
    let state = entry
        .map(|entry| entry["audit"]["state"].clone())
        .unwrap_or_default();
    // Judged already counts as sampled: its verdict is among the events to come.
    Ok(state != "not_sampled")
}

async fn conclude(
    tell: &Tell,
    market: &LocalMarket,
    gateway: &Gateway,
    hunt: &Hunt,
    cheats: &BTreeSet<Address>,
) -> Result<()> {
    if hunt.asked > 0 {
        tell.say(&format!(
            "both cheats are caught after {} questions; {} of their answers were read on the way, for {} in all",
            hunt.asked,
            hunt.deceived,
            output::usd(hunt.paid_to_cheats)
        ));
    }
    tell.say("what they signed convicts them: `assay receipt list` shows it, `assay receipt verify ID` proves it again\n");
    let question = QUESTIONS[3];
    tell.say(&format!(
        "one more question, to see who is asked now: {question}"
    ));
    let answered = ask(tell, market, gateway, question, 40).await?;
    let receipt = receipt_of(&answered)?;
    let name = market.file.name_of(&receipt.provider).unwrap_or("a node");
    tell.say(&format!(
        "     {name} answered with {} tokens for {}",
        receipt.statement.n_output.0,
        output::usd(receipt.charged)
    ));
    tell.event(&json!({
        "event": "caught",
        "questions": hunt.asked,
        "false_answers": hunt.deceived,
        "paid_to_cheats": hunt.paid_to_cheats,
        "caught": hunt.caught,
        "honest_benched": hunt.honest_benched,
        "then_served_by": receipt.provider,
    }));
    if cheats.contains(&receipt.provider) || !hunt.honest_benched.is_empty() {
        return Err(refusal(
            "the market judged wrongly",
            "report this: it must never happen",
        ));
    }
    Ok(())
}

fn time(duration: Duration) -> String {
    output::duration(DurationMs(
        u32::try_from(output::millis(duration)).unwrap_or(u32::MAX),
    ))
}

/// A whole percentage, rounded up: a cost is never called smaller than it is.
fn share(part: u64, whole: u64) -> String {
    match whole {
        0 => "more than all".to_owned(),
        whole => format!("{}%", (part * 100).div_ceil(whole)),
    }
}
