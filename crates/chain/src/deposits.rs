//! What became of a deposit, by its authorization: a payer that does not know asks here before it pays again.

use alloy::eips::BlockNumberOrTag;
use assay_protocol::channel::{ChannelConfig, DepositAuthorization, deposit_nonce};

use crate::abi::ITestDollar;
use crate::error::ChainError;
use crate::reader::Market;

impl Market {
    /// Whether a deposit into this channel has come, in the state that the block `depth` below the newest left. Its
    /// authorization can be used once, so what has come never comes again.
    pub async fn deposit_arrived(
        &self,
        config: &ChannelConfig,
        authorization: &DepositAuthorization,
        depth: u64,
    ) -> Result<bool, ChainError> {
        let block = match depth {
            0 => BlockNumberOrTag::Latest,
            depth => match self.chain.block_number().await?.checked_sub(depth) {
                Some(block) => block.into(),
                // The chain is younger than that: nothing is sure yet.
                None => return Ok(false),
            },
        };
        let call = ITestDollar::authorizationStateCall {
            authorizer: config.payer,
            nonce: deposit_nonce(self.channel_id(config)?, authorization.salt),
        };
        let token = self.deployment().token;
        let used = self.chain.view_at("authorization", token, call, block);
        match used.await {
            // Where there was no token yet, none was paid.
            Err(ChainError::NoContract { .. }) if depth > 0 => Ok(false),
            told => told,
        }
    }
}
