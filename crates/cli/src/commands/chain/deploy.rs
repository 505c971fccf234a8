//! `assay chain deploy`: puts a market on a chain. Says what it would cost before it spends anything, asks for a yes where
//! coins are worth something, and goes on where an interrupted try stopped.

use crate::home::Home;
use crate::keyring::Keyring;
use crate::network::{self, handle, is_development};
use crate::output;
use crate::refusal::{hint, refusal};
use crate::{deployments, files};
use anyhow::{Context, Result};
use assay_chain::networks;
use assay_chain::{Chain, DeployParams, DeployProgress, Deployment, EmbeddedConfig, Key};
use assay_protocol::{Address, MicroUsd};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Args)]
pub(super) struct DeployArgs {
    /// The chain's JSON-RPC; several stand in for each other
    #[arg(
        long,
        env = "ASSAY_RPC_URL",
        value_name = "URL",
        value_delimiter = ',',
        required = true,
        hide_env_values = true
    )]
    rpc_url: Vec<String>,
    /// The network that this must be, as `assay chain networks` calls it; refused on any other
    #[arg(long, value_name = "NAME")]
    network: Option<String>,
    /// The deployer's key, which pays the gas [default: `deployer` of `assay key list`, made if it is not there]
    #[arg(long, value_name = "NAME|FILE")]
    key: Option<String>,
    /// The stablecoin, with EIP-3009 [default: the network's; a test dollar on a development chain]
    #[arg(long, value_name = "ADDRESS")]
    token: Option<Address>,
    /// Deploy a test dollar that anybody may mint, on whatever chain this is
    #[arg(long, conflicts_with = "token")]
    test_dollar: bool,
    /// The least stake of a provider, in dollars
    #[arg(long, value_parser = crate::parse::dollars, default_value = "10", value_name = "DOLLARS")]
    min_stake: MicroUsd,
    /// The clocks of a real network on a development chain, too
    #[arg(long)]
    real_clocks: bool,
    /// Only say what it would cost
    #[arg(long)]
    dry_run: bool,
    /// Spend the gas; needed on every network that is not for development
    #[arg(long)]
    yes: bool,
    /// Write the deployment into a file of its own instead of the data folder's deployments.json
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// What an interrupted deployment has made, and for whom.
#[derive(Serialize, Deserialize)]
struct Begun {
    deployer: Address,
    params: DeployParams,
    progress: DeployProgress,
}

pub(super) async fn run(args: DeployArgs, home: &Home) -> Result<()> {
    home.create()?;
    let chain = Chain::connect_any(&args.rpc_url)
        .await
        .map_err(|error| refusal(format!("no chain answers: {error}"), "check --rpc-url"))?;
    check_network(&args, chain.chain_id())?;
    check_place(&args, home, chain.chain_id())?;
    let params = params(&args, chain.chain_id())?;
    let keyring = Keyring::new(home);
    let key = home.key_named(args.key.as_deref().unwrap_or("deployer"));
    let key = keyring.open_or_make(&key)?;
    let begun = home
        .data()
        .join(format!("deploying-{}.json", chain.chain_id()));
    let progress = begun_before(&begun, &key, &params)?;

    let bill = Bill::of(&chain, &key, &params, &progress).await?;
    println!("{}", bill.words(chain.chain_id(), &key, &params));
    if !progress.contracts.is_empty() {
        let made: Vec<&str> = progress.contracts.keys().map(String::as_str).collect();
        println!(
            "an earlier try made {} already, and this goes on",
            made.join(", ")
        );
    }
    if args.dry_run {
        return Ok(());
    }
    if !is_development(chain.chain_id()) {
        bill.can_be_paid(&key)?;
        if !args.yes {
            return Err(refusal(
                "this spends coins on a network that is not for development",
                "say the same again with --yes",
            ));
        }
    }
    keyring.check_chain(chain.chain_id())?;
    println!(
        "deploying from {} to chain {} …",
        key.address(),
        chain.chain_id()
    );
    let keep = |progress: &DeployProgress| {
        let begun_now = Begun {
            deployer: key.address(),
            params: params.clone(),
            progress: progress.clone(),
        };
        let text = serde_json::to_string_pretty(&begun_now)?;
        files::write_whole(&begun, &text)
            .map_err(|error| std::io::Error::other(format!("{error:#}")))
    };
    let deployment = chain.deploy_on(&key, &params, progress, keep).await;
    let deployment = deployment.with_context(|| {
        hint(
            "the deployment stopped",
            format!(
                "see that {} can pay the gas, and say the same again: it goes on from here",
                key.address()
            ),
        )
    })?;
    write(&args, home, &deployment)?;
    // Nothing is left to go on with.
    let _ = std::fs::remove_file(&begun);
    Ok(())
}

fn check_network(args: &DeployArgs, chain_id: u64) -> Result<()> {
    let Some(name) = &args.network else {
        return Ok(());
    };
    let wanted = network::by_name(name)?;
    if wanted.chain_id != chain_id {
        return Err(refusal(
            format!(
                "--rpc-url is of chain {chain_id}, and {} is chain {}",
                handle(wanted),
                wanted.chain_id
            ),
            "give the JSON-RPC of the network that you mean",
        ));
    }
    Ok(())
}

/// Before anything is spent: what is known already is not forgotten for something new.
fn check_place(args: &DeployArgs, home: &Home, chain_id: u64) -> Result<()> {
    let taken = match &args.out {
        Some(out) => out.exists().then(|| out.display().to_string()),
        None => deployments::of_home(home, chain_id)?
            .map(|_| format!("a market on chain {chain_id} in {}", home.data().display())),
    };
    taken.map_or(Ok(()), |what| {
        Err(refusal(
            format!("{what} is there already"),
            "write the new one elsewhere with --out, or use another folder with --data-dir",
        ))
    })
}

/// The rules: those of a real network wherever money is real.
fn params(args: &DeployArgs, chain_id: u64) -> Result<DeployParams> {
    let development = is_development(chain_id);
    let usual = networks::of(chain_id).and_then(|network| network.token.as_ref());
    let token = match (args.token, args.test_dollar) {
        (Some(token), _) => Some(token),
        (None, true) => None,
        (None, false) => usual.map(|token| token.address),
    };
    if token.is_none() && !args.test_dollar && !development {
        return Err(refusal(
            format!("chain {chain_id} is not known here, nor its stablecoin"),
            "name one with --token, or ask for a worthless one with --test-dollar",
        ));
    }
    let mut params = match development && !args.real_clocks {
        true => DeployParams::devnet(),
        false => DeployParams::network(Address::ZERO, args.min_stake),
    };
    params.token = token;
    params.min_stake = args.min_stake;
    Ok(params)
}

fn begun_before(path: &Path, key: &Key, params: &DeployParams) -> Result<DeployProgress> {
    let Some(bytes) = files::read(path)? else {
        return Ok(DeployProgress::default());
    };
    let begun: Begun =
        serde_json::from_slice(&bytes).with_context(|| format!("{} is damaged", path.display()))?;
    if begun.deployer != key.address() || begun.params != *params {
        return Err(refusal(
            format!(
                "a deployment from {} with other rules was begun, see {}",
                begun.deployer,
                path.display()
            ),
            "go on with the same key and flags, or move that file away to begin anew",
        ));
    }
    Ok(begun.progress)
}

/// What a deployment costs.
struct Bill {
    gas: u64,
    /// Wei for a unit of gas.
    price: u128,
    /// Wei that the deployer has.
    has: u128,
    /// Micro-dollars for a coin, if somebody assumed one.
    coin: u64,
}

/// The adapter to ERC-8004, which a chain in memory has no registries for: measured on a node of Foundry.
const ADAPTER_GAS: u64 = 830_000;
/// What is set aside for gas that gets dearer, beyond the estimate: a quarter.
const MARGIN: (u128, u128) = (5, 4);

impl Bill {
    /// Measured by deploying the same on a chain in memory: constructors need what was made before them.
    async fn of(
        chain: &Chain,
        key: &Key,
        params: &DeployParams,
        made: &DeployProgress,
    ) -> Result<Bill> {
        let trial = Chain::embedded(EmbeddedConfig::in_memory()).await?;
        let rules = DeployParams {
            token: None,
            erc8004: None,
            ..params.clone()
        };
        let mut tried = DeployProgress::default();
        let note = |progress: &DeployProgress| {
            tried = progress.clone();
            Ok(())
        };
        let nothing = DeployProgress::default();
        trial
            .deploy_on(&Key::random()?, &rules, nothing, note)
            .await?;
        let is_due = |what: &str| {
            let exists = what == "test dollar" && params.token.is_some();
            !exists && !made.contracts.contains_key(what)
        };
        let due = tried.contracts.iter().filter(|(what, _)| is_due(what));
        let known = networks::of(chain.chain_id());
        let adapter = known.is_some_and(|network| network.erc8004.is_some());
        let adapter = adapter && is_due("reputation adapter");
        let gas: u64 = due.map(|(_, made)| made.gas_used).sum();
        Ok(Bill {
            gas: gas + if adapter { ADAPTER_GAS } else { 0 },
            price: chain.gas_price().await?,
            has: chain.coin_balance(key.address()).await?,
            coin: known.map_or(0, |network| network.coin_price_micro_usd),
        })
    }

    fn wei(&self) -> u128 {
        self.price.saturating_mul(self.gas.into())
    }

    fn words(&self, chain_id: u64, key: &Key, params: &DeployParams) -> String {
        let name = networks::of(chain_id).map_or("a network that is not known here", |n| &n.name);
        let token = params
            .token
            .map_or("a test dollar".to_owned(), |t| t.to_string());
        let worth = match network::worth(self.wei(), self.coin) {
            Some(worth) => format!(", about {}", output::usd(worth)),
            None => String::new(),
        };
        format!(
            "network   {name}, chain {chain_id}\n\
             dollar    {token}\n\
             rules     least stake {}, unbonding {} s, window {} s, bond {}, {} s to respond\n\
             gas       about {} at {} wei: {}{worth}; a rollup's fee for data comes on top\n\
             deployer  {} has {}",
            output::usd(params.min_stake),
            params.unbonding_s,
            params.challenge_window_s,
            output::usd(params.bond),
            params.response_s,
            self.gas,
            self.price,
            output::coins(self.wei()),
            key.address(),
            output::coins(self.has),
        )
    }

    fn can_be_paid(&self, key: &Key) -> Result<()> {
        let wanted = self.wei() / MARGIN.1 * MARGIN.0;
        if self.has >= wanted {
            return Ok(());
        }
        Err(refusal(
            format!(
                "{} has {}, and {} should be there before this begins",
                key.address(),
                output::coins(self.has),
                output::coins(wanted)
            ),
            "send it coins, or name another key with --key",
        ))
    }
}

fn write(args: &DeployArgs, home: &Home, deployment: &Deployment) -> Result<()> {
    let place = match &args.out {
        Some(out) => {
            files::write_whole(out, &serde_json::to_string_pretty(deployment)?)?;
            format!(
                "{} names them all; nodes and gateways take it with --deployment",
                out.display()
            )
        }
        None => {
            deployments::add(home, deployment)?;
            format!(
                "{} names them all; nodes and gateways elsewhere take it with --deployment",
                home.deployments().display()
            )
        }
    };
    println!("registry  {}", deployment.registry);
    println!("channels  {}", deployment.channels);
    println!("dollar    {}", deployment.token);
    println!("scores    {}", deployment.scoreboard);
    if !deployment.reputation_adapter.is_zero() {
        println!("ERC-8004  {}", deployment.reputation_adapter);
    }
    println!("{place}");
    println!("next: assay chain verify");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: DeployArgs,
    }

    fn rules(chain_id: u64, flags: &[&str]) -> Result<DeployParams> {
        let words = [&["deploy", "--rpc-url", "http://127.0.0.1:1"], flags].concat();
        params(&Line::parse_from(words).args, chain_id)
    }

    #[test]
    fn a_real_network_has_its_own_stablecoin_and_real_clocks() {
        let base_sepolia = rules(84_532, &[]).unwrap();
        let usdc = "0x036CbD53842c5426634e7929541eC2318f3dCF7e";
        assert_eq!(base_sepolia.token.unwrap().to_string(), usdc);
        assert_eq!(base_sepolia.unbonding_s, 7 * 24 * 60 * 60);
        assert_eq!(base_sepolia.min_stake, MicroUsd(10_000_000));
        let worthless = rules(84_532, &["--test-dollar"]).unwrap();
        assert_eq!((worthless.token, worthless.unbonding_s), (None, 604_800));
    }

    #[test]
    fn an_unknown_network_gets_no_test_dollar_unless_somebody_asks() {
        let refused = rules(4_242, &[]).unwrap_err().to_string();
        assert!(refused.contains("not known"), "{refused}");
        let asked = rules(4_242, &["--test-dollar"]).unwrap();
        assert_eq!((asked.token, asked.unbonding_s), (None, 604_800));
        let named = format!("0x{}", "11".repeat(20));
        let named = rules(4_242, &["--token", &named]).unwrap();
        assert_eq!(named.token, Some(Address::repeat_byte(0x11)));
    }

    #[test]
    fn a_development_chain_has_a_test_dollar_and_short_clocks() {
        let short = rules(31_337, &["--min-stake", "12"]).unwrap();
        assert_eq!((short.token, short.unbonding_s), (None, 180));
        assert_eq!(short.min_stake, MicroUsd(12_000_000));
        assert_eq!(
            rules(31_337, &["--real-clocks"]).unwrap().unbonding_s,
            604_800
        );
    }
}
