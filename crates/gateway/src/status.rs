//! `/assay/v1/status`: the gateway's state as JSON for people and programs. Reads only.

use std::time::Duration;

use assay_audit::AuditPolicy;
use assay_openai::ApiError;
use assay_protocol::{Address, B256, Domain, MicroUsd, ModelId, Price, ProofOffer, Timestamp};
use serde::{Deserialize, Serialize};

use crate::gateway::Gateway;
use crate::lanes::LaneStatus;
use crate::prior::ChainsWord;
use crate::record::ProviderRecord;
use crate::store::{DisputeTotals, Totals};

/// How long a look at the gateway's state waits for the chain.
const BALANCE_WAIT: Duration = Duration::from_secs(2);

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    pub version: String,
    pub started_at: Timestamp,
    pub domain: Domain,
    pub payer: Address,
    /// What the payer's account holds beside its channels; nothing if the chain cannot be asked now.
    pub balance: Option<MicroUsd>,
    pub models: Vec<ModelStatus>,
    pub providers: Vec<ProviderStatus>,
    pub lanes: Vec<LaneStatus>,
    /// By the books of the lanes: charged in all, and what unsettled vouchers could still claim.
    pub spent: MicroUsd,
    pub at_risk: MicroUsd,
    pub totals: Totals,
    #[serde(default)]
    pub disputes: DisputeTotals,
    pub audit: AuditPolicy,
    pub active: usize,
    #[serde(default)]
    pub last_route: Option<LastRoute>,
    /// Names of configured clouds, in the order in which they are asked.
    pub clouds: Vec<String>,
}

/// A choice of the router, with what spoke for it and why the others were passed over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastRoute {
    pub request_id: B256,
    pub provider: Address,
    pub why: String,
    pub passed_over: Vec<(Address, String)>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ModelStatus {
    pub name: String,
    pub id: ModelId,
    /// The longest context on offer.
    pub context: u32,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ProviderStatus {
    pub address: Address,
    pub endpoint: String,
    pub stake: MicroUsd,
    pub offers: Vec<OfferStatus>,
    pub in_flight: u32,
    /// Why its offers could not be had at the last look.
    pub trouble: Option<String>,
    /// In one word: `serving`, `resting`, `silent` or `benched`.
    pub state: String,
    pub record: ProviderRecord,
    /// The chain's word, not this gateway's measure; only where `record` has none of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chains_word: Option<ChainsWord>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OfferStatus {
    pub model_id: ModelId,
    pub price: Price,
    pub max_context: u32,
    pub concurrency: u32,
    pub expires_at: Timestamp,
    /// On which terms it proves, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<ProofOffer>,
}

impl Gateway {
    pub(crate) async fn status(&self) -> Result<Status, ApiError> {
        let (spent, at_risk) = self.lanes().totals();
        // A chain that is away keeps nobody from the rest.
        let away = &self.lanes().away;
        let balance = match away.wait() {
            Some(_) => None,
            None => {
                let asking = self.market().balance(self.payer());
                away.ask(BALANCE_WAIT, asking).await.ok()
            }
        };
        let models = self.config().models.iter().map(|model| ModelStatus {
            name: model.name.clone(),
            id: model.model.id(),
            context: self.context(model),
        });
        Ok(Status {
            version: env!("CARGO_PKG_VERSION").into(),
            started_at: Timestamp(self.started_at()),
            domain: self.market().domain(),
            payer: self.payer(),
            balance,
            models: models.collect(),
            providers: self
                .providers()
                .all()
                .into_iter()
                .map(|(p, r)| provider(self, p, r))
                .collect(),
            lanes: self.lanes().status(),
            spent,
            at_risk,
            totals: self.totals(),
            disputes: self.dispute_totals(),
            audit: *self.audit_policy(),
            active: *self.active().borrow(),
            last_route: self.last_route(),
            clouds: self
                .clouds()
                .iter()
                .map(|cloud| cloud.name.clone())
                .collect(),
        })
    }
}

fn provider(
    gateway: &Gateway,
    provider: crate::providers::Provider,
    record: ProviderRecord,
) -> ProviderStatus {
    let offers: Vec<OfferStatus> = provider
        .offers
        .values()
        .map(|offer| OfferStatus {
            model_id: offer.body.model_id,
            price: offer.body.price,
            max_context: offer.body.max_context.0,
            concurrency: offer.body.concurrency,
            expires_at: offer.body.expires_at,
            proof: provider
                .proofs
                .get(&offer.body.model_id)
                .map(|proof| proof.body),
        })
        .collect();
    let now = gateway.now();
    let state = if record.bench.is_some() {
        "benched"
    } else if !offers.iter().any(|offer| offer.expires_at > now) {
        "silent"
    } else if record.resting_until_ms > crate::gateway::clock_ms() {
        "resting"
    } else {
        "serving"
    };
    ProviderStatus {
        address: provider.registered.address,
        endpoint: provider.registered.endpoint,
        stake: provider.registered.stake,
        offers,
        in_flight: provider.in_flight,
        trouble: provider.trouble,
        state: state.into(),
        chains_word: match record.speed() {
            Some(_) => None,
            None => provider.told.map(|(word, _)| word),
        },
        record,
    }
}
