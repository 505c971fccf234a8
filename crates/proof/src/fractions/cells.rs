//! What a level's values are in memory: fractions, or denominators alone where all numerators are one; and how
//! the level's summand is computed from two neighbours of them.

use p3_field::{Field, PrimeCharacteristicRing, PrimeField64};

use crate::fast::{self, Factor, Sum, Words, element, words};
use crate::field::{F, K};

/// A numerator and a denominator.
pub(super) type Node = [Words; 2];
/// Two neighbours as the field has them.
pub(super) type Pair = [(K, K); 2];

/// What a level's lambda makes of its summand.
pub(super) struct Twist {
    pub(super) lambda: K,
    factor: Factor,
    inverse: K,
    shift: Words,
}

impl Twist {
    pub(super) fn new(lambda: K) -> Twist {
        let inverse = lambda
            .try_inverse()
            .expect("a challenge is zero once in 2^128");
        Twist {
            lambda,
            factor: Factor::new(lambda),
            inverse,
            shift: words(inverse),
        }
    }
}

/// One of a body's values. g = p₀q₁ + p₁q₀ + λ·q₀q₁ becomes a short product of two twisted neighbours.
pub(super) trait Cell: Copy + Send + Sync {
    fn minus(self, other: Self) -> Self;
    /// self + r·difference
    fn along(self, difference: Self, r: &Factor) -> Self;
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
    #[inline(always)]
    fn minus(self, other: Node) -> Node {
        [fast::sub(self[0], other[0]), fast::sub(self[1], other[1])]
    }

    #[inline(always)]
    fn along(self, difference: Node, r: &Factor) -> Node {
        let [p, q] = difference;
        [r.times_plus(p, self[0]), r.times_plus(q, self[1])]
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
    #[inline(always)]
    fn minus(self, other: Words) -> Words {
        fast::sub(self, other)
    }

    #[inline(always)]
    fn along(self, difference: Words, r: &Factor) -> Words {
        r.times_plus(difference, self)
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

/// Where cells are read from.
pub(super) trait Source<C>: Copy + Send + Sync {
    fn len(self) -> usize;
    fn cells<const N: usize>(self, from: usize) -> [C; N];
}

impl<C: Copy + Sync> Source<C> for &[C] {
    fn len(self) -> usize {
        <[C]>::len(self)
    }

    #[inline(always)]
    fn cells<const N: usize>(self, from: usize) -> [C; N] {
        *self[from..].first_chunk().expect("inside the level")
    }
}

/// Leaves whose numerators are all one.
#[derive(Clone, Copy)]
pub(super) struct Ones<'a>(pub(super) &'a [K]);

impl Source<Words> for Ones<'_> {
    fn len(self) -> usize {
        self.0.len()
    }

    #[inline(always)]
    fn cells<const N: usize>(self, from: usize) -> [Words; N] {
        self.0.cells::<N>(from).map(words)
    }
}

/// Leaves with their numerators, both of one length.
#[derive(Clone, Copy)]
pub(super) struct Given<'a>(pub(super) &'a [F], pub(super) &'a [K]);

impl Source<Node> for Given<'_> {
    fn len(self) -> usize {
        self.0.len()
    }

    #[inline(always)]
    fn cells<const N: usize>(self, from: usize) -> [Node; N] {
        let (p, q) = (self.0.cells::<N>(from), self.1.cells::<N>(from));
        std::array::from_fn(|i| [[p[i].as_canonical_u64(), 0], words(q[i])])
    }
}
