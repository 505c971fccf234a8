//! The seam behind which proofs are made: minutes of work in which nothing is awaited. Tests put something faster there,
//! or a liar.

use assay_engine::Model;
use assay_proof::{Claim, Progress};

/// Makes the proof of a claim, on the calling thread and `threads` in all.
pub trait Prove: Send + Sync + 'static {
    fn prove(
        &self,
        model: &Model,
        claim: &Claim<'_>,
        threads: usize,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Vec<u8>, String>;
}

/// Proves what is claimed, if it is true.
#[derive(Clone, Copy, Debug, Default)]
pub struct Prover;

impl Prove for Prover {
    fn prove(
        &self,
        model: &Model,
        claim: &Claim<'_>,
        threads: usize,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Vec<u8>, String> {
        let proof = assay_proof::prove(model, claim, threads, progress);
        let proof = proof.map_err(|error| error.to_string())?;
        Ok(proof.as_bytes().to_vec())
    }
}
