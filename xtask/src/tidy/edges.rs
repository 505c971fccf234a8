//! The allowed edges between crates, read from their `Cargo.toml`.
//!
//! An edge that is missing here is a decision about the house: add it together with a page under `docs/adr/`.

use super::{Violation, violation};
use crate::tree::File;

/// Each crate with what its program code may use. `testkit` is for dev-dependencies only.
const ALLOWED: [(&str, &[&str]); 15] = [
    ("protocol", &[]),
    ("openai", &["protocol"]),
    ("engine", &["protocol"]),
    ("model", &["protocol", "engine"]),
    ("audit", &["protocol", "engine", "model", "dispute"]),
    ("dispute", &["protocol"]),
    ("proof", &["protocol", "engine"]),
    ("chain", &["protocol", "dispute"]),
    ("payments", &["protocol", "chain"]),
    ("play", &["protocol", "engine", "audit", "dispute", "chain"]),
    (
        "node",
        &[
            "protocol", "openai", "engine", "model", "audit", "dispute", "proof", "chain",
            "payments", "play",
        ],
    ),
    (
        "gateway",
        &[
            "protocol", "openai", "engine", "model", "audit", "dispute", "chain", "payments",
            "play", "proof",
        ],
    ),
    ("economics", &["protocol"]),
    (
        "testkit",
        &[
            "protocol", "openai", "engine", "model", "audit", "dispute", "chain", "payments",
            "node",
        ],
    ),
    (
        "cli",
        &[
            "protocol",
            "openai",
            "engine",
            "model",
            "audit",
            "dispute",
            "proof",
            "chain",
            "payments",
            "play",
            "node",
            "gateway",
            "economics",
        ],
    ),
];

pub(super) fn check(files: &[File]) -> Vec<Violation> {
    files
        .iter()
        .filter(|file| file.path.ends_with("/Cargo.toml"))
        .flat_map(check_one)
        .collect()
}

fn check_one(file: &File) -> Vec<Violation> {
    let Some(name) = file.crate_name() else {
        return Vec::new();
    };
    let Some((_, allowed)) = ALLOWED.iter().find(|(known, _)| *known == name) else {
        let says = format!(
            "crate `{name}` is not in the table of allowed edges (xtask/src/tidy/edges.rs)"
        );
        return vec![violation(file, 0, says)];
    };
    let uses = internal_dependencies(&file.text);
    let forbidden = uses
        .into_iter()
        .filter(|(_, used)| !allowed.contains(&used.as_str()));
    forbidden
        .map(|(line, used)| violation(file, line, format!("`{name}` may not use `{used}`")))
        .collect()
}

/// The workspace's crates among the normal and build dependencies, with their lines.
fn internal_dependencies(manifest: &str) -> Vec<(usize, String)> {
    let mut counts = false;
    let mut found = Vec::new();
    for (index, line) in manifest.lines().enumerate() {
        let line = line.split('#').next().unwrap_or("").trim();
        if let Some(section) = line.strip_prefix('[') {
            let section = section.trim_end_matches(']');
            counts = !section.contains("dev-dependencies") && section.contains("dependencies");
            // `[dependencies.assay-engine]`
            if counts && let Some((_, name)) = section.split_once("dependencies.assay-") {
                found.push((index + 1, name.trim_matches('"').to_owned()));
            }
        } else if counts && let Some(name) = line.strip_prefix("assay-") {
            let end = name
                .find(|c: char| c != '-' && !c.is_ascii_alphanumeric())
                .unwrap_or(name.len());
            found.push((index + 1, name[..end].to_owned()));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::check as rule;
    use crate::tidy::testing::check;

    #[test]
    fn forbidden_edges_are_caught_however_they_are_written() {
        check(
            rule,
            "crates/dispute/Cargo.toml",
            "[dependencies]\nassay-engine.workspace = true",
            &[2],
        );
        check(
            rule,
            "crates/engine/Cargo.toml",
            "[dependencies]\nassay-chain = { path = \"../chain\" }",
            &[2],
        );
        check(
            rule,
            "crates/chain/Cargo.toml",
            "[dependencies.assay-node]\npath = \"../node\"",
            &[1],
        );
        check(
            rule,
            "crates/model/Cargo.toml",
            "[target.'cfg(unix)'.dependencies]\nassay-node.workspace = true",
            &[2],
        );
        check(
            rule,
            "crates/node/Cargo.toml",
            "[build-dependencies]\nassay-gateway.workspace = true",
            &[2],
        );
    }

    #[test]
    fn testkit_is_for_tests_only() {
        check(
            rule,
            "crates/node/Cargo.toml",
            "[dependencies]\nassay-testkit.workspace = true",
            &[2],
        );
        check(
            rule,
            "crates/node/Cargo.toml",
            "[dev-dependencies]\nassay-testkit.workspace = true",
            &[],
        );
    }

    #[test]
    fn allowed_edges_and_foreign_crates_pass() {
        check(
            rule,
            "crates/engine/Cargo.toml",
            "[dependencies]\nassay-protocol.workspace = true\nserde = \"1\"",
            &[],
        );
        check(
            rule,
            "xtask/Cargo.toml",
            "[dependencies]\nassay-node.workspace = true",
            &[],
        );
    }

    #[test]
    fn a_new_crate_has_to_enter_the_table() {
        check(rule, "crates/novelty/Cargo.toml", "", &[0]);
    }
}
