//! Sends one transaction and waits until it is in a block. Several senders of one key never take
//! the same nonce, and a contract's refusal is found by a dry run before anything is sent.

use std::collections::HashMap;
use std::sync::{Arc, Mutex as SyncMutex};
use std::time::{Duration, Instant};

use alloy::consensus::{SignableTransaction, TxEip1559, TxEnvelope};
use alloy::eips::eip2718::Encodable2718;
use alloy::network::TransactionBuilder;
use alloy::providers::Provider;
use alloy::rpc::types::{BlockId, TransactionReceipt, TransactionRequest};
use alloy_primitives::{Bytes, TxKind, U256};
use assay_protocol::{Address, B256};
use tokio::sync::Mutex;

use crate::connect::Chain;
use crate::error::{ChainError, Refusal, from_rpc};
use crate::keys::Key;

/// How long to wait for a block that holds a transaction.
const MINED_TIMEOUT: Duration = Duration::from_secs(90);
/// Polling starts fast, for a chain that mines at once, and slows down.
const POLL_FIRST: Duration = Duration::from_millis(2);
const POLL_SLOWEST: Duration = Duration::from_secs(1);
/// How often a nonce that another process took is fetched anew.
const NONCE_ATTEMPTS_MAX: usize = 8;

/// A transaction that succeeded, and where.
#[derive(Debug, Clone)]
pub struct Mined {
    pub hash: B256,
    pub block: u64,
    pub gas_used: u64,
    /// Where the new contract stands, if this was a deployment.
    pub contract: Option<Address>,
    pub logs: Vec<alloy_primitives::Log>,
}

/// The next nonce of every key that this process sends with. None means: ask the chain.
#[derive(Default)]
pub(crate) struct Nonces {
    lanes: SyncMutex<HashMap<Address, Arc<Mutex<Option<u64>>>>>,
}

impl Nonces {
    fn lane(&self, address: Address) -> Arc<Mutex<Option<u64>>> {
        let mut lanes = self.lanes.lock().unwrap_or_else(|e| e.into_inner());
        lanes.entry(address).or_default().clone()
    }
}

impl Chain {
    /// Calls a contract in a transaction of `key`.
    pub(crate) async fn send(
        &self,
        what: &'static str,
        key: &Key,
        to: Address,
        input: Vec<u8>,
    ) -> Result<Mined, ChainError> {
        self.transact(what, key, TxKind::Call(to), input.into())
            .await
    }

    /// Deploys a contract.
    pub(crate) async fn create(
        &self,
        what: &'static str,
        key: &Key,
        initcode: Vec<u8>,
    ) -> Result<Mined, ChainError> {
        self.transact(what, key, TxKind::Create, initcode.into())
            .await
    }

    async fn transact(
        &self,
        what: &'static str,
        key: &Key,
        to: TxKind,
        input: Bytes,
    ) -> Result<Mined, ChainError> {
        let mut request = TransactionRequest::default()
            .with_from(key.address())
            .with_input(input.clone());
        request.to = Some(to);
        let lane = self.nonces.lane(key.address());
        let hash = {
            // One sender of a key at a time, from its dry run until the chain has its transaction.
            let mut next = lane.lock().await;
            let gas = self
                .provider
                .estimate_gas(request.clone())
                .await
                .map_err(|e| from_rpc(what, e))?;
            let (max_fee_per_gas, max_priority_fee_per_gas) = self.fees(what).await?;
            let mut draft = TxEip1559 {
                chain_id: self.chain_id(),
                nonce: 0,
                // Another transaction may come first and make this one dearer: a quarter of slack.
                gas_limit: gas.saturating_add(gas / 4).saturating_add(10_000),
                max_fee_per_gas,
                max_priority_fee_per_gas,
                to,
                value: U256::ZERO,
                access_list: Default::default(),
                input,
            };
            self.submit(what, key, &mut draft, &mut next).await?
        };
        match self.mined(what, hash).await {
            Ok(receipt) => self.outcome(what, request, receipt).await,
            Err(error) => {
                // The transaction may have been dropped; the next one asks the chain for its nonce.
                *lane.lock().await = None;
                Err(error)
            }
        }
    }

    /// What to offer for gas: enough for a base fee that doubles. Zero on a chain that asks nothing.
    async fn fees(&self, what: &'static str) -> Result<(u128, u128), ChainError> {
        let (base, tip) = self.base_fee_and_tip(what).await?;
        Ok((base.saturating_mul(2).saturating_add(tip), tip))
    }

    /// What the newest block asked for gas, and what to add so that a transaction is taken.
    pub(crate) async fn base_fee_and_tip(
        &self,
        what: &'static str,
    ) -> Result<(u128, u128), ChainError> {
        let block = self
            .provider
            .get_block(BlockId::latest())
            .await
            .map_err(|e| from_rpc(what, e))?;
        let base = block
            .and_then(|block| block.header.base_fee_per_gas)
            .unwrap_or(0);
        let tip = match self.provider.get_max_priority_fee_per_gas().await {
            Ok(tip) => tip,
            // Not every node has the method; the base fee alone gets in.
            Err(alloy::transports::RpcError::ErrorResp(_)) => 0,
            Err(error) => return Err(from_rpc(what, error)),
        };
        Ok((u128::from(base), tip))
    }

    async fn submit(
        &self,
        what: &'static str,
        key: &Key,
        draft: &mut TxEip1559,
        next: &mut Option<u64>,
    ) -> Result<B256, ChainError> {
        for _ in 0..NONCE_ATTEMPTS_MAX {
            draft.nonce = match *next {
                Some(nonce) => nonce,
                None => self
                    .provider
                    .get_transaction_count(key.address())
                    .pending()
                    .await
                    .map_err(|e| from_rpc(what, e))?,
            };
            let (raw, hash) = sign(key, draft);
            match self.provider.send_raw_transaction(&raw).await {
                Ok(_) => {
                    *next = Some(draft.nonce + 1);
                    return Ok(hash);
                }
                Err(error) => {
                    let said = error
                        .as_error_resp()
                        .map(|payload| payload.message.as_ref());
                    *next = None;
                    if !said.is_some_and(nonce_is_taken) {
                        return Err(from_rpc(what, error));
                    }
                }
            }
        }
        Err(ChainError::Rpc(format!(
            "{what}: another process sends with {} all the time; give each process its own key",
            key.address()
        )))
    }

    async fn mined(
        &self,
        what: &'static str,
        hash: B256,
    ) -> Result<TransactionReceipt, ChainError> {
        let start = Instant::now();
        let mut pause = POLL_FIRST;
        loop {
            // A failed look-up is no failed transaction: keep looking until the time is up.
            if let Ok(Some(receipt)) = self.provider.get_transaction_receipt(hash).await
                && receipt.block_number.is_some()
            {
                return Ok(receipt);
            }
            if start.elapsed() >= MINED_TIMEOUT {
                return Err(ChainError::NotMined {
                    what,
                    hash,
                    waited_s: MINED_TIMEOUT.as_secs(),
                });
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(POLL_SLOWEST);
        }
    }

    async fn outcome(
        &self,
        what: &'static str,
        request: TransactionRequest,
        receipt: TransactionReceipt,
    ) -> Result<Mined, ChainError> {
        let block = receipt.block_number.unwrap_or_default();
        if !receipt.status() {
            // Asking again at that block usually tells why; the dry run before it had passed.
            let again = self
                .provider
                .call(request)
                .block(BlockId::number(block))
                .await;
            if let Err(error) = again
                && let ChainError::Refused { what, why } = from_rpc(what, error)
                && *why != Refusal::Unknown(Bytes::new())
            {
                return Err(ChainError::Refused { what, why });
            }
            return Err(ChainError::Reverted {
                what,
                hash: receipt.transaction_hash,
                block,
            });
        }
        Ok(Mined {
            hash: receipt.transaction_hash,
            block,
            gas_used: receipt.gas_used,
            contract: receipt.contract_address,
            logs: receipt.logs().iter().map(|log| log.inner.clone()).collect(),
        })
    }
}

/// The signed transaction's bytes and hash.
fn sign(key: &Key, transaction: &TxEip1559) -> (Vec<u8>, B256) {
    let signature = key.sign_digest(transaction.signature_hash());
    let word = |at: usize| U256::from_be_slice(&signature.0[at..at + 32]);
    let signature = alloy_primitives::Signature::new(word(0), word(32), signature.0[64] == 28);
    let signed = transaction.clone().into_signed(signature);
    let hash = *signed.hash();
    (TxEnvelope::from(signed).encoded_2718(), hash)
}

/// Nodes name the same thing differently (geth, anvil, reth, nethermind). Bytes that are known
/// already are never ours, for nothing here is sent twice: another process with this key made the
/// same transaction, and ours still has to come.
fn nonce_is_taken(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    [
        "nonce too low",
        "replacement transaction",
        "already known",
        "already imported",
    ]
    .iter()
    .any(|words| message.contains(words))
}
