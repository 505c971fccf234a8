//! What convicts a statement without a trace: its counts, its end tokens and the reason that it gives,
//! against the manifest and the sampler. Needs the tokens; never a weight.

use assay_protocol::manifest::Manifest;
use assay_protocol::merkle;
use assay_protocol::{SamplerParams, StopReason, TokenId};

use crate::step::TokenShown;

/// Why a statement is false by itself. The numbers are those of `IReferee.sol`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FactKind {
    /// More output than the sampler's `max_tokens`.
    TooManyTokens = 1,
    /// `MaxTokens` with another count.
    NotAtTheLimit = 2,
    /// `EndOfText`, and the last token is no end token.
    NotEnded = 3,
    /// An end token before the last place.
    PastTheEnd = 4,
    /// `MaxTokens` or `StopString`, and the last token is an end token.
    EndedOtherwise = 5,
    /// `StopString`, and the sampler has none.
    NoStopString = 6,
    /// More positions than the model's context.
    Context = 7,
    /// A token outside the vocabulary.
    UnknownToken = 8,
    /// No prompt; or no output, under another reason than `Cut`.
    Empty = 9,
}

/// A fact with what shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fact {
    pub kind: FactKind,
    /// Of an output token for [`FactKind::PastTheEnd`], of the prompt's tokens and then the output's
    /// for [`FactKind::UnknownToken`], else 0.
    pub position: u32,
    pub tokens: Vec<TokenShown>,
    /// The sampler's canonical bytes, where it takes them.
    pub sampler: Vec<u8>,
}

/// The first fact that convicts the statement about these tokens, cheapest to check first.
pub fn facts(
    manifest: &Manifest,
    prompt: &[TokenId],
    output: &[TokenId],
    sampler: &SamplerParams,
    reason: StopReason,
) -> Option<Fact> {
    let plain = |kind| Fact {
        kind,
        position: 0,
        tokens: Vec::new(),
        sampler: Vec::new(),
    };
    let by_sampler = |kind| Fact {
        sampler: sampler.encode(),
        ..plain(kind)
    };
    let by_token = |kind, list: &[TokenId], at: usize, position: usize| Fact {
        tokens: show(list, at).into_iter().collect(),
        // Positions are below the context, or `Context` has convicted.
        position: u32::try_from(position).unwrap_or(u32::MAX),
        ..plain(kind)
    };

    if prompt.is_empty() {
        return Some(plain(FactKind::Empty));
    }
    let positions = prompt.len() as u64 + output.len() as u64;
    if positions > u64::from(manifest.dims.context_max) {
        return Some(plain(FactKind::Context));
    }
    if output.len() as u64 > u64::from(sampler.max_tokens) {
        return Some(by_sampler(FactKind::TooManyTokens));
    }
    if reason == StopReason::MaxTokens && output.len() as u64 != u64::from(sampler.max_tokens) {
        return Some(by_sampler(FactKind::NotAtTheLimit));
    }
    if reason == StopReason::StopString && sampler.stop.is_empty() {
        return Some(by_sampler(FactKind::NoStopString));
    }
    let unknown = |token: &TokenId| *token >= manifest.dims.vocab;
    if let Some(at) = prompt.iter().position(unknown) {
        return Some(by_token(FactKind::UnknownToken, prompt, at, at));
    }
    if let Some(at) = output.iter().position(unknown) {
        let position = prompt.len() + at;
        return Some(by_token(FactKind::UnknownToken, output, at, position));
    }
    let Some((last, before)) = output.split_last() else {
        return (reason != StopReason::Cut).then(|| plain(FactKind::Empty));
    };
    if let Some(at) = before.iter().position(|token| manifest.is_eos(*token)) {
        return Some(by_token(FactKind::PastTheEnd, output, at, at));
    }
    let at = before.len();
    match (reason, manifest.is_eos(*last)) {
        (StopReason::EndOfText, false) => Some(by_token(FactKind::NotEnded, output, at, 0)),
        (StopReason::MaxTokens | StopReason::StopString, true) => {
            Some(by_token(FactKind::EndedOtherwise, output, at, 0))
        }
        _ => None,
    }
}

/// A token with its path; `None` beyond the end.
pub(crate) fn show(tokens: &[TokenId], at: usize) -> Option<TokenShown> {
    let leaves: Vec<_> = tokens
        .iter()
        .map(|id| merkle::leaf(&id.to_be_bytes()))
        .collect();
    Some(TokenShown {
        token: *tokens.get(at)?,
        path: merkle::open(&leaves, at as u64)?.siblings,
    })
}
