//! What the engine keeps for later: found again by the payer who asked first, by nobody else, and no answer or bill
//! differs for it.

mod common;

use assay_node::RunningNode;
use common::{Buyer, World};
use serde_json::{Value, json};

const COMPLETION: &str = "/v1/completions";

/// More than three pages of tokens; the tiny model's are bytes.
fn long() -> Value {
    let prompt = "Tell me once more. ".repeat(6);
    json!({ "model": common::MODEL, "prompt": prompt, "max_tokens": 6, "temperature": 0 })
}

/// Prompt tokens that the engine has found in its cache.
async fn cached(node: &RunningNode) -> u64 {
    let health = reqwest::get(format!("http://{}/healthz", node.addr())).await;
    let health: Value = health.unwrap().json().await.unwrap();
    health["engines"][0]["prompt_tokens_cached"]
        .as_u64()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payer_finds_its_own_prompts_again_and_no_one_elses() {
    let world = World::new().await;
    let node = world.start().await;
    let (mut first, mut second) = (
        Buyer::new(&world, &node, 1).await,
        Buyer::new(&world, &node, 1).await,
    );
    let answer = first.ask(&world, COMPLETION, &long()).await;
    assert_eq!(cached(&node).await, 0);
    let others = second.ask(&world, COMPLETION, &long()).await;
    assert_eq!(cached(&node).await, 0);
    // `ask` checks the bill: every prompt token is paid in full, as the receipt does not sign what was found.
    let again = first.ask(&world, COMPLETION, &long()).await;
    assert_eq!(cached(&node).await, 96);
    assert_eq!((&others.ids, &again.ids), (&answer.ids, &answer.ids));
    let told = &again.usage.unwrap()["prompt_tokens_details"]["cached_tokens"];
    assert_eq!(told, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_cached_tokens_cost_the_same_they_are_told() {
    let world = World::new().await;
    let mut config = world.config();
    config.models[0].price.cached_input = config.models[0].price.input;
    let node = assay_node::start(config).await.unwrap();
    let mut buyer = Buyer::new(&world, &node, 1).await;
    for expected in [0, 96] {
        let answer = buyer.ask(&world, COMPLETION, &long()).await;
        let told = &answer.usage.unwrap()["prompt_tokens_details"]["cached_tokens"];
        assert_eq!(told, expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pinned_threads_and_a_small_cache_serve_the_same() {
    let world = World::new().await;
    let usual = world.start().await;
    let mut buyer = Buyer::new(&world, &usual, 1).await;
    let expected = buyer.ask(&world, COMPLETION, &long()).await.ids;
    usual.shutdown().await;
    let mut config = world.config();
    config.make_ledger = false;
    config.limits.pin = cfg!(target_os = "linux");
    config.limits.threads = 3;
    config.limits.cache_mib = 1;
    config.limits.share_prefixes = false;
    config.limits.speculate = false;
    let node = assay_node::start(config).await.unwrap();
    let mut buyer = Buyer::new(&world, &node, 1).await;
    assert_eq!(buyer.ask(&world, COMPLETION, &long()).await.ids, expected);
    assert_eq!(cached(&node).await, 0);
}
