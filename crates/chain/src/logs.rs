//! Searches events in pieces that public nodes allow, and in smaller ones where a node says that an
//! answer would be too long. Understands no event.

use alloy::providers::Provider;
use alloy::rpc::types::{Filter, Log};
use alloy::transports::RpcError;

use crate::connect::Chain;
use crate::error::{ChainError, from_rpc};

/// Blocks asked for in one search: what public nodes allow.
const BLOCKS: u64 = 9_000;
/// Blocks of an embedded chain, which allows more.
const BLOCKS_EMBEDDED: u64 = 400_000;

impl Chain {
    /// The events that the filter lets through, of the blocks from `from` to `to`, oldest first. `take` is
    /// given them piece by piece, with the first block that was not searched yet.
    pub(crate) async fn search(
        &self,
        what: &'static str,
        filter: &Filter,
        from: u64,
        to: u64,
        mut take: impl FnMut(Vec<Log>, u64),
    ) -> Result<(), ChainError> {
        let most = match self.as_embedded() {
            Some(_) => BLOCKS_EMBEDDED,
            None => BLOCKS,
        };
        let (mut from, mut step) = (from, most);
        while from <= to {
            let end = to.min(from.saturating_add(step - 1));
            let piece = filter.clone().from_block(from).to_block(end);
            match self.provider.get_logs(&piece).await {
                Ok(logs) => {
                    take(logs, end + 1);
                    from = end + 1;
                    step = most.min(step * 2);
                }
                // Nodes have different limits on blocks, logs and bytes, and different words for them.
                Err(RpcError::ErrorResp(_)) if step > 1 => step = (step / 4).max(1),
                Err(error) => return Err(from_rpc(what, error)),
            }
        }
        Ok(())
    }
}
