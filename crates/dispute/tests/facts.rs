//! Facts: each kind convicts what it is about, and nothing convicts a statement that can be true.

mod common;

use assay_dispute::{Fact, FactKind, facts};
use assay_protocol::merkle::{self, Opening};
use assay_protocol::{SamplerParams, StopReason, TokenId};
use common::toy::{EOS, manifest};
use proptest::prelude::*;

const PROMPT: [TokenId; 3] = [1, EOS, 2];

fn of(output: &[TokenId], max_tokens: u32, reason: StopReason) -> Option<Fact> {
    let sampler = SamplerParams::greedy(max_tokens);
    facts(&manifest(false), &PROMPT, output, &sampler, reason)
}

fn check(output: &[TokenId], max_tokens: u32, reason: StopReason, expected: Option<FactKind>) {
    let found = of(output, max_tokens, reason).map(|fact| fact.kind);
    assert_eq!(found, expected, "{output:?} {max_tokens} {reason:?}");
}

#[test]
fn what_can_be_true_has_no_fact_against_it() {
    check(&[5, 6], 2, StopReason::MaxTokens, None);
    check(&[5, EOS], 2, StopReason::EndOfText, None);
    check(&[5, EOS], 9, StopReason::EndOfText, None);
    check(&[5], 9, StopReason::Cut, None);
    check(&[], 9, StopReason::Cut, None);
    check(&[5, EOS], 9, StopReason::Cut, None);
}

#[test]
fn each_kind_of_fact_is_found() {
    use FactKind::*;
    check(&[5, 6, 7], 2, StopReason::Cut, Some(TooManyTokens));
    check(&[5], 2, StopReason::MaxTokens, Some(NotAtTheLimit));
    check(&[5, 6], 9, StopReason::EndOfText, Some(NotEnded));
    check(&[EOS, 6], 9, StopReason::Cut, Some(PastTheEnd));
    check(&[5, EOS], 2, StopReason::MaxTokens, Some(EndedOtherwise));
    check(&[5, 6], 9, StopReason::StopString, Some(NoStopString));
    check(&[5; 400], 400, StopReason::Cut, Some(Context));
    check(&[5, 300], 9, StopReason::Cut, Some(UnknownToken));
    check(&[], 9, StopReason::EndOfText, Some(Empty));
}

#[test]
fn a_stop_string_that_the_sampler_has_is_believed_but_no_end_token_with_it() {
    let sampler = SamplerParams {
        stop: vec!["x".into()],
        ..SamplerParams::greedy(9)
    };
    let found = |output: &[TokenId]| {
        let reason = StopReason::StopString;
        facts(&manifest(false), &PROMPT, output, &sampler, reason).map(|fact| fact.kind)
    };
    assert_eq!(found(&[5, 6]), None);
    assert_eq!(found(&[5, EOS]), Some(FactKind::EndedOtherwise));
}

#[test]
fn an_answer_to_nothing_is_a_fact() {
    let sampler = SamplerParams::greedy(1);
    let found = facts(&manifest(true), &[], &[1], &sampler, StopReason::MaxTokens);
    assert_eq!(found.map(|fact| fact.kind), Some(FactKind::Empty));
}

#[test]
fn unknown_tokens_are_counted_from_the_prompt_on() {
    let sampler = SamplerParams::greedy(9);
    let position = |prompt: &[TokenId], output: &[TokenId]| {
        let reason = StopReason::Cut;
        let fact = facts(&manifest(false), prompt, output, &sampler, reason).unwrap();
        assert_eq!(fact.kind, FactKind::UnknownToken);
        (fact.position, fact.tokens[0].token)
    };
    assert_eq!(position(&[1, 300], &[5]), (1, 300));
    assert_eq!(position(&[1, 2], &[5, u32::MAX]), (3, u32::MAX));
}

proptest! {
    #[test]
    fn every_token_shown_is_under_the_outputs_root(
        output in prop::collection::vec(290u32..305, 1..20), max in 1u32..20, reason in 0usize..4,
    ) {
        use StopReason::*;
        let reason = [EndOfText, MaxTokens, StopString, Cut][reason];
        let Some(fact) = of(&output, max, reason) else { return Ok(()) };
        let index = match fact.kind {
            FactKind::PastTheEnd => u64::from(fact.position),
            FactKind::UnknownToken => u64::from(fact.position) - PROMPT.len() as u64,
            _ => output.len() as u64 - 1,
        };
        for shown in &fact.tokens {
            let opening = Opening { count: output.len() as u64, index, siblings: shown.path.clone() };
            let leaf = merkle::leaf(&shown.token.to_be_bytes());
            prop_assert_eq!(opening.verify(&merkle::tokens_root(&output), &leaf), Ok(()));
        }
        let by_sampler = matches!(
            fact.kind,
            FactKind::TooManyTokens | FactKind::NotAtTheLimit | FactKind::NoStopString
        );
        prop_assert_eq!(!fact.sampler.is_empty(), by_sampler);
    }
}
