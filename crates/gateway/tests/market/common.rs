//! A whole market in one process: an embedded chain, real nodes (some behind a proxy that makes them
//! misbehave), a gateway, and a client that speaks plain HTTP.
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use assay_audit::AuditPolicy;
use assay_chain::{Chain, DeployParams, EmbeddedConfig, Key, Market, Registration};
use assay_gateway::{
    AuditState, Entry, GatewayConfig, ReceiptEntry, RunningGateway, Status, create_ledgers, start,
};
use assay_model::LoadedModel;
use assay_node::{Conduct, Honest, NodeConfig, ProofConfig, RunningNode, ServedModel};
use assay_protocol::{Address, MicroUsd, MicroUsdPerMillionTokens, Price};
use assay_testkit::market::{Tamper, TamperProxy};
use assay_testkit::tiny::Tiny;
use reqwest::Response;
use serde_json::{Value, json};
use tempfile::TempDir;

pub(crate) const MODEL: &str = "tiny";

/// A chain with contracts, and one tiny model that everybody holds.
pub(crate) struct World {
    pub(crate) dir: TempDir,
    pub(crate) market: Market,
    pub(crate) faucet: Key,
    pub(crate) loaded: LoadedModel,
}

/// A node that is registered, and the proxy before it if it misbehaves.
pub(crate) struct Player {
    pub(crate) owner: Key,
    /// Serves as long as the player lives.
    pub(crate) node: RunningNode,
    config: NodeConfig,
    pub(crate) proxy: Option<TamperProxy>,
}

impl Player {
    pub(crate) fn address(&self) -> Address {
        self.owner.address()
    }
}

impl Player {
    /// Stops the node in good order and starts it again from what is on its disk; it has another port then.
    pub(crate) async fn restart(self) -> Self {
        self.restart_with(|_| {}).await
    }

    /// The same under another config.
    pub(crate) async fn restart_with(mut self, change: impl FnOnce(&mut NodeConfig)) -> Self {
        change(&mut self.config);
        self.node.shutdown().await;
        let node = assay_node::start(self.config.clone()).await.unwrap();
        Self { node, ..self }
    }
}

pub(crate) fn price(output: u64) -> Price {
    let per_million = MicroUsdPerMillionTokens;
    Price {
        input: per_million(output / 2),
        cached_input: per_million(output / 4),
        output: per_million(output),
    }
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(Tiny::llama(1), DeployParams::devnet()).await
    }

    /// With other clocks for disputes than a development chain's.
    pub(crate) async fn clocked(response_s: u32, extension_s: u32) -> Self {
        let params = DeployParams {
            response_s,
            extension_s,
            ..DeployParams::devnet()
        };
        Self::with(Tiny::llama(1), params).await
    }

    /// Makes tokens slowly enough to leave in the middle.
    pub(crate) async fn slow() -> Self {
        let mut tiny = Tiny::llama(1);
        tiny.dims.layers = 24;
        tiny.dims.ffn = 512;
        Self::with(tiny, DeployParams::devnet()).await
    }

    async fn with(tiny: Tiny, params: DeployParams) -> Self {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("tiny.assay");
        std::fs::write(&path, tiny.with_text().bytes()).unwrap();
        let loaded = LoadedModel::open(&path, MODEL).unwrap();
        let chain = Chain::embedded(EmbeddedConfig::in_memory()).await.unwrap();
        let faucet = Key::random().unwrap();
        let deployment = chain.deploy(&faucet, &params).await.unwrap();
        let market = chain.market(deployment).await.unwrap();
        Self {
            dir,
            market,
            faucet,
            loaded,
        }
    }

    pub(crate) async fn honest(&self, output_price: u64) -> Player {
        self.player(output_price, Arc::new(Honest), None).await
    }

    pub(crate) async fn cheat(&self, output_price: u64, conduct: impl Conduct) -> Player {
        self.player(output_price, Arc::new(conduct), None).await
    }

    pub(crate) async fn tampered(&self, output_price: u64, tamper: Tamper) -> Player {
        self.player(output_price, Arc::new(Honest), Some(tamper))
            .await
    }

    /// Honest, but for whatever makes its proofs.
    pub(crate) async fn proving(&self, output_price: u64, proofs: ProofConfig) -> Player {
        self.player_with(output_price, Arc::new(Honest), None, |config| {
            config.proofs = Some(proofs)
        })
        .await
    }

    /// Cheats, and offers proofs.
    pub(crate) async fn cheat_proving(
        &self,
        output_price: u64,
        conduct: impl Conduct,
        proofs: ProofConfig,
    ) -> Player {
        self.player_with(output_price, Arc::new(conduct), None, |config| {
            config.proofs = Some(proofs)
        })
        .await
    }

    async fn player(
        &self,
        output_price: u64,
        conduct: Arc<dyn Conduct>,
        tamper: Option<Tamper>,
    ) -> Player {
        self.player_with(output_price, conduct, tamper, |_| {})
            .await
    }

    /// Registers and starts a node.
    async fn player_with(
        &self,
        output_price: u64,
        conduct: Arc<dyn Conduct>,
        tamper: Option<Tamper>,
        change: impl FnOnce(&mut NodeConfig),
    ) -> Player {
        let (owner, hot) = (Key::random().unwrap(), Key::random().unwrap());
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let data_dir = self.dir.path().join(format!("node-{}", owner.address()));
        let mut config = NodeConfig::new(
            listen,
            data_dir,
            self.market.clone(),
            owner.address(),
            hot.clone(),
        );
        config.models = vec![ServedModel {
            loaded: self.loaded.clone(),
            price: price(output_price),
        }];
        config.make_ledger = true;
        config.limits.threads = 1;
        config.conduct = conduct;
        config.defence.poll = Duration::from_millis(50);
        change(&mut config);
        // A node wants to be registered before it starts; where it listens is known only after.
        let proxy = match tamper {
            Some(tamper) => {
                Some(TamperProxy::start(hot.clone(), self.market.domain(), tamper).await)
            }
            None => None,
        };
        let stake = MicroUsd(50_000_000);
        self.market
            .mint(&self.faucet, owner.address(), stake)
            .await
            .unwrap();
        let registration = Registration {
            offer_key: hot.address(),
            payout: owner.address(),
            endpoint: "http://127.0.0.1:1".into(),
            models: vec![self.loaded.model.id()],
            stake,
        };
        self.market.register(&owner, &registration).await.unwrap();
        let node = assay_node::start(config.clone()).await.unwrap();
        let endpoint = match &proxy {
            Some(proxy) => {
                proxy.connect(node.addr());
                proxy.url()
            }
            None => format!("http://{}", node.addr()),
        };
        self.market
            .update_endpoint(&owner, &endpoint)
            .await
            .unwrap();
        Player {
            owner,
            node,
            config,
            proxy,
        }
    }

    /// A gateway's config with a funded payer.
    pub(crate) async fn config(&self) -> GatewayConfig {
        let payer = Key::random().unwrap();
        self.market
            .mint(&self.faucet, payer.address(), MicroUsd(100_000_000))
            .await
            .unwrap();
        let mut config = GatewayConfig::new(
            SocketAddr::from(([127, 0, 0, 1], 0)),
            self.dir.path().join(format!("gateway-{}", payer.address())),
            self.market.clone(),
            payer,
            vec![self.loaded.clone()],
        );
        config.limits.audit_patience = Duration::from_millis(50);
        config.limits.first_token = Duration::from_secs(5);
        config.limits.next_token = Duration::from_secs(5);
        config.limits.rest.first_ms = 20;
        config.limits.rest.most_ms = 50;
        config.routing.explore_one_in = 0;
        config.disputes.poll = Duration::from_millis(50);
        config
    }

    pub(crate) async fn gateway(&self) -> Client {
        self.gateway_with(|_| {}).await
    }

    pub(crate) async fn gateway_with(&self, change: impl FnOnce(&mut GatewayConfig)) -> Client {
        let mut config = self.config().await;
        change(&mut config);
        Client::start(config).await
    }
}

/// Audits nothing unless told to.
pub(crate) fn never() -> AuditPolicy {
    AuditPolicy::flat(assay_audit::PartsPerMillion::ZERO)
}

/// Somebody at the gateway's front door.
pub(crate) struct Client {
    pub(crate) running: RunningGateway,
    pub(crate) http: reqwest::Client,
    pub(crate) url: String,
}

/// A streamed answer, taken apart.
#[derive(Debug, Default)]
pub(crate) struct Streamed {
    pub(crate) text: String,
    pub(crate) ids: Vec<u32>,
    pub(crate) finish: Option<String>,
    pub(crate) last: Value,
    pub(crate) error: Option<Value>,
    pub(crate) done: bool,
    pub(crate) headers: reqwest::header::HeaderMap,
}

impl Client {
    pub(crate) async fn start(config: GatewayConfig) -> Self {
        create_ledgers(&config.data_dir, &config.market, config.payer.address())
            .await
            .unwrap();
        let running = start(config).await.unwrap();
        let url = running.url();
        Self {
            running,
            http: reqwest::Client::new(),
            url,
        }
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Response {
        self.http
            .post(format!("{}{path}", self.url))
            .json(body)
            .send()
            .await
            .unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        self.http
            .get(format!("{}{path}", self.url))
            .send()
            .await
            .unwrap()
    }

    pub(crate) async fn get_json(&self, path: &str) -> Value {
        self.get(path).await.json().await.unwrap()
    }

    pub(crate) async fn chat(&self, text: &str, more: Value) -> Response {
        self.post("/v1/chat/completions", &chat(text, more)).await
    }

    pub(crate) async fn ask(&self, text: &str, more: Value) -> Value {
        let response = self.chat(text, more).await;
        let status = response.status();
        let body: Value = response.json().await.unwrap();
        assert_eq!(status, 200, "{body}");
        body
    }

    pub(crate) async fn stream(&self, text: &str, more: Value) -> Streamed {
        let mut body = chat(text, more);
        body["stream"] = json!(true);
        let response = self.post("/v1/chat/completions", &body).await;
        assert_eq!(response.status(), 200, "{}", response.text().await.unwrap());
        let headers = response.headers().clone();
        let text = response.text().await.unwrap();
        let mut streamed = Streamed {
            headers,
            ..Streamed::default()
        };
        for event in text
            .split("\n\n")
            .filter_map(|event| event.strip_prefix("data: "))
        {
            if event == "[DONE]" {
                streamed.done = true;
                continue;
            }
            let event: Value = serde_json::from_str(event).unwrap();
            if event.get("error").is_some() {
                streamed.error = Some(event["error"].clone());
                continue;
            }
            let choice = &event["choices"][0];
            if let Some(text) = choice["delta"]["content"].as_str() {
                streamed.text.push_str(text);
            }
            if let Some(finish) = choice["finish_reason"].as_str() {
                streamed.finish = Some(finish.into());
            }
            if let Some(ids) = event["assay"]["token_ids"].as_array() {
                streamed
                    .ids
                    .extend(ids.iter().map(|id| id.as_u64().unwrap() as u32));
            }
            streamed.last = event;
        }
        streamed
    }

    pub(crate) async fn status(&self) -> Status {
        self.get("/assay/v1/status").await.json().await.unwrap()
    }

    pub(crate) async fn entries(&self) -> Vec<Entry> {
        let list = self.get_json("/assay/v1/receipts?limit=10000").await;
        serde_json::from_value(list["data"].clone()).unwrap()
    }

    pub(crate) async fn receipts(&self) -> Vec<ReceiptEntry> {
        let entries = self.entries().await.into_iter();
        entries
            .filter_map(|entry| match entry {
                Entry::Receipt(receipt) => Some(receipt),
                Entry::Unverified(_) => None,
            })
            .collect()
    }

    /// The providers that are benched, each with the reason.
    pub(crate) async fn benched(&self) -> Vec<(Address, String)> {
        let providers = self.status().await.providers.into_iter();
        providers
            .filter_map(|p| Some((p.address, p.record.bench?.reason)))
            .collect()
    }

    /// Waits until no audit is waiting; a minute is an error.
    pub(crate) async fn audits_done(&self) -> Vec<ReceiptEntry> {
        let begun = Instant::now();
        loop {
            let receipts = self.receipts().await;
            if !receipts.iter().any(|r| r.audit == AuditState::Waiting) {
                return receipts;
            }
            assert!(
                begun.elapsed() < Duration::from_secs(60),
                "audits take too long"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

pub(crate) fn chat(text: &str, more: Value) -> Value {
    let mut body = json!({
        "model": MODEL,
        "messages": [{ "role": "user", "content": text }],
        "max_tokens": 24,
        // Fixed, so that no answer of these tests happens to end early.
        "seed": 11,
    });
    if let (Some(body), Value::Object(more)) = (body.as_object_mut(), more) {
        body.extend(more);
    }
    body
}

/// An error's status, code and message.
pub(crate) async fn error(response: Response) -> (u16, String, String) {
    let status = response.status().as_u16();
    let body: Value = response.json().await.unwrap();
    let text = |name: &str| body["error"][name].as_str().unwrap_or_default().to_owned();
    assert!(
        !text("message").is_empty() && !text("type").is_empty(),
        "{body}"
    );
    (status, text("code"), text("message"))
}
