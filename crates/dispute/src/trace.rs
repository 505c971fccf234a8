//! What the dispute knows of an engine: the trace of one statement, seen through a trait, so that the
//! game is played on toy traces in tests and on a model's in earnest. Computes nothing.

use assay_protocol::manifest::Manifest;
use assay_protocol::trace::{EntryShown, LeafId, MatrixRef, Program, RowShown, TableRef};
use assay_protocol::{B256, SamplerParams, TokenId};

/// Why one's own trace cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the trace cannot be made: {0}")]
pub struct TraceError(pub String);

/// One's own trace of one statement: an honest one comes from running the model.
pub trait Trace {
    fn manifest(&self) -> &Manifest;
    fn prompt(&self) -> &[TokenId];
    fn output(&self) -> &[TokenId];
    fn sampler(&self) -> &SamplerParams;
    /// The layout; that of the manifest, the counts and the sampler above.
    fn program(&self) -> &Program;
    /// The leaves of an op, row after row; none where there is no such op.
    fn leaves(&self, op: u32) -> &[B256];
    /// Whole vectors, segment after segment, in the order asked for. A call may cost a run of the
    /// model, so callers ask for all that they foresee at once.
    fn vectors(&self, wanted: &[LeafId]) -> Result<Vec<Vec<u8>>, TraceError>;
    /// What the pass itself chooses at each place of the output, given the output before it.
    fn choices(&self) -> Result<Vec<TokenId>, TraceError>;
    fn weight_row(&self, matrix: MatrixRef, row: u32) -> Result<RowShown, TraceError>;
    fn entry(&self, table: TableRef, index: u32) -> Result<EntryShown, TraceError>;
}
