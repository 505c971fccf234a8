//! The chain's file: accounts, storage, code, blocks, transactions and receipts in redb tables.
//! One block is one transaction of the chain; what a commit writes is there for good or not at all.
//! Knows no EVM rule and no JSON.

use std::path::{Path, PathBuf};

use alloy_primitives::{Address, B256, Bytes, KECCAK256_EMPTY, U256};
use redb::{
    Database, ReadOnlyTable, ReadTransaction, ReadableDatabase, ReadableTable, Table,
    TableDefinition, WriteTransaction,
};
use revm::bytecode::Bytecode;
use revm::state::AccountInfo;

const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
/// balance ‖ nonce ‖ code hash.
const ACCOUNTS: TableDefinition<[u8; 20], [u8; 72]> = TableDefinition::new("accounts");
/// address ‖ slot.
const SLOTS: TableDefinition<[u8; 52], [u8; 32]> = TableDefinition::new("slots");
const CODE: TableDefinition<[u8; 32], &[u8]> = TableDefinition::new("code");
/// A header in RLP, by its number.
const HEADERS: TableDefinition<u64, &[u8]> = TableDefinition::new("headers");
const NUMBERS: TableDefinition<[u8; 32], u64> = TableDefinition::new("block_numbers");
/// sender ‖ signed transaction (EIP-2718), by the block that holds it.
const TRANSACTIONS: TableDefinition<u64, &[u8]> = TableDefinition::new("transactions");
const MINED_IN: TableDefinition<[u8; 32], u64> = TableDefinition::new("mined_in");
/// A receipt (EIP-2718), by its block.
const RECEIPTS: TableDefinition<u64, &[u8]> = TableDefinition::new("receipts");

/// Memory for hot pages at most; redb's own default is a gigabyte.
const CACHE_BYTES: usize = 64 * 1024 * 1024;

/// Changes when the tables change; a file of another format is refused.
const FORMAT: u64 = 1;

/// Why the chain's file cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(
        "{path} is in use by another process; stop that one, or give this one its own data folder"
    )]
    InUse { path: PathBuf },
    #[error(
        "{path} has format {got}, this program writes {FORMAT}; use the version that made it, or move the file away to start a new chain"
    )]
    Format { path: PathBuf, got: u64 },
    #[error(
        "{path} is of chain {got}, expected {expected}; correct the chain id, or use another file"
    )]
    OtherChain {
        path: PathBuf,
        expected: u64,
        got: u64,
    },
    #[error(
        "cannot open {path}: {why}; if the file is damaged, restore a backup or move it away to start a new chain"
    )]
    Open { path: PathBuf, why: String },
    #[error("the disk refuses: {0}")]
    Disk(String),
    #[error("a record in `{0}` is damaged; restore a backup of the chain's file")]
    Damaged(&'static str),
}

impl revm::database_interface::DBErrorMarker for StoreError {}

fn disk(error: impl std::fmt::Display) -> StoreError {
    StoreError::Disk(error.to_string())
}

/// What execution reads: the committed state, or the state within a commit that is being made.
pub(super) trait StateRead {
    fn account(&self, address: Address) -> Result<Option<AccountInfo>, StoreError>;
    fn slot(&self, address: Address, slot: U256) -> Result<U256, StoreError>;
    fn code(&self, hash: B256) -> Result<Bytecode, StoreError>;
    fn header(&self, number: u64) -> Result<Option<Vec<u8>>, StoreError>;
}

/// The open file.
pub(super) struct Store {
    database: Database,
}

impl Store {
    /// Opens or makes the file; in memory without a path.
    pub(super) fn open(path: Option<&Path>) -> Result<Store, StoreError> {
        let database = match path {
            None => Database::builder()
                .create_with_backend(redb::backends::InMemoryBackend::new())
                .map_err(disk)?,
            Some(path) => {
                if let Some(parent) = path.parent() {
                    std::fs::create_dir_all(parent).map_err(|e| StoreError::Open {
                        path: path.to_owned(),
                        why: e.to_string(),
                    })?;
                }
                let mut builder = Database::builder();
                builder.set_cache_size(CACHE_BYTES);
                builder.create(path).map_err(|error| match error {
                    redb::DatabaseError::DatabaseAlreadyOpen => StoreError::InUse {
                        path: path.to_owned(),
                    },
                    other => StoreError::Open {
                        path: path.to_owned(),
                        why: other.to_string(),
                    },
                })?
            }
        };
        Ok(Store { database })
    }

    /// The chain id that this file was made with; None for a new file.
    pub(super) fn chain_id(&self, path: &Path) -> Result<Option<u64>, StoreError> {
        let read = self.database.begin_read().map_err(disk)?;
        let meta = match read.open_table(META) {
            Ok(table) => table,
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
            Err(error) => return Err(disk(error)),
        };
        let value = |key: &str| -> Result<Option<u64>, StoreError> {
            Ok(meta.get(key).map_err(disk)?.map(|guard| guard.value()))
        };
        match value("format")? {
            None => return Ok(None),
            Some(FORMAT) => {}
            Some(got) => {
                return Err(StoreError::Format {
                    path: path.to_owned(),
                    got,
                });
            }
        }
        value("chain_id")?
            .map(Some)
            .ok_or(StoreError::Damaged("meta"))
    }

    /// The committed state, unmoved by later commits.
    pub(super) fn snapshot(&self) -> Result<Snapshot, StoreError> {
        let read = self.database.begin_read().map_err(disk)?;
        Snapshot::new(&read).map_err(disk)
    }

    /// Starts a commit. There is one at a time; a second waits.
    pub(super) fn begin(&self) -> Result<Commit, StoreError> {
        // redb's default durability: `commit` returns after the data reached the disk.
        Ok(Commit {
            write: self.database.begin_write().map_err(disk)?,
        })
    }
}

/// A commit that is being made.
pub(super) struct Commit {
    write: WriteTransaction,
}

impl Commit {
    pub(super) fn draft(&self) -> Result<Draft<'_>, StoreError> {
        Draft::new(&self.write).map_err(disk)
    }

    /// Marks a new file as this chain's.
    pub(super) fn mark(&self, chain_id: u64) -> Result<(), StoreError> {
        let mut meta = self.write.open_table(META).map_err(disk)?;
        meta.insert("format", FORMAT).map_err(disk)?;
        meta.insert("chain_id", chain_id).map_err(disk)?;
        Ok(())
    }

    /// All of it reaches the disk, or none.
    pub(super) fn finish(self) -> Result<(), StoreError> {
        self.write.commit().map_err(disk)
    }
}

/// The committed state.
pub(super) struct Snapshot {
    accounts: ReadOnlyTable<[u8; 20], [u8; 72]>,
    slots: ReadOnlyTable<[u8; 52], [u8; 32]>,
    code: ReadOnlyTable<[u8; 32], &'static [u8]>,
    headers: ReadOnlyTable<u64, &'static [u8]>,
    numbers: ReadOnlyTable<[u8; 32], u64>,
    transactions: ReadOnlyTable<u64, &'static [u8]>,
    mined_in: ReadOnlyTable<[u8; 32], u64>,
    receipts: ReadOnlyTable<u64, &'static [u8]>,
}

impl Snapshot {
    fn new(read: &ReadTransaction) -> Result<Snapshot, redb::TableError> {
        Ok(Snapshot {
            accounts: read.open_table(ACCOUNTS)?,
            slots: read.open_table(SLOTS)?,
            code: read.open_table(CODE)?,
            headers: read.open_table(HEADERS)?,
            numbers: read.open_table(NUMBERS)?,
            transactions: read.open_table(TRANSACTIONS)?,
            mined_in: read.open_table(MINED_IN)?,
            receipts: read.open_table(RECEIPTS)?,
        })
    }

    /// The newest block's number.
    pub(super) fn head(&self) -> Result<u64, StoreError> {
        last(&self.headers)
    }

    pub(super) fn number_of(&self, hash: B256) -> Result<Option<u64>, StoreError> {
        Ok(self.numbers.get(hash.0).map_err(disk)?.map(|g| g.value()))
    }

    /// The block that holds a transaction.
    pub(super) fn mined_in(&self, hash: B256) -> Result<Option<u64>, StoreError> {
        Ok(self.mined_in.get(hash.0).map_err(disk)?.map(|g| g.value()))
    }

    /// The sender and the signed bytes of a block's transaction; none in the first block.
    pub(super) fn transaction(&self, number: u64) -> Result<Option<(Address, Bytes)>, StoreError> {
        let Some(guard) = self.transactions.get(number).map_err(disk)? else {
            return Ok(None);
        };
        let (sender, raw) = guard
            .value()
            .split_at_checked(20)
            .ok_or(StoreError::Damaged("transactions"))?;
        Ok(Some((
            Address::from_slice(sender),
            Bytes::copy_from_slice(raw),
        )))
    }

    pub(super) fn receipt(&self, number: u64) -> Result<Option<Vec<u8>>, StoreError> {
        bytes_of(&self.receipts, number)
    }
}

impl StateRead for Snapshot {
    fn account(&self, address: Address) -> Result<Option<AccountInfo>, StoreError> {
        account(&self.accounts, address)
    }
    fn slot(&self, address: Address, slot: U256) -> Result<U256, StoreError> {
        slot_value(&self.slots, address, slot)
    }
    fn code(&self, hash: B256) -> Result<Bytecode, StoreError> {
        code(&self.code, hash)
    }
    fn header(&self, number: u64) -> Result<Option<Vec<u8>>, StoreError> {
        bytes_of(&self.headers, number)
    }
}

/// The state within a commit, and the pen that changes it.
pub(super) struct Draft<'c> {
    accounts: Table<'c, [u8; 20], [u8; 72]>,
    slots: Table<'c, [u8; 52], [u8; 32]>,
    code: Table<'c, [u8; 32], &'static [u8]>,
    headers: Table<'c, u64, &'static [u8]>,
    numbers: Table<'c, [u8; 32], u64>,
    transactions: Table<'c, u64, &'static [u8]>,
    mined_in: Table<'c, [u8; 32], u64>,
    receipts: Table<'c, u64, &'static [u8]>,
}

/// A block as it is stored.
pub(super) struct BlockRecord<'a> {
    pub(super) number: u64,
    pub(super) hash: B256,
    pub(super) header: &'a [u8],
    /// Hash, sender, signed bytes, receipt; none in the first block.
    pub(super) transaction: Option<(B256, Address, &'a [u8], &'a [u8])>,
}

impl<'c> Draft<'c> {
    fn new(write: &'c WriteTransaction) -> Result<Draft<'c>, redb::TableError> {
        Ok(Draft {
            accounts: write.open_table(ACCOUNTS)?,
            slots: write.open_table(SLOTS)?,
            code: write.open_table(CODE)?,
            headers: write.open_table(HEADERS)?,
            numbers: write.open_table(NUMBERS)?,
            transactions: write.open_table(TRANSACTIONS)?,
            mined_in: write.open_table(MINED_IN)?,
            receipts: write.open_table(RECEIPTS)?,
        })
    }

    pub(super) fn head(&self) -> Result<u64, StoreError> {
        last(&self.headers)
    }

    pub(super) fn is_mined(&self, hash: B256) -> Result<bool, StoreError> {
        Ok(self.mined_in.get(hash.0).map_err(disk)?.is_some())
    }

    pub(super) fn set_account(
        &mut self,
        address: Address,
        info: &AccountInfo,
    ) -> Result<(), StoreError> {
        let mut record = [0u8; 72];
        record[..32].copy_from_slice(&info.balance.to_be_bytes::<32>());
        record[32..40].copy_from_slice(&info.nonce.to_be_bytes());
        record[40..].copy_from_slice(info.code_hash.as_slice());
        self.accounts.insert(address.0.0, record).map_err(disk)?;
        if let Some(bytecode) = &info.code
            && !bytecode.is_empty()
        {
            let bytes = bytecode.original_byte_slice();
            self.code.insert(info.code_hash.0, bytes).map_err(disk)?;
        }
        Ok(())
    }

    /// Forgets an account with all its storage.
    pub(super) fn remove_account(&mut self, address: Address) -> Result<(), StoreError> {
        self.accounts.remove(address.0.0).map_err(disk)?;
        let range = slot_key(address, U256::ZERO)..=slot_key(address, U256::MAX);
        self.slots.retain_in(range, |_, _| false).map_err(disk)?;
        Ok(())
    }

    pub(super) fn set_slot(
        &mut self,
        address: Address,
        slot: U256,
        value: U256,
    ) -> Result<(), StoreError> {
        let key = slot_key(address, slot);
        if value.is_zero() {
            self.slots.remove(key).map_err(disk)?;
        } else {
            self.slots
                .insert(key, value.to_be_bytes::<32>())
                .map_err(disk)?;
        }
        Ok(())
    }

    pub(super) fn add_block(&mut self, block: &BlockRecord<'_>) -> Result<(), StoreError> {
        self.headers
            .insert(block.number, block.header)
            .map_err(disk)?;
        self.numbers
            .insert(block.hash.0, block.number)
            .map_err(disk)?;
        if let Some((hash, sender, raw, receipt)) = block.transaction {
            let record = [sender.as_slice(), raw].concat();
            self.transactions
                .insert(block.number, record.as_slice())
                .map_err(disk)?;
            self.mined_in.insert(hash.0, block.number).map_err(disk)?;
            self.receipts.insert(block.number, receipt).map_err(disk)?;
        }
        Ok(())
    }
}

impl StateRead for Draft<'_> {
    fn account(&self, address: Address) -> Result<Option<AccountInfo>, StoreError> {
        account(&self.accounts, address)
    }
    fn slot(&self, address: Address, slot: U256) -> Result<U256, StoreError> {
        slot_value(&self.slots, address, slot)
    }
    fn code(&self, hash: B256) -> Result<Bytecode, StoreError> {
        code(&self.code, hash)
    }
    fn header(&self, number: u64) -> Result<Option<Vec<u8>>, StoreError> {
        bytes_of(&self.headers, number)
    }
}

fn account(
    table: &impl ReadableTable<[u8; 20], [u8; 72]>,
    address: Address,
) -> Result<Option<AccountInfo>, StoreError> {
    let Some(guard) = table.get(address.0.0).map_err(disk)? else {
        return Ok(None);
    };
    let record = guard.value();
    let mut nonce = [0u8; 8];
    nonce.copy_from_slice(&record[32..40]);
    Ok(Some(AccountInfo {
        balance: U256::from_be_slice(&record[..32]),
        nonce: u64::from_be_bytes(nonce),
        code_hash: B256::from_slice(&record[40..]),
        // Loaded by its hash when it runs.
        code: None,
        ..AccountInfo::default()
    }))
}

fn slot_value(
    table: &impl ReadableTable<[u8; 52], [u8; 32]>,
    address: Address,
    slot: U256,
) -> Result<U256, StoreError> {
    let value = table.get(slot_key(address, slot)).map_err(disk)?;
    Ok(value.map_or(U256::ZERO, |guard| U256::from_be_bytes(guard.value())))
}

fn code(
    table: &impl ReadableTable<[u8; 32], &'static [u8]>,
    hash: B256,
) -> Result<Bytecode, StoreError> {
    if hash == KECCAK256_EMPTY || hash.is_zero() {
        return Ok(Bytecode::default());
    }
    let guard = table
        .get(hash.0)
        .map_err(disk)?
        .ok_or(StoreError::Damaged("code"))?;
    let bytes = Bytes::copy_from_slice(guard.value());
    Bytecode::new_raw_checked(bytes).map_err(|_| StoreError::Damaged("code"))
}

fn bytes_of(
    table: &impl ReadableTable<u64, &'static [u8]>,
    number: u64,
) -> Result<Option<Vec<u8>>, StoreError> {
    Ok(table.get(number).map_err(disk)?.map(|g| g.value().to_vec()))
}

fn last(table: &impl ReadableTable<u64, &'static [u8]>) -> Result<u64, StoreError> {
    let (number, _) = table
        .last()
        .map_err(disk)?
        .ok_or(StoreError::Damaged("headers"))?;
    Ok(number.value())
}

fn slot_key(address: Address, slot: U256) -> [u8; 52] {
    let mut key = [0u8; 52];
    key[..20].copy_from_slice(address.as_slice());
    key[20..].copy_from_slice(&slot.to_be_bytes::<32>());
    key
}
