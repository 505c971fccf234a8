//! `assay node recover`: a node whose ledger is lost begins anew under a fresh offer key.
//!
//! Channels name the offer key, so no old channel pays the new ledger, and nothing that the lost one answered can be
//! used against it. Each step is found again after a crash.

use super::owner::{OwnerArgs, known};
use super::{folder, offer_key, remember_provider};
use crate::home::Home;
use crate::keyring::{self, Keyring};
use crate::network;
use crate::refusal::refusal;
use anyhow::{Context, Result};
use assay_chain::{Key, KeyFile};
use std::fs;
use std::path::Path;

#[derive(Debug, clap::Args)]
pub(super) struct RecoverArgs {
    #[command(flatten)]
    owner: OwnerArgs,
}

pub(super) async fn run(args: RecoverArgs, home: &Home) -> Result<()> {
    let ledger = assay_node::ledger_path(&folder(home));
    let next = folder(home).join("offer-next.json");
    // Only a recovery that was interrupted has a next key; then the ledger is the new one.
    if ledger.exists() && !next.exists() {
        return Err(refusal(
            format!("the ledger {} is there", ledger.display()),
            "if it is good, `assay node run` goes on with it; if it is damaged, keep a copy and move it away: its unclaimed \
             vouchers are worth money to whoever can still read them",
        ));
    }
    let keyring = Keyring::new(home);
    let owner = args.owner.key(home, &keyring)?;
    let market = args.owner.network.market(home).await?;
    keyring.check_fit(&market)?;
    let provider = known(&market, &owner).await?;
    let fresh = keyring.open_or_make(&next)?;
    if provider.offer_key != fresh.address() {
        market
            .rotate_offer_key(&owner, fresh.address())
            .await
            .context("cannot name the new offer key on the chain")?;
    }
    if !ledger.exists() {
        network::new_books(&folder(home), &market, owner.address(), &fresh).await?;
    }
    put_in_place(home, &fresh, &next)?;
    remember_provider(home, owner.address())?;
    println!("offer key  {} from now on", fresh.address());
    println!("ledger     {} is new and empty", ledger.display());
    println!(
        "vouchers of the lost ledger are given up, unless their payers resend them; what was claimed is safe in the vault"
    );
    println!(
        "answers of the old offer key are still defended, from the evidence that lies beside the ledger"
    );
    println!("next: see that the new offer key can pay for gas, then assay node run");
    Ok(())
}

/// The old key stays beside the new one, under its address.
fn put_in_place(home: &Home, fresh: &Key, next: &Path) -> Result<()> {
    let place = offer_key(home);
    if let Some(old) = keyring::found(&place) {
        let address = KeyFile::at(&old)?.address();
        if address == Some(fresh.address()) {
            return Ok(());
        }
        let name = address.map_or("unknown".to_owned(), |address| address.to_string());
        let extension = old.extension().unwrap_or_default().to_string_lossy();
        let kept = folder(home).join(format!("offer-{name}.{extension}"));
        fs::rename(&old, &kept).with_context(|| format!("cannot move {} away", old.display()))?;
    }
    fs::rename(next, &place).with_context(|| format!("cannot write {}", place.display()))
}
