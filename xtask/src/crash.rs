//! `cargo xtask crash --cycles N`: the tests that kill processes, with as many kills each as are asked for.
//!
//! The usual run has few, so that it ends in minutes; a night has many. The tests read `ASSAY_CRASH_CYCLES`.

use crate::test;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Instant;

const CYCLES: u32 = 20;

/// What is killed: nextest's filter, and the same as a package, a target and a name for plain cargo.
const SUITES: [(&str, &str, [&str; 3]); 2] = [
    (
        "a chain that writes its file",
        "package(assay-chain) and test(/^crash::/)",
        ["assay-chain", "chain", "crash::"],
    ),
    (
        "chain, node and gateway under load",
        "package(assay) and binary(/^kills/)",
        ["assay", "kills", ""],
    ),
];

/// Reads `--cycles N` or `--cycles=N`.
pub(crate) fn cycles(args: impl Iterator<Item = String>) -> Result<u32, String> {
    let words: Vec<String> = args.collect();
    let words: Vec<&str> = words.iter().flat_map(|word| word.split('=')).collect();
    let number = match words.as_slice() {
        [] => return Ok(CYCLES),
        ["--cycles", number] => number,
        _ => return Err(format!("`{}` is not understood", words.join(" "))),
    };
    match number.parse() {
        Ok(cycles) if cycles > 0 => Ok(cycles),
        _ => Err(format!("`{number}` is no number of kills")),
    }
}

pub(crate) fn run(root: &Path, cycles: u32) -> ExitCode {
    let mut lines = Vec::new();
    let mut good = true;
    for (name, filter, plain) in SUITES {
        println!("== {name}: {cycles} kills a test");
        let started = Instant::now();
        let mut command = command(filter, plain);
        command.env("ASSAY_CRASH_CYCLES", cycles.to_string());
        let passed = test::passes(test::with_models(root, command));
        let seconds = started.elapsed().as_secs();
        let word = if passed { "passed in" } else { "FAILED after" };
        lines.push(format!("  {name:<36} {word} {seconds} s"));
        good &= passed;
    }
    println!("\n{}", lines.join("\n"));
    if good {
        println!("{cycles} kills a test, and the books agree");
        ExitCode::SUCCESS
    } else {
        println!(
            "some books do not agree; the seeds above play the same moments again: ASSAY_CRASH_SEED"
        );
        ExitCode::FAILURE
    }
}

/// Shows the tests' own lines, which tell the seeds and how far they are.
fn command(filter: &str, [package, target, name]: [&str; 3]) -> Command {
    let mut command = Command::new("cargo");
    if test::has_nextest() {
        command.args(["nextest", "run", "--release", "--workspace", "--no-capture"]);
        command.args(["--profile", "crash", "-E", filter]);
    } else {
        command.args(["test", "--release", "-p", package, "--test", target, name]);
        command.args(["--", "--nocapture", "--test-threads", "1"]);
    }
    command
}

#[cfg(test)]
mod tests {
    use super::cycles;

    #[test]
    fn the_number_of_kills_is_read_and_nonsense_is_not() {
        let read = |text: &str| cycles(text.split_whitespace().map(str::to_owned));
        assert_eq!(read(""), Ok(20));
        assert_eq!(read("--cycles 200"), Ok(200));
        assert_eq!(read("--cycles=3"), Ok(3));
        for bad in [
            "--cycles",
            "--cycles 0",
            "--cycles x",
            "200",
            "--cycle 2",
            "--cycles 1 2",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
