//! Re-execution of an answer at prefill speed: the token that the model itself chooses at each output
//! position, given the prompt and the output before it. The audit compares; this only chooses.

use assay_protocol::sampler::SamplerError;
use assay_protocol::{SamplerParams, TokenId};

use crate::model::Model;
use crate::ops;
use crate::run::{self, RunError};

/// Why an answer cannot be re-executed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    #[error(transparent)]
    Run(#[from] RunError),
    #[error(transparent)]
    Sampler(#[from] SamplerError),
}

/// The model's choice at every position of `output`. The last output token is never run: nothing
/// follows from it.
pub fn choices(
    model: &Model,
    threads: usize,
    prompt: &[TokenId],
    sampler: &SamplerParams,
    output: &[TokenId],
) -> Result<Vec<TokenId>, ReplayError> {
    sampler.validate()?;
    run::check_tokens(model, prompt, prompt.len() + output.len())?;
    let Some((_, before)) = output.split_last() else {
        return Ok(Vec::new());
    };
    let tokens = [prompt, before].concat();
    let exp = &model.inner.exp.narrow;
    // The logits after position i choose the token at i + 1.
    let choose =
        |i: usize, logits: &[i32]| ops::sampler::choose(logits, sampler, i as u64 + 1, exp);
    Ok(run::logits(model, threads, &tokens, prompt.len() - 1, &choose)?.0)
}
