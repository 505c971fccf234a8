//! `assay node …`: the provider's side alone, on any market.
//!
//! Two keys: the owner's, which holds stake and payouts and may lie elsewhere, and the offer key, which a running node
//! signs with.

mod ask;
mod owner;
mod recover;
mod run;

use crate::home::Home;
use crate::keyring;
use crate::refusal::refusal;
use anyhow::{Context, Result};
use assay_chain::KeyFile;
use assay_protocol::Address;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Make this node's keys and books and register it with its stake
    Init(owner::InitArgs),
    /// Serve a model and be paid for it
    Run(run::RunArgs),
    /// Whether a node is well
    Status(ask::AskArgs),
    /// What a node has earned, and where the money is
    Earnings(ask::AskArgs),
    /// Signed claims that wait because the node cannot pay for gas; anybody brings them to the chain with `assay chain relay`
    Claims(ask::ClaimsArgs),
    /// After the ledger was lost: name a new offer key and begin new books. Vouchers of the lost ones are given up
    Recover(recover::RecoverArgs),
    /// Leave the jail of a conviction, once its time is over and the minimum stake in place
    Release(owner::OwnerArgs),
    /// Add to the stake
    AddStake(owner::AddStakeArgs),
    /// Begin to take back stake; it can still be slashed until the unbonding period is over
    Unbond(owner::StakeArgs),
    /// Take the stake whose unbonding period is over
    WithdrawStake(owner::OwnerArgs),
    /// Change the address that released payouts go to
    SetPayout(owner::PayoutArgs),
}

pub(crate) async fn run(args: Args, home: &Home) -> Result<()> {
    match args.action {
        Action::Init(args) => owner::init(args, home).await,
        Action::Run(args) => run::serve(args, home).await,
        Action::Status(args) => ask::status(args).await,
        Action::Earnings(args) => ask::earnings(args).await,
        Action::Claims(args) => ask::claims(args).await,
        Action::Recover(args) => recover::run(args, home).await,
        Action::Release(args) => owner::release(args, home).await,
        Action::AddStake(args) => owner::add_stake(args, home).await,
        Action::Unbond(args) => owner::unbond(args, home).await,
        Action::WithdrawStake(args) => owner::withdraw_stake(args, home).await,
        Action::SetPayout(args) => owner::set_payout(args, home).await,
    }
}

/// What a node has to know of itself when its owner's key is elsewhere.
#[derive(Serialize, Deserialize)]
struct NodeFile {
    provider: Address,
}

fn folder(home: &Home) -> PathBuf {
    home.node("own")
}

fn owner_key(home: &Home) -> PathBuf {
    folder(home).join("owner.json")
}

fn offer_key(home: &Home) -> PathBuf {
    folder(home).join("offer.json")
}

fn not_yet() -> anyhow::Error {
    refusal("this node has no keys yet", "run `assay node init` first")
}

/// The offer key's file, if there is one.
fn own_offer_key(home: &Home) -> Result<PathBuf> {
    keyring::found(&offer_key(home)).ok_or_else(not_yet)
}

fn remember_provider(home: &Home, provider: Address) -> Result<()> {
    let path = folder(home).join("node.json");
    let text = serde_json::to_string_pretty(&NodeFile { provider })?;
    crate::files::write_whole(&path, &text)
}

/// The owner's address. A node of an earlier version has only the owner's key, which says it too.
fn provider(home: &Home) -> Result<Address> {
    let path = folder(home).join("node.json");
    if let Some(text) = crate::files::read(&path)? {
        let file: NodeFile = serde_json::from_slice(&text)
            .with_context(|| format!("{} is damaged", path.display()))?;
        return Ok(file.provider);
    }
    let owner = keyring::found(&owner_key(home)).ok_or_else(not_yet)?;
    named_by(&owner)?.ok_or_else(not_yet)
}

fn named_by(key: &Path) -> Result<Option<Address>> {
    Ok(KeyFile::at(key)?.address())
}
