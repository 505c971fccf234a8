//! Succinct proofs of statements: the integer-exact pass over prompt ‖ answer, proven after generation
//! (docs/proof.md). No clock, network, file or ambient randomness.

mod claim;
mod contract;
mod factor;
pub mod field;
pub mod functional;
pub mod matrix;
pub mod products;
pub mod rounds;
pub mod transcript;

pub use claim::{Claim, ClaimError, Key, Phase, Progress};
