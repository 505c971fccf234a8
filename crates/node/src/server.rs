//! Starts and stops a node. Everything that a restart needs is on disk before it is acted upon, so stopping only makes
//! it tidy: answers drain, charges are claimed, the port and the ledger are free.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use assay_chain::ChainError;
use assay_payments::Terms;
use assay_payments::payee_claims::ClaimPolicy;
use assay_protocol::{Address, DurationMs, MicroUsd, Offer, ProofOffer, Timestamp, TokenCount};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::app::{App, Pace};
use crate::books::{self, BooksError};
use crate::claims::{self, Earnings};
use crate::clock::now;
use crate::conduct::Conduct;
use crate::config::{Limits, NodeConfig, ServedModel};
use crate::defence::{self, Defended, Games};
use crate::http::router;
use crate::offers::{Offers, Template};
use crate::order::Ware;
use crate::pin::{self, PinError};
use crate::proofs::{self, Proofs, ProofsError};
use crate::till::Till;
use crate::watch;
use crate::worker::Worker;

/// Prompts tokenized at once: reading a prompt costs us work before anybody has paid.
const READERS: usize = 4;
/// How long connections may linger after the last answer.
const LINGER: Duration = Duration::from_secs(2);

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot listen on {address}: {source}; choose another port")]
    Listen {
        address: SocketAddr,
        source: std::io::Error,
    },
    #[error(transparent)]
    Books(#[from] BooksError),
    #[error(transparent)]
    Chain(#[from] ChainError),
    #[error("provider {0} is not registered: register it with a stake first")]
    NotRegistered(Address),
    #[error(
        "the registry knows the key {registered} for this provider, this node holds {held}: use that key, or rotate it"
    )]
    OtherKey { registered: Address, held: Address },
    #[error("no model to serve: name at least one")]
    NoModel,
    #[error(
        "claims may wait {waits_s} s, but a payer can withdraw after {delay_s} s: claim more often"
    )]
    ClaimsTooLate { waits_s: u64, delay_s: u64 },
    #[error("cannot start the engine's thread: {0}")]
    Thread(std::io::Error),
    #[error(transparent)]
    Pin(#[from] PinError),
    #[error(transparent)]
    Proofs(#[from] ProofsError),
}

/// A node at work. Dropping it stops it at once, as a crash would; [`RunningNode::shutdown`] is the polite way.
pub struct RunningNode {
    address: SocketAddr,
    app: Arc<App>,
    server: JoinHandle<()>,
    claims: JoinHandle<()>,
    defence: JoinHandle<()>,
    proofs: Option<JoinHandle<()>>,
    engines: Vec<std::thread::JoinHandle<()>>,
    policy: ClaimPolicy,
    stop: CancellationToken,
}

/// How a shutdown went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShutdownReport {
    /// Every running answer came to its own end.
    pub drained: bool,
    /// Claimed on the way out.
    pub claimed: MicroUsd,
    /// Why not everything could be claimed; the vouchers are on disk, the next start claims them.
    pub claim_error: Option<String>,
}

/// Starts a node and returns when it answers.
pub async fn start(config: NodeConfig) -> Result<RunningNode, StartError> {
    if config.models.is_empty() {
        return Err(StartError::NoModel);
    }
    let terms = terms(&config).await?;
    check_claims(&config, &terms)?;
    let (ledger, keep) = books::open(&config.data_dir, terms, config.make_ledger).await?;
    let listener = TcpListener::bind(config.listen).await;
    let listener = listener.map_err(|source| StartError::Listen {
        address: config.listen,
        source,
    })?;
    let address = listener.local_addr().map_err(|source| StartError::Listen {
        address: config.listen,
        source,
    })?;
    if config.conduct.label() != crate::Honest.label() {
        tracing::warn!(
            conduct = config.conduct.label(),
            "this node cheats on purpose"
        );
    }

    let limits = config.limits.clone();
    let wares: Vec<Ware> = config
        .models
        .iter()
        .map(|served| ware(served, &limits, &config))
        .collect();
    let (mut workers, mut engines) = (Vec::new(), Vec::new());
    for ware in &wares {
        let model = config.conduct.model(&ware.loaded.model);
        let threads = match limits.pin {
            true => pin::pinned(limits.threads)?,
            false => limits.threads.into(),
        };
        let (worker, thread) =
            Worker::start(model, threads, limits.batch()).map_err(StartError::Thread)?;
        workers.push(worker);
        engines.push(thread);
    }
    let domain = config.market.domain();
    let templates = wares
        .iter()
        .map(|ware| Template {
            offer: offer(config.provider, ware, &limits),
            proof: ware.proof,
        })
        .collect();
    let coin = config.claims.coin_price;
    let coin = coin.unwrap_or_else(|| coin_price(config.market.deployment().chain_id));
    let till = Arc::new(Till::new(
        ledger,
        config.market,
        config.key.clone(),
        coin,
        limits.channel_ttl,
    ));
    // What the books say of the chain is as old as the last run.
    if let Err(error) = watch::all(&till).await {
        tracing::warn!(%error, "not every channel could be read; each is before it is used");
    }
    let keep = Arc::new(keep);
    let proofs = match config.proofs {
        Some(terms) => Some(Proofs::open(terms, &config.data_dir, &keep, &till).await?),
        None => None,
    };
    let app = Arc::new(App {
        provider: config.provider,
        domain,
        public_url: config
            .public_url
            .unwrap_or_else(|| format!("http://{address}")),
        conduct: config.conduct,
        till,
        board: claims::Board::default(),
        keep,
        proofs,
        games: Games::default(),
        serves_traces: config.defence.off_chain,
        offers: Offers::new(
            templates,
            config.key.clone(),
            domain,
            limits.offer_validity.as_secs(),
        ),
        key: config.key,
        readers: Semaphore::new(READERS),
        places: Arc::new(Semaphore::new(
            limits.sequences_max.saturating_add(limits.queue_max),
        )),
        sessions: TaskTracker::new(),
        cutoff: CancellationToken::new(),
        pace: Pace::default(),
        started_at: now(),
        wares,
        workers,
        limits,
    });
    let stop = CancellationToken::new();
    let service = router(Arc::clone(&app)).into_make_service_with_connect_info::<SocketAddr>();
    let graceful = stop.clone();
    let server = tokio::spawn(async move {
        let serve =
            axum::serve(listener, service).with_graceful_shutdown(graceful.cancelled_owned());
        if let Err(error) = serve.await {
            tracing::error!(%error, "the server stopped");
        }
    });
    let policy = config.claims.policy;
    let claims = tokio::spawn(claims::run(Arc::clone(&app), config.claims, stop.clone()));
    let defence = defence::run(Arc::clone(&app), config.defence, stop.clone());
    let defence = tokio::spawn(defence);
    let proving = app.proofs.clone();
    let proofs =
        proving.map(|proofs| tokio::spawn(proofs::run(Arc::clone(&app), proofs, stop.clone())));
    Ok(RunningNode {
        address,
        app,
        server,
        claims,
        defence,
        proofs,
        engines,
        policy,
        stop,
    })
}

impl RunningNode {
    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    pub fn provider(&self) -> Address {
        self.app.provider
    }

    /// What a payer needs to know to pay without asking.
    pub fn terms(&self) -> &Terms {
        &self.app.till.terms
    }

    pub async fn earnings(&self) -> Result<Earnings, ChainError> {
        claims::earnings(&self.app).await
    }

    /// The disputes about its receipts, open and over.
    pub fn disputes(&self) -> Vec<Defended> {
        self.app.games.all()
    }

    /// Claims whatever is charged now, without waiting for value or age.
    pub async fn claim_now(&self) -> Result<MicroUsd, String> {
        claims::all(&self.app, &self.policy)
            .await
            .map_err(|error| error.to_string())
    }

    /// Takes no more requests, lets running answers end within the drain timeout, breaks off the rest without charging
    /// for them, claims what is charged, and frees the port and the ledger.
    pub async fn shutdown(mut self) -> ShutdownReport {
        self.stop.cancel();
        self.app.sessions.close();
        let patience = self.app.limits.drain_timeout;
        let drained = tokio::time::timeout(patience, self.app.sessions.wait())
            .await
            .is_ok();
        if !drained {
            self.app.cutoff.cancel();
            // Answers that are broken off tell their clients so.
            let _ = tokio::time::timeout(LINGER, self.app.sessions.wait()).await;
        }
        let _ = tokio::time::timeout(LINGER, &mut self.server).await;
        let (claimed, claim_error) = match claims::all(&self.app, &self.policy).await {
            Ok(claimed) => (claimed, None),
            Err(error) => (MicroUsd::ZERO, Some(error.to_string())),
        };
        self.end().await;
        ShutdownReport {
            drained,
            claimed,
            claim_error,
        }
    }

    /// Ends every task, and waits until nobody holds the ledger any more.
    async fn end(&mut self) {
        self.app.cutoff.cancel();
        self.server.abort();
        self.claims.abort();
        self.defence.abort();
        self.proofs.iter().for_each(JoinHandle::abort);
        let holders = async {
            while Arc::strong_count(&self.app) > 1 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        if tokio::time::timeout(LINGER, holders).await.is_err() {
            tracing::warn!("a connection lingers; the ledger is free when it ends");
        }
    }
}

impl Drop for RunningNode {
    fn drop(&mut self) {
        self.stop.cancel();
        self.app.cutoff.cancel();
        self.server.abort();
        self.claims.abort();
        self.defence.abort();
        self.proofs.iter().for_each(JoinHandle::abort);
        // The engines end with the last handle on them; waiting for that here could wait for a running step.
        self.engines.clear();
    }
}

/// The usual terms, if the registry knows us as we know ourselves.
async fn terms(config: &NodeConfig) -> Result<Terms, StartError> {
    let registered = config.market.provider(config.provider).await?;
    let registered = registered.ok_or(StartError::NotRegistered(config.provider))?;
    let held = config.key.address();
    if registered.offer_key != held {
        return Err(StartError::OtherKey {
            registered: registered.offer_key,
            held,
        });
    }
    let (channels, token) = (config.market.channel_domain(), config.market.token_domain());
    Ok(Terms::usual(channels, token, registered.vault, held))
}

/// What is assumed of the network's coin; nothing where nothing is known, as of a development chain.
fn coin_price(chain_id: u64) -> MicroUsd {
    let network = assay_chain::networks::of(chain_id);
    MicroUsd(network.map_or(0, |network| network.coin_price_micro_usd))
}

/// Unclaimed money must be claimed before its payer can take it out, with time for a claim that fails once.
fn check_claims(config: &NodeConfig, terms: &Terms) -> Result<(), StartError> {
    let claims = &config.claims;
    let waits_s = claims
        .policy
        .age_s
        .saturating_add(claims.interval.as_secs().saturating_mul(2));
    let delay_s = terms.withdraw_delay_s;
    if waits_s < delay_s {
        Ok(())
    } else {
        Err(StartError::ClaimsTooLate { waits_s, delay_s })
    }
}

fn ware(served: &ServedModel, limits: &Limits, config: &NodeConfig) -> Ware {
    let model = &served.loaded.model;
    let positions = limits.batch().positions_max(model);
    let positions = u32::try_from(positions).unwrap_or(u32::MAX);
    let context = model.manifest().dims.context_max;
    let context_max = context.min(positions);
    // A proof runs all tokens but the last, padded to a power of two, within the model's context.
    let runs_max = context.checked_ilog2().map_or(0, |log| 1u32 << log);
    let proven_max = runs_max.saturating_add(1).min(context_max);
    Ware {
        id: model.id(),
        price: served.price,
        context_max,
        proof: config.proofs.as_ref().map(|terms| ProofOffer {
            provider: config.provider,
            model_id: model.id(),
            price: terms.price,
            max_tokens: TokenCount(terms.tokens_max.min(proven_max)),
            delay_s: u32::try_from(terms.delay.as_secs()).unwrap_or(u32::MAX),
            expires_at: Timestamp(0),
        }),
        loaded: served.loaded.clone(),
    }
}

fn offer(provider: Address, ware: &Ware, limits: &Limits) -> Offer {
    let promise = u32::try_from(limits.ttft_promise.as_millis()).unwrap_or(u32::MAX);
    Offer {
        provider,
        model_id: ware.id,
        price: ware.price,
        max_context: TokenCount(ware.context_max),
        concurrency: u32::try_from(limits.sequences_max).unwrap_or(u32::MAX),
        ttft_promise: DurationMs(promise),
        expires_at: Timestamp(0),
    }
}
