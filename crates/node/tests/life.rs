//! Clients leave, nodes stop and start again, and some cheat: the money stays right.

mod common;

use std::sync::Arc;
use std::time::Duration;

use assay_engine::{BatchLimits, Batcher, EventKind, GenerationRequest};
use assay_node::dishonest::{SkipsLayers, Truncates};
use assay_node::{BooksError, Conduct, KeepError, StartError};
use assay_payments::LedgerError;
use assay_protocol::{MicroUsd, Receipt, SamplerParams, Signed, StopReason};
use common::{Buyer, Told, World, chat, completion, read, tokens};
use reqwest::Response;
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";
const COMPLETION: &str = "/v1/completions";

fn stream(max_tokens: u32) -> Value {
    let mut body = completion(max_tokens);
    body["stream"] = json!(true);
    body
}

/// Reads some frames; gives the ids in them.
async fn some(response: &mut Response, frames: usize) -> Vec<u32> {
    let mut text = String::new();
    while text.matches("token_ids").count() < frames {
        text.push_str(std::str::from_utf8(&response.chunk().await.unwrap().unwrap()).unwrap());
    }
    let whole = &text[..text.rfind("\n\n").unwrap()];
    let parts = whole
        .split("\n\n")
        .filter_map(|frame| frame.strip_prefix("data: "));
    let parts = parts.map(|json| serde_json::from_str::<assay_openai::Answer>(json).unwrap());
    parts
        .filter_map(|part| part.assay)
        .flat_map(|assay| assay.token_ids)
        .collect()
}

/// Asks until the node has signed this request's receipt.
async fn receipt(buyer: &Buyer, request_id: assay_protocol::B256) -> Signed<Receipt> {
    for _ in 0..500 {
        let response = buyer.get(&format!("/assay/v1/receipts/{request_id}")).await;
        if response.status() == 200 {
            return response.json().await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("no receipt came");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_pays_for_the_signed_prefix_only() {
    let world = World::slow().await;
    let mut config = world.config();
    (config.limits.sequences_max, config.limits.queue_max) = (1, 0);
    let node = assay_node::start(config).await.unwrap();
    let mut buyer = Buyer::new(&world, &node, 1).await;
    let (paid, mut running) = buyer.buy(COMPLETION, &stream(1_500)).await;
    let seen = some(&mut running, 3).await;
    drop(running);
    let signed = receipt(&buyer, paid.request_id).await;
    let statement = signed.body.statement;
    assert_eq!(statement.stop_reason, StopReason::Cut);
    let made = statement.n_output.0 as usize;
    assert!(
        made >= seen.len() && made < 1_500,
        "{made} of 1500, {} seen",
        seen.len()
    );
    // What was signed is what the model says, as far as it goes.
    let output = alone(&world, prompt(&world, statement.n_prompt.0), made);
    assert_eq!(
        statement.output_root,
        assay_protocol::merkle::tokens_root(&output[..made])
    );
    assert_eq!(
        signed.body.charged.0,
        u64::from(2 * statement.n_prompt.0 + 5 * statement.n_output.0)
    );
    // The place and the channel are free at once, and the payer's books agree.
    buyer
        .ledger
        .settle(paid.channel_id(), paid.request_id, signed.body.charged)
        .unwrap();
    buyer.ask(&world, COMPLETION, &completion(4)).await;
    node.shutdown().await;
}

/// The first tokens of the honest answer, made without a node.
fn alone(world: &World, prompt: Vec<u32>, count: usize) -> Vec<u32> {
    let mut batcher = Batcher::new(&world.loaded.model, 1, BatchLimits::default());
    let request = GenerationRequest::new(prompt, SamplerParams::greedy(1_500));
    batcher.submit(request).unwrap();
    let mut output = Vec::new();
    while output.len() < count {
        output.extend(
            batcher
                .step()
                .into_iter()
                .filter_map(|event| match event.kind {
                    EventKind::Token(id) => Some(id),
                    _ => None,
                }),
        );
    }
    output
}

fn prompt(world: &World, n_prompt: u32) -> Vec<u32> {
    let text = tokens("Once upon a time");
    if n_prompt as usize == text.len() {
        return text;
    }
    world
        .loaded
        .model
        .manifest()
        .bos
        .into_iter()
        .chain(text)
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_before_a_whole_answer_pays_nothing() {
    let world = World::slow().await;
    let mut config = world.config();
    (config.limits.sequences_max, config.limits.queue_max) = (1, 0);
    let node = assay_node::start(config).await.unwrap();
    let mut buyer = Buyer::new(&world, &node, 1).await;
    let requirements = buyer.quote(COMPLETION, &completion(1_500)).await;
    let paid = buyer.sign(&requirements);
    let payment = paid.payload(requirements);
    let impatient = tokio::time::timeout(Duration::from_millis(50), async {
        buyer
            .post(COMPLETION, &completion(1_500), Some(&payment))
            .await
    });
    assert!(
        impatient.await.is_err(),
        "the answer takes longer than that"
    );
    buyer
        .ledger
        .settle(paid.channel_id(), paid.request_id, MicroUsd(0))
        .unwrap();
    // The place is free as soon as the node has noticed.
    let mut body = completion(4);
    let told = loop {
        let (paid, response) = buyer.buy(COMPLETION, &body).await;
        if response.status() == 200 {
            let told = read(response).await;
            buyer.settle(&world, &paid, &told);
            break told;
        }
        assert!(
            [429, 402].contains(&response.status().as_u16()),
            "{response:?}"
        );
        buyer
            .ledger
            .settle(paid.channel_id(), paid.request_id, MicroUsd(0))
            .unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        body = completion(4);
    };
    assert_eq!(
        node.earnings().await.unwrap().charged,
        told.receipt().body.charged
    );
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_requests_run_at_once_and_say_what_they_say_alone() {
    let world = Arc::new(World::new().await);
    let node = world.start().await;
    let mut tasks = Vec::new();
    for n in 0..6u32 {
        let mut buyer = Buyer::new(&world, &node, 1).await;
        let world = Arc::clone(&world);
        tasks.push(tokio::spawn(async move {
            let body = json!({ "model": common::MODEL, "prompt": [n + 1, 2, 3], "max_tokens": 40, "seed": n });
            let told = buyer.ask(&world, COMPLETION, &body).await;
            assert!(world.honest(&[n + 1, 2, 3], &told.receipt(), &told));
            told.receipt().body.charged.0
        }));
    }
    let mut charged = 0;
    for task in tasks {
        charged += task.await.unwrap();
    }
    assert_eq!(node.earnings().await.unwrap().charged, MicroUsd(charged));
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_keeps_the_books() {
    let world = World::new().await;
    let node = world.start().await;
    let mut buyer = Buyer::new(&world, &node, 1).await;
    let first = buyer
        .ask(&world, COMPLETION, &completion(4))
        .await
        .receipt();
    let second_start = assay_node::start(world.config()).await;
    assert!(
        matches!(
            second_start,
            Err(StartError::Books(BooksError::Ledger(LedgerError::Locked(
                _
            ))))
        ),
        "one process writes"
    );
    assert!(node.shutdown().await.drained);

    let node = world.start().await;
    buyer.url = format!("http://{}", node.addr());
    let kept: Signed<Receipt> = buyer
        .get(&format!("/assay/v1/receipts/{}", first.body.request_id))
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(kept, first);
    let second = buyer
        .ask(&world, COMPLETION, &completion(4))
        .await
        .receipt();
    assert_eq!(
        second.body.cumulative.0,
        first.body.charged.0 + second.body.charged.0
    );
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_lost_its_books_does_not_start_with_empty_ones() {
    let world = World::new().await;
    let mut config = world.config();
    config.make_ledger = false;
    assert!(
        matches!(
            assay_node::start(config.clone()).await,
            Err(StartError::Books(BooksError::Ledger(
                LedgerError::Missing { .. }
            )))
        ),
        "never made without being told"
    );
    assay_node::create_ledger(&config.data_dir, world.terms().await).unwrap();
    let again = assay_node::create_ledger(&config.data_dir, world.terms().await);
    assert!(matches!(
        again,
        Err(BooksError::Ledger(LedgerError::Exists(_)))
    ));
    let evidence = config.data_dir.join("defence.redb");
    std::fs::remove_file(&evidence).unwrap();
    let node = assay_node::start(config.clone())
        .await
        .expect("nothing was signed yet");
    let mut buyer = Buyer::new(&world, &node, 1).await;
    buyer.ask(&world, COMPLETION, &completion(4)).await;
    node.shutdown().await;

    std::fs::rename(&evidence, evidence.with_extension("away")).unwrap();
    for make_ledger in [false, true] {
        config.make_ledger = make_ledger;
        assert!(
            matches!(
                assay_node::start(config.clone()).await,
                Err(StartError::Books(BooksError::Keep(KeepError::Missing(_))))
            ),
            "a receipt is out that could not be defended"
        );
    }
    std::fs::rename(evidence.with_extension("away"), &evidence).unwrap();
    config.make_ledger = false;
    let node = assay_node::start(config.clone()).await.unwrap();
    node.shutdown().await;
    std::fs::remove_file(assay_node::ledger_path(&config.data_dir)).unwrap();
    assert!(matches!(
        assay_node::start(config).await,
        Err(StartError::Books(BooksError::Ledger(
            LedgerError::Missing { .. }
        )))
    ));
}

#[test]
fn a_crash_in_the_middle_of_a_stream_charges_nothing_and_frees_the_channel() {
    let runtime = || {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap()
    };
    let outside = runtime();
    let world = outside.block_on(World::slow());
    let inside = runtime();
    let node = inside.block_on(world.start());
    let mut buyer = outside.block_on(Buyer::new(&world, &node, 1));
    let (paid, _running) = outside.block_on(async {
        let (paid, mut running) = buyer.buy(COMPLETION, &stream(1_500)).await;
        some(&mut running, 2).await;
        (paid, running)
    });
    // Every task of the node ends where it is; nobody gets to say goodbye.
    std::mem::forget(node);
    inside.shutdown_timeout(Duration::from_secs(5));
    outside.block_on(async {
        let path = world.dir.path().join("node/payee.redb");
        let crashed = world.dir.path().join("crashed/payee.redb");
        std::fs::create_dir_all(crashed.parent().unwrap()).unwrap();
        // The dead node's lock lives in this process; its file is as the crash left it.
        std::fs::copy(path, crashed).unwrap();
        let mut config = world.config();
        config.data_dir = world.dir.path().join("crashed");
        let node = assay_node::start(config).await.unwrap();
        buyer.url = format!("http://{}", node.addr());
        assert_eq!(node.earnings().await.unwrap().charged, MicroUsd(0));
        buyer
            .ledger
            .lose(paid.channel_id(), paid.request_id)
            .unwrap();
        let told = buyer.ask(&world, COMPLETION, &completion(4)).await;
        assert_eq!(told.receipt().body.cumulative, told.receipt().body.charged);
        node.shutdown().await;
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_breaks_a_long_stream_off_and_charges_nothing() {
    let world = World::slow().await;
    let mut config = world.config();
    config.limits.drain_timeout = Duration::ZERO;
    let node = assay_node::start(config).await.unwrap();
    let mut buyer = Buyer::new(&world, &node, 1).await;
    let (paid, mut running) = buyer.buy(COMPLETION, &stream(1_500)).await;
    let first = running.chunk().await.unwrap().unwrap();
    let reading = tokio::spawn(async move {
        let mut text = String::from_utf8(first.to_vec()).unwrap();
        while let Some(chunk) = running.chunk().await.unwrap() {
            text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
        text
    });
    let report = node.shutdown().await;
    let text = reading.await.unwrap();
    assert!(
        !text.contains("[DONE]"),
        "nobody takes it for a whole answer"
    );
    assert!(!text.contains("\"receipt\":{"), "nothing was signed");
    let last = text.trim_end().lines().last().unwrap();
    assert!(
        last.contains("shutting down") && last.contains("nothing was charged"),
        "{last}"
    );
    assert_eq!((report.drained, report.claimed), (false, MicroUsd(0)));
    // After a restart the lane goes on from where it was.
    let node = world.start().await;
    buyer.url = format!("http://{}", node.addr());
    assert_eq!(node.earnings().await.unwrap().charged, MicroUsd(0));
    buyer
        .ledger
        .lose(paid.channel_id(), paid.request_id)
        .unwrap();
    let told = buyer.ask(&world, COMPLETION, &completion(4)).await;
    assert_eq!(told.receipt().body.cumulative, told.receipt().body.charged);
    node.shutdown().await;
}

async fn cheat(conduct: Arc<dyn Conduct>, body: Value) -> (World, Told) {
    let world = World::new().await;
    let mut config = world.config();
    config.conduct = conduct;
    let node = assay_node::start(config).await.unwrap();
    let mut buyer = Buyer::new(&world, &node, 1).await;
    let told = buyer.ask(&world, COMPLETION, &body).await;
    node.shutdown().await;
    (world, told)
}

fn ids(max_tokens: u32) -> Value {
    json!({ "model": common::MODEL, "prompt": [5, 6, 7], "max_tokens": max_tokens, "temperature": 0 })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_skips_layers_signs_what_the_model_does_not_say() {
    let (world, told) = cheat(Arc::new(SkipsLayers { skip: vec![1] }), ids(24)).await;
    assert_eq!(
        told.receipt().body.statement.model_id,
        world.loaded.model.id(),
        "it claims the whole model"
    );
    assert!(!world.honest(&[5, 6, 7], &told.receipt(), &told));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_truncates_forges_the_end() {
    let conduct = Truncates {
        after: 5,
        claim: StopReason::EndOfText,
    };
    let (world, told) = cheat(Arc::new(conduct), ids(24)).await;
    assert_eq!((told.ids.len(), told.stop()), (6, StopReason::EndOfText));
    assert_eq!(told.ids[5], world.loaded.model.manifest().eos[0]);
    assert!(!world.honest(&[5, 6, 7], &told.receipt(), &told));
    let conduct = Truncates {
        after: 5,
        claim: StopReason::MaxTokens,
    };
    let (_, told) = cheat(Arc::new(conduct), ids(24)).await;
    assert_eq!((told.ids.len(), told.stop()), (5, StopReason::MaxTokens));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_the_registry_does_not_know_does_not_start() {
    let world = World::new().await;
    let mut config = world.config();
    config.provider = assay_protocol::Address::repeat_byte(7);
    assert!(matches!(
        assay_node::start(config).await,
        Err(StartError::NotRegistered(_))
    ));
    let mut config = world.config();
    config.key = assay_chain::Key::random().unwrap();
    assert!(matches!(
        assay_node::start(config).await,
        Err(StartError::OtherKey { .. })
    ));
    let mut config = world.config();
    config.claims.policy.age_s = 3_600;
    assert!(matches!(
        assay_node::start(config).await,
        Err(StartError::ClaimsTooLate { .. })
    ));
    let mut config = world.config();
    config.models.clear();
    assert!(matches!(
        assay_node::start(config).await,
        Err(StartError::NoModel)
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_string_is_not_shown_but_signed() {
    let world = World::new().await;
    let node = world.start().await;
    let mut buyer = Buyer::new(&world, &node, 1).await;
    let whole = buyer.ask(&world, CHAT, &chat(false)).await;
    let stop: String = whole.text.chars().skip(2).take(1).collect();
    if stop.is_empty() {
        return;
    }
    let mut body = chat(true);
    body["stop"] = json!(stop);
    let told = buyer.ask(&world, CHAT, &body).await;
    assert_eq!(told.stop(), StopReason::StopString);
    assert_eq!(told.text, whole.text[..whole.text.find(&stop).unwrap()]);
    assert_eq!(told.ids[..], whole.ids[..told.ids.len()]);
    assert_eq!(told.finish_reason.as_deref(), Some("stop"));
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_defend_a_receipt_outlives_a_node_that_is_killed() {
    let world = World::new().await;
    let config = world.config();
    let data_dir = config.data_dir.clone();
    let node = assay_node::start(config).await.unwrap();
    let mut buyer = Buyer::new(&world, &node, 1).await;
    let told = buyer.ask(&world, COMPLETION, &completion(6)).await;
    drop(node);
    let receipt = told.receipt();
    let id = receipt.body.request_id;
    // Its last tasks let go of the file a moment later.
    let mut kept = assay_node::kept(&data_dir, &id);
    for _ in 0..200 {
        if kept.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        kept = assay_node::kept(&data_dir, &id);
    }
    let case = kept.unwrap().expect("the answer was kept");
    assert_eq!((case.receipt, &case.output), (receipt, &told.ids));
    case.check(&world.loaded.model).unwrap();
    let model = &world.loaded.model;
    assert_eq!(case.grounds(model, 1).unwrap(), None, "it is true");
}
