//! Audits in a whole market: cheats are caught within the number of requests that the policy states,
//! and honest nodes lose nothing.

use std::collections::BTreeMap;

use assay_audit::{AuditPolicy, PartsPerMillion};
use assay_gateway::AuditState;
use assay_node::dishonest::{SkipsLayers, Truncates};
use assay_protocol::{MicroUsd, StopReason};
use futures::StreamExt as _;
use serde_json::{Value, json};

use crate::common::{Client, Player, World};

/// Asks until every cheat is benched, and returns how many answers each of them gave.
async fn catch(client: &Client, cheats: &[&Player], most: u64) -> BTreeMap<String, u64> {
    let mut given = BTreeMap::new();
    for n in 0.. {
        assert!(n < 3 * most, "not benched after {n} requests: {given:?}");
        let more = json!({ "temperature": 0.9, "seed": n, "max_tokens": 20 });
        let streamed = client.stream(&format!("question {n}"), more).await;
        let provider = streamed.headers["x-assay-provider"]
            .to_str()
            .unwrap()
            .to_owned();
        *given.entry(provider).or_insert(0) += 1;
        client.audits_done().await;
        let benched = client.benched().await;
        if cheats
            .iter()
            .all(|cheat| benched.iter().any(|(who, _)| *who == cheat.address()))
        {
            return given;
        }
    }
    unreachable!("the loop has no end")
}

#[tokio::test(flavor = "multi_thread")]
async fn both_cheats_are_caught_within_the_stated_number_of_requests_and_benched() {
    let world = World::new().await;
    let skips = world.cheat(100_000, SkipsLayers { skip: vec![1] }).await;
    let truncates = world
        .cheat(
            110_000,
            Truncates {
                after: 5,
                claim: StopReason::EndOfText,
            },
        )
        .await;
    let honest = world.honest(900_000).await;
    let policy = AuditPolicy::default();
    let client = world.gateway_with(|c| c.audit = policy).await;
    // At this many answers, a cheat that lies every time is still unknown once in a million.
    let most = policy
        .requests_until(0, PartsPerMillion(1), PartsPerMillion::ONE)
        .unwrap();
    assert_eq!(most, 87);
    let given = catch(&client, &[&skips, &truncates], most).await;
    for cheat in [&skips, &truncates] {
        let answers = given[&cheat.address().to_string()];
        println!("caught after {answers} answers, at most {most} stated");
        assert!(answers <= most);
    }
    let benched: BTreeMap<_, _> = client.benched().await.into_iter().collect();
    assert_eq!(benched.len(), 2);
    assert!(
        benched[&skips.address()].contains("the model"),
        "{benched:?}"
    );
    assert!(
        benched[&truncates.address()].contains("the answer ends after 5 tokens"),
        "{benched:?}"
    );

    // Neither is asked or paid again; the honest node serves.
    let before = client.status().await;
    let paid = |status: &assay_gateway::Status, player: &Player| {
        status
            .providers
            .iter()
            .find(|p| p.address == player.address())
            .unwrap()
            .record
            .spent
    };
    for n in 0..5 {
        let streamed = client.stream(&format!("after {n}"), json!({})).await;
        assert_eq!(
            streamed.headers["x-assay-provider"],
            honest.address().to_string().as_str()
        );
    }
    let after = client.status().await;
    for cheat in [&skips, &truncates] {
        assert_eq!(paid(&before, cheat), paid(&after, cheat));
    }
    assert_eq!(
        after
            .lanes
            .iter()
            .filter(|lane| lane.state == "closed")
            .count(),
        2
    );
    assert!(paid(&after, &honest) > paid(&before, &honest));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bench_outlives_a_restart() {
    let world = World::new().await;
    let cheat = world.cheat(100_000, SkipsLayers { skip: vec![0] }).await;
    let mut config = world.config().await;
    config.audit = AuditPolicy::always();
    // A convicted cheat would not be in the registry any more.
    config.disputes.open = false;
    let client = Client::start(config.clone()).await;
    client
        .stream("hello", json!({ "temperature": 1, "seed": 1 }))
        .await;
    client.audits_done().await;
    let benched = client.benched().await;
    assert_eq!(benched[0].0, cheat.address());
    client.running.shutdown().await;
    let client = Client::start(config).await;
    assert_eq!(client.benched().await, benched);
    let response = client.chat("hello", json!({})).await;
    assert_eq!(response.status(), 503);
    let body: Value = response.json().await.unwrap();
    assert!(
        body["error"]["message"]
            .as_str()
            .unwrap()
            .contains("benched"),
        "{body}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tier_none_is_not_audited() {
    let world = World::new().await;
    let _cheat = world.cheat(100_000, SkipsLayers { skip: vec![1] }).await;
    let client = world
        .gateway_with(|c| c.audit = AuditPolicy::always())
        .await;
    let more = json!({ "assay": { "verification": "none" } });
    client.stream("hello", more).await;
    assert_eq!(client.receipts().await[0].audit, AuditState::NotSampled);
    assert!(client.benched().await.is_empty());
}

/// Requests of the mix.
const MIX: u64 = 1_000;

fn mixed(n: u64) -> Value {
    let temperature = [0.0, 0.4, 0.7, 1.0, 1.5, 2.0][(n % 6) as usize];
    let top_p = [1.0, 0.95, 0.5, 0.1][(n / 6 % 4) as usize];
    let top_k = [0, 1, 5, 40][(n / 24 % 4) as usize];
    let mut more = json!({
        "temperature": temperature,
        "seed": n,
        "max_tokens": 1 + n % 12,
        "top_p": top_p,
        "top_k": top_k,
    });
    if n.is_multiple_of(5) {
        // Single letters over many tokens, so that some do occur in random text.
        let letter = |from: u8| char::from(from + (n % 26) as u8).to_string();
        more["stop"] = json!([letter(b'a'), letter(b'A'), " ", "\n"]);
        more["max_tokens"] = json!(40);
    }
    more
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_audited_answers_of_honest_nodes_bring_no_accusation() {
    let world = World::new().await;
    let nodes = [world.honest(300_000).await, world.honest(310_000).await];
    let client = world
        .gateway_with(|c| c.audit = AuditPolicy::always())
        .await;
    let ask = async |n: u64| {
        let question = format!("question number {n}");
        loop {
            let mut body = crate::common::chat(&question, mixed(n));
            body["stream"] = json!(n.is_multiple_of(2));
            let response = client.post("/v1/chat/completions", &body).await;
            if response.status() == 429 {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                continue;
            }
            let status = response.status();
            let text = response.text().await.unwrap();
            assert_eq!(status, 200, "{n}: {text}");
            assert!(!text.contains("\"error\""), "{n}: {text}");
            return;
        }
    };
    futures::stream::iter(0..MIX)
        .map(ask)
        .buffer_unordered(6)
        .collect::<Vec<()>>()
        .await;
    let receipts = client.audits_done().await;
    assert_eq!(receipts.len() as u64, MIX);
    let accused: Vec<_> = receipts
        .iter()
        .filter(|r| !matches!(r.audit, AuditState::Honest { .. }))
        .collect();
    assert!(accused.is_empty(), "{accused:?}");
    assert!(client.benched().await.is_empty());
    let status = client.status().await;
    let honest: u64 = status.providers.iter().map(|p| p.record.found_honest).sum();
    assert_eq!(honest, MIX);
    for node in &nodes {
        let record = &status
            .providers
            .iter()
            .find(|p| p.address == node.address())
            .unwrap()
            .record;
        println!("{}: {} answers, all honest", node.address(), record.answers);
    }
    // What an honest node loses: nothing. Every receipt's charge is in the books.
    let charged: u64 = receipts.iter().map(|r| r.charged.0).sum();
    assert_eq!(status.spent, MicroUsd(charged));
    assert_eq!(status.at_risk, MicroUsd(0));
    let by_stop = |stop| receipts.iter().filter(|r| r.stop_reason == stop).count();
    println!(
        "{} ended at max_tokens, {} at a stop string, {} at end of text",
        by_stop(StopReason::MaxTokens),
        by_stop(StopReason::StopString),
        by_stop(StopReason::EndOfText)
    );
    // Each way of ending is among what was audited.
    assert!(by_stop(StopReason::StopString) > 5 && by_stop(StopReason::EndOfText) > 0);
}
