//! Runs one transaction on a state and tells what it changed; changes nothing itself.

use alloy::consensus::{Transaction, TxEnvelope};
use alloy_primitives::{Address, B256, U256, keccak256};
use revm::bytecode::Bytecode;
use revm::context::result::{EVMError, InvalidTransaction, ResultAndState};
use revm::context::{BlockEnv, Context, TxEnv};
use revm::database_interface::{DatabaseRef, WrapDatabaseRef};
use revm::primitives::hardfork::SpecId;
use revm::state::AccountInfo;
use revm::{ExecuteEvm, MainBuilder, MainContext};

use super::store::{Draft, StateRead, StoreError};

/// The gas that one block, and so one transaction, may use.
pub(super) const BLOCK_GAS: u64 = 60_000_000;
/// The rules. Gas includes the calldata floor of EIP-7623.
const RULES: SpecId = SpecId::PRAGUE;

/// Where a transaction runs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) chain_id: u64,
    pub(super) number: u64,
    pub(super) timestamp: u64,
    pub(super) parent: B256,
}

/// A real transaction must pay and count; a dry run need not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Real,
    Dry,
}

pub(super) type Failure = EVMError<StoreError, InvalidTransaction>;

/// Runs `transaction` at `place` over `state`.
pub(super) fn run(
    state: &impl StateRead,
    place: &Place,
    transaction: TxEnv,
    mode: Mode,
) -> Result<ResultAndState, Failure> {
    let dry = mode == Mode::Dry;
    let block = BlockEnv {
        number: U256::from(place.number),
        timestamp: U256::from(place.timestamp),
        gas_limit: BLOCK_GAS,
        basefee: 0,
        // No randomness: on a chain with one author it would only look like some.
        prevrandao: Some(keccak256(place.parent)),
        ..BlockEnv::default()
    };
    Context::mainnet()
        .with_db(WrapDatabaseRef(State(state)))
        .with_block(block)
        .modify_cfg_chained(|cfg| {
            cfg.set_spec_and_mainnet_gas_params(RULES);
            cfg.chain_id = place.chain_id;
            cfg.disable_nonce_check = dry;
            cfg.disable_balance_check = dry;
            cfg.disable_eip3607 = dry;
            cfg.disable_base_fee = dry;
        })
        .build_mainnet()
        .transact(transaction)
}

/// A signed transaction as the machine takes it. Blobs and delegations are not for this chain.
pub(super) fn environment(transaction: &TxEnvelope, sender: Address) -> Option<TxEnv> {
    match transaction {
        TxEnvelope::Legacy(_) | TxEnvelope::Eip2930(_) | TxEnvelope::Eip1559(_) => {}
        TxEnvelope::Eip4844(_) | TxEnvelope::Eip7702(_) => return None,
    }
    Some(TxEnv {
        tx_type: transaction.tx_type() as u8,
        caller: sender,
        gas_limit: transaction.gas_limit(),
        gas_price: transaction.max_fee_per_gas(),
        kind: transaction.kind(),
        value: transaction.value(),
        data: transaction.input().clone(),
        nonce: transaction.nonce(),
        chain_id: transaction.chain_id(),
        access_list: transaction.access_list().cloned().unwrap_or_default(),
        gas_priority_fee: transaction.max_priority_fee_per_gas(),
        ..TxEnv::default()
    })
}

/// Writes what a run changed into a commit.
pub(super) fn apply(
    changes: revm::state::EvmState,
    draft: &mut Draft<'_>,
) -> Result<(), StoreError> {
    for (address, account) in changes {
        if !account.is_touched() {
            continue;
        }
        if account.is_selfdestructed() {
            draft.remove_account(address)?;
            continue;
        }
        if account.is_created() || account.info.is_empty() {
            // A new contract starts without storage; an empty account is no account (EIP-161).
            draft.remove_account(address)?;
        }
        if !account.info.is_empty() {
            draft.set_account(address, &account.info)?;
        }
        for (slot, value) in account.changed_storage_slots() {
            draft.set_slot(address, *slot, value.present_value)?;
        }
    }
    Ok(())
}

/// Hands a state to the machine.
struct State<'s, S: StateRead>(&'s S);

impl<S: StateRead> DatabaseRef for State<'_, S> {
    type Error = StoreError;

    fn basic_ref(&self, address: Address) -> Result<Option<AccountInfo>, StoreError> {
        self.0.account(address)
    }

    fn code_by_hash_ref(&self, hash: B256) -> Result<Bytecode, StoreError> {
        self.0.code(hash)
    }

    fn storage_ref(&self, address: Address, slot: U256) -> Result<U256, StoreError> {
        self.0.slot(address, slot)
    }

    fn block_hash_ref(&self, number: u64) -> Result<B256, StoreError> {
        Ok(self.0.header(number)?.map(keccak256).unwrap_or_default())
    }
}
