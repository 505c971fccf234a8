//! Serves several sequences at once: each step decodes a token for all that are ready and prefills a
//! bounded piece of those that are not. Admission is bounded by sequences and by cached positions;
//! what a sequence yields does not depend on its neighbours.

use std::collections::VecDeque;

use assay_protocol::sampler::SamplerError;
use assay_protocol::{SamplerParams, StopReason, TokenId};

use crate::cache::Cache;
use crate::clamps::ClampCounts;
use crate::forward::{Runner, Span};
use crate::model::Model;
use crate::ops;
use crate::run::{CHUNK, RunError, check_tokens};

/// Tokens that a step prefills while others wait for their next token: a long prompt holds nobody up
/// for long.
const CHUNK_BESIDE_DECODING: usize = 32;

/// What a batcher may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchLimits {
    pub sequences_max: usize,
    /// Cached positions of all sequences together; each reserves prompt and answer when it comes.
    pub positions_max: usize,
}

/// Names a sequence of one batcher.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SequenceId(pub u64);

/// What to generate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GenerationRequest {
    pub prompt: Vec<TokenId>,
    pub sampler: SamplerParams,
}

/// What came of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    pub sequence: SequenceId,
    pub kind: EventKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    Token(TokenId),
    /// Follows the last token in the same step; the sequence is gone. Stop strings are the caller's:
    /// it cancels.
    Finished(StopReason),
}

/// Why a request is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    #[error(transparent)]
    Run(#[from] RunError),
    #[error(transparent)]
    Sampler(#[from] SamplerError),
    #[error(
        "{wanted} positions are wanted and this engine holds {max}; shorten the prompt or the answer"
    )]
    TooLarge { wanted: usize, max: usize },
    #[error("the engine is full; try again when a sequence has ended")]
    Busy,
}

/// Several sequences on one model.
pub struct Batcher {
    runner: Runner,
    limits: BatchLimits,
    sequences: VecDeque<Sequence>,
    next_id: u64,
}

struct Sequence {
    id: SequenceId,
    /// Prompt and output so far.
    tokens: Vec<TokenId>,
    prompt_len: usize,
    sampler: SamplerParams,
    cache: Cache,
    reserved: usize,
}

impl Sequence {
    fn pending(&self) -> &[TokenId] {
        &self.tokens[self.cache.len..]
    }
}

impl Batcher {
    pub fn new(model: &Model, threads: usize, limits: BatchLimits) -> Batcher {
        Batcher {
            runner: Runner::new(model, threads),
            limits,
            sequences: VecDeque::new(),
            next_id: 0,
        }
    }

    pub fn model(&self) -> &Model {
        self.runner.model()
    }

    pub fn clamps(&self) -> ClampCounts {
        self.runner.clamps()
    }

    pub fn is_idle(&self) -> bool {
        self.sequences.is_empty()
    }

    /// Sequences under way.
    pub fn len(&self) -> usize {
        self.sequences.len()
    }

    pub fn is_empty(&self) -> bool {
        self.is_idle()
    }

    /// Takes a request, or says why not; nothing is ever truncated.
    pub fn submit(&mut self, request: GenerationRequest) -> Result<SequenceId, SubmitError> {
        let GenerationRequest { prompt, sampler } = request;
        sampler.validate()?;
        let wanted = prompt.len().saturating_add(sampler.max_tokens as usize);
        check_tokens(self.model(), &prompt, wanted)?;
        let BatchLimits {
            sequences_max,
            positions_max,
        } = self.limits;
        if wanted > positions_max {
            return Err(SubmitError::TooLarge {
                wanted,
                max: positions_max,
            });
        }
        let reserved: usize = self
            .sequences
            .iter()
            .map(|sequence| sequence.reserved)
            .sum();
        if self.sequences.len() >= sequences_max || reserved + wanted > positions_max {
            return Err(SubmitError::Busy);
        }
        let id = SequenceId(self.next_id);
        self.next_id += 1;
        self.sequences.push_back(Sequence {
            id,
            prompt_len: prompt.len(),
            tokens: prompt,
            sampler,
            cache: self.runner.cache(wanted),
            reserved: wanted,
        });
        Ok(id)
    }

    /// Forgets a sequence; unknown ids are no matter, as it may just have finished.
    pub fn cancel(&mut self, id: SequenceId) {
        self.sequences.retain(|sequence| sequence.id != id);
    }

    /// One pass over everything that is ready.
    pub fn step(&mut self) -> Vec<Event> {
        // All that wait for one token get it; the step's budget prefills the others, oldest first.
        let decoding = self
            .sequences
            .iter()
            .filter(|s| s.pending().len() == 1)
            .count();
        let mut budget = if decoding == 0 {
            CHUNK
        } else {
            CHUNK_BESIDE_DECODING
        };
        let mut spans = Vec::new();
        let mut ready = Vec::new();
        let mut row = 0;
        for (index, sequence) in self.sequences.iter_mut().enumerate() {
            let pending = sequence.pending().len();
            let take = if pending == 1 { 1 } else { pending.min(budget) };
            if take == 0 {
                continue;
            }
            if pending > 1 {
                budget -= take;
            }
            row += take;
            if take == pending {
                ready.push((index, row - 1));
            }
            let from = sequence.cache.len;
            let tokens = &sequence.tokens[from..from + take];
            spans.push(Span {
                cache: &mut sequence.cache,
                tokens,
            });
        }
        if spans.is_empty() {
            return Vec::new();
        }
        self.runner.forward(&mut spans);
        let rows: Vec<usize> = ready.iter().map(|(_, row)| *row).collect();
        let (model, sequences) = (self.runner.model().clone(), &self.sequences);
        let chosen = self.runner.logits(&rows, &|row, logits| {
            let (index, _) = ready[rows.binary_search(&row).expect("rows ascend")];
            let Sequence {
                tokens, sampler, ..
            } = &sequences[index];
            ops::sampler::choose(
                logits,
                sampler,
                tokens.len() as u64,
                &model.inner.exp.narrow,
            )
        });
        let mut events = Vec::new();
        for ((index, _), token) in ready.iter().zip(chosen) {
            let sequence = &mut self.sequences[*index];
            sequence.tokens.push(token);
            events.push(Event {
                sequence: sequence.id,
                kind: EventKind::Token(token),
            });
            let produced = sequence.tokens.len() - sequence.prompt_len;
            let stop = if model.manifest().is_eos(token) {
                StopReason::EndOfText
            } else if produced >= sequence.sampler.max_tokens as usize {
                StopReason::MaxTokens
            } else {
                continue;
            };
            events.push(Event {
                sequence: sequence.id,
                kind: EventKind::Finished(stop),
            });
        }
        for event in &events {
            if let EventKind::Finished(_) = event.kind {
                self.cancel(event.sequence);
            }
        }
        events
    }
}
