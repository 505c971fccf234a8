//! The payee's books on disk. A voucher is durable here before the first token leaves, a charge and its receipt are
//! durable together before the receipt leaves. Two receipts for one request cannot come out of it.

use std::collections::BTreeMap;
use std::path::Path;

use assay_protocol::{B256, MicroUsd, Receipt, Signed, Timestamp};
use redb::{ReadableTable, ReadableTableMetadata, TableDefinition};

use crate::payee::{
    Account, ChargeError, ClaimPolicy, OnChain, Presented, Refusal, Reservation, accept, due,
};
use crate::store::{Kind, LedgerError, Store};
use crate::terms::Terms;

/// Channel id → [`Account`] as JSON.
const ACCOUNTS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("accounts");
/// Request id → `Signed<Receipt>` as JSON.
const RECEIPTS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("receipts");
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

/// All channels to one payee.
pub struct PayeeLedger {
    store: Store,
    terms: Terms,
    accounts: BTreeMap<B256, Account>,
}

impl PayeeLedger {
    /// Makes the books of a payee that never had any, where no file is.
    pub fn create(path: &Path, terms: Terms) -> Result<Self, LedgerError> {
        let store = Store::create(path, KIND, &terms.channels, |txn| {
            txn.open_table(RECEIPTS)?;
            txn.open_table(ACCOUNTS)?;
            Ok(())
        })?;
        Ok(Self {
            store,
            terms,
            accounts: BTreeMap::new(),
        })
    }

    /// Opens the books. Requests that were running when the process died left no receipt and cost nothing.
    pub fn open(path: &Path, terms: Terms) -> Result<Self, LedgerError> {
        let store = Store::open(path, KIND, &terms.channels)?;
        let rows = store.write(|txn| {
            txn.open_table(RECEIPTS)?;
            let table = txn.open_table(ACCOUNTS)?;
            let mut rows = Vec::new();
            for row in table.iter()? {
                rows.push(row?.1.value().to_vec());
            }
            Ok(rows)
        })?;
        let mut accounts = BTreeMap::new();
        for row in rows {
            let account: Account = store.parse(&row)?;
            accounts.insert(account.channel_id, account.reopened());
        }
        Ok(Self {
            store,
            terms,
            accounts,
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
        let next = self
            .reserved(reservation)?
            .charge(reservation, receipt.body.charged, now)?;
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

    /// The accounts to claim from now.
    pub fn due(&self, policy: &ClaimPolicy, now: Timestamp) -> Vec<&Account> {
        due(self.accounts.values(), policy, now)
    }

    /// The chain has paid out these totals.
    pub fn mark_claimed(&mut self, totals: &[(B256, MicroUsd)]) -> Result<(), LedgerError> {
        for (channel_id, total) in totals {
            if let Some(account) = self.accounts.get(channel_id) {
                self.put(account.claimed(*total), None)?;
            }
        }
        Ok(())
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

    fn put(
        &mut self,
        account: Account,
        receipt: Option<&Signed<Receipt>>,
    ) -> Result<(), LedgerError> {
        let json = serde_json::to_vec(&account).expect("an account is plain data");
        let receipt = receipt.map(|receipt| {
            let json = serde_json::to_vec(receipt).expect("a receipt is plain data");
            (receipt.body.request_id, json)
        });
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
