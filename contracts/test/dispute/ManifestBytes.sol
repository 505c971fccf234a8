// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

/// @title Writes manifests as `protocol::manifest` does, for tests that need a model.
library ManifestBytes {
    struct Shape {
        bool gemma;
        uint256 layers;
        uint256 width;
        uint256 heads;
        uint256 kvHeads;
        uint256 headDim;
        uint256 ffn;
        uint256 vocab;
        uint256 context;
        /// Of the even layers; the odd ones see all.
        uint256 window;
        bool tied;
        /// Layers take them in turn.
        uint256 ropeTables;
        bool bos;
    }

    /// @dev Matrices: q, k, v, o, gate, up, down, embedding, head; norms: attention, ffn, q, k,
    ///      attention post, ffn post, final. Every layer has the same.
    struct Roots {
        bytes32[9] matrices;
        bytes32[7] norms;
        bytes32 exp;
        bytes32 act;
        bytes32[4] ropes;
    }

    function tiny(bool gemma) internal pure returns (Shape memory) {
        return Shape(gemma, 1, 64, 4, 2, 32, 128, 300, 512, 0, false, 1, false);
    }

    function someRoots() internal pure returns (Roots memory r) {
        for (uint256 i = 0; i < 9; ++i) {
            r.matrices[i] = keccak256(abi.encode("matrix", i));
        }
        for (uint256 i = 0; i < 7; ++i) {
            r.norms[i] = keccak256(abi.encode("norm", i));
        }
        for (uint256 i = 0; i < 4; ++i) {
            r.ropes[i] = keccak256(abi.encode("rope", i));
        }
        (r.exp, r.act) = (keccak256("exp"), keccak256("act"));
    }

    /// @dev `sh` of matrix i is 20 + i; `fs` of norm i is 36 + i and its epsilon 6040 + i.
    function encode(Shape memory s, Roots memory r) internal pure returns (bytes memory out) {
        out = abi.encodePacked(uint32(17), "assay/manifest/v1", uint16(1), uint16(1), s.gemma ? uint8(2) : uint8(1));
        out = abi.encodePacked(
            out, uint32(s.layers), uint32(s.width), uint32(s.heads), uint32(s.kvHeads), uint32(s.headDim)
        );
        out = abi.encodePacked(out, uint32(s.ffn), uint32(s.vocab), uint32(s.context), s.gemma ? uint8(8) : uint8(10));
        out = abi.encodePacked(out, uint32(47_274), uint8(10), uint32(s.layers));
        for (uint256 l = 0; l < s.layers; ++l) {
            out = bytes.concat(out, layer(s, r, l));
        }
        out = bytes.concat(out, norm(r, 6, s.width), matrix(r, 7, s.vocab, s.width));
        out = s.tied ? bytes.concat(out, bytes1(0)) : bytes.concat(out, bytes1(0x01), matrix(r, 8, s.vocab, s.width));
        out = abi.encodePacked(out, r.exp, r.act, uint32(s.ropeTables));
        for (uint256 i = 0; i < s.ropeTables; ++i) {
            out = bytes.concat(out, r.ropes[i]);
        }
        out = abi.encodePacked(out, keccak256("tokenizer"), keccak256("template"));
        out = s.bos ? abi.encodePacked(out, uint8(1), uint32(1)) : bytes.concat(out, bytes1(0));
        return abi.encodePacked(out, uint32(2), uint32(2), uint32(106));
    }

    function layer(Shape memory s, Roots memory r, uint256 l) private pure returns (bytes memory out) {
        (uint256 q, uint256 kv) = (s.heads * s.headDim, s.kvHeads * s.headDim);
        uint32 window = l % 2 == 0 ? uint32(s.window) : 0;
        out = abi.encodePacked(int8(7), int8(-1), int8(9), window, uint8(l % s.ropeTables), norm(r, 0, s.width));
        out = bytes.concat(out, matrix(r, 0, q, s.width), matrix(r, 1, kv, s.width), matrix(r, 2, kv, s.width));
        out = bytes.concat(out, matrix(r, 3, s.width, q), norm(r, 1, s.width), matrix(r, 4, s.ffn, s.width));
        out = bytes.concat(out, matrix(r, 5, s.ffn, s.width), matrix(r, 6, s.width, s.ffn));
        if (!s.gemma) return bytes.concat(out, bytes1(0));
        out = bytes.concat(out, bytes1(0x01), norm(r, 2, s.headDim), norm(r, 3, s.headDim));
        return bytes.concat(out, norm(r, 4, s.width), norm(r, 5, s.width));
    }

    function matrix(Roots memory r, uint256 i, uint256 rows, uint256 cols) private pure returns (bytes memory) {
        return abi.encodePacked(uint32(rows), uint32(cols), uint8(20 + i), r.matrices[i]);
    }

    function norm(Roots memory r, uint256 i, uint256 length) private pure returns (bytes memory) {
        return abi.encodePacked(uint32(length), uint8(36 + i), uint64(6040 + i), r.norms[i]);
    }
}
