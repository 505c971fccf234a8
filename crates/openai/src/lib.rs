//! The OpenAI surface as data: node and gateway read requests and write answers through this crate only.
//!
//! A request becomes exact integers in one place ([`request`]), so that both sides of the market mean the same
//! computation by the same JSON. Nothing here touches the network, a clock or a model. Floats exist only between
//! the JSON text and [`SamplerDraft`].

mod answer;
mod error;
mod fields;
mod request;
mod sampler;

pub use answer::*;
pub use error::{ApiError, ErrorBody};
pub use request::{
    AssayRequest, Fallback, Input, Limits, Message, Request, parse_chat, parse_completion,
};
pub use sampler::SamplerDraft;
