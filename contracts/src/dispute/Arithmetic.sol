// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";

/// @title The arithmetic of the pass, one element at a time: `engine::ops`, a second time.
/// @notice Numbers are 256 bits wide here and 64 there. The engine's loader bounds every honest value
///         below 2^62 (NUMERICS), so on honest inputs the two agree. Other inputs stand only in a trace
///         that is false before this element; whatever is answered about them convicts nobody honest.
///         For the same reason no function here reverts but by dividing by zero, which no honest input
///         does: `unchecked` wraps at 2^256 at worst, and only there.
library Arithmetic {
    /// @dev Limits, as in `engine::ops`.
    int256 internal constant X_MAX = 2047;
    int256 internal constant RESIDUAL_MAX = (1 << 27) - 1;
    int256 internal constant QKV_MAX = (1 << 24) - 1;
    int256 internal constant MLP_MAX = (1 << 20) - 1;
    int256 internal constant LOGIT_MAX = (1 << 27) - 1;
    int256 internal constant QK_MAX = (1 << 12) - 1;
    int256 internal constant V_MAX = (1 << 11) - 1;
    /// @dev The base of bfp after a norm, the mix, the MLP's product.
    int256 internal constant BASE_NORM = 12;
    int256 internal constant BASE_MIX = 0;
    int256 internal constant BASE_MLP = 4;
    /// @dev Fractions of q, k, v, gate and up; of a gemma branch before its post-norm; of logits.
    int256 internal constant F_INNER = 12;
    int256 internal constant F_BRANCH = 16;
    int256 internal constant F_LOGITS = 16;
    /// @dev log2(e) at Q.15.
    int256 private constant LOG2_E_Q15 = 47_274;
    /// @dev Octaves from which a softmax term, and a token's weight, is nothing.
    int256 private constant OCTAVES_SOFTMAX = 16;
    int256 private constant OCTAVES_WEIGHT = 32;

    /// @notice `v / 2^s`, rounded to the nearest, half up; `v·2^-s` where s ≤ 0.
    function rsh(int256 v, int256 s) internal pure returns (int256) {
        unchecked {
            // An honest s is at most 62, and |v| < 2^62.
            if (s > 0) return (v + int256(1 << uint256(s - 1))) >> uint256(s);
            return v << uint256(-s);
        }
    }

    /// @notice v, held within ±limit.
    function clamp(int256 v, int256 limit) internal pure returns (int256) {
        if (v > limit) return limit;
        return v < -limit ? -limit : v;
    }

    function abs(int256 v) internal pure returns (int256) {
        unchecked {
            return v < 0 ? -v : v;
        }
    }

    // ---------------------------------------------------------------- embedding, matrices, norms

    /// @notice `E = rint(A·256·sqrt(scaleSquared))`.
    function rowScale(uint256 a, uint256 scaleSquared) internal pure returns (int256) {
        unchecked {
            // A < 2^16 and scaleSquared < 2^32: below 2^82.
            return int256((Math.sqrt(4 * (a * 256) * (a * 256) * scaleSquared) + 1) / 2);
        }
    }

    /// @notice `rsh(w·E, shift)` as a residual.
    function embed(int256 w, int256 e, int256 shift) internal pure returns (int256) {
        unchecked {
            return clamp(rsh(w * e, shift), RESIDUAL_MAX);
        }
    }

    /// @notice `clamp(rsh(acc·A, shift), limit)`.
    function requantize(int256 acc, int256 a, int256 shift, int256 limit) internal pure returns (int256) {
        unchecked {
            return clamp(rsh(acc * a, shift), limit);
        }
    }

    /// @notice The residual's addition.
    function add(int256 x, int256 y) internal pure returns (int256) {
        unchecked {
            return clamp(x + y, RESIDUAL_MAX);
        }
    }

    /// @notice `2^47 / ⌊sqrt(ss)⌋`; an honest ss holds an epsilon of at least 1.
    function inverseRoot(uint256 ss) internal pure returns (int256) {
        return int256((uint256(1) << 47) / Math.sqrt(ss));
    }

    /// @notice One element of an RMS norm.
    function norm(int256 x, int256 inverse, int256 gain) internal pure returns (int256) {
        unchecked {
            return rsh(x * inverse, 23) * gain;
        }
    }

    /// @notice The smallest e ≥ 0 with `rsh(max, base + e) ≤ 2047`.
    function exponent(int256 max, int256 base) internal pure returns (int256 e) {
        unchecked {
            // Ends below 256: from there on the shift leaves 0 or -1.
            while (rsh(max, base + e) > X_MAX) ++e;
        }
    }

    /// @notice `((max(g, 0) << 4) − ACT[min(|g|, 65535)])·u`.
    function product(int256 g, int256 u, int256 remainder) internal pure returns (int256) {
        unchecked {
            return ((g > 0 ? g << 4 : int256(0)) - remainder) * u;
        }
    }

    // ---------------------------------------------------------------- attention

    /// @notice The first of the two elements of a pair, turned by (cos, sin) at Q.14.
    function turnFirst(int256 a, int256 b, int256 cos, int256 sin) internal pure returns (int256) {
        unchecked {
            return a * cos - b * sin;
        }
    }

    /// @notice The second.
    function turnSecond(int256 a, int256 b, int256 cos, int256 sin) internal pure returns (int256) {
        unchecked {
            return a * sin + b * cos;
        }
    }

    /// @notice From Q.26 to q's or k's fraction.
    function quantizeQk(int256 turned, int256 fraction) internal pure returns (int256) {
        unchecked {
            return clamp(rsh(turned, 26 - fraction), QK_MAX);
        }
    }

    /// @notice From Q.12 to v's fraction.
    function quantizeV(int256 v, int256 fraction) internal pure returns (int256) {
        unchecked {
            return clamp(rsh(v, 12 - fraction), V_MAX);
        }
    }

    /// @notice How far below the maximum, in Q.8 of log2.
    function distance(int256 below, int256 c, int256 csh) internal pure returns (int256) {
        unchecked {
            return rsh(below * c, csh);
        }
    }

    /// @notice Whether `exponential` reads EXP at all.
    function hasTerm(int256 t) internal pure returns (bool) {
        return t >= 0 && t >> 8 < OCTAVES_SOFTMAX;
    }

    /// @notice `2^15·2^(−t/256)` where `hasTerm`; `entry` is `EXP[t & 255]`.
    function exponential(int256 t, int256 entry) internal pure returns (int256) {
        return hasTerm(t) ? rsh(entry, t >> 8) : int256(0);
    }

    /// @notice `2^45 / Z`; the maximum itself contributes 2^15 to an honest Z.
    function reciprocal(uint256 z) internal pure returns (uint256) {
        return (uint256(1) << 45) / z;
    }

    /// @notice One position's share in Q.15.
    function share(uint256 e, uint256 inverse) internal pure returns (int256) {
        unchecked {
            return rsh(int256(e * inverse), 30);
        }
    }

    // ---------------------------------------------------------------- the sampler

    /// @notice How far below the largest logit, in Q.8 of log2.
    function weightDistance(int256 below, uint256 beta) internal pure returns (int256) {
        unchecked {
            return rsh(below * int256(beta) * LOG2_E_Q15, 31);
        }
    }

    /// @notice Whether `weight` reads EXP at all.
    function hasWeight(int256 t) internal pure returns (bool) {
        return t >= 0 && t >> 8 < OCTAVES_WEIGHT;
    }

    /// @notice A token's weight, `2^31·2^(−t/256)` where `hasWeight`; `entry` is `EXP[t & 255]`.
    function weight(int256 t, int256 entry) internal pure returns (int256) {
        unchecked {
            return hasWeight(t) ? rsh(entry << 16, t >> 8) : int256(0);
        }
    }

    /// @notice 64 bits for the token at this position of the whole sequence.
    function uniform(bytes32 seed, uint64 position) internal pure returns (uint64) {
        return uint64(uint256(keccak256(abi.encodePacked(seed, "sample", position))) >> 192);
    }
}
