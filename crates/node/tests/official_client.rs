//! The official x402 client from npm, unmodified, buys from a node.

mod common;

use std::path::Path;
use std::process::Command;

use assay_chain::Key;
use assay_protocol::MicroUsd;
use common::World;
use serde_json::Value;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs node with @x402/evm, @x402/fetch and viem: name their folder in ASSAY_TEST_X402"]
async fn the_official_client_deposits_pays_streams_and_recovers() {
    let folder =
        std::env::var("ASSAY_TEST_X402").expect("ASSAY_TEST_X402 names the folder of node_modules");
    let world = World::new().await;
    let node = world.start().await;
    let payer = Key::from_bytes(&[0x11; 32]).unwrap();
    world
        .market
        .mint(&world.owner, payer.address(), MicroUsd(1_000_000))
        .await
        .unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let rpc = format!("http://{}", listener.local_addr().unwrap());
    let router = world.market.chain().as_embedded().unwrap().router();
    let server = tokio::spawn(async move { axum::serve(listener, router).await });

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
    assert_eq!(steps.len(), 4, "{text}");
    let deposits: Vec<bool> = steps
        .iter()
        .map(|step| step["deposited"].as_bool().unwrap())
        .collect();
    assert_eq!(
        deposits,
        [true, false, false, false],
        "one deposit serves many requests"
    );
    let mut total = 0;
    for step in &steps {
        total += step["charged"].as_u64().unwrap();
        assert_eq!(step["cumulative"].as_u64(), Some(total), "{text}");
    }
    assert_eq!(node.earnings().await.unwrap().charged, MicroUsd(total));
    node.shutdown().await;
    server.abort();
}
