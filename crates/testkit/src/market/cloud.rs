//! A small OpenAI-compatible cloud: streams a fixed answer, and even claims a receipt for it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde_json::{Value, json};

/// A request as the cloud saw it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub authorization: Option<String>,
    pub body: Value,
}

/// A running cloud; it stops when dropped.
pub struct CloudStandIn {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    server: tokio::task::JoinHandle<()>,
}

struct Shared {
    seen: Arc<Mutex<Vec<Seen>>>,
    words: Vec<String>,
    key: Option<String>,
}

impl CloudStandIn {
    /// Answers every chat with `words`; asks for `key` if there is one.
    pub async fn start(words: &[&str], key: Option<&str>) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a free port");
        let address = listener
            .local_addr()
            .expect("a bound listener has an address");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let shared = Shared {
            seen: seen.clone(),
            words: words.iter().map(|&word| word.to_owned()).collect(),
            key: key.map(str::to_owned),
        };
        let app = Router::new()
            .route("/v1/chat/completions", post(chat))
            .with_state(Arc::new(shared));
        let server = tokio::spawn(async move {
            let _ = axum::serve(listener, app).await;
        });
        Self {
            address,
            seen,
            server,
        }
    }

    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Drop for CloudStandIn {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn chat(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    axum::Json(body): axum::Json<Value>,
) -> Response {
    let authorization = headers
        .get(header::AUTHORIZATION)
        .and_then(|v| v.to_str().ok())
        .map(str::to_owned);
    let seen = Seen {
        authorization: authorization.clone(),
        body,
    };
    shared
        .seen
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(seen);
    if let Some(key) = &shared.key
        && authorization != Some(format!("Bearer {key}"))
    {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let mut events = Vec::new();
    for word in &shared.words {
        // A cloud that would like to be taken for a checked provider.
        events.push(json!({
            "choices": [{ "index": 0, "delta": { "content": word }, "finish_reason": null }],
            "assay": { "token_ids": [1], "receipt": { "body": {}, "signature": "0x00" } },
        }));
    }
    events.push(json!({ "choices": [{ "index": 0, "delta": {}, "finish_reason": "stop" }] }));
    let usage = json!({ "prompt_tokens": 10, "completion_tokens": shared.words.len() });
    events.push(json!({ "choices": [], "usage": usage }));
    let mut lines: Vec<String> = events
        .iter()
        .map(|event| format!("data: {event}\n\n"))
        .collect();
    lines.push("data: [DONE]\n\n".into());
    let lines = lines
        .into_iter()
        .map(|line| Ok::<_, Infallible>(Bytes::from(line)));
    let mut response = Response::new(Body::from_stream(futures::stream::iter(lines)));
    let kind = HeaderValue::from_static("text/event-stream");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
