//! Money and reputation in whole markets: ledgers made on purpose, deposits over crashes, records on the scoreboard,
//! refunds, and a chain that is away.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use assay_chain::{Chain, Market, Patience};
use assay_gateway::{GatewayConfig, LedgersError, StartError, create_ledgers, recover, start};
use assay_payments::payer::Deposit;
use assay_payments::{LedgerError, PayerLedger, PayerLedgerError, Terms};
use assay_protocol::channel::ChannelConfig;
use assay_protocol::{B256, MicroUsd, Receipt};
use assay_testkit::market::Tamper;
use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use serde_json::json;

use crate::common::{Client, Player, World, never};

/// Looks again until it holds; half a minute is an error.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < Duration::from_secs(30), "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The channel of one lane from this gateway to this player.
async fn channel(config: &GatewayConfig, player: &Player, salt: u8) -> ChannelConfig {
    let market = &config.market;
    let provider = market.provider(player.address()).await.unwrap().unwrap();
    let terms = Terms::usual(
        market.channel_domain(),
        market.token_domain(),
        provider.vault,
        provider.offer_key,
    );
    let payer = config.payer.address();
    terms.channel(payer, payer, B256::repeat_byte(salt))
}

async fn made(config: &GatewayConfig) -> bool {
    create_ledgers(&config.data_dir, &config.market, config.payer.address())
        .await
        .unwrap()
}

async fn refusal(config: GatewayConfig) -> StartError {
    start(config).await.err().expect("a start that is refused")
}

#[tokio::test(flavor = "multi_thread")]
async fn ledgers_are_made_for_a_key_that_was_never_used_and_never_by_a_start() {
    let world = World::new().await;
    let _node = world.honest(300_000).await;
    let config = world.config().await;
    let told = refusal(config.clone()).await.to_string();
    assert!(
        told.contains("lanes.redb") && told.contains("assay gateway recover"),
        "{told}"
    );
    assert!(made(&config).await && !made(&config).await);
    let client = Client::start(config.clone()).await;
    client.ask("hello", json!({})).await;

    // One process at a time.
    let second = refusal(config.clone()).await;
    assert!(
        matches!(
            &second,
            StartError::Ledgers(LedgersError::Lanes(PayerLedgerError::Ledger(
                LedgerError::Locked(_)
            )))
        ),
        "{second}"
    );
    client.running.shutdown().await;

    // Evidence that is gone is not made up.
    let answers = config.data_dir.join("gateway.redb");
    let kept = config.data_dir.join("kept");
    std::fs::rename(&answers, &kept).unwrap();
    assert!(!made(&config).await);
    let half = refusal(config.clone()).await.to_string();
    assert!(
        half.contains("gateway.redb is missing") && half.contains("assay gateway recover"),
        "{half}"
    );

    // A key that has channels does not start as a new one.
    let mut elsewhere = config.clone();
    elsewhere.data_dir = world.dir.path().join("empty");
    let used = create_ledgers(
        &elsewhere.data_dir,
        &elsewhere.market,
        elsewhere.payer.address(),
    );
    assert!(matches!(
        used.await,
        Err(LedgersError::Used { channels: 1, .. })
    ));
    std::fs::rename(&kept, &answers).unwrap();

    // Another payer does not spend from these lanes.
    let mut other = world.config().await;
    other.data_dir = config.data_dir.clone();
    let refused = refusal(other).await;
    assert!(
        matches!(
            refused,
            StartError::Ledgers(LedgersError::OtherPayer { .. })
        ),
        "{refused}"
    );
    let nothing_lost = recover(&config.data_dir, &config.market, &config.payer).await;
    assert!(matches!(nothing_lost, Err(LedgersError::NothingLost(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_ledgers_are_made_from_the_chain_and_their_money_is_asked_back() {
    let world = World::new().await;
    let node = world.honest(300_000).await;
    let config = world.config().await;
    made(&config).await;
    let client = Client::start(config.clone()).await;
    client.ask("hello", json!({})).await;
    let before = client.status().await.lanes[0].clone();
    client.running.shutdown().await;
    std::fs::remove_dir_all(&config.data_dir).unwrap();

    let recovered = recover(&config.data_dir, &config.market, &config.payer)
        .await
        .unwrap();
    assert_eq!(recovered.channels, [before.channel_id]);
    assert_eq!(recovered.unclaimed, before.balance);
    assert!(recovered.new_answers);
    let asked = config.market.channel(before.channel_id).await.unwrap();
    assert_eq!(asked.withdrawal.unwrap().amount, before.balance);

    // It buys again, on another lane.
    let client = Client::start(config).await;
    client.ask("hello again", json!({})).await;
    let lanes = client.status().await.lanes;
    assert_eq!(lanes.len(), 2);
    let old = lanes.iter().find(|l| l.channel_id == before.channel_id);
    assert_eq!(old.unwrap().state, "closed");
    assert_eq!(client.receipts().await[0].provider, node.address());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payer_that_died_in_mid_deposit_goes_on_with_it_and_pays_it_once() {
    let world = World::new().await;
    let node = world.honest(300_000).await;
    let config = world.config().await;
    made(&config).await;
    let amount = MicroUsd(50_000);
    let (market, payer) = (&config.market, &config.payer);
    let had = market.balance(payer.address()).await.unwrap();
    let path = config.data_dir.join("lanes.redb");
    let mut ledger = PayerLedger::open(&path, market.channel_domain()).unwrap();
    // One died before it sent, one before it learned that the money was there, one at a top-up.
    for (salt, sends) in [(1, false), (2, true), (3, true)] {
        let channel = channel(&config, &node, salt).await;
        let authorization = market
            .authorize_deposit(payer, &channel, amount)
            .await
            .unwrap();
        let deposit = Deposit {
            amount,
            authorization,
            arrived: false,
        };
        let id = ledger.opening(channel, deposit).unwrap();
        assert_eq!(ledger.lane(id).unwrap().balance, MicroUsd::ZERO);
        if sends {
            market
                .deposit(payer, &channel, amount, &authorization)
                .await
                .unwrap();
        }
    }
    assert_eq!(ledger.held().0, 3 * amount.0);
    drop(ledger);

    let client = Client::start(config.clone()).await;
    let lanes = client.status().await.lanes;
    assert_eq!(lanes.len(), 3);
    for lane in &lanes {
        let chain = config.market.channel(lane.channel_id).await.unwrap();
        assert_eq!((lane.balance, chain.balance), (amount, amount));
        assert_eq!(lane.state, "idle");
    }
    let has = market.balance(payer.address()).await.unwrap();
    assert_eq!(had.0 - has.0, 3 * amount.0);
    // And they are good for answers, without a further deposit.
    client.ask("hello", json!({})).await;
    assert_eq!(client.status().await.lanes.len(), 3);
    assert_eq!(market.balance(payer.address()).await.unwrap(), has);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_served_ends_on_the_scoreboard_as_the_sum_of_the_receipts() {
    let world = World::new().await;
    let nodes = [world.honest(300_000).await, world.honest(320_000).await];
    let client = world
        .gateway_with(|c| {
            c.audit = never();
            c.records.interval = Duration::ZERO;
            c.routing.explore_one_in = 2;
        })
        .await;
    for i in 0..8 {
        let more = json!({ "max_tokens": 3 + i, "seed": i });
        client.ask(&format!("question {i}"), more).await;
    }
    let gateway = client.running.gateway();
    gateway.tell_records().await;
    let receipts = client.receipts().await;
    assert_eq!(receipts.len(), 8);
    for node in &nodes {
        node.node.claim_now().await.unwrap();
        let score = world.market.score(node.address()).await.unwrap();
        let of_node: Vec<_> = receipts
            .iter()
            .filter(|r| r.provider == node.address())
            .collect();
        let sum = |part: fn(&assay_gateway::ReceiptEntry) -> u64| {
            of_node.iter().map(|r| part(r)).sum::<u64>()
        };
        assert_eq!(score.requests, of_node.len() as u64);
        assert_eq!((score.failures, score.reported), (0, 0));
        assert_eq!(score.revenue.0, sum(|r| r.charged.0));
        assert_eq!(
            score.output_tokens,
            u128::from(sum(|r| u64::from(r.output_tokens)))
        );
        assert_eq!(
            score.prompt_tokens,
            u128::from(sum(|r| u64::from(r.prompt_tokens)))
        );
        assert_eq!(score.ttft.count(), score.requests);
    }
    // The gateway sees them there, and has nothing more to tell.
    gateway.tell_records().await;
    for lane in client.status().await.lanes {
        assert_eq!(lane.posted, lane.service);
        assert_eq!(lane.service.revenue, lane.charged);
    }
    assert!(gateway.post_failures().await.unwrap().is_empty());

    // A newcomer starts from the chain's word about them, and says so.
    let newcomer = world.gateway_with(|c| c.audit = never()).await;
    let status = newcomer.status().await;
    for provider in &status.providers {
        let word = provider.chains_word.unwrap();
        assert_eq!((word.convictions, provider.record.answers), (0, 0));
    }
    newcomer.ask("hello", json!({})).await;
    let status = newcomer.status().await;
    let told = status.providers.iter().filter(|p| p.chains_word.is_some());
    assert_eq!(told.count(), 1, "own measures replace the chain's word");
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_that_a_provider_will_not_sign_the_payer_posts_alone() {
    let world = World::new().await;
    let bad = world.tampered(100_000, Tamper::DiesBeforeFirstToken).await;
    let client = world
        .gateway_with(|c| {
            c.audit = never();
            c.records.interval = Duration::ZERO;
            c.records.alone_after = Duration::ZERO;
            c.spending.lanes_per_provider = 1;
        })
        .await;
    let mut failed = 0;
    until("three failures", async || {
        failed += u32::from(client.chat("hello", json!({})).await.status() == 502);
        failed == 3
    })
    .await;
    let lane = client.status().await.lanes[0].clone();
    assert_eq!((lane.service.requests, lane.service.failures), (0, 3));
    bad.proxy.as_ref().unwrap().set(Tamper::Nothing);
    let gateway = client.running.gateway();
    gateway.tell_records().await;
    let lane = client.status().await.lanes[0].clone();
    let reason = lane.record_refused.expect("this node was never paid");
    assert!(reason.contains("not known here"), "{reason}");
    assert_eq!(
        gateway.post_failures().await.unwrap(),
        [lane.channel_id],
        "its own word, at its own cost"
    );
    let score = world.market.score(bad.address()).await.unwrap();
    assert_eq!((score.reported, score.failures, score.requests), (3, 0, 0));
    assert!(gateway.post_failures().await.unwrap().is_empty());
    assert_eq!(client.status().await.lanes[0].posted.failures, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_lanes_rest_comes_back_at_once_if_its_provider_refunds_it() {
    let world = World::new().await;
    let lies = Tamper::Receipt(Arc::new(|r: &mut Receipt| r.cumulative.0 += 1));
    let liar = world.tampered(100_000, lies).await;
    let config = world.config().await;
    let had = config.market.balance(config.payer.address()).await.unwrap();
    let client = Client::start(config.clone()).await;
    client.chat("hello", json!({})).await;
    assert_eq!(client.benched().await[0].0, liar.address());
    // The node charged; it shows our voucher for that, keeps it, and gives the rest back.
    until("the rest is back", async || {
        let lane = client.status().await.lanes[0].clone();
        lane.state == "closed" && lane.charged.0 > 0 && lane.balance == lane.charged
    })
    .await;
    let lane = client.status().await.lanes[0].clone();
    let has = config.market.balance(config.payer.address()).await.unwrap();
    assert_eq!(had.0 - has.0, lane.charged.0);
    let state = config.market.channel(lane.channel_id).await.unwrap();
    assert_eq!(state.withdrawal, None);
    assert_eq!(
        (state.balance, state.total_claimed),
        (lane.charged, lane.charged)
    );
}

/// The world's chain behind an RPC endpoint that can fail.
async fn behind_rpc(world: &World) -> (Market, Arc<AtomicBool>) {
    let broken = Arc::new(AtomicBool::new(false));
    let fails = broken.clone();
    let embedded = world.market.chain().as_embedded().unwrap();
    let router = embedded.router().layer(axum::middleware::from_fn(
        move |request: axum::extract::Request, next: axum::middleware::Next| {
            let fails = fails.load(Ordering::SeqCst);
            async move {
                if fails {
                    return StatusCode::SERVICE_UNAVAILABLE.into_response();
                }
                next.run(request).await
            }
        },
    ));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let patience = Patience {
        read_attempts: 2,
        pause_first: Duration::from_millis(10),
        pause_most: Duration::from_millis(20),
        ..Patience::default()
    };
    let chain = Chain::connect_with(&[url], patience).await.unwrap();
    let market = chain.market(world.market.deployment().clone()).await;
    (market.unwrap(), broken)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_that_is_away_stops_nobody_who_has_a_lane_and_is_used_when_it_is_back() {
    let world = World::new().await;
    let known = world.honest(900_000).await;
    let (market, broken) = behind_rpc(&world).await;
    let mut config = world.config().await;
    config.market = market;
    config.audit = never();
    config.limits.chain.answer = Duration::from_millis(500);
    config.limits.discovery = Duration::from_millis(100);
    config.limits.chain.look = Duration::from_millis(100);
    let client = Client::start(config.clone()).await;
    client.ask("hello", json!({})).await;
    // A cheaper one comes, and then the chain goes.
    let cheap = world.honest(100_000).await;
    until("it is found", async || {
        client.running.refresh().await.len() == 2
    })
    .await;
    broken.store(true, Ordering::SeqCst);
    for i in 0..4 {
        let begun = Instant::now();
        let streamed = client.stream(&format!("still there? {i}"), json!({})).await;
        assert!(streamed.done && begun.elapsed() < Duration::from_secs(3));
        let served_by = streamed.headers["x-assay-provider"].to_str().unwrap();
        assert_eq!(served_by, known.address().to_string());
    }
    let status = client.status().await;
    assert_eq!(status.balance, None);
    assert_eq!(status.providers.len(), 2, "what was known is not forgotten");
    broken.store(false, Ordering::SeqCst);
    until("the cheaper one serves", async || {
        let streamed = client.stream("and now?", json!({})).await;
        streamed.headers["x-assay-provider"] == cheap.address().to_string().as_str()
    })
    .await;
    let lanes = client.status().await.lanes;
    for lane in &lanes {
        let chain = world.market.channel(lane.channel_id).await.unwrap();
        assert_eq!(chain.balance, lane.balance);
    }
}
