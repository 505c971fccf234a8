//! `assay prove --bench`: what a proof of a real answer costs here, phase by phase. The answer is generated, proven and
//! verified; nothing is extrapolated. docs/performance.md explains each figure.

use crate::bench::{memory, text::Text};
use crate::home::Home;
use crate::models;
use crate::output::{self, Table};
use crate::refusal::refusal;
use anyhow::{Result, ensure};
use assay_engine::{BatchLimits, Batcher, EventKind, GenerationRequest, MemoryUse, Model};
use assay_model::LoadedModel;
use assay_proof::{Claim, Key, Options, Phase, Progress, Proven, prove_with, setup, verify};
use assay_protocol::{SamplerParams, Statement, StopReason, TokenId};
use serde::Serialize;
use std::time::Instant;

/// What one proof cost.
#[derive(Serialize)]
struct Figures {
    model: String,
    /// Positions that are proven, a power of two.
    tokens: usize,
    threads: usize,
    standalone: bool,
    /// Making the key, once a model; 0 where the proof is for who holds the weights.
    setup_ms: u64,
    /// By phase, in their order.
    phases_ms: Vec<(&'static str, u64)>,
    prove_ms: u64,
    /// Of all threads, in the prover alone.
    core_seconds: f64,
    core_seconds_a_token: f64,
    peak_bytes: Option<u64>,
    proof_bytes: usize,
    verify_ms: u64,
    /// Soundness in hundredths of a bit, all together and by step.
    centibits: u32,
    errors: Vec<(&'static str, u32)>,
    /// Multiply-adds of the pass that is proven, head included where its choice is proven.
    macs: u64,
}

pub(crate) fn run(
    home: &Home,
    names: &[String],
    tokens: usize,
    threads: usize,
    standalone: bool,
    json: bool,
) -> Result<()> {
    if !tokens.is_power_of_two() || tokens < 8 {
        return Err(refusal(
            format!("{tokens} tokens are no length of a proof"),
            "name a power of two, as in --tokens 64: a proof is padded to one",
        ));
    }
    let names = match names {
        [] => &[models::DEFAULT.to_owned()],
        names => names,
    };
    let mut all = Vec::new();
    for name in names {
        let loaded = models::open(home, name)?;
        let figures = measure(&loaded, tokens, threads, standalone)?;
        if !json {
            print!("{}", table(&figures));
        }
        all.push(figures);
    }
    match json {
        true => output::print_json(&all),
        false => Ok(()),
    }
}

/// A prompt of prose and what the model answers: together as many positions as are to be proven.
fn answer(
    loaded: &LoadedModel,
    tokens: usize,
    threads: usize,
) -> Result<(Vec<TokenId>, Vec<TokenId>)> {
    let text = Text::new(loaded)?;
    // The last token of an answer is chosen and not run.
    let wanted = tokens / 2 + 1;
    for number in 0..64 {
        let prompt = text.prompt(number, tokens + 1 - wanted);
        let output = generate(&loaded.model, &prompt, wanted as u32, threads)?;
        if output.len() == wanted {
            return Ok((prompt, output));
        }
    }
    Err(refusal(
        "the model ends every answer early",
        "try fewer tokens",
    ))
}

fn generate(
    model: &Model,
    prompt: &[TokenId],
    tokens: u32,
    threads: usize,
) -> Result<Vec<TokenId>> {
    let positions = prompt.len() + tokens as usize + MemoryUse::PAGE_POSITIONS;
    let limits = BatchLimits {
        sequences_max: 1,
        cache_bytes_max: BatchLimits::cache_bytes(model, positions),
        share_prefixes: false,
        speculate: false,
    };
    let mut batcher = Batcher::new(model, threads, limits);
    batcher.submit(GenerationRequest::new(
        prompt.to_vec(),
        SamplerParams::greedy(tokens),
    ))?;
    let mut output = Vec::new();
    while !batcher.is_idle() {
        for event in batcher.step() {
            if let EventKind::Token(token) = event.kind {
                output.push(token);
            }
        }
    }
    Ok(output)
}

fn measure(
    loaded: &LoadedModel,
    tokens: usize,
    threads: usize,
    standalone: bool,
) -> Result<Figures> {
    let model = &loaded.model;
    let (prompt, output) = answer(loaded, tokens, threads)?;
    let sampler = SamplerParams::greedy(output.len() as u32);
    let ended = model
        .manifest()
        .is_eos(*output.last().expect("answers are not empty"));
    let reason = match ended {
        true => StopReason::EndOfText,
        false => StopReason::MaxTokens,
    };
    let statement = Statement::new(model.id(), &prompt, &sampler, &output, reason);
    let claim = Claim {
        statement: &statement,
        prompt: &prompt,
        sampler: &sampler,
        output: &output,
    };
    let started = Instant::now();
    let made = match standalone {
        true => Some(setup(model, threads)?),
        false => None,
    };
    let setup_ms = if standalone {
        output::millis(started.elapsed())
    } else {
        0
    };
    let options = Options {
        threads,
        weights: made.as_ref().map(|(_, weights)| weights),
    };
    memory::reset_peak();
    let (started, cpu) = (Instant::now(), cpu_ms());
    let mut phases = Phases::new();
    let proof = prove_with(model, &claim, &options, &mut |told| phases.tell(told))?;
    let prove_ms = output::millis(started.elapsed());
    let core_seconds = (cpu_ms() - cpu) as f64 / 1e3;
    let peak_bytes = memory::peak();
    let key = match &made {
        Some((key, _)) => Key::Committed(key),
        None => Key::Weights(model),
    };
    // The first check reads pages that the next finds in memory.
    let mut proven: Option<Proven> = None;
    let mut verify_ms = u64::MAX;
    for _ in 0..3 {
        let started = Instant::now();
        proven = Some(verify(&key, &claim, &proof, threads)?);
        verify_ms = verify_ms.min(output::millis(started.elapsed()));
    }
    let proven = proven.expect("verified three times");
    ensure!(
        proven.statement == statement,
        "another statement was proven"
    );
    Ok(Figures {
        model: loaded.name.clone(),
        tokens,
        threads,
        standalone,
        setup_ms,
        phases_ms: phases.end(),
        prove_ms,
        core_seconds,
        core_seconds_a_token: core_seconds / tokens as f64,
        peak_bytes,
        proof_bytes: proof.as_bytes().len(),
        verify_ms,
        centibits: proven.security.total().centibits(),
        errors: proven
            .security
            .parts
            .iter()
            .map(|(step, error)| (*step, error.centibits()))
            .collect(),
        macs: macs(model) * tokens as u64,
    })
}

/// Multiply-adds with weights a token.
fn macs(model: &Model) -> u64 {
    let manifest = model.manifest();
    let of = |entry: &assay_protocol::manifest::MatrixEntry| {
        u64::from(entry.rows) * u64::from(entry.cols)
    };
    let layers = manifest.layers.iter().map(|layer| {
        let matrices = [
            &layer.q,
            &layer.k,
            &layer.v,
            &layer.o,
            &layer.gate,
            &layer.up,
            &layer.down,
        ];
        matrices.into_iter().map(of).sum::<u64>()
    });
    layers.sum::<u64>() + of(manifest.head())
}

/// User and system time of this process, all threads. Known on Linux alone; elsewhere 0.
fn cpu_ms() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Behind the name, which may hold anything but ends with the last bracket; ticks are a hundredth of a second.
    let fields = stat.rsplit(") ").next().unwrap_or_default();
    let tick = |n: usize| fields.split(' ').nth(n).and_then(|v| v.parse::<u64>().ok());
    10 * (tick(11).unwrap_or(0) + tick(12).unwrap_or(0))
}

struct Phases {
    at: Instant,
    done: Vec<(Phase, u64)>,
}

impl Phases {
    fn new() -> Self {
        Phases {
            at: Instant::now(),
            done: vec![(Phase::Witness, 0)],
        }
    }

    /// Time until a phase is first told of was the phase's before it.
    fn tell(&mut self, told: Progress) {
        let (phase, ms) = self.done.last_mut().expect("one phase at least");
        *ms += output::millis(self.at.elapsed());
        self.at = Instant::now();
        if *phase != told.phase {
            self.done.push((told.phase, 0));
        }
    }

    fn end(mut self) -> Vec<(&'static str, u64)> {
        let (_, ms) = self.done.last_mut().expect("one phase at least");
        *ms += output::millis(self.at.elapsed());
        self.done
            .iter()
            .map(|(phase, ms)| (phase.label(), *ms))
            .collect()
    }
}

fn table(figures: &Figures) -> String {
    let checked = match figures.standalone {
        true => format!(
            "checked with the model's key alone, made in {:.1} s",
            figures.setup_ms as f64 / 1e3
        ),
        false => "checked with the model".to_owned(),
    };
    let mut out = format!(
        "{}, {} positions, {} threads, {checked}\n",
        figures.model, figures.tokens, figures.threads
    );
    let mut table = Table::new(&["", "seconds", "share"]);
    for (phase, ms) in &figures.phases_ms {
        let share = 100 * ms / figures.prove_ms.max(1);
        table.row([
            phase.to_string(),
            format!("{:.2}", *ms as f64 / 1e3),
            format!("{share}%"),
        ]);
    }
    table.row([
        "all".to_owned(),
        format!("{:.2}", figures.prove_ms as f64 / 1e3),
        String::new(),
    ]);
    out.push_str(&table.render("  "));
    let peak = figures.peak_bytes.map_or("–".to_owned(), output::bytes);
    out.push_str(&format!(
        "  {:.1} core-seconds, {:.2} a token; peak {peak}; proof {}, verified in {} ms; {}.{:02} bits\n",
        figures.core_seconds,
        figures.core_seconds_a_token,
        output::bytes(figures.proof_bytes as u64),
        figures.verify_ms,
        figures.centibits / 100,
        figures.centibits % 100,
    ));
    out
}
