//! Starts a gateway and stops it: opens the ledgers, looks for providers once, listens.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use assay_protocol::Address;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::config::GatewayConfig;
use crate::gateway::{Gateway, Parts};
use crate::lanes::Lanes;
use crate::ledgers::{self, LedgersError};
use crate::store::StoreError;
use crate::{auditor, care, discovery, disputes, http, proofs, records};

/// How long connections and running answers may go on after a stop was asked for.
const DRAIN: Duration = Duration::from_secs(5);

/// Why a gateway does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Ledgers(#[from] LedgersError),
    #[error("{address} cannot be listened on: {source}; is a gateway running there already?")]
    Listen {
        address: SocketAddr,
        source: std::io::Error,
    },
    #[error("the HTTP client cannot be made: {0}")]
    Client(#[from] reqwest::Error),
}

/// A gateway that serves. Dropping it does not stop it: call `shutdown`.
pub struct RunningGateway {
    address: SocketAddr,
    gateway: Arc<Gateway>,
    server: tokio::task::JoinHandle<()>,
}

/// Starts a gateway over ledgers that are there (see [`crate::create_ledgers`]); when this returns it listens, has asked
/// every registered node for its offers, and has compared its lanes with the chain if that answers.
pub async fn start(config: GatewayConfig) -> Result<RunningGateway, StartError> {
    let opening = ledgers::open(&config.data_dir, &config.market, config.payer.address());
    let (ledger, store) = opening.await?;
    let secret = store.secret()?;
    let scan = store.scan()?;
    let lanes = Lanes::new(
        ledger,
        config.market.clone(),
        config.payer.clone(),
        config.spending,
        config.limits.chain,
    );
    let (audits, coming) = mpsc::channel(config.limits.audits_waiting_max.max(1));
    let (disputes, disputed) = mpsc::unbounded_channel();
    let (proven, unproven) = mpsc::unbounded_channel();
    let listen = config.listen;
    let listener = TcpListener::bind(listen)
        .await
        .map_err(|source| StartError::Listen {
            address: listen,
            source,
        })?;
    let address = listener.local_addr().map_err(|source| StartError::Listen {
        address: listen,
        source,
    })?;
    let parts = Parts {
        http: client(&config)?,
        store,
        lanes,
        secret,
        totals: scan.totals,
        dispute_totals: scan.dispute_totals,
        audits,
        disputes,
        proofs: proven,
    };
    let gateway = Arc::new(Gateway::new(config, parts)?);
    discovery::look(&gateway).await;
    // A chain that takes its time keeps nobody from starting: the look is taken up again in the background.
    let first_look = care::look(&gateway);
    let _ = tokio::time::timeout(gateway.limits().chain.look, first_look).await;
    gateway.tasks().spawn(discovery::run(gateway.clone()));
    gateway.tasks().spawn(care::run(gateway.clone()));
    gateway.tasks().spawn(records::run(gateway.clone()));
    gateway
        .tasks()
        .spawn(auditor::run(gateway.clone(), coming, scan.audits));
    gateway
        .tasks()
        .spawn(disputes::run(gateway.clone(), disputed, scan.disputes));
    gateway
        .tasks()
        .spawn(proofs::run(gateway.clone(), unproven, scan.proofs));
    let stop = gateway.shutdown_token();
    let app = http::router(gateway.clone());
    let server = tokio::spawn(async move {
        let serving = axum::serve(listener, app).with_graceful_shutdown(stop.cancelled_owned());
        if let Err(error) = serving.await {
            tracing::error!(%error, "the gateway's server ended");
        }
    });
    Ok(RunningGateway {
        address,
        gateway,
        server,
    })
}

/// No proxy from the environment and no redirects: a node is asked where the registry says it is.
pub(crate) fn client(config: &GatewayConfig) -> Result<reqwest::Client, reqwest::Error> {
    // Whoever came first has installed one; both are the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(config.limits.connect)
        .build()
}

impl RunningGateway {
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Looks at the registry and at every node now, and says who has an offer that counts.
    pub async fn refresh(&self) -> Vec<Address> {
        discovery::look(&self.gateway).await;
        let all = self.gateway.providers().all();
        let offering = all
            .into_iter()
            .filter(|(provider, _)| !provider.offers.is_empty());
        offering
            .map(|(provider, _)| provider.registered.address)
            .collect()
    }

    /// The state behind the HTTP surface, for a program that runs the gateway in its own process.
    pub fn gateway(&self) -> &Arc<Gateway> {
        &self.gateway
    }

    /// Takes no more requests, lets running answers end for a moment, closes the ledgers.
    pub async fn shutdown(self) {
        self.gateway.stop();
        let mut server = self.server;
        if tokio::time::timeout(DRAIN, &mut server).await.is_err() {
            server.abort();
            let _ = server.await;
        }
        if tokio::time::timeout(DRAIN, self.gateway.tasks().wait())
            .await
            .is_err()
        {
            tracing::warn!("answers were still running when the gateway stopped");
        }
    }
}
