//! The payer never forgets a promise, never makes two on one lane, and believes a provider only what it can prove.

mod common;

use assay_payments::payee::Presented;
use assay_payments::payer::{LaneError, LaneState, Payee};
use assay_payments::x402::{Literal2, Payload, PaymentRequired, PaymentRequirements, ResourceInfo};
use assay_payments::{AcceptError, Paid, PayeeLedger, PayerLedger, PayerLedgerError};
use assay_protocol::MicroUsd;
use common::{Key, NOW, config, on_chain, receipt, request, terms};
use tempfile::TempDir;

fn payer(dir: &TempDir) -> PayerLedger {
    PayerLedger::open(&dir.path().join("payer.redb"), terms().channels).unwrap()
}

fn payee() -> Payee {
    Payee::from(&terms().requirements(MicroUsd(0)))
}

fn with_lanes(dir: &TempDir, key: &Key, lanes: u8) -> PayerLedger {
    let path = dir.path().join("payer.redb");
    let mut ledger = PayerLedger::create(&path, terms().channels).unwrap();
    for lane in 0..lanes {
        ledger
            .add(config(key, lane), MicroUsd(100), MicroUsd(0))
            .unwrap();
    }
    ledger
}

fn pay(ledger: &mut PayerLedger, key: &Key, ceiling: u64, n: u8) -> Result<Paid, PayerLedgerError> {
    ledger.pay(&payee(), MicroUsd(ceiling), request(n), NOW, |digest| {
        key.sign(digest)
    })
}

fn presented(paid: &Paid) -> Presented {
    Presented {
        config: paid.config,
        voucher: paid.voucher,
        offered: paid.ceiling,
        required: paid.ceiling,
        request_id: paid.request_id,
    }
}

fn required(accepts: PaymentRequirements) -> PaymentRequired {
    let resource = ResourceInfo {
        url: "http://node/v1".into(),
        description: None,
        mime_type: None,
    };
    PaymentRequired {
        x402_version: Literal2,
        error: None,
        resource,
        accepts: vec![accepts],
        extensions: None,
    }
}

#[test]
fn concurrent_requests_take_different_lanes() {
    let (dir, key) = (TempDir::new().unwrap(), Key::new(1));
    let mut ledger = with_lanes(&dir, &key, 2);
    let (first, second) = (
        pay(&mut ledger, &key, 30, 1).unwrap(),
        pay(&mut ledger, &key, 30, 2).unwrap(),
    );
    assert_ne!(first.channel_id(), second.channel_id());
    assert!(matches!(
        pay(&mut ledger, &key, 30, 3),
        Err(PayerLedgerError::NoLane { .. })
    ));
    assert_eq!(ledger.totals(), (MicroUsd(0), MicroUsd(60)));
    ledger
        .settle(first.channel_id(), request(1), MicroUsd(7))
        .unwrap();
    assert_eq!(
        pay(&mut ledger, &key, 30, 3)
            .unwrap()
            .voucher
            .voucher
            .max_claimable,
        MicroUsd(37)
    );
}

#[test]
fn a_voucher_passes_the_payees_check_and_the_header() {
    let (dir, key) = (TempDir::new().unwrap(), Key::new(1));
    let paid = pay(&mut with_lanes(&dir, &key, 1), &key, 30, 1).unwrap();
    let header = assay_payments::x402::encode(&paid.payload(terms().requirements(MicroUsd(30))));
    let read: assay_payments::x402::PaymentPayload =
        assay_payments::x402::decode(header.as_bytes()).unwrap();
    let Payload::Voucher(body) = &read.payload else {
        panic!("expected a voucher")
    };
    assert_eq!(read.accepted, terms().requirements(MicroUsd(30)));
    let back = Presented {
        config: body.channel_config.into(),
        voucher: body.voucher.into(),
        ..presented(&paid)
    };
    assert_eq!(back, presented(&paid));
    back.check(&terms()).unwrap();
}

#[test]
fn a_crash_between_signing_and_the_answer_leaves_the_lane_unresolved() {
    let (dir, key) = (TempDir::new().unwrap(), Key::new(1));
    let mut before = with_lanes(&dir, &key, 1);
    let paid = pay(&mut before, &key, 30, 1).unwrap();
    drop(before); // The process dies: was it charged?
    let after = payer(&dir);
    let lane = after.lane(paid.channel_id()).unwrap();
    assert!(matches!(lane.state, LaneState::Unresolved(lost) if lost.request_id == request(1)));
    assert_eq!((lane.charged, lane.signed_max), (MicroUsd(0), MicroUsd(30)));
}

#[test]
fn a_lost_charge_is_found_again_by_the_corrective_answer() {
    let (dir, key) = (TempDir::new().unwrap(), Key::new(1));
    let mut payee = PayeeLedger::create(&dir.path().join("payee.redb"), terms()).unwrap();
    let mut before = with_lanes(&dir, &key, 1);
    let lost = pay(&mut before, &key, 30, 1).unwrap();
    let reservation = payee.accept(&presented(&lost), on_chain(100), NOW).unwrap();
    payee
        .charge(&reservation, &receipt(lost.channel_id(), 1, 12, 12), NOW)
        .unwrap();
    drop(before); // The answer never arrives.

    let mut after = payer(&dir);
    let stale = pay(&mut after, &key, 20, 2).unwrap();
    let refused = payee.accept(&presented(&stale), on_chain(100), NOW);
    assert!(matches!(refused, Err(AcceptError::Refused(_))));
    let account = payee.account(&lost.channel_id()).unwrap();
    let corrective = required(account.corrective(terms().requirements(MicroUsd(20))));
    assert!(after.correct(stale.channel_id(), &corrective).unwrap());
    let lane = after.lane(lost.channel_id()).unwrap();
    assert_eq!(
        (lane.charged, lane.signed_max),
        (MicroUsd(12), MicroUsd(30)),
        "the highest promise is not forgotten"
    );

    let again = after
        .pay_on(lost.channel_id(), MicroUsd(20), request(3), NOW, |digest| {
            key.sign(digest)
        })
        .unwrap();
    assert_eq!(again.voucher.voucher.max_claimable, MicroUsd(32));
    payee
        .accept(&presented(&again), on_chain(100), NOW)
        .unwrap();
}

#[test]
fn a_lost_request_that_was_never_charged_costs_nothing() {
    let (dir, key) = (TempDir::new().unwrap(), Key::new(1));
    pay(&mut with_lanes(&dir, &key, 1), &key, 30, 1).unwrap();
    let mut payee = PayeeLedger::create(&dir.path().join("payee.redb"), terms()).unwrap();
    let mut after = payer(&dir);
    let next = pay(&mut after, &key, 20, 2).unwrap();
    let reservation = payee.accept(&presented(&next), on_chain(100), NOW).unwrap();
    payee
        .charge(&reservation, &receipt(next.channel_id(), 2, 5, 5), NOW)
        .unwrap();
    after
        .settle(next.channel_id(), request(2), MicroUsd(5))
        .unwrap();
    let lane = after.lane(next.channel_id()).unwrap();
    assert_eq!(
        (lane.charged, lane.signed_max, lane.state),
        (MicroUsd(5), MicroUsd(30), LaneState::Idle)
    );
}

#[test]
fn a_provider_that_claims_more_than_was_promised_is_quarantined() {
    let (dir, key) = (TempDir::new().unwrap(), Key::new(1));
    let mut payee = PayeeLedger::create(&dir.path().join("payee.redb"), terms()).unwrap();
    let mut ledger = with_lanes(&dir, &key, 1);
    let paid = pay(&mut ledger, &key, 30, 1).unwrap();
    payee.accept(&presented(&paid), on_chain(100), NOW).unwrap();
    let account = payee.account(&paid.channel_id()).unwrap().clone();
    let mut lie = required(account.corrective(terms().requirements(MicroUsd(30))));
    let state = lie.accepts[0].extra.channel_state.as_mut().unwrap();
    state.charged_cumulative_amount = Some(assay_payments::x402::Amount(MicroUsd(30)));
    let error = ledger.correct(paid.channel_id(), &lie).unwrap_err();
    assert!(
        matches!(error, PayerLedgerError::Lane(LaneError::OverClaimed { .. })),
        "{error}"
    );
    drop(ledger);
    let mut after = payer(&dir);
    assert_eq!(
        after.lane(paid.channel_id()).unwrap().state,
        LaneState::Quarantined
    );
    assert!(matches!(
        pay(&mut after, &key, 1, 2),
        Err(PayerLedgerError::NoLane { .. })
    ));
}

#[test]
fn a_proof_that_the_payer_never_signed_is_not_believed() {
    let (dir, key) = (TempDir::new().unwrap(), Key::new(1));
    let mut payee = PayeeLedger::create(&dir.path().join("payee.redb"), terms()).unwrap();
    let mut ledger = with_lanes(&dir, &key, 1);
    let paid = pay(&mut ledger, &key, 30, 1).unwrap();
    payee.accept(&presented(&paid), on_chain(100), NOW).unwrap();
    let account = payee.account(&paid.channel_id()).unwrap().clone();
    let mut lie = required(account.corrective(terms().requirements(MicroUsd(30))));
    lie.accepts[0]
        .extra
        .voucher_state
        .as_mut()
        .unwrap()
        .signed_max_claimable = assay_payments::x402::Amount(MicroUsd(90));
    let error = ledger.correct(paid.channel_id(), &lie).unwrap_err();
    assert!(
        matches!(error, PayerLedgerError::Lane(LaneError::Proof(_))),
        "{error}"
    );
}

#[test]
fn an_overcharge_is_not_entered() {
    let (dir, key) = (TempDir::new().unwrap(), Key::new(1));
    let mut ledger = with_lanes(&dir, &key, 1);
    let paid = pay(&mut ledger, &key, 30, 1).unwrap();
    assert!(
        ledger
            .settle(paid.channel_id(), request(1), MicroUsd(31))
            .is_err()
    );
    assert_eq!(ledger.lane(paid.channel_id()).unwrap().charged, MicroUsd(0));
    assert!(
        ledger
            .add(config(&key, 0), MicroUsd(1), MicroUsd(0))
            .is_err(),
        "a lane is entered once"
    );
}
