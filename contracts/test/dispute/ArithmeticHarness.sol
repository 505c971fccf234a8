// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Arithmetic} from "../../src/dispute/Arithmetic.sol";
import {Lanes} from "../../src/dispute/Lanes.sol";
import {Trees} from "../../src/dispute/Trees.sol";

/// @title The referee's arithmetic by itself, so that others can compare theirs with it.
/// @notice Every function of numbers takes lists of inputs, one element of each a case, and answers the
///         list of outputs. For tests alone; no deployment holds it.
contract ArithmeticHarness {
    function rsh(int256[] calldata v, int256[] calldata s) external pure returns (int256[] memory out) {
        out = new int256[](v.length);
        for (uint256 i = 0; i < v.length; ++i) {
            out[i] = Arithmetic.rsh(v[i], s[i]);
        }
    }

    function clamp(int256[] calldata v, int256[] calldata limit) external pure returns (int256[] memory out) {
        out = new int256[](v.length);
        for (uint256 i = 0; i < v.length; ++i) {
            out[i] = Arithmetic.clamp(v[i], limit[i]);
        }
    }

    function rowScale(uint256[] calldata a, uint256[] calldata scaleSquared)
        external
        pure
        returns (int256[] memory out)
    {
        out = new int256[](a.length);
        for (uint256 i = 0; i < a.length; ++i) {
            out[i] = Arithmetic.rowScale(a[i], scaleSquared[i]);
        }
    }

    function embed(int256[] calldata w, int256[] calldata e, int256[] calldata shift)
        external
        pure
        returns (int256[] memory out)
    {
        out = new int256[](w.length);
        for (uint256 i = 0; i < w.length; ++i) {
            out[i] = Arithmetic.embed(w[i], e[i], shift[i]);
        }
    }

    function requantize(int256[] calldata acc, int256[] calldata a, int256[] calldata shift, int256[] calldata limit)
        external
        pure
        returns (int256[] memory out)
    {
        out = new int256[](acc.length);
        for (uint256 i = 0; i < acc.length; ++i) {
            out[i] = Arithmetic.requantize(acc[i], a[i], shift[i], limit[i]);
        }
    }

    function add(int256[] calldata x, int256[] calldata y) external pure returns (int256[] memory out) {
        out = new int256[](x.length);
        for (uint256 i = 0; i < x.length; ++i) {
            out[i] = Arithmetic.add(x[i], y[i]);
        }
    }

    function inverseRoot(uint256[] calldata ss) external pure returns (int256[] memory out) {
        out = new int256[](ss.length);
        for (uint256 i = 0; i < ss.length; ++i) {
            out[i] = Arithmetic.inverseRoot(ss[i]);
        }
    }

    function norm(int256[] calldata x, int256[] calldata inverse, int256[] calldata gain)
        external
        pure
        returns (int256[] memory out)
    {
        out = new int256[](x.length);
        for (uint256 i = 0; i < x.length; ++i) {
            out[i] = Arithmetic.norm(x[i], inverse[i], gain[i]);
        }
    }

    function exponent(int256[] calldata max, int256[] calldata base) external pure returns (int256[] memory out) {
        out = new int256[](max.length);
        for (uint256 i = 0; i < max.length; ++i) {
            out[i] = Arithmetic.exponent(max[i], base[i]);
        }
    }

    function product(int256[] calldata g, int256[] calldata u, int256[] calldata remainder)
        external
        pure
        returns (int256[] memory out)
    {
        out = new int256[](g.length);
        for (uint256 i = 0; i < g.length; ++i) {
            out[i] = Arithmetic.product(g[i], u[i], remainder[i]);
        }
    }

    /// @notice Both elements of each pair: the first at 2i, the second at 2i + 1.
    function turn(int256[] calldata a, int256[] calldata b, int256[] calldata cos, int256[] calldata sin)
        external
        pure
        returns (int256[] memory out)
    {
        out = new int256[](2 * a.length);
        for (uint256 i = 0; i < a.length; ++i) {
            out[2 * i] = Arithmetic.turnFirst(a[i], b[i], cos[i], sin[i]);
            out[2 * i + 1] = Arithmetic.turnSecond(a[i], b[i], cos[i], sin[i]);
        }
    }

    function quantizeQk(int256[] calldata turned, int256[] calldata fraction)
        external
        pure
        returns (int256[] memory out)
    {
        out = new int256[](turned.length);
        for (uint256 i = 0; i < turned.length; ++i) {
            out[i] = Arithmetic.quantizeQk(turned[i], fraction[i]);
        }
    }

    function quantizeV(int256[] calldata v, int256[] calldata fraction) external pure returns (int256[] memory out) {
        out = new int256[](v.length);
        for (uint256 i = 0; i < v.length; ++i) {
            out[i] = Arithmetic.quantizeV(v[i], fraction[i]);
        }
    }

    function distance(int256[] calldata below, int256[] calldata c, int256[] calldata csh)
        external
        pure
        returns (int256[] memory out)
    {
        out = new int256[](below.length);
        for (uint256 i = 0; i < below.length; ++i) {
            out[i] = Arithmetic.distance(below[i], c[i], csh[i]);
        }
    }

    /// @param exp The table of 256 entries.
    function exponential(int256[] calldata t, int256[] calldata exp) external pure returns (int256[] memory out) {
        out = new int256[](t.length);
        for (uint256 i = 0; i < t.length; ++i) {
            out[i] = Arithmetic.hasTerm(t[i]) ? Arithmetic.exponential(t[i], exp[uint256(t[i]) & 255]) : int256(0);
        }
    }

    function share(uint256[] calldata e, uint256[] calldata z) external pure returns (int256[] memory out) {
        out = new int256[](e.length);
        for (uint256 i = 0; i < e.length; ++i) {
            out[i] = Arithmetic.share(e[i], Arithmetic.reciprocal(z[i]));
        }
    }

    /// @param exp The table of 256 entries.
    function weight(int256[] calldata below, uint256[] calldata beta, int256[] calldata exp)
        external
        pure
        returns (int256[] memory out)
    {
        out = new int256[](below.length);
        for (uint256 i = 0; i < below.length; ++i) {
            int256 t = Arithmetic.weightDistance(below[i], beta[i]);
            out[i] = Arithmetic.hasWeight(t) ? Arithmetic.weight(t, exp[uint256(t) & 255]) : int256(0);
        }
    }

    function uniform(bytes32[] calldata seed, uint64[] calldata position) external pure returns (uint64[] memory out) {
        out = new uint64[](seed.length);
        for (uint256 i = 0; i < seed.length; ++i) {
            out[i] = Arithmetic.uniform(seed[i], position[i]);
        }
    }

    // ---------------------------------------------------------------- packed lanes

    /// @notice `Σ x_i·w_i` of two vectors of big-endian `i16`.
    function dot(bytes calldata x, bytes calldata w) external pure returns (int256) {
        // What lies beyond the vectors must not count.
        return Lanes.dot(_dirty(x), _dirty(w), x.length / 2);
    }

    /// @notice `Σ share(e_j, 1 / z)·v_j` of big-endian `u16`s and `i16`s.
    function mix(bytes calldata e, bytes calldata v, uint256 z) external pure returns (int256) {
        return Lanes.mix(_dirty(e), _dirty(v), e.length / 2, Arithmetic.reciprocal(z));
    }

    /// @notice The sum of big-endian `u16`s, a multiple of 16 of them.
    function sum16(bytes calldata e) external pure returns (uint256) {
        return Lanes.sum16(_dirty(e), e.length / 2);
    }

    /// @notice The big-endian `i16`s that are packed as 12 bits.
    function unpack12(bytes calldata data, uint256 n) external pure returns (bytes memory out) {
        out = new bytes(2 * n + 64);
        uint256 ptr;
        assembly ("memory-safe") {
            ptr := add(out, 32)
        }
        Lanes.unpack12(data, n, ptr);
        assembly ("memory-safe") {
            mstore(out, mul(2, n))
        }
    }

    /// @notice The big-endian `i16`s of a weight row's data after A.
    function unpackWeights(uint256 format, bytes calldata data, uint256 n) external pure returns (bytes memory out) {
        out = new bytes(2 * n + 64);
        uint256 ptr;
        assembly ("memory-safe") {
            ptr := add(out, 32)
        }
        Lanes.unpackWeights(format, data, n, ptr);
        assembly ("memory-safe") {
            mstore(out, mul(2, n))
        }
    }

    /// @notice The root of the tree of `count` chunks that has these bytes from chunk `first` on.
    function rangeRoot(bytes calldata data, uint256 first, uint256 count, bytes32[] calldata siblings)
        external
        pure
        returns (bytes32)
    {
        return Trees.rangeRootOf(_dirty(data), data.length, first, count, siblings);
    }

    /// @notice Whether `leaf` stands at `index` of the tree of `count` leaves with this root.
    function opens(bytes32 root, bytes32 leaf, uint256 count, uint256 index, bytes32[] calldata siblings)
        external
        pure
        returns (bool)
    {
        return Trees.opens(root, leaf, count, index, siblings);
    }

    function depthOf(uint256 count) external pure returns (uint256) {
        return Trees.depthOf(count);
    }

    /// @dev A copy between words of ones.
    function _dirty(bytes calldata data) private pure returns (uint256 ptr) {
        bytes memory copy = bytes.concat(bytes32(type(uint256).max), data, bytes32(type(uint256).max));
        assembly ("memory-safe") {
            ptr := add(copy, 64)
        }
    }
}
