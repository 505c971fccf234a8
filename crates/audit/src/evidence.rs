//! Everything that a stranger needs to judge one answer, in one self-contained file. Holds data and
//! checks signatures; never judges the answer itself (that is `accounting` and `reexecute`).

use assay_protocol::{
    Address, Domain, Offer, Receipt, SamplerParams, SignatureChecked, Signed, TokenCount, TokenId,
    Usage,
};
use serde::{Deserialize, Serialize};

/// The receipt with what it hashes: prompt, sampler and output, and the offer it was bought under.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evidence {
    /// The format of this file.
    pub format: Format,
    /// The chain and registry that the signatures are bound to.
    pub domain: Domain,
    /// The provider's offer key. Offline this is taken from the file; only the registry on chain
    /// can say that it is the key registered by `receipt.provider`.
    pub signer: Address,
    pub offer: Signed<Offer>,
    pub receipt: Signed<Receipt>,
    pub prompt: Vec<TokenId>,
    /// How many prompt tokens the provider billed as cached.
    pub cached: TokenCount,
    pub sampler: SamplerParams,
    pub output: Vec<TokenId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Format {
    #[serde(rename = "assay-evidence-v1")]
    V1,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureFault {
    #[error("the receipt is not signed by the provider's offer key {signer}: {reason}")]
    Receipt { signer: Address, reason: String },
    #[error("the offer is not signed by the provider's offer key {signer}: {reason}")]
    Offer { signer: Address, reason: String },
    #[error("the receipt is from provider {receipt}, the offer from {offer}")]
    DifferentProviders { receipt: Address, offer: Address },
}

/// What both signatures vouch for.
#[derive(Clone, Debug)]
pub struct CheckedPair {
    pub receipt: SignatureChecked<Receipt>,
    pub offer: SignatureChecked<Offer>,
}

impl Evidence {
    /// What the receipt bills for: counts from the ids in hand.
    pub fn usage(&self) -> Usage {
        Usage {
            prompt: count(self.prompt.len()),
            cached: self.cached,
            output: count(self.output.len()),
        }
    }

    /// Checks both signatures against `signer`; whether `signer` is registered is the caller's to ask.
    pub fn check_signatures(&self) -> Result<CheckedPair, SignatureFault> {
        let signer = self.signer;
        let receipt =
            self.receipt
                .check(&self.domain, signer)
                .map_err(|error| SignatureFault::Receipt {
                    signer,
                    reason: error.to_string(),
                })?;
        let offer =
            self.offer
                .check(&self.domain, signer)
                .map_err(|error| SignatureFault::Offer {
                    signer,
                    reason: error.to_string(),
                })?;
        if receipt.provider != offer.provider {
            return Err(SignatureFault::DifferentProviders {
                receipt: receipt.provider,
                offer: offer.provider,
            });
        }
        Ok(CheckedPair { receipt, offer })
    }
}

/// A length as a count; one that no receipt can state becomes the largest, and so disagrees.
pub(crate) fn count(length: usize) -> TokenCount {
    TokenCount(u32::try_from(length).unwrap_or(u32::MAX))
}
