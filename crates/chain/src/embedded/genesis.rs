//! The first block: x402's contracts at the addresses that official clients have built in, and
//! Multicall3 where libraries look for it. Nobody owns anything yet; gas costs nothing.

use alloy_primitives::{Address, Bytes, address};
use alloy_sol_types::SolValue;
use assay_protocol::Timestamp;
use assay_protocol::channel::{CANONICAL_CHANNELS, CANONICAL_COLLECTOR};
use revm::bytecode::Bytecode;
use revm::context::TxEnv;
use revm::primitives::TxKind;
use revm::state::AccountInfo;

use super::execute::{BLOCK_GAS, Mode, Place, run};
use super::mine::blank_header;
use super::store::{BlockRecord, Draft, Store, StoreError};
use crate::artifacts;

/// Where every network has Multicall3.
pub const MULTICALL3: Address = address!("0xcA11bde05977b3631167028862bE2a173976CA11");

/// Writes the first block of a new chain, in one commit.
pub(super) fn write(store: &Store, chain_id: u64, now: Timestamp) -> Result<(), StoreError> {
    let commit = store.begin()?;
    commit.mark(chain_id)?;
    {
        let mut draft = commit.draft()?;
        let place = Place {
            chain_id,
            number: 0,
            timestamp: now.0,
            parent: Default::default(),
        };
        for (at, initcode) in [
            (CANONICAL_CHANNELS, artifacts::channels()),
            (
                CANONICAL_COLLECTOR,
                artifacts::with_arguments(
                    artifacts::erc3009_collector(),
                    &CANONICAL_CHANNELS.abi_encode(),
                ),
            ),
            (MULTICALL3, artifacts::multicall3()),
        ] {
            let code = runtime_code(&draft, &place, initcode)?;
            let bytecode = Bytecode::new_raw(code);
            let info = AccountInfo {
                nonce: 1,
                code_hash: bytecode.hash_slow(),
                code: Some(bytecode),
                ..AccountInfo::default()
            };
            draft.set_account(at, &info)?;
        }
        let header = alloy::rlp::encode(blank_header(&place));
        draft.add_block(&BlockRecord {
            number: 0,
            hash: alloy_primitives::keccak256(&header),
            header: &header,
            transaction: None,
        })?;
    }
    commit.finish()
}

/// What a constructor leaves behind. Ours do not mind where: the one immutable that depends on the
/// address, the cached EIP-712 domain, is recomputed by OpenZeppelin when it does not match.
fn runtime_code(draft: &Draft<'_>, place: &Place, initcode: Vec<u8>) -> Result<Bytes, StoreError> {
    let transaction = TxEnv {
        gas_limit: BLOCK_GAS,
        kind: TxKind::Create,
        data: initcode.into(),
        chain_id: Some(place.chain_id),
        ..TxEnv::default()
    };
    let ran = run(draft, place, transaction, Mode::Dry);
    let result = ran.map_err(|e| StoreError::Disk(e.to_string()))?.result;
    match result.is_success().then(|| result.into_output()).flatten() {
        Some(code) => Ok(code),
        // The artifacts are ours and tested; a constructor that fails is our own broken promise.
        None => unreachable!("a built-in contract's constructor fails"),
    }
}
