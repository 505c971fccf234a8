//! The embedded chain as strangers see it: over HTTP, with malformed, oversized and impossible
//! requests; and its file, with the wrong process, chain or format behind it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use alloy::consensus::{SignableTransaction, TxEip1559, TxEnvelope, TxLegacy};
use alloy::eips::eip2718::Encodable2718;
use alloy_primitives::{TxKind, U256, hex};
use assay_chain::embedded::{DEVNET_CHAIN_ID, StoreError};
use assay_chain::{Chain, ChainError, Embedded, EmbeddedConfig, Key};
use assay_protocol::{Address, B256, Timestamp};
use serde_json::{Value, json};

struct Served {
    url: String,
    http: reqwest::Client,
    clock: Arc<AtomicU64>,
    _chain: Embedded,
}

impl Served {
    async fn new() -> Served {
        let clock = Arc::new(AtomicU64::new(1_800_000_000));
        let config = EmbeddedConfig::in_memory().with_clock({
            let clock = clock.clone();
            Arc::new(move || Timestamp(clock.load(Ordering::SeqCst)))
        });
        let chain = Embedded::open(config).unwrap();
        let router = chain.router();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let _ = rustls::crypto::ring::default_provider().install_default();
        Served {
            url,
            http: reqwest::Client::new(),
            clock,
            _chain: chain,
        }
    }

    async fn post(&self, body: String) -> (u16, Value) {
        let request = self.http.post(&self.url).body(body);
        let request = request.header("content-type", "application/json");
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let text = answer.text().await.unwrap();
        (
            status,
            serde_json::from_str(&text).unwrap_or(Value::String(text)),
        )
    }

    async fn ask(&self, method: &str, params: Value) -> Value {
        let request = json!({ "jsonrpc": "2.0", "id": 7, "method": method, "params": params });
        let (status, answer) = self.post(request.to_string()).await;
        assert_eq!((status, &answer["id"]), (200, &json!(7)), "{answer}");
        answer
    }

    async fn refusal(&self, method: &str, params: Value) -> String {
        let answer = self.ask(method, params).await;
        let message = answer["error"]["message"].as_str();
        message
            .unwrap_or_else(|| panic!("{method}: {answer}"))
            .to_owned()
    }
}

fn transfer(chain_id: u64, nonce: u64) -> TxEip1559 {
    TxEip1559 {
        chain_id,
        nonce,
        gas_limit: 21_000,
        to: TxKind::Call(Address::repeat_byte(9)),
        ..TxEip1559::default()
    }
}

fn signed<T: SignableTransaction<alloy_primitives::Signature>>(key: &Key, transaction: T) -> String
where
    TxEnvelope: From<alloy::consensus::Signed<T>>,
{
    let bytes = key.sign_digest(transaction.signature_hash()).0;
    let signature = alloy_primitives::Signature::from_raw(bytes.as_slice()).unwrap();
    let envelope = TxEnvelope::from(transaction.into_signed(signature));
    hex::encode_prefixed(envelope.encoded_2718())
}

#[tokio::test]
async fn hostile_requests_get_an_error_and_nothing_breaks() {
    let chain = Served::new().await;
    let (status, _) = chain.post("{".into()).await;
    assert_eq!(status, 400);
    let (status, _) = chain.post(" ".repeat(3 * 1024 * 1024)).await;
    assert_eq!(status, 413);
    let plain = chain.http.post(&chain.url).body("{}").send().await.unwrap();
    assert_eq!(
        plain.status().as_u16(),
        415,
        "a web page cannot send this without asking"
    );
    for body in [
        "[]",
        "7",
        "{}",
        r#"{"method":5,"id":1}"#,
        &format!("[{}1]", "1,".repeat(300)),
    ] {
        let (status, answer) = chain.post(body.into()).await;
        assert_eq!(status, 200);
        assert_eq!(answer["error"]["code"], -32600, "{body}");
    }
    let (_, answer) = chain
        .post(r#"[{"id":1,"method":"eth_chainId"},{"id":2,"method":"nonsense"},{"method":"eth_chainId"}]"#.into())
        .await;
    assert_eq!(answer[0]["result"], "0x7a69");
    assert_eq!(answer[1]["error"]["code"], -32601);
    assert!(answer.get(2).is_none(), "a notification gets no answer");

    for (method, params) in [
        ("eth_getBalance", json!([])),
        ("eth_getBalance", json!(["0x12"])),
        ("eth_getBalance", json!({ "address": 1 })),
        ("eth_getStorageAt", json!([Address::ZERO, "zero"])),
        ("eth_call", json!([5])),
        ("eth_sendRawTransaction", json!(["hello"])),
        (
            "eth_getLogs",
            json!([{ "fromBlock": "0x0", "toBlock": "-1" }]),
        ),
        ("eth_feeHistory", json!(["0x1", "latest", vec![50.0; 101]])),
    ] {
        chain.refusal(method, params).await;
    }
    assert_eq!(
        chain.ask("eth_blockNumber", json!([])).await["result"],
        "0x0"
    );
}

#[tokio::test]
async fn only_the_present_state_is_answered_for_and_it_says_so() {
    let chain = Served::new().await;
    let key = Key::random().unwrap();
    let raw = signed(&key, transfer(DEVNET_CHAIN_ID, 0));
    assert!(chain.ask("eth_sendRawTransaction", json!([raw])).await["result"].is_string());
    let said = chain
        .refusal("eth_getBalance", json!([key.address(), "0x0"]))
        .await;
    assert!(
        said.contains("keeps the present state only (block 1)"),
        "{said}"
    );
    let said = chain
        .refusal("eth_getBalance", json!([key.address(), "0x9"]))
        .await;
    assert_eq!(said, "header not found");
    let overridden = json!([{ "to": key.address() }, "latest", { key.address().to_string(): {} }]);
    let said = chain.refusal("eth_call", overridden).await;
    assert!(said.contains("overrides"), "{said}");
    for tag in ["latest", "pending", "safe", "finalized", "0x1"] {
        let count = chain
            .ask("eth_getTransactionCount", json!([key.address(), tag]))
            .await;
        assert_eq!(count["result"], "0x1", "{tag}");
    }
    assert_eq!(
        chain
            .ask("eth_getBlockByNumber", json!(["0x9", false]))
            .await["result"],
        Value::Null
    );
    let unknown = json!([B256::repeat_byte(1)]);
    for method in ["eth_getTransactionByHash", "eth_getTransactionReceipt"] {
        assert_eq!(
            chain.ask(method, unknown.clone()).await["result"],
            Value::Null
        );
    }
}

#[tokio::test]
async fn impossible_transactions_are_refused_in_the_words_that_wallets_know() {
    let chain = Served::new().await;
    let key = Key::random().unwrap();
    let send = async |raw: String| chain.refusal("eth_sendRawTransaction", json!([raw])).await;
    for (raw, words) in [
        (signed(&key, transfer(1, 0)), "invalid chain id"),
        (signed(&key, transfer(DEVNET_CHAIN_ID, 3)), "nonce too high"),
        (
            signed(
                &key,
                TxEip1559 {
                    value: U256::from(1),
                    ..transfer(DEVNET_CHAIN_ID, 0)
                },
            ),
            "insufficient funds",
        ),
        (
            signed(
                &key,
                TxEip1559 {
                    gas_limit: 20_000,
                    ..transfer(DEVNET_CHAIN_ID, 0)
                },
            ),
            "gas",
        ),
        (
            signed(
                &key,
                TxEip1559 {
                    gas_limit: u64::MAX,
                    ..transfer(DEVNET_CHAIN_ID, 0)
                },
            ),
            "gas",
        ),
        // A signature that any chain would take.
        (
            signed(
                &key,
                TxLegacy {
                    gas_limit: 21_000,
                    ..TxLegacy::default()
                },
            ),
            "invalid chain id",
        ),
        ("0x".into(), "decoded"),
        ("0x02c0".into(), "decoded"),
        (hex::encode_prefixed(vec![2u8; 200_000]), "oversized"),
    ] {
        let said = send(raw).await;
        assert!(said.contains(words), "{said} should say {words}");
    }
    let good = signed(&key, transfer(DEVNET_CHAIN_ID, 0));
    assert!(chain.ask("eth_sendRawTransaction", json!([good])).await["result"].is_string());
    assert_eq!(send(good).await, "already known");
    let other = TxEip1559 {
        gas_limit: 30_000,
        ..transfer(DEVNET_CHAIN_ID, 0)
    };
    let said = send(signed(&key, other)).await;
    assert!(said.starts_with("nonce too low"), "{said}");
}

#[tokio::test]
async fn time_is_the_clocks_and_never_runs_back() {
    let chain = Served::new().await;
    let key = Key::random().unwrap();
    let time = async |tag: &str| {
        let block = chain.ask("eth_getBlockByNumber", json!([tag, false])).await;
        let seconds: alloy_primitives::U64 =
            serde_json::from_value(block["result"]["timestamp"].clone()).unwrap();
        seconds.to::<u64>()
    };
    chain.clock.store(1_800_000_100, Ordering::SeqCst);
    assert_eq!(time("latest").await, 1_800_000_000);
    assert_eq!(time("pending").await, 1_800_000_100);
    for (nonce, clock, expected) in [
        (0, 1_800_000_100, 1_800_000_100),
        (1, 1_799_999_999, 1_800_000_100),
        (2, 1_800_000_200, 1_800_000_200),
    ] {
        chain.clock.store(clock, Ordering::SeqCst);
        let raw = signed(&key, transfer(DEVNET_CHAIN_ID, nonce));
        chain.ask("eth_sendRawTransaction", json!([raw])).await;
        assert_eq!(time("latest").await, expected);
    }
}

#[tokio::test]
async fn a_contract_that_reverts_or_runs_forever_costs_the_chain_nothing() {
    let chain = Served::new().await;
    let deploy = |code: &str| json!([{ "data": code }, "latest"]);
    // PUSH0 PUSH0 REVERT
    let answer = chain.ask("eth_call", deploy("0x5f5ffd")).await;
    assert_eq!(answer["error"]["code"], 3);
    assert_eq!(answer["error"]["data"], "0x");
    // JUMPDEST PUSH0 JUMP
    let said = chain.refusal("eth_call", deploy("0x5b5f56")).await;
    assert!(said.contains("OutOfGas"), "{said}");
    let said = chain.refusal("eth_estimateGas", deploy("0x5b5f56")).await;
    assert!(said.contains("OutOfGas"), "{said}");
}

#[tokio::test]
async fn one_process_at_a_time_opens_the_file_and_only_as_its_own_chain() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep/chain.redb");
    let first = Chain::embedded(EmbeddedConfig::at(&path)).await.unwrap();
    let second = Chain::embedded(EmbeddedConfig::at(&path)).await;
    let Err(ChainError::Store(error @ StoreError::InUse { .. })) = second else {
        panic!("expected a refusal, got {second:?}");
    };
    assert!(error.to_string().contains("in use by another process"));
    drop(first);

    let mut foreign = EmbeddedConfig::at(&path);
    foreign.chain_id = 1;
    let refused = Embedded::open(foreign);
    assert!(
        matches!(refused, Err(StoreError::OtherChain { got: 31_337, .. })),
        "{refused:?}"
    );

    Embedded::open(EmbeddedConfig::at(&path)).unwrap();
    let junk = folder.path().join("junk.redb");
    std::fs::write(&junk, b"this is no database").unwrap();
    let refused = Embedded::open(EmbeddedConfig::at(&junk));
    assert!(
        matches!(refused, Err(StoreError::Open { .. })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn no_url_but_http_is_a_chain_and_silence_has_a_reason() {
    for url in [
        "",
        "127.0.0.1:8545",
        "ftp://127.0.0.1",
        "file:///etc/passwd",
    ] {
        let refused = Chain::connect(url).await;
        assert!(
            matches!(refused, Err(ChainError::BadUrl(_))),
            "{url}: {refused:?}"
        );
    }
    // Bound and closed again: nobody listens there.
    let port = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    let refused = Chain::connect(&format!("http://127.0.0.1:{port}")).await;
    let Err(ChainError::Unreachable(why)) = refused else {
        panic!("expected silence, got {refused:?}");
    };
    assert!(why.contains("Connection refused"), "{why}");
}

#[tokio::test]
async fn a_busy_node_is_asked_again() {
    let asked = Arc::new(AtomicU64::new(0));
    let counted = asked.clone();
    let node = axum::routing::post(move |axum::Json(request): axum::Json<Value>| async move {
        if counted.fetch_add(1, Ordering::SeqCst) < 2 {
            return Err(axum::http::StatusCode::TOO_MANY_REQUESTS);
        }
        let answer = json!({ "jsonrpc": "2.0", "id": request["id"], "result": "0x2a" });
        Ok(axum::Json(answer))
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let router = axum::Router::new().route("/", node);
    tokio::spawn(async move { axum::serve(listener, router).await });
    assert_eq!(Chain::connect(&url).await.unwrap().chain_id(), 42);
    assert_eq!(asked.load(Ordering::SeqCst), 3);
}
