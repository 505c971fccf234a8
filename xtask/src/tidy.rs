//! `cargo xtask tidy`: the invariants of the house that a machine can check, one rule a file.
//!
//! A rule is a pure function from the tree to violations; it never changes a file.

mod ambient;
mod edges;
mod floats;
mod locks;
mod shape;

use crate::tree::File;
use std::fmt;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    pub(crate) path: String,
    /// 0 where the whole file is meant.
    pub(crate) line: usize,
    pub(crate) says: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.path, self.says),
            line => write!(f, "{}:{line}: {}", self.path, self.says),
        }
    }
}

fn violation(file: &File, line: usize, says: impl Into<String>) -> Violation {
    Violation {
        path: file.path.clone(),
        line,
        says: says.into(),
    }
}

type Rule = fn(&[File]) -> Vec<Violation>;

pub(crate) const RULES: [(&str, Rule); 6] = [
    ("no floats where money or truth is decided", floats::check),
    ("crates use only what the house allows", edges::check),
    (
        "exact crates see no clock, network, file or ambient randomness",
        ambient::check_exact,
    ),
    (
        "only the command line reads arguments and environment",
        ambient::check_environment,
    ),
    ("files are short and say what they do", shape::check),
    (
        "lock files name no registry mirror and no banned package",
        locks::check,
    ),
];

pub(crate) fn violations(files: &[File]) -> Vec<Violation> {
    RULES.iter().flat_map(|(_, rule)| rule(files)).collect()
}

#[cfg(test)]
pub(crate) mod testing {
    use super::{Rule, Violation};
    use crate::tree::File;

    pub(crate) fn file(path: &str, text: &str) -> File {
        File {
            path: path.to_owned(),
            text: text.to_owned(),
        }
    }

    /// Applies a rule to one file and compares the violations' lines.
    #[track_caller]
    pub(crate) fn check(rule: Rule, path: &str, text: &str, lines: &[usize]) {
        let found: Vec<Violation> = rule(&[file(path, text)]);
        let got: Vec<usize> = found.iter().map(|violation| violation.line).collect();
        assert_eq!(got, lines, "{path}: {text:?} gave {found:?}");
    }
}
