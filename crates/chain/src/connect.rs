//! One handle on a chain, embedded or remote: the same JSON-RPC calls, the same code above.

use std::sync::Arc;

use alloy::network::TransactionBuilder;
use alloy::providers::{DynProvider, Provider, RootProvider};
use alloy::rpc::client::RpcClient;
use alloy::rpc::types::{BlockId, BlockNumberOrTag, TransactionRequest};
use alloy_primitives::Bytes;
use alloy_sol_types::SolCall;
use assay_protocol::{Address, Timestamp};

use crate::embedded::{Embedded, EmbeddedConfig};
use crate::endpoints::Endpoints;
use crate::error::{ChainError, from_rpc};
use crate::patience::Patience;
use crate::transact::Nonces;

/// A chain. Clones share the connection and the nonces.
#[derive(Clone)]
pub struct Chain {
    pub(crate) provider: DynProvider,
    pub(crate) nonces: Arc<Nonces>,
    chain_id: u64,
    embedded: Option<Embedded>,
    pub(crate) patience: Patience,
}

impl Chain {
    /// A chain inside this process, kept in one file (or in memory, for tests).
    pub async fn embedded(config: EmbeddedConfig) -> Result<Chain, ChainError> {
        Chain::attach(&Embedded::open(config)?).await
    }

    /// Another handle on an embedded chain, with nonces of its own.
    pub async fn attach(embedded: &Embedded) -> Result<Chain, ChainError> {
        let client = RpcClient::new(embedded.transport(), true);
        let provider = RootProvider::new(client).erased();
        let chain_id = provider.get_chain_id().await;
        Ok(Chain {
            provider,
            nonces: Arc::default(),
            chain_id: chain_id.map_err(|e| from_rpc("chain id", e))?,
            embedded: Some(embedded.clone()),
            patience: Patience::default(),
        })
    }

    /// A chain behind a JSON-RPC url.
    pub async fn connect(url: &str) -> Result<Chain, ChainError> {
        Chain::connect_any(&[url.to_owned()]).await
    }

    /// A chain behind several nodes, which must all be of the same chain: the first that answers is used,
    /// and where it fails the next.
    pub async fn connect_any(urls: &[String]) -> Result<Chain, ChainError> {
        Chain::connect_with(urls, Patience::default()).await
    }

    /// The same with other bounds on asking again.
    pub async fn connect_with(urls: &[String], patience: Patience) -> Result<Chain, ChainError> {
        let (endpoints, chain_id) = Endpoints::connect(urls, patience).await?;
        let client = RpcClient::new(endpoints, false);
        Ok(Chain {
            provider: RootProvider::new(client).erased(),
            nonces: Arc::default(),
            chain_id,
            embedded: None,
            patience,
        })
    }

    pub fn chain_id(&self) -> u64 {
        self.chain_id
    }

    /// The embedded chain's own handle: its HTTP router, its facts. None over RPC.
    pub fn as_embedded(&self) -> Option<&Embedded> {
        self.embedded.as_ref()
    }

    /// The alloy provider, for what this crate does not wrap.
    pub fn provider(&self) -> &DynProvider {
        &self.provider
    }

    pub async fn block_number(&self) -> Result<u64, ChainError> {
        let number = self.provider.get_block_number().await;
        number.map_err(|e| from_rpc("block number", e))
    }

    /// The time that the next block would carry: what contracts will compare with.
    pub async fn now(&self) -> Result<Timestamp, ChainError> {
        let block = self
            .provider
            .get_block_by_number(BlockNumberOrTag::Pending)
            .await
            .map_err(|e| from_rpc("pending block", e))?;
        if let Some(block) = block {
            return Ok(Timestamp(block.header.timestamp));
        }
        let latest = self
            .provider
            .get_block(BlockId::latest())
            .await
            .map_err(|e| from_rpc("latest block", e))?;
        latest
            .map(|block| Timestamp(block.header.timestamp))
            .ok_or(ChainError::BadAnswer {
                what: "latest block",
                why: "null".into(),
            })
    }

    pub(crate) async fn code(&self, address: Address) -> Result<Bytes, ChainError> {
        let code = self.provider.get_code_at(address).await;
        code.map_err(|e| from_rpc("contract code", e))
    }

    /// Calls a view function.
    pub(crate) async fn view<C: SolCall>(
        &self,
        what: &'static str,
        to: Address,
        call: C,
    ) -> Result<C::Return, ChainError> {
        self.view_at(what, to, call, BlockNumberOrTag::Latest).await
    }

    /// Calls a view function on the state that a block left behind.
    pub(crate) async fn view_at<C: SolCall>(
        &self,
        what: &'static str,
        to: Address,
        call: C,
        at: BlockNumberOrTag,
    ) -> Result<C::Return, ChainError> {
        let request = TransactionRequest::default()
            .with_to(to)
            .with_input(call.abi_encode());
        let called = self.provider.call(request).block(at.into()).await;
        let answer = called.map_err(|error| match (from_rpc(what, error), at) {
            // No revert, and no failure on the way: the node has forgotten.
            (ChainError::Rpc(said), BlockNumberOrTag::Number(block)) => {
                ChainError::NoHistory { what, block, said }
            }
            (error, _) => error,
        })?;
        if answer.is_empty() {
            return Err(ChainError::NoContract { what, address: to });
        }
        C::abi_decode_returns(&answer).map_err(|e| ChainError::BadAnswer {
            what,
            why: e.to_string(),
        })
    }
}

impl std::fmt::Debug for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = if self.embedded.is_some() {
            "embedded"
        } else {
            "rpc"
        };
        write!(f, "Chain({kind}, {})", self.chain_id)
    }
}
