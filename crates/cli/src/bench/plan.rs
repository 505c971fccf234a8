//! What was asked of `assay model bench`, as it was typed ([`Args`]) and as it is meant ([`Plan`]).

use crate::refusal::refusal;
use anyhow::Result;
use clap::ValueEnum;

/// Runs of `--quick`.
const RUNS_QUICK: usize = 1;
/// Tokens of the prompt whose first answer is waited for, and of the one whose answer is audited.
pub(super) const PROMPT_FIRST: usize = 16;
pub(super) const PROMPT_AUDIT: usize = 64;
/// Tokens of a prompt that is only there to decode after: what opens a text, and a word.
pub(super) const PROMPT_DECODE: usize = 2;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Names of `assay model list`, beginnings of names, or model files [default: smollm2]
    #[arg(value_name = "NAME")]
    pub(super) names: Vec<String>,

    /// Every model on this machine
    #[arg(long, conflicts_with = "names")]
    pub(super) all: bool,

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
    pub(super) quality: bool,

    #[arg(long)]
    pub(super) json: bool,
}

/// What can be measured apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Part {
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
pub(super) struct Plan {
    pub(super) parts: Vec<Part>,
    pub(super) threads: Vec<usize>,
    pub(super) prefill: usize,
    pub(super) decode: u32,
    pub(super) batches: Vec<usize>,
    pub(super) answer: u32,
    pub(super) runs: usize,
}

impl Plan {
    pub(super) fn new(args: &Args, cores: usize) -> Result<Plan> {
        let parts = match args.only[..] {
            [] => Part::value_variants().to_vec(),
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

    pub(super) fn has(&self, part: Part) -> bool {
        self.parts.contains(&part)
    }

    /// Sequences that are ever under way together, and positions that they may take.
    pub(super) fn sequences(&self) -> usize {
        self.batches.iter().copied().max().unwrap_or(1)
    }

    pub(super) fn positions(&self) -> usize {
        let together = self.sequences() * (PROMPT_DECODE + self.decode as usize);
        together.max(self.longest())
    }

    /// Positions of the longest sequence.
    pub(super) fn longest(&self) -> usize {
        let audit = PROMPT_AUDIT + self.answer as usize;
        let decode = PROMPT_DECODE + self.decode as usize;
        let prefill = self.prefill + 1;
        audit.max(decode).max(prefill).max(PROMPT_FIRST + 1)
    }
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
