//! The prover's side: builds the tree of sums, then runs a sumcheck a level from the root to the leaves.

use p3_field::PrimeCharacteristicRing;

use super::sumcheck::{Node, Sumcheck};
use super::{FractionClaim, FractionError, FractionProof, Halves, Leaves, Side, schedule};
use crate::fast::{self, Sum, Words, element, words};
use crate::field::{F, K};
use crate::transcript::Transcript;

/// Below this many sums a second thread costs more than it saves.
const SUMS_A_THREAD_MIN: usize = 1 << 12;

/// Proves the sum. A leaf whose denominator is zero is an error.
pub fn prove(
    leaves: Leaves,
    threads: usize,
    transcript: &mut Transcript,
) -> Result<(FractionProof, FractionClaim), FractionError> {
    let count = leaves.denominators.len();
    schedule(count, &mut Prover::new(leaves, threads), transcript)
}

/// The level that a sumcheck runs over.
enum Level {
    /// The leaves, where all numerators are one.
    Ones(Sumcheck<Words>),
    Nodes(Sumcheck<Node>),
}

struct Prover {
    threads: usize,
    /// Taken when their level comes, if all numerators are one.
    ones: Option<Vec<K>>,
    /// The levels not yet come to, the root last.
    levels: Vec<Vec<Node>>,
    level: Option<Level>,
}

impl Prover {
    fn new(leaves: Leaves, threads: usize) -> Self {
        let Leaves {
            numerators,
            denominators,
        } = leaves;
        let mut levels = Vec::new();
        let mut ones = None;
        match numerators {
            None => {
                if denominators.len() > 1 {
                    levels.push(sums(&denominators, threads, sum_of_ones, one_over));
                }
                ones = Some(denominators);
            }
            Some(numerators) => {
                assert_eq!(numerators.len(), denominators.len());
                let node = |(p, q): (F, K)| [words(K::from(p)), words(q)];
                levels.push(numerators.into_iter().zip(denominators).map(node).collect());
            }
        }
        while let Some(level) = levels.last().filter(|level| level.len() > 1) {
            levels.push(sums(level, threads, sum, |node| node));
        }
        Prover {
            threads,
            ones,
            levels,
            level: None,
        }
    }

    fn open(&mut self, lambda: K, point: &[K]) {
        // The last level's memory serves the next, which is about twice its size.
        let spare = match self.level.take() {
            Some(Level::Nodes(level)) => level.memory(),
            _ => [Vec::new(), Vec::new()],
        };
        let point = point.to_vec();
        self.level = match (self.levels.pop(), self.ones.take()) {
            (Some(nodes), ones) => {
                self.ones = ones;
                let level = Sumcheck::new(nodes, spare, lambda, point, self.threads);
                Some(Level::Nodes(level))
            }
            (None, Some(ones)) => {
                let spare = spare.map(Vec::into_flattened);
                let level = Sumcheck::new(ones, spare, lambda, point, self.threads);
                Some(Level::Ones(level))
            }
            (None, None) => None,
        };
    }
}

impl Side for Prover {
    fn root(&mut self) -> (K, K) {
        let single = self.ones.as_ref().and_then(|ones| ones.first());
        match (self.levels.pop().as_deref(), single) {
            (Some([[p, q]]), _) => (element(*p), element(*q)),
            (None, Some(q)) => (K::ONE, *q),
            // No leaves: the tail alone.
            _ => (K::ZERO, K::ONE),
        }
    }

    fn enter(&mut self, lambda: K, point: &[K]) {
        self.open(lambda, point);
    }

    fn square(&mut self) -> K {
        match self.level.as_mut().expect("a level was entered") {
            Level::Ones(level) => level.square(),
            Level::Nodes(level) => level.square(),
        }
    }

    fn round(&mut self, claim: K, z: K) -> [K; 2] {
        match self.level.as_mut().expect("a level was entered") {
            Level::Ones(level) => level.round(claim, z),
            Level::Nodes(level) => level.round(claim, z),
        }
    }

    fn bind(&mut self, r: K) {
        match self.level.as_mut().expect("a level was entered") {
            Level::Ones(level) => level.bind(r),
            Level::Nodes(level) => level.bind(r),
        }
    }

    fn halves(&mut self) -> Halves {
        if self.level.is_none() {
            // The root's two halves need no sumcheck, and so no lambda.
            self.open(K::ONE, &[]);
        }
        let pair = match self.level.as_mut().expect("a level was entered") {
            Level::Ones(level) => level.halves(),
            Level::Nodes(level) => level.halves(),
        };
        Halves {
            numerators: pair.map(|fraction| fraction.0),
            denominators: pair.map(|fraction| fraction.1),
        }
    }
}

fn sum(&[[p0, q0], [p1, q1]]: &[Node; 2]) -> Node {
    [
        Sum::product(p0, q1).plus(p1, q0).reduce(),
        Sum::product(q0, q1).reduce(),
    ]
}

fn sum_of_ones(pair: &[K; 2]) -> Node {
    let [q0, q1] = pair.map(words);
    [fast::add(q0, q1), Sum::product(q0, q1).reduce()]
}

fn one_over(denominator: K) -> Node {
    [words(K::ONE), words(denominator)]
}

/// A level's sums of neighbours. The last of an odd number has the tail beside it, which adds nothing.
fn sums<R: Copy + Sync>(
    level: &[R],
    threads: usize,
    sum: impl Fn(&[R; 2]) -> Node + Sync,
    alone: impl Fn(R) -> Node,
) -> Vec<Node> {
    let (pairs, rest) = level.as_chunks::<2>();
    let mut out = vec![Node::default(); level.len().div_ceil(2)];
    let add = |pairs: &[[R; 2]], out: &mut [Node]| {
        for (pair, out) in pairs.iter().zip(out) {
            *out = sum(pair);
        }
    };
    let each = pairs.len().div_ceil(threads.max(1)).max(SUMS_A_THREAD_MIN);
    std::thread::scope(|scope| {
        let mut parts = pairs.chunks(each).zip(out.chunks_mut(each));
        let first = parts.next();
        for (pairs, out) in parts {
            scope.spawn(move || add(pairs, out));
        }
        if let Some((pairs, out)) = first {
            add(pairs, out);
        }
    });
    if let [last] = rest {
        out[pairs.len()] = alone(*last);
    }
    out
}
