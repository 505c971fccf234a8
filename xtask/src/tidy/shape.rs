//! A file has a length that a reader bears, and its first line says what it does.

use super::{Violation, violation};
use crate::tree::File;

const LINES_MAX: usize = 800;

pub(super) fn check(files: &[File]) -> Vec<Violation> {
    let source =
        |file: &&File| (file.is_rust() || file.path.ends_with(".sol")) && !file.is_generated();
    let mut found = Vec::new();
    for file in files.iter().filter(source) {
        let lines = file.text.lines().count();
        if lines > LINES_MAX {
            found.push(violation(
                file,
                0,
                format!("{lines} lines; split it, {LINES_MAX} are the most"),
            ));
        }
        let first = file.text.lines().next().unwrap_or("");
        if file.is_rust() && !(first.starts_with("//! ") && first.len() > "//! ".len()) {
            found.push(violation(
                file,
                1,
                "the first line is a `//!` comment that says what the file does",
            ));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::{LINES_MAX, check as rule};
    use crate::tidy::testing::check;

    #[test]
    fn files_that_are_too_long_are_caught() {
        let long = format!("//! Long.\n{}", "\n".repeat(LINES_MAX));
        check(rule, "crates/node/src/a.rs", &long, &[0]);
        check(rule, "contracts/src/A.sol", &long, &[0]);
        check(
            rule,
            "crates/node/src/a.rs",
            &format!("//! @generated\n{long}"),
            &[],
        );
    }

    #[test]
    fn a_file_without_its_first_line_is_caught() {
        check(rule, "crates/node/src/a.rs", "use std::fmt;", &[1]);
        check(rule, "crates/node/src/a.rs", "//! \nuse std::fmt;", &[1]);
        check(rule, "crates/node/src/a.rs", "", &[1]);
        check(rule, "crates/node/src/a.rs", "//! Does one thing.", &[]);
        check(
            rule,
            "contracts/src/A.sol",
            "// SPDX-License-Identifier: Apache-2.0",
            &[],
        );
    }
}
