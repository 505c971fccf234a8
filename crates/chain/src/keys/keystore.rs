//! The Ethereum JSON keystore (Web3 Secret Storage, version 3): 32 bytes under a password, and back.
//!
//! Pure: no file, no randomness. A keystore may be hostile: what it asks of processor and memory is bounded before
//! anything is computed.

use aes::Aes128;
use aes::cipher::{KeyIvInit, StreamCipher};
use alloy_primitives::keccak256;
use assay_protocol::Address;
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use zeroize::{Zeroize, Zeroizing};

use super::Password;

/// Memory that a keystore may ask for: twice that of geth's own.
const MEMORY_MAX: u64 = 512 << 20;
/// Steps of scrypt (n × r × p) that a keystore may ask for: four times those of geth's own, some seconds.
const STEPS_MAX: u64 = 1 << 23;
/// Rounds of PBKDF2 that a keystore may ask for: some seconds. Wallets take up to 2^18.
const ROUNDS_MAX: u32 = 10_000_000;
/// Salts are 32 bytes; a longer one costs nothing, an endless one does.
const SALT_MAX: usize = 256;

/// How much a guess at the password is to cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cost {
    /// n = 2^17, r = 8: OWASP's least for scrypt; 128 MiB, which a small server has. For what a person chose.
    Standard,
    /// n = 2^12: what geth calls light. Only for passwords that nobody can guess.
    Light,
}

impl Cost {
    fn log_n(self) -> u8 {
        match self {
            Cost::Standard => 17,
            Cost::Light => 12,
        }
    }
}

/// Why a keystore does not open.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeystoreError {
    #[error("no keystore of version 3: {0}")]
    Malformed(String),
    #[error("its field `{field}` is {len} bytes, not {expected}")]
    Length {
        field: &'static str,
        len: usize,
        expected: usize,
    },
    #[error("its {what} is {found:?}, which this program does not read")]
    Unknown { what: &'static str, found: String },
    #[error(
        "opening it would take more memory or time than any wallet asks for ({0}); whoever made it means harm"
    )]
    TooCostly(String),
    #[error("wrong password")]
    WrongPassword,
    #[error("it holds the key of {found}, not of {named} as it says")]
    WrongAddress { named: Address, found: Address },
    #[error("what it holds is no secp256k1 key")]
    NoKey,
}

#[derive(Serialize, Deserialize)]
struct Keystore {
    version: u8,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    /// Without 0x. Some wallets leave it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    #[serde(alias = "Crypto")]
    crypto: Crypto,
}

#[derive(Serialize, Deserialize)]
struct Crypto {
    cipher: String,
    cipherparams: CipherParams,
    ciphertext: String,
    kdf: String,
    kdfparams: serde_json::Value,
    mac: String,
}

#[derive(Serialize, Deserialize)]
struct CipherParams {
    iv: String,
}

#[derive(Serialize, Deserialize)]
struct ScryptParams {
    dklen: u64,
    n: u64,
    p: u64,
    r: u64,
    salt: String,
}

#[derive(Serialize, Deserialize)]
struct Pbkdf2Params {
    c: u64,
    dklen: u64,
    prf: String,
    salt: String,
}

/// What has to be new for every keystore.
pub(super) struct Fresh {
    pub(super) salt: [u8; 32],
    pub(super) iv: [u8; 16],
    pub(super) id: [u8; 16],
}

/// The keystore's JSON of a key.
pub(super) fn seal(
    secret: &[u8; 32],
    address: Address,
    password: &Password,
    cost: Cost,
    fresh: &Fresh,
) -> String {
    let params = ScryptParams {
        dklen: 32,
        n: 1 << cost.log_n(),
        p: 1,
        r: 8,
        salt: hex::encode(fresh.salt),
    };
    let derived = scrypt(password, &params, &fresh.salt).expect("our own parameters are in bounds");
    let mut ciphertext = *secret;
    apply_cipher(&derived, &fresh.iv, &mut ciphertext);
    let keystore = Keystore {
        version: 3,
        id: Some(uuid(fresh.id)),
        address: Some(hex::encode(address)),
        crypto: Crypto {
            cipher: "aes-128-ctr".into(),
            cipherparams: CipherParams {
                iv: hex::encode(fresh.iv),
            },
            ciphertext: hex::encode(ciphertext),
            kdf: "scrypt".into(),
            kdfparams: serde_json::to_value(params).expect("numbers and a string are JSON"),
            mac: hex::encode(mac(&derived, &ciphertext)),
        },
    };
    serde_json::to_string_pretty(&keystore).expect("strings are JSON")
}

/// The 32 bytes in a keystore, and the address that it names. The caller compares that with the key's own.
pub(super) fn open(
    json: &str,
    password: &Password,
) -> Result<(Zeroizing<[u8; 32]>, Option<Address>), KeystoreError> {
    let keystore = parse(json)?;
    let address = keystore.named()?;
    let crypto = keystore.crypto;
    if crypto.cipher != "aes-128-ctr" {
        return Err(unknown("cipher", crypto.cipher));
    }
    let iv: [u8; 16] = fixed("iv", &crypto.cipherparams.iv)?;
    let ciphertext: [u8; 32] = fixed("ciphertext", &crypto.ciphertext)?;
    let expected: [u8; 32] = fixed("mac", &crypto.mac)?;
    let derived = match crypto.kdf.as_str() {
        "scrypt" => {
            let params: ScryptParams = params(crypto.kdfparams)?;
            let salt = salt(&params.salt)?;
            scrypt(password, &params, &salt)?
        }
        "pbkdf2" => pbkdf2(password, &params(crypto.kdfparams)?)?,
        _ => return Err(unknown("kdf", crypto.kdf)),
    };
    if mac(&derived, &ciphertext) != expected {
        return Err(KeystoreError::WrongPassword);
    }
    let mut secret = Zeroizing::new(ciphertext);
    apply_cipher(&derived, &iv, &mut secret);
    Ok((secret, address))
}

/// The address that a keystore names, which nobody proves before it is opened.
pub(super) fn named_address(json: &str) -> Result<Option<Address>, KeystoreError> {
    parse(json)?.named()
}

impl Keystore {
    fn named(&self) -> Result<Option<Address>, KeystoreError> {
        let address = self.address.as_deref().map(|text| fixed("address", text));
        Ok(address.transpose()?.map(|bytes: [u8; 20]| bytes.into()))
    }
}

fn parse(json: &str) -> Result<Keystore, KeystoreError> {
    // A message of the parser may quote the file, and who knows what stands in it.
    let keystore: Keystore = serde_json::from_str(json).map_err(|e| {
        KeystoreError::Malformed(format!("line {}, column {}", e.line(), e.column()))
    })?;
    if keystore.version != 3 {
        return Err(unknown("version", keystore.version.to_string()));
    }
    Ok(keystore)
}

fn scrypt(
    password: &Password,
    params: &ScryptParams,
    salt: &[u8],
) -> Result<Zeroizing<[u8; 32]>, KeystoreError> {
    check_length(params.dklen)?;
    let ScryptParams { n, r, p, .. } = *params;
    let costly = || KeystoreError::TooCostly(format!("scrypt with n = {n}, r = {r}, p = {p}"));
    if n < 2 || !n.is_power_of_two() || r == 0 || p == 0 {
        return Err(KeystoreError::Malformed(format!(
            "scrypt knows no n = {n}, r = {r}, p = {p}"
        )));
    }
    let rows = n.checked_add(p).and_then(|rows| rows.checked_mul(r));
    let memory = rows.and_then(|rows| rows.checked_mul(128));
    let steps = n.checked_mul(r).and_then(|steps| steps.checked_mul(p));
    if memory.is_none_or(|bytes| bytes > MEMORY_MAX) || steps.is_none_or(|s| s > STEPS_MAX) {
        return Err(costly());
    }
    let small = |value: u64| u32::try_from(value).map_err(|_| costly());
    let log_n = u8::try_from(n.trailing_zeros()).map_err(|_| costly())?;
    let params = scrypt::Params::new(log_n, small(r)?, small(p)?).map_err(|_| costly())?;
    let mut derived = Zeroizing::new([0u8; 32]);
    scrypt::scrypt(password.reveal().as_bytes(), salt, &params, &mut *derived)
        .expect("32 bytes are a length that scrypt gives");
    Ok(derived)
}

fn pbkdf2(
    password: &Password,
    params: &Pbkdf2Params,
) -> Result<Zeroizing<[u8; 32]>, KeystoreError> {
    check_length(params.dklen)?;
    if params.prf != "hmac-sha256" {
        return Err(unknown("prf", params.prf.clone()));
    }
    let rounds = u32::try_from(params.c).ok().filter(|c| *c <= ROUNDS_MAX);
    let rounds = rounds
        .ok_or_else(|| KeystoreError::TooCostly(format!("PBKDF2 with {} rounds", params.c)))?;
    if rounds == 0 {
        return Err(KeystoreError::Malformed("PBKDF2 without a round".into()));
    }
    let mut derived = Zeroizing::new([0u8; 32]);
    pbkdf2::pbkdf2_hmac::<Sha256>(
        password.reveal().as_bytes(),
        &salt(&params.salt)?,
        rounds,
        &mut *derived,
    );
    Ok(derived)
}

fn check_length(dklen: u64) -> Result<(), KeystoreError> {
    match dklen {
        32 => Ok(()),
        _ => Err(unknown("dklen", dklen.to_string())),
    }
}

/// AES-128 in counter mode under the first half of the derived key; its own inverse.
fn apply_cipher(derived: &[u8; 32], iv: &[u8; 16], bytes: &mut [u8; 32]) {
    let mut key = [0u8; 16];
    key.copy_from_slice(&derived[..16]);
    ctr::Ctr128BE::<Aes128>::new(&key.into(), iv.into()).apply_keystream(bytes);
    key.zeroize();
}

/// Keccak of the second half and the ciphertext.
fn mac(derived: &[u8; 32], ciphertext: &[u8; 32]) -> [u8; 32] {
    let mut bytes = Zeroizing::new([0u8; 48]);
    bytes[..16].copy_from_slice(&derived[16..]);
    bytes[16..].copy_from_slice(ciphertext);
    keccak256(*bytes).0
}

fn params<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> Result<T, KeystoreError> {
    serde_json::from_value(value)
        .map_err(|_| KeystoreError::Malformed("its field `kdfparams`".into()))
}

fn salt(text: &str) -> Result<Vec<u8>, KeystoreError> {
    let salt = bytes("salt", text)?;
    if salt.len() > SALT_MAX {
        return Err(KeystoreError::Length {
            field: "salt",
            len: salt.len(),
            expected: 32,
        });
    }
    Ok(salt)
}

fn fixed<const N: usize>(field: &'static str, text: &str) -> Result<[u8; N], KeystoreError> {
    let bytes = bytes(field, text)?;
    let len = bytes.len();
    bytes.try_into().map_err(|_| KeystoreError::Length {
        field,
        len,
        expected: N,
    })
}

fn bytes(field: &'static str, text: &str) -> Result<Vec<u8>, KeystoreError> {
    hex::decode(text.strip_prefix("0x").unwrap_or(text))
        .map_err(|_| KeystoreError::Malformed(format!("its field `{field}` is no hex")))
}

fn unknown(what: &'static str, found: String) -> KeystoreError {
    KeystoreError::Unknown {
        what,
        found: found.chars().take(32).collect(),
    }
}

/// A random UUID (version 4), which is all that the format wants of an id.
fn uuid(mut bytes: [u8; 16]) -> String {
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let hex = hex::encode(bytes);
    [
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    ]
    .join("-")
}
