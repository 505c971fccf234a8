//! Ethereum's JSON-RPC over the chain's file: each method reads one snapshot, so that an answer
//! never mixes two blocks. Holds no state of its own; every input is bounded before it is used.

use alloy::consensus::Transaction as _;
use alloy::consensus::transaction::Recovered;
use alloy::network::TransactionBuilder;
use alloy::rpc::types::{
    Block, BlockId, BlockNumberOrTag, BlockTransactions, Filter, FilterBlockOption, Header, Log,
    Transaction, TransactionReceipt, TransactionRequest,
};
use alloy_primitives::{Address, B256, Bytes, TxKind, U64, U256};
use revm::context::TxEnv;
use revm::context::result::{EVMError, ExecutionResult};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::Inner;
use super::execute::{BLOCK_GAS, Failure, Mode, Place, run};
use super::mine::{
    SubmitError, blank_header, decode_receipt, decode_transaction, header_at, words,
};
use super::store::{Snapshot, StateRead, StoreError};

/// Logs in one answer at most.
const LOGS_MAX: usize = 10_000;
/// Blocks that one search for logs walks at most.
const LOG_BLOCKS_MAX: u64 = 500_000;
/// Blocks of fee history at most, as geth has it.
const FEE_BLOCKS_MAX: u64 = 1_024;
/// Steps of the search for a gas limit at most: 2^26 covers a block.
const ESTIMATE_STEPS_MAX: usize = 26;

/// A JSON-RPC error.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) code: i64,
    pub(super) message: String,
    pub(super) data: Option<Bytes>,
}

impl Fault {
    fn new(code: i64, message: impl Into<String>) -> Fault {
        Fault {
            code,
            message: message.into(),
            data: None,
        }
    }

    fn params(message: impl Into<String>) -> Fault {
        Fault::new(-32602, message)
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Fault {
        Fault::new(-32603, error.to_string())
    }
}

/// Answers one request. Blocks the thread: a sent transaction waits for its block.
pub(super) fn answer(inner: &Inner, method: &str, params: &Value) -> Result<Value, Fault> {
    let params = Params(params);
    match method {
        "web3_clientVersion" => Ok(json!(concat!("assay-chain/", env!("CARGO_PKG_VERSION")))),
        "net_version" => Ok(json!(inner.chain_id.to_string())),
        "net_listening" => Ok(json!(true)),
        "eth_syncing" => Ok(json!(false)),
        "eth_accounts" => Ok(json!([])),
        "eth_chainId" => to_json(U64::from(inner.chain_id)),
        // Gas costs nothing here.
        "eth_gasPrice" | "eth_maxPriorityFeePerGas" | "eth_blobBaseFee" => to_json(U64::ZERO),
        "eth_sendRawTransaction" => {
            let raw: Bytes = params.at(0)?;
            let sent = inner.miner.submit(&raw);
            to_json(sent.map_err(|error| match error {
                SubmitError::Store(_) | SubmitError::Stopped => {
                    Fault::new(-32603, error.to_string())
                }
                SubmitError::Full => Fault::new(-32005, error.to_string()),
                SubmitError::Invalid(_) => Fault::new(-32000, error.to_string()),
            })?)
        }
        _ => View::new(inner)?.answer(method, &params),
    }
}

/// One snapshot and the present time.
struct View<'i> {
    inner: &'i Inner,
    snapshot: Snapshot,
    head: u64,
}

impl<'i> View<'i> {
    fn new(inner: &'i Inner) -> Result<View<'i>, Fault> {
        let snapshot = inner.store.snapshot()?;
        let head = snapshot.head()?;
        Ok(View {
            inner,
            snapshot,
            head,
        })
    }

    fn answer(&self, method: &str, params: &Params<'_>) -> Result<Value, Fault> {
        match method {
            "eth_blockNumber" => to_json(U64::from(self.head)),
            "eth_getBalance" => {
                self.present(params.optional(1)?)?;
                let account = self.snapshot.account(params.at(0)?)?;
                to_json(account.map_or(U256::ZERO, |a| a.balance))
            }
            "eth_getTransactionCount" => {
                self.present(params.optional(1)?)?;
                let account = self.snapshot.account(params.at(0)?)?;
                to_json(U64::from(account.map_or(0, |a| a.nonce)))
            }
            "eth_getCode" => {
                self.present(params.optional(1)?)?;
                match self.snapshot.account(params.at(0)?)? {
                    None => to_json(Bytes::new()),
                    Some(a) => to_json(self.snapshot.code(a.code_hash)?.original_bytes()),
                }
            }
            "eth_getStorageAt" => {
                self.present(params.optional(2)?)?;
                let slot: U256 = params.at(1)?;
                let value = self.snapshot.slot(params.at(0)?, slot)?;
                to_json(B256::from(value))
            }
            "eth_call" => {
                self.present(params.optional(1)?)?;
                params.no_overrides(2)?;
                let result = self.dry_run(&params.at(0)?, None)?;
                match result {
                    ExecutionResult::Success { output, .. } => to_json(output.into_data()),
                    other => Err(reverted(other)),
                }
            }
            "eth_estimateGas" => {
                self.present(params.optional(1)?)?;
                params.no_overrides(2)?;
                to_json(U64::from(self.estimate(&params.at(0)?)?))
            }
            "eth_feeHistory" => self.fee_history(params),
            "eth_getBlockByNumber" => {
                let tag: BlockNumberOrTag = params.at(0)?;
                let full: bool = params.optional(1)?.unwrap_or(false);
                match tag {
                    BlockNumberOrTag::Pending => to_json(self.pending_block()?),
                    tag => match self.number(tag) {
                        Some(number) => self.block(number, full),
                        None => Ok(Value::Null),
                    },
                }
            }
            "eth_getBlockByHash" => {
                let full: bool = params.optional(1)?.unwrap_or(false);
                match self.snapshot.number_of(params.at(0)?)? {
                    Some(number) => self.block(number, full),
                    None => Ok(Value::Null),
                }
            }
            "eth_getTransactionByHash" => match self.snapshot.mined_in(params.at(0)?)? {
                Some(number) => to_json(self.transaction(number)?),
                None => Ok(Value::Null),
            },
            "eth_getTransactionReceipt" => match self.snapshot.mined_in(params.at(0)?)? {
                Some(number) => to_json(self.receipt(number)?),
                None => Ok(Value::Null),
            },
            "eth_getLogs" => self.logs(&params.at(0)?),
            _ => Err(Fault::new(
                -32601,
                format!("the method {method} does not exist on this chain"),
            )),
        }
    }

    /// A dry run stands where the next block will.
    fn place(&self) -> Result<Place, Fault> {
        let head = header_at(&self.snapshot, self.head)?;
        Ok(Place {
            chain_id: self.inner.chain_id,
            number: self.head + 1,
            timestamp: (self.inner.clock)().0.max(head.timestamp),
            parent: head.hash_slow(),
        })
    }

    fn number(&self, tag: BlockNumberOrTag) -> Option<u64> {
        match tag {
            BlockNumberOrTag::Earliest => Some(0),
            BlockNumberOrTag::Number(number) => (number <= self.head).then_some(number),
            _ => Some(self.head),
        }
    }

    /// Only the present state is kept.
    fn present(&self, block: Option<BlockId>) -> Result<(), Fault> {
        let number = match block {
            None => Some(self.head),
            Some(BlockId::Number(tag)) => self.number(tag),
            Some(BlockId::Hash(hash)) => self.snapshot.number_of(hash.block_hash)?,
        };
        match number {
            Some(number) if number == self.head => Ok(()),
            Some(number) => Err(Fault::new(
                -32000,
                format!(
                    "missing state of block {number}: this chain keeps the present state only (block {}); ask for latest",
                    self.head
                ),
            )),
            None => Err(Fault::new(-32000, "header not found")),
        }
    }

    fn dry_run(
        &self,
        request: &TransactionRequest,
        gas: Option<u64>,
    ) -> Result<ExecutionResult, Fault> {
        let place = self.place()?;
        let transaction = TxEnv {
            caller: request.from.unwrap_or(Address::ZERO),
            gas_limit: gas.or(request.gas).unwrap_or(BLOCK_GAS).min(BLOCK_GAS),
            kind: request.to.unwrap_or(TxKind::Create),
            value: request.value.unwrap_or_default(),
            data: request.input().cloned().unwrap_or_default(),
            chain_id: Some(self.inner.chain_id),
            access_list: request.access_list.clone().unwrap_or_default(),
            ..TxEnv::default()
        };
        let sender = transaction.caller;
        run(&self.snapshot, &place, transaction, Mode::Dry)
            .map(|ran| ran.result)
            .map_err(|error: Failure| match error {
                EVMError::Transaction(why) => Fault::new(-32000, words(&why, sender)),
                other => Fault::new(-32603, other.to_string()),
            })
    }

    /// The least gas that the transaction succeeds with. What it uses is not enough where a call
    /// inside keeps a 64th of its gas back, so the answer is tried, and searched if need be.
    fn estimate(&self, request: &TransactionRequest) -> Result<u64, Fault> {
        let most = request.gas.unwrap_or(BLOCK_GAS).min(BLOCK_GAS);
        let first = self.dry_run(request, Some(most))?;
        if !first.is_success() {
            return Err(reverted(first));
        }
        // A refund is paid out only at the end: the gas must be there before.
        let spent = first.gas().total_gas_spent();
        let mut low = first.tx_gas_used().saturating_sub(1);
        let mut high = most;
        let guess = (spent + 2_300).saturating_mul(64) / 63;
        if guess < high && self.succeeds(request, guess)? {
            high = guess;
        }
        for _ in 0..ESTIMATE_STEPS_MAX {
            // A hundredth of slack is worth no more dry runs.
            if high - low <= 1 || high - low < high / 64 {
                break;
            }
            let middle = low + (high - low) / 2;
            if self.succeeds(request, middle)? {
                high = middle;
            } else {
                low = middle;
            }
        }
        Ok(high)
    }

    fn succeeds(&self, request: &TransactionRequest, gas: u64) -> Result<bool, Fault> {
        match self.dry_run(request, Some(gas)) {
            Ok(result) => Ok(result.is_success()),
            // Too little even to begin.
            Err(fault) if fault.code == -32000 => Ok(false),
            Err(fault) => Err(fault),
        }
    }

    fn fee_history(&self, params: &Params<'_>) -> Result<Value, Fault> {
        let count: U64 = params.at(0)?;
        let newest: BlockNumberOrTag = params.at(1)?;
        let percentiles: Vec<f64> = params.optional(2)?.unwrap_or_default();
        if percentiles.len() > 100 {
            return Err(Fault::params("at most 100 percentiles"));
        }
        let newest = self
            .number(newest)
            .ok_or_else(|| Fault::new(-32000, "header not found"))?;
        let count = count.to::<u64>().min(FEE_BLOCKS_MAX).min(newest + 1);
        let blocks = usize::try_from(count).unwrap_or(0);
        let mut answer = json!({
            "oldestBlock": U64::from(newest + 1 - count),
            "baseFeePerGas": vec![U64::ZERO; blocks + 1],
            "gasUsedRatio": vec![0; blocks],
        });
        if !percentiles.is_empty() {
            answer["reward"] = json!(vec![vec![U64::ZERO; percentiles.len()]; blocks]);
        }
        Ok(answer)
    }

    /// What the next block would be, without transactions: it tells the time.
    fn pending_block(&self) -> Result<Block, Fault> {
        Ok(Block {
            header: Header::new(blank_header(&self.place()?)),
            uncles: Vec::new(),
            transactions: BlockTransactions::Hashes(Vec::new()),
            withdrawals: Some(Default::default()),
        })
    }

    fn block(&self, number: u64, full: bool) -> Result<Value, Fault> {
        let header = header_at(&self.snapshot, number)?;
        let transactions = match (self.snapshot.transaction(number)?, full) {
            (None, true) => BlockTransactions::Full(Vec::new()),
            (None, false) => BlockTransactions::Hashes(Vec::new()),
            (Some(_), true) => BlockTransactions::Full(vec![self.transaction(number)?]),
            (Some((_, raw)), false) => {
                BlockTransactions::Hashes(vec![*decode_transaction(&raw)?.tx_hash()])
            }
        };
        to_json(Block {
            header: Header::new(header),
            uncles: Vec::new(),
            transactions,
            withdrawals: Some(Default::default()),
        })
    }

    fn transaction(&self, number: u64) -> Result<Transaction, Fault> {
        let header = header_at(&self.snapshot, number)?;
        let (sender, raw) = self.stored(number)?;
        let transaction = decode_transaction(&raw)?;
        Ok(Transaction {
            effective_gas_price: Some(transaction.effective_gas_price(header.base_fee_per_gas)),
            inner: Recovered::new_unchecked(transaction, sender),
            block_hash: Some(header.hash_slow()),
            block_number: Some(number),
            transaction_index: Some(0),
            block_timestamp: Some(header.timestamp),
        })
    }

    fn receipt(&self, number: u64) -> Result<TransactionReceipt, Fault> {
        let header = header_at(&self.snapshot, number)?;
        let block_hash = header.hash_slow();
        let (sender, raw) = self.stored(number)?;
        let transaction = decode_transaction(&raw)?;
        let transaction_hash = *transaction.tx_hash();
        let receipt = self
            .snapshot
            .receipt(number)?
            .ok_or(StoreError::Damaged("receipts"))?;
        let mut index = 0;
        let inner = decode_receipt(&receipt)?.map_logs(|log| {
            let log = mined_log(log, &header, block_hash, transaction_hash, index);
            index += 1;
            log
        });
        let contract_address =
            (transaction.is_create() && inner.status()).then(|| sender.create(transaction.nonce()));
        Ok(TransactionReceipt {
            inner,
            transaction_hash,
            transaction_index: Some(0),
            block_hash: Some(block_hash),
            block_number: Some(number),
            gas_used: header.gas_used,
            effective_gas_price: transaction.effective_gas_price(header.base_fee_per_gas),
            blob_gas_used: None,
            blob_gas_price: None,
            from: sender,
            to: transaction.to(),
            contract_address,
        })
    }

    fn stored(&self, number: u64) -> Result<(Address, Bytes), Fault> {
        let stored = self.snapshot.transaction(number)?;
        Ok(stored.ok_or(StoreError::Damaged("transactions"))?)
    }

    fn logs(&self, filter: &Filter) -> Result<Value, Fault> {
        let (from, to) = match filter.block_option {
            FilterBlockOption::AtBlockHash(hash) => match self.snapshot.number_of(hash)? {
                Some(number) => (number, number),
                None => return Err(Fault::new(-32000, "unknown block")),
            },
            FilterBlockOption::Range {
                from_block,
                to_block,
            } => {
                let bound = |tag: Option<BlockNumberOrTag>| match tag {
                    Some(BlockNumberOrTag::Number(number)) => number,
                    Some(BlockNumberOrTag::Earliest) => 0,
                    _ => self.head,
                };
                (bound(from_block), bound(to_block).min(self.head))
            }
        };
        if from > to {
            return to_json(Vec::<Log>::new());
        }
        if to - from >= LOG_BLOCKS_MAX {
            return Err(Fault::params(format!(
                "{} blocks are too many for one search; ask for at most {LOG_BLOCKS_MAX}",
                to - from + 1
            )));
        }
        let mut logs = Vec::new();
        for number in from..=to {
            let Some(receipt) = self.snapshot.receipt(number)? else {
                continue;
            };
            let receipt = decode_receipt(&receipt)?;
            if !filter.matches_bloom(*receipt.logs_bloom()) {
                continue;
            }
            let header = header_at(&self.snapshot, number)?;
            let block_hash = header.hash_slow();
            let (_, raw) = self.stored(number)?;
            let hash = *decode_transaction(&raw)?.tx_hash();
            for (index, log) in (0u64..).zip(receipt.logs()) {
                if filter.matches(log) {
                    logs.push(mined_log(log.clone(), &header, block_hash, hash, index));
                }
            }
            if logs.len() > LOGS_MAX {
                return Err(Fault::params(format!(
                    "more than {LOGS_MAX} logs; ask for fewer blocks than {from} to {to}"
                )));
            }
        }
        to_json(logs)
    }
}

fn mined_log(
    log: alloy_primitives::Log,
    header: &alloy::consensus::Header,
    block_hash: B256,
    transaction_hash: B256,
    index: u64,
) -> Log {
    Log {
        inner: log,
        block_hash: Some(block_hash),
        block_number: Some(header.number),
        block_timestamp: Some(header.timestamp),
        transaction_hash: Some(transaction_hash),
        transaction_index: Some(0),
        log_index: Some(index),
        removed: false,
    }
}

/// A failed run in geth's words.
fn reverted(result: ExecutionResult) -> Fault {
    match result {
        ExecutionResult::Revert { output, .. } => Fault {
            code: 3,
            message: "execution reverted".into(),
            data: Some(output),
        },
        ExecutionResult::Halt { reason, .. } => {
            Fault::new(-32000, format!("execution halted: {reason:?}"))
        }
        ExecutionResult::Success { .. } => Fault::new(-32603, "a success is no fault"),
    }
}

/// Positional parameters.
struct Params<'p>(&'p Value);

impl Params<'_> {
    fn at<T: DeserializeOwned>(&self, index: usize) -> Result<T, Fault> {
        self.optional(index)?
            .ok_or_else(|| Fault::params(format!("missing value for parameter {index}")))
    }

    fn optional<T: DeserializeOwned>(&self, index: usize) -> Result<Option<T>, Fault> {
        match self.0.get(index) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => T::deserialize(value)
                .map(Some)
                .map_err(|e| Fault::params(format!("invalid parameter {index}: {e}"))),
        }
    }

    /// State overrides would be silently wrong if they were ignored.
    fn no_overrides(&self, index: usize) -> Result<(), Fault> {
        match self.0.get(index) {
            None | Some(Value::Null) => Ok(()),
            Some(Value::Object(map)) if map.is_empty() => Ok(()),
            Some(_) => Err(Fault::params(
                "state overrides are not supported on this chain",
            )),
        }
    }
}

fn to_json(value: impl Serialize) -> Result<Value, Fault> {
    serde_json::to_value(value).map_err(|e| Fault::new(-32603, e.to_string()))
}
