// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Entry, Opening, Row, Statement, Step, TokenOpening} from "./IReferee.sol";
import {Lanes} from "./Lanes.sol";
import {Manifest} from "./Manifest.sol";
import {Models} from "./Models.sol";
import {TraceGeometry} from "./TraceGeometry.sol";
import {Trees} from "./Trees.sol";

/// @title What a step shows, taken in the order in which docs/dispute.md names it.
/// @notice Every value that leaves this file was proven under the trace's root, the model's or the
///         statement's; whatever does not verify reverts. Judges nothing.
/// @dev Which opening, row or entry comes next is the taker's to say, and each must be exactly the one
///      that is asked for: the step chooses no index. What nobody takes is not read.
library Evidence {
    using TraceGeometry for TraceGeometry.Program;

    /// @notice A step in the course of being judged.
    struct Case {
        TraceGeometry.Program program;
        bytes32 promptRoot;
        bytes32 outputRoot;
        bytes32 traceRoot;
        /// Ops of the trace; 0 until the first opening shows it, where the sampler is not known.
        uint256 ops;
        /// Where the step stands in calldata.
        uint256 step;
        uint256 openings;
        uint256 rows;
        uint256 entries;
        uint256 tokens;
        /// Leaves that were proven: `op << 32 | row` and the hash, in turn.
        uint256[] leaves;
        /// The spans of the leaf in question, and of the other leaf that was asked for last; each by
        /// `1 + (op << 32 | row)`.
        uint256 own;
        uint256[] ownSpans;
        uint256 other;
        uint256[] otherSpans;
    }

    error MalformedStep();
    error NoSuchSlot(uint256 slot, uint256 count);
    error TooMuch(uint256 most);
    error WrongOpening(uint256 index, uint256 op, uint256 row, uint256 first);
    error WrongPacking(uint256 index, uint256 packing);
    error WrongLength(uint256 length, uint256 expected);
    error NotInTrace(uint256 index);
    error NotInModel(uint256 root);
    error NotInStatement(uint256 token);
    error OutsideSegment(uint256 segment, uint256 element);

    /// @dev Proven leaves that a case has room for: the most openings that an element takes is 6.
    uint256 private constant LEAVES_MOST = 16;

    function begin(Models models, Statement calldata statement, bytes32 traceRoot, Step calldata step)
        internal
        view
        returns (Case memory c)
    {
        c.program.model = Manifest.load(models, statement.modelId);
        c.program.nPrompt = statement.nPrompt;
        c.program.nOutput = statement.nOutput;
        c.promptRoot = statement.promptRoot;
        c.outputRoot = statement.outputRoot;
        c.traceRoot = traceRoot;
        c.leaves = new uint256[](2 * LEAVES_MOST);
        uint256 ptr;
        assembly ("memory-safe") {
            ptr := step
        }
        c.step = ptr;
    }

    /// @notice The step within `abi.encode(Step)`.
    /// @dev A calldata struct needs no decoding: every access to one of its dynamic fields checks that
    ///      it lies within calldata. Reading past the encoding, into other arguments, is possible and
    ///      harmless, as nothing read is believed before it is proven.
    function stepIn(bytes calldata encoded) internal pure returns (Step calldata step) {
        if (encoded.length < 11 * 32 || uint256(bytes32(encoded)) != 32) revert MalformedStep();
        assembly ("memory-safe") {
            step := add(encoded.offset, 32)
        }
    }

    function stepOf(Case memory c) internal pure returns (Step calldata step) {
        uint256 ptr = c.step;
        assembly ("memory-safe") {
            step := ptr
        }
    }

    // ---------------------------------------------------------------- of the trace

    /// @notice Where a segment of a leaf lies.
    function placeOf(Case memory c, uint256 op, uint256 row, uint256 segment)
        internal
        view
        returns (TraceGeometry.Place memory)
    {
        return TraceGeometry.placeOf(spansOf(c, op, row), op, segment);
    }

    function spansOf(Case memory c, uint256 op, uint256 row) internal view returns (uint256[] memory) {
        uint256 key = 1 + ((op << 32) | row);
        if (c.own == key) return c.ownSpans;
        if (c.other == key) return c.otherSpans;
        uint256[] memory spans = c.program.spansOf(op, row);
        if (c.own == 0) (c.own, c.ownSpans) = (key, spans);
        else (c.other, c.otherSpans) = (key, spans);
        return spans;
    }

    /// @notice Takes the next opening, which must be the fewest chunks that hold `count` elements from
    ///         `index` on, and answers where the first of these elements stands in memory.
    function take(Case memory c, uint256 op, uint256 row, uint256 segment, uint256 index, uint256 count)
        internal
        view
        returns (uint256 ptr)
    {
        TraceGeometry.Place memory place = placeOf(c, op, row, segment);
        if (count == 0 || index + count > place.length) revert OutsideSegment(segment, index);
        unchecked {
            // Within the segment, of which a byte's number is below 2^110 (TraceGeometry).
            uint256 start = index * place.width;
            uint256 from = start / TraceGeometry.CHUNK;
            uint256 end = start + count * place.width + TraceGeometry.CHUNK - 1;
            end -= end % TraceGeometry.CHUNK;
            if (end > place.length * place.width) end = place.length * place.width;
            uint256 skipped = start - from * TraceGeometry.CHUNK;
            ptr = _open(c, (op << 32) | row, place, from, end - from * TraceGeometry.CHUNK) + skipped;
        }
    }

    /// @notice Takes the chunk in question, and the element in it that the step names: its segment, its
    ///         index there, where it stands in memory, and what it is claimed to be.
    function takeElement(Case memory c, Step calldata step)
        internal
        view
        returns (uint256 segment, uint256 index, uint256 ptr, int256 claimed)
    {
        TraceGeometry.Place memory place =
            TraceGeometry.placeOfChunk(spansOf(c, step.op, step.row), step.op, step.row, step.chunk);
        uint256 perChunk = TraceGeometry.CHUNK / place.width;
        if (step.slot >= perChunk) revert NoSuchSlot(step.slot, perChunk);
        segment = place.segment;
        index = (step.chunk - place.firstChunk) * perChunk + step.slot;
        ptr = take(c, step.op, step.row, segment, index, 1);
        claimed = elementAt(segment, ptr, 0);
    }

    /// @dev `from` counts the segment's chunks. Answers where the range's bytes stand.
    function _open(Case memory c, uint256 leaf, TraceGeometry.Place memory place, uint256 from, uint256 length)
        private
        pure
        returns (uint256 data)
    {
        uint256 index = c.openings++;
        Opening calldata opening = stepOf(c).openings[index];
        uint256 first = place.firstChunk + from;
        if (((uint256(opening.op) << 32) | opening.row) != leaf || opening.first != first) {
            revert WrongOpening(index, leaf >> 32, leaf & type(uint32).max, first);
        }
        data = _bytes(opening, index, length, TraceGeometry.isShort(place.segment));
        bytes32 hash = Trees.rangeRootOf(data, length, first, place.chunks, opening.siblings);
        _prove(c, leaf, hash, opening.path, index);
    }

    /// @dev The opening's bytes in memory, with room before and after for what works on whole words.
    function _bytes(Opening calldata opening, uint256 index, uint256 length, bool short)
        private
        pure
        returns (uint256 data)
    {
        bytes calldata shown = opening.data;
        uint256 packing = opening.packing;
        data = allocate(length);
        if (packing == 0) {
            if (shown.length != length) revert WrongLength(shown.length, length);
            assembly ("memory-safe") {
                calldatacopy(data, shown.offset, length)
            }
        } else {
            if (packing != 1 || !short) revert WrongPacking(index, packing);
            Lanes.unpack12(shown, length / 2, data);
        }
    }

    /// @dev That a leaf with this hash stands in the trace: once by its path, then by comparison.
    function _prove(Case memory c, uint256 leaf, bytes32 hash, bytes32[] calldata path, uint256 index) private pure {
        for (uint256 i = 0; i < 2 * index && i < 2 * LEAVES_MOST; i += 2) {
            if (c.leaves[i] != leaf) continue;
            if (path.length != 0) revert Trees.WrongPath(path.length, 0);
            if (c.leaves[i + 1] != uint256(hash)) revert NotInTrace(index);
            c.leaves[2 * index] = leaf;
            c.leaves[2 * index + 1] = uint256(hash);
            return;
        }
        if (index >= LEAVES_MOST) revert TooMuch(LEAVES_MOST);
        (uint256 op, uint256 row) = (leaf >> 32, leaf & type(uint32).max);
        uint256 rows = c.program.rows(op);
        uint256 depth = Trees.depthOf(rows);
        if (path.length < depth) revert Trees.WrongPath(path.length, depth);
        bytes32 opRoot = Trees.rootOf(hash, row, rows, path, 0);
        if (c.ops != 0) {
            if (!_inTrace(c, opRoot, op, c.ops, path, depth)) revert NotInTrace(index);
        } else if (_inTrace(c, opRoot, op, 2 + 3 * c.program.model.layers, path, depth)) {
            c.ops = 2 + 3 * c.program.model.layers;
        } else {
            // With the sampler's op or without: the root binds one count, so that only one can verify.
            if (!_inTrace(c, opRoot, op, 3 + 3 * c.program.model.layers, path, depth)) revert NotInTrace(index);
            c.ops = 3 + 3 * c.program.model.layers;
        }
        c.leaves[2 * index] = leaf;
        c.leaves[2 * index + 1] = uint256(hash);
    }

    function _inTrace(Case memory c, bytes32 opRoot, uint256 op, uint256 ops, bytes32[] calldata path, uint256 from)
        private
        pure
        returns (bool)
    {
        if (op >= ops || path.length != from + Trees.depthOf(ops)) return false;
        return Trees.rootOf(opRoot, op, ops, path, from) == c.traceRoot;
    }

    // ---------------------------------------------------------------- of the model

    /// @notice Takes the next weight row, which must be row `index` of the matrix with this root over
    ///         `count` rows: its A, and where its `cols` weights stand in memory, 16 bits each.
    function takeRow(Case memory c, bytes32 root, uint256 count, uint256 index, uint256 cols)
        internal
        pure
        returns (int256 a, uint256 weights)
    {
        Row calldata row = stepOf(c).rows[c.rows++];
        bytes calldata data = row.data;
        // Before the weights, A as the leaf has it.
        uint256 leaf = allocate(2 * cols + 2);
        weights = leaf + 2;
        Lanes.unpackWeights(row.format, data[2:], cols, weights);
        assembly ("memory-safe") {
            calldatacopy(leaf, data.offset, 2)
            a := shr(240, mload(leaf))
        }
        if (!Trees.opens(root, Trees.leafOf(leaf, 2 * cols + 2), count, index, row.path)) {
            revert NotInModel(uint256(root));
        }
    }

    /// @notice Takes the next entry, which must be number `index` of the table with this root over
    ///         `count` entries of `length` bytes each, and answers where it stands in memory.
    function takeEntry(Case memory c, bytes32 root, uint256 count, uint256 index, uint256 length)
        internal
        pure
        returns (uint256 ptr)
    {
        Entry calldata entry = stepOf(c).entries[c.entries++];
        bytes calldata data = entry.data;
        if (data.length != length) revert WrongLength(data.length, length);
        ptr = allocate(length);
        assembly ("memory-safe") {
            calldatacopy(ptr, data.offset, length)
        }
        if (!Trees.opens(root, Trees.leafOf(ptr, length), count, index, entry.path)) {
            revert NotInModel(uint256(root));
        }
    }

    /// @notice Takes a gain: entry `index` of a norm's.
    function takeGain(Case memory c, uint256 norm, uint256 count, uint256 index) internal pure returns (int256) {
        return i32At(takeEntry(c, Manifest.gainsRoot(norm), count, index, 4), 0);
    }

    /// @notice Takes an entry of EXP or ACT.
    function takeValue(Case memory c, bytes32 root, uint256 count, uint256 index) internal pure returns (int256) {
        return int256(u16At(takeEntry(c, root, count, index, 2), 0));
    }

    // ---------------------------------------------------------------- of the statement

    /// @notice Takes the token that the pass runs at `row`: of the prompt, then of the output.
    function takeToken(Case memory c, uint256 row) internal pure returns (uint256) {
        TokenOpening calldata opening = stepOf(c).tokens[c.tokens++];
        return row < c.program.nPrompt
            ? token(opening, c.promptRoot, c.program.nPrompt, row)
            : token(opening, c.outputRoot, c.program.nOutput, row - c.program.nPrompt);
    }

    /// @notice The token at `index` of the list with this root.
    function token(TokenOpening calldata opening, bytes32 root, uint256 count, uint256 index)
        internal
        pure
        returns (uint256 id)
    {
        id = opening.token;
        bytes32 leaf = keccak256(abi.encodePacked(bytes1(0), uint32(id)));
        if (!Trees.opens(root, leaf, count, index, opening.path)) revert NotInStatement(id);
    }

    // ---------------------------------------------------------------- memory

    /// @notice Room for `length` bytes, and a word before and after them that others may change.
    function allocate(uint256 length) internal pure returns (uint256 ptr) {
        assembly ("memory-safe") {
            ptr := add(mload(0x40), 32)
            mstore(0x40, add(ptr, and(add(length, 95), not(31))))
        }
    }

    /// @notice Element `i` of a segment's, from where `take` answered.
    function elementAt(uint256 segment, uint256 ptr, uint256 i) internal pure returns (int256 value) {
        uint256 width = TraceGeometry.widthOf(segment);
        bool unsigned = TraceGeometry.isUnsigned(segment);
        assembly ("memory-safe") {
            let bits := sub(256, shl(3, width))
            value := mload(add(ptr, mul(i, width)))
            switch unsigned
            case 0 { value := sar(bits, value) }
            default { value := shr(bits, value) }
        }
    }

    function i16At(uint256 ptr, uint256 i) internal pure returns (int256 value) {
        assembly ("memory-safe") {
            value := sar(240, mload(add(ptr, shl(1, i))))
        }
    }

    function u16At(uint256 ptr, uint256 i) internal pure returns (uint256 value) {
        assembly ("memory-safe") {
            value := shr(240, mload(add(ptr, shl(1, i))))
        }
    }

    function i32At(uint256 ptr, uint256 i) internal pure returns (int256 value) {
        assembly ("memory-safe") {
            value := sar(224, mload(add(ptr, shl(2, i))))
        }
    }

    function u32At(uint256 ptr, uint256 i) internal pure returns (uint256 value) {
        assembly ("memory-safe") {
            value := shr(224, mload(add(ptr, shl(2, i))))
        }
    }

    function i64At(uint256 ptr, uint256 i) internal pure returns (int256 value) {
        assembly ("memory-safe") {
            value := sar(192, mload(add(ptr, shl(3, i))))
        }
    }

    function u64At(uint256 ptr, uint256 i) internal pure returns (uint256 value) {
        assembly ("memory-safe") {
            value := shr(192, mload(add(ptr, shl(3, i))))
        }
    }
}
