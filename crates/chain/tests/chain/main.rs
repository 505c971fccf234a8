//! The crate's tests in one binary, because compiling alloy's generics once per file is what they
//! would otherwise spend their time on.

mod bindings;
mod crash;
mod dispute;
mod faulty;
mod foreign;
mod gas;
mod history;
mod made;
mod market;
mod reorg;
mod rpc;
mod settlement;
mod support;
mod verify;
