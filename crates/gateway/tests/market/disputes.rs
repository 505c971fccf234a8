//! Disputes in a whole market: a false answer costs its provider the stake, whatever it does; a true one costs whoever
//! doubts it the bond.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use assay_audit::{AuditPolicy, Evidence};
use assay_chain::{DisputeFilter, Key};
use assay_gateway::{DisputeState, ReceiptEntry};
use assay_node::DefenceState;
use assay_node::dishonest::{SkipsLayers, Truncates, Withholds};
use assay_protocol::{Address, MicroUsd, Receipt, StopReason};
use assay_testkit::market::Tamper;
use serde_json::{Value, json};

use crate::common::{Client, Player, World};

const STAKE: MicroUsd = MicroUsd(50_000_000);
const LIMIT: Duration = Duration::from_secs(60);

async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(begun.elapsed() < LIMIT, "{what} takes too long");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A gateway that audits everything, so that the first lie is found, and disputes on the chain alone.
async fn strict(world: &World) -> Client {
    world
        .gateway_with(|config| {
            config.audit = AuditPolicy::always();
            config.disputes.off_chain = false;
        })
        .await
}

async fn lie(client: &Client) {
    client
        .stream("hello", json!({ "temperature": 1, "seed": 1 }))
        .await;
}

/// The first answer whose dispute is over.
async fn over(client: &Client) -> (ReceiptEntry, DisputeState) {
    until("a dispute", async || {
        let receipts = client.receipts().await.into_iter();
        receipts
            .filter_map(|receipt| receipt.dispute.clone().map(|dispute| (receipt, dispute)))
            .find(|(_, dispute)| !dispute.is_pending())
    })
    .await
}

async fn evidence(client: &Client, receipt: &ReceiptEntry) -> Evidence {
    let value = client
        .get_json(&format!("/assay/v1/receipts/{}", receipt.id))
        .await;
    serde_json::from_value(value).unwrap()
}

async fn stake(world: &World, provider: Address) -> MicroUsd {
    world
        .market
        .provider(provider)
        .await
        .unwrap()
        .unwrap()
        .stake
}

fn percent(amount: MicroUsd, percent: u64) -> MicroUsd {
    MicroUsd(amount.0 * percent / 100)
}

/// The gateway's events of one kind.
async fn events(client: &Client, kind: &str) -> Vec<Value> {
    let mut response = client.get("/assay/v1/events").await;
    let mut text = String::new();
    // The past comes at once; what follows is not waited for.
    while let Ok(Ok(Some(bytes))) =
        tokio::time::timeout(Duration::from_millis(300), response.chunk()).await
    {
        text.push_str(std::str::from_utf8(&bytes).unwrap());
    }
    let frames = text
        .split("\n\n")
        .filter_map(|frame| frame.strip_prefix("data: "));
    let frames = frames.map(|json| serde_json::from_str::<Value>(json).unwrap());
    frames.filter(|event| event["kind"] == kind).collect()
}

/// The cheat is convicted, its whole stake is shared as the rules say, and the bond is back.
async fn check_conviction(world: &World, client: &Client, cheat: &Player) -> Vec<Value> {
    lie(client).await;
    let (receipt, dispute) = over(client).await;
    let told = events(client, "moved").await;
    let DisputeState::Convicted {
        game: Some(game),
        bounty,
        refund,
    } = dispute
    else {
        panic!("{dispute:?} after {told:#?}");
    };
    assert_eq!(receipt.provider, cheat.address());
    assert_eq!(bounty, percent(STAKE, 30));
    assert!(refund >= percent(STAKE, 20) && refund.0 <= percent(STAKE, 20).0 + receipt.charged.0);
    assert_eq!(stake(world, cheat.address()).await, MicroUsd(0));
    let totals = client.status().await.disputes;
    assert_eq!((totals.pending, totals.convicted, totals.lost), (0, 1, 0));
    assert_eq!((totals.bounties, totals.refunds), (bounty, refund));
    let convicted = &events(client, "convicted").await[0];
    assert_eq!(convicted["game"], json!(game));
    assert_eq!(convicted["conviction"]["slashed"], json!(STAKE));
    let open = DisputeFilter {
        open: true,
        ..DisputeFilter::default()
    };
    assert_eq!(world.market.disputes(&open).await.unwrap(), []);
    let game = world.market.deployment().dispute_game;
    assert_eq!(
        world.market.balance(game).await.unwrap(),
        MicroUsd(0),
        "no coin stays in the game"
    );
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cheat_that_skips_layers_is_convicted_by_its_own_trace() {
    let world = World::new().await;
    let cheat = world.cheat(100_000, SkipsLayers { skip: vec![1] }).await;
    let client = strict(&world).await;
    let told = check_conviction(&world, &client, &cheat).await;
    let proof = told.last().unwrap();
    assert_eq!(proof["parted"]["what"], "element", "{told:#?}");
    assert!(
        proof["parted"]["name"]
            .as_str()
            .unwrap()
            .starts_with("layer 1"),
        "{proof}"
    );
    assert!(proof["gas"].as_u64().unwrap() > 0);
    assert_ne!(proof["parted"]["ours"], proof["parted"]["theirs"]);
    let theirs = told.iter().filter(|moved| moved["ours"] == false);
    assert!(theirs.count() >= 4, "the cheat played on: {told:#?}");
    let defended = until("the cheat's own account", async || {
        let games = cheat.node.disputes();
        games
            .into_iter()
            .find(|game| game.state == DefenceState::Lost)
    });
    assert!(defended.await.moves.iter().any(|played| played.ours));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cheat_that_truncates_is_convicted_by_a_token_that_its_trace_does_not_choose() {
    let world = World::new().await;
    let truncates = Truncates {
        after: 5,
        claim: StopReason::EndOfText,
    };
    let cheat = world.cheat(100_000, truncates).await;
    let client = strict(&world).await;
    let told = check_conviction(&world, &client, &cheat).await;
    let parted = &told.last().unwrap()["parted"];
    assert_eq!(parted["what"], "token", "{told:#?}");
    assert_eq!(parted["output"]["at"], 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cheat_that_withholds_its_trace_loses_by_the_clock() {
    let world = World::clocked(1, 1).await;
    let cheat = world.cheat(100_000, Withholds { skip: vec![1] }).await;
    let client = strict(&world).await;
    let told = check_conviction(&world, &client, &cheat).await;
    let last = told.last().unwrap();
    assert!(
        last["action"].as_str().unwrap().contains("clock ran out"),
        "{told:#?}"
    );
    let stuck = &cheat.node.disputes()[0].state;
    assert!(matches!(stuck, DefenceState::Stuck { .. }), "{stuck:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_honest_node_that_a_fool_challenges_keeps_its_stake_and_gets_the_bond() {
    let world = World::clocked(1, 1).await;
    let node = world.honest(300_000).await;
    let client = strict(&world).await;
    client.stream("hello", json!({})).await;
    let receipt = client.audits_done().await.remove(0);
    assert_eq!(receipt.dispute, None, "the gateway sees nothing to dispute");
    let evidence = evidence(&client, &receipt).await;
    let fool = Key::random().unwrap();
    let bond = world.market.deployment().bond;
    world
        .market
        .mint(&world.faucet, fool.address(), bond)
        .await
        .unwrap();
    let before = world.market.balance(node.address()).await.unwrap();
    let opened = world
        .market
        .open_dispute(&fool, &evidence.receipt, &evidence.sampler)
        .await;
    let (game, _) = opened.unwrap();
    let won = until("the fool's clock", async || {
        let games = node.node.disputes();
        games
            .into_iter()
            .find(|told| matches!(told.state, DefenceState::Won { .. }))
    })
    .await;
    assert_eq!(won.game, game);
    assert_eq!(stake(&world, node.address()).await, STAKE);
    let after = world.market.balance(node.address()).await.unwrap();
    assert_eq!(
        after.0 - before.0,
        bond.0,
        "the bond went to the payout address"
    );
    assert_eq!(
        world.market.balance(fool.address()).await.unwrap(),
        MicroUsd(0)
    );
    let payout = world.market.pending_payout(node.address()).await.unwrap();
    assert_eq!(payout.held, MicroUsd(0), "nothing stays held");
    // It serves on.
    client.stream("hello again", json!({})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_restarts_in_the_middle_of_a_game_plays_it_to_its_end() {
    let world = World::clocked(5, 30).await;
    let cheat = world.cheat(100_000, SkipsLayers { skip: vec![0] }).await;
    let mut config = world.config().await;
    config.audit = AuditPolicy::always();
    // Slow enough to be stopped in the middle.
    config.disputes.poll = Duration::from_secs(2);
    let client = Client::start(config.clone()).await;
    lie(&client).await;
    let open = async || {
        let receipts = client.receipts().await.into_iter();
        let mut open = receipts.filter_map(|receipt| match receipt.dispute {
            Some(DisputeState::Open { game }) => Some(game),
            _ => None,
        });
        open.next()
    };
    let game = until("a game", open).await;
    client.running.shutdown().await;
    let dispute = world.market.dispute(game).await.unwrap().unwrap();
    assert!(
        dispute.conviction.is_none(),
        "stopped too late for this test"
    );

    config.disputes.poll = Duration::from_millis(50);
    let client = Client::start(config).await;
    let (_, dispute) = over(&client).await;
    assert!(
        matches!(dispute, DisputeState::Convicted { .. }),
        "{dispute:?}"
    );
    assert_eq!(stake(&world, cheat.address()).await, MicroUsd(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_restarts_in_the_middle_of_a_game_defends_on() {
    let world = World::clocked(5, 30).await;
    let cheat = world.cheat(100_000, SkipsLayers { skip: vec![1] }).await;
    let client = world
        .gateway_with(|config| {
            config.audit = AuditPolicy::always();
            config.disputes.off_chain = false;
            // Slow enough that the node is stopped in the middle.
            config.disputes.poll = Duration::from_millis(700);
        })
        .await;
    lie(&client).await;
    until("the cheat's first move", async || {
        let games = cheat.node.disputes();
        games
            .iter()
            .any(|game| game.moves.iter().any(|played| played.ours))
            .then_some(())
    })
    .await;
    let cheat = cheat.restart().await;
    let (_, dispute) = over(&client).await;
    assert!(
        matches!(dispute, DisputeState::Convicted { .. }),
        "{dispute:?}"
    );
    let proof = events(&client, "moved").await.pop().unwrap();
    assert_eq!(
        proof["parted"]["what"], "element",
        "it lost by its trace, not by its clock: {proof}"
    );
    let game = cheat.node.disputes().remove(0);
    assert!(game.moves.iter().any(|played| played.ours), "{game:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_is_told_not_to_opens_no_dispute() {
    let world = World::new().await;
    let cheat = world.cheat(100_000, SkipsLayers { skip: vec![1] }).await;
    let client = world
        .gateway_with(|config| {
            config.audit = AuditPolicy::always();
            config.disputes.open = false;
        })
        .await;
    lie(&client).await;
    let receipt = client.audits_done().await.remove(0);
    assert_eq!(receipt.dispute, None);
    assert_eq!(stake(&world, cheat.address()).await, STAKE);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_receipts_for_one_request_convict_without_a_game() {
    let world = World::new().await;
    let first = Mutex::new(None);
    // Its second receipt charges the first request again.
    let again = Tamper::Receipt(Arc::new(move |receipt: &mut Receipt| {
        let mut first = first.lock().unwrap();
        let id = first.get_or_insert(receipt.request_id);
        receipt.request_id = *id;
    }));
    let node = world.tampered(100_000, again).await;
    let client = world.gateway().await;
    client.stream("hello", json!({})).await;
    let second = client.stream("hello again", json!({})).await;
    assert!(second.error.is_some(), "{second:?}");
    let (receipt, dispute) = over(&client).await;
    assert!(
        matches!(dispute, DisputeState::Convicted { game: None, .. }),
        "{dispute:?}"
    );
    assert_eq!(receipt.provider, node.address());
    assert_eq!(stake(&world, node.address()).await, MicroUsd(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_shows_its_trace_off_the_chain_is_convicted_without_a_request() {
    let world = World::new().await;
    let cheat = world.cheat(100_000, SkipsLayers { skip: vec![1] }).await;
    let client = world
        .gateway_with(|config| config.audit = AuditPolicy::always())
        .await;
    let told = check_conviction(&world, &client, &cheat).await;
    let actions: Vec<&str> = told
        .iter()
        .map(|moved| moved["action"].as_str().unwrap())
        .collect();
    assert_eq!(actions.len(), 2, "{actions:?}");
    assert!(actions[0].starts_with("posts the root"), "{actions:?}");
    assert!(
        actions[1].starts_with("proves one element false"),
        "{actions:?}"
    );
    assert!(cheat.node.disputes()[0].served >= 2);
}
