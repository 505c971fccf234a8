// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {TraceGeometry as T} from "../../src/dispute/TraceGeometry.sol";
import {ManifestBytes} from "./ManifestBytes.sol";
import {StepBase} from "./StepBase.sol";

/// @title Every kind of element of a layer: the right one passes, any other convicts.
/// @dev Expected values are computed here from NUMERICS, with none of the referee's code.
contract LayerStepsTest is StepBase {
    uint256 private constant ROW = 6;
    /// Of the tiny model's only layer.
    uint256 private constant PROJECT = 1;
    uint256 private constant COLUMNS = 2;
    uint256 private constant LAYER = 3;
    uint256 private constant FINAL = 4;

    function llama() private {
        begin(ManifestBytes.tiny(false));
    }

    function gemma() private {
        begin(ManifestBytes.tiny(true));
    }

    // ---------------------------------------------------------------- NUMERICS

    function rsh(int256 v, int256 s) private pure returns (int256) {
        if (s <= 0) return v * int256(1 << uint256(-s));
        int256 unit = int256(1 << uint256(s));
        int256 twice = 2 * v + unit;
        int256 q = twice / (2 * unit);
        return twice % (2 * unit) < 0 ? q - 1 : q;
    }

    function held(int256 v, int256 limit) private pure returns (int256) {
        return v > limit ? limit : v < -limit ? -limit : v;
    }

    function root(uint256 v) private pure returns (uint256 r) {
        for (uint256 bit = 1 << 40; bit > 0; bit >>= 1) {
            if ((r + bit) * (r + bit) <= v) r += bit;
        }
    }

    function dot(int256[] memory a, int256[] memory b) private pure returns (int256 sum) {
        for (uint256 i = 0; i < a.length; ++i) {
            sum += a[i] * b[i];
        }
    }

    function normed(int256 x, uint256 ss, int256 gain) private pure returns (int256) {
        return rsh(x * int256((1 << 47) / root(ss)), 23) * gain;
    }

    function exponentOf(int256 v, int256 base) private pure returns (int256 e) {
        int256 m = v < 0 ? -v : v;
        while (rsh(m, base + e) > 2047) ++e;
    }

    // ---------------------------------------------------------------- embedding

    function test_embedding() public {
        for (uint256 i = 0; i < 2; ++i) {
            begin(ManifestBytes.tiny(i == 1));
            forget();
            ask(0, ROW, T.RESIDUAL, 37, 1);
            showToken(ROW, 123);
            int256[] memory w = showRow(EMBEDDING, 300, 123, 40_000, 64);
            // rint(A·256·sqrt(64)) is exact.
            int256 e = 40_000 * 256 * (i == 0 ? int256(1) : int256(8));
            int256 expected = held(rsh(w[37] * e, 27 + 8 - (i == 0 ? int256(10) : int256(8))), (1 << 27) - 1);
            check(expected, "embedding");
        }
    }

    function test_embedding_of_a_prompt_token() public {
        llama();
        ask(0, 2, T.RESIDUAL, 0, 1);
        showToken(2, 0);
        int256[] memory w = showRow(EMBEDDING, 300, 0, 65_535, 64);
        check(rsh(w[0] * 65_535 * 256, 25), "embedding of a prompt token");
    }

    // ---------------------------------------------------------------- norms

    function checkSquares(
        uint256 op,
        uint256 row,
        uint256 segment,
        uint256 sourceOp,
        uint256 sourceRow,
        uint256 source,
        uint256 eps
    ) private {
        for (uint256 b = 0; b < 2; ++b) {
            forget();
            ask(op, row, segment, b, 1);
            uint256 count = b == 0 ? 64 : shape.width - 64;
            int256[] memory x = some(b, count, (1 << 27) - 1, true);
            int256 before = int256(eps);
            if (b == 1) {
                before = 1 << 62;
                set(op, row, segment, 0, before);
                ask(op, row, segment, 0, 1);
            }
            set(sourceOp, sourceRow, source, 64 * b, x);
            ask(sourceOp, sourceRow, source, 64 * b, count);
            check(before + dot(x, x), "squares");
        }
    }

    function wide(bool isGemma) private {
        ManifestBytes.Shape memory s = ManifestBytes.tiny(isGemma);
        (s.width, s.layers) = (96, 2);
        begin(s);
    }

    function test_squares() public {
        wide(true);
        checkSquares(1, ROW, T.SQUARES, 0, ROW, T.RESIDUAL, 6040);
        checkSquares(4, ROW, T.SQUARES, 3, ROW, T.RESIDUAL, 6040);
        checkSquares(3, ROW, T.POST_SQUARES, 3, ROW, T.BRANCH, 6044);
        checkSquares(3, ROW, T.FFN_SQUARES, 3, ROW, T.MIDDLE, 6041);
        checkSquares(6, ROW, T.DOWN_SQUARES, 6, ROW, T.DOWN, 6045);
        // Output 1 follows from row 5.
        checkSquares(7, 1, T.SQUARES, 6, 5, T.RESIDUAL, 6046);
    }

    function test_a_sum_of_squares_fills_64_bits() public {
        llama();
        int256[] memory x = some(1, 64, (1 << 27) - 1, true);
        int256 sum = 6040 + dot(x, x);
        set(0, ROW, T.RESIDUAL, 0, x);
        ask(PROJECT, ROW, T.SQUARES, 0, 1);
        ask(0, ROW, T.RESIDUAL, 0, 64);
        check(sum, "one block");
    }

    function test_a_sum_of_squares_beyond_63_bits_is_no_negative_number() public {
        wide(false);
        set(PROJECT, ROW, T.SQUARES, 0, int256(uint256(0x9000000000000000)));
        set(0, ROW, T.RESIDUAL, 64, some(2, 32, 1000, true));
        ask(PROJECT, ROW, T.SQUARES, 1, 1);
        ask(PROJECT, ROW, T.SQUARES, 0, 1);
        ask(0, ROW, T.RESIDUAL, 64, 32);
        int256[] memory x = some(2, 32, 1000, true);
        check(int256(uint256(0x9000000000000000)) + dot(x, x), "the top bit");
    }

    function test_head_squares() public {
        ManifestBytes.Shape memory s = ManifestBytes.tiny(true);
        s.headDim = 80;
        begin(s);
        // Head 5 is the second of k; two blocks a head.
        for (uint256 i = 0; i < 4; ++i) {
            forget();
            uint256 head = i < 2 ? 5 : 1;
            uint256 b = i % 2;
            uint256 count = b == 0 ? 64 : 16;
            ask(PROJECT, ROW, T.HEAD_SQUARES, 2 * head + b, 1);
            int256[] memory x = some(i, count, (1 << 24) - 1, true);
            int256 before = head == 5 ? int256(6043) : int256(6042);
            if (b == 1) {
                before = 1 << 50;
                set(PROJECT, ROW, T.HEAD_SQUARES, 2 * head, before);
                ask(PROJECT, ROW, T.HEAD_SQUARES, 2 * head, 1);
            }
            set(PROJECT, ROW, T.QKV, 80 * head + 64 * b, x);
            ask(PROJECT, ROW, T.QKV, 80 * head + 64 * b, count);
            check(before + dot(x, x), "head squares");
        }
    }

    /// A norm's three elements at these places.
    function checkNormSite(
        uint256 op,
        uint256 row,
        uint256 squares,
        uint256 sourceOp,
        uint256 sourceRow,
        uint256 source,
        uint256 norm
    ) private {
        (uint256 m, uint256 w) = (11, 40);
        uint256 ss = 1 << 50;
        int256 gm = -5_000_000;
        int256 gw = 77;
        set(sourceOp, sourceRow, source, m, 30_000_000);
        set(sourceOp, sourceRow, source, w, -29_000_000);
        set(op, row, squares, 0, int256(ss));
        // The peak: m is larger, so that w does not refute it, and m refutes w.
        forget();
        ask(op, row, squares + 1, 0, 1);
        ask(op, row, squares, 0, 1);
        ask(sourceOp, sourceRow, source, m, 1);
        ask(sourceOp, sourceRow, source, w, 1);
        showGain(norm, 64, m, gm);
        showGain(norm, 64, w, gw);
        set(op, row, squares + 1, 0, int256(m));
        yes(!judge(op, row, w), "the peak stands");
        forget();
        ask(op, row, squares + 1, 0, 1);
        ask(op, row, squares, 0, 1);
        ask(sourceOp, sourceRow, source, w, 1);
        ask(sourceOp, sourceRow, source, m, 1);
        showGain(norm, 64, w, gw);
        showGain(norm, 64, m, gm);
        set(op, row, squares + 1, 0, int256(w));
        yes(judge(op, row, m), "a lower one falls");
        // Out of range, with nothing more shown.
        forget();
        ask(op, row, squares + 1, 0, 1);
        set(op, row, squares + 1, 0, 64);
        yes(judge(op, row, 0), "past the end");
        set(op, row, squares + 1, 0, -1);
        yes(judge(op, row, 0), "before the start");
        // The exponent.
        set(op, row, squares + 1, 0, int256(m));
        forget();
        ask(op, row, squares + 1, 1, 1);
        ask(op, row, squares, 0, 1);
        ask(sourceOp, sourceRow, source, m, 1);
        showGain(norm, 64, m, gm);
        int256 e = exponentOf(normed(30_000_000, ss, gm), 12);
        check(e, "exponent of a norm");
        // x12.
        forget();
        ask(op, row, squares + 2, w, 1);
        ask(op, row, squares + 1, 0, 2);
        ask(op, row, squares, 0, 1);
        ask(sourceOp, sourceRow, source, w, 1);
        showGain(norm, 64, w, gw);
        check(rsh(normed(-29_000_000, ss, gw), 12 + e), "x12 of a norm");
    }

    function test_norms_before_matrices() public {
        llama();
        checkNormSite(PROJECT, ROW, T.SQUARES, 0, ROW, T.RESIDUAL, 0);
        checkNormSite(LAYER, ROW, T.FFN_SQUARES, LAYER, ROW, T.MIDDLE, 1);
        checkNormSite(FINAL, 2, T.SQUARES, LAYER, 6, T.RESIDUAL, 6);
    }

    function test_of_equal_peaks_the_lowest_counts() public {
        llama();
        set(LAYER, ROW, T.MIXES, 3, -500);
        set(LAYER, ROW, T.MIXES, 9, 500);
        ask(LAYER, ROW, T.MIX_PEAK, 0, 1);
        ask(LAYER, ROW, T.MIXES, 9, 1);
        ask(LAYER, ROW, T.MIXES, 3, 1);
        set(LAYER, ROW, T.MIX_PEAK, 0, 9);
        yes(judge(LAYER, ROW, 3), "a later equal falls");
        set(LAYER, ROW, T.MIX_PEAK, 0, 3);
        forget();
        ask(LAYER, ROW, T.MIX_PEAK, 0, 1);
        ask(LAYER, ROW, T.MIXES, 3, 1);
        ask(LAYER, ROW, T.MIXES, 9, 1);
        yes(!judge(LAYER, ROW, 9), "the lowest stands");
    }

    function test_exponent_and_x12_of_a_mix() public {
        nPrompt = 300;
        llama();
        // Row 290 sees three blocks; the last one's sums are the mix.
        set(LAYER, 290, T.MIXES, 2 * 128 + 5, -40_000_000);
        set(LAYER, 290, T.MIX_PEAK, 0, 5);
        ask(LAYER, 290, T.MIX_PEAK, 1, 1);
        ask(LAYER, 290, T.MIXES, 2 * 128 + 5, 1);
        int256 e = exponentOf(40_000_000, 0);
        check(e, "exponent of a mix");
        forget();
        set(LAYER, 290, T.MIXES, 2 * 128 + 100, 12_345_678);
        ask(LAYER, 290, T.MIX_X12, 100, 1);
        ask(LAYER, 290, T.MIX_PEAK, 0, 2);
        ask(LAYER, 290, T.MIXES, 2 * 128 + 100, 1);
        check(rsh(12_345_678, e), "x12 of a mix");
    }

    function test_exponent_and_x12_of_the_activation() public {
        llama();
        int256[4] memory gates = [int256(1 << 19), -(1 << 19), 300, -300];
        for (uint256 k = 0; k < 4; ++k) {
            uint256 i = 20 + k;
            int256 up = 1_000_001;
            uint256 place = k < 2 ? 65_535 : 300;
            int256 remainder = k < 2 ? int256(0) : int256(4321);
            int256 v = ((gates[k] > 0 ? gates[k] * 16 : int256(0)) - remainder) * up;
            set(LAYER, ROW, T.GATE_UP, i, gates[k]);
            set(LAYER, ROW, T.GATE_UP, 128 + i, up);
            set(LAYER, ROW, T.ACT_PEAK, 0, int256(i));
            forget();
            ask(LAYER, ROW, T.ACT_PEAK, 1, 1);
            ask(LAYER, ROW, T.GATE_UP, i, 1);
            ask(LAYER, ROW, T.GATE_UP, 128 + i, 1);
            showEntry(ACT, 65_536, place, abi.encodePacked(uint16(uint256(remainder))));
            int256 e = exponentOf(v, 4);
            check(e, "exponent of the activation");
            forget();
            ask(LAYER, ROW, T.ACT_X12, i, 1);
            ask(LAYER, ROW, T.ACT_PEAK, 0, 2);
            ask(LAYER, ROW, T.GATE_UP, i, 1);
            ask(LAYER, ROW, T.GATE_UP, 128 + i, 1);
            showEntry(ACT, 65_536, place, abi.encodePacked(uint16(uint256(remainder))));
            check(rsh(v, 4 + e), "x12 of the activation");
        }
    }

    function test_an_x12_beyond_twelve_bits_convicts_even_if_it_follows() public {
        llama();
        set(LAYER, ROW, T.MIXES, 5, 5000);
        set(LAYER, ROW, T.MIX_PEAK, 1, 0);
        set(LAYER, ROW, T.MIX_X12, 5, 5000);
        ask(LAYER, ROW, T.MIX_X12, 5, 1);
        ask(LAYER, ROW, T.MIX_PEAK, 0, 2);
        ask(LAYER, ROW, T.MIXES, 5, 1);
        yes(judge(LAYER, ROW, 0), "beyond");
    }

    // ---------------------------------------------------------------- matrices

    struct Linear {
        uint256 segment;
        uint256 x12;
        uint256 n;
        uint256 index;
        uint256 matrix;
        uint256 count;
        uint256 row;
        int256 shift;
        int256 limit;
    }

    function checkLinear(Linear memory l) private {
        uint256 op = l.segment == T.QKV ? PROJECT : LAYER;
        forget();
        int256[] memory x = some(l.index, l.n, 2047, true);
        set(op, ROW, l.x12, 0, x);
        set(op, ROW, l.x12 - 1, 1, 12);
        ask(op, ROW, l.segment, l.index, 1);
        ask(op, ROW, l.x12 - 1, 0, 2);
        askPacked(op, ROW, l.x12, 0, l.n);
        uint256 a = 30_000 + l.index;
        int256[] memory w = showRow(l.matrix, l.count, l.row, a, l.n);
        check(held(rsh(dot(x, w) * int256(a), int256(20 + l.matrix) + l.shift - 12), l.limit), "linear");
    }

    function test_linear() public {
        llama();
        int256 qkv = (1 << 24) - 1;
        int256 mlp = (1 << 20) - 1;
        int256 residual = (1 << 27) - 1;
        checkLinear(Linear(T.QKV, T.X12, 64, 100, 0, 128, 100, 36 - 12 - 12, qkv));
        checkLinear(Linear(T.QKV, T.X12, 64, 128 + 63, 1, 64, 63, 36 - 12 - 12, qkv));
        checkLinear(Linear(T.QKV, T.X12, 64, 128 + 64, 2, 64, 0, 36 - 12 - 12, qkv));
        checkLinear(Linear(T.BRANCH, T.MIX_X12, 128, 63, 3, 64, 63, 15 + 9 - 10, residual));
        checkLinear(Linear(T.GATE_UP, T.FFN_X12, 64, 127, 4, 128, 127, 37 - 12 - 12, mlp));
        checkLinear(Linear(T.GATE_UP, T.FFN_X12, 64, 128, 5, 128, 0, 37 - 12 - 12, mlp));
        checkLinear(Linear(T.DOWN, T.ACT_X12, 128, 1, 6, 64, 1, 24 - 10, residual));
        gemma();
        checkLinear(Linear(T.BRANCH, T.MIX_X12, 128, 63, 3, 64, 63, 15 + 9 - 16, residual));
        checkLinear(Linear(T.DOWN, T.ACT_X12, 128, 1, 6, 64, 1, 24 - 16, residual));
    }

    function test_an_unpacked_vector_counts_the_same() public {
        llama();
        int256[] memory x = some(1, 64, 2047, true);
        set(PROJECT, ROW, T.X12, 0, x);
        ask(PROJECT, ROW, T.QKV, 5, 1);
        ask(PROJECT, ROW, T.PEAK, 0, 2);
        ask(PROJECT, ROW, T.X12, 0, 64);
        int256[] memory w = showRow(0, 128, 5, 50_000, 64);
        check(held(rsh(dot(x, w) * 50_000, 20 + 36 - 24), (1 << 24) - 1), "unpacked");
    }

    // ---------------------------------------------------------------- additions

    function test_additions() public {
        llama();
        set(0, ROW, T.RESIDUAL, 9, 134_000_000);
        set(LAYER, ROW, T.BRANCH, 9, 1_000_000);
        ask(LAYER, ROW, T.MIDDLE, 9, 1);
        ask(0, ROW, T.RESIDUAL, 9, 1);
        ask(LAYER, ROW, T.BRANCH, 9, 1);
        check((1 << 27) - 1, "middle, held");
        forget();
        set(LAYER, ROW, T.MIDDLE, 9, -134_000_000);
        set(LAYER, ROW, T.DOWN, 9, 1_000_000);
        ask(LAYER, ROW, T.RESIDUAL, 9, 1);
        ask(LAYER, ROW, T.MIDDLE, 9, 1);
        ask(LAYER, ROW, T.DOWN, 9, 1);
        check(-133_000_000, "residual");
    }

    function test_additions_after_gemmas_norms() public {
        gemma();
        uint256 ss = 3 << 45;
        set(0, ROW, T.RESIDUAL, 9, -777);
        set(LAYER, ROW, T.BRANCH, 9, 5_000_001);
        set(LAYER, ROW, T.POST_SQUARES, 0, int256(ss));
        ask(LAYER, ROW, T.MIDDLE, 9, 1);
        ask(0, ROW, T.RESIDUAL, 9, 1);
        ask(LAYER, ROW, T.BRANCH, 9, 1);
        ask(LAYER, ROW, T.POST_SQUARES, 0, 1);
        showGain(4, 64, 9, -3_000_000);
        check(-777 + rsh(normed(5_000_001, ss, -3_000_000), 40 - 8), "middle");
        forget();
        set(LAYER, ROW, T.MIDDLE, 9, 12_345);
        set(LAYER, ROW, T.DOWN, 9, -5_000_001);
        set(LAYER, ROW, T.DOWN_SQUARES, 0, int256(ss + 1));
        ask(LAYER, ROW, T.RESIDUAL, 9, 1);
        ask(LAYER, ROW, T.MIDDLE, 9, 1);
        ask(LAYER, ROW, T.DOWN, 9, 1);
        ask(LAYER, ROW, T.DOWN_SQUARES, 0, 1);
        showGain(5, 64, 9, 8_000_000);
        check(12_345 + rsh(normed(-5_000_001, ss + 1, 8_000_000), 41 - 8), "residual");
    }

    // ---------------------------------------------------------------- q, k, v

    /// A RoPE row with one frequency's cos and sin.
    function angle(uint256 frequency, int256 cos, int256 sin) private pure returns (bytes memory row) {
        for (uint256 i = 0; i < 16; ++i) {
            row = i == frequency
                ? abi.encodePacked(row, int16(cos), int16(sin))
                : abi.encodePacked(row, int16(1), int16(2));
        }
    }

    function test_turned_pairs() public {
        llama();
        (int256 a, int256 b, int256 cos, int256 sin) = (1_234_567, -7_654_321, 9000, -13_000);
        // k's head 1, elements 6 and 7.
        uint256 pair = 4 * 32 + 32 + 6;
        set(PROJECT, ROW, T.QKV, pair, a);
        set(PROJECT, ROW, T.QKV, pair + 1, b);
        for (uint256 i = 0; i < 2; ++i) {
            forget();
            ask(PROJECT, ROW, T.K, 32 + 6 + i, 1);
            ask(PROJECT, ROW, T.QKV, pair, 1);
            ask(PROJECT, ROW, T.QKV, pair + 1, 1);
            showEntry(ROPES, 512, ROW, angle(3, cos, sin));
            // Its fraction is -1.
            int256 v = i == 0 ? a * cos - b * sin : a * sin + b * cos;
            check(held(rsh(v, 27), 4095), "k");
        }
        // q's head 2, elements 0 and 1: fraction 7.
        set(PROJECT, ROW, T.QKV, 64, a / 300);
        set(PROJECT, ROW, T.QKV, 65, b / 300);
        forget();
        ask(PROJECT, ROW, T.Q, 64, 1);
        ask(PROJECT, ROW, T.QKV, 64, 1);
        ask(PROJECT, ROW, T.QKV, 65, 1);
        showEntry(ROPES, 512, ROW, angle(0, cos, sin));
        check(held(rsh(a / 300 * cos - b / 300 * sin, 19), 4095), "q");
    }

    function test_turned_halves_after_gemmas_norms() public {
        gemma();
        (int256 cos, int256 sin) = (9000, -13_000);
        uint256 ss = 1 << 44;
        // q's head 3 and k's head 0, elements 5 and 21.
        for (uint256 i = 0; i < 4; ++i) {
            bool isK = i > 1;
            uint256 head = isK ? 4 : 3;
            set(PROJECT, ROW, T.QKV, 32 * head + 5, 3_000_000);
            set(PROJECT, ROW, T.QKV, 32 * head + 21, -1_000_000);
            set(PROJECT, ROW, T.HEAD_SQUARES, head, int256(ss));
            forget();
            uint256 element = (i % 2 == 0 ? 5 : 21) + (isK ? 0 : 96);
            ask(PROJECT, ROW, isK ? T.K : T.Q, element, 1);
            ask(PROJECT, ROW, T.QKV, 32 * head + 5, 1);
            ask(PROJECT, ROW, T.QKV, 32 * head + 21, 1);
            ask(PROJECT, ROW, T.HEAD_SQUARES, head, 1);
            showEntry(ROPES, 512, ROW, angle(5, cos, sin));
            int256 shift = isK ? int256(39 - 12) : int256(38 - 12);
            showGain(isK ? 3 : 2, 32, 5, 2_000_000);
            showGain(isK ? 3 : 2, 32, 21, -4_000_000);
            int256 a = rsh(normed(3_000_000, ss, 2_000_000), shift);
            int256 b = rsh(normed(-1_000_000, ss, -4_000_000), shift);
            int256 v = i % 2 == 0 ? a * cos - b * sin : a * sin + b * cos;
            check(held(rsh(v, isK ? int256(27) : int256(19)), 4095), "turned");
        }
    }

    function test_v_and_columns() public {
        llama();
        set(PROJECT, ROW, T.QKV, 4 * 32 + 2 * 32 + 40, 12_345);
        ask(PROJECT, ROW, T.V, 40, 1);
        ask(PROJECT, ROW, T.QKV, 4 * 32 + 2 * 32 + 40, 1);
        check(rsh(12_345, 3), "v");
        forget();
        nPrompt = 200;
        // T = 202: position 128 + 73 is the last.
        set(PROJECT, 201, T.V, 40, -1234);
        ask(COLUMNS, 1, T.COLUMNS, 40 * 128 + 73, 1);
        ask(PROJECT, 201, T.V, 40, 1);
        check(-1234, "column");
        forget();
        ask(COLUMNS, 1, T.COLUMNS, 40 * 128 + 74, 1);
        check(0, "column past the end");
    }

    // ---------------------------------------------------------------- attention

    function query(uint256 row, uint256 head) private returns (int256[] memory q) {
        q = some(head, 32, 4095, true);
        set(PROJECT, row, T.Q, 32 * head, q);
    }

    function key(uint256 row, uint256 group) private returns (int256[] memory k) {
        k = some(row, 32, 4095, true);
        set(PROJECT, row, T.K, 32 * group, k);
    }

    function test_seen() public {
        llama();
        int256[] memory q = query(ROW, 3);
        int256 a = dot(q, key(2, 1));
        int256 b = dot(q, key(ROW, 1));
        (uint256 best, uint256 other) = a >= b ? (uint256(2), ROW) : (ROW, uint256(2));
        for (uint256 i = 0; i < 2; ++i) {
            forget();
            (uint256 claimed, uint256 witness) = i == 0 ? (best, other) : (other, best);
            set(LAYER, ROW, T.SEEN, 6, int256(claimed));
            ask(LAYER, ROW, T.SEEN, 6, 1);
            ask(PROJECT, ROW, T.Q, 96, 32);
            ask(PROJECT, claimed, T.K, 32, 32);
            ask(PROJECT, witness, T.K, 32, 32);
            yes(judge(LAYER, ROW, witness) == (i == 1), "at");
        }
        measure(LAYER, ROW, best, "seen");
        // Unseen positions need nothing more.
        forget();
        ask(LAYER, ROW, T.SEEN, 6, 1);
        set(LAYER, ROW, T.SEEN, 6, int256(ROW + 1));
        yes(judge(LAYER, ROW, 0), "the future");
        set(LAYER, ROW, T.SEEN, 6, -1);
        yes(judge(LAYER, ROW, 0), "before the first");
        // The score itself.
        forget();
        set(LAYER, ROW, T.SEEN, 6, int256(best));
        ask(LAYER, ROW, T.SEEN, 7, 1);
        ask(PROJECT, ROW, T.Q, 96, 32);
        ask(PROJECT, best, T.K, 32, 32);
        check(a > b ? a : b, "max");
    }

    function test_a_window_hides_what_lies_before_it() public {
        ManifestBytes.Shape memory s = ManifestBytes.tiny(true);
        s.window = 4;
        begin(s);
        // Row 6 sees 3..=6.
        ask(LAYER, ROW, T.SEEN, 0, 1);
        set(LAYER, ROW, T.SEEN, 0, 2);
        yes(judge(LAYER, ROW, 3), "hidden");
        forget();
        ask(LAYER, ROW, T.EXPS, 2, 1);
        check(0, "nothing of the hidden");
        forget();
        ask(LAYER, ROW, T.EXPS, 7, 1);
        check(0, "nothing of the future");
    }

    function test_terms() public {
        llama();
        int256[] memory q = query(ROW, 3);
        int256 score = dot(q, key(2, 1));
        int256[3] memory below = [int256(0), 100_000, 40_000_000];
        for (uint256 i = 0; i < 3; ++i) {
            forget();
            set(LAYER, ROW, T.SEEN, 6, 2);
            set(LAYER, ROW, T.SEEN, 7, score + below[i]);
            ask(LAYER, ROW, T.EXPS, 3 * 128 + 2, 1);
            ask(LAYER, ROW, T.SEEN, 6, 2);
            ask(PROJECT, ROW, T.Q, 96, 32);
            ask(PROJECT, 2, T.K, 32, 32);
            // csh + f_q + f_k.
            int256 t = rsh(below[i] * 47_274, 10 + 7 - 1);
            int256 expected = 0;
            if (t >> 8 < 16) {
                showEntry(EXP, 256, uint256(t) % 256, abi.encodePacked(uint16(30_001)));
                expected = rsh(30_001, t / 256);
            }
            check(expected, "term");
        }
    }

    function test_sums_and_mixes() public {
        nPrompt = 300;
        llama();
        // Row 290, three blocks; head 3, group 1; block 2.
        int256[] memory e = some(7, 128, 32_768, false);
        set(LAYER, 290, T.EXPS, (3 * 3 + 2) * 128, e);
        set(LAYER, 290, T.SUMS, 3 * 3 + 1, 99_999);
        ask(LAYER, 290, T.SUMS, 3 * 3 + 2, 1);
        ask(LAYER, 290, T.SUMS, 3 * 3 + 1, 1);
        ask(LAYER, 290, T.EXPS, (3 * 3 + 2) * 128, 128);
        int256 z = 99_999;
        for (uint256 i = 0; i < 128; ++i) {
            z += e[i];
        }
        check(z, "sum");
        forget();
        int256[] memory v = some(8, 128, 2047, true);
        // Element 3·32 + 20 of the mix; column 1·32 + 20.
        set(COLUMNS, 2, T.COLUMNS, 52 * 128, v);
        set(LAYER, 290, T.MIXES, 128 + 116, -1_000_000);
        ask(LAYER, 290, T.MIXES, 2 * 128 + 116, 1);
        ask(LAYER, 290, T.MIXES, 128 + 116, 1);
        ask(LAYER, 290, T.SUMS, 3 * 3 + 2, 1);
        ask(LAYER, 290, T.EXPS, (3 * 3 + 2) * 128, 128);
        askPacked(COLUMNS, 2, T.COLUMNS, 52 * 128, 128);
        int256 sum = -1_000_000;
        for (uint256 i = 0; i < 128; ++i) {
            sum += rsh(e[i] * ((1 << 45) / z), 30) * v[i];
        }
        check(sum, "mix");
    }

    function test_the_first_sums_have_none_before_them() public {
        llama();
        int256[] memory e = some(7, 128, 32_768, false);
        set(LAYER, ROW, T.EXPS, 2 * 128, e);
        ask(LAYER, ROW, T.SUMS, 2, 1);
        ask(LAYER, ROW, T.EXPS, 2 * 128, 128);
        int256 z = 0;
        for (uint256 i = 0; i < 128; ++i) {
            z += e[i];
        }
        check(z, "sum");
        forget();
        set(COLUMNS, 0, T.COLUMNS, 37 * 128, some(8, 128, 2047, true));
        ask(LAYER, ROW, T.MIXES, 2 * 32 + 5, 1);
        ask(LAYER, ROW, T.SUMS, 2, 1);
        ask(LAYER, ROW, T.EXPS, 2 * 128, 128);
        ask(COLUMNS, 0, T.COLUMNS, 37 * 128, 128);
        int256[] memory v = some(8, 128, 2047, true);
        int256 sum = 0;
        for (uint256 i = 0; i < 128; ++i) {
            sum += rsh(e[i] * ((1 << 45) / z), 30) * v[i];
        }
        check(sum, "mix");
    }

    // ---------------------------------------------------------------- what it costs

    function test_a_row_of_2048_costs_less_than_300k() public {
        ManifestBytes.Shape memory s = ManifestBytes.tiny(false);
        (s.width, s.heads, s.kvHeads, s.headDim, s.ffn) = (2048, 32, 8, 64, 2048);
        (s.layers, s.vocab, s.context, nPrompt, nOutput) = (24, 50_000, 4096, 900, 100);
        begin(s);
        int256[] memory x = some(1, 2048, 2047, true);
        set(PROJECT, 500, T.X12, 0, x);
        set(PROJECT, 500, T.PEAK, 1, 4);
        ask(PROJECT, 500, T.QKV, 1000, 1);
        ask(PROJECT, 500, T.PEAK, 0, 2);
        askPacked(PROJECT, 500, T.X12, 0, 2048);
        int256[] memory w = showRow(0, 2048, 1000, 50_000, 2048);
        int256 expected = held(rsh(dot(x, w) * 50_000, 20 + 36 - 24 - 4), (1 << 24) - 1);
        set(PROJECT, 500, T.QKV, 1000, expected + 1);
        yes(judge(PROJECT, 500, 0), "convicts");
        yes(measure("2048") < 300_000, "the target");
    }
}
