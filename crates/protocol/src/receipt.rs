//! The receipt: a statement plus commerce, signed by the provider so that a contract can check it
//! alone. It is the only thing that the honest path makes.

use alloy_primitives::{Address, B256};
use serde::{Deserialize, Serialize};

use crate::{DurationMs, MicroUsd, Statement, Timestamp};

/// Who checks an answer, and what that rests on (PROTOCOL section 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Tier {
    /// Signature and accounting only.
    None = 0,
    /// A private-coin sample is re-executed by the payer.
    Staked = 1,
    /// Every answer is re-executed by at least one watcher before the payout.
    Optimistic = 2,
    /// A succinct proof is checked.
    Proven = 3,
    /// A float backend under statistical audits.
    Tolerant = 4,
    /// A centralized cloud: nothing is checked. Never stands in a signed receipt.
    Unverified = 5,
}

impl Tier {
    /// The word that requests, headers and bills use.
    pub fn label(self) -> &'static str {
        match self {
            Tier::None => "none",
            Tier::Staked => "staked",
            Tier::Optimistic => "optimistic",
            Tier::Proven => "proven",
            Tier::Tolerant => "tolerant",
            Tier::Unverified => "unverified",
        }
    }
}

/// A statement and what it cost. `charged` is this request's price, `cumulative` all that the
/// channel owes with it; `served_at` is when the last token left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Receipt {
    pub statement: Statement,
    pub provider: Address,
    pub payer: Address,
    pub channel_id: B256,
    pub charged: MicroUsd,
    pub cumulative: MicroUsd,
    pub served_at: Timestamp,
    /// Time to first token, as the provider saw it.
    pub ttft: DurationMs,
    pub duration: DurationMs,
    pub tier: Tier,
    pub request_id: B256,
}
