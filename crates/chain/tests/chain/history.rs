//! Random moves of everybody, then the market rebuilt from its events alone: not one view may differ.
//! `ASSAY_HISTORY_SEED` repeats a run.

use assay_chain::{ChainError, DisputeFilter, Mined};
use assay_protocol::{B256, MicroUsd, Service, ServiceRecord};

use crate::dispute::Doubt;
use crate::market::on_every_chain;
use crate::settlement::{NOTHING, served};
use crate::support::Scene;

const MOVES: u32 = 90;

/// Numbers that look random and can be had again.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) % sides
    }
}

/// What the players remember.
#[derive(Default)]
struct Played {
    /// By channel: what was posted last.
    records: [Option<ServiceRecord>; 3],
    doubt: Option<Doubt>,
    convicted: u32,
    done: u32,
    refused: u32,
}

/// A contract may refuse a random move; the chain must not fail.
fn take(played: &mut Played, result: Result<Mined, ChainError>) {
    match result {
        Ok(_) => played.done += 1,
        Err(ChainError::Refused { .. }) => played.refused += 1,
        Err(error) => panic!("{error}"),
    }
}

async fn play(scene: &Scene, dice: &mut Dice, played: &mut Played) {
    let (market, provider) = (&scene.market, scene.owner.address());
    let salt = dice.roll(3) as u8 + 1;
    let amount = MicroUsd(dice.roll(20_000) + 1);
    let config = scene.config(salt).await;
    let moved = match dice.roll(20) {
        0 | 1 => market.open_channel(&scene.payer, &config, amount).await,
        2 | 3 => {
            let claim = scene.voucher(salt, amount.0, amount.0).await;
            market.claim(&scene.relay, &scene.offer, &[claim]).await
        }
        4 => {
            market
                .refund(&scene.relay, &scene.offer, &config, amount)
                .await
        }
        5 => {
            market
                .initiate_withdraw(&scene.payer, &config, amount)
                .await
        }
        6 => market.finalize_withdraw(&scene.payer, &config).await,
        7 => market.settle(&scene.relay, config.receiver).await,
        8 => market.collect(&scene.relay, provider).await,
        9 => market.release(&scene.relay, provider).await,
        10 => market.unbond(&scene.owner, MicroUsd(amount.0 * 500)).await,
        11 => {
            market
                .add_stake(&scene.owner, MicroUsd(amount.0 * 2_000))
                .await
        }
        12 => market.withdraw_stake(&scene.owner).await,
        13 => {
            scene.net.advance(dice.roll(400)).await;
            return;
        }
        14 | 15 => return post(scene, dice, played, salt).await,
        16 => {
            let endpoint = format!("http://127.0.0.1:{}", amount.0);
            market.update_endpoint(&scene.owner, &endpoint).await
        }
        17 => {
            let models = vec![B256::repeat_byte(salt); usize::from(salt)];
            market.update_models(&scene.owner, &models).await
        }
        18 => market.release_from_jail(&scene.owner).await,
        _ => return dispute(scene, played).await,
    };
    take(played, moved);
}

/// A record of more than before, with and without the provider.
async fn post(scene: &Scene, dice: &mut Dice, played: &mut Played, salt: u8) {
    let slot = usize::from(salt) - 1;
    let before = played.records[slot];
    let counter_signed = dice.roll(3) > 0;
    let mut service: Service = before.map_or_else(Service::default, |record| record.service);
    if counter_signed {
        let more = served(&[dice.roll(50) + 1], 0);
        service.revenue = MicroUsd(service.revenue.0 + more.revenue.0);
        service.requests += more.requests;
        service.prompt_tokens += more.prompt_tokens;
        service.output_tokens += more.output_tokens;
        service.ttft.0[dice.roll(8) as usize] += 1;
        service.speed.0[dice.roll(8) as usize] += 1;
    }
    service.failures += dice.roll(2) as u32;
    let record = scene.record(salt, service).await;
    let post = scene
        .post(salt, before.unwrap_or(NOTHING), record, counter_signed)
        .await;
    let posted = scene.market.post_service(&scene.relay, &post).await;
    if posted.is_ok() {
        played.records[slot] = Some(record);
    }
    take(played, posted);
}

/// Opens a game, which holds money back, or ends the open one by its clock; now and then a conviction.
async fn dispute(scene: &Scene, played: &mut Played) {
    // A receipt is of the newest block's time: let that be now.
    let minted = scene
        .market
        .mint(&scene.relay, scene.payout, MicroUsd(1))
        .await;
    take(played, minted);
    let Some(doubt) = played.doubt.take() else {
        played.convicted += 1;
        // A slashed provider has less and less to lose.
        if played.convicted.is_multiple_of(2) {
            scene.convict(100 + played.convicted).await;
            played.done += 1;
            return;
        }
        let doubt = scene.doubt().await;
        scene.open_game(&doubt).await;
        played.done += 1;
        played.doubt = Some(doubt);
        return;
    };
    scene.net.advance(60).await;
    let receipt = &doubt.receipt.body;
    let ended = scene
        .market
        .timeout(&scene.relay, receipt, doubt.challenger.address())
        .await;
    take(played, ended);
}

#[test]
fn the_events_alone_tell_all_that_the_views_say() {
    let seed = std::env::var("ASSAY_HISTORY_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let mut word = [0u8; 8];
    getrandom::fill(&mut word).unwrap();
    let seed = seed.unwrap_or(u64::from_le_bytes(word));
    println!("seed {seed}");
    on_every_chain(move |scene| async move {
        let (mut dice, mut played) = (Dice(seed), Played::default());
        // Enough to lose, so that most moves are possible.
        let stake = MicroUsd(400_000_000);
        scene.market.add_stake(&scene.owner, stake).await.unwrap();
        for salt in 1..=3 {
            scene.open(salt, 50_000).await;
        }
        for round in 1..=MOVES {
            play(&scene, &mut dice, &mut played).await;
            if round % 30 == 0 {
                let history = scene.market.history().await.unwrap();
                let differences = scene.market.differences(&history).await.unwrap();
                assert!(differences.is_empty(), "seed {seed}: {differences:#?}");
            }
        }
        println!("{} moves, {} refused", played.done, played.refused);
        assert!(played.done > MOVES / 4, "most moves are possible");
        // A look at what was compared: nothing is empty.
        let history = scene.market.history().await.unwrap();
        assert_eq!((history.channels.len(), history.providers.len()), (3, 1));
        let open = DisputeFilter::default();
        assert_eq!(
            scene.market.disputes(&open).await.unwrap().is_empty(),
            played.convicted == 0
        );
    });
}

#[test]
fn a_history_that_was_tampered_with_differs_from_the_views() {
    on_every_chain(|scene| async move {
        scene.open(1, 1_000).await;
        let claim = scene.voucher(1, 400, 400).await;
        let market = &scene.market;
        market
            .claim(&scene.relay, &scene.offer, &[claim])
            .await
            .unwrap();
        market
            .collect(&scene.relay, scene.owner.address())
            .await
            .unwrap();
        let history = market.history().await.unwrap();
        assert!(market.differences(&history).await.unwrap().is_empty());
        let id = claim.voucher.voucher.channel_id;
        let owner = scene.owner.address();
        let mut tampered = [history.clone(), history.clone(), history.clone(), history];
        tampered[0].channels.get_mut(&id).unwrap().1.balance = MicroUsd(1_001);
        tampered[1].vaults.get_mut(&owner).unwrap().released = 1;
        tampered[2].providers.get_mut(&owner).unwrap().stake = MicroUsd(1);
        tampered[3].scores.get_mut(&owner).unwrap().convictions = 1;
        for (case, words) in tampered
            .iter()
            .zip(["channel", "vault", "provider", "score"])
        {
            let differences = market.differences(case).await.unwrap();
            assert_eq!(differences.len(), 1, "{words}");
            assert!(differences[0].what.starts_with(words), "{differences:?}");
        }
    });
}
