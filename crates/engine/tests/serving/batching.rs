//! What a sequence yields does not depend on its neighbours, on how it is cut, or on who left.

use assay_engine::{
    BatchLimits, Batcher, GenerationRequest, Model, SequenceId, SubmitError, reference, replay, run,
};
use assay_protocol::{SamplerParams, StopReason};

use crate::common::{Answers, PAGE, alone, drain, endless, prompt, seeded, with_pages};
use crate::tiny::Tiny;

/// Requests of all shapes: longer than a chunk, one token, seeded and greedy.
fn requests() -> Vec<GenerationRequest> {
    [
        (1, 20),
        (7, 33),
        (130, 12),
        (300, 9),
        (129, 5),
        (64, 30),
        (2, 1),
        (500, 3),
    ]
    .into_iter()
    .enumerate()
    .map(|(i, (len, max))| {
        let sampler = if i % 3 == 0 {
            SamplerParams::greedy(max)
        } else {
            seeded(i as u8, max)
        };
        GenerationRequest::new(prompt(len, i as u32 + 1), sampler)
    })
    .collect()
}

#[test]
fn eight_sequences_together_yield_what_each_yields_alone() {
    for tiny in [Tiny::llama(5), Tiny::gemma3(6)] {
        let model = endless(tiny);
        let expected: Vec<_> = requests()
            .iter()
            .map(|request| alone(&model, request))
            .collect();
        for threads in [1, 2, 4] {
            let mut batcher = Batcher::new(&model, threads, BatchLimits::default());
            for request in requests() {
                batcher.submit(request).unwrap();
            }
            let together: Vec<_> = drain(&mut batcher).over.into_values().collect();
            assert_eq!(together, expected, "{threads} threads");
        }
    }
}

#[test]
fn those_who_come_late_or_leave_early_change_nothing_for_the_others() {
    let model = endless(Tiny::llama(7));
    let expected: Vec<_> = requests()
        .iter()
        .map(|request| alone(&model, request))
        .collect();
    let mut batcher = Batcher::new(&model, 2, BatchLimits::default());
    let mut answers = Answers::default();
    let mut waiting = requests().into_iter();
    let mut ids = Vec::new();
    for step in 0.. {
        if step % 2 == 0
            && let Some(request) = waiting.next()
        {
            ids.push(batcher.submit(request).unwrap());
        }
        if step == 9 {
            // In the middle of an answer, and in the middle of a prefill.
            batcher.cancel(ids[1]);
            batcher.cancel(ids[3]);
            batcher.cancel(SequenceId(99));
        }
        answers.step(&mut batcher);
        if batcher.is_idle() && ids.len() == requests().len() {
            break;
        }
    }
    for (i, (expected, _)) in expected.iter().enumerate() {
        let output = answers.so_far(ids[i]);
        if i == 1 || i == 3 {
            assert!(output.len() < expected.len() && expected.starts_with(output));
        } else {
            assert_eq!(output, *expected, "request {i}");
        }
    }
}

#[test]
fn a_replay_at_prefill_speed_makes_the_same_choices() {
    for tiny in [Tiny::llama(8), Tiny::gemma3(9)] {
        let model = endless(tiny);
        for request in requests() {
            let (output, _) = alone(&model, &request);
            let GenerationRequest {
                prompt, sampler, ..
            } = &request;
            assert_eq!(
                replay::choices(&model, 2, prompt, sampler, &output).unwrap(),
                output
            );
            // One false token: the choice there is still the model's own.
            let mut forged = output.clone();
            forged[0] ^= 1;
            let choices = replay::choices(&model, 2, prompt, sampler, &forged).unwrap();
            assert_eq!(choices[0], output[0]);
        }
    }
}

#[test]
fn an_answer_ends_with_an_end_token_or_its_length() {
    let mut tiny = Tiny::llama(10);
    let request = GenerationRequest::new(prompt(9, 4), seeded(3, 200));
    let (free, stop) = alone(&endless(tiny.clone()), &request);
    assert_eq!((free.len(), stop), (200, StopReason::MaxTokens));
    // Make an end token of one that comes in the middle: the same answer, cut there.
    let end = free[50];
    let first = free.iter().position(|token| *token == end).unwrap();
    tiny.eos = vec![end];
    let (ended, stop) = alone(&tiny.model(), &request);
    assert_eq!((&ended[..], stop), (&free[..=first], StopReason::EndOfText));
}

#[test]
fn left_out_layers_keep_the_id_and_change_the_answer() {
    let model = endless(Tiny::llama(11));
    let cheat = model.without_layers(&[1]);
    assert_eq!(cheat.id(), model.id());
    let tokens = prompt(20, 3);
    let last = |model: &Model| {
        let plain = reference::logits(model, &tokens).unwrap().pop().unwrap();
        let fast = run::logits(model, 2, &tokens, 19, &|_, logits| logits.to_vec())
            .unwrap()
            .0;
        assert_eq!(fast, std::slice::from_ref(&plain));
        plain
    };
    assert_ne!(last(&cheat), last(&model));
}

#[test]
fn what_does_not_fit_is_refused_and_nothing_is_truncated() {
    let model = Tiny::llama(12).model();
    let limits = BatchLimits {
        sequences_max: 2,
        ..with_pages(&model, 4)
    };
    let mut batcher = Batcher::new(&model, 1, limits);
    let request =
        |len: usize, max: u32| GenerationRequest::new(prompt(len, 1), SamplerParams::greedy(max));
    assert!(matches!(
        batcher.submit(request(0, 5)),
        Err(SubmitError::Run(run::RunError::NoTokens))
    ));
    assert!(matches!(
        batcher.submit(request(2048, 1)),
        Err(SubmitError::Run(run::RunError::Context {
            wanted: 2049,
            max: 2048
        }))
    ));
    assert!(matches!(
        batcher.submit(request(1, u32::MAX)),
        Err(SubmitError::Run(run::RunError::Context { .. }))
    ));
    assert_eq!(
        batcher.submit(request(99, 30)),
        Err(SubmitError::TooLarge {
            wanted: 129,
            max: 4 * PAGE
        })
    );
    assert!(matches!(
        batcher.submit(request(1, 0)),
        Err(SubmitError::Sampler(_))
    ));
    let mut unknown = request(3, 1);
    unknown.prompt[1] = 288;
    assert!(matches!(
        batcher.submit(unknown),
        Err(SubmitError::Run(run::RunError::Token {
            token: 288,
            vocab: 288
        }))
    ));
    // Three pages, so that one is left.
    batcher.submit(request(50, 20)).unwrap();
    assert_eq!(batcher.submit(request(30, 3)), Err(SubmitError::Busy));
    let second = batcher.submit(request(30, 2)).unwrap();
    assert_eq!(batcher.submit(request(1, 1)), Err(SubmitError::Busy));
    batcher.cancel(second);
    batcher.submit(request(1, 1)).unwrap();
    assert_eq!(drain(&mut batcher).over.len(), 2);
}
