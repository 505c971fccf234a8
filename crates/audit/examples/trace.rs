//! Times what a dispute asks of an engine, with a model file: `trace MODEL.assay [PROMPT OUTPUT THREADS]`, by
//! default 512 and 256 tokens on all cores. The output is not the model's own: that costs the same.

use std::time::Instant;

use assay_engine::replay;
use assay_engine::trace::{Traced, entry, weight_row};
use assay_model::{EncodeOptions, LoadedModel};
use assay_protocol::trace::{LeafId, MatrixRef, Op, TableRef, op_root, trace_root};
use assay_protocol::{SamplerParams, Temperature, TokenId};

const TEXT: &str = "It was the best of times, it was the worst of times, it was the age of wisdom, \
    it was the age of foolishness, it was the epoch of belief. ";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().collect();
    let path = args
        .get(1)
        .ok_or("usage: trace MODEL.assay [PROMPT OUTPUT THREADS]")?;
    let number = |at: usize, default: usize| args.get(at).map_or(Ok(default), |arg| arg.parse());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let (n_prompt, n_output, threads) = (number(2, 512)?, number(3, 256)?, number(4, cores)?);
    let loaded = LoadedModel::open(path.as_ref(), "model")?;
    let options = EncodeOptions {
        add_bos: true,
        parse_special: false,
    };
    let text = loaded
        .tokenizer
        .encode(&TEXT.repeat(n_prompt + n_output), options)?;
    let (prompt, output): (&[TokenId], &[TokenId]) =
        (&text[..n_prompt], &text[n_prompt..n_prompt + n_output]);
    println!("{n_prompt} tokens of prompt, {n_output} of output, {threads} threads");

    let timed = Timed::start();
    let greedy = SamplerParams::greedy(1);
    replay::choices(&loaded.model, threads, prompt, &greedy, output)?;
    println!("re-execution        {timed}");

    let drawn = SamplerParams {
        temperature: Temperature::Beta(256),
        top_k: 40,
        top_p_q16: 62_259,
        ..SamplerParams::greedy(1)
    };
    for (name, sampler) in [("greedy", &greedy), ("drawn ", &drawn)] {
        let traced = Traced {
            model: &loaded.model,
            threads,
            prompt,
            output,
            sampler,
        };
        let timed = Timed::start();
        let leaves = traced.leaves(&mut |_| ())?;
        let elapsed = timed.to_string();
        let roots: Vec<_> = leaves.iter().map(|leaves| op_root(leaves)).collect();
        let program = traced.program()?;
        let all = (0..program.ops())
            .flat_map(|op| (0..program.rows(op)).map(move |row| LeafId { op, row }));
        let bytes: u64 = all.map(|leaf| program.bytes(leaf)).sum();
        println!(
            "leaves, {name}      {elapsed}, {} MB hashed, peak {}",
            bytes >> 20,
            peak()
        );
        println!("  root {}", trace_root(&roots));
        let last = program.tokens() - 1;
        let layers = program.dims().layers;
        for (what, leaf) in [
            ("first layer, first token", program.leaf(Op::Layer(0), 0)),
            (
                "middle of everything    ",
                program.leaf(Op::Layer(layers / 2), last / 2),
            ),
            (
                "last layer, last token  ",
                program.leaf(Op::Layer(layers - 1), last),
            ),
            (
                "last of all             ",
                LeafId {
                    op: program.ops() - 1,
                    row: program.n_output() - 1,
                },
            ),
        ] {
            let timed = Timed::start();
            let vector = traced.vectors(&[leaf])?.concat();
            let elapsed = timed.to_string();
            println!("  vector, {what} {elapsed}, {} bytes", vector.len());
        }
    }
    for matrix in [MatrixRef::Head, MatrixRef::Down(0)] {
        let timed = Timed::start();
        weight_row(&loaded.model, threads, matrix, 1)?;
        println!("row of {matrix:?} {timed}");
    }
    for table in [TableRef::Act, TableRef::Rope(0), TableRef::FinalNorm] {
        let timed = Timed::start();
        entry(&loaded.model, table, 1)?;
        println!("entry of {table:?} {timed}");
    }
    Ok(())
}

/// When something started: on the clock, and in processor time of all threads.
struct Timed(Instant, u64);

impl Timed {
    fn start() -> Timed {
        Timed(Instant::now(), Timed::ticks())
    }

    /// Hundredths of a second, of this process.
    fn ticks() -> u64 {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let fields = stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .split_whitespace();
        let times = fields
            .skip(11)
            .take(2)
            .filter_map(|n| n.parse::<u64>().ok());
        times.sum()
    }
}

impl std::fmt::Display for Timed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (elapsed, busy) = (self.0.elapsed().as_millis(), Timed::ticks() - self.1);
        write!(f, "{elapsed:>6} ms ({} of processor)", busy * 10)
    }
}

/// The most memory that the program has held, the mapped model file included.
fn peak() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.map_or("unknown".into(), |line| line.trim().into())
}
