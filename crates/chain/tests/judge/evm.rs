//! A bare EVM in memory: code is put there once, then called as often as a test likes. No chain around
//! it, so that a hundred thousand calls take seconds.

use alloy_primitives::{Address, Bytes, TxKind};
use alloy_sol_types::SolCall;
use revm::context::TxEnv;
use revm::context::result::{ExecutionResult, Output};
use revm::database::{CacheDB, EmptyDB};
use revm::primitives::hardfork::SpecId;
use revm::{Context, ExecuteCommitEvm, ExecuteEvm, MainBuilder, MainContext};

const GAS: u64 = 1 << 32;

/// Why a call gave nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refused {
    Reverted(Bytes),
    Halted(String),
}

/// What a call gave and what it cost: the whole transaction's gas, calldata floor included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer<T> {
    pub(crate) value: T,
    pub(crate) gas: u64,
}

pub(crate) struct Evm {
    db: CacheDB<EmptyDB>,
}

macro_rules! machine {
    ($db:expr) => {
        Context::mainnet()
            .with_db($db)
            .modify_block_chained(|block| block.gas_limit = u64::MAX)
            .modify_cfg_chained(|cfg| {
                cfg.set_spec_and_mainnet_gas_params(SpecId::PRAGUE);
                cfg.disable_nonce_check = true;
                cfg.disable_balance_check = true;
                cfg.disable_base_fee = true;
                cfg.tx_gas_limit_cap = Some(u64::MAX);
                cfg.limit_contract_initcode_size = Some(usize::MAX);
            })
            .build_mainnet()
    };
}

fn transaction(kind: TxKind, data: Vec<u8>) -> TxEnv {
    TxEnv {
        caller: Address::repeat_byte(0xca),
        gas_limit: GAS,
        gas_price: 0,
        kind,
        data: data.into(),
        ..TxEnv::default()
    }
}

fn answer(result: ExecutionResult) -> Result<Answer<Output>, Refused> {
    let gas = result.tx_gas_used();
    match result {
        ExecutionResult::Success { output, .. } => Ok(Answer { value: output, gas }),
        ExecutionResult::Revert { output, .. } => Err(Refused::Reverted(output)),
        ExecutionResult::Halt { reason, .. } => Err(Refused::Halted(format!("{reason:?}"))),
    }
}

impl Evm {
    pub(crate) fn new() -> Evm {
        Evm {
            db: CacheDB::default(),
        }
    }

    /// Creates a contract from its creation code, arguments appended.
    pub(crate) fn create(&mut self, initcode: Vec<u8>) -> Address {
        let caller = Address::repeat_byte(0xca);
        let nonce = self
            .db
            .cache
            .accounts
            .get(&caller)
            .map_or(0, |account| account.info.nonce);
        let mut transaction = transaction(TxKind::Create, initcode);
        transaction.nonce = nonce;
        let result = machine!(&mut self.db)
            .transact_commit(transaction)
            .expect("the machine runs");
        match answer(result).expect("a constructor succeeds").value {
            Output::Create(_, Some(address)) => address,
            other => panic!("no contract was made: {other:?}"),
        }
    }

    /// Calls and keeps what it changed.
    pub(crate) fn send<C: SolCall>(
        &mut self,
        to: Address,
        call: &C,
    ) -> Result<Answer<C::Return>, Refused> {
        let result = machine!(&mut self.db)
            .transact_commit(transaction(TxKind::Call(to), call.abi_encode()))
            .expect("the machine runs");
        decoded::<C>(result)
    }

    /// Calls and forgets what it changed.
    pub(crate) fn call<C: SolCall>(
        &mut self,
        to: Address,
        call: &C,
    ) -> Result<Answer<C::Return>, Refused> {
        let result = machine!(&mut self.db)
            .transact(transaction(TxKind::Call(to), call.abi_encode()))
            .expect("the machine runs");
        decoded::<C>(result.result)
    }
}

fn decoded<C: SolCall>(result: ExecutionResult) -> Result<Answer<C::Return>, Refused> {
    let Answer { value, gas } = answer(result)?;
    Ok(Answer {
        value: C::abi_decode_returns(&value.into_data()).expect("an answer of the right type"),
        gas,
    })
}
