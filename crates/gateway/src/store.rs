//! What the gateway must not forget: evidence of every answer, unsigned cloud answers, provider
//! records and the audit secret, in one redb file. A kill at any moment loses no answer that a
//! client was told of. Decides nothing.

use std::path::Path;

use assay_audit::{Evidence, Fault};
use assay_protocol::{Address, B256, MicroUsd, ModelId, StopReason, Tier, Timestamp};
use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::record::ProviderRecord;

/// Answers in order of arrival: sequence → `Entry`.
const ENTRIES: TableDefinition<u64, &[u8]> = TableDefinition::new("entries");
/// Request id → sequence.
const SEQUENCES: TableDefinition<&[u8; 32], u64> = TableDefinition::new("sequences");
/// Request id → `Evidence`.
const EVIDENCE: TableDefinition<&[u8; 32], &[u8]> = TableDefinition::new("evidence");
/// Request id → the bytes of a proof that was checked.
const PROOFS: TableDefinition<&[u8; 32], &[u8]> = TableDefinition::new("proofs");
/// Provider → `ProviderRecord`.
const PROVIDERS: TableDefinition<&[u8; 20], &[u8]> = TableDefinition::new("providers");
const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
const SECRET: &str = "audit secret";

/// One answer in the list. A cloud's is a type of its own, so that nothing can take it for a receipt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Entry {
    Receipt(ReceiptEntry),
    Unverified(UnverifiedEntry),
}

/// An answer from the market, with a signed receipt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptEntry {
    /// The request's id, and the receipt's.
    pub id: B256,
    pub at: Timestamp,
    pub model: String,
    pub model_id: ModelId,
    pub provider: Address,
    pub tier: Tier,
    pub prompt_tokens: u32,
    pub output_tokens: u32,
    pub stop_reason: StopReason,
    pub charged: MicroUsd,
    pub audit: AuditState,
    /// Until when the answer can be challenged, where its tier makes it final only then. Money of
    /// every tier waits as long; this is about what the label promises.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub final_at: Option<Timestamp>,
    /// What became of it on the chain, if it was found false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dispute: Option<DisputeState>,
    /// How far its proof is, if one was bought.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<ProofState>,
}

impl ReceiptEntry {
    /// Proven; or re-executed, and out of the window in which anybody could have challenged it.
    pub fn is_final(&self, now: Timestamp) -> bool {
        if matches!(self.proof, Some(ProofState::Holds { .. })) {
            return true;
        }
        let honest = matches!(self.audit, AuditState::Honest { .. });
        honest && self.final_at.is_some_and(|final_at| final_at <= now)
    }

    /// What waits for the auditor.
    pub(crate) fn due(&self) -> Due {
        let (id, by) = (self.id, self.final_at);
        Due { id, by }
    }
}

/// An answer to be audited, and when that is too late to be of use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Due {
    pub(crate) id: B256,
    pub(crate) by: Option<Timestamp>,
}

/// An answer from a cloud: nobody signed it and nobody can check it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnverifiedEntry {
    pub id: B256,
    pub at: Timestamp,
    pub model: String,
    /// The configured name of the cloud, and its own name of the model.
    pub cloud: String,
    pub cloud_model: String,
    /// Always `unverified`.
    pub tier: Tier,
    /// As the cloud reports them; nothing if it does not.
    pub prompt_tokens: Option<u32>,
    pub output_tokens: Option<u32>,
    /// Its list price times what it reports. Billed by the cloud to its own account, not by channel.
    pub estimated: Option<MicroUsd>,
}

/// How far the checking of an answer got.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum AuditState {
    /// Signature and accounting hold; the coin did not choose it.
    NotSampled,
    /// The coin chose it; re-execution is to come.
    Waiting,
    Honest {
        audited_ms: u64,
    },
    Dishonest {
        reason: Fault,
    },
    /// Refused on arrival; not paid further.
    Refused {
        reason: String,
    },
    /// The auditor could not run it; nobody is to blame.
    Failed {
        reason: String,
    },
}

/// How far the proof of an answer got.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum ProofState {
    /// Promised by `due`, for this price.
    Waiting { due: Timestamp, price: MicroUsd },
    /// Checked: the statement is true. Paid once its provider has the price.
    Holds {
        at: Timestamp,
        bytes: u64,
        verified_ms: u64,
        price: MicroUsd,
        paid: bool,
    },
    /// It did not come in time, or does not hold. Nothing was paid for it, and the answer is re-executed instead.
    Failed { reason: String },
}

impl ProofState {
    /// There is something left to do.
    pub fn is_pending(&self) -> bool {
        matches!(self, Self::Waiting { .. } | Self::Holds { paid: false, .. })
    }

    /// What was paid for it.
    pub fn paid(&self) -> MicroUsd {
        match self {
            Self::Holds {
                price, paid: true, ..
            } => *price,
            _ => MicroUsd::ZERO,
        }
    }
}

/// How far the conviction of a false answer got.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum DisputeState {
    /// To be opened as soon as there is room for another game.
    Waiting,
    /// Its game goes on; the contract's name for it.
    Open {
        game: B256,
    },
    /// The receipt is proven false; by whom, the bounty tells.
    Convicted {
        /// Nothing where no game was needed.
        game: Option<B256>,
        /// What this gateway got as challenger, beside its bond.
        bounty: MicroUsd,
        /// What came back to it as payer.
        refund: MicroUsd,
    },
    Lost {
        game: B256,
        bond: MicroUsd,
    },
    /// No game came of it.
    NotOpened {
        reason: String,
    },
}

impl DisputeState {
    /// There is something left to do.
    pub fn is_pending(&self) -> bool {
        matches!(self, Self::Waiting | Self::Open { .. })
    }
}

impl Entry {
    pub fn id(&self) -> B256 {
        match self {
            Self::Receipt(entry) => entry.id,
            Self::Unverified(entry) => entry.id,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(
        "there is no ledger at {0}: restore it from a backup, or give up what was in it with `assay gateway recover`"
    )]
    Missing(String),
    #[error("there is a file at {0} already, and no ledger is made over it")]
    Exists(String),
    #[error("the gateway's ledger {0} is in use by another process: stop that one first")]
    Locked(String),
    #[error(
        "the gateway's ledger at {path} cannot be opened ({source}): restore it from a backup, or move it away and give up what was in it with `assay gateway recover`"
    )]
    Open {
        path: String,
        source: redb::DatabaseError,
    },
    #[error("the gateway's ledger at {path} cannot be made: {reason}")]
    Make { path: String, reason: String },
    #[error("the gateway's ledger cannot be read or written: {0}")]
    Database(#[from] redb::Error),
    #[error("the gateway's ledger holds a record that does not parse: {0}")]
    Corrupt(#[from] serde_json::Error),
    #[error("the gateway's ledger holds no audit secret: restore it from a backup")]
    NoSecret,
    #[error("there is no answer {0}")]
    NoSuchAnswer(B256),
    #[error("the gateway is stopping")]
    Stopping,
}

/// The open ledger.
#[derive(Debug)]
pub struct Store {
    database: Database,
}

impl From<redb::TransactionError> for StoreError {
    fn from(error: redb::TransactionError) -> Self {
        Self::Database(error.into())
    }
}

impl From<redb::TableError> for StoreError {
    fn from(error: redb::TableError) -> Self {
        Self::Database(error.into())
    }
}

impl From<redb::StorageError> for StoreError {
    fn from(error: redb::StorageError) -> Self {
        Self::Database(error.into())
    }
}

impl From<redb::CommitError> for StoreError {
    fn from(error: redb::CommitError) -> Self {
        Self::Database(error.into())
    }
}

impl Store {
    /// Makes an empty ledger where no file is. It gets its name when it is whole, so a crash leaves nothing or a good one.
    pub fn create(path: &Path, secret: B256) -> Result<Self, StoreError> {
        let shown = || path.display().to_string();
        if path.symlink_metadata().is_ok() {
            return Err(StoreError::Exists(shown()));
        }
        let make = |error: std::io::Error| StoreError::Make {
            path: shown(),
            reason: error.to_string(),
        };
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(make)?;
        }
        let draft = path.with_extension(format!("redb.{}.new", std::process::id()));
        // What stays behind after a crash is in nobody's way.
        let _ = std::fs::remove_file(&draft);
        let database = Database::create(&draft).map_err(|source| refusal(path, source))?;
        let write = database.begin_write()?;
        write.open_table(ENTRIES)?;
        write.open_table(SEQUENCES)?;
        write.open_table(EVIDENCE)?;
        write.open_table(PROVIDERS)?;
        write.open_table(META)?.insert(SECRET, secret.as_slice())?;
        write.commit()?;
        // A link, unlike a renaming, never replaces what somebody else made meanwhile.
        let linked = std::fs::hard_link(&draft, path);
        let _ = std::fs::remove_file(&draft);
        match linked {
            Ok(()) => Ok(Self { database }),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                Err(StoreError::Exists(shown()))
            }
            Err(error) => Err(make(error)),
        }
    }

    /// Opens the ledger that is there.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        if matches!(path.try_exists(), Ok(false)) {
            return Err(StoreError::Missing(path.display().to_string()));
        }
        let database = Database::open(path).map_err(|source| refusal(path, source))?;
        Ok(Self { database })
    }

    /// The secret behind the audit coins.
    pub fn secret(&self) -> Result<B256, StoreError> {
        let read = self.database.begin_read()?;
        let stored = read.open_table(META)?.get(SECRET)?;
        let secret = stored.and_then(|value| B256::try_from(value.value()).ok());
        secret.ok_or(StoreError::NoSecret)
    }

    /// Stores an answer with its evidence and its provider's new record, all or nothing.
    pub fn add_receipt(
        &self,
        entry: &ReceiptEntry,
        evidence: &Evidence,
        record: &ProviderRecord,
    ) -> Result<(), StoreError> {
        let write = self.database.begin_write()?;
        {
            let mut table = write.open_table(EVIDENCE)?;
            table.insert(&entry.id.0, serde_json::to_vec(evidence)?.as_slice())?;
            let mut table = write.open_table(PROVIDERS)?;
            table.insert(
                &entry.provider.into_array(),
                serde_json::to_vec(record)?.as_slice(),
            )?;
            append(&write, &Entry::Receipt(entry.clone()))?;
        }
        Ok(write.commit()?)
    }

    pub fn add_unverified(&self, entry: &UnverifiedEntry) -> Result<(), StoreError> {
        let write = self.database.begin_write()?;
        append(&write, &Entry::Unverified(entry.clone()))?;
        Ok(write.commit()?)
    }

    /// Records what an audit found, with its provider's new record, all or nothing.
    pub fn set_audit(
        &self,
        id: &B256,
        state: AuditState,
        record: Option<(Address, &ProviderRecord)>,
    ) -> Result<(), StoreError> {
        let write = self.database.begin_write()?;
        {
            amend(&write, id, |entry| entry.audit = state)?;
            if let Some((provider, record)) = record {
                let mut table = write.open_table(PROVIDERS)?;
                table.insert(
                    &provider.into_array(),
                    serde_json::to_vec(record)?.as_slice(),
                )?;
            }
        }
        Ok(write.commit()?)
    }

    /// Records how a dispute about an answer stands.
    pub fn set_dispute(&self, id: &B256, state: DisputeState) -> Result<(), StoreError> {
        let write = self.database.begin_write()?;
        amend(&write, id, |entry| entry.dispute = Some(state))?;
        Ok(write.commit()?)
    }

    /// Records how far a proof is; its bytes are kept with the word that it holds.
    pub fn set_proof(
        &self,
        id: &B256,
        state: ProofState,
        bytes: Option<&[u8]>,
    ) -> Result<(), StoreError> {
        let write = self.database.begin_write()?;
        amend(&write, id, |entry| entry.proof = Some(state))?;
        if let Some(bytes) = bytes {
            write.open_table(PROOFS)?.insert(&id.0, bytes)?;
        }
        Ok(write.commit()?)
    }

    /// Records that no proof holds, and that the answer is to be re-executed in its stead, unless it was already.
    pub(crate) fn fail_proof(&self, id: &B256, reason: String) -> Result<(), StoreError> {
        let write = self.database.begin_write()?;
        amend(&write, id, |entry| {
            entry.proof = Some(ProofState::Failed { reason });
            if entry.audit == AuditState::NotSampled {
                entry.audit = AuditState::Waiting;
            }
        })?;
        Ok(write.commit()?)
    }

    /// The proof of an answer, if one holds.
    pub fn proof(&self, id: &B256) -> Result<Option<Vec<u8>>, StoreError> {
        let read = self.database.begin_read()?;
        let table = match read.open_table(PROOFS) {
            Ok(table) => table,
            // None was ever kept here.
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        Ok(table.get(&id.0)?.map(|bytes| bytes.value().to_vec()))
    }

    pub fn set_record(
        &self,
        provider: &Address,
        record: &ProviderRecord,
    ) -> Result<(), StoreError> {
        let write = self.database.begin_write()?;
        {
            let mut table = write.open_table(PROVIDERS)?;
            table.insert(
                &provider.into_array(),
                serde_json::to_vec(record)?.as_slice(),
            )?;
        }
        Ok(write.commit()?)
    }

    pub fn records(&self) -> Result<Vec<(Address, ProviderRecord)>, StoreError> {
        let read = self.database.begin_read()?;
        let table = read.open_table(PROVIDERS)?;
        let mut records = Vec::new();
        for row in table.iter()? {
            let (key, value) = row?;
            records.push((
                Address::from(*key.value()),
                serde_json::from_slice(value.value())?,
            ));
        }
        Ok(records)
    }

    pub fn entry(&self, id: &B256) -> Result<Option<Entry>, StoreError> {
        let read = self.database.begin_read()?;
        let Some(sequence) = read.open_table(SEQUENCES)?.get(&id.0)?.map(|s| s.value()) else {
            return Ok(None);
        };
        match read.open_table(ENTRIES)?.get(sequence)? {
            Some(bytes) => Ok(Some(serde_json::from_slice(bytes.value())?)),
            None => Ok(None),
        }
    }

    pub fn evidence(&self, id: &B256) -> Result<Option<Evidence>, StoreError> {
        let read = self.database.begin_read()?;
        match read.open_table(EVIDENCE)?.get(&id.0)? {
            Some(bytes) => Ok(Some(serde_json::from_slice(bytes.value())?)),
            None => Ok(None),
        }
    }

    /// The newest answers first.
    pub fn newest(&self, most: usize) -> Result<Vec<Entry>, StoreError> {
        let read = self.database.begin_read()?;
        let table = read.open_table(ENTRIES)?;
        let mut entries = Vec::new();
        for row in table.iter()?.rev().take(most) {
            entries.push(parse(row?.1.value())?);
        }
        Ok(entries)
    }

    /// One walk over all answers: what is left to do, oldest first, and the bill so far.
    pub(crate) fn scan(&self) -> Result<Scan, StoreError> {
        let read = self.database.begin_read()?;
        let table = read.open_table(ENTRIES)?;
        let mut scan = Scan::default();
        for row in table.iter()? {
            let entry = parse(row?.1.value())?;
            scan.totals.add(&entry);
            let Entry::Receipt(entry) = entry else {
                continue;
            };
            if entry.audit == AuditState::Waiting {
                scan.audits.push(entry.due());
            }
            if entry.proof.as_ref().is_some_and(ProofState::is_pending) {
                scan.proofs.push(entry.id);
            }
            let Some(dispute) = entry.dispute else {
                continue;
            };
            if dispute.is_pending() {
                scan.disputes.push(entry.id);
            }
            scan.dispute_totals.add(&dispute);
        }
        Ok(scan)
    }
}

/// What an earlier life left.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    pub(crate) audits: Vec<Due>,
    pub(crate) disputes: Vec<B256>,
    pub(crate) proofs: Vec<B256>,
    pub(crate) totals: Totals,
    pub(crate) dispute_totals: DisputeTotals,
}

/// What came of taking providers to the chain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DisputeTotals {
    /// To be opened, or going on.
    pub pending: u64,
    pub convicted: u64,
    pub lost: u64,
    pub not_opened: u64,
    /// What convictions brought, as challenger and as payer.
    pub bounties: MicroUsd,
    pub refunds: MicroUsd,
    pub bonds_lost: MicroUsd,
}

impl DisputeTotals {
    pub(crate) fn add(&mut self, dispute: &DisputeState) {
        let plus = |sum: &mut MicroUsd, more: &MicroUsd| sum.0 = sum.0.saturating_add(more.0);
        match dispute {
            DisputeState::Waiting | DisputeState::Open { .. } => self.pending += 1,
            DisputeState::Convicted { bounty, refund, .. } => {
                self.convicted += 1;
                plus(&mut self.bounties, bounty);
                plus(&mut self.refunds, refund);
            }
            DisputeState::Lost { bond, .. } => {
                self.lost += 1;
                plus(&mut self.bonds_lost, bond);
            }
            DisputeState::NotOpened { .. } => self.not_opened += 1,
        }
    }
}

/// The bill. What a cloud is thought to cost stands apart from what was paid to providers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    pub receipts: u64,
    /// Receipts that did not hold; what they claim is not in `charged`.
    pub refused: u64,
    pub tokens: u64,
    pub charged: MicroUsd,
    pub unverified: u64,
    pub unverified_tokens: u64,
    pub unverified_estimated: MicroUsd,
}

impl Totals {
    pub fn add(&mut self, entry: &Entry) {
        let plus = |sum: &mut u64, more: u64| *sum = sum.saturating_add(more);
        match entry {
            Entry::Receipt(entry) if matches!(entry.audit, AuditState::Refused { .. }) => {
                plus(&mut self.refused, 1);
            }
            Entry::Receipt(entry) => {
                plus(&mut self.receipts, 1);
                plus(&mut self.tokens, u64::from(entry.output_tokens));
                plus(&mut self.charged.0, entry.charged.0);
                if let Some(proof) = &entry.proof {
                    plus(&mut self.charged.0, proof.paid().0);
                }
            }
            Entry::Unverified(entry) => {
                plus(&mut self.unverified, 1);
                plus(
                    &mut self.unverified_tokens,
                    u64::from(entry.output_tokens.unwrap_or(0)),
                );
                plus(
                    &mut self.unverified_estimated.0,
                    entry.estimated.unwrap_or_default().0,
                );
            }
        }
    }
}

fn refusal(path: &Path, source: DatabaseError) -> StoreError {
    let path = path.display().to_string();
    match source {
        DatabaseError::DatabaseAlreadyOpen => StoreError::Locked(path),
        source => StoreError::Open { path, source },
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, StoreError> {
    Ok(serde_json::from_slice(bytes)?)
}

/// Changes a receipt's entry where it stands.
fn amend(
    write: &redb::WriteTransaction,
    id: &B256,
    change: impl FnOnce(&mut ReceiptEntry),
) -> Result<(), StoreError> {
    let sequences = write.open_table(SEQUENCES)?;
    let sequence = sequences
        .get(&id.0)?
        .ok_or(StoreError::NoSuchAnswer(*id))?
        .value();
    let mut entries = write.open_table(ENTRIES)?;
    let entry = match entries.get(sequence)? {
        Some(bytes) => parse(bytes.value())?,
        None => return Err(StoreError::NoSuchAnswer(*id)),
    };
    if let Entry::Receipt(mut entry) = entry {
        change(&mut entry);
        let bytes = serde_json::to_vec(&Entry::Receipt(entry))?;
        entries.insert(sequence, bytes.as_slice())?;
    }
    Ok(())
}

/// An id that is already there keeps its first answer: nothing that was stored is overwritten.
fn append(write: &redb::WriteTransaction, entry: &Entry) -> Result<(), StoreError> {
    let mut entries = write.open_table(ENTRIES)?;
    let mut sequences = write.open_table(SEQUENCES)?;
    if sequences.get(&entry.id().0)?.is_some() {
        return Ok(());
    }
    let next = entries
        .last()?
        .map_or(0, |(sequence, _)| sequence.value() + 1);
    entries.insert(next, serde_json::to_vec(entry)?.as_slice())?;
    sequences.insert(&entry.id().0, next)?;
    Ok(())
}
