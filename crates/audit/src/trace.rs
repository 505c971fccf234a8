//! A statement's trace as the dispute wants it: run by the engine, with what was asked for kept at hand.
//! Decides nothing about a dispute.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, OnceLock, PoisonError};

use assay_dispute::{Trace, TraceError};
use assay_engine::trace::{self, Traced};
use assay_engine::{Model, replay};
use assay_protocol::manifest::Manifest;
use assay_protocol::trace::{EntryShown, LeafId, MatrixRef, Program, RowShown, TableRef};
use assay_protocol::{B256, SamplerParams, TokenId};

/// Bytes of vectors kept at hand; with more, all are forgotten and run again when asked for.
const KEPT_BYTES_MAX: usize = 256 << 20;

/// The trace that a model makes of a statement.
pub struct ModelTrace {
    model: Model,
    threads: usize,
    prompt: Vec<TokenId>,
    output: Vec<TokenId>,
    sampler: SamplerParams,
    program: Program,
    leaves: Vec<Vec<B256>>,
    vectors: Mutex<BTreeMap<LeafId, Vec<u8>>>,
    choices: OnceLock<Vec<TokenId>>,
}

impl ModelTrace {
    /// Runs the model over the tokens and hashes every vector.
    pub fn new(
        model: &Model,
        threads: usize,
        prompt: Vec<TokenId>,
        output: Vec<TokenId>,
        sampler: SamplerParams,
    ) -> Result<ModelTrace, TraceError> {
        let traced = Traced {
            model,
            threads,
            prompt: &prompt,
            output: &output,
            sampler: &sampler,
        };
        let program = traced.program().map_err(told)?;
        let leaves = traced.leaves(&mut |_| ()).map_err(told)?;
        Ok(ModelTrace {
            model: model.clone(),
            threads,
            prompt,
            output,
            sampler,
            program,
            leaves,
            vectors: Mutex::default(),
            choices: OnceLock::new(),
        })
    }

    fn traced(&self) -> Traced<'_> {
        Traced {
            model: &self.model,
            threads: self.threads,
            prompt: &self.prompt,
            output: &self.output,
            sampler: &self.sampler,
        }
    }
}

impl Trace for ModelTrace {
    fn manifest(&self) -> &Manifest {
        self.model.manifest()
    }

    fn prompt(&self) -> &[TokenId] {
        &self.prompt
    }

    fn output(&self) -> &[TokenId] {
        &self.output
    }

    fn sampler(&self) -> &SamplerParams {
        &self.sampler
    }

    fn program(&self) -> &Program {
        &self.program
    }

    fn leaves(&self, op: u32) -> &[B256] {
        self.leaves.get(op as usize).map_or(&[], Vec::as_slice)
    }

    fn vectors(&self, wanted: &[LeafId]) -> Result<Vec<Vec<u8>>, TraceError> {
        let mut kept = self.vectors.lock().unwrap_or_else(PoisonError::into_inner);
        let missing: Vec<LeafId> = wanted
            .iter()
            .filter(|leaf| !kept.contains_key(leaf))
            .copied()
            .collect();
        if !missing.is_empty() {
            let found = self.traced().vectors(&missing).map_err(told)?;
            kept.extend(missing.into_iter().zip(found));
        }
        let vectors = wanted.iter().map(|leaf| kept[leaf].clone()).collect();
        if kept.values().map(Vec::len).sum::<usize>() > KEPT_BYTES_MAX {
            kept.clear();
        }
        Ok(vectors)
    }

    fn choices(&self) -> Result<Vec<TokenId>, TraceError> {
        if let Some(choices) = self.choices.get() {
            return Ok(choices.clone());
        }
        let (model, threads) = (&self.model, self.threads);
        let choices = replay::choices(model, threads, &self.prompt, &self.sampler, &self.output)
            .map_err(told)?;
        Ok(self.choices.get_or_init(|| choices).clone())
    }

    fn weight_row(&self, matrix: MatrixRef, row: u32) -> Result<RowShown, TraceError> {
        trace::weight_row(&self.model, self.threads, matrix, row).map_err(told)
    }

    fn entry(&self, table: TableRef, index: u32) -> Result<EntryShown, TraceError> {
        trace::entry(&self.model, table, index.into()).map_err(told)
    }
}

fn told(error: impl fmt::Display) -> TraceError {
    TraceError(error.to_string())
}
