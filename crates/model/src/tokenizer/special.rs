//! Finding special tokens in a text. Longer ones win wherever two overlap, as in llama.cpp,
//! which looks for each token in turn, longest first.

use std::collections::{BTreeMap, HashMap};

use assay_protocol::TokenId;

use super::spec::{Piece, PieceClass};

/// A stretch of text, or a token found in it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fragment<'a> {
    Text(&'a str),
    Special(TokenId),
}

#[derive(Debug)]
pub(super) struct SpecialIndex {
    tokens: HashMap<Box<[u8]>, (TokenId, PieceClass)>,
    /// Each length that a special token has, longest first, with the first bytes of those tokens.
    lengths: Vec<(usize, [bool; 256])>,
}

impl SpecialIndex {
    pub(super) fn new(pieces: &[Piece]) -> Self {
        let mut tokens = HashMap::new();
        let mut lengths: BTreeMap<usize, [bool; 256]> = BTreeMap::new();
        for (id, piece) in (0..).zip(pieces) {
            // A special token that is no text of its own could not be cut out of a text.
            if !matches!(piece.class, PieceClass::Control | PieceClass::UserDefined)
                || std::str::from_utf8(&piece.bytes).is_err()
            {
                continue;
            }
            tokens
                .entry(piece.bytes.clone())
                .or_insert((id, piece.class));
            let first = lengths.entry(piece.bytes.len()).or_insert([false; 256]);
            first[usize::from(piece.bytes[0])] = true;
        }
        SpecialIndex {
            tokens,
            lengths: lengths.into_iter().rev().collect(),
        }
    }

    pub(super) fn control_id(&self, text: &[u8]) -> Option<TokenId> {
        match self.tokens.get(text) {
            Some(&(id, PieceClass::Control)) => Some(id),
            _ => None,
        }
    }

    /// Puts a guard into every control token's name, overlapping ones included.
    pub(super) fn guard_control_names(&self, text: &str, guard: char) -> String {
        let bytes = text.as_bytes();
        let opens_one = |start: usize| {
            self.lengths.iter().any(|&(len, ref first)| {
                first[usize::from(bytes[start])]
                    && bytes
                        .get(start..start + len)
                        .is_some_and(|name| self.control_id(name).is_some())
            })
        };
        let mut guarded = String::with_capacity(text.len());
        for (start, c) in text.char_indices() {
            guarded.push(c);
            if opens_one(start) {
                guarded.push(guard);
            }
        }
        guarded
    }

    /// Cuts a text at its special tokens; control tokens count only if `control` is set.
    pub(super) fn split<'a>(&self, text: &'a str, control: bool) -> Vec<Fragment<'a>> {
        let bytes = text.as_bytes();
        let mut taken: Vec<bool> = Vec::new();
        let mut accepted: Vec<(usize, usize, TokenId)> = Vec::new();
        for &(len, ref first) in &self.lengths {
            let mut start = 0;
            while let Some(candidate) = bytes.get(start..start + len) {
                // Tokens accepted before are at least as long: one that overlaps covers an end.
                let free = taken.is_empty() || (!taken[start] && !taken[start + len - 1]);
                let token = match first[usize::from(candidate[0])] && free {
                    true => self.tokens.get(candidate),
                    false => None,
                };
                match token {
                    Some(&(id, class)) if control || class == PieceClass::UserDefined => {
                        taken.resize(bytes.len(), false);
                        taken[start..start + len].fill(true);
                        accepted.push((start, len, id));
                        start += len;
                    }
                    _ => start += 1,
                }
            }
        }
        accepted.sort_unstable();

        let mut fragments = Vec::new();
        let mut at = 0;
        for (start, len, id) in accepted {
            if at < start {
                fragments.push(Fragment::Text(&text[at..start]));
            }
            fragments.push(Fragment::Special(id));
            at = start + len;
        }
        if at < text.len() {
            fragments.push(Fragment::Text(&text[at..]));
        }
        fragments
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index() -> SpecialIndex {
        let piece = |text: &str, class| Piece {
            bytes: text.as_bytes().into(),
            class,
        };
        SpecialIndex::new(&[
            piece("  ", PieceClass::UserDefined),
            piece("   ", PieceClass::UserDefined),
            piece("<s>", PieceClass::Control),
        ])
    }

    #[test]
    fn the_longer_token_wins_and_the_rest_is_cut_again() {
        assert_eq!(
            index().split("a     b", false),
            [
                Fragment::Text("a"),
                Fragment::Special(1),
                Fragment::Special(0),
                Fragment::Text("b")
            ]
        );
    }

    #[test]
    fn control_tokens_stay_text_unless_asked_for() {
        assert_eq!(index().split("<s>", false), [Fragment::Text("<s>")]);
        assert_eq!(index().split("<s>", true), [Fragment::Special(2)]);
    }
}
