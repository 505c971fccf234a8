//! What is known of networks before anything is read from them: `networks.json`, which names its
//! sources. Facts and defaults only; what a chain itself says comes first wherever it can be asked.

use std::collections::HashSet;
use std::sync::LazyLock;

use assay_protocol::Address;
use serde::{Deserialize, Serialize};

use crate::deployment::Deployment;

/// Bytes of a networks file at most.
const BYTES_MAX: usize = 256 * 1024;
/// Networks in it at most.
const NETWORKS_MAX: usize = 256;
/// Characters of a name or a url at most.
const TEXT_MAX: usize = 200;

/// A chain that a market can stand on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    pub chain_id: u64,
    pub name: String,
    /// Its stablecoin; none on a development chain, where a test dollar is deployed.
    pub token: Option<Token>,
    /// Where x402's contracts stand, if they do there.
    pub channels: Address,
    pub collector: Address,
    pub erc8004: Option<Erc8004>,
    /// The depth up to which a reorganization is expected and healed.
    pub confirmations: u64,
    /// What pays for gas.
    pub coin: String,
    /// What a coin is assumed to cost where nobody says better; zero where it is worth nothing.
    pub coin_price_micro_usd: u64,
    pub explorer: Option<String>,
    /// The market's own contracts, where they are deployed for everybody.
    #[serde(default)]
    pub market: Option<Deployment>,
    /// Where this network's facts are from, if not from the file's own sources.
    #[serde(default)]
    pub source: Option<String>,
}

/// A stablecoin with EIP-3009.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    pub address: Address,
    /// What its signatures are bound to; none where no source says it, and the chain must be asked.
    pub eip712: Option<Eip712Name>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Eip712Name {
    pub name: String,
    pub version: String,
}

/// The chain's registries of agents and their reputation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Erc8004 {
    pub identity: Address,
    pub reputation: Address,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    sources: Vec<String>,
    networks: Vec<Network>,
}

/// Why a networks file is refused.
#[derive(Debug, thiserror::Error)]
pub enum NetworksError {
    #[error("the networks file has {0} bytes, at most {BYTES_MAX} are read")]
    TooLong(usize),
    #[error("the networks file cannot be read: {0}")]
    Malformed(#[from] serde_json::Error),
    #[error("the networks file names {0} networks, at most {NETWORKS_MAX}")]
    TooMany(usize),
    #[error("the networks file names chain {0} twice")]
    Twice(u64),
    #[error("chain {chain_id} in the networks file: {what}")]
    Bad { chain_id: u64, what: &'static str },
}

static BUILT_IN: LazyLock<Vec<Network>> = LazyLock::new(|| {
    parse(include_str!("../networks.json")).expect("a test reads the built-in networks")
});

/// Every network that is known here.
pub fn all() -> &'static [Network] {
    &BUILT_IN
}

/// What is known of a chain.
pub fn of(chain_id: u64) -> Option<&'static Network> {
    all().iter().find(|network| network.chain_id == chain_id)
}

/// Reads a networks file and holds it to its bounds.
pub fn parse(text: &str) -> Result<Vec<Network>, NetworksError> {
    if text.len() > BYTES_MAX {
        return Err(NetworksError::TooLong(text.len()));
    }
    let file: File = serde_json::from_str(text)?;
    if file.networks.len() > NETWORKS_MAX {
        return Err(NetworksError::TooMany(file.networks.len()));
    }
    let mut seen = HashSet::new();
    for network in &file.networks {
        if !seen.insert(network.chain_id) {
            return Err(NetworksError::Twice(network.chain_id));
        }
        if let Some(what) = network.fault(&file.sources) {
            let chain_id = network.chain_id;
            return Err(NetworksError::Bad { chain_id, what });
        }
    }
    Ok(file.networks)
}

impl Network {
    fn fault(&self, sources: &[String]) -> Option<&'static str> {
        let token = self.token.as_ref();
        let names = token.and_then(|token| token.eip712.as_ref());
        let registries = self.erc8004.iter().flat_map(|e| [e.identity, e.reputation]);
        let mut addresses = [self.channels, self.collector]
            .into_iter()
            .chain(token.map(|token| token.address))
            .chain(registries);
        let mut texts = [&self.name, &self.coin]
            .into_iter()
            .chain(&self.explorer)
            .chain(names.into_iter().flat_map(|n| [&n.name, &n.version]));
        if addresses.any(|address| address.is_zero()) {
            Some("an address is zero")
        } else if texts.any(|text| text.is_empty() || text.len() > TEXT_MAX) {
            Some("a name is empty or too long")
        } else if self
            .explorer
            .as_ref()
            .is_some_and(|url| !url.starts_with("https://"))
        {
            Some("the explorer is no https url")
        } else if sources.is_empty() && self.source.is_none() {
            Some("no source is named")
        } else if self
            .market
            .as_ref()
            .is_some_and(|m| m.chain_id != self.chain_id)
        {
            Some("the market is of another chain")
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use assay_protocol::channel::{CANONICAL_CHANNELS, CANONICAL_COLLECTOR};

    use super::*;

    #[test]
    fn the_built_in_networks_are_sound_and_have_x402_where_clients_look() {
        let chains: Vec<u64> = all().iter().map(|network| network.chain_id).collect();
        assert_eq!(chains, [1, 11155111, 8453, 84532, 42161, 10, 137, 31337]);
        for network in all() {
            assert_eq!(network.channels, CANONICAL_CHANNELS, "{}", network.name);
            assert_eq!(network.collector, CANONICAL_COLLECTOR, "{}", network.name);
            // A real chain reorganizes; ours does not.
            assert_eq!(network.confirmations == 0, network.chain_id == 31337);
        }
        assert_eq!(of(8453).unwrap().name, "Base");
        assert!(of(5).is_none());
    }

    #[test]
    fn a_checksum_in_the_file_is_a_checksum() {
        // Addresses parse in any case: a typing error shows in the mixed case that the sources have.
        let text = include_str!("../networks.json");
        for (at, _) in text.match_indices("\"0x") {
            let written = &text[at + 1..at + 43];
            let address: Address = written.parse().unwrap();
            assert_eq!(address.to_checksum(None), written);
        }
    }

    fn refused(edit: impl Fn(&mut serde_json::Value)) -> String {
        let mut file: serde_json::Value =
            serde_json::from_str(include_str!("../networks.json")).unwrap();
        edit(&mut file);
        parse(&file.to_string()).unwrap_err().to_string()
    }

    #[test]
    fn a_networks_file_is_held_to_its_bounds() {
        let zero = "0x0000000000000000000000000000000000000000";
        let cases = [
            refused(|file| file["networks"][0]["channels"] = zero.into()),
            refused(|file| file["networks"][0]["token"]["address"] = zero.into()),
            refused(|file| file["networks"][0]["erc8004"]["identity"] = zero.into()),
            refused(|file| file["networks"][0]["name"] = "x".repeat(201).into()),
            refused(|file| file["networks"][0]["explorer"] = "javascript:alert(1)".into()),
            refused(|file| file["networks"][0]["chain_id"] = 8453.into()),
            refused(|file| file["networks"][0]["unknown"] = 1.into()),
            refused(|file| file["networks"] = vec![file["networks"][0].clone(); 257].into()),
            refused(|file| file["sources"] = serde_json::json!([])),
            parse(&" ".repeat(BYTES_MAX + 1)).unwrap_err().to_string(),
            parse("{").unwrap_err().to_string(),
        ];
        let words = [
            "an address is zero",
            "an address is zero",
            "an address is zero",
            "a name is empty or too long",
            "no https url",
            "names chain 8453 twice",
            "unknown field",
            "257 networks",
            "no source is named",
            "at most 262144",
            "cannot be read",
        ];
        for (said, expected) in cases.iter().zip(words) {
            assert!(said.contains(expected), "{said}");
        }
    }
}
