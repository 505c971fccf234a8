//! Merging neighbours, best rank first, leftmost on a tie: what both algorithms share.
//! A heap and a linked list keep a long text at n·log n.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use assay_protocol::TokenId;

/// A run of bytes and the token that it is, if the vocabulary has one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Symbol {
    pub start: usize,
    /// 0 once merged into its left neighbour.
    pub len: usize,
    pub id: Option<TokenId>,
}

/// Merges until no pair of neighbours has a rule; what is left has `len > 0`.
/// `rule` gives a pair's rank (lower first) and the token that it makes.
pub(super) fn merge(
    symbols: &mut [Symbol],
    rule: impl Fn(&Symbol, &Symbol) -> Option<(u32, TokenId)>,
) {
    const END: usize = usize::MAX;
    let count = symbols.len();
    let mut next: Vec<usize> = (1..=count).collect();
    if let Some(last) = next.last_mut() {
        *last = END;
    }
    let mut previous: Vec<usize> = (0..count).map(|i| i.wrapping_sub(1)).collect();

    // (rank, left, right, length together, token): the length shows a stale entry, for a
    // symbol only ever grows or vanishes.
    let mut queue = BinaryHeap::new();
    let pair = |symbols: &[Symbol], left: usize, right: usize| {
        let (a, b) = (&symbols[left], &symbols[right]);
        rule(a, b).map(|(rank, id)| Reverse((rank, left, right, a.len + b.len, id)))
    };
    for right in 1..count {
        queue.extend(pair(symbols, right - 1, right));
    }
    while let Some(Reverse((_, left, right, len, id))) = queue.pop() {
        let (a, b) = (symbols[left], symbols[right]);
        if a.len == 0 || b.len == 0 || a.len + b.len != len {
            continue;
        }
        symbols[left] = Symbol {
            start: a.start,
            len,
            id: Some(id),
        };
        symbols[right].len = 0;
        let after = next[right];
        next[left] = after;
        if after != END {
            previous[after] = left;
            queue.extend(pair(symbols, left, after));
        }
        if previous[left] != END {
            queue.extend(pair(symbols, previous[left], left));
        }
    }
}
