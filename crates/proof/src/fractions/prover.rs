//! The prover's side: builds the tree of sums, then runs a sumcheck a level from the root to the leaves.

use p3_field::PrimeCharacteristicRing;

use super::cells::{Given, Node, Ones, Source};
use super::sumcheck::Sumcheck;
use super::{FractionClaim, FractionError, FractionProof, Leaves, Level, Side, schedule};
use crate::fast::{self, Sum, Words, element};
use crate::field::K;
use crate::transcript::Transcript;

/// Below this many sums a second thread costs more than it saves.
const SUMS_A_THREAD_MIN: usize = 1 << 12;

/// What a prover works in, 32 bytes a leaf; kept from proof to proof, it is fetched from the system once.
#[derive(Default)]
pub struct Memory(Vec<Node>);

/// Proves a single sum. A leaf whose denominator is zero is an error.
pub fn prove(
    leaves: Leaves,
    threads: usize,
    transcript: &mut Transcript,
) -> Result<(FractionProof, FractionClaim), FractionError> {
    prove_in(&mut Memory::default(), &leaves, threads, transcript)
}

/// Proves one of several sums, in the memory that they share.
pub fn prove_in(
    memory: &mut Memory,
    leaves: &Leaves,
    threads: usize,
    transcript: &mut Transcript,
) -> Result<(FractionProof, FractionClaim), FractionError> {
    let count = leaves.denominators.len();
    if let Some(numerators) = &leaves.numerators {
        assert_eq!(numerators.len(), count);
    }
    schedule(count, &mut Prover::new(leaves, memory, threads), transcript)
}

struct Prover<'a> {
    leaves: &'a Leaves,
    threads: usize,
    /// All levels but the leaves, the root first. What lies before the level entered is free to work in.
    nodes: &'a mut [Node],
    /// Where the levels not yet entered begin in `nodes`, the next one last.
    levels: Vec<usize>,
}

impl<'a> Prover<'a> {
    fn new(leaves: &'a Leaves, memory: &'a mut Memory, threads: usize) -> Self {
        let halve = |len: &usize| (*len > 1).then(|| len.div_ceil(2));
        let sizes = std::iter::successors(halve(&leaves.denominators.len()), halve);
        let sizes: Vec<usize> = sizes.collect();
        let total = sizes.iter().sum();
        if memory.0.len() < total {
            // Dropped first: what it holds is not worth a copy.
            memory.0 = Vec::new();
            memory.0 = vec![Node::default(); total];
        }
        let nodes = &mut memory.0[..total];

        let mut levels: Vec<usize> = Vec::with_capacity(sizes.len());
        for size in sizes {
            let end = levels.last().copied().unwrap_or(total);
            let start = end - size;
            let (above, below) = nodes[start..].split_at_mut(size);
            match (levels.last(), leaves.numerators.as_deref()) {
                (Some(_), _) => {
                    let below_size = levels.len().checked_sub(2).map_or(total, |i| levels[i]) - end;
                    add_neighbours(
                        &below[..below_size],
                        above,
                        threads,
                        |[a, b]| sum(a, b),
                        |node| node,
                    );
                }
                (None, None) => {
                    let leaves = Ones(&leaves.denominators);
                    add_neighbours(
                        leaves,
                        above,
                        threads,
                        |[a, b]| sum_of_ones(a, b),
                        |q| [ONE, q],
                    );
                }
                (None, Some(numerators)) => {
                    let leaves = Given(numerators, &leaves.denominators);
                    add_neighbours(leaves, above, threads, |[a, b]| sum(a, b), |node| node);
                }
            }
            levels.push(start);
        }
        Prover {
            leaves,
            threads,
            nodes,
            levels,
        }
    }
}

const ONE: Words = [1, 0];

impl Side for Prover<'_> {
    fn root(&mut self) -> (K, K) {
        if self.levels.pop().is_some() {
            let [p, q] = self.nodes[0];
            return (element(p), element(q));
        }
        match self.leaves.denominators.first() {
            Some(q) => {
                let numerators = self.leaves.numerators.as_ref();
                (numerators.map_or(K::ONE, |p| K::from(p[0])), *q)
            }
            // No leaves: the tail alone.
            None => (K::ZERO, K::ONE),
        }
    }

    fn enter(&mut self, lambda: K, point: &[K]) -> Box<dyn Level + '_> {
        let threads = self.threads;
        if let Some(start) = self.levels.pop() {
            let end = self.levels.last().copied().unwrap_or(self.nodes.len());
            let (free, level) = self.nodes[..end].split_at_mut(start);
            return Box::new(Sumcheck::new(&*level, free, lambda, point, threads));
        }
        let q = self.leaves.denominators.as_slice();
        match self.leaves.numerators.as_deref() {
            None => {
                let free = self.nodes.as_flattened_mut();
                Box::new(Sumcheck::new(Ones(q), free, lambda, point, threads))
            }
            Some(p) => Box::new(Sumcheck::new(
                Given(p, q),
                self.nodes,
                lambda,
                point,
                threads,
            )),
        }
    }
}

#[inline(always)]
fn sum([p0, q0]: Node, [p1, q1]: Node) -> Node {
    [
        Sum::product(p0, q1).plus(p1, q0).reduce(),
        Sum::product(q0, q1).reduce(),
    ]
}

#[inline(always)]
fn sum_of_ones(q0: Words, q1: Words) -> Node {
    [fast::add(q0, q1), Sum::product(q0, q1).reduce()]
}

/// A level's sums of neighbours. The last of an odd number has the tail beside it, which adds nothing.
fn add_neighbours<C>(
    level: impl Source<C>,
    out: &mut [Node],
    threads: usize,
    sum: impl Fn([C; 2]) -> Node + Sync,
    alone: impl Fn(C) -> Node,
) {
    let pairs = level.len() / 2;
    let (out, last) = out.split_at_mut(pairs);
    if let [last] = last {
        let [cell] = level.cells(2 * pairs);
        *last = alone(cell);
    }
    let sum = &sum;
    let add = move |first: usize, out: &mut [Node]| {
        for (i, out) in out.iter_mut().enumerate() {
            *out = sum(level.cells(2 * (first + i)));
        }
    };
    let each = pairs.div_ceil(threads.max(1)).max(SUMS_A_THREAD_MIN);
    std::thread::scope(|scope| {
        let mut parts = out.chunks_mut(each).enumerate();
        let own = parts.next();
        for (i, out) in parts {
            scope.spawn(move || add(i * each, out));
        }
        if let Some((_, out)) = own {
            add(0, out);
        }
    });
}
