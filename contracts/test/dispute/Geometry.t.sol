// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Models} from "../../src/dispute/Models.sol";
import {SampleReferee} from "../../src/dispute/SampleReferee.sol";
import {StepReferee} from "../../src/dispute/StepReferee.sol";
import {TraceGeometry as T} from "../../src/dispute/TraceGeometry.sol";
import {Test} from "../Base.sol";
import {ManifestBytes} from "./ManifestBytes.sol";

/// @title Ops, rows and chunks as the table in docs/dispute.md has them, for shapes of real models.
contract GeometryTest is Test {
    Models private models = new Models();
    StepReferee private referee = new StepReferee(new SampleReferee(models));

    bytes32 private id;
    uint32 private nPrompt = 200;
    uint32 private nOutput = 57;
    uint8 private flags;

    /// SmolLM2-135M and Gemma 3 270M.
    function smol() private pure returns (ManifestBytes.Shape memory) {
        return ManifestBytes.Shape(false, 30, 576, 9, 3, 64, 1536, 49_152, 8192, 0, true, 1, true);
    }

    function gemma() private pure returns (ManifestBytes.Shape memory) {
        return ManifestBytes.Shape(true, 18, 640, 4, 1, 256, 2048, 262_144, 32_768, 100, true, 2, true);
    }

    function publish(ManifestBytes.Shape memory s) private {
        id = models.publish(ManifestBytes.encode(s, ManifestBytes.someRoots()));
    }

    function chunks(uint256 op, uint256 row) private view returns (uint256) {
        return referee.chunkCount(id, nPrompt, nOutput, flags, uint32(op), uint32(row));
    }

    function rowsOf(uint256 op) private view returns (uint256) {
        return referee.rowCount(id, nPrompt, nOutput, flags, uint32(op));
    }

    /// Chunks of n elements of a width.
    function take(uint256 n, uint256 width) private pure returns (uint256) {
        return (n * width + 255) / 256;
    }

    /// The vector's bytes are all its chunks'; every chunk but a segment's last is whole.
    function bytesOf(uint256 op, uint256 row) private view returns (uint256 sum, uint256 cut) {
        uint256 count = chunks(op, row);
        for (uint256 i = 0; i < count; ++i) {
            uint256 length = referee.chunkLength(id, nPrompt, nOutput, flags, uint32(op), uint32(row), uint32(i));
            yes(length > 0 && length <= 256, "a chunk's length");
            if (length < 256) ++cut;
            sum += length;
        }
    }

    function test_ops_and_rows() public {
        publish(smol());
        for (uint8 f = 0; f < 2; ++f) {
            flags = f;
            eq(referee.opCount(id, nPrompt, nOutput, flags), 92 + f, "ops");
            eq(rowsOf(0), 256, "embed");
            eq(rowsOf(1), 256, "project");
            eq(rowsOf(2), 2, "columns");
            eq(rowsOf(90), 256, "the last layer");
            eq(rowsOf(91), 57, "final");
        }
        eq(rowsOf(92), 57, "sample");
        nOutput = 58;
        eq(rowsOf(89), 3, "columns of one more");
    }

    function test_vectors_of_a_llama() public {
        publish(smol());
        eq(chunks(0, 0), take(576, 4), "embed");
        eq(chunks(1, 5), take(9, 8) + 1 + take(576, 2) + take(960, 4) + take(576, 2) + 2 * take(192, 2), "project");
        eq(chunks(2, 1), 192, "columns");
        eq(chunks(91, 56), take(9, 8) + 1 + take(576, 2), "final");
        // Positions 0..=127 are one block, and 0..=128 two.
        for (uint256 blocks = 1; blocks < 3; ++blocks) {
            uint256 head = take(18, 8) + 9 * blocks + take(9 * blocks, 8) + take(576 * blocks, 4);
            uint256 branch = 1 + take(576, 2) + take(576, 4) + take(576, 4);
            uint256 mlp =
                take(9, 8) + 1 + take(576, 2) + take(3072, 4) + 1 + take(1536, 2) + take(576, 4) + take(576, 4);
            eq(chunks(3, blocks == 1 ? 127 : 128), head + branch + mlp, "layer");
        }
    }

    function test_vectors_of_a_gemma() public {
        publish(gemma());
        eq(
            chunks(1, 5),
            take(10, 8) + 1 + take(640, 2) + take(1536, 4) + take(20, 8) + take(1024, 2) + 2 * take(256, 2),
            "project"
        );
        uint256 rest = 1 + take(1024, 2) + 3 * take(640, 4) + take(10, 8) + take(10, 8) + 1 + take(640, 2)
            + take(4096, 4) + 1 + take(2048, 2) + take(10, 8) + take(640, 4);
        // A window of 100 from row 250 on: positions 151..=250, one block; two from row 200.
        eq(chunks(3, 250), take(8, 8) + 4 + take(4, 8) + take(1024, 4) + rest, "one block");
        eq(chunks(3, 200), take(8, 8) + 8 + take(8, 8) + take(2048, 4) + rest, "two blocks");
        // The next layer sees all.
        eq(chunks(6, 250), take(8, 8) + 8 + take(8, 8) + take(2048, 4) + rest, "no window");
    }

    function test_vectors_of_a_draw() public {
        ManifestBytes.Shape memory s = smol();
        s.vocab = 49_153;
        publish(s);
        uint256[4] memory searches = [uint256(0), 1, 1, 2];
        uint8[4] memory kinds = [1, 3, 5, 7];
        for (uint256 i = 0; i < 4; ++i) {
            flags = kinds[i];
            uint256 expected = 2 * take(49_153, 4) + 1 + 2 * take(193, 8) + searches[i] * take(28 * 194, 8);
            eq(chunks(92, 0), expected, "sample");
        }
    }

    function test_chunks_are_whole_but_for_a_segments_last() public {
        publish(smol());
        (uint256 sum, uint256 cut) = bytesOf(1, 0);
        eq(sum, 9 * 8 + 16 + 576 * 2 + 960 * 4 + 576 * 2 + 2 * 192 * 2, "project");
        eq(cut, 6, "segments that fill no chunk: squares, peak, x12, q, k, v");
        publish(gemma());
        (sum, cut) = bytesOf(3, 250);
        eq(
            sum,
            64 + 4 * 256 + 32 + 4096 + 16 + 2048 + 2560 + 80 + 2560 + 80 + 16 + 1280 + 16_384 + 16 + 4096 + 2560 + 80
                + 2560,
            "layer"
        );
        eq(cut, 8, "seen, sums, three peaks, three squares");
    }

    function test_what_is_not_there_is_refused() public {
        publish(smol());
        vm.expectRevert(abi.encodeWithSelector(T.NoSuchOp.selector, 92));
        referee.rowCount(id, nPrompt, nOutput, 0, 92);
        vm.expectRevert(abi.encodeWithSelector(T.NoSuchOp.selector, 93));
        referee.rowCount(id, nPrompt, nOutput, 1, 93);
        vm.expectRevert(abi.encodeWithSelector(T.NoSuchRow.selector, 2, 2));
        referee.chunkCount(id, nPrompt, nOutput, 0, 2, 2);
        vm.expectRevert(abi.encodeWithSelector(T.NoSuchChunk.selector, 0, 0, 9));
        referee.chunkLength(id, nPrompt, nOutput, 0, 0, 0, 9);
        vm.expectRevert(abi.encodeWithSelector(T.NoSuchOp.selector, T.TOKEN));
        referee.rowCount(id, nPrompt, nOutput, 1, type(uint32).max);
    }

    function testFuzz_no_shape_hangs_or_overflows(uint256 a, uint256 b, uint32 op, uint32 row) public {
        ManifestBytes.Shape memory s = gemma();
        (s.layers, s.ropeTables) = (1, 1);
        (s.width, s.heads, s.kvHeads, s.headDim) = (uint32(a), uint32(a >> 32), uint32(a >> 64), uint32(a >> 96));
        (s.ffn, s.vocab, s.window) = (uint32(a >> 128), uint32(a >> 160), uint32(a >> 192));
        (nPrompt, nOutput, flags) = (uint32(b), uint32(b >> 32), uint8(b >> 64));
        publish(s);
        op %= 7;
        try referee.chunkCount(id, nPrompt, nOutput, flags, op, row) returns (uint32 count) {
            if (count == 0) return;
            uint32 length = referee.chunkLength(id, nPrompt, nOutput, flags, op, row, count - 1);
            yes(length > 0 && length <= 256, "the last chunk");
        } catch {}
    }
}
