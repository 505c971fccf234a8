//! Cutting text into words before byte pairs merge: GPT-2's pattern
//! `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`.
//! The `regex` crate has no look-ahead, so a run of spaces gives its last character back by hand.

use std::sync::LazyLock;

use regex::Regex;

use super::spec::Split;

static GPT2: LazyLock<Regex> = LazyLock::new(|| pattern(r" ?\p{N}+"));
/// Digits are cut out first, so no space can lead one.
static SMOLLM: LazyLock<Regex> = LazyLock::new(|| pattern(r"\p{N}"));

fn pattern(numbers: &str) -> Regex {
    let pattern =
        format!(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{{L}}+|{numbers}| ?[^\s\p{{L}}\p{{N}}]+|\s+");
    Regex::new(&pattern).expect("the pattern is a constant")
}

/// The words of a text, in order; together they are the whole text.
pub(super) fn words(how: Split, text: &str) -> Words<'_> {
    Words { how, text, at: 0 }
}

pub(super) struct Words<'a> {
    how: Split,
    text: &'a str,
    at: usize,
}

impl<'a> Iterator for Words<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let rest = &self.text[self.at..];
        if rest.is_empty() {
            return None;
        }
        let len = match self.how {
            Split::Whole => rest.len(),
            Split::Gpt2 => word_len(&GPT2, rest, |_| true),
            // The end of the piece before a digit is the end of the text as far as `(?!\S)` goes.
            Split::SmolLm => word_len(&SMOLLM, rest, |follower| !follower.is_numeric()),
        };
        self.at += len;
        Some(&rest[..len])
    }
}

/// Length of the word that `rest` opens with. `leads` says whether a character after a run of
/// spaces takes the last of them.
fn word_len(pattern: &Regex, rest: &str, leads: impl Fn(char) -> bool) -> usize {
    let Some(found) = pattern.find(rest) else {
        return rest.len();
    };
    let word = found.as_str();
    let last = word.chars().next_back();
    match (last, rest[found.end()..].chars().next()) {
        (Some(last), Some(follower))
            if word.len() > last.len_utf8()
                && word.chars().all(char::is_whitespace)
                && leads(follower) =>
        {
            found.end() - last.len_utf8()
        }
        _ => found.end(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gpt2_words_are_what_the_pattern_says() {
        let got: Vec<_> = words(Split::Gpt2, "I'm  12  of\n\n them.  ").collect();
        assert_eq!(
            got,
            [
                "I", "'m", " ", " 12", " ", " of", "\n\n", " them", ".", "  "
            ]
        );
    }

    #[test]
    fn smollm_cuts_every_digit_alone() {
        let got: Vec<_> = words(Split::SmolLm, "x  12 ½\t9").collect();
        assert_eq!(got, ["x", "  ", "1", "2", " ", "½", "\t", "9"]);
    }
}
