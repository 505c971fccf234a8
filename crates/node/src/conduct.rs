//! The seam behind which answers are made, so that dishonest players are code beside the honest one. A conduct chooses
//! the computation that really runs, and may lie about where an answer ends; everything else of a node is the same.

use assay_engine::Model;
use assay_protocol::{StopReason, TokenId};

/// An end that the model did not choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EarlyEnd {
    /// A token put at the end to make the claim look right.
    pub append: Option<TokenId>,
    pub reason: StopReason,
}

/// How a provider behaves.
pub trait Conduct: Send + Sync + 'static {
    /// What logs and status pages call it.
    fn label(&self) -> &'static str;

    /// The model that computes, given the one that is claimed.
    fn model(&self, claimed: &Model) -> Model;

    /// Whether to end the answer here, with `output` tokens made.
    fn end_early(&self, output: u32, eos: Option<TokenId>) -> Option<EarlyEnd>;

    /// Whether it answers on the chain when somebody disputes a receipt.
    fn defends(&self) -> bool {
        true
    }
}

/// Runs the model that it claims, to the end.
#[derive(Clone, Copy, Debug, Default)]
pub struct Honest;

impl Conduct for Honest {
    fn label(&self) -> &'static str {
        "honest"
    }

    fn model(&self, claimed: &Model) -> Model {
        claimed.clone()
    }

    fn end_early(&self, _output: u32, _eos: Option<TokenId>) -> Option<EarlyEnd> {
        None
    }
}
