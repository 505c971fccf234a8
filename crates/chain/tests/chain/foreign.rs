//! Tools that we did not write use the embedded chain over HTTP as they would use any other.

use std::path::PathBuf;
use std::process::Command;

use assay_chain::{Embedded, EmbeddedConfig};

/// Runs one of the scripts beside this file on a fresh chain; it prints `<name> is content`.
async fn check(name: &str) {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let contracts = here.join("../../contracts");
    let script = here.join(format!("tests/chain/{name}.mjs"));
    if !contracts.join("node_modules/@x402/evm").exists() {
        let missing = "viem and x402 are not installed: run `npm ci` in contracts/";
        assert!(std::env::var_os("CI").is_none(), "{missing}");
        println!("skipped: {missing}");
        return;
    }
    let chain = Embedded::open(EmbeddedConfig::in_memory()).unwrap();
    let router = chain.router();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let run = move || {
        let mut node = Command::new("node");
        node.arg(script).arg(url).arg(contracts);
        node.output().expect("node runs")
    };
    let ran = tokio::task::spawn_blocking(run).await.unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    let erred = String::from_utf8_lossy(&ran.stderr);
    assert_eq!(said, format!("{name} is content\n"), "{erred}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn viem_deploys_reads_and_understands_a_refusal() {
    check("viem").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_official_x402_facilitator_settles_through_our_contracts() {
    check("x402").await;
}
