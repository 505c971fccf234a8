//! The nouns of the market and their canonical bytes: ids, amounts, statement, receipt, offer,
//! manifest, and the layout of a statement's trace. No clock, no network, no file, no float. Start at
//! [`statement`].

pub mod channel;
pub mod codec;
pub mod manifest;
pub mod merkle;
pub mod sampler;
pub mod trace;

mod offer;
mod proof_offer;
mod receipt;
mod service;
mod signing;
mod statement;
mod typed_data;
mod units;

pub use alloy_primitives::{Address, B256, keccak256};
pub use offer::Offer;
pub use proof_offer::{ListedOffer, ProofOffer, proof_payment_id};
pub use receipt::{Receipt, Tier};
pub use sampler::{SamplerParams, Temperature};
pub use service::{
    Answered, Histogram, SPEED_BELOW, Service, ServiceBatch, ServiceRecord, TTFT_MS_BELOW,
    service_record_typehash,
};
pub use signing::{Signature, SignatureChecked, SignatureError, Signed};
pub use statement::{Statement, StopReason};
pub use typed_data::{Domain, TypedData};
pub use units::{
    DurationMs, MicroUsd, MicroUsdPerMillionTokens, Overflow, Price, Timestamp, TokenCount, Usage,
};

/// A token's number in its model's vocabulary.
pub type TokenId = u32;
/// The keccak of a model's manifest.
pub type ModelId = B256;
