//! Golden digests of the signed nouns, and the forgeries that a check must refuse.

use assay_protocol::{
    Address, B256, Domain, DurationMs, MicroUsd, MicroUsdPerMillionTokens, Offer, Price, Receipt,
    SamplerParams, Signature, SignatureError, Signed, Statement, StopReason, Tier, Timestamp,
    TokenCount, TypedData,
};
use k256::ecdsa::SigningKey;

const DOMAIN: Domain = Domain {
    chain_id: 31337,
    verifying_contract: Address::repeat_byte(0x11),
};

fn receipt() -> Receipt {
    Receipt {
        statement: Statement::new(
            B256::repeat_byte(1),
            &[1, 2, 3],
            &SamplerParams::greedy(4),
            &[4, 5],
            StopReason::EndOfText,
        ),
        provider: Address::repeat_byte(2),
        payer: Address::repeat_byte(3),
        channel_id: B256::repeat_byte(4),
        charged: MicroUsd(7),
        cumulative: MicroUsd(70),
        served_at: Timestamp(1_800_000_000),
        ttft: DurationMs(12),
        duration: DurationMs(340),
        tier: Tier::Staked,
        request_id: B256::repeat_byte(5),
    }
}

fn offer() -> Offer {
    let price = |amount| MicroUsdPerMillionTokens(amount);
    Offer {
        provider: Address::repeat_byte(2),
        model_id: B256::repeat_byte(1),
        price: Price {
            input: price(50_000),
            cached_input: price(5_000),
            output: price(100_000),
        },
        max_context: TokenCount(2048),
        concurrency: 4,
        ttft_promise: DurationMs(2_000),
        expires_at: Timestamp(1_800_000_000),
    }
}

fn key() -> (SigningKey, Address) {
    let key = SigningKey::from_slice(&[9; 32]).unwrap();
    let address = Address::from_public_key(key.verifying_key());
    (key, address)
}

fn sign<T: TypedData>(body: T) -> Signed<T> {
    let (signature, recovery) = key()
        .0
        .sign_prehash_recoverable(body.digest(&DOMAIN).as_slice())
        .unwrap();
    let mut bytes = [0; 65];
    bytes[..64].copy_from_slice(&signature.to_bytes());
    bytes[64] = 27 + recovery.to_byte();
    Signed {
        body,
        signature: Signature(bytes.into()),
    }
}

#[test]
fn digests_are_spelled_out() {
    let check = |digest: B256, expected: &str| assert_eq!(hex::encode(digest), expected);
    check(receipt().digest(&DOMAIN), RECEIPT_DIGEST);
    check(offer().digest(&DOMAIN), OFFER_DIGEST);
}
// From eth-account (PyPI), an independent EIP-712 implementation.
const RECEIPT_DIGEST: &str = "4d5195c935bd09e2ca7b595df56bab2ad8bb57f950db3bea081803a751fc69e3";
const OFFER_DIGEST: &str = "c90c013d32555924984936dc95e07f5b2aa11004cdc5f9de8c408a4a6f0b3068";

#[test]
fn json_is_spelled_out() {
    let json = serde_json::to_value(sign(receipt())).unwrap();
    assert_eq!(json["body"]["statement"]["n_prompt"], 3);
    assert_eq!(json["body"]["statement"]["stop_reason"], "end_of_text");
    assert_eq!(json["body"]["charged"], 7);
    assert_eq!(json["body"]["tier"], "staked");
    assert_eq!(json["signature"].as_str().unwrap().len(), 2 + 130);
    let back: Signed<Receipt> = serde_json::from_value(json).unwrap();
    assert_eq!(back, sign(receipt()));
}

#[test]
fn an_honest_signature_is_evidence() {
    let checked = sign(receipt()).check(&DOMAIN, key().1).unwrap();
    assert_eq!(checked.charged, MicroUsd(7));
}

#[test]
fn a_changed_body_is_no_longer_signed() {
    let changes: [fn(&mut Receipt); 12] = [
        |r| r.statement.model_id.0[0] ^= 1,
        |r| r.statement.n_output = TokenCount(3),
        |r| r.statement.stop_reason = StopReason::MaxTokens,
        |r| r.provider.0[0] ^= 1,
        |r| r.payer.0[0] ^= 1,
        |r| r.channel_id.0[0] ^= 1,
        |r| r.charged = MicroUsd(8),
        |r| r.cumulative = MicroUsd(71),
        |r| r.served_at = Timestamp(1),
        |r| r.ttft = DurationMs(1),
        |r| r.tier = Tier::None,
        |r| r.request_id.0[0] ^= 1,
    ];
    for change in changes {
        let mut signed = sign(receipt());
        change(&mut signed.body);
        assert!(signed.check(&DOMAIN, key().1).is_err(), "{:?}", signed.body);
    }
}

#[test]
fn a_signature_counts_on_its_own_chain_and_contract_only() {
    for domain in [
        Domain {
            chain_id: 1,
            ..DOMAIN
        },
        Domain {
            verifying_contract: Address::repeat_byte(0x12),
            ..DOMAIN
        },
    ] {
        assert!(sign(offer()).check(&domain, key().1).is_err());
    }
}

#[test]
fn a_malleable_twin_is_refused() {
    let mut signed = sign(receipt());
    let (r, s) = (&signed.signature.0[..32], &signed.signature.0[32..64]);
    let twin = k256::ecdsa::Signature::from_scalars(
        <[u8; 32]>::try_from(r).unwrap(),
        (-*k256::ecdsa::Signature::from_slice(&[r, s].concat())
            .unwrap()
            .s())
        .to_bytes(),
    )
    .unwrap();
    let mut bytes = [0; 65];
    bytes[..64].copy_from_slice(&twin.to_bytes());
    bytes[64] = 27 + 28 - signed.signature.0[64];
    signed.signature = Signature(bytes.into());
    assert_eq!(
        signed.check(&DOMAIN, key().1).unwrap_err(),
        SignatureError::HighS
    );
}

#[test]
fn a_strange_v_is_refused() {
    for v in [0, 1, 26, 29, 255] {
        let mut signed = sign(offer());
        signed.signature.0[64] = v;
        assert_eq!(
            signed.check(&DOMAIN, key().1).unwrap_err(),
            SignatureError::BadV(v)
        );
    }
}
