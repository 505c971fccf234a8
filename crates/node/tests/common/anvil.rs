//! Anvil out of contracts/node_modules: a chain where gas costs something and blocks can be taken back.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use assay_chain::Chain;
use assay_protocol::Address;
use serde_json::{Value, json};

pub struct Anvil {
    child: Child,
    pub url: String,
}

impl Anvil {
    /// None, with a line that says so, where it is not installed. CI must have it.
    pub fn start() -> Option<Self> {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("../../contracts/node_modules/@foundry-rs/anvil-linux-amd64/bin/anvil");
        if !path.exists() {
            let missing = "anvil is not installed: run `npm ci` in contracts/";
            assert!(std::env::var_os("CI").is_none(), "{missing}");
            println!("skipped: {missing}");
            return None;
        }
        let mut child = Command::new(path)
            .args(["--port", "0", "--host", "127.0.0.1"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix("Listening on ").map(str::to_owned))
            .unwrap();
        // Anvil writes a line a request: somebody has to read them.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        let url = format!("http://{address}");
        Some(Self { child, url })
    }

    pub async fn call(&self, method: &str, params: Value) -> Value {
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let http = reqwest::Client::new();
        let response = http.post(&self.url).json(&body).send().await.unwrap();
        let answer: Value = response.json().await.unwrap();
        assert!(answer.get("error").is_none(), "{method}: {answer}");
        answer["result"].clone()
    }

    /// So many thousandths of a coin.
    pub async fn give_coins(&self, chain: &Chain, to: Address, thousandths: u128) {
        let wei = format!("{:#x}", thousandths * 1_000_000_000_000_000);
        let done = self.call("anvil_setBalance", json!([to, wei])).await;
        assert!(done.is_null());
        assert_eq!(
            chain.coin_balance(to).await.unwrap(),
            thousandths * 1_000_000_000_000_000
        );
    }

    /// Takes the newest blocks back, and puts empty ones in their place.
    pub async fn take_back(&self, blocks: u64) {
        self.call("anvil_reorg", json!([blocks, []])).await;
    }

    pub async fn mine(&self, blocks: u64) {
        self.call("anvil_mine", json!([format!("{blocks:#x}")]))
            .await;
    }
}

impl Drop for Anvil {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
