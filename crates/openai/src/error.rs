//! Errors as an OpenAI client expects them: a status and `{"error":{message,type,param,code}}`.
//!
//! The message is written for the person who sent the request and says what to do next; facts for the operator
//! belong in the log, never here.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The inner object of an error body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    pub message: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub param: Option<String>,
    pub code: Option<String>,
}

/// A refusal: the HTTP status and what the client reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    pub status: u16,
    pub body: ErrorBody,
    /// Set on 429 and 503: when a retry makes sense.
    pub retry_after_ms: Option<u64>,
}

impl ApiError {
    pub fn new(status: u16, kind: &str, code: &str, message: impl Into<String>) -> Self {
        let body = ErrorBody {
            message: message.into(),
            kind: kind.into(),
            param: None,
            code: Some(code.into()),
        };
        Self {
            status,
            body,
            retry_after_ms: None,
        }
    }

    /// 400: the request itself is wrong, and `param` names where.
    pub fn invalid(param: &str, message: impl Into<String>) -> Self {
        Self::new(400, "invalid_request_error", "invalid_value", message).at(param)
    }

    /// 400: a parameter that this market cannot honour; ignoring it would change the answer behind the user's back.
    pub fn unsupported(param: &str, message: impl Into<String>) -> Self {
        Self::new(
            400,
            "invalid_request_error",
            "unsupported_parameter",
            message,
        )
        .at(param)
    }

    pub fn malformed(message: impl Into<String>) -> Self {
        Self::new(400, "invalid_request_error", "malformed_body", message)
    }

    pub fn too_large(bytes_max: usize) -> Self {
        let message = format!("the body is larger than {bytes_max} bytes: send a shorter prompt");
        Self::new(413, "invalid_request_error", "request_too_large", message)
    }

    pub fn model_not_found(asked: &str, served: &[&str]) -> Self {
        let shown: String = asked.chars().take(80).collect();
        let message = format!(
            "the model '{shown}' is not served here: ask for one of [{}]",
            served.join(", ")
        );
        Self::new(404, "invalid_request_error", "model_not_found", message).at("model")
    }

    pub fn context_exceeded(context: u32, prompt: u64, output: u64) -> Self {
        let message = format!(
            "this model's context is {context} tokens, but the request needs {} ({prompt} in the prompt, {output} for \
             the answer): shorten the prompt or lower max_tokens; nothing is cut silently",
            prompt.saturating_add(output)
        );
        Self::new(
            400,
            "invalid_request_error",
            "context_length_exceeded",
            message,
        )
        .at("messages")
    }

    pub fn busy(retry_after_ms: u64) -> Self {
        let message = format!("all places are taken: try again in {retry_after_ms} ms");
        let mut error = Self::new(429, "rate_limit_error", "queue_full", message);
        error.retry_after_ms = Some(retry_after_ms);
        error
    }

    pub fn unavailable(message: impl Into<String>, retry_after_ms: u64) -> Self {
        let mut error = Self::new(503, "server_error", "unavailable", message);
        error.retry_after_ms = Some(retry_after_ms);
        error
    }

    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(500, "server_error", "internal_error", message)
    }

    /// The same error, pointing at another parameter.
    #[must_use]
    pub fn at(mut self, param: &str) -> Self {
        self.body.param = Some(param.chars().take(80).collect());
        self
    }

    /// The body to send; also the data of an SSE event when a stream fails in the middle.
    pub fn json(&self) -> Value {
        json!({ "error": self.body })
    }

    /// Headers that go with the status.
    pub fn headers(&self) -> Vec<(&'static str, String)> {
        match self.retry_after_ms {
            None => Vec::new(),
            Some(ms) => vec![
                ("retry-after", ms.div_ceil(1000).max(1).to_string()),
                ("retry-after-ms", ms.to_string()),
            ],
        }
    }
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.status, self.body.message)
    }
}

impl std::error::Error for ApiError {}
