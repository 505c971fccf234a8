//! The provider's daemon: an OpenAI-compatible server that takes x402 vouchers, answers with an integer model, and
//! signs a receipt for every answer. Start with [`start`]; the way of a request is `http` → `order` → `till` →
//! `session`, and the engine computes behind `worker`.
//!
//! Charges only what was served, never answers before the voucher is durable, never cuts a prompt silently. Reads no
//! arguments and no environment.

mod app;
mod books;
mod claims;
mod clock;
mod conduct;
mod config;
mod defence;
mod deposits;
pub mod dishonest;
mod doors;
mod http;
mod keep;
mod offers;
mod order;
mod pin;
mod proofs;
mod prover;
mod records;
mod refunds;
mod server;
mod session;
mod sse;
mod till;
mod watch;
mod worker;

pub use books::{BooksError, create_ledger, ledger_path};
pub use claims::Earnings;
pub use conduct::{Conduct, EarlyEnd, Honest};
pub use config::{ClaimConfig, DefenceConfig, Limits, NodeConfig, ProofConfig, ServedModel};
pub use defence::{DefenceState, Defended};
pub use keep::{KeepError, kept};
pub use pin::PinError;
pub use proofs::ProofsError;
pub use prover::{Prove, Prover};
pub use records::{RecordsAnswer, RefusedRecord};
pub use server::{RunningNode, ShutdownReport, StartError, start};
