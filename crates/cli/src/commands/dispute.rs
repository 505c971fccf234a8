//! `assay dispute list|show|open|step|defend`: disputes on the chain, for people. Gateways, watchtowers and nodes play
//! by themselves; this is for looking at them, and for playing by hand.
//!
//! The chain tells state and money. Where two traces part takes the receipt's tokens and its model as well.

use crate::commands::receipt;
use crate::home::Home;
use crate::interrupt;
use crate::judge;
use crate::keyring::{self, Keyring};
use crate::live::{UrlArgs, now, provider_name};
use crate::narrate;
use crate::network::{self, NetworkArgs};
use crate::output::{self, Table};
use crate::refusal::refusal;
use anyhow::{Context, Result};
use assay_audit::Evidence;
use assay_chain::{Dispute, DisputeFilter, Key, Market};
use assay_dispute::{Game, Outcome, Phase, Side};
use assay_model::LoadedModel;
use assay_play::{Accuser, Brain, Case, Concluded, Parted, Played, Seat, Told};
use assay_protocol::{Address, B256, MicroUsd, TypedData};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often a game is looked at by somebody who plays it from a terminal.
const POLL: Duration = Duration::from_millis(500);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// The games on the chain: who doubts whom, whose turn it is, how it ended
    List {
        #[command(flatten)]
        network: NetworkArgs,
        /// Only those that are not over
        #[arg(long)]
        open: bool,
        /// Only those against this provider
        #[arg(long, value_name = "ADDRESS")]
        provider: Option<Address>,
        #[arg(long)]
        json: bool,
    },
    /// One game in full: clocks, money, and where the two traces part
    Show {
        /// The game, or the beginning of it
        game: String,
        #[command(flatten)]
        table: TableArgs,
        #[arg(long)]
        json: bool,
    },
    /// Doubt a receipt: re-execute it, put up the bond if it is false, and play to the end
    Open {
        /// A file made by `receipt show --json`, or a receipt's id
        receipt: String,
        #[command(flatten)]
        network: NetworkArgs,
        #[command(flatten)]
        url: UrlArgs,
        #[command(flatten)]
        purse: PurseArgs,
        /// Open the game and leave; go on with `assay dispute step`
        #[arg(long)]
        no_play: bool,
        #[arg(long)]
        json: bool,
    },
    /// Make the move that is due in your game, one at a time
    Step {
        /// The game, or the beginning of it
        game: String,
        #[command(flatten)]
        table: TableArgs,
        #[command(flatten)]
        purse: PurseArgs,
        #[arg(long)]
        json: bool,
    },
    /// Play the provider's side by hand; a running node does it by itself
    Defend {
        /// The game, or the beginning of it
        game: String,
        #[command(flatten)]
        table: TableArgs,
        /// The provider's offer key or owner key [default: the offer key of `assay node init`]
        #[arg(long, value_name = "NAME|FILE")]
        key: Option<String>,
        #[arg(long)]
        json: bool,
    },
}

/// A game, and where the tokens of its receipt are found.
#[derive(Clone, Debug, clap::Args)]
struct TableArgs {
    #[command(flatten)]
    network: NetworkArgs,
    #[command(flatten)]
    url: UrlArgs,
    /// The receipt's file, as `receipt show --json` makes it [default: asked of the gateway, or of its ledger]
    #[arg(long, value_name = "FILE")]
    receipt: Option<PathBuf>,
}

/// Whose bond and gas.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct PurseArgs {
    /// The key that puts up the bond and gets the bounty; made if it is not there [default: `watcher` of `assay key list`]
    #[arg(long, value_name = "NAME|FILE")]
    key: Option<String>,
    /// Mint the bond where the stablecoin is the test dollar
    #[arg(long)]
    mint: bool,
}

impl PurseArgs {
    pub(crate) fn key(&self, home: &Home, market: &Market) -> Result<Key> {
        home.create()?;
        let path = home.key_named(self.key.as_deref().unwrap_or("watcher"));
        let keyring = Keyring::on(home, market);
        let key = keyring.open_or_make(&path)?;
        keyring.check_fit(market)?;
        Ok(key)
    }

    /// Sees to it that a bond can be put up.
    pub(crate) async fn fill(&self, market: &Market, key: &Key) -> Result<()> {
        network::funds(market, key, market.deployment().bond, self.mint).await
    }
}

pub(crate) async fn run(args: Args, home: &Home) -> Result<()> {
    match args.action {
        Action::List {
            network,
            open,
            provider,
            json,
        } => {
            let market = disputed(home, &network).await?;
            let filter = DisputeFilter {
                provider,
                open,
                ..DisputeFilter::default()
            };
            list(home, &market, &filter, json).await
        }
        Action::Show { game, table, json } => show(home, &table, &game, json).await,
        Action::Open {
            receipt,
            network,
            url,
            purse,
            no_play,
            json,
        } => {
            let market = disputed(home, &network).await?;
            let evidence = receipt::load(home, &url, &receipt).await?;
            open(home, &market, evidence, &purse, no_play, json).await
        }
        Action::Step {
            game,
            table,
            purse,
            json,
        } => step(home, &table, &game, &purse, json).await,
        Action::Defend {
            game,
            table,
            key,
            json,
        } => defend(home, &table, &game, key, json).await,
    }
}

/// A market that has disputes.
pub(crate) async fn disputed(home: &Home, network: &NetworkArgs) -> Result<Market> {
    let market = network.market(home).await?;
    if market.deployment().dispute_game.is_zero() {
        return Err(refusal(
            "this market was deployed before there were disputes",
            "deploy a new one with `assay chain deploy`, or start one in another folder with --data-dir",
        ));
    }
    Ok(market)
}

/// The model that a case is about, with a word on how to get it.
fn model(home: &Home, case: &Case) -> Result<LoadedModel> {
    let id = case.receipt.body.statement.model_id;
    judge::find_model(home, id).ok_or_else(|| {
        refusal(
            format!("model {id} is not on this machine: without its weights nobody can play"),
            "get it with `assay model pull`, or `model import FILE`",
        )
    })
}

async fn list(home: &Home, market: &Market, filter: &DisputeFilter, json: bool) -> Result<()> {
    let disputes = market.disputes(filter).await?;
    if json {
        let all: Vec<Value> = disputes.iter().map(facts).collect();
        return output::print_json(&all);
    }
    if disputes.is_empty() {
        println!("no disputes; `assay dispute open RECEIPT` opens one about a false receipt");
        return Ok(());
    }
    let mut table = Table::new(&[
        "dispute",
        "against",
        "by",
        "receipt",
        "answered at",
        "state",
    ]);
    for dispute in &disputes {
        let (game, receipt) = (&dispute.game, &dispute.receipt.body);
        table.row([
            output::short_hex(&game.id),
            provider_name(home, &game.provider),
            output::short_address(&game.challenger),
            output::short_hex(&receipt.request_id),
            output::date(receipt.served_at),
            state_words(dispute),
        ]);
    }
    print!("{}", table.render(""));
    println!("look into one with `assay dispute show DISPUTE`");
    Ok(())
}

/// What a game is at, in a few words.
fn state_words(dispute: &Dispute) -> String {
    let left = dispute.game.deadline.0.saturating_sub(now().0);
    let clock = match left {
        0 => "its clock ran out".to_owned(),
        left => format!("{left} s left"),
    };
    match dispute.game.phase {
        Phase::Post => format!("the provider is to post its trace, {clock}"),
        Phase::Reveal => format!("the provider is to reveal, {clock}"),
        Phase::Request => format!("the challenger is to ask or to prove, {clock}"),
        Phase::Decided => "decided in another game; the bond waits to be fetched".to_owned(),
        Phase::Over(Outcome::Convicted) => match dispute.conviction {
            Some(conviction) => format!("CONVICTED, {} slashed", output::usd(conviction.stake)),
            None => "CONVICTED".to_owned(),
        },
        Phase::Over(Outcome::Rejected) => "rejected: the bond went to the provider".to_owned(),
        Phase::Over(Outcome::Closed) => "closed: another game convicted first".to_owned(),
    }
}

/// All that the chain tells of a game, for a program.
fn facts(dispute: &Dispute) -> Value {
    let game = &dispute.game;
    let state = match game.phase {
        Phase::Post => "post",
        Phase::Reveal => "reveal",
        Phase::Request => "request",
        Phase::Decided => "decided",
        Phase::Over(Outcome::Convicted) => "convicted",
        Phase::Over(Outcome::Rejected) => "rejected",
        Phase::Over(Outcome::Closed) => "closed",
    };
    json!({
        "game": game.id,
        "receipt_digest": game.receipt,
        "receipt": dispute.receipt,
        "provider": game.provider,
        "challenger": game.challenger,
        "state": state,
        "deadline": game.deadline,
        "extension_left": { "provider_s": game.purse_provider, "challenger_s": game.purse_challenger },
        "trace_root": game.trace_root,
        "reveals": game.reveals,
        "opened_block": dispute.opened_block,
        "conviction": dispute.conviction.map(|conviction| json!({
            "winner": conviction.winner,
            "game": conviction.game,
            "slashed": conviction.stake,
            "to_winner": conviction.to_winner,
            "to_payer": conviction.to_payer,
            "burned": conviction.burned,
        })),
    })
}

/// The one game whose name begins so.
async fn find(market: &Market, game: &str) -> Result<Dispute> {
    let wanted = format!("0x{}", game.trim_start_matches("0x").to_ascii_lowercase());
    let all = market.disputes(&DisputeFilter::default()).await?;
    let mut fits: Vec<Dispute> = all
        .into_iter()
        .filter(|dispute| dispute.game.id.to_string().starts_with(&wanted))
        .collect();
    // The same challenger may have doubted the same receipt before: the last game counts.
    let last = fits.pop();
    let same = |last: &Dispute| fits.iter().all(|other| other.game.id == last.game.id);
    match last {
        Some(last) if same(&last) => Ok(last),
        Some(_) => Err(refusal(
            format!("several disputes begin with {wanted}"),
            "write more of it",
        )),
        None => Err(refusal(
            format!("there is no dispute {wanted}"),
            "see `assay dispute list`",
        )),
    }
}

impl TableArgs {
    /// The tokens behind a game's receipt.
    async fn case(&self, home: &Home, dispute: &Dispute) -> Result<Case> {
        let named = match &self.receipt {
            Some(file) => file.display().to_string(),
            None => dispute.receipt.body.request_id.to_string(),
        };
        let case = Case::from(receipt::load(home, &self.url, &named).await?);
        if case.receipt.body != dispute.receipt.body {
            return Err(refusal(
                "this is the evidence of another receipt than the dispute's",
                "name the right file with --receipt",
            ));
        }
        Ok(case)
    }
}

/// The honest trace of a case, ready to play with. Takes seconds of every core.
async fn brain(home: &Home, case: &Case) -> Result<Brain> {
    let (model, case) = (model(home, case)?, case.clone());
    let making = tokio::task::spawn_blocking(move || case.trace(&model.model, judge::threads()));
    Ok(Brain::new(making.await.context("the trace was dropped")??)?)
}

async fn show(home: &Home, table: &TableArgs, game: &str, json: bool) -> Result<()> {
    let market = disputed(home, &table.network).await?;
    let dispute = find(&market, game).await?;
    let parted = whereabouts(home, table, &dispute.game, &dispute).await;
    let stake = market.provider(dispute.game.provider).await?;
    let stake = stake.map_or(MicroUsd::ZERO, |known| known.stake);
    if json {
        let mut facts = facts(&dispute);
        facts["stake"] = json!(stake);
        facts["bond"] = json!(market.deployment().bond);
        facts["parted"] = json!(parted.as_ref().ok());
        return output::print_json(&facts);
    }
    let (game, receipt) = (&dispute.game, &dispute.receipt.body);
    let deployment = market.deployment();
    let rows = [
        ("dispute", game.id.to_string()),
        (
            "about",
            format!(
                "receipt {}, {} for {} tokens, answered at {} UTC",
                output::short_hex(&receipt.request_id),
                output::usd(receipt.charged),
                receipt.statement.n_output.0,
                output::date(receipt.served_at)
            ),
        ),
        (
            "provider",
            format!(
                "{} ({}), with {} at stake",
                game.provider,
                provider_name(home, &game.provider),
                output::usd(stake)
            ),
        ),
        (
            "challenger",
            format!(
                "{}, with a bond of {}",
                game.challenger,
                output::usd(deployment.bond)
            ),
        ),
        ("state", state_words(&dispute)),
        (
            "extension",
            match game.turn() {
                None => "over".to_owned(),
                Some(_) => format!(
                    "{} s left to the provider, {} s to the challenger, beyond {} s a turn",
                    game.purse_provider, game.purse_challenger, deployment.response_s
                ),
            },
        ),
        (
            "trace",
            game.trace_root
                .map_or("not posted yet".to_owned(), |root| root.to_string()),
        ),
    ];
    for (name, value) in rows {
        println!("{name:<11} {value}");
    }
    for reveal in &game.reveals {
        let text = assay_play::describe_reveal(reveal);
        println!("revealed    {}", text.trim_start_matches("reveals "));
    }
    if let Some(conviction) = dispute.conviction {
        println!(
            "money       {} slashed: {} to the challenger {}, {} to the payer, {} burned",
            output::usd(conviction.stake),
            output::usd(conviction.to_winner),
            output::short_address(&conviction.winner),
            output::usd(conviction.to_payer),
            output::usd(conviction.burned)
        );
    }
    println!();
    match parted {
        Ok(Some(parted)) => print!("where the two traces part\n{}", indent(&parted.picture())),
        Ok(None) => println!("where the two traces part is not known before one is posted"),
        Err(error) => println!("where the two traces part cannot be said here: {error}"),
    }
    Ok(())
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}

async fn whereabouts(
    home: &Home,
    table: &TableArgs,
    game: &Game,
    dispute: &Dispute,
) -> Result<Option<Parted>> {
    let case = table.case(home, dispute).await?;
    let brain = brain(home, &case).await?;
    Ok(brain.whereabouts(game).await?)
}

async fn open(
    home: &Home,
    market: &Market,
    evidence: Evidence,
    purse: &PurseArgs,
    no_play: bool,
    json: bool,
) -> Result<()> {
    if evidence.domain != market.domain() {
        return Err(refusal(
            "this receipt was signed for another market",
            "name its chain with --rpc-url and --deployment",
        ));
    }
    let case = Case::from(evidence);
    let model = model(home, &case)?;
    let key = purse.key(home, market)?;
    purse.fill(market, &key).await?;
    let accuser = Accuser {
        market: market.clone(),
        key: key.clone(),
        threads: judge::threads(),
        bond_max: market.deployment().bond,
        poll: POLL,
        off_chain: true,
    };
    let name = provider_name(home, &case.receipt.body.provider);
    let mut tell = teller(json, name.clone());
    if no_play {
        let game = market.game_id(&case.receipt.body, key.address());
        match accuser.open(&case, &model.model, &mut tell).await? {
            None => return Ok(()),
            // A fact needs no game, and nothing is gained by waiting.
            Some(fact) => tell(accuser.prove(&case, game, &fact).await?),
        }
    }
    let stop = CancellationToken::new();
    let concluded = tokio::select! {
        concluded = accuser.accuse(&case, &model.model, &stop, &mut tell) => concluded?,
        () = interrupt::asked() => return Err(refusal(
            "stopped in the middle of the game: your clock runs on",
            "go on with the same command, or `assay dispute step`",
        )),
    };
    let digest = case.receipt.body.digest(&market.domain());
    finish(&concluded, digest, &key, &name, json)
}

/// Says what happens, as it happens.
pub(crate) fn teller(json: bool, provider: String) -> impl FnMut(Told) + Send {
    move |told| match json {
        true => println!("{}", told_json(&told)),
        false => println!("{}", narrate::told(&told, &provider)),
    }
}

pub(crate) fn told_json(told: &Told) -> Value {
    match told {
        Told::Opened {
            game,
            bond,
            gas,
            transaction,
        } => json!({
            "event": "opened", "game": game, "bond": bond, "gas": gas, "transaction": transaction,
        }),
        Told::Moved { game, played } => json!({ "event": "moved", "game": game, "move": played }),
    }
}

fn finish(
    concluded: &Concluded,
    receipt_digest: B256,
    key: &Key,
    provider: &str,
    json: bool,
) -> Result<()> {
    if json {
        println!("{}", concluded_json(concluded, receipt_digest));
    } else {
        println!(
            "{}",
            narrate::concluded(concluded, provider, &key.address())
        );
    }
    match concluded {
        Concluded::Convicted { .. } => Ok(()),
        Concluded::Lost { .. } => Err(refusal(
            "the dispute is lost",
            "others may still open one within the window",
        )),
    }
}

pub(crate) fn concluded_json(concluded: &Concluded, receipt_digest: B256) -> Value {
    match concluded {
        Concluded::Convicted { game, conviction } => json!({
            "event": "convicted",
            "receipt_digest": receipt_digest,
            "game": game,
            "winner": conviction.winner,
            "slashed": conviction.stake,
            "to_winner": conviction.to_winner,
            "to_payer": conviction.to_payer,
            "burned": conviction.burned,
        }),
        Concluded::Lost { game, bond } => json!({ "event": "lost", "game": game, "bond": bond }),
    }
}

async fn step(
    home: &Home,
    table: &TableArgs,
    game: &str,
    purse: &PurseArgs,
    json: bool,
) -> Result<()> {
    let market = disputed(home, &table.network).await?;
    let dispute = find(&market, game).await?;
    let key = purse.key(home, &market)?;
    let side = match dispute.game.challenger == key.address() {
        true => Side::Challenger,
        false => Side::Watcher,
    };
    let case = table.case(home, &dispute).await?;
    let brain = brain(home, &case).await?;
    let seat = Seat {
        market,
        key,
        side,
        poll: POLL,
        off_chain: None,
    };
    one_step(&seat, &dispute, &brain, json).await
}

async fn one_step(seat: &Seat, dispute: &Dispute, brain: &Brain, json: bool) -> Result<()> {
    let game = dispute.game.id;
    let tell = |played: Played| {
        let told = Told::Moved { game, played };
        match json {
            true => println!("{}", told_json(&told)),
            false => println!("{}", narrate::told(&told, "the provider")),
        }
    };
    let (moves, dispute) = seat.step(game, brain, tell).await?;
    if moves > 0 {
        return Ok(());
    }
    let next = match (seat.side, dispute.game.turn()) {
        (_, None) => "see `assay dispute show`",
        (Side::Watcher, _) => {
            "only a stalled player's clock is yours to call; give the challenger's key with --key"
        }
        _ => "wait for the other side, then step again",
    };
    Err(refusal(
        format!("nothing is due from you: {}", state_words(&dispute)),
        next,
    ))
}

async fn defend(
    home: &Home,
    table: &TableArgs,
    game: &str,
    key: Option<String>,
    json: bool,
) -> Result<()> {
    let market = disputed(home, &table.network).await?;
    let dispute = find(&market, game).await?;
    let path = home.key_named(key.as_deref().unwrap_or("offer"));
    let path = keyring::found(&path).ok_or_else(|| {
        let what = format!("there is no key of the provider's in {}", path.display());
        refusal(what, "name it with --key")
    })?;
    let key = Keyring::new(home).open(&path)?;
    let case = match (
        &table.receipt,
        assay_node::kept(&home.node("own"), &dispute.receipt.body.request_id),
    ) {
        (None, Ok(Some(case))) => case,
        _ => table.case(home, &dispute).await?,
    };
    let brain = brain(home, &case).await?;
    let seat = Seat {
        market,
        key,
        side: Side::Provider,
        poll: POLL,
        off_chain: None,
    };
    let id = dispute.game.id;
    let tell = |played: Played| match json {
        true => println!("{}", told_json(&Told::Moved { game: id, played })),
        false => {
            let who = if played.ours { "you" } else { "challenger" };
            println!("{}", narrate::line(who, &played));
        }
    };
    let stop = CancellationToken::new();
    let finished = tokio::select! {
        finished = seat.play(id, &brain, &stop, tell) => finished?,
        () = interrupt::asked() => return Err(refusal(
            "stopped in the middle of the game: the provider's clock runs on",
            "go on with the same command, or start the node",
        )),
    };
    match finished.outcome {
        Outcome::Rejected => {
            println!("defended: the challenger's bond went to the provider's payout address");
            Ok(())
        }
        Outcome::Convicted | Outcome::Closed => Err(refusal(
            "the receipt is convicted, and the stake is gone",
            "see `assay dispute show`",
        )),
    }
}
