//! What a provider's owner does: register, stake, take it back, choose where payouts go, leave jail.

use super::{folder, offer_key, owner_key, remember_provider};
use crate::home::Home;
use crate::keyring::{self, Keyring};
use crate::network::{self, NetworkArgs};
use crate::refusal::{hint, refusal};
use crate::{models, output, parse};
use anyhow::{Context, Result};
use assay_chain::{Key, Market, Provider, Registration};
use assay_protocol::{Address, MicroUsd, ModelId};

#[derive(Debug, clap::Args)]
pub(super) struct InitArgs {
    #[command(flatten)]
    owner: OwnerArgs,
    /// What it puts at risk, in dollars
    #[arg(long, value_parser = parse::dollars, default_value = "25", value_name = "DOLLARS")]
    stake: MicroUsd,
    /// Where buyers reach it, as in http://203.0.113.7:9000
    #[arg(long, value_name = "URL")]
    public_url: String,
    /// A model of `assay model list`, or the beginning of its name
    #[arg(long, default_value = models::DEFAULT)]
    model: String,
    /// Where released payouts go [default: the owner]
    #[arg(long, value_name = "ADDRESS")]
    payout: Option<Address>,
    /// Mint the stake where the stablecoin is the test dollar
    #[arg(long)]
    mint: bool,
}

/// Whoever acts as the owner.
#[derive(Debug, clap::Args)]
pub(super) struct OwnerArgs {
    #[command(flatten)]
    pub(super) network: NetworkArgs,
    /// The owner's key, which holds stake and payouts; it may lie elsewhere, since a running node needs only the offer
    /// key [default: `owner` of `assay key list`]
    #[arg(long, value_name = "NAME|FILE")]
    owner_key: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(super) struct StakeArgs {
    #[command(flatten)]
    owner: OwnerArgs,
    /// How much, in dollars
    #[arg(value_parser = parse::dollars, value_name = "DOLLARS")]
    amount: MicroUsd,
}

#[derive(Debug, clap::Args)]
pub(super) struct AddStakeArgs {
    #[command(flatten)]
    stake: StakeArgs,
    /// Mint it where the stablecoin is the test dollar
    #[arg(long)]
    mint: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct PayoutArgs {
    #[command(flatten)]
    owner: OwnerArgs,
    /// Where released payouts go from now on
    #[arg(value_name = "ADDRESS")]
    payout: Address,
}

impl OwnerArgs {
    /// The owner's key, made where none was named and none is there yet.
    fn key_or_new(&self, home: &Home, keyring: &Keyring<'_>) -> Result<Key> {
        match &self.owner_key {
            Some(_) => self.key(home, keyring),
            None => keyring.open_or_make(&owner_key(home)),
        }
    }

    pub(super) fn key(&self, home: &Home, keyring: &Keyring<'_>) -> Result<Key> {
        let path = home.key_named(self.owner_key.as_deref().unwrap_or("owner"));
        let path = keyring::found(&path).ok_or_else(|| {
            let what = format!("there is no key {}", path.display());
            refusal(what, "name the owner's key with --owner-key")
        })?;
        keyring.open(&path)
    }

    /// The market and the provider that this owner has in it.
    async fn registered(&self, home: &Home) -> Result<(Market, Key, Provider)> {
        let keyring = Keyring::new(home);
        let owner = self.key(home, &keyring)?;
        let market = self.network.market(home).await?;
        keyring.check_fit(&market)?;
        let provider = known(&market, &owner).await?;
        Ok((market, owner, provider))
    }
}

pub(super) async fn known(market: &Market, owner: &Key) -> Result<Provider> {
    market.provider(owner.address()).await?.ok_or_else(|| {
        refusal(
            format!("{} is no provider of this market", owner.address()),
            "name the owner's key with --owner-key, or register with `assay node init`",
        )
    })
}

pub(super) async fn init(args: InitArgs, home: &Home) -> Result<()> {
    home.create()?;
    let keyring = Keyring::new(home);
    let owner = args.owner.key_or_new(home, &keyring)?;
    let offer = keyring.open_or_make(&offer_key(home))?;
    let market = args.owner.network.market(home).await?;
    keyring.check_fit(&market)?;
    let model = models::ready(home, &args.model).await?.loaded;
    let models = vec![model.model.id()];
    remember_provider(home, owner.address())?;
    match market.provider(owner.address()).await? {
        Some(known) => {
            check_books(home, &known, &offer)?;
            update(&market, &owner, &known, &args, models).await?;
        }
        None => {
            network::gas(&market, &owner).await?;
            network::funds(&market, &owner, args.stake, args.mint).await?;
            // Before anybody can pay into them; a crash in between leaves books without a provider, and the same
            // command goes on from there.
            make_books(home, &market, &owner, &offer).await?;
            let registration = Registration {
                offer_key: offer.address(),
                payout: args.payout.unwrap_or(owner.address()),
                endpoint: args.public_url.clone(),
                models,
                stake: args.stake,
            };
            market.register(&owner, &registration).await?;
            println!(
                "{} is registered with {} at stake",
                owner.address(),
                output::usd(args.stake)
            );
        }
    }
    println!(
        "owner key  {} owns stake and payouts: keep a backup, best on another machine",
        owner.address()
    );
    println!(
        "offer key  {} signs offers and receipts; it pays the gas of claims",
        offer.address()
    );
    println!("next: assay node run");
    Ok(())
}

/// Of a provider that is registered already: an empty ledger in place of a lost one would charge twice.
fn check_books(home: &Home, known: &Provider, offer: &Key) -> Result<()> {
    let recover = "if its keys or books are lost, begin anew with `assay node recover`";
    if known.offer_key != offer.address() {
        return Err(refusal(
            format!(
                "{} is registered with the offer key {}, not with {}",
                known.address,
                known.offer_key,
                offer.address()
            ),
            recover,
        ));
    }
    let ledger = assay_node::ledger_path(&folder(home));
    if !ledger.exists() {
        return Err(refusal(
            format!(
                "{} is registered, and its ledger {} is missing",
                known.address,
                ledger.display()
            ),
            format!("restore it from a backup; {recover}"),
        ));
    }
    Ok(())
}

async fn make_books(home: &Home, market: &Market, owner: &Key, offer: &Key) -> Result<()> {
    if !assay_node::ledger_path(&folder(home)).exists() {
        network::new_books(&folder(home), market, owner.address(), offer).await?;
    }
    Ok(())
}

async fn update(
    market: &Market,
    owner: &Key,
    known: &Provider,
    args: &InitArgs,
    models: Vec<ModelId>,
) -> Result<()> {
    if known.endpoint != args.public_url {
        market.update_endpoint(owner, &args.public_url).await?;
    }
    if known.models != models {
        market.update_models(owner, &models).await?;
    }
    if let Some(payout) = args.payout {
        market.update_payout(owner, payout).await?;
    }
    println!(
        "{} was registered already, with {} at stake; its entry is up to date",
        owner.address(),
        output::usd(known.stake)
    );
    Ok(())
}

pub(super) async fn release(args: OwnerArgs, home: &Home) -> Result<()> {
    let (market, owner, provider) = args.registered(home).await?;
    let (convictions, until) = market.convictions(owner.address()).await?;
    let now = market.chain().now().await?;
    if until.0 == 0 {
        println!("{} is in no jail", owner.address());
        return Ok(());
    }
    if now < until {
        return Err(refusal(
            format!(
                "{} is in jail until {} ({convictions} convictions)",
                owner.address(),
                output::date(until)
            ),
            format!("come back in {}", in_words(until.0 - now.0)),
        ));
    }
    let least = market.deployment().min_stake;
    if provider.stake < least {
        return Err(refusal(
            format!(
                "{} at stake, at least {} are needed",
                output::usd(provider.stake),
                output::usd(least)
            ),
            "add to it with `assay node add-stake DOLLARS`",
        ));
    }
    market.release_from_jail(&owner).await?;
    println!("{} is out of jail and listed again", owner.address());
    Ok(())
}

pub(super) async fn add_stake(args: AddStakeArgs, home: &Home) -> Result<()> {
    let amount = args.stake.amount;
    let (market, owner, provider) = args.stake.owner.registered(home).await?;
    network::funds(&market, &owner, amount, args.mint).await?;
    market.add_stake(&owner, amount).await?;
    let total = provider.stake.checked_add(amount)?;
    println!("{} at stake", output::usd(total));
    Ok(())
}

pub(super) async fn unbond(args: StakeArgs, home: &Home) -> Result<()> {
    let (market, owner, provider) = args.owner.registered(home).await?;
    let Ok(left) = provider.stake.checked_sub(args.amount) else {
        let what = format!("only {} are at stake", output::usd(provider.stake));
        return Err(refusal(what, "unbond at most that"));
    };
    market.unbond(&owner, args.amount).await?;
    println!(
        "{} leave the stake, {} stay; `assay node withdraw-stake` takes them in {}",
        output::usd(args.amount),
        output::usd(left),
        in_words(market.deployment().unbonding_s)
    );
    if left < market.deployment().min_stake {
        println!("with less than the minimum the node is not listed any more");
    }
    Ok(())
}

pub(super) async fn withdraw_stake(args: OwnerArgs, home: &Home) -> Result<()> {
    let (market, owner, _) = args.registered(home).await?;
    let before = market.balance(owner.address()).await?;
    market.withdraw_stake(&owner).await.with_context(|| {
        hint(
            "the stake cannot be taken yet",
            "begin with `assay node unbond`, and wait for the unbonding period and any open dispute",
        )
    })?;
    let after = market.balance(owner.address()).await?;
    let came = after.checked_sub(before).unwrap_or(MicroUsd::ZERO);
    println!("{} went to {}", output::usd(came), owner.address());
    Ok(())
}

pub(super) async fn set_payout(args: PayoutArgs, home: &Home) -> Result<()> {
    let (market, owner, _) = args.owner.registered(home).await?;
    market.update_payout(&owner, args.payout).await?;
    println!("released payouts go to {} from now on", args.payout);
    Ok(())
}

fn in_words(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} minutes", seconds.div_ceil(60)),
        7_200..172_800 => format!("{} hours", seconds.div_ceil(3_600)),
        _ => format!("{} days", seconds.div_ceil(86_400)),
    }
}
