//! Chores of the workspace: `cargo xtask tidy`, `test`, `crash`, `setup`.
//!
//! It depends on the standard library alone, so that it builds in a second on a fresh clone.

mod crash;
mod lexer;
mod setup;
mod test;
mod tidy;
mod tree;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask COMMAND

  tidy    check the invariants of the house
  test    run every test: Rust, contracts, foreign clients
  crash   kill what writes ledgers and chains at random moments, and compare the books: crash [--cycles N] (20)
  setup   install what the contracts' and the foreign clients' tests need (npm, a Python environment)";

fn main() -> ExitCode {
    let command = std::env::args().nth(1);
    let root = root();
    match command.as_deref() {
        Some("tidy") => run_tidy(&root),
        Some("test") => test::run(&root),
        Some("crash") => match crash::cycles(std::env::args().skip(2)) {
            Ok(cycles) => crash::run(&root, cycles),
            Err(why) => {
                eprintln!("{why}\n\n{USAGE}");
                ExitCode::from(2)
            }
        },
        Some("setup") => setup::run(&root),
        Some("help" | "--help" | "-h") => {
            println!("{USAGE}");
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn run_tidy(root: &Path) -> ExitCode {
    let files = match tree::read(root) {
        Ok(files) => files,
        Err(error) => {
            eprintln!("cannot read the tree under {}: {error}", root.display());
            return ExitCode::FAILURE;
        }
    };
    let violations = tidy::violations(&files);
    for violation in &violations {
        println!("{violation}");
    }
    if violations.is_empty() {
        println!(
            "tidy: {} files, {} rules, all kept",
            files.len(),
            tidy::RULES.len()
        );
        return ExitCode::SUCCESS;
    }
    println!("tidy: {} violations", violations.len());
    ExitCode::FAILURE
}

fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}
