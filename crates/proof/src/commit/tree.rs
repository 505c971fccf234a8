//! The Merkle tree over an oracle's positions: SHA-256, which common machines compute in hardware.
//!
//! A leaf is the hash of a row, its values as eight little-endian bytes each, zero-padded to whole blocks of
//! 64 bytes; a node is the hash of its two children. The depth and the row's width follow from the schedule,
//! so that no leaf can pass for a node.

use p3_field::PrimeField64;
use sha2::block_api::compress256;

use super::parallel::each;
use super::words::Four;
use crate::field::F;

/// SHA-256's state, which is also its value: eight words.
pub(super) type Digest = [u32; 8];

const START: Digest = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];
/// Values of a row that fill one block, and how many times four they are.
const BLOCK_VALUES: usize = 8;
pub(super) const BLOCK_FOURS: usize = BLOCK_VALUES / 4;
/// Positions that a thread takes at a time.
pub(super) const PIECE: usize = 1 << 12;

pub(super) fn to_bytes(digest: &Digest) -> [u8; 32] {
    let mut bytes = [0; 32];
    for (out, word) in bytes.chunks_exact_mut(4).zip(digest) {
        out.copy_from_slice(&word.to_be_bytes());
    }
    bytes
}

pub(super) fn from_bytes(bytes: &[u8; 32]) -> Digest {
    let mut digest = [0; 8];
    for (word, bytes) in digest.iter_mut().zip(bytes.as_chunks().0) {
        *word = u32::from_be_bytes(*bytes);
    }
    digest
}

/// The last block of a message of so many whole blocks.
fn padding(blocks: usize) -> [u8; 64] {
    let mut block = [0; 64];
    block[0] = 0x80;
    block[56..].copy_from_slice(&(512 * blocks as u64).to_be_bytes());
    block
}

fn node(left: &Digest, right: &Digest) -> Digest {
    let mut block = [0; 64];
    block[..32].copy_from_slice(&to_bytes(left));
    block[32..].copy_from_slice(&to_bytes(right));
    let mut state = START;
    compress256(&mut state, &[block, padding(1)]);
    state
}

fn block_of(words: [Four; BLOCK_FOURS]) -> [u8; 64] {
    let mut block = [0; 64];
    for (out, word) in block.as_chunks_mut().0.iter_mut().zip(words.as_flattened()) {
        *out = word.to_le_bytes();
    }
    block
}

/// The leaf of one whole row.
pub(super) fn leaf(row: &[F]) -> Digest {
    let blocks = row.chunks(BLOCK_VALUES);
    let mut state = START;
    let padding = padding(blocks.len());
    for values in blocks {
        let mut words = [[0; 4]; BLOCK_FOURS];
        for (word, value) in words.as_flattened_mut().iter_mut().zip(values) {
            *word = value.as_canonical_u64();
        }
        compress256(&mut state, &[block_of(words)]);
    }
    compress256(&mut state, &[padding]);
    state
}

/// Leaves whose rows arrive eight columns at a time.
pub(super) struct Leaves {
    states: Vec<Digest>,
    blocks: usize,
}

impl Leaves {
    pub(super) fn new(positions: usize) -> Self {
        Leaves {
            states: vec![START; positions],
            blocks: 0,
        }
    }

    /// Eight columns, four by four, a piece of so many positions at a time; `fill` leaves empty what is zero.
    pub(super) fn absorb(
        &mut self,
        positions: usize,
        threads: usize,
        fill: impl Fn(usize, &mut [Vec<Four>; BLOCK_FOURS]) + Sync,
    ) {
        self.blocks += 1;
        let pieces = self.states.chunks_mut(positions).enumerate();
        each(pieces, threads, |(piece, states)| {
            let mut fours = [const { Vec::new() }; BLOCK_FOURS];
            fill(piece, &mut fours);
            let [first, second] = &mut fours;
            second.resize(first.len(), [0; 4]);
            for ((state, first), second) in states.iter_mut().zip(first).zip(second) {
                compress256(state, &[block_of([*first, *second])]);
            }
        });
    }

    pub(super) fn finish(mut self, threads: usize) -> Tree {
        let padding = padding(self.blocks);
        each(self.states.chunks_mut(PIECE), threads, |states| {
            for state in states {
                compress256(state, &[padding]);
            }
        });
        Tree::new(self.states, threads)
    }
}

/// Every level, leaves first.
pub(super) struct Tree {
    levels: Vec<Vec<Digest>>,
}

impl Tree {
    fn new(leaves: Vec<Digest>, threads: usize) -> Self {
        debug_assert!(leaves.len().is_power_of_two());
        let mut levels = vec![leaves];
        while let [.., below] = &levels[..]
            && below.len() > 1
        {
            let mut level = vec![START; below.len() / 2];
            let pieces = level.chunks_mut(PIECE).zip(below.chunks(2 * PIECE));
            each(pieces, threads, |(out, below)| {
                for (out, pair) in out.iter_mut().zip(below.chunks_exact(2)) {
                    *out = node(&pair[0], &pair[1]);
                }
            });
            levels.push(level);
        }
        Tree { levels }
    }

    pub(super) fn root(&self) -> Digest {
        self.levels[self.levels.len() - 1][0]
    }

    /// What the verifier lacks, level by level, left to right. The positions ascend and differ.
    pub(super) fn siblings(&self, positions: &[usize]) -> Vec<Digest> {
        let mut out = Vec::new();
        let mut known = positions.to_vec();
        for level in &self.levels[..self.levels.len() - 1] {
            known = climb(&known, |index, sibling| {
                if let Sibling::Lacking = sibling {
                    out.push(level[index ^ 1]);
                }
            });
        }
        out
    }
}

enum Sibling {
    Lacking,
    /// The next of the known ones.
    Known,
}

/// Visits the known nodes of a level pairwise, and returns their parents.
fn climb(known: &[usize], mut visit: impl FnMut(usize, Sibling)) -> Vec<usize> {
    let mut parents = Vec::new();
    let mut rest = known;
    while let [index, tail @ ..] = rest {
        rest = match tail {
            [next, tail @ ..] if *next == index ^ 1 => {
                visit(*index, Sibling::Known);
                tail
            }
            _ => {
                visit(*index, Sibling::Lacking);
                tail
            }
        };
        parents.push(index / 2);
    }
    parents
}

/// The root that follows from leaves at ascending, differing positions; `lacking` yields the siblings.
pub(super) fn root_from<E>(
    log_positions: usize,
    positions: &[usize],
    leaves: Vec<Digest>,
    mut lacking: impl FnMut() -> Result<Digest, E>,
) -> Result<Digest, E> {
    debug_assert!(!positions.is_empty() && positions.len() == leaves.len());
    let (mut known, mut digests) = (positions.to_vec(), leaves);
    for _ in 0..log_positions {
        let mut above = Vec::with_capacity(digests.len());
        let mut at = digests.iter();
        let mut failed = None;
        known = climb(&known, |index, sibling| {
            let own = *at.next().expect("as many digests as positions");
            let other = match sibling {
                Sibling::Known => *at.next().expect("as many digests as positions"),
                Sibling::Lacking => lacking().unwrap_or_else(|error| {
                    failed.get_or_insert(error);
                    START
                }),
            };
            above.push(match index & 1 {
                0 => node(&own, &other),
                _ => node(&other, &own),
            });
        });
        if let Some(error) = failed {
            return Err(error);
        }
        digests = above;
    }
    Ok(digests[0])
}

#[cfg(test)]
mod tests {
    use super::*;
    use sha2::{Digest as _, Sha256};

    const COLUMNS: u64 = 11;

    fn value(column: u64, position: usize) -> u64 {
        match column < COLUMNS {
            true => 1000 * column + (position * position) as u64,
            false => 0,
        }
    }

    fn row(position: usize) -> Vec<F> {
        let values = (0..COLUMNS).map(|column| F::new(value(column, position)));
        values.collect()
    }

    fn tree(positions: usize) -> Tree {
        let mut leaves = Leaves::new(positions);
        let four = |first: u64| {
            let at = |position| [0, 1, 2, 3].map(|i| value(first + i, position));
            (0..positions).map(at).collect::<Vec<Four>>()
        };
        for first in [0, 8] {
            leaves.absorb(positions / 2, 2, |piece, fours| {
                let range = piece * (positions / 2)..(piece + 1) * (positions / 2);
                fours[0] = four(first)[range.clone()].to_vec();
                if first == 0 {
                    fours[1] = four(4)[range].to_vec();
                }
            });
        }
        leaves.finish(2)
    }

    #[test]
    fn leaves_and_nodes_are_plain_sha_256() {
        let plain = |position: usize| {
            let mut bytes: Vec<u8> = Vec::new();
            for value in row(position) {
                bytes.extend(value.as_canonical_u64().to_le_bytes());
            }
            bytes.resize(128, 0);
            Sha256::digest(bytes)
        };
        let root = Sha256::digest([plain(0), plain(1)].concat());
        assert_eq!(to_bytes(&tree(2).root())[..], root[..]);
        assert_eq!(from_bytes(&to_bytes(&START)), START);
    }

    #[test]
    fn opened_rows_lead_to_the_root_and_others_do_not() {
        let tree = tree(32);
        for positions in [vec![0], vec![31], vec![4, 5, 6, 20], (0..32).collect()] {
            let leaves: Vec<Digest> = positions.iter().map(|p| leaf(&row(*p))).collect();
            let siblings = tree.siblings(&positions);
            let root = |leaves: &[Digest], siblings: &[Digest]| {
                let mut rest = siblings.iter();
                let next = || rest.next().copied().ok_or(());
                let root = root_from(5, &positions, leaves.to_vec(), next);
                root.map(|root| (root, rest.len()))
            };
            assert_eq!(root(&leaves, &siblings), Ok((tree.root(), 0)));
            for i in 0..leaves.len() {
                let mut other = leaves.clone();
                other[i][3] ^= 1;
                assert_ne!(root(&other, &siblings).unwrap().0, tree.root());
            }
            for i in 0..siblings.len() {
                let mut other = siblings.clone();
                other[i][3] ^= 1;
                assert_ne!(root(&leaves, &other).unwrap().0, tree.root());
                assert_eq!(root(&leaves, &siblings[..i]), Err(()));
            }
        }
    }
}
