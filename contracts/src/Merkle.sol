// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

/// @title Keccak Merkle trees whose shape follows from the leaf count alone.
/// @notice The second implementation of `protocol::merkle`; `vectors/merkle.json` holds both to the
///         same answers. `leaf = keccak(0x00 ‖ data)`, `node = keccak(0x01 ‖ left ‖ right)`,
///         `root = keccak(0x02 ‖ uint64 count ‖ top)`; a missing right sibling is the zero word.
/// @dev The prefixes keep a node from passing for a leaf, the bound count keeps lists of different
///      length apart, and the opening's length follows from the count, so no index has an alias.
library Merkle {
    uint64 internal constant LEAVES_MOST = 1 << 40;

    function leafOf(bytes memory data) internal pure returns (bytes32) {
        return keccak256(abi.encodePacked(bytes1(0x00), data));
    }

    /// @notice Root over leaf hashes. Meant for tests and small lists: memory grows with them.
    function rootOf(bytes32[] memory leaves) internal pure returns (bytes32) {
        uint256 width = leaves.length;
        bytes32[] memory level = new bytes32[](width);
        for (uint256 i = 0; i < width; ++i) {
            level[i] = leaves[i];
        }
        while (width > 1) {
            for (uint256 i = 0; i < width; i += 2) {
                level[i / 2] = _node(level[i], i + 1 < width ? level[i + 1] : bytes32(0));
            }
            width = (width + 1) / 2;
        }
        return _bind(uint64(leaves.length), leaves.length == 0 ? bytes32(0) : level[0]);
    }

    /// @notice Whether `leaf` stands at `index` of the tree of `count` leaves with this root.
    function opens(bytes32 root, bytes32 leaf, uint64 count, uint64 index, bytes32[] memory siblings)
        internal
        pure
        returns (bool)
    {
        if (count > LEAVES_MOST || index >= count || siblings.length != depthOf(count)) return false;
        bytes32 hash = leaf;
        for (uint256 level = 0; level < siblings.length; ++level) {
            hash = (index >> level) & 1 == 0 ? _node(hash, siblings[level]) : _node(siblings[level], hash);
        }
        return _bind(count, hash) == root;
    }

    /// @notice Levels between a leaf and the top.
    function depthOf(uint64 count) internal pure returns (uint256 depth) {
        while (uint256(1) << depth < count) ++depth;
    }

    function _node(bytes32 left, bytes32 right) private pure returns (bytes32) {
        return keccak256(abi.encodePacked(bytes1(0x01), left, right));
    }

    function _bind(uint64 count, bytes32 top) private pure returns (bytes32) {
        return keccak256(abi.encodePacked(bytes1(0x02), count, top));
    }
}
