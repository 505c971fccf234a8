//! The proof offer: what a provider asks, and by when it promises, for proving an answer that it gave. Signed beside the
//! offer for the answer itself, so that a provider without proofs signs nothing new (docs/adr/0020).

use alloy_primitives::{Address, B256, keccak256};
use alloy_sol_types::{SolStruct, sol};
use serde::{Deserialize, Serialize};

use crate::typed_data::{Domain, TypedData};
use crate::{
    MicroUsd, MicroUsdPerMillionTokens, ModelId, Offer, Overflow, Signed, Timestamp, TokenCount,
};

mod solidity {
    use super::sol;
    sol! {
        struct ProofOffer {
            address provider;
            bytes32 modelId;
            uint64 price;
            uint32 maxTokens;
            uint32 delayS;
            uint64 expiresAt;
        }
    }
}

/// A price for proofs that holds until it expires, and the limits it is given under.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ProofOffer {
    pub provider: Address,
    pub model_id: ModelId,
    /// For every token of prompt and answer. Due when the proof is in and holds, and not before.
    pub price: MicroUsdPerMillionTokens,
    /// Most tokens that are proven, prompt and answer together.
    pub max_tokens: TokenCount,
    /// From `served_at` of the receipt to its proof.
    pub delay_s: u32,
    pub expires_at: Timestamp,
}

impl ProofOffer {
    /// What the proof of such an answer costs, rounded up to a whole micro-USD.
    pub fn charge(&self, prompt: TokenCount, output: TokenCount) -> Result<MicroUsd, Overflow> {
        // A sum of two u32 times a u64: below 2^97.
        let tokens = u128::from(prompt.0) + u128::from(output.0);
        let sum = tokens * u128::from(self.price.0);
        u64::try_from(sum.div_ceil(1_000_000))
            .map(MicroUsd)
            .map_err(|_| Overflow)
    }
}

impl TypedData for ProofOffer {
    fn digest(&self, domain: &Domain) -> B256 {
        solidity::ProofOffer {
            provider: self.provider,
            modelId: self.model_id,
            price: self.price.0,
            maxTokens: self.max_tokens.0,
            delayS: self.delay_s,
            expiresAt: self.expires_at.0,
        }
        .eip712_signing_hash(&domain.eip712())
    }
}

/// An offer as a node lists it. Who knows nothing of proofs reads the offer alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedOffer {
    #[serde(flatten)]
    pub offer: Signed<Offer>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<Signed<ProofOffer>>,
}

/// The id under which the proof of a request is paid: a request of its own that follows from the first, so that paying
/// twice for one proof is as impossible as paying twice for one answer.
pub fn proof_payment_id(request_id: &B256) -> B256 {
    const DOMAIN: &[u8] = b"assay-proof-payment-v1";
    keccak256([DOMAIN, request_id.as_slice()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer() -> ProofOffer {
        ProofOffer {
            provider: Address::repeat_byte(1),
            model_id: B256::repeat_byte(2),
            price: MicroUsdPerMillionTokens(3_000_000),
            max_tokens: TokenCount(512),
            delay_s: 900,
            expires_at: Timestamp(1_700_000_000),
        }
    }

    #[test]
    fn a_proof_is_charged_by_prompt_and_answer_together_and_rounded_up() {
        assert_eq!(
            offer().charge(TokenCount(10), TokenCount(5)),
            Ok(MicroUsd(45))
        );
        let cheap = ProofOffer {
            price: MicroUsdPerMillionTokens(1),
            ..offer()
        };
        assert_eq!(cheap.charge(TokenCount(1), TokenCount(0)), Ok(MicroUsd(1)));
        let dear = ProofOffer {
            price: MicroUsdPerMillionTokens(u64::MAX),
            ..offer()
        };
        let most = TokenCount(u32::MAX);
        assert_eq!(dear.charge(most, most), Err(Overflow));
    }

    #[test]
    fn digest_and_payment_id_are_those_that_viem_computes() {
        let domain = Domain {
            chain_id: 1,
            verifying_contract: Address::repeat_byte(9),
        };
        let digest = offer().digest(&domain).to_string();
        assert_eq!(
            digest,
            "0x912ab3bc30b2fb8b4027d8815a5fed2a3b42ceb4d50e3b89d94a425420ccfaf8"
        );
        let id = proof_payment_id(&B256::repeat_byte(7)).to_string();
        assert_eq!(
            id,
            "0x666dcd6517b195d398f15be436d598564dcc25c6a478d5e06ecc6ae3cfd806a3"
        );
    }

    #[test]
    fn each_term_is_bound_by_the_signature() {
        let domain = Domain {
            chain_id: 1,
            verifying_contract: Address::repeat_byte(9),
        };
        let changes: [fn(&mut ProofOffer); 6] = [
            |o| o.provider = Address::ZERO,
            |o| o.model_id = B256::ZERO,
            |o| o.price.0 += 1,
            |o| o.max_tokens.0 += 1,
            |o| o.delay_s += 1,
            |o| o.expires_at.0 += 1,
        ];
        for change in changes {
            let mut other = offer();
            change(&mut other);
            assert_ne!(other.digest(&domain), offer().digest(&domain));
        }
    }
}
