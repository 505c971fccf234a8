//! The chains that the suite runs on: the embedded one with a clock of its own, and anvil.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use alloy::consensus::{SignableTransaction, TxEip1559, TxEnvelope};
use alloy::eips::eip2718::Encodable2718;
use alloy::providers::Provider;
use alloy::rpc::types::BlockNumberOrTag;
use alloy_primitives::{TxKind, U256};
use assay_chain::{Chain, DeployParams, EmbeddedConfig, Key, Market, Patience};
use assay_protocol::channel::ChannelConfig;
use assay_protocol::{Address, B256, MicroUsd, Timestamp};

/// When the embedded chain's clock starts.
const START: u64 = 1_800_000_000;

/// A chain under test, with the power to move its time.
pub(crate) struct Net {
    pub(crate) chain: Chain,
    time: Time,
}

enum Time {
    Clock(Arc<AtomicU64>),
    /// The embedded chain behind its HTTP router, as another process sees it.
    Served {
        clock: Arc<AtomicU64>,
        url: String,
    },
    Anvil {
        child: Child,
        url: String,
    },
}

impl Net {
    pub(crate) async fn embedded() -> Net {
        let clock = Arc::new(AtomicU64::new(START));
        Net {
            chain: open(&clock).await,
            time: Time::Clock(clock),
        }
    }

    /// The embedded chain through HTTP and JSON.
    pub(crate) async fn served() -> Net {
        let clock = Arc::new(AtomicU64::new(START));
        let chain = open(&clock).await;
        let router = chain.as_embedded().expect("this one is embedded").router();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port is free");
        let url = format!("http://{}", listener.local_addr().expect("it is bound"));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Net {
            chain: Chain::connect(&url).await.expect("it answers"),
            time: Time::Served { clock, url },
        }
    }

    /// Anvil out of contracts/node_modules; None, with a line that says so, where it is not
    /// installed. CI must have it.
    pub(crate) async fn anvil() -> Option<Net> {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("../../contracts/node_modules/@foundry-rs/anvil-linux-amd64/bin/anvil");
        if !path.exists() {
            let missing = "anvil is not installed: run `npm ci` in contracts/";
            assert!(std::env::var_os("CI").is_none(), "{missing}");
            println!("skipped: {missing}");
            return None;
        }
        // Port 0 lets the system choose; anvil prints what it got.
        let mut child = Command::new(path)
            .args(["--port", "0", "--host", "127.0.0.1"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("anvil starts");
        let mut lines = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
        let address = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix("Listening on ").map(str::to_owned))
            .expect("anvil says where it listens");
        // Anvil writes a line a request: somebody has to read them.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        let url = format!("http://{address}");
        let chain = Chain::connect(&url).await.expect("anvil answers");
        Some(Net {
            chain,
            time: Time::Anvil { child, url },
        })
    }

    /// A handle with nonces of its own, as another process has. The embedded chain opens a file
    /// once only, so it is asked through a handle on the same chain.
    pub(crate) async fn second_handle(&self) -> Chain {
        match &self.time {
            Time::Anvil { url, .. } | Time::Served { url, .. } => {
                Chain::connect(url).await.expect("it answers")
            }
            Time::Clock(_) => {
                let embedded = self.chain.as_embedded().expect("this one is embedded");
                Chain::attach(embedded).await.expect("it answers")
            }
        }
    }

    /// The same chain as another process with these bounds sees it; none where it has no url.
    pub(crate) async fn with_patience(&self, patience: Patience) -> Option<Chain> {
        let (Time::Anvil { url, .. } | Time::Served { url, .. }) = &self.time else {
            return None;
        };
        let chain = Chain::connect_with(std::slice::from_ref(url), patience).await;
        Some(chain.expect("it answers"))
    }

    /// Puts a contract on the chain that is none of ours.
    pub(crate) async fn put_code(&self, runtime: &[u8]) -> Address {
        let key = self.key().await;
        let length = u8::try_from(runtime.len()).expect("it is small");
        // PUSH1 length, PUSH1 offset, PUSH0, CODECOPY, PUSH1 length, PUSH0, RETURN
        let mut creation = vec![0x60, length, 0x60, 10, 0x5f, 0x39, 0x60, length, 0x5f, 0xf3];
        creation.extend_from_slice(runtime);
        let fee = match self.time {
            Time::Anvil { .. } => 10_000_000_000,
            _ => 0,
        };
        let transaction = TxEip1559 {
            chain_id: self.chain.chain_id(),
            gas_limit: 1_000_000,
            max_fee_per_gas: fee,
            to: TxKind::Create,
            input: creation.into(),
            ..TxEip1559::default()
        };
        let bytes = key.sign_digest(transaction.signature_hash()).0;
        let signature = alloy_primitives::Signature::from_raw(bytes.as_slice()).expect("65 bytes");
        let raw = TxEnvelope::from(transaction.into_signed(signature)).encoded_2718();
        let sent = self.chain.provider().send_raw_transaction(&raw).await;
        let receipt = sent
            .expect("it is valid")
            .get_receipt()
            .await
            .expect("it is mined");
        receipt.contract_address.expect("it made a contract")
    }

    /// A key that can pay for gas.
    pub(crate) async fn key(&self) -> Key {
        let key = Key::random().expect("randomness");
        if let Time::Anvil { .. } = self.time {
            let ether = U256::from(10).pow(U256::from(20));
            let provider = self.chain.provider();
            let _: () = provider
                .raw_request("anvil_setBalance".into(), (key.address(), ether))
                .await
                .expect("anvil gives ether");
        }
        key
    }

    /// Lets time pass.
    pub(crate) async fn advance(&self, seconds: u64) {
        match &self.time {
            Time::Clock(clock) | Time::Served { clock, .. } => {
                clock.fetch_add(seconds, Ordering::SeqCst);
            }
            Time::Anvil { .. } => {
                let provider = self.chain.provider();
                let _: i64 = provider
                    .raw_request("evm_increaseTime".into(), (seconds,))
                    .await
                    .expect("anvil moves its time");
                let _: serde_json::Value = provider
                    .raw_request("evm_mine".into(), ())
                    .await
                    .expect("anvil mines");
            }
        }
    }

    pub(crate) async fn block_time(&self) -> Timestamp {
        let block = self
            .chain
            .provider()
            .get_block_by_number(BlockNumberOrTag::Latest)
            .await
            .expect("the chain answers")
            .expect("there is a block");
        Timestamp(block.header.timestamp)
    }
}

async fn open(clock: &Arc<AtomicU64>) -> Chain {
    let clock = clock.clone();
    let config = EmbeddedConfig::in_memory()
        .with_clock(Arc::new(move || Timestamp(clock.load(Ordering::SeqCst))));
    Chain::embedded(config).await.expect("the chain opens")
}

impl Drop for Net {
    fn drop(&mut self) {
        if let Time::Anvil { child, .. } = &mut self.time {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A market with one provider and one payer who has a thousand dollars.
pub(crate) struct Scene {
    pub(crate) net: Net,
    pub(crate) market: Market,
    pub(crate) owner: Key,
    pub(crate) offer: Key,
    pub(crate) payer: Key,
    /// Anybody with gas.
    pub(crate) relay: Key,
    pub(crate) payout: Address,
}

pub(crate) const THOUSAND: MicroUsd = MicroUsd(1_000_000_000);

impl Scene {
    pub(crate) async fn new(net: Net) -> Scene {
        let relay = net.key().await;
        let deployment = net
            .chain
            .deploy(&relay, &DeployParams::devnet())
            .await
            .expect("the market deploys");
        let market = net.chain.market(deployment).await.expect("it is there");
        let (owner, offer, payer) = (net.key().await, net.key().await, net.key().await);
        for to in [owner.address(), payer.address()] {
            market
                .mint(&relay, to, THOUSAND)
                .await
                .expect("anybody mints");
        }
        let payout = Address::repeat_byte(0x77);
        let registration = assay_chain::Registration {
            offer_key: offer.address(),
            payout,
            endpoint: "http://127.0.0.1:9001".into(),
            models: vec![B256::repeat_byte(1), B256::repeat_byte(2)],
            stake: MicroUsd(50_000_000),
        };
        market
            .register(&owner, &registration)
            .await
            .expect("the provider registers");
        Scene {
            net,
            market,
            owner,
            offer,
            payer,
            relay,
            payout,
        }
    }

    /// A channel from the payer to the provider's vault.
    pub(crate) async fn config(&self, salt: u8) -> ChannelConfig {
        let vault = self
            .market
            .vault_of(self.owner.address())
            .await
            .expect("the vault has an address");
        ChannelConfig {
            payer: self.payer.address(),
            payer_authorizer: Address::ZERO,
            receiver: vault,
            receiver_authorizer: self.offer.address(),
            token: self.market.deployment().token,
            withdraw_delay_s: 900,
            salt: B256::repeat_byte(salt),
        }
    }
}
