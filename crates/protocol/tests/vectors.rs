//! The vectors that Rust, Solidity and viem must agree on, accept and reject. The same files are
//! read by `contracts/test/{Vectors,ServiceVectors}.t.sol`; `contracts/tools/vectors.mjs` writes them.

use alloy_primitives::U256;
use assay_protocol::channel::{
    ChannelConfig, ChannelDomain, ClaimEntry, DepositAuthorization, Refund, SignedVoucher,
    TokenDomain, Voucher, claim_batch_digest, deposit_nonce,
};
use assay_protocol::merkle::{Opening, tokens_root};
use assay_protocol::{
    Address, B256, Domain, DurationMs, Histogram, MicroUsd, MicroUsdPerMillionTokens, Offer, Price,
    Receipt, Service, ServiceBatch, ServiceRecord, Signature, Signed, Statement, StopReason, Tier,
    Timestamp, TokenCount, TypedData, service_record_typehash,
};
use serde::Deserialize;
use serde::de::DeserializeOwned;

fn read<T: DeserializeOwned>(name: &str) -> T {
    let path = format!("{}/../../vectors/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).expect("the vectors are checked in");
    serde_json::from_str(&text).expect("the vectors parse")
}

fn number(digits: &str) -> u64 {
    digits.parse().expect("a number of 64 bits")
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Channels {
    accept: Vec<Channel>,
    claim_of_two: Batch,
    reject: Vec<Forgery>,
}

#[derive(Deserialize)]
struct Batch {
    digest: B256,
    signer: Address,
    signature: Signature,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Channel {
    name: String,
    chain_id: u64,
    contract: Address,
    config: Config,
    channel_id: B256,
    signer: Address,
    max_claimable_amount: String,
    voucher_digest: B256,
    voucher_signature: Signature,
    total_claimed: String,
    refund_nonce: String,
    refund_digest: B256,
    claim_batch_digest: B256,
    claim_of_one_digest: B256,
    empty_claim_digest: B256,
    deposit: Deposit,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Config {
    payer: Address,
    payer_authorizer: Address,
    receiver: Address,
    receiver_authorizer: Address,
    token: Address,
    withdraw_delay: u64,
    salt: B256,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Deposit {
    collector: Address,
    token_name: String,
    token_version: String,
    valid_after: String,
    valid_before: String,
    salt: U256,
    nonce: B256,
    digest: B256,
    signature: Signature,
    collector_data: alloy_primitives::Bytes,
}

#[derive(Deserialize)]
struct Forgery {
    name: String,
    signature: Signature,
}

impl Channel {
    fn domain(&self) -> ChannelDomain {
        ChannelDomain {
            chain_id: self.chain_id,
            contract: self.contract,
        }
    }

    fn config(&self) -> ChannelConfig {
        ChannelConfig {
            payer: self.config.payer,
            payer_authorizer: self.config.payer_authorizer,
            receiver: self.config.receiver,
            receiver_authorizer: self.config.receiver_authorizer,
            token: self.config.token,
            withdraw_delay_s: self.config.withdraw_delay,
            salt: self.config.salt,
        }
    }

    fn voucher(&self) -> Voucher {
        Voucher {
            channel_id: self.channel_id,
            max_claimable: MicroUsd(number(&self.max_claimable_amount)),
        }
    }
}

#[test]
fn channel_ids_digests_and_signatures_are_those_of_x402() {
    let vectors: Channels = read("channels");
    assert!(!vectors.accept.is_empty());
    for case in &vectors.accept {
        let (domain, config, voucher) = (case.domain(), case.config(), case.voucher());
        let name = &case.name;
        config.validate().expect(name);
        assert_eq!(config.id(&domain).expect(name), case.channel_id, "{name}");
        assert_eq!(config.voucher_signer(), case.signer, "{name}");
        assert_eq!(voucher.digest(&domain), case.voucher_digest, "{name}");
        let signed = SignedVoucher {
            voucher,
            signature: case.voucher_signature,
        };
        signed.check(&domain, &config).expect(name);

        let total_claimed = MicroUsd(number(&case.total_claimed));
        let refund = Refund {
            channel_id: case.channel_id,
            nonce: number(&case.refund_nonce),
            amount: total_claimed,
        };
        assert_eq!(refund.digest(&domain), case.refund_digest, "{name}");
        let entries = [
            ClaimEntry {
                channel_id: case.channel_id,
                max_claimable: voucher.max_claimable,
                total_claimed,
            },
            ClaimEntry {
                channel_id: B256::repeat_byte(0x22),
                max_claimable: MicroUsd(9),
                total_claimed: MicroUsd(8),
            },
        ];
        let digest = |entries: &[ClaimEntry]| claim_batch_digest(entries, &domain);
        assert_eq!(digest(&entries), case.claim_batch_digest, "{name}");
        assert_eq!(digest(&entries[..1]), case.claim_of_one_digest, "{name}");
        assert_eq!(digest(&[]), case.empty_claim_digest, "{name}");

        let deposit = &case.deposit;
        let authorization = DepositAuthorization {
            valid_after: Timestamp(number(&deposit.valid_after)),
            valid_before: Timestamp(number(&deposit.valid_before)),
            salt: deposit.salt,
            signature: deposit.signature,
        };
        let token = TokenDomain {
            name: deposit.token_name.clone(),
            version: deposit.token_version.clone(),
            chain_id: case.chain_id,
            token: config.token,
        };
        let (id, payer, amount) = (case.channel_id, config.payer, voucher.max_claimable);
        assert_eq!(deposit_nonce(id, deposit.salt), deposit.nonce, "{name}");
        let typed = authorization.authorization(id, payer, deposit.collector, amount);
        assert_eq!(typed.digest(&token), deposit.digest, "{name}");
        authorization
            .check(id, payer, deposit.collector, amount, &token)
            .expect(name);
        let data = authorization.collector_data();
        assert_eq!(data, deposit.collector_data.to_vec(), "{name}");
    }
}

#[test]
fn a_batch_over_two_channels_has_x402s_digest_and_signature() {
    let vectors: Channels = read("channels");
    let entries = [&vectors.accept[0], &vectors.accept[3]].map(|case| ClaimEntry {
        channel_id: case.channel_id,
        max_claimable: MicroUsd(number(&case.max_claimable_amount)),
        total_claimed: MicroUsd(number(&case.total_claimed)),
    });
    let batch = &vectors.claim_of_two;
    let digest = claim_batch_digest(&entries, &vectors.accept[0].domain());
    assert_eq!(digest, batch.digest);
    batch
        .signature
        .check(&digest, batch.signer)
        .expect("signed");
}

#[test]
fn forged_vouchers_are_refused() {
    let vectors: Channels = read("channels");
    let case = &vectors.accept[0];
    for forgery in &vectors.reject {
        let signed = SignedVoucher {
            voucher: case.voucher(),
            signature: forgery.signature,
        };
        let checked = signed.check(&case.domain(), &case.config());
        assert!(checked.is_err(), "{}", forgery.name);
    }
    // A good signature does not carry a voucher into another channel either.
    let other = &vectors.accept[1];
    let signed = SignedVoucher {
        voucher: other.voucher(),
        signature: other.voucher_signature,
    };
    signed
        .check(&case.domain(), &case.config())
        .expect_err("another channel");
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Receipts {
    chain_id: u64,
    registry: Address,
    signer: Address,
    receipt_digest: B256,
    receipt_signature: Signature,
    offer_digest: B256,
    offer_signature: Signature,
}

#[test]
fn receipts_and_offers_have_the_digests_that_viem_computes() {
    let vectors: Receipts = read("receipts");
    let domain = Domain {
        chain_id: vectors.chain_id,
        verifying_contract: vectors.registry,
    };
    // The values stand in `vectors/receipts.json`, in Solidity's words.
    let receipt = Receipt {
        statement: Statement {
            model_id: B256::repeat_byte(1),
            prompt_root: B256::repeat_byte(0xa1),
            n_prompt: TokenCount(3),
            sampler_hash: B256::repeat_byte(0xa2),
            output_root: B256::repeat_byte(0xa3),
            n_output: TokenCount(2),
            stop_reason: StopReason::EndOfText,
        },
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
    };
    assert_eq!(receipt.digest(&domain), vectors.receipt_digest);
    let signed = Signed {
        body: receipt,
        signature: vectors.receipt_signature,
    };
    signed.check(&domain, vectors.signer).expect("signed");

    let offer = Offer {
        provider: Address::repeat_byte(2),
        model_id: B256::repeat_byte(1),
        price: Price {
            input: MicroUsdPerMillionTokens(50_000),
            cached_input: MicroUsdPerMillionTokens(5_000),
            output: MicroUsdPerMillionTokens(100_000),
        },
        max_context: TokenCount(2048),
        concurrency: 4,
        ttft_promise: DurationMs(2_000),
        expires_at: Timestamp(1_800_000_000),
    };
    assert_eq!(offer.digest(&domain), vectors.offer_digest);
    let signed = Signed {
        body: offer,
        signature: vectors.offer_signature,
    };
    signed.check(&domain, vectors.signer).expect("signed");
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Served {
    record_typehash: B256,
    payer: Address,
    provider: Address,
    accept: Vec<Counted>,
    batch_of_two: DigestAndSignature,
    reject_payer: Vec<Forgery>,
    reject_provider: Vec<Forgery>,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Counted {
    name: String,
    chain_id: u64,
    scoreboard: Address,
    record: Record,
    struct_hash: B256,
    digest: B256,
    payer_signature: Signature,
    batch_of_one_digest: B256,
    provider_signature: Signature,
}

#[derive(Deserialize)]
struct DigestAndSignature {
    digest: B256,
    signature: Signature,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    channel_id: B256,
    revenue: String,
    prompt_tokens: String,
    output_tokens: String,
    requests: u32,
    failures: u32,
    ttft: U256,
    speed: U256,
}

#[derive(Deserialize)]
struct Step {
    name: String,
    previous: Record,
    record: Record,
    taken: bool,
}

impl Record {
    fn read(&self) -> ServiceRecord {
        ServiceRecord {
            channel_id: self.channel_id,
            service: Service {
                revenue: MicroUsd(number(&self.revenue)),
                prompt_tokens: number(&self.prompt_tokens),
                output_tokens: number(&self.output_tokens),
                requests: self.requests,
                failures: self.failures,
                ttft: Histogram::from_word(self.ttft),
                speed: Histogram::from_word(self.speed),
            },
        }
    }
}

impl Counted {
    fn domain(&self) -> Domain {
        Domain {
            chain_id: self.chain_id,
            verifying_contract: self.scoreboard,
        }
    }
}

#[test]
fn service_records_and_batches_have_the_digests_that_viem_computes() {
    let vectors: Served = read("service");
    assert_eq!(service_record_typehash(), vectors.record_typehash);
    assert!(vectors.accept.len() >= 6);
    for case in &vectors.accept {
        let (name, record, domain) = (&case.name, case.record.read(), case.domain());
        assert_eq!(record.struct_hash(), case.struct_hash, "{name}");
        assert_eq!(record.digest(&domain), case.digest, "{name}");
        let batch = ServiceBatch(vec![record]);
        assert_eq!(batch.digest(&domain), case.batch_of_one_digest, "{name}");
        let signed = Signed {
            body: record,
            signature: case.payer_signature,
        };
        signed.check(&domain, vectors.payer).expect(name);
        let signed = Signed {
            body: batch,
            signature: case.provider_signature,
        };
        signed.check(&domain, vectors.provider).expect(name);
    }
    let both = ServiceBatch(vec![
        vectors.accept[0].record.read(),
        vectors.accept[1].record.read(),
    ]);
    let domain = vectors.accept[0].domain();
    assert_eq!(both.digest(&domain), vectors.batch_of_two.digest);
    let signed = Signed {
        body: both,
        signature: vectors.batch_of_two.signature,
    };
    signed.check(&domain, vectors.provider).expect("both");
}

#[test]
fn forged_service_records_and_batches_are_refused() {
    let vectors: Served = read("service");
    let first = &vectors.accept[0];
    let (domain, record) = (first.domain(), first.record.read());
    assert!(vectors.reject_payer.len() >= 13 && vectors.reject_provider.len() >= 13);
    for forgery in &vectors.reject_payer {
        let signed = Signed {
            body: record,
            signature: forgery.signature,
        };
        let checked = signed.check(&domain, vectors.payer);
        assert!(checked.is_err(), "{}", forgery.name);
    }
    for forgery in &vectors.reject_provider {
        let signed = Signed {
            body: ServiceBatch(vec![record]),
            signature: forgery.signature,
        };
        let checked = signed.check(&domain, vectors.provider);
        assert!(checked.is_err(), "{}", forgery.name);
    }
}

#[test]
fn the_contract_and_this_crate_agree_which_record_may_follow_which() {
    let vectors: Served = read("service");
    assert!(vectors.steps.len() >= 15);
    for step in &vectors.steps {
        let (previous, next) = (step.previous.read(), step.record.read());
        let taken =
            next.service.is_sound() && next.service.holds(&previous.service) && next != previous;
        assert_eq!(taken, step.taken, "{}", step.name);
    }
}

#[derive(Deserialize)]
struct Merkle {
    trees: Vec<Tree>,
    accept: Vec<Opened>,
    reject: Vec<Opened>,
}

#[derive(Deserialize)]
struct Tree {
    tokens: Vec<u32>,
    root: B256,
}

#[derive(Deserialize)]
struct Opened {
    #[serde(default)]
    name: String,
    root: B256,
    leaf: B256,
    #[serde(flatten)]
    opening: Opening,
}

#[test]
fn merkle_roots_and_openings_agree_with_a_second_implementation() {
    let vectors: Merkle = read("merkle");
    for tree in &vectors.trees {
        assert_eq!(
            tokens_root(&tree.tokens),
            tree.root,
            "{}",
            tree.tokens.len()
        );
    }
    for case in &vectors.accept {
        let verified = case.opening.verify(&case.root, &case.leaf);
        assert_eq!(verified, Ok(()), "{:?}", case.opening);
    }
    for case in &vectors.reject {
        let verified = case.opening.verify(&case.root, &case.leaf);
        assert!(verified.is_err(), "{}", case.name);
    }
}
