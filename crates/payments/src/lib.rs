//! Paying for answers: x402 v2 messages of the scheme `batch-settlement`, and the books of both sides.
//!
//! Who owes what is decided by pure functions over states ([`payer::Lane`], [`payee::Account`]); the ledgers only
//! make each decision durable before anybody acts on it. Nothing here knows HTTP, a chain connection or a clock: the
//! caller brings headers, what the chain says, and the time.

pub mod payee;
pub mod payee_chain;
pub mod payee_claims;
mod payee_ledger;
pub mod payee_records;
pub mod payer;
mod payer_ledger;
mod store;
pub mod terms;
pub mod x402;

pub use payee_ledger::{AcceptError, PayeeLedger, RecordError};
pub use payer_ledger::{Paid, PayerLedger, PayerLedgerError};
pub use store::LedgerError;
pub use terms::{Terms, ceiling};
