//! JSON-RPC over HTTP to one node or several of the same chain. Reads are asked again with growing
//! pauses, of the next node where there is one; what changes the chain is handed over once and its
//! failure reported, because only who knows the transaction can tell whether it arrived.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use alloy::rpc::json_rpc::{RequestPacket, ResponsePacket};
use alloy::transports::http::Http;
use alloy::transports::{RpcError, TransportError, TransportErrorKind, TransportFut};
use tower::Service;

use crate::error::{ChainError, from_rpc};
use crate::patience::Patience;

/// How long one JSON-RPC request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Nodes of one chain at most.
pub(crate) const URLS_MAX: usize = 16;

/// The nodes of one chain, as an alloy transport. Clones share which of them is asked first.
#[derive(Clone)]
pub(crate) struct Endpoints(Arc<Inner>);

struct Inner {
    nodes: Vec<Node>,
    /// The node that answered last.
    first: AtomicUsize,
    chain_id: u64,
    patience: Patience,
}

struct Node {
    http: Http<reqwest::Client>,
    /// It said that it is of this chain. A node that was away at first is asked before it is used.
    known: AtomicBool,
}

/// What to do after a failed request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    /// The chain's answer: a refusal, a revert.
    Answer,
    /// The same again could succeed.
    Again,
    /// This node will not answer it; another may.
    Elsewhere,
}

impl Endpoints {
    /// Asks each node for its chain. At least one must answer, and none may be of another chain.
    pub(crate) async fn connect(
        urls: &[String],
        patience: Patience,
    ) -> Result<(Endpoints, u64), ChainError> {
        if urls.is_empty() || urls.len() > URLS_MAX {
            return Err(ChainError::Urls(urls.len()));
        }
        // Somebody else may have installed it first; either way TLS has its cryptography.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .timeout(REQUEST_TIMEOUT)
            .connect_timeout(CONNECT_TIMEOUT)
            .build()
            .map_err(|e| ChainError::Unreachable(e.to_string()))?;
        let mut asked = tokio::task::JoinSet::new();
        let (mut nodes, mut names) = (Vec::new(), Vec::new());
        for (index, url) in urls.iter().enumerate() {
            let bad = || ChainError::BadUrl(url.to_owned());
            let parsed: reqwest::Url = url.parse().map_err(|_| bad())?;
            if !matches!(parsed.scheme(), "http" | "https") {
                return Err(bad());
            }
            // A url may hold a secret: only this much of it is ever shown.
            let port = parsed.port_or_known_default().unwrap_or_default();
            names.push(format!("{}:{port}", parsed.host_str().unwrap_or_default()));
            let http = Http::with_client(client.clone(), parsed);
            let node = http.clone();
            asked.spawn(async move { (index, first_words(node, patience).await) });
            nodes.push(Node {
                http,
                known: AtomicBool::new(false),
            });
        }
        let mut answers = Vec::new();
        while let Some(answer) = asked.join_next().await {
            answers.push(answer.map_err(|e| ChainError::Stopped(e.to_string()))?);
        }
        answers.sort_by_key(|(index, _)| *index);
        let mut first: Option<(usize, u64)> = None;
        let mut failed = None;
        for (index, answer) in answers {
            match (answer, first) {
                (Ok(chain_id), Some((_, expected))) if chain_id != expected => {
                    return Err(ChainError::UrlsDiffer {
                        node: names[index].clone(),
                        expected,
                        got: chain_id,
                    });
                }
                (Ok(chain_id), known) => {
                    nodes[index].known.store(true, Ordering::Relaxed);
                    first = known.or(Some((index, chain_id)));
                }
                (Err(error), _) => {
                    let error = from_rpc("chain id", error);
                    if urls.len() > 1 {
                        tracing::warn!(node = names[index], %error, "a chain's node is passed over");
                    }
                    failed = Some(error);
                }
            }
        }
        let Some((index, chain_id)) = first else {
            return Err(failed.unwrap_or(ChainError::Urls(0)));
        };
        let inner = Inner {
            nodes,
            first: AtomicUsize::new(index),
            chain_id,
            patience,
        };
        Ok((Endpoints(Arc::new(inner)), chain_id))
    }

    async fn ask(self, packet: RequestPacket) -> Result<ResponsePacket, TransportError> {
        let inner = &self.0;
        let count = inner.nodes.len();
        let changes = changes_the_chain(&packet);
        let (mut at, mut round, mut tried) = (inner.first.load(Ordering::Relaxed), 0, 0);
        loop {
            let node = &inner.nodes[at];
            let answer = match node.is_of(inner.chain_id).await {
                Ok(()) => node.http.clone().call(packet.clone()).await,
                Err(error) => Err(error),
            };
            let after = match &answer {
                Ok(answer) => after_answer(answer),
                Err(error) => after_failure(error),
            };
            if after == After::Answer {
                inner.first.store(at, Ordering::Relaxed);
                return answer;
            }
            // A node that never got the request can be passed over without a doubt.
            let handed_over = answer
                .as_ref()
                .err()
                .is_none_or(|error| !never_arrived(error));
            tried += 1;
            at = (at + 1) % count;
            if changes && handed_over {
                inner.first.store(at, Ordering::Relaxed);
                return answer;
            }
            if tried % count == 0 {
                // All of them were asked: wait, as far as it may still help.
                round += 1;
                if round >= inner.patience.read_attempts
                    || (after == After::Elsewhere && count == 1)
                {
                    return answer;
                }
                tokio::time::sleep(inner.patience.pause(round)).await;
            }
        }
    }
}

impl Node {
    async fn is_of(&self, expected: u64) -> Result<(), TransportError> {
        if self.known.load(Ordering::Relaxed) {
            return Ok(());
        }
        let got = chain_id(self.http.clone()).await?;
        if got != expected {
            let said = format!("this node is of chain {got}, the others of {expected}");
            return Err(TransportErrorKind::non_retryable_str(&said));
        }
        self.known.store(true, Ordering::Relaxed);
        Ok(())
    }
}

impl Service<RequestPacket> for Endpoints {
    type Response = ResponsePacket;
    type Error = TransportError;
    type Future = TransportFut<'static>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, packet: RequestPacket) -> Self::Future {
        Box::pin(self.clone().ask(packet))
    }
}

/// A node's chain when a program starts: one that is busy is asked again, one that is not there is not.
async fn first_words(
    node: Http<reqwest::Client>,
    patience: Patience,
) -> Result<u64, TransportError> {
    let mut round = 0;
    loop {
        let answer = chain_id(node.clone()).await;
        let Err(error) = &answer else { return answer };
        round += 1;
        let again = after_failure(error) == After::Again && !no_connection(error);
        if !again || round >= patience.read_attempts {
            return answer;
        }
        tokio::time::sleep(patience.pause(round)).await;
    }
}

async fn chain_id(node: Http<reqwest::Client>) -> Result<u64, TransportError> {
    let client = alloy::rpc::client::RpcClient::new(node, false);
    let id: alloy_primitives::U64 = client.request_noparams("eth_chainId").await?;
    Ok(id.to())
}

/// Everything here reads, but for the methods that hand over a transaction or steer a test chain.
fn changes_the_chain(packet: &RequestPacket) -> bool {
    packet.method_names().any(|method| {
        let read = ["eth_", "net_", "web3_"]
            .iter()
            .any(|space| method.starts_with(space));
        !read || method.starts_with("eth_send")
    })
}

fn after_failure(error: &TransportError) -> After {
    match error {
        RpcError::Transport(TransportErrorKind::NonRetryable(_)) => After::Elsewhere,
        RpcError::Transport(kind) => match kind.as_http_error().map(|error| error.status) {
            // Refused, reset, timed out, cut off in the middle.
            None => After::Again,
            Some(408 | 425 | 429 | 500..) => After::Again,
            Some(_) => After::Elsewhere,
        },
        // No JSON, or not the JSON that was asked for: a proxy's page, a half answer.
        RpcError::DeserError { .. } => After::Again,
        RpcError::ErrorResp(error) if error.is_retry_err() => After::Again,
        _ => After::Answer,
    }
}

/// A node that is too busy may say so with a status of 200.
fn after_answer(answer: &ResponsePacket) -> After {
    match answer.as_error() {
        Some(error) if error.is_retry_err() => After::Again,
        _ => After::Answer,
    }
}

/// The node was not reached at all.
fn no_connection(error: &TransportError) -> bool {
    match error {
        RpcError::Transport(TransportErrorKind::Custom(error)) => error
            .downcast_ref::<reqwest::Error>()
            .is_some_and(reqwest::Error::is_connect),
        _ => false,
    }
}

/// No node of this chain has looked at the request.
fn never_arrived(error: &TransportError) -> bool {
    match error {
        RpcError::Transport(TransportErrorKind::NonRetryable(_)) => true,
        RpcError::Transport(kind) if kind.as_http_error().is_some_and(|e| e.status == 429) => true,
        error => no_connection(error),
    }
}
