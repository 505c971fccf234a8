//! The shell around redb that both ledgers share: makes one on purpose, opens or refuses with the reason and the way
//! out, and ties a ledger to one contract on one chain, so that the books of one market are never used in another.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use assay_protocol::channel::ChannelDomain;
use redb::{Database, DatabaseError, ReadableDatabase, StorageError, TableDefinition};

const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
const FORMAT: &str = "format";
const DOMAIN: &str = "domain";

/// Whose books these are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    /// Format and version, as they stand in the file.
    pub(crate) format: &'static str,
    /// The command that gives up what was in a lost ledger.
    pub(crate) recover: &'static str,
}

/// Why a ledger cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    #[error(
        "there is no ledger at {path}: restore it from a backup, or give up what was in it with `{recover}`"
    )]
    Missing {
        path: PathBuf,
        recover: &'static str,
    },
    #[error(
        "there is a file at {0} already, and no ledger is made over it: open it, or use another folder"
    )]
    Exists(PathBuf),
    #[error("the ledger {0} is in use by another process: stop that one first")]
    Locked(PathBuf),
    #[error(
        "the ledger {path} is damaged ({reason}): restore it from a backup, or move it away and give up what was in it with `{recover}`"
    )]
    Corrupt {
        path: PathBuf,
        reason: String,
        recover: &'static str,
    },
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
    #[error("the ledger {path} cannot be read or written: {reason}")]
    Io { path: PathBuf, reason: String },
}

/// An open database and where it lies.
pub(crate) struct Store {
    pub(crate) db: Database,
    path: PathBuf,
    kind: Kind,
}

/// A file that goes away unless it became a ledger.
struct Draft(PathBuf);

impl Drop for Draft {
    fn drop(&mut self) {
        // What stays behind after a crash is in nobody's way: the next draft has another name.
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Store {
    /// Makes a ledger where no file is, and the folder if need be. It gets its name when it is whole and on the disk,
    /// so a crash leaves nothing there or a good ledger. `tables` makes what its kind has besides.
    pub(crate) fn create(
        path: &Path,
        kind: Kind,
        domain: &ChannelDomain,
        tables: impl FnOnce(&redb::WriteTransaction) -> Result<(), redb::Error>,
    ) -> Result<Self, LedgerError> {
        let io = |error: std::io::Error| LedgerError::Io {
            path: path.to_owned(),
            reason: error.to_string(),
        };
        let folder = match path.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        std::fs::create_dir_all(folder).map_err(io)?;
        if path.symlink_metadata().is_ok() {
            return Err(LedgerError::Exists(path.to_owned()));
        }
        static DRAFTS: AtomicU64 = AtomicU64::new(0);
        let number = DRAFTS.fetch_add(1, Ordering::Relaxed);
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}-{number}.new", std::process::id()));
        let draft = Draft(folder.join(name));
        // Another process with our number may have died over one of this name, perhaps in another container.
        let _ = std::fs::remove_file(&draft.0);
        let db = Database::create(&draft.0).map_err(|error| refusal(path, kind, error))?;
        let store = Self {
            db,
            path: path.to_owned(),
            kind,
        };
        let domain = serde_json::to_vec(domain).expect("a domain is plain data");
        store.write(|txn| {
            let mut meta = txn.open_table(META)?;
            meta.insert(FORMAT, kind.format.as_bytes())?;
            meta.insert(DOMAIN, domain.as_slice())?;
            tables(txn)
        })?;
        // A link, unlike a renaming, never replaces what somebody else made meanwhile.
        std::fs::hard_link(&draft.0, path).map_err(|error| match error.kind() {
            std::io::ErrorKind::AlreadyExists => LedgerError::Exists(path.to_owned()),
            _ => io(error),
        })?;
        drop(draft);
        #[cfg(unix)]
        std::fs::File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(io)?;
        Ok(store)
    }

    /// Opens the ledger of this kind and domain; every page of it is checked.
    pub(crate) fn open(
        path: &Path,
        kind: Kind,
        domain: &ChannelDomain,
    ) -> Result<Self, LedgerError> {
        if matches!(path.try_exists(), Ok(false)) {
            return Err(LedgerError::Missing {
                path: path.to_owned(),
                recover: kind.recover,
            });
        }
        let db = Database::builder()
            .set_check_integrity_on_open(true)
            .open(path)
            .map_err(|error| refusal(path, kind, error))?;
        let store = Self {
            db,
            path: path.to_owned(),
            kind,
        };
        let meta = store.read(|txn| {
            let meta = match txn.open_table(META) {
                Ok(meta) => meta,
                Err(redb::TableError::TableDoesNotExist(_)) => return Ok((None, None)),
                Err(error) => return Err(error.into()),
            };
            let get =
                |key| Ok::<_, redb::Error>(meta.get(key)?.map(|value| value.value().to_vec()));
            Ok((get(FORMAT)?, get(DOMAIN)?))
        })?;
        let (Some(format), Some(found)) = meta else {
            return Err(store.corrupt("it does not say what it is".into()));
        };
        if format != kind.format.as_bytes() {
            let found = String::from_utf8_lossy(&format).into_owned();
            return Err(LedgerError::OtherKind {
                path: store.path,
                expected: kind.format.into(),
                found,
            });
        }
        let found: ChannelDomain = store.parse(&found)?;
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
        serde_json::from_slice(bytes).map_err(|error| self.corrupt(error.to_string()))
    }

    fn corrupt(&self, reason: String) -> LedgerError {
        LedgerError::Corrupt {
            path: self.path.clone(),
            reason,
            recover: self.kind.recover,
        }
    }

    fn failure(&self, error: &redb::Error) -> LedgerError {
        let reason = error.to_string();
        match error {
            redb::Error::Corrupted(_)
            | redb::Error::TableTypeMismatch { .. }
            | redb::Error::TypeDefinitionChanged { .. } => self.corrupt(reason),
            _ => LedgerError::Io {
                path: self.path.clone(),
                reason,
            },
        }
    }
}

fn refusal(path: &Path, kind: Kind, error: DatabaseError) -> LedgerError {
    let (path, reason) = (path.to_owned(), error.to_string());
    match error {
        DatabaseError::DatabaseAlreadyOpen => LedgerError::Locked(path),
        DatabaseError::Storage(StorageError::Io(io))
            if io.kind() != std::io::ErrorKind::InvalidData =>
        {
            LedgerError::Io { path, reason }
        }
        _ => LedgerError::Corrupt {
            path,
            reason,
            recover: kind.recover,
        },
    }
}
