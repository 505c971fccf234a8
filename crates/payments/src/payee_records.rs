//! What a payer's record of service must be before a payee lets it count: signed by the channel's voucher signer, sound,
//! never less than an earlier one, and nowhere more than the payee's own books say. Decides only.

use assay_protocol::{B256, Domain, MicroUsd, ServiceRecord, SignatureError, Signed, Timestamp};
use serde::{Deserialize, Serialize};

use crate::payee::Account;

/// Failures that are let pass whatever was answered: a bad minute is not worth a quarrel.
const FAILURES_FREE: u64 = 5;

/// What the payee itself counted on a channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Served {
    pub requests: u64,
    pub prompt_tokens: u64,
    pub output_tokens: u64,
    pub revenue: MicroUsd,
}

/// The newest record of a channel, and what of it stands on the scoreboard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordRow {
    pub record: Signed<ServiceRecord>,
    pub taken_at: Timestamp,
    /// What was posted last for this channel, by whomever, as far as we know.
    pub posted: Option<ServiceRecord>,
}

impl RecordRow {
    /// What the scoreboard has of this channel before ours.
    pub fn previous(&self) -> ServiceRecord {
        self.posted.unwrap_or(ServiceRecord {
            channel_id: B256::ZERO,
            service: Default::default(),
        })
    }

    /// Whether the scoreboard would take it, once so much is claimed on its channel.
    pub fn can_be_posted(&self, claimed: MicroUsd) -> bool {
        let record = &self.record.body;
        let adds = self.posted != Some(*record);
        adds && record.service.revenue <= claimed && record.service.holds(&self.previous().service)
    }
}

/// Why a record is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordRefusal {
    #[error(
        "channel {0} is not known here: send records of channels that this node was paid through"
    )]
    UnknownChannel(B256),
    #[error("the record is not the voucher signer's: {0}")]
    Signature(SignatureError),
    #[error("the record's histograms do not fit its requests")]
    Unsound,
    #[error("the record forgets what an earlier one counted: records are totals")]
    Shrunk,
    #[error("the record counts {got} {what}, this node {own}: the receipts say how many")]
    MoreThanServed {
        what: &'static str,
        got: u64,
        own: u64,
    },
    #[error("{failures} failures beside {requests} answers are not signed here: post them alone")]
    TooManyFailures { failures: u32, requests: u32 },
}

/// Whether this record may count. `failures_percent` is the most that failures may be of all that was asked.
pub fn judge(
    account: Option<&Account>,
    known: Option<&RecordRow>,
    record: &Signed<ServiceRecord>,
    scoreboard: &Domain,
    failures_percent: u8,
) -> Result<(), RecordRefusal> {
    let body = &record.body;
    let account = account.ok_or(RecordRefusal::UnknownChannel(body.channel_id))?;
    record
        .check(scoreboard, account.config.voucher_signer())
        .map_err(RecordRefusal::Signature)?;
    let service = &body.service;
    if !service.is_sound() {
        return Err(RecordRefusal::Unsound);
    }
    if known.is_some_and(|known| !service.holds(&known.record.body.service)) {
        return Err(RecordRefusal::Shrunk);
    }
    let own = &account.served;
    for (what, got, own) in [
        ("answers", u64::from(service.requests), own.requests),
        ("prompt tokens", service.prompt_tokens, own.prompt_tokens),
        ("output tokens", service.output_tokens, own.output_tokens),
        ("micro-dollars", service.revenue.0, own.revenue.0),
    ] {
        if got > own {
            return Err(RecordRefusal::MoreThanServed { what, got, own });
        }
    }
    let failures = u64::from(service.failures);
    let asked = failures + u64::from(service.requests);
    if failures > FAILURES_FREE && failures * 100 > asked * u64::from(failures_percent) {
        return Err(RecordRefusal::TooManyFailures {
            failures: service.failures,
            requests: service.requests,
        });
    }
    Ok(())
}
