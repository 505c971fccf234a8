//! How fast a model runs here: prefill and decode, as one sequence alone. The only file that looks at
//! a clock; nothing decides by it.

use std::time::{Duration, Instant};

use assay_engine::{BatchLimits, Batcher, EventKind, GenerationRequest, SubmitError};
use assay_protocol::SamplerParams;

use crate::loaded::LoadedModel;
use crate::quality;
use crate::tokenizer::EncodeError;

/// How much to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BenchPlan {
    pub prompt_tokens: usize,
    pub output_tokens: u32,
    pub threads: usize,
}

impl Default for BenchPlan {
    /// What llama.cpp's bench is usually quoted with.
    fn default() -> Self {
        BenchPlan {
            prompt_tokens: 512,
            output_tokens: 128,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BenchReport {
    pub plan: BenchPlan,
    /// Up to the first output token.
    pub prefill_tokens: usize,
    pub prefill: Duration,
    /// After it; fewer than planned where the model found an end.
    pub decode_tokens: usize,
    pub decode: Duration,
}

impl BenchReport {
    pub fn prefill_per_second(&self) -> f64 {
        self.prefill_tokens as f64 / self.prefill.as_secs_f64()
    }

    pub fn decode_per_second(&self) -> f64 {
        self.decode_tokens as f64 / self.decode.as_secs_f64()
    }
}

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    #[error(transparent)]
    Encode(#[from] EncodeError),
    #[error(transparent)]
    Submit(#[from] SubmitError),
    #[error("the built-in text has {0} tokens; ask for no longer prompt")]
    PromptTooLong(usize),
}

/// Runs a prompt of ordinary prose and its greedy continuation.
pub fn measure(loaded: &LoadedModel, plan: BenchPlan) -> Result<BenchReport, BenchError> {
    let mut prompt = quality::prose(loaded)?;
    if prompt.len() < plan.prompt_tokens {
        return Err(BenchError::PromptTooLong(prompt.len()));
    }
    prompt.truncate(plan.prompt_tokens);
    let limits = BatchLimits {
        sequences_max: 1,
        positions_max: plan.prompt_tokens + plan.output_tokens as usize + 1,
    };
    let mut batcher = Batcher::new(&loaded.model, plan.threads, limits);
    let mut report = BenchReport {
        plan,
        prefill_tokens: prompt.len(),
        prefill: Duration::ZERO,
        decode_tokens: 0,
        decode: Duration::ZERO,
    };
    let sampler = SamplerParams::greedy(plan.output_tokens.saturating_add(1));
    let start = Instant::now();
    batcher.submit(GenerationRequest { prompt, sampler })?;
    let mut first = None;
    while !batcher.is_idle() {
        for event in batcher.step() {
            if !matches!(event.kind, EventKind::Token(_)) {
                continue;
            }
            match first {
                None => {
                    report.prefill = start.elapsed();
                    first = Some(Instant::now());
                }
                Some(first) => {
                    report.decode_tokens += 1;
                    report.decode = first.elapsed();
                }
            }
        }
    }
    Ok(report)
}
