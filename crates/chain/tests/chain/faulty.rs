//! A chain behind a bad wire: a small HTTP proxy that fails by a schedule and heals, and nodes that are
//! away, slow, or of another chain. What was asked is answered in the end, and what was sent happens once.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use alloy::providers::Provider;
use assay_chain::{Chain, ChainError, DeployParams, Embedded, EmbeddedConfig, Key, Patience};
use assay_protocol::{Address, MicroUsd};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;

/// What the proxy does with one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Status(u16),
    /// A page instead of JSON.
    Page,
    /// Half of the answer.
    Half,
    /// Hands the request on and answers with an error all the same.
    DoneButFailed,
    /// Never answers.
    Silence,
    /// A JSON-RPC error that means "later".
    Busy,
}

/// Fails requests of the named methods as the schedule says, then forwards everything.
#[derive(Clone)]
struct Proxy {
    url: String,
    to: String,
    schedule: Arc<Mutex<VecDeque<Fault>>>,
    /// Which methods fail; all if empty.
    only: &'static str,
    asked: Arc<AtomicUsize>,
    sent: Arc<AtomicUsize>,
    http: reqwest::Client,
}

impl Proxy {
    async fn before(to: &str, only: &'static str) -> Proxy {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Proxy {
            url: format!("http://{}/", listener.local_addr().unwrap()),
            to: to.to_owned(),
            schedule: Arc::default(),
            only,
            asked: Arc::default(),
            sent: Arc::default(),
            http: reqwest::Client::new(),
        };
        let router = Router::new()
            .route("/", post(pass))
            .with_state(proxy.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        proxy
    }

    fn fail(&self, faults: impl IntoIterator<Item = Fault>) {
        self.schedule.lock().unwrap().extend(faults);
    }

    fn left(&self) -> usize {
        self.schedule.lock().unwrap().len()
    }

    async fn forward(&self, body: Bytes) -> String {
        let request = self.http.post(&self.to).body(body);
        let request = request.header("content-type", "application/json");
        request.send().await.unwrap().text().await.unwrap()
    }
}

async fn pass(State(proxy): State<Proxy>, body: Bytes) -> Response {
    proxy.asked.fetch_add(1, Ordering::SeqCst);
    let text = String::from_utf8_lossy(&body).into_owned();
    if text.contains("eth_sendRawTransaction") {
        proxy.sent.fetch_add(1, Ordering::SeqCst);
    }
    let fault = match text.contains(proxy.only) {
        true => proxy.schedule.lock().unwrap().pop_front(),
        false => None,
    };
    let json = [("content-type", "application/json")];
    match fault {
        None => (json, proxy.forward(body).await).into_response(),
        Some(Fault::Status(status)) => StatusCode::from_u16(status).unwrap().into_response(),
        Some(Fault::Page) => "<html>come back later</html>".into_response(),
        Some(Fault::Half) => {
            let whole = proxy.forward(body).await;
            (json, whole[..whole.len() / 2].to_owned()).into_response()
        }
        Some(Fault::DoneButFailed) => {
            proxy.forward(body).await;
            StatusCode::BAD_GATEWAY.into_response()
        }
        Some(Fault::Silence) => std::future::pending().await,
        Some(Fault::Busy) => {
            let said = r#"{"jsonrpc":"2.0","id":0,"error":{"code":-32005,"message":"rate limit"}}"#;
            (json, said).into_response()
        }
    }
}

fn patience() -> Patience {
    Patience {
        pause_first: Duration::from_millis(2),
        pause_most: Duration::from_millis(20),
        mined: Duration::from_secs(20),
        look_every: Duration::from_millis(30),
        ..Patience::default()
    }
}

async fn served(chain_id: u64) -> (Embedded, String) {
    let mut config = EmbeddedConfig::in_memory();
    config.chain_id = chain_id;
    let chain = Embedded::open(config).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let router = chain.router();
    tokio::spawn(async move { axum::serve(listener, router).await });
    (chain, url)
}

/// A port that nobody listens at.
async fn nobody() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}/", listener.local_addr().unwrap())
}

const EVERY_FAULT: [Fault; 5] = [
    Fault::Status(429),
    Fault::Status(502),
    Fault::Page,
    Fault::Half,
    Fault::Busy,
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_survives_every_fault_of_a_wire_that_heals() {
    let (_chain, url) = served(31_337).await;
    let proxy = Proxy::before(&url, "").await;
    let chain = Chain::connect_with(std::slice::from_ref(&proxy.url), patience())
        .await
        .unwrap();
    for fault in EVERY_FAULT {
        proxy.fail([fault; 3]);
        assert_eq!(chain.block_number().await.unwrap(), 0, "{fault:?}");
        assert_eq!(proxy.left(), 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wire_that_never_heals_is_given_up_after_a_bound() {
    let (_chain, url) = served(31_337).await;
    let proxy = Proxy::before(&url, "").await;
    let chain = Chain::connect_with(std::slice::from_ref(&proxy.url), patience())
        .await
        .unwrap();
    proxy.fail([Fault::Status(503); 100]);
    let asked = proxy.asked.load(Ordering::SeqCst);
    let error = chain.block_number().await.unwrap_err();
    assert!(matches!(error, ChainError::Unreachable(_)), "{error}");
    let attempts = patience().read_attempts as usize;
    assert_eq!(proxy.asked.load(Ordering::SeqCst) - asked, attempts);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_away_is_passed_over_at_the_start_and_later() {
    let (_chain, url) = served(31_337).await;
    let (away, proxy) = (nobody().await, Proxy::before(&url, "").await);
    let urls = [away, proxy.url.clone(), url.clone()];
    let chain = Chain::connect_with(&urls, patience()).await.unwrap();
    proxy.fail([Fault::Status(500); 1_000]);
    for _ in 0..3 {
        assert_eq!(chain.block_number().await.unwrap(), 0);
    }
    // The one that answers is asked first from then on.
    let asked = proxy.asked.load(Ordering::SeqCst);
    chain.block_number().await.unwrap();
    assert_eq!(proxy.asked.load(Ordering::SeqCst), asked);

    let nobody = [nobody().await, nobody().await];
    let error = Chain::connect_with(&nobody, patience()).await.unwrap_err();
    assert!(matches!(error, ChainError::Unreachable(_)), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_of_another_chain_is_refused_at_the_start_and_never_used_later() {
    let ((_one, one), (_other, other)) = (served(31_337).await, served(1_234).await);
    let error = Chain::connect_with(&[one.clone(), other.clone()], patience())
        .await
        .unwrap_err();
    assert!(
        matches!(error, ChainError::UrlsDiffer { got: 1_234, .. }),
        "{error}"
    );

    // It was away at the start, and comes back as another chain.
    let (first, second) = (
        Proxy::before(&one, "").await,
        Proxy::before(&other, "").await,
    );
    second.fail([Fault::Status(404)]);
    let urls = [first.url.clone(), second.url.clone()];
    let chain = Chain::connect_with(&urls, patience()).await.unwrap();
    first.fail([Fault::Status(500); 3]);
    let to = Address::repeat_byte(1);
    assert!(chain.provider().get_code_at(to).await.unwrap().is_empty());
    assert_eq!(
        first.left(),
        0,
        "the first had to heal: the second is no help"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_is_sent_again_only_when_the_chain_has_not_got_it() {
    let (_chain, url) = served(31_337).await;
    let proxy = Proxy::before(&url, "eth_sendRawTransaction").await;
    let chain = Chain::connect_with(std::slice::from_ref(&proxy.url), patience())
        .await
        .unwrap();
    let key = Key::random().unwrap();
    let deployment = chain.deploy(&key, &DeployParams::devnet()).await.unwrap();
    let market = chain.market(deployment).await.unwrap();
    let to = Address::repeat_byte(0x44);
    for (fault, sends) in [
        (Fault::Status(502), 2),
        (Fault::Page, 2),
        (Fault::DoneButFailed, 1),
        (Fault::Half, 1),
    ] {
        let (before, had) = (
            proxy.sent.load(Ordering::SeqCst),
            market.balance(to).await.unwrap(),
        );
        proxy.fail([fault]);
        market.mint(&key, to, MicroUsd(1)).await.unwrap();
        assert_eq!(
            market.balance(to).await.unwrap(),
            MicroUsd(had.0 + 1),
            "{fault:?}"
        );
        assert_eq!(
            proxy.sent.load(Ordering::SeqCst) - before,
            sends,
            "{fault:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_url_with_a_secret_is_not_told() {
    let (_chain, url) = served(31_337).await;
    let proxy = Proxy::before(&url, "").await;
    let secret = format!("{}v3/s3cr3t", nobody().await);
    let mut patience = patience();
    patience.read_attempts = 1;
    let error = Chain::connect_with(&[secret], patience).await.unwrap_err();
    assert!(!error.to_string().contains("s3cr3t"), "{error}");
    assert!(error.to_string().contains("127.0.0.1"), "{error}");
    proxy.fail([Fault::Silence]);
    let asked = Chain::connect_with(std::slice::from_ref(&proxy.url), patience);
    tokio::time::timeout(Duration::from_millis(50), asked)
        .await
        .expect_err("a silent node is waited for, up to the time a request may take");
}
