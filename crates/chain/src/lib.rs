//! The market's chain: contract bindings, events → state (`reader`), moves → transactions
//! (`sender`), the embedded EVM and any JSON-RPC endpoint behind one type.
//!
//! Judges nothing and decides no payment: it reads what contracts say and sends what it is told.
//! [`Chain`] is a network, [`Market`] the contracts of one deployment on it; both clone cheaply.

pub mod abi;
pub mod artifacts;
pub mod embedded;
pub mod gas;
pub mod history;
pub mod keys;
pub mod networks;

mod claims;
mod connect;
mod deploy;
mod deployment;
mod deposits;
mod dispute;
mod endpoints;
mod error;
mod logs;
mod patience;
mod pending;
mod reader;
mod refunds;
mod sender;
mod service;
mod transact;
mod verify;

pub use claims::{CLAIMS_MAX, SignedClaims, Submitted};
pub use connect::Chain;
pub use deploy::{DeployProgress, MadeContract};
pub use deployment::{DeployParams, Deployment};
pub use dispute::{Conviction, Dispute, DisputeFilter, encode_fact, encode_step};
pub use embedded::{Embedded, EmbeddedConfig};
pub use error::{ChainError, Refusal};
pub use keys::{Key, KeyError, KeyFile, Password};
pub use patience::Patience;
pub use reader::{ChannelState, Market, PendingPayout, Provider, ReceiverState, Withdrawal};
pub use sender::{Claim, Registration};
pub use service::{Score, ServiceEntry, ServicePost};
pub use transact::Mined;
pub use verify::Check;
