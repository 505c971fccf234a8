//! What a node refuses: with an OpenAI-shaped error, the right status, words that help, and nothing charged.

mod common;

use assay_protocol::MicroUsd;
use common::{Buyer, MODEL, World, chat, completion, required};
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";
const COMPLETION: &str = "/v1/completions";

/// Path, body, status, code, parameter.
type Case = (
    &'static str,
    Vec<u8>,
    u16,
    &'static str,
    Option<&'static str>,
);

fn bytes(body: &Value) -> Vec<u8> {
    serde_json::to_vec(body).unwrap()
}

fn with(mut body: Value, name: &str, value: Value) -> Vec<u8> {
    body[name] = value;
    bytes(&body)
}

fn cases() -> Vec<Case> {
    let long = "word ".repeat(2_000);
    let chat = || chat(false);
    let completion = || completion(8);
    vec![
        (CHAT, b"{".to_vec(), 400, "malformed_body", None),
        (CHAT, b"".to_vec(), 400, "malformed_body", None),
        (CHAT, b"\xff\xfe{}".to_vec(), 400, "malformed_body", None),
        (CHAT, b"[1,2]".to_vec(), 400, "malformed_body", None),
        (
            CHAT,
            with(chat(), "model", json!("gpt-5")),
            404,
            "model_not_found",
            Some("model"),
        ),
        (
            CHAT,
            with(chat(), "model", json!("../../etc/passwd")),
            404,
            "model_not_found",
            Some("model"),
        ),
        (
            CHAT,
            with(chat(), "model", Value::Null),
            400,
            "invalid_value",
            Some("model"),
        ),
        (
            CHAT,
            with(chat(), "messages", json!([])),
            400,
            "invalid_value",
            Some("messages"),
        ),
        (
            CHAT,
            with(chat(), "temperature", json!(-1)),
            400,
            "invalid_value",
            Some("temperature"),
        ),
        (
            CHAT,
            with(chat(), "temperature", json!(1e9)),
            400,
            "invalid_value",
            Some("temperature"),
        ),
        (
            CHAT,
            with(chat(), "top_p", json!(7)),
            400,
            "invalid_value",
            Some("top_p"),
        ),
        (
            CHAT,
            with(chat(), "max_tokens", json!(0)),
            400,
            "invalid_value",
            Some("max_tokens"),
        ),
        (
            CHAT,
            with(chat(), "max_tokens", json!(-4)),
            400,
            "invalid_value",
            Some("max_tokens"),
        ),
        (
            CHAT,
            with(chat(), "max_tokens", json!(1e12)),
            400,
            "invalid_value",
            Some("max_tokens"),
        ),
        (
            CHAT,
            with(chat(), "max_tokens", json!(5_000)),
            400,
            "context_length_exceeded",
            Some("messages"),
        ),
        (
            CHAT,
            with(chat(), "stop", json!([""])),
            400,
            "invalid_value",
            Some("stop"),
        ),
        (
            CHAT,
            with(chat(), "seed", json!("x")),
            400,
            "invalid_value",
            Some("seed"),
        ),
        (
            CHAT,
            with(chat(), "n", json!(2)),
            400,
            "unsupported_parameter",
            Some("n"),
        ),
        (
            CHAT,
            with(chat(), "logprobs", json!(true)),
            400,
            "unsupported_parameter",
            Some("logprobs"),
        ),
        (
            CHAT,
            with(chat(), "tools", json!([{}])),
            400,
            "unsupported_parameter",
            Some("tools"),
        ),
        (
            CHAT,
            with(chat(), "presence_penalty", json!(1)),
            400,
            "unsupported_parameter",
            Some("presence_penalty"),
        ),
        (
            CHAT,
            with(chat(), "no_such", json!(1)),
            400,
            "unsupported_parameter",
            Some("no_such"),
        ),
        (
            CHAT,
            with(
                chat(),
                "messages",
                json!([{ "role": "user", "content": long }]),
            ),
            400,
            "context_length_exceeded",
            Some("messages"),
        ),
        (
            COMPLETION,
            with(completion(), "prompt", json!(long)),
            400,
            "context_length_exceeded",
            Some("prompt"),
        ),
        (
            COMPLETION,
            with(completion(), "prompt", json!([1, 2, 99_999])),
            400,
            "invalid_value",
            Some("prompt"),
        ),
        (
            COMPLETION,
            with(completion(), "prompt", json!([-1])),
            400,
            "invalid_value",
            Some("prompt"),
        ),
        (
            COMPLETION,
            with(completion(), "prompt", json!([])),
            400,
            "invalid_value",
            Some("prompt"),
        ),
        (
            COMPLETION,
            with(completion(), "echo", json!(true)),
            400,
            "unsupported_parameter",
            Some("echo"),
        ),
        (
            COMPLETION,
            with(completion(), "assay", json!({ "max_price": 1 })),
            400,
            "price_above_max",
            Some("assay.max_price"),
        ),
        (
            COMPLETION,
            with(completion(), "assay", json!({ "verification": "proven" })),
            400,
            "unsupported_parameter",
            Some("assay.verification"),
        ),
        (
            COMPLETION,
            vec![b' '; (8 << 20) + 1],
            413,
            "request_too_large",
            None,
        ),
        ("/v1/embeddings", b"{}".to_vec(), 404, "unknown_path", None),
        (
            "/v1/models",
            b"{}".to_vec(),
            405,
            "method_not_allowed",
            None,
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_gets_an_openai_error_and_costs_nothing() {
    let world = World::new().await;
    let node = world.start().await;
    let mut buyer = Buyer::new(&world, &node, 1).await;
    // A good payment goes along, so that a refusal could take it.
    let requirements = buyer.quote(COMPLETION, &completion(8)).await;
    let paid = buyer.sign(&requirements);
    let header = assay_payments::x402::encode(&paid.payload(requirements));
    for (path, body, status, code, param) in cases() {
        let shown: String = String::from_utf8_lossy(&body).chars().take(120).collect();
        let request = buyer
            .http
            .post(format!("{}{path}", buyer.url))
            .header("PAYMENT-SIGNATURE", &header);
        let response = request
            .header("content-type", "application/json")
            .body(body)
            .send()
            .await
            .unwrap();
        assert_eq!(response.status().as_u16(), status, "{path} {shown}");
        let error: Value = response.json().await.unwrap();
        assert_eq!(error["error"]["code"], code, "{shown}: {error}");
        assert_eq!(error["error"]["param"].as_str(), param, "{shown}: {error}");
        assert!(error["error"]["type"].is_string());
        assert!(
            error["error"]["message"].as_str().unwrap().len() > 20,
            "{error}"
        );
    }
    assert_eq!(node.earnings().await.unwrap().charged, MicroUsd(0));
    // The channel is free, and the payment still buys an answer.
    buyer
        .ledger
        .settle(paid.channel_id(), paid.request_id, MicroUsd(0))
        .unwrap();
    buyer.ask(&world, COMPLETION, &completion(8)).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_payments_are_refused_with_the_requirements() {
    let world = World::new().await;
    let node = world.start().await;
    let mut buyer = Buyer::new(&world, &node, 1).await;
    let requirements = buyer.quote(COMPLETION, &completion(8)).await;
    let paid = buyer.sign(&requirements);
    let good = serde_json::to_value(paid.payload(requirements)).unwrap();
    let url = format!("{}{COMPLETION}", buyer.url);
    let mut check = Vec::new();
    let mut changed = |path: &str, value: Value, error: &'static str| {
        let mut payment = good.clone();
        *payment.pointer_mut(path).unwrap() = value;
        check.push((assay_payments::x402::encode(&payment), error));
    };
    let other = json!("0x00000000000000000000000000000000000000ff");
    changed(
        "/payload/voucher/maxClaimableAmount",
        json!("7"),
        "invalid_batch_settlement_evm_voucher_signature",
    );
    changed(
        "/payload/channelConfig/receiver",
        other.clone(),
        "invalid_batch_settlement_evm_receiver_mismatch",
    );
    changed(
        "/payload/channelConfig/token",
        other.clone(),
        "invalid_batch_settlement_evm_token_mismatch",
    );
    changed(
        "/payload/channelConfig/payer",
        other,
        "invalid_batch_settlement_evm_channel_id_mismatch",
    );
    changed(
        "/payload/channelConfig/withdrawDelay",
        json!(900),
        "invalid_batch_settlement_evm_withdraw_delay_mismatch",
    );
    changed(
        "/accepted/network",
        json!("eip155:1"),
        "invalid_batch_settlement_evm_network_mismatch",
    );
    changed(
        "/accepted/scheme",
        json!("exact"),
        "invalid_batch_settlement_evm_scheme",
    );
    changed(
        "/accepted/amount",
        json!("1"),
        "No matching payment requirements",
    );
    changed(
        "/payload/type",
        json!("refund"),
        "invalid_batch_settlement_evm_payload_type",
    );
    check.push(("!!!".into(), "invalid_payload"));
    check.push(("e30=".into(), "invalid_payload"));
    for (header, error) in check {
        let request = buyer
            .http
            .post(&url)
            .header("PAYMENT-SIGNATURE", header)
            .json(&completion(8));
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 402, "{error}");
        assert_eq!(required(&response).error.as_deref(), Some(error));
        let body: Value = response.json().await.unwrap();
        assert_eq!(body["error"]["code"], error);
    }
    // A payer without a channel on the chain.
    let mut poor = Buyer::poor(&world, &node).await;
    poor.ledger
        .add(poor.channel(0), MicroUsd(1_000_000), MicroUsd(0))
        .unwrap();
    let (_, response) = poor.buy(COMPLETION, &completion(8)).await;
    assert_eq!(
        required(&response).error.as_deref(),
        Some("invalid_batch_settlement_evm_channel_not_found")
    );
    assert_eq!(node.earnings().await.unwrap().charged, MicroUsd(0));
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_node_says_when_to_come_back() {
    let world = World::slow().await;
    let mut config = world.config();
    (config.limits.sequences_max, config.limits.queue_max) = (1, 0);
    let node = assay_node::start(config).await.unwrap();
    let mut buyer = Buyer::new(&world, &node, 2).await;
    let mut long = completion(1_500);
    long["stream"] = json!(true);
    let (_, mut running) = buyer.buy(COMPLETION, &long).await;
    running.chunk().await.unwrap().unwrap();
    let (_, refused) = buyer.buy(COMPLETION, &completion(4)).await;
    assert_eq!(refused.status(), 429);
    let headers = refused.headers().clone();
    let (seconds, ms) = (&headers["retry-after"], &headers["retry-after-ms"]);
    assert!(seconds.to_str().unwrap().parse::<u64>().unwrap() >= 1);
    assert!(ms.to_str().unwrap().parse::<u64>().unwrap() >= 250);
    let body: Value = refused.json().await.unwrap();
    assert_eq!(body["error"]["code"], "queue_full");
    drop(running);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_channel_serves_one_request_at_a_time() {
    let world = World::slow().await;
    let node = world.start().await;
    let mut buyer = Buyer::new(&world, &node, 1).await;
    let mut long = completion(1_500);
    long["stream"] = json!(true);
    let (paid, mut running) = buyer.buy(COMPLETION, &long).await;
    running.chunk().await.unwrap().unwrap();
    // The payer's own books would not allow this.
    buyer
        .ledger
        .lose(paid.channel_id(), paid.request_id)
        .unwrap();
    let (_, refused) = buyer.buy(COMPLETION, &completion(4)).await;
    assert_eq!(
        required(&refused).error.as_deref(),
        Some("invalid_batch_settlement_evm_channel_busy")
    );
    drop(running);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_is_found_by_its_name_or_id_only() {
    let world = World::new().await;
    let node = world.start().await;
    let buyer = Buyer::poor(&world, &node).await;
    let by_id = world.loaded.model.id().to_string();
    for (name, status) in [(MODEL, 200), (by_id.as_str(), 200), ("other", 404)] {
        assert_eq!(
            buyer.get(&format!("/v1/models/{name}")).await.status(),
            status,
            "{name}"
        );
    }
    node.shutdown().await;
}
