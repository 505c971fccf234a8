//! The market's chain: contract bindings, events → state (`reader`), moves → transactions
//!
//! Judges nothing and decides no payment: it reads what contracts say and sends what it is told.
//! [`Chain`] is a network, [`Market`] the contracts of one deployment on it; both clone cheaply.

pub mod abi;
pub mod keys;

mod connect;
mod deployment;
mod error;
mod reader;
mod sender;
mod transact;

pub use connect::Chain;
pub use deployment::{DeployParams, Deployment};
pub use error::{ChainError, Refusal};
pub use keys::{Key, KeyError};
pub use reader::{ChannelState, Market, PendingPayout, Provider, ReceiverState, Withdrawal};
pub use sender::{Claim, Registration};
pub use transact::Mined;
