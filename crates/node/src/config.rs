//! What a node is started with. Every limit has its place here; nothing below reads anything else.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use assay_chain::{Key, Market};
use assay_engine::BatchLimits;
use assay_model::LoadedModel;
use assay_payments::payee_claims::ClaimPolicy;
use assay_protocol::{Address, MicroUsd, MicroUsdPerMillionTokens, Price};

use crate::conduct::{Conduct, Honest};
use crate::prover::{Prove, Prover};

/// A node, before it runs.
#[derive(Clone)]
pub struct NodeConfig {
    pub listen: SocketAddr,
    /// Where buyers reach this node, as it stands in payment messages; by default the listening address.
    pub public_url: Option<String>,
    /// Where the ledger lies. One process at a time.
    pub data_dir: PathBuf,
    /// Makes the books where there are none, as for a provider's very first start. Otherwise a start without them is
    /// refused: an empty ledger in place of a lost one would serve and charge what was served and charged before.
    pub make_ledger: bool,
    pub market: Market,
    /// The registered owner's address: the provider's name.
    pub provider: Address,
    /// The hot key that the registry knows: signs offers, receipts and claims, and pays the gas of claims.
    pub key: Key,
    pub models: Vec<ServedModel>,
    pub limits: Limits,
    pub claims: ClaimConfig,
    pub defence: DefenceConfig,
    /// On which terms answers are proven. None: they are not, and nobody is promised it.
    pub proofs: Option<ProofConfig>,
    /// How answers are made. Anything but [`Honest`] is for demonstrations and tests.
    pub conduct: Arc<dyn Conduct>,
}

impl NodeConfig {
    /// The usual node.
    pub fn new(
        listen: SocketAddr,
        data_dir: PathBuf,
        market: Market,
        provider: Address,
        key: Key,
    ) -> Self {
        Self {
            listen,
            public_url: None,
            data_dir,
            make_ledger: false,
            market,
            provider,
            key,
            models: Vec::new(),
            limits: Limits::default(),
            claims: ClaimConfig::default(),
            defence: DefenceConfig::default(),
            proofs: None,
            conduct: Arc::new(Honest),
        }
    }
}

/// A model and its price.
#[derive(Clone)]
pub struct ServedModel {
    pub loaded: LoadedModel,
    pub price: Price,
}

/// Bounds on work, memory and patience.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Threads that compute, per model.
    pub threads: usize,
    /// Whether each of them stays on a core of its own.
    pub pin: bool,
    /// Answers made at once, per model.
    pub sequences_max: usize,
    /// Memory for keys and values, per model. Also bounds the longest context.
    pub cache_mib: usize,
    /// Whether requests of one payer that begin alike share what they have alike.
    pub share_prefixes: bool,
    /// Whether to guess several tokens ahead where few answers are made.
    pub speculate: bool,
    /// Requests that may wait for a place.
    pub queue_max: usize,
    pub body_bytes_max: usize,
    /// How long a body may take to arrive.
    pub body_timeout: Duration,
    /// The answer's limit where a chat request names none.
    pub max_tokens_default: u32,
    /// A client that takes no data for this long has left.
    pub stall_timeout: Duration,
    /// How long running answers may go on after a shutdown was asked for.
    pub drain_timeout: Duration,
    /// How long an offer holds.
    pub offer_validity: Duration,
    pub ttft_promise: Duration,
    /// How long the chain's word about a channel is good; ten times as long while the chain is away.
    pub channel_ttl: Duration,
    /// The most that failures may be of all that was asked on a channel, for a record that this node signs.
    pub failures_percent: u8,
}

impl Limits {
    /// What each model's batcher may hold and do.
    pub(crate) fn batch(&self) -> BatchLimits {
        BatchLimits {
            sequences_max: self.sequences_max,
            cache_bytes_max: self.cache_mib.saturating_mul(1 << 20),
            share_prefixes: self.share_prefixes,
            speculate: self.speculate,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            pin: false,
            sequences_max: 8,
            cache_mib: 1_024,
            share_prefixes: true,
            speculate: true,
            queue_max: 32,
            body_bytes_max: 8 << 20,
            body_timeout: Duration::from_secs(30),
            max_tokens_default: 512,
            stall_timeout: Duration::from_secs(60),
            drain_timeout: Duration::from_secs(20),
            offer_validity: Duration::from_secs(3_600),
            ttft_promise: Duration::from_secs(5),
            channel_ttl: Duration::from_secs(30),
            failures_percent: 50,
        }
    }
}

/// When vouchers become money.
#[derive(Clone, Copy, Debug)]
pub struct ClaimConfig {
    pub policy: ClaimPolicy,
    /// How often the policy is asked.
    pub interval: Duration,
    /// What a coin for gas costs, in micro-USD; by default what is assumed of the network.
    pub coin_price: Option<MicroUsd>,
}

impl Default for ClaimConfig {
    fn default() -> Self {
        Self {
            policy: ClaimPolicy::USUAL,
            interval: Duration::from_secs(15),
            coin_price: None,
        }
    }
}

/// How receipts are defended.
#[derive(Clone, Copy, Debug)]
pub struct DefenceConfig {
    /// How often the chain is asked for games against this node. A response takes one look, and the trace.
    pub poll: Duration,
    /// Threads that make a trace, beside those that serve.
    pub threads: usize,
    /// Whether to show the trace of an open game off the chain, to whoever asks: an honest one has nothing to hide.
    pub off_chain: bool,
}

impl Default for DefenceConfig {
    fn default() -> Self {
        Self {
            poll: Duration::from_secs(1),
            threads: 1,
            off_chain: true,
        }
    }
}

/// Proofs: their price, what is promised, and what bounds the work.
#[derive(Clone)]
pub struct ProofConfig {
    /// For every token of prompt and answer, on top of the answer's own price.
    pub price: MicroUsdPerMillionTokens,
    /// Most tokens that are proven, prompt and answer together. A prover's memory grows with them.
    pub tokens_max: u32,
    /// From the answer to its proof, as the offer promises. Long enough for a whole queue.
    pub delay: Duration,
    /// Threads that prove, beside those that serve.
    pub threads: usize,
    /// Proofs that may wait for their turn; one is made at a time.
    pub queue_max: usize,
    /// Proofs of one payer that may be under way or unpaid: what it can cost to be cheated of their price.
    pub unpaid_max: usize,
    /// How long a proof is there for who asks.
    pub kept: Duration,
    /// Makes them. Anything but [`Prover`] is for tests.
    pub prover: Arc<dyn Prove>,
}

impl ProofConfig {
    pub fn new(price: MicroUsdPerMillionTokens) -> Self {
        Self {
            price,
            tokens_max: 256,
            delay: Duration::from_secs(3_600),
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            queue_max: 8,
            unpaid_max: 4,
            kept: Duration::from_secs(86_400),
            prover: Arc::new(Prover),
        }
    }
}
