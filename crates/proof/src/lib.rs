//! Succinct proofs of statements: the integer-exact pass over prompt ‖ answer, proven after generation
//! (docs/proof.md). No clock, network, file or ambient randomness.

mod argument;
mod claim;
pub mod clear;
pub mod codec;
pub mod commit;
mod contract;
mod fast;
pub mod field;
pub mod fractions;
pub mod functional;
pub mod matrix;
pub mod products;
mod proof;
mod prove;
pub mod relation;
pub mod revealed;
pub mod rounds;
mod schedule;
pub mod security;
mod soundness;
pub mod transcript;
mod verify;
mod weights;
pub mod witness;

pub use claim::{Claim, ClaimError, Key, Phase, Progress};
pub use proof::Proof;
pub use prove::{ProveError, prove};
pub use schedule::{FormatError, TooLong};
pub use verify::{Proven, Rejection, verify};
