//! `assay model bench`: how fast a model prefills, decodes and is audited on this machine.
//!
//! Each figure is the median of several runs, and says so; nothing is extrapolated.

use crate::home::Home;
use crate::judge;
use crate::models::{self, Bars};
use crate::output;
use crate::refusal::refusal;
use anyhow::{Context, Result, ensure};
use assay_engine::{BatchLimits, Batcher, EventKind, GenerationRequest, replay};
use assay_model::gguf::Gguf;
use assay_model::{EncodeOptions, LoadedModel, quality};
use assay_protocol::{SamplerParams, TokenId};
use serde::Serialize;
use std::time::{Duration, Instant};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[arg(default_value = models::DEFAULT)]
    name: String,

    /// Prompt tokens of the prefill
    #[arg(long, default_value_t = 512)]
    prefill: usize,

    /// Output tokens of the decode
    #[arg(long, default_value_t = 128)]
    decode: u32,

    /// How often; the median is shown
    #[arg(long, default_value_t = 3)]
    runs: usize,

    /// Threads that compute [default: all cores]
    #[arg(long)]
    threads: Option<usize>,

    /// Compare the integer model with the float model of its GGUF instead: perplexity, KL, top-1, clamps (minutes)
    #[arg(long)]
    quality: bool,

    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Figures {
    model: String,
    threads: usize,
    prefill_tokens: usize,
    prefill_tokens_per_s: u64,
    decode_tokens: u32,
    decode_tokens_per_s: u64,
    /// Generating the decode run's answer, prompt included.
    generate_ms: u64,
    /// Re-executing it.
    audit_ms: u64,
    audit_percent_of_generation: u64,
    runs: usize,
}

/// Plain prose, repeated to any length.
const TEXT: &str = "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of \
    foolishness, it was the epoch of belief, it was the epoch of incredulity, it was the season of Light. ";

pub(crate) fn run(home: &Home, args: &Args) -> Result<()> {
    let loaded = models::open(home, &args.name)?;
    if args.quality {
        return quality(home, &loaded);
    }
    let threads = args.threads.unwrap_or_else(judge::threads);
    let context = loaded.model.manifest().dims.context_max as usize;
    ensure!(
        args.prefill + 1 < context
            && args.decode as usize + 64 < context
            && args.decode > 1
            && args.prefill > 0,
        "the model's context is {context} tokens; ask for less"
    );
    let long = prompt(&loaded, args.prefill)?;
    let short = prompt(&loaded, 64)?;
    let (mut prefills, mut decodes, mut wholes, mut audits) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..args.runs.max(1) {
        prefills.push(generate(&loaded, threads, &long, 1)?.first);
        let decoded = generate(&loaded, threads, &short, args.decode)?;
        decodes.push(decoded.rest);
        wholes.push(decoded.first + decoded.rest);
        let sampler = sampler(args.decode);
        let started = Instant::now();
        let choices = replay::choices(&loaded.model, threads, &short, &sampler, &decoded.output)?;
        audits.push(started.elapsed());
        ensure!(
            choices == decoded.output,
            "an audit disagrees with the generation: report this"
        );
    }
    let (generate, audit) = (median(&mut wholes), median(&mut audits));
    let figures = Figures {
        model: loaded.name.clone(),
        threads,
        prefill_tokens: long.len(),
        prefill_tokens_per_s: per_second(long.len() as u64, median(&mut prefills)),
        decode_tokens: args.decode,
        decode_tokens_per_s: per_second(u64::from(args.decode) - 1, median(&mut decodes)),
        generate_ms: output::millis(generate),
        audit_ms: output::millis(audit),
        audit_percent_of_generation: (output::millis(audit) * 100)
            .div_ceil(output::millis(generate).max(1)),
        runs: args.runs.max(1),
    };
    if args.json {
        return output::print_json(&figures);
    }
    println!(
        "{} on {} threads, medians of {} runs",
        figures.model, figures.threads, figures.runs
    );
    println!(
        "  prefill  {:>6} tokens/s over {} tokens",
        figures.prefill_tokens_per_s, figures.prefill_tokens
    );
    println!(
        "  decode   {:>6} tokens/s over {} tokens",
        figures.decode_tokens_per_s, figures.decode_tokens
    );
    println!(
        "  audit    {:>6} ms for an answer of {} tokens that took {} ms: {}%",
        figures.audit_ms,
        figures.decode_tokens,
        figures.generate_ms,
        figures.audit_percent_of_generation
    );
    Ok(())
}

/// The table that the model crate measures.
fn quality(home: &Home, loaded: &LoadedModel) -> Result<()> {
    let path = models::store(home).gguf(&loaded.name).ok_or_else(|| {
        let next = format!("pull it again: assay model pull {}", loaded.name);
        refusal(
            format!(
                "the GGUF of {} is not on this machine any more",
                loaded.name
            ),
            next,
        )
    })?;
    let gguf = Gguf::open(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut bars = Bars::new(&loaded.name);
    let report = quality::measure(&gguf, loaded, &mut |progress| bars.show(progress))?;
    bars.finish();
    println!("{report}");
    Ok(())
}

fn prompt(loaded: &LoadedModel, tokens: usize) -> Result<Vec<TokenId>> {
    let text = TEXT.repeat(tokens / 20 + 2);
    let mut ids = loaded.tokenizer.encode(
        &text,
        EncodeOptions {
            add_bos: true,
            parse_special: false,
        },
    )?;
    ensure!(
        ids.len() >= tokens,
        "the bench text is too short for {tokens} tokens"
    );
    ids.truncate(tokens);
    Ok(ids)
}

fn sampler(max_tokens: u32) -> SamplerParams {
    SamplerParams::greedy(max_tokens)
}

struct Timed {
    output: Vec<TokenId>,
    /// Up to the first token.
    first: Duration,
    rest: Duration,
}

fn generate(
    loaded: &LoadedModel,
    threads: usize,
    prompt: &[TokenId],
    tokens: u32,
) -> Result<Timed> {
    let limits = BatchLimits {
        sequences_max: 1,
        positions_max: prompt.len() + tokens as usize,
    };
    let mut batcher = Batcher::new(&loaded.model, threads, limits);
    let started = Instant::now();
    batcher.submit(GenerationRequest {
        prompt: prompt.to_vec(),
        sampler: sampler(tokens),
    })?;
    let (mut output, mut first) = (Vec::new(), None);
    while !batcher.is_idle() {
        for event in batcher.step() {
            if let EventKind::Token(id) = event.kind {
                first.get_or_insert_with(|| started.elapsed());
                output.push(id);
            }
        }
    }
    let first = first.context("the model answered nothing")?;
    Ok(Timed {
        output,
        first,
        rest: started.elapsed().saturating_sub(first),
    })
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn per_second(count: u64, time: Duration) -> u64 {
    let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1);
    count.saturating_mul(1_000_000) / micros
}
