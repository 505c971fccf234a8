//! What can be wrong with an answer, as facts in plain words. Holds no logic that finds a fault.

use assay_protocol::{Address, B256, MicroUsd, StopReason, Timestamp, TokenId};
use serde::{Deserialize, Serialize};

/// A disagreement between a receipt and the tokens, the price or the model behind it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "fault", rename_all = "snake_case")]
pub enum Fault {
    #[error("the receipt names model {stated}, the offer {offered}")]
    OtherModel { stated: B256, offered: B256 },
    #[error("the receipt states {stated} prompt tokens, {actual} were sent")]
    PromptCount { stated: u32, actual: u32 },
    #[error("the receipt's prompt root is not that of the prompt")]
    PromptRoot { stated: B256, actual: B256 },
    #[error("the receipt's sampler hash is not that of the requested sampler")]
    SamplerHash { stated: B256, actual: B256 },
    #[error("the receipt states {stated} output tokens, {actual} were delivered")]
    OutputCount { stated: u32, actual: u32 },
    #[error("the receipt's output root is not that of the delivered tokens")]
    OutputRoot { stated: B256, actual: B256 },
    #[error("token {id} at {place} {position} does not exist: the vocabulary ends at {vocab}")]
    UnknownToken {
        place: Place,
        position: u32,
        id: TokenId,
        vocab: u32,
    },
    #[error("{cached} prompt tokens are billed as cached, of {prompt}")]
    CachedCount { cached: u32, prompt: u32 },
    #[error("the charge is {charged}, price times usage is {due}")]
    Charge { charged: MicroUsd, due: MicroUsd },
    #[error("the offer expired at {}, the answer is dated {}", .expires_at.0, .served_at.0)]
    OfferExpired {
        expires_at: Timestamp,
        served_at: Timestamp,
    },
    #[error("{tokens} tokens do not fit the offered context of {context}")]
    ContextExceeded { tokens: u64, context: u32 },
    #[error("the receipt says it stopped for {stated:?}, the tokens say {actual}")]
    StopReason {
        stated: StopReason,
        actual: ActualStop,
    },
    #[error("the answer goes on after token {position}, where it had to stop for {reason:?}")]
    PastTheEnd { position: u32, reason: StopReason },
    #[error("token {position} is {claimed}; the model chooses {recomputed}")]
    FalseToken {
        position: u32,
        claimed: TokenId,
        recomputed: TokenId,
    },
    #[error(
        "the answer ends after {position} tokens; there the model does not end but goes on with token {recomputed}"
    )]
    EndedEarly { position: u32, recomputed: TokenId },
    #[error("the receipt is from provider {stated}, the answer was bought from {asked}")]
    OtherProvider { stated: Address, asked: Address },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    Prompt,
    Output,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Prompt => "prompt position",
            Self::Output => "output position",
        })
    }
}

/// Why an output ends, read from its tokens alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActualStop {
    Reason(StopReason),
    /// Nothing in the tokens ends the answer here.
    Nothing,
}

impl std::fmt::Display for ActualStop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Reason(reason) => write!(f, "{reason:?}"),
            Self::Nothing => f.write_str("that nothing ended it: it was cut short"),
        }
    }
}

impl Fault {
    /// Whether the signed receipt and the public model alone prove this fault to anybody. The other
    /// faults say that receipt and tokens do not belong together: certain for the payer, who knows
    /// what it sent and got, but a third party may be shown a doctored file.
    pub fn convinces_a_third_party(&self) -> bool {
        match self {
            Self::StopReason { .. }
            | Self::PastTheEnd { .. }
            | Self::FalseToken { .. }
            | Self::EndedEarly { .. }
            | Self::UnknownToken { place: Place::Output, .. } => true,
            Self::OtherModel { .. }
            | Self::PromptCount { .. }
            | Self::PromptRoot { .. }
            | Self::SamplerHash { .. }
            | Self::OutputCount { .. }
            | Self::OutputRoot { .. }
            | Self::UnknownToken { place: Place::Prompt, .. }
            | Self::CachedCount { .. }
            | Self::OtherProvider { .. }
            // The receipt does not name its offer, and a provider may have signed several.
            | Self::Charge { .. }
            | Self::OfferExpired { .. }
            | Self::ContextExceeded { .. } => false,
        }
    }
}
