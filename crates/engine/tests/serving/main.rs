//! Serving: what a sequence yields depends on nothing but itself.

#[allow(dead_code, unreachable_pub)]
#[path = "../../../testkit/src/tiny.rs"]
mod tiny;

mod batching;
mod common;
mod fairness;
mod guessing;
mod sharing;
