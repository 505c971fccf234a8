//! Audits in the background: re-executes what the coin chose, when nothing is being served, and draws
//! the consequence. A verdict comes from `assay_audit`; this file brings evidence, patience and a clock.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use assay_audit::{CannotAudit, Evidence, Verdict, check_accounting, reexecute};
use assay_openai::ApiError;
use assay_protocol::{B256, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::events::What;
use crate::gateway::Gateway;
use crate::http::store_error;
use crate::store::{AuditState, Due, Entry};

/// What an audit found, and what it took.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditReport {
    pub id: B256,
    #[serde(flatten)]
    pub verdict: Verdict,
    /// The verdict in plain words.
    pub text: String,
    pub audited_ms: u64,
    /// What the provider says that the answer took: with requests beside it, more than alone.
    pub generated_ms: u64,
}

/// Works until the gateway stops: first what an earlier life left, then what comes.
pub(crate) async fn run(
    gateway: Arc<Gateway>,
    mut coming: mpsc::Receiver<Due>,
    left_over: Vec<Due>,
) {
    let stop = gateway.shutdown_token();
    let mut waiting = VecDeque::from(left_over);
    loop {
        if waiting.is_empty() {
            tokio::select! {
                due = coming.recv() => match due {
                    Some(due) => waiting.push_back(due),
                    None => return,
                },
                () = stop.cancelled() => return,
            }
        }
        while let Ok(due) = coming.try_recv() {
            waiting.push_back(due);
        }
        tokio::select! {
            () = quiet(&gateway, next_deadline(&waiting)) => {}
            () = stop.cancelled() => return,
        }
        let Some(due) = most_urgent(&waiting).and_then(|at| waiting.remove(at)) else {
            continue;
        };
        match judge(&gateway, due.id).await {
            Err(error) => {
                tracing::warn!(id = %due.id, %error, "an audit did not come to a verdict");
            }
            Ok(_) if due.by.is_some_and(|by| by < gateway.now()) => {
                tracing::warn!(id = %due.id, "an audit came after its answer could be challenged");
            }
            Ok(_) => {}
        }
        // The queue is bounded; what did not fit waits on disk.
        if waiting.is_empty() && coming.is_empty() && gateway.take_overflow() {
            match gateway.write(|store| store.scan()).await {
                Ok(scan) => waiting.extend(scan.audits),
                Err(error) => tracing::warn!(%error, "waiting audits cannot be read"),
            }
        }
    }
}

/// Which comes next: what has a deadline, the earliest first, then the oldest.
fn most_urgent(waiting: &VecDeque<Due>) -> Option<usize> {
    let by = |due: &Due| due.by.map_or(u64::MAX, |by| by.0);
    // The first of several least ones.
    (0..waiting.len()).min_by_key(|at| by(&waiting[*at]))
}

fn next_deadline(waiting: &VecDeque<Due>) -> Option<Timestamp> {
    most_urgent(waiting).and_then(|at| waiting[at].by)
}

/// Serving comes first: waits until nothing is on its way, but not for ever, and not where a deadline would pass.
async fn quiet(gateway: &Gateway, by: Option<Timestamp>) {
    let mut active = gateway.active();
    let idle = active.wait_for(|active| *active == 0);
    let patience = gateway.limits().audit_patience;
    let left = by.map(|by| Duration::from_secs(by.0.saturating_sub(gateway.now().0) / 4));
    let patience = left.map_or(patience, |left| left.min(patience));
    let _ = tokio::time::timeout(patience, idle).await;
}

/// Audits one answer now and draws the consequence.
pub(crate) async fn judge(gateway: &Gateway, id: B256) -> Result<AuditReport, ApiError> {
    let read = move |store: &crate::store::Store| Ok((store.entry(&id)?, store.evidence(&id)?));
    let (entry, evidence) = gateway.write(read).await.map_err(store_error)?;
    let (Some(Entry::Receipt(entry)), Some(evidence)) = (entry, evidence) else {
        let message = format!("there is no receipt {id}: see GET /assay/v1/receipts");
        return Err(ApiError::new(
            404,
            "invalid_request_error",
            "not_found",
            message,
        ));
    };
    let model_id = evidence.receipt.body.statement.model_id;
    let Some(model) = gateway.model_by_id(&model_id).cloned() else {
        let reason = format!("this gateway does not hold model {model_id}; import it to audit");
        keep(
            gateway,
            id,
            AuditState::Failed {
                reason: reason.clone(),
            },
        )
        .await?;
        return Err(ApiError::unavailable(reason, 60_000));
    };
    let generated_ms = u64::from(evidence.receipt.body.duration.0);
    let threads = gateway.config().audit_threads.max(1);
    let started = Instant::now();
    let provider = entry.provider;
    let judged = tokio::task::spawn_blocking(move || verdict(&model, threads, &evidence))
        .await
        .map_err(|_| ApiError::internal("the audit was dropped: try again"))?;
    let audited_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let verdict = match judged {
        Ok(verdict) => verdict,
        Err(cannot) => {
            let reason = cannot.to_string();
            keep(
                gateway,
                id,
                AuditState::Failed {
                    reason: reason.clone(),
                },
            )
            .await?;
            return Err(ApiError::internal(format!("no verdict: {reason}")));
        }
    };
    let text = verdict.to_string();
    let honest = verdict.is_honest();
    gateway.tell(What::Audited {
        request_id: id,
        provider,
        honest,
        reason: text.clone(),
    });
    conclude(gateway, &entry.audit, id, provider, &verdict, audited_ms).await?;
    Ok(AuditReport {
        id,
        verdict,
        text,
        audited_ms,
        generated_ms,
    })
}

/// Accounting again, as the evidence may have come from disk, then every token.
fn verdict(
    model: &assay_model::LoadedModel,
    threads: usize,
    evidence: &Evidence,
) -> Result<Verdict, CannotAudit> {
    if let Err(reason) = check_accounting(evidence, &model.tokenizer) {
        return Ok(Verdict::Dishonest { reason });
    }
    reexecute(&model.model, threads, evidence)
}

async fn conclude(
    gateway: &Gateway,
    before: &AuditState,
    id: B256,
    provider: assay_protocol::Address,
    verdict: &Verdict,
    audited_ms: u64,
) -> Result<(), ApiError> {
    // An answer that was audited before, or refused on arrival, does not count twice.
    let counts = matches!(
        before,
        AuditState::NotSampled | AuditState::Waiting | AuditState::Failed { .. }
    );
    let (record, ()) = gateway.providers().amend(&provider, |record| {
        if counts {
            record.audited += 1;
            record.found_honest += u64::from(verdict.is_honest());
        }
    });
    let state = match verdict {
        Verdict::Honest { .. } => AuditState::Honest { audited_ms },
        Verdict::Dishonest { reason } => AuditState::Dishonest {
            reason: reason.clone(),
        },
    };
    if counts {
        let change = move |store: &crate::store::Store| {
            store.set_audit(&id, state, Some((provider, &record)))
        };
        gateway.write(change).await.map_err(store_error)?;
    }
    if let Verdict::Dishonest { reason } = verdict {
        gateway.bench(provider, reason.to_string(), id).await;
        if reason.convinces_a_third_party() {
            gateway.accuse(id).await;
        }
    }
    Ok(())
}

async fn keep(gateway: &Gateway, id: B256, state: AuditState) -> Result<(), ApiError> {
    gateway
        .write(move |store| store.set_audit(&id, state, None))
        .await
        .map_err(store_error)
}

impl Gateway {
    /// Audits an answer at once, sampled or not.
    pub async fn audit_now(&self, id: B256) -> Result<AuditReport, ApiError> {
        judge(self, id).await
    }
}
