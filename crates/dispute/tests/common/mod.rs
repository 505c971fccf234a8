//! A toy trace, the contract in memory, and players, honest and not.
// Each test file uses a part of them.
#![allow(dead_code)]

pub(crate) mod court;
pub(crate) mod players;
pub(crate) mod toy;
