//! x402 v2 as the official packages shape it: JSON messages in base64 headers. Parsing is strict where money is
//! meant, and every header is bounded; fields that we do not know are left to those who do.

mod codes;
mod header;
mod message;

pub use codes::Code;
pub use header::{HEADER_BYTES_MAX, HeaderError, decode, encode};
pub use message::*;

/// The three headers. HTTP compares names without case; the official client writes them like this.
pub const PAYMENT_REQUIRED: &str = "PAYMENT-REQUIRED";
pub const PAYMENT_SIGNATURE: &str = "PAYMENT-SIGNATURE";
pub const PAYMENT_RESPONSE: &str = "PAYMENT-RESPONSE";
/// The payment scheme that is spoken here.
pub const SCHEME: &str = "batch-settlement";
/// The protocol version that is spoken here.
pub const VERSION: u32 = 2;
