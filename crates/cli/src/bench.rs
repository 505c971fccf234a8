//! `assay model bench`: how fast a model opens, prefills, decodes and is audited on this machine, how much memory that
//! takes, and how near it comes to what the machine can do at all.
//!
//! This file reads what was asked for and puts the parts in order. Every figure is a median of runs and is shown with
//! the least and the most of them; nothing is extrapolated. docs/performance.md explains each figure.

mod figures;
mod measure;
mod memory;
mod roofline;
mod table;
mod text;

use crate::home::Home;
use crate::judge;
use crate::models::{self, Bars};
use crate::output;
use crate::progress::{Bar, Unit};
use crate::refusal::refusal;
use anyhow::{Context, Result};
use assay_model::gguf::Gguf;
use assay_model::{LoadedModel, quality};
use figures::{Audit, Decode, Machine, ModelFigures, Report, Row, Run, Speed};
use measure::{Engine, Writers};
use roofline::{Cost, Roofline};
use std::path::{Path, PathBuf};
use text::Text;

/// Runs of `--quick`.
const RUNS_QUICK: usize = 1;
/// Tokens of the prompt whose first answer is waited for, and of the one whose answer is audited.
const PROMPT_FIRST: usize = 16;
const PROMPT_AUDIT: usize = 64;
/// Tokens of a prompt that is only there to decode after: what opens a text, and a word.
const PROMPT_DECODE: usize = 2;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Names of `assay model list`, beginnings of names, or model files [default: smollm2]
    #[arg(value_name = "NAME")]
    names: Vec<String>,

    /// Every model on this machine
    #[arg(long, conflicts_with = "names")]
    all: bool,

    /// Threads that compute, one row each, as in 1,2 [default: one, and all cores]
    #[arg(long, value_delimiter = ',')]
    threads: Vec<usize>,

    /// Prompt tokens of the prefill
    #[arg(long, default_value_t = 512)]
    prefill: usize,

    /// Output tokens that each sequence decodes
    #[arg(long, default_value_t = 128)]
    decode: u32,

    /// Sequences that decode together, as in 1,4,8
    #[arg(long, value_delimiter = ',', default_values_t = [1, 4, 8])]
    batch: Vec<usize>,

    /// Output tokens of the answer that is generated and then re-executed
    #[arg(long, default_value_t = 256)]
    answer: u32,

    /// Measure these alone
    #[arg(long, value_delimiter = ',', value_enum)]
    only: Vec<Part>,

    /// How often each figure is taken; the median is shown
    #[arg(long, default_value_t = 3)]
    runs: usize,

    /// One run, on all cores
    #[arg(long, conflicts_with_all = ["runs", "threads"])]
    quick: bool,

    /// Compare the integer model with the float model of its GGUF instead: perplexity, KL, top-1, clamps (minutes)
    #[arg(long)]
    quality: bool,

    #[arg(long)]
    json: bool,
}

/// What can be measured apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// From the file to a model that runs, and to its first token
    Open,
    Prefill,
    Decode,
    /// Re-executing an answer, against generating it
    Audit,
    /// What this machine can read and multiply at best
    Roofline,
}

/// [`Args`], as they are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Plan {
    parts: Vec<Part>,
    threads: Vec<usize>,
    prefill: usize,
    decode: u32,
    batches: Vec<usize>,
    answer: u32,
    runs: usize,
}

impl Plan {
    fn new(args: &Args, cores: usize) -> Result<Plan> {
        let parts = match args.only[..] {
            [] => <Part as clap::ValueEnum>::value_variants().to_vec(),
            _ => args.only.clone(),
        };
        let mut threads = match args.threads[..] {
            [] if args.quick => vec![cores],
            [] => vec![1, cores],
            _ => args.threads.clone(),
        };
        threads.dedup();
        let counts = [args.prefill, args.decode as usize, args.answer as usize];
        let lists = [&threads, &args.batch].into_iter().flatten();
        if counts.iter().chain(lists).any(|count| *count == 0) {
            return Err(refusal(
                "nothing can be measured of 0 tokens, threads or sequences",
                "give numbers from 1 on, or leave a figure out with --only",
            ));
        }
        Ok(Plan {
            parts,
            threads,
            prefill: args.prefill,
            decode: args.decode,
            batches: args.batch.clone(),
            answer: args.answer,
            runs: if args.quick {
                RUNS_QUICK
            } else {
                args.runs.max(1)
            },
        })
    }

    fn has(&self, part: Part) -> bool {
        self.parts.contains(&part)
    }

    /// Sequences that are ever under way together, and positions that they may take.
    fn sequences(&self) -> usize {
        self.batches.iter().copied().max().unwrap_or(1)
    }

    fn positions(&self) -> usize {
        let together = self.sequences() * (PROMPT_DECODE + self.decode as usize);
        together.max(self.longest())
    }

    /// Positions of the longest sequence.
    fn longest(&self) -> usize {
        let audit = PROMPT_AUDIT + self.answer as usize;
        let decode = PROMPT_DECODE + self.decode as usize;
        let prefill = self.prefill + 1;
        audit.max(decode).max(prefill).max(PROMPT_FIRST + 1)
    }
}

pub(crate) fn run(home: &Home, args: &Args) -> Result<()> {
    let names = names(home, args)?;
    if args.quality {
        return names.iter().try_for_each(|name| quality(home, name));
    }
    let plan = Plan::new(args, judge::threads())?;
    let rooflines = match plan.has(Part::Roofline) {
        true => plan.threads.iter().map(|n| Roofline::measure(*n)).collect(),
        false => Vec::new(),
    };
    let mut report = Report {
        machine: Machine {
            cores: judge::threads(),
            rooflines,
        },
        models: Vec::new(),
    };
    if !args.json {
        print!("{}", table::machine(&report.machine));
    }
    for name in names {
        let figures = measure_model(home, &name, &plan, &report.machine.rooflines)?;
        if !args.json {
            print!("\n{}", table::model(&figures));
        }
        report.models.push(figures);
    }
    match args.json {
        true => output::print_json(&report),
        false => Ok(()),
    }
}

fn names(home: &Home, args: &Args) -> Result<Vec<String>> {
    if !args.all {
        return Ok(match args.names[..] {
            [] => vec![models::DEFAULT.to_owned()],
            _ => args.names.clone(),
        });
    }
    let here = models::store(home).list()?;
    if here.is_empty() {
        let next = "run `assay model pull`";
        return Err(refusal("no model is on this machine", next));
    }
    Ok(here.into_iter().map(|model| model.name).collect())
}

/// Where the file of an opened model lies.
fn file_of(home: &Home, asked: &str, loaded: &LoadedModel) -> Result<PathBuf> {
    if Path::new(asked).is_file() {
        return Ok(PathBuf::from(asked));
    }
    let here = models::store(home).list()?.into_iter();
    let mut found = here.filter(|model| model.name == loaded.name);
    let model = found.next().context("the model's file went away")?;
    Ok(model.path)
}

fn measure_model(
    home: &Home,
    name: &str,
    plan: &Plan,
    rooflines: &[Roofline],
) -> Result<ModelFigures> {
    let loaded = models::open(home, name)?;
    let path = file_of(home, name, &loaded)?;
    let context = loaded.model.manifest().dims.context_max as usize;
    if plan.longest() > context {
        return Err(refusal(
            format!("the context of {} is {context} tokens", loaded.name),
            "ask for less with --prefill, --decode or --answer",
        ));
    }
    let text = Text::new(&loaded)?;
    let cost = Cost::of(&loaded.model);
    let bar = Bar::start(
        &format!("bench {}", loaded.name),
        Unit::Steps,
        (plan.threads.len() * (plan.runs + 1)) as u64,
    );
    let mut done = 0;
    let mut step = || {
        done += 1;
        bar.set(done, (plan.threads.len() * (plan.runs + 1)) as u64);
    };
    let mut rows = Vec::new();
    for threads in &plan.threads {
        let roofline = rooflines.iter().find(|line| line.threads == *threads);
        rows.push(measure_row(
            &loaded, &text, *threads, plan, &cost, roofline, &mut step,
        )?);
    }
    let open = match plan.has(Part::Open) {
        true => Some(measure::open(&path, &text.prompt(0, PROMPT_FIRST), plan)?),
        false => None,
    };
    bar.finish("done");
    Ok(ModelFigures {
        name: loaded.name.clone(),
        id: loaded.model.id(),
        file_bytes: std::fs::metadata(&path)
            .with_context(|| format!("cannot read {}", path.display()))?
            .len(),
        cost,
        open,
        rows,
    })
}

/// Everything on so many threads. Runs of different figures alternate, so that a passing load falls on all.
fn measure_row(
    loaded: &LoadedModel,
    text: &Text,
    threads: usize,
    plan: &Plan,
    cost: &Cost,
    roofline: Option<&Roofline>,
    step: &mut dyn FnMut(),
) -> Result<Row> {
    memory::reset_peak();
    let mut engine = Engine::new(&loaded.model, threads, plan);
    // Finding prompts whose answers do not end early also warms up.
    let writers = match plan.has(Part::Decode) {
        true => Writers::find(
            &mut engine,
            text,
            plan.sequences(),
            PROMPT_DECODE,
            plan.decode,
        )?,
        false => Writers::default(),
    };
    let author = match plan.has(Part::Audit) {
        true => Writers::find(&mut engine, text, 1, PROMPT_AUDIT, plan.answer)?,
        false => Writers::default(),
    };
    step();
    let mut prefill: Vec<Run> = Vec::new();
    let mut decode: Vec<Vec<Run>> = vec![Vec::new(); plan.batches.len()];
    let mut audits = Vec::new();
    for run in 0..plan.runs {
        if plan.has(Part::Prefill) {
            let prompt = text.prompt(run, plan.prefill);
            let timed = engine.generate(&[prompt], 1)?;
            prefill.push(Run::new(plan.prefill, timed.time));
        }
        if plan.has(Part::Decode) {
            for (batch, runs) in plan.batches.iter().zip(&mut decode) {
                let timed = engine.generate(writers.some(*batch), plan.decode)?;
                runs.push(Run::new(timed.tokens(), timed.time));
            }
        }
        if plan.has(Part::Audit) {
            audits.push(engine.audit(&author.some(1)[0], plan.answer)?);
        }
        step();
    }
    let share = |work, runs: &[Run]| roofline.map(|line| line.share(work, runs));
    let speed = |runs: Vec<Run>, work| Speed {
        tokens_per_s: Run::tokens_per_s(&runs),
        roofline: share(work, &runs),
        runs,
    };
    Ok(Row {
        threads,
        prefill: plan
            .has(Part::Prefill)
            .then(|| speed(prefill, cost.prefill(plan.prefill))),
        decode: plan
            .batches
            .iter()
            .zip(decode)
            .filter(|_| plan.has(Part::Decode))
            .map(|(batch, runs)| Decode {
                batch: *batch,
                speed: speed(
                    runs,
                    cost.decode(*batch, PROMPT_DECODE, plan.decode as usize),
                ),
            })
            .collect(),
        audit: plan.has(Part::Audit).then(|| Audit::new(audits)),
        peak_memory_bytes: memory::peak(),
    })
}

/// The table that the model crate measures.
fn quality(home: &Home, name: &str) -> Result<()> {
    let loaded = models::open(home, name)?;
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
    let report = quality::measure(&gguf, &loaded, &mut |progress| bars.show(progress))?;
    bars.finish();
    println!("{report}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn plan(line: &str) -> Result<Plan> {
        let words = std::iter::once("bench").chain(line.split_whitespace());
        let line = Line::try_parse_from(words)?;
        Plan::new(&line.args, 6)
    }

    #[test]
    fn without_a_word_everything_is_measured_on_one_thread_and_on_all() {
        let plan = plan("").unwrap();
        assert_eq!((&plan.threads[..], plan.runs), (&[1, 6][..], 3));
        assert_eq!(
            (plan.prefill, plan.decode, &plan.batches[..], plan.answer),
            (512, 128, &[1, 4, 8][..], 256)
        );
        assert_eq!(plan.parts.len(), 5);
    }

    #[test]
    fn what_is_asked_for_narrows_it() {
        let narrow =
            plan("smollm2 gemma --threads 2,4 --batch 8 --only prefill,decode --runs 1").unwrap();
        assert_eq!(narrow.threads, [2, 4]);
        assert_eq!(narrow.batches, [8]);
        assert_eq!(narrow.parts, [Part::Prefill, Part::Decode]);
        let quick = plan("--quick").unwrap();
        assert_eq!((&quick.threads[..], quick.runs), (&[6][..], 1));
    }

    #[test]
    fn what_means_nothing_is_refused() {
        for line in [
            "--threads 0",
            "--batch 1,0",
            "--prefill 0",
            "--decode 0",
            "--answer 0",
            "--threads",
            "--only speed",
            "--quick --runs 5",
            "smollm2 --all",
        ] {
            assert!(plan(line).is_err(), "{line}");
        }
    }

    #[test]
    fn there_is_room_for_all_sequences_and_for_the_longest() {
        let plan = plan("--decode 10 --batch 3 --prefill 5 --answer 7").unwrap();
        assert_eq!((plan.sequences(), plan.longest()), (3, 64 + 7));
        assert_eq!(plan.positions(), 64 + 7);
    }
}
