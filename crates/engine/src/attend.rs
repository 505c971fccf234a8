//! Attention of a few neighbouring tokens and one key head: scores against the cache's pages, softmax, mix.
//! Both products are strips of sixteen rows, positions in the one and elements of the head in the other;
//! equal to `ops::attention` over the positions that the layer's window lets each token see.

use std::cell::RefCell;
use std::ops::Range;

use crate::cache::{Cache, PAGE};
use crate::kernels::{self, ExpTable, Path, Strip};
use crate::layout::PANEL;
use crate::ops::QK_MAX;
use crate::ops::attention::{distance, exponential, reciprocal};

/// Elements of a head whose products with 13-bit partners fit an i32 together: 128·4095² < 2^31.
const PIECE: usize = 128;

/// Neighbouring tokens of a sequence at one key head, and how its layer weighs scores.
#[derive(Clone, Copy)]
pub(crate) struct Queries<'a> {
    pub cache: &'a Cache,
    pub layer: usize,
    pub kv_head: usize,
    /// Query heads of the key head.
    pub heads: usize,
    pub head_dim: usize,
    /// Position of the first token, and how many follow each other.
    pub first: usize,
    pub count: usize,
    /// Positions that a token sees, itself included; 0 is all.
    pub window: usize,
    pub c: u32,
    pub csh: i32,
    pub exp: &'a ExpTable,
}

#[derive(Default)]
struct Scratch {
    /// All queries, head after head, token after token.
    q: Vec<i16>,
    /// Their scores over the tile's positions, where 32 bits hold them.
    scores: Vec<i32>,
    /// Scores of one query where they do not, or where a trace wants them.
    wide: Vec<i64>,
    below: Vec<u32>,
    e: Vec<u32>,
    p: Vec<i16>,
    mixed: Vec<i32>,
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

impl Queries<'_> {
    /// The page that the tile's positions start with, and how many pages there are.
    fn pages(&self) -> (usize, usize) {
        let start = first_seen(self.first, self.window) / PAGE;
        let end = (self.first + self.count).div_ceil(PAGE);
        (start, end - start)
    }

    /// What the query sees, counted from the start of the tile's positions.
    fn seen(&self, query: usize) -> Range<usize> {
        let position = self.first + query / self.heads;
        let start = self.pages().0 * PAGE;
        first_seen(position, self.window) - start..position + 1 - start
    }
}

/// Mixes values for all queries. `q(t)` gives a token's queries, head after head; `put(t, mixed)` takes
/// what comes of them.
pub(crate) fn attend<'q>(
    path: Path,
    queries: Queries<'_>,
    q: impl Fn(usize) -> &'q [i16],
    mut put: impl FnMut(usize, &[i32]),
) {
    let Queries {
        heads, head_dim, ..
    } = queries;
    let count = queries.count * heads;
    let (start, pages) = queries.pages();
    let width = pages * PAGE;
    SCRATCH.with_borrow_mut(|scratch| {
        scratch.take(&queries, q);
        let narrow = scratch.score(path, &queries);
        scratch.p.clear();
        scratch.p.resize(count * width, 0);
        scratch.mixed.resize(count * head_dim, 0);
        let mut alone = Vec::new();
        for query in 0..count {
            let seen = queries.seen(query);
            if !narrow {
                scratch.score_wide(path, &queries, query);
            }
            let z = scratch.weigh(path, &queries, query, narrow);
            if z == 1 << 15 {
                // Only the maximum has an exponential of 2^15: its share does not fit 16 bits.
                let at = scratch.e.iter().position(|e| *e == 1 << 15);
                alone.push((query, start * PAGE + seen.start + at.unwrap_or(0)));
                continue;
            }
            let p = &mut scratch.p[query * width..][seen];
            kernels::shares(path, &scratch.e, reciprocal(z), p);
        }
        let Scratch { p, mixed, .. } = scratch;
        let task = Mix {
            start,
            positions: queries.first + queries.count - start * PAGE,
            p,
            width,
        };
        mix(path, &queries, task, mixed);
        for (query, position) in alone {
            let to = &mut mixed[query * head_dim..][..head_dim];
            for (element, to) in to.iter_mut().enumerate() {
                let v = queries
                    .cache
                    .value(queries.layer, queries.kv_head, position, element);
                *to = i32::from(v) << 15;
            }
        }
        for (t, mixed) in mixed.chunks_exact(heads * head_dim).enumerate() {
            put(t, mixed);
        }
    });
}

/// Gives `each` what every head of the tile's only token sees: the head's number, the scores and
/// exponentials of the seen positions, and the latter's sum.
pub(crate) fn weigh(
    path: Path,
    queries: Queries<'_>,
    q: &[i16],
    mut each: impl FnMut(usize, &[i64], &[u32], u64),
) {
    assert!(queries.count == 1);
    SCRATCH.with_borrow_mut(|scratch| {
        scratch.take(&queries, |_| q);
        for head in 0..queries.heads {
            scratch.score_wide(path, &queries, head);
            let z = scratch.weigh(path, &queries, head, false);
            each(head, &scratch.wide, &scratch.e, z);
        }
    });
}

/// Shares of queries, `width` apart, over the positions from a page on.
pub(crate) struct Mix<'a> {
    pub start: usize,
    pub positions: usize,
    pub p: &'a [i16],
    pub width: usize,
}

/// `Σ_j p[j]·v[j]` of every query.
pub(crate) fn mix(path: Path, queries: &Queries<'_>, task: Mix<'_>, out: &mut [i32]) {
    let dim = queries.head_dim;
    for page in 0..task.positions.div_ceil(PAGE) {
        let values = queries
            .cache
            .values(queries.layer, queries.kv_head, task.start + page);
        let positions = (task.positions - page * PAGE).min(PAGE);
        for from in (0..dim).step_by(PANEL) {
            let strip = Strip {
                w: &values[2 * from..],
                step: 2 * dim,
                pairs: positions.div_ceil(2),
                x: &task.p[page * PAGE..],
                x_stride: task.width,
                count: out.len() / dim,
            };
            kernels::strip(path, strip, &mut out[from..], dim, page > 0);
        }
    }
}

impl Scratch {
    fn take<'q>(&mut self, queries: &Queries<'_>, q: impl Fn(usize) -> &'q [i16]) {
        self.q.clear();
        for t in 0..queries.count {
            self.q.extend_from_slice(q(t));
        }
    }

    /// Scores of all queries, if no sum of theirs can leave 32 bits.
    fn score(&mut self, path: Path, queries: &Queries<'_>) -> bool {
        let dim = queries.head_dim;
        let Scratch { q, scores, .. } = self;
        let fits = |q: &[i16]| {
            let sum: u32 = q.iter().map(|q| u32::from(q.unsigned_abs())).sum();
            i64::from(sum) * i64::from(QK_MAX) <= i64::from(i32::MAX)
        };
        if dim > PIECE && !q.chunks_exact(dim).all(fits) {
            return false;
        }
        let width = queries.pages().1 * PAGE;
        scores.resize(queries.count * queries.heads * width, 0);
        score(path, queries, q, 0..dim, scores, width);
        true
    }

    /// Scores of one query over what it sees, summed piece by piece.
    fn score_wide(&mut self, path: Path, queries: &Queries<'_>, query: usize) {
        let dim = queries.head_dim;
        let seen = queries.seen(query);
        let Scratch {
            q, scores, wide, ..
        } = self;
        let width = queries.pages().1 * PAGE;
        scores.resize(width, 0);
        wide.clear();
        wide.resize(seen.len(), 0);
        let q = &q[query * dim..][..dim];
        for from in (0..dim).step_by(PIECE) {
            let piece = from..dim.min(from + PIECE);
            score(path, queries, q, piece, scores, width);
            for (wide, piece) in wide.iter_mut().zip(&scores[seen.clone()]) {
                *wide += i64::from(*piece);
            }
        }
    }

    /// Exponentials of what a query sees, and their sum.
    fn weigh(&mut self, path: Path, queries: &Queries<'_>, query: usize, narrow: bool) -> u64 {
        let seen = queries.seen(query);
        let width = queries.pages().1 * PAGE;
        let Scratch {
            scores,
            wide,
            below,
            e,
            ..
        } = self;
        let (c, csh) = (queries.c, queries.csh);
        e.resize(seen.len(), 0);
        below.resize(seen.len(), 0);
        if narrow {
            let scores = &scores[query * width..][seen];
            path.run(|| {
                let max = scores.iter().copied().max().unwrap_or(0);
                for (below, s) in below.iter_mut().zip(scores) {
                    *below = max.wrapping_sub(*s) as u32;
                }
            });
            return kernels::exponentials(path, below, (c, csh), queries.exp, e);
        }
        let max = wide.iter().copied().max().unwrap_or(0);
        // Distances of 33 bits and more may be cut to 32 where those weigh nothing already, as in every
        // real model.
        if (u64::from(u32::MAX) * u64::from(c)) >> csh >= 16 << 8 {
            for (below, s) in below.iter_mut().zip(&*wide) {
                *below = (max - s).min(u32::MAX.into()) as u32;
            }
            kernels::exponentials(path, below, (c, csh), queries.exp, e)
        } else {
            for (e, s) in e.iter_mut().zip(&*wide) {
                *e = exponential(distance(max - s, c, csh), &queries.exp.narrow);
            }
            e.iter().map(|e| u64::from(*e)).sum()
        }
    }
}

/// Products of queries with the keys of the tile's pages, over some elements of the head.
fn score(
    path: Path,
    queries: &Queries<'_>,
    q: &[i16],
    elements: Range<usize>,
    scores: &mut [i32],
    width: usize,
) {
    let dim = queries.head_dim;
    let (start, pages) = queries.pages();
    let end = queries.first + queries.count - start * PAGE;
    for page in 0..pages {
        let keys = queries
            .cache
            .keys(queries.layer, queries.kv_head, start + page);
        for from in (0..PAGE).step_by(PANEL) {
            if page * PAGE + from >= end {
                break;
            }
            let strip = Strip {
                w: &keys[from * dim + elements.start * PANEL..],
                step: 2 * PANEL,
                pairs: elements.len() / 2,
                x: &q[elements.start..],
                x_stride: dim,
                count: q.len() / dim,
            };
            kernels::strip(path, strip, &mut scores[page * PAGE + from..], width, false);
        }
    }
}
