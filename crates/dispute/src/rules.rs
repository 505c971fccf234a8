//! The next moves of each side, from the game's state, one's own trace and the time. Each rule is a
//! function; the first that has an answer gives it. Decides and never sends.

use assay_protocol::trace::tree;
use assay_protocol::{B256, Statement, Timestamp};

use crate::error::DisputeError;
use crate::facts::facts;
use crate::game::{Below, Game, Held, Move, Node, Outcome, Phase, Side};
use crate::parting::{Parting, first_other};
use crate::player::Player;
use crate::seen::Seen;
use crate::trace::Trace;

/// What `side` does now; nothing where it is not its turn. `served` is what the provider showed off
/// chain under the game's root, if anything. A player that lives longer than a move calls
/// [`Player::next_moves`], which computes no vector twice.
pub fn next_moves(
    game: &Game,
    trace: &dyn Trace,
    served: Option<&Seen>,
    side: Side,
    now: Timestamp,
) -> Result<Vec<Move>, DisputeError> {
    Player::new(trace)?.next_moves(game, served, side, now)
}

impl Player<'_> {
    /// As [`next_moves`].
    pub fn next_moves(
        &mut self,
        game: &Game,
        served: Option<&Seen>,
        side: Side,
        now: Timestamp,
    ) -> Result<Vec<Move>, DisputeError> {
        check_statement(game, self.trace())?;
        // The order is that of precedence: a decided game is only closed, a fact needs no trace, and a
        // clock that ran out ends all play.
        if let Some(moves) = over(game) {
            return Ok(moves);
        }
        if let Some(fact) = prove_fact(game, self.trace(), side) {
            return Ok(vec![fact]);
        }
        if let Some(moves) = call_time(game, side, now) {
            return Ok(moves);
        }
        match (side, game.phase) {
            (Side::Provider, Phase::Post) => post_the_trace(game, self).map(just),
            (Side::Provider, Phase::Reveal) => reveal_what_is_asked(game, self).map(just),
            (Side::Challenger, Phase::Request) => {
                let seen = known(game, self, served)?;
                prove_or_ask(game, self, &seen).map(|found| found.into_iter().collect())
            }
            _ => Ok(Vec::new()),
        }
    }

    /// All that a game's reveals, and what was served off chain under the same root, show of the
    /// provider's trace; nothing but the root where `served` is of another.
    pub fn seen(&self, game: &Game, served: Option<&Seen>) -> Result<Option<Seen>, DisputeError> {
        game.trace_root
            .map(|_| known(game, self, served))
            .transpose()
    }
}

fn just(one: Move) -> Vec<Move> {
    vec![one]
}

/// A move about another statement would be a wrong one.
fn check_statement(game: &Game, trace: &dyn Trace) -> Result<(), DisputeError> {
    let own = Statement::new(
        trace.manifest().id(),
        trace.prompt(),
        trace.sampler(),
        trace.output(),
        game.statement.stop_reason,
    );
    match own == game.statement {
        true => Ok(()),
        false => Err(DisputeError::OtherStatement),
    }
}

/// Rule: nothing is left to do in a game that is over, and one whose receipt fell in another game is
/// closed, by whoever comes first: the bond, the stake's lock and the hold are freed by it.
fn over(game: &Game) -> Option<Vec<Move>> {
    match game.phase {
        Phase::Over(Outcome::Convicted | Outcome::Rejected | Outcome::Closed) => Some(Vec::new()),
        Phase::Decided => Some(vec![Move::Close]),
        _ => None,
    }
}

/// Rule: a challenger that can convict without a trace does so at once, at whosever turn.
fn prove_fact(game: &Game, trace: &dyn Trace, side: Side) -> Option<Move> {
    if side != Side::Challenger {
        return None;
    }
    let reason = game.statement.stop_reason;
    let fact = facts(
        trace.manifest(),
        trace.prompt(),
        trace.output(),
        trace.sampler(),
        reason,
    )?;
    Some(Move::ProveFact { fact })
}

/// Rule: when a clock has run out, everybody but the side that let it says so, and no other move is
/// made: the contract would refuse it.
fn call_time(game: &Game, side: Side, now: Timestamp) -> Option<Vec<Move>> {
    if now <= game.deadline {
        return None;
    }
    Some(match game.turn() {
        Some(late) if late != side => vec![Move::Timeout],
        _ => Vec::new(),
    })
}

/// Rule: the provider commits to its trace, the same in every game about one receipt.
fn post_the_trace(game: &Game, player: &mut Player) -> Result<Move, DisputeError> {
    let root = player.root()?;
    if let Some(posted) = game.trace_root.filter(|posted| *posted != root) {
        return Err(DisputeError::OtherRoot { posted, root });
    }
    let top = Node::root(player.program());
    match player.below(&top)? {
        Below::Children(children) => Ok(Move::PostTrace { root, children }),
        Below::Bytes(_) => Err(DisputeError::NoNode(top)),
    }
}

/// Rule: the provider answers every request with what its trace has there.
fn reveal_what_is_asked(game: &Game, player: &mut Player) -> Result<Move, DisputeError> {
    let held = held(game)?;
    let root = player.hash(&held.node)?;
    if root != held.hash {
        let posted = held.hash;
        return Err(DisputeError::OtherRoot { posted, root });
    }
    let below = player.below(&held.node)?;
    Ok(Move::Reveal { below })
}

/// Rules of the challenger's turn. It proves as soon as it knows the first difference, asks for what
/// hides it, and where the provider's trace is its own, shows a token that this does not choose. Where
/// all is as it should be there is nothing to do, and the game should not have been opened.
fn prove_or_ask(
    game: &Game,
    player: &mut Player,
    seen: &Seen,
) -> Result<Option<Move>, DisputeError> {
    match player.parting(seen)? {
        Parting::At(element) => {
            let step = player.step(seen, element, None)?;
            Ok(Some(Move::Prove { step }))
        }
        Parting::Nowhere => match player.false_token()? {
            Some((output, better)) => {
                let step = player.token_step(seen, output, better)?;
                Ok(Some(Move::Prove { step }))
            }
            None => Ok(None),
        },
        Parting::Below(_) => ask_below(held(game)?, player, seen),
    }
}

/// Rule: ask for the first child of the held node that is not one's own. What was served off chain may
/// reach further down, but the contract goes step by step.
fn ask_below(held: Held, player: &mut Player, seen: &Seen) -> Result<Option<Move>, DisputeError> {
    let program = player.program();
    let Some(children) = held.node.children(program) else {
        // The held chunk is known and is one's own: this game went the wrong way before.
        return Ok(None);
    };
    let theirs = children
        .iter()
        .map(|child| seen.hash(child).ok_or(DisputeError::NothingHeld))
        .collect::<Result<Vec<B256>, _>>()?;
    let Some(child) = first_other(player, &children, &theirs)? else {
        return Ok(None);
    };
    let (height, range) = held
        .node
        .child_range(program)
        .ok_or(DisputeError::NoNode(held.node))?;
    let found = children.iter().zip(&theirs).zip(range.clone());
    let Some(((_, hash), at)) = found.into_iter().find(|((node, _), _)| **node == child) else {
        return Err(DisputeError::NoNode(child));
    };
    let count = held.node.count(program);
    let siblings = (height..held.node.height)
        .map(|level| {
            let sibling = (at >> (level - height)) ^ 1;
            match sibling < tree::count_at(count, level) {
                true => seen
                    .hash(&held.node.beside(program, level, sibling))
                    .ok_or(DisputeError::NothingHeld),
                false => Ok(B256::ZERO),
            }
        })
        .collect::<Result<_, _>>()?;
    Ok(Some(Move::Request {
        // At most 2^5 children are listed.
        index: (at - range.start) as u32,
        hash: *hash,
        siblings,
    }))
}

fn held(game: &Game) -> Result<Held, DisputeError> {
    game.held.ok_or(DisputeError::NothingHeld)
}

/// What is known of the provider's trace. What the contract took is checked again, and what does not
/// fit is left out: a chain that forgot a block, or a reader's mistake, must not cost a bond.
fn known(game: &Game, player: &Player, served: Option<&Seen>) -> Result<Seen, DisputeError> {
    let root = game.trace_root.ok_or(DisputeError::NothingHeld)?;
    let program = player.program();
    let mut seen = match served.filter(|served| served.root() == root) {
        Some(served) => served.clone(),
        None => Seen::new(program, root),
    };
    for reveal in &game.reveals {
        let _ = seen.learn(program, reveal);
    }
    Ok(seen)
}
