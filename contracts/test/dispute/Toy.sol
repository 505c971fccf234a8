// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IReferee, Statement} from "../../src/dispute/IReferee.sol";
import {Trees} from "../../src/dispute/Trees.sol";

/// @title A trace that a test can hold in its hand: every byte of every chunk follows from a seed, and
///        one of them may be false.
/// @notice The geometry is the statement's: `nPrompt` rows an op, `nOutput` ops, and a vector whose
///         length depends on op and row, so that no two trees look alike.
library Toy {
    function ops(Statement memory s) internal pure returns (uint32) {
        return s.nOutput;
    }

    function rows(Statement memory s, uint32 op) internal pure returns (uint32) {
        return 1 + (s.nPrompt - 1 + 3 * op) % s.nPrompt;
    }

    function chunks(Statement memory, uint32 op, uint32 row) internal pure returns (uint32) {
        return 1 + (op * 5 + row * 3) % 11;
    }

    function length(uint32 op, uint32 row, uint32 chunk) internal pure returns (uint32) {
        return 8 + (op + row + chunk) % 5 * 8;
    }

    function data(uint256 seed, uint32 op, uint32 row, uint32 chunk) internal pure returns (bytes memory out) {
        out = new bytes(length(op, row, chunk));
        for (uint256 i = 0; i < out.length; ++i) {
            out[i] = bytes1(uint8(uint256(keccak256(abi.encode(seed, op, row, chunk, i)))));
        }
    }
}

/// @title Convicts where the step names a chunk of the trace whose bytes are not the seed's.
/// @notice A step here is `abi.encode(op, row, chunk, data, path)`: the chunk's bytes and the siblings
///         from it to the trace's root, tree after tree. The seed is the model's id.
contract ToyReferee is IReferee {
    error Unproven();

    function convicts(Statement calldata s, bytes32 traceRoot, bytes calldata step) external pure returns (bool) {
        (uint32 op, uint32 row, uint32 chunk, bytes memory data, bytes32[] memory path) =
            abi.decode(step, (uint32, uint32, uint32, bytes, bytes32[]));
        bytes32 hash = keccak256(abi.encodePacked(bytes1(0), data));
        uint256 used;
        (hash, used) = climb(hash, Toy.chunks(s, op, row), chunk, path, 0);
        (hash, used) = climb(hash, Toy.rows(s, op), row, path, used);
        (hash, used) = climb(hash, Toy.ops(s), op, path, used);
        if (hash != traceRoot || used != path.length) revert Unproven();
        return keccak256(data) != keccak256(Toy.data(uint256(s.modelId), op, row, chunk));
    }

    function climb(bytes32 hash, uint32 count, uint256 index, bytes32[] memory path, uint256 used)
        private
        pure
        returns (bytes32, uint256)
    {
        for (uint256 height = Trees.depthOf(count); height > 0; --height) {
            bytes32 sibling = path[used++];
            hash = index % 2 == 0 ? Trees.node(hash, sibling) : Trees.node(sibling, hash);
            index /= 2;
        }
        return (keccak256(abi.encodePacked(bytes1(0x02), uint64(count), hash)), used);
    }

    /// A fact is one byte: whether it convicts. 2 does not verify.
    function factConvicts(Statement calldata, bytes calldata fact) external pure returns (bool) {
        if (fact[0] == 0x02) revert Unproven();
        return fact[0] == 0x01;
    }

    function samplingFlags(bytes32, bytes calldata sampler) external pure returns (uint8) {
        return uint8(sampler[0]);
    }

    function opCount(bytes32, uint32 nPrompt, uint32 nOutput, uint8) external pure returns (uint32) {
        return Toy.ops(statement(nPrompt, nOutput));
    }

    function rowCount(bytes32, uint32 nPrompt, uint32 nOutput, uint8, uint32 op) external pure returns (uint32) {
        return Toy.rows(statement(nPrompt, nOutput), op);
    }

    function chunkCount(bytes32, uint32 nPrompt, uint32 nOutput, uint8, uint32 op, uint32 row)
        external
        pure
        returns (uint32)
    {
        return Toy.chunks(statement(nPrompt, nOutput), op, row);
    }

    function chunkLength(bytes32, uint32, uint32, uint8, uint32 op, uint32 row, uint32 chunk)
        external
        pure
        returns (uint32)
    {
        return Toy.length(op, row, chunk);
    }

    function statement(uint32 nPrompt, uint32 nOutput) private pure returns (Statement memory s) {
        s.nPrompt = nPrompt;
        s.nOutput = nOutput;
    }
}
