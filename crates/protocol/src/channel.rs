//! Payment channels: the typed data of x402 v2, scheme `batch-settlement`, bit for bit what the
//! official clients sign. Computes ids and digests; never touches a chain, a clock or a key.
//!
//! A channel's id is the EIP-712 digest of its config, so one config on two chains, or under two
//! contracts, is two channels and no voucher of one is worth anything in the other.
//! `vectors/channels.json` pins every digest here; `contracts/` recomputes them.

use alloy_primitives::{Address, B256, Bytes, U256, address, aliases::U40, keccak256};
use alloy_sol_types::{Eip712Domain, SolStruct, SolValue, sol};
use serde::{Deserialize, Serialize};

use crate::{MicroUsd, Signature, SignatureError, Timestamp};

/// Where the official contract stands on every network that has it, and the address that the
/// official clients sign for. Development chains carry ours at the same place.
pub const CANONICAL_CHANNELS: Address = address!("0x4020074e9dF2ce1deE5A9C1b5c3f541D02a10003");
/// Where the official collector of EIP-3009 deposits stands.
pub const CANONICAL_COLLECTOR: Address = address!("0x4020806089470a89826cB9fB1f4059150b550004");
/// The least delay, in seconds, between a payer's asking for its unclaimed money and having it.
pub const WITHDRAW_DELAY_S_MIN: u64 = 15 * 60;
/// The greatest such delay.
pub const WITHDRAW_DELAY_S_MAX: u64 = 30 * 24 * 60 * 60;

mod solidity {
    use super::sol;
    sol! {
        struct ChannelConfig {
            address payer;
            address payerAuthorizer;
            address receiver;
            address receiverAuthorizer;
            address token;
            uint40 withdrawDelay;
            bytes32 salt;
        }
        struct Voucher {
            bytes32 channelId;
            uint128 maxClaimableAmount;
        }
        struct Refund {
            bytes32 channelId;
            uint256 nonce;
            uint128 amount;
        }
        struct ClaimEntry {
            bytes32 channelId;
            uint128 maxClaimableAmount;
            uint128 totalClaimed;
        }
        struct ClaimBatch {
            ClaimEntry[] claims;
        }
        struct ReceiveWithAuthorization {
            address from;
            address to;
            uint256 value;
            uint256 validAfter;
            uint256 validBefore;
            bytes32 nonce;
        }
    }
}

/// The channels contract that a signature is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ChannelDomain {
    pub chain_id: u64,
    pub contract: Address,
}

impl ChannelDomain {
    fn eip712(&self) -> Eip712Domain {
        Eip712Domain::new(
            Some("x402 Batch Settlement".into()),
            Some("1".into()),
            Some(U256::from(self.chain_id)),
            Some(self.contract),
            None,
        )
    }
}

/// What a channel is, for good: its hash is its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ChannelConfig {
    /// Whose money it is, and who gets back what is not claimed.
    pub payer: Address,
    /// The key that signs vouchers; zero means the payer itself.
    pub payer_authorizer: Address,
    /// Where settled money goes: the provider's payout vault.
    pub receiver: Address,
    /// The key that signs claims and refunds for the receiver.
    pub receiver_authorizer: Address,
    pub token: Address,
    pub withdraw_delay_s: u64,
    /// Tells the lanes between the same two parties apart.
    pub salt: B256,
}

impl ChannelConfig {
    /// The channel's id. A delay beyond 40 bits, which no contract accepts, is refused.
    pub fn id(&self, domain: &ChannelDomain) -> Result<B256, ChannelError> {
        Ok(self.solidity()?.eip712_signing_hash(&domain.eip712()))
    }

    /// The key whose vouchers count.
    pub fn voucher_signer(&self) -> Address {
        if self.payer_authorizer.is_zero() {
            self.payer
        } else {
            self.payer_authorizer
        }
    }

    /// Refuses what the contract's `deposit` would refuse.
    pub fn validate(&self) -> Result<(), ChannelError> {
        for (field, value) in [
            ("payer", self.payer),
            ("receiver", self.receiver),
            ("receiver_authorizer", self.receiver_authorizer),
            ("token", self.token),
        ] {
            if value.is_zero() {
                return Err(ChannelError::ZeroAddress(field));
            }
        }
        if !(WITHDRAW_DELAY_S_MIN..=WITHDRAW_DELAY_S_MAX).contains(&self.withdraw_delay_s) {
            return Err(ChannelError::WithdrawDelay(self.withdraw_delay_s));
        }
        Ok(())
    }

    fn solidity(&self) -> Result<solidity::ChannelConfig, ChannelError> {
        let withdraw_delay = U40::try_from(self.withdraw_delay_s)
            .map_err(|_| ChannelError::WithdrawDelay(self.withdraw_delay_s))?;
        Ok(solidity::ChannelConfig {
            payer: self.payer,
            payerAuthorizer: self.payer_authorizer,
            receiver: self.receiver,
            receiverAuthorizer: self.receiver_authorizer,
            token: self.token,
            withdrawDelay: withdraw_delay,
            salt: self.salt,
        })
    }
}

/// The payer's promise: the receiver may have up to this much in all, ever. A newer voucher
/// replaces an older one, so replaying one gains nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Voucher {
    pub channel_id: B256,
    pub max_claimable: MicroUsd,
}

impl Voucher {
    pub fn digest(&self, domain: &ChannelDomain) -> B256 {
        solidity::Voucher {
            channelId: self.channel_id,
            maxClaimableAmount: u128::from(self.max_claimable.0),
        }
        .eip712_signing_hash(&domain.eip712())
    }
}

/// A voucher with a signature that nobody has checked yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedVoucher {
    pub voucher: Voucher,
    pub signature: Signature,
}

impl SignedVoucher {
    /// The only way to a [`CheckedVoucher`]: it is for this channel, whose signer signed it.
    pub fn check(
        self,
        domain: &ChannelDomain,
        config: &ChannelConfig,
    ) -> Result<CheckedVoucher, ChannelError> {
        let expected = config.id(domain)?;
        if self.voucher.channel_id != expected {
            return Err(ChannelError::OtherChannel {
                expected,
                got: self.voucher.channel_id,
            });
        }
        self.signature
            .check(&self.voucher.digest(domain), config.voucher_signer())?;
        Ok(CheckedVoucher(self))
    }
}

/// A voucher whose channel and signer were checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckedVoucher(SignedVoucher);

impl CheckedVoucher {
    pub fn voucher(&self) -> &Voucher {
        &self.0.voucher
    }

    pub fn signature(&self) -> &Signature {
        &self.0.signature
    }

    pub fn into_signed(self) -> SignedVoucher {
        self.0
    }
}

/// One row of a claim: take up to `total_claimed` in all under a voucher of `max_claimable`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ClaimEntry {
    pub channel_id: B256,
    pub max_claimable: MicroUsd,
    pub total_claimed: MicroUsd,
}

/// What the receiver's authorizer signs, so that anybody may submit the claim.
pub fn claim_batch_digest(entries: &[ClaimEntry], domain: &ChannelDomain) -> B256 {
    let claims = entries
        .iter()
        .map(|entry| solidity::ClaimEntry {
            channelId: entry.channel_id,
            maxClaimableAmount: u128::from(entry.max_claimable.0),
            totalClaimed: u128::from(entry.total_claimed.0),
        })
        .collect();
    solidity::ClaimBatch { claims }.eip712_signing_hash(&domain.eip712())
}

/// What the receiver's authorizer signs to give unclaimed money back at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Refund {
    pub channel_id: B256,
    /// The channel's refund counter, which every refund advances.
    pub nonce: u64,
    pub amount: MicroUsd,
}

impl Refund {
    pub fn digest(&self, domain: &ChannelDomain) -> B256 {
        solidity::Refund {
            channelId: self.channel_id,
            nonce: U256::from(self.nonce),
            amount: u128::from(self.amount.0),
        }
        .eip712_signing_hash(&domain.eip712())
    }
}

/// A stablecoin's own EIP-712 domain; name and version also travel in x402's `extra`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TokenDomain {
    pub name: String,
    pub version: String,
    pub chain_id: u64,
    pub token: Address,
}

/// EIP-3009: `from` lets `to`, and nobody else, pull `value` once within a span of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ReceiveAuthorization {
    pub from: Address,
    pub to: Address,
    pub value: MicroUsd,
    pub valid_after: Timestamp,
    pub valid_before: Timestamp,
    pub nonce: B256,
}

impl ReceiveAuthorization {
    pub fn digest(&self, domain: &TokenDomain) -> B256 {
        let eip712 = Eip712Domain::new(
            Some(domain.name.clone().into()),
            Some(domain.version.clone().into()),
            Some(U256::from(domain.chain_id)),
            Some(domain.token),
            None,
        );
        solidity::ReceiveWithAuthorization {
            from: self.from,
            to: self.to,
            value: U256::from(self.value.0),
            validAfter: U256::from(self.valid_after.0),
            validBefore: U256::from(self.valid_before.0),
            nonce: self.nonce,
        }
        .eip712_signing_hash(&eip712)
    }
}

/// A payer's signed permission to move money into one channel, to be submitted by anybody. Its
/// EIP-3009 nonce is derived from the channel, so nobody can send the money into another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DepositAuthorization {
    pub valid_after: Timestamp,
    pub valid_before: Timestamp,
    /// Tells several deposits into one channel apart.
    pub salt: U256,
    pub signature: Signature,
}

impl DepositAuthorization {
    /// What is signed: the collector may pull `amount` from the channel's payer.
    pub fn authorization(
        &self,
        channel_id: B256,
        payer: Address,
        collector: Address,
        amount: MicroUsd,
    ) -> ReceiveAuthorization {
        ReceiveAuthorization {
            from: payer,
            to: collector,
            value: amount,
            valid_after: self.valid_after,
            valid_before: self.valid_before,
            nonce: deposit_nonce(channel_id, self.salt),
        }
    }

    /// Checks that the channel's payer signed a deposit of exactly this amount.
    pub fn check(
        &self,
        channel_id: B256,
        payer: Address,
        collector: Address,
        amount: MicroUsd,
        token: &TokenDomain,
    ) -> Result<(), ChannelError> {
        let authorization = self.authorization(channel_id, payer, collector, amount);
        Ok(self.signature.check(&authorization.digest(token), payer)?)
    }

    /// What the collector reads.
    pub fn collector_data(&self) -> Vec<u8> {
        (
            U256::from(self.valid_after.0),
            U256::from(self.valid_before.0),
            self.salt,
            Bytes::copy_from_slice(self.signature.0.as_slice()),
        )
            .abi_encode_params()
    }
}

/// The EIP-3009 nonce of a deposit: `keccak(abi.encode(channelId, salt))`.
pub fn deposit_nonce(channel_id: B256, salt: U256) -> B256 {
    keccak256((channel_id, salt).abi_encode())
}

/// Why a channel's config or voucher is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChannelError {
    #[error("the channel's {0} is the zero address")]
    ZeroAddress(&'static str),
    #[error(
        "a withdraw delay of {0} s is outside {WITHDRAW_DELAY_S_MIN} to {WITHDRAW_DELAY_S_MAX} s"
    )]
    WithdrawDelay(u64),
    #[error("the voucher is for channel {got}, expected {expected}")]
    OtherChannel { expected: B256, got: B256 },
    #[error(transparent)]
    Signature(#[from] SignatureError),
}
