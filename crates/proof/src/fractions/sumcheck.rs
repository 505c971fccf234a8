//! The prover's sumcheck over one level; what a level's values are is in `cells.rs`.
//!
//! A level is a sequence of pairs, a pair being two neighbours (lowest bit 0 and 1). Its variables beyond the
//! lowest bit are bound one a round from the lowest: two pairs become one. All pairs but the last lie in
//! memory, the body; the last, which may reach into the tail, is the edge; after it comes the tail, whose
//! pairs are always 0/1, 0/1. So the hot loops know neither edge nor tail.

use p3_field::{Field, PrimeCharacteristicRing};

use super::cells::{Cell, Pair, Source, Twist};
use super::{Halves, Level, eq_below};
use crate::fast::{Factor, Sum, Words, element, words};
use crate::field::{K, eq_table};

const TAIL: Pair = [(K::ZERO, K::ONE); 2];

/// Variables of the lower of the two factors that a table of eq is split into: it stays in the first cache.
const LOW_VARIABLES_MAX: usize = 10;
/// Below this many groups a second thread costs more than it saves.
const GROUPS_A_THREAD_MIN: usize = 1 << 10;

pub(super) struct Sumcheck<'a, C, S> {
    raw: S,
    /// The body lies in `raw`, then in these by turns.
    buffers: [&'a mut [C]; 2],
    folds: usize,
    /// Pairs of the body.
    pairs: usize,
    edge: Pair,
    twist: Twist,
    /// What eq's variables are joined with, beyond the first variable, which has no eq.
    point: Vec<K>,
    /// A challenge whose folding waits for the next message, so that both take one pass.
    pending: Option<K>,
    threads: usize,
}

impl<'a, C: Cell, S: Source<C>> Sumcheck<'a, C, S> {
    /// Works in `memory`, which must hold three quarters of the level.
    pub(super) fn new(raw: S, memory: &'a mut [C], lambda: K, point: &[K], threads: usize) -> Self {
        let twist = Twist::new(lambda);
        let pairs = raw.len().div_ceil(2) - 1;
        let one = |i| {
            let [cell] = raw.cells(i);
            C::untwist(C::twist([cell; 2], &twist), &twist)[0]
        };
        let edge = match raw.len() % 2 {
            0 => [one(2 * pairs), one(2 * pairs + 1)],
            _ => [one(2 * pairs), TAIL[1]],
        };
        let (half, quarter) = memory.split_at_mut(pairs / 2 * 2);
        Sumcheck {
            raw,
            buffers: [half, quarter],
            folds: 0,
            pairs,
            edge,
            twist,
            point: point.to_vec(),
            pending: None,
            threads,
        }
    }

    /// The last pair of a body of an odd number, which no difference was made of.
    fn last_pair(&self) -> Pair {
        let i = self.pairs - 1;
        let cells = match self.folds {
            0 => C::twist(self.raw.cells(2 * i), &self.twist),
            folds => (&*self.buffers[(folds - 1) % 2]).cells(2 * i),
        };
        C::untwist(cells, &self.twist)
    }

    /// The two pairs that the edge is folded from next.
    fn last_group(&self) -> [Pair; 2] {
        match self.pairs % 2 {
            0 => [self.edge, TAIL],
            _ => [self.last_pair(), self.edge],
        }
    }

    /// Binds the pending challenge and, in the same pass, sums what the next message is made of: for each
    /// group of two new pairs the product at X = 0 and the product's coefficient of X².
    fn fold(&mut self) -> [K; 2] {
        let Some(r) = self.pending.take() else {
            return [K::ZERO; 2];
        };
        let [zero, one] = self.last_group();
        self.edge = [0, 1].map(|b| {
            let blend = |zero: K, one: K| zero + r * (one - zero);
            (blend(zero[b].0, one[b].0), blend(zero[b].1, one[b].1))
        });
        let r = Factor::new(r);
        self.pairs /= 2;
        let rest = self.point.get(self.folds + 1..).unwrap_or_default();
        let (twist, threads) = (&self.twist, self.threads);
        let [first, second] = &mut self.buffers;
        let sums = match self.folds {
            0 => {
                let out = &mut first[..2 * self.pairs];
                fold(self.raw, out, rest, threads, |[a, b, c, d]| {
                    let pair = [a.along(c.minus(a), &r), b.along(d.minus(b), &r)];
                    C::twist(pair, twist)
                })
            }
            folds => {
                let (from, to) = match folds % 2 {
                    0 => (second, first),
                    _ => (first, second),
                };
                let out = &mut to[..2 * self.pairs];
                // Two pairs lie there as the first and the difference of both.
                fold(&**from, out, rest, threads, |[a, b, c, d]| {
                    [a.along(c, &r), b.along(d, &r)]
                })
            }
        };
        self.folds += 1;
        sums
    }

    /// Adds the edge's group and the tail to the body's sums.
    fn with_edge(&self, sums: [K; 2]) -> [K; 2] {
        let rest = &self.point[self.folds..];
        let groups = self.pairs / 2;
        let (before, after) = (eq_below(rest, groups), eq_below(rest, groups + 1));
        let weight = after - before;
        let lambda = self.twist.lambda;
        let g = |[(p0, q0), (p1, q1)]: Pair| p0 * q1 + p1 * q0 + lambda * q0 * q1;
        let [zero, one] = self.last_group();
        let difference = [0, 1].map(|b| (one[b].0 - zero[b].0, one[b].1 - zero[b].1));
        let [constant, square] = C::sums_of_g(sums, before, &self.twist);
        [
            // In the tail g is λ, whatever X is.
            constant + weight * g(zero) + lambda * (K::ONE - after),
            square + weight * g(difference),
        ]
    }
}

impl<C: Cell, S: Source<C>> Level for Sumcheck<'_, C, S> {
    fn square(&mut self) -> K {
        // Nothing is written: the output has no size.
        let none = &mut vec![(); self.pairs / 2];
        let (raw, twist) = (self.raw, &self.twist);
        let sums = walk(none, &self.point, self.threads, |y, _: &mut [(); 1]| {
            let [a, b, c, d] = raw.cells(4 * y);
            let difference = C::twist_difference([c.minus(a), d.minus(b)], twist);
            [Words::default(), C::product(difference)]
        });
        self.with_edge(sums)[1]
    }

    fn round(&mut self, claim: K, z: K) -> [K; 2] {
        let sums = self.fold();
        let [constant, square] = self.with_edge(sums);
        // (1 − z)·h(0) + z·h(1) = h(0) + z·(linear + square) is the claim.
        let inverse = z.try_inverse().expect("a challenge is zero once in 2^128");
        [(claim - constant) * inverse - square, square]
    }

    fn bind(&mut self, r: K) {
        self.pending = Some(r);
    }

    fn halves(&mut self) -> Halves {
        let _ = self.fold();
        assert_eq!(self.pairs, 0, "one pair is left");
        Halves {
            numerators: self.edge.map(|fraction| fraction.0),
            denominators: self.edge.map(|fraction| fraction.1),
        }
    }
}

/// Makes one pair of two. Of two new pairs `out` gets the first and the difference of both, which the next
/// fold wants too.
fn fold<C: Cell>(
    from: impl Source<C>,
    out: &mut [C],
    rest: &[K],
    threads: usize,
    pair: impl Fn([C; 4]) -> [C; 2] + Sync,
) -> [K; 2] {
    let groups = out.len() / 4;
    let (out, last) = out.split_at_mut(4 * groups);
    // The last of an odd number of pairs has no group to be summed in, and lies there as it is.
    if let [last] = last.as_chunks_mut().0 {
        *last = pair(from.cells(8 * groups));
    }
    walk(out, rest, threads, |y, out: &mut [C; 4]| {
        let zero = pair(from.cells(8 * y));
        let one = pair(from.cells(8 * y + 4));
        let difference = [one[0].minus(zero[0]), one[1].minus(zero[1])];
        *out = [zero[0], zero[1], difference[0], difference[1]];
        [C::product(zero), C::product(difference)]
    })
}

/// Σ_y eq(rest, y)·visit(y), for the two values that a visit returns; it writes its N outputs.
fn walk<C: Send, const N: usize>(
    out: &mut [C],
    rest: &[K],
    threads: usize,
    visit: impl Fn(usize, &mut [C; N]) -> [Words; 2] + Sync,
) -> [K; 2] {
    let out = out.as_chunks_mut::<N>().0;
    if out.is_empty() {
        return [K::ZERO; 2];
    }
    let low = LOW_VARIABLES_MAX.min(rest.len());
    let block = 1 << low;
    let high = eq_table(&rest[low..], out.len().div_ceil(block));
    let low = eq_table(&rest[..low], block);
    let low: &Vec<Words> = &low.into_iter().map(words).collect();

    let visit = &visit;
    let part = move |first: usize, out: &mut [[C; N]], high: &[K]| {
        let mut total = [K::ZERO; 2];
        for (i, (out, high)) in out.chunks_mut(block).zip(high).enumerate() {
            let first = first + i * block;
            let mut sums = [Sum::default(); 2];
            for (j, (out, low)) in out.iter_mut().zip(low).enumerate() {
                let [zero, square] = visit(first + j, out);
                sums[0] = sums[0].plus(*low, zero);
                sums[1] = sums[1].plus(*low, square);
            }
            for (total, sum) in total.iter_mut().zip(sums) {
                *total += *high * element(sum.reduce());
            }
        }
        total
    };

    let least = GROUPS_A_THREAD_MIN.div_ceil(block);
    let blocks = high.len().div_ceil(threads.max(1)).max(least);
    let mut parts = out
        .chunks_mut(blocks * block)
        .zip(high.chunks(blocks))
        .enumerate()
        .map(|(i, (out, high))| (i * blocks * block, out, high));
    std::thread::scope(|scope| {
        let own = parts.next();
        let others: Vec<_> = parts
            .map(|(first, out, high)| scope.spawn(move || part(first, out, high)))
            .collect();
        let mut total = own.map_or([K::ZERO; 2], |(first, out, high)| part(first, out, high));
        for other in others {
            let sums = other.join().expect("a part does not panic");
            total = [0, 1].map(|i| total[i] + sums[i]);
        }
        total
    })
}
