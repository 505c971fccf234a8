//! Whole sequences at prefill speed: what the model says at every position. Checks every token and
//! length before anything runs.

use assay_protocol::TokenId;

use crate::clamps::ClampCounts;
use crate::forward::{Runner, Span};
use crate::model::Model;

/// Tokens that go through the layers together.
pub(crate) const CHUNK: usize = 128;

/// Why tokens are not run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    #[error("the prompt is empty; give at least one token")]
    NoTokens,
    #[error("token {token} is outside the vocabulary of {vocab}")]
    Token { token: TokenId, vocab: u32 },
    #[error(
        "{wanted} positions are wanted and the model's context has {max}; shorten the prompt or the answer"
    )]
    Context { wanted: usize, max: usize },
}

/// Tokens in the vocabulary, and so many positions within the context.
pub(crate) fn check_tokens(
    model: &Model,
    tokens: &[TokenId],
    positions: usize,
) -> Result<(), RunError> {
    let dims = &model.manifest().dims;
    let (vocab, max) = (dims.vocab, dims.context_max as usize);
    if tokens.is_empty() {
        return Err(RunError::NoTokens);
    }
    if let Some(token) = tokens.iter().find(|token| **token >= vocab) {
        return Err(RunError::Token {
            token: *token,
            vocab,
        });
    }
    if positions > max {
        return Err(RunError::Context {
            wanted: positions,
            max,
        });
    }
    Ok(())
}

/// Runs `tokens` as one sequence and gives `each` the logits (Q.16) after every position from `first`
/// on; collects what it makes of them. Also counts clamps.
pub fn logits<R: Send + Default>(
    model: &Model,
    threads: usize,
    tokens: &[TokenId],
    first: usize,
    each: &(dyn Fn(usize, &[i32]) -> R + Sync),
) -> Result<(Vec<R>, ClampCounts), RunError> {
    check_tokens(model, tokens, tokens.len())?;
    let mut runner = Runner::new(model, threads);
    let mut cache = runner.cache(tokens.len());
    let mut results = Vec::with_capacity(tokens.len().saturating_sub(first));
    for (index, tokens) in tokens.chunks(CHUNK).enumerate() {
        let start = index * CHUNK;
        runner.forward(&mut [Span {
            cache: &mut cache,
            tokens,
        }]);
        let wanted: Vec<usize> = (0..tokens.len()).filter(|i| start + i >= first).collect();
        results.extend(runner.logits(&wanted, &|i, logits| each(start + i, logits)));
    }
    Ok((results, runner.clamps()))
}
