//! `assay verify PROOF`: whether a proof shows that an answer is the model's own. Believes neither the file nor who made
//! it: signatures, counts and hashes are checked beside the proof, and each is said on its own.

use crate::commands::receipt;
use crate::home::Home;
use crate::judge;
use crate::live::{Answers, UrlArgs};
use crate::output;
use crate::proof_file::{self, Shown};
use crate::refusal::refusal;
use anyhow::{Context, Result};
use assay_audit::{Evidence, check_numbers};
use assay_model::LoadedModel;
use assay_proof::{Claim, Key, Proof};
use serde::Serialize;
use std::path::Path;
use std::time::Instant;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A file made by `assay prove`, the bytes that a node or gateway serves, or the id of a receipt whose proof the
    /// gateway has
    proof: String,

    /// The receipt that it is to prove, as a file or id; needed only where the proof stands alone
    receipt: Option<String>,

    #[command(flatten)]
    url: UrlArgs,

    /// Threads that verify [default: all cores]
    #[arg(long)]
    threads: Option<usize>,

    #[arg(long)]
    json: bool,
}

/// What was found; each part is the reason why not, where there is one.
#[derive(Serialize)]
struct Report {
    receipt: assay_protocol::B256,
    proven: bool,
    /// Who signed the receipt, or why its signatures do not hold. A proof holds without them.
    signatures: Option<String>,
    /// Why counts, hashes or charge do not agree.
    accounting: Option<String>,
    /// Why the proof is rejected.
    rejection: Option<String>,
    proof_bytes: usize,
    verified_ms: u64,
}

pub(crate) async fn run(args: Args, home: &Home) -> Result<()> {
    let (evidence, proof) = load(&args, home).await?;
    let model_id = evidence.receipt.body.statement.model_id;
    let model = judge::find_model(home, model_id).ok_or_else(|| judge::no_model(model_id))?;
    let threads = args.threads.unwrap_or_else(judge::threads).max(1);
    let work = move || check(&model, &evidence, &proof, threads);
    let report = tokio::task::spawn_blocking(work)
        .await
        .context("the verification broke off")?;
    if args.json {
        output::print_json(&report)?;
    } else {
        print!("{}", words(&report));
    }
    if let Some(reason) = &report.rejection {
        return Err(refusal(
            format!("receipt {} is not proven: {reason}", report.receipt),
            "re-execute the answer with `assay audit RECEIPT`: it may be honest without this proof",
        ));
    }
    Ok(())
}

async fn load(args: &Args, home: &Home) -> Result<(Evidence, Proof)> {
    let path = Path::new(&args.proof);
    if !path.is_file() {
        if path.extension().is_some() || args.proof.contains('/') {
            return Err(refusal(
                format!("there is no file {}", args.proof),
                "make one with `assay prove RECEIPT`",
            ));
        }
        let answers = Answers::open(home, &args.url).await?;
        let id = answers.full_id(&args.proof).await?;
        let evidence = answers.evidence(&id.to_string()).await?;
        return Ok((evidence, Proof::from_bytes(answers.proof(&id).await?)?));
    }
    let receipt = match &args.receipt {
        Some(receipt) => Some(receipt::load(home, &args.url, receipt).await?),
        None => None,
    };
    match (proof_file::read(path)?, receipt) {
        // Who names a receipt wants to know about that one.
        (Shown::Whole(file), Some(evidence)) => Ok((evidence, file.proof)),
        (Shown::Whole(file), None) => Ok((file.evidence, file.proof)),
        (Shown::Bare(proof), Some(evidence)) => Ok((evidence, proof)),
        (Shown::Bare(_), None) => Err(refusal(
            format!("{} holds a proof without its receipt", args.proof),
            "name the receipt too: `assay verify PROOF RECEIPT`",
        )),
    }
}

fn check(model: &LoadedModel, evidence: &Evidence, proof: &Proof, threads: usize) -> Report {
    let started = Instant::now();
    let claim = Claim {
        statement: &evidence.receipt.body.statement,
        prompt: &evidence.prompt,
        sampler: &evidence.sampler,
        output: &evidence.output,
    };
    let key = Key::Weights(&model.model);
    let rejection = assay_proof::verify(&key, &claim, proof, threads).err();
    let why = |fault: &dyn std::fmt::Display| fault.to_string();
    Report {
        receipt: evidence.receipt.body.request_id,
        proven: rejection.is_none(),
        signatures: evidence.check_signatures().err().map(|fault| why(&fault)),
        accounting: check_numbers(evidence).err().map(|fault| why(&fault)),
        rejection: rejection.map(|rejection| why(&rejection)),
        proof_bytes: proof.as_bytes().len(),
        verified_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
    }
}

fn words(report: &Report) -> String {
    let mut out = String::new();
    for (name, fault, meaning) in [
        (
            "signatures",
            &report.signatures,
            "receipt and offer are signed by the key that the file names",
        ),
        (
            "accounting",
            &report.accounting,
            "hashes, counts and charge agree with prompt, answer and offer",
        ),
        (
            "answer",
            &report.rejection,
            "proven: every token is the model's own choice",
        ),
    ] {
        out.push_str(&match fault {
            None => format!("  holds        {name:<11} {meaning}\n"),
            Some(reason) => format!("  FAILS        {name:<11} {reason}\n"),
        });
    }
    out.push_str(&format!(
        "  {} bytes of proof, checked in {} ms\n",
        report.proof_bytes, report.verified_ms
    ));
    out
}
