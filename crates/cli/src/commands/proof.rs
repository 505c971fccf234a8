//! Waiting for a proof that was bought: how far it is, and when it is in. The gateway fetches, checks and pays by itself;
//! here it is only watched, and whoever stops watching loses nothing.

use crate::ask::Gateway;
use crate::output;
use crate::progress::{Bar, Unit};
use crate::refusal::refusal;
use anyhow::{Context, Result};
use assay_gateway::{Entry, ProofPhase, ProofProgress, ProofState, ProofStatus, ReceiptEntry};
use assay_protocol::B256;
use serde_json::Value;
use std::time::Duration;

/// How often the gateway is asked.
const LOOK: Duration = Duration::from_millis(500);
/// Answers among which one of this conversation is looked for.
const NEWEST: usize = 1_000;

/// Shows how far the proof is until it is in; an error if none comes.
pub(super) async fn wait(gateway: &Gateway, id: B256) -> Result<()> {
    eprintln!("waiting for the proof; ctrl-c leaves that to the gateway");
    let mut bar: Option<(String, Bar)> = None;
    let said = loop {
        let entry = look(gateway, id).await?;
        if let Some(said) = outcome(&entry) {
            break said;
        }
        let (label, done, of) = progress(gateway, id).await;
        if bar.as_ref().is_none_or(|(before, _)| *before != label) {
            if let Some((_, bar)) = bar.take() {
                bar.finish("done");
            }
            let fresh = Bar::start(&label, Unit::Steps, u64::from(of));
            bar = Some((label, fresh));
        }
        if let Some((_, bar)) = &bar {
            bar.set(u64::from(done), u64::from(of));
        }
        tokio::time::sleep(LOOK).await;
    };
    if let Some((_, bar)) = bar {
        bar.finish("done");
    }
    match said {
        Ok(words) => println!("{words}"),
        Err(reason) => {
            return Err(refusal(
                reason,
                format!("see `assay receipt show {}`", output::short_hex(&id)),
            ));
        }
    }
    Ok(())
}

/// Says in one line when the proof is in, or that none came.
pub(super) async fn tell(gateway: Gateway, id: B256) {
    loop {
        tokio::time::sleep(LOOK).await;
        // A gateway that is away for a while is asked again.
        let Ok(entry) = look(&gateway, id).await else {
            continue;
        };
        match outcome(&entry) {
            None => {}
            Some(Ok(said) | Err(said)) => return println!("\n{said}"),
        }
    }
}

/// What came of the proof, in one line; nothing while it is under way.
fn outcome(entry: &ReceiptEntry) -> Option<Result<String, String>> {
    let id = output::short_hex(&entry.id);
    match &entry.proof {
        Some(ProofState::Waiting { .. }) => None,
        Some(ProofState::Holds {
            bytes,
            verified_ms,
            price,
            ..
        }) => Some(Ok(format!(
            "[proven: the answer is final · {bytes} bytes checked in {verified_ms} ms, for {} · receipt {id}]",
            output::usd(*price)
        ))),
        Some(ProofState::Failed { reason }) => Some(Err(format!(
            "receipt {id} is not proven: {reason}; it was not paid for, and the answer is re-executed instead"
        ))),
        None => Some(Err(format!("no proof was bought with receipt {id}"))),
    }
}

async fn look(gateway: &Gateway, id: B256) -> Result<ReceiptEntry> {
    let mut list = gateway
        .get(&format!("/assay/v1/receipts?limit={NEWEST}"))
        .await?;
    let entries: Vec<Entry> = serde_json::from_value(list["data"].take())
        .context("the gateway's list is of unknown shape")?;
    let found = entries.into_iter().find_map(|entry| match entry {
        Entry::Receipt(entry) if entry.id == id => Some(entry),
        _ => None,
    });
    found.with_context(|| format!("the gateway does not list receipt {id} any more"))
}

/// How far its prover says that it is, as a label and steps.
async fn progress(gateway: &Gateway, id: B256) -> (String, u32, u32) {
    let told = gateway.get(&format!("/v1/receipts/{id}/proof")).await;
    let progress = told.ok().and_then(|mut told: Value| {
        serde_json::from_value::<ProofProgress>(told["progress"].take()).ok()
    });
    let progress = progress.unwrap_or_default();
    let label = match (progress.status, progress.phase) {
        (ProofStatus::Proving, Some(phase)) => format!("proving: {}", phase_label(phase)),
        (ProofStatus::Waiting, _) => {
            format!("{} proofs come first", progress.ahead.unwrap_or(0))
        }
        _ => "proof".to_owned(),
    };
    (label, progress.done, progress.of)
}

fn phase_label(phase: ProofPhase) -> &'static str {
    match phase {
        ProofPhase::Witness => "witness",
        ProofPhase::Commit => "commit",
        ProofPhase::Lookup => "lookup",
        ProofPhase::Sumcheck => "sumcheck",
        ProofPhase::Open => "open",
        ProofPhase::Other => "…",
    }
}
