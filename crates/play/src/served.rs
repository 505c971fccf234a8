//! The fast path: asks a provider off the chain for nodes of the trace that it posted, and believes only what hashes to
//! the posted root. Everything is bounded; whatever goes wrong, the game goes on on the chain.

use std::time::Duration;

use assay_dispute::{Below, Game, Node, Parting, Reveal, Stage};
use assay_protocol::B256;

use crate::brain::Brain;

/// Nodes asked for in one game: a way down has three trees and a chunk, each in a few reveals.
const NODES_MAX: usize = 32;
/// The longest answer: a chunk, or the hashes of a reveal, as JSON.
const BYTES_MAX: usize = 16 << 10;
/// The longest wait for one answer.
const WAIT: Duration = Duration::from_secs(3);

/// Where a provider answers.
#[derive(Clone, Debug)]
pub struct OffChain {
    http: reqwest::Client,
    endpoint: String,
}

impl OffChain {
    /// No proxy from the environment and no redirects: a node is asked where the registry says it is.
    pub fn at(endpoint: &str) -> Result<Self, reqwest::Error> {
        // Whoever came first has installed one; both are the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(WAIT)
            .build()?;
        let endpoint = endpoint.trim_end_matches('/').to_owned();
        Ok(Self { http, endpoint })
    }

    /// Goes down the provider's trace to where it parts from one's own, as far as it shows it. How many nodes it showed.
    pub(crate) async fn descend(&self, game: &Game, brain: &Brain) -> Result<usize, String> {
        let mut parting = brain.descend(game, None).await.map_err(|e| e.to_string())?;
        for shown in 0..NODES_MAX {
            let Parting::Below(node) = parting else {
                return Ok(shown);
            };
            let below = self.below(game.id, &node).await?;
            let reveal = Reveal { node, below };
            // What does not hash to what is known ends it here.
            parting = brain
                .descend(game, Some(reveal))
                .await
                .map_err(|e| e.to_string())?;
        }
        Err("its trace goes deeper than any can".into())
    }

    async fn below(&self, game: B256, node: &Node) -> Result<Below, String> {
        let url = format!("{}/assay/v1/disputes/{game}/{}", self.endpoint, path(node));
        let cut = |error: reqwest::Error| format!("cannot be reached: {}", error.without_url());
        let mut response = self.http.get(url).send().await.map_err(cut)?;
        if !response.status().is_success() {
            return Err(format!(
                "answers with status {}",
                response.status().as_u16()
            ));
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(cut)? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > BYTES_MAX {
                return Err("answers too much".into());
            }
        }
        serde_json::from_slice(&bytes).map_err(|error| format!("answers no nodes: {error}"))
    }
}

/// How a node is asked for: stage, op, row, height and index.
pub fn path(node: &Node) -> String {
    let stage = node.stage as u8;
    let (op, row, height, index) = (node.op, node.row, node.height, node.index);
    format!("{stage}/{op}/{row}/{height}/{index}")
}

/// The node that is asked for; nothing where the numbers name no stage.
pub fn node((stage, op, row, height, index): (u8, u32, u32, u32, u64)) -> Option<Node> {
    Some(Node {
        stage: Stage::numbered(stage)?,
        op,
        row,
        height,
        index,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_asked_for_by_the_name_that_it_is_found_by() {
        let asked = Node {
            stage: Stage::Chunks,
            op: 7,
            row: 12,
            height: 4,
            index: 1,
        };
        assert_eq!(path(&asked), "2/7/12/4/1");
        assert_eq!(node((2, 7, 12, 4, 1)), Some(asked));
        assert_eq!(node((4, 7, 12, 4, 1)), None);
    }
}
