//! `assay receipt list|show|verify`: what was bought, from whom, for how much, and whether it holds.
//!
//! `verify` needs nobody: the file carries everything that its signatures speak of.

use crate::home::Home;
use crate::judge::{self, Depth};
use crate::live::{Answers, UrlArgs, provider_name};
use crate::output::{self, Table};
use crate::refusal::refusal;
use anyhow::{Context, Result};
use assay_audit::Evidence;
use assay_gateway::{AuditState, DisputeState, Entry, ProofState, ReceiptEntry};
use assay_protocol::MicroUsd;
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// The newest answers with their price and standing
    List {
        #[command(flatten)]
        url: UrlArgs,
        /// How many
        #[arg(long, default_value_t = 20)]
        limit: usize,
        #[arg(long)]
        json: bool,
    },
    /// One receipt in full
    Show {
        /// The receipt's id, or the beginning of it
        id: String,
        #[command(flatten)]
        url: UrlArgs,
        /// The self-contained evidence, as `verify` takes it
        #[arg(long)]
        json: bool,
    },
    /// Check a receipt alone: signatures, hashes, counts, price, and the answer itself where its model is here
    Verify {
        /// A file made by `receipt show --json`, or a receipt's id
        receipt: String,
        #[command(flatten)]
        url: UrlArgs,
        /// Do not run the model
        #[arg(long)]
        quick: bool,
        #[arg(long)]
        json: bool,
    },
}

pub(crate) async fn run(args: Args, home: &Home) -> Result<()> {
    match args.action {
        Action::List { url, limit, json } => list(home, &url, limit, json).await,
        Action::Show { id, url, json } => show(home, &url, &id, json).await,
        Action::Verify {
            receipt,
            url,
            quick,
            json,
        } => {
            let evidence = load(home, &url, &receipt).await?;
            verify(home, evidence, quick, json).await
        }
    }
}

/// A file where there is one of this name, else the receipt of this id.
pub(crate) async fn load(home: &Home, url: &UrlArgs, receipt: &str) -> Result<Evidence> {
    let path = PathBuf::from(receipt);
    if path.is_file() {
        return read_file(&path);
    }
    if path.extension().is_some() || receipt.contains('/') {
        return Err(refusal(
            format!("there is no file {receipt}"),
            "save one with `assay receipt show ID --json`",
        ));
    }
    Answers::open(home, url).await?.evidence(receipt).await
}

fn read_file(path: &Path) -> Result<Evidence> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&bytes).map_err(|error| {
        refusal(
            format!("{} is no receipt file: {error}", path.display()),
            "save one with `assay receipt show ID --json`",
        )
    })
}

async fn list(home: &Home, url: &UrlArgs, limit: usize, json: bool) -> Result<()> {
    let entries = Answers::open(home, url).await?.newest(limit).await?;
    if json {
        return output::print_json(&entries);
    }
    let mut table = Table::new(&[
        "receipt",
        "served at",
        "by",
        "tier",
        "in",
        "out",
        "charged",
        "standing",
    ]);
    let mut total = MicroUsd::ZERO;
    for entry in &entries {
        match entry {
            Entry::Receipt(receipt) => {
                total = MicroUsd(total.0.saturating_add(receipt.charged.0));
                table.row([
                    output::short(&receipt.id),
                    output::date(receipt.at),
                    provider_name(home, &receipt.provider),
                    receipt.tier.label().to_owned(),
                    receipt.prompt_tokens.to_string(),
                    receipt.output_tokens.to_string(),
                    output::usd(receipt.charged),
                    standing(receipt),
                ]);
            }
            Entry::Unverified(answer) => {
                let count =
                    |tokens: Option<u32>| tokens.map_or("?".to_owned(), |count| count.to_string());
                table.row([
                    output::short(&answer.id),
                    output::date(answer.at),
                    format!("cloud {}", answer.cloud),
                    "unverified".to_owned(),
                    count(answer.prompt_tokens),
                    count(answer.output_tokens),
                    answer.estimated.map_or("?".to_owned(), output::usd),
                    "nobody can check it".to_owned(),
                ]);
            }
        }
    }
    if table.is_empty() {
        println!("no answers yet; ask something with `assay chat`");
        return Ok(());
    }
    print!("{}", table.render(""));
    println!(
        "{} for the receipts shown; look into one with `assay receipt show ID`",
        output::usd(total)
    );
    Ok(())
}

/// What is known about an answer, never more.
pub(crate) fn standing(entry: &ReceiptEntry) -> String {
    match &entry.proof {
        None => audited(entry),
        Some(ProofState::Waiting { due, .. }) => {
            format!(
                "provisional: its proof is promised by {} UTC",
                output::date(*due)
            )
        }
        Some(ProofState::Holds {
            bytes,
            verified_ms,
            price,
            paid,
            ..
        }) => {
            let price = output::usd(*price);
            let price = match paid {
                true => format!("{price} paid for it"),
                false => format!("{price} due for it"),
            };
            format!("final: proven, {bytes} bytes checked in {verified_ms} ms, {price}")
        }
        Some(ProofState::Failed { reason }) => {
            format!("NOT PROVEN: {reason}; {}", audited(entry))
        }
    }
}

fn audited(entry: &ReceiptEntry) -> String {
    match &entry.audit {
        AuditState::NotSampled => "signed, not sampled".to_owned(),
        AuditState::Waiting => "audit to come".to_owned(),
        AuditState::Honest { audited_ms } => match entry.final_at {
            None => format!("audited in {audited_ms} ms: honest"),
            Some(_) if entry.is_final(crate::live::now()) => {
                format!("final: audited in {audited_ms} ms, and its window is over")
            }
            Some(at) => format!(
                "audited in {audited_ms} ms: honest; final at {} UTC",
                output::date(at)
            ),
        },
        AuditState::Dishonest { reason } => format!("CAUGHT: {reason}{}", sequel(entry)),
        AuditState::Refused { reason } => format!("REFUSED: {reason}{}", sequel(entry)),
        AuditState::Failed { reason } => format!("could not be audited: {reason}"),
    }
}

/// What became of a false answer on the chain.
fn sequel(entry: &ReceiptEntry) -> String {
    match &entry.dispute {
        None => String::new(),
        Some(DisputeState::Waiting) => "; a dispute is to come".to_owned(),
        Some(DisputeState::Open { game }) => {
            format!("; dispute {} goes on", output::short_hex(game))
        }
        Some(DisputeState::Convicted { bounty, refund, .. }) => format!(
            "; CONVICTED on the chain, {} came back as payer and {} as challenger",
            output::usd(*refund),
            output::usd(*bounty)
        ),
        Some(DisputeState::Lost { bond, .. }) => {
            format!(
                "; the dispute was lost, and a bond of {}",
                output::usd(*bond)
            )
        }
        Some(DisputeState::NotOpened { reason }) => format!("; no dispute: {reason}"),
    }
}

async fn show(home: &Home, url: &UrlArgs, id: &str, json: bool) -> Result<()> {
    let answers = Answers::open(home, url).await?;
    let evidence = answers.evidence(id).await?;
    if json {
        return output::print_json(&evidence);
    }
    let receipt = &evidence.receipt.body;
    let statement = &receipt.statement;
    let entries = answers.newest(10_000).await?;
    let audit = entries.iter().find_map(|entry| match entry {
        Entry::Receipt(entry) if entry.id == receipt.request_id => Some(standing(entry)),
        _ => None,
    });
    let rows = [
        ("receipt", receipt.request_id.to_string()),
        (
            "provider",
            format!(
                "{} ({})",
                receipt.provider,
                provider_name(home, &receipt.provider)
            ),
        ),
        ("payer", receipt.payer.to_string()),
        ("model", statement.model_id.to_string()),
        (
            "prompt",
            format!(
                "{} tokens, root {}",
                statement.n_prompt.0, statement.prompt_root
            ),
        ),
        (
            "answer",
            format!(
                "{} tokens, root {}",
                statement.n_output.0, statement.output_root
            ),
        ),
        ("ended by", format!("{:?}", statement.stop_reason)),
        ("sampler", format!("{}", statement.sampler_hash)),
        ("tier", receipt.tier.label().to_owned()),
        (
            "charged",
            format!(
                "{}, {} in all on the channel",
                output::usd(receipt.charged),
                output::usd(receipt.cumulative)
            ),
        ),
        ("channel", receipt.channel_id.to_string()),
        (
            "served at",
            format!("{} UTC", output::date(receipt.served_at)),
        ),
        ("first token", output::duration(receipt.ttft)),
        ("whole answer", output::duration(receipt.duration)),
        ("signed by", evidence.signer.to_string()),
        ("standing", audit.unwrap_or_else(|| "unknown".to_owned())),
    ];
    for (name, value) in rows {
        println!("{name:<13} {value}");
    }
    println!(
        "\nverify it alone: assay receipt show {} --json > receipt.json",
        output::short_hex(&receipt.request_id)
    );
    println!("                 assay receipt verify receipt.json");
    Ok(())
}

async fn verify(home: &Home, evidence: Evidence, quick: bool, json: bool) -> Result<()> {
    let depth = if quick {
        Depth::WithoutModel
    } else {
        Depth::WithModelIfHere
    };
    let judgement = judge::judge(home, evidence, depth).await?;
    if json {
        output::print_json(&judgement)?;
    } else {
        print!("{}", judgement.words());
    }
    judgement.into_result()
}
