//! A payment that is dropped at any moment, as by a kill, leaves books that find the chain's balances again, over a real
//! embedded chain. Prints its seed.

use std::path::Path;
use std::time::Duration;

use assay_chain::{Chain, DeployParams, EmbeddedConfig, Key, Market};
use assay_payments::payer::{Lane, Payee};
use assay_payments::{LedgerError, PayerLedger, Terms};
use assay_protocol::{Address, B256, MicroUsd, Timestamp, keccak256};
use tempfile::TempDir;

use super::{Ask, Lanes};
use crate::config::{ChainPatience, Spending};

const FUNDS: MicroUsd = MicroUsd(100_000_000);
const DEPOSIT: MicroUsd = MicroUsd(1_000);

/// A chain with contracts and a payer that has money.
async fn world() -> (Market, Key) {
    let chain = Chain::embedded(EmbeddedConfig::in_memory()).await.unwrap();
    let (faucet, payer) = (Key::random().unwrap(), Key::random().unwrap());
    let deployment = chain
        .deploy(&faucet, &DeployParams::devnet())
        .await
        .unwrap();
    let market = chain.market(deployment).await.unwrap();
    market.mint(&faucet, payer.address(), FUNDS).await.unwrap();
    (market, payer)
}

fn payee(market: &Market) -> Payee {
    let terms = Terms::usual(
        market.channel_domain(),
        market.token_domain(),
        Address::repeat_byte(0x11),
        Address::repeat_byte(0x22),
    );
    Payee::from(&terms.requirements(MicroUsd::ZERO))
}

/// Opens the books; work that a killed payment left on a thread may hold them for a moment.
async fn lanes(path: &Path, market: &Market, payer: &Key) -> Lanes {
    let ledger = loop {
        match PayerLedger::open(path, market.channel_domain()) {
            Ok(ledger) => break ledger,
            Err(LedgerError::Locked(_)) => tokio::time::sleep(Duration::from_millis(1)).await,
            Err(error) => panic!("{error}"),
        }
    };
    let spending = Spending {
        deposit: DEPOSIT,
        lanes_per_provider: 3,
        ..Spending::default()
    };
    Lanes::new(
        ledger,
        market.clone(),
        payer.clone(),
        spending,
        ChainPatience::default(),
    )
}

/// The books against the chain, channel by channel, and the account against both.
async fn agree(lanes: &Lanes, market: &Market, payer: &Key) -> u64 {
    let channels = market.channels_of_payer(payer.address()).await.unwrap();
    let mut sum = 0;
    for (config, state) in channels {
        let id = market.channel_id(&config).unwrap();
        let lane = lanes.all().into_iter().find(|lane| lane.channel_id == id);
        let lane = lane.expect("every channel is in the books");
        assert_eq!(lane.balance, state.balance);
        sum += state.balance.0;
    }
    let books: u64 = lanes.all().iter().map(|lane: &Lane| lane.balance.0).sum();
    assert_eq!(books, sum);
    assert_eq!(lanes.held().0, sum, "nothing is on its way");
    let left = market.balance(payer.address()).await.unwrap();
    assert_eq!(FUNDS.0 - left.0, sum, "no deposit was made twice");
    sum
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_killed_at_any_moment_leaves_books_that_find_the_chains_balances() {
    let seed = 7u64;
    println!("seed {seed}");
    let (dir, (market, payer)) = (TempDir::new().unwrap(), world().await);
    let path = dir.path().join("lanes.redb");
    drop(PayerLedger::create(&path, market.channel_domain()).unwrap());
    let mut killed = 0;
    for round in 0..40u64 {
        let lanes = lanes(&path, &market, &payer).await;
        let draw = keccak256([seed.to_be_bytes(), round.to_be_bytes()].concat());
        let ask = Ask {
            payee: payee(&market),
            ceiling: MicroUsd(300),
            request_id: draw,
            now: Timestamp(1),
        };
        // From at once to about as long as a deposit takes here.
        let micros = u64::from(u16::from_be_bytes([draw[0], draw[1]])) % 12_000;
        let paid = tokio::time::timeout(Duration::from_micros(micros), lanes.pay(ask)).await;
        match paid {
            Ok(payment) => {
                let answer = assay_protocol::Answered {
                    charged: MicroUsd(100),
                    prompt_tokens: 1,
                    output_tokens: 1,
                    ttft: assay_protocol::DurationMs(1),
                    rest: assay_protocol::DurationMs(1),
                };
                let payment = payment.unwrap();
                lanes.answered(&payment.paid, answer).await.unwrap();
            }
            Err(_) => killed += 1,
        }
    }
    assert!(killed > 0, "no payment was killed");
    let lanes = lanes(&path, &market, &payer).await;
    lanes.look_at_all().await.unwrap();
    lanes.look_at_all().await.unwrap();
    let sum = agree(&lanes, &market, &payer).await;
    assert!(sum > 0 && sum.is_multiple_of(DEPOSIT.0));
    assert!(lanes.all().len() <= 3);
    // An answer is counted with its charge or not at all.
    for lane in lanes.all() {
        assert_eq!(lane.service.revenue, lane.charged);
        assert_eq!(u64::from(lane.service.requests) * 100, lane.charged.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lanes_under_terms_that_their_payee_does_not_keep_are_closed_and_not_used() {
    let (dir, (market, payer)) = (TempDir::new().unwrap(), world().await);
    let path = dir.path().join("lanes.redb");
    drop(PayerLedger::create(&path, market.channel_domain()).unwrap());
    let lanes = lanes(&path, &market, &payer).await;
    let old = payee(&market);
    let new = Payee {
        authorizer: Address::repeat_byte(0x33),
        ..old
    };
    let ask = |payee, n| Ask {
        payee,
        ceiling: MicroUsd(300),
        request_id: B256::repeat_byte(n),
        now: Timestamp(1),
    };
    let first = lanes.pay(ask(old, 1)).await.unwrap();
    lanes.refused(&first.paid).await.unwrap();
    let second = lanes.pay(ask(new, 2)).await.unwrap();
    assert_ne!(first.paid.channel_id(), second.paid.channel_id());
    assert_eq!(lanes.close_outdated(new).await.unwrap(), 1);
    let asked = lanes.look_at_all().await.unwrap();
    assert_eq!(asked.len(), 1);
    assert_eq!(
        (asked[0].0.channel_id, asked[0].1),
        (first.paid.channel_id(), DEPOSIT)
    );
}
