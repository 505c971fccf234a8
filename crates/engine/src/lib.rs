//! The integer-exact forward pass: the same tokens give the same bits on every machine, thread count,
//! batch shape and kernel. No float, clock, file, network or randomness. `ops` is the law, NUMERICS.md
//! its reasons; [`layout`] is the file that a model lives in.

mod attend;
mod batcher;
pub mod bounds;
mod cache;
pub mod calibrate;
mod clamps;
mod crew;
mod forward;
mod kernels;
pub mod layout;
mod model;
pub mod ops;
mod pool;
pub mod reference;
pub mod replay;
pub mod roofline;
pub mod run;
mod shared;
mod tokenwise;
pub mod trace;
pub mod values;

pub use batcher::{
    BatchLimits, BatchStats, Batcher, Event, EventKind, GenerationRequest, MemoryUse, SequenceId,
    SubmitError,
};
pub use bounds::BoundError;
pub use clamps::ClampCounts;
pub use model::{Bytes, LoadError, Model, RootError};
pub use pool::Threads;
