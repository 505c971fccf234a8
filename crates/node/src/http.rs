//! The node's HTTP surface: OpenAI's two text APIs behind x402, and what gateways ask. Every refusal is OpenAI-shaped;
//! nothing is charged before an answer's end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use assay_openai::{
    ApiError, Envelope, Limits, ModelList, Request, Surface, parse_chat, parse_completion,
};
use assay_payments::x402::{
    self, Literal2, PAYMENT_REQUIRED, PAYMENT_RESPONSE, PAYMENT_SIGNATURE, PaymentPayload,
    PaymentRequired, PaymentRequirements, ResourceInfo,
};
use assay_play::served;
use assay_protocol::B256;
use axum::body::{Body, to_bytes};
use axum::extract::{ConnectInfo, Path, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use futures::{StreamExt, stream};
use serde_json::json;
use tokio::sync::mpsc;

use crate::app::App;
use crate::clock::{now, random};
use crate::doors;
use crate::order::{Fill, Order, order};
use crate::session::{Delivery, Part, Session};
use crate::sse;
use crate::till::{Declined, Taken};
use crate::worker::{Did, Worker};

/// Parts between a session and its response. What waits here when a client leaves counts as sent, so it is little.
const PARTS_MAX: usize = 1;

pub(crate) fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/v1/chat/completions", post(chat).get(doors::refund))
        .route("/v1/completions", post(completion).get(doors::refund))
        .route("/v1/models", get(models))
        .route("/v1/models/{model}", get(model))
        .route("/assay/v1/offers", get(offers))
        .route("/assay/v1/earnings", get(earnings))
        .route("/assay/v1/receipts/{request_id}", get(receipt))
        .route(
            "/v1/receipts/{request_id}/proof",
            get(doors::proof).post(doors::pay_for_proof),
        )
        .route("/assay/v1/claims", get(doors::claims))
        .route("/assay/v1/records", post(doors::records))
        .route("/assay/v1/disputes", get(disputes))
        .route(
            "/assay/v1/disputes/{game}/{stage}/{op}/{row}/{height}/{index}",
            get(dispute_node),
        )
        .route("/healthz", get(health))
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .with_state(app)
}

/// An answer that is not the one asked for.
pub(crate) enum Refused {
    Api(ApiError),
    Payment {
        message: String,
        required: Box<PaymentRequired>,
    },
}

impl From<ApiError> for Refused {
    fn from(error: ApiError) -> Self {
        Self::Api(error)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        match self {
            Self::Api(error) => api_error(&error),
            Self::Payment { message, required } => {
                let code = required.error.as_deref().unwrap_or("payment_required");
                let error = ApiError::new(402, "payment_required", code, message);
                let mut response = api_error(&error);
                insert(&mut response, PAYMENT_REQUIRED, x402::encode(&required));
                response
            }
        }
    }
}

pub(crate) fn api_error(error: &ApiError) -> Response {
    let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, Json(error.json())).into_response();
    for (name, value) in error.headers() {
        insert(&mut response, name, value);
    }
    response
}

pub(crate) fn insert(response: &mut Response, name: &str, value: String) {
    // Both are ours: fixed names, base64 and digits.
    if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::try_from(value)) {
        response.headers_mut().insert(name, value);
    }
}

async fn chat(State(app): State<Arc<App>>, headers: HeaderMap, body: Body) -> Response {
    answer(app, Surface::Chat, headers, body)
        .await
        .unwrap_or_else(Refused::into_response)
}

async fn completion(State(app): State<Arc<App>>, headers: HeaderMap, body: Body) -> Response {
    answer(app, Surface::Completion, headers, body)
        .await
        .unwrap_or_else(Refused::into_response)
}

async fn answer(
    app: Arc<App>,
    surface: Surface,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refused> {
    let arrived = Instant::now();
    let body = read(&app, body, app.limits.body_bytes_max).await?;
    let request = match surface {
        Surface::Chat => parse_chat(&body, &Limits::default())?,
        Surface::Completion => parse_completion(&body, &Limits::default())?,
    };
    let (stream, include_usage, model) =
        (request.stream, request.include_usage, request.model.clone());
    let (ware, order) = take_order(&app, request).await?;
    let url = format!("{}{}", app.public_url, path(surface));
    let Some(payment) = headers.get(PAYMENT_SIGNATURE) else {
        let requirements = app.till.requirements(order.ceiling);
        let message = format!(
            "this request costs up to {}: pay it with x402 (header {PAYMENT_SIGNATURE}), or ask through a gateway",
            order.ceiling
        );
        return Err(payment_required(&url, None, message, requirements));
    };
    let (taken, place) = pay(&app, &url, payment, &order).await?;
    let envelope = Envelope {
        surface,
        id: format!(
            "{}-{}",
            if surface == Surface::Chat {
                "chatcmpl"
            } else {
                "cmpl"
            },
            order.request_id
        ),
        created: now().0,
        model,
    };
    let begun = x402::encode(&app.till.begun(&taken));
    let delivery = if stream {
        Delivery::Stream
    } else {
        Delivery::Whole
    };
    let session = Session {
        app: Arc::clone(&app),
        ware,
        order,
        taken,
        place,
        arrived,
        delivery,
    };
    let (sender, parts) = mpsc::channel(PARTS_MAX);
    app.sessions.spawn(session.run(sender));
    if !stream {
        return whole(&envelope, parts).await;
    }
    let mut response = streamed(envelope, include_usage, parts);
    insert(&mut response, PAYMENT_RESPONSE, begun);
    Ok(response)
}

pub(crate) async fn read(app: &App, body: Body, max: usize) -> Result<Bytes, ApiError> {
    let body = tokio::select! {
        body = tokio::time::timeout(app.limits.body_timeout, to_bytes(body, max)) => body,
        () = app.cutoff.cancelled() => {
            return Err(ApiError::unavailable("this node is shutting down: ask another", 1_000));
        }
    };
    match body {
        Ok(Ok(bytes)) => Ok(bytes),
        // What axum says about a limit is only in its source.
        Ok(Err(error)) if error.to_string().contains("limit") => Err(ApiError::too_large(max)),
        Ok(Err(_)) => Err(ApiError::malformed("the body broke off: send it again")),
        Err(_) => Err(ApiError::new(
            408,
            "invalid_request_error",
            "body_timeout",
            "the body came too slowly: send it again",
        )),
    }
}

/// Finds the model and makes the order; tokenizing runs off the async threads.
async fn take_order(app: &Arc<App>, request: Request) -> Result<(usize, Order), ApiError> {
    let Some(ware) = crate::order::find(&app.wares, &request.model) else {
        let served: Vec<&str> = app
            .wares
            .iter()
            .map(|ware| ware.loaded.name.as_str())
            .collect();
        return Err(ApiError::model_not_found(&request.model, &served));
    };
    let unlucky = |_| ApiError::unavailable("the system gives no randomness: try again", 1_000);
    let fill = Fill {
        seed: random().map_err(unlucky)?,
        request_id: random().map_err(unlucky)?,
        max_tokens: app.limits.max_tokens_default,
    };
    let reading = tokio::time::timeout(app.limits.body_timeout, app.readers.acquire()).await;
    let Ok(Ok(_reading)) = reading else {
        return Err(ApiError::busy(
            app.pace.retry_after_ms(app.limits.sequences_max),
        ));
    };
    let shared = Arc::clone(app);
    let task = tokio::task::spawn_blocking(move || order(&shared.wares[ware], request, fill));
    let order = task
        .await
        .map_err(|_| ApiError::internal("the prompt could not be read: report this prompt"))??;
    Ok((ware, order))
}

/// Takes a place and the payment, in this order: a node that is full writes nothing.
async fn pay(
    app: &Arc<App>,
    url: &str,
    header: &HeaderValue,
    order: &Order,
) -> Result<(Taken, tokio::sync::OwnedSemaphorePermit), Refused> {
    let payment: PaymentPayload = x402::decode(header.as_bytes()).map_err(|error| {
        let message = format!("the header {PAYMENT_SIGNATURE} cannot be read: {error}");
        payment_required(
            url,
            Some("invalid_payload"),
            message,
            app.till.requirements(order.ceiling),
        )
    })?;
    let declined = |declined| refuse(url, declined);
    let presented = app
        .till
        .present(&payment, order.ceiling, order.request_id)
        .map_err(declined)?;
    if let (Some(_), Some(proofs)) = (order.proof, &app.proofs) {
        proofs.room(presented.config.payer)?;
    }
    let Ok(place) = Arc::clone(&app.places).try_acquire_owned() else {
        return Err(ApiError::busy(app.pace.retry_after_ms(app.limits.sequences_max)).into());
    };
    let taken = app.till.take(&payment, presented).await.map_err(declined)?;
    Ok((taken, place))
}

pub(crate) fn refuse(url: &str, declined: Declined) -> Refused {
    match declined {
        Declined::Payment { code, message, requirements } => payment_required(url, Some(code), message, *requirements),
        Declined::Answered(id) => ApiError::new(
            409,
            "invalid_request_error",
            "request_answered",
            format!("request {id} was answered before: use a new request_id, or read /assay/v1/receipts/{id}"),
        )
        .at("assay.request_id")
        .into(),
        Declined::Unavailable(reason) => {
            tracing::error!(reason, "a payment could not be taken");
            ApiError::unavailable("the payment cannot be checked now: try again, nothing was charged", 5_000).into()
        }
    }
}

pub(crate) fn payment_required(
    url: &str,
    error: Option<&str>,
    message: String,
    requirements: PaymentRequirements,
) -> Refused {
    let resource = ResourceInfo {
        url: url.into(),
        description: None,
        mime_type: Some("application/json".into()),
    };
    let required = PaymentRequired {
        x402_version: Literal2,
        error: error.map(Into::into),
        resource,
        accepts: vec![requirements],
        extensions: None,
    };
    Refused::Payment {
        message,
        required: Box::new(required),
    }
}

fn path(surface: Surface) -> &'static str {
    match surface {
        Surface::Chat => "/v1/chat/completions",
        Surface::Completion => "/v1/completions",
    }
}

/// The answer as events. When the client leaves, the body is dropped, and the session notices.
fn streamed(envelope: Envelope, include_usage: bool, parts: mpsc::Receiver<Part>) -> Response {
    let opening = stream::iter(sse::opening(&envelope));
    let rest = stream::unfold(parts, |mut parts| async {
        parts.recv().await.map(|part| (part, parts))
    })
    .map(move |part| sse::frames(&envelope, include_usage, part));
    let body = Body::from_stream(opening.chain(rest).map(Ok::<_, std::convert::Infallible>));
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream; charset=utf-8"),
        (header::CACHE_CONTROL, "no-cache"),
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    (headers, body).into_response()
}

/// The answer at once, with `PAYMENT-RESPONSE`.
async fn whole(envelope: &Envelope, mut parts: mpsc::Receiver<Part>) -> Result<Response, Refused> {
    let (mut text, mut token_ids) = (String::new(), Vec::new());
    while let Some(part) = parts.recv().await {
        match part {
            Part::Alive => {}
            Part::Text { text: more, ids } => {
                text.push_str(&more);
                token_ids.extend(ids);
            }
            Part::Failed(error) => return Err(error.into()),
            Part::Done(done) => {
                let (stop, usage, payment) = (done.stop, done.usage, x402::encode(&done.payment));
                let mut extension = sse::extension(*done);
                extension.token_ids = token_ids;
                let mut response =
                    Json(envelope.plain(text, stop, usage, extension)).into_response();
                insert(&mut response, PAYMENT_RESPONSE, payment);
                return Ok(response);
            }
        }
    }
    Err(ApiError::unavailable(
        "the answer broke off: try again, nothing was charged",
        1_000,
    )
    .into())
}

async fn models(State(app): State<Arc<App>>) -> Json<ModelList> {
    let names = app.wares.iter().map(|ware| ware.loaded.name.clone());
    Json(ModelList::new(
        names,
        app.started_at.0,
        &app.provider.to_string(),
    ))
}

async fn model(State(app): State<Arc<App>>, Path(name): Path<String>) -> Response {
    match crate::order::find(&app.wares, &name) {
        Some(index) => {
            let list = ModelList::new(
                [app.wares[index].loaded.name.clone()],
                app.started_at.0,
                &app.provider.to_string(),
            );
            Json(list.data.into_iter().next()).into_response()
        }
        None => {
            let served: Vec<&str> = app
                .wares
                .iter()
                .map(|ware| ware.loaded.name.as_str())
                .collect();
            api_error(&ApiError::model_not_found(&name, &served))
        }
    }
}

async fn offers(State(app): State<Arc<App>>) -> Response {
    Json(app.offers.current(now())).into_response()
}

async fn receipt(State(app): State<Arc<App>>, Path(id): Path<String>) -> Response {
    let Ok(id) = id.parse::<B256>() else {
        return api_error(&ApiError::invalid(
            "request_id",
            "a request id is 0x and 64 hexadecimal digits",
        ));
    };
    match app.till.receipt(id).await {
        Ok(Some(receipt)) => Json(receipt).into_response(),
        Ok(None) => {
            let message = "no receipt for this request: it was not served, or not charged";
            api_error(&ApiError::new(
                404,
                "invalid_request_error",
                "receipt_not_found",
                message,
            ))
        }
        Err(error) => {
            tracing::error!(%error, "a receipt could not be read");
            api_error(&ApiError::unavailable(
                "the ledger cannot be read: try again",
                1_000,
            ))
        }
    }
}

/// The disputes about this node's receipts. All of it stands on the chain.
async fn disputes(State(app): State<Arc<App>>) -> Response {
    Json(json!({ "object": "list", "data": app.games.all() })).into_response()
}

/// A node of the trace behind an open dispute: who asks here saves both sides the moves of asking on the chain.
async fn dispute_node(
    State(app): State<Arc<App>>,
    Path((game, stage, op, row, height, index)): Path<(String, u8, u32, u32, u32, u64)>,
) -> Response {
    let asked = game
        .parse::<B256>()
        .ok()
        .zip(served::node((stage, op, row, height, index)));
    let below = match asked {
        Some((game, node)) if app.serves_traces => app.games.below(&game, node).await,
        _ => None,
    };
    match below {
        Some(below) => Json(below).into_response(),
        None => {
            let message = "no such node of a dispute that is open here: ask on the chain";
            api_error(&ApiError::new(
                404,
                "invalid_request_error",
                "node_not_found",
                message,
            ))
        }
    }
}

/// For the operator on this machine only.
async fn earnings(
    State(app): State<Arc<App>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
) -> Response {
    if !peer.ip().is_loopback() {
        let message = "earnings are shown on the node's own machine only: ask there";
        return api_error(&ApiError::new(
            403,
            "invalid_request_error",
            "loopback_only",
            message,
        ));
    }
    match crate::claims::earnings(&app).await {
        Ok(earnings) => Json(earnings).into_response(),
        Err(error) => api_error(&ApiError::unavailable(
            format!("the chain does not answer: {error}"),
            1_000,
        )),
    }
}

async fn health(State(app): State<Arc<App>>) -> Response {
    let alive = app.workers.iter().all(Worker::is_alive);
    let engines: Vec<_> = app.workers.iter().map(engine).collect();
    let body = json!({
        "status": if alive { "ok" } else { "an engine has stopped: restart the node" },
        "provider": app.provider,
        "conduct": app.conduct.label(),
        "models": app.wares.iter().map(|ware| &ware.loaded.name).collect::<Vec<_>>(),
        "places_free": app.places.available_permits(),
        "answered": app.pace.answered.load(Ordering::Relaxed),
        "output_tokens": app.pace.tokens.load(Ordering::Relaxed),
        "engines": engines,
    });
    let status = if alive {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(body)).into_response()
}

/// What an engine has done, in the order of the models; nothing before its first step.
fn engine(worker: &Worker) -> serde_json::Value {
    worker.did().map_or(json!({}), |Did { stats, memory }| {
        json!({
            "prompt_tokens": stats.prompt_tokens,
            "prompt_tokens_cached": stats.prompt_tokens_reused,
            "output_tokens": stats.output_tokens,
            "guessed_tokens": stats.guessed,
            "guessed_tokens_true": stats.guessed_true,
            "cache_pages_max": memory.pages_max,
            "cache_pages_taken": memory.pages_taken,
            "cache_pages_kept": memory.pages_kept,
        })
    })
}

async fn no_such_path() -> Response {
    let message =
        "no such path: see GET /v1/models, POST /v1/chat/completions, POST /v1/completions";
    api_error(&ApiError::new(
        404,
        "invalid_request_error",
        "unknown_path",
        message,
    ))
}

pub(crate) async fn no_such_method() -> Response {
    let message = "this path takes another method: POST for completions, GET for the rest";
    api_error(&ApiError::new(
        405,
        "invalid_request_error",
        "method_not_allowed",
        message,
    ))
}
