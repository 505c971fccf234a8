//! Players for tests of a whole market: a proxy that makes an honest node misbehave, and a cloud.

mod cloud;
mod proxy;
mod tamper;

pub use cloud::{CloudStandIn, Seen};
pub use proxy::TamperProxy;
pub use tamper::{ReceiptEdit, Tamper};
