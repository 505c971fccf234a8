//! Kills a process that writes the chain at random moments: whatever it had reported is there
//! afterwards, and nothing is there in part. `ASSAY_CRASH_CYCLES` sets how often (20).

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use alloy::providers::Provider;
use alloy::rpc::types::Filter;
use assay_chain::{Chain, DeployParams, Deployment, EmbeddedConfig, Key};
use assay_protocol::{Address, B256, MicroUsd};

const FOLDER: &str = "ASSAY_CRASH_FOLDER";
const TO: Address = Address::repeat_byte(0x44);
/// Senders at once: their transactions share commits.
const SENDERS: usize = 4;

fn key() -> Key {
    Key::from_bytes(&[7; 32]).unwrap()
}

async fn open(folder: &Path) -> Chain {
    Chain::embedded(EmbeddedConfig::at(folder.join("chain.redb")))
        .await
        .expect("the chain opens after a crash")
}

/// The process that dies: mints a dollar's millionth again and again, and says so each time. Run
/// as a test of its own it has nothing to do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_process_that_is_killed() {
    let Some(folder) = std::env::var_os(FOLDER) else {
        return;
    };
    let folder = PathBuf::from(folder);
    let chain = open(&folder).await;
    let text = std::fs::read_to_string(folder.join("deployment.json")).unwrap();
    let deployment: Deployment = serde_json::from_str(&text).unwrap();
    let market = chain.market(deployment).await.unwrap();
    let mut senders = tokio::task::JoinSet::new();
    for _ in 0..SENDERS {
        let market = market.clone();
        senders.spawn(async move {
            loop {
                let mined = market.mint(&key(), TO, MicroUsd(1)).await.unwrap();
                let mut out = std::io::stdout().lock();
                writeln!(out, "mined {}", mined.hash).unwrap();
                out.flush().unwrap();
            }
        });
    }
    let stopped = senders.join_next().await;
    panic!("a sender stopped: {stopped:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_process_loses_no_confirmed_transaction() {
    let cycles: usize = std::env::var("ASSAY_CRASH_CYCLES")
        .ok()
        .and_then(|count| count.parse().ok())
        .unwrap_or(20);
    let folder = tempfile::tempdir().unwrap();
    {
        let chain = open(folder.path()).await;
        let deployment = chain.deploy(&key(), &DeployParams::devnet()).await.unwrap();
        let text = serde_json::to_string(&deployment).unwrap();
        std::fs::write(folder.path().join("deployment.json"), text).unwrap();
    }
    let mut seed = [0u8; 8];
    getrandom::fill(&mut seed).unwrap();
    let seed = u64::from_le_bytes(seed);
    println!("seed {seed}");

    let mut confirmed: Vec<B256> = Vec::new();
    for cycle in 0..cycles {
        let spread = seed.wrapping_mul(cycle as u64 * 2 + 1) >> 40;
        let life = Duration::from_micros(20_000 + spread % 180_000);
        confirmed.extend(live_and_die(folder.path(), life));
        check(folder.path(), &confirmed).await;
    }
    println!(
        "{cycles} kills, {} confirmed transactions, none lost",
        confirmed.len()
    );
    assert!(
        confirmed.len() > cycles,
        "the process lived long enough to confirm something"
    );
}

/// Starts the writer, lets it report for `life` after its first block, kills it; returns what it
/// had reported.
fn live_and_die(folder: &Path, life: Duration) -> Vec<B256> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "crash::the_process_that_is_killed",
            "--nocapture",
        ])
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let hash = |line: String| {
        line.split_once("mined ")
            .map(|(_, hash)| hash.parse().unwrap())
    };
    let mut reported = Vec::new();
    for line in lines.by_ref() {
        if let Some(first) = hash(line.unwrap()) {
            reported.push(first);
            break;
        }
    }
    assert!(!reported.is_empty(), "the writer confirms something");
    let reader = std::thread::spawn(move || {
        // A line that the kill cut in half reports nothing.
        lines
            .map_while(Result::ok)
            .filter(|line| line.len() >= 72)
            .filter_map(hash)
            .collect::<Vec<B256>>()
    });
    // The moment of the kill is what varies; nothing waits for a state here.
    std::thread::sleep(life);
    child.kill().unwrap();
    child.wait().unwrap();
    reported.extend(reader.join().unwrap());
    reported
}

/// Everything that was reported is there, and blocks, logs, nonce and balance tell one story.
async fn check(folder: &Path, confirmed: &[B256]) {
    let chain = open(folder).await;
    let provider = chain.provider();
    for hash in confirmed {
        let receipt = provider.get_transaction_receipt(*hash).await.unwrap();
        let receipt = receipt.unwrap_or_else(|| panic!("{hash} was confirmed and is lost"));
        assert!(receipt.status());
    }
    let text = std::fs::read_to_string(folder.join("deployment.json")).unwrap();
    let deployment: Deployment = serde_json::from_str(&text).unwrap();
    let head = provider.get_block_number().await.unwrap();
    let sent = provider
        .get_transaction_count(key().address())
        .await
        .unwrap();
    assert_eq!(
        sent, head,
        "every block has one transaction, all of one sender"
    );
    let mut parent = None;
    for number in 0..=head {
        let block = provider.get_block_by_number(number.into()).await.unwrap();
        let block = block.unwrap_or_else(|| panic!("block {number} is missing"));
        assert!(parent.is_none_or(|hash| hash == block.header.parent_hash));
        parent = Some(block.header.hash);
    }
    let mut minted = 0;
    // The chain answers with 10,000 logs at most, and no block here has two.
    for first in (0..=head).step_by(10_000) {
        let filter = Filter::new().address(deployment.token);
        let filter = filter.from_block(first).to_block(first + 9_999);
        minted += provider.get_logs(&filter).await.unwrap().len() as u64;
    }
    assert!(minted >= confirmed.len() as u64);
    let market = chain.market(deployment).await.unwrap();
    assert_eq!(market.balance(TO).await.unwrap(), MicroUsd(minted));
}
