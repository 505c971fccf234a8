//! The prover's sumcheck over one level.
//!
//! A level is a sequence of pairs, a pair being two neighbours (lowest bit 0 and 1). Its variables beyond the
//! lowest bit are bound one a round from the lowest: two pairs become one. All pairs but the last lie in
//! memory, the body; the last, which may reach into the tail, is the edge; after it comes the tail, whose
//! pairs are always 0/1, 0/1. So the hot loops know neither edge nor tail.

use p3_field::{Field, PrimeCharacteristicRing};

use crate::fast::{self, Factor, Sum, Words, element, words};
use crate::field::{K, eq_table};

use super::eq_below;

/// A numerator and a denominator.
pub(super) type Node = [Words; 2];
/// Two neighbours as the field has them.
pub(super) type Pair = [(K, K); 2];

const TAIL: Pair = [(K::ZERO, K::ONE); 2];

/// Variables of the lower of the two factors that a table of eq is split into: it stays in the first cache.
const LOW_VARIABLES_MAX: usize = 10;
/// Below this many groups a second thread costs more than it saves.
const GROUPS_A_THREAD_MIN: usize = 1 << 10;

/// What the level's lambda makes of its summand.
pub(super) struct Twist {
    lambda: K,
    factor: Factor,
    inverse: K,
    shift: Words,
}

/// One of a body's values. g = p₀q₁ + p₁q₀ + λ·q₀q₁ becomes a short product of two twisted neighbours.
pub(super) trait Cell: Copy + Send + Sync {
    /// As it lies in memory before the first variable is bound.
    type Raw: Copy + Sync;
    fn load(raw: Self::Raw) -> Self;
    fn minus(self, other: Self) -> Self;
    /// self + r·(one − self)
    fn blend(self, one: Self, r: &Factor) -> Self;
    fn product(pair: [Self; 2]) -> Words;
    fn twist(pair: [Self; 2], twist: &Twist) -> [Self; 2];
    /// The twist of a difference of pairs.
    fn twist_difference(pair: [Self; 2], twist: &Twist) -> [Self; 2];
    fn untwist(pair: [Self; 2], twist: &Twist) -> Pair;
    /// From sums of products (h(0) and the square's coefficient), whose eq add up to `weight`, to sums of g.
    fn sums_of_g(sums: [K; 2], weight: K, twist: &Twist) -> [K; 2];
}

/// p₁ becomes p₁ + λ·q₁: g = p₀q₁ + p₁q₀.
impl Cell for Node {
    type Raw = Node;

    #[inline(always)]
    fn load(raw: Node) -> Node {
        raw
    }

    #[inline(always)]
    fn minus(self, other: Node) -> Node {
        [fast::sub(self[0], other[0]), fast::sub(self[1], other[1])]
    }

    #[inline(always)]
    fn blend(self, one: Node, r: &Factor) -> Node {
        [self[0].blend(one[0], r), self[1].blend(one[1], r)]
    }

    #[inline(always)]
    fn product([[p0, q0], [p1, q1]]: [Node; 2]) -> Words {
        Sum::product(p0, q1).plus(p1, q0).reduce()
    }

    #[inline(always)]
    fn twist([zero, [p1, q1]]: [Node; 2], twist: &Twist) -> [Node; 2] {
        [zero, [twist.factor.times_plus(q1, p1), q1]]
    }

    #[inline(always)]
    fn twist_difference(pair: [Node; 2], twist: &Twist) -> [Node; 2] {
        Node::twist(pair, twist)
    }

    fn untwist(pair: [Node; 2], twist: &Twist) -> Pair {
        let [zero, one] = pair.map(|[p, q]| (element(p), element(q)));
        [zero, (one.0 - twist.lambda * one.1, one.1)]
    }

    fn sums_of_g(sums: [K; 2], _: K, _: &Twist) -> [K; 2] {
        sums
    }
}

/// A body whose numerators are all one, and stay so: q becomes q + 1/λ, and g = λ·q₀q₁ − 1/λ.
impl Cell for Words {
    type Raw = K;

    #[inline(always)]
    fn load(raw: K) -> Words {
        words(raw)
    }

    #[inline(always)]
    fn minus(self, other: Words) -> Words {
        fast::sub(self, other)
    }

    #[inline(always)]
    fn blend(self, one: Words, r: &Factor) -> Words {
        r.times_plus(fast::sub(one, self), self)
    }

    #[inline(always)]
    fn product([q0, q1]: [Words; 2]) -> Words {
        Sum::product(q0, q1).reduce()
    }

    #[inline(always)]
    fn twist(pair: [Words; 2], twist: &Twist) -> [Words; 2] {
        pair.map(|q| fast::add(q, twist.shift))
    }

    #[inline(always)]
    fn twist_difference(pair: [Words; 2], _: &Twist) -> [Words; 2] {
        pair
    }

    fn untwist(pair: [Words; 2], twist: &Twist) -> Pair {
        pair.map(|q| (K::ONE, element(q) - twist.inverse))
    }

    fn sums_of_g([zero, square]: [K; 2], weight: K, twist: &Twist) -> [K; 2] {
        [
            twist.lambda * zero - twist.inverse * weight,
            twist.lambda * square,
        ]
    }
}

pub(super) struct Sumcheck<C: Cell> {
    raw: Vec<C::Raw>,
    /// The body lies in `raw`, then in these by turns.
    buffers: [Vec<C>; 2],
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

impl<C: Cell> Sumcheck<C> {
    /// `spare` must hold a half and a quarter of the level.
    pub(super) fn new(
        raw: Vec<C::Raw>,
        spare: [Vec<C>; 2],
        lambda: K,
        point: Vec<K>,
        threads: usize,
    ) -> Self {
        let inverse = lambda
            .try_inverse()
            .expect("a challenge is zero once in 2^128");
        let twist = Twist {
            lambda,
            factor: Factor::new(lambda),
            inverse,
            shift: words(inverse),
        };
        let pairs = raw.len().div_ceil(2) - 1;
        let one = |raw: C::Raw| C::untwist(C::twist([C::load(raw); 2], &twist), &twist)[0];
        let second = raw.get(2 * pairs + 1).map_or(TAIL[1], |raw| one(*raw));
        let edge = [one(raw[2 * pairs]), second];
        Sumcheck {
            raw,
            buffers: spare,
            folds: 0,
            pairs,
            edge,
            twist,
            point,
            pending: None,
            threads,
        }
    }

    /// The first message: the coefficient of X² of Σ_y eq(point, y)·g(X, y).
    pub(super) fn square(&mut self) -> K {
        let raw = &self.raw[..self.pairs / 2 * 4];
        // Nothing is written: the output has no size.
        let none = &mut vec![(); self.pairs / 2];
        let sums = walk(
            raw,
            none,
            &self.point,
            self.threads,
            |raw: &[_; 4], _: &mut [(); 1]| {
                let [a, b, c, d] = raw.map(C::load);
                let difference = C::twist_difference([c.minus(a), d.minus(b)], &self.twist);
                [Words::default(), C::product(difference)]
            },
        );
        self.with_edge(sums, 0)[1]
    }

    /// The next message: the coefficients of X and X² of h = Σ_y eq(rest, y)·g(X, y).
    pub(super) fn round(&mut self, claim: K, z: K) -> [K; 2] {
        let sums = self.fold();
        let [constant, square] = self.with_edge(sums, self.folds);
        // (1 − z)·h(0) + z·h(1) = h(0) + z·(linear + square) is the claim.
        let inverse = z.try_inverse().expect("a challenge is zero once in 2^128");
        [(claim - constant) * inverse - square, square]
    }

    pub(super) fn bind(&mut self, r: K) {
        self.pending = Some(r);
    }

    /// What is left when all variables are bound.
    pub(super) fn halves(&mut self) -> Pair {
        let _ = self.fold();
        assert_eq!(self.pairs, 0, "one pair is left");
        self.edge
    }

    /// Hands memory of one level and of half a level on.
    pub(super) fn memory(self) -> [Vec<C>; 2]
    where
        C: Cell<Raw = C>,
    {
        let [half, _] = self.buffers;
        [self.raw, half]
    }

    /// The body's pair `i` before the tail's or the edge's fold.
    fn pair(&self, i: usize) -> Pair {
        let cells = match self.folds {
            0 => C::twist([0, 1].map(|b| C::load(self.raw[2 * i + b])), &self.twist),
            folds => [0, 1].map(|b| self.buffers[(folds - 1) % 2][2 * i + b]),
        };
        C::untwist(cells, &self.twist)
    }

    /// The two pairs that the edge is folded from next.
    fn last_group(&self) -> [Pair; 2] {
        match self.pairs % 2 {
            0 => [self.edge, TAIL],
            _ => [self.pair(self.pairs - 1), self.edge],
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
        let pairs = self.pairs / 2;
        let rest = self.point.get(self.folds + 1..).unwrap_or_default();
        let (twist, threads) = (&self.twist, self.threads);
        let [first, second] = &mut self.buffers;
        let sums = match self.folds {
            0 => {
                let (raw, out) = (&self.raw[..4 * pairs], &mut first[..2 * pairs]);
                fold(raw, out, rest, threads, &r, C::load, |pair| {
                    C::twist(pair, twist)
                })
            }
            folds => {
                let (from, to) = match folds % 2 {
                    0 => (second, first),
                    _ => (first, second),
                };
                let (from, to) = (&from[..4 * pairs], &mut to[..2 * pairs]);
                fold(from, to, rest, threads, &r, |cell| cell, |pair| pair)
            }
        };
        self.pairs = pairs;
        self.folds += 1;
        sums
    }

    /// Adds the edge's group and the tail to the body's sums.
    fn with_edge(&self, sums: [K; 2], bound: usize) -> [K; 2] {
        let rest = &self.point[bound..];
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

/// Folds four cells a new pair into `out`; the last of an odd number of pairs has no group to be summed in.
fn fold<R: Copy + Sync, C: Cell>(
    from: &[R],
    out: &mut [C],
    rest: &[K],
    threads: usize,
    r: &Factor,
    load: impl Fn(R) -> C + Sync,
    finish: impl Fn([C; 2]) -> [C; 2] + Sync,
) -> [K; 2] {
    let pair = |from: [R; 4]| {
        let [a, b, c, d] = from.map(&load);
        finish([a.blend(c, r), b.blend(d, r)])
    };
    let groups = out.len() / 4;
    let (from, last_from) = from.split_at(8 * groups);
    let (out, last_out) = out.split_at_mut(4 * groups);
    if let ([from], [out]) = (last_from.as_chunks().0, last_out.as_chunks_mut().0) {
        *out = pair(*from);
    }
    walk(
        from,
        out,
        rest,
        threads,
        |from: &[R; 8], out: &mut [C; 4]| {
            let [a, b, c, d, e, f, g, h] = *from;
            let (zero, one) = (pair([a, b, c, d]), pair([e, f, g, h]));
            *out = [zero[0], zero[1], one[0], one[1]];
            let difference = [one[0].minus(zero[0]), one[1].minus(zero[1])];
            [C::product(zero), C::product(difference)]
        },
    )
}

/// Walks groups of N inputs and M outputs: Σ_y eq(rest, y)·visit(y), for the two values that a visit returns.
fn walk<R: Sync, C: Send, const N: usize, const M: usize>(
    from: &[R],
    out: &mut [C],
    rest: &[K],
    threads: usize,
    visit: impl Fn(&[R; N], &mut [C; M]) -> [Words; 2] + Sync,
) -> [K; 2] {
    let (from, out) = (from.as_chunks::<N>().0, out.as_chunks_mut::<M>().0);
    if from.is_empty() {
        return [K::ZERO; 2];
    }
    let low = LOW_VARIABLES_MAX.min(rest.len());
    let block = 1 << low;
    let high = eq_table(&rest[low..], from.len().div_ceil(block));
    let low: Vec<Words> = eq_table(&rest[..low], block)
        .into_iter()
        .map(words)
        .collect();

    let visit = &visit;
    let low = &low;
    let part = move |from: &[[R; N]], out: &mut [[C; M]], high: &[K]| {
        let blocks = from.chunks(block).zip(out.chunks_mut(block)).zip(high);
        let mut total = [K::ZERO; 2];
        for ((from, out), high) in blocks {
            let mut sums = [Sum::default(); 2];
            for ((from, out), low) in from.iter().zip(out).zip(low) {
                let [zero, square] = visit(from, out);
                sums[0] = sums[0].plus(*low, zero);
                sums[1] = sums[1].plus(*low, square);
            }
            for (total, sum) in total.iter_mut().zip(sums) {
                *total += *high * element(sum.reduce());
            }
        }
        total
    };

    let blocks = high
        .len()
        .div_ceil(threads.max(1))
        .max(GROUPS_A_THREAD_MIN.div_ceil(block));
    let parts = from.chunks(blocks * block);
    let mut parts = parts
        .zip(out.chunks_mut(blocks * block))
        .zip(high.chunks(blocks));
    std::thread::scope(|scope| {
        let first = parts.next();
        let others: Vec<_> = parts
            .map(|((from, out), high)| scope.spawn(move || part(from, out, high)))
            .collect();
        let mut total = first.map_or([K::ZERO; 2], |((from, out), high)| part(from, out, high));
        for other in others {
            let sums = other.join().expect("a part does not panic");
            total = [0, 1].map(|i| total[i] + sums[i]);
        }
        total
    })
}
