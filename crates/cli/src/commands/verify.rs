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
use assay_proof::{Chosen, Claim, Key, KeyFile, Proof};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::Instant;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A file made by `assay prove`, the bytes that a node or gateway serves, or the id of a receipt whose proof the
    /// gateway has
    proof: String,

    /// The receipt that it is to prove, as a file or id; needed only where the proof stands alone
    receipt: Option<String>,

    /// Check with the model's key instead of the model: a file made by `assay model commit`. Compare the hash that is
    /// printed with the one that whoever you trust published, or make the key yourself
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,

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
    /// The hash of the key that it was checked with, where that was not the model.
    key: Option<assay_protocol::B256>,
    proof_bytes: usize,
    verified_ms: u64,
}

/// A drawn token is chosen by logits that this proof leaves to who has the head.
const NOT_CHOSEN: &str =
    "the pass is proven, but a drawn token takes the model itself to check: leave out --key";

pub(crate) async fn run(args: Args, home: &Home) -> Result<()> {
    let (evidence, proof) = load(&args, home).await?;
    let model_id = evidence.receipt.body.statement.model_id;
    let known = match &args.key {
        Some(path) => Known::Key(Box::new(read_key(path)?)),
        None => Known::Model(Box::new(
            judge::find_model(home, model_id).ok_or_else(|| no_model(model_id))?,
        )),
    };
    let threads = args.threads.unwrap_or_else(judge::threads).max(1);
    let work = move || check(&known, &evidence, &proof, threads);
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

/// What the proof is checked with.
enum Known {
    Model(Box<LoadedModel>),
    Key(Box<KeyFile>),
}

fn no_model(id: assay_protocol::ModelId) -> anyhow::Error {
    refusal(
        format!("model {id} is not on this machine"),
        "get it with `assay model pull`, or check a standalone proof with `--key FILE`",
    )
}

fn read_key(path: &Path) -> Result<KeyFile> {
    let failed = || format!("cannot read {}", path.display());
    let length = std::fs::metadata(path).with_context(failed)?.len();
    anyhow::ensure!(
        length <= KeyFile::BYTES_MAX as u64,
        "{} is too long for a key: {length} bytes",
        path.display()
    );
    let bytes = std::fs::read(path).with_context(failed)?;
    KeyFile::from_bytes(&bytes).map_err(|error| {
        refusal(
            format!("{} is no key: {error}", path.display()),
            "make one with `assay model commit NAME` where the model is",
        )
    })
}

fn check(known: &Known, evidence: &Evidence, proof: &Proof, threads: usize) -> Report {
    let started = Instant::now();
    let claim = Claim {
        statement: &evidence.receipt.body.statement,
        prompt: &evidence.prompt,
        sampler: &evidence.sampler,
        output: &evidence.output,
    };
    let (key, key_hash) = match known {
        Known::Model(model) => (Key::Weights(&model.model), None),
        Known::Key(key) => (Key::Committed(key), Some(key.hash())),
    };
    let rejection = match assay_proof::verify(&key, &claim, proof, threads) {
        Ok(proven) if proven.chosen == Chosen::Checked => None,
        Ok(_) => Some(NOT_CHOSEN.to_owned()),
        Err(rejection) => Some(rejection.to_string()),
    };
    let why = |fault: &dyn std::fmt::Display| fault.to_string();
    Report {
        receipt: evidence.receipt.body.request_id,
        proven: rejection.is_none(),
        signatures: evidence.check_signatures().err().map(|fault| why(&fault)),
        accounting: check_numbers(evidence).err().map(|fault| why(&fault)),
        rejection,
        key: key_hash,
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
    if let Some(key) = &report.key {
        out.push_str(&format!(
            "  checked with the key {key}: is it the model's?\n"
        ));
    }
    out.push_str(&format!(
        "  {} bytes of proof, checked in {} ms\n",
        report.proof_bytes, report.verified_ms
    ));
    out
}
