//! A market on a chain of its own, for programs that join one: `node run`, `gateway run`, `chain status`.
//!
//! Named by an RPC address and the deployment's file; without them, the market that runs in the data folder is meant.

use crate::deployments;
use crate::home::Home;
use crate::market::file::MarketFile;
use crate::refusal::refusal;
use anyhow::{Context, Result};
use assay_chain::networks::{self, Network};
use assay_chain::{Chain, Deployment, Key, Market};
use assay_payments::Terms;
use assay_protocol::{Address, MicroUsd};
use std::path::{Path, PathBuf};
use std::time::Duration;

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct NetworkArgs {
    /// A chain's JSON-RPC; several, one after the other or with commas, stand in for each other [default: the chain of
    /// the market that runs in the data folder]
    #[arg(
        long,
        env = "ASSAY_RPC_URL",
        value_name = "URL",
        value_delimiter = ',',
        hide_env_values = true
    )]
    rpc_url: Vec<String>,

    /// A file that `assay chain deploy` wrote [default: deployments.json of the data folder]
    #[arg(long, env = "ASSAY_DEPLOYMENT", value_name = "FILE")]
    deployment: Option<PathBuf>,
}

/// How deep a chain's word has to be.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub(crate) struct DepthArgs {
    /// Blocks up to which a reorganization of the chain is expected and healed [default: the network's, see `assay chain
    /// networks`]
    #[arg(long, value_name = "BLOCKS")]
    confirmations: Option<u64>,
}

impl NetworkArgs {
    pub(crate) async fn chain(&self, home: &Home) -> Result<Chain> {
        let mut urls = self.rpc_url.clone();
        if urls.is_empty() {
            urls.extend(MarketFile::read(home).map(|market| market.rpc_url));
        }
        if urls.is_empty() {
            return Err(refusal(
                "no chain is known",
                "name one with --rpc-url, or start a market with `assay up`",
            ));
        }
        Chain::connect_any(&urls).await.map_err(|error| {
            refusal(
                format!("no chain answers: {error}"),
                "check --rpc-url, or start a market with `assay up`",
            )
        })
    }

    /// What is said of the market on this chain.
    pub(crate) fn deployment(&self, home: &Home, chain_id: u64) -> Result<Deployment> {
        deployments::find(home, self.deployment.as_deref(), chain_id)
    }

    pub(crate) async fn market(&self, home: &Home) -> Result<Market> {
        self.market_at(home, DepthArgs::default()).await
    }

    pub(crate) async fn market_at(&self, home: &Home, depth: DepthArgs) -> Result<Market> {
        let chain = self.chain(home).await?;
        let mut deployment = self.deployment(home, chain.chain_id())?;
        // A file of an earlier version says nothing of it.
        let usual = networks::of(chain.chain_id()).map_or(0, |network| network.confirmations);
        deployment.confirmations = depth
            .confirmations
            .unwrap_or(deployment.confirmations.max(usual));
        Ok(chain.market(deployment).await?)
    }
}

/// What wei are worth; nothing where no price of a coin is assumed.
pub(crate) fn worth(wei: u128, coin_price_micro_usd: u64) -> Option<MicroUsd> {
    const COIN: u128 = 1_000_000_000_000_000_000;
    let worth = wei.checked_mul(coin_price_micro_usd.into())? / COIN;
    let worth = u64::try_from(worth).ok()?;
    (coin_price_micro_usd > 0).then_some(MicroUsd(worth))
}

/// Whether nothing on this chain is worth anything: a chain on this machine.
pub(crate) fn is_development(chain_id: u64) -> bool {
    networks::of(chain_id).is_some_and(|network| network.token.is_none())
}

/// A network by its name, as in `base-sepolia`, or by its chain's number.
pub(crate) fn by_name(name: &str) -> Result<&'static Network> {
    let wanted = name.to_ascii_lowercase();
    let fits =
        |network: &&Network| handle(network) == wanted || network.chain_id.to_string() == wanted;
    networks::all().iter().find(fits).ok_or_else(|| {
        refusal(
            format!("no network is called {name}"),
            "see `assay chain networks`",
        )
    })
}

/// What a network is called on the command line.
pub(crate) fn handle(network: &Network) -> String {
    let words = network.name.split(|c: char| !c.is_ascii_alphanumeric());
    let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
    words.join("-").to_ascii_lowercase()
}

/// How often a side of a dispute looks at the chain: several times within a response, and no more than a public node
/// bears.
pub(crate) fn poll(market: &Market) -> Duration {
    let response_s = u64::from(market.deployment().response_s);
    Duration::from_secs((response_s / 20).clamp(1, 60))
}

/// Makes the books of a provider that never had any.
pub(crate) async fn new_books(
    folder: &Path,
    market: &Market,
    provider: Address,
    offer: &Key,
) -> Result<()> {
    let vault = market.vault_of(provider).await?;
    let terms = Terms::usual(
        market.channel_domain(),
        market.token_domain(),
        vault,
        offer.address(),
    );
    assay_node::create_ledger(folder, terms).context("cannot make the node's ledger")
}

/// Sees to it that an account holds `amount`: by minting where the stablecoin is the test dollar, else by refusing.
pub(crate) async fn funds(
    market: &Market,
    account: &Key,
    amount: MicroUsd,
    mint: bool,
) -> Result<()> {
    let has = market.balance(account.address()).await?;
    let Ok(lacks) = amount.checked_sub(has) else {
        return Ok(());
    };
    if lacks == MicroUsd::ZERO {
        return Ok(());
    }
    if !mint {
        return Err(lacking(account.address(), has, amount));
    }
    gas(market, account).await?;
    market
        .mint(account, account.address(), lacks)
        .await
        .context("cannot mint; only the test dollar allows it")?;
    Ok(())
}

/// Refuses an account that could not send any transaction, before the chain does it in its own words.
pub(crate) async fn gas(market: &Market, account: &Key) -> Result<()> {
    let (chain, account) = (market.chain(), account.address());
    if chain.gas_price().await? > 0 && chain.coin_balance(account).await? == 0 {
        return Err(refusal(
            format!("account {account} has no coins, and its transactions cost gas"),
            "send it some of the chain's coin, and say the same again",
        ));
    }
    Ok(())
}

fn lacking(account: Address, has: MicroUsd, wants: MicroUsd) -> anyhow::Error {
    let usd = crate::output::usd;
    refusal(
        format!(
            "account {account} holds {}, {} are needed",
            usd(has),
            usd(wants)
        ),
        "send it stablecoins, or add --mint where the stablecoin is the test dollar",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_found_by_their_names_and_numbers() {
        for name in ["base-sepolia", "Base-Sepolia", "84532"] {
            assert_eq!(by_name(name).unwrap().chain_id, 84_532, "{name}");
        }
        assert!(by_name("atlantis").is_err());
        assert!(is_development(31_337) && !is_development(8_453) && !is_development(4_242));
    }

    #[test]
    fn wei_are_worth_what_a_coin_is() {
        let milli = 1_000_000_000_000_000;
        assert_eq!(worth(milli, 3_000_000_000), Some(MicroUsd(3_000_000)));
        assert_eq!(worth(milli, 0), None);
        assert_eq!(worth(u128::MAX, 2), None);
    }
}
