// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Merkle} from "../../src/Merkle.sol";
import {Trees} from "../../src/dispute/Trees.sol";
import {Test} from "../Base.sol";
import {ArithmeticHarness} from "./ArithmeticHarness.sol";

/// @title Paths and ranges against whole trees, and what must not pass for them.
contract TreesTest is Test {
    ArithmeticHarness private harness = new ArithmeticHarness();

    uint256 private constant CHUNK = 256;

    /// Bytes of `count` chunks, the last one of `last` bytes.
    function chunks(uint256 seed, uint256 count, uint256 last) private pure returns (bytes memory data) {
        uint256 length = (count - 1) * CHUNK + last;
        for (uint256 i = 0; i < length; i += CHUNK) {
            bytes32 word = keccak256(abi.encode(seed, i));
            data = bytes.concat(data, abi.encode(word, ~word, i, word, i, ~word, word, word));
        }
        assembly ("memory-safe") {
            mstore(data, length)
        }
    }

    function slice(bytes memory data, uint256 from, uint256 end) private pure returns (bytes memory out) {
        out = new bytes(end - from);
        assembly ("memory-safe") {
            mcopy(add(out, 32), add(add(data, 32), from), sub(end, from))
        }
    }

    function leavesOf(bytes memory data) private pure returns (bytes32[] memory leaves) {
        leaves = new bytes32[]((data.length + CHUNK - 1) / CHUNK);
        for (uint256 i = 0; i < leaves.length; ++i) {
            uint256 end = (i + 1) * CHUNK < data.length ? (i + 1) * CHUNK : data.length;
            leaves[i] = Merkle.leafOf(slice(data, i * CHUNK, end));
        }
    }

    function node(bytes32 left, bytes32 right) private pure returns (bytes32) {
        return keccak256(abi.encodePacked(bytes1(0x01), left, right));
    }

    function parents(bytes32[] memory level) private pure returns (bytes32[] memory up) {
        up = new bytes32[]((level.length + 1) / 2);
        for (uint256 i = 0; i < up.length; ++i) {
            up[i] = node(level[2 * i], 2 * i + 1 < level.length ? level[2 * i + 1] : bytes32(0));
        }
    }

    function push(bytes32[] memory list, bytes32 word) private pure returns (bytes32[] memory longer) {
        longer = new bytes32[](list.length + 1);
        for (uint256 i = 0; i < list.length; ++i) {
            longer[i] = list[i];
        }
        longer[list.length] = word;
    }

    /// The siblings of leaves `from..end`, as docs/dispute.md says it.
    function rangeSiblings(bytes32[] memory level, uint256 from, uint256 end)
        private
        pure
        returns (bytes32[] memory siblings)
    {
        while (level.length > 1) {
            if (from % 2 == 1) siblings = push(siblings, level[from - 1]);
            if (end % 2 == 1 && end < level.length) siblings = push(siblings, level[end]);
            (level, from, end) = (parents(level), from / 2, (end + 1) / 2);
        }
    }

    function pathOf(bytes32[] memory level, uint256 index) private pure returns (bytes32[] memory siblings) {
        while (level.length > 1) {
            siblings = push(siblings, index ^ 1 < level.length ? level[index ^ 1] : bytes32(0));
            (level, index) = (parents(level), index / 2);
        }
    }

    struct Range {
        bytes data;
        uint256 count;
        uint256 first;
        uint256 end;
        bytes32[] leaves;
        bytes32[] siblings;
        bytes shown;
    }

    function range(uint256 seed, uint256 count, uint256 first, uint256 n) private pure returns (Range memory r) {
        r.count = count;
        (r.first, r.end) = (first, first + n);
        r.data = chunks(seed, count, 1 + seed % CHUNK);
        r.leaves = leavesOf(r.data);
        r.siblings = rangeSiblings(r.leaves, r.first, r.end);
        uint256 end = r.end * CHUNK < r.data.length ? r.end * CHUNK : r.data.length;
        r.shown = slice(r.data, r.first * CHUNK, end);
    }

    function some(uint256 seed, uint256 a, uint256 b, uint256 c) private pure returns (Range memory) {
        uint256 count = 1 + a % 20;
        uint256 first = b % count;
        return range(seed, count, first, 1 + c % (count - first));
    }

    // ---------------------------------------------------------------- what must pass

    function testFuzz_every_range_leads_to_the_root(uint256 seed, uint256 a, uint256 b, uint256 c) public view {
        Range memory r = some(seed, a, b, c);
        eq(harness.rangeRoot(r.shown, r.first, r.count, r.siblings), Merkle.rootOf(r.leaves), "root");
    }

    function testFuzz_every_leaf_opens_by_its_path(uint256 seed, uint256 a, uint256 b) public view {
        Range memory r = some(seed, a, 0, 0);
        uint256 index = b % r.count;
        bytes32[] memory path = pathOf(r.leaves, index);
        bytes32 root = Merkle.rootOf(r.leaves);
        yes(harness.opens(root, r.leaves[index], r.count, index, path), "opens");
        yes(Merkle.opens(root, r.leaves[index], uint64(r.count), uint64(index), path), "in Merkle too");
        eq(harness.depthOf(r.count), path.length, "depth");
    }

    // ---------------------------------------------------------------- what must not

    function testFuzz_no_other_bytes_lead_there(uint256 seed, uint256 a, uint256 b, uint256 c) public view {
        Range memory r = some(seed, a, b, c);
        r.shown[seed % r.shown.length] ^= bytes1(uint8(1 << (seed >> 250)) | 1);
        yes(harness.rangeRoot(r.shown, r.first, r.count, r.siblings) != Merkle.rootOf(r.leaves), "a bit");
    }

    function testFuzz_a_range_leads_there_from_its_own_place_alone(uint256 seed, uint256 a, uint256 b, uint256 c)
        public
    {
        Range memory r = some(seed, a, b, c);
        bytes32 root = Merkle.rootOf(r.leaves);
        for (uint256 first = 0; first <= r.count; ++first) {
            if (first == r.first) continue;
            try harness.rangeRoot(r.shown, first, r.count, r.siblings) returns (bytes32 other) {
                yes(other != root, "another place");
            } catch {}
        }
        for (uint256 count = 0; count < 2 * r.count; ++count) {
            if (count == r.count) continue;
            try harness.rangeRoot(r.shown, r.first, count, r.siblings) returns (bytes32 other) {
                yes(other != root, "another count");
            } catch {}
        }
    }

    function testFuzz_siblings_too_many_or_too_few_are_refused(uint256 seed, uint256 a, uint256 b, uint256 c) public {
        Range memory r = some(seed, a, b, c);
        bytes32[] memory more = push(r.siblings, bytes32(0));
        vm.expectRevert(abi.encodeWithSelector(Trees.WrongSiblings.selector, more.length, r.siblings.length));
        harness.rangeRoot(r.shown, r.first, r.count, more);
        if (r.siblings.length == 0) return;
        bytes32[] memory fewer = new bytes32[](r.siblings.length - 1);
        for (uint256 i = 0; i < fewer.length; ++i) {
            fewer[i] = r.siblings[i];
        }
        vm.expectRevert();
        harness.rangeRoot(r.shown, r.first, r.count, fewer);
    }

    function test_a_range_beyond_the_count_is_refused() public {
        Range memory r = range(1, 5, 3, 2);
        bytes memory longer = chunks(2, 3, CHUNK);
        vm.expectRevert(abi.encodeWithSelector(Trees.OutOfRange.selector, 6, 5));
        harness.rangeRoot(longer, 3, 5, r.siblings);
        vm.expectRevert(abi.encodeWithSelector(Trees.OutOfRange.selector, 2, 5));
        harness.rangeRoot("", 2, 5, r.siblings);
    }

    function test_two_nodes_do_not_pass_for_a_chunk() public view {
        // A node's preimage, 0x01 and two words, shown as a chunk is hashed behind 0x00.
        Range memory r = range(3, 4, 0, 4);
        bytes32[] memory up = parents(r.leaves);
        bytes memory forged = bytes.concat(bytes1(0x01), up[0], up[1]);
        yes(harness.rangeRoot(forged, 0, 1, new bytes32[](0)) != Merkle.rootOf(r.leaves), "as the only chunk");
        forged = bytes.concat(r.leaves[0], r.leaves[1]);
        bytes32[] memory siblings = new bytes32[](1);
        siblings[0] = up[1];
        yes(harness.rangeRoot(forged, 0, 2, siblings) != Merkle.rootOf(r.leaves), "as one of two");
    }

    function test_a_chunk_cut_in_two_is_another_vector() public view {
        Range memory r = range(CHUNK - 1, 2, 0, 2);
        eq(r.data.length, 2 * CHUNK, "whole");
        bytes32[] memory none = new bytes32[](0);
        bytes32 root = Merkle.rootOf(r.leaves);
        eq(harness.rangeRoot(r.data, 0, 2, none), root, "the vector");
        yes(harness.rangeRoot(slice(r.data, 0, 2 * CHUNK - 1), 0, 2, none) != root, "a byte less");
        yes(harness.rangeRoot(bytes.concat(slice(r.data, 1, 2 * CHUNK), bytes1(0)), 0, 2, none) != root, "shifted");
    }

    function test_a_path_of_another_length_or_index_is_refused() public {
        Range memory r = range(4, 5, 0, 1);
        bytes32 root = Merkle.rootOf(r.leaves);
        bytes32[] memory path = pathOf(r.leaves, 4);
        yes(harness.opens(root, r.leaves[4], 5, 4, path), "opens");
        for (uint256 index = 0; index < 4; ++index) {
            yes(!harness.opens(root, r.leaves[4], 5, index, path), "another index");
        }
        vm.expectRevert(abi.encodeWithSelector(Trees.OutOfRange.selector, 5, 5));
        harness.opens(root, r.leaves[4], 5, 5, path);
        vm.expectRevert(abi.encodeWithSelector(Trees.WrongPath.selector, 4, 3));
        harness.opens(root, r.leaves[4], 5, 4, push(path, bytes32(0)));
        // Padding is no leaf: index 5 of a tree of 6 whose last leaf is the zero word has another root.
        yes(!harness.opens(root, bytes32(0), 6, 5, pathOf(push(r.leaves, bytes32(0)), 5)), "padding");
    }
}
