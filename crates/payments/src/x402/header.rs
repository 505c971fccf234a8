//! Messages in headers: standard base64 over UTF-8 JSON, both bounded before they are decoded.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The longest header that is read. A deposit with its channel is about 2 KiB.
pub const HEADER_BYTES_MAX: usize = 16 * 1024;

/// Why a payment header cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum HeaderError {
    #[error("the header has {0} bytes, at most {HEADER_BYTES_MAX} are read")]
    TooLong(usize),
    #[error("the header is not base64")]
    Base64,
    #[error("the header's JSON does not parse: {0}")]
    Json(String),
}

/// The header's text for a message.
pub fn encode<T: Serialize>(message: &T) -> String {
    let json = serde_json::to_vec(message).expect("messages are plain data with string keys");
    STANDARD.encode(json)
}

/// The message in a header's text.
pub fn decode<T: DeserializeOwned>(header: &[u8]) -> Result<T, HeaderError> {
    if header.len() > HEADER_BYTES_MAX {
        return Err(HeaderError::TooLong(header.len()));
    }
    let json = STANDARD.decode(header).map_err(|_| HeaderError::Base64)?;
    serde_json::from_slice(&json).map_err(|error| HeaderError::Json(error.to_string()))
}
