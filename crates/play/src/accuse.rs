//! Takes one false receipt to the chain with one key: looks for grounds, puts up the bond, plays, and goes on where an
//! earlier life stopped. Gateways and watchers accuse with the same code. Never opens a game that it could not win.

use std::time::Duration;

use assay_chain::{ChainError, Conviction, Key, Market};
use assay_dispute::{Fact, Outcome, Side};
use assay_engine::Model;
use assay_protocol::{Address, B256, MicroUsd, TypedData};
use tokio_util::sync::CancellationToken;

use crate::brain::Brain;
use crate::case::{Case, Grounds, NoCase};
use crate::parted::Parted;
use crate::seat::{PlayError, Played, Seat};
use crate::served::OffChain;

/// Who accuses, with whose money.
#[derive(Clone, Debug)]
pub struct Accuser {
    pub market: Market,
    /// Puts up the bond, pays the gas, gets the bounty.
    pub key: Key,
    /// Threads that run the model.
    pub threads: usize,
    /// The largest bond that it puts up.
    pub bond_max: MicroUsd,
    /// How often an open game is looked at.
    pub poll: Duration,
    /// Whether to ask the provider for its trace off the chain first.
    pub off_chain: bool,
}

/// What happens on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    Opened {
        game: B256,
        bond: MicroUsd,
        gas: u64,
        transaction: B256,
    },
    Moved {
        game: B256,
        played: Played,
    },
}

/// How an accusation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Concluded {
    /// The receipt is proven false on the chain.
    Convicted {
        /// Nothing where no game of this accuser was needed.
        game: Option<B256>,
        conviction: Conviction,
    },
    /// The bond is gone.
    Lost { game: B256, bond: MicroUsd },
}

/// Why a receipt is not accused, or not to the end.
#[derive(Debug, thiserror::Error)]
pub enum NoDispute {
    #[error("the window in which it could be challenged is over")]
    WindowClosed,
    #[error("its provider's stake is gone already")]
    NoStake,
    #[error("nothing false about it can be shown to a contract")]
    NoGrounds,
    #[error("a bond of {bond} is due, and at most {most} may be put up: allow more")]
    BondTooLarge { bond: MicroUsd, most: MicroUsd },
    #[error(
        "a bond of {bond} is due, and the account {account} holds {balance}: put money into it"
    )]
    Poor {
        bond: MicroUsd,
        account: Address,
        balance: MicroUsd,
    },
    #[error("the chain took the proof, and tells of no conviction")]
    NotTold,
    #[error("no thread can be had for the trace: {0}")]
    Thread(#[from] std::io::Error),
    #[error("the work was dropped")]
    Dropped,
    #[error(transparent)]
    Case(#[from] NoCase),
    #[error(transparent)]
    Chain(#[from] ChainError),
    #[error(transparent)]
    Play(#[from] PlayError),
}

impl NoDispute {
    /// Whether the same attempt may succeed a little later.
    pub fn is_passing(&self) -> bool {
        let settled = |error: &ChainError| {
            matches!(
                error,
                ChainError::Refused { .. }
                    | ChainError::Reverted { .. }
                    | ChainError::NoDisputes(_)
            )
        };
        match self {
            Self::Chain(error) => !settled(error),
            // While a game is open, giving up is losing.
            Self::Play(error) => !matches!(error, PlayError::Stopped | PlayError::NoGame(_)),
            _ => false,
        }
    }

    /// Whether it was stopped, and goes on with the next start.
    pub fn is_stop(&self) -> bool {
        matches!(self, Self::Dropped | Self::Play(PlayError::Stopped))
    }
}

impl Accuser {
    /// Accuses, or goes on with this accuser's game about the receipt, until it is over.
    pub async fn accuse(
        &self,
        case: &Case,
        model: &Model,
        stop: &CancellationToken,
        mut tell: impl FnMut(Told) + Send,
    ) -> Result<Concluded, NoDispute> {
        let receipt = &case.receipt.body;
        let digest = receipt.digest(&self.market.domain());
        let game = self.market.game_id(receipt, self.key.address());
        if self.market.dispute(game).await?.is_none() {
            if let Some(conviction) = self.market.conviction(digest).await? {
                let game = None;
                return Ok(Concluded::Convicted { game, conviction });
            }
            if let Some(fact) = self.open(case, model, &mut tell).await? {
                tell(self.prove(case, game, &fact).await?);
                let conviction = self.market.conviction(digest).await?;
                let conviction = conviction.ok_or(NoDispute::NotTold)?;
                let game = None;
                return Ok(Concluded::Convicted { game, conviction });
            }
        }
        let brain = self.brain(case, model).await?;
        let seat = Seat {
            market: self.market.clone(),
            key: self.key.clone(),
            side: Side::Challenger,
            poll: self.poll,
            off_chain: self.off_chain(receipt.provider).await?,
        };
        let tell = |played| tell(Told::Moved { game, played });
        let finished = seat.play(game, &brain, stop, tell).await?;
        Ok(match (finished.outcome, finished.conviction) {
            (Outcome::Convicted | Outcome::Closed, Some(conviction)) => Concluded::Convicted {
                game: Some(game),
                conviction,
            },
            (Outcome::Convicted | Outcome::Closed, None) => return Err(NoDispute::NotTold),
            (Outcome::Rejected, _) => Concluded::Lost {
                game,
                bond: self.market.deployment().bond,
            },
        })
    }

    /// Opens a game if there are grounds for one; what needs no game is returned instead.
    pub async fn open(
        &self,
        case: &Case,
        model: &Model,
        tell: &mut (impl FnMut(Told) + Send),
    ) -> Result<Option<Fact>, NoDispute> {
        let (market, receipt) = (&self.market, &case.receipt.body);
        let deployment = market.deployment();
        let window_s = deployment.challenge_window_s;
        if market.chain().now().await? > receipt.served_at.plus_seconds(window_s) {
            return Err(NoDispute::WindowClosed);
        }
        let provider = market.provider(receipt.provider).await?;
        if provider.is_none_or(|known| known.stake == MicroUsd::ZERO) {
            return Err(NoDispute::NoStake);
        }
        match self.grounds(case, model).await? {
            None => return Err(NoDispute::NoGrounds),
            Some(Grounds::Fact(fact)) => return Ok(Some(fact)),
            Some(Grounds::Token { .. }) => {}
        }
        let (bond, account) = (deployment.bond, self.key.address());
        if bond > self.bond_max {
            let most = self.bond_max;
            return Err(NoDispute::BondTooLarge { bond, most });
        }
        let balance = market.balance(account).await?;
        if balance < bond {
            return Err(NoDispute::Poor {
                bond,
                account,
                balance,
            });
        }
        // The referee reads shapes and roots from there; its provider should have brought it.
        if !market.is_published(model.id()).await? {
            market
                .publish_model(&self.key, &model.manifest().encode())
                .await?;
        }
        let (game, mined) = market
            .open_dispute(&self.key, &case.receipt, &case.sampler)
            .await?;
        tell(Told::Opened {
            game,
            bond,
            gas: mined.gas_used,
            transaction: mined.hash,
        });
        Ok(None)
    }

    /// Convicts of a fact.
    pub async fn prove(&self, case: &Case, game: B256, fact: &Fact) -> Result<Told, NoDispute> {
        let mined = self
            .market
            .prove_fact(&self.key, &case.receipt, fact)
            .await?;
        let played = Played {
            ours: true,
            action: crate::words::describe_fact(fact),
            gas: Some(mined.gas_used),
            transaction: Some(mined.hash),
            parted: Some(Parted::by_fact(fact)),
        };
        Ok(Told::Moved { game, played })
    }

    /// The honest trace, ready to play with.
    pub async fn brain(&self, case: &Case, model: &Model) -> Result<Brain, NoDispute> {
        let (case, model, threads) = (case.clone(), model.clone(), self.threads);
        let task = tokio::task::spawn_blocking(move || case.trace(&model, threads));
        Ok(Brain::new(task.await.map_err(|_| NoDispute::Dropped)??)?)
    }

    async fn off_chain(&self, provider: Address) -> Result<Option<OffChain>, NoDispute> {
        if !self.off_chain {
            return Ok(None);
        }
        let known = self.market.provider(provider).await?;
        // Without a client the game is played on the chain alone.
        Ok(known.and_then(|known| OffChain::at(&known.endpoint).ok()))
    }

    async fn grounds(&self, case: &Case, model: &Model) -> Result<Option<Grounds>, NoDispute> {
        let (case, model, threads) = (case.clone(), model.clone(), self.threads);
        let task = tokio::task::spawn_blocking(move || case.grounds(&model, threads));
        Ok(task.await.map_err(|_| NoDispute::Dropped)??)
    }
}
