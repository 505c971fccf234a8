//! The statement: *this model, given these prompt tokens and this sampler, yields exactly these
//! output tokens.* The one noun that audits, disputes and proofs are about.

use alloy_primitives::B256;
use serde::{Deserialize, Serialize};

use crate::{ModelId, SamplerParams, TokenCount, TokenId, merkle};

/// Why an answer ended where it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum StopReason {
    /// The last output token is an end-of-text token of the model; it is part of the output.
    EndOfText = 1,
    /// The sampler's `max_tokens` were produced.
    MaxTokens = 2,
    /// A stop string is complete in the decoded output with the last token, and not before.
    StopString = 3,
    /// The payer left; the output is a true prefix of the answer.
    Cut = 4,
}

/// What a provider claims and anyone can check. Roots are over token ids ([`merkle::tokens_root`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Statement {
    pub model_id: ModelId,
    pub prompt_root: B256,
    pub n_prompt: TokenCount,
    pub sampler_hash: B256,
    pub output_root: B256,
    pub n_output: TokenCount,
    pub stop_reason: StopReason,
}

impl Statement {
    /// The statement about these tokens.
    ///
    /// # Panics
    /// If there are 2^32 tokens or more, which no context holds.
    pub fn new(
        model_id: ModelId,
        prompt: &[TokenId],
        sampler: &SamplerParams,
        output: &[TokenId],
        stop_reason: StopReason,
    ) -> Self {
        let count = |tokens: &[TokenId]| {
            TokenCount(u32::try_from(tokens.len()).expect("a context holds fewer than 2^32 tokens"))
        };
        Statement {
            model_id,
            prompt_root: merkle::tokens_root(prompt),
            n_prompt: count(prompt),
            sampler_hash: sampler.hash(),
            output_root: merkle::tokens_root(output),
            n_output: count(output),
            stop_reason,
        }
    }
}
