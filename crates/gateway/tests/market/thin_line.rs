//! The thin line from end to end over real HTTP: route, pay, stream, receipt, audit.

use crate::common::{Client, MODEL, World, chat, error, never};
use assay_audit::{AuditPolicy, Evidence};
use assay_gateway::AuditState;
use assay_protocol::{B256, StopReason, Temperature, Tier};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn a_question_is_answered_paid_receipted_and_audited() {
    let world = World::new().await;
    let nodes = [world.honest(900_000).await, world.honest(300_000).await];
    let client = world
        .gateway_with(|c| c.audit = AuditPolicy::always())
        .await;
    let answer = client
        .ask("hello", json!({ "temperature": 0.8, "seed": 7 }))
        .await;
    assert_eq!(answer["object"], "chat.completion");
    assert_eq!(answer["usage"]["completion_tokens"], 24);
    let receipts = client.audits_done().await;
    let [receipt] = &receipts[..] else {
        panic!("{receipts:?}")
    };
    // The cheaper of two unmeasured nodes served.
    assert_eq!(receipt.provider, nodes[1].address());
    assert_eq!(
        (receipt.output_tokens, receipt.stop_reason),
        (24, StopReason::MaxTokens)
    );
    assert!(receipt.charged.0 > 0 && matches!(receipt.audit, AuditState::Honest { .. }));
    assert_eq!(receipt.tier, Tier::Staked);

    // The evidence stands by itself.
    let evidence: Evidence = client
        .get(&format!("/assay/v1/receipts/{}", receipt.id))
        .await
        .json()
        .await
        .unwrap();
    evidence.check_signatures().unwrap();
    assay_audit::check_accounting(&evidence, &world.loaded.tokenizer).unwrap();
    assert_eq!(evidence.sampler.temperature, Temperature::Beta(320));
    assert_eq!(evidence.receipt.body.request_id, receipt.id);
    let verdict = assay_audit::reexecute(&world.loaded.model, 1, &evidence).unwrap();
    assert!(verdict.is_honest());

    // And the books agree with it.
    let status = client.status().await;
    assert_eq!(status.spent, receipt.charged);
    assert_eq!(status.totals.charged, receipt.charged);
    assert_eq!(status.lanes.len(), 1);
    let route = status.last_route.as_ref().unwrap();
    assert!(route.why.contains("(cheapest)"), "{route:?}");
    assert_eq!(route.passed_over[0].0, nodes[0].address());
    let served = status
        .providers
        .iter()
        .find(|p| p.address == nodes[1].address())
        .unwrap();
    assert_eq!((served.record.answers, served.record.found_honest), (1, 1));
    assert!(served.record.ttft_ms.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_says_the_same_as_a_plain_answer_and_labels_itself() {
    let world = World::new().await;
    let node = world.honest(300_000).await;
    let client = world.gateway_with(|c| c.audit = never()).await;
    let plain = client
        .ask("tell me", json!({ "temperature": 1, "seed": 3 }))
        .await;
    let streamed = client
        .stream(
            "tell me",
            json!({ "temperature": 1, "seed": 3, "stream_options": { "include_usage": true } }),
        )
        .await;
    assert_eq!(
        plain["choices"][0]["message"]["content"],
        json!(streamed.text)
    );
    assert_eq!(plain["assay"]["token_ids"], json!(streamed.ids));
    assert!(streamed.done && streamed.error.is_none());
    assert_eq!(streamed.finish.as_deref(), Some("length"));
    assert_eq!(streamed.last["usage"]["completion_tokens"], 24);
    let header = |name: &str| streamed.headers[name].to_str().unwrap().to_owned();
    assert_eq!(header("x-assay-provider"), node.address().to_string());
    assert_eq!(header("x-assay-tier"), "staked");
    assert_eq!(header("content-type"), "text/event-stream");
    let id: B256 = header("x-assay-request-id").parse().unwrap();
    let receipt = &streamed.last["assay"]["receipt"]["body"];
    assert_eq!(receipt["request_id"], json!(id));
    assert!(client.receipts().await.iter().any(|r| r.id == id));
}

#[tokio::test(flavor = "multi_thread")]
async fn completions_take_text_and_ids_and_stop_strings_stop_them() {
    let world = World::new().await;
    let _node = world.honest(300_000).await;
    let client = world
        .gateway_with(|c| c.audit = AuditPolicy::always())
        .await;
    let complete = async |more: Value| {
        let mut body = json!({ "model": MODEL, "max_tokens": 30, "temperature": 0 });
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        let response = client.post("/v1/completions", &body).await;
        assert_eq!(response.status(), 200);
        response.json::<Value>().await.unwrap()
    };
    let text = complete(json!({ "prompt": "abc" })).await;
    let ids = complete(json!({ "prompt": [97, 98, 99] })).await;
    assert_eq!(text["choices"][0]["text"], ids["choices"][0]["text"]);
    let whole = text["choices"][0]["text"].as_str().unwrap();
    let stop: String = whole
        .chars()
        .skip(whole.chars().count() / 2)
        .take(1)
        .collect();
    let stopped = complete(json!({ "prompt": "abc", "stop": stop })).await;
    let short = stopped["choices"][0]["text"].as_str().unwrap();
    assert!(
        whole.starts_with(short) && !short.contains(&stop),
        "{short:?} of {whole:?}"
    );
    assert_eq!(stopped["choices"][0]["finish_reason"], "stop");
    for receipt in client.audits_done().await {
        assert!(
            matches!(receipt.audit, AuditState::Honest { .. }),
            "{receipt:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_is_refused_in_openais_shape_and_nothing_is_charged() {
    let world = World::new().await;
    let _node = world.honest(300_000).await;
    let client = world.gateway().await;
    let check = async |path: &str, body: &[u8], status: u16, code: &str, says: &str| {
        let sent = client
            .http
            .post(format!("{}{path}", client.url))
            .body(body.to_vec());
        let got = error(sent.send().await.unwrap()).await;
        assert_eq!((got.0, got.1.as_str()), (status, code), "{}", got.2);
        assert!(got.2.contains(says), "{}", got.2);
    };
    let chats = "/v1/chat/completions";
    let json_of = |more: Value| serde_json::to_vec(&chat("hi", more)).unwrap();
    check(chats, b"{oops", 400, "malformed_body", "").await;
    check(chats, b"{\"model\":\"\xff\"}", 400, "malformed_body", "").await;
    check(
        chats,
        &json_of(json!({ "model": "gpt-9" })),
        404,
        "model_not_found",
        MODEL,
    )
    .await;
    check(
        chats,
        &json_of(json!({ "max_tokens": -1 })),
        400,
        "invalid_value",
        "max_tokens",
    )
    .await;
    check(
        chats,
        &json_of(json!({ "temperature": 9 })),
        400,
        "invalid_value",
        "temperature",
    )
    .await;
    check(
        chats,
        &json_of(json!({ "max_tokens": 4000 })),
        400,
        "context_length_exceeded",
        "lower max_tokens",
    )
    .await;
    let long = "x".repeat(3000);
    check(
        chats,
        &serde_json::to_vec(&chat(&long, json!({}))).unwrap(),
        400,
        "context_length_exceeded",
        "shorten",
    )
    .await;
    check(
        chats,
        &json_of(json!({ "assay": { "verification": "tolerant" } })),
        400,
        "unsupported_parameter",
        "staked",
    )
    .await;
    check(
        "/v1/completions",
        br#"{"model":"tiny","prompt":[9999]}"#,
        400,
        "invalid_value",
        "288",
    )
    .await;
    check("/v1/nonsense", b"", 404, "not_found", "/v1/models").await;
    check("/v1/models", b"", 405, "method_not_allowed", "GET").await;
    let huge = vec![b'x'; 9 << 20];
    check(chats, &huge, 413, "request_too_large", "shorter").await;
    assert!(client.entries().await.is_empty());
    assert!(client.status().await.lanes.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn models_are_listed_and_found_by_name() {
    let world = World::new().await;
    let client = world.gateway().await;
    let list = client.get_json("/v1/models").await;
    assert_eq!(list["data"][0]["id"], MODEL);
    assert_eq!(client.get_json("/v1/models/tiny").await["object"], "model");
    assert_eq!(client.get("/v1/models/other").await.status(), 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_never_costs_more_than_its_max_price() {
    let world = World::new().await;
    let _node = world.honest(300_000).await;
    let client = world.gateway().await;
    let response = client
        .chat("hello", json!({ "assay": { "max_price": 1 } }))
        .await;
    let (status, code, message) = error(response).await;
    assert_eq!(
        (status, code.as_str()),
        (402, "max_price_too_low"),
        "{message}"
    );
    assert!(client.entries().await.is_empty());
    client
        .ask("hello", json!({ "assay": { "max_price": 1_000 } }))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_provider_the_answer_is_a_503_that_says_so() {
    let world = World::new().await;
    let client = world.gateway().await;
    let (status, _, message) = error(client.chat("hello", json!({})).await).await;
    assert_eq!(status, 503);
    assert!(
        message.contains("no provider offers this model"),
        "{message}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn several_requests_at_once_use_several_lanes() {
    let world = World::new().await;
    let _node = world.honest(300_000).await;
    let client = world
        .gateway_with(|c| c.audit = AuditPolicy::always())
        .await;
    let questions: Vec<String> = (1..=8).map(|n| "question ".repeat(n)).collect();
    let asks = questions
        .iter()
        .map(|question| client.chat(question, json!({})));
    let answers = futures::future::join_all(asks).await;
    let served = answers
        .iter()
        .filter(|response| response.status() == 200)
        .count();
    // Four lanes, one node: the others are told to come back.
    assert!(served >= 4, "{served} of 8 were served");
    assert!(
        answers
            .iter()
            .all(|r| matches!(r.status().as_u16(), 200 | 429))
    );
    let receipts = client.audits_done().await;
    assert_eq!(receipts.len(), served);
    assert!(client.status().await.lanes.len() <= 4);
    assert!(
        receipts
            .iter()
            .all(|r| matches!(r.audit, AuditState::Honest { .. }))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_keeps_receipts_lanes_and_the_audits_that_wait() {
    let world = World::new().await;
    let _node = world.honest(300_000).await;
    let mut config = world.config().await;
    config.audit = never();
    let client = Client::start(config.clone()).await;
    client.ask("one", json!({})).await;
    let before = client.status().await;
    client.running.shutdown().await;
    config.audit = AuditPolicy::always();
    let client = Client::start(config).await;
    let after = client.status().await;
    assert_eq!((after.spent, &after.lanes), (before.spent, &before.lanes));
    assert_eq!(after.totals, before.totals);
    client.ask("two", json!({})).await;
    let receipts = client.audits_done().await;
    assert_eq!(receipts.len(), 2);
    assert_eq!(client.status().await.lanes.len(), 1);
    // What the coin did not choose can still be audited by hand.
    let path = format!("/assay/v1/receipts/{}/audit", receipts[1].id);
    let report: Value = client.post(&path, &json!({})).await.json().await.unwrap();
    assert_eq!(report["verdict"], "honest", "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_is_told_in_plain_words() {
    let world = World::new().await;
    let _node = world.honest(300_000).await;
    let client = world
        .gateway_with(|c| c.audit = AuditPolicy::always())
        .await;
    client.ask("hello", json!({})).await;
    client.audits_done().await;
    let mut response = client.get("/assay/v1/events").await;
    let mut text = String::new();
    while !text.contains("\"audited\"") {
        text.push_str(&String::from_utf8_lossy(
            &response.chunk().await.unwrap().unwrap(),
        ));
    }
    for kind in [
        "discovered",
        "routed",
        "funded",
        "receipt",
        "paid",
        "audited",
    ] {
        assert!(
            text.contains(&format!("\"kind\":\"{kind}\"")),
            "{kind} is missing: {text}"
        );
    }
    assert!(
        text.contains("all 24 tokens are the model's own choices"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_from_elsewhere_cannot_spend() {
    let world = World::new().await;
    let _node = world.honest(300_000).await;
    let client = world.gateway().await;
    let from = async |origin: &str| {
        let body = chat("hello", json!({}));
        let post = client
            .http
            .post(format!("{}/v1/chat/completions", client.url))
            .json(&body);
        post.header("origin", origin)
            .send()
            .await
            .unwrap()
            .status()
            .as_u16()
    };
    assert_eq!(from("https://evil.example").await, 403);
    assert!(client.entries().await.is_empty());
    assert_eq!(from("http://localhost:3000").await, 200);
}
