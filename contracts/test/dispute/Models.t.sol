// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Manifest} from "../../src/dispute/Manifest.sol";
import {Models} from "../../src/dispute/Models.sol";
import {Test} from "../Base.sol";
import {ManifestBytes} from "./ManifestBytes.sol";

/// @title Manifests come back byte for byte, under their hash alone, and are read where they stand.
contract ModelsTest is Test {
    event log_named_uint(string key, uint256 val);

    Models private models = new Models();

    function bytesOf(uint256 seed, uint256 length) private pure returns (bytes memory data) {
        data = new bytes(length);
        for (uint256 i = 0; i < length; i += 32) {
            bytes32 word = keccak256(abi.encode(seed, i));
            assembly ("memory-safe") {
                // Beyond the end only by what the allocation rounds up.
                mstore(add(add(data, 32), i), word)
            }
        }
        assembly ("memory-safe") {
            mstore(data, length)
        }
    }

    function checkStored(uint256 length) private {
        bytes memory manifest = bytesOf(length, length);
        bytes32 id = keccak256(manifest);
        yes(!models.isPublished(id), "unknown before");
        eq(models.manifestOf(id).length, 0, "nothing before");
        eq(models.publish(manifest), id, "the id is the hash");
        yes(models.isPublished(id), "known");
        eq(keccak256(models.manifestOf(id)), id, "the same bytes");
        eq(models.piecesOf(id).length, (length + 24_574) / 24_575, "pieces");
    }

    function test_a_manifest_comes_back_whatever_its_length() public {
        uint256[6] memory lengths = [uint256(1), 31, 400, 24_575, 24_576, 60_000];
        for (uint256 i = 0; i < lengths.length; ++i) {
            checkStored(lengths[i]);
        }
    }

    function test_a_model_of_thirty_layers_costs_less_than_three_million() public {
        // SmolLM2-135M's shapes.
        ManifestBytes.Shape memory s =
            ManifestBytes.Shape(false, 30, 576, 9, 3, 64, 1536, 49_152, 8192, 0, true, 1, true);
        bytes memory manifest = ManifestBytes.encode(s, ManifestBytes.someRoots());
        eq(manifest.length, 11_916, "bytes");
        uint256 before = gasleft();
        models.publish(manifest);
        // The transaction's 21,000 and at most 16 a byte.
        uint256 spent = before - gasleft() + 21_000 + 16 * manifest.length;
        emit log_named_uint("gas", spent);
        yes(spent < 3_000_000, "gas");
    }

    function test_a_second_publication_changes_nothing() public {
        bytes memory manifest = bytesOf(1, 500);
        bytes32 id = models.publish(manifest);
        address[] memory before = models.piecesOf(id);
        eq(models.publish(manifest), id, "answers the id");
        address[] memory then = models.piecesOf(id);
        eq(then.length, 1, "one piece");
        eq(then[0], before[0], "the same piece");
    }

    function test_a_piece_does_nothing_when_called() public {
        // Bytes that would be code to destroy the piece, or to answer something.
        bytes32 id = models.publish(hex"33ff60016000f3");
        address piece = models.piecesOf(id)[0];
        (bool done, bytes memory answer) = piece.call(hex"12345678");
        yes(done && answer.length == 0, "stops");
        yes(piece.code.length == 8 && piece.code[0] == 0, "begins with STOP");
    }

    function test_nothing_and_too_much_are_refused() public {
        vm.expectRevert(Models.Empty.selector);
        models.publish("");
        uint256 most = models.MANIFEST_BYTES_MOST();
        bytes memory large = new bytes(most + 1);
        vm.expectRevert(abi.encodeWithSelector(Models.TooLong.selector, most + 1, most));
        models.publish(large);
    }

    // ---------------------------------------------------------------- reading

    function load(bytes32 id) external view returns (Manifest.Model memory) {
        return Manifest.load(models, id);
    }

    function test_an_unknown_model_is_named() public {
        vm.expectRevert(abi.encodeWithSelector(Manifest.UnknownModel.selector, bytes32(uint256(7))));
        this.load(bytes32(uint256(7)));
    }

    function test_bytes_of_no_architecture_are_refused() public {
        bytes32 id = models.publish(new bytes(400));
        vm.expectRevert(Manifest.Malformed.selector);
        this.load(id);
    }

    function checkRead(bool gemma, uint256 layers, bool tied) private {
        ManifestBytes.Shape memory s = ManifestBytes.Shape({
            gemma: gemma,
            layers: layers,
            width: 96,
            heads: 4,
            kvHeads: 2,
            headDim: 32,
            ffn: 160,
            vocab: 300,
            context: 1000,
            window: 512,
            tied: tied,
            ropeTables: 2,
            bos: gemma
        });
        ManifestBytes.Roots memory r = ManifestBytes.someRoots();
        Manifest.Model memory m = Manifest.load(models, models.publish(ManifestBytes.encode(s, r)));
        yes(m.gemma == gemma, "architecture");
        eq(m.layers, layers, "layers");
        eq(m.width, 96, "width");
        eq(m.heads, 4, "heads");
        eq(m.kvHeads, 2, "kv heads");
        eq(m.headDim, 32, "head dim");
        eq(m.ffn, 160, "ffn");
        eq(m.vocab, 300, "vocab");
        eq(m.contextMax, 1000, "context");
        eq(uint256(m.fraction), gemma ? 8 : 10, "fraction");
        eq(uint256(m.scale), 47_274, "c");
        eq(uint256(m.scaleShift), 10, "csh");
        for (uint256 l = 0; l < layers; ++l) {
            checkLayer(m, r, l);
        }
        checkTail(m, r, tied);
    }

    function checkLayer(Manifest.Model memory m, ManifestBytes.Roots memory r, uint256 l) private view {
        uint256 entry = Manifest.layer(m, l);
        eq(Manifest.windowOf(m, l), l % 2 == 0 ? 512 : 0, "window");
        eq(Manifest.u32(entry, Manifest.WINDOW), l % 2 == 0 ? 512 : 0, "the same window");
        eq(Manifest.u8(entry, Manifest.ROPE), l % 2, "rope");
        eq(uint256(Manifest.i8(entry, Manifest.FRACTION_Q)), 7, "f q");
        eq(uint256(Manifest.i8(entry, Manifest.FRACTION_K)), uint256(int256(-1)), "f k");
        eq(uint256(Manifest.i8(entry, Manifest.FRACTION_V)), 9, "f v");
        uint256[7] memory at =
            [Manifest.Q, Manifest.K, Manifest.V, Manifest.O, Manifest.GATE, Manifest.UP, Manifest.DOWN];
        for (uint256 i = 0; i < 7; ++i) {
            eq(Manifest.rowsRoot(entry + at[i]), r.matrices[i], "a matrix");
            eq(uint256(Manifest.shOf(entry + at[i])), 20 + i, "its shift");
        }
        uint256[6] memory norms = [
            Manifest.ATTENTION_NORM,
            Manifest.FFN_NORM,
            Manifest.Q_NORM,
            Manifest.K_NORM,
            Manifest.ATTENTION_POST,
            Manifest.FFN_POST
        ];
        for (uint256 i = 0; i < (m.gemma ? 6 : 2); ++i) {
            eq(Manifest.gainsRoot(entry + norms[i]), r.norms[i], "gains");
            eq(uint256(Manifest.fsOf(entry + norms[i])), 36 + i, "fs");
            eq(Manifest.epsOf(entry + norms[i]), 6040 + i, "epsilon");
        }
    }

    function checkTail(Manifest.Model memory m, ManifestBytes.Roots memory r, bool tied) private view {
        uint256 tail = Manifest.tail(m);
        eq(Manifest.gainsRoot(tail + Manifest.FINAL_NORM), r.norms[6], "final gains");
        eq(Manifest.rowsRoot(tail + Manifest.EMBEDDING), r.matrices[7], "embedding");
        eq(Manifest.rowsRoot(Manifest.headOf(tail)), r.matrices[tied ? 7 : 8], "head");
        eq(Manifest.expRoot(tail), r.exp, "exp");
        eq(Manifest.actRoot(tail), r.act, "act");
        eq(Manifest.ropeRoot(tail, 0), r.ropes[0], "rope 0");
        eq(Manifest.ropeRoot(tail, 1), r.ropes[1], "rope 1");
        yes(Manifest.isEnd(tail, 2) && Manifest.isEnd(tail, 106), "end tokens");
        yes(!Manifest.isEnd(tail, 0) && !Manifest.isEnd(tail, 3) && !Manifest.isEnd(tail, 1), "no others");
    }

    function test_every_field_is_read_where_the_codec_writes_it() public {
        checkRead(false, 1, false);
        checkRead(true, 2, true);
        checkRead(false, 3, true);
        checkRead(true, 1, false);
        // Three pieces; entries lie across their edges.
        checkRead(true, 100, true);
    }

    function ropeRoot(bytes32 id, uint256 table) external view returns (bytes32) {
        return Manifest.ropeRoot(Manifest.tail(Manifest.load(models, id)), table);
    }

    function test_a_table_that_is_not_there_is_refused() public {
        ManifestBytes.Shape memory s = ManifestBytes.tiny(false);
        bytes32 id = models.publish(ManifestBytes.encode(s, ManifestBytes.someRoots()));
        vm.expectRevert(Manifest.Malformed.selector);
        this.ropeRoot(id, s.ropeTables);
    }
}
