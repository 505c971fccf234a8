//! Nobody is held up for long by others.

use assay_engine::{BatchLimits, Batcher, GenerationRequest, SequenceId};
use assay_protocol::SamplerParams;

use crate::common::{Answers, endless, prompt};
use crate::tiny::Tiny;

fn greedy(len: usize, salt: u32, max: u32) -> GenerationRequest {
    GenerationRequest::new(prompt(len, salt), SamplerParams::greedy(max))
}

/// Steps until a sequence's first token.
fn steps_to_first(batcher: &mut Batcher, answers: &mut Answers, id: SequenceId) -> usize {
    (1..)
        .find(|_| {
            answers.step(batcher);
            !answers.so_far(id).is_empty()
        })
        .unwrap()
}

#[test]
fn a_short_prompt_behind_long_ones_waits_a_turn_of_each() {
    let mut tiny = Tiny::llama(21);
    tiny.dims.context_max = 4_200;
    let model = endless(tiny);
    // Beside sequences that decode a step runs one page of prompts, alone four.
    for (decoding, long, expected) in [(0, 1, 1), (0, 3, 1), (0, 6, 2), (1, 1, 2), (2, 3, 4)] {
        let mut batcher = Batcher::new(&model, 2, BatchLimits::default());
        let mut answers = Answers::default();
        for i in 0..decoding {
            let id = batcher.submit(greedy(1, 90 + i, 200)).unwrap();
            steps_to_first(&mut batcher, &mut answers, id);
        }
        let longs: Vec<SequenceId> = (0..long)
            .map(|i| batcher.submit(greedy(4_000, i, 1)).unwrap())
            .collect();
        answers.step(&mut batcher);
        let short = batcher.submit(greedy(20, 50, 5)).unwrap();
        let steps = steps_to_first(&mut batcher, &mut answers, short);
        assert!(
            steps <= expected,
            "{steps} steps with {decoding} and {long}"
        );
        assert!(longs.iter().all(|id| answers.so_far(*id).is_empty()));
        for id in longs {
            batcher.cancel(id);
        }
    }
}

#[test]
fn a_prompt_holds_up_no_one_who_decodes() {
    let model = endless(Tiny::gemma3(22));
    let mut batcher = Batcher::new(&model, 2, BatchLimits::default());
    let mut answers = Answers::default();
    let decoding = batcher.submit(greedy(3, 1, 300)).unwrap();
    steps_to_first(&mut batcher, &mut answers, decoding);
    let long = batcher.submit(greedy(1_000, 2, 4)).unwrap();
    while answers.so_far(long).is_empty() {
        let before = answers.so_far(decoding).len();
        answers.step(&mut batcher);
        assert!(answers.so_far(decoding).len() > before);
    }
}

#[test]
fn long_prompts_end_although_short_ones_keep_coming() {
    let model = endless(Tiny::llama(23));
    let mut batcher = Batcher::new(&model, 1, BatchLimits::default());
    let mut answers = Answers::default();
    let long = batcher.submit(greedy(1_000, 1, 1)).unwrap();
    let mut steps = 0;
    while answers.so_far(long).is_empty() {
        let _ = batcher.submit(greedy(30, 100 + steps, 1));
        answers.step(&mut batcher);
        steps += 1;
    }
    // It has at least every other turn.
    assert!(steps <= 1_000 / 32 * 2, "{steps}");
}
