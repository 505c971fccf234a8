//! Whole games against the contract in memory: the honest side wins them all, and all end.

mod common;

use assay_dispute::{Move, Outcome, Phase, Side, Trace, next_moves};
use assay_protocol::Timestamp;
use assay_protocol::trace::{ElementId, LeafId, TOKEN_OP};
use common::court::Court;
use common::players::{Player, play, served};
use common::toy::{Lie, Random, Size, Toy};
use proptest::prelude::*;

/// More moves than any of these games takes: the root, two reveals a tree of up to 2^10, the bytes, each
/// with its request, and the step.
const MOVES_MAX: u32 = 16;

const CONVICTED: Phase = Phase::Over(Outcome::Convicted);
const REJECTED: Phase = Phase::Over(Outcome::Rejected);

fn size(gemma: bool, drawn: bool) -> Size {
    Size::small(gemma, drawn)
}

/// A game of this provider against an honest challenger.
fn against(truth: &Toy, mut provider: Player) -> Court {
    let mut court = Court::open(truth, truth.program());
    let mut challenger = Player::ByTheRules(truth.clone());
    play(&mut court, &mut provider, &mut challenger, None);
    assert!(court.moves <= MOVES_MAX, "{} moves", court.moves);
    court
}

fn convicting_element(court: &Court) -> Option<ElementId> {
    let step = court.convicted_by.as_ref()?;
    Some(ElementId {
        leaf: LeafId {
            op: step.op,
            row: step.row,
        },
        chunk: step.chunk,
        slot: step.slot,
    })
}

fn sizes() -> impl Strategy<Value = Size> {
    (any::<bool>(), any::<bool>(), 1u32..12, 1u32..6).prop_map(
        |(gemma, drawn, n_prompt, n_output)| Size {
            gemma,
            drawn,
            n_prompt,
            n_output,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(250))]

    #[test]
    fn a_liar_is_convicted_at_the_first_element_that_differs(
        size in sizes(), seed in any::<u64>(), lies in prop::collection::vec(any::<u64>(), 1..4),
    ) {
        let truth = Toy::new(size, seed);
        let lies: Vec<Lie> = lies.iter().map(|lie| Lie::Element(truth.pick(*lie))).collect();
        let liar = truth.lying(&lies);
        prop_assume!(liar.root() != truth.root());
        let court = against(&truth, Player::ByTheRules(liar.clone()));
        prop_assert_eq!(court.game.phase, CONVICTED);
        prop_assert_eq!(convicting_element(&court), truth.first_difference(&liar));
    }

    #[test]
    fn a_liar_from_some_vector_on_is_convicted_there(size in sizes(), seed in any::<u64>(), from in any::<u64>()) {
        let truth = Toy::new(size, seed);
        let from = truth.pick(from).leaf;
        let liar = truth.lying(&[Lie::From(from)]);
        let court = against(&truth, Player::LastSecond(liar.clone()));
        let found = convicting_element(&court);
        // The last second counts as long as the extension lasts, and then the clock convicts.
        prop_assert_eq!(court.game.phase, CONVICTED);
        if found.is_some() {
            prop_assert_eq!(found, truth.first_difference(&liar));
        }
    }

    #[test]
    fn one_move_convicts_a_liar_that_answers_off_chain(size in sizes(), seed in any::<u64>(), lie in any::<u64>()) {
        let truth = Toy::new(size, seed);
        let liar = truth.lying(&[Lie::Element(truth.pick(lie))]);
        let mut court = Court::open(&truth, truth.program());
        let seen = served(&liar, &truth);
        play(&mut court, &mut Player::ByTheRules(liar.clone()), &mut Player::ByTheRules(truth.clone()), Some(&seen));
        prop_assert_eq!(court.game.phase, CONVICTED);
        prop_assert_eq!(convicting_element(&court), truth.first_difference(&liar));
        prop_assert_eq!(court.moves, 2, "the root and the step");
    }

    #[test]
    fn an_honest_provider_answers_everything_and_never_loses(size in sizes(), seed in any::<u64>(), wild in any::<u64>()) {
        let truth = Toy::new(size, seed);
        let mut court = Court::open(&truth, truth.program());
        let mut challenger = Player::Wild(truth.clone(), Random::new(wild, &[]));
        play(&mut court, &mut Player::ByTheRules(truth.clone()), &mut challenger, None);
        prop_assert_eq!(court.game.phase, REJECTED);
    }
}

#[test]
fn every_dishonest_provider_is_convicted() {
    for (gemma, drawn) in [(false, false), (false, true), (true, false), (true, true)] {
        let truth = Toy::new(size(gemma, drawn), 1);
        let lie = |seed| truth.lying(&[Lie::Element(truth.pick(seed))]);
        let everything = || truth.lying(&[Lie::From(LeafId { op: 0, row: 0 })]);
        let check = |name: &str, provider: Player| {
            let court = against(&truth, provider);
            assert_eq!(court.game.phase, CONVICTED, "{name}");
        };
        check("lies everywhere", Player::ByTheRules(everything()));
        for left in 0..8 {
            check("withholds", Player::Withholding(lie(2), left));
        }
        check("is late", Player::TooLate(lie(3)));
        check("reveals garbage", Player::Garbage(lie(4)));
        check("posts malformed trees", Player::Malformed(lie(5)));
        // Its garbage is refused, so that even a true trace does not save it.
        check("malforms the truth", Player::Malformed(truth.clone()));
        check(
            "posts one trace and reveals another",
            Player::TwoTraces {
                posted: lie(6),
                revealed: Box::new(everything()),
            },
        );
    }
}

#[test]
fn a_trace_of_another_shape_cannot_be_revealed() {
    // One row more in every op: the ops are as many, so the root is taken, and nothing below it.
    let truth = Toy::new(size(false, false), 1);
    let longer = Size {
        n_output: 4,
        ..size(false, false)
    };
    let posted = Toy::new(longer, 1);
    let mut court = Court::open(&truth, truth.program());
    let mut provider = assay_dispute::Player::new(&posted).unwrap();
    let root = provider.root().unwrap();
    let top = assay_dispute::Node::root(posted.program());
    let assay_dispute::Below::Children(children) = provider.below(&top).unwrap() else {
        panic!("a root has children")
    };
    court
        .play(Side::Provider, &Move::PostTrace { root, children })
        .unwrap();
    let now = Timestamp(court.now);
    let asked = next_moves(&court.game, &truth, None, Side::Challenger, now).unwrap();
    court.play(Side::Challenger, &asked[0]).unwrap();
    let below = provider.below(&court.game.held.unwrap().node).unwrap();
    assert!(court.play(Side::Provider, &Move::Reveal { below }).is_err());
}

#[test]
fn a_true_trace_of_a_false_statement_is_convicted_by_its_token() {
    for drawn in [false, true] {
        for output in 0..3 {
            let truth = Toy::new(size(false, drawn), 8).misstating(output);
            let court = against(&truth, Player::ByTheRules(truth.clone()));
            assert_eq!(court.game.phase, CONVICTED);
            let step = court.convicted_by.unwrap();
            assert_eq!((step.op, step.row), (TOKEN_OP, output));
            assert!(!step.sampler.is_empty());
        }
    }
}

#[test]
fn a_challenger_without_a_case_makes_no_move_and_loses_its_bond() {
    let truth = Toy::new(size(true, true), 3);
    let court = against(&truth, Player::ByTheRules(truth.clone()));
    assert_eq!(court.game.phase, REJECTED);
    assert_eq!(court.moves, 2, "the root and the timeout");
}

#[test]
fn a_lost_game_helps_the_next_challenger() {
    let truth = Toy::new(size(false, false), 5);
    let liar = truth.lying(&[Lie::Element(truth.pick(77))]);
    let mut lost = Court::open(&truth, truth.program());
    let mut idle = Player::Withholding(truth.clone(), 3);
    play(
        &mut lost,
        &mut Player::ByTheRules(liar.clone()),
        &mut idle,
        None,
    );
    assert_eq!(lost.game.phase, REJECTED);
    let mut next = lost.open_another();
    play(
        &mut next,
        &mut Player::ByTheRules(liar.clone()),
        &mut Player::ByTheRules(truth.clone()),
        None,
    );
    assert_eq!(next.game.phase, CONVICTED);
    assert_eq!(convicting_element(&next), truth.first_difference(&liar));
}

#[test]
fn moves_of_the_last_second_are_paid_out_of_the_purse() {
    let truth = Toy::new(size(false, false), 6);
    let liar = truth.lying(&[Lie::Element(truth.pick(9))]);
    let court = against(&truth, Player::LastSecond(liar));
    assert_eq!(court.game.phase, CONVICTED);
    assert_eq!(court.game.purse_provider, 0);
}

#[test]
fn a_long_context_takes_no_more_moves() {
    let long = Size {
        gemma: true,
        drawn: false,
        n_prompt: 150,
        n_output: 5,
    };
    let truth = Toy::new(long, 2);
    for seed in 0..6 {
        let liar = truth.lying(&[Lie::Element(truth.pick(seed))]);
        let court = against(&truth, Player::ByTheRules(liar.clone()));
        assert_eq!(court.game.phase, CONVICTED);
        assert_eq!(convicting_element(&court), truth.first_difference(&liar));
    }
}
