//! An honest provider is never convicted: every element of its trace passes the referee, and so does
//! every token, whatever better place a challenger names.

use assay_dispute::Trace;
use assay_engine::Model;
use assay_protocol::trace::{Element, Op, Program, Segment};
use assay_protocol::{B256, SamplerParams, Temperature, TokenId};
use assay_testkit::tiny::Tiny;

use crate::court::{Case, Court, own_root, pick};

/// Smaller still than the tiny models: every one of its elements goes through the EVM.
pub(crate) fn small(mut tiny: Tiny) -> Model {
    tiny.dims.width = 64;
    tiny.dims.head_dim = 16;
    tiny.dims.ffn = 96;
    tiny.window = if tiny.window > 0 { 2 } else { 0 };
    tiny.model()
}

pub(crate) fn text(len: u32, vocab: u32) -> Vec<TokenId> {
    (0..len).map(|i| (i * i * 31 + i * 7 + 3) % vocab).collect()
}

pub(crate) fn greedy(max_tokens: u32) -> SamplerParams {
    SamplerParams::greedy(max_tokens)
}

pub(crate) fn drawn(max_tokens: u32, top_k: u32, top_p_q16: u32) -> SamplerParams {
    SamplerParams {
        temperature: Temperature::Beta(200),
        top_k,
        top_p_q16,
        seed: B256::repeat_byte(3),
        ..SamplerParams::greedy(max_tokens)
    }
}

/// Any place that a challenger may claim to be the better one: one out of sight would prove nothing.
pub(crate) fn elsewhere(program: &Program, element: Element, seed: u64) -> u64 {
    let row = element.leaf.row;
    match program.op(element.leaf.op) {
        Some(Op::Layer(layer)) if element.segment == Segment::Seen => {
            let from = program.first_seen(layer, row);
            u64::from(from) + pick(seed, u64::from(row + 1 - from))
        }
        _ => pick(seed, 64),
    }
}

/// Judges every `stride`-th element, from another start in each case.
fn judge_all(court: &mut Court, case: &Case, stride: u64, seed: u64) -> u64 {
    let mut player = case.player();
    let seen = own_root(&mut player, case.program());
    let mut judged = 0;
    for (at, element) in (0u64..).zip(case.elements()) {
        if !(at + seed).is_multiple_of(stride) {
            continue;
        }
        let id = case
            .program()
            .element(element.leaf, element.segment, element.index)
            .expect("an element of the trace");
        let witness = Some(elsewhere(case.program(), element, at));
        let step = player.step(&seen, id, witness).expect("a step");
        let said = court.convicts(case, seen.root(), &step);
        assert_eq!(said, Ok(false), "{element:?} at {at}, witness {witness:?}");
        judged += 1;
    }
    for output in 0..case.program().n_output() {
        for better in [0, 1, pick(output.into(), 288) as u32] {
            let step = player.token_step(&seen, output, better).expect("a step");
            let said = court.convicts(case, seen.root(), &step);
            assert_eq!(said, Ok(false), "token {output} against {better}");
        }
    }
    judged
}

#[test]
fn every_element_of_small_models_passes() {
    // All of them takes minutes: STEPS=all.
    let stride = match std::env::var("STEPS").as_deref() {
        Ok("all") => 1,
        _ => 23,
    };
    let mut judged = 0;
    for (seed, tiny) in [(1, Tiny::llama(1)), (2, Tiny::gemma3(2))] {
        let model = small(tiny);
        let mut court = Court::new();
        court.publish(model.manifest());
        for sampler in [
            greedy(3),
            drawn(2, 0, 1 << 16),
            drawn(2, 5, 1 << 16),
            drawn(2, 0, 50_000),
            drawn(2, 40, 60_000),
        ] {
            let case = Case::honest(&model, &text(4, 288), &sampler);
            judged += judge_all(&mut court, &case, stride, seed);
        }
        court.print_gas(&format!("{:?}", model.manifest().architecture));
    }
    println!("{judged} elements judged");
}

#[test]
fn elements_beyond_a_block_of_positions_pass() {
    for tiny in [Tiny::llama(3), Tiny::gemma3(4)] {
        let model = tiny.model();
        let mut court = Court::new();
        court.publish(model.manifest());
        let case = Case::honest(&model, &text(290, 288), &greedy(3));
        assert!(case.trace.program().tokens() > 256);
        let judged = judge_all(&mut court, &case, 9_973, 11);
        court.print_gas(&format!("{judged} elements of {:?}", tiny.architecture));
    }
}
