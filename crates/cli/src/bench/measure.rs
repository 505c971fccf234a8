//! Holds the clock to the engine: generations, a re-execution, an opening. Greedy throughout, and without whatever
//! would leave out work that a figure claims to measure.

use super::figures::{AuditRun, Open, micros};
use super::plan::Plan;
use super::text::Text;
use anyhow::{Context, Result, ensure};
use assay_engine::{BatchLimits, Batcher, EventKind, GenerationRequest, MemoryUse, Model, replay};
use assay_model::LoadedModel;
use assay_protocol::{SamplerParams, TokenId};
use std::path::Path;
use std::time::{Duration, Instant};

/// Prompts that are tried for each that is wanted.
const TRIES: usize = 8;

/// The engine on so many threads.
pub(crate) struct Engine {
    batcher: Batcher,
    threads: usize,
}

/// Answers, and how long all took together.
pub(crate) struct Timed {
    pub(crate) answers: Vec<Vec<TokenId>>,
    pub(crate) time: Duration,
}

impl Timed {
    pub(crate) fn tokens(&self) -> usize {
        self.answers.iter().map(Vec::len).sum()
    }
}

impl Engine {
    pub(crate) fn new(model: &Model, threads: usize, plan: &Plan) -> Engine {
        let limits = BatchLimits {
            sequences_max: plan.sequences(),
            // Each sequence may leave most of its last page unused.
            cache_bytes_max: BatchLimits::cache_bytes(
                model,
                plan.positions() + plan.sequences() * MemoryUse::PAGE_POSITIONS,
            ),
            // Every answer is made from its start, token by token.
            share_prefixes: false,
            speculate: false,
        };
        Engine {
            batcher: Batcher::new(model, threads, limits),
            threads,
        }
    }

    /// Answers all prompts at once, each with so many tokens unless the model ends before. The time is that of every
    /// pass, the prompts' included.
    pub(crate) fn generate(&mut self, prompts: &[Vec<TokenId>], tokens: u32) -> Result<Timed> {
        let started = Instant::now();
        let mut ids = Vec::new();
        for prompt in prompts {
            let sampler = SamplerParams::greedy(tokens);
            let request = GenerationRequest::new(prompt.clone(), sampler);
            ids.push(self.batcher.submit(request)?);
        }
        let mut answers = vec![Vec::new(); prompts.len()];
        while !self.batcher.is_idle() {
            for event in self.batcher.step() {
                let index = ids.iter().position(|id| *id == event.sequence);
                let index = index.context("the engine answers a question that nobody asked")?;
                if let EventKind::Token(token) = event.kind {
                    answers[index].push(token);
                }
            }
        }
        Ok(Timed {
            answers,
            time: started.elapsed(),
        })
    }

    /// Generates an answer alone and re-executes it as an audit does.
    pub(crate) fn audit(&mut self, prompt: &[TokenId], tokens: u32) -> Result<AuditRun> {
        let generated = self.generate(&[prompt.to_vec()], tokens)?;
        let sampler = SamplerParams::greedy(tokens);
        let started = Instant::now();
        let choices = replay::choices(
            self.batcher.model(),
            self.threads,
            prompt,
            &sampler,
            &generated.answers[0],
        )?;
        let audited = started.elapsed();
        ensure!(
            choices == generated.answers[0],
            "an audit disagrees with the generation: report this"
        );
        Ok(AuditRun {
            tokens: choices.len(),
            generate_us: micros(generated.time),
            audit_us: micros(audited),
        })
    }
}

/// Prompts whose answers do not end before they are long enough; where a model has too few, those that come nearest.
#[derive(Default)]
pub(crate) struct Writers(Vec<Vec<TokenId>>);

impl Writers {
    pub(crate) fn find(
        engine: &mut Engine,
        text: &Text,
        count: usize,
        prompt_len: usize,
        tokens: u32,
    ) -> Result<Writers> {
        let mut found: Vec<(usize, Vec<TokenId>)> = Vec::new();
        for round in 0..TRIES {
            let prompts: Vec<_> = (0..count)
                .map(|i| text.prompt(round * count + i, prompt_len))
                .collect();
            let answers = engine.generate(&prompts, tokens)?.answers;
            found.extend(answers.iter().map(Vec::len).zip(prompts));
            found.sort_by_key(|(len, _)| std::cmp::Reverse(*len));
            found.truncate(count);
            if found.iter().all(|(len, _)| *len == tokens as usize) {
                break;
            }
        }
        Ok(Writers(
            found.into_iter().map(|(_, prompt)| prompt).collect(),
        ))
    }

    pub(crate) fn some(&self, count: usize) -> &[Vec<TokenId>] {
        &self.0[..count]
    }
}

/// Opens a model's file anew each time, in whatever state the machine's file cache is after the first, and waits for
/// one token.
pub(crate) fn open(path: &Path, prompt: &[TokenId], plan: &Plan) -> Result<Open> {
    let threads = plan.threads.iter().copied().max().unwrap_or(1);
    let once = || -> Result<(u64, u64)> {
        let started = Instant::now();
        let loaded = LoadedModel::open(path, "bench")?;
        let opened = started.elapsed();
        let mut engine = Engine::new(&loaded.model, threads, plan);
        engine.generate(&[prompt.to_vec()], 1)?;
        Ok((micros(opened), micros(started.elapsed())))
    };
    once()?;
    let runs = (0..plan.runs).map(|_| once());
    let (open_us, first_token_us) = runs.collect::<Result<Vec<_>>>()?.into_iter().unzip();
    Ok(Open {
        threads,
        prompt_tokens: prompt.len(),
        open_us,
        first_token_us,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use assay_testkit::tiny::Tiny;

    #[test]
    fn a_generation_is_timed_whole_and_its_audit_agrees() {
        let plan = Plan {
            parts: Vec::new(),
            threads: vec![2],
            prefill: 8,
            decode: 12,
            batches: vec![3],
            answer: 12,
            runs: 1,
        };
        let tiny = Tiny::llama(5).with_text();
        let bytes = std::sync::Arc::new(tiny.bytes());
        let loaded = LoadedModel::from_bytes(bytes, Path::new("tiny"), "tiny").unwrap();
        let text = Text::new(&loaded).unwrap();
        let mut engine = Engine::new(&loaded.model, 2, &plan);
        let writers = Writers::find(&mut engine, &text, 3, 2, 12).unwrap();
        let together = engine.generate(writers.some(3), 12).unwrap();
        for (prompt, answer) in writers.some(3).iter().zip(&together.answers) {
            let alone = engine.generate(std::slice::from_ref(prompt), 12).unwrap();
            assert_eq!(alone.answers[0], *answer);
        }
        let audit = engine.audit(&writers.some(1)[0], 12).unwrap();
        assert_eq!(audit.tokens, together.answers[0].len());
    }
}
