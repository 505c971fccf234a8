//! Signatures as evidence: `Signed` is a claim, `SignatureChecked` is one whose signer is known.

use std::ops::Deref;

use alloy_primitives::{Address, B256, FixedBytes, U256};
use serde::{Deserialize, Serialize};

use crate::typed_data::{Domain, TypedData};

/// secp256k1: r ‖ s ‖ v with v 27 or 28.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Signature(pub FixedBytes<65>);

/// Half the order of secp256k1: a larger s is the malleable twin of a smaller one.
const S_MAX: U256 = U256::from_limbs([
    0xdfe9_2f46_681b_20a0,
    0x5d57_6e73_57a4_501d,
    0xffff_ffff_ffff_ffff,
    0x7fff_ffff_ffff_ffff,
]);

/// Why a signature does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    #[error("signature's v is {0}, expected 27 or 28")]
    BadV(u8),
    #[error("signature's s is in the upper half of the group: a malleable twin")]
    HighS,
    #[error("signature recovers to no key")]
    NoSigner,
    #[error("signed by {signer}, expected {expected}")]
    WrongSigner { signer: Address, expected: Address },
}

impl Signature {
    /// The address whose key signed `digest`.
    pub fn recover(&self, digest: &B256) -> Result<Address, SignatureError> {
        let v = self.0[64];
        if v != 27 && v != 28 {
            return Err(SignatureError::BadV(v));
        }
        let word = |at: usize| U256::from_be_slice(&self.0[at..at + 32]);
        let (r, s) = (word(0), word(32));
        if s > S_MAX {
            return Err(SignatureError::HighS);
        }
        alloy_primitives::Signature::new(r, s, v == 28)
            .recover_address_from_prehash(digest)
            .map_err(|_| SignatureError::NoSigner)
    }

    /// Checks that `expected` signed `digest`.
    pub fn check(&self, digest: &B256, expected: Address) -> Result<(), SignatureError> {
        let signer = self.recover(digest)?;
        if signer == expected {
            Ok(())
        } else {
            Err(SignatureError::WrongSigner { signer, expected })
        }
    }
}

/// A value with a signature that nobody has checked yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signed<T> {
    pub body: T,
    pub signature: Signature,
}

impl<T: TypedData> Signed<T> {
    /// The only way to a [`SignatureChecked`]: `expected` signed this body under this domain.
    pub fn check(
        self,
        domain: &Domain,
        expected: Address,
    ) -> Result<SignatureChecked<T>, SignatureError> {
        self.signature.check(&self.body.digest(domain), expected)?;
        Ok(SignatureChecked(self))
    }
}

/// A value whose signature was checked against a known signer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignatureChecked<T>(Signed<T>);

impl<T> SignatureChecked<T> {
    pub fn into_signed(self) -> Signed<T> {
        self.0
    }

    pub fn signature(&self) -> &Signature {
        &self.0.signature
    }
}

impl<T> Deref for SignatureChecked<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.body
    }
}
