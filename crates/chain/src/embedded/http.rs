//! The embedded chain over HTTP, for other processes and foreign tools: the same answers, with
//! bounds on what strangers may send. Meant for loopback; it asks nobody who they are.

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};

use super::Inner;
use super::rpc::answer;

/// Bytes in one request at most.
const BODY_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Requests in one batch at most.
const BATCH_MAX: usize = 256;

pub(super) fn router(inner: Arc<Inner>) -> Router {
    // `Json` insists on its content type, which a foreign web page cannot send without asking.
    Router::new()
        .route("/", post(handle))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(inner)
}

async fn handle(State(inner): State<Arc<Inner>>, Json(request): Json<Value>) -> Response {
    let answered = tokio::task::spawn_blocking(move || match request {
        Value::Array(requests) if requests.is_empty() || requests.len() > BATCH_MAX => Some(error(
            &Value::Null,
            -32600,
            &format!("a batch has 1 to {BATCH_MAX} requests"),
        )),
        Value::Array(requests) => {
            let answers: Vec<Value> = requests.iter().filter_map(|r| respond(&inner, r)).collect();
            (!answers.is_empty()).then_some(Value::Array(answers))
        }
        request => respond(&inner, &request),
    })
    .await;
    match answered {
        Ok(Some(answer)) => Json(answer).into_response(),
        Ok(None) => StatusCode::NO_CONTENT.into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// One answer; none for a notification, which has no id.
fn respond(inner: &Inner, request: &Value) -> Option<Value> {
    let (Some(method), true) = (
        request.get("method").and_then(Value::as_str),
        request.is_object(),
    ) else {
        return Some(error(&Value::Null, -32600, "this is no JSON-RPC request"));
    };
    let id = request.get("id")?;
    let params = request.get("params").unwrap_or(&Value::Null);
    Some(match answer(inner, method, params) {
        Ok(result) => json!({ "jsonrpc": "2.0", "id": id, "result": result }),
        Err(fault) => {
            let mut answer = error(id, fault.code, &fault.message);
            if let Some(data) = fault.data {
                answer["error"]["data"] = json!(data);
            }
            answer
        }
    })
}

fn error(id: &Value, code: i64, message: &str) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "error": { "code": code, "message": message } })
}
