//! A secp256k1 key: signs digests, never shows itself. Kept in a file that only its owner may read.

use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};

use alloy_primitives::FixedBytes;
use assay_protocol::channel::{
    ChannelDomain, ClaimEntry, ReceiveAuthorization, Refund, SignedVoucher, TokenDomain, Voucher,
    claim_batch_digest,
};
use assay_protocol::{Address, B256, Domain, Signature, Signed, TypedData};
use k256::ecdsa::SigningKey;

/// A private key. `Debug` shows its address only.
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
    #[error(
        "{path} holds no key: expected 64 hex digits; restore it from a backup, or move it away to get a new key"
    )]
    Malformed { path: PathBuf },
    #[error("others may read {path} (mode {mode:o}); run `chmod 600 {path}`")]
    Exposed { path: PathBuf, mode: u32 },
    #[error("these 32 bytes are no secp256k1 key")]
    OutOfRange,
    #[error("the operating system gives no randomness: {0}")]
    NoRandomness(String),
}

impl Key {
    /// The key in this file, which is made, with mode 0600, if it is not there.
    pub fn load_or_create(path: &Path) -> Result<Key, KeyError> {
        match Self::load(path) {
            Err(KeyError::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                let key = Key::random()?;
                key.store(path)?;
                Ok(key)
            }
            other => other,
        }
    }

    /// The key in this file. Refuses a file that others may read.
    pub fn load(path: &Path) -> Result<Key, KeyError> {
        let read = |source| KeyError::Read {
            path: path.to_owned(),
            source,
        };
        let text = std::fs::read_to_string(path).map_err(read)?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::metadata(path).map_err(read)?.permissions().mode() & 0o777;
            if mode & 0o077 != 0 {
                return Err(KeyError::Exposed {
                    path: path.to_owned(),
                    mode,
                });
            }
        }
        let malformed = || KeyError::Malformed {
            path: path.to_owned(),
        };
        let digits = text.trim();
        let mut bytes = [0u8; 32];
        hex::decode_to_slice(digits.strip_prefix("0x").unwrap_or(digits), &mut bytes)
            .map_err(|_| malformed())?;
        Key::from_bytes(&bytes).map_err(|_| malformed())
    }

    /// A fresh key from the operating system's randomness.
    pub fn random() -> Result<Key, KeyError> {
        loop {
            let mut bytes = [0u8; 32];
            getrandom::fill(&mut bytes).map_err(|e| KeyError::NoRandomness(e.to_string()))?;
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

    /// Writes the key to a new file with mode 0600; it is on disk before this returns.
    fn store(&self, path: &Path) -> Result<(), KeyError> {
        let write = |source| KeyError::Write {
            path: path.to_owned(),
            source,
        };
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(write)?;
        }
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        {
            use std::os::unix::fs::OpenOptionsExt;
            options.mode(0o600);
        }
        let mut file = options.open(path).map_err(write)?;
        writeln!(file, "0x{}", hex::encode(self.secret.to_bytes())).map_err(write)?;
        file.sync_all().map_err(write)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.address)
    }
}
