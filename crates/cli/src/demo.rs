//! The demo: a question, its streamed answer, the receipt, the payment and the audit; and with cheats in the
//! market, questions until both are convicted (`hunt`). Everything it shows comes from gateway, nodes and chain.

mod hunt;

use crate::ask::{Answered, Gateway};
use crate::market::LocalMarket;
use crate::market::events::Listener;
use crate::output;
use crate::refusal::refusal;
use crate::tell::Tell;
use anyhow::{Context, Result};
use assay_gateway::AuditReport;
use assay_protocol::{B256, DurationMs, Receipt};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

pub(crate) struct DemoPlan {
    pub(crate) with_cheaters: bool,
    pub(crate) program_started: Instant,
}

/// A verdict takes a prefill; on a loaded machine a slow one.
const VERDICT_LIMIT: Duration = Duration::from_secs(120);

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
        hunt::run(tell, market, gateway, news).await
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
    verification: &str,
) -> Result<Answered> {
    let body = json!({
        "model": market.file.model,
        "messages": [{ "role": "user", "content": question }],
        "max_tokens": max_tokens,
        "temperature": 0,
        "stream": true,
        "stream_options": { "include_usage": true },
        "assay": { "verification": verification },
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
    let answered = ask(tell, market, gateway, question, 96, "staked").await?;
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
