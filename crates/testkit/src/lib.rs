//! Tiny models, fakes and dishonest players, used from tests only.

#[cfg(feature = "market")]
pub mod market;
pub mod tiny;
mod tiny_model;
