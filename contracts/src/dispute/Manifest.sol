// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Models} from "./Models.sol";

/// @title Reads what a step needs of a published manifest: `protocol::manifest`, a second time.
/// @notice Checks no bound: an id whose manifest breaks them is answered under by nobody honest, and
///         nothing read here concerns any other id.
/// @dev Everything before the layers stands at fixed offsets, a layer's entry has one size for an
///      architecture, and what follows the layers is found by walking past its two optional fields.
library Manifest {
    /// @dev Offsets in the head: the tag takes 21 bytes, the two versions 4.
    uint256 internal constant HEAD_BYTES = 68;
    /// @dev Offsets in a layer's entry.
    uint256 internal constant FRACTION_Q = 0;
    uint256 internal constant FRACTION_K = 1;
    uint256 internal constant FRACTION_V = 2;
    uint256 internal constant WINDOW = 3;
    uint256 internal constant ROPE = 7;
    uint256 internal constant ATTENTION_NORM = 8;
    uint256 internal constant Q = 53;
    uint256 internal constant K = 94;
    uint256 internal constant V = 135;
    uint256 internal constant O = 176;
    uint256 internal constant FFN_NORM = 217;
    uint256 internal constant GATE = 262;
    uint256 internal constant UP = 303;
    uint256 internal constant DOWN = 344;
    uint256 internal constant Q_NORM = 386;
    uint256 internal constant K_NORM = 431;
    uint256 internal constant ATTENTION_POST = 476;
    uint256 internal constant FFN_POST = 521;
    uint256 private constant LAYER_BYTES_LLAMA = 386;
    uint256 private constant LAYER_BYTES_GEMMA = 566;
    /// @dev Offsets in what follows the layers.
    uint256 internal constant FINAL_NORM = 0;
    uint256 internal constant EMBEDDING = 45;
    uint256 private constant HAS_HEAD = 86;
    uint256 private constant HEAD = 87;
    uint256 private constant MATRIX_BYTES = 41;
    /// @dev All that follows the layers, at its longest: 4 RoPE tables and 64 end tokens.
    uint256 private constant TAIL_BYTES_MOST = 653;
    uint256 private constant ROPE_TABLES_MOST = 4;
    uint256 private constant END_TOKENS_MOST = 64;
    uint256 private constant PIECE_BYTES = 24_575;

    error UnknownModel(bytes32 modelId);
    error Malformed();

    /// @notice Shapes, and where to read on.
    struct Model {
        address[] pieces;
        bool gemma;
        uint256 layers;
        uint256 width;
        uint256 heads;
        uint256 kvHeads;
        uint256 headDim;
        uint256 ffn;
        uint256 vocab;
        uint256 contextMax;
        int256 fraction;
        int256 scale;
        int256 scaleShift;
    }

    function load(Models models, bytes32 modelId) internal view returns (Model memory m) {
        m.pieces = models.piecesOf(modelId);
        if (m.pieces.length == 0) revert UnknownModel(modelId);
        uint256 head = copy(m, 0, HEAD_BYTES);
        uint256 architecture = u8(head, 25);
        if (architecture != 1 && architecture != 2) revert Malformed();
        m.gemma = architecture == 2;
        m.layers = u32(head, 26);
        m.width = u32(head, 30);
        m.heads = u32(head, 34);
        m.kvHeads = u32(head, 38);
        m.headDim = u32(head, 42);
        m.ffn = u32(head, 46);
        m.vocab = u32(head, 50);
        m.contextMax = u32(head, 54);
        m.fraction = int256(u8(head, 58));
        m.scale = int256(u32(head, 59));
        m.scaleShift = int256(u8(head, 63));
    }

    /// @notice A layer's entry, in memory.
    function layer(Model memory m, uint256 l) internal view returns (uint256) {
        uint256 size = _layerBytes(m);
        return copy(m, HEAD_BYTES + l * size, size);
    }

    /// @notice How many positions back a layer sees; 0 sees all.
    function windowOf(Model memory m, uint256 l) internal view returns (uint256) {
        return u32(copy(m, HEAD_BYTES + l * _layerBytes(m) + WINDOW, 4), 0);
    }

    /// @notice What follows the layers, in memory.
    function tail(Model memory m) internal view returns (uint256) {
        return copy(m, HEAD_BYTES + m.layers * _layerBytes(m), TAIL_BYTES_MOST);
    }

    /// @notice The head's entry: the embedding's where the two are tied.
    function headOf(uint256 ptr) internal pure returns (uint256) {
        return u8(ptr, HAS_HEAD) == 0 ? ptr + EMBEDDING : ptr + HEAD;
    }

    function expRoot(uint256 ptr) internal pure returns (bytes32) {
        return word(_tables(ptr), 0);
    }

    function actRoot(uint256 ptr) internal pure returns (bytes32) {
        return word(_tables(ptr), 32);
    }

    function ropeRoot(uint256 ptr, uint256 table) internal pure returns (bytes32) {
        uint256 tables = _tables(ptr);
        if (table >= u32(tables, 64)) revert Malformed();
        return word(tables, 68 + 32 * table);
    }

    /// @notice Whether a token ends an answer.
    function isEnd(uint256 ptr, uint256 token) internal pure returns (bool) {
        uint256 tables = _tables(ptr);
        uint256 count = u32(tables, 64);
        if (count > ROPE_TABLES_MOST) revert Malformed();
        // Past the tables, the hashes of tokenizer and chat template, and the optional first token.
        uint256 ends = tables + 68 + 32 * count + 64;
        ends += u8(ends, 0) == 0 ? 1 : 5;
        count = u32(ends, 0);
        if (count > END_TOKENS_MOST) revert Malformed();
        for (uint256 i = 0; i < count; ++i) {
            if (u32(ends, 4 + 4 * i) == token) return true;
        }
        return false;
    }

    // ---------------------------------------------------------------- entries

    /// @notice `sh` of a matrix's entry.
    function shOf(uint256 entry) internal pure returns (int256) {
        return int256(u8(entry, 8));
    }

    /// @notice Root over a matrix's rows.
    function rowsRoot(uint256 entry) internal pure returns (bytes32) {
        return word(entry, 9);
    }

    /// @notice `fs` of a norm's entry.
    function fsOf(uint256 entry) internal pure returns (int256) {
        return int256(u8(entry, 4));
    }

    function epsOf(uint256 entry) internal pure returns (uint256) {
        return uint256(word(entry, 5)) >> 192;
    }

    /// @notice Root over a norm's gains.
    function gainsRoot(uint256 entry) internal pure returns (bytes32) {
        return word(entry, 13);
    }

    // ---------------------------------------------------------------- bytes

    /// @notice `length` bytes of the manifest from `ptr` on; zeros beyond its end.
    function copy(Model memory m, uint256 ptr, uint256 length) internal view returns (uint256 into) {
        assembly ("memory-safe") {
            into := mload(0x40)
            // A word more, so that reading the last field by a whole word stays inside; whole words,
            // so that the free pointer stays aligned.
            mstore(0x40, add(into, and(add(length, 63), not(31))))
        }
        uint256 to = into;
        while (length > 0) {
            uint256 piece = ptr / PIECE_BYTES;
            uint256 offset = ptr % PIECE_BYTES;
            uint256 part = PIECE_BYTES - offset < length ? PIECE_BYTES - offset : length;
            address code = piece < m.pieces.length ? m.pieces[piece] : address(0);
            assembly ("memory-safe") {
                // The code's first byte is a STOP. An address without code copies zeros.
                extcodecopy(code, to, add(offset, 1), part)
            }
            (to, ptr, length) = (to + part, ptr + part, length - part);
        }
    }

    function u8(uint256 ptr, uint256 offset) internal pure returns (uint256) {
        return uint256(word(ptr, offset)) >> 248;
    }

    function i8(uint256 ptr, uint256 offset) internal pure returns (int256) {
        return int256(uint256(word(ptr, offset))) >> 248;
    }

    function u32(uint256 ptr, uint256 offset) internal pure returns (uint256) {
        return uint256(word(ptr, offset)) >> 224;
    }

    function word(uint256 ptr, uint256 offset) internal pure returns (bytes32 value) {
        assembly ("memory-safe") {
            value := mload(add(ptr, offset))
        }
    }

    function _tables(uint256 ptr) private pure returns (uint256) {
        return ptr + HEAD + (u8(ptr, HAS_HEAD) == 0 ? 0 : MATRIX_BYTES);
    }

    function _layerBytes(Model memory m) private pure returns (uint256) {
        return m.gemma ? LAYER_BYTES_GEMMA : LAYER_BYTES_LLAMA;
    }
}
