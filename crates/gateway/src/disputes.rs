//! Takes false answers to the chain: one task a game, a bounded number at once, resumed after a restart. What is false is
//! `assay_audit`'s and `assay_play`'s to say, the moves are the dispute crate's; this file brings bond and patience.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use assay_play::{Accuser, Case, Concluded, NoDispute, Told};
use assay_protocol::{Address, B256, MicroUsd, ModelId, Receipt, Signed, TypedData};
use tokio::sync::{Mutex as AsyncMutex, Semaphore, mpsc};

use crate::events::{Verdict, What};
use crate::gateway::Gateway;
use crate::store::{DisputeState, Entry, StoreError};

/// A chain that does not answer is asked again after pauses that double up to this.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// What is brought to the chain.
pub(crate) enum Work {
    /// An answer whose false statement convicts its provider.
    Answer(B256),
    /// Two receipts for one request.
    Twice(Box<[Signed<Receipt>; 2]>),
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
    mut coming: mpsc::UnboundedReceiver<Work>,
    left_over: Vec<B256>,
) {
    let stop = gateway.shutdown_token();
    let room = Arc::new(Semaphore::new(gateway.config().disputes.games_max.max(1)));
    let turns = Arc::new(Turns::default());
    let mut left_over = left_over.into_iter();
    loop {
        let work = match left_over.next() {
            Some(id) => Work::Answer(id),
            None => tokio::select! {
                work = coming.recv() => match work {
                    Some(work) => work,
                    None => return,
                },
                () = stop.cancelled() => return,
            },
        };
        let (gateway, room, turns) = (gateway.clone(), room.clone(), turns.clone());
        let tasks = gateway.tasks().clone();
        tasks.spawn(async move {
            let stop = gateway.shutdown_token();
            let work = async {
                match work {
                    Work::Answer(id) => dispute(&gateway, id, &room, &turns).await,
                    Work::Twice(receipts) => convict_twice(&gateway, &receipts).await,
                }
            };
            tokio::select! {
                () = work => {}
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
            Ok(concluded) => break concluded_end(id, provider, &concluded, gateway.payer()),
            // The next start goes on from what the chain says.
            Err(trouble) if trouble.is_stop() => return,
            Err(trouble) if trouble.is_passing() && pause < PAUSE_MAX => {
                tracing::warn!(%id, %trouble, "a dispute cannot go on now; trying again");
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
            Err(trouble) => match given_up(gateway, id, provider, &trouble) {
                Some(end) => break end,
                None => return,
            },
        }
    };
    keep(gateway, id, end, true).await;
}

/// Stores how a dispute ended, and says so.
async fn keep(gateway: &Gateway, id: B256, end: End, was_pending: bool) {
    let state = end.state;
    gateway.count_dispute(&state, was_pending);
    if let What::Convicted { provider, .. } = &end.event {
        gateway.providers().slashed(provider);
    }
    let kept = gateway.write(move |store| store.set_dispute(&id, state));
    if let Err(error) = kept.await {
        tracing::error!(%error, "the end of a dispute cannot be stored");
    }
    gateway.tell(end.event);
}

/// What an answer that is not taken to the chain is marked with; a game that is open stays marked so, and the next start
/// tries again.
fn given_up(gateway: &Gateway, id: B256, provider: Address, trouble: &Trouble) -> Option<End> {
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

/// Why an answer is not taken to the chain, or not to its end.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("its evidence is gone")]
    NoEvidence,
    #[error("this gateway does not hold model {0}")]
    NoModel(ModelId),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Dispute(#[from] NoDispute),
}

impl Trouble {
    fn is_stop(&self) -> bool {
        matches!(self, Self::Dispute(trouble) if trouble.is_stop())
    }

    fn is_passing(&self) -> bool {
        matches!(self, Self::Dispute(trouble) if trouble.is_passing())
    }
}

/// Takes one answer to the chain, or goes on with its game, until it is over.
async fn take(gateway: &Gateway, id: B256, provider: Address) -> Result<Concluded, Trouble> {
    let evidence = gateway.write(move |store| store.evidence(&id)).await?;
    let evidence = evidence.ok_or(Trouble::NoEvidence)?;
    let model_id = evidence.receipt.body.statement.model_id;
    let model = gateway.model_by_id(&model_id);
    let model = &model.ok_or(Trouble::NoModel(model_id))?.model;
    let case = Case::from(evidence);
    let policy = gateway.config().disputes;
    let accuser = Accuser {
        market: gateway.market().clone(),
        key: gateway.payer_key().clone(),
        threads: gateway.config().audit_threads.max(1),
        bond_max: policy.bond_max,
        poll: policy.poll,
        off_chain: policy.off_chain,
    };
    let tell = |told| tell(gateway, id, provider, told);
    let stop = gateway.shutdown_token();
    Ok(accuser.accuse(&case, model, &stop, tell).await?)
}

fn tell(gateway: &Gateway, request_id: B256, provider: Address, told: Told) {
    match told {
        Told::Opened {
            game, bond, gas, ..
        } => {
            // One short write, before anything else happens in the game; the chain remembers it even if this fails.
            let open = DisputeState::Open { game };
            if let Err(error) = gateway.store().set_dispute(&request_id, open) {
                tracing::error!(%error, "an open dispute cannot be stored");
            }
            gateway.tell(What::Disputed {
                request_id,
                provider,
                game,
                bond,
                gas,
            });
        }
        Told::Moved { game, played } => gateway.tell(What::Moved {
            request_id,
            provider,
            game,
            played,
        }),
    }
}

fn concluded_end(
    request_id: B256,
    provider: Address,
    concluded: &Concluded,
    payer: Address,
) -> End {
    match *concluded {
        Concluded::Convicted { game, conviction } => {
            let ours = conviction.winner == payer;
            let bounty = if ours {
                conviction.to_winner
            } else {
                MicroUsd::ZERO
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
        Concluded::Lost { game, bond } => End {
            state: DisputeState::Lost { game, bond },
            event: What::NotConvicted {
                request_id,
                provider,
                game,
                bond,
                reason: "this gateway's clock ran out, and its bond went to the provider".into(),
            },
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
        self.count_dispute(&DisputeState::Waiting, false);
        self.bring(Work::Answer(id));
    }

    /// Whether this receipt and one that is kept charge one request twice; then both go to the chain. Returns at once.
    pub(crate) fn accuse_twice(&self, second: Signed<Receipt>) {
        let id = second.body.request_id;
        let Ok(Some(first)) = self.store().evidence(&id) else {
            return;
        };
        let first = first.receipt;
        let (one, two) = (&first.body, &second.body);
        let twice = one != two
            && (one.provider, one.payer) == (two.provider, two.payer)
            && one.charged > MicroUsd::ZERO
            && two.charged > MicroUsd::ZERO;
        if !twice || !self.config().disputes.open {
            return;
        }
        self.bring(Work::Twice(Box::new([first, second])));
    }
}

/// Two receipts for one request need no game.
async fn convict_twice(gateway: &Gateway, [first, second]: &[Signed<Receipt>; 2]) {
    let (request_id, provider) = (first.body.request_id, first.body.provider);
    let (market, key) = (gateway.market(), gateway.payer_key());
    let digest = first.body.digest(&market.domain());
    let convicted = async {
        market.equivocation(key, first, second).await?;
        market.conviction(digest).await
    };
    match convicted.await {
        Ok(Some(conviction)) => {
            let concluded = Concluded::Convicted {
                game: None,
                conviction,
            };
            let end = concluded_end(request_id, provider, &concluded, gateway.payer());
            keep(gateway, request_id, end, false).await;
        }
        Ok(None) => {
            tracing::error!(%request_id, "the chain took two receipts and convicted nobody")
        }
        Err(error) => {
            let reason = format!("it signed two receipts for one request, but {error}");
            gateway.tell(What::NotDisputed {
                request_id,
                provider,
                reason,
            });
        }
    }
}
