//! `assay prove RECEIPT`: the proof that an answer is the model's own, made here and written into one file with the
//! receipt. Takes minutes of every core, and needs nobody's leave: whoever has the answer can prove it.

mod bench;

use crate::commands::receipt;
use crate::home::Home;
use crate::judge;
use crate::live::UrlArgs;
use crate::output;
use crate::progress::{Bar, Unit};
use crate::proof_file::ProofFile;
use crate::refusal::refusal;
use anyhow::{Context, Result};
use assay_audit::Evidence;
use assay_model::LoadedModel;
use assay_proof::{Claim, Options, Phase, Progress, Proof};
use serde_json::json;
use std::path::PathBuf;
use std::time::Instant;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A receipt's id, the beginning of it, or a file made by `receipt show --json`
    #[arg(required_unless_present = "bench")]
    receipt: Option<String>,

    #[command(flatten)]
    url: UrlArgs,

    /// Where the proof goes [default: the receipt's id with .proof]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,

    /// A proof that `assay verify --key` checks without the model: takes longer, and needs a greedy answer
    #[arg(long)]
    standalone: bool,

    /// Measure a proof of a generated answer instead, phase by phase
    #[arg(long, conflicts_with_all = ["receipt", "out"])]
    bench: bool,

    /// Models that are measured [default: smollm2]
    #[arg(long = "model", value_name = "NAME", requires = "bench")]
    models: Vec<String>,

    /// Positions of the answer that is measured, a power of two
    #[arg(long, default_value_t = 256, requires = "bench")]
    tokens: usize,

    /// Threads that prove [default: all cores]
    #[arg(long)]
    threads: Option<usize>,

    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: Args, home: &Home) -> Result<()> {
    let threads = args.threads.unwrap_or_else(judge::threads).max(1);
    let Some(receipt) = args.receipt else {
        let home = home.clone();
        let work = move || {
            bench::run(
                &home,
                &args.models,
                args.tokens,
                threads,
                args.standalone,
                args.json,
            )
        };
        return tokio::task::spawn_blocking(work)
            .await
            .context("the bench broke off")?;
    };
    let evidence = receipt::load(home, &args.url, &receipt).await?;
    let statement = evidence.receipt.body.statement;
    let model = judge::find_model(home, statement.model_id)
        .ok_or_else(|| judge::no_model(statement.model_id))?;
    let id = evidence.receipt.body.request_id;
    let out = args
        .out
        .unwrap_or_else(|| PathBuf::from(format!("{}.proof", output::short_hex(&id))));
    let started = Instant::now();
    let work = move || prove(&model, threads, args.standalone, evidence);
    let file = tokio::task::spawn_blocking(work)
        .await
        .context("the prover broke off")??;
    let proved_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let proof_bytes = file.proof.as_bytes().len();
    file.write(&out)?;
    if args.json {
        return output::print_json(&json!({
            "receipt": id,
            "file": out,
            "proof_bytes": proof_bytes,
            "tokens": statement.n_prompt.0 + statement.n_output.0,
            "proved_ms": proved_ms,
        }));
    }
    println!(
        "{} proves receipt {}: {} bytes of proof for {} tokens of prompt and {} of answer",
        out.display(),
        output::short_hex(&id),
        proof_bytes,
        statement.n_prompt.0,
        statement.n_output.0,
    );
    let (who, key) = match args.standalone {
        true => ("the model's key", " --key KEY"),
        false => ("the model", ""),
    };
    println!(
        "whoever has {who} checks it with: assay verify {}{key}",
        out.display()
    );
    Ok(())
}

fn prove(
    model: &LoadedModel,
    threads: usize,
    standalone: bool,
    evidence: Evidence,
) -> Result<ProofFile> {
    let made = match standalone {
        true => Some(assay_proof::setup(&model.model, threads)?),
        false => None,
    };
    let options = Options {
        threads,
        weights: made.as_ref().map(|(_, weights)| weights),
    };
    let claim = Claim {
        statement: &evidence.receipt.body.statement,
        prompt: &evidence.prompt,
        sampler: &evidence.sampler,
        output: &evidence.output,
    };
    let mut phases = Phases::default();
    let mut progress = |told: Progress| phases.tell(told);
    let proof = assay_proof::prove_with(&model.model, &claim, &options, &mut progress);
    phases.end();
    let proof: Proof = proof.map_err(|error| {
        refusal(
            format!("this answer cannot be proven: {error}"),
            "re-execute it with `assay audit RECEIPT`",
        )
    })?;
    Ok(ProofFile { evidence, proof })
}

/// One bar a phase, each with its own estimate.
#[derive(Default)]
struct Phases {
    bar: Option<(Phase, Bar)>,
}

impl Phases {
    fn tell(&mut self, told: Progress) {
        if self
            .bar
            .as_ref()
            .is_none_or(|(phase, _)| *phase != told.phase)
        {
            self.end();
            let at = Phase::ALL.iter().position(|phase| *phase == told.phase);
            let label = format!(
                "{}/{} {}",
                at.map_or(0, |at| at + 1),
                Phase::ALL.len(),
                told.phase.label()
            );
            let bar = Bar::start(&label, Unit::Steps, u64::from(told.of));
            self.bar = Some((told.phase, bar));
        }
        if let Some((_, bar)) = &self.bar {
            bar.set(u64::from(told.done), u64::from(told.of));
        }
    }

    fn end(&mut self) {
        if let Some((_, bar)) = self.bar.take() {
            bar.finish("done");
        }
    }
}
