//! What goes back: answers, chunks and the model list, in OpenAI's shape, with one extra field `assay` that OpenAI
//! clients ignore and ours read.

use assay_protocol::{Receipt, SamplerParams, Signed, StopReason, Timestamp, TokenId, Usage};
use serde::{Deserialize, Serialize};

/// Our part of an answer or of a chunk.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AssayAnswer {
    /// The ids behind this text: all of them in a plain answer, the new ones in a chunk.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub token_ids: Vec<TokenId>,
    /// What was really sampled with, when the server had to fill in something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampler: Option<SamplerParams>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<Signed<Receipt>>,
    /// The same JSON that `PAYMENT-RESPONSE` carries on a plain answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payment: Option<serde_json::Value>,
    /// Until when an answer of the optimistic tier can be challenged, in seconds since 1970; final after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub final_at: Option<Timestamp>,
    /// By when the proof of an answer of the proven tier is promised; until it is checked, the answer is provisional.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof_due: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PromptDetails {
    pub cached_tokens: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageBody {
    pub prompt_tokens: u32,
    pub completion_tokens: u32,
    pub total_tokens: u32,
    #[serde(default)]
    pub prompt_tokens_details: PromptDetails,
}

impl From<Usage> for UsageBody {
    fn from(usage: Usage) -> Self {
        Self {
            prompt_tokens: usage.prompt.0,
            completion_tokens: usage.output.0,
            total_tokens: usage.prompt.0.saturating_add(usage.output.0),
            prompt_tokens_details: PromptDetails {
                cached_tokens: usage.cached.0,
            },
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageBody {
    pub role: String,
    pub content: String,
}

/// The new part of a message; the first chunk carries the role.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delta {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
}

/// A choice of any answer: exactly one of `message` (chat), `delta` (chat chunk) and `text` (completion) is there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    pub index: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<MessageBody>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delta: Option<Delta>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    pub logprobs: Option<()>,
    pub finish_reason: Option<String>,
}

/// An answer or a chunk of one. In the last chunks `choices` may be empty.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    pub id: String,
    /// `chat.completion`, `chat.completion.chunk` or `text_completion`.
    pub object: String,
    pub created: u64,
    pub model: String,
    pub choices: Vec<Choice>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<UsageBody>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assay: Option<AssayAnswer>,
}

/// Which of OpenAI's two text APIs is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Surface {
    Chat,
    Completion,
}

/// What all parts of one answer have in common; makes them.
#[derive(Clone, Debug)]
pub struct Envelope {
    pub surface: Surface,
    pub id: String,
    pub created: u64,
    pub model: String,
}

impl Envelope {
    fn wrap(&self, object: &str, choices: Vec<Choice>) -> Answer {
        Answer {
            id: self.id.clone(),
            object: object.into(),
            created: self.created,
            model: self.model.clone(),
            choices,
            usage: None,
            assay: None,
        }
    }

    /// The whole answer at once.
    pub fn plain(
        &self,
        text: String,
        stop: StopReason,
        usage: Usage,
        assay: AssayAnswer,
    ) -> Answer {
        let finish_reason = Some(finish_reason(stop).to_owned());
        let mut answer = match self.surface {
            Surface::Chat => {
                let message = Some(MessageBody {
                    role: "assistant".into(),
                    content: text,
                });
                self.wrap(
                    "chat.completion",
                    vec![Choice {
                        message,
                        finish_reason,
                        ..Choice::default()
                    }],
                )
            }
            Surface::Completion => self.wrap(
                "text_completion",
                vec![Choice {
                    text: Some(text),
                    finish_reason,
                    ..Choice::default()
                }],
            ),
        };
        answer.usage = Some(usage.into());
        answer.assay = Some(assay);
        answer
    }

    /// The chat's opening chunk, which says who speaks; completions have none.
    pub fn opening(&self) -> Option<Answer> {
        if self.surface == Surface::Completion {
            return None;
        }
        let delta = Some(Delta {
            role: Some("assistant".into()),
            content: Some(String::new()),
        });
        Some(self.wrap(
            "chat.completion.chunk",
            vec![Choice {
                delta,
                ..Choice::default()
            }],
        ))
    }

    /// New text with the ids behind it. The text may be empty while a character is incomplete.
    pub fn chunk(&self, text: String, token_ids: Vec<TokenId>) -> Answer {
        let mut answer = self.part(Some(text), None);
        answer.assay = Some(AssayAnswer {
            token_ids,
            ..AssayAnswer::default()
        });
        answer
    }

    /// The chunk that says why the answer ends.
    pub fn ending(&self, stop: StopReason) -> Answer {
        self.part(None, Some(finish_reason(stop).to_owned()))
    }

    /// An event without a choice: usage if asked for, and the receipt.
    pub fn closing(&self, usage: Option<Usage>, assay: AssayAnswer) -> Answer {
        let object = if self.surface == Surface::Chat {
            "chat.completion.chunk"
        } else {
            "text_completion"
        };
        let mut answer = self.wrap(object, Vec::new());
        answer.usage = usage.map(Into::into);
        answer.assay = Some(assay);
        answer
    }

    /// The last events before `[DONE]`: why the answer ends, the receipt, and usage if it was asked for. OpenAI sends a
    /// chunk without choices only to who asked for usage, and other clients index into the choices.
    pub fn end(&self, stop: StopReason, usage: Option<Usage>, assay: AssayAnswer) -> Vec<Answer> {
        let mut ending = self.ending(stop);
        match usage {
            Some(usage) => vec![ending, self.closing(Some(usage), assay)],
            None => {
                ending.assay = Some(assay);
                vec![ending]
            }
        }
    }

    fn part(&self, text: Option<String>, finish_reason: Option<String>) -> Answer {
        match self.surface {
            Surface::Chat => {
                let delta = Some(Delta {
                    role: None,
                    content: text,
                });
                self.wrap(
                    "chat.completion.chunk",
                    vec![Choice {
                        delta,
                        finish_reason,
                        ..Choice::default()
                    }],
                )
            }
            Surface::Completion => {
                let text = Some(text.unwrap_or_default());
                self.wrap(
                    "text_completion",
                    vec![Choice {
                        text,
                        finish_reason,
                        ..Choice::default()
                    }],
                )
            }
        }
    }
}

/// OpenAI knows two ways to end a text.
pub fn finish_reason(stop: StopReason) -> &'static str {
    match stop {
        StopReason::EndOfText | StopReason::StopString => "stop",
        StopReason::MaxTokens | StopReason::Cut => "length",
    }
}

/// An entry of `GET /v1/models`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelBody {
    pub id: String,
    pub object: String,
    pub created: u64,
    pub owned_by: String,
}

/// The body of `GET /v1/models`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelList {
    pub object: String,
    pub data: Vec<ModelBody>,
}

impl ModelList {
    pub fn new(names: impl IntoIterator<Item = String>, created: u64, owned_by: &str) -> Self {
        let model = |id| ModelBody {
            id,
            object: "model".into(),
            created,
            owned_by: owned_by.to_owned(),
        };
        Self {
            object: "list".into(),
            data: names.into_iter().map(model).collect(),
        }
    }
}
