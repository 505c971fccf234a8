// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Arithmetic} from "./Arithmetic.sol";
import {Evidence} from "./Evidence.sol";
import {Lanes} from "./Lanes.sol";
import {Manifest} from "./Manifest.sol";
import {Sampling} from "./Sampling.sol";
import {TraceGeometry as T} from "./TraceGeometry.sol";

/// @title The elements of a draw and the tokens themselves: the last rows of the table in
///        docs/dispute.md, each taking its evidence in that row's order.
/// @dev Sums here are of at most 2^24 weights below 2^32, or of i64 elements: unchecked blocks add 256
///      such numbers at most and cannot leave 256 bits.
library SampleElements {
    using Evidence for Evidence.Case;

    /// @notice The element in question, which the step's first opening has shown.
    struct Element {
        uint256 op;
        uint256 row;
        uint256 segment;
        uint256 index;
        int256 claimed;
        uint256 witness;
        uint256 ptr;
    }

    error WitnessOutside(uint256 witness, uint256 count);
    error NotTheFirstFault();
    error NoRule(uint256 segment);

    uint256 private constant EXP_LENGTH = 256;
    /// @dev Makes a logit non-negative, for the search of a threshold bit by bit.
    int256 private constant LOGIT_BIAS = 1 << 27;

    /// @notice Whether the claimed element is false.
    function isFalse(Evidence.Case memory c, Element memory e, Sampling.Params memory sampler)
        internal
        view
        returns (bool)
    {
        uint256 s = e.segment;
        if (s == T.LOGITS) return e.claimed != _logit(c, e.row, e.index);
        if (s == T.TOP) return e.index == 0 ? _isNoMaximum(c, e) : e.claimed != _maximum(c, e);
        if (s == T.WEIGHTS) return e.claimed != _weight(c, e, sampler);
        if (s == T.TOTALS) return e.claimed != _total(c, e);
        if (s == T.COUNT_SEARCH || s == T.SUM_SEARCH) {
            uint256 blocks = T.idBlocks(c.program);
            (uint256 round, uint256 b) = (e.index / (blocks + 1), e.index % (blocks + 1));
            if (b == blocks) return e.claimed != _threshold(c, e, round, sampler);
            return e.claimed != _searched(c, e, round, b);
        }
        if (s == T.KEPT) return e.claimed != _kept(c, e);
        revert NoRule(s);
    }

    /// @notice Whether output token `row` is not the one with the largest logit, the lowest of equals;
    ///         the witness is.
    function isNotLargest(Evidence.Case memory c, uint256 row, uint256 witness) internal view returns (bool) {
        uint256 op = 1 + 3 * c.program.model.layers;
        // Both logits come of the same vector, shown once.
        int256 exponent = Evidence.i64At(c.take(op, row, T.PEAK, 0, 2), 1);
        uint256 x = c.take(op, row, T.X12, 0, c.program.model.width);
        uint256 token = c.takeToken(c.program.nPrompt + row);
        int256 logit = _logitOf(c, x, exponent, token);
        int256 other = _logitOf(c, x, exponent, witness);
        return other > logit || (other == logit && witness < token);
    }

    /// @notice Whether output token `row` is not the lowest id whose inclusive prefix of kept weights
    ///         exceeds the draw.
    function isNotDrawn(Evidence.Case memory c, uint256 row, Sampling.Params memory sampler)
        internal
        view
        returns (bool)
    {
        uint256 token = c.takeToken(c.program.nPrompt + row);
        if (token >= c.program.model.vocab) revert WitnessOutside(token, c.program.model.vocab);
        uint256 draw = _draw(c, row, sampler);
        (uint256 below, uint256 own) = _prefix(c, row, token);
        return draw < below || draw >= below + own;
    }

    /// @dev Takes the weight of all that is kept, and answers the draw's place in it.
    function _draw(Evidence.Case memory c, uint256 row, Sampling.Params memory sampler) private view returns (uint256) {
        uint256 last = T.idBlocks(c.program) - 1;
        uint256 all = Evidence.u64At(c.take(_op(c), row, T.KEPT, last, 1), 0);
        // Both factors are below 2^64.
        return (uint256(Arithmetic.uniform(sampler.seed, uint64(c.program.nPrompt + row))) * all) >> 64;
    }

    /// @dev The weight of what is kept before a token, and of the token if it is kept.
    function _prefix(Evidence.Case memory c, uint256 row, uint256 token)
        private
        view
        returns (uint256 below, uint256 own)
    {
        (uint256 op, uint256 b) = (_op(c), token / T.IDS_BLOCK);
        if (b > 0) below = Evidence.u64At(c.take(op, row, T.KEPT, b - 1, 1), 0);
        int256 least = _least(c, op, row);
        (uint256 logits,) = _ids(c, op, row, T.LOGITS, b);
        (uint256 weights,) = _ids(c, op, row, T.WEIGHTS, b);
        uint256 within = token % T.IDS_BLOCK;
        below += _keptOf(logits, weights, within, least);
        own = _keptOf(logits + 4 * within, weights + 4 * within, 1, least);
    }

    /// @dev The sampler's op.
    function _op(Evidence.Case memory c) private pure returns (uint256) {
        return 2 + 3 * c.program.model.layers;
    }

    // ---------------------------------------------------------------- logits and weights

    function _logit(Evidence.Case memory c, uint256 row, uint256 token) private view returns (int256) {
        uint256 op = 1 + 3 * c.program.model.layers;
        int256 exponent = Evidence.i64At(c.take(op, row, T.PEAK, 0, 2), 1);
        uint256 x = c.take(op, row, T.X12, 0, c.program.model.width);
        return _logitOf(c, x, exponent, token);
    }

    /// @dev Takes the head's row of a token.
    function _logitOf(Evidence.Case memory c, uint256 x, int256 exponent, uint256 token) private view returns (int256) {
        Manifest.Model memory m = c.program.model;
        uint256 tail = Manifest.tail(m);
        uint256 matrix = Manifest.headOf(tail);
        int256 shift = Manifest.shOf(matrix) + Manifest.fsOf(tail + Manifest.FINAL_NORM) - Arithmetic.BASE_NORM
            - Arithmetic.F_LOGITS - exponent;
        (int256 a, uint256 weights) = c.takeRow(Manifest.rowsRoot(matrix), m.vocab, token, m.width);
        return Arithmetic.requantize(Lanes.dot(x, weights, m.width), a, shift, Arithmetic.LOGIT_MAX);
    }

    function _isNoMaximum(Evidence.Case memory c, Element memory e) private view returns (bool) {
        uint256 vocab = c.program.model.vocab;
        if (e.claimed < 0 || uint256(e.claimed) >= vocab) return true;
        if (e.witness >= vocab) revert WitnessOutside(e.witness, vocab);
        int256 logit = _shown(c, e, uint256(e.claimed));
        int256 other = _shown(c, e, e.witness);
        return other > logit || (other == logit && e.witness < uint256(e.claimed));
    }

    function _maximum(Evidence.Case memory c, Element memory e) private view returns (int256) {
        int256 ptr = Evidence.i64At(e.ptr - 8, 0);
        if (ptr < 0 || uint256(ptr) >= c.program.model.vocab) revert NotTheFirstFault();
        return _shown(c, e, uint256(ptr));
    }

    /// @dev Takes a logit.
    function _shown(Evidence.Case memory c, Element memory e, uint256 id) private view returns (int256) {
        return Evidence.i32At(c.take(e.op, e.row, T.LOGITS, id, 1), 0);
    }

    function _weight(Evidence.Case memory c, Element memory e, Sampling.Params memory sampler)
        private
        view
        returns (int256)
    {
        int256 max = Evidence.i64At(c.take(e.op, e.row, T.TOP, 0, 2), 1);
        int256 t = Arithmetic.weightDistance(max - _shown(c, e, e.index), sampler.beta);
        if (!Arithmetic.hasWeight(t)) return 0;
        bytes32 root = Manifest.expRoot(Manifest.tail(c.program.model));
        return Arithmetic.weight(t, c.takeValue(root, EXP_LENGTH, uint256(t) & 255));
    }

    // ---------------------------------------------------------------- sums over blocks of ids

    /// @dev Takes what a segment with an element an id says of a block of ids, and how many these are.
    function _ids(Evidence.Case memory c, uint256 op, uint256 row, uint256 segment, uint256 b)
        private
        view
        returns (uint256 ptr, uint256 count)
    {
        uint256 from = b * T.IDS_BLOCK;
        count = c.program.model.vocab - from;
        if (count > T.IDS_BLOCK) count = T.IDS_BLOCK;
        ptr = c.take(op, row, segment, from, count);
    }

    /// @dev Takes the element before, unless this one is the first of its sum.
    function _before(Evidence.Case memory c, Element memory e, bool isFirst) private view returns (int256) {
        return isFirst ? int256(0) : Evidence.i64At(c.take(e.op, e.row, e.segment, e.index - 1, 1), 0);
    }

    function _total(Evidence.Case memory c, Element memory e) private view returns (int256 sum) {
        sum = _before(c, e, e.index == 0);
        (uint256 weights, uint256 count) = _ids(c, e.op, e.row, T.WEIGHTS, e.index);
        unchecked {
            for (uint256 i = 0; i < count; ++i) {
                sum += int256(Evidence.u32At(weights, i));
            }
        }
    }

    /// @dev Takes the threshold of the round before, and answers this round's candidate and it.
    function _candidate(Evidence.Case memory c, Element memory e, uint256 round)
        private
        view
        returns (int256 candidate, int256 before)
    {
        uint256 blocks = T.idBlocks(c.program);
        if (round > 0) {
            before = Evidence.i64At(c.take(e.op, e.row, e.segment, round * (blocks + 1) - 1, 1), 0);
        }
        candidate = before | int256(uint256(1) << (T.SEARCH_BITS - 1 - round));
    }

    function _searched(Evidence.Case memory c, Element memory e, uint256 round, uint256 b)
        private
        view
        returns (int256 sum)
    {
        (int256 candidate,) = _candidate(c, e, round);
        sum = _before(c, e, b == 0);
        (uint256 logits, uint256 count) = _ids(c, e.op, e.row, T.LOGITS, b);
        if (e.segment == T.SUM_SEARCH) {
            (uint256 weights,) = _ids(c, e.op, e.row, T.WEIGHTS, b);
            return sum + int256(_keptOf(logits, weights, count, candidate - LOGIT_BIAS));
        }
        unchecked {
            for (uint256 i = 0; i < count; ++i) {
                if (Evidence.i32At(logits, i) + LOGIT_BIAS >= candidate) ++sum;
            }
        }
    }

    function _threshold(Evidence.Case memory c, Element memory e, uint256 round, Sampling.Params memory sampler)
        private
        view
        returns (int256)
    {
        (int256 candidate, int256 before) = _candidate(c, e, round);
        int256 sum = _before(c, e, false);
        if (e.segment == T.COUNT_SEARCH) return sum >= int256(sampler.topK) ? candidate : before;
        // An i64 times 2^16, and times 32 bits.
        return sum * 65_536 >= int256(sampler.topP) * _allWeight(c, e) ? candidate : before;
    }

    /// @dev Takes the weight of all ids.
    function _allWeight(Evidence.Case memory c, Element memory e) private view returns (int256) {
        return Evidence.i64At(c.take(e.op, e.row, T.TOTALS, T.idBlocks(c.program) - 1, 1), 0);
    }

    /// @dev Takes what each active search found: the least logit that is kept.
    function _least(Evidence.Case memory c, uint256 op, uint256 row) private view returns (int256 least) {
        least = type(int256).min;
        uint256 last = T.SEARCH_BITS * (T.idBlocks(c.program) + 1) - 1;
        if (c.program.flags & T.TOP_K != 0) {
            least = Evidence.i64At(c.take(op, row, T.COUNT_SEARCH, last, 1), 0) - LOGIT_BIAS;
        }
        if (c.program.flags & T.TOP_P != 0) {
            int256 found = Evidence.i64At(c.take(op, row, T.SUM_SEARCH, last, 1), 0) - LOGIT_BIAS;
            if (found > least) least = found;
        }
    }

    function _kept(Evidence.Case memory c, Element memory e) private view returns (int256) {
        int256 sum = _before(c, e, e.index == 0);
        int256 least = _least(c, e.op, e.row);
        (uint256 logits, uint256 count) = _ids(c, e.op, e.row, T.LOGITS, e.index);
        (uint256 weights,) = _ids(c, e.op, e.row, T.WEIGHTS, e.index);
        return sum + int256(_keptOf(logits, weights, count, least));
    }

    /// @dev The weight of those among `count` ids whose logit is at least `least`.
    function _keptOf(uint256 logits, uint256 weights, uint256 count, int256 least) private pure returns (uint256 sum) {
        unchecked {
            for (uint256 i = 0; i < count; ++i) {
                if (Evidence.i32At(logits, i) >= least) sum += Evidence.u32At(weights, i);
            }
        }
    }
}
