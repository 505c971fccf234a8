//! GPT-2's byte-level byte-pair encoding.

use std::collections::HashMap;

use assay_protocol::TokenId;

use super::merge::{Symbol, merge};
use super::spec::{Piece, SpecError, Split};
use super::{Tables, split};

pub(super) type MergeTable = HashMap<(TokenId, TokenId), (u32, TokenId)>;

/// What each pair of tokens merges into, and when.
pub(super) fn merge_table(
    pieces: &[Piece],
    merges: &[(TokenId, TokenId)],
    text: &HashMap<Box<[u8]>, TokenId>,
) -> Result<MergeTable, SpecError> {
    let mut table = HashMap::with_capacity(merges.len());
    let mut joined = Vec::new();
    for (rank, &(left, right)) in (0u32..).zip(merges) {
        joined.clear();
        joined.extend_from_slice(&pieces[left as usize].bytes);
        joined.extend_from_slice(&pieces[right as usize].bytes);
        let id = *text
            .get(&joined[..])
            .ok_or(SpecError::DeadMerge(rank as usize))?;
        table.entry((left, right)).or_insert((rank, id));
    }
    Ok(table)
}

pub(super) fn encode(tables: &Tables, how: Split, text: &str, ids: &mut Vec<TokenId>) {
    let mut symbols = Vec::new();
    for word in split::words(how, text) {
        symbols.clear();
        symbols.extend(word.bytes().enumerate().map(|(start, byte)| Symbol {
            start,
            len: 1,
            id: tables.text.get(&[byte][..]).copied(),
        }));
        merge(&mut symbols, |left, right| {
            tables.merges.get(&(left.id?, right.id?)).copied()
        });
        ids.extend(symbols.iter().filter(|s| s.len > 0).filter_map(|s| s.id));
    }
}
