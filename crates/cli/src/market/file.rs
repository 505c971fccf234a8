//! `market.json`: what a running market tells to the other commands of the same data folder.
//!
//! It stays after the market's end, for its names: whoever reads it asks the address before believing it.

use crate::home::Home;
use crate::market::plan::Conduct;
use anyhow::Result;
use assay_protocol::{Address, Price};
use serde::{Deserialize, Serialize};
use std::fs;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct MarketFile {
    /// The gateway.
    pub(crate) url: String,
    pub(crate) rpc_url: String,
    pub(crate) model: String,
    pub(crate) process: u32,
    pub(crate) nodes: Vec<NodeEntry>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct NodeEntry {
    pub(crate) name: String,
    pub(crate) address: Address,
    pub(crate) endpoint: String,
    pub(crate) price: Price,
    pub(crate) conduct: Conduct,
}

impl MarketFile {
    pub(crate) fn write(&self, home: &Home) -> Result<()> {
        let text = serde_json::to_string_pretty(self)?;
        crate::files::write_whole(&home.market_file(), &text)
    }

    /// What the last market here said, if there was one.
    pub(crate) fn read(home: &Home) -> Option<Self> {
        serde_json::from_slice(&fs::read(home.market_file()).ok()?).ok()
    }

    /// Nodes by their names instead of their addresses, in a sentence of the gateway.
    pub(crate) fn with_names(&self, text: &str) -> String {
        self.nodes.iter().fold(text.to_owned(), |text, node| {
            let address = node.address.to_string();
            let short = format!("{}…{}", &address[..6], &address[address.len() - 4..]);
            text.replace(&short, &node.name)
                .replace(&address, &node.name)
        })
    }

    pub(crate) fn name_of(&self, address: &Address) -> Option<&str> {
        self.nodes
            .iter()
            .find(|node| node.address == *address)
            .map(|node| node.name.as_str())
    }
}
