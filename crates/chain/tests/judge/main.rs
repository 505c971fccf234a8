//! The referee against the engine, on a real EVM: whatever the engine computes passes, whatever it does
//! not compute is convicted. `STEPS=all` and the ignored tests look at more.

mod arithmetic;
mod court;
mod evm;
mod game;
mod geometry;
mod honest;
mod liars;
mod real;
#[allow(dead_code)]
#[path = "../chain/support.rs"]
mod support;
