// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Arithmetic} from "../../src/dispute/Arithmetic.sol";
import {Lanes} from "../../src/dispute/Lanes.sol";
import {Test} from "../Base.sol";
import {ArithmeticHarness} from "./ArithmeticHarness.sol";
import {Packing} from "./Packing.sol";

/// @title The referee's arithmetic against the same written the slow, obvious way.
contract ArithmeticTest is Test {
    ArithmeticHarness private harness = new ArithmeticHarness();

    function same(int256 got, int256 expected, string memory what) private pure {
        eq(uint256(got), uint256(expected), what);
    }

    /// The floor of a / b for b > 0: Solidity's division truncates.
    function floor(int256 a, int256 b) private pure returns (int256) {
        int256 q = a / b;
        return a % b < 0 ? q - 1 : q;
    }

    function within(int256 seed, int256 limit) private pure returns (int256) {
        return seed % (limit + 1);
    }

    // ---------------------------------------------------------------- scalars

    function test_halves_are_rounded_up() public pure {
        same(Arithmetic.rsh(3, 1), 2, "3 >> 1");
        same(Arithmetic.rsh(-3, 1), -1, "-3 >> 1");
        same(Arithmetic.rsh(-5, 1), -2, "-5 >> 1");
        same(Arithmetic.rsh(5, 2), 1, "5 >> 2");
        same(Arithmetic.rsh(6, 2), 2, "6 >> 2");
        same(Arithmetic.rsh(-6, 2), -1, "-6 >> 2");
        same(Arithmetic.rsh(7, 0), 7, "7 >> 0");
        same(Arithmetic.rsh(-7, -3), -56, "-7 << 3");
        same(Arithmetic.rsh((1 << 62) - 1, 62), 1, "largest");
        same(Arithmetic.rsh(-(1 << 61), 62), 0, "half of minus one");
    }

    function testFuzz_a_shift_is_a_division_that_rounds_half_up(int256 v, uint8 s) public pure {
        v = within(v, (1 << 62) - 1);
        int256 shift = int256(uint256(s) % 63);
        // rint(v / 2^s), half up, is ⌊(2v + 2^s) / 2^(s+1)⌋.
        int256 expected = floor(2 * v + int256(1 << uint256(shift)), int256(1 << uint256(shift + 1)));
        same(Arithmetic.rsh(v, shift), expected, "right");
        same(Arithmetic.rsh(v, -shift), v * int256(1 << uint256(shift)), "left");
    }

    function testFuzz_no_shift_reverts(int256 v, int256 s) public pure {
        Arithmetic.rsh(v, s);
        Arithmetic.exponent(v, s % 1000);
    }

    function testFuzz_a_clamp_holds(int256 v, uint32 limit) public pure {
        int256 l = int256(uint256(limit));
        int256 expected = v;
        if (v > l) expected = l;
        if (v < -l) expected = -l;
        same(Arithmetic.clamp(v, l), expected, "clamp");
    }

    function testFuzz_the_row_scale_is_rounded_to_the_nearest(uint16 a, uint16 scale) public pure {
        int256 e = Arithmetic.rowScale(a, scale);
        // |E − y| ≤ 1/2 with y² = (256·a)²·scale.
        int256 four = 4 * int256(uint256(a)) * int256(uint256(a)) * 65_536 * int256(uint256(scale));
        yes(e == 0 || (2 * e - 1) * (2 * e - 1) <= four, "not too large");
        yes(four <= (2 * e + 1) * (2 * e + 1), "not too small");
        same(Arithmetic.rowScale(a, 1), int256(uint256(a)) * 256, "by one");
    }

    function testFuzz_an_inverse_root_divides_by_the_floor(uint64 ss) public pure {
        if (ss == 0) ss = 1;
        uint256 inverse = uint256(Arithmetic.inverseRoot(ss));
        // r is the largest with r² ≤ ss, and inverse the largest with inverse·r ≤ 2^47: so r is one of
        // those that give this quotient. Found by halving, not by Newton.
        uint256 r = 0;
        for (uint256 bit = 1 << 32; bit > 0; bit >>= 1) {
            if ((r + bit) * (r + bit) <= ss) r += bit;
        }
        eq(inverse, (1 << 47) / r, "inverse");
    }

    function testFuzz_an_exponent_is_the_least_that_fits(uint64 max, uint8 base) public pure {
        int256 m = int256(uint256(max >> 2));
        int256 b = int256(uint256(base) % 13);
        int256 e = Arithmetic.exponent(m, b);
        yes(e >= 0 && Arithmetic.rsh(m, b + e) <= 2047, "fits");
        yes(e == 0 || Arithmetic.rsh(m, b + e - 1) > 2047, "least");
        yes(Arithmetic.rsh(-m, b + e) >= -2047, "the negative too");
    }

    function test_the_exponent_grows_where_rounding_would_reach_2048() public pure {
        same(Arithmetic.exponent(0, 0), 0, "0");
        same(Arithmetic.exponent(2047, 0), 0, "2047");
        same(Arithmetic.exponent(2048, 0), 1, "2048");
        same(Arithmetic.exponent(4094, 0), 1, "4094");
        same(Arithmetic.exponent(4095, 0), 2, "4095");
        same(Arithmetic.exponent((2047 << 12) + 2047, 12), 0, "rounds down");
        same(Arithmetic.exponent((2047 << 12) + 2048, 12), 1, "rounds up");
    }

    function testFuzz_elements_are_their_formulas(int256 x, int256 y, int256 z) public pure {
        int256 r = within(x, (1 << 27) - 1);
        int256 s = within(y, (1 << 27) - 1);
        int256 sum = r + s;
        same(
            Arithmetic.add(r, s),
            sum > (1 << 27) - 1 ? int256((1 << 27) - 1) : sum < -((1 << 27) - 1) ? -int256((1 << 27) - 1) : sum,
            "add"
        );
        int256 inverse = int256(uint256(y) % (1 << 47)) + 1;
        int256 gain = within(z, (1 << 23) - 1);
        same(Arithmetic.norm(r, inverse, gain), floor(r * inverse + (1 << 22), 1 << 23) * gain, "norm");
        int256 g = within(x, (1 << 20) - 1);
        int256 u = within(y, (1 << 20) - 1);
        int256 c = int256(uint256(z) % 65_536);
        same(Arithmetic.product(g, u, c), ((g > 0 ? g * 16 : int256(0)) - c) * u, "product");
        int256 a = within(x, 1 << 31);
        int256 b = within(y, 1 << 31);
        int256 cos = within(z, 1 << 14);
        int256 sin = within(z >> 64, 1 << 14);
        same(Arithmetic.turnFirst(a, b, cos, sin), a * cos - b * sin, "first");
        same(Arithmetic.turnSecond(a, b, cos, sin), a * sin + b * cos, "second");
    }

    function testFuzz_quantized_values_are_rounded_and_held(int256 v, uint8 f) public pure {
        int256 fraction = int256(uint256(f) % 33) - 12;
        int256 wide = within(v, 1 << 46);
        int256 shifted = 26 >= fraction ? Arithmetic.rsh(wide, 26 - fraction) : wide << uint256(fraction - 26);
        int256 got = Arithmetic.quantizeQk(wide, fraction);
        yes(got == shifted || (got == 4095 && shifted > 4095) || (got == -4095 && shifted < -4095), "q, k");
        wide = within(v, (1 << 24) - 1);
        shifted = Arithmetic.rsh(wide, 12 - fraction);
        got = Arithmetic.quantizeV(wide, fraction);
        yes(got == shifted || (got == 2047 && shifted > 2047) || (got == -2047 && shifted < -2047), "v");
    }

    // ---------------------------------------------------------------- softmax and the sampler

    function test_what_is_sixteen_octaves_down_is_nothing() public pure {
        same(Arithmetic.exponential(16 << 8, 32_768), 0, "sixteen octaves");
        same(Arithmetic.exponential((16 << 8) - 1, 16_448), 1, "a hair less");
        same(Arithmetic.exponential(type(int64).max, 1), 0, "far");
        same(Arithmetic.exponential(-1, 32_768), 0, "above the maximum, as in no honest trace");
        same(Arithmetic.weight(0, 32_768), 1 << 31, "the largest's weight");
        same(Arithmetic.weight(32 << 8, 32_768), 0, "thirty-two octaves");
    }

    function testFuzz_terms_and_weights_are_halved_by_octave(uint32 t, uint16 entry) public pure {
        int256 e = int256(uint256(entry) % 32_769);
        int256 octave = int256(uint256(t) % 40);
        int256 t256 = octave * 256 + int256(uint256(t) % 256);
        int256 term =
            octave < 16 ? floor(2 * e + int256(1 << uint256(octave)), int256(2 << uint256(octave))) : int256(0);
        same(Arithmetic.exponential(t256, e), term, "term");
        int256 w = e * 65_536;
        w = octave < 32 ? floor(2 * w + int256(1 << uint256(octave)), int256(2 << uint256(octave))) : int256(0);
        same(Arithmetic.weight(t256, e), w, "weight");
    }

    function testFuzz_a_share_is_a_fifteenth_power_part(uint16 e, uint32 rest) public pure {
        uint256 term = uint256(e) % 32_769;
        uint256 z = term + 32_768 + rest;
        int256 expected = int256((2 * term * ((1 << 45) / z) + (1 << 30)) / (1 << 31));
        same(Arithmetic.share(term, Arithmetic.reciprocal(z)), expected, "share");
        yes(expected <= 32_768, "at most all");
        same(Arithmetic.share(32_768, Arithmetic.reciprocal(32_768)), 32_768, "alone");
    }

    function testFuzz_a_weight_falls_with_beta(uint32 below, uint32 beta) public pure {
        int256 b = int256(uint256(below) % ((1 << 28) + 1));
        uint256 k = 1 + uint256(beta) % ((1 << 18) - 1);
        same(Arithmetic.weightDistance(b, k), (b * int256(k) * 47_274 + (1 << 30)) / (1 << 31), "distance");
    }

    function test_the_draw_is_spelled_out() public pure {
        bytes32 seed = bytes32(uint256(0x07) * (type(uint256).max / 255));
        bytes memory spelled = abi.encodePacked(seed, "sample", hex"0000000000000005");
        eq(spelled.length, 46, "length");
        eq(Arithmetic.uniform(seed, 5), uint64(bytes8(keccak256(spelled))), "first eight bytes");
    }

    // ---------------------------------------------------------------- lanes

    function vector(uint256 seed, uint256 n, int256 limit) private pure returns (bytes memory out, int256[] memory v) {
        v = new int256[](n);
        for (uint256 i = 0; i < n; ++i) {
            uint256 h = uint256(keccak256(abi.encode(seed, i)));
            // Extremes often.
            v[i] = h % 5 == 0 ? limit : h % 5 == 1 ? -limit : within(int256(h >> 8), limit);
            out = bytes.concat(out, bytes2(uint16(int16(v[i]))));
        }
    }

    function checkDot(uint256 seed, uint256 n, int256 x, int256 w) private view {
        (bytes memory xs, int256[] memory a) = vector(seed, n, x);
        (bytes memory ws, int256[] memory b) = vector(~seed, n, w);
        int256 expected = 0;
        for (uint256 i = 0; i < n; ++i) {
            expected += a[i] * b[i];
        }
        same(harness.dot(xs, ws), expected, "dot");
    }

    function testFuzz_a_packed_product_is_the_sum_of_products(uint256 seed, uint8 n) public view {
        checkDot(seed, n, 2047, 32_767);
        checkDot(seed, n, 4095, 4095);
    }

    function testFuzz_a_mix_is_the_sum_of_shares(uint256 seed, uint32 rest) public view {
        bytes memory e;
        uint256 sum = 0;
        int256[] memory terms = new int256[](128);
        for (uint256 i = 0; i < 128; ++i) {
            uint256 h = uint256(keccak256(abi.encode(seed, "e", i)));
            // Extremes often, and all ones as no honest term has them.
            uint16 term = h % 5 == 0 ? uint16(0) : h % 5 == 1 ? type(uint16).max : uint16(h >> 8);
            terms[i] = int256(uint256(term));
            sum += term;
            e = bytes.concat(e, bytes2(term));
        }
        eq(harness.sum16(e), sum, "sum");
        (bytes memory vs, int256[] memory v) = vector(seed, 128, 32_767);
        uint256 z = sum + uint256(rest) + 1;
        int256 expected = 0;
        for (uint256 i = 0; i < 128; ++i) {
            expected += Arithmetic.share(uint256(terms[i]), Arithmetic.reciprocal(z)) * v[i];
        }
        same(harness.mix(e, vs, z), expected, "mix");
    }

    function test_the_widest_sums_fit() public view {
        bytes memory x;
        bytes memory w;
        bytes memory least;
        for (uint256 i = 0; i < 300; ++i) {
            x = bytes.concat(x, bytes2(uint16(2047)));
            w = bytes.concat(w, bytes2(uint16(32_767)));
            least = bytes.concat(least, bytes2(uint16(int16(-32_768))));
        }
        same(harness.dot(x, w), 300 * 2047 * 32_767, "all largest");
        same(harness.dot(x, least), -300 * 2047 * 32_768, "all least");
    }

    function testFuzz_twelve_bits_are_sign_extended(uint256 seed, uint8 n) public view {
        (bytes memory expected, int256[] memory v) = vector(seed, n, 2047);
        eq(keccak256(harness.unpack12(Packing.pack12(expected), n)), keccak256(expected), "all wide");
        // Halves with and without an element that needs more than eight bits.
        expected = "";
        for (uint256 i = 0; i < n; ++i) {
            if (uint256(keccak256(abi.encode(seed, i / 16))) % 3 != 0) v[i] %= 128;
            expected = bytes.concat(expected, short(v[i]));
        }
        eq(keccak256(harness.unpack12(Packing.pack12(expected), n)), keccak256(expected), "some wide");
    }

    function test_the_widest_vectors_take_more_than_one_word_of_flags() public view {
        // 4,100 elements, the last hundred of them wide and the 4,096 that a word has flags for cut across.
        bytes memory some = new bytes(8000);
        for (int256 i = 0; i < 100; ++i) {
            some = bytes.concat(some, short(i * 40 - 2000));
        }
        eq(keccak256(harness.unpack12(Packing.pack12(some), some.length / 2)), keccak256(some), "unpacked");
    }

    function test_a_packing_is_spelled_out() public view {
        // A wide half of five elements, the rest padding.
        bytes memory some = hex"f80007ffffff00050123";
        bytes memory low = hex"0000ff00ff0005002300";
        bytes memory packed = bytes.concat(hex"80", low, new bytes(22), hex"00180007000f0000");
        eq(keccak256(Packing.pack12(some)), keccak256(packed), "packed");
        eq(keccak256(harness.unpack12(packed, 5)), keccak256(some), "unpacked");
        // Without the flag its low bytes are elements by themselves, and the nibbles are too much.
        packed = bytes.concat(hex"00", low, new bytes(22));
        eq(keccak256(harness.unpack12(packed, 5)), keccak256(hex"0000ffffffff00050023"), "narrow");
    }

    function test_a_packed_vector_of_another_length_is_refused() public {
        vm.expectRevert(abi.encodeWithSelector(Lanes.WrongLength.selector, 34, 33));
        harness.unpack12(new bytes(34), 32);
        vm.expectRevert(abi.encodeWithSelector(Lanes.WrongLength.selector, 32, 33));
        harness.unpack12(new bytes(32), 1);
        vm.expectRevert(abi.encodeWithSelector(Lanes.WrongLength.selector, 33, 41));
        harness.unpack12(bytes.concat(hex"40", new bytes(32)), 32);
        vm.expectRevert(abi.encodeWithSelector(Lanes.WrongLength.selector, 33, 34));
        harness.unpackWeights(2, new bytes(33), 32);
        vm.expectRevert();
        harness.unpackWeights(1, new bytes(20), 31);
        vm.expectRevert(abi.encodeWithSelector(Lanes.WrongLength.selector, 112, 0));
        harness.unpackWeights(4, new bytes(112), 64);
        vm.expectRevert(abi.encodeWithSelector(Lanes.WrongLength.selector, 144, 112));
        harness.unpackWeights(4, new bytes(144), 128);
        vm.expectRevert(abi.encodeWithSelector(Lanes.UnknownFormat.selector, 5));
        harness.unpackWeights(5, new bytes(20), 10);
    }

    function testFuzz_six_bits_are_their_weights(uint256 seed, uint8 blocks) public view {
        bytes memory data;
        bytes memory expected;
        for (uint256 block_ = 0; block_ < uint256(blocks) % 4; ++block_) {
            uint256[48] memory words;
            bytes memory numbers;
            for (uint256 column = 0; column < 128; ++column) {
                uint256 h = uint256(keccak256(abi.encode(seed, block_, column / 16)));
                int256 d = within(int256(h), 1023);
                if (column % 16 == 0) data = bytes.concat(data, short(d));
                uint256 code = uint256(keccak256(abi.encode(h, column))) % 64;
                expected = bytes.concat(expected, short(d * (int256(code) - 32)));
                (uint256 group, uint256 i) = (column / 16, column % 16);
                if (group < 6) words[group / 2 * 16 + i] |= code << (group % 2 == 0 ? 10 : 4);
                // Of the twelve bits of the last two groups four go into each word.
                uint256 pair = group < 6 ? 0 : group == 6 ? code << 6 : code;
                for (uint256 k = 0; k < 3; ++k) {
                    words[16 * k + i] |= (pair >> (8 - 4 * k)) & 15;
                }
            }
            for (uint256 i = 0; i < 48; ++i) {
                numbers = bytes.concat(numbers, bytes2(uint16(words[i])));
            }
            data = bytes.concat(data, numbers);
        }
        eq(keccak256(harness.unpackWeights(4, data, expected.length / 2)), keccak256(expected), "weights");
    }

    function short(int256 v) private pure returns (bytes2) {
        return bytes2(uint16(int16(v)));
    }

    function testFuzz_codes_are_their_weights(uint256 seed, uint8 blocks) public view {
        uint256 n = uint256(blocks) % 6 * 32;
        for (uint256 format = 0; format < 4; ++format) {
            (bytes memory data, bytes memory expected) = codes(format, seed, n);
            eq(keccak256(harness.unpackWeights(format, data, n)), keccak256(expected), "weights");
        }
    }

    /// Random factors and codes of a format, and the weights they stand for.
    function codes(uint256 format, uint256 seed, uint256 n)
        private
        pure
        returns (bytes memory data, bytes memory expected)
    {
        uint256 columns = format == 3 ? 16 : 32;
        for (uint256 from = 0; from < n; from += columns) {
            uint256 h = uint256(keccak256(abi.encode(seed, format, from)));
            if (format == 0) {
                bytes memory plain = bytes.concat(bytes32(h), keccak256(abi.encode(h)));
                (data, expected) = (bytes.concat(data, plain), bytes.concat(expected, plain));
                continue;
            }
            // |D|·128 and |D|·15 + |M| stay within 16 bits.
            int256 d = within(int256(h), format == 1 ? int256(1000) : int256(255));
            int256 m = within(int256(h >> 20), 17_000);
            bytes32 q = keccak256(abi.encode(h));
            data = bytes.concat(data, short(d));
            if (format == 1) data = bytes.concat(data, short(m), bytes16(q));
            else data = format == 2 ? bytes.concat(data, q) : bytes.concat(data, bytes16(q));
            for (uint256 i = 0; i < columns; ++i) {
                int256 code = format == 1
                    ? int256(uint256(uint8(i < 16 ? q[i] & 0x0f : q[i - 16] >> 4)))
                    : int256(int8(uint8(q[i])));
                expected = bytes.concat(expected, short(d * code + (format == 1 ? m : int256(0))));
            }
        }
    }
}
