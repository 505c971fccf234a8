//! EIP-712: how receipts and offers become the 32 bytes that are signed.
//!
//! The Solidity types here are what a contract recomputes; `vectors/` holds digests that both
//! sides must reach.

use alloy_primitives::{Address, B256};
use alloy_sol_types::{Eip712Domain, SolStruct, sol};
use serde::{Deserialize, Serialize};

use crate::{Offer, Receipt, Statement};

mod solidity {
    use super::sol;
    sol! {
        struct Statement {
            bytes32 modelId;
            bytes32 promptRoot;
            uint32 nPrompt;
            bytes32 samplerHash;
            bytes32 outputRoot;
            uint32 nOutput;
            uint8 stopReason;
        }
        struct Receipt {
            Statement statement;
            address provider;
            address payer;
            bytes32 channelId;
            uint64 chargedMicroUsd;
            uint64 cumulative;
            uint64 servedAt;
            uint32 ttftMs;
            uint32 durationMs;
            uint8 tier;
            bytes32 requestId;
        }
        struct Offer {
            address provider;
            bytes32 modelId;
            uint64 inputPrice;
            uint64 cachedInputPrice;
            uint64 outputPrice;
            uint32 maxContext;
            uint32 concurrency;
            uint32 ttftPromiseMs;
            uint64 expiresAt;
        }
    }
}

/// Where a signature counts: one registry on one chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Domain {
    pub chain_id: u64,
    pub verifying_contract: Address,
}

impl Domain {
    pub(crate) fn eip712(&self) -> Eip712Domain {
        Eip712Domain::new(
            Some("Assay".into()),
            Some("1".into()),
            Some(alloy_primitives::U256::from(self.chain_id)),
            Some(self.verifying_contract),
            None,
        )
    }
}

/// A value that is signed as EIP-712 typed data under the domain `("Assay", "1")`.
pub trait TypedData {
    /// `keccak(0x1901 ‖ domainSeparator ‖ structHash)`.
    fn digest(&self, domain: &Domain) -> B256;
}

impl From<&Statement> for solidity::Statement {
    fn from(statement: &Statement) -> Self {
        solidity::Statement {
            modelId: statement.model_id,
            promptRoot: statement.prompt_root,
            nPrompt: statement.n_prompt.0,
            samplerHash: statement.sampler_hash,
            outputRoot: statement.output_root,
            nOutput: statement.n_output.0,
            stopReason: statement.stop_reason as u8,
        }
    }
}

impl TypedData for Receipt {
    fn digest(&self, domain: &Domain) -> B256 {
        solidity::Receipt {
            statement: (&self.statement).into(),
            provider: self.provider,
            payer: self.payer,
            channelId: self.channel_id,
            chargedMicroUsd: self.charged.0,
            cumulative: self.cumulative.0,
            servedAt: self.served_at.0,
            ttftMs: self.ttft.0,
            durationMs: self.duration.0,
            tier: self.tier as u8,
            requestId: self.request_id,
        }
        .eip712_signing_hash(&domain.eip712())
    }
}

impl TypedData for Offer {
    fn digest(&self, domain: &Domain) -> B256 {
        solidity::Offer {
            provider: self.provider,
            modelId: self.model_id,
            inputPrice: self.price.input.0,
            cachedInputPrice: self.price.cached_input.0,
            outputPrice: self.price.output.0,
            maxContext: self.max_context.0,
            concurrency: self.concurrency,
            ttftPromiseMs: self.ttft_promise.0,
            expiresAt: self.expires_at.0,
        }
        .eip712_signing_hash(&domain.eip712())
    }
}
