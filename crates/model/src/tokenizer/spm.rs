//! SentencePiece with scores, as llama.cpp reads it: characters merge greedily into the best
//! scored piece; a character without a piece becomes its bytes.

use assay_protocol::TokenId;

use super::Tables;
use super::merge::{Symbol, merge};
use super::spec::Algorithm;

pub(super) fn encode(tables: &Tables, text: &str, space_prefix: bool, ids: &mut Vec<TokenId>) {
    let Algorithm::Spm { ranks, .. } = &tables.spec.algorithm else {
        return;
    };
    let prefix = if space_prefix { " " } else { "" };
    // SentencePiece writes a space as `▁`, so a text's own `▁` reads as a space.
    let text = format!("{prefix}{}", text.replace('▁', " "));
    let bytes = text.as_bytes();
    let lookup = |start: usize, len: usize| tables.text.get(&bytes[start..start + len]).copied();
    let mut symbols: Vec<Symbol> = text
        .char_indices()
        .map(|(start, c)| {
            let len = c.len_utf8();
            let id = lookup(start, len);
            Symbol { start, len, id }
        })
        .collect();
    merge(&mut symbols, |left, right| {
        let id = lookup(left.start, left.len + right.len)?;
        Some((ranks[id as usize], id))
    });
    for symbol in symbols.iter().filter(|s| s.len > 0) {
        match symbol.id {
            Some(id) => ids.push(id),
            None => {
                let raw = &bytes[symbol.start..symbol.start + symbol.len];
                ids.extend(raw.iter().filter_map(|&b| tables.bytes[usize::from(b)]));
            }
        }
    }
}
