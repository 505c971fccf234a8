// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {TraceGeometry} from "./TraceGeometry.sol";

/// @title A sampler's parameters out of their canonical bytes: `protocol::sampler`, a second time.
library Sampling {
    /// @dev The codec's length and the tag, twenty bytes.
    bytes20 private constant TAG = bytes20(bytes.concat(bytes4(uint32(16)), "assay/sampler/v1"));
    uint256 private constant BYTES_LEAST = 72;
    uint256 private constant TOP_P_ALL = 1 << 16;

    struct Params {
        /// 0 for greedy.
        uint256 beta;
        uint256 topK;
        uint256 topP;
        bytes32 seed;
        uint256 maxTokens;
        /// Number of stop strings.
        uint256 stops;
    }

    error NotASampler();
    error AnotherSampler(bytes32 hash, bytes32 expected);

    /// @notice Parameters whose hash the statement holds.
    function open(bytes calldata sampler, bytes32 hash) internal pure returns (Params memory) {
        if (keccak256(sampler) != hash) revert AnotherSampler(keccak256(sampler), hash);
        return parse(sampler);
    }

    function parse(bytes calldata sampler) internal pure returns (Params memory p) {
        if (sampler.length < BYTES_LEAST || bytes20(sampler) != TAG) revert NotASampler();
        p.beta = uint32(bytes4(sampler[20:]));
        p.topK = uint32(bytes4(sampler[24:]));
        p.topP = uint32(bytes4(sampler[28:]));
        p.seed = bytes32(sampler[32:]);
        p.maxTokens = uint32(bytes4(sampler[64:]));
        p.stops = uint32(bytes4(sampler[68:]));
    }

    /// @notice What of the sampler shapes a trace.
    function flagsOf(Params memory p, uint256 vocab) internal pure returns (uint256 flags) {
        if (p.beta == 0) return 0;
        flags = TraceGeometry.DRAWN;
        if (p.topK != 0 && p.topK < vocab) flags |= TraceGeometry.TOP_K;
        if (p.topP < TOP_P_ALL) flags |= TraceGeometry.TOP_P;
    }
}
