//! A password: never shown, wiped from memory when it is dropped. It is not read from anywhere here.

use std::fmt;

use zeroize::Zeroizing;

use super::{Cost, KeyError, random_bytes};

/// What a keystore is encrypted with.
#[derive(Clone)]
pub struct Password {
    text: Zeroizing<String>,
    cost: Cost,
}

impl Password {
    /// One that a person chose. Keystores made with it are as dear to try as other wallets make theirs.
    pub fn new(text: String) -> Password {
        Password {
            text: Zeroizing::new(text),
            cost: Cost::Standard,
        }
    }

    /// 32 random bytes, as [`Password::random`] made them. Nobody guesses them, so stretching them would only cost time.
    pub fn of_random(text: String) -> Password {
        Password {
            text: Zeroizing::new(text),
            cost: Cost::Light,
        }
    }

    /// A new one from the operating system's randomness.
    pub fn random() -> Result<Password, KeyError> {
        let bytes = Zeroizing::new(random_bytes::<32>()?);
        Ok(Password::of_random(hex::encode(*bytes)))
    }

    /// To be written where it is kept, and nowhere else.
    pub fn reveal(&self) -> &str {
        &self.text
    }

    pub(super) fn cost(&self) -> Cost {
        self.cost
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}
