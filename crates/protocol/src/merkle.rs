//! Keccak Merkle trees whose shape follows from the leaf count alone.
//!
//! `leaf = keccak(0x00 ‖ data)`, `node = keccak(0x01 ‖ left ‖ right)`; a level is padded with zero
//! words to a power of two, and `root = keccak(0x02 ‖ u64 count ‖ top)`. The prefixes keep a node
//! from passing for a leaf (second preimages), the bound count keeps two lists of different length
//! apart, and an opening's length follows from the count, so that no index has an alias.

use alloy_primitives::{B256, Keccak256, keccak256};
use serde::{Deserialize, Serialize};

use crate::TokenId;

/// Most leaves that a tree may have; deeper claims are refused before any hashing.
pub const LEAVES_MAX: u64 = 1 << 40;

/// Hash of one leaf's bytes.
pub fn leaf(data: &[u8]) -> B256 {
    let mut hasher = Keccak256::new();
    hasher.update([0u8]);
    hasher.update(data);
    hasher.finalize()
}

fn node(left: &B256, right: &B256) -> B256 {
    let mut bytes = [1u8; 65];
    bytes[1..33].copy_from_slice(left.as_slice());
    bytes[33..].copy_from_slice(right.as_slice());
    keccak256(bytes)
}

/// The root: a tree's top with the count of its leaves.
pub fn bind(count: u64, top: &B256) -> B256 {
    let mut bytes = [2u8; 41];
    bytes[1..9].copy_from_slice(&count.to_be_bytes());
    bytes[9..].copy_from_slice(top.as_slice());
    keccak256(bytes)
}

/// Levels between a leaf and the top of a tree of `count` leaves.
pub fn depth(count: u64) -> u32 {
    count.max(1).next_power_of_two().trailing_zeros()
}

/// One level up: pairs are hashed, a missing right sibling is the zero word, a pair of zero
/// words stays the zero word and is never stored.
pub(crate) fn parents(level: &[B256]) -> Vec<B256> {
    level
        .chunks(2)
        .map(|pair| node(&pair[0], pair.get(1).unwrap_or(&B256::ZERO)))
        .collect()
}

/// Root over leaf hashes.
pub fn root(leaves: &[B256]) -> B256 {
    let mut level = leaves.to_vec();
    while level.len() > 1 {
        level = parents(&level);
    }
    bind(leaves.len() as u64, level.first().unwrap_or(&B256::ZERO))
}

/// Root over token ids; a leaf's data is the id as a big-endian `u32`.
pub fn tokens_root(tokens: &[TokenId]) -> B256 {
    let leaves: Vec<B256> = tokens.iter().map(|id| leaf(&id.to_be_bytes())).collect();
    root(&leaves)
}

/// The siblings that lead from one leaf to the root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opening {
    pub count: u64,
    pub index: u64,
    pub siblings: Vec<B256>,
}

/// Why an opening does not show what it claims.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpeningError {
    #[error("index {index} lies outside {count} leaves")]
    IndexOutOfRange { index: u64, count: u64 },
    #[error("tree of {count} leaves exceeds the limit of {LEAVES_MAX}")]
    TooManyLeaves { count: u64 },
    #[error("opening has {got} siblings, a tree of this count has {expected}")]
    WrongDepth { expected: u32, got: usize },
    #[error("opening leads to another root")]
    WrongRoot,
}

/// Opens leaf `index`; `None` where there is no such leaf.
pub fn open(leaves: &[B256], index: u64) -> Option<Opening> {
    let mut at = usize::try_from(index)
        .ok()
        .filter(|at| *at < leaves.len())?;
    let mut siblings = Vec::new();
    let mut level = leaves.to_vec();
    while level.len() > 1 {
        siblings.push(level.get(at ^ 1).copied().unwrap_or(B256::ZERO));
        level = parents(&level);
        at /= 2;
    }
    Some(Opening {
        count: leaves.len() as u64,
        index,
        siblings,
    })
}

impl Opening {
    /// Checks that `leaf` stands at `self.index` of the tree with this `root`.
    pub fn verify(&self, root: &B256, leaf: &B256) -> Result<(), OpeningError> {
        if self.root(leaf)? == *root {
            Ok(())
        } else {
            Err(OpeningError::WrongRoot)
        }
    }

    /// The root of the tree that has `leaf` at `self.index`.
    pub fn root(&self, leaf: &B256) -> Result<B256, OpeningError> {
        let (index, count) = (self.index, self.count);
        if count > LEAVES_MAX {
            return Err(OpeningError::TooManyLeaves { count });
        }
        if index >= count {
            return Err(OpeningError::IndexOutOfRange { index, count });
        }
        if self.siblings.len() != depth(count) as usize {
            return Err(OpeningError::WrongDepth {
                expected: depth(count),
                got: self.siblings.len(),
            });
        }
        let top = self
            .siblings
            .iter()
            .enumerate()
            .fold(*leaf, |hash, (level, sibling)| {
                if index >> level & 1 == 0 {
                    node(&hash, sibling)
                } else {
                    node(sibling, &hash)
                }
            });
        Ok(bind(count, &top))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn leaves(count: u64) -> Vec<B256> {
        (0..count).map(|i| leaf(&i.to_be_bytes())).collect()
    }

    #[test]
    fn roots_are_spelled_out() {
        let check = |tokens: &[TokenId], expected: &str| {
            assert_eq!(hex::encode(tokens_root(tokens)), expected, "{tokens:?}");
        };
        check(&[], EMPTY);
        check(&[7], ONE);
        check(&[1, 2, 3], THREE);
    }
    const EMPTY: &str = "f28d766e14bfa9767b97ce2a50d9b632eb10ef9c4aa085943ece3a4fcd5ef287";
    const ONE: &str = "54c2dd3c19b8ffb6ae1b172fe8f0f3ac82780b038e7b5150478b948c2243a255";
    const THREE: &str = "4d0fec66194c77dc469aa6a38bf1bb6fac78fa88442dc08085e3abc537fe83b9";

    #[test]
    fn a_node_does_not_pass_for_a_leaf() {
        let four = leaves(4);
        let two = parents(&four);
        assert_ne!(root(&four), root(&two));
        let forged = Opening {
            count: 2,
            index: 0,
            siblings: vec![two[1]],
        };
        assert_eq!(
            forged.verify(&root(&four), &two[0]),
            Err(OpeningError::WrongRoot)
        );
    }

    #[test]
    fn padding_is_no_leaf() {
        let three = leaves(3);
        let mut opening = open(&three, 2).unwrap();
        opening.index = 3;
        assert!(matches!(
            opening.verify(&root(&three), &B256::ZERO),
            Err(OpeningError::IndexOutOfRange { .. })
        ));
        let mut padded = three.clone();
        padded.push(B256::ZERO);
        assert_ne!(root(&three), root(&padded));
    }

    #[test]
    fn a_wrong_depth_is_named() {
        let five = leaves(5);
        let mut opening = open(&five, 4).unwrap();
        opening.siblings.pop();
        assert_eq!(
            opening.verify(&root(&five), &five[4]),
            Err(OpeningError::WrongDepth {
                expected: 3,
                got: 2
            })
        );
    }

    proptest! {
        #[test]
        fn every_leaf_opens_and_no_other_does(count in 1u64..70, pick in any::<u64>(), bit in 0usize..256) {
            let all = leaves(count);
            let index = pick % count;
            let opening = open(&all, index).unwrap();
            let mut wrong = all[index as usize];
            prop_assert_eq!(opening.verify(&root(&all), &wrong), Ok(()));
            wrong.0[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(opening.verify(&root(&all), &wrong), Err(OpeningError::WrongRoot));
        }
    }
}
