//! A chain inside the process: revm for the rules, one redb file for everything else. A
//! transaction is reported only after its block is on disk, so killing the process at any moment
//! loses nothing that was confirmed.
//!
//! One block a transaction, no gas price, no proofs of state, the present state only. It is the
//! shared truth of one machine, kept by whoever runs it; on a real network the same code above it
//! talks to a real one.

mod execute;
mod genesis;
mod http;
mod mine;
mod rpc;
mod store;
mod transport;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use assay_protocol::Timestamp;

pub use genesis::MULTICALL3;
pub use mine::Clock;
pub use store::StoreError;
pub use transport::InProcess;

/// The chain id of development chains, which tools recognise.
pub const DEVNET_CHAIN_ID: u64 = 31_337;

/// What an embedded chain is made of.
#[derive(Clone)]
pub struct EmbeddedConfig {
    /// Its file; None keeps it in memory and forgets it.
    pub path: Option<PathBuf>,
    pub chain_id: u64,
    pub clock: Clock,
}

impl EmbeddedConfig {
    /// A durable chain by the system's clock.
    pub fn at(path: impl Into<PathBuf>) -> EmbeddedConfig {
        EmbeddedConfig {
            path: Some(path.into()),
            chain_id: DEVNET_CHAIN_ID,
            clock: system_clock(),
        }
    }

    /// A chain for tests.
    pub fn in_memory() -> EmbeddedConfig {
        EmbeddedConfig {
            path: None,
            chain_id: DEVNET_CHAIN_ID,
            clock: system_clock(),
        }
    }

    pub fn with_clock(mut self, clock: Clock) -> EmbeddedConfig {
        self.clock = clock;
        self
    }
}

/// The machine's time.
pub fn system_clock() -> Clock {
    Arc::new(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Timestamp(since.map_or(0, |elapsed| elapsed.as_secs()))
    })
}

/// A running chain. Clones share it; the last one to go closes its file.
#[derive(Clone)]
pub struct Embedded(Arc<Inner>);

struct Inner {
    // Before the store: dropping it ends the writer, which holds the store too.
    miner: mine::Miner,
    store: Arc<store::Store>,
    chain_id: u64,
    clock: Clock,
}

impl Embedded {
    /// Opens the chain's file, or makes it with a first block.
    pub fn open(config: EmbeddedConfig) -> Result<Embedded, StoreError> {
        let path = config.path.as_deref();
        let name = path.unwrap_or(Path::new("memory"));
        let store = Arc::new(store::Store::open(path)?);
        match store.chain_id(name)? {
            None => genesis::write(&store, config.chain_id, (config.clock)())?,
            Some(got) if got != config.chain_id => {
                return Err(StoreError::OtherChain {
                    path: name.to_owned(),
                    expected: config.chain_id,
                    got,
                });
            }
            Some(_) => {}
        }
        let miner = mine::Miner::start(store.clone(), config.chain_id, config.clock.clone())?;
        Ok(Embedded(Arc::new(Inner {
            miner,
            store,
            chain_id: config.chain_id,
            clock: config.clock,
        })))
    }

    /// The chain for alloy, without a socket.
    pub fn transport(&self) -> InProcess {
        InProcess(self.0.clone())
    }

    /// The chain as JSON-RPC over HTTP: serve it on loopback only, it asks nobody who they are.
    pub fn router(&self) -> axum::Router {
        http::router(self.0.clone())
    }
}

impl std::fmt::Debug for Embedded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Embedded({})", self.0.chain_id)
    }
}
