//! A node's two files: the ledger of what it charged, and what would defend its receipts. Made together and on purpose;
//! a node that finds only one of them, or neither, does not pretend that it never had the other.

use std::path::{Path, PathBuf};

use assay_payments::{LedgerError, PayeeLedger, Terms};

use crate::keep::{self, Keep, KeepError};

const LEDGER: &str = "payee.redb";

/// Why the books cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BooksError {
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    Keep(#[from] KeepError),
}

/// Where the ledger of a node in this folder lies.
pub fn ledger_path(data_dir: &Path) -> PathBuf {
    data_dir.join(LEDGER)
}

/// Makes the books of a provider that never had any on this chain, or that gave up what was in them. Refuses where a
/// ledger is. Evidence of an earlier ledger is kept: it still defends what was signed then.
pub fn create_ledger(data_dir: &Path, terms: Terms) -> Result<(), BooksError> {
    make(data_dir, terms).map(|_| ())
}

fn make(data_dir: &Path, terms: Terms) -> Result<(PayeeLedger, Keep), BooksError> {
    let ledger = PayeeLedger::create(&ledger_path(data_dir), terms)?;
    Ok((ledger, Keep::create(&data_dir.join(keep::FILE))?))
}

/// Opens the books off the async threads, since it waits for the disk.
pub(crate) async fn open(
    data_dir: &Path,
    terms: Terms,
    make_if_missing: bool,
) -> Result<(PayeeLedger, Keep), BooksError> {
    let dir = data_dir.to_owned();
    let task = tokio::task::spawn_blocking(move || {
        let ledger = ledger_path(&dir);
        if make_if_missing && matches!(ledger.try_exists(), Ok(false)) {
            return make(&dir, terms);
        }
        let ledger = PayeeLedger::open(&ledger, terms)?;
        let evidence = dir.join(keep::FILE);
        // Without a receipt there is nothing to defend: a crash came between the two files.
        let keep = if ledger.is_unused()? {
            Keep::create(&evidence)?
        } else {
            Keep::open(&evidence)?
        };
        Ok((ledger, keep))
    });
    task.await
        .expect("opening a ledger neither panics nor is cancelled")
}
