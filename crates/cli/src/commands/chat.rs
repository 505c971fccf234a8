//! `assay chat`: a conversation through a gateway, with who served each answer, its price and its standing.

use crate::ask::{Answered, Gateway};
use crate::commands::proof;
use crate::home::Home;
use crate::live::{UrlArgs, provider_name};
use crate::output;
use anyhow::{Context, Result};
use assay_protocol::{B256, DurationMs};
use serde_json::{Value, json};
use std::io::{BufRead, IsTerminal, Write};
use std::time::Duration;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Ask this one question and leave; without it, a conversation
    #[arg(value_name = "QUESTION")]
    question: Vec<String>,

    #[command(flatten)]
    url: UrlArgs,

    /// The model, as in `GET /v1/models` [default: the first one there]
    #[arg(long)]
    model: Option<String>,

    /// What the model is told before the conversation
    #[arg(long)]
    system: Option<String>,

    /// The most tokens of one answer
    #[arg(long, default_value_t = 256)]
    max_tokens: u32,

    /// 0 always takes the likeliest token
    #[arg(long)]
    temperature: Option<String>,

    /// Makes a sampled answer repeatable
    #[arg(long)]
    seed: Option<u64>,

    /// Who checks the answer: none, staked (a secret sample is re-executed), optimistic (every answer is, and it is
    /// final once nobody can challenge it any more), or proven (its provider proves it, which takes minutes and a price
    /// of its own; it is final once the proof is checked)
    #[arg(long)]
    verification: Option<String>,
}

pub(crate) async fn run(args: Args, home: &Home) -> Result<()> {
    let gateway = args.url.gateway(home)?;
    let model = match &args.model {
        Some(model) => model.clone(),
        None => first_model(&gateway).await?,
    };
    let mut messages: Vec<Value> = Vec::new();
    if let Some(system) = &args.system {
        messages.push(json!({ "role": "system", "content": system }));
    }
    if !args.question.is_empty() {
        let question = args.question.join(" ");
        let answered = turn(&args, home, &gateway, &model, &mut messages, &question).await?;
        if let Some(id) = to_be_proven(&answered) {
            proof::wait(&gateway, id).await?;
        }
        return Ok(());
    }
    let terminal = std::io::stdin().is_terminal();
    if terminal {
        println!(
            "{model} at {}; an empty line or ctrl-d ends the conversation",
            gateway.url()
        );
    }
    while let Some(question) = read_line(terminal)? {
        if question.is_empty() {
            break;
        }
        // A refusal of one turn does not end the conversation.
        match turn(&args, home, &gateway, &model, &mut messages, &question).await {
            Ok(answered) => {
                if let Some(id) = to_be_proven(&answered) {
                    tokio::spawn(proof::tell(gateway.clone(), id));
                }
            }
            Err(error) => {
                eprintln!("{}", crate::refusal::report(&error));
                messages.pop();
            }
        }
    }
    Ok(())
}

async fn first_model(gateway: &Gateway) -> Result<String> {
    let list = gateway.get("/v1/models").await?;
    let name = list["data"][0]["id"].as_str();
    name.map(str::to_owned).ok_or_else(|| {
        crate::refusal::refusal("the gateway knows no model", "check `assay gateway status`")
    })
}

fn read_line(terminal: bool) -> Result<Option<String>> {
    if terminal {
        print!("\n> ");
        std::io::stdout().flush()?;
    }
    let mut line = String::new();
    let read = std::io::stdin()
        .lock()
        .read_line(&mut line)
        .context("cannot read the question")?;
    Ok((read > 0).then(|| line.trim().to_owned()))
}

async fn turn(
    args: &Args,
    home: &Home,
    gateway: &Gateway,
    model: &str,
    messages: &mut Vec<Value>,
    question: &str,
) -> Result<Answered> {
    messages.push(json!({ "role": "user", "content": question }));
    let mut body = json!({
        "model": model,
        "messages": messages,
        "max_tokens": args.max_tokens,
        "stream": true,
        "stream_options": { "include_usage": true },
    });
    if let Some(temperature) = &args.temperature {
        // Passed on as written: the gateway says what it thinks of it.
        body["temperature"] =
            serde_json::from_str(temperature).unwrap_or(Value::String(temperature.clone()));
    }
    if let Some(seed) = args.seed {
        body["seed"] = json!(seed);
    }
    if let Some(verification) = &args.verification {
        body["assay"] = json!({ "verification": verification });
    }
    let answered = gateway
        .chat(&body, |text| {
            print!("{text}");
            let _ = std::io::stdout().flush();
        })
        .await?;
    println!("\n{}", summary(home, &answered));
    messages.push(json!({ "role": "assistant", "content": answered.text }));
    Ok(answered)
}

/// The receipt of an answer whose proof is to come.
fn to_be_proven(answered: &Answered) -> Option<B256> {
    answered.assay.proof_due?;
    Some(answered.assay.receipt?.body.request_id)
}

/// Who answered, for how much, how fast, and what vouches for it.
fn summary(home: &Home, answered: &Answered) -> String {
    let ms = |time: Duration| {
        output::duration(DurationMs(
            u32::try_from(time.as_millis()).unwrap_or(u32::MAX),
        ))
    };
    let speed = format!(
        "first token after {}, {} in all",
        ms(answered.first_token),
        ms(answered.whole)
    );
    match &answered.assay.receipt {
        Some(receipt) => {
            let body = &receipt.body;
            let final_at = answered.assay.final_at.map_or(String::new(), |at| {
                format!(", final at {} UTC if nobody convicts it", output::date(at))
            });
            let proof_due = answered.assay.proof_due.map_or(String::new(), |at| {
                format!(
                    ", provisional: its proof is promised by {} UTC",
                    output::date(at)
                )
            });
            format!(
                "[{} · {} tokens for {} · {}{final_at}{proof_due} · {speed} · receipt {}]",
                provider_name(home, &body.provider),
                body.statement.n_output.0,
                output::usd(body.charged),
                body.tier.label(),
                output::short_hex(&body.request_id),
            )
        }
        None => format!(
            "[no receipt: {} · {speed}]",
            answered.labels.get("tier").map_or("unverified", |s| s)
        ),
    }
}
