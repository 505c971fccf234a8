//! The payee believes nothing but a good voucher over money that is there, and forgets nothing that it charged.

mod common;

use assay_payments::payee::{OnChain, Presented, Refusal, Reservation};
use assay_payments::x402::Code;
use assay_payments::{AcceptError, PayeeLedger};
use assay_protocol::channel::{ChannelDomain, ChannelError};
use assay_protocol::{Address, MicroUsd, SignatureError};
use common::{Key, NOW, on_chain, presented, receipt, request, terms};
use tempfile::TempDir;

fn ledger(dir: &TempDir) -> PayeeLedger {
    let path = dir.path().join("payee.redb");
    if path.exists() {
        return PayeeLedger::open(&path, terms()).unwrap();
    }
    PayeeLedger::create(&path, terms()).unwrap()
}

fn refusal(ledger: &mut PayeeLedger, presented: &Presented, chain: OnChain) -> Refusal {
    match ledger.accept(presented, chain, NOW) {
        Err(AcceptError::Refused(refusal)) => refusal,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

fn serve(ledger: &mut PayeeLedger, payment: &Presented, charged: u64) -> Reservation {
    let reservation = ledger.accept(payment, on_chain(1_000), NOW).unwrap();
    let total = reservation.cumulative(MicroUsd(charged)).unwrap();
    let n = payment.request_id.0[0];
    ledger
        .charge(
            &reservation,
            &receipt(reservation.channel_id, n, charged, total.0),
            NOW,
        )
        .unwrap();
    reservation
}

#[test]
fn the_real_cost_is_charged_within_the_ceiling() {
    let (dir, payer) = (TempDir::new().unwrap(), Key::new(1));
    let mut ledger = ledger(&dir);
    serve(&mut ledger, &presented(&payer, 30, 30, 30, 1), 10);
    let reservation = serve(&mut ledger, &presented(&payer, 40, 30, 30, 2), 30);
    assert_eq!(
        ledger.account(&reservation.channel_id).unwrap().charged,
        MicroUsd(40)
    );
    assert_eq!(ledger.totals(), (MicroUsd(40), MicroUsd(40)));
}

#[test]
fn a_charge_above_the_ceiling_is_impossible() {
    let (dir, payer) = (TempDir::new().unwrap(), Key::new(1));
    let mut ledger = ledger(&dir);
    let reservation = ledger
        .accept(&presented(&payer, 50, 50, 30, 1), on_chain(100), NOW)
        .unwrap();
    assert!(
        reservation.cumulative(MicroUsd(31)).is_err(),
        "what was offered on top is not ours"
    );
    let forged = receipt(reservation.channel_id, 1, 31, 31);
    assert!(ledger.charge(&reservation, &forged, NOW).is_err());
    let wrong_total = receipt(reservation.channel_id, 1, 20, 21);
    assert!(ledger.charge(&reservation, &wrong_total, NOW).is_err());
    assert_eq!(ledger.totals().0, MicroUsd(0));
}

#[test]
fn two_requests_at_once_on_one_channel_are_refused() {
    let (dir, payer) = (TempDir::new().unwrap(), Key::new(1));
    let mut ledger = ledger(&dir);
    ledger
        .accept(&presented(&payer, 30, 30, 30, 1), on_chain(100), NOW)
        .unwrap();
    let second = presented(&payer, 30, 30, 30, 2);
    assert_eq!(refusal(&mut ledger, &second, on_chain(100)), Refusal::Busy);
}

#[test]
fn a_replayed_voucher_gets_our_state_and_no_service() {
    let (dir, payer) = (TempDir::new().unwrap(), Key::new(1));
    let mut ledger = ledger(&dir);
    let first = presented(&payer, 30, 30, 30, 1);
    let reservation = serve(&mut ledger, &first, 10);
    let replay = Presented {
        request_id: request(2),
        ..first
    };
    let expected = Refusal::WrongBase {
        expected: MicroUsd(40),
        got: MicroUsd(30),
    };
    assert_eq!(refusal(&mut ledger, &replay, on_chain(100)), expected);
    assert_eq!(expected.code(), Code::CumulativeAmountMismatch);

    let account = ledger.account(&reservation.channel_id).unwrap();
    let extra = account.corrective(terms().requirements(MicroUsd(30))).extra;
    assert_eq!(
        extra
            .channel_state
            .unwrap()
            .charged_cumulative_amount
            .unwrap()
            .0,
        MicroUsd(10)
    );
    let proof = extra.voucher_state.unwrap();
    assert_eq!(
        (proof.signed_max_claimable.0, proof.signature),
        (MicroUsd(30), first.voucher.signature)
    );
}

#[test]
fn a_request_id_is_answered_once() {
    let (dir, payer) = (TempDir::new().unwrap(), Key::new(1));
    let mut ledger = ledger(&dir);
    serve(&mut ledger, &presented(&payer, 30, 30, 30, 1), 10);
    let again = ledger.accept(&presented(&payer, 40, 30, 30, 1), on_chain(100), NOW);
    assert!(matches!(again, Err(AcceptError::Answered(id)) if id == request(1)));
    assert_eq!(
        ledger.receipt(&request(1)).unwrap().unwrap().body.charged,
        MicroUsd(10)
    );
}

#[test]
fn bad_vouchers_are_refused_before_anything_is_written() {
    let (dir, payer) = (TempDir::new().unwrap(), Key::new(1));
    let mut ledger = ledger(&dir);
    let good = presented(&payer, 30, 30, 30, 1);
    let mut check = |payment: Presented, chain: OnChain, code: Code| {
        let refusal = refusal(&mut ledger, &payment, chain);
        assert_eq!(refusal.code(), code, "{refusal}");
    };
    let changed = |change: fn(&mut Presented)| {
        let mut payment = good;
        change(&mut payment);
        payment
    };
    let full = on_chain(100);
    check(good, on_chain(0), Code::ChannelNotFound);
    check(good, on_chain(29), Code::CumulativeExceedsBalance);
    check(
        good,
        OnChain {
            withdraw_requested_at: NOW,
            ..full
        },
        Code::ChannelNotFound,
    );
    check(
        changed(|p| p.offered = MicroUsd(29)),
        full,
        Code::OtherRequirements,
    );
    check(
        changed(|p| p.config.receiver = Address::repeat_byte(7)),
        full,
        Code::ReceiverMismatch,
    );
    check(
        changed(|p| p.config.receiver_authorizer = Address::ZERO),
        full,
        Code::ReceiverAuthorizerMismatch,
    );
    check(
        changed(|p| p.config.token = Address::repeat_byte(7)),
        full,
        Code::TokenMismatch,
    );
    check(
        changed(|p| p.config.withdraw_delay_s += 1),
        full,
        Code::WithdrawDelayMismatch,
    );
    check(
        changed(|p| p.config.salt = request(5)),
        full,
        Code::ChannelIdMismatch,
    );
    check(
        changed(|p| p.voucher.voucher.max_claimable = MicroUsd(31)),
        full,
        Code::VoucherSignature,
    );
    // Somebody else's signature over our payer's channel.
    let mut stolen = good;
    stolen.voucher.signature = Key::new(2).sign(&good.voucher.voucher.digest(&terms().channels));
    check(stolen, full, Code::VoucherSignature);
    // The same voucher, signed for another chain and for another contract.
    for domain in [
        ChannelDomain {
            chain_id: 1,
            ..terms().channels
        },
        ChannelDomain {
            contract: Address::repeat_byte(5),
            ..terms().channels
        },
    ] {
        let mut foreign = good;
        foreign.voucher.signature = payer.sign(&good.voucher.voucher.digest(&domain));
        check(foreign, full, Code::VoucherSignature);
        let mut foreign = good;
        foreign.voucher.voucher.channel_id = good.config.id(&domain).unwrap();
        check(foreign, full, Code::ChannelIdMismatch);
    }
    assert_eq!(ledger.accounts().count(), 0);
}

#[test]
fn a_malleable_signature_is_refused() {
    let (dir, payer) = (TempDir::new().unwrap(), Key::new(1));
    let mut payment = presented(&payer, 30, 30, 30, 1);
    let half = k256::ecdsa::Signature::from_slice(&payment.voucher.signature.0[..64]).unwrap();
    let (r, s) = half.split_scalars();
    let twin = k256::ecdsa::Signature::from_scalars(r, -s).unwrap();
    payment.voucher.signature.0.0[..64].copy_from_slice(&twin.to_bytes());
    payment.voucher.signature.0.0[64] ^= 27 ^ 28;
    let refusal = refusal(&mut ledger(&dir), &payment, on_chain(100));
    assert_eq!(
        refusal,
        Refusal::Voucher(ChannelError::Signature(SignatureError::HighS))
    );
}

#[test]
fn a_crash_keeps_charges_and_frees_running_requests() {
    let (dir, payer) = (TempDir::new().unwrap(), Key::new(1));
    let mut before = ledger(&dir);
    serve(&mut before, &presented(&payer, 30, 30, 30, 1), 10);
    before
        .accept(&presented(&payer, 40, 30, 30, 2), on_chain(100), NOW)
        .unwrap();
    drop(before); // The process dies in the middle of request 2.
    let mut after = ledger(&dir);
    let account = after.accounts().next().unwrap();
    assert_eq!((account.charged, account.running), (MicroUsd(10), None));
    assert_eq!(
        account.voucher.voucher.max_claimable,
        MicroUsd(40),
        "the voucher was durable before the first token"
    );
    serve(&mut after, &presented(&payer, 40, 30, 30, 3), 5);
    assert_eq!(after.totals().0, MicroUsd(15));
    assert!(after.receipt(&request(1)).unwrap().is_some());
}

#[test]
fn an_unknown_channel_starts_from_what_the_chain_paid_out() {
    let (dir, payer) = (TempDir::new().unwrap(), Key::new(1));
    let mut ledger = ledger(&dir);
    let chain = OnChain {
        claimed: MicroUsd(20),
        ..on_chain(100)
    };
    let stale = refusal(&mut ledger, &presented(&payer, 30, 30, 30, 1), chain);
    assert_eq!(
        stale,
        Refusal::WrongBase {
            expected: MicroUsd(50),
            got: MicroUsd(30)
        }
    );
    let reservation = ledger
        .accept(&presented(&payer, 50, 30, 30, 1), chain, NOW)
        .unwrap();
    assert_eq!(reservation.base, MicroUsd(20));
}
