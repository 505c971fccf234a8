//! Judges one receipt from its evidence alone, as deep as this machine allows, and says on what each word rests.
//!
//! The arithmetic is `assay_audit`'s; this file only runs its checks in order and puts them into words.

use crate::home::Home;
use crate::refusal::refusal;
use anyhow::{Context, Result};
use assay_audit::{Evidence, Verdict, check_numbers, check_stop, reexecute};
use assay_model::LoadedModel;
use assay_protocol::ModelId;
use serde::Serialize;
use std::time::Instant;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Depth {
    WithoutModel,
    WithModelIfHere,
    WithModel,
}

/// One check and what came of it.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub(crate) enum Outcome {
    Holds,
    Fails { reason: String },
    NotChecked { reason: String },
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Judgement {
    pub(crate) receipt: assay_protocol::B256,
    pub(crate) signatures: Outcome,
    pub(crate) accounting: Outcome,
    pub(crate) answer: Outcome,
    /// How long the re-execution took, beside what the provider says of the answer itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reexecuted_ms: Option<u64>,
    pub(crate) generated_ms: u64,
}

impl Judgement {
    fn checks(&self) -> [(&'static str, &Outcome, &'static str); 3] {
        [
            (
                "signatures",
                &self.signatures,
                "receipt and offer are signed by the key that the file names",
            ),
            (
                "accounting",
                &self.accounting,
                "hashes, counts, stop and charge agree with prompt, answer and offer",
            ),
            (
                "answer",
                &self.answer,
                "re-executed: every token is the model's own choice",
            ),
        ]
    }

    pub(crate) fn words(&self) -> String {
        let mut out = String::new();
        for (name, outcome, meaning) in self.checks() {
            let line = match outcome {
                Outcome::Holds => format!("  holds        {name:<11} {meaning}\n"),
                Outcome::Fails { reason } => format!("  FAILS        {name:<11} {reason}\n"),
                Outcome::NotChecked { reason } => format!("  not checked  {name:<11} {reason}\n"),
            };
            out.push_str(&line);
        }
        if let Some(ms) = self.reexecuted_ms {
            out.push_str(&format!(
                "  re-executed in {ms} ms; the provider took {} ms\n",
                self.generated_ms
            ));
        }
        out
    }

    pub(crate) fn into_result(self) -> Result<()> {
        let failed = self
            .checks()
            .iter()
            .any(|(_, outcome, _)| matches!(outcome, Outcome::Fails { .. }));
        if failed {
            return Err(refusal(
                format!("receipt {} does not hold", self.receipt),
                "keep the file: it convicts whoever signed it",
            ));
        }
        Ok(())
    }
}

pub(crate) async fn judge(home: &Home, evidence: Evidence, depth: Depth) -> Result<Judgement> {
    let home = home.clone();
    // Re-execution takes every core for seconds.
    tokio::task::spawn_blocking(move || judge_now(&home, &evidence, depth))
        .await
        .context("the audit broke off")?
}

fn judge_now(home: &Home, evidence: &Evidence, depth: Depth) -> Result<Judgement> {
    let receipt = &evidence.receipt.body;
    let mut judgement = Judgement {
        receipt: receipt.request_id,
        signatures: Outcome::Holds,
        accounting: Outcome::Holds,
        answer: Outcome::NotChecked {
            reason: "not asked for".to_owned(),
        },
        reexecuted_ms: None,
        generated_ms: u64::from(receipt.duration.0),
    };
    if let Err(fault) = evidence.check_signatures() {
        judgement.signatures = Outcome::Fails {
            reason: fault.to_string(),
        };
    }
    if let Err(fault) = check_numbers(evidence) {
        judgement.accounting = Outcome::Fails {
            reason: fault.to_string(),
        };
        return Ok(judgement);
    }
    if depth == Depth::WithoutModel {
        return Ok(judgement);
    }
    let model = match find_model(home, receipt.statement.model_id) {
        Some(model) => model,
        None if depth == Depth::WithModel => return Err(no_model(receipt.statement.model_id)),
        None => {
            let reason = "its model is not on this machine (`assay model pull`)".to_owned();
            judgement.answer = Outcome::NotChecked { reason };
            return Ok(judgement);
        }
    };
    if let Err(fault) = check_stop(evidence, &model.tokenizer) {
        judgement.accounting = Outcome::Fails {
            reason: fault.to_string(),
        };
    }
    let started = Instant::now();
    judgement.answer = match reexecute(&model.model, threads(), evidence)? {
        Verdict::Honest { .. } => Outcome::Holds,
        Verdict::Dishonest { reason } => Outcome::Fails {
            reason: reason.to_string(),
        },
    };
    judgement.reexecuted_ms = u64::try_from(started.elapsed().as_millis()).ok();
    Ok(judgement)
}

pub(crate) fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

pub(crate) fn no_model(id: ModelId) -> anyhow::Error {
    refusal(
        format!("model {id} is not on this machine"),
        "get it with `assay model pull`, or `model import FILE`",
    )
}

/// The imported model of this id, if one is here.
pub(crate) fn find_model(home: &Home, id: ModelId) -> Option<LoadedModel> {
    let store = crate::models::store(home);
    let names = store.list().ok()?;
    names
        .iter()
        .filter_map(|entry| store.open(&entry.name).ok())
        .find(|loaded| loaded.model.id() == id)
}
