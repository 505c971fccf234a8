// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

/// @title The trees of `Merkle`, for bytes that lie in memory and siblings that lie in calldata.
/// @notice Single leaves by their path, and contiguous ranges of leaves by the siblings at their edges
///         (docs/dispute.md). Every index is bounded by a count that the root binds.
library Trees {
    uint256 private constant CHUNK = 256;

    error WrongPath(uint256 length, uint256 expected);
    error WrongSiblings(uint256 length, uint256 expected);
    error OutOfRange(uint256 index, uint256 count);

    /// @notice Levels between a leaf and the top.
    function depthOf(uint256 count) internal pure returns (uint256 depth) {
        assembly ("memory-safe") {
            for {} lt(shl(depth, 1), count) {} { depth := add(depth, 1) }
        }
    }

    /// @notice Hash of a leaf of `length` bytes at `data`. The byte before them is changed and restored.
    function leafOf(uint256 data, uint256 length) internal pure returns (bytes32 hash) {
        assembly ("memory-safe") {
            let before := sub(data, 32)
            let saved := mload(before)
            mstore8(sub(data, 1), 0)
            hash := keccak256(sub(data, 1), add(length, 1))
            mstore(before, saved)
        }
    }

    /// @notice Hash of two nodes beside each other.
    function node(bytes32 left, bytes32 right) internal pure returns (bytes32 hash) {
        assembly ("memory-safe") {
            let ptr := mload(0x40)
            mstore8(ptr, 1)
            mstore(add(ptr, 1), left)
            mstore(add(ptr, 33), right)
            hash := keccak256(ptr, 65)
        }
    }

    /// @notice The root of a tree with this top.
    function bind(uint256 count, bytes32 top) internal pure returns (bytes32 hash) {
        assembly ("memory-safe") {
            let ptr := mload(0x40)
            mstore(ptr, or(shl(248, 2), shl(184, count)))
            mstore(add(ptr, 9), top)
            hash := keccak256(ptr, 41)
        }
    }

    /// @notice The root of the tree of `count` leaves that has `leaf` at `index`, by
    ///         `siblings[from..from + depth]`.
    function rootOf(bytes32 leaf, uint256 index, uint256 count, bytes32[] calldata siblings, uint256 from)
        internal
        pure
        returns (bytes32)
    {
        return bind(count, topOf(leaf, index, count, siblings, from));
    }

    /// @notice The same, before the count is bound to it.
    function topOf(bytes32 leaf, uint256 index, uint256 count, bytes32[] calldata siblings, uint256 from)
        internal
        pure
        returns (bytes32 hash)
    {
        if (index >= count) revert OutOfRange(index, count);
        uint256 depth = depthOf(count);
        if (siblings.length < from + depth) revert WrongPath(siblings.length, from + depth);
        assembly ("memory-safe") {
            hash := leaf
            let ptr := mload(0x40)
            mstore8(ptr, 1)
            let sibling := add(siblings.offset, shl(5, from))
            for { let end := add(sibling, shl(5, depth)) } lt(sibling, end) { sibling := add(sibling, 32) } {
                // The hash stands left where the index is even here, and its sibling in the other place.
                let side := shl(5, and(index, 1))
                mstore(add(add(ptr, 1), side), hash)
                mstore(sub(add(ptr, 33), side), calldataload(sibling))
                hash := keccak256(ptr, 65)
                index := shr(1, index)
            }
        }
    }

    /// @notice Whether `leaf` stands at `index` of the tree of `count` leaves with this root.
    function opens(bytes32 root, bytes32 leaf, uint256 count, uint256 index, bytes32[] calldata siblings)
        internal
        pure
        returns (bool)
    {
        uint256 depth = depthOf(count);
        if (siblings.length != depth) revert WrongPath(siblings.length, depth);
        return rootOf(leaf, index, count, siblings, 0) == root;
    }

    /// @notice The root of the tree of `count` chunks that has these bytes from chunk `first` on. The
    ///         bytes are of one segment: all chunks are whole but maybe the last.
    /// @dev Level by level the range is made even by a sibling at each edge, the zero word where there
    ///      is none at the right, and halved. The level lies from `ptr + 32` on; the word at `ptr` is room
    ///      for the left sibling. Writing never overtakes reading, as a pair becomes one word.
    function rangeRootOf(uint256 data, uint256 length, uint256 first, uint256 count, bytes32[] calldata siblings)
        internal
        pure
        returns (bytes32)
    {
        uint256 n = (length + CHUNK - 1) / CHUNK;
        if (n == 0 || first + n > count) revert OutOfRange(first + n, count);
        uint256 ptr;
        assembly ("memory-safe") {
            ptr := mload(0x40)
            // The range, a word before it and one after it.
            mstore(0x40, add(ptr, shl(5, add(n, 2))))
        }
        _chunkLeaves(data, length, ptr + 32);
        (bytes32 top, uint256 used) = _fold(ptr, n, first, count, siblings);
        // Past their end others were read, and are not believed.
        if (used != siblings.length) revert WrongSiblings(siblings.length, used);
        return bind(count, top);
    }

    /// @dev The top of a level of `count` nodes that has the `n` at `ptr + 32` from `first` on, and how
    ///      many siblings it took.
    function _fold(uint256 ptr, uint256 n, uint256 first, uint256 count, bytes32[] calldata siblings)
        private
        pure
        returns (bytes32 top, uint256 used)
    {
        assembly ("memory-safe") {
            let pair := mload(0x40)
            mstore8(pair, 1)
            let sibling := siblings.offset
            for {} gt(count, 1) { count := shr(1, add(count, 1)) } {
                let from := add(ptr, 32)
                let end := add(from, shl(5, n))
                n := add(first, n)
                if and(n, 1) {
                    // The right sibling comes after the left one.
                    let right := 0
                    if lt(n, count) {
                        right := calldataload(add(sibling, shl(5, and(first, 1))))
                        used := add(used, 1)
                    }
                    mstore(end, right)
                    end := add(end, 32)
                }
                if and(first, 1) {
                    from := ptr
                    mstore(from, calldataload(sibling))
                    used := add(used, 1)
                }
                sibling := add(siblings.offset, shl(5, used))
                let into := add(ptr, 32)
                n := shr(6, sub(end, from))
                for {} lt(from, end) { from := add(from, 64) } {
                    mcopy(add(pair, 1), from, 64)
                    mstore(into, keccak256(pair, 65))
                    into := add(into, 32)
                }
                first := shr(1, first)
            }
            top := mload(add(ptr, 32))
        }
    }

    /// @dev Hashes chunk after chunk as `leafOf` does.
    function _chunkLeaves(uint256 data, uint256 length, uint256 into) private pure {
        assembly ("memory-safe") {
            for { let end := add(data, length) } lt(data, end) {
                data := add(data, CHUNK)
                into := add(into, 32)
            } {
                let size := sub(end, data)
                if gt(size, CHUNK) { size := CHUNK }
                let saved := mload(sub(data, 32))
                mstore8(sub(data, 1), 0)
                mstore(into, keccak256(sub(data, 1), add(size, 1)))
                mstore(sub(data, 32), saved)
            }
        }
    }
}
