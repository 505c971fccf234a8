//! `cargo xtask test`: every test there is, and a summary that says what ran and what could not.
//!
//! With `CI=true` a suite whose tools are missing fails the run; elsewhere it is named and skipped.

use crate::setup;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Instant;

enum Outcome {
    Passed,
    Failed,
    /// With what would make it run.
    Missing(&'static str),
}

type Suite = fn(&Path) -> Outcome;

const SUITES: [(&str, Suite); 4] = [
    ("rust", rust),
    ("contracts", contracts),
    ("scripts", scripts),
    ("foreign clients", foreign_clients),
];

pub(crate) fn run(root: &Path) -> ExitCode {
    let strict = std::env::var("CI").is_ok_and(|value| value == "true");
    let mut lines = Vec::new();
    let mut good = true;
    for (name, suite) in SUITES {
        println!("== {name}");
        let started = Instant::now();
        let outcome = suite(root);
        let seconds = started.elapsed().as_secs();
        let (word, fine) = match outcome {
            Outcome::Passed => (format!("passed in {seconds} s"), true),
            Outcome::Failed => (format!("FAILED after {seconds} s"), false),
            Outcome::Missing(next) => (format!("not run: {next}"), !strict),
        };
        lines.push(format!("  {name:<16} {word}"));
        good &= fine;
    }
    println!("\n{}", lines.join("\n"));
    println!(
        "{}",
        if good {
            "all suites that ran have passed"
        } else {
            "some suites failed"
        }
    );
    if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Pulled models are kept between runs, so that a second run pulls nothing.
pub(crate) fn with_models(root: &Path, mut command: Command) -> Command {
    if std::env::var_os("ASSAY_MODELS_DIR").is_none() {
        command.env("ASSAY_MODELS_DIR", root.join("target/models"));
    }
    forget_cargo(&mut command);
    command.current_dir(root);
    command
}

/// What cargo told this program about itself would look like a change to build scripts that watch it (ring's does),
/// and half of the dependencies would be built again.
fn forget_cargo(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&*name);
        }
    }
}

pub(crate) fn has_nextest() -> bool {
    Command::new("cargo")
        .args(["nextest", "--version"])
        .output()
        .is_ok_and(|output| output.status.success())
}

fn rust(root: &Path) -> Outcome {
    let mut command = Command::new("cargo");
    if has_nextest() {
        command.args(["nextest", "run", "--release", "--workspace"]);
    } else {
        println!(
            "cargo-nextest is not installed; using cargo test (`cargo install --locked cargo-nextest` is faster)"
        );
        command.args(["test", "--release", "--workspace"]);
    }
    finish(with_models(root, command))
}

fn contracts(root: &Path) -> Outcome {
    if !setup::has_contract_tools(root) {
        return Outcome::Missing("run `cargo xtask setup` first (needs npm)");
    }
    let mut command = Command::new(setup::forge(root));
    command.arg("test").current_dir(root.join("contracts"));
    finish(command)
}

/// The arithmetic of the scripts that compare with others; what they compare takes a quiet machine.
fn scripts(root: &Path) -> Outcome {
    let mut command = Command::new("python3");
    command.args(["bench/llama.py", "--self-test"]);
    command.current_dir(root);
    match command.status() {
        Ok(status) if status.success() => Outcome::Passed,
        Ok(_) => Outcome::Failed,
        Err(_) => Outcome::Missing("needs python3"),
    }
}

/// Tests that drive the program with clients that other people wrote are `#[ignore]`d in a plain run.
fn foreign_clients(root: &Path) -> Outcome {
    if !setup::has_python_clients(root) || !setup::has_npm_clients(root) {
        return Outcome::Missing(
            "run `cargo xtask setup` first (needs npm, and python3 with venv)",
        );
    }
    let openai = finish(with_models(root, ignored_tests(root, "foreign")));
    let x402 = finish(with_models(root, ignored_tests(root, "official_client")));
    match (openai, x402) {
        (Outcome::Passed, Outcome::Passed) => Outcome::Passed,
        _ => Outcome::Failed,
    }
}

/// Selects within the whole workspace: naming a package alone would change features and build much of it again.
fn ignored_tests(root: &Path, target: &str) -> Command {
    let mut command = Command::new("cargo");
    if has_nextest() {
        command.args(["nextest", "run", "--release", "--workspace"]);
        command.args(["--test", target, "--run-ignored", "only"]);
    } else {
        command.args(["test", "--release", "--workspace", "--test", target]);
        command.args(["--", "--ignored"]);
    }
    command.env("ASSAY_TEST_PYTHON", setup::venv_python(root));
    command.env("ASSAY_TEST_X402", setup::npm_clients(root));
    command
}

fn finish(command: Command) -> Outcome {
    if passes(command) {
        Outcome::Passed
    } else {
        Outcome::Failed
    }
}

pub(crate) fn passes(mut command: Command) -> bool {
    match command.status() {
        Ok(status) => status.success(),
        Err(error) => {
            eprintln!("cannot start {command:?}: {error}");
            false
        }
    }
}
