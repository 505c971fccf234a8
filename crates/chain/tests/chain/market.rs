//! One suite on every chain: whatever holds on anvil holds on the embedded chain, in-process and
//! over HTTP, through the same code. Each case says what a party may do and what the contracts refuse.

use std::future::Future;
use std::sync::Arc;

use crate::support::{Net, Scene, THOUSAND};
use assay_chain::{ChainError, Claim, Refusal};
use assay_protocol::channel::Voucher;
use assay_protocol::{MicroUsd, Timestamp};

pub(crate) fn on_every_chain<F: Future<Output = ()>>(case: impl Fn(Arc<Scene>) -> F) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        case(Arc::new(Scene::new(Net::embedded().await).await)).await;
        case(Arc::new(Scene::new(Net::served().await).await)).await;
        if let Some(net) = Net::anvil().await {
            case(Arc::new(Scene::new(net).await)).await;
        }
    });
}

impl Scene {
    pub(crate) async fn voucher(&self, salt: u8, most: u64, claimed: u64) -> Claim {
        let config = self.config(salt).await;
        let voucher = Voucher {
            channel_id: self.market.channel_id(&config).expect("a valid config"),
            max_claimable: MicroUsd(most),
        };
        Claim {
            config,
            voucher: self
                .payer
                .sign_voucher(voucher, &self.market.channel_domain()),
            total_claimed: MicroUsd(claimed),
        }
    }

    pub(crate) async fn open(&self, salt: u8, amount: u64) {
        let config = self.config(salt).await;
        self.market
            .open_channel(&self.payer, &config, MicroUsd(amount))
            .await
            .expect("the channel opens");
    }
}

pub(crate) fn refusal<T: std::fmt::Debug>(result: Result<T, ChainError>) -> String {
    match result {
        Err(ChainError::Refused { why, .. }) => why.to_string(),
        other => panic!("expected a contract's refusal, got {other:?}"),
    }
}

#[test]
fn a_registered_provider_is_found_with_all_that_it_said() {
    on_every_chain(|scene| async move {
        let providers = scene.market.providers().await.unwrap();
        assert_eq!(providers.len(), 1);
        let provider = &providers[0];
        assert_eq!(provider.address, scene.owner.address());
        assert_eq!(provider.offer_key, scene.offer.address());
        assert_eq!(provider.payout, scene.payout);
        assert_eq!(provider.endpoint, "http://127.0.0.1:9001");
        assert_eq!(provider.models.len(), 2);
        assert_eq!(provider.stake, MicroUsd(50_000_000));
        assert!(provider.active);
        let by_address = scene.market.provider(scene.owner.address()).await.unwrap();
        assert_eq!(by_address.as_ref(), Some(provider));
        let stranger = scene.market.provider(scene.payer.address()).await.unwrap();
        assert_eq!(stranger, None);
        let vault = scene.market.vault_of(scene.owner.address()).await.unwrap();
        assert_eq!(provider.vault, vault);
    });
}

#[test]
fn money_goes_from_the_payer_through_the_window_to_the_provider() {
    on_every_chain(|scene| async move {
        let market = &scene.market;
        let provider = scene.owner.address();
        scene.open(1, 5_000_000).await;
        let claim = scene.voucher(1, 3_000_000, 2_000_000).await;
        let id = claim.voucher.voucher.channel_id;
        assert_eq!(
            market.channel(id).await.unwrap().balance,
            MicroUsd(5_000_000)
        );

        market
            .claim(&scene.relay, &scene.offer, &[claim])
            .await
            .unwrap();
        assert_eq!(
            market.channel(id).await.unwrap().total_claimed,
            MicroUsd(2_000_000)
        );
        let pending = market.pending_payout(provider).await.unwrap();
        assert_eq!(pending.unsettled, MicroUsd(2_000_000));

        market.collect(&scene.relay, provider).await.unwrap();
        let pending = market.pending_payout(provider).await.unwrap();
        assert_eq!(pending.unsettled, MicroUsd::ZERO);
        assert_eq!(pending.waiting, MicroUsd(2_000_000));
        assert!(pending.next_release_at.is_some());

        // Within the window nothing is released.
        market.release(&scene.relay, provider).await.unwrap();
        assert_eq!(market.balance(scene.payout).await.unwrap(), MicroUsd::ZERO);

        scene.net.advance(70).await;
        market.release(&scene.relay, provider).await.unwrap();
        assert_eq!(
            market.balance(scene.payout).await.unwrap(),
            MicroUsd(2_000_000)
        );
        assert_eq!(
            market.pending_payout(provider).await.unwrap(),
            Default::default()
        );
    });
}

#[test]
fn claims_of_many_channels_go_in_one_transaction_and_repeat_without_harm() {
    on_every_chain(|scene| async move {
        let mut claims = Vec::new();
        for salt in 1..=5 {
            scene.open(salt, 1_000_000).await;
            claims.push(scene.voucher(salt, 800_000, 700_000).await);
        }
        let market = &scene.market;
        let first = market
            .claim(&scene.relay, &scene.offer, &claims)
            .await
            .unwrap();
        assert_eq!(first.logs.len(), 5);
        let again = market
            .claim(&scene.relay, &scene.offer, &claims)
            .await
            .unwrap();
        assert_eq!(again.logs.len(), 0);
        let vault = market.vault_of(scene.owner.address()).await.unwrap();
        let receiver = market.receiver(vault).await.unwrap();
        assert_eq!(receiver.total_claimed, MicroUsd(3_500_000));
    });
}

#[test]
fn refusals_say_the_figures() {
    on_every_chain(|scene| async move {
        let market = &scene.market;
        scene.open(1, 3).await;
        let over_balance = scene.voucher(1, 5, 5).await;
        let said = refusal(
            market
                .claim(&scene.relay, &scene.offer, &[over_balance])
                .await,
        );
        assert_eq!(said, "channel balance 3 µUSD is below the claim of 5 µUSD");

        let over_voucher = scene.voucher(1, 2, 3).await;
        let said = refusal(
            market
                .claim(&scene.relay, &scene.offer, &[over_voucher])
                .await,
        );
        assert_eq!(said, "the voucher of 2 µUSD is below the claim of 3 µUSD");

        let mut forged = scene.voucher(1, 3, 3).await;
        forged.voucher = scene
            .relay
            .sign_voucher(forged.voucher.voucher, &market.channel_domain());
        let said = refusal(market.claim(&scene.relay, &scene.offer, &[forged]).await);
        assert!(said.contains("is not signed by"), "{said}");

        let claim = scene.voucher(1, 3, 3).await;
        let said = refusal(market.claim(&scene.relay, &scene.relay, &[claim]).await);
        assert!(
            said.contains("the batch is not signed by its authorizer"),
            "{said}"
        );

        let config = scene.config(2).await;
        let too_much = MicroUsd(THOUSAND.0 + 1);
        let said = refusal(market.open_channel(&scene.payer, &config, too_much).await);
        assert!(said.contains("needed"), "{said}");
    });
}

#[test]
fn a_deposit_signed_for_one_channel_opens_no_other_and_works_once() {
    on_every_chain(|scene| async move {
        let market = &scene.market;
        let (config, other) = (scene.config(1).await, scene.config(2).await);
        let amount = MicroUsd(1_000_000);
        let signed = market
            .authorize_deposit(&scene.payer, &config, amount)
            .await
            .unwrap();
        let id = market.channel_id(&config).unwrap();
        let collector = market.deployment().collector;
        let token = market.token_domain();
        let payer = scene.payer.address();
        signed.check(id, payer, collector, amount, &token).unwrap();
        let wrong = MicroUsd(amount.0 + 1);
        signed
            .check(id, payer, collector, wrong, &token)
            .unwrap_err();

        let diverted = market.deposit(&scene.relay, &other, amount, &signed).await;
        assert!(refusal(diverted).contains("not signed by"));
        market
            .deposit(&scene.relay, &config, amount, &signed)
            .await
            .unwrap();
        let again = market.deposit(&scene.relay, &config, amount, &signed).await;
        assert!(refusal(again).contains("was used or cancelled"));
        assert_eq!(market.channel(id).await.unwrap().balance, amount);
    });
}

#[test]
fn the_payer_gets_unclaimed_money_back_at_once_with_consent_and_later_without() {
    on_every_chain(|scene| async move {
        let market = &scene.market;
        scene.open(1, 1_000_000).await;
        let config = scene.config(1).await;
        let id = market.channel_id(&config).unwrap();
        market
            .refund(&scene.relay, &scene.offer, &config, MicroUsd(400_000))
            .await
            .unwrap();
        let state = market.channel(id).await.unwrap();
        assert_eq!((state.balance, state.refund_nonce), (MicroUsd(600_000), 1));

        market
            .initiate_withdraw(&scene.payer, &config, MicroUsd(600_000))
            .await
            .unwrap();
        let pending = market.channel(id).await.unwrap().withdrawal.unwrap();
        assert_eq!(pending.amount, MicroUsd(600_000));
        let early = market.finalize_withdraw(&scene.payer, &config).await;
        assert!(refusal(early).contains("can be finalized from"));

        // The receiver's side still has its delay to claim what it is owed.
        let claim = scene.voucher(1, 100_000, 100_000).await;
        market
            .claim(&scene.relay, &scene.offer, &[claim])
            .await
            .unwrap();
        scene.net.advance(900).await;
        market
            .finalize_withdraw(&scene.payer, &config)
            .await
            .unwrap();
        let balance = market.balance(scene.payer.address()).await.unwrap();
        assert_eq!(balance, MicroUsd(THOUSAND.0 - 100_000));
        assert_eq!(market.channel(id).await.unwrap().balance, MicroUsd(100_000));
    });
}

#[test]
fn stake_leaves_only_after_its_unbonding_and_the_provider_is_unlisted_first() {
    on_every_chain(|scene| async move {
        let market = &scene.market;
        let owner = scene.owner.address();
        market
            .unbond(&scene.owner, MicroUsd(45_000_000))
            .await
            .unwrap();
        let provider = market.provider(owner).await.unwrap().unwrap();
        assert!(!provider.active);
        assert_eq!(provider.unbonding, MicroUsd(45_000_000));
        assert!(market.providers().await.unwrap().is_empty());
        let early = market.withdraw_stake(&scene.owner).await;
        assert!(refusal(early).contains("unbonds until"));

        market
            .add_stake(&scene.owner, MicroUsd(5_000_000))
            .await
            .unwrap();
        assert_eq!(market.providers().await.unwrap().len(), 1);

        scene.net.advance(180).await;
        market.withdraw_stake(&scene.owner).await.unwrap();
        let balance = market.balance(owner).await.unwrap();
        assert_eq!(balance, MicroUsd(THOUSAND.0 - 10_000_000));
    });
}

#[test]
fn a_retired_offer_key_still_counts_for_its_time_and_for_no_other() {
    on_every_chain(|scene| async move {
        let market = &scene.market;
        let owner = scene.owner.address();
        let old = scene.offer.address();
        let while_used = scene.net.block_time().await;
        scene.net.advance(10).await;
        let fresh = scene.net.key().await.address();
        market.rotate_offer_key(&scene.owner, fresh).await.unwrap();
        scene.net.advance(10).await;
        let provider = market.provider(owner).await.unwrap().unwrap();
        assert_eq!(provider.offer_key, fresh);
        let later = Timestamp(while_used.0 + 1_000);
        assert!(market.is_offer_key(owner, old, while_used).await.unwrap());
        assert!(!market.is_offer_key(owner, old, later).await.unwrap());
        assert!(!market.is_offer_key(owner, fresh, while_used).await.unwrap());
        assert!(market.is_offer_key(owner, fresh, later).await.unwrap());
        let back = market.rotate_offer_key(&scene.owner, old).await;
        assert!(refusal(back).contains("has used the key"));
    });
}

#[test]
fn many_senders_of_one_key_take_every_nonce_once() {
    on_every_chain(|scene| async move {
        let to = scene.net.key().await.address();
        let mints = (0..24).map(|_| {
            let (market, relay) = (scene.market.clone(), scene.relay.clone());
            tokio::spawn(async move { market.mint(&relay, to, MicroUsd(1)).await })
        });
        for mint in mints.collect::<Vec<_>>() {
            mint.await.unwrap().unwrap();
        }
        assert_eq!(scene.market.balance(to).await.unwrap(), MicroUsd(24));
    });
}

#[test]
fn two_processes_with_one_key_heal_from_each_others_nonces() {
    on_every_chain(|scene| async move {
        // A second handle does not share the first one's nonces, as another process would not.
        let other = scene.net.second_handle().await;
        let other = other
            .market(scene.market.deployment().clone())
            .await
            .unwrap();
        let to = scene.net.key().await.address();
        for _ in 0..3 {
            scene
                .market
                .mint(&scene.relay, to, MicroUsd(1))
                .await
                .unwrap();
            other.mint(&scene.relay, to, MicroUsd(1)).await.unwrap();
        }
        assert_eq!(other.balance(to).await.unwrap(), MicroUsd(6));
    });
}

#[test]
fn a_deployment_of_another_chain_or_without_code_is_refused() {
    on_every_chain(|scene| async move {
        let mut foreign = scene.market.deployment().clone();
        foreign.chain_id += 1;
        let refused = scene.net.chain.market(foreign).await;
        assert!(
            matches!(refused, Err(ChainError::OtherChain { .. })),
            "{refused:?}"
        );
        let mut nowhere = scene.market.deployment().clone();
        nowhere.registry = assay_protocol::Address::repeat_byte(0x55);
        let refused = scene.net.chain.market(nowhere).await;
        assert!(
            matches!(refused, Err(ChainError::NoContract { .. })),
            "{refused:?}"
        );
    });
}

#[test]
fn a_token_that_does_not_count_in_millionths_is_no_markets_token() {
    on_every_chain(|scene| async move {
        // The registry has no decimals at all; a contract of 18 would be refused by name.
        let params = assay_chain::DeployParams {
            token: Some(scene.market.deployment().registry),
            ..assay_chain::DeployParams::devnet()
        };
        scene
            .net
            .chain
            .deploy(&scene.relay, &params)
            .await
            .expect_err("the registry is no token");
        let params = assay_chain::DeployParams {
            token: Some(scene.market.deployment().token),
            ..assay_chain::DeployParams::devnet()
        };
        let second = scene.net.chain.deploy(&scene.relay, &params).await.unwrap();
        assert_eq!(second.token, scene.market.deployment().token);
        assert_ne!(second.registry, scene.market.deployment().registry);
    });
}

#[test]
fn unknown_reverts_keep_their_bytes() {
    let unknown = Refusal::decode(&[1, 2, 3, 4]);
    assert_eq!(unknown.to_string(), "the contract reverted with 0x01020304");
}
