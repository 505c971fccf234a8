//! What an audit costs beside the generation that it checks, measured on this machine: one answer is
//! generated token by token, then re-executed as an auditor does. Uses the clock; judges nobody.

use std::time::Instant;

use assay_audit::PartsPerMillion;
use assay_engine::{BatchLimits, Batcher, EventKind, GenerationRequest, Model, replay};
use assay_protocol::{B256, SamplerParams, Temperature, TokenId};
use serde::{Deserialize, Serialize};

/// One measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditCost {
    pub threads: usize,
    pub prompt_tokens: u32,
    /// Fewer than asked for if the model ended its answer.
    pub output_tokens: u32,
    pub generated_us: u64,
    pub audited_us: u64,
}

/// Why nothing could be measured.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CostError {
    #[error("the model takes no such request: {0}")]
    Refused(String),
    #[error("the model's own answer did not pass its audit: this is a bug, report it")]
    Disagrees,
}

impl AuditCost {
    /// The audit's time as a share of the generation's; above one for a toy.
    pub fn share(&self) -> PartsPerMillion {
        let ppm = u128::from(self.audited_us) * 1_000_000 / u128::from(self.generated_us.max(1));
        PartsPerMillion(u32::try_from(ppm).unwrap_or(u32::MAX))
    }
}

/// Generates `output` tokens after `prompt` arbitrary ones and audits them.
pub fn measure(
    model: &Model,
    threads: usize,
    prompt: u32,
    output: u32,
) -> Result<AuditCost, CostError> {
    let refused = |error: &dyn std::fmt::Display| CostError::Refused(error.to_string());
    let vocab = model.manifest().dims.vocab.max(1);
    // Any ids do: speed does not depend on sense.
    let prompt: Vec<TokenId> = (0..prompt.max(1)).map(|i| (i * 31 + 7) % vocab).collect();
    let sampler = SamplerParams {
        temperature: Temperature::Beta(256),
        seed: B256::repeat_byte(1),
        ..SamplerParams::greedy(output.max(1))
    };
    let positions_max = prompt.len() + sampler.max_tokens as usize;
    let mut batcher = Batcher::new(
        model,
        threads,
        BatchLimits {
            sequences_max: 1,
            positions_max,
        },
    );
    let started = Instant::now();
    let request = GenerationRequest {
        prompt: prompt.clone(),
        sampler: sampler.clone(),
    };
    batcher.submit(request).map_err(|error| refused(&error))?;
    let mut tokens = Vec::new();
    while !batcher.is_idle() {
        for event in batcher.step() {
            if let EventKind::Token(id) = event.kind {
                tokens.push(id);
            }
        }
    }
    let generated = started.elapsed();
    let started = Instant::now();
    let choices = replay::choices(model, threads, &prompt, &sampler, &tokens)
        .map_err(|error| refused(&error))?;
    let audited = started.elapsed();
    if choices != tokens {
        return Err(CostError::Disagrees);
    }
    let micros = |d: std::time::Duration| u64::try_from(d.as_micros()).unwrap_or(u64::MAX);
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Ok(AuditCost {
        threads,
        prompt_tokens: count(prompt.len()),
        output_tokens: count(tokens.len()),
        generated_us: micros(generated),
        audited_us: micros(audited),
    })
}
