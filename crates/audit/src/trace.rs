//! A statement's trace as the dispute wants it: run by the engine, with what was asked for kept at hand.
//! And where two traces part. Decides nothing about a dispute.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, OnceLock, PoisonError};

use assay_dispute::{Trace, TraceError};
use assay_engine::trace::{self, Traced};
use assay_engine::{Model, replay};
use assay_protocol::manifest::Manifest;
use assay_protocol::trace::{
    ElementId, EntryShown, LeafId, MatrixRef, Program, RowShown, TableRef,
};
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

/// The first element of another's trace of the same statement that is not one's own; `None` where the two
/// are the same. All that it is made of is the same in both: it convicts whose it is.
pub fn first_difference(
    own: &dyn Trace,
    other: &dyn Trace,
) -> Result<Option<ElementId>, TraceError> {
    let program = own.program();
    if other.program() != program {
        return Err(TraceError("the traces are of different shapes".into()));
    }
    let differs = |op: u32| {
        let (own, other) = (own.leaves(op), other.leaves(op));
        own.iter().zip(other).position(|(a, b)| a != b)
    };
    let Some((op, row)) = (0..program.ops()).find_map(|op| Some((op, differs(op)?))) else {
        return Ok(None);
    };
    let leaf = LeafId {
        op,
        row: row as u32,
    };
    let bytes = |trace: &dyn Trace| trace.vectors(&[leaf]).map(|vectors| vectors.concat());
    let (own, other) = (bytes(own)?, bytes(other)?);
    // The hashes differ, so the bytes do, unless a vector is not what was hashed.
    let other_than_hashed = || TraceError(format!("{leaf:?} is not the vector that was hashed"));
    let byte = own.iter().zip(&other).position(|(a, b)| a != b);
    let mut rest = byte.ok_or_else(other_than_hashed)? as u64;
    for part in program.parts(leaf) {
        if rest < part.bytes() {
            let index = rest / part.width.bytes() as u64;
            return Ok(program.element(leaf, part.segment, index));
        }
        rest -= part.bytes();
    }
    Err(other_than_hashed())
}
