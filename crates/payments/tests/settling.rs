//! When claims pay, and what the chain's word does to the books. Random cases print their seed.

mod common;

use std::sync::LazyLock;

use assay_payments::payee::{Account, OnChain, Refusal};
use assay_payments::payee_chain::{DepositStep, PendingDeposit, Seen, to_read};
use assay_payments::payee_claims::{ClaimPolicy, GasPrice, due, pays};
use assay_payments::x402::Code;
use assay_payments::{AcceptError, PayeeLedger};
use assay_protocol::channel::DepositAuthorization;
use assay_protocol::{B256, MicroUsd, Signature, Timestamp, keccak256};
use common::{Key, NOW, config, on_chain, presented, receipt, terms};
use tempfile::TempDir;

/// A ledger in which one channel of a hundred was charged this much.
fn charged(dir: &TempDir, amount: u64) -> (PayeeLedger, B256) {
    let mut ledger = PayeeLedger::create(&dir.path().join("payee.redb"), terms()).unwrap();
    let payment = presented(&Key::new(1), amount, amount, amount, 1);
    let reservation = ledger.accept(&payment, on_chain(100), NOW).unwrap();
    let receipt = receipt(reservation.channel_id, 1, amount, amount);
    ledger.charge(&reservation, &receipt, NOW).unwrap();
    (ledger, reservation.channel_id)
}

/// An account as a ledger keeps it, made once.
static ACCOUNT: LazyLock<Account> = LazyLock::new(|| {
    let dir = TempDir::new().unwrap();
    let (ledger, id) = charged(&dir, 10);
    ledger.account(&id).unwrap().clone()
});

fn account(n: u8, charged: u64, since: u64) -> Account {
    let mut account = ACCOUNT.clone();
    account.channel_id = B256::repeat_byte(n);
    account.charged = MicroUsd(charged);
    account.chain.balance = MicroUsd(u64::MAX);
    account.unclaimed_since = Some(Timestamp(since));
    account
}

fn later(seconds: u64) -> Timestamp {
    NOW.plus_seconds(seconds)
}

const FREE: GasPrice = GasPrice {
    wei: 0,
    coin: MicroUsd(0),
};

/// One micro-dollar for so much gas.
fn gas_for_a_micro_dollar(gas: u128) -> GasPrice {
    GasPrice {
        wei: 1_000_000_000_000 / gas,
        coin: MicroUsd(1_000_000),
    }
}

fn seen(balance: u64, claimed: u64, settled: u64) -> Seen {
    Seen {
        newest: OnChain {
            claimed: MicroUsd(claimed),
            ..on_chain(balance)
        },
        settled_claims: MicroUsd(settled),
    }
}

#[test]
fn claims_wait_for_value_or_age() {
    let policy = ClaimPolicy {
        value: MicroUsd(50),
        age_s: 60,
        ..ClaimPolicy::USUAL
    };
    let accounts = [account(1, 20, NOW.0), account(2, 25, NOW.0 + 30)];
    let rows = |policy: &ClaimPolicy, at| due(&accounts, policy, &FREE, later(at)).len();
    assert_eq!(rows(&policy, 59), 0);
    assert_eq!(rows(&policy, 60), 2, "who rides along is cheaper now");
    let lower = ClaimPolicy {
        value: MicroUsd(45),
        ..policy
    };
    assert_eq!(rows(&lower, 0), 2);
}

#[test]
fn gas_may_take_its_share_and_no_more_until_patience_ends() {
    // 90,000 gas for one row, at a micro-dollar for a thousand: ninety micro-dollars, of which the row is thirty.
    let price = gas_for_a_micro_dollar(1_000);
    let policy = ClaimPolicy {
        value: MicroUsd(1),
        ..ClaimPolicy::USUAL
    };
    let check = |charged, waited, rows| {
        let accounts = [account(1, charged, NOW.0)];
        let told = due(&accounts, &policy, &price, later(waited));
        assert_eq!(told.len(), rows, "{charged} after {waited} s");
    };
    check(4_499, 0, 0);
    check(4_500, 0, 1);
    check(4_499, policy.age_most_s - 1, 0);
    check(4_499, policy.age_most_s, 1);
    check(90, policy.age_most_s, 1);
    check(89, policy.age_most_s, 0);
}

#[test]
fn a_payer_who_leaves_is_claimed_from_first_if_it_is_worth_its_gas() {
    let price = gas_for_a_micro_dollar(1_000);
    let mut leaving = account(9, 95, NOW.0);
    leaving.chain.withdraw_requested_at = NOW;
    let rich = account(1, 40_000, NOW.0);
    let policy = ClaimPolicy {
        value: MicroUsd(u64::MAX),
        ..ClaimPolicy::USUAL
    };
    let accounts = [rich.clone(), leaving.clone()];
    let told = due(&accounts, &policy, &price, NOW);
    assert_eq!(told, [&leaving, &rich], "without waiting for value or age");
    leaving.charged = MicroUsd(29);
    let accounts = [rich, leaving];
    assert!(due(&accounts, &policy, &price, NOW).is_empty());
}

#[test]
fn whatever_is_due_pays_and_dearer_gas_never_makes_more_due() {
    let mut random = 0x5eed_u64;
    println!("seed {random}");
    let mut draw = |n: u64| {
        random = u64::from_be_bytes(keccak256(random.to_be_bytes()).0[..8].try_into().unwrap());
        random % n
    };
    for _ in 0..60 {
        let accounts: Vec<Account> = (0..8)
            .map(|n| {
                let scale = 10u64.pow(u32::try_from(draw(7)).unwrap());
                let (charged, since) = (draw(100 * scale), NOW.0 - draw(400_000));
                let mut account = account(n, charged, since);
                account.chain.claimed = MicroUsd(draw(charged + 1));
                if draw(4) == 0 {
                    account.chain.balance =
                        MicroUsd(draw(charged + 1).max(account.chain.claimed.0));
                }
                if draw(4) == 0 {
                    account.chain.withdraw_requested_at = NOW;
                }
                account
            })
            .collect();
        let policy = ClaimPolicy {
            value: MicroUsd(draw(1_000_000)),
            batch_max: 1 + usize::try_from(draw(8)).unwrap(),
            ..ClaimPolicy::USUAL
        };
        let mut before = usize::MAX;
        for wei in [0, 1_000_000, 1_000_000_000, 30_000_000_000, u128::MAX] {
            let price = GasPrice {
                wei,
                coin: MicroUsd(2_500_000_000),
            };
            let told = due(&accounts, &policy, &price, NOW);
            assert!(told.len() <= before && told.len() <= policy.batch_max);
            before = told.len();
            let rows = u64::try_from(told.len()).unwrap();
            let cost = price.cost(60_000 + 30_000 * rows);
            let value: u64 = told.iter().map(|account| account.claimable().0).sum();
            assert!(told.is_empty() || cost.0 <= value, "never at a loss");
            assert!(told.is_empty() || pays(told.iter().copied(), &policy, cost, NOW));
            assert!(told.iter().all(|account| account.claimable() > MicroUsd(0)));
            let firsts = told
                .iter()
                .take_while(|account| account.is_leaving())
                .count();
            assert!(!told[firsts..].iter().any(|account| account.is_leaving()));
        }
    }
}

#[test]
fn a_claim_that_a_reorganization_took_is_due_again() {
    let dir = TempDir::new().unwrap();
    let (mut ledger, id) = charged(&dir, 40);
    let policy = ClaimPolicy::USUAL.at_once();
    let rows = |ledger: &PayeeLedger| due(ledger.accounts(), &policy, &FREE, NOW).len();
    assert_eq!(rows(&ledger), 1);
    ledger.see(&[(id, seen(100, 40, 0))], NOW).unwrap();
    assert_eq!(rows(&ledger), 0);
    assert!(ledger.account(&id).unwrap().is_settling());
    assert_eq!(ledger.totals(), (MicroUsd(40), MicroUsd(0)));
    // The block is gone, and with it what was claimed.
    ledger.see(&[(id, seen(100, 0, 0))], later(9)).unwrap();
    assert_eq!(rows(&ledger), 1);
    assert_eq!(ledger.totals(), (MicroUsd(40), MicroUsd(40)));
    drop(ledger);
    let mut ledger = PayeeLedger::open(&dir.path().join("payee.redb"), terms()).unwrap();
    assert_eq!(rows(&ledger), 1, "on disk as well");
    ledger.see(&[(id, seen(100, 40, 40))], later(20)).unwrap();
    let account = ledger.account(&id).unwrap();
    assert!(!account.is_open() && !account.is_settling());
}

#[test]
fn channels_that_matter_are_read_again_the_longest_unseen_first() {
    let at = |n, read_at| Account {
        read_at: Timestamp(read_at),
        ..account(n, 10, NOW.0)
    };
    let (old, older, fresh) = (at(1, NOW.0 - 100), at(2, NOW.0 - 200), at(3, NOW.0));
    let mut settling = at(4, NOW.0);
    settling.chain.claimed = MicroUsd(10);
    let mut over = at(5, 0);
    (over.chain.claimed, over.settled_claims) = (MicroUsd(10), MicroUsd(10));
    let all = [old, older, fresh, settling, over];
    let id = |n| B256::repeat_byte(n);
    assert_eq!(to_read(&all, 60, 9, NOW), [id(2), id(1), id(4)]);
    assert_eq!(to_read(&all, 60, 1, NOW), [id(2)]);
    assert_eq!(to_read(&all, 0, 9, NOW), [id(2), id(1), id(3), id(4)]);
}

fn pending(valid_before: Timestamp) -> PendingDeposit {
    let config = config(&Key::new(1), 0);
    PendingDeposit {
        channel_id: config.id(&terms().channels).unwrap(),
        config,
        amount: MicroUsd(100),
        authorization: DepositAuthorization {
            valid_after: Timestamp(0),
            valid_before,
            salt: B256::repeat_byte(5).into(),
            signature: Signature(Default::default()),
        },
        taken_at: NOW,
    }
}

#[test]
fn a_deposit_is_kept_until_it_is_settled_or_can_never_come() {
    let deposit = pending(later(600));
    let check = |arrived, settled, at, step| assert_eq!(deposit.step(arrived, settled, at), step);
    check(false, false, NOW, DepositStep::Submit);
    check(true, false, NOW, DepositStep::Wait);
    check(true, true, NOW, DepositStep::Settled);
    check(true, false, later(10_000), DepositStep::Wait);
    check(false, false, later(700), DepositStep::Submit);
    check(false, false, later(721), DepositStep::Expired);
}

#[test]
fn a_deposit_outlives_the_process_that_submitted_it() {
    let dir = TempDir::new().unwrap();
    let (mut ledger, _) = charged(&dir, 10);
    let deposit = pending(later(600));
    ledger.entrust(deposit.clone()).unwrap();
    drop(ledger);
    let path = dir.path().join("payee.redb");
    let mut ledger = PayeeLedger::open(&path, terms()).unwrap();
    assert_eq!(ledger.deposits().collect::<Vec<_>>(), [&deposit]);
    ledger.forget_deposit(&deposit.nonce()).unwrap();
    drop(ledger);
    assert_eq!(
        PayeeLedger::open(&path, terms())
            .unwrap()
            .deposits()
            .count(),
        0
    );
}

#[test]
fn a_refund_gives_back_what_is_neither_charged_nor_reserved() {
    let dir = TempDir::new().unwrap();
    let (mut ledger, id) = charged(&dir, 10);
    let key = Key::new(1);
    let at = presented(&key, 10, 0, 0, 2);
    let refusal = |ledger: &mut PayeeLedger, presented, asked: Option<u64>, chain| match ledger
        .refund(&presented, asked.map(MicroUsd), chain, NOW)
    {
        Err(AcceptError::Refused(refusal)) => refusal.code(),
        other => panic!("expected a refusal, got {other:?}"),
    };
    // More than is left, a voucher that takes back what was charged, and somebody else's.
    assert_eq!(
        refusal(&mut ledger, at, Some(91), on_chain(100)),
        Code::RefundAmount
    );
    assert_eq!(
        refusal(&mut ledger, at, Some(0), on_chain(100)),
        Code::RefundAmount
    );
    assert_eq!(
        refusal(&mut ledger, at, None, on_chain(10)),
        Code::RefundNoBalance
    );
    let less = presented(&key, 9, 0, 0, 2);
    assert_eq!(
        refusal(&mut ledger, less, None, on_chain(100)),
        Code::CumulativeAmountMismatch
    );
    let mut stolen = at;
    stolen.voucher.signature = Key::new(2).sign(&B256::ZERO);
    assert_eq!(
        refusal(&mut ledger, stolen, None, on_chain(100)),
        Code::VoucherSignature
    );

    let plan = ledger.refund(&at, None, on_chain(100), NOW).unwrap();
    assert_eq!(
        (plan.amount, plan.claim),
        (MicroUsd(90), Some(MicroUsd(10)))
    );
    // Neither a request nor another refund while it is on its way.
    assert_eq!(
        refusal(&mut ledger, at, None, on_chain(100)),
        Code::ChannelBusy
    );
    let request = presented(&key, 40, 30, 30, 3);
    assert!(matches!(
        ledger.accept(&request, on_chain(100), NOW),
        Err(AcceptError::Refused(Refusal::Busy))
    ));
    ledger.release(&plan.reservation).unwrap();
    let some = ledger
        .refund(&at, Some(MicroUsd(30)), on_chain(100), NOW)
        .unwrap();
    assert_eq!(some.amount, MicroUsd(30));
    assert_eq!(ledger.account(&id).unwrap().charged, MicroUsd(10));
}

#[test]
fn a_request_that_runs_keeps_its_money_from_a_refund() {
    let dir = TempDir::new().unwrap();
    let (mut ledger, _) = charged(&dir, 10);
    let key = Key::new(1);
    let running = presented(&key, 40, 30, 30, 2);
    ledger.accept(&running, on_chain(100), NOW).unwrap();
    assert!(matches!(
        ledger.refund(&presented(&key, 10, 0, 0, 3), None, on_chain(100), NOW),
        Err(AcceptError::Refused(Refusal::Busy))
    ));
}
