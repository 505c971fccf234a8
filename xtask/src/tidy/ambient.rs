//! What code may not reach for by itself: clock, network, files and randomness in the exact crates,
//! arguments and environment anywhere but in the command line.
//!
//! Test code is excepted: it may read golden files and make folders.

use super::{Violation, violation};
use crate::lexer::{Kind, Token, tokens, without_tests};
use crate::tree::File;

const EXACT: [&str; 4] = ["protocol", "engine", "dispute", "proof"];
const AMBIENT_MODULES: [&str; 5] = ["time", "net", "fs", "env", "process"];
const AMBIENT_CRATES: [&str; 6] = [
    "rand",
    "rand_core",
    "getrandom",
    "tokio",
    "reqwest",
    "chrono",
];

pub(super) fn check_exact(files: &[File]) -> Vec<Violation> {
    let exact = |file: &&File| {
        file.crate_name().is_some_and(|name| EXACT.contains(&name)) && is_program(file)
    };
    let mut found = Vec::new();
    for file in files.iter().filter(exact) {
        let code = without_tests(&tokens(&file.text));
        for (line, module) in std_modules(&code) {
            if AMBIENT_MODULES.contains(&module) {
                found.push(violation(
                    file,
                    line,
                    format!("`std::{module}` in an exact crate; take it as an argument"),
                ));
            }
        }
        for (line, name) in crate_roots(&code) {
            if AMBIENT_CRATES.contains(&name) {
                found.push(violation(
                    file,
                    line,
                    format!("`{name}` in an exact crate; take it as an argument"),
                ));
            }
        }
    }
    found
}

pub(super) fn check_environment(files: &[File]) -> Vec<Violation> {
    let library = |file: &&File| {
        file.crate_name()
            .is_some_and(|name| name != "cli" && name != "testkit")
            && is_program(file)
    };
    let mut found = Vec::new();
    for file in files.iter().filter(library) {
        let code = without_tests(&tokens(&file.text));
        for (line, module) in std_modules(&code) {
            if module == "env" {
                let says = "`std::env` outside of `cli`; take the value as an argument";
                found.push(violation(file, line, says));
            }
        }
    }
    found
}

/// Code that ends up in a program; `tests.rs` beside a module is its test module in a file of its own.
fn is_program(file: &File) -> bool {
    file.is_rust()
        && !file.is_test_target()
        && !file.path.ends_with("/tests.rs")
        && !file.path.ends_with("/build.rs")
}

/// First path segments after `std ::`, also inside of `std::{a, b::c}`.
fn std_modules<'a>(code: &[Token<'a>]) -> Vec<(usize, &'a str)> {
    let mut found = Vec::new();
    for at in 0..code.len() {
        if code[at].text != "std" || !is_path_separator(code, at + 1) {
            continue;
        }
        let Some(next) = code.get(at + 3) else {
            continue;
        };
        if next.text != "{" {
            found.push((next.line, next.text));
            continue;
        }
        let mut depth = 0usize;
        for (offset, token) in code[at + 3..].iter().enumerate() {
            let before = code[at + 3 + offset - 1].text;
            match token.text {
                "{" => depth += 1,
                "}" => depth -= 1,
                text if depth == 1 && token.kind == Kind::Ident && before != ":" => {
                    found.push((token.line, text))
                }
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
    }
    found
}

/// Identifiers at the head of a path: `rand::x`, `use rand;`.
fn crate_roots<'a>(code: &[Token<'a>]) -> Vec<(usize, &'a str)> {
    let head = |at: usize| at == 0 || code[at - 1].text != ":";
    let used =
        |at: usize| is_path_separator(code, at + 1) || (at > 0 && code[at - 1].text == "use");
    let heads = (0..code.len()).filter(|&at| code[at].kind == Kind::Ident && head(at) && used(at));
    heads.map(|at| (code[at].line, code[at].text)).collect()
}

fn is_path_separator(code: &[Token<'_>], at: usize) -> bool {
    code.len() > at + 1 && code[at].text == ":" && code[at + 1].text == ":"
}

#[cfg(test)]
mod tests {
    use super::{check_environment, check_exact};
    use crate::tidy::testing::check;

    #[test]
    fn clock_network_files_and_randomness_are_caught_in_exact_crates() {
        check(
            check_exact,
            "crates/engine/src/a.rs",
            "use std::time::Instant;",
            &[1],
        );
        check(
            check_exact,
            "crates/protocol/src/a.rs",
            "use std::{\n fmt,\n fs::File,\n net,\n};",
            &[3, 4],
        );
        check(
            check_exact,
            "crates/engine/src/a.rs",
            "let x = ::std::fs::read(p);",
            &[1],
        );
        check(
            check_exact,
            "crates/protocol/src/a.rs",
            "let x = rand::random();\nuse getrandom;",
            &[1, 2],
        );
    }

    #[test]
    fn exact_crates_may_use_the_rest_of_std_and_their_tests_anything() {
        check(
            check_exact,
            "crates/engine/src/a.rs",
            "use std::{fmt, sync::Arc}; let time = self.fs::<u8>();",
            &[],
        );
        check(
            check_exact,
            "crates/engine/src/a.rs",
            "#[cfg(test)] mod tests { use std::fs; }",
            &[],
        );
        check(
            check_exact,
            "crates/engine/tests/a.rs",
            "use std::time::Instant;",
            &[],
        );
        check(
            check_exact,
            "crates/node/src/a.rs",
            "use std::time::Instant;",
            &[],
        );
    }

    #[test]
    fn the_environment_is_read_by_the_command_line_only() {
        check(
            check_environment,
            "crates/node/src/a.rs",
            "let home = std::env::var(\"HOME\");",
            &[1],
        );
        check(
            check_environment,
            "crates/model/src/a.rs",
            "use std::{env, fs};",
            &[1],
        );
        check(
            check_environment,
            "crates/cli/src/a.rs",
            "let home = std::env::args();",
            &[],
        );
        check(
            check_environment,
            "crates/node/src/a.rs",
            "#[cfg(test)] mod t { fn f() { std::env::temp_dir(); } }",
            &[],
        );
    }
}
