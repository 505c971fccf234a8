//! Sends one transaction; `pending` waits until it is in a block. Several senders of one key never take
//! the same nonce, and a contract's refusal is found by a dry run before anything is sent.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex as SyncMutex};

use alloy::consensus::{SignableTransaction, TxEip1559, TxEnvelope};
use alloy::eips::eip2718::Encodable2718;
use alloy::network::TransactionBuilder;
use alloy::providers::Provider;
use alloy::rpc::types::{BlockId, TransactionReceipt, TransactionRequest};
use alloy::transports::RpcError;
use alloy_primitives::{Bytes, TxKind, U256};
use assay_protocol::{Address, B256};
use tokio::sync::Mutex;

use crate::connect::Chain;
use crate::error::{ChainError, Refusal, from_rpc};
use crate::keys::Key;

/// Transactions of one key that are remembered at most, so that they can be sent again.
const REMEMBERED_MAX: usize = 64;
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

/// What every key has sent through this handle.
#[derive(Default)]
pub(crate) struct Nonces {
    lanes: SyncMutex<HashMap<Address, Arc<Mutex<Lane>>>>,
}

/// One key's transactions.
#[derive(Default)]
pub(crate) struct Lane {
    /// The next nonce. None means: ask the chain.
    pub(crate) next: Option<u64>,
    /// What was sent last, oldest first: a reorganization may drop it, and then it is sent again.
    pub(crate) sent: VecDeque<Sent>,
}

/// A signed transaction that was handed over.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    pub(crate) draft: TxEip1559,
    pub(crate) raw: Vec<u8>,
    pub(crate) hash: B256,
}

impl Nonces {
    pub(crate) fn lane(&self, address: Address) -> Arc<Mutex<Lane>> {
        let mut lanes = self.lanes.lock().unwrap_or_else(|e| e.into_inner());
        lanes.entry(address).or_default().clone()
    }
}

impl Lane {
    /// Remembers a transaction in place of an older one of the same nonce.
    pub(crate) fn remember(&mut self, sent: Sent) {
        self.sent.retain(|old| old.draft.nonce != sent.draft.nonce);
        if self.sent.len() >= REMEMBERED_MAX {
            self.sent.pop_front();
        }
        self.sent.push_back(sent);
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
        self.send_estimated(what, key, to, input, None).await
    }

    /// The same, with the gas that another input would take.
    pub(crate) async fn send_estimated(
        &self,
        what: &'static str,
        key: &Key,
        to: Address,
        input: Vec<u8>,
        estimated: Option<Vec<u8>>,
    ) -> Result<Mined, ChainError> {
        let estimated = estimated.map(Bytes::from);
        self.transact(what, key, TxKind::Call(to), input.into(), estimated)
            .await
    }

    /// Deploys a contract.
    pub(crate) async fn create(
        &self,
        what: &'static str,
        key: &Key,
        initcode: Vec<u8>,
    ) -> Result<Mined, ChainError> {
        self.transact(what, key, TxKind::Create, initcode.into(), None)
            .await
    }

    async fn transact(
        &self,
        what: &'static str,
        key: &Key,
        to: TxKind,
        input: Bytes,
        estimated: Option<Bytes>,
    ) -> Result<Mined, ChainError> {
        let mut request = TransactionRequest::default()
            .with_from(key.address())
            .with_input(input.clone());
        request.to = Some(to);
        let lane = self.nonces.lane(key.address());
        let sent = {
            // One sender of a key at a time, from its dry run until the chain has its transaction.
            let mut lane = lane.lock().await;
            let gas = self
                .provider
                .estimate_gas(match estimated {
                    Some(input) => request.clone().with_input(input),
                    None => request.clone(),
                })
                .await
                .map_err(|e| from_rpc(what, e))?;
            let (max_fee_per_gas, max_priority_fee_per_gas) = self.fees(what).await?;
            let draft = TxEip1559 {
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
            self.submit(what, key, draft, &mut lane).await?
        };
        let nonce = sent.draft.nonce;
        match self.mined(what, key, &lane, sent).await {
            Ok(receipt) => self.outcome(what, request, receipt).await,
            Err(error) => {
                // The transaction may have been dropped; the next one asks the chain for its nonce. What the
                // caller was told to be lost is not sent again behind its back.
                let mut lane = lane.lock().await;
                lane.next = None;
                lane.sent.retain(|other| other.draft.nonce != nonce);
                drop(lane);
                Err(error)
            }
        }
    }

    /// What to offer for gas: enough for a base fee that doubles. Zero on a chain that asks nothing.
    pub(crate) async fn fees(&self, what: &'static str) -> Result<(u128, u128), ChainError> {
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
            Err(RpcError::ErrorResp(_)) => 0,
            Err(error) => return Err(from_rpc(what, error)),
        };
        Ok((u128::from(base), tip))
    }

    /// Hands a transaction over, with the next nonce that nobody has taken.
    async fn submit(
        &self,
        what: &'static str,
        key: &Key,
        mut draft: TxEip1559,
        lane: &mut Lane,
    ) -> Result<Sent, ChainError> {
        for _ in 0..NONCE_ATTEMPTS_MAX {
            draft.nonce = match lane.next {
                Some(nonce) => nonce,
                None => self
                    .provider
                    .get_transaction_count(key.address())
                    .pending()
                    .await
                    .map_err(|e| from_rpc(what, e))?,
            };
            let sent = sign(key, &draft);
            let error = match self.provider.send_raw_transaction(&sent.raw).await {
                Ok(_) => None,
                Err(error) => match &error {
                    RpcError::ErrorResp(payload) if nonce_is_taken(&payload.message) => {
                        lane.next = None;
                        continue;
                    }
                    RpcError::ErrorResp(_) => {
                        lane.next = None;
                        return Err(from_rpc(what, error));
                    }
                    // It may have arrived all the same: whoever waits for it finds out, and sends these same
                    // bytes again only if the chain has not got them.
                    _ => Some(error),
                },
            };
            if let Some(error) = error {
                tracing::warn!(what, hash = %sent.hash, %error, "handing a transaction over failed");
            }
            lane.next = Some(draft.nonce + 1);
            lane.remember(sent.clone());
            return Ok(sent);
        }
        Err(ChainError::Rpc(format!(
            "{what}: another process sends with {} all the time; give each process its own key",
            key.address()
        )))
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

pub(crate) fn sign(key: &Key, transaction: &TxEip1559) -> Sent {
    let signature = key.sign_digest(transaction.signature_hash());
    let word = |at: usize| U256::from_be_slice(&signature.0[at..at + 32]);
    let signature = alloy_primitives::Signature::new(word(0), word(32), signature.0[64] == 28);
    let signed = transaction.clone().into_signed(signature);
    let hash = *signed.hash();
    Sent {
        draft: transaction.clone(),
        raw: TxEnvelope::from(signed).encoded_2718(),
        hash,
    }
}

/// Nodes name the same thing differently (geth, anvil, reth, nethermind). Bytes that are known
/// already are never ours, for nothing here is sent twice: another process with this key made the
/// same transaction, and ours still has to come.
pub(crate) fn nonce_is_taken(message: &str) -> bool {
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
