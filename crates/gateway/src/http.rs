//! The HTTP surface: OpenAI's endpoints for any client, and `/assay/v1` for who wants to know more.
//! Turns JSON into a `Job` and an `Answering` into JSON or a stream; decides nothing about routing or money.

use std::convert::Infallible;
use std::sync::Arc;

use assay_openai::{ApiError, AssayAnswer, Envelope, ModelList, Surface};
use assay_protocol::B256;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures::{Stream, StreamExt as _, stream};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{broadcast, mpsc};

use crate::answer::{Answering, Ending, Label, Part};
use crate::gateway::Gateway;
use crate::prepare::{self, Job};
use crate::sse::frame;
use crate::store::{Entry, ProofState};

pub(crate) fn router(gateway: Arc<Gateway>) -> Router {
    Router::new()
        .route("/v1/models", get(models))
        .route("/v1/models/{*name}", get(model))
        .route("/v1/chat/completions", post(chat))
        .route("/v1/completions", post(completion))
        .route("/assay/v1/status", get(status))
        .route("/assay/v1/receipts", get(receipts))
        .route("/assay/v1/receipts/{id}", get(receipt))
        .route("/assay/v1/receipts/{id}/audit", post(audit))
        .route("/v1/receipts/{id}/proof", get(proof))
        .route("/assay/v1/events", get(events))
        .fallback(no_such_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn(local_pages_only))
        .with_state(gateway)
}

/// An `ApiError` as a response.
pub(crate) struct Refusal(pub(crate) ApiError);

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        Self(error)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status =
            StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, axum::Json(self.0.json())).into_response();
        for (name, value) in self.0.headers() {
            if let Ok(value) = HeaderValue::from_str(&value) {
                response
                    .headers_mut()
                    .insert(HeaderName::from_static(name), value);
            }
        }
        response
    }
}

type Answer = Result<Response, Refusal>;

/// A web page from elsewhere must not spend this gateway's money: browsers say where a page is from.
async fn local_pages_only(request: Request, next: Next) -> Response {
    let origin = request.headers().get(header::ORIGIN).cloned();
    let Some(origin) = origin else {
        return next.run(request).await;
    };
    if !is_local(origin.to_str().unwrap_or_default()) {
        let message = "pages from other sites may not use this gateway: open it from localhost";
        return Refusal(ApiError::new(
            403,
            "invalid_request_error",
            "foreign_origin",
            message,
        ))
        .into_response();
    }
    let mut response = if request.method() == Method::OPTIONS {
        StatusCode::NO_CONTENT.into_response()
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(header::VARY, HeaderValue::from_static("origin"));
    let allow = |text| HeaderValue::from_static(text);
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_METHODS,
        allow("GET, POST, OPTIONS"),
    );
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        allow("authorization, content-type"),
    );
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, allow("*"));
    response
}

fn is_local(origin: &str) -> bool {
    let Some((_, rest)) = origin.split_once("://") else {
        return false;
    };
    let host = match rest.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => rest,
    };
    matches!(host, "localhost" | "127.0.0.1" | "[::1]")
}

async fn no_such_path() -> Refusal {
    let message = "there is no such path here: try GET /v1/models, POST /v1/chat/completions or GET /assay/v1/status";
    Refusal(ApiError::new(
        404,
        "invalid_request_error",
        "not_found",
        message,
    ))
}

async fn wrong_method() -> Refusal {
    let message =
        "this path takes another method: questions are sent with POST, lists are read with GET";
    Refusal(ApiError::new(
        405,
        "invalid_request_error",
        "method_not_allowed",
        message,
    ))
}

async fn models(State(gateway): State<Arc<Gateway>>) -> Response {
    let names = gateway.model_names();
    axum::Json(ModelList::new(names, gateway.started_at(), "assay")).into_response()
}

async fn model(State(gateway): State<Arc<Gateway>>, Path(name): Path<String>) -> Answer {
    let names = gateway.model_names();
    let list = ModelList::new(names.clone(), gateway.started_at(), "assay");
    match list.data.into_iter().find(|model| model.id == name) {
        Some(model) => Ok(axum::Json(model).into_response()),
        None => {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            Err(ApiError::model_not_found(&name, &names).into())
        }
    }
}

async fn chat(State(gateway): State<Arc<Gateway>>, request: Request) -> Answer {
    answer(gateway, Surface::Chat, request).await
}

async fn completion(State(gateway): State<Arc<Gateway>>, request: Request) -> Answer {
    answer(gateway, Surface::Completion, request).await
}

async fn answer(gateway: Arc<Gateway>, surface: Surface, request: Request) -> Answer {
    let bytes_max = gateway.limits().body_bytes_max;
    let body = axum::body::to_bytes(request.into_body(), bytes_max)
        .await
        .map_err(|_| ApiError::too_large(bytes_max))?;
    let job = prepare(&gateway, surface, body).await?;
    let reply = Reply {
        envelope: Envelope {
            surface,
            id: format!(
                "{}-{:x}",
                if surface == Surface::Chat {
                    "chatcmpl"
                } else {
                    "cmpl"
                },
                job.request_id
            ),
            created: gateway.now().0,
            model: job.model_name().to_owned(),
        },
        include_usage: job.include_usage,
    };
    let stream = job.stream;
    let mut answering = gateway.answer(job);
    // The label comes with the first token, so an error before it still has a status of its own.
    let label = (&mut answering.label)
        .await
        .map_err(|_| ApiError::internal("the answer was dropped: try again"))??;
    if stream {
        Ok(reply.stream(label, answering))
    } else {
        reply.plain(label, answering).await
    }
}

/// Tokenizing a long prompt takes a while, so it does not run where connections are served.
async fn prepare(gateway: &Arc<Gateway>, surface: Surface, body: Bytes) -> Result<Job, ApiError> {
    let gateway = gateway.clone();
    tokio::task::spawn_blocking(move || prepare::job(&gateway, surface, &body))
        .await
        .map_err(|_| ApiError::internal("the request could not be read: try again"))?
}

struct Reply {
    envelope: Envelope,
    include_usage: bool,
}

impl Reply {
    async fn plain(self, label: Label, mut answering: Answering) -> Answer {
        let (mut whole, mut token_ids) = (String::new(), Vec::new());
        while let Some(part) = answering.parts.recv().await {
            match part {
                Part::Text { text, ids } => {
                    whole.push_str(&text);
                    token_ids.extend(ids);
                }
                Part::Failed(error) => return Err(error.into()),
                Part::Done(ending) => {
                    let Ending {
                        stop,
                        usage,
                        charged,
                        assay,
                    } = *ending;
                    let assay = AssayAnswer { token_ids, ..assay };
                    let answer = self.envelope.plain(whole, stop, usage, assay);
                    let mut response = axum::Json(answer).into_response();
                    put_label(response.headers_mut(), &label);
                    put(
                        response.headers_mut(),
                        "x-assay-charge",
                        &charged.0.to_string(),
                    );
                    return Ok(response);
                }
            }
        }
        Err(ApiError::internal("the answer broke off: nothing more is charged; try again").into())
    }

    fn stream(self, label: Label, answering: Answering) -> Response {
        let opening = stream::iter(self.envelope.opening().map(|chunk| event(&chunk)));
        let rest = parts(answering.parts).flat_map(move |part| stream::iter(self.frames(part)));
        let frames = opening
            .chain(rest)
            .map(|text| Ok::<_, Infallible>(Bytes::from(text)));
        let mut response = Response::new(Body::from_stream(frames));
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/event-stream"),
        );
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        put_label(headers, &label);
        response
    }

    fn frames(&self, part: Part) -> Vec<String> {
        match part {
            Part::Text { text, ids } => vec![event(&self.envelope.chunk(text, ids))],
            // No [DONE] after an error: nobody shall take a broken answer for a whole one.
            Part::Failed(error) => vec![frame(&error.json().to_string())],
            Part::Done(ending) => {
                let usage = self.include_usage.then_some(ending.usage);
                let events = self.envelope.end(ending.stop, usage, ending.assay);
                let mut frames: Vec<String> = events.iter().map(event).collect();
                frames.push(frame("[DONE]"));
                frames
            }
        }
    }
}

fn event(answer: &assay_openai::Answer) -> String {
    frame(&serde_json::to_string(answer).unwrap_or_else(|error| {
        ApiError::internal(format!("the answer cannot be written: {error}"))
            .json()
            .to_string()
    }))
}

fn parts(receiver: mpsc::Receiver<Part>) -> impl Stream<Item = Part> {
    stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|part| (part, receiver))
    })
}

fn put_label(headers: &mut HeaderMap, label: &Label) {
    put(headers, "x-assay-request-id", &label.request_id.to_string());
    put(headers, "x-assay-provider", &label.provider);
    put(headers, "x-assay-tier", label.tier.label());
    put(headers, "x-assay-max-charge", &label.ceiling.0.to_string());
    let price = &label.price;
    let price = format!(
        "input={} cached={} output={} micro-usd per million tokens",
        price.input.0, price.cached_input.0, price.output.0
    );
    put(headers, "x-assay-price", &price);
}

fn put(headers: &mut HeaderMap, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(HeaderName::from_static(name), value);
    }
}

async fn status(State(gateway): State<Arc<Gateway>>) -> Answer {
    Ok(axum::Json(gateway.status().await?).into_response())
}

#[derive(Deserialize)]
struct Newest {
    limit: Option<usize>,
}

async fn receipts(State(gateway): State<Arc<Gateway>>, Query(query): Query<Newest>) -> Answer {
    let most = query.limit.unwrap_or(100).min(10_000);
    let entries = gateway.store().newest(most).map_err(store_error)?;
    Ok(axum::Json(json!({ "object": "list", "data": entries })).into_response())
}

async fn receipt(State(gateway): State<Arc<Gateway>>, Path(id): Path<String>) -> Answer {
    let id = parse_id(&id)?;
    if let Some(evidence) = gateway.store().evidence(&id).map_err(store_error)? {
        return Ok(axum::Json(evidence).into_response());
    }
    match gateway.store().entry(&id).map_err(store_error)? {
        Some(_) => {
            let message = "a cloud gave this answer: it is unverified and has no receipt";
            Err(ApiError::new(404, "invalid_request_error", "unverified", message).into())
        }
        None => Err(no_such_receipt(&id).into()),
    }
}

async fn audit(State(gateway): State<Arc<Gateway>>, Path(id): Path<String>) -> Answer {
    let id = parse_id(&id)?;
    if gateway
        .store()
        .evidence(&id)
        .map_err(store_error)?
        .is_none()
    {
        return Err(no_such_receipt(&id).into());
    }
    let report = gateway.audit_now(id).await?;
    Ok(axum::Json(report).into_response())
}

/// The checked proof of an answer, or how far it is.
async fn proof(State(gateway): State<Arc<Gateway>>, Path(id): Path<String>) -> Answer {
    let id = parse_id(&id)?;
    let Some(Entry::Receipt(entry)) = gateway.store().entry(&id).map_err(store_error)? else {
        return Err(no_such_receipt(&id).into());
    };
    let refused = |status, code, message: String| {
        Err(ApiError::new(status, "invalid_request_error", code, message).into())
    };
    match entry.proof {
        None => {
            let message =
                "no proof was bought with this answer: ask with \"verification\": \"proven\"";
            refused(404, "proof_not_found", message.into())
        }
        Some(ProofState::Waiting { due, price }) => {
            let progress = gateway.under_way().of(&id);
            let told = json!({ "due": due, "price": price, "progress": progress });
            Ok((StatusCode::ACCEPTED, axum::Json(told)).into_response())
        }
        Some(ProofState::Failed { reason }) => {
            let message = format!(
                "no proof of this answer holds ({reason}): it was not paid for, and the answer is re-executed instead"
            );
            refused(410, "proof_failed", message)
        }
        Some(ProofState::Holds { .. }) => {
            let bytes = gateway.store().proof(&id).map_err(store_error)?;
            let bytes =
                bytes.ok_or_else(|| ApiError::internal("the proof is gone from the ledger"))?;
            Ok(([(header::CONTENT_TYPE, "application/octet-stream")], bytes).into_response())
        }
    }
}

fn parse_id(id: &str) -> Result<B256, ApiError> {
    id.parse().map_err(|_| {
        ApiError::invalid(
            "id",
            "a receipt's id is 0x and 64 hexadecimal digits: see GET /assay/v1/receipts",
        )
    })
}

fn no_such_receipt(id: &B256) -> ApiError {
    let message = format!("there is no receipt {id}: see GET /assay/v1/receipts");
    ApiError::new(404, "invalid_request_error", "not_found", message)
}

pub(crate) fn store_error(error: crate::store::StoreError) -> ApiError {
    tracing::error!(%error, "the gateway's ledger failed");
    ApiError::internal("the gateway cannot read its ledger: see its log")
}

#[derive(Deserialize)]
struct Since {
    /// The first event that is wanted.
    from: Option<u64>,
}

async fn events(State(gateway): State<Arc<Gateway>>, Query(query): Query<Since>) -> Response {
    let (past, coming) = gateway.events().listen(query.from.unwrap_or(0));
    let json = |event: &crate::events::Event| {
        frame(&serde_json::to_string(event).unwrap_or_else(|_| "{}".into()))
    };
    let past = stream::iter(past.iter().map(json).collect::<Vec<_>>());
    let coming = stream::unfold(coming, move |mut coming| async move {
        let told = match coming.recv().await {
            Ok(event) => json(&event),
            Err(broadcast::error::RecvError::Lagged(missed)) => {
                frame(&json!({ "kind": "missed", "events": missed }).to_string())
            }
            Err(broadcast::error::RecvError::Closed) => return None,
        };
        Some((told, coming))
    });
    let ended = gateway.shutdown_token().cancelled_owned();
    let frames = past
        .chain(coming)
        .take_until(ended)
        .map(|text| Ok::<_, Infallible>(Bytes::from(text)));
    let mut response = Response::new(Body::from_stream(frames));
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/event-stream"),
    );
    response
}

/// The client's own JSON, for a cloud that reads it itself.
pub(crate) fn as_object(body: &[u8]) -> serde_json::Map<String, Value> {
    match serde_json::from_slice(body) {
        Ok(Value::Object(map)) => map,
        _ => serde_json::Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::is_local;

    #[test]
    fn only_pages_from_this_machine_may_spend() {
        for origin in [
            "http://localhost:5173",
            "http://127.0.0.1",
            "http://[::1]:80",
        ] {
            assert!(is_local(origin), "{origin}");
        }
        for origin in [
            "https://evil.example",
            "http://localhost.evil.example",
            "http://127.0.0.1.evil.example:80",
            "null",
            "",
        ] {
            assert!(!is_local(origin), "{origin}");
        }
    }
}
