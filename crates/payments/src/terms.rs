//! What a payee asks for: the ceiling of a request, and the requirements that say where and how it is paid. Payer and
//! payee compute both alike, so that a payer who knows the offer need not ask first.

use assay_protocol::channel::{ChannelConfig, ChannelDomain, TokenDomain};
use assay_protocol::{Address, B256, MicroUsd, Overflow, Price, TokenCount, Usage};
use serde::{Deserialize, Serialize};

use crate::x402::{Amount, Network, PaymentRequirements, RequirementsExtra, SCHEME};

/// The most that a request can cost: no prompt token cached, every output token used.
pub fn ceiling(price: &Price, prompt: TokenCount, max_tokens: u32) -> Result<MicroUsd, Overflow> {
    price.charge(&Usage {
        prompt,
        cached: TokenCount(0),
        output: TokenCount(max_tokens),
    })
}

/// How long a payer waits for its unclaimed money unless the payee says otherwise: several claim intervals.
pub const WITHDRAW_DELAY_S: u64 = 3_600;
/// How long an answer may take, unless the payee says otherwise.
pub const TIMEOUT_S: u64 = 600;
/// The deposit that is asked for, unless the payee says otherwise: ten cents.
pub const DEPOSIT_MIN: MicroUsd = MicroUsd(100_000);

/// Where a payee wants its money, on one chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    pub channels: ChannelDomain,
    pub token: TokenDomain,
    /// The payout vault.
    pub receiver: Address,
    /// The key that signs claims and refunds.
    pub receiver_authorizer: Address,
    pub withdraw_delay_s: u64,
    /// How long an answer may take, and a deposit's authorization should hold.
    pub timeout_s: u64,
    /// The least deposit that is asked for, so that a channel serves more than one request.
    pub deposit_min: MicroUsd,
}

impl Terms {
    /// The usual terms of a registered provider: its vault receives, its hot key signs claims. A gateway that knows the
    /// registry can pay by these without asking first.
    pub fn usual(
        channels: ChannelDomain,
        token: TokenDomain,
        vault: Address,
        offer_key: Address,
    ) -> Self {
        Self {
            channels,
            token,
            receiver: vault,
            receiver_authorizer: offer_key,
            withdraw_delay_s: WITHDRAW_DELAY_S,
            timeout_s: TIMEOUT_S,
            deposit_min: DEPOSIT_MIN,
        }
    }

    /// The requirements for a request of this ceiling.
    pub fn requirements(&self, amount: MicroUsd) -> PaymentRequirements {
        PaymentRequirements {
            scheme: SCHEME.into(),
            network: Network(self.channels.chain_id),
            amount: Amount(amount),
            asset: self.token.token,
            pay_to: self.receiver,
            max_timeout_seconds: self.timeout_s,
            extra: RequirementsExtra {
                receiver_authorizer: self.receiver_authorizer,
                withdraw_delay: self.withdraw_delay_s,
                name: self.token.name.clone(),
                version: self.token.version.clone(),
                asset_transfer_method: Some("eip3009".into()),
                min_deposit: Some(Amount(self.deposit_min.max(amount))),
                channel_state: None,
                voucher_state: None,
            },
        }
    }

    /// The channel of one lane from `payer` to this payee; different salts are different lanes.
    pub fn channel(&self, payer: Address, payer_authorizer: Address, salt: B256) -> ChannelConfig {
        ChannelConfig {
            payer,
            payer_authorizer,
            receiver: self.receiver,
            receiver_authorizer: self.receiver_authorizer,
            token: self.token.token,
            withdraw_delay_s: self.withdraw_delay_s,
            salt,
        }
    }
}
