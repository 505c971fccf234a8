//! One module a command: its arguments and what it does.

pub(crate) mod audit;
pub(crate) mod chain;
pub(crate) mod chat;
pub(crate) mod dispute;
pub(crate) mod gateway;
pub(crate) mod key;
pub(crate) mod model;
pub(crate) mod node;
mod proof;
pub(crate) mod prove;
pub(crate) mod receipt;
pub(crate) mod up;
pub(crate) mod verify;
pub(crate) mod watch;
