//! A market of one node on an embedded chain, and a buyer that speaks real HTTP to it.
#![allow(dead_code, unreachable_pub)]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use assay_chain::{Chain, DeployParams, EmbeddedConfig, Key, Market, Registration};
use assay_model::LoadedModel;
use assay_node::{NodeConfig, RunningNode, ServedModel};
use assay_openai::{Answer, AssayAnswer};
use assay_payments::payer::Payee;
use assay_payments::x402::{
    self, Decimal, Deposit, DepositPayload, Erc3009Authorization, PAYMENT_REQUIRED,
    PAYMENT_SIGNATURE, Payload, PaymentPayload, PaymentRequired, PaymentRequirements,
    RefundPayload,
};
use assay_payments::{Paid, PayerLedger, Terms};
use assay_protocol::channel::Voucher;
use assay_protocol::{
    B256, MicroUsd, MicroUsdPerMillionTokens, Price, Receipt, Signed, StopReason, Timestamp,
    TokenId,
};
use assay_testkit::tiny::Tiny;
use reqwest::Response;
use serde_json::{Value, json};
use tempfile::TempDir;

pub const MODEL: &str = "tiny";

mod anvil;
pub use anvil::Anvil;

pub struct World {
    pub anvil: Option<Anvil>,
    pub dir: TempDir,
    pub market: Market,
    pub owner: Key,
    pub hot: Key,
    pub loaded: LoadedModel,
}

/// A dollar a token, so that every token shows in the bill.
pub fn price() -> Price {
    let per_million = MicroUsdPerMillionTokens;
    Price {
        input: per_million(2_000_000),
        cached_input: per_million(1_000_000),
        output: per_million(5_000_000),
    }
}

pub fn load(dir: &Path, tiny: &Tiny) -> LoadedModel {
    let path = dir.join(format!("{MODEL}.assay"));
    std::fs::write(&path, tiny.bytes()).unwrap();
    LoadedModel::open(&path, MODEL).unwrap()
}

impl World {
    pub async fn new() -> Self {
        Self::with(Tiny::llama(1)).await
    }

    /// Makes tokens slowly enough to leave in the middle.
    pub async fn slow() -> Self {
        let mut tiny = Tiny::llama(1);
        tiny.dims.layers = 24;
        tiny.dims.ffn = 512;
        Self::with(tiny).await
    }

    async fn with(tiny: Tiny) -> Self {
        let chain = Chain::embedded(EmbeddedConfig::in_memory()).await.unwrap();
        Self::on(chain, None, tiny, 0).await
    }

    /// On anvil, where gas costs something and blocks can be taken back; None where it is not installed.
    pub async fn on_anvil(confirmations: u64) -> Option<Self> {
        let anvil = Anvil::start()?;
        let chain = Chain::connect(&anvil.url).await.unwrap();
        Some(Self::on(chain, Some(anvil), Tiny::llama(1), confirmations).await)
    }

    async fn on(chain: Chain, anvil: Option<Anvil>, tiny: Tiny, confirmations: u64) -> Self {
        let dir = TempDir::new().unwrap();
        let loaded = load(dir.path(), &tiny.with_text());
        let (owner, hot) = (Key::random().unwrap(), Key::random().unwrap());
        if let Some(anvil) = &anvil {
            for key in [&owner, &hot] {
                anvil.give_coins(&chain, key.address(), 100).await;
            }
        }
        let mut deployment = chain.deploy(&owner, &DeployParams::devnet()).await.unwrap();
        deployment.confirmations = confirmations;
        let market = chain.market(deployment).await.unwrap();
        let stake = MicroUsd(50_000_000);
        market.mint(&owner, owner.address(), stake).await.unwrap();
        let registration = Registration {
            offer_key: hot.address(),
            payout: owner.address(),
            endpoint: "http://127.0.0.1:1".into(),
            models: vec![loaded.model.id()],
            stake,
        };
        market.register(&owner, &registration).await.unwrap();
        Self {
            anvil,
            dir,
            market,
            owner,
            hot,
            loaded,
        }
    }

    pub fn config(&self) -> NodeConfig {
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let data_dir = self.dir.path().join("node");
        let mut config = NodeConfig::new(
            listen,
            data_dir,
            self.market.clone(),
            self.owner.address(),
            self.hot.clone(),
        );
        config.models = vec![ServedModel {
            loaded: self.loaded.clone(),
            price: price(),
        }];
        config.make_ledger = true;
        config.limits.threads = 1;
        config.limits.max_tokens_default = 32;
        config
    }

    /// What the node asks for.
    pub async fn terms(&self) -> Terms {
        let vault = self.market.vault_of(self.owner.address()).await.unwrap();
        Terms::usual(
            self.market.channel_domain(),
            self.market.token_domain(),
            vault,
            self.hot.address(),
        )
    }

    pub async fn start(&self) -> RunningNode {
        assay_node::start(self.config()).await.unwrap()
    }

    /// What an honest engine says to this prompt.
    pub fn honest(&self, prompt: &[TokenId], receipt: &Signed<Receipt>, answer: &Told) -> bool {
        let sampler = answer.assay.sampler.clone().unwrap();
        let again =
            assay_engine::replay::choices(&self.loaded.model, 1, prompt, &sampler, &answer.ids)
                .unwrap();
        assert_eq!(receipt.body.statement.sampler_hash, sampler.hash());
        again == answer.ids
    }
}

/// A payer with its own books.
pub struct Buyer {
    pub key: Key,
    pub ledger: PayerLedger,
    pub terms: Terms,
    pub url: String,
    pub http: reqwest::Client,
}

impl Buyer {
    /// Funds a payer and opens `lanes` channels of ten dollars.
    pub async fn new(world: &World, node: &RunningNode, lanes: u8) -> Self {
        let mut buyer = Self::poor(world, node).await;
        let amount = MicroUsd(10_000_000);
        for lane in 0..lanes {
            let config = buyer.channel(lane);
            world
                .market
                .open_channel(&buyer.key, &config, amount)
                .await
                .unwrap();
            buyer.ledger.add(config, amount, MicroUsd(0)).unwrap();
        }
        buyer
    }

    /// With money, but without a channel.
    pub async fn poor(world: &World, node: &RunningNode) -> Self {
        let key = Key::random().unwrap();
        world
            .market
            .mint(&world.owner, key.address(), MicroUsd(1_000_000_000))
            .await
            .unwrap();
        // Somebody else may have installed it first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let path = world
            .dir
            .path()
            .join(format!("payer-{}.redb", key.address()));
        let terms = node.terms().clone();
        let ledger = PayerLedger::create(&path, terms.channels).unwrap();
        if let Some(anvil) = &world.anvil {
            anvil
                .give_coins(world.market.chain(), key.address(), 100)
                .await;
        }
        Self {
            key,
            ledger,
            terms,
            url: format!("http://{}", node.addr()),
            http: reqwest::Client::new(),
        }
    }

    pub fn channel(&self, lane: u8) -> assay_protocol::channel::ChannelConfig {
        self.terms.channel(
            self.key.address(),
            self.key.address(),
            B256::repeat_byte(lane),
        )
    }

    pub async fn post(
        &self,
        path: &str,
        body: &Value,
        payment: Option<&PaymentPayload>,
    ) -> Response {
        let mut request = self.http.post(format!("{}{path}", self.url)).json(body);
        if let Some(payment) = payment {
            request = request.header(PAYMENT_SIGNATURE, x402::encode(payment));
        }
        request.send().await.unwrap()
    }

    /// Asks for what is left of a channel, as x402's client does.
    pub async fn refund(&self, paid: &Paid, charged: u64, amount: Option<u64>) -> Response {
        let voucher = Voucher {
            channel_id: paid.channel_id(),
            max_claimable: MicroUsd(charged),
        };
        let signed = self.key.sign_voucher(voucher, &self.terms.channels);
        let payment = PaymentPayload {
            payload: Payload::Refund(RefundPayload {
                channel_config: paid.config.into(),
                voucher: signed.into(),
                amount: amount.map(|amount| x402::Amount(MicroUsd(amount))),
            }),
            ..paid.payload(self.terms.requirements(MicroUsd(1)))
        };
        self.http
            .get(format!("{}/v1/completions", self.url))
            .header(PAYMENT_SIGNATURE, x402::encode(&payment))
            .send()
            .await
            .unwrap()
    }

    /// A payment that brings a deposit into this lane, and the request that it pays.
    pub async fn with_deposit(
        &mut self,
        world: &World,
        lane: u8,
        amount: MicroUsd,
    ) -> (Paid, PaymentPayload, Value) {
        let config = self.channel(lane);
        let market = &world.market;
        let authorization = market
            .authorize_deposit(&self.key, &config, amount)
            .await
            .unwrap();
        self.ledger.add(config, amount, MicroUsd(0)).unwrap();
        let requirements = self.quote("/v1/completions", &completion(4)).await;
        let paid = self.sign(&requirements);
        let mut payment = paid.payload(requirements);
        let (channel_config, voucher) = payment.payload.voucher();
        payment.payload = Payload::Deposit(DepositPayload {
            channel_config: *channel_config,
            voucher: *voucher,
            deposit: Deposit {
                amount: x402::Amount(amount),
                authorization: x402::DepositAuthorization::Erc3009Authorization(
                    Erc3009Authorization {
                        valid_after: Decimal(authorization.valid_after.0),
                        valid_before: Decimal(authorization.valid_before.0),
                        salt: authorization.salt.into(),
                        signature: authorization.signature,
                    },
                ),
            },
        });
        let mut body = completion(4);
        body["assay"]["request_id"] = json!(paid.request_id);
        (paid, payment, body)
    }

    pub async fn get(&self, path: &str) -> Response {
        self.http
            .get(format!("{}{path}", self.url))
            .send()
            .await
            .unwrap()
    }

    /// What the node wants for this request.
    pub async fn quote(&self, path: &str, body: &Value) -> PaymentRequirements {
        let response = self.post(path, body, None).await;
        assert_eq!(response.status(), 402);
        let mut required = required(&response);
        assert_eq!(required.accepts.len(), 1);
        required.accepts.remove(0)
    }

    pub fn sign(&mut self, requirements: &PaymentRequirements) -> Paid {
        let request_id = Key::random().unwrap().address().into_word();
        let key = self.key.clone();
        let sign = |digest: &B256| key.sign_digest(*digest);
        self.ledger
            .pay(
                &Payee::from(requirements),
                requirements.amount.0,
                request_id,
                Timestamp(1),
                sign,
            )
            .unwrap()
    }

    /// Asks for a quote, pays it, and sends the request.
    pub async fn buy(&mut self, path: &str, body: &Value) -> (Paid, Response) {
        let requirements = self.quote(path, body).await;
        let paid = self.sign(&requirements);
        let mut body = body.clone();
        body["assay"]["request_id"] = json!(paid.request_id);
        let response = self
            .post(path, &body, Some(&paid.payload(requirements)))
            .await;
        (paid, response)
    }

    /// Buys, reads, checks the receipt's signature and money, and settles the lane.
    pub async fn ask(&mut self, world: &World, path: &str, body: &Value) -> Told {
        let (paid, response) = self.buy(path, body).await;
        assert_eq!(response.status(), 200, "{}", response.text().await.unwrap());
        let told = read(response).await;
        self.settle(world, &paid, &told);
        told
    }

    pub fn settle(&mut self, world: &World, paid: &Paid, told: &Told) {
        let receipt = told.receipt();
        let checked = receipt
            .check(&world.market.domain(), world.hot.address())
            .unwrap();
        assert_eq!(checked.request_id, paid.request_id);
        assert_eq!(
            (checked.payer, checked.provider),
            (self.key.address(), world.owner.address())
        );
        assert_eq!(checked.channel_id, paid.channel_id());
        let lane = self.ledger.lane(paid.channel_id()).unwrap();
        assert_eq!(checked.cumulative.0, lane.charged.0 + checked.charged.0);
        let statement = checked.statement;
        assert_eq!(statement.n_output.0 as usize, told.ids.len());
        assert_eq!(
            statement.output_root,
            assay_protocol::merkle::tokens_root(&told.ids)
        );
        assert_eq!(
            checked.charged.0,
            u64::from(2 * statement.n_prompt.0 + 5 * statement.n_output.0)
        );
        self.ledger
            .settle(paid.channel_id(), paid.request_id, checked.charged)
            .unwrap();
    }
}

pub fn required(response: &Response) -> PaymentRequired {
    x402::decode(response.headers()[PAYMENT_REQUIRED].as_bytes()).unwrap()
}

/// An answer, read to its end.
#[derive(Debug, Default)]
pub struct Told {
    pub text: String,
    pub ids: Vec<TokenId>,
    pub finish_reason: Option<String>,
    pub assay: AssayAnswer,
    pub usage: Option<Value>,
    pub chunks: usize,
    pub done: bool,
    pub error: Option<Value>,
}

impl Told {
    pub fn receipt(&self) -> Signed<Receipt> {
        self.assay.receipt.expect("an answer has a receipt")
    }

    pub fn stop(&self) -> StopReason {
        self.receipt().body.statement.stop_reason
    }

    fn take(&mut self, value: Value) {
        if value.get("error").is_some() {
            self.error = Some(value);
            return;
        }
        let part: Answer = serde_json::from_value(value.clone()).unwrap();
        self.chunks += 1;
        for choice in part.choices {
            let piece = [
                choice.text,
                choice.message.map(|message| message.content),
                choice.delta.and_then(|delta| delta.content),
            ];
            self.text.extend(piece.into_iter().flatten());
            self.finish_reason = choice.finish_reason.or(self.finish_reason.take());
        }
        if let Some(assay) = part.assay {
            self.ids.extend(&assay.token_ids);
            if assay.receipt.is_some() {
                self.assay = assay;
            }
        }
        if !value["usage"].is_null() {
            self.usage = Some(value["usage"].clone());
        }
    }
}

pub async fn read(response: Response) -> Told {
    let stream = response.headers()["content-type"]
        .to_str()
        .unwrap()
        .starts_with("text/event-stream");
    let body = response.text().await.unwrap();
    let mut told = Told::default();
    if !stream {
        told.take(serde_json::from_str(&body).unwrap());
        told.done = true;
        return told;
    }
    for line in body.lines().filter_map(|line| line.strip_prefix("data: ")) {
        match line {
            "[DONE]" => told.done = true,
            json => told.take(serde_json::from_str(json).unwrap()),
        }
    }
    told
}

pub fn completion(max_tokens: u32) -> Value {
    json!({ "model": MODEL, "prompt": "Once upon a time", "max_tokens": max_tokens, "temperature": 0 })
}

pub fn chat(stream: bool) -> Value {
    json!({
        "model": MODEL,
        "messages": [{ "role": "user", "content": "Hello" }],
        "stream": stream,
        "max_tokens": 12,
        "seed": 7,
    })
}

pub fn tokens(text: &str) -> Vec<TokenId> {
    text.bytes().map(TokenId::from).collect()
}

pub type Shared = Arc<World>;
