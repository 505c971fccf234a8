//! Disputes on every chain: what each side may do, what the contract refuses, and that what is read
//! back is what was played.

use crate::made::{Made, manifest};
use crate::market::{on_every_chain, refusal};
use crate::support::{Scene, THOUSAND};
use assay_chain::{Dispute, DisputeFilter, Key};
use assay_dispute::{Below, Fact, FactKind, Move, Outcome, Phase, Side, Stage};
use assay_protocol::manifest::{Architecture, Dims, Manifest};
use assay_protocol::trace::Op;
use assay_protocol::{
    Address, B256, DurationMs, MicroUsd, Receipt, SamplerParams, Signed, Statement, StopReason,
    Tier, TypedData,
};

const DIMS: Dims = Dims {
    layers: 2,
    width: 64,
    heads: 2,
    kv_heads: 1,
    head_dim: 32,
    ffn: 128,
    vocab: 288,
    context_max: 256,
};
const BOND: MicroUsd = MicroUsd(1_000_000);
const STAKE: MicroUsd = MicroUsd(50_000_000);
const PROMPT: [u32; 5] = [5, 6, 7, 8, 9];
const OUTPUT: [u32; 3] = [10, 11, 12];

/// A doubted receipt and somebody who doubts it.
pub(crate) struct Doubt {
    pub(crate) model: Manifest,
    pub(crate) sampler: SamplerParams,
    pub(crate) receipt: Signed<Receipt>,
    pub(crate) challenger: Key,
}

impl Scene {
    /// A receipt for these tokens, served now, signed by the provider's offer key.
    pub(crate) async fn receipt(
        &self,
        model: &Manifest,
        counts: (&[u32], &[u32]),
        sampler: &SamplerParams,
        reason: StopReason,
    ) -> Signed<Receipt> {
        let body = Receipt {
            statement: Statement::new(model.id(), counts.0, sampler, counts.1, reason),
            provider: self.owner.address(),
            payer: self.payer.address(),
            channel_id: B256::repeat_byte(4),
            charged: MicroUsd(1_234_567),
            cumulative: MicroUsd(2_345_678),
            served_at: self.net.block_time().await,
            ttft: DurationMs(12),
            duration: DurationMs(340),
            tier: Tier::Optimistic,
            request_id: B256::repeat_byte(0x1d),
        };
        self.offer.sign(body, &self.market.domain())
    }

    pub(crate) async fn challenger(&self) -> Key {
        let key = self.net.key().await;
        self.market
            .mint(&self.relay, key.address(), THOUSAND)
            .await
            .unwrap();
        key
    }

    /// A receipt over the small model's manifest, which is published, and a challenger.
    pub(crate) async fn doubt(&self) -> Doubt {
        let model = manifest(Architecture::Llama, DIMS);
        let sampler = SamplerParams::greedy(3);
        let counts = (&PROMPT[..], &OUTPUT[..]);
        let receipt = self.receipt(&model, counts, &sampler, StopReason::MaxTokens);
        let receipt = receipt.await;
        self.market
            .publish_model(&self.relay, &model.encode())
            .await
            .unwrap();
        Doubt {
            model,
            sampler,
            receipt,
            challenger: self.challenger().await,
        }
    }

    pub(crate) async fn open_game(&self, doubt: &Doubt) -> B256 {
        let opened = self
            .market
            .open_dispute(&doubt.challenger, &doubt.receipt, &doubt.sampler)
            .await;
        opened.expect("the game opens").0
    }

    pub(crate) async fn told(&self, id: B256) -> Dispute {
        let told = self.market.dispute(id).await.expect("the chain answers");
        told.expect("there is such a game")
    }

    async fn dollars(&self, account: Address) -> u64 {
        self.market.balance(account).await.unwrap().0
    }
}

impl Doubt {
    pub(crate) fn made(&self) -> Made {
        let goal = Made::last_of(Op::Layer(1));
        Made::new(&self.model, 5, 3, &self.sampler, goal)
    }
}

#[test]
fn a_game_is_read_back_as_it_was_played() {
    on_every_chain(|scene| async move {
        let market = &scene.market;
        let doubt = scene.doubt().await;
        assert!(market.is_published(doubt.model.id()).await.unwrap());
        let id = scene.open_game(&doubt).await;
        let body = &doubt.receipt.body;

        let dispute = scene.told(id).await;
        assert_eq!(dispute.receipt, doubt.receipt);
        assert_eq!(dispute.sampler, doubt.sampler.encode());
        let game = &dispute.game;
        assert_eq!(game.receipt, body.digest(&market.domain()));
        assert_eq!(game.challenger, doubt.challenger.address());
        assert_eq!(
            (game.phase, game.turn()),
            (Phase::Post, Some(Side::Provider))
        );
        assert_eq!((game.held, game.trace_root), (None, None));
        let now = scene.net.block_time().await;
        assert_eq!(game.deadline, now.plus_seconds(30));

        // The offer key answers for the provider; a stranger cannot.
        let made = doubt.made();
        let Below::Children(children) = made.below(&made.top()) else {
            panic!("ops are nodes");
        };
        let root = made.root();
        let posted = market
            .post_trace(&doubt.challenger, body, game.challenger, root, &children)
            .await;
        assert!(refusal(posted).contains("neither the provider"));
        let children = children.clone();
        let first = Move::PostTrace { root, children };
        market.play(&scene.offer, &dispute, &first).await.unwrap();

        let mut rounds = 0;
        loop {
            let dispute = scene.told(id).await;
            let game = &dispute.game;
            assert_eq!(game.trace_root, Some(root));
            assert_eq!(game.reveals.len(), 1 + rounds);
            assert_eq!(
                (game.phase, game.turn()),
                (Phase::Request, Some(Side::Challenger))
            );
            let held = game.held.expect("a node is held").node;
            if held.stage == Stage::Bytes {
                break;
            }
            let (index, hash, siblings) = made.question(game);
            let request = Move::Request {
                index,
                hash,
                siblings,
            };
            market
                .play(&doubt.challenger, &dispute, &request)
                .await
                .unwrap();
            let dispute = scene.told(id).await;
            assert_eq!(dispute.game.phase, Phase::Reveal);
            let held = dispute.game.held.expect("a node is held");
            assert_eq!(held.hash, hash);
            let reveal = Move::Reveal {
                below: made.below(&held.node),
            };
            // Anybody may bring the provider's answer.
            market.play(&scene.relay, &dispute, &reveal).await.unwrap();
            let shown = scene.told(id).await.game.reveals;
            assert_eq!(shown.last().unwrap().node, held.node);
            rounds += 1;
        }
        assert_eq!(rounds, 3, "an op's row, a chunk, its bytes");

        // The challenger has nothing to prove, and loses by its clock.
        let dispute = scene.told(id).await;
        let early = market.play(&scene.relay, &dispute, &Move::Timeout).await;
        assert!(refusal(early).contains("lasts until"));
        scene.net.advance(31).await;
        market
            .play(&scene.relay, &dispute, &Move::Timeout)
            .await
            .unwrap();
        let dispute = scene.told(id).await;
        assert_eq!(dispute.game.phase, Phase::Over(Outcome::Rejected));
        assert_eq!(dispute.conviction, None);
        assert_eq!(scene.dollars(scene.payout).await, BOND.0);
        assert_eq!(
            scene.dollars(doubt.challenger.address()).await,
            THOUSAND.0 - BOND.0
        );
    });
}

#[test]
fn a_game_needs_the_models_manifest_and_anybody_publishes_it_once() {
    on_every_chain(|scene| async move {
        let market = &scene.market;
        let model = manifest(Architecture::Gemma3, DIMS);
        let sampler = SamplerParams::greedy(3);
        let counts = (&PROMPT[..], &OUTPUT[..]);
        let receipt = scene.receipt(&model, counts, &sampler, StopReason::MaxTokens);
        let receipt = receipt.await;
        let challenger = scene.challenger().await;
        let early = market.open_dispute(&challenger, &receipt, &sampler).await;
        assert!(refusal(early).contains("publish it first"));
        assert!(!market.is_published(model.id()).await.unwrap());
        let manifest = model.encode();
        let stored = market.publish_model(&scene.relay, &manifest).await.unwrap();
        let again = market.publish_model(&challenger, &manifest).await.unwrap();
        assert!(again.gas_used * 2 < stored.gas_used, "it is stored once");
        let opened = market.open_dispute(&challenger, &receipt, &sampler).await;
        opened.expect("the game opens");
    });
}

#[test]
fn a_provider_that_says_nothing_loses_its_stake_by_the_clock() {
    on_every_chain(|scene| async move {
        let market = &scene.market;
        let doubt = scene.doubt().await;
        let payer = scene.payer.address();
        let before = scene.dollars(payer).await;
        let id = scene.open_game(&doubt).await;
        let unbond = market.unbond(&scene.owner, STAKE).await;
        unbond.expect("asking is allowed");
        scene.net.advance(200).await;
        // The stake has unbonded, and stays for as long as the game is open.
        let escape = market.withdraw_stake(&scene.owner).await;
        assert!(refusal(escape).contains("stays in"));
        market
            .timeout(
                &scene.relay,
                &doubt.receipt.body,
                doubt.challenger.address(),
            )
            .await
            .unwrap();

        let dispute = scene.told(id).await;
        assert_eq!(dispute.game.phase, Phase::Over(Outcome::Convicted));
        let conviction = dispute.conviction.expect("it is convicted");
        assert_eq!(conviction.winner, doubt.challenger.address());
        assert_eq!(conviction.game, Some(id));
        assert_eq!(conviction.stake, STAKE);
        assert_eq!(conviction.to_winner.0, STAKE.0 * 30 / 100);
        assert_eq!(conviction.to_payer.0, STAKE.0 * 20 / 100);
        assert_eq!(conviction.burned.0, STAKE.0 / 2);
        assert_eq!(scene.dollars(payer).await, before + STAKE.0 * 20 / 100);
        assert_eq!(
            scene.dollars(doubt.challenger.address()).await,
            THOUSAND.0 + STAKE.0 * 30 / 100
        );
        let provider = market.provider(scene.owner.address()).await.unwrap();
        let provider = provider.expect("it is known");
        assert_eq!(
            (provider.stake, provider.unbonding),
            (MicroUsd::ZERO, MicroUsd::ZERO)
        );
        assert!(!provider.active);

        let again = market
            .open_dispute(&doubt.challenger, &doubt.receipt, &doubt.sampler)
            .await;
        assert!(refusal(again).contains("could be doubted for"));
    });
}

#[test]
fn a_fact_convicts_without_a_game_and_every_open_game_gets_its_bond_back() {
    on_every_chain(|scene| async move {
        let market = &scene.market;
        let mut doubt = scene.doubt().await;
        // Three tokens were given, and four asked for.
        doubt.sampler = SamplerParams::greedy(4);
        let counts = (&PROMPT[..], &OUTPUT[..]);
        doubt.receipt = scene
            .receipt(&doubt.model, counts, &doubt.sampler, StopReason::MaxTokens)
            .await;
        let id = scene.open_game(&doubt).await;
        let stranger = scene.net.key().await;
        let fact = Fact {
            kind: FactKind::NotAtTheLimit,
            position: 0,
            tokens: Vec::new(),
            sampler: doubt.sampler.encode(),
        };
        let holds = Fact {
            kind: FactKind::TooManyTokens,
            ..fact.clone()
        };
        let held = market.prove_fact(&stranger, &doubt.receipt, &holds).await;
        assert!(refusal(held).contains("shows nothing false"));
        let mut forged = doubt.receipt;
        forged.signature = stranger.sign(forged.body, &market.domain()).signature;
        let refused = market.prove_fact(&stranger, &forged, &fact).await;
        assert!(refusal(refused).contains("was no offer key"));

        market
            .prove_fact(&stranger, &doubt.receipt, &fact)
            .await
            .unwrap();
        let reward = scene.dollars(stranger.address()).await;
        assert_eq!(reward, STAKE.0 * 30 / 100);
        let dispute = scene.told(id).await;
        assert_eq!(dispute.game.phase, Phase::Decided);
        assert_eq!(dispute.conviction.unwrap().game, None);
        market
            .play(&scene.relay, &dispute, &Move::Close)
            .await
            .unwrap();
        let dispute = scene.told(id).await;
        assert_eq!(dispute.game.phase, Phase::Over(Outcome::Closed));
        assert_eq!(scene.dollars(doubt.challenger.address()).await, THOUSAND.0);
    });
}

#[test]
fn two_receipts_for_one_request_convict() {
    on_every_chain(|scene| async move {
        let market = &scene.market;
        let doubt = scene.doubt().await;
        let stranger = scene.net.key().await;
        let same = market
            .equivocation(&stranger, &doubt.receipt, &doubt.receipt)
            .await;
        assert!(refusal(same).contains("not two receipts"));
        let other = Receipt {
            charged: MicroUsd(9),
            ..doubt.receipt.body
        };
        let other = scene.offer.sign(other, &market.domain());
        market
            .equivocation(&stranger, &doubt.receipt, &other)
            .await
            .unwrap();
        assert_eq!(scene.dollars(stranger.address()).await, STAKE.0 * 30 / 100);
        for receipt in [doubt.receipt, other] {
            let digest = receipt.body.digest(&market.domain());
            let opened = market
                .open_dispute(&doubt.challenger, &receipt, &doubt.sampler)
                .await;
            assert!(refusal(opened).contains(&digest.to_string()));
        }
    });
}

#[test]
fn games_are_found_by_provider_challenger_receipt_and_whether_they_are_open() {
    on_every_chain(|scene| async move {
        let market = &scene.market;
        let doubt = scene.doubt().await;
        let first = scene.open_game(&doubt).await;
        let other = Doubt {
            challenger: scene.challenger().await,
            ..scene.doubt().await
        };
        let second = scene.open_game(&other).await;
        let ids = |filter: DisputeFilter| {
            let market = market.clone();
            async move {
                let found = market.disputes(&filter).await.unwrap();
                found.iter().map(|d| d.game.id).collect::<Vec<_>>()
            }
        };
        let all = DisputeFilter::default();
        assert_eq!(ids(all).await, [first, second]);
        let provider = Some(scene.owner.address());
        assert_eq!(
            ids(DisputeFilter { provider, ..all }).await,
            [first, second]
        );
        let provider = Some(Address::repeat_byte(1));
        assert!(ids(DisputeFilter { provider, ..all }).await.is_empty());
        let challenger = Some(other.challenger.address());
        assert_eq!(ids(DisputeFilter { challenger, ..all }).await, [second]);
        let receipt = Some(doubt.receipt.body.digest(&market.domain()));
        let of_receipt = ids(DisputeFilter { receipt, ..all }).await;
        assert!(of_receipt.contains(&first));

        // Both wait for the provider, who is late: one is ended, and the other is still to end.
        scene.net.advance(31).await;
        market
            .timeout(
                &scene.relay,
                &other.receipt.body,
                other.challenger.address(),
            )
            .await
            .unwrap();
        let open = DisputeFilter { open: true, ..all };
        assert_eq!(ids(open).await, [first]);
        assert_eq!(ids(all).await, [first, second]);
        // Another process, which has seen nothing yet, is told the same.
        let chain = scene.net.second_handle().await;
        let elsewhere = chain.market(market.deployment().clone()).await.unwrap();
        let found = elsewhere.disputes(&all).await.unwrap();
        assert_eq!(found, market.disputes(&all).await.unwrap());
        assert_eq!(market.dispute(B256::ZERO).await.unwrap(), None);
    });
}
