//! Cheats, for demonstrations and tests: what audits must catch. A node that runs one says so in its log and never
//! mixes it with honest answers.

use assay_engine::Model;
use assay_protocol::{StopReason, TokenId};

use crate::conduct::{Conduct, EarlyEnd};

/// Claims the whole model and leaves out layers: a cheaper computation under the same name.
#[derive(Clone, Debug)]
pub struct SkipsLayers {
    pub skip: Vec<usize>,
}

impl Conduct for SkipsLayers {
    fn label(&self) -> &'static str {
        "DISHONEST: skips layers"
    }

    fn model(&self, claimed: &Model) -> Model {
        claimed.without_layers(&self.skip)
    }

    fn end_early(&self, _output: u32, _eos: Option<TokenId>) -> Option<EarlyEnd> {
        None
    }
}

/// Skips layers, and says nothing when it is asked for its trace.
#[derive(Clone, Debug)]
pub struct Withholds {
    pub skip: Vec<usize>,
}

impl Conduct for Withholds {
    fn label(&self) -> &'static str {
        "DISHONEST: skips layers and withholds its trace"
    }

    fn model(&self, claimed: &Model) -> Model {
        claimed.without_layers(&self.skip)
    }

    fn end_early(&self, _output: u32, _eos: Option<TokenId>) -> Option<EarlyEnd> {
        None
    }

    fn defends(&self) -> bool {
        false
    }
}

/// Stops computing after a few tokens and pretends that the model had finished.
#[derive(Clone, Copy, Debug)]
pub struct Truncates {
    /// Output tokens that are really computed.
    pub after: u32,
    /// What it claims; [`StopReason::EndOfText`] gets a forged end-of-text token.
    pub claim: StopReason,
}

impl Conduct for Truncates {
    fn label(&self) -> &'static str {
        "DISHONEST: truncates answers"
    }

    fn model(&self, claimed: &Model) -> Model {
        claimed.clone()
    }

    fn end_early(&self, output: u32, eos: Option<TokenId>) -> Option<EarlyEnd> {
        if output < self.after {
            return None;
        }
        let append = if self.claim == StopReason::EndOfText {
            eos
        } else {
            None
        };
        Some(EarlyEnd {
            append,
            reason: self.claim,
        })
    }
}
