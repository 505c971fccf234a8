//! The settlement's promises on every chain: who may move which money and who may not, claims that anybody
//! submits, the race of claim and withdrawal, records of service, and jail.

use assay_chain::{
    ChainError, Claim, DeployParams, Registration, ServiceEntry, ServicePost, SignedClaims,
};
use assay_dispute::{Fact, FactKind};
use assay_protocol::channel::{ChannelDomain, Voucher};
use assay_protocol::{
    Answered, B256, DurationMs, MicroUsd, SamplerParams, Service, ServiceBatch, ServiceRecord,
    StopReason, Timestamp, TypedData,
};

use crate::market::{on_every_chain, refusal};
use crate::support::{Net, Scene};

/// Nothing was posted before.
pub(crate) const NOTHING: ServiceRecord = ServiceRecord {
    channel_id: B256::ZERO,
    service: Service {
        revenue: MicroUsd(0),
        prompt_tokens: 0,
        output_tokens: 0,
        requests: 0,
        failures: 0,
        ttft: assay_protocol::Histogram([0; 8]),
        speed: assay_protocol::Histogram([0; 8]),
    },
};

pub(crate) fn served(charges: &[u64], failures: u32) -> Service {
    let mut service = Service::default();
    for charged in charges {
        let answer = Answered {
            charged: MicroUsd(*charged),
            prompt_tokens: 10,
            output_tokens: 20,
            ttft: DurationMs(300),
            rest: DurationMs(1_000),
        };
        service = service.answered(&answer).expect("small numbers");
    }
    for _ in 0..failures {
        service = service.failed().expect("small numbers");
    }
    service
}

impl Scene {
    pub(crate) async fn record(&self, salt: u8, service: Service) -> ServiceRecord {
        let config = self.config(salt).await;
        ServiceRecord {
            channel_id: self.market.channel_id(&config).expect("a valid config"),
            service,
        }
    }

    /// One record in the place of another, signed by the payer, and by the provider if it agrees.
    pub(crate) async fn post(
        &self,
        salt: u8,
        previous: ServiceRecord,
        record: ServiceRecord,
        counter_signed: bool,
    ) -> ServicePost {
        let domain = self.market.deployment().scoreboard_domain();
        let batch = ServiceBatch(vec![record]).digest(&domain);
        ServicePost {
            provider: self.owner.address(),
            entries: vec![ServiceEntry {
                config: self.config(salt).await,
                record: self.payer.sign(record, &domain),
                previous,
            }],
            signature: counter_signed.then(|| self.offer.sign_digest(batch)),
        }
    }

    /// Convicts the provider of a receipt that names the wrong reason to stop, without a game.
    pub(crate) async fn convict(&self, prompt: u32) {
        let doubt = self.doubt().await;
        let sampler = SamplerParams::greedy(4);
        let tokens = (&[prompt, 6][..], &[7, 8][..]);
        let receipt = self.receipt(&doubt.model, tokens, &sampler, StopReason::MaxTokens);
        let receipt = receipt.await;
        let fact = Fact {
            kind: FactKind::NotAtTheLimit,
            position: 0,
            tokens: Vec::new(),
            sampler: sampler.encode(),
        };
        let convicted = self
            .market
            .prove_fact(&doubt.challenger, &receipt, &fact)
            .await;
        convicted.expect("the fact convicts");
    }
}

#[test]
fn anybody_brings_a_signed_batch_to_the_chain_and_the_money_goes_to_the_vault_alone() {
    on_every_chain(|scene| async move {
        let market = &scene.market;
        let mut claims = Vec::new();
        for salt in 1..=2 {
            scene.open(salt, 1_000).await;
            claims.push(scene.voucher(salt, 800, 700).await);
        }
        // Carried about as JSON, to somebody who is nobody in the market.
        let signed = market.sign_claims(&scene.offer, &claims);
        let carried = serde_json::to_string(&signed).unwrap();
        let signed: SignedClaims = serde_json::from_str(&carried).unwrap();
        let stranger = scene.net.key().await;
        let gas = market
            .claims_gas(stranger.address(), &signed, None)
            .await
            .unwrap();
        let submitted = market
            .submit_claims(&stranger, &signed, None)
            .await
            .unwrap();
        assert_eq!(submitted.claimed.len(), 2);
        assert!(
            submitted.mined.gas_used <= gas,
            "{} of {gas}",
            submitted.mined.gas_used
        );
        let vault = market.vault_of(scene.owner.address()).await.unwrap();
        market.settle(&stranger, vault).await.unwrap();
        assert_eq!(market.balance(vault).await.unwrap(), MicroUsd(1_400));
        assert_eq!(
            market.balance(stranger.address()).await.unwrap(),
            MicroUsd::ZERO
        );

        // A batch that was changed on the way is nobody's.
        let mut more = signed.clone();
        more.claims[0].total_claimed = MicroUsd(750);
        let said = refusal(market.submit_claims(&stranger, &more, None).await);
        assert!(said.contains("the batch is not signed by"), "{said}");
        // Late, it moves nothing and harms nothing.
        let again = market
            .submit_claims(&stranger, &signed, None)
            .await
            .unwrap();
        assert!(again.claimed.is_empty());
        let none = market.sign_claims(&scene.offer, &[]);
        let empty = market.submit_claims(&stranger, &none, None).await;
        assert!(matches!(empty, Err(ChainError::BatchSize(0, _))));
    });
}

#[test]
fn a_dry_run_names_the_rows_that_would_fail_and_lets_the_others_through() {
    on_every_chain(|scene| async move {
        let market = &scene.market;
        let mut claims = Vec::new();
        for salt in 1..=7 {
            scene.open(salt, 1_000).await;
            claims.push(scene.voucher(salt, 800, 700).await);
        }
        let good = market.try_claims(&claims).await.unwrap();
        assert!(good.iter().all(Result::is_ok) && good.len() == 7);
        claims[2] = scene.voucher(3, 5_000, 5_000).await;
        claims[5] = scene.voucher(6, 800, 801).await;
        let tried = market.try_claims(&claims).await.unwrap();
        let bad: Vec<usize> = (0..7).filter(|row| tried[*row].is_err()).collect();
        assert_eq!(bad, [2, 5]);
        let said = tried[2].clone().unwrap_err().to_string();
        assert_eq!(
            said,
            "channel balance 1000 µUSD is below the claim of 5000 µUSD"
        );
        claims.retain(|claim| claim.total_claimed == MicroUsd(700));
        let signed = market.sign_claims(&scene.offer, &claims);
        let submitted = market
            .submit_claims(&scene.relay, &signed, None)
            .await
            .unwrap();
        assert_eq!(submitted.claimed.len(), 5);
        assert!(market.try_claims(&[]).await.unwrap().is_empty());
    });
}

#[test]
fn a_voucher_of_another_chain_contract_channel_or_payer_moves_nothing() {
    on_every_chain(|scene| async move {
        let market = &scene.market;
        scene.open(1, 1_000).await;
        scene.open(2, 1_000).await;
        let good = scene.voucher(1, 500, 500).await;
        let here = market.channel_domain();
        let foreign = |domain: ChannelDomain, voucher: Voucher| Claim {
            voucher: scene.payer.sign_voucher(voucher, &domain),
            ..good
        };
        let voucher = good.voucher.voucher;
        let elsewhere = ChannelDomain {
            chain_id: here.chain_id + 1,
            ..here
        };
        let other_contract = ChannelDomain {
            contract: market.deployment().registry,
            ..here
        };
        let other_channel = Voucher {
            channel_id: market.channel_id(&scene.config(2).await).unwrap(),
            ..voucher
        };
        let mut by_stranger = good;
        by_stranger.voucher = scene.relay.sign_voucher(voucher, &here);
        let bad = [
            foreign(elsewhere, voucher),
            foreign(other_contract, voucher),
            Claim {
                voucher: scene.payer.sign_voucher(other_channel, &here),
                ..good
            },
            by_stranger,
        ];
        for claim in bad {
            let refused = market.claim(&scene.relay, &scene.offer, &[claim]).await;
            // The channel's config says which channel it is, whatever the voucher names.
            let said = refusal(refused);
            assert!(said.contains("is not signed by"), "{said}");
        }
        // A newer voucher was claimed: the older one is worth nothing more.
        let newer = scene.voucher(1, 600, 600).await;
        market
            .claim(&scene.relay, &scene.offer, &[newer])
            .await
            .unwrap();
        let stale = market
            .claim(&scene.relay, &scene.offer, &[good])
            .await
            .unwrap();
        assert!(stale.logs.is_empty());
        let state = market.channel(voucher.channel_id).await.unwrap();
        assert_eq!(state.total_claimed, MicroUsd(600));
    });
}

#[test]
fn a_claim_wins_the_race_against_a_withdrawal_within_its_delay_and_loses_it_after() {
    on_every_chain(|scene| async move {
        let market = &scene.market;
        let (config, other) = (scene.config(1).await, scene.config(2).await);
        for (salt, config) in [(1, &config), (2, &other)] {
            scene.open(salt, 1_000).await;
            market
                .initiate_withdraw(&scene.payer, config, MicroUsd(1_000))
                .await
                .unwrap();
        }
        let again = market
            .initiate_withdraw(&scene.payer, &config, MicroUsd(1))
            .await;
        assert!(refusal(again).contains("a withdrawal is pending"));
        let thief = market
            .initiate_withdraw(&scene.relay, &config, MicroUsd(1))
            .await;
        assert!(refusal(thief).contains("neither payer nor payer's authorizer"));

        let claim = scene.voucher(1, 400, 400).await;
        market
            .claim(&scene.relay, &scene.offer, &[claim])
            .await
            .unwrap();
        scene.net.advance(900).await;
        for config in [&config, &other] {
            market
                .finalize_withdraw(&scene.payer, config)
                .await
                .unwrap();
        }
        let late = scene.voucher(2, 400, 400).await;
        let said = refusal(market.claim(&scene.relay, &scene.offer, &[late]).await);
        assert_eq!(
            said,
            "channel balance 0 µUSD is below the claim of 400 µUSD"
        );
        for (config, left) in [(&config, 400), (&other, 0)] {
            let id = market.channel_id(config).unwrap();
            assert_eq!(market.channel(id).await.unwrap().balance, MicroUsd(left));
        }
    });
}

#[test]
fn what_was_served_is_counted_once_both_sides_signed_and_the_money_was_claimed() {
    on_every_chain(|scene| async move {
        let (market, provider) = (&scene.market, scene.owner.address());
        scene.open(1, 10_000).await;
        let first = scene.record(1, served(&[100, 200], 0)).await;
        let post = scene.post(1, NOTHING, first, true).await;
        let early = refusal(market.post_service(&scene.relay, &post).await);
        assert!(
            early.contains("tells of 300 µUSD, claimed are 0 µUSD"),
            "{early}"
        );

        // Claim and record in one transaction.
        let claims = [scene.voucher(1, 400, 400).await];
        let signed = market.sign_claims(&scene.offer, &claims);
        let submitted = market
            .submit_claims(&scene.relay, &signed, Some(&post))
            .await
            .unwrap();
        assert_eq!(submitted.claimed, [first.channel_id]);
        assert_eq!(submitted.posted, [first.channel_id]);
        assert_eq!(submitted.left_out, None);
        assert_eq!(
            market.posted_service(first.channel_id).await.unwrap(),
            first.struct_hash()
        );
        let score = market.score(provider).await.unwrap();
        assert_eq!((score.requests, score.revenue), (2, MicroUsd(300)));
        assert_eq!(score.ttft, first.service.ttft);
        assert_eq!(score.success_ppm(), Some(1_000_000));

        // The same again is refused, and does not keep the money back.
        let claims = [scene.voucher(1, 500, 500).await];
        let signed = market.sign_claims(&scene.offer, &claims);
        let submitted = market
            .submit_claims(&scene.relay, &signed, Some(&post))
            .await
            .unwrap();
        assert_eq!((submitted.claimed.len(), submitted.posted.len()), (1, 0));
        let why = submitted.left_out.expect("it says why").to_string();
        assert!(why.contains("read the newest and try again"), "{why}");

        // The payer alone may report failures, and nothing else.
        let failed = scene.record(1, served(&[100, 200], 1)).await;
        let alone = scene.post(1, first, failed, false).await;
        market.post_service(&scene.payer, &alone).await.unwrap();
        let score = market.score(provider).await.unwrap();
        assert_eq!((score.failures, score.reported), (0, 1));
        assert_eq!(score.success_ppm(), Some(666_666));
        let better = scene.record(1, served(&[100, 200, 50], 1)).await;
        let alone = scene.post(1, failed, better, false).await;
        let said = refusal(market.post_service(&scene.payer, &alone).await);
        assert!(
            said.contains("may report failures and nothing else"),
            "{said}"
        );
        let fewer = scene.post(1, failed, first, true).await;
        let said = refusal(market.post_service(&scene.relay, &fewer).await);
        assert!(said.contains("counts less than the one before"), "{said}");
        let mut forged = scene.post(1, failed, better, true).await;
        forged.signature = Some(scene.relay.sign_digest(B256::repeat_byte(1)));
        let said = refusal(market.post_service(&scene.relay, &forged).await);
        assert!(
            said.contains("the batch of records is not signed by"),
            "{said}"
        );
    });
}

#[test]
fn a_conviction_jails_its_provider_until_it_leaves_with_its_stake_in_place() {
    on_every_chain(|scene| async move {
        let (market, owner) = (&scene.market, scene.owner.address());
        let free = refusal(market.release_from_jail(&scene.owner).await);
        assert!(free.contains("is not in jail"), "{free}");
        scene.convict(5).await;
        let (convictions, until) = market.convictions(owner).await.unwrap();
        assert_eq!(convictions, 1);
        assert!(until > scene.net.block_time().await);
        let score = market.score(owner).await.unwrap();
        assert_eq!((score.convictions, score.jailed_until), (1, until));
        assert!(market.providers().await.unwrap().is_empty());

        let stake = MicroUsd(100_000_000);
        market.add_stake(&scene.owner, stake).await.unwrap();
        assert!(
            market.providers().await.unwrap().is_empty(),
            "stake buys nobody out"
        );
        let early = refusal(market.release_from_jail(&scene.owner).await);
        assert!(early.contains("is in jail until"), "{early}");
        scene.net.advance(180).await;
        assert!(
            market.providers().await.unwrap().is_empty(),
            "time alone does not either"
        );
        market.release_from_jail(&scene.owner).await.unwrap();
        assert_eq!(market.providers().await.unwrap().len(), 1);
        let (convictions, until) = market.convictions(owner).await.unwrap();
        assert_eq!((convictions, until), (1, Timestamp(0)));
    });
}

/// A token that counts 40 for every transfer, whatever was asked; the rest of it says what a market asks.
fn short_changing() -> Vec<u8> {
    let mut code = vec![0x5f, 0x35, 0x60, 0xe0, 0x1c];
    // balanceOf, decimals, name, version; where each is answered follows below.
    let views: [([u8; 4], u8); 4] = [
        ([0x70, 0xa0, 0x82, 0x31], 70),
        ([0x31, 0x3c, 0xe5, 0x67], 79),
        ([0x06, 0xfd, 0xde, 0x03], 88),
        ([0x54, 0xfd, 0x4d, 0x50], 88),
    ];
    for (selector, at) in views {
        code.push(0x80);
        code.push(0x63);
        code.extend(selector);
        code.extend([0x14, 0x60, at, 0x57]);
    }
    // Anything else: 40 more, and true.
    code.extend([0x5f, 0x54, 0x60, 40, 0x01, 0x5f, 0x55]);
    code.extend([0x60, 1, 0x5f, 0x52, 0x60, 32, 0x5f, 0xf3]);
    while code.len() < 70 {
        code.push(0x00);
    }
    code.extend([0x5b, 0x5f, 0x54, 0x5f, 0x52, 0x60, 32, 0x5f, 0xf3]);
    code.extend([0x5b, 0x60, 6, 0x5f, 0x52, 0x60, 32, 0x5f, 0xf3]);
    code.extend([0x5b, 0x60, 32, 0x5f, 0x52, 0x60, 1, 0x60, 32, 0x52]);
    code.extend([
        0x60, 0x54, 0x60, 248, 0x1b, 0x60, 64, 0x52, 0x60, 96, 0x5f, 0xf3,
    ]);
    code
}

#[test]
fn a_token_that_brings_less_than_it_takes_can_neither_be_deposited_nor_staked() {
    on_every_chain(|scene| async move {
        let token = scene.net.put_code(&short_changing()).await;
        let params = DeployParams {
            token: Some(token),
            ..DeployParams::devnet()
        };
        let chain = scene.market.chain();
        let deployment = chain.deploy(&scene.relay, &params).await.unwrap();
        let market = chain.market(deployment).await.unwrap();
        let mut registration = Registration {
            offer_key: scene.offer.address(),
            payout: scene.payout,
            endpoint: "http://127.0.0.1:9001".into(),
            models: Vec::new(),
            stake: MicroUsd::ZERO,
        };
        market.register(&scene.owner, &registration).await.unwrap();
        registration.stake = MicroUsd(100);
        let staked = market.add_stake(&scene.owner, registration.stake).await;
        assert_eq!(refusal(staked), "the stake of 100 µUSD brought 40 µUSD");
        let mut config = scene.config(1).await;
        config.token = token;
        config.receiver = market.vault_of(scene.owner.address()).await.unwrap();
        let opened = market
            .open_channel(&scene.payer, &config, MicroUsd(100))
            .await;
        let said = refusal(opened);
        assert!(
            said.starts_with("the deposit of 100 µUSD brought"),
            "{said}"
        );
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gas_has_a_price_where_coins_have_one() {
    let free = Scene::new(Net::embedded().await).await;
    let chain = free.market.chain();
    assert_eq!(chain.gas_price().await.unwrap(), 0);
    assert_eq!(chain.coin_balance(free.relay.address()).await.unwrap(), 0);
    let Some(net) = Net::anvil().await else {
        return;
    };
    let scene = Scene::new(net).await;
    let chain = scene.market.chain();
    assert!(chain.gas_price().await.unwrap() > 0);
    let before = chain.coin_balance(scene.relay.address()).await.unwrap();
    let to = scene.payout;
    scene
        .market
        .mint(&scene.relay, to, MicroUsd(1))
        .await
        .unwrap();
    assert!(chain.coin_balance(scene.relay.address()).await.unwrap() < before);
}

#[test]
fn a_payer_that_lost_its_books_finds_its_channels_on_the_chain() {
    on_every_chain(|scene| async move {
        let market = &scene.market;
        scene.open(1, 1_000).await;
        scene.open(2, 2_000).await;
        scene.open(1, 500).await;
        // Emptied and filled again: still one channel.
        let config = scene.config(2).await;
        market
            .refund(&scene.relay, &scene.offer, &config, MicroUsd(2_000))
            .await
            .unwrap();
        scene.open(2, 7).await;
        let found = market
            .channels_of_payer(scene.payer.address())
            .await
            .unwrap();
        let money: Vec<_> = found
            .iter()
            .map(|(c, s)| (*c, s.balance.0, s.refund_nonce))
            .collect();
        assert_eq!(money, [(scene.config(1).await, 1_500, 0), (config, 7, 1)]);
        let none = market
            .channels_of_payer(scene.owner.address())
            .await
            .unwrap();
        assert!(none.is_empty());
    });
}
