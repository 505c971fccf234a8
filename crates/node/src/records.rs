//! Records of service: payers send theirs here, and those that say no more than our own books do are posted with the
//! next claims. They never keep a claim back.

use std::collections::BTreeMap;
use std::sync::Arc;

use assay_chain::{ChainError, Claim, ServiceEntry, ServicePost};
use assay_payments::payee_records::RecordRow;
use assay_payments::{LedgerError, RecordError};
use assay_protocol::{B256, ServiceBatch, ServiceRecord, Signed, TypedData};
use serde::{Deserialize, Serialize};

use crate::app::App;
use crate::clock::now;

/// Records taken in one message.
pub(crate) const MESSAGE_MAX: usize = 64;
/// Bytes of such a message.
pub(crate) const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// Records posted in one transaction.
const POST_MAX: usize = 50;

/// What became of the records in a message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordsAnswer {
    /// Channels whose record is kept, and will be posted.
    pub taken: Vec<B256>,
    pub refused: Vec<RefusedRecord>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedRecord {
    pub channel_id: B256,
    pub reason: String,
}

/// Judges and keeps records; durable when this returns.
pub(crate) async fn take(
    app: &Arc<App>,
    records: Vec<Signed<ServiceRecord>>,
) -> Result<RecordsAnswer, LedgerError> {
    let domain = app.till.market.deployment().scoreboard_domain();
    let failures = app.limits.failures_percent;
    let work = move |ledger: &mut assay_payments::PayeeLedger| {
        let mut answer = RecordsAnswer::default();
        for record in records {
            let channel_id = record.body.channel_id;
            match ledger.take_record(&record, &domain, failures, now()) {
                Ok(()) => answer.taken.push(channel_id),
                Err(RecordError::Refused(reason)) => answer.refused.push(RefusedRecord {
                    channel_id,
                    reason: reason.to_string(),
                }),
                Err(RecordError::Ledger(error)) => return Err(error),
            }
        }
        Ok(answer)
    };
    app.till.with_ledger(work).await
}

/// The records that can be posted with these claims, signed; None if there are none.
pub(crate) async fn to_post(
    app: &App,
    claims: &[Claim],
) -> Result<Option<ServicePost>, ChainError> {
    let market = &app.till.market;
    if market.deployment().scoreboard.is_zero() {
        return Ok(None);
    }
    let totals: BTreeMap<B256, _> = claims
        .iter()
        .map(|claim| (claim.voucher.voucher.channel_id, claim.total_claimed))
        .collect();
    // What is claimed on a channel once these claims are through.
    let candidates: Vec<_> = {
        let ledger = app.till.ledger();
        let rows = ledger.records().filter_map(|row| {
            let account = ledger.account(&row.record.body.channel_id)?;
            let claimed = totals.get(&account.channel_id).copied();
            let claimed = claimed.unwrap_or_default().max(account.chain.claimed);
            let adds = row.posted != Some(row.record.body);
            (adds && row.record.body.service.revenue <= claimed)
                .then(|| (account.config, claimed, row.clone()))
        });
        rows.take(POST_MAX).collect()
    };
    let mut entries = Vec::new();
    for (config, claimed, row) in candidates {
        let row = known(app, row).await?;
        if row.can_be_posted(claimed) {
            entries.push(ServiceEntry {
                config,
                previous: row.previous(),
                record: row.record,
            });
        }
    }
    if entries.is_empty() {
        return Ok(None);
    }
    let batch = ServiceBatch(entries.iter().map(|entry| entry.record.body).collect());
    let digest = batch.digest(&market.deployment().scoreboard_domain());
    Ok(Some(ServicePost {
        provider: app.provider,
        signature: Some(app.till.relay.sign_digest(digest)),
        entries,
    }))
}

/// The row with what the scoreboard really has: its payer may have posted alone, or a reorganization taken one away.
async fn known(app: &App, row: RecordRow) -> Result<RecordRow, ChainError> {
    let market = &app.till.market;
    let id = row.record.body.channel_id;
    let hash = market.posted_service(id).await?;
    let ours = row.posted.map_or(B256::ZERO, |posted| posted.struct_hash());
    if hash == ours {
        return Ok(row);
    }
    let posted = if hash.is_zero() {
        None
    } else {
        market.posted_record(id).await?
    };
    let entered = app
        .till
        .with_ledger(move |ledger| ledger.posted(&id, posted))
        .await;
    if let Err(error) = entered {
        tracing::warn!(%error, "what the scoreboard has could not be kept");
    }
    Ok(RecordRow { posted, ..row })
}
