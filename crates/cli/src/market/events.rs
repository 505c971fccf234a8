//! Listens to a gateway's events, as any program may, and hands them on in order.

use crate::ask::Gateway;
use crate::sse::EventReader;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Events that may wait for a slow terminal.
const WAITING_MAX: usize = 1_024;

pub(crate) struct Listener {
    events: mpsc::Receiver<Value>,
    task: JoinHandle<()>,
}

impl Listener {
    /// Hears everything from now on, and what the gateway still remembers.
    pub(crate) fn start(gateway: &Gateway) -> Self {
        let (sender, events) = mpsc::channel(WAITING_MAX);
        let gateway = gateway.clone();
        let task = tokio::spawn(async move {
            if let Err(error) = listen(&gateway, &sender).await {
                tracing::warn!(%error, "the gateway's events broke off");
            }
        });
        Self { events, task }
    }

    /// The next event; nothing once the gateway has stopped.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        self.events.recv().await
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn listen(gateway: &Gateway, sender: &mpsc::Sender<Value>) -> anyhow::Result<()> {
    let mut response = gateway.stream("/assay/v1/events").await?;
    let mut reader = EventReader::default();
    while let Some(bytes) = response.chunk().await? {
        for event in reader.push(&bytes)? {
            if sender.send(serde_json::from_str(&event)?).await.is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}
