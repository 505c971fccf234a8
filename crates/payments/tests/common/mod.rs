//! A payer's key, a payee's terms, and payments between them, without a chain.
#![allow(dead_code, unreachable_pub)]

use assay_payments::Terms;
use assay_payments::payee::{OnChain, Presented};
use assay_protocol::channel::{ChannelConfig, ChannelDomain, SignedVoucher, TokenDomain, Voucher};
use assay_protocol::{
    Address, B256, Domain, DurationMs, MicroUsd, Receipt, SamplerParams, Signature, Signed,
    Statement, StopReason, Tier, Timestamp, TypedData,
};
use k256::ecdsa::SigningKey;

pub const NOW: Timestamp = Timestamp(1_800_000_000);

pub struct Key(SigningKey);

impl Key {
    pub fn new(seed: u8) -> Self {
        Self(SigningKey::from_slice(&[seed; 32]).unwrap())
    }

    pub fn address(&self) -> Address {
        let point = self.0.verifying_key().to_encoded_point(false);
        Address::from_slice(&assay_protocol::keccak256(&point.as_bytes()[1..])[12..])
    }

    pub fn sign(&self, digest: &B256) -> Signature {
        let (signature, recovery) = self.0.sign_prehash_recoverable(digest.as_slice()).unwrap();
        let mut bytes = [0u8; 65];
        bytes[..64].copy_from_slice(&signature.to_bytes());
        bytes[64] = 27 + recovery.to_byte();
        Signature(bytes.into())
    }
}

pub fn terms() -> Terms {
    let token = Address::repeat_byte(4);
    Terms::usual(
        ChannelDomain {
            chain_id: 31_337,
            contract: Address::repeat_byte(9),
        },
        TokenDomain {
            name: "Test Dollar".into(),
            version: "1".into(),
            chain_id: 31_337,
            token,
        },
        Address::repeat_byte(2),
        Address::repeat_byte(3),
    )
}

pub fn config(payer: &Key, lane: u8) -> ChannelConfig {
    terms().channel(payer.address(), payer.address(), B256::repeat_byte(lane))
}

pub fn request(n: u8) -> B256 {
    B256::repeat_byte(n)
}

pub fn presented(payer: &Key, max: u64, offered: u64, required: u64, n: u8) -> Presented {
    let config = config(payer, 0);
    let channel_id = config.id(&terms().channels).unwrap();
    let voucher = Voucher {
        channel_id,
        max_claimable: MicroUsd(max),
    };
    let signature = payer.sign(&voucher.digest(&terms().channels));
    Presented {
        config,
        voucher: SignedVoucher { voucher, signature },
        offered: MicroUsd(offered),
        required: MicroUsd(required),
        request_id: request(n),
    }
}

pub fn on_chain(balance: u64) -> OnChain {
    OnChain {
        balance: MicroUsd(balance),
        ..OnChain::default()
    }
}

pub fn receipt(channel_id: B256, n: u8, charged: u64, cumulative: u64) -> Signed<Receipt> {
    let sampler = SamplerParams::greedy(4);
    let body = Receipt {
        statement: Statement::new(B256::ZERO, &[1], &sampler, &[2], StopReason::MaxTokens),
        provider: Address::repeat_byte(1),
        payer: Address::repeat_byte(2),
        channel_id,
        charged: MicroUsd(charged),
        cumulative: MicroUsd(cumulative),
        served_at: NOW,
        ttft: DurationMs(1),
        duration: DurationMs(2),
        tier: Tier::Staked,
        request_id: request(n),
    };
    let domain = Domain {
        chain_id: 31_337,
        verifying_contract: Address::repeat_byte(8),
    };
    let signature = Key::new(7).sign(&body.digest(&domain));
    Signed { body, signature }
}
