// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Evidence} from "./Evidence.sol";
import {IReferee, Statement, Step} from "./IReferee.sol";
import {LayerElements} from "./LayerElements.sol";
import {Manifest} from "./Manifest.sol";
import {Models} from "./Models.sol";
import {SampleReferee} from "./SampleReferee.sol";
import {TraceGeometry} from "./TraceGeometry.sol";

/// @title Recomputes one element of a trace from what the step shows: the referee's front.
/// @notice Holds nothing and owns nothing. The elements of embedding, layers and final norm are judged
///         here, those of draws, tokens and facts by `SampleReferee`.
contract StepReferee is IReferee {
    using TraceGeometry for TraceGeometry.Program;
    using Evidence for Evidence.Case;

    Models public immutable MODELS;
    SampleReferee public immutable SAMPLES;

    error TooLarge(uint256 count);

    constructor(SampleReferee samples) {
        SAMPLES = samples;
        MODELS = samples.MODELS();
    }

    /// @inheritdoc IReferee
    function convicts(Statement calldata statement, bytes32 traceRoot, bytes calldata encoded)
        external
        view
        returns (bool)
    {
        Step calldata step = Evidence.stepIn(encoded);
        if (step.op == TraceGeometry.TOKEN) return SAMPLES.convicts(statement, traceRoot, encoded);
        Evidence.Case memory c = Evidence.begin(MODELS, statement, traceRoot, step);
        (uint256 kind, uint256 layer) = c.program.kindOf(step.op);
        if (kind == TraceGeometry.SAMPLE) return SAMPLES.convicts(statement, traceRoot, encoded);
        LayerElements.Element memory e;
        (e.kind, e.layer, e.op, e.row, e.witness) = (kind, layer, step.op, step.row, step.witness);
        if (kind != TraceGeometry.EMBED && kind != TraceGeometry.FINAL) {
            e.entry = Manifest.layer(c.program.model, layer);
        }
        (e.segment, e.index, e.ptr, e.claimed) = c.takeElement(step);
        return LayerElements.isFalse(c, e);
    }

    /// @inheritdoc IReferee
    function factConvicts(Statement calldata statement, bytes calldata fact) external view returns (bool) {
        return SAMPLES.factConvicts(statement, fact);
    }

    /// @inheritdoc IReferee
    function samplingFlags(bytes32 modelId, bytes calldata sampler) external view returns (uint8) {
        return SAMPLES.samplingFlags(modelId, sampler);
    }

    /// @inheritdoc IReferee
    function opCount(bytes32 modelId, uint32 nPrompt, uint32 nOutput, uint8 flags) external view returns (uint32) {
        return _u32(_program(modelId, nPrompt, nOutput, flags).ops());
    }

    /// @inheritdoc IReferee
    function rowCount(bytes32 modelId, uint32 nPrompt, uint32 nOutput, uint8 flags, uint32 op)
        external
        view
        returns (uint32)
    {
        TraceGeometry.Program memory p = _program(modelId, nPrompt, nOutput, flags);
        return _u32(_has(p, op).rows(op));
    }

    /// @inheritdoc IReferee
    function chunkCount(bytes32 modelId, uint32 nPrompt, uint32 nOutput, uint8 flags, uint32 op, uint32 row)
        external
        view
        returns (uint32)
    {
        TraceGeometry.Program memory p = _program(modelId, nPrompt, nOutput, flags);
        return _u32(TraceGeometry.chunksOf(_has(p, op).spansOf(op, row)));
    }

    /// @inheritdoc IReferee
    function chunkLength(
        bytes32 modelId,
        uint32 nPrompt,
        uint32 nOutput,
        uint8 flags,
        uint32 op,
        uint32 row,
        uint32 chunk
    ) external view returns (uint32) {
        TraceGeometry.Program memory p = _program(modelId, nPrompt, nOutput, flags);
        uint256[] memory spans = _has(p, op).spansOf(op, row);
        TraceGeometry.Place memory place = TraceGeometry.placeOfChunk(spans, op, row, chunk);
        uint256 left = place.length * place.width - (chunk - place.firstChunk) * TraceGeometry.CHUNK;
        return left < TraceGeometry.CHUNK ? uint32(left) : uint32(TraceGeometry.CHUNK);
    }

    function _program(bytes32 modelId, uint32 nPrompt, uint32 nOutput, uint8 flags)
        private
        view
        returns (TraceGeometry.Program memory p)
    {
        p.model = Manifest.load(MODELS, modelId);
        (p.nPrompt, p.nOutput, p.flags) = (nPrompt, nOutput, flags);
    }

    /// @dev That the op is one of the trace's: the sampler's is only where it draws.
    function _has(TraceGeometry.Program memory p, uint256 op) private pure returns (TraceGeometry.Program memory) {
        if (op >= p.ops()) revert TraceGeometry.NoSuchOp(op);
        return p;
    }

    function _u32(uint256 count) private pure returns (uint32) {
        if (count > type(uint32).max) revert TooLarge(count);
        return uint32(count);
    }
}
