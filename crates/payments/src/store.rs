//! The shell around redb that both ledgers share: opens or refuses with the reason, and ties a ledger to one contract
//! on one chain, so that the books of one market are never used in another.

use std::path::{Path, PathBuf};

use assay_protocol::channel::ChannelDomain;
use redb::{
    Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError, TableDefinition,
};

const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
const FORMAT: &str = "format";
const DOMAIN: &str = "domain";

/// Why a ledger cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    #[error("the ledger {0} is in use by another process: stop that one first")]
    Locked(PathBuf),
    #[error(
        "the ledger {path} is damaged ({reason}): restore it from a backup before signing or serving anything"
    )]
    Corrupt { path: PathBuf, reason: String },
    #[error("the ledger {path} is a {found}, expected a {expected}: point to the right file")]
    OtherKind {
        path: PathBuf,
        expected: String,
        found: String,
    },
    #[error(
        "the ledger {path} belongs to contract {found:?}, not {expected:?}: use another data directory"
    )]
    OtherChain {
        path: PathBuf,
        expected: ChannelDomain,
        found: ChannelDomain,
    },
    #[error("the ledger {path} cannot be written: {reason}")]
    Io { path: PathBuf, reason: String },
}

/// An open database and where it lies.
pub(crate) struct Store {
    pub(crate) db: Database,
    path: PathBuf,
}

impl Store {
    /// Opens the ledger, or makes it where there is none. `kind` names its format and version.
    pub(crate) fn open(
        path: &Path,
        kind: &str,
        domain: &ChannelDomain,
    ) -> Result<Self, LedgerError> {
        let db = Database::create(path).map_err(|error| refusal(path, error))?;
        let store = Self {
            db,
            path: path.to_owned(),
        };
        let domain_json = serde_json::to_vec(domain).expect("a domain is plain data");
        let (format, found) = store.write(|txn| {
            let mut meta = txn.open_table(META)?;
            let get = |table: &redb::Table<'_, &str, &[u8]>, key| {
                Ok::<_, redb::Error>(table.get(key)?.map(|value| value.value().to_vec()))
            };
            let (format, found) = (get(&meta, FORMAT)?, get(&meta, DOMAIN)?);
            if format.is_none() {
                meta.insert(FORMAT, kind.as_bytes())?;
                meta.insert(DOMAIN, domain_json.as_slice())?;
            }
            Ok((format, found))
        })?;
        let Some(format) = format else {
            return Ok(store);
        };
        if format != kind.as_bytes() {
            let found = String::from_utf8_lossy(&format).into_owned();
            return Err(LedgerError::OtherKind {
                path: store.path,
                expected: kind.into(),
                found,
            });
        }
        let found: ChannelDomain = store.parse(&found.unwrap_or_default())?;
        if found != *domain {
            return Err(LedgerError::OtherChain {
                path: store.path,
                expected: *domain,
                found,
            });
        }
        Ok(store)
    }

    /// One transaction, durable when this returns.
    pub(crate) fn write<T>(
        &self,
        body: impl FnOnce(&redb::WriteTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, LedgerError> {
        let run = || -> Result<T, redb::Error> {
            let txn = self.db.begin_write()?;
            let value = body(&txn)?;
            txn.commit()?;
            Ok(value)
        };
        run().map_err(|error| self.failure(&error))
    }

    pub(crate) fn read<T>(
        &self,
        body: impl FnOnce(&redb::ReadTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, LedgerError> {
        let run = || -> Result<T, redb::Error> { body(&self.db.begin_read()?) };
        run().map_err(|error| self.failure(&error))
    }

    /// A row that this program wrote; anything else is damage.
    pub(crate) fn parse<T: serde::de::DeserializeOwned>(
        &self,
        bytes: &[u8],
    ) -> Result<T, LedgerError> {
        serde_json::from_slice(bytes).map_err(|error| LedgerError::Corrupt {
            path: self.path.clone(),
            reason: error.to_string(),
        })
    }

    fn failure(&self, error: &redb::Error) -> LedgerError {
        let (path, reason) = (self.path.clone(), error.to_string());
        match error {
            redb::Error::Corrupted(_) => LedgerError::Corrupt { path, reason },
            _ => LedgerError::Io { path, reason },
        }
    }
}

fn refusal(path: &Path, error: DatabaseError) -> LedgerError {
    let (path, reason) = (path.to_owned(), error.to_string());
    match error {
        DatabaseError::DatabaseAlreadyOpen => LedgerError::Locked(path),
        DatabaseError::Storage(StorageError::Io(io))
            if io.kind() != std::io::ErrorKind::InvalidData =>
        {
            LedgerError::Io { path, reason }
        }
        _ => LedgerError::Corrupt { path, reason },
    }
}
