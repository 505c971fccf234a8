//! A receipt with the tokens that it hashes: what a player needs beside the model. Says whether there is anything to
//! accuse, and makes the trace to accuse or defend with. Sends nothing.

use std::sync::Arc;

use assay_audit::{Evidence, ModelTrace};
use assay_dispute::{Fact, Trace, TraceError, facts};
use assay_engine::{Model, replay};
use assay_protocol::{ModelId, Receipt, SamplerParams, Signed, Statement, TokenId};
use serde::{Deserialize, Serialize};

/// A trace that a task can hold on to.
pub type SharedTrace = Arc<dyn Trace + Send + Sync>;

/// Everything about one answer that a game is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Case {
    pub receipt: Signed<Receipt>,
    pub prompt: Vec<TokenId>,
    pub sampler: SamplerParams,
    pub output: Vec<TokenId>,
}

/// Why a receipt can be convicted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Grounds {
    /// It is false by itself: proven at once, without a bond and without a game.
    Fact(Fact),
    /// The model chooses another token at this place of the output.
    Token {
        position: u32,
        claimed: TokenId,
        chosen: TokenId,
    },
}

/// Why nothing can be made of a case.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoCase {
    #[error(
        "these tokens are not those that the receipt hashes: only who sent and got them can tell"
    )]
    OtherTokens,
    #[error("the receipt is about model {stated}, this is {loaded}: bring the model it names")]
    OtherModel { stated: ModelId, loaded: ModelId },
    #[error("the model cannot be run on these tokens: {0}")]
    Replay(String),
    #[error(transparent)]
    Trace(#[from] TraceError),
}

impl From<Evidence> for Case {
    fn from(evidence: Evidence) -> Self {
        Self {
            receipt: evidence.receipt,
            prompt: evidence.prompt,
            sampler: evidence.sampler,
            output: evidence.output,
        }
    }
}

impl Case {
    /// Whether the tokens are those that the receipt signs; the chain believes nothing else.
    pub fn check(&self, model: &Model) -> Result<(), NoCase> {
        let stated = self.receipt.body.statement;
        if stated.model_id != model.id() {
            return Err(NoCase::OtherModel {
                stated: stated.model_id,
                loaded: model.id(),
            });
        }
        let too_long = u32::try_from(self.prompt.len().max(self.output.len())).is_err();
        let (reason, sampler) = (stated.stop_reason, &self.sampler);
        let ours = || Statement::new(stated.model_id, &self.prompt, sampler, &self.output, reason);
        match !too_long && ours() == stated {
            true => Ok(()),
            false => Err(NoCase::OtherTokens),
        }
    }

    /// What convicts the receipt, cheapest first; nothing if it is true, or if what is false about it cannot be shown to
    /// a contract. Runs the model at prefill speed.
    pub fn grounds(&self, model: &Model, threads: usize) -> Result<Option<Grounds>, NoCase> {
        self.check(model)?;
        let manifest = model.manifest();
        let reason = self.receipt.body.statement.stop_reason;
        let (prompt, output) = (&self.prompt, &self.output);
        if let Some(fact) = facts(manifest, prompt, output, &self.sampler, reason) {
            return Ok(Some(Grounds::Fact(fact)));
        }
        if output.is_empty() {
            return Ok(None);
        }
        let chosen = replay::choices(model, threads, prompt, &self.sampler, output)
            .map_err(|error| NoCase::Replay(error.to_string()))?;
        let parted = (0u32..).zip(output.iter().zip(chosen));
        let mut parted = parted.filter(|(_, (claimed, chosen))| *claimed != chosen);
        Ok(parted
            .next()
            .map(|(position, (&claimed, chosen))| Grounds::Token {
                position,
                claimed,
                chosen,
            }))
    }

    /// The trace of these tokens by this model, which need not be the one that the receipt names: a provider that
    /// computed something else defends with what it computed.
    pub fn trace(&self, model: &Model, threads: usize) -> Result<SharedTrace, NoCase> {
        let (prompt, output) = (self.prompt.clone(), self.output.clone());
        let trace = ModelTrace::new(model, threads, prompt, output, self.sampler.clone())?;
        Ok(Arc::new(trace))
    }
}
