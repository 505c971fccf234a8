//! The fallback: any OpenAI-compatible upstream, asked only when no node can serve and the request
//! allows it. Its answer is `unverified` everywhere: it has no receipt, and nothing here can make one.

use std::time::Duration;

use assay_openai::{ApiError, AssayAnswer, Surface};
use assay_protocol::{B256, MicroUsd, Price, StopReason, Tier, TokenCount, Usage};
use futures::StreamExt as _;
use serde_json::{Map, Value, json};

use crate::answer::{Client, Ending, Label, Left, Part};
use crate::sse::SseReader;

/// A key that is never printed.
#[derive(Clone)]
pub struct ApiKey(String);

impl ApiKey {
    /// The key without the line end that files have.
    pub fn new(key: &str) -> Self {
        Self(key.trim().to_owned())
    }
}

impl std::fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ApiKey(…)")
    }
}

/// A configured cloud.
#[derive(Clone, Debug)]
pub struct CloudUpstream {
    /// As headers, list and bill name it.
    pub name: String,
    /// Up to and with `/v1`.
    pub base_url: String,
    /// Its own name of the model that stands in.
    pub model: String,
    /// Which of the market's models it may stand in for; none means any.
    pub stands_in_for: Option<Vec<String>>,
    pub key: Option<ApiKey>,
    /// Its list price, for the bill.
    pub price: Price,
}

impl CloudUpstream {
    pub fn serves(&self, model: &str) -> bool {
        self.stands_in_for
            .as_ref()
            .is_none_or(|names| names.iter().any(|name| name == model))
    }
}

/// What is sent on: the client's own body, less what is ours.
#[derive(Clone, Debug)]
pub(crate) struct CloudRequest {
    pub request_id: B256,
    pub surface: Surface,
    pub body: Map<String, Value>,
    pub prompt: TokenCount,
    pub max_tokens: u32,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct CloudTimeouts {
    pub first_token: Duration,
    pub next_token: Duration,
}

/// What a cloud says it did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CloudBill {
    pub prompt_tokens: Option<u32>,
    pub output_tokens: Option<u32>,
    pub estimated: Option<MicroUsd>,
}

/// Why a cloud gave no whole answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CloudError {
    #[error("cloud '{cloud}' {what}")]
    Failed { cloud: String, what: String },
    #[error(transparent)]
    Left(#[from] Left),
}

/// Asks a cloud and streams its answer on. Returns what it billed, and the ending that is to be sent
/// once the answer is in the list.
pub(crate) async fn answer(
    http: &reqwest::Client,
    cloud: &CloudUpstream,
    request: &CloudRequest,
    timeouts: CloudTimeouts,
    client: &mut Client,
) -> Result<(CloudBill, Ending), CloudError> {
    let failed = |what: String| CloudError::Failed {
        cloud: cloud.name.clone(),
        what,
    };
    let path = match request.surface {
        Surface::Chat => "chat/completions",
        Surface::Completion => "completions",
    };
    let url = format!("{}/{path}", cloud.base_url.trim_end_matches('/'));
    let mut post = http.post(url).json(&body(cloud, request));
    if let Some(key) = &cloud.key {
        post = post.bearer_auth(&key.0);
    }
    // An error of reqwest may quote the URL but never a header, so the key stays unsaid.
    let response = within(timeouts.first_token, post.send())
        .await
        .ok_or_else(|| failed("did not answer in time".into()))?
        .map_err(|error| failed(format!("cannot be reached: {}", error.without_url())))?;
    if !response.status().is_success() {
        return Err(failed(format!(
            "refused with status {}",
            response.status().as_u16()
        )));
    }
    let mut bytes = response.bytes_stream();
    let mut reader = SseReader::new(EVENT_BYTES_MAX);
    let mut tally = Tally::default();
    loop {
        let wait = if client.has_begun() {
            timeouts.next_token
        } else {
            timeouts.first_token
        };
        let chunk = tokio::select! {
            chunk = within(wait, bytes.next()) => chunk.ok_or_else(|| failed("stalled".into()))?,
            () = client.left() => return Err(Left.into()),
        };
        let Some(chunk) = chunk else {
            return Err(failed("ended its stream without a finish".into()));
        };
        let chunk = chunk.map_err(|error| failed(format!("broke off: {}", error.without_url())))?;
        for event in reader
            .push(&chunk)
            .map_err(|error| failed(error.to_string()))?
        {
            if event == b"[DONE]" {
                let stop = tally
                    .stop
                    .ok_or_else(|| failed("gave no finish reason".into()))?;
                let bill = tally.bill(&cloud.price);
                client.begin(label(cloud, request))?;
                let ending = ending(stop, &bill, request);
                return Ok((bill, ending));
            }
            let event: Value = serde_json::from_slice(&event)
                .map_err(|_| failed("sent an event that does not parse".into()))?;
            if event.get("error").is_some() {
                return Err(failed("sent an error in its stream".into()));
            }
            let text = tally.take(&event);
            if !text.is_empty() {
                client.begin(label(cloud, request))?;
                client
                    .send(Part::Text {
                        text,
                        ids: Vec::new(),
                    })
                    .await?;
            }
        }
    }
}

/// The longest event that is read from a cloud.
const EVENT_BYTES_MAX: usize = 1 << 20;

/// The error for the client when a cloud, too, fails.
pub(crate) fn api_error(error: &CloudError) -> ApiError {
    ApiError::unavailable(
        format!("no node can serve, and the fallback failed as well: {error}; try again"),
        2_000,
    )
}

fn body(cloud: &CloudUpstream, request: &CloudRequest) -> Value {
    let mut body = request.body.clone();
    body.remove("assay");
    body.insert("model".into(), json!(cloud.model));
    // The limit that prices were compared by holds there as well.
    if !body.contains_key("max_completion_tokens") {
        body.insert("max_tokens".into(), json!(request.max_tokens));
    }
    body.insert("stream".into(), json!(true));
    body.insert("stream_options".into(), json!({ "include_usage": true }));
    Value::Object(body)
}

fn label(cloud: &CloudUpstream, request: &CloudRequest) -> Label {
    Label {
        request_id: request.request_id,
        provider: format!("cloud:{}", cloud.name),
        tier: Tier::Unverified,
        price: cloud.price,
        ceiling: ceiling(cloud, request),
    }
}

/// The most that this request can cost there, by list price.
pub(crate) fn ceiling(cloud: &CloudUpstream, request: &CloudRequest) -> MicroUsd {
    let most = Usage {
        prompt: request.prompt,
        cached: TokenCount(0),
        output: TokenCount(request.max_tokens),
    };
    cloud.price.charge(&most).unwrap_or(MicroUsd(u64::MAX))
}

fn ending(stop: StopReason, bill: &CloudBill, request: &CloudRequest) -> Ending {
    Ending {
        stop,
        usage: Usage {
            prompt: TokenCount(bill.prompt_tokens.unwrap_or(request.prompt.0)),
            cached: TokenCount(0),
            output: TokenCount(bill.output_tokens.unwrap_or(0)),
        },
        charged: MicroUsd::ZERO,
        assay: AssayAnswer::default(),
    }
}

#[derive(Debug, Default)]
struct Tally {
    stop: Option<StopReason>,
    prompt_tokens: Option<u32>,
    output_tokens: Option<u32>,
}

impl Tally {
    /// Reads one event and returns its new text. Whatever else it holds, an `assay` field above all, is dropped.
    fn take(&mut self, event: &Value) -> String {
        let count = |name: &str| {
            let value = event.get("usage").and_then(|usage| usage.get(name));
            value
                .and_then(Value::as_u64)
                .and_then(|n| u32::try_from(n).ok())
        };
        self.prompt_tokens = count("prompt_tokens").or(self.prompt_tokens);
        self.output_tokens = count("completion_tokens").or(self.output_tokens);
        let Some(choice) = event.get("choices").and_then(|choices| choices.get(0)) else {
            return String::new();
        };
        match choice.get("finish_reason").and_then(Value::as_str) {
            Some("length") => self.stop = Some(StopReason::MaxTokens),
            Some(_) => self.stop = Some(StopReason::EndOfText),
            None => {}
        }
        let delta = choice.get("delta").and_then(|delta| delta.get("content"));
        delta
            .or_else(|| choice.get("text"))
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    }

    fn bill(&self, price: &Price) -> CloudBill {
        let estimated = match (self.prompt_tokens, self.output_tokens) {
            (Some(prompt), Some(output)) => price
                .charge(&Usage {
                    prompt: TokenCount(prompt),
                    cached: TokenCount(0),
                    output: TokenCount(output),
                })
                .ok(),
            _ => None,
        };
        CloudBill {
            prompt_tokens: self.prompt_tokens,
            output_tokens: self.output_tokens,
            estimated,
        }
    }
}

async fn within<F: Future>(limit: Duration, future: F) -> Option<F::Output> {
    tokio::time::timeout(limit, future).await.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_never_printed() {
        let key = ApiKey::new("sk-secret\n");
        assert_eq!(format!("{key:?}"), "ApiKey(…)");
        assert_eq!(key.0, "sk-secret");
    }

    #[test]
    fn a_receipt_in_a_clouds_stream_is_dropped() {
        let mut tally = Tally::default();
        let event = json!({
            "choices": [{ "delta": { "content": "hi" }, "finish_reason": null }],
            "assay": { "receipt": { "body": {} } },
        });
        assert_eq!(tally.take(&event), "hi");
        let bill = tally.bill(&Price::default());
        assert_eq!(bill, CloudBill::default());
    }

    #[test]
    fn the_bill_counts_what_the_cloud_reports() {
        let mut tally = Tally::default();
        tally.take(&json!({ "choices": [{ "text": "x", "finish_reason": "length" }] }));
        tally.take(
            &json!({ "choices": [], "usage": { "prompt_tokens": 10, "completion_tokens": 20 } }),
        );
        let price = Price {
            input: assay_protocol::MicroUsdPerMillionTokens(1_000_000),
            cached_input: Default::default(),
            output: assay_protocol::MicroUsdPerMillionTokens(2_000_000),
        };
        assert_eq!(tally.bill(&price).estimated, Some(MicroUsd(50)));
        assert_eq!(tally.stop, Some(StopReason::MaxTokens));
    }
}
