//! Defends this node's receipts on the chain: watches for games against it, makes the trace of what was really computed,
//! and plays. Never blocks serving, never gives up while a clock runs. What to move is the dispute crate's to say.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use assay_chain::{Dispute, DisputeFilter};
use assay_dispute::{Below, Node, Outcome, Phase, Side};
use assay_play::{Brain, Case, NoCase, PlayError, Played, Seat};
use assay_protocol::{B256, MicroUsd, Timestamp};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::clock::now;
use crate::config::DefenceConfig;
use crate::keep::KeepError;

/// Games that are remembered for who asks, open ones apart.
const REMEMBERED_MAX: usize = 64;
/// Nodes of a trace that one game gives off the chain; a way down takes about ten.
const SERVED_MAX: u32 = 64;
/// The longest pause before a game that could not be played is tried again.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// How often old evidence is forgotten.
const PRUNE_EVERY: Duration = Duration::from_secs(600);

/// A game against this node, as it tells of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Defended {
    pub game: B256,
    pub request_id: B256,
    pub state: DefenceState,
    /// Both sides', as this node saw them.
    pub moves: Vec<Played>,
    /// Nodes of its trace that were given off the chain.
    pub served: u32,
    /// Names the trace.
    pub receipt_digest: B256,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum DefenceState {
    Playing,
    /// The challenger's bond is this node's.
    Won {
        bond: MicroUsd,
    },
    /// The stake is gone.
    Lost,
    /// Nothing is played, for this reason; the clock runs.
    Stuck {
        reason: String,
    },
}

/// All games of this node.
#[derive(Default)]
pub(crate) struct Games {
    told: Mutex<BTreeMap<B256, Defended>>,
    /// One trace a receipt, however many challengers there are.
    brains: tokio::sync::Mutex<BTreeMap<B256, Brain>>,
}

impl Games {
    fn told(&self) -> MutexGuard<'_, BTreeMap<B256, Defended>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A node of the trace behind an open game, for who asks off the chain. Each may cost a run of the model, so that a
    /// game gives only so many, one at a time.
    pub(crate) async fn below(&self, game: &B256, node: Node) -> Option<Below> {
        let digest = {
            let mut told = self.told();
            let defended = told.get_mut(game)?;
            let open = defended.state == DefenceState::Playing && defended.served < SERVED_MAX;
            if !open {
                return None;
            }
            defended.served += 1;
            defended.receipt_digest
        };
        // Held while it is answered: one at a time.
        let brains = self.brains.lock().await;
        let brain = brains.get(&digest)?;
        match brain.below(node).await {
            Ok(below) => Some(below),
            Err(error) => {
                tracing::debug!(%error, ?node, "a node that was asked for is not there");
                None
            }
        }
    }

    pub(crate) fn all(&self) -> Vec<Defended> {
        self.told().values().cloned().collect()
    }

    fn amend(&self, game: &B256, change: impl FnOnce(&mut Defended)) {
        if let Some(defended) = self.told().get_mut(game) {
            change(defended);
        }
    }

    fn begin(&self, game: B256, receipt_digest: B256, request_id: B256) {
        let mut told = self.told();
        let over = |defended: &Defended| defended.state != DefenceState::Playing;
        if told.len() >= REMEMBERED_MAX
            && let Some(old) = told.iter().find(|(_, defended)| over(defended))
        {
            let old = *old.0;
            told.remove(&old);
        }
        told.insert(
            game,
            Defended {
                game,
                request_id,
                state: DefenceState::Playing,
                moves: Vec::new(),
                served: 0,
                receipt_digest,
            },
        );
    }
}

/// Why a game is not played.
#[derive(Debug, thiserror::Error)]
enum Stuck {
    #[error(
        "the evidence of this receipt is not here: it was served by another node, or is too old"
    )]
    NoEvidence,
    #[error("the game is about another receipt than the one that was signed for this request")]
    OtherReceipt,
    #[error("this node does not serve model {0} any more: serve it to defend what it said")]
    NoModel(B256),
    #[error(transparent)]
    Keep(#[from] KeepError),
    #[error(transparent)]
    Case(#[from] NoCase),
    #[error("no thread for the trace: {0}")]
    Thread(#[from] std::io::Error),
    #[error(transparent)]
    Play(#[from] PlayError),
    #[error("the trace was dropped")]
    Dropped,
}

/// Watches and plays until told to stop.
pub(crate) async fn run(app: Arc<App>, config: DefenceConfig, stop: CancellationToken) {
    if app.till.market.deployment().dispute_game.is_zero() {
        return;
    }
    publish(&app).await;
    let mut playing = BTreeSet::new();
    let mut pruned: Option<tokio::time::Instant> = None;
    loop {
        let filter = DisputeFilter {
            provider: Some(app.provider),
            open: true,
            ..DisputeFilter::default()
        };
        match app.till.market.disputes(&filter).await {
            Ok(open) => {
                let there: BTreeSet<B256> = open.iter().map(|dispute| dispute.game.id).collect();
                // A challenger may open the same game anew once it is over.
                playing.retain(|game| there.contains(game));
                for dispute in &open {
                    if playing.insert(dispute.game.id) {
                        let task = defend(Arc::clone(&app), config, dispute.clone(), stop.clone());
                        let stopped = stop.clone().cancelled_owned();
                        // Whatever it waits for: a node that stops lets go of its books.
                        tokio::spawn(async move {
                            tokio::select! {
                                () = task => {}
                                () = stopped => {}
                            }
                        });
                    }
                }
                if pruned.is_none_or(|at| at.elapsed() >= PRUNE_EVERY) {
                    pruned = Some(tokio::time::Instant::now());
                    forget(&app, &open).await;
                }
            }
            Err(error) => tracing::warn!(%error, "games against this node cannot be read now"),
        }
        tokio::select! {
            () = tokio::time::sleep(config.poll) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Plays one game to its end.
async fn defend(app: Arc<App>, config: DefenceConfig, dispute: Dispute, stop: CancellationToken) {
    let (game, digest) = (dispute.game.id, dispute.game.receipt);
    app.games
        .begin(game, digest, dispute.receipt.body.request_id);
    if !app.conduct.defends() {
        let reason = "this node withholds its trace on purpose".to_owned();
        tracing::warn!(%game, reason);
        app.games.amend(&game, |defended| {
            defended.state = DefenceState::Stuck { reason }
        });
        return;
    }
    tracing::warn!(%game, request_id = %dispute.receipt.body.request_id, challenger = %dispute.game.challenger,
        "a receipt of this node is disputed; defending it");
    let mut pause = config.poll;
    let outcome = loop {
        app.games
            .amend(&game, |defended| defended.state = DefenceState::Playing);
        match play(&app, &config, &dispute, &stop).await {
            Ok(outcome) => break outcome,
            Err(Stuck::Play(PlayError::Stopped)) => return,
            Err(stuck) => {
                let reason = stuck.to_string();
                tracing::error!(%game, reason, "a receipt cannot be defended now: the stake is at risk");
                app.games.amend(&game, |defended| {
                    defended.state = DefenceState::Stuck { reason }
                });
            }
        }
        // While the clock runs it is tried again; somebody may have repaired what was missing.
        pause = (pause * 2).min(PAUSE_MAX);
        tokio::time::sleep(pause).await;
        let looked = app.till.market.dispute(game).await;
        if let Ok(Some(looked)) = looked
            && let Phase::Over(outcome) = looked.game.phase
        {
            break outcome;
        }
    };
    let state = match outcome {
        Outcome::Rejected => {
            let bond = app.till.market.deployment().bond;
            tracing::info!(%game, %bond, "the dispute is won; the challenger's bond is ours");
            DefenceState::Won { bond }
        }
        Outcome::Convicted | Outcome::Closed => {
            tracing::error!(%game, "the dispute is lost, and the stake with it");
            DefenceState::Lost
        }
    };
    app.games.amend(&game, |defended| defended.state = state);
    // The trace is of no more use once the last game about its receipt is over.
    let about =
        |other: &Defended| other.receipt_digest == digest && other.state == DefenceState::Playing;
    if !app.games.all().iter().any(about) {
        app.games.brains.lock().await.remove(&digest);
    }
}

async fn play(
    app: &App,
    config: &DefenceConfig,
    dispute: &Dispute,
    stop: &CancellationToken,
) -> Result<Outcome, Stuck> {
    let brain = brain(app, config, dispute).await?;
    let seat = Seat {
        market: app.till.market.clone(),
        key: app.key.clone(),
        side: Side::Provider,
        poll: config.poll,
        off_chain: None,
    };
    let game = dispute.game.id;
    let tell = |played: Played| {
        let who = if played.ours { "we" } else { "the challenger" };
        tracing::info!(%game, "{who}: {}", played.action);
        app.games
            .amend(&game, |defended| defended.moves.push(played));
    };
    Ok(seat.play(game, &brain, stop, tell).await?.outcome)
}

/// The trace of what was computed for this receipt, made once.
async fn brain(app: &App, config: &DefenceConfig, dispute: &Dispute) -> Result<Brain, Stuck> {
    let digest = dispute.game.receipt;
    // Made one at a time, as each runs the model; under this lock, so that two games do not make the same trace twice.
    let mut brains = app.games.brains.lock().await;
    if let Some(brain) = brains.get(&digest) {
        return Ok(brain.clone());
    }
    let id = dispute.receipt.body.request_id;
    let keep = Arc::clone(&app.keep);
    let kept = tokio::task::spawn_blocking(move || keep.find(&id)).await;
    let kept = kept
        .map_err(|_| Stuck::Dropped)??
        .ok_or(Stuck::NoEvidence)?;
    if kept.receipt.body != dispute.receipt.body {
        return Err(Stuck::OtherReceipt);
    }
    let model_id = kept.receipt.body.statement.model_id;
    let ware = app.wares.iter().find(|ware| ware.id == model_id);
    let claimed = &ware.ok_or(Stuck::NoModel(model_id))?.loaded.model;
    let (model, threads) = (app.conduct.model(claimed), config.threads.max(1));
    let case = Case::from(kept);
    let made = tokio::task::spawn_blocking(move || case.trace(&model, threads)).await;
    let brain = Brain::new(made.map_err(|_| Stuck::Dropped)??)?;
    brains.insert(digest, brain.clone());
    Ok(brain)
}

/// Brings the manifests of what is served to the chain, where a referee reads them; without them nobody could play.
async fn publish(app: &App) {
    let market = &app.till.market;
    for ware in &app.wares {
        match market.is_published(ware.id).await {
            Ok(true) => continue,
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(%error, "the chain cannot be asked for the model's manifest");
                continue;
            }
        }
        let manifest = ware.loaded.model.manifest().encode();
        match market.publish_model(&app.key, &manifest).await {
            Ok(mined) => {
                tracing::info!(model = %ware.id, gas = mined.gas_used, "the model's manifest is published");
            }
            // Another node of this model may have come first.
            Err(error) => {
                tracing::warn!(%error, model = %ware.id, "the model's manifest was not published")
            }
        }
    }
}

async fn forget(app: &App, open: &[Dispute]) {
    let deployment = app.till.market.deployment();
    let kept_s = kept_s(
        deployment.challenge_window_s,
        deployment.response_s.into(),
        deployment.extension_s.into(),
    );
    let end = Timestamp(now().0.saturating_sub(kept_s));
    let mut open: Vec<B256> = open.iter().map(|d| d.receipt.body.request_id).collect();
    // What is still to be proven is proven from the same evidence.
    open.extend(app.proofs.iter().flat_map(|proofs| proofs.unmade()));
    let keep = Arc::clone(&app.keep);
    match tokio::task::spawn_blocking(move || keep.prune(end, &open)).await {
        Ok(Ok(0)) | Err(_) => {}
        Ok(Ok(forgotten)) => tracing::debug!(forgotten, "old evidence is forgotten"),
        Ok(Err(error)) => tracing::warn!(%error, "old evidence cannot be forgotten"),
    }
}

/// Most turns of a game: the root, then a request and a reveal for each part of the way down three trees of at most 2^32
/// leaves and to a chunk's bytes, then the proof.
const TURNS_MAX: u64 = 2 + 2 * (3 * 7 + 1);

/// How long a receipt can be disputed and a game about it can last.
fn kept_s(window_s: u64, response_s: u64, extension_s: u64) -> u64 {
    let game_s = TURNS_MAX
        .saturating_mul(response_s)
        .saturating_add(extension_s.saturating_mul(2));
    // A day on top costs little and forgives a slow chain.
    window_s.saturating_add(game_s).saturating_add(86_400)
}

#[cfg(test)]
mod tests {
    use super::kept_s;

    #[test]
    fn evidence_outlives_the_longest_game_of_a_real_network() {
        let (hour, day) = (3_600, 86_400);
        // A window of a day, then 46 turns of two hours and both extensions of eight.
        assert_eq!(
            kept_s(day, 2 * hour, 8 * hour),
            day + 46 * 2 * hour + 16 * hour + day
        );
    }
}
