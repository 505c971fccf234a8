// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Trees} from "./Trees.sol";

/// @title Nodes inside the trees of `Merkle`, by height and index: which exist, and what they hash to.
/// @notice A node at height `h` and index `i` of a tree of `count` leaves stands over the leaves from
///         `i·2^h` on, and exists if there is one. The tree's top stands for its root, which binds the
///         count. A reveal lists the nodes some levels below one node, in order.
/// @dev The shape follows from the count alone, so a list of another length, a padding word as a
///      node, and a node of another height all fold to something else.
library Nodes {
    /// @notice Levels that one reveal goes down at most.
    uint256 internal constant LEVELS_MOST = 5;

    /// @notice Levels that a reveal goes down from this height, of 32 at most: as few reveals as
    ///         `LEVELS_MOST` allows, and these as even as they get.
    function levelsBelow(uint256 height) internal pure returns (uint256) {
        unchecked {
            uint256 reveals = (height + LEVELS_MOST - 1) / LEVELS_MOST;
            return reveals == 0 ? 0 : (height + reveals - 1) / reveals;
        }
    }

    /// @notice How many nodes a reveal of this node lists.
    function childCount(uint32 count, uint256 height, uint256 index) internal pure returns (uint256) {
        // Heights are at most 32, and indices below 2^32: nothing here overflows or underflows.
        unchecked {
            uint256 levels = levelsBelow(height);
            uint256 below = height - levels;
            uint256 width = (uint256(count) + (uint256(1) << below) - 1) >> below;
            uint256 first = index << levels;
            uint256 room = uint256(1) << levels;
            if (first >= width) return 0;
            return width - first < room ? width - first : room;
        }
    }

    /// @notice The hash of a node whose reveal lists `children`; zero if their number is not its.
    function fold(bytes32[] calldata children, uint32 count, uint256 height, uint256 index)
        internal
        pure
        returns (bytes32)
    {
        uint256 width = children.length;
        if (width == 0 || width != childCount(count, height, index)) return 0;
        uint256 levels = levelsBelow(height);
        bytes32 hash;
        // A node is 65 bytes at `pair`, where the prefix stays; the level lies behind, and each pair's
        // hash takes the place of one that was read already.
        assembly ("memory-safe") {
            let pair := mload(0x40)
            let list := add(pair, 0x60)
            mstore8(pair, 0x01)
            calldatacopy(list, children.offset, shl(5, width))
            for {} levels { levels := sub(levels, 1) } {
                // What is missing at the right edge is the zero word.
                if and(width, 1) { mstore(add(list, shl(5, width)), 0) }
                width := shr(1, add(width, 1))
                for { let i := 0 } lt(i, width) { i := add(i, 1) } {
                    mcopy(add(pair, 0x01), add(list, shl(6, i)), 0x40)
                    mstore(add(list, shl(5, i)), keccak256(pair, 0x41))
                }
            }
            hash := mload(list)
        }
        return _atTop(hash, count, height);
    }

    /// @notice The hash of a node, from one of the nodes that its reveal lists and those beside it.
    ///         Zero if the path's length is not the reveal's depth.
    function climb(bytes32 child, uint256 index, bytes32[] calldata siblings, uint32 count, uint256 height)
        internal
        pure
        returns (bytes32)
    {
        uint256 levels = levelsBelow(height);
        if (siblings.length != levels) return 0;
        bytes32 hash = child;
        unchecked {
            for (uint256 level = 0; level < levels; ++level) {
                bytes32 sibling = siblings[level];
                hash = (index >> level) & 1 == 0 ? Trees.node(hash, sibling) : Trees.node(sibling, hash);
            }
        }
        return _atTop(hash, count, height);
    }

    /// @notice The hash of a chunk's bytes as a leaf.
    function leaf(bytes calldata data) internal pure returns (bytes32) {
        return keccak256(abi.encodePacked(bytes1(0x00), data));
    }

    /// @dev Only the top's height is the tree's: every other node is lower.
    function _atTop(bytes32 hash, uint32 count, uint256 height) private pure returns (bytes32) {
        return height == Trees.depthOf(count) ? Trees.bind(count, hash) : hash;
    }
}
