//! `assay audit RECEIPT`: re-execute an answer at prefill speed. On a running gateway the verdict counts: it is kept,
//! and a liar is benched. On a file it is only said.

use crate::commands::receipt;
use crate::home::Home;
use crate::judge::{self, Depth};
use crate::live::{Answers, UrlArgs};
use crate::output;
use crate::refusal::refusal;
use anyhow::{Context, Result};
use assay_gateway::AuditReport;
use serde_json::Value;
use std::path::Path;
use std::time::Duration;

/// A long answer on a slow machine.
const LIMIT: Duration = Duration::from_secs(600);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A receipt's id, the beginning of it, or a file made by `receipt show --json`
    receipt: String,

    #[command(flatten)]
    url: UrlArgs,

    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: Args, home: &Home) -> Result<()> {
    if !Path::new(&args.receipt).is_file()
        && let Ok(answers @ Answers::Live(_)) = Answers::open(home, &args.url).await
    {
        return on_gateway(&args, &answers).await;
    }
    let evidence = receipt::load(home, &args.url, &args.receipt).await?;
    let judgement = judge::judge(home, evidence, Depth::WithModel).await?;
    if args.json {
        output::print_json(&judgement)?;
    } else {
        print!("{}", judgement.words());
    }
    judgement.into_result()
}

async fn on_gateway(args: &Args, answers: &Answers) -> Result<()> {
    let id = answers.full_id(&args.receipt).await?;
    let Answers::Live(gateway) = answers else {
        return Ok(());
    };
    let value = gateway
        .post(
            &format!("/assay/v1/receipts/{id}/audit"),
            &Value::Null,
            LIMIT,
        )
        .await?;
    let report: AuditReport =
        serde_json::from_value(value).context("the gateway's audit report is of unknown shape")?;
    if args.json {
        output::print_json(&report)?;
    } else {
        println!("{}", report.text);
        println!(
            "re-executed in {} ms; the provider took {} ms to generate it",
            report.audited_ms, report.generated_ms
        );
    }
    if !report.verdict.is_honest() {
        return Err(refusal(
            format!("receipt {id} is false"),
            format!(
                "its provider is benched, and convicted on the chain if it can be: see `assay dispute list`; keep `assay receipt show {} --json`, it convicts whoever signed it",
                output::short_hex(&id)
            ),
        ));
    }
    Ok(())
}
