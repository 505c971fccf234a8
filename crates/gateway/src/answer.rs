//! An answer on its way to the client, whoever gives it: what the HTTP surface needs and no more.

use std::time::Duration;

use assay_openai::{ApiError, AssayAnswer};
use assay_protocol::{B256, MicroUsd, Price, StopReason, Tier, TokenId, Usage};
use tokio::sync::{mpsc, oneshot};

/// Who answers and under which terms; known with the first token, so that headers never guess.
#[derive(Clone, Debug)]
pub(crate) struct Label {
    pub request_id: B256,
    /// The provider's address, or `cloud:<name>`.
    pub provider: String,
    pub tier: Tier,
    pub price: Price,
    /// The most that this request can cost.
    pub ceiling: MicroUsd,
}

/// A piece of an answer.
#[derive(Clone, Debug)]
pub(crate) enum Part {
    /// New text with the ids behind it; a cloud gives no ids.
    Text {
        text: String,
        ids: Vec<TokenId>,
    },
    Done(Box<Ending>),
    /// After the first token: the stream ends with this error.
    Failed(ApiError),
}

/// How an answer ended.
#[derive(Clone, Debug)]
pub(crate) struct Ending {
    pub stop: StopReason,
    pub usage: Usage,
    pub charged: MicroUsd,
    pub assay: AssayAnswer,
}

/// The client's end of an answer. Dropping it says that the client left.
#[derive(Debug)]
pub(crate) struct Answering {
    pub label: oneshot::Receiver<Result<Label, ApiError>>,
    pub parts: mpsc::Receiver<Part>,
}

/// The answerer's end.
#[derive(Debug)]
pub(crate) struct Client {
    label: Option<oneshot::Sender<Result<Label, ApiError>>>,
    parts: mpsc::Sender<Part>,
    /// A client that takes nothing for this long has left.
    stall: Duration,
}

/// The client is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the client left")]
pub(crate) struct Left;

/// Parts that may wait for a slow client before its provider has to.
const PARTS_WAITING_MAX: usize = 256;

pub(crate) fn channel(stall: Duration) -> (Client, Answering) {
    let (label_in, label) = oneshot::channel();
    let (parts_in, parts) = mpsc::channel(PARTS_WAITING_MAX);
    (
        Client {
            label: Some(label_in),
            parts: parts_in,
            stall,
        },
        Answering { label, parts },
    )
}

impl Client {
    /// Whether a word reached the client; until then another provider may be asked.
    pub(crate) fn has_begun(&self) -> bool {
        self.label.is_none()
    }

    /// Says who answers. Only the first call counts.
    pub(crate) fn begin(&mut self, label: Label) -> Result<(), Left> {
        match self.label.take() {
            Some(sender) => sender.send(Ok(label)).map_err(|_| Left),
            None => Ok(()),
        }
    }

    pub(crate) async fn send(&self, part: Part) -> Result<(), Left> {
        match tokio::time::timeout(self.stall, self.parts.send(part)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Left),
        }
    }

    /// Ends with an error: a status if nothing was said yet, an error frame otherwise.
    pub(crate) async fn fail(&mut self, error: ApiError) {
        match self.label.take() {
            Some(sender) => drop(sender.send(Err(error))),
            None => drop(self.send(Part::Failed(error)).await),
        }
    }

    /// Completes when the client has left.
    pub(crate) async fn left(&self) {
        self.parts.closed().await;
    }
}
