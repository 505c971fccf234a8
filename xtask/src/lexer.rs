//! Splits Rust source into tokens with line numbers, so that a rule reads code and never a comment or a string.
//!
//! It knows just enough of the language for the rules of `tidy`; it is no parser and never fails:
//! what it cannot read becomes punctuation.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Ident,
    Integer,
    Float,
    Punct,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token<'a> {
    pub(crate) kind: Kind,
    pub(crate) text: &'a str,
    pub(crate) line: usize,
}

pub(crate) fn tokens(source: &str) -> Vec<Token<'_>> {
    let mut lexer = Lexer {
        source,
        at: 0,
        line: 1,
        out: Vec::new(),
    };
    while lexer.at < source.len() {
        lexer.step();
    }
    lexer.out
}

/// The same tokens without the items marked `#[cfg(test)]`.
pub(crate) fn without_tests<'a>(all: &[Token<'a>]) -> Vec<Token<'a>> {
    const MARK: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let mut kept = Vec::new();
    let mut at = 0;
    while at < all.len() {
        let marked = all.len() >= at + MARK.len()
            && MARK
                .iter()
                .zip(&all[at..])
                .all(|(want, token)| *want == token.text);
        if marked {
            at = end_of_item(all, at + MARK.len());
        } else {
            kept.push(all[at]);
            at += 1;
        }
    }
    kept
}

/// An item ends at a `;` outside of brackets or with the brace that closes its body.
fn end_of_item(all: &[Token<'_>], from: usize) -> usize {
    let mut depth = 0usize;
    for (offset, token) in all[from..].iter().enumerate() {
        match token.text {
            "{" | "(" | "[" => depth += 1,
            "}" | ")" | "]" => {
                depth = depth.saturating_sub(1);
                if depth == 0 && token.text == "}" {
                    return from + offset + 1;
                }
            }
            ";" if depth == 0 => return from + offset + 1,
            _ => {}
        }
    }
    all.len()
}

struct Lexer<'a> {
    source: &'a str,
    at: usize,
    line: usize,
    out: Vec<Token<'a>>,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        &self.source[self.at..]
    }

    fn step(&mut self) {
        let rest = self.rest();
        let first = rest.chars().next().unwrap_or(' ');
        if first.is_whitespace() {
            self.skip(first.len_utf8());
        } else if rest.starts_with("//") {
            self.skip(rest.find('\n').unwrap_or(rest.len()));
        } else if rest.starts_with("/*") {
            self.skip(block_comment_len(rest));
        } else if let Some(len) = string_len(rest) {
            self.skip(len);
        } else if first == '\'' {
            self.skip(quote_len(rest));
        } else if first.is_ascii_digit() {
            self.number();
        } else if first == '_' || first.is_alphabetic() {
            let len = rest
                .find(|c: char| c != '_' && !c.is_alphanumeric())
                .unwrap_or(rest.len());
            self.push(Kind::Ident, len);
        } else {
            self.push(Kind::Punct, first.len_utf8());
        }
    }

    fn skip(&mut self, len: usize) {
        self.line += self.rest()[..len].matches('\n').count();
        self.at += len;
    }

    fn push(&mut self, kind: Kind, len: usize) {
        self.out.push(Token {
            kind,
            text: &self.rest()[..len],
            line: self.line,
        });
        self.skip(len);
    }

    fn number(&mut self) {
        let rest = self.rest();
        let digits = |from: usize| {
            rest[from..]
                .find(|c: char| c != '_' && !c.is_alphanumeric())
                .map_or(rest.len(), |n| from + n)
        };
        let whole = digits(0);
        // `pair.0.1` is a field of a field.
        if self.out.last().is_some_and(|token| token.text == ".") {
            let len = rest
                .find(|c: char| !c.is_ascii_digit())
                .unwrap_or(rest.len());
            return self.push(Kind::Integer, len);
        }
        let head = &rest[..whole];
        let decimal = !head.starts_with("0x") && !head.starts_with("0b") && !head.starts_with("0o");
        let mut end = whole;
        let mut float = false;
        if decimal && let Some(after) = rest[whole..].strip_prefix('.') {
            // `1..2` is a range, `1.max(2)` a method call, `1.` and `1.5` are floats.
            let next = after.chars().next().unwrap_or(' ');
            if next.is_ascii_digit() {
                end = digits(whole + 1);
                float = true;
            } else if next != '.' && next != '_' && !next.is_alphabetic() {
                end = whole + 1;
                float = true;
            }
        }
        let text = &rest[..end];
        let exponent = decimal
            && text.char_indices().any(|(i, c)| {
                (c == 'e' || c == 'E')
                    && text[..i]
                        .chars()
                        .all(|c| c.is_ascii_digit() || c == '_' || c == '.')
            });
        let suffix = decimal && (text.ends_with("f32") || text.ends_with("f64"));
        // `1e-9`: the sign belongs to the number.
        if exponent && text.ends_with(['e', 'E']) && rest[end..].starts_with(['-', '+']) {
            end = digits(end + 1);
        }
        self.push(
            if float || exponent || suffix {
                Kind::Float
            } else {
                Kind::Integer
            },
            end,
        );
    }
}

fn block_comment_len(rest: &str) -> usize {
    let bytes = rest.as_bytes();
    let (mut depth, mut at) = (0usize, 0);
    while at + 1 < bytes.len() {
        match &bytes[at..at + 2] {
            b"/*" => {
                depth += 1;
                at += 2;
            }
            b"*/" => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    rest.len()
}

/// The length of a string literal of any flavour that starts here.
fn string_len(rest: &str) -> Option<usize> {
    let prefix = ["br", "cr", "b", "c", "r", ""].into_iter().find(|prefix| {
        rest.strip_prefix(prefix).is_some_and(|after| {
            after.starts_with('"')
                || (prefix.ends_with('r') && after.trim_start_matches('#').starts_with('"'))
        })
    })?;
    let after = &rest[prefix.len()..];
    if prefix.ends_with('r') {
        let hashes = after.find('"')?;
        let close = format!("\"{}", &after[..hashes]);
        let body = &after[hashes + 1..];
        let end = body.find(&close).map_or(body.len(), |n| n + close.len());
        return Some(prefix.len() + hashes + 1 + end);
    }
    let mut escaped = false;
    for (i, c) in after.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return Some(prefix.len() + i + 1),
            _ => {}
        }
    }
    Some(rest.len())
}

/// A character literal as a whole; of a lifetime only its tick, so that its name becomes an identifier.
fn quote_len(rest: &str) -> usize {
    let mut chars = rest.char_indices().skip(1);
    match chars.next() {
        Some((_, '\\')) => rest
            .get(3..)
            .and_then(|after| after.find('\''))
            .map_or(1, |n| 3 + n + 1),
        Some((i, c)) if rest[i + c.len_utf8()..].starts_with('\'') => i + c.len_utf8() + 1,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::{Kind, tokens, without_tests};

    fn texts(source: &str, kind: Kind) -> Vec<&str> {
        tokens(source)
            .into_iter()
            .filter(|t| t.kind == kind)
            .map(|t| t.text)
            .collect()
    }

    #[test]
    fn floats_are_told_from_ranges_fields_and_methods() {
        let source = "1.5 2. 1e9 1e-9 3f32 1..2 pair.0.1 7.max(1) 0xe1 0x1f32 1_000u64 2.0e3";
        assert_eq!(
            texts(source, Kind::Float),
            ["1.5", "2.", "1e9", "1e-9", "3f32", "2.0e3"]
        );
    }

    #[test]
    fn comments_strings_and_characters_hold_no_tokens() {
        let source = "// f64\n/* f64 /* f64 */ f64 */ \"f64 \\\" f64\" r#\"f64 \" f64\"# b\"f64\" 'f' '\\'' '\\u{1f}' x";
        assert_eq!(texts(source, Kind::Ident), ["x"]);
        assert_eq!(tokens(source)[0].line, 2);
    }

    #[test]
    fn lifetimes_do_not_swallow_what_follows() {
        assert_eq!(
            texts("fn f<'a>(x: &'a str) -> &'a f64", Kind::Ident),
            ["fn", "f", "a", "x", "a", "str", "a", "f64"]
        );
    }

    #[test]
    fn items_for_tests_are_left_out() {
        let source =
            "use a; #[cfg(test)] mod tests { fn f() { g() } } use b; #[cfg(test)] use c; use d;";
        let kept: Vec<_> = without_tests(&tokens(source))
            .into_iter()
            .map(|t| t.text)
            .collect();
        assert_eq!(kept.join(""), "usea;useb;used;");
    }
}
