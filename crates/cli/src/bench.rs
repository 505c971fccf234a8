//! `assay model bench`: how fast a model opens, prefills, decodes and is audited on this machine, how much memory that
//! takes, and how near it comes to what the machine can do at all.
//!
//! This file puts the parts in order. Every figure is a median of runs and is shown with the least and the most of them;
//! nothing is extrapolated. docs/performance.md explains each figure.

mod figures;
mod measure;
pub(crate) mod memory;
mod plan;
mod roofline;
mod table;
pub(crate) mod text;

use crate::home::Home;
use crate::judge;
use crate::models::{self, Bars};
use crate::output;
use crate::progress::{Bar, Unit};
use crate::refusal::refusal;
use anyhow::{Context, Result};
use assay_model::gguf::Gguf;
use assay_model::{LoadedModel, quality};
use figures::{Audit, AuditRun, Decode, Machine, ModelFigures, Report, Row, Run, Speed};
use measure::{Engine, Writers};
use plan::{PROMPT_AUDIT, PROMPT_DECODE, PROMPT_FIRST, Part, Plan};
use roofline::{Cost, Roofline};
use std::path::{Path, PathBuf};
use text::Text;

pub(crate) use plan::Args;

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
    let steps = (plan.threads.len() * (plan.runs + 1)) as u64;
    let bar = Bar::start(&format!("bench {}", loaded.name), Unit::Steps, steps);
    let mut done = 0;
    let mut step = || {
        done += 1;
        bar.set(done, steps);
    };
    let mut rows = Vec::new();
    for threads in &plan.threads {
        let roofline = rooflines.iter().find(|line| line.threads == *threads);
        let taken = take(&loaded, &text, *threads, plan, &mut step)?;
        rows.push(taken.row(*threads, plan, &cost, roofline));
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

/// The runs on one count of threads, and the most memory that they took.
#[derive(Default)]
struct Taken {
    prefill: Vec<Run>,
    /// As many as there are batches.
    decode: Vec<Vec<Run>>,
    audits: Vec<AuditRun>,
    peak_memory_bytes: Option<u64>,
}

/// Takes all runs. Those of different figures alternate, so that a passing load falls on all.
fn take(
    loaded: &LoadedModel,
    text: &Text,
    threads: usize,
    plan: &Plan,
    step: &mut dyn FnMut(),
) -> Result<Taken> {
    memory::reset_peak();
    let mut engine = Engine::new(&loaded.model, threads, plan);
    let (mut writers, mut author) = (Writers::default(), Writers::default());
    // Each search for prompts is a warm-up too.
    if plan.has(Part::Prefill) {
        engine.generate(&[text.prompt(plan.runs, plan.prefill)], 1)?;
    }
    if plan.has(Part::Decode) {
        let (count, tokens) = (plan.sequences(), plan.decode);
        writers = Writers::find(&mut engine, text, count, PROMPT_DECODE, tokens)?;
    }
    if plan.has(Part::Audit) {
        author = Writers::find(&mut engine, text, 1, PROMPT_AUDIT, plan.answer)?;
    }
    step();
    let mut taken = Taken {
        decode: vec![Vec::new(); plan.batches.len()],
        ..Taken::default()
    };
    for run in 0..plan.runs {
        if plan.has(Part::Prefill) {
            let timed = engine.generate(&[text.prompt(run, plan.prefill)], 1)?;
            taken.prefill.push(Run::new(plan.prefill, timed.time));
        }
        if plan.has(Part::Decode) {
            for (batch, runs) in plan.batches.iter().zip(&mut taken.decode) {
                let timed = engine.generate(writers.some(*batch), plan.decode)?;
                runs.push(Run::new(timed.tokens(), timed.time));
            }
        }
        if plan.has(Part::Audit) {
            let prompt = &author.some(1)[0];
            taken.audits.push(engine.audit(prompt, plan.answer)?);
        }
        step();
    }
    taken.peak_memory_bytes = memory::peak();
    Ok(taken)
}

impl Taken {
    fn row(self, threads: usize, plan: &Plan, cost: &Cost, roofline: Option<&Roofline>) -> Row {
        let speed = |runs: Vec<Run>, work| Speed {
            tokens_per_s: Run::tokens_per_s(&runs),
            roofline: roofline.map(|line| line.share(work, &runs)),
            runs,
        };
        let decode = |(batch, runs): (&usize, Vec<Run>)| {
            let work = cost.decode(*batch, PROMPT_DECODE, plan.decode as usize);
            (!runs.is_empty()).then(|| Decode {
                batch: *batch,
                speed: speed(runs, work),
            })
        };
        let prefill = cost.prefill(plan.prefill);
        Row {
            threads,
            prefill: (!self.prefill.is_empty()).then(|| speed(self.prefill, prefill)),
            decode: plan
                .batches
                .iter()
                .zip(self.decode)
                .filter_map(decode)
                .collect(),
            audit: (!self.audits.is_empty()).then(|| Audit::new(self.audits)),
            peak_memory_bytes: self.peak_memory_bytes,
        }
    }
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
