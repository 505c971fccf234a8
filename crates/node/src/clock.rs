//! The one place of the node that reads the clock and the system's randomness.

use std::time::{SystemTime, UNIX_EPOCH};

use assay_protocol::{B256, Timestamp};

pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    Timestamp(since.map_or(0, |since| since.as_secs()))
}

/// Fresh randomness, or why the system has none.
pub(crate) fn random() -> Result<B256, getrandom::Error> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)?;
    Ok(B256::from(bytes))
}
