//! Players. The honest one follows the rules of the crate; each other one breaks them in its own way.

use assay_dispute::{Below, Game, Move, Node, Phase, Seen, Side, Trace, next_moves};
use assay_protocol::{B256, Timestamp};

use super::court::{Court, Refused};
use super::toy::{Random, Toy};

/// A way to play one side. `random` is the player's own.
pub(crate) enum Player {
    /// By the rules, with this trace: a liar where the trace is one.
    ByTheRules(Toy),
    /// By the rules, but at the last second that counts.
    LastSecond(Toy),
    /// By the rules, but a second after the last that counts.
    TooLate(Toy),
    /// By the rules for so many moves, then never again.
    Withholding(Toy, u32),
    /// Reveals random hashes or bytes.
    Garbage(Toy),
    /// Lists a child too few, then too many, then in another order.
    Malformed(Toy),
    /// Posts one trace and reveals another.
    TwoTraces { posted: Toy, revealed: Box<Toy> },
    /// Asks for anything, and proves anything.
    Wild(Toy, Random),
}

impl Player {
    /// Seconds that it lets pass before a move.
    fn waits(&self, game: &Game, now: u64) -> u64 {
        match self {
            Player::LastSecond(_) => game.deadline.0.saturating_sub(now),
            Player::TooLate(_) => game.deadline.0.saturating_sub(now) + 1,
            _ => 1,
        }
    }

    /// What it tries, one after another, until something is taken.
    fn tries(&mut self, game: &Game, side: Side, now: u64, served: Option<&Seen>) -> Vec<Move> {
        let by_the_rules = |toy: &Toy| {
            let made = next_moves(game, toy, served, side, Timestamp(now));
            made.expect("one's own trace has an answer to everything")
        };
        match self {
            Player::ByTheRules(toy) | Player::LastSecond(toy) | Player::TooLate(toy) => {
                by_the_rules(toy)
            }
            Player::Withholding(_, 0) => Vec::new(),
            Player::Withholding(toy, left) => {
                let made = by_the_rules(toy);
                *left -= u32::from(!made.is_empty());
                made
            }
            Player::Garbage(toy) => match game.phase {
                Phase::Post => by_the_rules(toy),
                _ => by_the_rules(toy).into_iter().map(garbled).collect(),
            },
            Player::Malformed(toy) => by_the_rules(toy)
                .into_iter()
                .flat_map(|made| malformed(&made))
                .collect(),
            Player::TwoTraces { posted, revealed } => match game.phase {
                Phase::Post => by_the_rules(posted),
                // Its own rules would notice, so it answers past them.
                _ => answer_from(game, revealed),
            },
            Player::Wild(toy, random) => wild(game, toy, random),
        }
    }
}

fn garbled(made: Move) -> Move {
    match made {
        Move::Reveal { below } => Move::Reveal {
            below: match below {
                Below::Children(children) => {
                    Below::Children(vec![B256::repeat_byte(0x66); children.len()])
                }
                Below::Bytes(bytes) => Below::Bytes(vec![0x66; bytes.len()]),
            },
        },
        other => other,
    }
}

fn malformed(made: &Move) -> Vec<Move> {
    let listings = |children: &[B256]| -> Vec<Vec<B256>> {
        let mut longer = children.to_vec();
        longer.push(B256::ZERO);
        let mut turned = children.to_vec();
        turned.reverse();
        vec![children[..children.len() - 1].to_vec(), longer, turned]
    };
    match made {
        Move::PostTrace { root, children } => listings(children)
            .into_iter()
            .map(|children| Move::PostTrace {
                root: *root,
                children,
            })
            .collect(),
        other => vec![garbled(other.clone())],
    }
}

fn answer_from(game: &Game, toy: &Toy) -> Vec<Move> {
    let Some(held) = game.held else {
        return Vec::new();
    };
    let mut player = assay_dispute::Player::new(toy).unwrap();
    let below = player.below(&held.node).unwrap();
    vec![Move::Reveal { below }]
}

/// A challenger without a case: requests at random, as long as there is something below, and tries to
/// prove random elements on the way.
fn wild(game: &Game, toy: &Toy, random: &mut Random) -> Vec<Move> {
    let (Some(held), Phase::Request) = (game.held, game.phase) else {
        return Vec::new();
    };
    let program = toy.program();
    let mut player = assay_dispute::Player::new(toy).unwrap();
    let seen = player.seen(game, None).unwrap().unwrap();
    let mut tries = Vec::new();
    for _ in 0..3 {
        let mut step = player.step(&seen, toy.pick(random.next()), None).unwrap();
        step.witness ^= random.below(4);
        tries.push(Move::Prove { step });
    }
    let Some(children) = held.node.children(program) else {
        return tries;
    };
    let index = random.below(children.len() as u64) as u32;
    let (height, range) = held.node.child_range(program).unwrap();
    let at = range.start + u64::from(index);
    let siblings = (height..held.node.height)
        .map(|level| {
            let beside = held
                .node
                .beside(program, level, (at >> (level - height)) ^ 1);
            seen.hash(&beside).unwrap_or(B256::ZERO)
        })
        .collect();
    let hash = seen.hash(&children[index as usize]).unwrap();
    tries.push(Move::Request {
        index,
        hash,
        siblings,
    });
    tries
}

/// Plays a game to its end; who has no move lets the clock run.
pub(crate) fn play(
    court: &mut Court,
    provider: &mut Player,
    challenger: &mut Player,
    served: Option<&Seen>,
) {
    for _ in 0..200 {
        let (side, player) = match court.game.turn() {
            None => return,
            Some(Side::Provider) => (Side::Provider, &mut *provider),
            Some(_) => (Side::Challenger, &mut *challenger),
        };
        let wait = player.waits(&court.game, court.now);
        let tries = player.tries(&court.game, side, court.now, served);
        court.now += wait;
        let refused: Vec<Refused> = tries
            .iter()
            .map_while(|made| court.play(side, made).err())
            .collect();
        let done = refused.len() < tries.len();
        let honest = matches!(player, Player::ByTheRules(_) | Player::LastSecond(_));
        assert!(
            done || !honest || tries.is_empty(),
            "{side:?} is refused {refused:?}"
        );
        if !done {
            // Anybody calls time, by the rules.
            court.now = court.now.max(court.game.deadline.0 + 1);
            let toy = provider.trace();
            let now = Timestamp(court.now);
            let moves = next_moves(&court.game, toy, None, Side::Watcher, now).unwrap();
            assert_eq!(moves, [Move::Timeout]);
            court.play(Side::Watcher, &moves[0]).unwrap();
        }
    }
    panic!("the game does not end");
}

impl Player {
    fn trace(&self) -> &Toy {
        match self {
            Player::ByTheRules(toy)
            | Player::LastSecond(toy)
            | Player::TooLate(toy)
            | Player::Withholding(toy, _)
            | Player::Garbage(toy)
            | Player::Malformed(toy)
            | Player::Wild(toy, _) => toy,
            Player::TwoTraces { posted, .. } => posted,
        }
    }
}

/// All that a provider would serve off chain on the way to the first difference.
pub(crate) fn served(provider: &Toy, own: &Toy) -> Seen {
    use assay_dispute::{Parting, Reveal};
    let program = own.program();
    let mut seen = Seen::new(program, provider.root());
    let (mut theirs, mut ours) = (
        assay_dispute::Player::new(provider).unwrap(),
        assay_dispute::Player::new(own).unwrap(),
    );
    let ask = |theirs: &mut assay_dispute::Player, node: Node| Reveal {
        node,
        below: theirs.below(&node).unwrap(),
    };
    while let Parting::Below(node) = ours.parting(&seen).unwrap() {
        seen.learn(program, &ask(&mut theirs, node)).unwrap();
    }
    seen
}
