//! Asks a gateway one question over its OpenAI surface and hands the text on as it arrives.
//!
//! It is a client like any other: everything it shows came over HTTP.

use crate::refusal::refusal;
use crate::sse::EventReader;
use anyhow::{Context, Result, bail};
use assay_openai::{Answer, AssayAnswer, ErrorBody, UsageBody};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// What came back, with the time as this client saw it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answered {
    pub(crate) text: String,
    pub(crate) finish_reason: Option<String>,
    pub(crate) usage: Option<UsageBody>,
    pub(crate) assay: AssayAnswer,
    /// The gateway's own headers, without their prefix `x-assay-`.
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) first_token: Duration,
    pub(crate) whole: Duration,
}

#[derive(Clone, Debug)]
pub(crate) struct Gateway {
    url: String,
    http: reqwest::Client,
}

impl Gateway {
    pub(crate) fn at(url: &str) -> Result<Self> {
        let http = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(5))
            .build()
            .context("cannot prepare an HTTP client")?;
        Ok(Self {
            url: url.trim_end_matches('/').to_owned(),
            http,
        })
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Streams one chat answer; `show` gets every piece of text.
    pub(crate) async fn chat(&self, body: &Value, mut show: impl FnMut(&str)) -> Result<Answered> {
        let started = Instant::now();
        let request = self
            .http
            .post(format!("{}/v1/chat/completions", self.url))
            .json(body);
        let mut response = request
            .send()
            .await
            .map_err(|error| self.unreachable(&error))?;
        if !response.status().is_success() {
            return Err(refused(response).await);
        }
        let mut answered = Answered {
            labels: labels(&response),
            ..Answered::default()
        };
        let mut reader = EventReader::default();
        let mut done = false;
        while let Some(bytes) = response.chunk().await.context("the answer broke off")? {
            for event in reader.push(&bytes)? {
                if event == "[DONE]" {
                    done = true;
                    continue;
                }
                take_event(&event, &mut answered, started, &mut show)?;
            }
        }
        answered.whole = started.elapsed();
        // An end of the connection is no end of the answer.
        if !done {
            bail!("the answer broke off before its end");
        }
        Ok(answered)
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Value> {
        self.get_within(path, Duration::from_secs(30)).await
    }

    pub(crate) async fn get_within(&self, path: &str, limit: Duration) -> Result<Value> {
        let request = self.http.get(format!("{}{path}", self.url)).timeout(limit);
        let response = request
            .send()
            .await
            .map_err(|error| self.unreachable(&error))?;
        if !response.status().is_success() {
            return Err(refused(response).await);
        }
        response
            .json()
            .await
            .context("the gateway's answer is no JSON")
    }

    /// Bytes, if they are there already; what is still being made is nothing.
    pub(crate) async fn bytes(&self, path: &str, most: usize) -> Result<Option<Vec<u8>>> {
        let mut response = self.stream(path).await?;
        if response.status() == reqwest::StatusCode::ACCEPTED {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.context("the answer broke off")? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > most {
                bail!("the answer has more than {most} bytes");
            }
        }
        Ok(Some(bytes))
    }

    /// An answer without an end, to be read piece by piece.
    pub(crate) async fn stream(&self, path: &str) -> Result<reqwest::Response> {
        let request = self.http.get(format!("{}{path}", self.url));
        let response = request
            .send()
            .await
            .map_err(|error| self.unreachable(&error))?;
        if !response.status().is_success() {
            return Err(refused(response).await);
        }
        Ok(response)
    }

    pub(crate) async fn post(&self, path: &str, body: &Value, limit: Duration) -> Result<Value> {
        let request = self
            .http
            .post(format!("{}{path}", self.url))
            .json(body)
            .timeout(limit);
        let response = request
            .send()
            .await
            .map_err(|error| self.unreachable(&error))?;
        if !response.status().is_success() {
            return Err(refused(response).await);
        }
        response
            .json()
            .await
            .context("the gateway's answer is no JSON")
    }

    fn unreachable(&self, error: &reqwest::Error) -> anyhow::Error {
        let what = format!(
            "no gateway answers at {}: {}",
            self.url,
            error.without_url_text()
        );
        refusal(
            what,
            "start a market with `assay up`, or name a gateway with --url",
        )
    }
}

fn take_event(
    event: &str,
    answered: &mut Answered,
    started: Instant,
    show: &mut impl FnMut(&str),
) -> Result<()> {
    let value: Value =
        serde_json::from_str(event).context("the gateway sent an event that is no JSON")?;
    if let Some(error) = value.get("error") {
        bail!("the answer broke off: {}", message_of(error));
    }
    let answer: Answer =
        serde_json::from_value(value).context("the gateway sent an event of unknown shape")?;
    for choice in answer.choices {
        let text = choice
            .delta
            .and_then(|delta| delta.content)
            .unwrap_or_default();
        if !text.is_empty() {
            if answered.text.is_empty() {
                answered.first_token = started.elapsed();
            }
            answered.text.push_str(&text);
            show(&text);
        }
        answered.finish_reason = choice.finish_reason.or(answered.finish_reason.take());
    }
    answered.usage = answer.usage.or(answered.usage);
    if let Some(assay) = answer.assay {
        answered.assay.token_ids.extend(assay.token_ids);
        answered.assay.sampler = assay.sampler.or(answered.assay.sampler.take());
        answered.assay.receipt = assay.receipt.or(answered.assay.receipt);
        answered.assay.final_at = assay.final_at.or(answered.assay.final_at);
        answered.assay.proof_due = assay.proof_due.or(answered.assay.proof_due);
        answered.assay.payment = assay.payment.or(answered.assay.payment.take());
    }
    Ok(())
}

fn labels(response: &reqwest::Response) -> BTreeMap<String, String> {
    let own = |(name, value): (&reqwest::header::HeaderName, &reqwest::header::HeaderValue)| {
        Some((
            name.as_str().strip_prefix("x-assay-")?.to_owned(),
            value.to_str().ok()?.to_owned(),
        ))
    };
    response.headers().iter().filter_map(own).collect()
}

async fn refused(response: reqwest::Response) -> anyhow::Error {
    let status = response.status();
    let body: Value = response.json().await.unwrap_or(Value::Null);
    match body.get("error") {
        Some(error) => anyhow::anyhow!(
            "the gateway refused ({}): {}",
            status.as_u16(),
            message_of(error)
        ),
        None => anyhow::anyhow!("the gateway refused with status {}", status.as_u16()),
    }
}

fn message_of(error: &Value) -> String {
    match serde_json::from_value::<ErrorBody>(error.clone()) {
        Ok(body) => body.message,
        Err(_) => error.to_string(),
    }
}

/// A transport error without the address, which the caller says in its own words.
trait WithoutUrlText {
    fn without_url_text(&self) -> String;
}

impl WithoutUrlText for reqwest::Error {
    fn without_url_text(&self) -> String {
        let mut deepest: &dyn std::error::Error = self;
        while let Some(source) = deepest.source() {
            deepest = source;
        }
        deepest.to_string()
    }
}
