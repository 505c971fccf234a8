//! Games as the chain tells them: state from the contract, what was revealed from its events. The
//! events are read once and kept; a chain that forgets its last blocks is asked for them again.

use alloy::rpc::types::{Filter, Log};
use alloy_sol_types::SolEventInterface;
use assay_dispute::{Below, Game, Held, Node, Outcome, Phase, Reveal, Stage};
use assay_protocol::{Address, B256, MicroUsd, Receipt, Signature, Signed, Timestamp, merkle};

use super::{from_abi, held, node};
use crate::abi::IDisputeGame::{self, IDisputeGameEvents as Event};
use crate::connect::Chain;
use crate::deployment::Deployment;
use crate::error::{ChainError, micro_usd};
use crate::reader::Market;

/// A real chain may replace its last blocks: these are read again every time.
const REORG_BLOCKS: u64 = 64;
/// What stands in place of a convicted receipt's trace root.
const CONVICTED: B256 = B256::repeat_byte(0xff);

/// A game, with the receipt that it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dispute {
    pub game: Game,
    pub receipt: Signed<Receipt>,
    /// The canonical bytes behind the statement's sampler hash.
    pub sampler: Vec<u8>,
    pub opened_block: u64,
    /// How the receipt was convicted, in this game or otherwise.
    pub conviction: Option<Conviction>,
}

/// A receipt proven false, and who got what of the provider's stake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conviction {
    pub winner: Address,
    /// None: by a fact or two receipts, without a game.
    pub game: Option<B256>,
    pub stake: MicroUsd,
    pub to_winner: MicroUsd,
    /// What the vault's hold gave, and a part of the stake.
    pub to_payer: MicroUsd,
    pub burned: MicroUsd,
    pub block: u64,
}

/// Which games to tell of. All that is set must hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DisputeFilter {
    pub provider: Option<Address>,
    pub challenger: Option<Address>,
    /// The receipt's digest.
    pub receipt: Option<B256>,
    /// Leave out what is over.
    pub open: bool,
}

/// The events of one game contract, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Events {
    /// The first block that was not read.
    next: u64,
    seen: Vec<Seen>,
}

#[derive(Debug)]
struct Seen {
    block: u64,
    event: Event,
}

/// What the events alone say of one game.
struct Story {
    id: B256,
    digest: B256,
    challenger: Address,
    receipt: Signed<Receipt>,
    sampler: Vec<u8>,
    sampling: u8,
    opened_block: u64,
    outcome: Option<Outcome>,
}

impl Market {
    /// One game; None if there never was such.
    pub async fn dispute(&self, id: B256) -> Result<Option<Dispute>, ChainError> {
        let all = self.tell(|story| story.id == id).await?;
        Ok(all.into_iter().next_back())
    }

    /// The games that the filter lets through, oldest first.
    pub async fn disputes(&self, filter: &DisputeFilter) -> Result<Vec<Dispute>, ChainError> {
        let is = |wanted: Option<Address>, got| wanted.is_none_or(|wanted| wanted == got);
        self.tell(|story| {
            is(filter.provider, story.receipt.body.provider)
                && is(filter.challenger, story.challenger)
                && filter.receipt.is_none_or(|digest| digest == story.digest)
                && !(filter.open && story.outcome.is_some())
        })
        .await
    }

    /// How a receipt was convicted, if it was.
    pub async fn conviction(&self, receipt: B256) -> Result<Option<Conviction>, ChainError> {
        self.disputable()?;
        let mut events = self.events.lock().await;
        events.catch_up(&self.chain, self.deployment()).await?;
        events.conviction(receipt)
    }

    /// The addresses of a market that has disputes.
    pub(crate) fn disputable(&self) -> Result<&Deployment, ChainError> {
        let deployment = self.deployment();
        if deployment.dispute_game.is_zero() {
            return Err(ChainError::NoDisputes(deployment.registry));
        }
        Ok(deployment)
    }

    async fn tell(&self, wanted: impl Fn(&Story) -> bool) -> Result<Vec<Dispute>, ChainError> {
        let deployment = self.disputable()?;
        let mut events = self.events.lock().await;
        events.catch_up(&self.chain, deployment).await?;
        let mut games = Vec::new();
        for story in events.stories().into_iter().filter(&wanted) {
            let state = match story.outcome {
                Some(_) => None,
                None => Some(self.state(&story).await?),
            };
            games.push((story.id, story.opened_block, state));
        }
        // What was revealed up to the state that was just read must be told with it.
        events.catch_up(&self.chain, deployment).await?;
        let mut disputes = Vec::new();
        for story in events.stories() {
            let found = games
                .iter()
                .position(|(id, block, _)| (*id, *block) == (story.id, story.opened_block));
            let Some(found) = found else { continue };
            let (_, _, state) = games.swap_remove(found);
            if !wanted(&story) {
                continue;
            }
            disputes.extend(self.assemble(&events, story, state)?);
        }
        Ok(disputes)
    }

    async fn state(&self, story: &Story) -> Result<State, ChainError> {
        let to = self.deployment().dispute_game;
        let game = IDisputeGame::getGameCall { game: story.id };
        let root = IDisputeGame::rootsCall {
            receiptDigest: story.digest,
        };
        let (game, root) = tokio::try_join!(
            self.chain.view("dispute", to, game),
            self.chain.view("trace root", to, root),
        )?;
        Ok(State { game, root })
    }

    /// None where the game ended between two looks and its end is not told yet.
    fn assemble(
        &self,
        events: &Events,
        story: Story,
        state: Option<State>,
    ) -> Result<Option<Dispute>, ChainError> {
        let (trace_root, reveals) = events.shown(story.digest);
        let mut game = Game {
            id: story.id,
            receipt: story.digest,
            statement: story.receipt.body.statement,
            sampling: story.sampling,
            provider: story.receipt.body.provider,
            challenger: story.challenger,
            trace_root,
            phase: Phase::Decided,
            held: None,
            reveals,
            deadline: Timestamp(0),
            purse_provider: 0,
            purse_challenger: 0,
        };
        match (story.outcome, state) {
            (Some(outcome), _) => game.phase = Phase::Over(outcome),
            (None, Some(state)) if state.game.state.turn != IDisputeGame::Turn::None => {
                self.play_on(&mut game, &state);
            }
            (None, _) => return Ok(None),
        }
        Ok(Some(Dispute {
            game,
            conviction: events.conviction(story.digest)?,
            receipt: story.receipt,
            sampler: story.sampler,
            opened_block: story.opened_block,
        }))
    }

    /// What the contract holds of a game that is open.
    fn play_on(&self, game: &mut Game, state: &State) {
        let (clocks, hash) = (&state.game.state, state.game.hash);
        game.purse_provider = clocks.providerExtra.to();
        game.purse_challenger = clocks.challengerExtra.to();
        let purse = match clocks.turn {
            IDisputeGame::Turn::Challenger => game.purse_challenger,
            _ => game.purse_provider,
        };
        let response = self.deployment().response_s;
        game.deadline =
            Timestamp(clocks.since.into()).plus_seconds(u64::from(response) + u64::from(purse));
        // Before the first request the contract stores no node: it is the trace's top.
        let place = if !clocks.asked {
            let top = game.reveals.first().map(|reveal| reveal.node);
            top.zip(game.trace_root)
        } else {
            held(clocks).map(|node| (node, hash))
        };
        game.held = place.map(|(node, hash)| Held { node, hash });
        game.phase = match clocks.turn {
            _ if state.root == CONVICTED => Phase::Decided,
            IDisputeGame::Turn::Trace => Phase::Post,
            IDisputeGame::Turn::Reveal => Phase::Reveal,
            _ => Phase::Request,
        };
    }
}

/// What the contract says of a game.
struct State {
    game: IDisputeGame::getGameReturn,
    root: B256,
}

impl Events {
    /// Reads what is new, and the last blocks again.
    async fn catch_up(&mut self, chain: &Chain, deployment: &Deployment) -> Result<(), ChainError> {
        let head = chain.block_number().await?;
        let back = match chain.as_embedded() {
            Some(_) => 0,
            None => REORG_BLOCKS,
        };
        let first = self.next.saturating_sub(back);
        let from = first.max(deployment.deployed_block.unwrap_or(0));
        self.seen.retain(|seen| seen.block < from);
        // What was dropped is not told until it is read again, also if a search below fails.
        self.next = self.next.min(from);
        let filter = Filter::new().address(deployment.dispute_game);
        let (seen, next) = (&mut self.seen, &mut self.next);
        let take = |logs: Vec<Log>, end| {
            for log in logs {
                let (Some(block), data) = (log.block_number, &log.inner.data) else {
                    continue;
                };
                // Every event of the contract is known; what is not was not its.
                if let Ok(event) = Event::decode_raw_log(data.topics(), &data.data) {
                    seen.push(Seen { block, event });
                }
            }
            *next = end;
        };
        chain.search("disputes", &filter, from, head, take).await
    }

    /// Every game that was opened, oldest first. A challenger that lost may open again: that is
    /// another game of the same name.
    fn stories(&self) -> Vec<Story> {
        let mut stories: Vec<Story> = Vec::new();
        for Seen { block, event } in &self.seen {
            let (id, outcome) = match event {
                Event::Opened(opened) => {
                    stories.extend(Story::begin(opened, *block));
                    continue;
                }
                Event::Convicted(e) => (e.game, Outcome::Convicted),
                Event::Lost(e) => (e.game, Outcome::Rejected),
                Event::Closed(e) => (e.game, Outcome::Closed),
                _ => continue,
            };
            if let Some(story) = stories.iter_mut().rev().find(|story| story.id == id) {
                story.outcome = Some(outcome);
            }
        }
        stories
    }

    /// The root that the provider posted for a receipt, and all that it revealed under it, whatever
    /// the game. The first reveal is below the top.
    fn shown(&self, digest: B256) -> (Option<B256>, Vec<Reveal>) {
        let (mut root, mut reveals) = (None, Vec::new());
        let mut games = Vec::new();
        for Seen { event, .. } in &self.seen {
            let (node, below) = match event {
                Event::Opened(e) if e.receiptDigest == digest => {
                    games.push(e.game);
                    continue;
                }
                Event::TracePosted(e) if e.receiptDigest == digest => {
                    root = Some(e.root);
                    let top = Node {
                        stage: Stage::Ops,
                        op: 0,
                        row: 0,
                        height: merkle::depth(e.ops.into()),
                        index: 0,
                    };
                    (Some(top), Below::Children(e.children.clone()))
                }
                Event::Revealed(e) if games.contains(&e.game) => {
                    (node(e.node), Below::Children(e.children.clone()))
                }
                Event::DataRevealed(e) if games.contains(&e.game) => {
                    (node(e.node), Below::Bytes(e.data.to_vec()))
                }
                _ => continue,
            };
            reveals.extend(node.map(|node| Reveal { node, below }));
        }
        (root, reveals)
    }

    fn conviction(&self, digest: B256) -> Result<Option<Conviction>, ChainError> {
        let found = self.seen.iter().find_map(|seen| match &seen.event {
            Event::Convicted(e) if e.receiptDigest == digest => Some((e, seen.block)),
            _ => None,
        });
        let Some((e, block)) = found else {
            return Ok(None);
        };
        Ok(Some(Conviction {
            winner: e.winner,
            game: (!e.game.is_zero()).then_some(e.game),
            stake: micro_usd(e.stake)?,
            to_winner: micro_usd(e.toWinner)?,
            to_payer: micro_usd(e.toPayer)?,
            burned: micro_usd(e.burned)?,
            block,
        }))
    }
}

impl Story {
    /// None for a receipt whose words name no reason or tier that there is.
    fn begin(opened: &IDisputeGame::Opened, block: u64) -> Option<Story> {
        let signature: [u8; 65] = opened.signature.as_ref().try_into().ok()?;
        Some(Story {
            id: opened.game,
            digest: opened.receiptDigest,
            challenger: opened.challenger,
            receipt: Signed {
                body: from_abi(&opened.receipt)?,
                signature: Signature(signature.into()),
            },
            sampler: opened.sampler.to_vec(),
            sampling: opened.flags,
            opened_block: block,
            outcome: None,
        })
    }
}
