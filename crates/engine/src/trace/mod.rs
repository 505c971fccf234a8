//! The trace of a statement (docs/dispute.md): every vector that the pass computes, as leaf hashes in
//! bounded memory at about prefill speed, or as the bytes of chosen vectors. The fast pass is run with a
//! tap on it; [`reference`] is the same list written plainly.

mod attention;
mod hash;
mod record;
pub mod reference;
mod sample;
mod shown;
pub(crate) mod tap;

use assay_protocol::sampler::SamplerError;
use assay_protocol::trace::{BLOCK, LeafId, Program, ProgramError};
use assay_protocol::{B256, SamplerParams, TokenId};

use crate::forward::{Runner, Span};
use crate::model::Model;
use crate::run::{self, RunError};
use tap::Tap;

pub use shown::{entry, weight_row};

/// The tap takes whole blocks of columns from whole chunks of the pass.
const _: () = assert!(run::CHUNK == BLOCK as usize);

/// Why a statement cannot be traced.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TraceError {
    #[error(transparent)]
    Run(#[from] RunError),
    #[error(transparent)]
    Sampler(#[from] SamplerError),
    #[error(transparent)]
    Program(#[from] ProgramError),
    #[error("the trace has no vector {} of op {}", .0.row, .0.op)]
    NoSuchLeaf(LeafId),
    #[error("the model has no row {row} in {what}")]
    NoSuchRow { what: String, row: u64 },
}

/// A statement's tokens, and who runs them.
#[derive(Debug, Clone, Copy)]
pub struct Traced<'a> {
    pub model: &'a Model,
    pub threads: usize,
    pub prompt: &'a [TokenId],
    pub output: &'a [TokenId],
    pub sampler: &'a SamplerParams,
}

impl Traced<'_> {
    /// The layout, which also says that the tokens can be run.
    pub fn program(&self) -> Result<Program, TraceError> {
        self.sampler.validate()?;
        let count = |tokens: &[TokenId]| u32::try_from(tokens.len()).unwrap_or(u32::MAX);
        let (n_prompt, n_output) = (count(self.prompt), count(self.output));
        let program = Program::new(self.model.manifest(), n_prompt, n_output, self.sampler)?;
        let positions = self.prompt.len() + self.output.len();
        for tokens in [self.prompt, self.output] {
            run::check_tokens(self.model, tokens, positions)?;
        }
        Ok(program)
    }

    /// The hash of every vector: row after row, op after op. `progress` is told how many of the pass's
    /// tokens are done.
    pub fn leaves(&self, progress: &mut dyn FnMut(u32)) -> Result<Vec<Vec<B256>>, TraceError> {
        let tap = Tap::hashing(self.program()?, self.sampler);
        Ok(self.tapped(tap, progress).into_leaves())
    }

    /// The bytes of these vectors, in their order. Runs no further than the last of them.
    pub fn vectors(&self, wanted: &[LeafId]) -> Result<Vec<Vec<u8>>, TraceError> {
        let program = self.program()?;
        if let Some(leaf) = wanted.iter().find(|leaf| program.chunks(**leaf) == 0) {
            return Err(TraceError::NoSuchLeaf(*leaf));
        }
        let tap = Tap::keeping(program, self.sampler, wanted);
        let kept = self.tapped(tap, &mut |_| ()).into_kept();
        let found = wanted.iter().map(|leaf| kept.get(leaf).cloned());
        Ok(found.map(Option::unwrap_or_default).collect())
    }

    /// Runs the pass as far as the tap needs it.
    fn tapped(&self, tap: Tap, progress: &mut dyn FnMut(u32)) -> Tap {
        let tokens = [self.prompt, self.output].concat();
        let tokens = &tokens[..tap.positions() as usize];
        let mut runner = Runner::new(self.model, self.threads);
        // Whole blocks, so that the values of the last one can be read to its end.
        let mut cache = runner.cache(tokens.len().next_multiple_of(run::CHUNK));
        runner.set_tap(tap);
        let mut done = 0;
        for tokens in tokens.chunks(run::CHUNK) {
            runner.forward(&mut [Span {
                cache: &mut cache,
                tokens,
            }]);
            runner.tap_outputs();
            done += tokens.len() as u32;
            progress(done);
        }
        runner.take_tap()
    }
}
