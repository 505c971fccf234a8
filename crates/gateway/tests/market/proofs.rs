//! The tier `proven` in a whole market: answers are provisional until their proof is checked, proofs are paid when they
//! hold and not before, and whoever promises one and gives none is audited instead.

use std::sync::Arc;
use std::time::{Duration, Instant};

use assay_engine::Model;
use assay_gateway::{AuditState, GatewayConfig, ProofState, ReceiptEntry, Verifier, Verify};
use assay_node::dishonest::SkipsLayers;
use assay_node::{ProofConfig, Prove};
use assay_proof::{Claim, Key, Progress, Proof};
use assay_protocol::{B256, MicroUsd, MicroUsdPerMillionTokens, Statement, Tier};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::common::{Client, World, error, never};

/// Stands for a proof: names what it is about.
fn named(statement: &Statement) -> Vec<u8> {
    format!("{statement:?}").into_bytes()
}

/// Takes what [`named`] gives for the claim, and nothing else.
struct Reads;

impl Verify for Reads {
    fn verify(
        &self,
        model: &Model,
        claim: &Claim<'_>,
        proof: &[u8],
        _: usize,
    ) -> Result<(), String> {
        let key = Key::Weights(model);
        claim.check(&key).map_err(|error| error.to_string())?;
        match proof == named(claim.statement) {
            true => Ok(()),
            false => Err("it is about something else".into()),
        }
    }
}

/// What a node does where a proof is wanted.
#[derive(Clone)]
enum Does {
    Proves,
    /// When it is let.
    Waits(watch::Receiver<bool>),
    Garbles,
    /// Proves an answer that nobody asked about.
    ProvesAnother,
    Floods,
    GivesUp,
}

impl Prove for Does {
    fn prove(
        &self,
        _: &Model,
        claim: &Claim<'_>,
        _: usize,
        _: &mut dyn FnMut(Progress),
    ) -> Result<Vec<u8>, String> {
        let honest = named(claim.statement);
        match self {
            Self::Proves => Ok(honest),
            Self::Waits(open) => {
                // A test that is over lets nobody wait.
                while !*open.borrow() && open.has_changed().is_ok() {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Ok(honest)
            }
            Self::Garbles => Ok(vec![0xa5; honest.len()]),
            Self::ProvesAnother => Ok(named(&Statement {
                output_root: B256::repeat_byte(1),
                ..*claim.statement
            })),
            Self::Floods => Ok(vec![0; BYTES_MAX + 1]),
            Self::GivesUp => Err("out of memory".into()),
        }
    }
}

const BYTES_MAX: usize = 1 << 20;

/// A micro-dollar for every token.
fn terms(does: Does) -> ProofConfig {
    let mut terms = ProofConfig::new(MicroUsdPerMillionTokens(1_000_000));
    terms.prover = Arc::new(does);
    terms.threads = 1;
    terms
}

fn strict(config: &mut GatewayConfig) {
    config.audit = never();
    config.verifier = Arc::new(Reads);
    config.proofs.pause = Duration::from_millis(10);
    config.proofs.pause_max = Duration::from_millis(20);
    config.proofs.grace = Duration::ZERO;
    config.proofs.bytes_max = BYTES_MAX;
}

fn proven() -> Value {
    json!({ "assay": { "verification": "proven" } })
}

/// Waits until nothing is left to do about any proof.
async fn settled(client: &Client) -> Vec<ReceiptEntry> {
    let begun = Instant::now();
    loop {
        let receipts = client.audits_done().await;
        let pending = |r: &ReceiptEntry| r.proof.as_ref().is_some_and(ProofState::is_pending);
        if !receipts.iter().any(pending) {
            return receipts;
        }
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "a proof takes too long: {receipts:?}"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_final_when_its_proof_is_checked_and_the_proof_is_paid_then() {
    let world = World::new().await;
    let (open, opened) = watch::channel(false);
    // Cheaper, and without proofs.
    let _plain = world.honest(100_000).await;
    let node = world.proving(300_000, terms(Does::Waits(opened))).await;
    let client = world.gateway_with(strict).await;
    let streamed = client.stream("hi", proven()).await;
    assert_eq!(streamed.headers["x-assay-tier"], "proven");
    let provider = node.address().to_string();
    assert_eq!(streamed.headers["x-assay-provider"], provider.as_str());
    assert!(streamed.done && streamed.last["assay"]["proof_due"].is_u64());

    let before = client.receipts().await.remove(0);
    assert_eq!(before.tier, Tier::Proven);
    let path = format!("/v1/receipts/{}/proof", before.id);
    let response = client.get(&path).await;
    assert_eq!(response.status(), 202);
    let told: Value = response.json().await.unwrap();
    let price = u64::from(before.prompt_tokens + before.output_tokens);
    assert_eq!(told["price"], price);
    assert!(!before.is_final(before.at));
    let spent = client.status().await.spent;
    assert_eq!(spent, before.charged, "a proof is not paid before it holds");

    open.send(true).unwrap();
    let after = settled(&client).await.remove(0);
    let Some(ProofState::Holds { paid: true, .. }) = after.proof else {
        panic!("{after:?}");
    };
    assert!(after.is_final(after.at));
    assert_eq!(after.audit, AuditState::NotSampled);
    let status = client.status().await;
    assert_eq!(status.spent.0, before.charged.0 + price);
    assert_eq!(status.totals.charged, status.spent);
    let proof = client.get(&path).await;
    assert_eq!(proof.status(), 200);
    assert!(!proof.bytes().await.unwrap().is_empty());
    let offers = status.providers.iter().flat_map(|p| &p.offers);
    assert_eq!(offers.filter(|offer| offer.proof.is_some()).count(), 1);
    // The lanes agree with the node's books.
    client.ask("and on", proven()).await;
    assert!(client.benched().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_real_prover_and_verifier_make_an_answer_final() {
    let world = World::new().await;
    let mut terms = ProofConfig::new(MicroUsdPerMillionTokens(1_000_000));
    terms.tokens_max = 64;
    let _node = world.proving(300_000, terms).await;
    let client = world
        .gateway_with(|config| {
            strict(config);
            config.verifier = Arc::new(Verifier);
        })
        .await;
    let mut more = proven();
    more["max_tokens"] = json!(6);
    client.ask("hi", more).await;
    let receipt = settled(&client).await.remove(0);
    assert!(
        matches!(receipt.proof, Some(ProofState::Holds { paid: true, .. })),
        "{receipt:?}"
    );
    let path = format!("/v1/receipts/{}/proof", receipt.id);
    let bytes = client.get(&path).await.bytes().await.unwrap();
    assert!(Proof::from_bytes(bytes.to_vec()).is_ok());
}

/// A node that promises a proof and does something else: nothing is paid for it, and the answer is re-executed.
async fn check_no_proof(does: Does, said: &str) {
    let world = World::new().await;
    let mut terms = terms(does);
    terms.delay = Duration::from_secs(1);
    let _node = world.proving(300_000, terms).await;
    let client = world.gateway_with(strict).await;
    client.ask("hi", proven()).await;
    let receipt = settled(&client).await.remove(0);
    let Some(ProofState::Failed { reason }) = &receipt.proof else {
        panic!("{receipt:?}");
    };
    assert!(reason.contains(said), "{reason}");
    assert!(
        matches!(receipt.audit, AuditState::Honest { .. }),
        "{receipt:?}"
    );
    assert!(!receipt.is_final(receipt.at.plus_seconds(1_000_000)));
    let status = client.status().await;
    assert_eq!(status.spent, receipt.charged);
    assert_eq!(status.providers[0].record.failures, 1);
    let path = format!("/v1/receipts/{}/proof", receipt.id);
    let (code, kind, _) = error(client.get(&path).await).await;
    assert_eq!((code, kind.as_str()), (410, "proof_failed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_is_no_proof() {
    check_no_proof(Does::Garbles, "about something else").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proof_of_another_answer_is_no_proof() {
    check_no_proof(Does::ProvesAnother, "about something else").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proof_that_is_too_long_is_not_read() {
    check_no_proof(Does::Floods, "more than 1048576 bytes").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proof_that_does_not_come_in_time_is_not_waited_for() {
    let (_never, opened) = watch::channel(false);
    check_no_proof(Does::Waits(opened), "in time").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prover_that_gives_up_says_why() {
    check_no_proof(Does::GivesUp, "out of memory").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_false_answer_that_was_sold_as_proven_convicts_as_any_other() {
    let world = World::new().await;
    let cheat = SkipsLayers { skip: vec![1] };
    let node = world
        .cheat_proving(300_000, cheat, terms(Does::Garbles))
        .await;
    let client = world.gateway_with(strict).await;
    client.ask("hi", proven()).await;
    let receipt = settled(&client).await.remove(0);
    assert!(
        matches!(receipt.audit, AuditState::Dishonest { .. }),
        "{receipt:?}"
    );
    let begun = Instant::now();
    while client.receipts().await[0].dispute.is_none() {
        assert!(begun.elapsed() < Duration::from_secs(30), "no dispute");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(client.benched().await[0].0, node.address());
}

#[tokio::test(flavor = "multi_thread")]
async fn proofs_survive_the_restart_of_either_side() {
    let world = World::new().await;
    let (open, opened) = watch::channel(false);
    let node = world.proving(300_000, terms(Does::Waits(opened))).await;
    let mut config = world.config().await;
    strict(&mut config);
    let client = Client::start(config.clone()).await;
    client.ask("hi", proven()).await;
    let http = client.http.clone();
    client.running.shutdown().await;
    let node = node
        .restart_with(|config| {
            config.make_ledger = false;
            config.proofs.as_mut().unwrap().prover = Arc::new(Does::Proves);
        })
        .await;
    let endpoint = format!("http://{}", node.node.addr());
    world
        .market
        .update_endpoint(&node.owner, &endpoint)
        .await
        .unwrap();
    let running = assay_gateway::start(config).await.unwrap();
    let url = running.url();
    let client = Client { running, http, url };
    let receipt = settled(&client).await.remove(0);
    assert!(
        matches!(receipt.proof, Some(ProofState::Holds { paid: true, .. })),
        "{receipt:?}"
    );
    drop(open);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_price_limit_counts_the_proof() {
    let world = World::new().await;
    let _node = world.proving(300_000, terms(Does::Proves)).await;
    let client = world.gateway_with(strict).await;
    let mut more = proven();
    more["assay"]["max_price"] = json!(20);
    let (status, code, message) = error(client.chat("hi", more.clone()).await).await;
    assert_eq!((status, code.as_str()), (402, "max_price_too_low"));
    assert!(message.contains("could cost"), "{message}");
    more["assay"]["verification"] = json!("staked");
    let spent = client.ask("hi", more.clone()).await;
    assert!(spent["assay"]["receipt"].is_object());
    more["assay"] = json!({ "verification": "proven", "max_price": 1_000 });
    client.ask("hi", more).await;
    let receipts = settled(&client).await;
    let paid: u64 = receipts
        .iter()
        .filter_map(|r| Some(r.proof.as_ref()?.paid().0))
        .sum();
    assert!(paid > 20 && MicroUsd(paid) < MicroUsd(1_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_names_no_length_gets_one_that_can_be_proven() {
    let world = World::new().await;
    let mut terms = terms(Does::Proves);
    terms.tokens_max = 96;
    let _node = world.proving(300_000, terms).await;
    let client = world.gateway_with(strict).await;
    let mut more = proven();
    more["max_tokens"] = Value::Null;
    client.ask("hi", more.clone()).await;
    let receipt = settled(&client).await.remove(0);
    assert!(receipt.prompt_tokens + receipt.output_tokens <= 96);
    assert!(matches!(receipt.proof, Some(ProofState::Holds { .. })));
    more["max_tokens"] = json!(96);
    let (status, code, message) = error(client.chat("hi", more).await).await;
    assert_eq!((status, code.as_str()), (503, "proofs_not_offered"));
    assert!(message.contains("up to 96"), "{message}");
}
