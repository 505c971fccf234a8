//! Serves several sequences at once: each step decodes a token for all that are ready and prefills a
//! bounded piece of those that are not. Admission is bounded by sequences and by memory; what a sequence
//! yields depends neither on its neighbours, nor on what is shared with them (`memory`, `prefixes`), nor on
//! what is guessed (`draft`). Who is run when is decided in `plan`.

mod draft;
mod memory;
mod plan;
mod prefixes;

use std::ops::Range;

use assay_protocol::sampler::SamplerError;
use assay_protocol::{B256, SamplerParams, StopReason, TokenId};

use crate::cache::{PAGE, Shape};
use crate::clamps::ClampCounts;
use crate::forward::{Runner, Span};
use crate::model::Model;
use crate::ops;
use crate::pool::Threads;
use crate::run::{RunError, check_tokens};

use draft::Drafter;
use memory::{Memory, Place};
use plan::{Plan, Seat, plan};

pub use memory::MemoryUse;

/// Sequences beyond which nothing is guessed: a step of one or two reads weights while the cores wait, a
/// step of many does not.
const GUESSING_MAX: usize = 2;

/// What a batcher may hold and do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchLimits {
    pub sequences_max: usize,
    /// Memory for keys and values, in whole pages: of sequences, each of which reserves its prompt and its
    /// answer when it comes, and of what is kept after them.
    pub cache_bytes_max: usize,
    /// Whether requests that begin alike share what they have alike, those that are over included.
    pub share_prefixes: bool,
    /// Whether to guess several tokens ahead where few sequences run.
    pub speculate: bool,
}

impl Default for BatchLimits {
    fn default() -> Self {
        BatchLimits {
            sequences_max: 8,
            cache_bytes_max: 1 << 30,
            share_prefixes: true,
            speculate: true,
        }
    }
}

impl BatchLimits {
    /// The most positions that a sequence of this model can have in the cache's memory.
    pub fn positions_max(&self, model: &Model) -> usize {
        let page = Shape::of(&model.manifest().dims).page_bytes();
        self.cache_bytes_max / page * PAGE
    }

    /// The memory that so many positions of one sequence take.
    pub fn cache_bytes(model: &Model, positions: usize) -> usize {
        let page = Shape::of(&model.manifest().dims).page_bytes();
        positions.div_ceil(PAGE).saturating_mul(page)
    }
}

/// Names a sequence of one batcher.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SequenceId(pub u64);

/// What to generate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GenerationRequest {
    pub prompt: Vec<TokenId>,
    pub sampler: SamplerParams,
    /// Only requests of the same salt share prefixes. How soon a first token comes tells whether a prompt
    /// began like an earlier one, so those who must not learn that of each other get different salts.
    pub cache_salt: B256,
}

impl GenerationRequest {
    /// A request that shares prefixes with all others of this kind.
    pub fn new(prompt: Vec<TokenId>, sampler: SamplerParams) -> GenerationRequest {
        GenerationRequest {
            prompt,
            sampler,
            cache_salt: B256::ZERO,
        }
    }
}

/// What came of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    pub sequence: SequenceId,
    pub kind: EventKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// The prompt has been run; so many of its tokens were found in the cache. Comes before the first token.
    Prefilled { reused: u32 },
    /// A step may give several of one sequence.
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

/// What a batcher has done since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BatchStats {
    pub steps: u64,
    /// Tokens of prompts that were run to their end, and how many of them were found in the cache.
    pub prompt_tokens: u64,
    pub prompt_tokens_reused: u64,
    pub output_tokens: u64,
    /// Tokens that were guessed, and how many of the guesses came true.
    pub guessed: u64,
    pub guessed_true: u64,
}

/// Several sequences on one model.
pub struct Batcher {
    runner: Runner,
    limits: BatchLimits,
    memory: Memory,
    /// In the order in which they came.
    sequences: Vec<Sequence>,
    next_id: u64,
    /// Whose turn it is to have its prompt run, by index.
    turn: usize,
    stats: BatchStats,
}

struct Sequence {
    id: SequenceId,
    /// Prompt and output so far; during a step also guesses.
    tokens: Vec<TokenId>,
    prompt_len: usize,
    sampler: SamplerParams,
    place: Place,
    drafter: Drafter,
    /// Prompt tokens that were found in the cache.
    reused: usize,
}

/// A sequence whose next tokens follow from the step: from `rows` of it, the last of them guessed.
struct Ready {
    index: usize,
    rows: Range<usize>,
}

impl Sequence {
    fn pending(&self) -> usize {
        self.tokens.len() - self.place.cache.len
    }

    fn produced(&self) -> usize {
        self.tokens.len() - self.prompt_len
    }

    /// Guesses what follows, within what it may still say.
    fn guess(&mut self) {
        let left = self.sampler.max_tokens as usize - self.produced();
        let guesses = self.drafter.draft(&self.tokens, left - 1);
        self.tokens.extend(guesses);
    }
}

impl Batcher {
    pub fn new(model: &Model, threads: impl Into<Threads>, limits: BatchLimits) -> Batcher {
        let shape = Shape::of(&model.manifest().dims);
        Batcher {
            runner: Runner::new(model, threads),
            limits,
            memory: Memory::new(shape, limits.cache_bytes_max, limits.share_prefixes),
            sequences: Vec::new(),
            next_id: 0,
            turn: 0,
            stats: BatchStats::default(),
        }
    }

    pub fn model(&self) -> &Model {
        self.runner.model()
    }

    pub fn clamps(&self) -> ClampCounts {
        self.runner.clamps()
    }

    pub fn stats(&self) -> BatchStats {
        self.stats
    }

    pub fn memory(&self) -> MemoryUse {
        self.memory.usage()
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
        let GenerationRequest {
            prompt,
            sampler,
            cache_salt,
        } = request;
        sampler.validate()?;
        let wanted = prompt.len().saturating_add(sampler.max_tokens as usize);
        check_tokens(self.model(), &prompt, wanted)?;
        let max = self.memory.positions_max();
        if wanted > max {
            return Err(SubmitError::TooLarge { wanted, max });
        }
        if self.sequences.len() >= self.limits.sequences_max {
            return Err(SubmitError::Busy);
        }
        let place = self.memory.admit(cache_salt, &prompt, wanted);
        let place = place.map_err(|memory::Full| SubmitError::Busy)?;
        let id = SequenceId(self.next_id);
        self.next_id += 1;
        self.sequences.push(Sequence {
            id,
            prompt_len: prompt.len(),
            tokens: prompt,
            sampler,
            reused: place.cache.len,
            place,
            drafter: Drafter::default(),
        });
        Ok(id)
    }

    /// Forgets a sequence and frees its memory; unknown ids are no matter, as it may just have finished.
    pub fn cancel(&mut self, id: SequenceId) {
        let Some(index) = self.sequences.iter().position(|s| s.id == id) else {
            return;
        };
        let Sequence { place, .. } = self.sequences.remove(index);
        self.memory.release(place);
        // Turns go on with the same neighbour.
        self.turn -= usize::from(index < self.turn);
    }

    /// One pass over everything that is ready.
    pub fn step(&mut self) -> Vec<Event> {
        let Plan {
            takes,
            decoding,
            turn,
        } = self.plan();
        let taken: usize = takes.iter().sum();
        if taken == 0 {
            return Vec::new();
        }
        self.turn = turn;
        let guessing = self.limits.speculate && taken == decoding && decoding <= GUESSING_MAX;
        let mut ready = Vec::new();
        let mut spans = Vec::new();
        let mut row = 0;
        for (index, (sequence, take)) in self.sequences.iter_mut().zip(takes).enumerate() {
            if take == 0 {
                continue;
            }
            let (last, pending) = (row + take - 1, sequence.pending());
            let mut take = take;
            if take == pending {
                if guessing {
                    sequence.guess();
                    take = sequence.pending();
                }
                ready.push(Ready {
                    index,
                    rows: last..row + take,
                });
            }
            row += take;
            let Sequence { place, tokens, .. } = sequence;
            let from = place.cache.len;
            self.memory.grow(place, from + take);
            spans.push(Span {
                cache: &mut place.cache,
                tokens: &tokens[from..from + take],
            });
        }
        self.runner.forward(&mut spans);
        let chosen = self.choose(&ready);
        self.stats.steps += 1;
        let mut events = Vec::new();
        let mut over = Vec::new();
        let mut chosen = &chosen[..];
        for Ready { index, rows } in ready {
            let (own, others) = chosen.split_at(rows.len());
            chosen = others;
            if self.advance(index, own, &mut events) {
                over.push(self.sequences[index].id);
            }
        }
        for sequence in &mut self.sequences {
            self.memory.publish(&mut sequence.place, &sequence.tokens);
        }
        for id in over {
            self.cancel(id);
        }
        events
    }

    /// Plans the step, after each prompt has taken over what others have filled since.
    fn plan(&mut self) -> Plan {
        for sequence in &mut self.sequences {
            if sequence.pending() > 1 {
                let before = sequence.place.cache.len;
                self.memory.adopt(&mut sequence.place, &sequence.tokens);
                sequence.reused += sequence.place.cache.len - before;
            }
        }
        let seats: Vec<Seat<'_>> = self
            .sequences
            .iter()
            .map(|sequence| Seat {
                cached: sequence.place.cache.len,
                pending: sequence.pending(),
                page: (self.limits.share_prefixes)
                    .then(|| memory::shareable(&sequence.place, &sequence.tokens))
                    .flatten()
                    .map(|tokens| (sequence.place.parent(), tokens)),
            })
            .collect();
        plan(&seats, self.turn)
    }

    /// What the model says after each row of those that are ready.
    fn choose(&mut self, ready: &[Ready]) -> Vec<TokenId> {
        // With each row the position of the token that follows from it.
        let rows: Vec<(usize, usize, usize)> = ready
            .iter()
            .flat_map(|Ready { index, rows }| {
                let next = self.sequences[*index].tokens.len() + 1 - rows.len();
                rows.clone()
                    .zip(next..)
                    .map(|(row, position)| (row, *index, position))
            })
            .collect();
        let wanted: Vec<usize> = rows.iter().map(|(row, ..)| *row).collect();
        let (model, sequences) = (self.runner.model().clone(), &self.sequences);
        self.runner.logits(&wanted, &|row, logits| {
            let at = wanted.binary_search(&row).expect("rows ascend");
            let (_, index, position) = rows[at];
            let exp = &model.inner.exp.narrow;
            ops::sampler::choose(logits, &sequences[index].sampler, position as u64, exp)
        })
    }

    /// Appends what was chosen, as far as the guesses before it came true, and says whether the sequence is
    /// over.
    fn advance(&mut self, index: usize, chosen: &[TokenId], events: &mut Vec<Event>) -> bool {
        let sequence = &mut self.sequences[index];
        let stats = &mut self.stats;
        let mut tell = |kind| {
            events.push(Event {
                sequence: sequence.id,
                kind,
            })
        };
        let guesses = sequence
            .tokens
            .split_off(sequence.tokens.len() + 1 - chosen.len());
        if sequence.tokens.len() == sequence.prompt_len {
            stats.prompt_tokens += sequence.prompt_len as u64;
            stats.prompt_tokens_reused += sequence.reused as u64;
            tell(EventKind::Prefilled {
                reused: sequence.reused as u32,
            });
        }
        let before = sequence.tokens.len();
        let mut stop = None;
        for (row, token) in chosen.iter().enumerate() {
            sequence.tokens.push(*token);
            tell(EventKind::Token(*token));
            if self.runner.model().manifest().is_eos(*token) {
                stop = Some(StopReason::EndOfText);
            } else if sequence.produced() >= sequence.sampler.max_tokens as usize {
                stop = Some(StopReason::MaxTokens);
            }
            if stop.is_some() || guesses.get(row) != Some(token) {
                break;
            }
        }
        // What was run beyond is forgotten: its places are written again.
        sequence.place.cache.len = sequence.tokens.len() - 1;
        let made = sequence.tokens.len() - before;
        stats.output_tokens += made as u64;
        if !guesses.is_empty() {
            stats.guessed += guesses.len() as u64;
            stats.guessed_true += made as u64 - 1;
            sequence.drafter.learn(guesses.len(), made - 1);
        }
        if let Some(stop) = stop {
            tell(EventKind::Finished(stop));
        }
        stop.is_some()
    }
}
