//! The cheap half of an audit: does the receipt say what was asked, delivered and agreed? Needs no
//! weights; `check_stop` needs the tokenizer. Never judges whether the model chose these tokens.

use assay_model::{StopWatcher, Tokenizer};
use assay_protocol::{MicroUsd, StopReason, TokenId, merkle};

use crate::evidence::{Evidence, count};
use crate::fault::{ActualStop, Fault, Place};

/// Hashes, counts, context and charge: all that can be said without the model's tokenizer.
pub fn check_numbers(evidence: &Evidence) -> Result<(), Fault> {
    let receipt = &evidence.receipt.body;
    let offer = &evidence.offer.body;
    let statement = &receipt.statement;
    if receipt.provider != offer.provider {
        return Err(Fault::OtherProvider {
            stated: receipt.provider,
            asked: offer.provider,
        });
    }
    if statement.model_id != offer.model_id {
        return Err(Fault::OtherModel {
            stated: statement.model_id,
            offered: offer.model_id,
        });
    }
    let (prompt, output) = (count(evidence.prompt.len()), count(evidence.output.len()));
    if statement.n_prompt != prompt {
        return Err(Fault::PromptCount {
            stated: statement.n_prompt.0,
            actual: prompt.0,
        });
    }
    let root = merkle::tokens_root(&evidence.prompt);
    if statement.prompt_root != root {
        return Err(Fault::PromptRoot {
            stated: statement.prompt_root,
            actual: root,
        });
    }
    let hash = evidence.sampler.hash();
    if statement.sampler_hash != hash {
        return Err(Fault::SamplerHash {
            stated: statement.sampler_hash,
            actual: hash,
        });
    }
    if statement.n_output != output {
        return Err(Fault::OutputCount {
            stated: statement.n_output.0,
            actual: output.0,
        });
    }
    let root = merkle::tokens_root(&evidence.output);
    if statement.output_root != root {
        return Err(Fault::OutputRoot {
            stated: statement.output_root,
            actual: root,
        });
    }
    let tokens = u64::from(prompt.0) + u64::from(output.0);
    if tokens > u64::from(offer.max_context.0) {
        return Err(Fault::ContextExceeded {
            tokens,
            context: offer.max_context.0,
        });
    }
    // A quote holds for what began before its end.
    let began_at = receipt
        .served_at
        .0
        .saturating_sub(u64::from(receipt.duration.0) / 1000);
    if began_at > offer.expires_at.0 {
        let (expires_at, served_at) = (offer.expires_at, receipt.served_at);
        return Err(Fault::OfferExpired {
            expires_at,
            served_at,
        });
    }
    check_charge(evidence)
}

fn check_charge(evidence: &Evidence) -> Result<(), Fault> {
    let receipt = &evidence.receipt.body;
    let offer = &evidence.offer.body;
    let usage = evidence.usage();
    if usage.cached > usage.prompt {
        return Err(Fault::CachedCount {
            cached: usage.cached.0,
            prompt: usage.prompt.0,
        });
    }
    // A price so absurd that it overflows was never agreed to: nothing equals it.
    let due = offer.price.charge(&usage).unwrap_or(MicroUsd(u64::MAX));
    if receipt.charged != due {
        return Err(Fault::Charge {
            charged: receipt.charged,
            due,
        });
    }
    Ok(())
}

/// Ids within the vocabulary, and an end that the tokens themselves bear out.
pub fn check_stop(evidence: &Evidence, tokenizer: &Tokenizer) -> Result<(), Fault> {
    let vocab = count(tokenizer.vocab_size()).0;
    known(&evidence.prompt, Place::Prompt, vocab)?;
    known(&evidence.output, Place::Output, vocab)?;
    let stated = evidence.receipt.body.statement.stop_reason;
    let mut watcher = StopWatcher::new(tokenizer.clone(), &evidence.sampler);
    let mut ended = None;
    for (position, &id) in (0u32..).zip(&evidence.output) {
        if let Some(reason) = ended {
            return Err(Fault::PastTheEnd {
                position: position - 1,
                reason,
            });
        }
        ended = watcher.push(id);
    }
    match (stated, ended) {
        // The payer may leave at the very token that ends the answer.
        (StopReason::Cut, _) => Ok(()),
        (stated, Some(reason)) if stated == reason => Ok(()),
        (stated, Some(reason)) => Err(Fault::StopReason {
            stated,
            actual: ActualStop::Reason(reason),
        }),
        (stated, None) => Err(Fault::StopReason {
            stated,
            actual: ActualStop::Nothing,
        }),
    }
}

/// Both: everything short of running the model.
pub fn check_accounting(evidence: &Evidence, tokenizer: &Tokenizer) -> Result<(), Fault> {
    check_numbers(evidence)?;
    check_stop(evidence, tokenizer)
}

fn known(tokens: &[TokenId], place: Place, vocab: u32) -> Result<(), Fault> {
    match (0u32..).zip(tokens).find(|(_, id)| **id >= vocab) {
        Some((position, &id)) => Err(Fault::UnknownToken {
            place,
            position,
            id,
            vocab,
        }),
        None => Ok(()),
    }
}
