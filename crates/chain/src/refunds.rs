//! Unclaimed money back to its payer at once, in one transaction with the claim of what was charged: nobody can come
//! between the two. Decides no amount.

use alloy_primitives::{Bytes, U256};
use alloy_sol_types::SolCall;
use assay_protocol::MicroUsd;
use assay_protocol::channel::{ChannelConfig, Refund};

use crate::abi::IChannels;
use crate::claims::claim_call;
use crate::error::ChainError;
use crate::keys::Key;
use crate::reader::Market;
use crate::sender::{Claim, abi_config, bytes};
use crate::transact::Mined;

impl Market {
    /// Claims, if there is something to claim, and refunds; `authorizer` signs both for the receiver. The nonce is the
    /// channel's, as it was read when the amount was decided: a refund in between makes this one fail.
    pub async fn refund_after_claim(
        &self,
        relay: &Key,
        authorizer: &Key,
        claim: Option<&Claim>,
        config: &ChannelConfig,
        amount: MicroUsd,
        nonce: u64,
    ) -> Result<Mined, ChainError> {
        let refund = Refund {
            channel_id: self.channel_id(config)?,
            nonce,
            amount,
        };
        let signature = authorizer.sign_refund(&refund, &self.channel_domain());
        let refund = IChannels::refundWithSignatureCall {
            config: abi_config(config)?,
            amount: u128::from(amount.0),
            nonce: U256::from(nonce),
            receiverAuthorizerSignature: bytes(&signature),
        };
        let input = match claim {
            None => refund.abi_encode(),
            Some(claim) => {
                let claim = self.sign_claims(authorizer, std::slice::from_ref(claim));
                let calls = [claim_call(&claim)?.abi_encode(), refund.abi_encode()];
                let data = calls.into_iter().map(Bytes::from).collect();
                IChannels::multicallCall { data }.abi_encode()
            }
        };
        let to = self.deployment().channels;
        self.chain.send("refund", relay, to, input).await
    }
}
