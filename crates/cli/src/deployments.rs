//! Where markets stand: `deployments.json` of the data folder, one entry a chain.
//!
//! Earlier versions wrote one market a file, and such a file is still read wherever one may be named.

use crate::files;
use crate::home::Home;
use crate::refusal::refusal;
use anyhow::{Context, Result};
use assay_chain::{Deployment, networks};
use std::collections::BTreeMap;
use std::path::Path;

type Deployments = BTreeMap<u64, Deployment>;

/// The market of this chain: in the file that was named, else in the data folder, else what the networks file knows.
pub(crate) fn find(home: &Home, named: Option<&Path>, chain_id: u64) -> Result<Deployment> {
    if let Some(path) = named {
        let known = read(path)?;
        return known.get(&chain_id).cloned().ok_or_else(|| {
            let others: Vec<String> = known.keys().map(u64::to_string).collect();
            let what = match others.is_empty() {
                true => format!("there is no deployment in {}", path.display()),
                false => format!(
                    "{} tells of a market on chain {}, and this is chain {chain_id}",
                    path.display(),
                    others.join(" and ")
                ),
            };
            refusal(
                what,
                "name another file with --deployment, or another chain with --rpc-url",
            )
        });
    }
    if let Some(deployment) = of_home(home, chain_id)? {
        return Ok(deployment);
    }
    let built_in = networks::of(chain_id).and_then(|network| network.market.clone());
    built_in.ok_or_else(|| {
        refusal(
            format!("no market on chain {chain_id} is known here"),
            "name its file with --deployment, or make one with `assay chain deploy`",
        )
    })
}

/// The market of this chain that the data folder tells of.
pub(crate) fn of_home(home: &Home, chain_id: u64) -> Result<Option<Deployment>> {
    for path in [home.deployments(), home.old_deployment()] {
        if let Some(known) = read(&path)?.remove(&chain_id) {
            return Ok(Some(known));
        }
    }
    Ok(None)
}

/// Adds a market to the data folder's.
pub(crate) fn add(home: &Home, deployment: &Deployment) -> Result<()> {
    let path = home.deployments();
    let mut known = read(&path)?;
    known.insert(deployment.chain_id, deployment.clone());
    files::write_whole(&path, &serde_json::to_string_pretty(&known)?)
}

/// A file of many markets, or of one.
fn read(path: &Path) -> Result<Deployments> {
    let Some(bytes) = files::read(path)? else {
        return Ok(Deployments::new());
    };
    parse(&bytes).with_context(|| format!("{} is no deployment", path.display()))
}

fn parse(bytes: &[u8]) -> Result<Deployments> {
    let value: serde_json::Value = serde_json::from_slice(bytes)?;
    if value.get("chain_id").is_some() {
        let one: Deployment = serde_json::from_value(value)?;
        return Ok(Deployments::from([(one.chain_id, one)]));
    }
    let many: Deployments = serde_json::from_value(value)?;
    for (chain_id, deployment) in &many {
        anyhow::ensure!(
            *chain_id == deployment.chain_id,
            "the entry of chain {chain_id} is of chain {}",
            deployment.chain_id
        );
    }
    Ok(many)
}

#[cfg(test)]
mod tests {
    use super::parse;
    use serde_json::{Value, json};

    /// As the first version wrote it.
    fn old(chain_id: u64) -> Value {
        let address = format!("0x{}", "11".repeat(20));
        json!({
            "chain_id": chain_id, "token": address, "token_name": "USDC", "token_version": "2",
            "channels": address, "collector": address, "registry": address,
            "vault_implementation": address, "challenge_window_s": 60, "unbonding_s": 180, "min_stake": 10,
        })
    }

    #[test]
    fn files_of_one_market_and_of_many_are_read() {
        let one = parse(old(5).to_string().as_bytes()).unwrap();
        assert_eq!(one.keys().collect::<Vec<_>>(), [&5]);
        let many = json!({ "5": old(5), "7": old(7) });
        let many = parse(many.to_string().as_bytes()).unwrap();
        assert_eq!(many.keys().collect::<Vec<_>>(), [&5, &7]);
        assert!(parse(b"{}").unwrap().is_empty());
    }

    #[test]
    fn an_entry_of_another_chain_and_nonsense_are_refused() {
        let wrong = json!({ "6": old(5) }).to_string();
        for text in [wrong.as_str(), "", "[]", "{\"5\": 7}", "{\"chain_id\": 5}"] {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
    }
}
