//! A proxy in front of an honest node that makes it misbehave: what is registered on chain is the
//! proxy, so that a gateway meets a real node with real payments and one fault.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use assay_chain::Key;
use assay_openai::Answer;
use assay_payments::x402::{self, PaymentRequired};
use assay_protocol::{Address, Domain, MicroUsd, Receipt, Signed, TokenId};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::StreamExt as _;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::tamper::Tamper;

/// A running proxy; it stops when dropped.
pub struct TamperProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    server: tokio::task::JoinHandle<()>,
}

struct Shared {
    /// The honest node behind.
    node: Mutex<String>,
    key: Key,
    domain: Domain,
    tamper: Mutex<Tamper>,
    first_receipt: Mutex<Option<Signed<Receipt>>>,
    paid_requests: Mutex<usize>,
    http: reqwest::Client,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl TamperProxy {
    /// Listens before the node behind it is known, so that it can be registered first.
    pub async fn start(key: Key, domain: Domain, tamper: Tamper) -> Self {
        // Whoever came first has installed one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a free port");
        let address = listener
            .local_addr()
            .expect("a bound listener has an address");
        let shared = Arc::new(Shared {
            node: Mutex::new(String::new()),
            key,
            domain,
            tamper: Mutex::new(tamper),
            first_receipt: Mutex::new(None),
            paid_requests: Mutex::new(0),
            http: reqwest::Client::builder()
                .no_proxy()
                .build()
                .expect("a plain client"),
        });
        let app = Router::new().fallback(pass).with_state(shared.clone());
        let server = tokio::spawn(async move {
            let _ = axum::serve(listener, app).await;
        });
        Self {
            address,
            shared,
            server,
        }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Says where the honest node is.
    pub fn connect(&self, node: SocketAddr) {
        *lock(&self.shared.node) = format!("http://{node}");
    }

    pub fn set(&self, tamper: Tamper) {
        *lock(&self.shared.tamper) = tamper;
    }

    /// Requests with a payment that came through here.
    pub fn paid_requests(&self) -> usize {
        *lock(&self.shared.paid_requests)
    }
}

impl Drop for TamperProxy {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn pass(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    // A refund is asked for with a GET, and passed on.
    let paid = parts.method == Method::POST && parts.headers.contains_key(x402::PAYMENT_SIGNATURE);
    let tamper = lock(&shared.tamper).clone();
    if paid {
        *lock(&shared.paid_requests) += 1;
        match tamper {
            Tamper::DiesBeforeFirstToken => return dying(),
            Tamper::NeverStarts => std::future::pending().await,
            Tamper::ErrorBodyOver200 => {
                let body =
                    json!({ "error": { "message": "out of memory", "type": "server_error" } });
                return axum::Json(body).into_response();
            }
            Tamper::ServerError => {
                let body = json!({ "error": { "message": "boom", "type": "server_error" } });
                return (StatusCode::INTERNAL_SERVER_ERROR, axum::Json(body)).into_response();
            }
            Tamper::Busy => {
                let mut response = StatusCode::TOO_MANY_REQUESTS.into_response();
                let soon = HeaderValue::from_static("50");
                response.headers_mut().insert("retry-after-ms", soon);
                return response;
            }
            Tamper::EndlessLine => {
                let line = futures::stream::repeat_with(|| {
                    Ok::<_, Infallible>(Bytes::from_static(&[b'x'; 8192]))
                });
                return stream(Body::from_stream(line));
            }
            Tamper::Gibberish => return stream(Body::from("data: {oops\n\n")),
            _ => {}
        }
    }
    let path = parts.uri.path_and_query().map_or("/", |p| p.as_str());
    let url = format!("{}{path}", lock(&shared.node));
    let Ok(body) = axum::body::to_bytes(body, usize::MAX).await else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let mut forward = shared.http.request(parts.method, url).body(body);
    for (name, value) in &parts.headers {
        if *name != header::HOST && *name != header::CONTENT_LENGTH {
            forward = forward.header(name, value);
        }
    }
    let Ok(response) = forward.send().await else {
        return StatusCode::BAD_GATEWAY.into_response();
    };
    let status = response.status();
    if status == StatusCode::PAYMENT_REQUIRED {
        return demand(&tamper, response).await;
    }
    let mut back = Response::builder().status(status);
    for (name, value) in response.headers() {
        if *name != header::CONTENT_LENGTH && *name != header::TRANSFER_ENCODING {
            back = back.header(name, value);
        }
    }
    let body = if paid && status == StatusCode::OK {
        tampered(shared, tamper, response)
    } else {
        Body::from_stream(response.bytes_stream())
    };
    back.body(body).expect("copied headers are headers")
}

/// A response whose body ends the connection with an error at once.
fn dying() -> Response {
    let broken = futures::stream::once(async { Err::<Bytes, _>(std::io::Error::other("dies")) });
    stream(Body::from_stream(broken))
}

fn stream(body: Body) -> Response {
    let mut response = Response::new(body);
    let kind = HeaderValue::from_static("text/event-stream");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

async fn demand(tamper: &Tamper, response: reqwest::Response) -> Response {
    let mut back = Response::builder().status(StatusCode::PAYMENT_REQUIRED);
    for (name, value) in response.headers() {
        if name.as_str().eq_ignore_ascii_case(x402::PAYMENT_REQUIRED) {
            let required = x402::decode::<PaymentRequired>(value.as_bytes());
            let mut required = required.expect("an honest node's demand parses");
            for accepted in &mut required.accepts {
                match tamper {
                    Tamper::DearerThanOffer => {
                        accepted.amount.0 = MicroUsd(accepted.amount.0.0 * 2 + 1)
                    }
                    Tamper::OtherPayee => accepted.pay_to = Address::repeat_byte(0xbd),
                    _ => {}
                }
            }
            back = back.header(name, x402::encode(&required));
        } else if *name != header::CONTENT_LENGTH && *name != header::TRANSFER_ENCODING {
            back = back.header(name, value);
        }
    }
    let body = response.bytes().await.unwrap_or_default();
    back.body(Body::from(body))
        .expect("copied headers are headers")
}

/// The node's event stream, passed through the fault.
fn tampered(shared: Arc<Shared>, tamper: Tamper, response: reqwest::Response) -> Body {
    let (sender, receiver) = mpsc::unbounded_channel::<Result<Bytes, std::io::Error>>();
    tokio::spawn(async move {
        let mut bytes = response.bytes_stream();
        let mut text = Vec::new();
        let mut fault = Fault {
            shared,
            tamper,
            tokens: 0,
            held: None,
        };
        while let Some(Ok(chunk)) = bytes.next().await {
            text.extend_from_slice(&chunk);
            while let Some(end) = text.windows(2).position(|pair| pair == b"\n\n") {
                let event: Vec<u8> = text.drain(..end + 2).collect();
                match fault.event(&event) {
                    Then::Send(events) => {
                        for event in events {
                            if sender.send(Ok(event.into())).is_err() {
                                return;
                            }
                        }
                    }
                    Then::Hang => {
                        sender.closed().await;
                        return;
                    }
                    Then::Break => {
                        let _ = sender.send(Err(std::io::Error::other("broke off")));
                        return;
                    }
                    Then::End => {
                        let _ = sender.send(Ok(Bytes::from_static(b"data: [DONE]\n\n")));
                        return;
                    }
                }
            }
        }
    });
    Body::from_stream(futures::stream::unfold(
        receiver,
        |mut receiver| async move { receiver.recv().await.map(|item| (item, receiver)) },
    ))
}

enum Then {
    Send(Vec<Vec<u8>>),
    Hang,
    Break,
    End,
}

struct Fault {
    shared: Arc<Shared>,
    tamper: Tamper,
    /// Token events that came.
    tokens: usize,
    /// The newest token event, while the last one is to be dropped.
    held: Option<Vec<u8>>,
}

impl Fault {
    fn event(&mut self, event: &[u8]) -> Then {
        let data = event
            .strip_prefix(b"data: ")
            .and_then(|e| e.strip_suffix(b"\n\n"));
        let answer = data.and_then(|data| serde_json::from_slice::<Answer>(data).ok());
        let Some(mut answer) = answer else {
            return Then::Send(vec![event.to_vec()]);
        };
        let Some(assay) = &mut answer.assay else {
            return Then::Send(vec![event.to_vec()]);
        };
        if let Some(receipt) = assay.receipt {
            let mut events = self.before_receipt();
            assay.receipt = Some(self.receipt(receipt));
            events.push(frame(&answer));
            return Then::Send(events);
        }
        if assay.token_ids.is_empty() {
            return Then::Send(vec![event.to_vec()]);
        }
        let first = self.tokens;
        self.tokens += assay.token_ids.len();
        match self.tamper {
            Tamper::StallsAfter(n) if first >= n => return Then::Hang,
            Tamper::BreaksOffAfter(n) if first >= n => return Then::Break,
            Tamper::NoReceiptAfter(n) if first >= n => return Then::End,
            Tamper::SwapsToken { position, to } => {
                for (i, id) in assay.token_ids.iter_mut().enumerate() {
                    if first + i == position {
                        *id = to;
                    }
                }
            }
            Tamper::DropsLastToken => {
                let before = self.held.replace(frame(&answer));
                return Then::Send(before.into_iter().collect());
            }
            _ => {}
        }
        Then::Send(vec![frame(&answer)])
    }

    fn before_receipt(&mut self) -> Vec<Vec<u8>> {
        match self.tamper {
            Tamper::AddsToken(id) => vec![token_event(id)],
            _ => Vec::new(),
        }
    }

    fn receipt(&self, honest: Signed<Receipt>) -> Signed<Receipt> {
        let first = *lock(&self.shared.first_receipt).get_or_insert(honest);
        match &self.tamper {
            Tamper::Receipt(edit) => {
                let mut body = honest.body;
                edit(&mut body);
                self.shared.key.sign(body, &self.shared.domain)
            }
            Tamper::StrangersSignature => {
                let stranger = Key::from_bytes(&[0x77; 32]).expect("a small number is a key");
                stranger.sign(honest.body, &self.shared.domain)
            }
            Tamper::ReplaysReceipt => first,
            _ => honest,
        }
    }
}

fn frame(value: &impl serde::Serialize) -> Vec<u8> {
    let json = serde_json::to_string(value).expect("an answer is plain data");
    format!("data: {json}\n\n").into_bytes()
}

fn token_event(id: TokenId) -> Vec<u8> {
    let event: Value = json!({
        "id": "x", "object": "text_completion", "created": 0, "model": "x",
        "choices": [{ "index": 0, "text": "", "logprobs": null, "finish_reason": null }],
        "assay": { "token_ids": [id] },
    });
    frame(&event)
}
