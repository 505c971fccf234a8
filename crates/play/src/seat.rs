//! One side of one game, played to its end. The dispute crate decides; this shell reads the chain, waits, sends, and
//! survives a chain that is slow, moves that come too late and others that move first.

use std::collections::BTreeSet;
use std::time::Duration;

use assay_chain::{ChainError, Conviction, Dispute, Key, Market, Mined};
use assay_dispute::{Game, Move, Outcome, Phase, Side};
use assay_protocol::{B256, Timestamp};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::brain::{Brain, Thoughtless};
use crate::parted::Parted;
use crate::served::OffChain;
use crate::words::{describe_move, describe_reveal};

/// A move that the chain refuses this often in one position is wrong, not late.
const REFUSALS_MAX: u32 = 3;
/// The longest pause after the chain could not be asked.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// Who plays, with what key.
#[derive(Clone, Debug)]
pub struct Seat {
    pub market: Market,
    /// Pays the gas; for the provider's first move it must be the owner's or the present offer key.
    pub key: Key,
    pub side: Side,
    /// How often the game is looked at.
    pub poll: Duration,
    /// Where a challenger may ask the provider for its trace, and so save itself most moves.
    pub off_chain: Option<OffChain>,
}

/// One move, as it is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Played {
    /// Whether this seat made it.
    pub ours: bool,
    /// In plain words, as a sentence goes on after the mover's name.
    pub action: String,
    /// What it cost; known of one's own moves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gas: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transaction: Option<B256>,
    /// What the move proves false, if it is a proof.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parted: Option<Parted>,
}

/// A game that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finished {
    pub outcome: Outcome,
    /// How the receipt was convicted, here or in another game.
    pub conviction: Option<Conviction>,
}

/// Why a game cannot be played on.
#[derive(Debug, thiserror::Error)]
pub enum PlayError {
    #[error("there is no game {0}: see `assay dispute list`")]
    NoGame(B256),
    #[error(transparent)]
    Undecided(#[from] Thoughtless),
    #[error(transparent)]
    Chain(#[from] ChainError),
    #[error("the chain refuses the move ({action}): {error}")]
    Refused { action: String, error: ChainError },
    #[error("stopped; the game goes on with the next start")]
    Stopped,
}

impl Seat {
    /// Plays until the game is over or `stop` is cancelled. What the chain does not answer is asked again: while a clock
    /// runs, giving up is losing.
    pub async fn play(
        &self,
        id: B256,
        brain: &Brain,
        stop: &CancellationToken,
        mut tell: impl FnMut(Played) + Send,
    ) -> Result<Finished, PlayError> {
        let mut told = Told::default();
        let mut pause = self.poll;
        loop {
            let looked = tokio::select! {
                looked = self.look(id) => looked,
                () = stop.cancelled() => return Err(PlayError::Stopped),
            };
            let (dispute, now) = match looked {
                Ok(Some(looked)) => looked,
                Ok(None) => return Err(PlayError::NoGame(id)),
                Err(error) => {
                    tracing::warn!(%error, game = %id, "the game cannot be read now; trying again");
                    pause = (pause * 2).min(PAUSE_MAX);
                    wait(pause, stop).await?;
                    continue;
                }
            };
            told.theirs(&dispute.game, self.side, &mut tell);
            if let Phase::Over(outcome) = dispute.game.phase {
                return Ok(Finished {
                    outcome,
                    conviction: dispute.conviction,
                });
            }
            let moved = self
                .turn(&dispute, now, brain, &mut told, &mut tell)
                .await?;
            if !moved {
                pause = self.poll;
                wait(pause, stop).await?;
            }
        }
    }

    /// Makes the moves that are due now and says how many there were; the game as it was before them.
    pub async fn step(
        &self,
        id: B256,
        brain: &Brain,
        mut tell: impl FnMut(Played) + Send,
    ) -> Result<(usize, Dispute), PlayError> {
        let looked = self.look(id).await?.ok_or(PlayError::NoGame(id))?;
        let (dispute, now) = looked;
        let moves = brain.moves(&dispute.game, self.side, now).await?;
        for play in &moves {
            let mined = self.market.play(&self.key, &dispute, play).await?;
            tell(ours(play, &mined, brain).await);
        }
        Ok((moves.len(), dispute))
    }

    /// Makes the moves that are due now. Whether the game should be looked at again at once.
    async fn turn(
        &self,
        dispute: &Dispute,
        now: Timestamp,
        brain: &Brain,
        told: &mut Told,
        tell: &mut (impl FnMut(Played) + Send),
    ) -> Result<bool, PlayError> {
        self.ask_off_chain(&dispute.game, brain, told).await;
        let moves = brain.moves(&dispute.game, self.side, now).await?;
        for play in &moves {
            let action = describe_move(play);
            match self.market.play(&self.key, dispute, play).await {
                Ok(mined) => {
                    told.refused = 0;
                    tell(ours(play, &mined, brain).await);
                }
                Err(error @ (ChainError::Refused { .. } | ChainError::Reverted { .. })) => {
                    // Somebody else may have ended the game, or moved for us: look again.
                    told.refused += 1;
                    tracing::warn!(%error, action, "a move was refused");
                    if told.refused >= REFUSALS_MAX {
                        return Err(PlayError::Refused { action, error });
                    }
                    return Ok(false);
                }
                Err(error) => {
                    tracing::warn!(%error, action, "a move could not be sent; trying again");
                    return Ok(false);
                }
            }
        }
        Ok(!moves.is_empty())
    }

    /// Tries the fast path, once a game: before the first request, when the root is known.
    async fn ask_off_chain(&self, game: &Game, brain: &Brain, told: &mut Told) {
        let ours = self.side == Side::Challenger && game.phase == Phase::Request;
        let Some(off_chain) = self.off_chain.as_ref().filter(|_| ours && !told.asked) else {
            return;
        };
        told.asked = true;
        match off_chain.descend(game, brain).await {
            Ok(shown) => {
                tracing::info!(game = %game.id, shown, "the provider showed its trace off the chain")
            }
            Err(reason) => {
                tracing::info!(game = %game.id, reason, "the provider shows nothing off the chain; asking on it")
            }
        }
    }

    async fn look(&self, id: B256) -> Result<Option<(Dispute, Timestamp)>, ChainError> {
        let dispute = self.market.dispute(id).await?;
        let now = self.market.chain().now().await?;
        Ok(dispute.map(|dispute| (dispute, now)))
    }
}

/// A move of this seat, as it is told.
async fn ours(play: &Move, mined: &Mined, brain: &Brain) -> Played {
    Played {
        ours: true,
        action: describe_move(play),
        gas: Some(mined.gas_used),
        transaction: Some(mined.hash),
        parted: parted(play, brain).await,
    }
}

/// What a proof shows, for who watches; that it cannot be said is no reason to stop.
async fn parted(play: &Move, brain: &Brain) -> Option<Parted> {
    match play {
        Move::ProveFact { fact } => Some(Parted::by_fact(fact)),
        Move::Prove { step } => brain.parted(step).await.ok(),
        _ => None,
    }
}

async fn wait(pause: Duration, stop: &CancellationToken) -> Result<(), PlayError> {
    tokio::select! {
        () = tokio::time::sleep(pause) => Ok(()),
        () = stop.cancelled() => Err(PlayError::Stopped),
    }
}

/// What was told already, so that the other side's moves are told once.
#[derive(Default)]
struct Told {
    reveals: usize,
    requests: BTreeSet<assay_dispute::Node>,
    refused: u32,
    /// Off the chain, once.
    asked: bool,
}

impl Told {
    /// Tells what the other side did since the last look, as far as the chain's state shows it.
    fn theirs(&mut self, game: &Game, side: Side, tell: &mut impl FnMut(Played)) {
        let mut say = |action: String| {
            tell(Played {
                ours: false,
                action,
                gas: None,
                transaction: None,
                parted: None,
            });
        };
        if side != Side::Provider {
            for (number, reveal) in game.reveals.iter().enumerate().skip(self.reveals) {
                match (number, game.trace_root) {
                    (0, Some(root)) => say(format!(
                        "posts the root {} of its trace and {}",
                        crate::words::short(&root.to_string()),
                        describe_reveal(reveal)
                    )),
                    _ => say(describe_reveal(reveal)),
                }
            }
        } else if game.phase == Phase::Reveal
            && let Some(held) = game.held
        {
            let node = held.node;
            if self.requests.insert(node) {
                say(crate::words::describe_request(&node));
            }
        }
        self.reveals = self.reveals.max(game.reveals.len());
    }
}
