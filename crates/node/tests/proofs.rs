//! The tier `proven` as a provider keeps it: answers stream at once, proofs follow, and are paid when they are there.

mod common;

use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use assay_engine::Model;
use assay_node::{NodeConfig, ProofConfig, Prove, RunningNode};
use assay_proof::{Claim, Key, Phase, Progress};
use assay_protocol::{
    B256, ListedOffer, MicroUsd, MicroUsdPerMillionTokens, Receipt, Signed, Tier, proof_payment_id,
};
use common::{Buyer, Told, World, completion, required};
use reqwest::Response;
use serde_json::{Value, json};

const COMPLETION: &str = "/v1/completions";

/// Proves at once, when its gate is open, by naming what it was shown.
#[derive(Default)]
struct Named {
    open: Mutex<bool>,
    opened: Condvar,
}

impl Named {
    fn open() -> Arc<Self> {
        let named = Self::default();
        *named.open.lock().unwrap() = true;
        Arc::new(named)
    }

    fn closed() -> Arc<Self> {
        Arc::default()
    }

    fn let_through(&self) {
        *self.open.lock().unwrap() = true;
        self.opened.notify_all();
    }
}

impl Prove for Named {
    fn prove(
        &self,
        model: &Model,
        claim: &Claim<'_>,
        threads: usize,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Vec<u8>, String> {
        let key = Key::Weights(model);
        claim.check(&key).map_err(|error| error.to_string())?;
        let phase = Phase::Commit;
        progress(Progress {
            phase,
            done: 1,
            of: 3,
        });
        let open = self.open.lock().unwrap();
        drop(self.opened.wait_while(open, |open| !*open).unwrap());
        Ok(format!("{} on {threads}", claim.statement.output_root).into_bytes())
    }
}

struct Broken;

impl Prove for Broken {
    fn prove(
        &self,
        _: &Model,
        _: &Claim<'_>,
        _: usize,
        _: &mut dyn FnMut(Progress),
    ) -> Result<Vec<u8>, String> {
        panic!("out of something");
    }
}

/// Three dollars for every token of prompt and answer.
fn proving(world: &World, prover: Arc<dyn Prove>) -> NodeConfig {
    let mut proofs = ProofConfig::new(MicroUsdPerMillionTokens(3_000_000));
    proofs.tokens_max = 64;
    proofs.threads = 2;
    proofs.prover = prover;
    let mut config = world.config();
    config.proofs = Some(proofs);
    config
}

fn proven() -> Value {
    let mut body = completion(8);
    body["assay"] = json!({ "verification": "proven" });
    body
}

fn path(id: &B256) -> String {
    format!("/v1/receipts/{id}/proof")
}

/// Asks until the proof is no longer on its way.
async fn wait(buyer: &Buyer, id: &B256) -> Response {
    let begun = Instant::now();
    loop {
        let response = buyer.get(&path(id)).await;
        if response.status() != 202 {
            return response;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "no proof");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Pays for a proof as the node asks.
async fn pay(buyer: &mut Buyer, id: &B256) -> Response {
    let response = buyer.post(&path(id), &Value::Null, None).await;
    assert_eq!(response.status(), 402);
    let requirements = required(&response).accepts.remove(0);
    let paid = buyer.sign(&requirements);
    let payload = paid.payload(requirements);
    let response = buyer.post(&path(id), &Value::Null, Some(&payload)).await;
    let settled = match response.status().is_success() {
        true => payload.accepted.amount.0,
        false => MicroUsd::ZERO,
    };
    let lane = &mut buyer.ledger;
    lane.settle(paid.channel_id(), paid.request_id, settled)
        .unwrap();
    response
}

async fn start(config: NodeConfig) -> RunningNode {
    assay_node::start(config).await.unwrap()
}

fn id(told: &Told) -> B256 {
    told.receipt().body.request_id
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_comes_at_once_and_its_proof_is_paid_once_when_it_is_there() {
    let world = World::new().await;
    let prover = Named::closed();
    let node = start(proving(&world, prover.clone())).await;
    let mut buyer = Buyer::new(&world, &node, 1).await;
    // `ask` checks that the receipt charges for the answer alone.
    let told = buyer.ask(&world, COMPLETION, &proven()).await;
    let (id, receipt) = (id(&told), told.receipt().body);
    assert_eq!(receipt.tier, Tier::Proven);
    let under_way = buyer.get(&path(&id)).await;
    assert_eq!(under_way.status(), 202);
    let early = buyer.post(&path(&id), &Value::Null, None).await;
    assert_eq!(early.status(), 409, "nothing is due before the proof");
    prover.let_through();
    let proof = wait(&buyer, &id).await;
    assert_eq!(proof.status(), 200);
    let root = receipt.statement.output_root;
    assert_eq!(proof.text().await.unwrap(), format!("{root} on 2"));

    let response = pay(&mut buyer, &id).await;
    assert_eq!(response.status(), 200);
    let paid: Signed<Receipt> = response.json().await.unwrap();
    let paid = *paid
        .check(&world.market.domain(), world.hot.address())
        .unwrap();
    let tokens = u64::from(receipt.statement.n_prompt.0 + receipt.statement.n_output.0);
    assert_eq!(paid.charged, MicroUsd(3 * tokens));
    assert_eq!(paid.cumulative.0, receipt.cumulative.0 + paid.charged.0);
    assert_eq!(paid.request_id, proof_payment_id(&id));
    assert_eq!(paid.statement, receipt.statement);
    assert_eq!(pay(&mut buyer, &id).await.status(), 409, "it is paid");
    // The channel goes on from there.
    buyer.ask(&world, COMPLETION, &completion(4)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_is_told_phase_by_phase() {
    let world = World::new().await;
    let prover = Named::closed();
    let node = start(proving(&world, prover.clone())).await;
    let mut buyer = Buyer::new(&world, &node, 1).await;
    let first = buyer.ask(&world, COMPLETION, &proven()).await;
    let second = buyer.ask(&world, COMPLETION, &proven()).await;
    let begun = Instant::now();
    let proving = json!({ "status": "proving", "phase": "commit", "done": 1, "of": 3 });
    loop {
        let told: Value = buyer.get(&path(&id(&first))).await.json().await.unwrap();
        if told == proving {
            break;
        }
        assert_eq!(told["status"], "waiting");
        assert!(begun.elapsed() < Duration::from_secs(30));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let told: Value = buyer.get(&path(&id(&second))).await.json().await.unwrap();
    assert_eq!(told, json!({ "status": "waiting", "ahead": 0 }));
    prover.let_through();
    assert_eq!(wait(&buyer, &id(&second)).await.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_dies_while_it_proves_proves_again_and_forgets_no_proof_it_had() {
    let world = World::new().await;
    let node = start(proving(&world, Named::open())).await;
    let mut buyer = Buyer::new(&world, &node, 1).await;
    let made = id(&buyer.ask(&world, COMPLETION, &proven()).await);
    assert_eq!(wait(&buyer, &made).await.status(), 200);
    node.shutdown().await;

    let node = start(proving(&world, Named::closed())).await;
    buyer.url = format!("http://{}", node.addr());
    let unmade = id(&buyer.ask(&world, COMPLETION, &proven()).await);
    let waiting = id(&buyer.ask(&world, COMPLETION, &proven()).await);
    assert_eq!(buyer.get(&path(&unmade)).await.status(), 202);
    // As by a crash: the prover's thread is never joined.
    node.shutdown().await;

    let node = start(proving(&world, Named::open())).await;
    buyer.url = format!("http://{}", node.addr());
    assert_eq!(buyer.get(&path(&made)).await.status(), 200);
    assert_eq!(wait(&buyer, &unmade).await.status(), 200);
    assert_eq!(wait(&buyer, &waiting).await.status(), 200);
    assert_eq!(pay(&mut buyer, &unmade).await.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_cannot_be_proven_says_why_and_costs_no_more() {
    let world = World::new().await;
    let node = start(proving(&world, Arc::new(Broken))).await;
    let mut buyer = Buyer::new(&world, &node, 1).await;
    let id = id(&buyer.ask(&world, COMPLETION, &proven()).await);
    let response = wait(&buyer, &id).await;
    assert_eq!(response.status(), 500);
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["error"]["code"], "proof_failed");
    let asked = buyer.post(&path(&id), &Value::Null, None).await;
    assert_eq!(asked.status(), 500, "nothing is due");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_pay_for_proofs_gets_no_more_of_them_and_a_queue_has_an_end() {
    let world = World::new().await;
    let mut config = proving(&world, Named::open());
    config.proofs.as_mut().unwrap().unpaid_max = 2;
    let node = start(config).await;
    let mut buyer = Buyer::new(&world, &node, 1).await;
    let first = id(&buyer.ask(&world, COMPLETION, &proven()).await);
    let second = id(&buyer.ask(&world, COMPLETION, &proven()).await);
    for id in [first, second] {
        assert_eq!(wait(&buyer, &id).await.status(), 200);
    }
    let (paid, refused) = buyer.buy(COMPLETION, &proven()).await;
    assert_eq!(refused.status(), 429);
    let body: Value = refused.json().await.unwrap();
    assert_eq!(body["error"]["code"], "proofs_unpaid");
    let lane = &mut buyer.ledger;
    lane.settle(paid.channel_id(), paid.request_id, MicroUsd::ZERO)
        .unwrap();
    // Others are not affected, and neither are other tiers.
    let mut other = Buyer::new(&world, &node, 1).await;
    other.ask(&world, COMPLETION, &proven()).await;
    buyer.ask(&world, COMPLETION, &completion(4)).await;
    assert_eq!(pay(&mut buyer, &first).await.status(), 200);
    buyer.ask(&world, COMPLETION, &proven()).await;
    node.shutdown().await;

    let mut config = proving(&world, Named::closed());
    config.proofs.as_mut().unwrap().queue_max = 0;
    let node = start(config).await;
    let mut third = Buyer::new(&world, &node, 1).await;
    let (_, refused) = third.buy(COMPLETION, &proven()).await;
    assert_eq!(refused.status(), 429);
    let body: Value = refused.json().await.unwrap();
    assert_eq!(body["error"]["code"], "queue_full");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_terms_are_signed_and_bound_what_is_asked() {
    let world = World::new().await;
    let node = start(proving(&world, Named::open())).await;
    let buyer = Buyer::new(&world, &node, 1).await;
    let listed: Vec<ListedOffer> = buyer.get("/assay/v1/offers").await.json().await.unwrap();
    let proof = listed[0].proof.unwrap();
    let proof = proof
        .check(&world.market.domain(), world.hot.address())
        .unwrap();
    assert_eq!(proof.model_id, world.loaded.model.id());
    assert_eq!((proof.max_tokens.0, proof.delay_s), (64, 3_600));

    let check = async |change: fn(&mut Value), param: &str, said: &str| {
        let mut body = proven();
        change(&mut body);
        let response = buyer.post(COMPLETION, &body, None).await;
        assert_eq!(response.status(), 400, "{said}");
        let body: Value = response.json().await.unwrap();
        assert_eq!(body["error"]["param"], param, "{body}");
        assert!(body["error"]["message"].as_str().unwrap().contains(said));
    };
    check(
        |body| body["max_tokens"] = json!(60),
        "max_tokens",
        "up to 64",
    )
    .await;
    // The answer alone would cost 2 * 16 + 5 * 8 or so, its proof 3 * 24.
    check(
        |body| body["assay"]["max_price"] = json!(100),
        "assay.max_price",
        "may cost up to",
    )
    .await;
    check(
        |body| body["assay"]["verification"] = json!("tolerant"),
        "assay.verification",
        "or proven",
    )
    .await;
    let unknown = path(&B256::repeat_byte(9));
    assert_eq!(buyer.get(&unknown).await.status(), 404);
    let staked = buyer.get("/v1/receipts/0x12/proof").await;
    assert_eq!(staked.status(), 400);
}
