//! Waits until a transaction is in a block, and sees to it: sends the same bytes again if the chain has
//! lost them, pays more for what waits too long, fills the nonces that a reorganization emptied. Never
//! makes a second transaction of another nonce.

use std::time::Instant;

use alloy::providers::Provider;
use alloy::rpc::types::TransactionReceipt;
use alloy::transports::RpcError;
use assay_protocol::{Address, B256};
use tokio::sync::Mutex;

use crate::connect::Chain;
use crate::error::{ChainError, from_rpc};
use crate::keys::Key;
use crate::transact::{Lane, Sent, nonce_is_taken, sign};

/// Polling starts fast, for a chain that mines at once, and slows down.
const POLL_FIRST_MS: u64 = 2;
const POLL_SLOWEST_MS: u64 = 1_000;
/// A nonce that somebody else took is believed when it was seen so often: one node may lag behind another.
const OVERTAKEN_LOOKS: u32 = 2;

/// One transaction on its way, in every version that was sent.
struct Waiting {
    /// The newest last. Any of them may be mined.
    versions: Vec<Sent>,
    since: Instant,
    looked: Instant,
    priced: Instant,
    overtaken: u32,
}

impl Chain {
    /// The receipt of a transaction that was handed over.
    pub(crate) async fn mined(
        &self,
        what: &'static str,
        key: &Key,
        lane: &Mutex<Lane>,
        sent: Sent,
    ) -> Result<TransactionReceipt, ChainError> {
        let (hash, nonce) = (sent.hash, sent.draft.nonce);
        let now = Instant::now();
        let mut waiting = Waiting {
            versions: vec![sent],
            since: now,
            looked: now,
            priced: now,
            overtaken: 0,
        };
        let mut pause_ms = POLL_FIRST_MS;
        loop {
            for version in waiting.versions.iter().rev() {
                // A failed look-up is no failed transaction: keep looking until the time is up.
                if let Ok(Some(receipt)) = self.provider.get_transaction_receipt(version.hash).await
                    && receipt.block_number.is_some()
                {
                    return Ok(receipt);
                }
            }
            if waiting.overtaken >= OVERTAKEN_LOOKS {
                return Err(ChainError::Overtaken { what, hash, nonce });
            }
            if waiting.since.elapsed() >= self.patience.mined {
                return Err(ChainError::NotMined {
                    what,
                    hash,
                    waited_s: waiting.since.elapsed().as_secs(),
                });
            }
            if waiting.looked.elapsed() >= self.patience.look_every {
                waiting.looked = Instant::now();
                if let Err(error) = self.look_after(what, key, lane, &mut waiting).await {
                    tracing::debug!(what, %hash, %error, "a transaction could not be looked after");
                }
            }
            tokio::time::sleep(std::time::Duration::from_millis(pause_ms)).await;
            pause_ms = (pause_ms * 2).min(POLL_SLOWEST_MS);
        }
    }

    /// Sends again what this handle sent for an account and the chain has lost, as after a reorganization
    /// that is deeper than a transaction was. Returns what was sent again; the same bytes, so nothing can
    /// happen twice.
    pub async fn resend_dropped(&self, account: Address) -> Result<Vec<B256>, ChainError> {
        self.refill("resend", &self.nonces.lane(account), account)
            .await
    }

    async fn look_after(
        &self,
        what: &'static str,
        key: &Key,
        lane: &Mutex<Lane>,
        waiting: &mut Waiting,
    ) -> Result<(), ChainError> {
        let nonce = waiting.versions[0].draft.nonce;
        // What comes before it must come first; if it is itself lost, it is among them.
        self.refill(what, lane, key.address()).await?;
        let next = self.next_nonce(what, key.address()).await?;
        if next > nonce {
            // Mined, as a version whose receipt comes in a moment, or never.
            waiting.overtaken += u32::from(!self.any_known(what, &waiting.versions).await?);
            return Ok(());
        }
        waiting.overtaken = 0;
        let replaced = waiting.versions.len() as u32 - 1;
        if next == nonce
            && replaced < self.patience.replacements
            && waiting.priced.elapsed() >= self.patience.replace_after
        {
            waiting.priced = Instant::now();
            self.replace(what, key, lane, waiting).await?;
        }
        Ok(())
    }

    /// The same transaction under the same nonce, for a quarter more or what the chain asks by now.
    async fn replace(
        &self,
        what: &'static str,
        key: &Key,
        lane: &Mutex<Lane>,
        waiting: &mut Waiting,
    ) -> Result<(), ChainError> {
        let newest = waiting
            .versions
            .last()
            .expect("there is one from the first");
        let more = |fee: u128| fee.saturating_add(fee / 4).saturating_add(1);
        let (asked, tip) = self.fees(what).await?;
        let mut draft = newest.draft.clone();
        draft.max_fee_per_gas = more(draft.max_fee_per_gas).max(asked);
        draft.max_priority_fee_per_gas = more(draft.max_priority_fee_per_gas)
            .max(tip)
            .min(draft.max_fee_per_gas);
        let sent = sign(key, &draft);
        match self.provider.send_raw_transaction(&sent.raw).await {
            // One that was mined meanwhile has the nonce.
            Err(RpcError::ErrorResp(said)) if nonce_is_taken(&said.message) => return Ok(()),
            Err(error @ RpcError::ErrorResp(_)) => return Err(from_rpc(what, error)),
            // Handed over, or perhaps: both versions are looked for from now on.
            Ok(_) | Err(_) => {}
        }
        tracing::info!(what, hash = %sent.hash, fee = draft.max_fee_per_gas, "a transaction is replaced by one that pays more");
        lane.lock().await.remember(sent.clone());
        waiting.versions.push(sent);
        Ok(())
    }

    /// Sends again, in their order, the transactions of the next nonces that the chain has not got.
    async fn refill(
        &self,
        what: &'static str,
        lane: &Mutex<Lane>,
        account: Address,
    ) -> Result<Vec<B256>, ChainError> {
        let next = self.next_nonce(what, account).await?;
        let mut due: Vec<Sent> = lane.lock().await.sent.iter().cloned().collect();
        due.retain(|sent| sent.draft.nonce >= next);
        due.sort_by_key(|sent| sent.draft.nonce);
        let mut again = Vec::new();
        for sent in due {
            if self.any_known(what, std::slice::from_ref(&sent)).await? {
                continue;
            }
            match self.provider.send_raw_transaction(&sent.raw).await {
                Ok(_) => {
                    tracing::info!(what, hash = %sent.hash, "a transaction that the chain had lost is sent again");
                    again.push(sent.hash);
                }
                // Another version of it, or another process's, is there already.
                Err(RpcError::ErrorResp(said)) if nonce_is_taken(&said.message) => {}
                Err(error) => return Err(from_rpc(what, error)),
            }
        }
        Ok(again)
    }

    /// The nonce that the next block expects.
    async fn next_nonce(&self, what: &'static str, account: Address) -> Result<u64, ChainError> {
        let count = self.provider.get_transaction_count(account).await;
        count.map_err(|e| from_rpc(what, e))
    }

    /// In a block or waiting for one.
    async fn any_known(&self, what: &'static str, versions: &[Sent]) -> Result<bool, ChainError> {
        for version in versions {
            let found = self.provider.get_transaction_by_hash(version.hash).await;
            if found.map_err(|e| from_rpc(what, e))?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
