//! What each move costs, printed as a table, with budgets that a change may not break silently:
//! `cargo test --release -p assay-chain --test chain gas -- --nocapture`.

use crate::support::{Net, Scene};
use assay_chain::Claim;
use assay_protocol::MicroUsd;
use assay_protocol::channel::Voucher;

impl Scene {
    async fn claim_of(&self, salt: u8, total: u64) -> Claim {
        let config = self.config(salt).await;
        let voucher = Voucher {
            channel_id: self.market.channel_id(&config).unwrap(),
            max_claimable: MicroUsd(total),
        };
        let domain = self.market.channel_domain();
        Claim {
            config,
            voucher: self.payer.sign_voucher(voucher, &domain),
            total_claimed: MicroUsd(total),
        }
    }
}

#[tokio::test]
async fn every_move_stays_within_its_gas() {
    let scene = Scene::new(Net::embedded().await).await;
    let market = &scene.market;
    let provider = scene.owner.address();
    let mut table: Vec<(String, u64, u64)> = Vec::new();
    let mut row = |name: &str, gas: u64, budget: u64| table.push((name.into(), gas, budget));

    let config = scene.config(1).await;
    let opened = market
        .open_channel(&scene.payer, &config, MicroUsd(50_000_000))
        .await
        .unwrap();
    row(
        "open a channel (EIP-3009 deposit)",
        opened.gas_used,
        150_000,
    );
    let topped = market
        .open_channel(&scene.payer, &config, MicroUsd(50_000_000))
        .await
        .unwrap();
    row("top a channel up", topped.gas_used, 108_000);

    let first = scene.claim_of(1, 1_000).await;
    let first = market
        .claim(&scene.relay, &scene.offer, &[first])
        .await
        .unwrap();
    row("claim one channel, first time", first.gas_used, 88_000);
    let again = scene.claim_of(1, 2_000).await;
    let again = market
        .claim(&scene.relay, &scene.offer, &[again])
        .await
        .unwrap();
    row("claim one channel, later", again.gas_used, 70_000);

    let mut claims = Vec::new();
    for salt in 2..=101 {
        let config = scene.config(salt).await;
        market
            .open_channel(&scene.payer, &config, MicroUsd(1_000_000))
            .await
            .unwrap();
        claims.push(scene.claim_of(salt, 1_000).await);
    }
    market
        .claim(&scene.relay, &scene.offer, &claims)
        .await
        .unwrap();
    for (count, budget) in [(10, 290_000), (100, 2_500_000)] {
        let mut claims = Vec::new();
        for salt in 2..2 + count {
            claims.push(scene.claim_of(salt, 1_000 + u64::from(count)).await);
        }
        let claimed = market
            .claim(&scene.relay, &scene.offer, &claims)
            .await
            .unwrap();
        row(
            &format!("claim {count} channels, later"),
            claimed.gas_used,
            budget,
        );
    }

    let collected = market.collect(&scene.relay, provider).await.unwrap();
    row(
        "collect into the vault, first time",
        collected.gas_used,
        160_000,
    );
    scene.net.advance(120).await;
    let released = market.release(&scene.relay, provider).await.unwrap();
    row("release to the provider", released.gas_used, 102_000);
    let refunded = market
        .refund(&scene.relay, &scene.offer, &config, MicroUsd(1_000))
        .await
        .unwrap();
    row("refund to the payer", refunded.gas_used, 95_000);
    let asked = market
        .initiate_withdraw(&scene.payer, &config, MicroUsd(1_000))
        .await
        .unwrap();
    row("ask for a withdrawal", asked.gas_used, 60_000);
    scene.net.advance(900).await;
    let withdrawn = market
        .finalize_withdraw(&scene.payer, &config)
        .await
        .unwrap();
    row("take a withdrawal", withdrawn.gas_used, 58_000);
    let moved = market
        .update_endpoint(&scene.owner, "http://127.0.0.1:9002")
        .await
        .unwrap();
    row("change the endpoint", moved.gas_used, 36_000);
    let staked = market
        .add_stake(&scene.owner, MicroUsd(1_000_000))
        .await
        .unwrap();
    row("add stake (EIP-3009)", staked.gas_used, 95_000);

    println!("{:<38} {:>12} {:>12}", "move", "gas", "budget");
    for (name, gas, budget) in &table {
        println!("{name:<38} {gas:>12} {budget:>12}");
    }
    println!(
        "\n{:<38} {:>12}",
        "requests behind one claim", "gas/request"
    );
    for requests in [10u64, 100, 1_000] {
        println!("{requests:<38} {:>12}", again.gas_used.div_ceil(requests));
    }
    for (name, gas, budget) in &table {
        assert!(
            gas <= budget,
            "{name}: {gas} gas is above its budget of {budget}"
        );
    }
    assert!(
        again.gas_used <= 100 * 1_000,
        "100 gas a request at 1,000 requests a claim"
    );
}
