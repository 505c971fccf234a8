//! No floats in the crates that decide about money or truth; their tests included, so that a test cannot
//! accept "close enough".

use super::{Violation, violation};
use crate::lexer::{Kind, tokens};
use crate::tree::File;

const EXACT: [&str; 6] = [
    "protocol", "engine", "audit", "payments", "dispute", "proof",
];

pub(super) fn check(files: &[File]) -> Vec<Violation> {
    let exact = |file: &&File| {
        file.is_rust() && file.crate_name().is_some_and(|name| EXACT.contains(&name))
    };
    let mut found = Vec::new();
    for file in files.iter().filter(exact) {
        for token in tokens(&file.text) {
            let float_type =
                token.kind == Kind::Ident && matches!(token.text, "f16" | "f32" | "f64" | "f128");
            if float_type || token.kind == Kind::Float {
                let says = format!(
                    "`{}` is a float; compute in integers with named rounding",
                    token.text
                );
                found.push(violation(file, token.line, says));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::check as rule;
    use crate::tidy::testing::check;

    #[test]
    fn float_types_and_literals_are_caught_in_exact_crates() {
        check(
            rule,
            "crates/engine/src/a.rs",
            "fn f() {\n let x = 1.5;\n let y: f32 = 2e3;\n}",
            &[2, 3, 3],
        );
        check(
            rule,
            "crates/payments/src/a.rs",
            "const A: u8 = 3f64 as u8;",
            &[1],
        );
        check(rule, "crates/protocol/tests/a.rs", "x as f64", &[1]);
        check(
            rule,
            "crates/audit/src/a.rs",
            "#[cfg(test)] mod tests { fn f() { g(0.5) } }",
            &[1],
        );
    }

    #[test]
    fn floats_elsewhere_and_in_comments_are_allowed() {
        check(rule, "crates/model/src/a.rs", "let x = 1.5f32;", &[]);
        check(
            rule,
            "crates/engine/src/a.rs",
            "// about 1.5 f32\nlet x = t.0.1 + \"1.5\".len(); for i in 1..2 {}",
            &[],
        );
    }
}
