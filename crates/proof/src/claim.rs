//! What a proof is about, how far a prover is, and why either side says no.

use assay_engine::Model;
use assay_protocol::manifest::Manifest;
use assay_protocol::merkle::tokens_root;
use assay_protocol::sampler::SamplerError;
use assay_protocol::{ModelId, SamplerParams, Statement, TokenId};

use crate::key::KeyFile;

/// A statement with the tokens and the sampler that it commits to.
#[derive(Debug, Clone, Copy)]
pub struct Claim<'a> {
    pub statement: &'a Statement,
    pub prompt: &'a [TokenId],
    pub sampler: &'a SamplerParams,
    pub output: &'a [TokenId],
}

/// How the tokens, or the model at hand, differ from the statement.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClaimError {
    #[error("wrong model: the statement names {stated}, this is {found}")]
    WrongModel { stated: ModelId, found: ModelId },
    #[error("wrong count: the statement counts {stated} {what} tokens, {found} are shown")]
    WrongCount {
        what: &'static str,
        stated: u32,
        found: usize,
    },
    #[error("wrong token: the {0} tokens shown are not those that the statement commits to")]
    WrongTokens(&'static str),
    #[error("wrong sampler: the parameters shown are not those that the statement commits to")]
    WrongSampler,
    #[error("token {token} is none of the model's {vocab}")]
    UnknownToken { token: TokenId, vocab: u32 },
    #[error(transparent)]
    Sampler(#[from] SamplerError),
    #[error("there is nothing to prove: the answer has no token")]
    Empty,
}

impl Claim<'_> {
    /// Holds the tokens and the sampler against the statement.
    pub fn check(&self, key: &Key<'_>) -> Result<(), ClaimError> {
        let stated = self.statement;
        let model = key.model_id();
        if stated.model_id != model {
            return Err(ClaimError::WrongModel {
                stated: stated.model_id,
                found: model,
            });
        }
        let vocab = key.manifest().dims.vocab;
        let mut shown = self.prompt.iter().chain(self.output);
        if let Some(token) = shown.find(|token| **token >= vocab) {
            let token = *token;
            return Err(ClaimError::UnknownToken { token, vocab });
        }
        for (what, count, root, tokens) in [
            ("prompt", stated.n_prompt, stated.prompt_root, self.prompt),
            ("output", stated.n_output, stated.output_root, self.output),
        ] {
            if count.0 as usize != tokens.len() {
                return Err(ClaimError::WrongCount {
                    what,
                    stated: count.0,
                    found: tokens.len(),
                });
            }
            if tokens_root(tokens) != root {
                return Err(ClaimError::WrongTokens(what));
            }
        }
        self.sampler.validate()?;
        if self.sampler.hash() != stated.sampler_hash {
            return Err(ClaimError::WrongSampler);
        }
        if self.prompt.is_empty() || self.output.is_empty() {
            return Err(ClaimError::Empty);
        }
        Ok(())
    }
}

/// What a prover is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    Witness,
    Commit,
    Lookup,
    Sumcheck,
    Open,
}

impl Phase {
    pub const ALL: [Phase; 5] = [
        Phase::Witness,
        Phase::Commit,
        Phase::Lookup,
        Phase::Sumcheck,
        Phase::Open,
    ];

    pub fn label(self) -> &'static str {
        match self {
            Phase::Witness => "witness",
            Phase::Commit => "commit",
            Phase::Lookup => "lookup",
            Phase::Sumcheck => "sumcheck",
            Phase::Open => "open",
        }
    }
}

/// `done` of `of` steps of a phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    pub phase: Phase,
    pub done: u32,
    pub of: u32,
}

/// What a verifier knows of the model.
#[derive(Debug, Clone, Copy)]
pub enum Key<'a> {
    /// The weights themselves.
    Weights(&'a Model),
    /// A key, whose hash the verifier knows to be the model's: the proof has to open the weights.
    Committed(&'a KeyFile),
}

impl Key<'_> {
    pub fn model_id(&self) -> ModelId {
        match self {
            Key::Weights(model) => model.id(),
            Key::Committed(key) => key.model_id(),
        }
    }

    pub fn manifest(&self) -> &Manifest {
        match self {
            Key::Weights(model) => model.manifest(),
            Key::Committed(key) => key.manifest(),
        }
    }
}
