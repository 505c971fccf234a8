// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Evidence} from "./Evidence.sol";
import {Fact, Statement, Step, TokenOpening} from "./IReferee.sol";
import {Manifest} from "./Manifest.sol";
import {Models} from "./Models.sol";
import {SampleElements} from "./SampleElements.sol";
import {Sampling} from "./Sampling.sol";
import {TraceGeometry} from "./TraceGeometry.sol";

/// @title Judges draws, tokens and facts: the part of the referee that knows the sampler.
/// @notice `StepReferee` is in front of it; apart, as one contract would be too large.
contract SampleReferee {
    using TraceGeometry for TraceGeometry.Program;
    using Evidence for Evidence.Case;

    Models public immutable MODELS;

    /// @dev Reasons for which an answer ends, as in `protocol::StopReason`.
    uint256 private constant END_OF_TEXT = 1;
    uint256 private constant MAX_TOKENS = 2;
    uint256 private constant STOP_STRING = 3;
    uint256 private constant CUT = 4;

    /// @dev Kinds of fact.
    uint256 private constant TOO_MANY_TOKENS = 1;
    uint256 private constant NOT_AT_THE_LIMIT = 2;
    uint256 private constant NOT_ENDED = 3;
    uint256 private constant PAST_THE_END = 4;
    uint256 private constant ENDED_OTHERWISE = 5;
    uint256 private constant NO_STOP_STRING = 6;
    uint256 private constant CONTEXT = 7;
    uint256 private constant UNKNOWN_TOKEN = 8;
    uint256 private constant EMPTY = 9;

    error NoSuchFact(uint256 kind);
    error NoDraw();
    error MalformedFact();
    error PositionOutside(uint256 position, uint256 count);

    constructor(Models models) {
        MODELS = models;
    }

    /// @notice As `IReferee.convicts`, for steps of the sampler's op and about tokens.
    function convicts(Statement calldata statement, bytes32 traceRoot, bytes calldata encoded)
        external
        view
        returns (bool)
    {
        Step calldata step = Evidence.stepIn(encoded);
        Evidence.Case memory c = Evidence.begin(MODELS, statement, traceRoot, step);
        Sampling.Params memory sampler = Sampling.open(step.sampler, statement.samplerHash);
        c.program.flags = Sampling.flagsOf(sampler, c.program.model.vocab);
        c.ops = c.program.ops();
        if (step.op == TraceGeometry.TOKEN) {
            return sampler.beta == 0
                ? SampleElements.isNotLargest(c, step.row, step.witness)
                : SampleElements.isNotDrawn(c, step.row, sampler);
        }
        if (sampler.beta == 0) revert NoDraw();
        (uint256 kind,) = c.program.kindOf(step.op);
        if (kind != TraceGeometry.SAMPLE) revert NoDraw();
        return SampleElements.isFalse(c, _element(c, step), sampler);
    }

    /// @notice As `IReferee.factConvicts`.
    function factConvicts(Statement calldata statement, bytes calldata encoded) external view returns (bool) {
        Fact calldata fact = _factIn(encoded);
        uint256 kind = fact.kind;
        (uint256 nOutput, uint256 reason) = (statement.nOutput, statement.stopReason);
        if (kind == EMPTY) return statement.nPrompt == 0 || (nOutput == 0 && reason != CUT);
        if (kind == TOO_MANY_TOKENS || kind == NOT_AT_THE_LIMIT || kind == NO_STOP_STRING) {
            Sampling.Params memory sampler = Sampling.open(fact.sampler, statement.samplerHash);
            if (kind == TOO_MANY_TOKENS) return nOutput > sampler.maxTokens;
            if (kind == NOT_AT_THE_LIMIT) return reason == MAX_TOKENS && nOutput != sampler.maxTokens;
            return reason == STOP_STRING && sampler.stops == 0;
        }
        Manifest.Model memory m = Manifest.load(MODELS, statement.modelId);
        uint256 all = uint256(statement.nPrompt) + nOutput;
        if (kind == CONTEXT) return all > m.contextMax;
        if (kind == UNKNOWN_TOKEN) return _tokenAt(statement, fact, fact.position) >= m.vocab;
        if (kind != NOT_ENDED && kind != PAST_THE_END && kind != ENDED_OTHERWISE) revert NoSuchFact(kind);
        // About an end token, of which the output must have one to look at.
        if (nOutput == 0) revert PositionOutside(0, 0);
        uint256 ptr = kind == PAST_THE_END ? fact.position : nOutput - 1;
        uint256 token = _tokenAt(statement, fact, statement.nPrompt + ptr);
        bool ends = Manifest.isEnd(Manifest.tail(m), token);
        if (kind == NOT_ENDED) return reason == END_OF_TEXT && !ends;
        if (kind == PAST_THE_END) return ends && ptr + 1 < nOutput;
        return ends && (reason == MAX_TOKENS || reason == STOP_STRING);
    }

    /// @notice As `IReferee.samplingFlags`.
    function samplingFlags(bytes32 modelId, bytes calldata sampler) external view returns (uint8) {
        Manifest.Model memory m = Manifest.load(MODELS, modelId);
        return uint8(Sampling.flagsOf(Sampling.parse(sampler), m.vocab));
    }

    function _element(Evidence.Case memory c, Step calldata step)
        private
        view
        returns (SampleElements.Element memory e)
    {
        (e.op, e.row, e.witness) = (step.op, step.row, step.witness);
        (e.segment, e.index, e.ptr, e.claimed) = c.takeElement(step);
    }

    /// @dev The fact within `abi.encode(Fact)`; see `Evidence.stepIn` for why this is safe.
    function _factIn(bytes calldata encoded) private pure returns (Fact calldata fact) {
        if (encoded.length < 5 * 32 || uint256(bytes32(encoded)) != 32) revert MalformedFact();
        assembly ("memory-safe") {
            fact := add(encoded.offset, 32)
        }
    }

    /// @dev The fact's token, at a position that counts the prompt and then the output.
    function _tokenAt(Statement calldata statement, Fact calldata fact, uint256 position)
        private
        pure
        returns (uint256)
    {
        TokenOpening calldata opening = fact.tokens[0];
        uint256 nPrompt = statement.nPrompt;
        return position < nPrompt
            ? Evidence.token(opening, statement.promptRoot, nPrompt, position)
            : Evidence.token(opening, statement.outputRoot, statement.nOutput, position - nPrompt);
    }
}
