//! Takes false answers to the chain: one task a game, a bounded number at once, resumed after a restart. What is false is
//! `assay_audit`'s and `assay_play`'s to say, the moves are the dispute crate's; this file brings bond and patience.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use assay_chain::{ChainError, Conviction};
use assay_dispute::{Outcome, Side};
use assay_model::LoadedModel;
use assay_play::{Brain, Case, Finished, Grounds, NoCase, Parted, PlayError, Played, Seat};
use assay_protocol::{Address, B256, MicroUsd, TypedData};
use tokio::sync::{Mutex as AsyncMutex, Semaphore, mpsc};

use crate::events::{Verdict, What};
use crate::gateway::Gateway;
use crate::store::{DisputeState, Entry, StoreError};

/// A chain that does not answer is asked again after pauses that double up to this.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Why an answer is not taken to the chain, or not to its end.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    /// Nothing will change by trying again.
    #[error("{0}")]
    NoGame(String),
    #[error(transparent)]
    Chain(#[from] ChainError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Case(#[from] NoCase),
    #[error(transparent)]
    Play(#[from] PlayError),
    #[error("the gateway is stopping")]
    Stopping,
}

/// How a dispute ended, for the ledger and for who listens.
struct End {
    state: DisputeState,
    event: What,
}

/// One game about a provider at a time: the first conviction takes the whole stake.
type Turns = Mutex<HashMap<Address, Arc<AsyncMutex<()>>>>;

/// Works until the gateway stops: first what an earlier life left, then what comes.
pub(crate) async fn run(
    gateway: Arc<Gateway>,
    mut coming: mpsc::UnboundedReceiver<B256>,
    left_over: Vec<B256>,
) {
    let stop = gateway.shutdown_token();
    let room = Arc::new(Semaphore::new(gateway.config().disputes.games_max.max(1)));
    let turns = Arc::new(Turns::default());
    let mut left_over = left_over.into_iter();
    loop {
        let id = match left_over.next() {
            Some(id) => id,
            None => tokio::select! {
                id = coming.recv() => match id {
                    Some(id) => id,
                    None => return,
                },
                () = stop.cancelled() => return,
            },
        };
        let (gateway, room, turns) = (gateway.clone(), room.clone(), turns.clone());
        let tasks = gateway.tasks().clone();
        tasks.spawn(async move {
            let stop = gateway.shutdown_token();
            tokio::select! {
                () = dispute(&gateway, id, &room, &turns) => {}
                () = stop.cancelled() => {}
            }
        });
    }
}

async fn dispute(gateway: &Gateway, id: B256, room: &Semaphore, turns: &Turns) {
    let provider = match gateway.store().entry(&id) {
        Ok(Some(Entry::Receipt(entry))) => entry.provider,
        _ => return,
    };
    let turn = {
        let mut turns = turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.entry(provider).or_default().clone()
    };
    let _turn = turn.lock().await;
    let Ok(_room) = room.acquire().await else {
        return;
    };
    let mut pause = gateway.config().disputes.poll;
    let end = loop {
        match take(gateway, id, provider).await {
            Ok(end) => break end,
            // The next start goes on from what the chain says.
            Err(Trouble::Stopping | Trouble::Play(PlayError::Stopped)) => return,
            Err(Trouble::Chain(error))
                if !matches!(
                    error,
                    ChainError::Refused { .. } | ChainError::Reverted { .. }
                ) && pause < PAUSE_MAX =>
            {
                tracing::warn!(%id, %error, "a dispute cannot go on now; trying again");
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
            Err(trouble) => match given_up(gateway, id, provider, trouble) {
                Some(end) => break end,
                None => return,
            },
        }
    };
    let state = end.state;
    if let Err(error) = gateway
        .write(move |store| store.set_dispute(&id, state))
        .await
    {
        tracing::error!(%error, "the end of a dispute cannot be stored");
    }
    gateway.tell(end.event);
}

/// What an answer that is not taken to the chain is marked with; a game that is open stays marked so, and the next start
/// tries again.
fn given_up(gateway: &Gateway, id: B256, provider: Address, trouble: Trouble) -> Option<End> {
    let reason = trouble.to_string();
    let entry = gateway.store().entry(&id).ok().flatten();
    if let Some(Entry::Receipt(entry)) = entry
        && matches!(entry.dispute, Some(DisputeState::Open { .. }))
    {
        tracing::error!(%id, reason, "a dispute that is open cannot be played: the bond is at risk");
        return None;
    }
    Some(End {
        state: DisputeState::NotOpened {
            reason: reason.clone(),
        },
        event: What::NotDisputed {
            request_id: id,
            provider,
            reason,
        },
    })
}

/// Takes one answer to the chain, or goes on with its game, until it is over.
async fn take(gateway: &Gateway, id: B256, provider: Address) -> Result<End, Trouble> {
    let (case, model) = case(gateway, id)?;
    let market = gateway.market();
    let receipt = case.receipt.body;
    let digest = receipt.digest(&market.domain());
    let game = market.game_id(&receipt, gateway.payer());
    let resumed = market.dispute(game).await?;
    if resumed.is_none() {
        if let Some(conviction) = market.conviction(digest).await? {
            return Ok(convicted(id, provider, None, conviction, gateway.payer()));
        }
        if let Some(fact) = open(gateway, &case, &model, game).await? {
            let mined = market
                .prove_fact(gateway.payer_key(), &case.receipt, &fact)
                .await?;
            gateway.tell(What::Moved {
                request_id: id,
                provider,
                game,
                played: Played {
                    ours: true,
                    action: "proves the statement false by itself".into(),
                    gas: Some(mined.gas_used),
                    transaction: Some(mined.hash),
                    parted: Some(Parted::by_fact(&fact)),
                },
            });
            let conviction = market.conviction(digest).await?;
            let missing =
                || Trouble::NoGame("the chain took the proof and tells of no conviction".into());
            let conviction = conviction.ok_or_else(missing)?;
            return Ok(convicted(id, provider, None, conviction, gateway.payer()));
        }
    }
    let finished = play(gateway, &case, &model, game, id, provider).await?;
    let bond = market.deployment().bond;
    Ok(match (finished.outcome, finished.conviction) {
        (Outcome::Convicted | Outcome::Closed, Some(conviction)) => {
            convicted(id, provider, Some(game), conviction, gateway.payer())
        }
        (outcome, _) => lost(id, provider, game, bond, outcome),
    })
}

fn case(gateway: &Gateway, id: B256) -> Result<(Case, LoadedModel), Trouble> {
    let evidence = gateway.store().evidence(&id)?;
    let evidence = evidence.ok_or_else(|| Trouble::NoGame("its evidence is gone".into()))?;
    let model_id = evidence.receipt.body.statement.model_id;
    let model = gateway.model_by_id(&model_id).cloned();
    let model = model
        .ok_or_else(|| Trouble::NoGame(format!("this gateway does not hold model {model_id}")))?;
    let case = Case {
        receipt: evidence.receipt,
        prompt: evidence.prompt,
        sampler: evidence.sampler,
        output: evidence.output,
    };
    Ok((case, model))
}

/// Opens a game, if there are grounds for one that a contract can see. A fact needs none and is returned instead.
async fn open(
    gateway: &Gateway,
    case: &Case,
    model: &LoadedModel,
    game: B256,
) -> Result<Option<assay_dispute::Fact>, Trouble> {
    let (market, receipt) = (gateway.market(), case.receipt.body);
    let deployment = market.deployment();
    let end = receipt
        .served_at
        .plus_seconds(deployment.challenge_window_s);
    if market.chain().now().await? > end {
        let reason = "the window in which it could be challenged is over";
        return Err(Trouble::NoGame(reason.into()));
    }
    let stake = market
        .provider(receipt.provider)
        .await?
        .map(|known| known.stake);
    if stake.unwrap_or_default() == MicroUsd::ZERO {
        return Err(Trouble::NoGame("its stake is gone already".into()));
    }
    match grounds(gateway, case, model).await? {
        None => {
            let reason = "what is false about it cannot be shown to a contract";
            return Err(Trouble::NoGame(reason.into()));
        }
        Some(Grounds::Fact(fact)) => return Ok(Some(fact)),
        Some(Grounds::Token { .. }) => {}
    }
    let (bond, key) = (deployment.bond, gateway.payer_key());
    if bond > gateway.config().disputes.bond_max {
        let reason = format!("a bond of {bond} is more than this gateway puts up");
        return Err(Trouble::NoGame(reason));
    }
    let balance = market.balance(key.address()).await?;
    if balance < bond {
        let reason = format!(
            "a bond of {bond} is due, and the account {} holds {balance}",
            key.address()
        );
        return Err(Trouble::NoGame(reason));
    }
    if !market.is_published(model.model.id()).await? {
        let manifest = model.model.manifest().encode();
        market.publish_model(key, &manifest).await?;
    }
    let (opened, mined) = market
        .open_dispute(key, &case.receipt, &case.sampler)
        .await?;
    debug_assert_eq!(opened, game);
    let id = receipt.request_id;
    gateway
        .write(move |store| store.set_dispute(&id, DisputeState::Open { game: opened }))
        .await?;
    gateway.tell(What::Disputed {
        request_id: id,
        provider: receipt.provider,
        game: opened,
        bond,
        gas: mined.gas_used,
    });
    Ok(None)
}

async fn grounds(
    gateway: &Gateway,
    case: &Case,
    model: &LoadedModel,
) -> Result<Option<Grounds>, Trouble> {
    let (case, model) = (case.clone(), model.model.clone());
    let threads = gateway.config().audit_threads.max(1);
    let task = tokio::task::spawn_blocking(move || case.grounds(&model, threads));
    Ok(task.await.map_err(|_| Trouble::Stopping)??)
}

async fn play(
    gateway: &Gateway,
    case: &Case,
    model: &LoadedModel,
    game: B256,
    request_id: B256,
    provider: Address,
) -> Result<Finished, Trouble> {
    let (case, model) = (case.clone(), model.model.clone());
    let threads = gateway.config().audit_threads.max(1);
    let task = tokio::task::spawn_blocking(move || case.trace(&model, threads));
    let trace = task.await.map_err(|_| Trouble::Stopping)??;
    let brain = Brain::new(trace).map_err(|error| Trouble::NoGame(error.to_string()))?;
    let seat = Seat {
        market: gateway.market().clone(),
        key: gateway.payer_key().clone(),
        side: Side::Challenger,
        poll: gateway.config().disputes.poll,
    };
    let tell = |played| {
        gateway.tell(What::Moved {
            request_id,
            provider,
            game,
            played,
        });
    };
    Ok(seat
        .play(game, &brain, &gateway.shutdown_token(), tell)
        .await?)
}

fn convicted(
    request_id: B256,
    provider: Address,
    game: Option<B256>,
    conviction: Conviction,
    payer: Address,
) -> End {
    let bounty = match conviction.winner == payer {
        true => conviction.to_winner,
        false => MicroUsd::ZERO,
    };
    End {
        state: DisputeState::Convicted {
            game,
            bounty,
            refund: conviction.to_payer,
        },
        event: What::Convicted {
            request_id,
            provider,
            game,
            conviction: Verdict {
                winner: conviction.winner,
                slashed: conviction.stake,
                to_winner: conviction.to_winner,
                to_payer: conviction.to_payer,
                burned: conviction.burned,
            },
        },
    }
}

fn lost(request_id: B256, provider: Address, game: B256, bond: MicroUsd, outcome: Outcome) -> End {
    let reason = match outcome {
        Outcome::Rejected => "this gateway's clock ran out, and its bond went to the provider",
        Outcome::Convicted | Outcome::Closed => "the chain tells of no conviction",
    };
    End {
        state: DisputeState::Lost { game, bond },
        event: What::NotConvicted {
            request_id,
            provider,
            game,
            bond,
            reason: reason.into(),
        },
    }
}

impl Gateway {
    /// Takes a false answer to the chain, if this gateway does such things. Returns at once.
    pub(crate) async fn accuse(&self, id: B256) {
        if !self.config().disputes.open || self.market().deployment().dispute_game.is_zero() {
            return;
        }
        let entry = self.store().entry(&id);
        let known = |entry: &Entry| match entry {
            Entry::Receipt(entry) => entry.dispute.is_some(),
            Entry::Unverified(_) => true,
        };
        // Judged before: its dispute is on its way, or over.
        if entry.ok().flatten().is_none_or(|entry| known(&entry)) {
            return;
        }
        let waiting =
            move |store: &crate::store::Store| store.set_dispute(&id, DisputeState::Waiting);
        if let Err(error) = self.write(waiting).await {
            tracing::error!(%error, "a dispute cannot be stored");
            return;
        }
        self.bring(id);
    }
}
