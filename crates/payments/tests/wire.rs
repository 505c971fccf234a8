//! The bytes on the wire are those of the official packages: a payment made by `@x402/evm` 2.27 parses, and what we
//! send has every field that its schemas ask for.

mod common;

use assay_payments::x402::{
    HEADER_BYTES_MAX, HeaderError, Literal2, Payload, PaymentPayload, PaymentRequired,
    ResourceInfo, decode, encode,
};
use assay_protocol::MicroUsd;
use common::terms;
use serde_json::{Value, json};

fn payload(kind: Value) -> Value {
    json!({
        "x402Version": 2,
        "accepted": terms().requirements(MicroUsd(30)),
        "payload": kind,
        "resource": { "url": "http://localhost/v1/completions" },
    })
}

fn voucher() -> Value {
    json!({
        "type": "voucher",
        "channelConfig": {
            "payer": "0x70997970C51812dc3A010C7d01b50e0d17dc79C8",
            "payerAuthorizer": "0x70997970C51812dc3A010C7d01b50e0d17dc79C8",
            "receiver": "0x0202020202020202020202020202020202020202",
            "receiverAuthorizer": "0x0303030303030303030303030303030303030303",
            "token": "0x0404040404040404040404040404040404040404",
            "withdrawDelay": 3600,
            "salt": format!("0x{}", "00".repeat(32)),
        },
        "voucher": {
            "channelId": format!("0x{}", "ab".repeat(32)),
            "maxClaimableAmount": "30",
            "signature": format!("0x{}1b", "11".repeat(64)),
        },
    })
}

#[test]
fn the_official_clients_voucher_and_deposit_parse() {
    let header = encode(&payload(voucher()));
    let read: PaymentPayload = decode(header.as_bytes()).unwrap();
    let (config, signed) = read.payload.voucher();
    assert_eq!(
        (config.withdraw_delay, signed.max_claimable_amount.0),
        (3600, MicroUsd(30))
    );

    let mut deposit = voucher();
    deposit["type"] = "deposit".into();
    deposit["deposit"] = json!({
        "amount": "300",
        "authorization": { "erc3009Authorization": {
            "validAfter": "0", "validBefore": "1800000600", "salt": format!("0x{}", "07".repeat(32)),
            "signature": format!("0x{}1c", "22".repeat(64)),
        }},
    });
    let read: PaymentPayload = decode(encode(&payload(deposit)).as_bytes()).unwrap();
    let Payload::Deposit(body) = read.payload else {
        panic!("expected a deposit")
    };
    assert_eq!(body.deposit.amount.0, MicroUsd(300));
}

#[test]
fn the_402_has_every_field_of_the_official_schema() {
    let resource = ResourceInfo {
        url: "http://x/".into(),
        description: None,
        mime_type: Some("application/json".into()),
    };
    let required = PaymentRequired {
        x402_version: Literal2,
        error: Some("why".into()),
        resource,
        accepts: vec![terms().requirements(MicroUsd(30))],
        extensions: None,
    };
    let expected = json!({
        "x402Version": 2,
        "error": "why",
        "resource": { "url": "http://x/", "mimeType": "application/json" },
        "accepts": [{
            "scheme": "batch-settlement",
            "network": "eip155:31337",
            "amount": "30",
            "asset": "0x0404040404040404040404040404040404040404",
            "payTo": "0x0202020202020202020202020202020202020202",
            "maxTimeoutSeconds": 600,
            "extra": {
                "receiverAuthorizer": "0x0303030303030303030303030303030303030303",
                "withdrawDelay": 3600,
                "name": "Test Dollar",
                "version": "1",
                "assetTransferMethod": "eip3009",
                "minDeposit": "100000",
            },
        }],
    });
    assert_eq!(serde_json::to_value(&required).unwrap(), expected);
    assert_eq!(
        decode::<PaymentRequired>(encode(&required).as_bytes()).unwrap(),
        required
    );
}

#[test]
fn hostile_headers_are_refused() {
    let check = |header: &[u8]| decode::<PaymentPayload>(header).unwrap_err();
    assert!(matches!(check(b"%%%"), HeaderError::Base64));
    assert!(matches!(check(b"e30="), HeaderError::Json(_)));
    assert!(matches!(
        check(&vec![b'A'; HEADER_BYTES_MAX + 1]),
        HeaderError::TooLong(_)
    ));
    let refused = |change: fn(&mut Value)| {
        let mut body = payload(voucher());
        change(&mut body);
        let error = check(encode(&body).as_bytes());
        assert!(matches!(error, HeaderError::Json(_)), "{error}");
    };
    refused(|body| body["x402Version"] = 1.into());
    refused(|body| body["payload"]["type"] = "exact".into());
    refused(|body| body["payload"]["voucher"]["maxClaimableAmount"] = "-1".into());
    refused(|body| body["payload"]["voucher"]["maxClaimableAmount"] = "030".into());
    refused(|body| body["payload"]["voucher"]["maxClaimableAmount"] = 30.into());
    refused(|body| {
        body["payload"]["voucher"]["maxClaimableAmount"] = "18446744073709551616".into()
    });
    refused(|body| body["payload"]["voucher"]["maxClaimableAmount"] = "".into());
    refused(|body| body["payload"]["voucher"]["signature"] = "0x1234".into());
    refused(|body| body["payload"]["voucher"]["extra"] = 1.into());
    refused(|body| body["payload"]["channelConfig"]["withdrawDelay"] = (-1).into());
    refused(|body| body["accepted"]["network"] = "solana:mainnet".into());
    refused(|body| body["accepted"]["amount"] = "1e3".into());
}
