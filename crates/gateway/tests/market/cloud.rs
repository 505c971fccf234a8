//! The cloud fallback: only when no node can serve, only when the request allows it, and labelled as
//! what it is everywhere.

use assay_gateway::{ApiKey, CloudUpstream, Entry};
use assay_protocol::{MicroUsd, MicroUsdPerMillionTokens, Price, Tier};
use assay_testkit::market::{CloudStandIn, Tamper};
use serde_json::{Value, json};

use crate::common::{Client, World, error};

const KEY: &str = "sk-very-secret";

async fn with_cloud(world: &World, cloud: &CloudStandIn) -> Client {
    let upstream = CloudUpstream {
        name: "bigcloud".into(),
        base_url: cloud.base_url(),
        model: "big-1".into(),
        stands_in_for: None,
        key: Some(ApiKey::new(KEY)),
        price: Price {
            input: MicroUsdPerMillionTokens(1_000_000),
            cached_input: MicroUsdPerMillionTokens(1_000_000),
            output: MicroUsdPerMillionTokens(2_000_000),
        },
    };
    world.gateway_with(|c| c.clouds = vec![upstream]).await
}

fn allowed() -> Value {
    json!({ "assay": { "fallback": "cloud" } })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cloud_answers_when_no_node_can_and_is_labelled_unverified_everywhere() {
    let world = World::new().await;
    let cloud = CloudStandIn::start(&["Hello", " there"], Some(KEY)).await;
    let client = with_cloud(&world, &cloud).await;
    let response = client.chat("hi", allowed()).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["x-assay-tier"], "unverified");
    assert_eq!(response.headers()["x-assay-provider"], "cloud:bigcloud");
    assert_eq!(response.headers()["x-assay-charge"], "0");
    let answer: Value = response.json().await.unwrap();
    assert_eq!(answer["choices"][0]["message"]["content"], "Hello there");
    // The cloud's own claim of a receipt and of token ids is dropped.
    assert!(answer["assay"]["receipt"].is_null() && answer["assay"]["token_ids"].is_null());

    let entries = client.entries().await;
    let [Entry::Unverified(entry)] = &entries[..] else {
        panic!("{entries:?}")
    };
    assert_eq!(
        (entry.cloud.as_str(), entry.tier),
        ("bigcloud", Tier::Unverified)
    );
    assert_eq!(entry.estimated, Some(MicroUsd(14)));
    let listed = client.get_json("/assay/v1/receipts").await;
    assert_eq!(listed["data"][0]["type"], "unverified");
    let (status, code, _) = error(
        client
            .get(&format!("/assay/v1/receipts/{}", entry.id))
            .await,
    )
    .await;
    assert_eq!((status, code.as_str()), (404, "unverified"));
    let (status, ..) = error(
        client
            .post(
                &format!("/assay/v1/receipts/{}/audit", entry.id),
                &json!({}),
            )
            .await,
    )
    .await;
    assert_eq!(status, 404);

    // The bill keeps the two apart.
    let status = client.status().await;
    assert_eq!(
        (status.totals.receipts, status.totals.charged),
        (0, MicroUsd(0))
    );
    assert_eq!(
        (status.totals.unverified, status.totals.unverified_estimated),
        (1, MicroUsd(14))
    );

    // The cloud got the client's words and none of ours; the key went nowhere else.
    let seen = cloud.seen();
    assert_eq!(
        seen[0].authorization.as_deref(),
        Some("Bearer sk-very-secret")
    );
    assert_eq!(seen[0].body["model"], "big-1");
    assert!(seen[0].body.get("assay").is_none());
    assert!(
        !client
            .get("/assay/v1/status")
            .await
            .text()
            .await
            .unwrap()
            .contains(KEY)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_streamed_cloud_answer_is_labelled_before_its_first_word() {
    let world = World::new().await;
    let cloud = CloudStandIn::start(&["Hello", " there"], None).await;
    let client = with_cloud(&world, &cloud).await;
    let streamed = client.stream("hi", allowed()).await;
    assert_eq!(streamed.text, "Hello there");
    assert!(streamed.done && streamed.ids.is_empty());
    assert_eq!(streamed.headers["x-assay-tier"], "unverified");
    assert_eq!(streamed.finish.as_deref(), Some("stop"));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_permission_no_cloud_is_asked() {
    let world = World::new().await;
    let cloud = CloudStandIn::start(&["Hello"], Some(KEY)).await;
    let client = with_cloud(&world, &cloud).await;
    assert_eq!(client.chat("hi", json!({})).await.status(), 503);
    let never = json!({ "assay": { "fallback": "never" } });
    assert_eq!(client.chat("hi", never).await.status(), 503);
    assert!(cloud.seen().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_node_can_serve_no_cloud_is_asked() {
    let world = World::new().await;
    let _bad = world.tampered(100_000, Tamper::ServerError).await;
    let node = world.honest(900_000).await;
    let cloud = CloudStandIn::start(&["Hello"], Some(KEY)).await;
    let client = with_cloud(&world, &cloud).await;
    let streamed = client.stream("hi", allowed()).await;
    assert_eq!(
        streamed.headers["x-assay-provider"],
        node.address().to_string().as_str()
    );
    assert!(cloud.seen().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cloud_is_not_asked_above_the_requests_max_price() {
    let world = World::new().await;
    let cloud = CloudStandIn::start(&["Hello"], Some(KEY)).await;
    let client = with_cloud(&world, &cloud).await;
    let cheap = json!({ "assay": { "fallback": "cloud", "max_price": 3 } });
    assert_ne!(client.chat("hi", cheap).await.status(), 200);
    assert!(cloud.seen().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cloud_that_refuses_is_named_without_its_key() {
    let world = World::new().await;
    let cloud = CloudStandIn::start(&["Hello"], Some("another key")).await;
    let client = with_cloud(&world, &cloud).await;
    let (status, _, message) = error(client.chat("hi", allowed()).await).await;
    assert_eq!(status, 503);
    assert!(
        message.contains("cloud 'bigcloud' refused with status 401"),
        "{message}"
    );
    assert!(!message.contains(KEY));
}
