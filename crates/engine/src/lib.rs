//! The integer-exact forward pass: the same tokens give the same bits on every machine, thread count,
//! batch shape and kernel. No float, clock, file, network or randomness. `ops` is the law, NUMERICS.md
//! its reasons; [`layout`] is the file that a model lives in.

pub mod layout;
