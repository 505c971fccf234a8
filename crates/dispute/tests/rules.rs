//! The rules one by one: who moves when, what is refused, and what a hostile provider cannot make
//! a challenger believe.

mod common;

use assay_dispute::{
    Below, DisputeError, FactKind, Move, Node, Outcome, Phase, Player, Reveal, Seen, SeenError,
    Side, Trace, next_moves,
};
use assay_protocol::{B256, StopReason, Timestamp};
use common::court::Court;
use common::toy::{EOS, Lie, Size, Toy};

const SIDES: [Side; 3] = [Side::Provider, Side::Challenger, Side::Watcher];

fn truth() -> Toy {
    Toy::new(Size::small(false, false), 1)
}

/// What each side does in this game at this moment: P, C, W with the move's name.
fn all(court: &Court, toy: &Toy, now: u64) -> String {
    let name = |made: &Move| match made {
        Move::PostTrace { .. } => "post",
        Move::Request { .. } => "request",
        Move::Reveal { .. } => "reveal",
        Move::Prove { .. } => "prove",
        Move::ProveFact { .. } => "fact",
        Move::Timeout => "timeout",
        Move::Close => "close",
    };
    let of = |side: Side| {
        let moves = next_moves(&court.game, toy, None, side, Timestamp(now)).unwrap();
        moves.iter().map(name).collect::<Vec<_>>().join("+")
    };
    SIDES.map(of).join("|")
}

fn play_once(court: &mut Court, side: Side, toy: &Toy) {
    let moves = next_moves(&court.game, toy, None, side, Timestamp(court.now)).unwrap();
    court.play(side, &moves[0]).unwrap();
}

#[test]
fn each_side_moves_in_its_own_turn_and_all_call_time_on_the_other() {
    let truth = truth();
    let liar = truth.lying(&[Lie::Element(truth.pick(3))]);
    let mut court = Court::open(&truth, truth.program());
    let late = |court: &Court| court.game.deadline.0 + 1;
    assert_eq!(all(&court, &truth, court.game.deadline.0), "post||");
    assert_eq!(all(&court, &truth, late(&court)), "|timeout|timeout");
    play_once(&mut court, Side::Provider, &liar);
    assert_eq!(all(&court, &truth, court.game.deadline.0), "|request|");
    assert_eq!(all(&court, &truth, late(&court)), "timeout||timeout");
    play_once(&mut court, Side::Challenger, &truth);
    assert_eq!(all(&court, &liar, court.game.deadline.0), "reveal||");
    assert_eq!(all(&court, &liar, late(&court)), "|timeout|timeout");
}

#[test]
fn a_decided_game_is_closed_by_anybody_and_a_finished_one_by_nobody() {
    let truth = truth();
    let mut court = Court::open(&truth, truth.program());
    court.game.phase = Phase::Decided;
    assert_eq!(all(&court, &truth, u64::MAX), "close|close|close");
    for outcome in [Outcome::Convicted, Outcome::Rejected, Outcome::Closed] {
        court.game.phase = Phase::Over(outcome);
        assert_eq!(all(&court, &truth, u64::MAX), "||");
    }
}

#[test]
fn a_challenger_proves_a_fact_at_whosever_turn() {
    let mut truth = truth();
    truth.output[1] = EOS;
    let court = Court::open(&truth, truth.program());
    assert_eq!(all(&court, &truth, court.now), "post|fact|");
    truth.reason = StopReason::Cut;
    let court = Court::open(&truth, truth.program());
    let now = Timestamp(court.now);
    let moves = next_moves(&court.game, &truth, None, Side::Challenger, now).unwrap();
    let [Move::ProveFact { fact }] = moves.as_slice() else {
        panic!("{moves:?}")
    };
    assert_eq!((fact.kind, fact.position), (FactKind::PastTheEnd, 1));
}

#[test]
fn no_move_is_made_about_another_statement() {
    let truth = truth();
    let court = Court::open(&truth, truth.program());
    let other = truth.misstating(0);
    for side in SIDES {
        let made = next_moves(&court.game, &other, None, side, Timestamp(court.now));
        assert_eq!(made, Err(DisputeError::OtherStatement));
    }
}

#[test]
fn a_provider_with_another_trace_than_it_posted_says_so_instead_of_a_wrong_move() {
    let truth = truth();
    let liar = truth.lying(&[Lie::Element(truth.pick(3))]);
    let mut court = Court::open(&truth, truth.program());
    play_once(&mut court, Side::Provider, &liar);
    let (posted, root) = (liar.root(), truth.root());
    // Another challenger's game, opened before the root was posted.
    let mut second = Court::open(&truth, truth.program());
    second.game.trace_root = Some(posted);
    let made = next_moves(&second.game, &truth, None, Side::Provider, Timestamp(1000));
    assert_eq!(made, Err(DisputeError::OtherRoot { posted, root }));
    let same = next_moves(&second.game, &liar, None, Side::Provider, Timestamp(1000));
    assert!(matches!(same.unwrap()[..], [Move::PostTrace { .. }]));
}

#[test]
fn what_was_served_under_another_root_is_not_looked_at() {
    let truth = truth();
    let liar = truth.lying(&[Lie::Element(truth.pick(3))]);
    let other = common::players::served(&truth.lying(&[Lie::Element(truth.pick(4))]), &truth);
    let mut court = Court::open(&truth, truth.program());
    play_once(&mut court, Side::Provider, &liar);
    let now = Timestamp(court.now);
    let with = next_moves(&court.game, &truth, Some(&other), Side::Challenger, now);
    let without = next_moves(&court.game, &truth, None, Side::Challenger, now);
    assert_eq!(with, without);
    assert!(matches!(with.unwrap()[..], [Move::Request { .. }]));
}

#[test]
fn hostile_reveals_are_refused() {
    let truth = truth();
    let program = truth.program();
    let mut player = Player::new(&truth).unwrap();
    let root = Node::root(program);
    let below = player.below(&root).unwrap();
    let Below::Children(children) = below.clone() else {
        panic!("a root has children")
    };
    let mut seen = Seen::new(program, truth.root());
    let mut check = |node: Node, below: Below, expected: SeenError| {
        let learnt = seen.learn(program, &Reveal { node, below });
        assert_eq!(learnt, Err(expected));
    };
    let mut turned = children.clone();
    turned.swap(0, 1);
    let other = SeenError::OtherHash { node: root };
    check(root, Below::Children(turned), other);
    check(root, Below::Bytes(vec![0; 9]), other);
    let count = |got| SeenError::Count {
        node: root,
        expected: children.len(),
        got,
    };
    check(root, Below::Children(Vec::new()), count(0));
    let padded = [children.as_slice(), &[B256::ZERO]].concat();
    check(root, Below::Children(padded), count(children.len() + 1));
    let unknown = root.children(program).unwrap()[0];
    check(
        unknown,
        Below::Children(Vec::new()),
        SeenError::Unknown { node: unknown },
    );
    // A node that no tree has.
    let nowhere = Node {
        height: 200,
        index: u64::MAX,
        ..root
    };
    check(nowhere, below.clone(), SeenError::Unknown { node: nowhere });
    let reveal = Reveal { node: root, below };
    assert_eq!(seen.learn(program, &reveal), Ok(()));
}

#[test]
fn a_player_asked_for_what_no_trace_has_answers_with_an_error() {
    let truth = truth();
    let program = truth.program();
    let mut player = Player::new(&truth).unwrap();
    let root = Node::root(program);
    let leaf = Node::leaf(program, assay_protocol::trace::LeafId { op: 1, row: 1 });
    for node in [
        Node { height: 99, ..root },
        Node { index: 99, ..root },
        Node { row: 99, ..leaf },
        Node { op: 99, ..leaf },
        Node {
            op: u32::MAX,
            row: u32::MAX,
            index: u64::MAX,
            ..leaf
        },
        leaf.beside(program, 0, 999),
        root.beside(program, 0, 999),
    ] {
        assert!(player.below(&node).is_err(), "{node:?}");
    }
}

#[test]
fn an_honest_looking_game_asks_for_nothing() {
    // The provider's trace is one's own and its tokens are chosen: there is nothing to prove.
    let truth = truth();
    let mut court = Court::open(&truth, truth.program());
    play_once(&mut court, Side::Provider, &truth);
    assert_eq!(all(&court, &truth, court.now), "||");
}
