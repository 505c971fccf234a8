//! Tiny models, fakes and dishonest players, used from tests only.

pub mod tiny;
mod tiny_model;
