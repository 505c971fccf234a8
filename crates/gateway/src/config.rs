//! Everything that a gateway can be told, validated by whoever parsed it. Holds every limit there is.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use assay_audit::AuditPolicy;
use assay_chain::{Key, Market};
use assay_model::LoadedModel;
use assay_openai::Fallback;
use assay_protocol::{MicroUsd, Tier};

use crate::cloud::CloudUpstream;
use crate::proofs::{Verifier, Verify};
use crate::record::Rest;
use crate::routing::RoutingPolicy;

/// One gateway.
#[derive(Clone)]
pub struct GatewayConfig {
    pub listen: SocketAddr,
    /// Where its ledgers live; [`crate::create_ledgers`] makes them.
    pub data_dir: PathBuf,
    pub market: Market,
    /// Whose money is spent.
    pub payer: Key,
    /// The models it serves; it needs their tokenizers to buy, and their weights to audit.
    pub models: Vec<LoadedModel>,
    pub routing: RoutingPolicy,
    pub audit: AuditPolicy,
    /// Threads of one re-execution.
    pub audit_threads: usize,
    pub spending: Spending,
    pub disputes: DisputePolicy,
    pub proofs: ProofPolicy,
    /// Checks proofs. Anything but [`Verifier`] is for tests.
    pub verifier: Arc<dyn Verify>,
    pub records: RecordPolicy,
    pub limits: GatewayLimits,
    /// The tier of a request that asks for none.
    pub tier: Tier,
    /// Asked in this order.
    pub clouds: Vec<CloudUpstream>,
    /// What a request without a word about it allows.
    pub fallback: Fallback,
}

/// How money is set aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spending {
    /// What a new channel is opened with, and topped up by. At most this much, and what is asked for
    /// on top of it by one dear request, is ever within one lane.
    pub deposit: MicroUsd,
    /// Requests at once to one provider, as each lane serves one at a time.
    pub lanes_per_provider: usize,
    /// The sum of all deposits of this gateway's life. Beyond it, only what lanes still hold is spent.
    pub deposits_max: MicroUsd,
    /// A provider that wants to hold money for longer is not used.
    pub withdraw_delay_s_max: u64,
}

impl Default for Spending {
    fn default() -> Self {
        Self {
            deposit: MicroUsd(50_000),
            lanes_per_provider: 4,
            deposits_max: MicroUsd(5_000_000),
            withdraw_delay_s_max: 24 * 60 * 60,
        }
    }
}

/// When this gateway takes a provider to the chain by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DisputePolicy {
    /// Whether a false answer that this gateway audited opens a dispute.
    pub open: bool,
    /// Games at once; more false answers wait for their turn, within their window.
    pub games_max: usize,
    /// The largest bond that it puts up; a market that wants more gets no dispute.
    pub bond_max: MicroUsd,
    /// How often an open game is looked at.
    pub poll: Duration,
    /// Whether to ask the provider for its trace off the chain first, which saves most moves.
    pub off_chain: bool,
}

impl Default for DisputePolicy {
    fn default() -> Self {
        Self {
            open: true,
            games_max: 4,
            bond_max: MicroUsd(25_000_000),
            poll: Duration::from_millis(500),
            off_chain: true,
        }
    }
}

/// How proofs of answers are waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProofPolicy {
    /// The first pause before a node is asked again for a proof, and the longest; each is twice the one before.
    pub pause: Duration,
    pub pause_max: Duration,
    /// How long after its promise a proof still counts as in time: clocks differ.
    pub grace: Duration,
    /// A longer proof is refused unread.
    pub bytes_max: usize,
    /// How long one transfer of a proof may take.
    pub transfer: Duration,
    /// Threads of one verification.
    pub threads: usize,
}

impl Default for ProofPolicy {
    fn default() -> Self {
        Self {
            pause: Duration::from_millis(250),
            pause_max: Duration::from_secs(15),
            grace: Duration::from_secs(60),
            bytes_max: assay_proof::Proof::BYTES_MAX,
            transfer: Duration::from_secs(120),
            threads: 1,
        }
    }
}

/// How what was served gets to the scoreboard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordPolicy {
    /// Totals that changed are signed and sent to their provider at most this often. Short in a local market.
    pub interval: Duration,
    /// Failures that no provider let count for so long may be posted by this payer alone.
    pub alone_after: Duration,
    /// Whether that happens by itself: it costs gas, so only where it is asked for.
    pub post_alone: bool,
}

impl Default for RecordPolicy {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(15 * 60),
            alone_after: Duration::from_secs(24 * 60 * 60),
            post_alone: false,
        }
    }
}

/// How long the chain is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChainPatience {
    /// For an answer to a question; a chain that takes longer counts as away.
    pub answer: Duration,
    /// For a transaction to be in a block.
    pub mined: Duration,
    /// A request waits so long for a deposit that is made for it.
    pub deposit: Duration,
    /// How often every lane is compared with the chain.
    pub look: Duration,
}

impl Default for ChainPatience {
    fn default() -> Self {
        Self {
            answer: Duration::from_secs(10),
            mined: Duration::from_secs(200),
            deposit: Duration::from_secs(60),
            look: Duration::from_secs(30),
        }
    }
}

/// Sizes and times that bound everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GatewayLimits {
    pub body_bytes_max: usize,
    /// Answers on their way at once; more are refused with 429.
    pub answers_max: usize,
    /// Output tokens of a request that names no number, if the context has room.
    pub output_tokens_default: u32,
    /// Providers that one request may try.
    pub attempts_max: usize,
    /// To the first token: this, and more for every thousand prompt tokens.
    pub first_token: Duration,
    pub first_token_per_1k_prompt: Duration,
    /// From one token to the next. There is no limit on the whole answer: a long one is not a failure.
    pub next_token: Duration,
    /// A client that takes nothing for this long has left.
    pub client_stall: Duration,
    /// After the client left: how long the node has to hand over the receipt for the prefix.
    pub cut_receipt: Duration,
    pub connect: Duration,
    /// How often registry and offers are read again.
    pub discovery: Duration,
    /// The longest event of a node.
    pub event_bytes_max: usize,
    /// An audit waits for quiet, but not longer than this.
    pub audit_patience: Duration,
    /// Audits that may wait; a longer queue is worked off from disk.
    pub audits_waiting_max: usize,
    /// Events that are remembered for late listeners.
    pub events_kept: usize,
    pub rest: Rest,
    pub chain: ChainPatience,
    /// How long a provider may take to say what it does with records, or to give money back.
    pub courtesy: Duration,
    /// The chain's word on a provider that was never used here is read again this often.
    pub score: Duration,
}

impl Default for GatewayLimits {
    fn default() -> Self {
        Self {
            body_bytes_max: 8 << 20,
            answers_max: 256,
            output_tokens_default: 512,
            attempts_max: 3,
            first_token: Duration::from_secs(20),
            first_token_per_1k_prompt: Duration::from_secs(20),
            next_token: Duration::from_secs(20),
            client_stall: Duration::from_secs(60),
            cut_receipt: Duration::from_secs(5),
            connect: Duration::from_secs(3),
            discovery: Duration::from_secs(5),
            event_bytes_max: 1 << 20,
            audit_patience: Duration::from_secs(5),
            audits_waiting_max: 1024,
            events_kept: 256,
            rest: Rest::default(),
            chain: ChainPatience::default(),
            courtesy: Duration::from_secs(20),
            score: Duration::from_secs(60),
        }
    }
}

impl GatewayConfig {
    /// A gateway with the default policies.
    pub fn new(
        listen: SocketAddr,
        data_dir: PathBuf,
        market: Market,
        payer: Key,
        models: Vec<LoadedModel>,
    ) -> Self {
        Self {
            listen,
            data_dir,
            market,
            payer,
            models,
            routing: RoutingPolicy::default(),
            audit: AuditPolicy::default(),
            audit_threads: 1,
            spending: Spending::default(),
            disputes: DisputePolicy::default(),
            proofs: ProofPolicy::default(),
            verifier: Arc::new(Verifier),
            records: RecordPolicy::default(),
            limits: GatewayLimits::default(),
            tier: Tier::Staked,
            clouds: Vec::new(),
            fallback: Fallback::Never,
        }
    }
}
