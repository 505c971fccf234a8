//! A gateway in whole markets: an embedded chain, real nodes over real HTTP, honest and dishonest.
//! One binary, since linking it takes longer than most of its tests.

mod audits;
mod cloud;
mod common;
mod disputes;
mod misbehaviour;
mod optimistic;
mod proofs;
mod settlement;
mod thin_line;
