// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Manifest} from "./Manifest.sol";

/// @title Where every element of a trace lies: `protocol::trace::Program`, a second time.
/// @notice Follows from a manifest's shapes, two counts and what the sampler does. Judges nothing.
/// @dev Shapes, counts and flags are below 2^32 each, as they are read from as many bits. A length is a
///      product of at most three of them and a constant below 2^8, so it is below 2^104, a vector's
///      chunks are below 2^110, and what is unchecked here cannot overflow. Dividing by zero reverts.
library TraceGeometry {
    uint256 internal constant BLOCK = 128;
    uint256 internal constant CHUNK = 256;
    uint256 internal constant IDS_BLOCK = 256;
    uint256 internal constant SQUARES_BLOCK = 64;
    uint256 internal constant SEARCH_BITS = 28;
    /// @dev The op of a claim about the statement's tokens.
    uint256 internal constant TOKEN = type(uint32).max;

    /// @dev Kinds of op.
    uint256 internal constant EMBED = 0;
    uint256 internal constant PROJECT = 1;
    uint256 internal constant COLUMNS_OP = 2;
    uint256 internal constant LAYER = 3;
    uint256 internal constant FINAL = 4;
    uint256 internal constant SAMPLE = 5;

    /// @dev Bits of `flags`.
    uint256 internal constant DRAWN = 1;
    uint256 internal constant TOP_K = 2;
    uint256 internal constant TOP_P = 4;

    /// @dev Segments. A segment's number decides its width (`_WIDTHS`).
    uint256 internal constant RESIDUAL = 0;
    uint256 internal constant SQUARES = 1;
    uint256 internal constant PEAK = 2;
    uint256 internal constant X12 = 3;
    uint256 internal constant QKV = 4;
    uint256 internal constant HEAD_SQUARES = 5;
    uint256 internal constant Q = 6;
    uint256 internal constant K = 7;
    uint256 internal constant V = 8;
    uint256 internal constant COLUMNS = 9;
    uint256 internal constant SEEN = 10;
    uint256 internal constant EXPS = 11;
    uint256 internal constant SUMS = 12;
    uint256 internal constant MIXES = 13;
    uint256 internal constant MIX_PEAK = 14;
    uint256 internal constant MIX_X12 = 15;
    uint256 internal constant BRANCH = 16;
    uint256 internal constant POST_SQUARES = 17;
    uint256 internal constant MIDDLE = 18;
    uint256 internal constant FFN_SQUARES = 19;
    uint256 internal constant FFN_PEAK = 20;
    uint256 internal constant FFN_X12 = 21;
    uint256 internal constant GATE_UP = 22;
    uint256 internal constant ACT_PEAK = 23;
    uint256 internal constant ACT_X12 = 24;
    uint256 internal constant DOWN = 25;
    uint256 internal constant DOWN_SQUARES = 26;
    uint256 internal constant LOGITS = 27;
    uint256 internal constant TOP = 28;
    uint256 internal constant WEIGHTS = 29;
    uint256 internal constant TOTALS = 30;
    uint256 internal constant COUNT_SEARCH = 31;
    uint256 internal constant SUM_SEARCH = 32;
    uint256 internal constant KEPT = 33;

    /// @dev A nibble a segment, the first in the lowest: log2 of its width; 4 more for `i16`, 8 more
    ///      for what is read unsigned (sums of squares fill 64 bits).
    uint256 private constant _WIDTHS = 0x3333a32b253253b2b25323935555b253b2;

    /// @notice A statement's pass. `flags` counts only where the op is, or comes before, a sampler's.
    struct Program {
        Manifest.Model model;
        uint256 nPrompt;
        uint256 nOutput;
        uint256 flags;
    }

    /// @notice A segment and where it lies in its vector.
    struct Place {
        uint256 segment;
        /// Bytes of an element.
        uint256 width;
        /// Elements.
        uint256 length;
        uint256 firstChunk;
        /// Chunks of the whole vector.
        uint256 chunks;
    }

    error NoSuchOp(uint256 op);
    error NoSuchRow(uint256 op, uint256 row);
    error NoSuchChunk(uint256 op, uint256 row, uint256 chunk);
    error NoSuchSegment(uint256 op, uint256 segment);

    /// @notice Tokens that the pass runs: the last output token is never run.
    function tokens(Program memory p) internal pure returns (uint256) {
        unchecked {
            uint256 all = p.nPrompt + p.nOutput;
            return all == 0 ? 0 : all - 1;
        }
    }

    function ops(Program memory p) internal pure returns (uint256) {
        return 2 + 3 * p.model.layers + (p.flags & DRAWN);
    }

    /// @notice What an op is, and of which layer. `Sample` is answered whether or not the sampler draws.
    function kindOf(Program memory p, uint256 op) internal pure returns (uint256 kind, uint256 layer) {
        unchecked {
            uint256 layered = 3 * p.model.layers;
            if (op == 0) return (EMBED, 0);
            if (op <= layered) return (PROJECT + (op - 1) % 3, (op - 1) / 3);
            if (op == layered + 1) return (FINAL, p.model.layers);
            if (op == layered + 2) return (SAMPLE, p.model.layers);
            revert NoSuchOp(op);
        }
    }

    /// @notice Rows of an op.
    function rows(Program memory p, uint256 op) internal pure returns (uint256) {
        (uint256 kind,) = kindOf(p, op);
        if (kind >= FINAL) return p.nOutput;
        return kind == COLUMNS_OP ? _ceil(tokens(p), BLOCK) : tokens(p);
    }

    /// @notice The op in which the residual stands that enters a layer, or the final norm.
    function residualBefore(uint256 layer) internal pure returns (uint256) {
        return 3 * layer;
    }

    /// @notice The first position that a token at `row` sees.
    function firstSeen(uint256 row, uint256 window) internal pure returns (uint256) {
        return window == 0 || row + 1 < window ? 0 : row + 1 - window;
    }

    /// @notice Blocks of positions that a token at `row` sees: the first, and how many.
    function blocksSeen(uint256 row, uint256 window) internal pure returns (uint256 first, uint256 count) {
        first = firstSeen(row, window) / BLOCK;
        count = row / BLOCK + 1 - first;
    }

    /// @notice Blocks over which a vector's squares are summed.
    function squaresOf(uint256 n) internal pure returns (uint256) {
        return _ceil(n, SQUARES_BLOCK);
    }

    /// @notice Blocks of ids that the vocabulary takes.
    function idBlocks(Program memory p) internal pure returns (uint256) {
        return _ceil(p.model.vocab, IDS_BLOCK);
    }

    /// @notice The segments of a leaf in order, each `segment | firstChunk << 8 | length << 128`; before
    ///         them, at index 0, the leaf's number of chunks.
    function spansOf(Program memory p, uint256 op, uint256 row) internal view returns (uint256[] memory spans) {
        if (row >= rows(p, op)) revert NoSuchRow(op, row);
        (uint256 kind, uint256 layer) = kindOf(p, op);
        Manifest.Model memory m = p.model;
        spans = new uint256[](19);
        uint256 n = 1;
        if (kind == EMBED) {
            n = _put(spans, n, RESIDUAL, m.width);
        } else if (kind == PROJECT) {
            n = _putNormed(spans, n, SQUARES, m.width);
            n = _putHeads(spans, n, m);
        } else if (kind == COLUMNS_OP) {
            n = _put(spans, n, COLUMNS, m.kvHeads * m.headDim * BLOCK);
        } else if (kind == LAYER) {
            (, uint256 blocks) = blocksSeen(row, Manifest.windowOf(m, layer));
            n = _putAttention(spans, n, m, blocks);
            n = _putMlp(spans, n, m);
        } else if (kind == FINAL) {
            n = _putNormed(spans, n, SQUARES, m.width);
        } else {
            n = _putSample(spans, n, p);
        }
        assembly ("memory-safe") {
            mstore(spans, n)
        }
    }

    /// @notice Where a segment lies among a leaf's.
    function placeOf(uint256[] memory spans, uint256 op, uint256 segment) internal pure returns (Place memory) {
        uint256 span;
        bool found;
        assembly ("memory-safe") {
            // The first word is their number, the next the leaf's number of chunks.
            let ptr := add(spans, 64)
            for { let end := add(ptr, shl(5, sub(mload(spans), 1))) } lt(ptr, end) { ptr := add(ptr, 32) } {
                span := mload(ptr)
                if eq(and(span, 255), segment) {
                    found := 1
                    break
                }
            }
        }
        if (!found) revert NoSuchSegment(op, segment);
        return _place(spans, span);
    }

    /// @notice In which segment a chunk lies.
    function placeOfChunk(uint256[] memory spans, uint256 op, uint256 row, uint256 chunk)
        internal
        pure
        returns (Place memory)
    {
        if (chunk >= spans[0]) revert NoSuchChunk(op, row, chunk);
        // The last segment that begins at or before the chunk; an empty one begins where the next does.
        uint256 span;
        assembly ("memory-safe") {
            let ptr := add(spans, shl(5, mload(spans)))
            // The first span begins at 0, where this ends at the latest.
            for { span := mload(ptr) } gt(and(shr(8, span), 0xffffffffffffffffffffffffffffff), chunk) {} {
                ptr := sub(ptr, 32)
                span := mload(ptr)
            }
        }
        return _place(spans, span);
    }

    function _place(uint256[] memory spans, uint256 span) private pure returns (Place memory place) {
        place.segment = span & 255;
        place.width = widthOf(span & 255);
        place.length = span >> 128;
        place.firstChunk = _firstOf(span);
        place.chunks = spans[0];
    }

    function _firstOf(uint256 span) private pure returns (uint256) {
        return (span >> 8) & (type(uint256).max >> 136);
    }

    /// @notice Chunks of a leaf.
    function chunksOf(uint256[] memory spans) internal pure returns (uint256) {
        return spans[0];
    }

    /// @notice Bytes of an element.
    function widthOf(uint256 segment) internal pure returns (uint256) {
        unchecked {
            return 1 << ((_WIDTHS >> (4 * segment)) & 3);
        }
    }

    /// @notice Whether a segment's elements may be shown as 12 bits.
    function isShort(uint256 segment) internal pure returns (bool) {
        return (_WIDTHS >> (4 * segment)) & 4 != 0;
    }

    function isUnsigned(uint256 segment) internal pure returns (bool) {
        return (_WIDTHS >> (4 * segment)) & 8 != 0;
    }

    // ---------------------------------------------------------------- the table of docs/dispute.md

    function _putNormed(uint256[] memory spans, uint256 n, uint256 squares, uint256 width)
        private
        pure
        returns (uint256)
    {
        // A norm's squares, peak and x12 stand together wherever there are some.
        n = _put(spans, n, squares, squaresOf(width));
        n = _put(spans, n, squares + 1, 2);
        return _put(spans, n, squares + 2, width);
    }

    function _putHeads(uint256[] memory spans, uint256 n, Manifest.Model memory m) private pure returns (uint256) {
        (uint256 q, uint256 kv) = (m.heads * m.headDim, m.kvHeads * m.headDim);
        n = _put(spans, n, QKV, q + 2 * kv);
        if (m.gemma) n = _put(spans, n, HEAD_SQUARES, (m.heads + m.kvHeads) * squaresOf(m.headDim));
        n = _put(spans, n, Q, q);
        n = _put(spans, n, K, kv);
        return _put(spans, n, V, kv);
    }

    function _putAttention(uint256[] memory spans, uint256 n, Manifest.Model memory m, uint256 blocks)
        private
        pure
        returns (uint256)
    {
        uint256 q = m.heads * m.headDim;
        n = _put(spans, n, SEEN, 2 * m.heads);
        n = _put(spans, n, EXPS, m.heads * blocks * BLOCK);
        n = _put(spans, n, SUMS, m.heads * blocks);
        n = _put(spans, n, MIXES, blocks * q);
        n = _put(spans, n, MIX_PEAK, 2);
        n = _put(spans, n, MIX_X12, q);
        n = _put(spans, n, BRANCH, m.width);
        if (m.gemma) n = _put(spans, n, POST_SQUARES, squaresOf(m.width));
        return _put(spans, n, MIDDLE, m.width);
    }

    function _putMlp(uint256[] memory spans, uint256 n, Manifest.Model memory m) private pure returns (uint256) {
        n = _putNormed(spans, n, FFN_SQUARES, m.width);
        n = _put(spans, n, GATE_UP, 2 * m.ffn);
        n = _put(spans, n, ACT_PEAK, 2);
        n = _put(spans, n, ACT_X12, m.ffn);
        n = _put(spans, n, DOWN, m.width);
        if (m.gemma) n = _put(spans, n, DOWN_SQUARES, squaresOf(m.width));
        return _put(spans, n, RESIDUAL, m.width);
    }

    function _putSample(uint256[] memory spans, uint256 n, Program memory p) private pure returns (uint256) {
        uint256 blocks = idBlocks(p);
        n = _put(spans, n, LOGITS, p.model.vocab);
        n = _put(spans, n, TOP, 2);
        n = _put(spans, n, WEIGHTS, p.model.vocab);
        n = _put(spans, n, TOTALS, blocks);
        if (p.flags & TOP_K != 0) n = _put(spans, n, COUNT_SEARCH, SEARCH_BITS * (blocks + 1));
        if (p.flags & TOP_P != 0) n = _put(spans, n, SUM_SEARCH, SEARCH_BITS * (blocks + 1));
        return _put(spans, n, KEPT, blocks);
    }

    function _put(uint256[] memory spans, uint256 n, uint256 segment, uint256 length) private pure returns (uint256) {
        unchecked {
            uint256 first = spans[0];
            spans[n] = segment | (first << 8) | (length << 128);
            spans[0] = first + (length * widthOf(segment) + CHUNK - 1) / CHUNK;
            return n + 1;
        }
    }

    function _ceil(uint256 a, uint256 b) private pure returns (uint256) {
        unchecked {
            return (a + b - 1) / b;
        }
    }
}
