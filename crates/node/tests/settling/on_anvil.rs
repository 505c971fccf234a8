//! The same where gas costs something and blocks can be taken back.

use std::time::Duration;

use assay_chain::SignedClaims;
use assay_protocol::MicroUsd;

use crate::common::{Buyer, World, completion, read};

const COMPLETION: &str = "/v1/completions";

#[tokio::test(flavor = "multi_thread")]
async fn a_deposit_and_a_claim_that_a_reorganization_took_are_made_again() {
    let Some(world) = World::on_anvil(4).await else {
        return;
    };
    let anvil = world.anvil.as_ref().unwrap();
    let mut config = world.config();
    config.claims.interval = Duration::from_secs(600);
    let node = assay_node::start(config).await.unwrap();
    let mut buyer = Buyer::poor(&world, &node).await;
    let amount = MicroUsd(1_000_000);
    let (paid, payment, body) = buyer.with_deposit(&world, 0, amount).await;
    let before = world.market.chain().block_number().await.unwrap();
    let response = buyer.post(COMPLETION, &body, Some(&payment)).await;
    assert_eq!(response.status(), 200, "{}", response.text().await.unwrap());
    let told = read(response).await;
    buyer.settle(&world, &paid, &told);
    let charged = told.receipt().body.charged;
    assert_eq!(node.claim_now().await.unwrap(), charged);
    let state = || async { world.market.channel(paid.channel_id()).await.unwrap() };
    assert_eq!(
        (state().await.balance, state().await.total_claimed),
        (amount, charged)
    );
    assert_eq!(node.earnings().await.unwrap().deposits_settling, 1);

    let head = world.market.chain().block_number().await.unwrap();
    anvil.take_back(head - before).await;
    assert_eq!(
        state().await.balance,
        MicroUsd(0),
        "the deposit's block is gone"
    );
    for _ in 0..5 {
        node.claim_now().await.unwrap();
        if state().await.total_claimed == charged {
            break;
        }
    }
    assert_eq!(
        (state().await.balance, state().await.total_claimed),
        (amount, charged)
    );
    assert_eq!(node.earnings().await.unwrap().unclaimed, MicroUsd(0));
    // Deep enough, it is not kept any longer.
    anvil.mine(5).await;
    node.claim_now().await.unwrap();
    assert_eq!(node.earnings().await.unwrap().deposits_settling, 0);
    buyer.ask(&world, COMPLETION, &completion(4)).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gas_that_costs_more_than_the_claim_is_not_paid() {
    let Some(world) = World::on_anvil(0).await else {
        return;
    };
    let mut config = world.config();
    config.claims.interval = Duration::from_millis(100);
    config.claims.policy.value = MicroUsd(1);
    // At this price of a coin a claim costs dollars, and a few cents of a cent are due.
    config.claims.coin_price = Some(MicroUsd(1_000_000_000_000));
    let node = assay_node::start(config).await.unwrap();
    let mut buyer = Buyer::new(&world, &node, 1).await;
    let receipt = buyer
        .ask(&world, COMPLETION, &completion(4))
        .await
        .receipt();
    assert_eq!(node.claim_now().await.unwrap(), MicroUsd(0));
    let report = node.shutdown().await;
    assert_eq!((report.claimed, report.claim_error), (MicroUsd(0), None));
    let id = receipt.body.channel_id;
    let claimed = world.market.channel(id).await.unwrap().total_claimed;
    assert_eq!(claimed, MicroUsd(0));
    // Cheaper gas finds the voucher where it was.
    let node = world.start().await;
    assert_eq!(node.claim_now().await.unwrap(), receipt.body.charged);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_coins_the_signed_claims_wait_until_anybody_submits_them() {
    let Some(world) = World::on_anvil(0).await else {
        return;
    };
    let anvil = world.anvil.as_ref().unwrap();
    let mut config = world.config();
    config.claims.interval = Duration::from_secs(600);
    let node = assay_node::start(config).await.unwrap();
    let mut buyer = Buyer::new(&world, &node, 2).await;
    let told = buyer.ask(&world, COMPLETION, &completion(4)).await;
    anvil
        .give_coins(world.market.chain(), world.hot.address(), 0)
        .await;
    for _ in 0..2 {
        assert_eq!(node.claim_now().await.unwrap(), MicroUsd(0));
        assert_eq!(node.earnings().await.unwrap().claims_without_gas, 1);
    }
    let shown: Vec<SignedClaims> = buyer.get("/assay/v1/claims").await.json().await.unwrap();
    assert_eq!(shown.len(), 1);
    world
        .market
        .submit_claims(&buyer.key, &shown[0], None)
        .await
        .unwrap();
    node.claim_now().await.unwrap();
    let earnings = node.earnings().await.unwrap();
    assert_eq!(
        (earnings.claims_without_gas, earnings.unclaimed),
        (0, MicroUsd(0))
    );
    assert_eq!(earnings.unsettled, told.receipt().body.charged);
    let shown: Vec<SignedClaims> = buyer.get("/assay/v1/claims").await.json().await.unwrap();
    assert!(shown.is_empty());
    node.shutdown().await;
}
