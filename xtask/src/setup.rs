//! `cargo xtask setup`: what tests need beyond Rust, from the package registries: the contracts' npm packages and
//! a Python environment with the clients that other people wrote.
//!
//! Nothing is installed outside of this folder's ignored paths, and a second run does nothing.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

pub(crate) fn venv(root: &Path) -> PathBuf {
    root.join("target/foreign/venv")
}

pub(crate) fn venv_python(root: &Path) -> PathBuf {
    venv(root).join("bin/python")
}

pub(crate) fn requirements(root: &Path) -> PathBuf {
    root.join("crates/cli/tests/foreign/requirements.txt")
}

/// Written after a full install, so that half of one is never taken for a whole.
fn stamp(root: &Path) -> PathBuf {
    venv(root).join("installed-requirements.txt")
}

pub(crate) fn has_python_clients(root: &Path) -> bool {
    let wanted = std::fs::read(requirements(root)).ok();
    wanted.is_some() && wanted == std::fs::read(stamp(root)).ok()
}

pub(crate) fn forge(root: &Path) -> PathBuf {
    root.join("contracts/node_modules/@foundry-rs/forge-linux-amd64/bin/forge")
}

pub(crate) fn has_contract_tools(root: &Path) -> bool {
    forge(root).is_file()
}

/// Where the npm clients live, beside their lock file.
pub(crate) fn npm_clients(root: &Path) -> PathBuf {
    root.join("crates/cli/tests/foreign")
}

pub(crate) fn has_npm_clients(root: &Path) -> bool {
    npm_clients(root).join("node_modules/@x402/fetch").is_dir()
}

pub(crate) fn run(root: &Path) -> ExitCode {
    let npm = [root.join("contracts"), npm_clients(root)]
        .iter()
        .all(|folder| is_installed(folder) || npm_ci(folder));
    let python = has_python_clients(root) || install_python_clients(root);
    if npm && python {
        println!("setup: everything the tests need is here");
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// npm leaves its own copy of the lock file behind; an older one is of an older list.
fn is_installed(folder: &Path) -> bool {
    let changed = |path: &str| {
        std::fs::metadata(folder.join(path))
            .and_then(|meta| meta.modified())
            .ok()
    };
    match (
        changed("node_modules/.package-lock.json"),
        changed("package-lock.json"),
    ) {
        (Some(installed), Some(wanted)) => installed >= wanted,
        _ => false,
    }
}

fn npm_ci(folder: &Path) -> bool {
    let mut npm = Command::new("npm");
    step(
        "npm ci",
        npm.args(["ci", "--no-audit", "--no-fund"])
            .current_dir(folder),
    )
}

fn install_python_clients(root: &Path) -> bool {
    let made = venv_python(root).is_file()
        || step(
            "python3 -m venv",
            Command::new("python3").args(["-m", "venv"]).arg(venv(root)),
        );
    let mut pip = Command::new(venv_python(root));
    pip.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "-r",
    ])
    .arg(requirements(root));
    made && step("pip install", &mut pip) && std::fs::copy(requirements(root), stamp(root)).is_ok()
}

fn step(name: &str, command: &mut Command) -> bool {
    match command.status() {
        Ok(status) if status.success() => true,
        Ok(status) => {
            eprintln!("setup: {name} failed: {status}");
            false
        }
        Err(error) => {
            eprintln!("setup: cannot start {name}: {error}");
            false
        }
    }
}
