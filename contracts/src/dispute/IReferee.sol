// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

/// @notice What a receipt claims: `protocol::Statement`, as it stands in the signed typed data.
struct Statement {
    bytes32 modelId;
    bytes32 promptRoot;
    uint32 nPrompt;
    bytes32 samplerHash;
    bytes32 outputRoot;
    uint32 nOutput;
    uint8 stopReason;
}

/// @notice A contiguous range of chunks of the leaf `(op, row)`, from chunk `first` on.
struct Opening {
    uint32 op;
    uint32 row;
    uint32 first;
    /// 0: the chunks' bytes. 1: `i16`s as 12-bit two's complement, or 8 where sixteen of them fit.
    uint8 packing;
    bytes data;
    /// Prove the range within the vector.
    bytes32[] siblings;
    /// Prove the leaf within the trace; empty where an earlier opening of the step is of this leaf.
    bytes32[] path;
}

/// @notice A weight row: `A`, then the weights in one of five packings.
struct Row {
    uint8 format;
    bytes data;
    bytes32[] path;
}

/// @notice An entry of a table or of a norm's gains.
struct Entry {
    bytes data;
    bytes32[] path;
}

/// @notice A token of the statement's prompt or output.
struct TokenOpening {
    uint32 token;
    bytes32[] path;
}

/// @notice The element that is false, and all that it is made of, in the order of docs/dispute.md.
struct Step {
    uint32 op;
    uint32 row;
    uint32 chunk;
    uint32 slot;
    uint64 witness;
    Opening[] openings;
    Row[] rows;
    Entry[] entries;
    TokenOpening[] tokens;
    bytes sampler;
}

/// @notice A statement that is false whatever the pass computes.
struct Fact {
    uint8 kind;
    /// Of an output token (4 PastTheEnd), or of the prompt then the output (8 UnknownToken).
    uint32 position;
    TokenOpening[] tokens;
    bytes sampler;
}

/// @title Recomputes one element, and says whether it convicts.
/// @notice Whatever does not verify reverts and proves nothing. Nothing here reads or writes state
///         but the manifests that `Models` holds.
interface IReferee {
    /// @notice Whether `step`, an `abi.encode(Step)`, shows a false element of the trace under
    ///         `traceRoot`, or a token that the trace does not choose.
    function convicts(Statement calldata statement, bytes32 traceRoot, bytes calldata step) external view returns (bool);

    /// @notice Whether `fact`, an `abi.encode(Fact)`, shows the statement false by itself.
    /// @dev Kinds: 1 TooManyTokens, 2 NotAtTheLimit, 3 NotEnded, 4 PastTheEnd, 5 EndedOtherwise,
    ///      6 NoStopString, 7 Context, 8 UnknownToken, 9 Empty.
    function factConvicts(Statement calldata statement, bytes calldata fact) external view returns (bool);

    /// @notice Bit 0: a temperature. Bit 1: top-k active. Bit 2: top-p active. 0 for greedy. `sampler`
    ///         is the canonical bytes; whether they hash to the statement's is the caller's to check.
    function samplingFlags(bytes32 modelId, bytes calldata sampler) external view returns (uint8 flags);

    /// @notice Ops of the trace.
    function opCount(bytes32 modelId, uint32 nPrompt, uint32 nOutput, uint8 flags) external view returns (uint32);

    /// @notice Rows of an op.
    function rowCount(bytes32 modelId, uint32 nPrompt, uint32 nOutput, uint8 flags, uint32 op)
        external
        view
        returns (uint32);

    /// @notice Chunks of the vector of leaf `(op, row)`.
    function chunkCount(bytes32 modelId, uint32 nPrompt, uint32 nOutput, uint8 flags, uint32 op, uint32 row)
        external
        view
        returns (uint32);

    /// @notice Bytes of one chunk: 256, or fewer at a segment's end.
    function chunkLength(
        bytes32 modelId,
        uint32 nPrompt,
        uint32 nOutput,
        uint8 flags,
        uint32 op,
        uint32 row,
        uint32 chunk
    ) external view returns (uint32);
}
