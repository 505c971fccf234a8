//! A secp256k1 key: signs digests, never shows itself. Kept in an encrypted file that only its owner may read.
//!
//! `keystore` is the file's format, `file` how it is read and written, `password` what opens it.

use std::fmt;
use std::path::{Path, PathBuf};

use alloy_primitives::FixedBytes;
use assay_protocol::channel::{
    ChannelDomain, ClaimEntry, ReceiveAuthorization, Refund, SignedVoucher, TokenDomain, Voucher,
    claim_batch_digest,
};
use assay_protocol::{Address, B256, Domain, Signature, Signed, TypedData};
use k256::ecdsa::SigningKey;
use zeroize::Zeroizing;

mod file;
mod keystore;
mod password;
#[cfg(test)]
mod tests;

use keystore::Cost;
pub use keystore::KeystoreError;
pub use password::Password;

/// A private key. `Debug` shows its address only; dropping it wipes it.
#[derive(Clone)]
pub struct Key {
    secret: SigningKey,
    address: Address,
}

/// Why a key cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("cannot read the key file {path}: {source}")]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("cannot write the key file {path}: {source}")]
    Write {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{path} is there already, and a key file is never overwritten; move it away first")]
    Exists { path: PathBuf },
    #[error(
        "{path} holds no key: expected a JSON keystore; restore it from a backup, or move it away to get a new key"
    )]
    Malformed { path: PathBuf },
    #[error("{path} does not open: {source}")]
    Keystore {
        path: PathBuf,
        source: KeystoreError,
    },
    #[error("others may read {path} (mode {mode:o}); run `chmod 600 {path}`")]
    Exposed { path: PathBuf, mode: u32 },
    #[error("these 32 bytes are no secp256k1 key")]
    OutOfRange,
    #[error("expected a raw key: 64 hex digits")]
    NotHex,
    #[error("the operating system gives no randomness: {0}")]
    NoRandomness(String),
}

impl KeyError {
    /// Whether another password may open the file.
    pub fn is_wrong_password(&self) -> bool {
        let source = match self {
            KeyError::Keystore { source, .. } => source,
            _ => return false,
        };
        *source == KeystoreError::WrongPassword
    }
}

/// What stands in a key file, as far as it tells without a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyFile {
    /// A keystore, with the address that it names if it names one.
    Keystore(Option<Address>),
    /// A raw key, as earlier versions of this program wrote them.
    Plain(Address),
}

impl KeyFile {
    pub fn address(&self) -> Option<Address> {
        match self {
            KeyFile::Keystore(address) => *address,
            KeyFile::Plain(address) => Some(*address),
        }
    }

    /// Looks at a key file. Refuses one that others may read.
    pub fn at(path: &Path) -> Result<KeyFile, KeyError> {
        let text = file::read(path)?;
        if is_json(&text) {
            let named = keystore::named_address(&text);
            return Ok(KeyFile::Keystore(named.map_err(|e| in_file(path, e))?));
        }
        let key = Key::from_hex(&text).map_err(|_| malformed(path))?;
        Ok(KeyFile::Plain(key.address))
    }
}

impl Key {
    /// The key in this file: a keystore, or a raw key as earlier versions wrote them, for which the password does not
    /// matter. Refuses a file that others may read.
    pub fn load(path: &Path, password: &Password) -> Result<Key, KeyError> {
        let text = file::read(path)?;
        if is_json(&text) {
            return Key::open(&text, password).map_err(|e| in_file(path, e));
        }
        Key::from_hex(&text).map_err(|_| malformed(path))
    }

    /// The key in a keystore's JSON.
    pub fn open(json: &str, password: &Password) -> Result<Key, KeystoreError> {
        let (secret, named) = keystore::open(json, password)?;
        let key = Key::from_bytes(&secret).map_err(|_| KeystoreError::NoKey)?;
        match named {
            Some(named) if named != key.address => Err(KeystoreError::WrongAddress {
                named,
                found: key.address,
            }),
            _ => Ok(key),
        }
    }

    /// A fresh key in a new file.
    pub fn create(path: &Path, password: &Password) -> Result<Key, KeyError> {
        let key = Key::random()?;
        key.store(path, password)?;
        Ok(key)
    }

    /// Writes a new keystore with mode 0600, whole or not at all. It is on disk before this returns, and what stands
    /// there already is never overwritten.
    pub fn store(&self, path: &Path, password: &Password) -> Result<(), KeyError> {
        file::write_new(path, &self.seal(password)?)
    }

    /// Puts this key under another password, in place of the file that it was loaded from.
    pub fn replace(&self, path: &Path, password: &Password) -> Result<(), KeyError> {
        match KeyFile::at(path)?.address() {
            Some(other) if other != self.address => Err(KeyError::Exists {
                path: path.to_owned(),
            }),
            _ => file::replace(path, &self.seal(password)?),
        }
    }

    fn seal(&self, password: &Password) -> Result<String, KeyError> {
        let fresh = keystore::Fresh {
            salt: random_bytes()?,
            iv: random_bytes()?,
            id: random_bytes()?,
        };
        let secret = Zeroizing::new(<[u8; 32]>::from(self.secret.to_bytes()));
        let cost = password.cost();
        let mut json = keystore::seal(&secret, self.address, password, cost, &fresh);
        json.push('\n');
        Ok(json)
    }

    /// A key from 64 hex digits, with or without 0x, whatever space is around them.
    pub fn from_hex(text: &str) -> Result<Key, KeyError> {
        let digits = text.trim();
        let mut bytes = Zeroizing::new([0u8; 32]);
        let digits = digits.strip_prefix("0x").unwrap_or(digits);
        hex::decode_to_slice(digits, &mut *bytes).map_err(|_| KeyError::NotHex)?;
        Key::from_bytes(&bytes)
    }

    /// A fresh key from the operating system's randomness.
    pub fn random() -> Result<Key, KeyError> {
        loop {
            let bytes = Zeroizing::new(random_bytes()?);
            // All but 2^-128 of the draws are keys.
            if let Ok(key) = Key::from_bytes(&bytes) {
                return Ok(key);
            }
        }
    }

    /// A key from its 32 bytes.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Key, KeyError> {
        let secret = SigningKey::from_slice(bytes).map_err(|_| KeyError::OutOfRange)?;
        let address = Address::from_public_key(secret.verifying_key());
        Ok(Key { secret, address })
    }

    pub fn address(&self) -> Address {
        self.address
    }

    /// Signs 32 bytes; s is always in the lower half.
    pub fn sign_digest(&self, digest: B256) -> Signature {
        let (signature, recovery) = self
            .secret
            .sign_prehash_recoverable(digest.as_slice())
            .expect("32 bytes of digest always sign");
        let mut bytes = [0u8; 65];
        bytes[..64].copy_from_slice(&signature.to_bytes());
        bytes[64] = 27 + recovery.to_byte();
        Signature(FixedBytes(bytes))
    }

    /// Signs a receipt or an offer.
    pub fn sign<T: TypedData>(&self, body: T, domain: &Domain) -> Signed<T> {
        let signature = self.sign_digest(body.digest(domain));
        Signed { body, signature }
    }

    /// Signs a promise to pay.
    pub fn sign_voucher(&self, voucher: Voucher, domain: &ChannelDomain) -> SignedVoucher {
        let signature = self.sign_digest(voucher.digest(domain));
        SignedVoucher { voucher, signature }
    }

    /// Signs a claim as the receiver's authorizer.
    pub fn sign_claims(&self, entries: &[ClaimEntry], domain: &ChannelDomain) -> Signature {
        self.sign_digest(claim_batch_digest(entries, domain))
    }

    /// Signs a refund as the receiver's authorizer.
    pub fn sign_refund(&self, refund: &Refund, domain: &ChannelDomain) -> Signature {
        self.sign_digest(refund.digest(domain))
    }

    /// Signs an EIP-3009 authorization as the owner of the money.
    pub fn sign_authorization(
        &self,
        authorization: &ReceiveAuthorization,
        domain: &TokenDomain,
    ) -> Signature {
        self.sign_digest(authorization.digest(domain))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.address)
    }
}

fn is_json(text: &str) -> bool {
    text.trim_start().starts_with('{')
}

fn malformed(path: &Path) -> KeyError {
    KeyError::Malformed {
        path: path.to_owned(),
    }
}

fn in_file(path: &Path, source: KeystoreError) -> KeyError {
    KeyError::Keystore {
        path: path.to_owned(),
        source,
    }
}

fn random_bytes<const N: usize>() -> Result<[u8; N], KeyError> {
    let mut bytes = [0u8; N];
    getrandom::fill(&mut bytes).map_err(|e| KeyError::NoRandomness(e.to_string()))?;
    Ok(bytes)
}
