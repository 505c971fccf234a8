//! Pages are shared, kept and evicted; answers do not depend on it, and memory stays within its bound.

use assay_engine::{BatchLimits, Batcher, GenerationRequest, MemoryUse, Model, SubmitError};
use assay_protocol::{B256, SamplerParams, TokenId};
use proptest::prelude::*;

use crate::common::{
    Answer, Answers, PAGE, alone, drain, endless, plain, prompt, seeded, with_pages,
};
use crate::tiny::Tiny;

fn greedy(prompt: Vec<TokenId>, max: u32) -> GenerationRequest {
    GenerationRequest::new(prompt, SamplerParams::greedy(max))
}

/// Eight prompts that begin alike and part within a page, at its border, or not at all.
fn alike() -> Vec<GenerationRequest> {
    let base = prompt(300, 1);
    [0, 1, PAGE, PAGE + 1, 100, 128, 299, 300]
        .into_iter()
        .enumerate()
        .map(|(i, shared)| {
            let own = prompt(5 + 30 * i, 70 + i as u32);
            let sampler = match i % 2 {
                0 => SamplerParams::greedy(25),
                _ => seeded(i as u8, 40),
            };
            GenerationRequest::new([&base[..shared], &own].concat(), sampler)
        })
        .collect()
}

#[test]
fn prompts_that_begin_alike_yield_what_each_yields_alone() {
    for tiny in [Tiny::llama(41), Tiny::gemma3(42)] {
        let model = endless(tiny);
        let expected: Vec<Answer> = alike()
            .iter()
            .map(|request| alone(&model, request))
            .collect();
        for threads in [1, 2, 4] {
            let mut batcher = Batcher::new(&model, threads, BatchLimits::default());
            // The second time everything is found.
            for round in 0..2 {
                for request in alike() {
                    batcher.submit(request).unwrap();
                }
                let answers = drain(&mut batcher);
                let reused: usize = answers.reused.values().sum();
                let found: Vec<Answer> = answers.over.into_values().collect();
                assert_eq!(found, expected, "{threads} threads");
                let whole_pages = |request: &GenerationRequest| (request.prompt.len() - 1) / PAGE;
                let all: usize = alike().iter().map(whole_pages).sum();
                match round {
                    0 => assert!(reused >= 15 * PAGE && reused < all * PAGE),
                    _ => assert_eq!(reused, all * PAGE),
                }
            }
        }
    }
}

#[test]
fn equal_prompts_that_come_together_are_run_once() {
    let model = endless(Tiny::llama(43));
    let mut batcher = Batcher::new(&model, 2, BatchLimits::default());
    let request = greedy(prompt(500, 1), 3);
    for _ in 0..4 {
        batcher.submit(request.clone()).unwrap();
    }
    let answers = drain(&mut batcher);
    // They take turns at it.
    let reused: usize = answers.reused.into_values().sum();
    assert_eq!(reused, 3 * 480);
    let expected = alone(&model, &request);
    assert!(answers.over.into_values().all(|answer| answer == expected));
}

#[test]
fn the_next_turn_of_a_chat_finds_prompt_and_answer() {
    let model = endless(Tiny::gemma3(44));
    let mut batcher = Batcher::new(&model, 1, BatchLimits::default());
    let first = prompt(75, 1);
    batcher.submit(greedy(first.clone(), 61)).unwrap();
    let (answer, _) = drain(&mut batcher).over.pop_first().unwrap().1;
    let second = greedy([&first[..], &answer, &prompt(10, 2)].concat(), 9);
    let id = batcher.submit(second.clone()).unwrap();
    let answers = drain(&mut batcher);
    // The answer's last token was never run.
    assert_eq!(answers.reused[&id], (75 + 61 - 1) / PAGE * PAGE);
    assert_eq!(answers.over[&id], alone(&model, &second));
}

#[test]
fn the_last_token_of_a_prompt_is_always_run() {
    let model = endless(Tiny::llama(45));
    let mut batcher = Batcher::new(&model, 1, BatchLimits::default());
    for (len, expected) in [(64, 0), (64, 32), (65, 64), (63, 32), (33, 32), (32, 0)] {
        let request = greedy(prompt(len, 1), 2);
        let id = batcher.submit(request.clone()).unwrap();
        let answers = drain(&mut batcher);
        assert_eq!(answers.reused[&id], expected, "{len} tokens");
        assert_eq!(answers.over[&id], alone(&model, &request));
    }
}

#[test]
fn other_salts_and_other_tokens_find_nothing() {
    let model = endless(Tiny::llama(46));
    let mut batcher = Batcher::new(&model, 1, BatchLimits::default());
    let mut reused = |prompt: Vec<TokenId>, salt: u8| {
        let mut request = greedy(prompt, 1);
        request.cache_salt = B256::repeat_byte(salt);
        let id = batcher.submit(request).unwrap();
        drain(&mut batcher).reused[&id]
    };
    let base = prompt(3 * PAGE + 1, 1);
    assert_eq!(reused(base.clone(), 1), 0);
    assert_eq!(reused(base.clone(), 2), 0);
    assert_eq!(reused(base.clone(), 1), 3 * PAGE);
    // A single token changed hides its page and all after it.
    for at in 0..3 * PAGE {
        let mut other = base.clone();
        other[at] ^= 1;
        assert_eq!(reused(other, 1), at / PAGE * PAGE, "token {at}");
    }
    // The same page in another place is another page.
    let shifted = [&base[PAGE..2 * PAGE], &base[..2 * PAGE]].concat();
    assert_eq!(reused(shifted, 1), 0);
}

#[test]
fn the_longest_unused_pages_give_way_first() {
    let model = endless(Tiny::llama(47));
    // A prompt and its answer take four pages, three of which are kept: two prompts fit, not three.
    let mut batcher = Batcher::new(&model, 1, with_pages(&model, 7));
    let request = |salt| greedy(prompt(3 * PAGE + 1, salt), 2);
    let mut reused = |salt| {
        let id = batcher.submit(request(salt)).unwrap();
        let answers = drain(&mut batcher);
        assert_eq!(answers.over[&id], alone(&model, &request(salt)));
        assert!(batcher.memory().pages_kept <= 7);
        answers.reused[&id] / PAGE
    };
    assert_eq!(reused(1), 0);
    assert_eq!(reused(2), 0);
    assert_eq!(reused(1), 3);
    // The third takes the room of the second, whose pages nobody asked for since, the last one first.
    assert_eq!(reused(3), 0);
    assert_eq!(reused(1), 3);
    assert_eq!(reused(3), 3);
    assert_eq!(reused(2), 0);
}

#[test]
fn what_leaves_gives_its_pages_back_at_once() {
    let model = endless(Tiny::gemma3(48));
    for (share, kept) in [(false, 0), (true, 8)] {
        let limits = BatchLimits {
            share_prefixes: share,
            ..with_pages(&model, 40)
        };
        let mut batcher = Batcher::new(&model, 2, limits);
        let usage = |pages_taken, pages_kept| MemoryUse {
            pages_max: 40,
            pages_taken,
            pages_kept,
        };
        assert_eq!(batcher.memory(), usage(0, 0));
        let id = batcher.submit(greedy(prompt(1_000, 1), 10)).unwrap();
        assert_eq!(batcher.memory(), usage(32, 0));
        assert_eq!(
            batcher.submit(greedy(prompt(300, 2), 10)),
            Err(SubmitError::Busy)
        );
        // Two steps of 128 tokens, in the middle of the prompt.
        batcher.step();
        batcher.step();
        assert_eq!(batcher.memory(), usage(32, 0));
        batcher.cancel(id);
        assert_eq!(batcher.memory(), usage(0, kept));
        // All of it can be had again.
        let id = batcher.submit(greedy(prompt(1_270, 2), 10)).unwrap();
        assert_eq!(batcher.memory(), usage(40, kept));
        assert_eq!(drain(&mut batcher).over[&id].0.len(), 10);
        assert_eq!(batcher.memory().pages_taken, 0);
    }
}

#[test]
fn what_is_shared_is_not_reserved_again() {
    let model = endless(Tiny::llama(49));
    let mut batcher = Batcher::new(&model, 2, with_pages(&model, 12));
    let request = |salt: u32| greedy([prompt(8 * PAGE, 1), prompt(20, salt)].concat(), 10);
    batcher.submit(request(5)).unwrap();
    // Before it has run there is nothing to share.
    assert_eq!(batcher.submit(request(6)), Err(SubmitError::Busy));
    let mut answers = Answers::default();
    while answers.reused.is_empty() {
        answers.step(&mut batcher);
    }
    for salt in 6..9 {
        batcher.submit(request(salt)).unwrap();
        assert_eq!(batcher.memory().pages_taken, 9 + salt as usize - 5);
    }
    assert_eq!(batcher.submit(request(9)), Err(SubmitError::Busy));
    while !batcher.is_idle() {
        answers.step(&mut batcher);
    }
    let expected: Vec<Answer> = (5..9).map(|salt| alone(&model, &request(salt))).collect();
    assert_eq!(answers.over.into_values().collect::<Vec<_>>(), expected);
}

/// What somebody does.
#[derive(Debug, Clone)]
enum Act {
    Ask {
        stem: usize,
        len: usize,
        own: u32,
        max: u32,
    },
    Leave(usize),
    Step(usize),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        3 => (0..3usize, 0..200usize, 0..4u32, 1..50u32)
            .prop_map(|(stem, len, own, max)| Act::Ask { stem, len, own, max }),
        1 => (0..8usize).prop_map(Act::Leave),
        4 => (1..12usize).prop_map(Act::Step),
    ]
}

fn check_memory(batcher: &Batcher) {
    let MemoryUse {
        pages_max,
        pages_taken,
        pages_kept,
    } = batcher.memory();
    assert!(pages_taken <= pages_max && pages_kept <= pages_max);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn whoever_comes_and_goes_memory_and_answers_hold(
        acts in prop::collection::vec(act(), 1..40),
        pages in 9usize..24,
        share in any::<bool>(),
        gemma in any::<bool>(),
    ) {
        let model: Model = if gemma { Tiny::gemma3(51).model() } else { Tiny::llama(52).model() };
        let limits = BatchLimits { share_prefixes: share, ..with_pages(&model, pages) };
        let mut batcher = Batcher::new(&model, 2, limits);
        let mut answers = Answers::default();
        let mut asked = Vec::new();
        let mut left = Vec::new();
        for act in acts {
            match act {
                Act::Ask { stem, len, own, max } => {
                    let stem = prompt(len, stem as u32);
                    let request = greedy([stem, prompt(1 + own as usize * 9, 60 + own)].concat(), max);
                    match batcher.submit(request.clone()) {
                        Ok(id) => asked.push((id, request)),
                        Err(error) => prop_assert_eq!(error, SubmitError::Busy),
                    }
                }
                Act::Leave(which) => {
                    if let Some((id, _)) = asked.get(which) {
                        batcher.cancel(*id);
                        left.push(*id);
                    }
                }
                Act::Step(steps) => (0..steps).for_each(|_| answers.step(&mut batcher)),
            }
            check_memory(&batcher);
        }
        while !batcher.is_idle() {
            answers.step(&mut batcher);
            check_memory(&batcher);
        }
        prop_assert_eq!(batcher.memory().pages_taken, 0);
        for (id, request) in asked {
            let (expected, _) = alone(&model, &request);
            let found = answers.so_far(id);
            if left.contains(&id) {
                prop_assert!(expected.starts_with(found));
            } else {
                prop_assert_eq!(found, &expected[..]);
            }
        }
    }
}

#[test]
fn nothing_is_kept_where_nothing_is_shared() {
    let model = endless(Tiny::llama(53));
    let mut batcher = Batcher::new(&model, 1, plain());
    for _ in 0..2 {
        batcher.submit(greedy(prompt(200, 1), 5)).unwrap();
        let answers = drain(&mut batcher);
        assert!(answers.reused.into_values().all(|reused| reused == 0));
        assert_eq!(batcher.memory().pages_kept, 0);
    }
}
