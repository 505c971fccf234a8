//! Where a market's contracts stand on one chain, and the rules they were deployed with.

use assay_protocol::channel::{ChannelDomain, TokenDomain};
use assay_protocol::{Address, Domain, MicroUsd};
use serde::{Deserialize, Deserializer, Serialize};

use crate::networks::Erc8004;

/// The addresses of one market. Keep it as JSON; every process of a market needs the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployment {
    pub chain_id: u64,
    /// The stablecoin, and its EIP-712 name and version, which x402 puts in `extra`.
    pub token: Address,
    pub token_name: String,
    pub token_version: String,
    pub channels: Address,
    /// Pulls EIP-3009 deposits for the channels.
    pub collector: Address,
    pub registry: Address,
    /// The code behind every provider's vault.
    pub vault_implementation: Address,
    pub challenge_window_s: u64,
    pub unbonding_s: u64,
    pub min_stake: MicroUsd,
    /// Who may hold payouts and slash stakes: the registry's arbiter. Zero in a market of the first
    /// version, which had no disputes; then so are the rest.
    #[serde(default)]
    pub dispute_game: Address,
    /// Recomputes one element.
    #[serde(default)]
    pub referee: Address,
    /// Where the referee reads manifests.
    #[serde(default)]
    pub models: Address,
    /// What a challenger puts in.
    #[serde(default)]
    pub bond: MicroUsd,
    /// Seconds that every turn of a dispute has, and that each side has beyond, once a game.
    #[serde(default)]
    pub response_s: u32,
    #[serde(default)]
    pub extension_s: u32,
    /// The block that made the registry: the first one to look for events in. None where it is not known.
    #[serde(default, deserialize_with = "known_block")]
    pub deployed_block: Option<u64>,
    /// Counts what was served; zero in a market of an earlier version.
    #[serde(default)]
    pub scoreboard: Address,
    /// Carries scores into the chain's ERC-8004 registry; zero where there is none.
    #[serde(default)]
    pub reputation_adapter: Address,
    /// The depth up to which a reorganization of the chain is expected and healed.
    #[serde(default)]
    pub confirmations: u64,
}

/// An earlier version wrote zero where it did not know; no market was ever made in a chain's first block.
fn known_block<'de, D: Deserializer<'de>>(file: D) -> Result<Option<u64>, D::Error> {
    let block = Option::<u64>::deserialize(file)?;
    Ok(block.filter(|block| *block != 0))
}

impl Deployment {
    /// Where receipts and offers are signed for.
    pub fn domain(&self) -> Domain {
        Domain {
            chain_id: self.chain_id,
            verifying_contract: self.registry,
        }
    }

    /// Where records of service are signed for. Without a scoreboard no contract reads them.
    pub fn scoreboard_domain(&self) -> Domain {
        Domain {
            chain_id: self.chain_id,
            verifying_contract: self.scoreboard,
        }
    }

    /// Where vouchers, claims and refunds are signed for.
    pub fn channel_domain(&self) -> ChannelDomain {
        ChannelDomain {
            chain_id: self.chain_id,
            contract: self.channels,
        }
    }

    /// Where EIP-3009 authorizations are signed for.
    pub fn token_domain(&self) -> TokenDomain {
        TokenDomain {
            name: self.token_name.clone(),
            version: self.token_version.clone(),
            chain_id: self.chain_id,
            token: self.token,
        }
    }

    /// x402's name of this chain.
    pub fn network(&self) -> String {
        format!("eip155:{}", self.chain_id)
    }
}

/// The rules of a new market; they are immutable once deployed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeployParams {
    /// A stablecoin with EIP-3009; without one, a test dollar that anybody may mint is deployed.
    pub token: Option<Address>,
    /// Where the contracts of x402 stand; without it the canonical address is used if it has
    /// code or can be given code (a development chain), and else ours are deployed.
    pub channels: Option<Address>,
    pub collector: Option<Address>,
    pub min_stake: MicroUsd,
    pub unbonding_s: u64,
    pub challenge_window_s: u64,
    pub bond: MicroUsd,
    pub response_s: u32,
    pub extension_s: u32,
    /// Where agents and their reputation are registered; without it the network's own, if it is known to
    /// have them.
    #[serde(default)]
    pub erc8004: Option<Erc8004>,
}

impl DeployParams {
    /// Short clocks for a market on one machine (PROTOCOL section 4).
    pub fn devnet() -> DeployParams {
        DeployParams {
            token: None,
            channels: None,
            collector: None,
            min_stake: MicroUsd(10_000_000),
            unbonding_s: 180,
            challenge_window_s: 60,
            bond: MicroUsd(1_000_000),
            response_s: 10,
            extension_s: 20,
            erc8004: None,
        }
    }

    /// The clocks of a real network, over its own stablecoin.
    pub fn network(token: Address, min_stake: MicroUsd) -> DeployParams {
        DeployParams {
            token: Some(token),
            channels: None,
            collector: None,
            min_stake,
            unbonding_s: 7 * 24 * 60 * 60,
            challenge_window_s: 24 * 60 * 60,
            bond: MicroUsd(10_000_000),
            response_s: 2 * 60 * 60,
            extension_s: 8 * 60 * 60,
            erc8004: None,
        }
    }
}
