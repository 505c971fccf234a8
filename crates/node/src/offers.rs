//! Signed offers: what this node would answer at which price, until when. Renewed before half of their time is gone,
//! so that whoever reads one has time to use it.

use std::sync::Mutex;

use assay_chain::Key;
use assay_protocol::{Domain, ListedOffer, Offer, ProofOffer, Timestamp};

/// The offers of one node.
pub(crate) struct Offers {
    key: Key,
    domain: Domain,
    validity_s: u64,
    current: Mutex<Vec<ListedOffer>>,
    templates: Vec<Template>,
}

/// An offer, and that for its proof, without a time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Template {
    pub(crate) offer: Offer,
    pub(crate) proof: Option<ProofOffer>,
}

impl Offers {
    pub(crate) fn new(templates: Vec<Template>, key: Key, domain: Domain, validity_s: u64) -> Self {
        Self {
            key,
            domain,
            validity_s,
            current: Mutex::new(Vec::new()),
            templates,
        }
    }

    pub(crate) fn current(&self, now: Timestamp) -> Vec<ListedOffer> {
        // A panic while holding this lock leaves a whole list behind, old or new.
        let mut current = self
            .current
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let fresh = now.plus_seconds(self.validity_s / 2);
        if current.is_empty()
            || current
                .iter()
                .any(|listed| listed.offer.body.expires_at < fresh)
        {
            let expires_at = now.plus_seconds(self.validity_s);
            let sign = |template: &Template| {
                let offer = Offer {
                    expires_at,
                    ..template.offer
                };
                let proof = template.proof.map(|proof| ProofOffer {
                    expires_at,
                    ..proof
                });
                ListedOffer {
                    offer: self.key.sign(offer, &self.domain),
                    proof: proof.map(|proof| self.key.sign(proof, &self.domain)),
                }
            };
            *current = self.templates.iter().map(sign).collect();
        }
        current.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use assay_protocol::{
        Address, B256, DurationMs, MicroUsdPerMillionTokens, Price, Signed, TokenCount,
    };

    #[test]
    fn offers_are_renewed_before_half_of_their_time_is_gone() {
        let key = Key::from_bytes(&[7; 32]).unwrap();
        let domain = Domain {
            chain_id: 1,
            verifying_contract: Address::ZERO,
        };
        let offer = Offer {
            provider: Address::repeat_byte(1),
            model_id: B256::repeat_byte(2),
            price: Price::default(),
            max_context: TokenCount(64),
            concurrency: 2,
            ttft_promise: DurationMs(1),
            expires_at: Timestamp(0),
        };
        let proof = ProofOffer {
            provider: offer.provider,
            model_id: offer.model_id,
            price: MicroUsdPerMillionTokens(5),
            max_tokens: TokenCount(32),
            delay_s: 60,
            expires_at: Timestamp(0),
        };
        let signer = key.address();
        let template = Template {
            offer,
            proof: Some(proof),
        };
        let offers = Offers::new(vec![template], key, domain, 100);
        let first = offers.current(Timestamp(1_000));
        assert_eq!(first[0].offer.body.expires_at, Timestamp(1_100));
        assert_eq!(offers.current(Timestamp(1_050)), first);
        let second = offers.current(Timestamp(1_051));
        assert_eq!(second[0].offer.body.expires_at, Timestamp(1_151));
        second[0].offer.check(&domain, signer).unwrap();
        let proof = second[0].proof.unwrap().check(&domain, signer).unwrap();
        assert_eq!(proof.expires_at, Timestamp(1_151));
        // Who knows nothing of proofs reads the same list.
        let json = serde_json::to_string(&second).unwrap();
        let read: Vec<Signed<Offer>> = serde_json::from_str(&json).unwrap();
        assert_eq!(read[0], second[0].offer);
    }
}
