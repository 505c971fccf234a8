//! Requests, and what becomes of them.

use std::collections::BTreeMap;

use assay_engine::{BatchLimits, Batcher, EventKind, GenerationRequest, Model, SequenceId};
use assay_protocol::{B256, SamplerParams, StopReason, Temperature, TokenId};

use crate::tiny::Tiny;

/// Positions of a page; memory comes in whole pages.
pub(crate) const PAGE: usize = assay_engine::MemoryUse::PAGE_POSITIONS;

/// Nothing is shared and nothing guessed.
pub(crate) fn plain() -> BatchLimits {
    BatchLimits {
        share_prefixes: false,
        speculate: false,
        ..BatchLimits::default()
    }
}

/// Room for so many pages of a tiny model.
pub(crate) fn with_pages(model: &Model, pages: usize) -> BatchLimits {
    BatchLimits {
        cache_bytes_max: BatchLimits::cache_bytes(model, pages * PAGE),
        ..BatchLimits::default()
    }
}

pub(crate) fn prompt(len: usize, salt: u32) -> Vec<TokenId> {
    (0..len as u32)
        .map(|i| (i * i * 13 + i * salt + salt) % 256)
        .collect()
}

pub(crate) fn seeded(seed: u8, max_tokens: u32) -> SamplerParams {
    SamplerParams {
        temperature: Temperature::Beta(256),
        top_k: 40,
        top_p_q16: 60_000,
        seed: B256::repeat_byte(seed),
        ..SamplerParams::greedy(max_tokens)
    }
}

/// A model without end tokens, so that answers run to their length.
pub(crate) fn endless(mut tiny: Tiny) -> Model {
    tiny.eos = Vec::new();
    tiny.model()
}

pub(crate) type Answer = (Vec<TokenId>, StopReason);

/// Answers of one batcher, as they come.
#[derive(Default)]
pub(crate) struct Answers {
    begun: BTreeMap<SequenceId, Vec<TokenId>>,
    pub(crate) reused: BTreeMap<SequenceId, usize>,
    pub(crate) over: BTreeMap<SequenceId, Answer>,
}

impl Answers {
    /// One step, whose events must come in their order.
    pub(crate) fn step(&mut self, batcher: &mut Batcher) {
        for event in batcher.step() {
            let id = event.sequence;
            assert!(!self.over.contains_key(&id), "nothing comes after the end");
            match event.kind {
                EventKind::Prefilled { reused } => {
                    assert!(!self.begun.contains_key(&id));
                    assert!(self.reused.insert(id, reused as usize).is_none());
                }
                EventKind::Token(token) => {
                    assert!(self.reused.contains_key(&id));
                    self.begun.entry(id).or_default().push(token);
                }
                EventKind::Finished(stop) => {
                    let output = self.begun.remove(&id).unwrap();
                    self.over.insert(id, (output, stop));
                }
            }
        }
    }

    /// What has come of a sequence.
    pub(crate) fn so_far(&self, id: SequenceId) -> &[TokenId] {
        let begun = self.begun.get(&id);
        let over = self.over.get(&id).map(|(output, _)| output);
        begun.or(over).map_or(&[], |output| output)
    }
}

/// Runs all to their ends.
pub(crate) fn drain(batcher: &mut Batcher) -> Answers {
    let mut answers = Answers::default();
    while !batcher.is_idle() {
        answers.step(batcher);
    }
    answers
}

/// What the request yields by itself, without any of what could go wrong.
pub(crate) fn alone(model: &Model, request: &GenerationRequest) -> Answer {
    let mut batcher = Batcher::new(model, 1, plain());
    batcher.submit(request.clone()).unwrap();
    drain(&mut batcher).over.pop_first().unwrap().1
}
