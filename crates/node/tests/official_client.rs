//! The official x402 client from npm, unmodified, buys from a node and has its money refunded, on both chains.

mod common;

use std::path::Path;
use std::process::Command;

use assay_chain::Key;
use assay_protocol::MicroUsd;
use common::World;
use serde_json::Value;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs node with @x402/evm, @x402/fetch and viem: name their folder in ASSAY_TEST_X402"]
async fn the_official_client_deposits_pays_streams_recovers_and_is_refunded() {
    let world = World::new().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let rpc = format!("http://{}", listener.local_addr().unwrap());
    let router = world.market.chain().as_embedded().unwrap().router();
    let server = tokio::spawn(async move { axum::serve(listener, router).await });
    buys(&world, rpc).await;
    server.abort();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs node with @x402/evm, @x402/fetch and viem: name their folder in ASSAY_TEST_X402"]
async fn the_official_client_does_the_same_on_anvil() {
    let Some(world) = World::on_anvil(2).await else {
        return;
    };
    let rpc = world.anvil.as_ref().unwrap().url.clone();
    buys(&world, rpc).await;
}

async fn buys(world: &World, rpc: String) {
    let folder =
        std::env::var("ASSAY_TEST_X402").expect("ASSAY_TEST_X402 names the folder of node_modules");
    let node = world.start().await;
    let payer = Key::from_bytes(&[0x11; 32]).unwrap();
    let money = MicroUsd(1_000_000);
    let market = &world.market;
    market
        .mint(&world.owner, payer.address(), money)
        .await
        .unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/foreign/x402_client.cjs");
    let (url, secret) = (
        format!("http://{}", node.addr()),
        format!("0x{}", "11".repeat(32)),
    );
    let run = move || {
        Command::new("node")
            .arg(script)
            .args([&folder, &url, &rpc, &secret])
            .output()
            .unwrap()
    };
    let output = tokio::task::spawn_blocking(run).await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );

    let steps: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let (refunds, asks): (Vec<Value>, Vec<Value>) = steps
        .into_iter()
        .partition(|step| step.get("refunded").is_some());
    assert_eq!((asks.len(), refunds.len()), (6, 2), "{text}");
    let deposits: Vec<bool> = asks
        .iter()
        .map(|step| step["deposited"].as_bool().unwrap())
        .collect();
    assert_eq!(
        deposits,
        [true, false, false, false, false, true],
        "one deposit serves many requests"
    );
    let mut total = 0;
    for step in &asks {
        total += step["charged"].as_u64().unwrap();
        assert_eq!(step["cumulative"].as_u64(), Some(total), "{text}");
    }
    assert_eq!(refunds[0]["refunded"], "1000");
    assert!(
        refunds
            .iter()
            .all(|refund| { refund["transaction"].as_str().unwrap().len() == 66 })
    );
    assert_eq!(node.earnings().await.unwrap().charged, MicroUsd(total));
    assert!(node.shutdown().await.claim_error.is_none());
    // Every micro-dollar is the payer's, the provider's or still in the channel.
    let deployment = market.deployment();
    let channels = market.balance(deployment.channels).await.unwrap().0;
    let vault = market.vault_of(world.owner.address()).await.unwrap();
    let earned = market.balance(vault).await.unwrap().0;
    let kept = market.balance(payer.address()).await.unwrap().0;
    assert_eq!(earned, total);
    assert_eq!(kept + channels + earned, money.0);
}
