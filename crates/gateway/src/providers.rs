//! Who can be asked: providers from the registry, their checked offers, and what is remembered of
//! them. State behind one lock that is never held across an await; decides nothing.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use assay_payments::x402::PaymentRequirements;
use assay_protocol::{
    Address, B256, Domain, ListedOffer, MicroUsd, ModelId, Offer, ProofOffer, Signed, Timestamp,
};

use crate::prior::ChainsWord;
use crate::record::ProviderRecord;
use crate::routing::Candidate;

/// A provider as this gateway knows it now.
#[derive(Clone, Debug)]
pub(crate) struct Provider {
    pub(crate) registered: assay_chain::Provider,
    pub(crate) offers: BTreeMap<ModelId, Signed<Offer>>,
    /// On which terms it proves what it answers.
    pub(crate) proofs: BTreeMap<ModelId, Signed<ProofOffer>>,
    /// How it wants to be paid, from its own 402; checked against the registry.
    pub(crate) requirements: Option<PaymentRequirements>,
    pub(crate) in_flight: u32,
    /// Why its offers could not be had at the last look.
    pub(crate) trouble: Option<String>,
    /// What the chain said of it, and when it was asked.
    pub(crate) told: Option<(ChainsWord, Instant)>,
}

#[derive(Debug, Default)]
struct State {
    providers: BTreeMap<Address, Provider>,
    records: BTreeMap<Address, ProviderRecord>,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Providers(Mutex<State>);

/// A place at a provider; given back when dropped.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    providers: &'a Providers,
    address: Address,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(provider) = self.providers.lock().providers.get_mut(&self.address) {
            provider.in_flight = provider.in_flight.saturating_sub(1);
        }
    }
}

impl Providers {
    pub(crate) fn new(records: Vec<(Address, ProviderRecord)>) -> Self {
        let records = records.into_iter().collect();
        Self(Mutex::new(State {
            providers: BTreeMap::new(),
            records,
        }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the registry's word. Returns who is new.
    pub(crate) fn update(&self, registered: Vec<assay_chain::Provider>) -> Vec<Address> {
        let mut state = self.lock();
        let mut fresh = Vec::new();
        let listed: Vec<Address> = registered.iter().map(|p| p.address).collect();
        for provider in registered {
            match state.providers.get_mut(&provider.address) {
                Some(known) => {
                    // Another key, vault or address: nothing learned under the old one counts.
                    if known.registered.offer_key != provider.offer_key
                        || known.registered.vault != provider.vault
                        || known.registered.endpoint != provider.endpoint
                    {
                        known.offers.clear();
                        known.proofs.clear();
                        known.requirements = None;
                    }
                    known.registered = provider;
                }
                None => {
                    fresh.push(provider.address);
                    let address = provider.address;
                    let provider = Provider {
                        registered: provider,
                        offers: BTreeMap::new(),
                        proofs: BTreeMap::new(),
                        requirements: None,
                        in_flight: 0,
                        trouble: None,
                        told: None,
                    };
                    state.providers.insert(address, provider);
                }
            }
        }
        let State { providers, records } = &mut *state;
        // Who was benched stays in sight, and a convicted one is not listed any more.
        let benched = |address: &Address| {
            records
                .get(address)
                .is_some_and(|record| record.bench.is_some())
        };
        providers
            .retain(|address, p| listed.contains(address) || p.in_flight > 0 || benched(address));
        for (address, provider) in &mut state.providers {
            if !listed.contains(address) {
                provider.offers.clear();
            }
        }
        fresh
    }

    /// A conviction took the whole stake.
    pub(crate) fn slashed(&self, address: &Address) {
        if let Some(provider) = self.lock().providers.get_mut(address) {
            provider.registered.stake = MicroUsd::ZERO;
            provider.offers.clear();
        }
    }

    pub(crate) fn set_offers(&self, address: &Address, offers: Result<Vec<ListedOffer>, String>) {
        let mut state = self.lock();
        let Some(provider) = state.providers.get_mut(address) else {
            return;
        };
        match offers {
            Ok(listed) => {
                let model = |listed: &ListedOffer| listed.offer.body.model_id;
                let proofs = listed.iter().filter_map(|l| Some((model(l), l.proof?)));
                provider.proofs = proofs.collect();
                provider.offers = listed.iter().map(|l| (model(l), l.offer)).collect();
                provider.trouble = None;
            }
            // What was signed holds until it expires, whether or not the node answers just now.
            Err(trouble) => provider.trouble = Some(trouble),
        }
    }

    pub(crate) fn set_requirements(&self, address: &Address, requirements: PaymentRequirements) {
        if let Some(provider) = self.lock().providers.get_mut(address) {
            provider.requirements = Some(requirements);
        }
    }

    /// They are asked for anew with the next request.
    pub(crate) fn forget_requirements(&self, address: &Address) {
        if let Some(provider) = self.lock().providers.get_mut(address) {
            provider.requirements = None;
        }
    }

    /// Who was never measured here, and was not asked about on the chain for this long.
    pub(crate) fn untold(&self, for_long: Duration) -> Vec<Address> {
        let state = self.lock();
        let measured = |address: &Address| {
            let record = state.records.get(address);
            record.is_some_and(|record| record.speed().is_some())
        };
        let stale =
            |provider: &Provider| provider.told.is_none_or(|(_, at)| at.elapsed() >= for_long);
        let untold = state.providers.iter();
        untold
            .filter(|(address, provider)| !measured(address) && stale(provider))
            .map(|(address, _)| *address)
            .collect()
    }

    pub(crate) fn set_told(&self, address: &Address, word: ChainsWord) {
        if let Some(provider) = self.lock().providers.get_mut(address) {
            provider.told = Some((word, Instant::now()));
        }
    }

    /// Who is paid into this vault.
    pub(crate) fn of_vault(&self, vault: Address) -> Option<assay_chain::Provider> {
        let state = self.lock();
        let mut all = state.providers.values();
        all.find(|provider| provider.registered.vault == vault)
            .map(|provider| provider.registered.clone())
    }

    /// The registry's list as it was last read.
    pub(crate) fn registered(&self) -> Vec<assay_chain::Provider> {
        let state = self.lock();
        let all = state.providers.values();
        all.map(|provider| provider.registered.clone()).collect()
    }

    pub(crate) fn get(&self, address: &Address) -> Option<Provider> {
        self.lock().providers.get(address).cloned()
    }

    pub(crate) fn all(&self) -> Vec<(Provider, ProviderRecord)> {
        let state = self.lock();
        let record = |address| state.records.get(address).cloned().unwrap_or_default();
        state
            .providers
            .iter()
            .map(|(address, p)| (p.clone(), record(address)))
            .collect()
    }

    /// Whoever has an offer for this model, with its record.
    pub(crate) fn candidates(&self, model: &ModelId) -> Vec<Candidate> {
        let state = self.lock();
        let blank = ProviderRecord::default();
        let mut candidates = Vec::new();
        for (address, provider) in &state.providers {
            let Some(offer) = provider.offers.get(model) else {
                continue;
            };
            let record = state.records.get(address).unwrap_or(&blank);
            candidates.push(Candidate {
                offer: offer.body,
                proof: provider.proofs.get(model).map(|proof| proof.body),
                speed: record.speed(),
                told: provider.told.map(|(word, _)| word),
                last_used_ms: record.last_used_ms,
                in_flight: provider.in_flight,
                failures: record.failures_in_a_row,
                resting_until_ms: record.resting_until_ms,
                benched: record.bench.as_ref().map(|bench| bench.reason.clone()),
            });
        }
        candidates
    }

    pub(crate) fn take_place(&self, address: Address) -> Place<'_> {
        if let Some(provider) = self.lock().providers.get_mut(&address) {
            provider.in_flight = provider.in_flight.saturating_add(1);
        }
        Place {
            providers: self,
            address,
        }
    }

    /// Changes a record and returns it as it is then.
    pub(crate) fn amend<T>(
        &self,
        address: &Address,
        change: impl FnOnce(&mut ProviderRecord) -> T,
    ) -> (ProviderRecord, T) {
        let mut state = self.lock();
        let record = state.records.entry(*address).or_default();
        let result = change(record);
        (record.clone(), result)
    }
}

/// Why a signed offer is not believed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OfferRefused {
    #[error("an offer is not signed by the registered offer key: {0}")]
    Signature(#[from] assay_protocol::SignatureError),
    #[error("an offer is in the name of {0}")]
    OtherProvider(Address),
    #[error("an offer expired at {0}")]
    Expired(u64),
    #[error("the proofs offered with model {model} are of model {proven}")]
    OtherModel { model: B256, proven: B256 },
}

/// Checks one offer, and that for its proof, against the registry's key and the clock.
pub(crate) fn check_offer(
    listed: ListedOffer,
    registered: &assay_chain::Provider,
    domain: &Domain,
    now: Timestamp,
) -> Result<ListedOffer, OfferRefused> {
    let offer = listed.offer.check(domain, registered.offer_key)?;
    if let Some(proof) = listed.proof {
        let proof = proof.check(domain, registered.offer_key)?;
        if proof.provider != registered.address {
            return Err(OfferRefused::OtherProvider(proof.provider));
        }
        if proof.model_id != offer.model_id {
            let (model, proven) = (offer.model_id, proof.model_id);
            return Err(OfferRefused::OtherModel { model, proven });
        }
        if proof.expires_at <= now {
            return Err(OfferRefused::Expired(proof.expires_at.0));
        }
    }
    if offer.provider != registered.address {
        return Err(OfferRefused::OtherProvider(offer.provider));
    }
    if offer.expires_at <= now {
        return Err(OfferRefused::Expired(offer.expires_at.0));
    }
    Ok(listed)
}
