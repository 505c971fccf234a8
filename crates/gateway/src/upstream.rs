//! One node over HTTP: the request as JSON, its answer as pieces. Reads hostile bytes within bounds;
//! believes nothing, pays nothing.

use std::time::Duration;

use assay_openai::Answer;
use assay_payments::x402::{self, PaymentPayload, PaymentRequired};
use assay_protocol::{B256, MicroUsd, Receipt, Signed, TokenCount, TokenId};
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use serde_json::{Value, json};

use crate::prepare::Job;
use crate::proofs::ProofProgress;
use crate::sse::SseReader;

/// The longest refusal or receipt that is read.
const SMALL_BODY_BYTES_MAX: usize = 64 * 1024;

/// What a node answered to a request.
pub(crate) enum Reply {
    Stream(NodeStream),
    /// 402: what it wants, or what it thinks was paid.
    PaymentRequired(Box<PaymentRequired>),
    /// 429 or 503: not now.
    Busy {
        retry_after: Duration,
    },
    Refused(String),
}

/// A piece of a node's answer.
#[derive(Debug)]
pub(crate) enum Piece {
    Tokens(Vec<TokenId>),
    Receipt {
        receipt: Box<Signed<Receipt>>,
        cached: TokenCount,
    },
    Done,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum UpstreamError {
    /// Nothing was sent.
    #[error("it cannot be reached: {0}")]
    NoConnection(String),
    #[error("it cannot be reached: {0}")]
    Unreachable(String),
    #[error("it broke off: {0}")]
    BrokeOff(String),
    #[error("it ended its stream without a finish")]
    NoFinish,
    #[error("it sent an event that does not parse")]
    BadEvent,
    #[error("it sent an event that is too long")]
    LongEvent,
    #[error("it says: {0}")]
    ErrorFrame(String),
    #[error("its demand for payment does not parse: {0}")]
    BadDemand(String),
}

/// The body for a node: token ids and the exact sampler, so that there is one way to read it.
pub(crate) fn body(job: &Job, max_price: MicroUsd) -> Value {
    json!({
        // By its id: a name means what its owner likes.
        "model": job.model.model.id(),
        "prompt": job.prompt,
        "stream": true,
        "stream_options": { "include_usage": true },
        "assay": {
            "sampler": job.sampler,
            "verification": job.tier,
            "max_price": max_price,
            "request_id": job.request_id,
        },
    })
}

/// Sends a request, paid or not.
pub(crate) async fn send(
    http: &reqwest::Client,
    endpoint: &str,
    body: &Value,
    payment: Option<&PaymentPayload>,
    event_bytes_max: usize,
) -> Result<Reply, UpstreamError> {
    let url = format!("{}/v1/completions", endpoint.trim_end_matches('/'));
    let mut request = http.post(url).json(body);
    if let Some(payment) = payment {
        request = request.header(x402::PAYMENT_SIGNATURE, x402::encode(payment));
    }
    let response = request
        .send()
        .await
        .map_err(|error| match error.is_connect() {
            true => UpstreamError::NoConnection(error.without_url().to_string()),
            false => UpstreamError::Unreachable(error.without_url().to_string()),
        })?;
    match response.status().as_u16() {
        200 => Ok(Reply::Stream(NodeStream::new(response, event_bytes_max))),
        402 => Ok(Reply::PaymentRequired(Box::new(demand(&response)?))),
        429 | 503 => Ok(Reply::Busy {
            retry_after: retry_after(response.headers()),
        }),
        status => Ok(Reply::Refused(format!(
            "status {status}: {}",
            message(response).await
        ))),
    }
}

/// The receipt of a request, if the node has one now.
pub(crate) async fn receipt_once(
    http: &reqwest::Client,
    endpoint: &str,
    request_id: &B256,
) -> Option<Signed<Receipt>> {
    let url = format!(
        "{}/assay/v1/receipts/{request_id}",
        endpoint.trim_end_matches('/')
    );
    let response = http.get(&url).send().await.ok()?;
    let body = match response.status().is_success() {
        true => bounded(response).await.ok()?,
        false => return None,
    };
    serde_json::from_slice(&body).ok()
}

/// The receipt that a node signed after its reader had left; it takes the node a moment to notice.
pub(crate) async fn receipt(
    http: &reqwest::Client,
    endpoint: &str,
    request_id: &B256,
    patience: Duration,
) -> Option<Signed<Receipt>> {
    let asking = async {
        let mut pause = Duration::from_millis(10);
        loop {
            if let Some(receipt) = receipt_once(http, endpoint, request_id).await {
                return Some(receipt);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    };
    tokio::time::timeout(patience, asking).await.ok().flatten()
}

/// What a node answered to who asked for a proof.
pub(crate) enum ProofReply {
    Bytes(Vec<u8>),
    NotYet(ProofProgress),
    /// It will not come.
    Refused(String),
}

/// Asks once for the proof of an answer, and reads no more than `bytes_max` of it.
pub(crate) async fn proof(
    http: &reqwest::Client,
    endpoint: &str,
    request_id: &B256,
    bytes_max: usize,
) -> Result<ProofReply, UpstreamError> {
    let response = http.get(proof_url(endpoint, request_id)).send().await;
    let response =
        response.map_err(|error| UpstreamError::Unreachable(error.without_url().to_string()))?;
    match response.status().as_u16() {
        200 => match bounded_by(response, bytes_max).await {
            Ok(bytes) => Ok(ProofReply::Bytes(bytes)),
            Err(Unread::TooLong) => Ok(ProofReply::Refused(format!(
                "it sent a proof of more than {bytes_max} bytes"
            ))),
            Err(Unread::BrokeOff) => Err(UpstreamError::BrokeOff("in its proof".into())),
        },
        202 => {
            let body = bounded(response).await.unwrap_or_default();
            let progress = serde_json::from_slice(&body).unwrap_or_default();
            Ok(ProofReply::NotYet(progress))
        }
        429 | 503 => Ok(ProofReply::NotYet(ProofProgress::default())),
        status => Ok(ProofReply::Refused(format!(
            "it says (status {status}): {}",
            message(response).await
        ))),
    }
}

/// What a node answered to the price of a proof.
pub(crate) enum PriceReply {
    Receipt(Box<Signed<Receipt>>),
    PaymentRequired(Box<PaymentRequired>),
    /// It has the price already.
    Paid,
    Refused(String),
}

/// Sends the price of a proof; without a payment, asks how it is to be paid.
pub(crate) async fn pay_for_proof(
    http: &reqwest::Client,
    endpoint: &str,
    request_id: &B256,
    payment: Option<&PaymentPayload>,
) -> Result<PriceReply, UpstreamError> {
    let mut request = http.post(proof_url(endpoint, request_id));
    if let Some(payment) = payment {
        request = request.header(x402::PAYMENT_SIGNATURE, x402::encode(payment));
    }
    let response = request
        .send()
        .await
        .map_err(|error| match error.is_connect() {
            true => UpstreamError::NoConnection(error.without_url().to_string()),
            false => UpstreamError::Unreachable(error.without_url().to_string()),
        })?;
    match response.status().as_u16() {
        200 => {
            let body = bounded(response).await;
            let body = body.map_err(|()| UpstreamError::BrokeOff("in its receipt".into()))?;
            let receipt = serde_json::from_slice(&body).map_err(|_| UpstreamError::BadEvent)?;
            Ok(PriceReply::Receipt(Box::new(receipt)))
        }
        402 => Ok(PriceReply::PaymentRequired(Box::new(demand(&response)?))),
        409 => Ok(PriceReply::Paid),
        status => Ok(PriceReply::Refused(format!(
            "status {status}: {}",
            message(response).await
        ))),
    }
}

fn proof_url(endpoint: &str, request_id: &B256) -> String {
    let endpoint = endpoint.trim_end_matches('/');
    format!("{endpoint}/v1/receipts/{request_id}/proof")
}

/// What a 402 wants.
fn demand(response: &reqwest::Response) -> Result<PaymentRequired, UpstreamError> {
    let required = response.headers().get(x402::PAYMENT_REQUIRED);
    let required = required
        .ok_or_else(|| UpstreamError::BadDemand("the header PAYMENT-REQUIRED is missing".into()))?;
    x402::decode(required.as_bytes()).map_err(|error| UpstreamError::BadDemand(error.to_string()))
}

fn retry_after(headers: &reqwest::header::HeaderMap) -> Duration {
    let number = |name| {
        headers
            .get(name)
            .and_then(|v| v.to_str().ok()?.parse::<u64>().ok())
    };
    let ms = number("retry-after-ms")
        .or_else(|| number("retry-after").map(|seconds| seconds.saturating_mul(1000)));
    Duration::from_millis(ms.unwrap_or(500).min(60_000))
}

/// The message of an OpenAI-shaped error, shortened: it is a stranger's text.
async fn message(response: reqwest::Response) -> String {
    let body = bounded(response).await.unwrap_or_default();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    shorten(body["error"]["message"].as_str().unwrap_or("(no message)"))
}

/// A small body; none if it is not small or breaks off.
async fn bounded(response: reqwest::Response) -> Result<Vec<u8>, ()> {
    bounded_by(response, SMALL_BODY_BYTES_MAX)
        .await
        .map_err(drop)
}

/// Why a body was not read to its end.
enum Unread {
    TooLong,
    BrokeOff,
}

async fn bounded_by(response: reqwest::Response, bytes_max: usize) -> Result<Vec<u8>, Unread> {
    let mut stream = response.bytes_stream();
    let mut bytes = Vec::new();
    while let Some(chunk) = stream.next().await {
        bytes.extend_from_slice(&chunk.map_err(|_| Unread::BrokeOff)?);
        if bytes.len() > bytes_max {
            return Err(Unread::TooLong);
        }
    }
    Ok(bytes)
}

fn shorten(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

/// A node's answer as it comes.
pub(crate) struct NodeStream {
    bytes: BoxStream<'static, Result<Vec<u8>, reqwest::Error>>,
    reader: SseReader,
    waiting: std::collections::VecDeque<Vec<u8>>,
    cached: TokenCount,
}

impl NodeStream {
    fn new(response: reqwest::Response, event_bytes_max: usize) -> Self {
        Self {
            bytes: response
                .bytes_stream()
                .map_ok(|bytes| bytes.to_vec())
                .boxed(),
            reader: SseReader::new(event_bytes_max),
            waiting: Default::default(),
            cached: TokenCount(0),
        }
    }

    /// A stream from which nothing comes.
    pub(crate) fn ended() -> Self {
        Self {
            bytes: futures::stream::empty().boxed(),
            reader: SseReader::new(1),
            waiting: Default::default(),
            cached: TokenCount(0),
        }
    }

    /// The next piece. May be dropped while it waits without losing anything.
    pub(crate) async fn next(&mut self) -> Result<Piece, UpstreamError> {
        loop {
            while let Some(event) = self.waiting.pop_front() {
                if let Some(piece) = self.read(&event)? {
                    return Ok(piece);
                }
            }
            let chunk = self.bytes.next().await.ok_or(UpstreamError::NoFinish)?;
            let chunk =
                chunk.map_err(|error| UpstreamError::BrokeOff(error.without_url().to_string()))?;
            let events = self
                .reader
                .push(&chunk)
                .map_err(|_| UpstreamError::LongEvent)?;
            self.waiting.extend(events);
        }
    }

    fn read(&mut self, event: &[u8]) -> Result<Option<Piece>, UpstreamError> {
        if event == b"[DONE]" {
            return Ok(Some(Piece::Done));
        }
        let value: Value = serde_json::from_slice(event).map_err(|_| UpstreamError::BadEvent)?;
        if let Some(error) = value.get("error") {
            let message = error["message"].as_str().unwrap_or("(no message)");
            return Err(UpstreamError::ErrorFrame(shorten(message)));
        }
        let answer: Answer = serde_json::from_value(value).map_err(|_| UpstreamError::BadEvent)?;
        if let Some(usage) = answer.usage {
            self.cached = TokenCount(usage.prompt_tokens_details.cached_tokens);
        }
        let Some(assay) = answer.assay else {
            return Ok(None);
        };
        if let Some(receipt) = assay.receipt {
            return Ok(Some(Piece::Receipt {
                receipt: Box::new(receipt),
                cached: self.cached,
            }));
        }
        Ok((!assay.token_ids.is_empty()).then_some(Piece::Tokens(assay.token_ids)))
    }
}
