//! Guesses change speed, never answers.

use assay_engine::{BatchLimits, BatchStats, Batcher, GenerationRequest, Model};
use assay_protocol::{SamplerParams, StopReason, TokenId};
use proptest::prelude::*;

use crate::common::{Answer, alone, drain, endless, plain, prompt, seeded};
use crate::tiny::Tiny;

fn guessing() -> BatchLimits {
    BatchLimits {
        speculate: true,
        ..plain()
    }
}

fn together(
    model: &Model,
    threads: usize,
    requests: &[GenerationRequest],
) -> (Vec<Answer>, BatchStats) {
    let mut batcher = Batcher::new(model, threads, guessing());
    for request in requests {
        batcher.submit(request.clone()).unwrap();
    }
    let answers = drain(&mut batcher).over.into_values().collect();
    assert_eq!(batcher.memory().pages_taken, 0);
    (answers, batcher.stats())
}

/// Text that repeats itself.
fn repetitive(len: usize, period: usize, salt: u32) -> Vec<TokenId> {
    let once = prompt(period, salt);
    once.into_iter().cycle().take(len).collect()
}

#[test]
fn greedy_loops_are_guessed_and_cost_fewer_steps() {
    for tiny in [Tiny::llama(31), Tiny::gemma3(32)] {
        let model = endless(tiny);
        let request = GenerationRequest::new(prompt(40, 3), SamplerParams::greedy(400));
        let expected = alone(&model, &request);
        for threads in [1, 2, 4] {
            let (answers, stats) = together(&model, threads, std::slice::from_ref(&request));
            assert_eq!(answers, std::slice::from_ref(&expected));
            assert!(stats.guessed_true > 40, "{stats:?}");
            assert_eq!(stats.steps + stats.guessed_true, 400, "{stats:?}");
        }
    }
}

#[test]
fn an_end_token_among_the_guesses_ends_the_answer_there() {
    let mut tiny = Tiny::llama(33);
    let request = GenerationRequest::new(prompt(40, 3), SamplerParams::greedy(300));
    let (free, _) = alone(&endless(tiny.clone()), &request);
    // Whatever token ends the answer, it ends where that first comes.
    let mut ends: Vec<TokenId> = free.clone();
    ends.sort_unstable();
    ends.dedup();
    for end in ends {
        tiny.eos = vec![end];
        let model = tiny.model();
        let first = free.iter().position(|token| *token == end).unwrap();
        let expected = (free[..=first].to_vec(), StopReason::EndOfText);
        assert_eq!(
            together(&model, 2, std::slice::from_ref(&request)).0,
            [expected]
        );
    }
}

#[test]
fn an_answer_is_cut_at_its_length_whatever_was_guessed() {
    let model = endless(Tiny::llama(31));
    let (longest, _) = alone(
        &model,
        &GenerationRequest::new(prompt(40, 3), SamplerParams::greedy(120)),
    );
    for max in (1..=120).step_by(7) {
        let request = GenerationRequest::new(prompt(40, 3), SamplerParams::greedy(max));
        let expected = (longest[..max as usize].to_vec(), StopReason::MaxTokens);
        assert_eq!(together(&model, 1, &[request]).0, [expected]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn answers_are_the_same_with_guesses_and_without(
        gemma in any::<bool>(),
        seed in 0u64..1_000,
        prompts in prop::collection::vec(
            (1usize..200, 1usize..40, any::<u8>(), any::<bool>(), 1u32..120),
            1..4,
        ),
        threads in 1usize..4,
    ) {
        let tiny = if gemma { Tiny::gemma3(seed) } else { Tiny::llama(seed) };
        let model = tiny.model();
        let requests: Vec<GenerationRequest> = prompts
            .into_iter()
            .map(|(len, period, salt, greedy, max)| {
                let sampler = if greedy { SamplerParams::greedy(max) } else { seeded(salt, max) };
                GenerationRequest::new(repetitive(len, period, salt.into()), sampler)
            })
            .collect();
        let expected: Vec<Answer> = requests.iter().map(|request| alone(&model, request)).collect();
        prop_assert_eq!(together(&model, threads, &requests).0, expected);
    }
}
