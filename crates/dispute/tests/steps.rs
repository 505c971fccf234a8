//! Steps: what is shown of every kind of element, spelled out, and that it always verifies.

mod common;

use assay_dispute::{Parting, Player, Step, Trace};
use assay_protocol::trace::{ElementId, LeafId, Op, Part, Program, Segment, TOKEN_OP};
use common::court::{Court, verified};
use common::players::{self, play, served};
use common::toy::{Lie, Random, Size, Toy};

/// Two blocks of positions for layer 0, one for layer 1, whose window is 3.
const LONG: Size = Size {
    gemma: true,
    drawn: true,
    n_prompt: 140,
    n_output: 2,
};

/// A step in words: what is opened, then rows, entries, tokens and whether the sampler is there.
fn words(program: &Program, step: &Step) -> String {
    let opened = step.openings.iter().map(|opening| {
        let leaf = LeafId {
            op: opening.op,
            row: opening.row,
        };
        let within = |part: &Part| {
            (part.first_chunk..part.first_chunk + part.chunks).contains(&opening.first)
        };
        let part = program.parts(leaf).into_iter().find(within).unwrap();
        let len = |chunks: u32| {
            let chunks = opening.first..opening.first + chunks;
            chunks.map(|chunk| program.chunk_len(leaf, chunk)).sum()
        };
        let shown = (1..=part.chunks).find(|chunks| opening.bytes(len(*chunks)).is_some());
        let shown = shown.expect("whole chunks");
        let from = opening.first - part.first_chunk;
        let op = program.op(opening.op).unwrap();
        let path = if opening.path.is_empty() { "" } else { "*" };
        format!(
            "{op:?}@{}{path}.{:?}[{from}..{}]",
            opening.row,
            part.segment,
            from + shown
        )
    });
    let text = |data: &Vec<u8>| String::from_utf8(data.clone()).unwrap();
    let rows = step.rows.iter().map(|row| text(&row.data));
    let entries = step.entries.iter().map(|entry| text(&entry.data));
    let tokens = step
        .tokens
        .iter()
        .map(|token| format!("token {}", token.token));
    let sampler = (!step.sampler.is_empty()).then(|| "sampler".to_owned());
    let all: Vec<String> = opened
        .chain(rows)
        .chain(entries)
        .chain(tokens)
        .chain(sampler)
        .collect();
    all.join(", ")
}

#[test]
fn what_is_shown_of_every_kind_of_element_is_spelled_out() {
    use Segment::*;
    let toy = Toy::new(LONG, 4);
    let program = toy.program();
    let known = assay_dispute::Seen::new(program, toy.root());
    let mut player = Player::new(&toy).unwrap();
    let mut check = |op: Op, row: u32, segment: Segment, index: u64, expected: &str| {
        let leaf = program.leaf(op, row);
        let id = program.element(leaf, segment, index).unwrap();
        let step = player.step(&known, id, None).unwrap();
        assert_eq!(words(program, &step), expected);
    };
    check(
        Op::Embed,
        140,
        Residual,
        70,
        "Embed@140*.Residual[1..2], Embedding 203, token 203",
    );
    check(
        Op::Project(1),
        5,
        Squares,
        0,
        "Project(1)@5*.Squares[0..1], Layer(0)@5*.Residual[0..1]",
    );
    check(
        Op::Project(1),
        5,
        Squares,
        1,
        "Project(1)@5*.Squares[0..1], Project(1)@5.Squares[0..1], Layer(0)@5*.Residual[1..2]",
    );
    check(
        Op::Final,
        1,
        Squares,
        1,
        "Final@1*.Squares[0..1], Final@1.Squares[0..1], Layer(1)@140*.Residual[1..2]",
    );
    check(
        Op::Layer(0),
        5,
        PostSquares,
        1,
        "Layer(0)@5*.PostSquares[0..1], Layer(0)@5.PostSquares[0..1], Layer(0)@5.Branch[1..2]",
    );
    check(
        Op::Layer(0),
        5,
        FfnSquares,
        1,
        "Layer(0)@5*.FfnSquares[0..1], Layer(0)@5.FfnSquares[0..1], Layer(0)@5.Middle[1..2]",
    );
    check(
        Op::Layer(0),
        5,
        DownSquares,
        0,
        "Layer(0)@5*.DownSquares[0..1], Layer(0)@5.Down[0..1]",
    );
    check(
        Op::Project(0),
        5,
        HeadSquares,
        5,
        "Project(0)@5*.HeadSquares[0..1], Project(0)@5.Qkv[0..1]",
    );
    check(
        Op::Project(0),
        5,
        Peak,
        0,
        "Project(0)@5*.Peak[0..1], Project(0)@5.Squares[0..1], Embed@5*.Residual[0..1], Embed@5.Residual[0..1], AttentionNorm(0) 30, AttentionNorm(0) 30",
    );
    check(
        Op::Project(0),
        5,
        Peak,
        1,
        "Project(0)@5*.Peak[0..1], Project(0)@5.Squares[0..1], Embed@5*.Residual[0..1], AttentionNorm(0) 30",
    );
    check(
        Op::Layer(0),
        5,
        MixPeak,
        0,
        "Layer(0)@5*.MixPeak[0..1], Layer(0)@5.Mixes[0..1], Layer(0)@5.Mixes[0..1]",
    );
    check(
        Op::Layer(0),
        139,
        MixPeak,
        1,
        "Layer(0)@139*.MixPeak[0..1], Layer(0)@139.Mixes[0..1]",
    );
    check(
        Op::Layer(0),
        5,
        ActPeak,
        0,
        "Layer(0)@5*.ActPeak[0..1], Layer(0)@5.GateUp[0..1], Layer(0)@5.GateUp[3..4], Layer(0)@5.GateUp[0..1], Layer(0)@5.GateUp[3..4], Act 65535, Act 65535",
    );
    check(
        Op::Layer(0),
        5,
        FfnPeak,
        1,
        "Layer(0)@5*.FfnPeak[0..1], Layer(0)@5.FfnSquares[0..1], Layer(0)@5.Middle[0..1], FfnNorm(0) 53",
    );
    check(
        Op::Project(0),
        5,
        X12,
        95,
        "Project(0)@5*.X12[0..1], Project(0)@5.Peak[0..1], Project(0)@5.Squares[0..1], Embed@5*.Residual[1..2], AttentionNorm(0) 95",
    );
    check(
        Op::Layer(0),
        5,
        MixX12,
        2,
        "Layer(0)@5*.MixX12[0..1], Layer(0)@5.MixPeak[0..1], Layer(0)@5.Mixes[0..1]",
    );
    check(
        Op::Layer(0),
        5,
        FfnX12,
        2,
        "Layer(0)@5*.FfnX12[0..1], Layer(0)@5.FfnPeak[0..1], Layer(0)@5.FfnSquares[0..1], Layer(0)@5.Middle[0..1], FfnNorm(0) 2",
    );
    check(
        Op::Layer(0),
        5,
        ActX12,
        150,
        "Layer(0)@5*.ActX12[1..2], Layer(0)@5.ActPeak[0..1], Layer(0)@5.GateUp[2..3], Layer(0)@5.GateUp[4..5], Act 65535",
    );
    check(
        Op::Final,
        0,
        X12,
        3,
        "Final@0*.X12[0..1], Final@0.Peak[0..1], Final@0.Squares[0..1], Layer(1)@139*.Residual[0..1], FinalNorm 3",
    );
    check(
        Op::Project(1),
        5,
        Qkv,
        3,
        "Project(1)@5*.Qkv[0..1], Project(1)@5.Peak[0..1], Project(1)@5.X12[0..1], Q(1) 3",
    );
    check(
        Op::Project(1),
        5,
        Qkv,
        24,
        "Project(1)@5*.Qkv[0..1], Project(1)@5.Peak[0..1], Project(1)@5.X12[0..1], K(1) 0",
    );
    check(
        Op::Project(1),
        5,
        Qkv,
        47,
        "Project(1)@5*.Qkv[0..1], Project(1)@5.Peak[0..1], Project(1)@5.X12[0..1], V(1) 11",
    );
    check(
        Op::Layer(1),
        5,
        Branch,
        9,
        "Layer(1)@5*.Branch[0..1], Layer(1)@5.MixPeak[0..1], Layer(1)@5.MixX12[0..1], O(1) 9",
    );
    check(
        Op::Layer(1),
        5,
        GateUp,
        9,
        "Layer(1)@5*.GateUp[0..1], Layer(1)@5.FfnPeak[0..1], Layer(1)@5.FfnX12[0..1], Gate(1) 9",
    );
    check(
        Op::Layer(1),
        5,
        GateUp,
        169,
        "Layer(1)@5*.GateUp[2..3], Layer(1)@5.FfnPeak[0..1], Layer(1)@5.FfnX12[0..1], Up(1) 9",
    );
    check(
        Op::Layer(1),
        5,
        Down,
        9,
        "Layer(1)@5*.Down[0..1], Layer(1)@5.ActPeak[0..1], Layer(1)@5.ActX12[0..2], Down(1) 9",
    );
    check(
        Op::Sample,
        1,
        Logits,
        299,
        "Sample@1*.Logits[4..5], Final@1*.Peak[0..1], Final@1.X12[0..1], Head 299, sampler",
    );
    check(
        Op::Project(1),
        5,
        Q,
        8,
        "Project(1)@5*.Q[0..1], Project(1)@5.Qkv[0..1], Project(1)@5.Qkv[0..1], Project(1)@5.HeadSquares[0..1], Rope(0) 5, QNorm(1) 2, QNorm(1) 5",
    );
    check(
        Op::Project(1),
        5,
        K,
        11,
        "Project(1)@5*.K[0..1], Project(1)@5.Qkv[0..1], Project(1)@5.Qkv[0..1], Project(1)@5.HeadSquares[0..1], Rope(0) 5, KNorm(1) 2, KNorm(1) 5",
    );
    check(
        Op::Project(1),
        5,
        V,
        11,
        "Project(1)@5*.V[0..1], Project(1)@5.Qkv[0..1]",
    );
    check(
        Op::Columns(1),
        1,
        Columns,
        396,
        "Columns(1)@1*.Columns[3..4], Project(1)@140*.V[0..1]",
    );
    check(
        Op::Columns(1),
        1,
        Columns,
        397,
        "Columns(1)@1*.Columns[3..4]",
    );
    check(
        Op::Layer(1),
        139,
        Seen,
        2,
        "Layer(1)@139*.Seen[0..1], Project(1)@139*.Q[0..1], Project(1)@137*.K[0..1], Project(1)@137.K[0..1]",
    );
    check(
        Op::Layer(1),
        139,
        Seen,
        7,
        "Layer(1)@139*.Seen[0..1], Project(1)@139*.Q[0..1], Project(1)@139.K[0..1]",
    );
    check(
        Op::Layer(0),
        139,
        Exps,
        773,
        "Layer(0)@139*.Exps[6..7], Layer(0)@139.Seen[0..1], Project(0)@139*.Q[0..1], Project(0)@5*.K[0..1], Exp 154",
    );
    check(Op::Layer(0), 139, Exps, 908, "Layer(0)@139*.Exps[7..8]");
    check(Op::Layer(1), 139, Exps, 392, "Layer(1)@139*.Exps[3..4]");
    check(
        Op::Layer(1),
        139,
        Exps,
        393,
        "Layer(1)@139*.Exps[3..4], Layer(1)@139.Seen[0..1], Project(1)@139*.Q[0..1], Project(1)@137*.K[0..1], Exp 83",
    );
    check(
        Op::Layer(0),
        139,
        Sums,
        6,
        "Layer(0)@139*.Sums[0..1], Layer(0)@139.Exps[6..7]",
    );
    check(
        Op::Layer(0),
        139,
        Sums,
        7,
        "Layer(0)@139*.Sums[0..1], Layer(0)@139.Sums[0..1], Layer(0)@139.Exps[7..8]",
    );
    check(
        Op::Layer(0),
        139,
        Mixes,
        23,
        "Layer(0)@139*.Mixes[0..1], Layer(0)@139.Sums[0..1], Layer(0)@139.Exps[6..7], Columns(0)@0*.Columns[11..12]",
    );
    check(
        Op::Layer(0),
        139,
        Mixes,
        47,
        "Layer(0)@139*.Mixes[0..1], Layer(0)@139.Mixes[0..1], Layer(0)@139.Sums[0..1], Layer(0)@139.Exps[7..8], Columns(0)@1*.Columns[11..12]",
    );
    check(
        Op::Layer(1),
        139,
        Mixes,
        12,
        "Layer(1)@139*.Mixes[0..1], Layer(1)@139.Sums[0..1], Layer(1)@139.Exps[2..3], Columns(1)@1*.Columns[6..7]",
    );
    check(
        Op::Layer(1),
        5,
        Middle,
        70,
        "Layer(1)@5*.Middle[1..2], Layer(0)@5*.Residual[1..2], Layer(1)@5.Branch[1..2], Layer(1)@5.PostSquares[0..1], AttentionPost(1) 70",
    );
    check(
        Op::Layer(0),
        5,
        Middle,
        70,
        "Layer(0)@5*.Middle[1..2], Embed@5*.Residual[1..2], Layer(0)@5.Branch[1..2], Layer(0)@5.PostSquares[0..1], AttentionPost(0) 70",
    );
    check(
        Op::Layer(0),
        5,
        Residual,
        3,
        "Layer(0)@5*.Residual[0..1], Layer(0)@5.Middle[0..1], Layer(0)@5.Down[0..1], Layer(0)@5.DownSquares[0..1], FfnPost(0) 3",
    );
    check(
        Op::Sample,
        1,
        Top,
        0,
        "Sample@1*.Top[0..1], Sample@1.Logits[0..1], Sample@1.Logits[0..1], sampler",
    );
    check(
        Op::Sample,
        1,
        Top,
        1,
        "Sample@1*.Top[0..1], Sample@1.Logits[0..1], sampler",
    );
    check(
        Op::Sample,
        1,
        Weights,
        299,
        "Sample@1*.Weights[4..5], Sample@1.Top[0..1], Sample@1.Logits[4..5], Exp 198, sampler",
    );
    check(
        Op::Sample,
        1,
        Totals,
        0,
        "Sample@1*.Totals[0..1], Sample@1.Weights[0..4], sampler",
    );
    check(
        Op::Sample,
        1,
        Totals,
        1,
        "Sample@1*.Totals[0..1], Sample@1.Totals[0..1], Sample@1.Weights[4..5], sampler",
    );
    check(
        Op::Sample,
        1,
        CountSearch,
        0,
        "Sample@1*.CountSearch[0..1], Sample@1.Logits[0..4], sampler",
    );
    check(
        Op::Sample,
        1,
        CountSearch,
        2,
        "Sample@1*.CountSearch[0..1], Sample@1.CountSearch[0..1], sampler",
    );
    check(
        Op::Sample,
        1,
        CountSearch,
        7,
        "Sample@1*.CountSearch[0..1], Sample@1.CountSearch[0..1], Sample@1.CountSearch[0..1], Sample@1.Logits[4..5], sampler",
    );
    check(
        Op::Sample,
        1,
        SumSearch,
        6,
        "Sample@1*.SumSearch[0..1], Sample@1.SumSearch[0..1], Sample@1.Logits[0..4], Sample@1.Weights[0..4], sampler",
    );
    check(
        Op::Sample,
        1,
        SumSearch,
        8,
        "Sample@1*.SumSearch[0..1], Sample@1.SumSearch[0..1], Sample@1.SumSearch[0..1], Sample@1.Totals[0..1], sampler",
    );
    check(
        Op::Sample,
        1,
        Kept,
        0,
        "Sample@1*.Kept[0..1], Sample@1.CountSearch[2..3], Sample@1.SumSearch[2..3], Sample@1.Logits[0..4], Sample@1.Weights[0..4], sampler",
    );
    check(
        Op::Sample,
        1,
        Kept,
        1,
        "Sample@1*.Kept[0..1], Sample@1.Kept[0..1], Sample@1.CountSearch[2..3], Sample@1.SumSearch[2..3], Sample@1.Logits[4..5], Sample@1.Weights[4..5], sampler",
    );
}

#[test]
fn what_is_shown_of_a_token_is_spelled_out() {
    let check = |drawn: bool, expected: &str| {
        let toy = Toy::new(Size { drawn, ..LONG }, 4);
        let known = assay_dispute::Seen::new(toy.program(), toy.root());
        let mut player = Player::new(&toy).unwrap();
        let step = player.token_step(&known, 1, 7).unwrap();
        assert_eq!((step.op, step.row), (TOKEN_OP, 1));
        assert_eq!(step.witness, if drawn { 0 } else { 7 });
        assert_eq!(words(toy.program(), &step), expected);
    };
    check(
        false,
        "Final@1*.Peak[0..1], Final@1.X12[0..1], Head 210, Head 7, token 210, sampler",
    );
    check(
        true,
        "Sample@1*.Kept[0..1], Sample@1.CountSearch[2..3], Sample@1.SumSearch[2..3], Sample@1.Logits[0..4], Sample@1.Weights[0..4], token 210, sampler",
    );
}

#[test]
fn every_element_of_a_trace_makes_a_step_that_verifies() {
    for (gemma, drawn) in [(false, false), (true, true)] {
        let toy = Toy::new(Size::small(gemma, drawn), 9);
        let program = toy.program();
        let known = assay_dispute::Seen::new(program, toy.root());
        let mut player = Player::new(&toy).unwrap();
        for leaf in toy.all_leaves().into_iter().filter(|leaf| leaf.row == 1) {
            for part in program.parts(leaf) {
                for index in 0..part.len {
                    let (chunk, slot) = part.place(index).unwrap();
                    let id = ElementId { leaf, chunk, slot };
                    let step = player.step(&known, id, None).unwrap();
                    let shown = verified(program, toy.root(), &step);
                    assert!(shown.is_ok(), "{:?} {index}: {shown:?}", part.segment);
                }
            }
        }
    }
}

/// Lies in one element of every kind, first, last and in the middle, at any row; each is convicted by
/// the step about it, though the provider answers nothing off chain.
#[test]
fn one_false_element_of_any_kind_convicts() {
    for (gemma, drawn) in [(false, true), (true, true)] {
        let truth = Toy::new(Size::small(gemma, drawn), 12);
        let program = truth.program();
        let mut random = Random::new(5, &[]);
        for op in 0..program.ops() {
            let row = random.below(program.rows(op).into()) as u32;
            let leaf = LeafId { op, row };
            for part in program.parts(leaf) {
                for index in [0, part.len / 2, part.len - 1] {
                    let (chunk, slot) = part.place(index).unwrap();
                    let id = ElementId { leaf, chunk, slot };
                    let liar = truth.lying(&[Lie::Element(id)]);
                    let mut court = Court::open(&truth, program);
                    let (mut provider, mut challenger) = (
                        players::Player::ByTheRules(liar),
                        players::Player::ByTheRules(truth.clone()),
                    );
                    play(&mut court, &mut provider, &mut challenger, None);
                    let step = court.convicted_by.expect("the lie is found");
                    assert_eq!(
                        (step.op, step.row, step.chunk, step.slot),
                        (op, row, chunk, slot)
                    );
                }
            }
        }
    }
}

#[test]
fn a_dispute_takes_one_run_of_the_model_or_two() {
    let truth = Toy::new(LONG, 6);
    let program = truth.program();
    for seed in 0..200 {
        let id = truth.pick(seed);
        let liar = truth.lying(&[Lie::Element(id)]);
        let known = served(&liar, &truth);
        let mut player = Player::new(&truth).unwrap();
        truth.runs.set(0);
        assert_eq!(player.parting(&known).unwrap(), Parting::At(id));
        player.step(&known, id, None).unwrap();
        // Which other token a head looks at, or a column holds, is known only when the vector is.
        let segment = program.locate(id).unwrap().segment;
        let other_rows = matches!(segment, Segment::Columns | Segment::Seen | Segment::Exps);
        let most = if other_rows { 2 } else { 1 };
        assert!(truth.runs.get() <= most, "{segment:?} {}", truth.runs.get());
    }
}

#[test]
fn a_false_place_is_shown_with_the_better_one() {
    let truth = Toy::new(Size::small(false, true), 1);
    let program = truth.program();
    let mut player = Player::new(&truth).unwrap();
    for (op, segment) in [
        (Op::Project(0), Segment::Peak),
        (Op::Layer(1), Segment::ActPeak),
        (Op::Layer(1), Segment::Seen),
        (Op::Sample, Segment::Top),
    ] {
        let leaf = program.leaf(op, 2);
        let id = program.element(leaf, segment, 0).unwrap();
        let liar = truth.lying(&[Lie::Element(id)]);
        let step = player.step(&served(&liar, &truth), id, None).unwrap();
        let honest = &truth.vector(leaf);
        let from = program.chunk_range(leaf, id.chunk).unwrap().start as usize;
        let place = u64::from_be_bytes(honest[from..from + 8].try_into().unwrap());
        assert_eq!(step.witness, place, "{segment:?}");
        let claimed = u64::from_be_bytes(step.openings[0].data[..8].try_into().unwrap());
        assert_ne!(claimed, place);
    }
}

#[test]
fn an_element_that_does_not_exist_makes_no_step() {
    let toy = Toy::new(Size::small(false, false), 1);
    let known = assay_dispute::Seen::new(toy.program(), toy.root());
    let mut player = Player::new(&toy).unwrap();
    for (op, row, chunk, slot) in [(0, 0, 0, 64), (0, 0, 99, 0), (0, 99, 0, 0), (99, 0, 0, 0)] {
        let leaf = LeafId { op, row };
        let id = ElementId { leaf, chunk, slot };
        assert!(player.step(&known, id, None).is_err(), "{id:?}");
    }
    assert!(player.token_step(&known, 3, 0).is_err());
}
