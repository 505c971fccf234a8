//! The consumer's side: an OpenAI surface over a market of nodes. Routes by price and measured speed,
//! pays by voucher, checks every receipt, audits a private-coin sample, benches a liar. Start with
//! [`start`]; the way of a request is `http` → `prepare` → `serve` → `buy` → `follow`.
//!
//! Never shows text that the token ids do not say, never pays on after a receipt that does not hold,
//! never takes a cloud's answer for a checked one. Reads no arguments and no environment.

mod answer;
mod auditor;
mod away;
mod buy;
mod care;
mod cloud;
mod config;
mod discovery;
mod disputes;
mod events;
mod follow;
mod gateway;
mod http;
mod lanes;
mod ledgers;
mod prepare;
mod prior;
mod proofs;
mod providers;
mod receipts;
mod record;
mod records;
mod routing;
mod serve;
mod server;
mod sse;
mod status;
mod store;
mod upstream;

pub use auditor::AuditReport;
pub use cloud::{ApiKey, CloudUpstream};
pub use config::{
    ChainPatience, DisputePolicy, GatewayConfig, GatewayLimits, ProofPolicy, RecordPolicy, Spending,
};
pub use events::{Event, Verdict, What};
pub use gateway::Gateway;
pub use lanes::LaneStatus;
pub use ledgers::{LedgersError, Recovered, create_ledgers, recover};
pub use prior::ChainsWord;
pub use proofs::{ProofPhase, ProofProgress, ProofStatus, Verifier, Verify};
pub use record::{Bench, ProviderRecord, Rest};
pub use records::PostError;
pub use routing::RoutingPolicy;
pub use server::{RunningGateway, StartError, start};
pub use status::{LastRoute, ModelStatus, OfferStatus, ProviderStatus, Status};
pub use store::{
    AuditState, DisputeState, DisputeTotals, Entry, ProofState, ReceiptEntry, Store, StoreError,
    Totals, UnverifiedEntry,
};
