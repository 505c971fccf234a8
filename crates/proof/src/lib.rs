//! Succinct proofs of statements: the integer-exact pass over prompt ‖ answer, proven after generation
//! (docs/proof.md). No clock, network, file or ambient randomness.

mod argument;
#[cfg(test)]
mod attacks;
mod claim;
pub mod clear;
pub mod codec;
pub mod commit;
mod committed;
mod contract;
mod fast;
pub mod field;
pub mod fractions;
pub mod functional;
mod key;
pub mod matrix;
pub mod products;
mod proof;
mod prove;
pub mod public;
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
pub use committed::WeightsCommitted;
pub use key::{KeyError, KeyFile, setup};
pub use proof::Proof;
pub use prove::{Options, ProveError, prove, prove_with};
pub use schedule::{FormatError, TooLong};
pub use verify::{Chosen, Proven, Rejection, verify};
