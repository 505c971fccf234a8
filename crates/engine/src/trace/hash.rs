//! Leaves and roots of `protocol::merkle`, many hashes at a time. Same roots; its tests hold it to that.

use assay_protocol::{B256, merkle};

use crate::kernels::{Hash, Message, Path, hash_all};

/// Hashes of leaves' bytes, in their order.
pub(super) fn leaves<'a>(path: Path, data: impl Iterator<Item = &'a [u8]>) -> Vec<Hash> {
    let messages: Vec<Message<'_>> = data.map(|data| Message { prefix: 0, data }).collect();
    let mut hashes = vec![[0; 32]; messages.len()];
    hash_all(path, &messages, &mut hashes);
    hashes
}

/// The root over leaf hashes.
pub(super) fn root(path: Path, leaves: &[Hash]) -> B256 {
    let mut level = leaves.to_vec();
    while level.len() > 1 {
        if !level.len().is_multiple_of(2) {
            level.push([0; 32]);
        }
        let pairs = level.as_flattened().chunks_exact(64);
        let messages: Vec<Message<'_>> = pairs.map(|data| Message { prefix: 1, data }).collect();
        let mut parents = vec![[0; 32]; messages.len()];
        hash_all(path, &messages, &mut parents);
        level = parents;
    }
    let top = level.first().copied().unwrap_or_default();
    merkle::bind(leaves.len() as u64, &top.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots_are_those_of_the_protocol() {
        let data: Vec<Vec<u8>> = (0..70u8).map(|i| vec![i; 3 * usize::from(i)]).collect();
        for count in 0..data.len() {
            let data = &data[..count];
            let expected: Vec<B256> = data.iter().map(|data| merkle::leaf(data)).collect();
            for path in [Path::Portable, Path::detect()] {
                let hashes = leaves(path, data.iter().map(Vec::as_slice));
                assert!(hashes.iter().zip(&expected).all(|(a, b)| a == b));
                assert_eq!(root(path, &hashes), merkle::root(&expected), "{count}");
            }
        }
    }
}
