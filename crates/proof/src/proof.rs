//! A proof's bytes: bounded and tagged with their version. What is in them is read where it is checked.

use crate::schedule::{FormatError, VERSION};

/// A proof of one statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    pub(crate) bytes: Vec<u8>,
}

impl Proof {
    /// Longer proofs are refused unread.
    pub const BYTES_MAX: usize = 64 << 20;

    /// Takes bytes for a proof if they could be one; [`verify`](crate::verify) says whether they are.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Proof, FormatError> {
        if bytes.len() > Proof::BYTES_MAX {
            return Err(FormatError::TooLarge {
                most: Proof::BYTES_MAX,
                got: bytes.len(),
            });
        }
        match assay_protocol::codec::Reader::new(VERSION, &bytes) {
            Ok(_) => Ok(Proof { bytes }),
            Err(_) => Err(FormatError::Version),
        }
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// keccak of the bytes.
    pub fn hash(&self) -> assay_protocol::B256 {
        assay_protocol::keccak256(&self.bytes)
    }
}
