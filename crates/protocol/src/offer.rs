//! The offer: what a provider signs about one model before anybody asks.

use alloy_primitives::Address;
use serde::{Deserialize, Serialize};

use crate::{DurationMs, ModelId, Price, Timestamp, TokenCount};

/// A price that holds until it expires, and the limits it is given under.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Offer {
    pub provider: Address,
    pub model_id: ModelId,
    pub price: Price,
    /// Most tokens, prompt and output together.
    pub max_context: TokenCount,
    /// Requests served at once.
    pub concurrency: u32,
    /// Time to first token that the provider promises for a short prompt.
    pub ttft_promise: DurationMs,
    pub expires_at: Timestamp,
}
