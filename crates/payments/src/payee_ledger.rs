//! The payee's books on disk. A voucher is durable here before the first token leaves, a charge and its receipt are
//! durable together before the receipt leaves. Two receipts for one request cannot come out of it.

use std::collections::BTreeMap;
use std::path::Path;

use assay_protocol::{B256, Domain, MicroUsd, Receipt, ServiceRecord, Signed, Timestamp};
use redb::{ReadableTable, ReadableTableMetadata, TableDefinition};
use serde::Serialize;

use crate::payee::{
    Account, ChargeError, OnChain, Presented, RefundPlan, Refunded, Refusal, Reservation, accept,
    refund,
};
use crate::payee_chain::{PendingDeposit, Seen};
use crate::payee_records::{RecordRefusal, RecordRow, judge};
use crate::store::{Kind, LedgerError, Store};
use crate::terms::Terms;

/// Channel id → [`Account`] as JSON.
const ACCOUNTS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("accounts");
/// Request id → `Signed<Receipt>` as JSON.
const RECEIPTS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("receipts");
/// Nonce of the authorization → [`PendingDeposit`] as JSON.
const DEPOSITS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("deposits");
/// Channel id → [`RecordRow`] as JSON.
const RECORDS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("records");
const KIND: Kind = Kind {
    format: "assay payee ledger 1",
    recover: "assay node recover",
};

/// Why a payment was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Charge(#[from] ChargeError),
    #[error("request {0} was answered before: use a new request id")]
    Answered(B256),
}

/// Why a record of service was not taken.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    Refused(#[from] RecordRefusal),
}

/// All channels to one payee.
pub struct PayeeLedger {
    store: Store,
    terms: Terms,
    accounts: BTreeMap<B256, Account>,
    deposits: BTreeMap<B256, PendingDeposit>,
    records: BTreeMap<B256, RecordRow>,
}

/// Every row of a table, which is made where an earlier version of the program had none.
fn rows(
    txn: &redb::WriteTransaction,
    table: TableDefinition<&[u8], &[u8]>,
) -> Result<Vec<Vec<u8>>, redb::Error> {
    let table = txn.open_table(table)?;
    let mut rows = Vec::new();
    for row in table.iter()? {
        rows.push(row?.1.value().to_vec());
    }
    Ok(rows)
}

impl PayeeLedger {
    /// Makes the books of a payee that never had any, where no file is.
    pub fn create(path: &Path, terms: Terms) -> Result<Self, LedgerError> {
        let store = Store::create(path, KIND, &terms.channels, |txn| {
            for table in [RECEIPTS, ACCOUNTS, DEPOSITS, RECORDS] {
                txn.open_table(table)?;
            }
            Ok(())
        })?;
        Ok(Self {
            store,
            terms,
            accounts: BTreeMap::new(),
            deposits: BTreeMap::new(),
            records: BTreeMap::new(),
        })
    }

    /// Opens the books. Requests that were running when the process died left no receipt and cost nothing.
    pub fn open(path: &Path, terms: Terms) -> Result<Self, LedgerError> {
        let store = Store::open(path, KIND, &terms.channels)?;
        let (account_rows, deposit_rows, record_rows) = store.write(|txn| {
            txn.open_table(RECEIPTS)?;
            Ok((
                rows(txn, ACCOUNTS)?,
                rows(txn, DEPOSITS)?,
                rows(txn, RECORDS)?,
            ))
        })?;
        let (mut accounts, mut deposits) = (BTreeMap::new(), BTreeMap::new());
        for row in account_rows {
            let account: Account = store.parse(&row)?;
            accounts.insert(account.channel_id, account.reopened());
        }
        for row in deposit_rows {
            let deposit: PendingDeposit = store.parse(&row)?;
            deposits.insert(deposit.nonce(), deposit);
        }
        let mut records = BTreeMap::new();
        for row in record_rows {
            let row: RecordRow = store.parse(&row)?;
            records.insert(row.record.body.channel_id, row);
        }
        Ok(Self {
            store,
            terms,
            accounts,
            deposits,
            records,
        })
    }

    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    pub fn account(&self, channel_id: &B256) -> Option<&Account> {
        self.accounts.get(channel_id)
    }

    pub fn accounts(&self) -> impl Iterator<Item = &Account> {
        self.accounts.values()
    }

    /// Accepts a payment and reserves its channel. When this returns, the voucher is on disk.
    pub fn accept(
        &mut self,
        presented: &Presented,
        chain: OnChain,
        now: Timestamp,
    ) -> Result<Reservation, AcceptError> {
        if self.receipt(&presented.request_id)?.is_some() {
            return Err(AcceptError::Answered(presented.request_id));
        }
        let known = self.accounts.get(&presented.voucher.voucher.channel_id);
        let (next, reservation) = accept(known, &self.terms, presented, chain, now)?;
        self.put(next, None)?;
        Ok(reservation)
    }

    /// Charges a request and keeps its receipt. When this returns, both are on disk.
    pub fn charge(
        &mut self,
        reservation: &Reservation,
        receipt: &Signed<Receipt>,
        now: Timestamp,
    ) -> Result<(), AcceptError> {
        let statement = &receipt.body.statement;
        let tokens = (statement.n_prompt, statement.n_output);
        let next =
            self.reserved(reservation)?
                .charge(reservation, receipt.body.charged, tokens, now)?;
        self.put_charged(next, reservation, receipt)
    }

    /// Charges a request that paid for a proof, and keeps its receipt. When this returns, both are on disk.
    pub fn charge_proof(
        &mut self,
        reservation: &Reservation,
        receipt: &Signed<Receipt>,
        now: Timestamp,
    ) -> Result<(), AcceptError> {
        let account = self.reserved(reservation)?;
        let next = account.charge_proof(reservation, receipt.body.charged, now)?;
        self.put_charged(next, reservation, receipt)
    }

    fn put_charged(
        &mut self,
        next: Account,
        reservation: &Reservation,
        receipt: &Signed<Receipt>,
    ) -> Result<(), AcceptError> {
        if next.charged != receipt.body.cumulative
            || receipt.body.request_id != reservation.request_id
        {
            return Err(ChargeError::NotRunning(receipt.body.request_id).into());
        }
        Ok(self.put(next, Some(receipt))?)
    }

    /// Frees the channel of a request that costs nothing. Not written through: a restart frees it as well.
    pub fn release(&mut self, reservation: &Reservation) -> Result<(), AcceptError> {
        let next = self.reserved(reservation)?.release(reservation)?;
        self.accounts.insert(next.channel_id, next);
        Ok(())
    }

    /// Plans a refund and keeps its channel busy until it is over.
    pub fn refund(
        &mut self,
        presented: &Presented,
        asked: Option<MicroUsd>,
        chain: OnChain,
        now: Timestamp,
    ) -> Result<RefundPlan, AcceptError> {
        let known = self.accounts.get(&presented.voucher.voucher.channel_id);
        let (next, plan) = refund(known, &self.terms, presented, asked, chain, now)?;
        self.put(next, None)?;
        Ok(plan)
    }

    /// The refund went through, and the chain says this since.
    pub fn refunded(
        &mut self,
        reservation: &Reservation,
        refunded: Refunded,
        seen: &Seen,
        now: Timestamp,
    ) -> Result<(), AcceptError> {
        let mut next = self
            .reserved(reservation)?
            .release(reservation)?
            .seen(seen, now);
        next.refunded = Some(refunded);
        Ok(self.put(next, None)?)
    }

    /// The chain says this of these channels, whatever the books said.
    pub fn see(&mut self, channels: &[(B256, Seen)], now: Timestamp) -> Result<(), LedgerError> {
        for (channel_id, seen) in channels {
            let Some(account) = self.accounts.get(channel_id) else {
                continue;
            };
            let next = account.seen(seen, now);
            let news = (next.chain, next.settled_claims, next.unclaimed_since)
                != (
                    account.chain,
                    account.settled_claims,
                    account.unclaimed_since,
                );
            if news {
                self.put(next, None)?;
            } else {
                // When it was read is read again after a restart.
                self.accounts.insert(*channel_id, next);
            }
        }
        Ok(())
    }

    /// Keeps a deposit's authorization, before it is submitted.
    pub fn entrust(&mut self, deposit: PendingDeposit) -> Result<(), LedgerError> {
        let (nonce, json) = (deposit.nonce(), json(&deposit));
        self.store.write(|txn| {
            txn.open_table(DEPOSITS)?
                .insert(nonce.as_slice(), json.as_slice())?;
            Ok(())
        })?;
        self.deposits.insert(nonce, deposit);
        Ok(())
    }

    /// A deposit is settled, or will never come.
    pub fn forget_deposit(&mut self, nonce: &B256) -> Result<(), LedgerError> {
        self.store.write(|txn| {
            txn.open_table(DEPOSITS)?.remove(nonce.as_slice())?;
            Ok(())
        })?;
        self.deposits.remove(nonce);
        Ok(())
    }

    /// Deposits that were submitted and could still be lost.
    pub fn deposits(&self) -> impl Iterator<Item = &PendingDeposit> {
        self.deposits.values()
    }

    /// Takes a payer's record of service, if it says nothing that our own books do not.
    pub fn take_record(
        &mut self,
        record: &Signed<ServiceRecord>,
        scoreboard: &Domain,
        failures_percent: u8,
        now: Timestamp,
    ) -> Result<(), RecordError> {
        let id = record.body.channel_id;
        let known = self.records.get(&id);
        judge(
            self.accounts.get(&id),
            known,
            record,
            scoreboard,
            failures_percent,
        )?;
        if known.is_some_and(|known| known.record.body == record.body) {
            return Ok(());
        }
        let row = RecordRow {
            record: *record,
            taken_at: now,
            posted: known.and_then(|known| known.posted),
        };
        Ok(self.put_record(row)?)
    }

    /// This record of the channel is what the scoreboard has; None if it has none.
    pub fn posted(
        &mut self,
        channel_id: &B256,
        posted: Option<ServiceRecord>,
    ) -> Result<(), LedgerError> {
        match self.records.get(channel_id) {
            Some(row) if row.posted != posted => self.put_record(RecordRow {
                posted,
                ..row.clone()
            }),
            _ => Ok(()),
        }
    }

    /// The newest record of each channel.
    pub fn records(&self) -> impl Iterator<Item = &RecordRow> {
        self.records.values()
    }

    /// The receipt of an answered request.
    pub fn receipt(&self, request_id: &B256) -> Result<Option<Signed<Receipt>>, LedgerError> {
        let row = self.store.read(|txn| {
            let table = txn.open_table(RECEIPTS)?;
            Ok(table
                .get(request_id.as_slice())?
                .map(|row| row.value().to_vec()))
        })?;
        row.map(|bytes| self.store.parse(&bytes)).transpose()
    }

    /// Whether nothing was ever charged here.
    pub fn is_unused(&self) -> Result<bool, LedgerError> {
        self.store
            .read(|txn| Ok(txn.open_table(RECEIPTS)?.is_empty()?))
    }

    /// What was charged in all, and how much of it the chain has not yet paid out.
    pub fn totals(&self) -> (MicroUsd, MicroUsd) {
        let sum = |part: fn(&Account) -> MicroUsd| {
            MicroUsd(
                self.accounts
                    .values()
                    .fold(0u64, |sum, account| sum.saturating_add(part(account).0)),
            )
        };
        (sum(|account| account.charged), sum(Account::unclaimed))
    }

    fn reserved(&self, reservation: &Reservation) -> Result<&Account, ChargeError> {
        self.accounts
            .get(&reservation.channel_id)
            .ok_or(ChargeError::NotRunning(reservation.request_id))
    }

    fn put_record(&mut self, row: RecordRow) -> Result<(), LedgerError> {
        let (id, json) = (row.record.body.channel_id, json(&row));
        self.store.write(|txn| {
            txn.open_table(RECORDS)?
                .insert(id.as_slice(), json.as_slice())?;
            Ok(())
        })?;
        self.records.insert(id, row);
        Ok(())
    }

    fn put(
        &mut self,
        account: Account,
        receipt: Option<&Signed<Receipt>>,
    ) -> Result<(), LedgerError> {
        let receipt = receipt.map(|receipt| (receipt.body.request_id, json(receipt)));
        let json = json(&account);
        self.store.write(|txn| {
            txn.open_table(ACCOUNTS)?
                .insert(account.channel_id.as_slice(), json.as_slice())?;
            if let Some((request_id, json)) = &receipt {
                txn.open_table(RECEIPTS)?
                    .insert(request_id.as_slice(), json.as_slice())?;
            }
            Ok(())
        })?;
        self.accounts.insert(account.channel_id, account);
        Ok(())
    }
}

fn json<T: Serialize>(row: &T) -> Vec<u8> {
    serde_json::to_vec(row).expect("rows are plain data")
}
