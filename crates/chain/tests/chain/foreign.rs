//! A tool that we did not write uses the embedded chain over HTTP as it would use any other.

use std::path::PathBuf;
use std::process::Command;

use assay_chain::{Embedded, EmbeddedConfig};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn viem_deploys_reads_and_understands_a_refusal() {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let contracts = here.join("../../contracts");
    if !contracts.join("node_modules/viem").exists() {
        let missing = "viem is not installed: run `npm ci` in contracts/";
        assert!(std::env::var_os("CI").is_none(), "{missing}");
        println!("skipped: {missing}");
        return;
    }
    let chain = Embedded::open(EmbeddedConfig::in_memory()).unwrap();
    let router = chain.router();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let ran = tokio::task::spawn_blocking(move || {
        Command::new("node")
            .arg(here.join("tests/chain/viem.mjs"))
            .arg(url)
            .arg(contracts)
            .output()
            .expect("node runs")
    })
    .await
    .unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    let erred = String::from_utf8_lossy(&ran.stderr);
    assert_eq!(said, "viem is content\n", "{erred}");
}
