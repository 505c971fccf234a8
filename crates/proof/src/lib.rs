//! Succinct proofs of statements: the integer-exact pass over prompt ‖ answer, proven after generation
//! (docs/proof.md). No clock, network, file or ambient randomness.

pub mod field;
pub mod transcript;
