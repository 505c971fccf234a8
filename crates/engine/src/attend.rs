//! Attention of one token and one key head: scores against the cache, softmax, mix. Composed from
//! kernels; equal to `ops::attention` over the positions that the layer's window lets it see.

use std::cell::RefCell;

use crate::cache::{Cache, PAGE};
use crate::kernels::{self, Dots, ExpTable, Path};
use crate::ops::attention::{distance, exponential, reciprocal};

/// Elements of a head whose products with 13-bit partners fit an i32 together: 128·4095² < 2^31.
const PIECE: usize = 128;

/// Where a query stands and how its layer weighs scores.
#[derive(Clone, Copy)]
pub(crate) struct Query<'a> {
    pub cache: &'a Cache,
    pub layer: usize,
    pub kv_head: usize,
    pub position: usize,
    /// First position that is seen.
    pub from: usize,
    pub c: u32,
    pub csh: i32,
    pub exp: &'a ExpTable,
}

#[derive(Default)]
struct Scratch {
    piece: Vec<i32>,
    scores: Vec<i64>,
    below: Vec<u32>,
    e: Vec<u32>,
    p: Vec<i16>,
    part: Vec<i32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// The first position that a query at `position` sees; a window of 0 sees all.
pub(crate) fn first_seen(position: usize, window: usize) -> usize {
    match window {
        0 => 0,
        window => (position + 1).saturating_sub(window),
    }
}

/// Mixes values for all query heads `q` of one key head into `out`, both head after head.
pub(crate) fn attend(path: Path, query: Query<'_>, q: &[i16], head_dim: usize, out: &mut [i32]) {
    let Query {
        cache,
        layer,
        kv_head,
        position,
        from,
        ..
    } = query;
    let seen = position + 1 - from;
    SCRATCH.with_borrow_mut(|scratch| {
        scratch.score(path, &query, q, head_dim);
        let Scratch {
            scores,
            below,
            e,
            p,
            part,
            ..
        } = scratch;
        // Values come in pages and pairs: shares of zero stand for the positions before an odd start and
        // past an odd end.
        let lead = from % PAGE;
        p.clear();
        p.resize((lead + seen).next_multiple_of(2), 0);
        for (scores, out) in scores
            .chunks_exact(seen)
            .zip(out.chunks_exact_mut(head_dim))
        {
            let shares = &mut p[lead..lead + seen];
            if let Some(alone) = softmax(path, scores, &query, (below, e), shares) {
                for (element, out) in out.iter_mut().enumerate() {
                    *out = i32::from(cache.value(layer, kv_head, from + alone, element)) << 15;
                }
            } else {
                mix(path, &query, from - lead, p, part, out);
            }
        }
    });
}

/// Mixes the values of the positions from `start` on, a page's first, by an even number of shares `p`.
pub(crate) fn mix(
    path: Path,
    query: &Query<'_>,
    start: usize,
    p: &[i16],
    part: &mut Vec<i32>,
    out: &mut [i32],
) {
    part.resize(out.len(), 0);
    out.fill(0);
    for (page, p) in (start / PAGE..).zip(p.chunks(PAGE)) {
        let Some(first) = p.iter().position(|p| *p != 0) else {
            continue;
        };
        let first = first & !1;
        let pairs = query.cache.values(query.layer, query.kv_head, page);
        kernels::mix(path, &p[first..], &pairs[first * out.len()..], part);
        for (out, part) in out.iter_mut().zip(part.iter()) {
            *out = out.wrapping_add(*part);
        }
    }
}

/// Gives `each` what every query head of one key head sees: the head's number within `q`, the scores
/// and exponentials of the seen positions, and the latter's sum.
pub(crate) fn weigh(
    path: Path,
    query: Query<'_>,
    q: &[i16],
    head_dim: usize,
    mut each: impl FnMut(usize, &[i64], &[u32], u64),
) {
    SCRATCH.with_borrow_mut(|scratch| {
        scratch.score(path, &query, q, head_dim);
        let Scratch {
            scores, below, e, ..
        } = scratch;
        let seen = query.position + 1 - query.from;
        for (head, scores) in scores.chunks_exact(seen).enumerate() {
            let z = exponentials(path, scores, &query, below, e);
            each(head, scores, e, z);
        }
    });
}

impl Scratch {
    /// Scores of all query heads `q` of one key head against the positions that are seen.
    fn score(&mut self, path: Path, query: &Query<'_>, q: &[i16], head_dim: usize) {
        let (seen, heads) = (query.position + 1 - query.from, q.len() / head_dim);
        let Scratch { piece, scores, .. } = self;
        piece.resize(heads * seen, 0);
        scores.clear();
        scores.resize(heads * seen, 0);
        for start in (0..head_dim).step_by(PIECE) {
            let mut from = query.from;
            while from <= query.position {
                let (page, slot) = (from / PAGE, from % PAGE);
                let keys = query.cache.keys(query.layer, query.kv_head, page);
                let rows = (PAGE - slot).min(query.position + 1 - from);
                let task = Dots {
                    w: &keys[slot * head_dim + start..],
                    w_stride: head_dim,
                    rows,
                    x: &q[start..],
                    x_stride: head_dim,
                    count: heads,
                    len: PIECE.min(head_dim - start),
                };
                kernels::dots(path, task, &mut piece[from - query.from..], seen);
                from += rows;
            }
            for (score, piece) in scores.iter_mut().zip(piece.iter()) {
                *score += i64::from(*piece);
            }
        }
    }
}

/// Shares of all seen positions; where one alone has the whole share of 2^15, which 16 bits do not
/// hold, that position instead.
fn softmax(
    path: Path,
    scores: &[i64],
    query: &Query<'_>,
    (below, e): (&mut Vec<u32>, &mut Vec<u32>),
    p: &mut [i16],
) -> Option<usize> {
    let z = exponentials(path, scores, query, below, e);
    if z == 1 << 15 {
        let max = scores.iter().max();
        return scores.iter().position(|s| Some(s) == max);
    }
    kernels::shares(path, e, reciprocal(z), p);
    None
}

/// Exponentials of all seen positions, and their sum.
fn exponentials(
    path: Path,
    scores: &[i64],
    query: &Query<'_>,
    below: &mut Vec<u32>,
    e: &mut Vec<u32>,
) -> u64 {
    let Query { c, csh, exp, .. } = *query;
    let max = scores.iter().copied().max().unwrap_or(0);
    e.resize(scores.len(), 0);
    // Distances of 33 bits and more may be cut to 32 where those weigh nothing already, as in every real
    // model.
    if (u64::from(u32::MAX) * u64::from(c)) >> csh >= 16 << 8 {
        below.resize(scores.len(), 0);
        path.run(|| {
            for (below, s) in below.iter_mut().zip(scores) {
                *below = (max - s).min(u32::MAX.into()) as u32;
            }
        });
        kernels::exponentials(path, below, (c, csh), exp, e)
    } else {
        for (e, s) in e.iter_mut().zip(scores) {
            *e = exponential(distance(max - s, c, csh), &exp.narrow);
        }
        e.iter().map(|e| u64::from(*e)).sum()
    }
}
