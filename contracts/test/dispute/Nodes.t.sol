// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Merkle} from "../../src/Merkle.sol";
import {Nodes} from "../../src/dispute/Nodes.sol";
import {Trees} from "../../src/dispute/Trees.sol";
import {Test} from "../Base.sol";

/// @title Nodes against Merkle: from the root down to any leaf of any tree, and nothing else folds.
contract NodesTest is Test {
    function fold(bytes32[] calldata children, uint32 count, uint256 height, uint256 index)
        external
        pure
        returns (bytes32)
    {
        return Nodes.fold(children, count, height, index);
    }

    function climb(bytes32 child, uint256 index, bytes32[] calldata siblings, uint32 count, uint256 height)
        external
        pure
        returns (bytes32)
    {
        return Nodes.climb(child, index, siblings, count, height);
    }

    /// All nodes at a height, as `Merkle` makes them.
    function levelOf(bytes32[] memory level, uint256 height) private pure returns (bytes32[] memory) {
        for (; height > 0; --height) {
            bytes32[] memory above = new bytes32[]((level.length + 1) / 2);
            for (uint256 i = 0; i < above.length; ++i) {
                bytes32 right = 2 * i + 1 < level.length ? level[2 * i + 1] : bytes32(0);
                above[i] = keccak256(abi.encodePacked(bytes1(0x01), level[2 * i], right));
            }
            level = above;
        }
        return level;
    }

    /// A node on the way down.
    struct At {
        uint32 count;
        bytes32 hash;
        uint256 height;
        uint256 index;
    }

    function testFuzz_reveals_lead_from_the_root_to_every_leaf(uint256 seed) public view {
        At memory node;
        node.count = uint32(bound(seed, 1, 150));
        uint256 goal = bound(seed >> 32, 0, node.count - 1);
        bytes32[] memory leaves = new bytes32[](node.count);
        for (uint256 i = 0; i < leaves.length; ++i) {
            leaves[i] = keccak256(abi.encode(seed, i));
        }
        node.hash = Merkle.rootOf(leaves);
        node.height = Trees.depthOf(node.count);
        eq(node.height, Merkle.depthOf(node.count), "height");
        do {
            goDown(node, leaves, goal);
        } while (node.height > 0);
        eq(node.hash, leaves[goal], "the leaf");
    }

    function goDown(At memory node, bytes32[] memory leaves, uint256 goal) private view {
        uint256 levels = Nodes.levelsBelow(node.height);
        yes(levels <= 5 && (levels > 0 || node.height == 0), "levels");
        bytes32[] memory below = levelOf(leaves, node.height - levels);
        bytes32[] memory children = new bytes32[](Nodes.childCount(node.count, node.height, node.index));
        for (uint256 i = 0; i < children.length; ++i) {
            children[i] = below[(node.index << levels) + i];
        }
        eq(this.fold(children, node.count, node.height, node.index), node.hash, "folds");
        if (node.count > 1) {
            bytes32 other = this.fold(children, node.count - 1, node.height, node.index);
            // A tree that is one leaf shorter is another tree, unless this node is not where they part.
            yes(other != node.hash || node.height != Trees.depthOf(node.count), "another count");
        }
        uint256 child = (goal >> (node.height - levels)) - (node.index << levels);
        bytes32[] memory path = siblings(children, child, levels);
        eq(this.climb(children[child], child, path, node.count, node.height), node.hash, "climbs");
        if (levels > 0) {
            yes(this.climb(children[child], child ^ 1, path, node.count, node.height) != node.hash, "another place");
        }
        node.hash = children[child];
        node.index = (node.index << levels) + child;
        node.height -= levels;
    }

    function siblings(bytes32[] memory level, uint256 index, uint256 levels)
        private
        pure
        returns (bytes32[] memory path)
    {
        path = new bytes32[](levels);
        for (uint256 i = 0; i < levels; ++i) {
            path[i] = (index ^ 1) < level.length ? level[index ^ 1] : bytes32(0);
            (level, index) = (levelOf(level, 1), index / 2);
        }
    }

    function test_reveals_are_as_even_as_they_get() public pure {
        uint8[16] memory levels = [0, 1, 2, 3, 4, 5, 3, 4, 4, 5, 5, 4, 4, 5, 5, 5];
        for (uint256 height = 0; height < 16; ++height) {
            eq(Nodes.levelsBelow(height), levels[height], "levels");
        }
        eq(Nodes.childCount(93, 7, 0), 12, "ops of a model of thirty layers");
        eq(Nodes.childCount(93, 3, 11), 5, "the last of them");
        eq(Nodes.childCount(93, 3, 12), 0, "past the end");
    }
}
