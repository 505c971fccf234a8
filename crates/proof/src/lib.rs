//! Succinct proofs of statements: the integer-exact pass over prompt ‖ answer, proven after generation
//! (docs/proof.md). No clock, network, file or ambient randomness.

mod claim;
pub mod clear;
pub mod codec;
pub mod commit;
mod contract;
mod factor;
mod fast;
pub mod field;
pub mod fractions;
pub mod functional;
pub mod matrix;
pub mod products;
pub mod relation;
pub mod revealed;
pub mod rounds;
pub mod security;
pub mod transcript;
pub mod witness;

pub use claim::{Claim, ClaimError, Key, Phase, Progress};
