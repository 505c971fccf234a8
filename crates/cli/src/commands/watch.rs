//! `assay watch`: a watchtower. Re-executes the receipts that it is given, as files, folders or by a gateway that
//! publishes them; takes what is false to the chain, plays, collects the bounties, and calls the clock on whoever stalls.
//!
//! It needs the weights, a bond, and nobody's leave.

use crate::ask::Gateway;
use crate::commands::dispute::{self, PurseArgs};
use crate::home::Home;
use crate::interrupt;
use crate::judge;
use crate::live::provider_name;
use crate::narrate;
use crate::network::NetworkArgs;
use crate::output;
use crate::refusal::refusal;
use crate::tell::Tell;
use anyhow::{Context, Result};
use assay_audit::Evidence;
use assay_chain::{DisputeFilter, Key, Market};
use assay_dispute::{Move, Phase};
use assay_gateway::Entry;
use assay_model::LoadedModel;
use assay_play::{Accuser, Case, Concluded, Grounds, NoDispute};
use assay_protocol::{Address, B256, MicroUsd, ModelId, Receipt, Signed, TypedData};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Receipts of a gateway that are looked at, the newest ones first.
const NEWEST: usize = 500;
/// Games at once.
const GAMES_MAX: usize = 4;
/// How often an open game is looked at.
const POLL: Duration = Duration::from_millis(500);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    network: NetworkArgs,
    /// Receipts as `receipt show --json` makes them: files, or folders that are looked at again and again
    #[arg(value_name = "FILE|FOLDER")]
    paths: Vec<PathBuf>,
    /// A gateway that publishes its receipts; may be given more than once
    #[arg(long = "gateway", value_name = "URL")]
    gateways: Vec<String>,
    #[command(flatten)]
    purse: PurseArgs,
    /// Judge what is there, play what that begins to its end, and leave
    #[arg(long)]
    once: bool,
    /// Seconds from one look to the next
    #[arg(long, default_value_t = 5, value_name = "SECONDS")]
    every: u64,
    /// Threads that re-execute [default: all cores]
    #[arg(long)]
    threads: Option<usize>,
    /// One JSON event a line on standard output
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: Args, home: &Home) -> Result<()> {
    if args.paths.is_empty() && args.gateways.is_empty() {
        return Err(refusal(
            "nothing to watch was named",
            "give files or folders of receipts, or --gateway URL",
        ));
    }
    let market = dispute::disputed(home, &args.network).await?;
    let key = args.purse.key(home, &market)?;
    args.purse.fill(&market, &key).await?;
    let gateways = args.gateways.iter().map(|url| Gateway::at(url));
    let tell = Tell::new(args.json);
    tell.say(&format!(
        "watching for {} with a bond of {} a game; ctrl-c stops it",
        key.address(),
        output::usd(market.deployment().bond)
    ));
    let mut watch = Watch {
        home,
        tell,
        gateways: gateways.collect::<Result<_>>()?,
        paths: args.paths,
        threads: args.threads.unwrap_or_else(judge::threads),
        room: Arc::new(Semaphore::new(GAMES_MAX)),
        stop: CancellationToken::new(),
        games: JoinSet::new(),
        models: BTreeMap::new(),
        seen: BTreeSet::new(),
        receipts: BTreeMap::new(),
        sum: Sum::default(),
        market,
        key,
    };
    let outcome = tokio::select! {
        outcome = watch.go(args.once, Duration::from_secs(args.every.max(1))) => outcome,
        () = interrupt::asked() => Ok(()),
    };
    watch.stop.cancel();
    watch.say_sum();
    outcome
}

/// What a watch came to.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
struct Sum {
    judged: u64,
    honest: u64,
    false_ones: u64,
    /// Too late, of another market, or without its model.
    skipped: u64,
    convicted: u64,
    bounties: MicroUsd,
    lost: MicroUsd,
    timeouts: u64,
}

struct Watch<'a> {
    home: &'a Home,
    market: Market,
    key: Key,
    tell: Tell,
    gateways: Vec<Gateway>,
    paths: Vec<PathBuf>,
    threads: usize,
    room: Arc<Semaphore>,
    stop: CancellationToken,
    games: JoinSet<(Case, Result<Concluded, NoDispute>)>,
    models: BTreeMap<ModelId, Option<LoadedModel>>,
    /// Digests of receipts that were judged.
    seen: BTreeSet<B256>,
    /// By provider, payer and request: two that differ are an offence by themselves.
    receipts: BTreeMap<(Address, Address, B256), Signed<Receipt>>,
    sum: Sum,
}

impl Watch<'_> {
    async fn go(&mut self, once: bool, every: Duration) -> Result<()> {
        loop {
            for evidence in self.look().await? {
                self.judge(evidence).await?;
            }
            self.call_time().await;
            if once {
                while let Some(ended) = self.games.join_next().await {
                    self.ended(ended.context("a game was dropped")?);
                }
                return Ok(());
            }
            let pause = tokio::time::sleep(every);
            tokio::pin!(pause);
            loop {
                tokio::select! {
                    () = &mut pause => break,
                    Some(ended) = self.games.join_next() => {
                        self.ended(ended.context("a game was dropped")?);
                    }
                }
            }
        }
    }

    /// Everything that was published and not judged yet.
    async fn look(&mut self) -> Result<Vec<Evidence>> {
        let mut found = Vec::new();
        for path in self.paths.clone() {
            for file in files(&path)? {
                match read(&file) {
                    Ok(evidence) => found.push(evidence),
                    Err(error) => self.tell.say(&format!("passed over: {error:#}")),
                }
            }
        }
        for gateway in &self.gateways {
            match published(gateway, &self.receipts).await {
                Ok(more) => found.extend(more),
                // It may come back; the others are watched meanwhile.
                Err(error) => self.tell.say(&format!("{}: {error:#}", gateway.url())),
            }
        }
        let domain = self.market.domain();
        found.retain(|evidence| !self.seen.contains(&evidence.receipt.body.digest(&domain)));
        Ok(found)
    }

    async fn judge(&mut self, evidence: Evidence) -> Result<()> {
        let receipt = evidence.receipt.body;
        let digest = receipt.digest(&self.market.domain());
        // Two sources may publish the same receipt.
        if !self.seen.insert(digest) {
            return Ok(());
        }
        if evidence.domain != self.market.domain() || evidence.check_signatures().is_err() {
            return self.skip(&receipt, "it was not signed for this market");
        }
        let case = Case::from(evidence);
        self.convict_twice(&case.receipt).await;
        let ours = self.market.game_id(&receipt, self.key.address());
        let ours = self.market.dispute(ours).await?;
        let playing = ours.is_some_and(|ours| !matches!(ours.game.phase, Phase::Over(_)));
        if !playing && self.market.conviction(digest).await?.is_some() {
            return self.skip(&receipt, "it is convicted already");
        }
        let window_s = self.market.deployment().challenge_window_s;
        let end = receipt.served_at.plus_seconds(window_s);
        if !playing && self.market.chain().now().await? > end {
            return self.skip(&receipt, "its window is over");
        }
        let home = self.home;
        let id = receipt.statement.model_id;
        let model = self.models.entry(id);
        let model = model.or_insert_with(|| judge::find_model(home, id)).clone();
        let Some(model) = model else {
            return self.skip(
                &receipt,
                "its model is not on this machine (`assay model pull`)",
            );
        };
        let (judged, threads) = (case.clone(), self.threads);
        let engine = model.model.clone();
        let task = tokio::task::spawn_blocking(move || judged.grounds(&engine, threads));
        let grounds = match task.await.context("a re-execution was dropped")? {
            Ok(grounds) => grounds,
            Err(error) => return self.skip(&receipt, &error.to_string()),
        };
        self.sum.judged += 1;
        let name = provider_name(self.home, &receipt.provider);
        let receipt_id = output::short_hex(&receipt.request_id);
        let Some(grounds) = grounds else {
            self.sum.honest += 1;
            self.tell.say(&format!(
                "{receipt_id} of {name}: nothing false that a contract could see"
            ));
            self.tell
                .event(&json!({ "event": "honest", "receipt": receipt.request_id }));
            return Ok(());
        };
        self.sum.false_ones += 1;
        let why = match &grounds {
            Grounds::Fact(_) => "false by itself".to_owned(),
            Grounds::Token {
                position,
                claimed,
                chosen,
            } => format!("token {position} is {claimed}; the model chooses {chosen}"),
        };
        self.tell
            .say(&format!("{receipt_id} of {name} is FALSE: {why}"));
        self.tell.event(&json!({ "event": "false", "receipt": receipt.request_id, "provider": receipt.provider, "why": why }));
        self.accuse(case, model);
        Ok(())
    }

    fn skip(&mut self, receipt: &Receipt, why: &str) -> Result<()> {
        self.sum.skipped += 1;
        let id = output::short_hex(&receipt.request_id);
        self.tell.say(&format!("{id} is passed over: {why}"));
        self.tell
            .event(&json!({ "event": "skipped", "receipt": receipt.request_id, "why": why }));
        Ok(())
    }

    /// Plays a game of its own task, so that others are judged meanwhile.
    fn accuse(&mut self, case: Case, model: LoadedModel) {
        let accuser = Accuser {
            market: self.market.clone(),
            key: self.key.clone(),
            threads: self.threads,
            bond_max: self.market.deployment().bond,
            poll: POLL,
            off_chain: true,
        };
        let (room, stop, tell) = (self.room.clone(), self.stop.clone(), self.tell);
        let name = provider_name(self.home, &case.receipt.body.provider);
        self.games.spawn(async move {
            let Ok(_room) = room.acquire_owned().await else {
                return (case, Err(NoDispute::Dropped));
            };
            let told = |told| {
                tell.say(&format!("  {}", narrate::told(&told, &name)));
                tell.event(&dispute::told_json(&told));
            };
            let ended = accuser.accuse(&case, &model.model, &stop, told).await;
            (case, ended)
        });
    }

    fn ended(&mut self, (case, ended): (Case, Result<Concluded, NoDispute>)) {
        let receipt = &case.receipt.body;
        let name = provider_name(self.home, &receipt.provider);
        match ended {
            Ok(concluded) => {
                match concluded {
                    Concluded::Convicted { conviction, .. } => {
                        self.sum.convicted += 1;
                        if conviction.winner == self.key.address() {
                            let sum = &mut self.sum.bounties.0;
                            *sum = sum.saturating_add(conviction.to_winner.0);
                        }
                    }
                    Concluded::Lost { bond, .. } => {
                        self.sum.lost.0 = self.sum.lost.0.saturating_add(bond.0);
                    }
                }
                let me = self.key.address();
                self.tell.say(&narrate::concluded(&concluded, &name, &me));
                let digest = receipt.digest(&self.market.domain());
                self.tell
                    .event(&dispute::concluded_json(&concluded, digest));
            }
            Err(why) => {
                let id = output::short_hex(&receipt.request_id);
                self.tell.say(&format!("no dispute about {id}: {why}"));
                self.tell.event(&json!({ "event": "no_dispute", "receipt": receipt.request_id, "why": why.to_string() }));
                if why.is_passing() {
                    // Judged again with the next look.
                    self.seen.remove(&receipt.digest(&self.market.domain()));
                }
            }
        }
    }

    /// Two receipts that charge one payer twice for one request.
    async fn convict_twice(&mut self, receipt: &Signed<Receipt>) {
        let body = &receipt.body;
        let key = (body.provider, body.payer, body.request_id);
        let Some(first) = self.receipts.get(&key).copied() else {
            self.receipts.insert(key, *receipt);
            return;
        };
        if first.body == *body || first.body.charged.0 == 0 || body.charged.0 == 0 {
            return;
        }
        let name = provider_name(self.home, &body.provider);
        match self.market.equivocation(&self.key, &first, receipt).await {
            Ok(mined) => {
                self.sum.convicted += 1;
                self.tell.say(&format!(
                    "{name} signed two receipts for one request and is convicted of it ({} gas)",
                    mined.gas_used
                ));
                self.tell.event(&json!({ "event": "convicted_twice", "provider": body.provider, "request_id": body.request_id }));
                let digest = body.digest(&self.market.domain());
                if let Ok(Some(conviction)) = self.market.conviction(digest).await {
                    self.sum.bounties.0 =
                        self.sum.bounties.0.saturating_add(conviction.to_winner.0);
                }
            }
            Err(error) => self.tell.say(&format!(
                "{name} signed two receipts for one request, but {error}"
            )),
        }
    }

    /// Ends the games of whoever stalls, its own or not: a stalled game locks a stake and holds a payment.
    async fn call_time(&mut self) {
        let open = DisputeFilter {
            open: true,
            ..DisputeFilter::default()
        };
        let (games, now) = match (
            self.market.disputes(&open).await,
            self.market.chain().now().await,
        ) {
            (Ok(games), Ok(now)) => (games, now),
            (Err(error), _) | (_, Err(error)) => {
                self.tell
                    .say(&format!("the games cannot be read now: {error}"));
                return;
            }
        };
        for stalled in games {
            if stalled.game.turn().is_none() || now <= stalled.game.deadline {
                continue;
            }
            let id = output::short_hex(&stalled.game.id);
            match self.market.play(&self.key, &stalled, &Move::Timeout).await {
                Ok(mined) => {
                    self.sum.timeouts += 1;
                    self.tell.say(&format!(
                        "dispute {id} is ended: its clock ran out ({} gas)",
                        mined.gas_used
                    ));
                    self.tell.event(&json!({ "event": "timeout", "game": stalled.game.id, "gas": mined.gas_used }));
                }
                // Somebody else was first.
                Err(error) => {
                    tracing::info!(%error, game = %stalled.game.id, "a clock was not called")
                }
            }
        }
    }

    fn say_sum(&self) {
        let sum = &self.sum;
        self.tell.say(&format!(
            "{} receipts judged, {} of them false, {} passed over; {} convictions, {} in bounties, {} in bonds lost",
            sum.judged,
            sum.false_ones,
            sum.skipped,
            sum.convicted,
            output::usd(sum.bounties),
            output::usd(sum.lost)
        ));
        self.tell.event(&json!({ "event": "watched", "sum": sum }));
    }
}

/// A file, or the receipts of a folder.
fn files(path: &Path) -> Result<Vec<PathBuf>> {
    if path.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = std::fs::read_dir(path).map_err(|error| {
        refusal(
            format!("cannot watch {}: {error}", path.display()),
            "name a receipt's file or a folder of them",
        )
    })?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|file| file.extension().is_some_and(|end| end == "json"));
    files.sort();
    Ok(files)
}

fn read(file: &Path) -> Result<Evidence> {
    let bytes = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    serde_json::from_slice(&bytes).with_context(|| format!("{} is no receipt", file.display()))
}

/// What a gateway publishes beyond what is known already.
async fn published(
    gateway: &Gateway,
    known: &BTreeMap<(Address, Address, B256), Signed<Receipt>>,
) -> Result<Vec<Evidence>> {
    let mut list = gateway
        .get(&format!("/assay/v1/receipts?limit={NEWEST}"))
        .await?;
    let entries: Vec<Entry> = serde_json::from_value(list["data"].take())
        .context("the gateway's list is of unknown shape")?;
    let mut found = Vec::new();
    for entry in entries {
        let Entry::Receipt(entry) = entry else {
            continue;
        };
        let mut same = known.keys();
        if same.any(|(provider, _, id)| (*provider, *id) == (entry.provider, entry.id)) {
            continue;
        }
        let value = gateway
            .get(&format!("/assay/v1/receipts/{}", entry.id))
            .await?;
        found.push(
            serde_json::from_value(value).context("the gateway's evidence is of unknown shape")?,
        );
    }
    Ok(found)
}
