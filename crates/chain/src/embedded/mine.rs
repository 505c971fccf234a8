//! The one thread that writes: takes signed transactions in their order, puts each into a block of
//! its own, and answers only after the block is on disk. Transactions that wait together share one
//! commit, so a busy chain is not bound by the disk's latency.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use alloy::consensus::constants::EMPTY_WITHDRAWALS;
use alloy::consensus::proofs::{calculate_receipt_root, calculate_transaction_root};
use alloy::consensus::transaction::SignerRecoverable;
use alloy::consensus::{
    EMPTY_OMMER_ROOT_HASH, Eip658Value, Header, Receipt, ReceiptEnvelope, ReceiptWithBloom,
    Transaction, TxEnvelope, TxReceipt, TxType,
};
use alloy::eips::eip2718::{Decodable2718, Encodable2718};
use alloy_primitives::{Address, B256, Bytes, keccak256};
use assay_protocol::Timestamp;
use revm::context::TxEnv;
use revm::context::result::{EVMError, InvalidTransaction};
use tokio::sync::oneshot;

use super::execute::{BLOCK_GAS, Mode, Place, apply, environment, run};
use super::store::{BlockRecord, Draft, StateRead, Store, StoreError};

/// Transactions that wait at most; more are told to come back.
const QUEUE_MAX: usize = 1_024;
/// Transactions that share a commit at most.
const COMMIT_MAX: usize = 64;
/// The size of a signed transaction at most, as other networks have it.
const TRANSACTION_BYTES_MAX: usize = 128 * 1024;

/// Tells the present time; injected, so that tests own it.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Why a transaction is not taken. The words are those that wallets look for.
#[derive(Debug, thiserror::Error)]
pub(super) enum SubmitError {
    #[error("{0}")]
    Invalid(String),
    #[error("too many transactions wait; try again")]
    Full,
    #[error("the chain is shutting down")]
    Stopped,
    #[error("{0}")]
    Store(String),
}

struct Job {
    transaction: TxEnvelope,
    environment: TxEnv,
    sender: Address,
    reply: oneshot::Sender<Result<B256, SubmitError>>,
}

/// The writer's handle; dropping it ends the thread after what it has begun.
pub(super) struct Miner {
    jobs: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
    chain_id: u64,
}

impl Miner {
    pub(super) fn start(
        store: Arc<Store>,
        chain_id: u64,
        clock: Clock,
    ) -> Result<Miner, StoreError> {
        let (jobs, queue) = sync_channel(QUEUE_MAX);
        let thread = std::thread::Builder::new()
            .name("chain-writer".into())
            .spawn(move || write_blocks(&store, chain_id, &clock, &queue))
            .map_err(|e| StoreError::Disk(e.to_string()))?;
        Ok(Miner {
            jobs: Some(jobs),
            thread: Some(thread),
            chain_id,
        })
    }

    /// Checks a signed transaction's form, hands it to the writer and waits for its block.
    pub(super) fn submit(&self, raw: &[u8]) -> Result<B256, SubmitError> {
        let invalid = |why: &str| SubmitError::Invalid(why.to_owned());
        if raw.len() > TRANSACTION_BYTES_MAX {
            return Err(invalid("oversized data: a transaction has at most 128 KiB"));
        }
        let mut rest = raw;
        let transaction = TxEnvelope::decode_2718(&mut rest)
            .map_err(|e| SubmitError::Invalid(format!("transaction cannot be decoded: {e}")))?;
        if !rest.is_empty() {
            return Err(invalid("transaction cannot be decoded: trailing bytes"));
        }
        if transaction.chain_id() != Some(self.chain_id) {
            return Err(SubmitError::Invalid(format!(
                "invalid chain id for signer: this chain is {}",
                self.chain_id
            )));
        }
        let sender = transaction
            .recover_signer()
            .map_err(|_| invalid("invalid sender: the signature recovers to no key"))?;
        let environment = environment(&transaction, sender)
            .ok_or_else(|| invalid("transaction type not supported on this chain"))?;
        let (reply, answer) = oneshot::channel();
        let job = Job {
            transaction,
            environment,
            sender,
            reply,
        };
        let jobs = self.jobs.as_ref().ok_or(SubmitError::Stopped)?;
        jobs.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => SubmitError::Full,
            TrySendError::Disconnected(_) => SubmitError::Stopped,
        })?;
        answer.blocking_recv().unwrap_or(Err(SubmitError::Stopped))
    }
}

impl Drop for Miner {
    fn drop(&mut self) {
        // Closing the queue lets the thread finish; joining it closes the file before we return.
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn write_blocks(store: &Store, chain_id: u64, clock: &Clock, queue: &Receiver<Job>) {
    while let Ok(first) = queue.recv() {
        let mut jobs = vec![first];
        while jobs.len() < COMMIT_MAX
            && let Ok(job) = queue.try_recv()
        {
            jobs.push(job);
        }
        let now = clock();
        match commit(store, chain_id, now, &jobs) {
            Ok(outcomes) => {
                for (job, outcome) in jobs.into_iter().zip(outcomes) {
                    // Nobody waits any more if the caller left; the block stands all the same.
                    let _ = job.reply.send(outcome);
                }
            }
            Err(error) => {
                tracing::error!(%error, "a block could not be written");
                for job in jobs {
                    let _ = job.reply.send(Err(SubmitError::Store(error.to_string())));
                }
            }
        }
    }
}

/// Mines every job that is valid, one block each, in one commit.
fn commit(
    store: &Store,
    chain_id: u64,
    now: Timestamp,
    jobs: &[Job],
) -> Result<Vec<Result<B256, SubmitError>>, StoreError> {
    let commit = store.begin()?;
    let mut outcomes = Vec::with_capacity(jobs.len());
    {
        let mut draft = commit.draft()?;
        for job in jobs {
            outcomes.push(mine(&mut draft, chain_id, now, job)?);
        }
    }
    commit.finish()?;
    Ok(outcomes)
}

/// One transaction, one block.
fn mine(
    draft: &mut Draft<'_>,
    chain_id: u64,
    now: Timestamp,
    job: &Job,
) -> Result<Result<B256, SubmitError>, StoreError> {
    let hash = *job.transaction.tx_hash();
    if draft.is_mined(hash)? {
        return Ok(Err(SubmitError::Invalid("already known".into())));
    }
    let head = draft.head()?;
    let parent = header_at(draft, head)?;
    let place = Place {
        chain_id,
        number: head + 1,
        // A clock that steps back does not take the chain's time with it.
        timestamp: now.0.max(parent.timestamp),
        parent: parent.hash_slow(),
    };
    let ran = match run(draft, &place, job.environment.clone(), Mode::Real) {
        Ok(ran) => ran,
        Err(EVMError::Database(error)) => return Err(error),
        Err(EVMError::Transaction(why)) => {
            return Ok(Err(SubmitError::Invalid(words(&why, job.sender))));
        }
        Err(other) => return Ok(Err(SubmitError::Invalid(other.to_string()))),
    };
    let gas_used = ran.result.tx_gas_used();
    let receipt = envelope(
        job.transaction.tx_type(),
        Receipt {
            status: Eip658Value::Eip658(ran.result.is_success()),
            cumulative_gas_used: gas_used,
            logs: if ran.result.is_success() {
                ran.result.into_logs()
            } else {
                Vec::new()
            },
        },
    );
    apply(ran.state, draft)?;
    let header = Header {
        transactions_root: calculate_transaction_root(std::slice::from_ref(&job.transaction)),
        receipts_root: calculate_receipt_root(std::slice::from_ref(&receipt)),
        logs_bloom: *receipt.logs_bloom(),
        gas_used,
        ..blank_header(&place)
    };
    let header = alloy::rlp::encode(&header);
    draft.add_block(&BlockRecord {
        number: place.number,
        hash: keccak256(&header),
        header: &header,
        transaction: Some((
            hash,
            job.sender,
            &job.transaction.encoded_2718(),
            &receipt.encoded_2718(),
        )),
    })?;
    Ok(Ok(hash))
}

/// A header without transactions. The state root is zero: nothing here needs proofs of state, and
/// computing it would cost more than everything else.
pub(super) fn blank_header(place: &Place) -> Header {
    Header {
        parent_hash: place.parent,
        ommers_hash: EMPTY_OMMER_ROOT_HASH,
        number: place.number,
        gas_limit: BLOCK_GAS,
        timestamp: place.timestamp,
        base_fee_per_gas: Some(0),
        withdrawals_root: Some(EMPTY_WITHDRAWALS),
        blob_gas_used: Some(0),
        excess_blob_gas: Some(0),
        parent_beacon_block_root: Some(B256::ZERO),
        ..Header::default()
    }
}

/// A stored header, decoded.
pub(super) fn header_at(state: &impl StateRead, number: u64) -> Result<Header, StoreError> {
    let bytes = state
        .header(number)?
        .ok_or(StoreError::Damaged("headers"))?;
    alloy::rlp::decode_exact(&bytes).map_err(|_| StoreError::Damaged("headers"))
}

fn envelope(kind: TxType, receipt: Receipt) -> ReceiptEnvelope {
    let receipt: ReceiptWithBloom<Receipt> = receipt.into_with_bloom();
    match kind {
        TxType::Legacy => ReceiptEnvelope::Legacy(receipt),
        TxType::Eip2930 => ReceiptEnvelope::Eip2930(receipt),
        TxType::Eip1559 => ReceiptEnvelope::Eip1559(receipt),
        TxType::Eip4844 => ReceiptEnvelope::Eip4844(receipt),
        TxType::Eip7702 => ReceiptEnvelope::Eip7702(receipt),
    }
}

/// An invalid transaction in the words that wallets and our own sender look for.
pub(super) fn words(why: &InvalidTransaction, sender: Address) -> String {
    match why {
        InvalidTransaction::NonceTooLow { tx, state } => {
            format!("nonce too low: the next nonce of {sender} is {state}, got {tx}")
        }
        InvalidTransaction::NonceTooHigh { tx, state } => {
            format!("nonce too high: the next nonce of {sender} is {state}, got {tx}")
        }
        InvalidTransaction::LackOfFundForMaxFee { fee, balance } => format!(
            "insufficient funds for gas * price + value: {sender} has {balance} wei, needs {fee}; gas is free on this chain, so set the gas price to zero"
        ),
        other => other.to_string(),
    }
}

/// The signed bytes of a stored transaction, decoded.
pub(super) fn decode_transaction(raw: &Bytes) -> Result<TxEnvelope, StoreError> {
    TxEnvelope::decode_2718(&mut raw.as_ref()).map_err(|_| StoreError::Damaged("transactions"))
}

/// A stored receipt, decoded.
pub(super) fn decode_receipt(bytes: &[u8]) -> Result<ReceiptEnvelope, StoreError> {
    ReceiptEnvelope::decode_2718(&mut &bytes[..]).map_err(|_| StoreError::Damaged("receipts"))
}
