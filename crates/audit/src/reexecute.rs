//! The exact half of an audit: the model's own choice at every position, at prefill speed.
//! Integer arithmetic: a token is the model's choice or it is not. Measures no time, sends nothing.

use assay_engine::{Model, replay};
use assay_protocol::{ModelId, StopReason, TokenId};
use serde::{Deserialize, Serialize};

use crate::evidence::Evidence;
use crate::fault::Fault;

/// What an audit found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Verdict {
    /// Every token is the one that the model chooses, and the answer ends where the model ends it.
    Honest { tokens: u32 },
    /// The answer is not what the receipt says it is.
    Dishonest { reason: Fault },
}

impl Verdict {
    pub fn is_honest(&self) -> bool {
        matches!(self, Self::Honest { .. })
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Honest { tokens } => {
                write!(f, "honest: all {tokens} tokens are the model's own choices")
            }
            Self::Dishonest { reason } => write!(f, "dishonest: {reason}"),
        }
    }
}

/// Why there is no verdict. Not a finding against anybody.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CannotAudit {
    #[error(
        "the receipt is about model {stated}, this is model {loaded}; pull or import the model it names"
    )]
    OtherModel { stated: ModelId, loaded: ModelId },
    #[error("the model could not be run on these tokens: {0}")]
    Replay(String),
}

/// Re-executes `evidence` and compares every token. Run `check_accounting` first: this looks only
/// at what the model chooses.
pub fn reexecute(
    model: &Model,
    threads: usize,
    evidence: &Evidence,
) -> Result<Verdict, CannotAudit> {
    let statement = &evidence.receipt.body.statement;
    if statement.model_id != model.id() {
        return Err(CannotAudit::OtherModel {
            stated: statement.model_id,
            loaded: model.id(),
        });
    }
    if evidence.output.is_empty() {
        return Ok(Verdict::Honest { tokens: 0 });
    }
    let choices = replay::choices(
        model,
        threads,
        &evidence.prompt,
        &evidence.sampler,
        &evidence.output,
    )
    .map_err(|error| CannotAudit::Replay(error.to_string()))?;
    if choices.len() != evidence.output.len() {
        return Err(CannotAudit::Replay(format!(
            "{} choices for {} tokens",
            choices.len(),
            evidence.output.len()
        )));
    }
    Ok(compare(&evidence.output, &choices, statement.stop_reason))
}

/// The verdict on claimed tokens beside the model's choices.
fn compare(claimed: &[TokenId], choices: &[TokenId], stop: StopReason) -> Verdict {
    let last = claimed.len() - 1;
    for (position, (&claimed, &recomputed)) in (0u32..).zip(claimed.iter().zip(choices)) {
        if claimed == recomputed {
            continue;
        }
        let ended_here = position as usize == last && stop == StopReason::EndOfText;
        return Verdict::Dishonest {
            reason: if ended_here {
                Fault::EndedEarly {
                    position,
                    recomputed,
                }
            } else {
                Fault::FalseToken {
                    position,
                    claimed,
                    recomputed,
                }
            },
        };
    }
    Verdict::Honest {
        tokens: crate::evidence::count(claimed.len()).0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(claimed: &[TokenId], choices: &[TokenId], stop: StopReason, expected: Verdict) {
        assert_eq!(compare(claimed, choices, stop), expected);
    }

    #[test]
    fn the_models_own_tokens_are_honest() {
        check(
            &[1, 2, 3],
            &[1, 2, 3],
            StopReason::MaxTokens,
            Verdict::Honest { tokens: 3 },
        );
    }

    #[test]
    fn the_first_false_token_is_named() {
        let reason = Fault::FalseToken {
            position: 1,
            claimed: 2,
            recomputed: 9,
        };
        check(
            &[1, 2, 3],
            &[1, 9, 8],
            StopReason::MaxTokens,
            Verdict::Dishonest { reason },
        );
    }

    #[test]
    fn an_end_of_text_that_the_model_would_not_choose_is_a_truncation() {
        let reason = Fault::EndedEarly {
            position: 2,
            recomputed: 9,
        };
        check(
            &[1, 2, 0],
            &[1, 2, 9],
            StopReason::EndOfText,
            Verdict::Dishonest { reason },
        );
    }

    #[test]
    fn a_cut_answer_is_checked_as_a_prefix() {
        check(
            &[1, 2],
            &[1, 2],
            StopReason::Cut,
            Verdict::Honest { tokens: 2 },
        );
        let reason = Fault::FalseToken {
            position: 1,
            claimed: 2,
            recomputed: 7,
        };
        check(
            &[1, 2],
            &[1, 7],
            StopReason::Cut,
            Verdict::Dishonest { reason },
        );
    }
}
