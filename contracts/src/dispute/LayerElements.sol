// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Arithmetic} from "./Arithmetic.sol";
import {Evidence} from "./Evidence.sol";
import {Lanes} from "./Lanes.sol";
import {Manifest} from "./Manifest.sol";
import {TraceGeometry as T} from "./TraceGeometry.sol";

/// @title The elements of the layers, of the embedding and of the final norm: one function a row of the
///        table in docs/dispute.md, each taking its evidence in that row's order.
/// @notice A function here answers whether the claimed element is false. Which element it is, is settled
///         before; what is not shown as asked for reverts in `Evidence`.
library LayerElements {
    using Evidence for Evidence.Case;

    /// @notice The element in question, which the step's first opening has shown.
    struct Element {
        uint256 kind;
        uint256 layer;
        uint256 op;
        uint256 row;
        uint256 segment;
        uint256 index;
        int256 claimed;
        uint256 witness;
        /// Where it stands in memory, within its chunk.
        uint256 ptr;
        /// The layer's entry of the manifest in memory; 0 for embedding and final norm.
        uint256 entry;
    }

    /// @dev Where the values come from that one exponent covers.
    struct Site {
        /// Their number, and the base of their exponent.
        uint256 n;
        int256 base;
        /// A norm's gains and its inverse root; 0 where the values are no norm's.
        uint256 norm;
        int256 inverse;
        /// What a norm is of.
        uint256 op;
        uint256 row;
        uint256 source;
    }

    /// @dev A row of a matrix against the whole of an x12; `shift` is `fx − fo`.
    struct Product {
        uint256 x12;
        /// The matrix's entry of the manifest in memory.
        uint256 matrix;
        uint256 rows;
        uint256 index;
        int256 shift;
        int256 limit;
    }

    error WitnessOutside(uint256 witness, uint256 count);
    error NotTheFirstFault();
    error NoRule(uint256 segment);

    uint256 private constant EXP_LENGTH = 256;
    uint256 private constant ACT_LENGTH = 65_536;
    /// @dev The mix's fraction, less v's; that of the activated gate.
    int256 private constant F_MIX = 15;
    int256 private constant F_ACT = 16;

    /// @notice Whether the claimed element is false.
    function isFalse(Evidence.Case memory c, Element memory e) internal view returns (bool) {
        uint256 s = e.segment;
        if (e.kind == T.EMBED) return e.claimed != _embedded(c, e);
        if (s == T.SQUARES || s == T.FFN_SQUARES || s == T.POST_SQUARES || s == T.DOWN_SQUARES) {
            return e.claimed != _squares(c, e);
        }
        if (s == T.PEAK || s == T.MIX_PEAK || s == T.FFN_PEAK || s == T.ACT_PEAK) {
            return e.index == 0 ? _isNoPeak(c, e) : e.claimed != _exponent(c, e);
        }
        if (s == T.X12 || s == T.MIX_X12 || s == T.FFN_X12 || s == T.ACT_X12) return _isNoX12(c, e);
        if (s == T.QKV || s == T.BRANCH || s == T.GATE_UP || s == T.DOWN) return e.claimed != _linear(c, e);
        if (s == T.MIDDLE || s == T.RESIDUAL) return e.claimed != _added(c, e);
        if (s == T.HEAD_SQUARES) return e.claimed != _headSquares(c, e);
        if (s == T.Q || s == T.K) return e.claimed != _turned(c, e);
        if (s == T.V) return e.claimed != _value(c, e);
        if (s == T.COLUMNS) return e.claimed != _column(c, e);
        if (s == T.SEEN) return e.index % 2 == 0 ? _isNoMaximum(c, e) : e.claimed != _maximum(c, e);
        if (s == T.EXPS) return e.claimed != _term(c, e);
        if (s == T.SUMS) return e.claimed != _sum(c, e);
        if (s == T.MIXES) return e.claimed != _mixed(c, e);
        revert NoRule(s);
    }

    /// @dev Takes elements of the leaf in question.
    function _own(Evidence.Case memory c, Element memory e, uint256 segment, uint256 index, uint256 count)
        private
        view
        returns (uint256)
    {
        return c.take(e.op, e.row, segment, index, count);
    }

    /// @dev Takes the element before this one.
    function _before(Evidence.Case memory c, Element memory e) private view returns (uint256) {
        return _own(c, e, e.segment, e.index - 1, 1);
    }

    // ---------------------------------------------------------------- embedding, norms, exponents

    function _embedded(Evidence.Case memory c, Element memory e) private view returns (int256) {
        Manifest.Model memory m = c.program.model;
        uint256 entry = Manifest.tail(m) + Manifest.EMBEDDING;
        uint256 token = c.takeToken(e.row);
        (int256 a, uint256 weights) = c.takeRow(Manifest.rowsRoot(entry), m.vocab, token, m.width);
        int256 scale = Arithmetic.rowScale(uint256(a), m.gemma ? m.width : 1);
        return Arithmetic.embed(Evidence.i16At(weights, e.index), scale, Manifest.shOf(entry) + 8 - m.fraction);
    }

    function _squares(Evidence.Case memory c, Element memory e) private view returns (int256) {
        Site memory site = _norm(c, e, e.segment);
        uint256 before = e.index == 0 ? Manifest.epsOf(site.norm) : Evidence.u64At(_before(c, e), 0);
        uint256 from = e.index * T.SQUARES_BLOCK;
        uint256 count = site.n - from < T.SQUARES_BLOCK ? site.n - from : T.SQUARES_BLOCK;
        return _withSquares(before, c.take(site.op, site.row, site.source, from, count), count);
    }

    function _headSquares(Evidence.Case memory c, Element memory e) private view returns (int256) {
        uint256 dim = c.program.model.headDim;
        uint256 blocks = T.squaresOf(dim);
        (uint256 head, uint256 from) = (e.index / blocks, e.index % blocks * T.SQUARES_BLOCK);
        uint256 norm = e.entry + (head < c.program.model.heads ? Manifest.Q_NORM : Manifest.K_NORM);
        uint256 sum = from == 0 ? Manifest.epsOf(norm) : Evidence.u64At(_before(c, e), 0);
        uint256 count = dim - from < T.SQUARES_BLOCK ? dim - from : T.SQUARES_BLOCK;
        return _withSquares(sum, _own(c, e, T.QKV, head * dim + from, count), count);
    }

    /// @dev Adds the squares of `count` i32. 64 of them stay below 2^68.
    function _withSquares(uint256 sum, uint256 ptr, uint256 count) private pure returns (int256) {
        unchecked {
            for (uint256 i = 0; i < count; ++i) {
                int256 x = Evidence.i32At(ptr, i);
                sum += uint256(x * x);
            }
            return int256(sum);
        }
    }

    /// @dev What a norm of these squares is of.
    function _norm(Evidence.Case memory c, Element memory e, uint256 squares) private view returns (Site memory site) {
        Manifest.Model memory m = c.program.model;
        (site.n, site.base, site.op, site.row) = (m.width, Arithmetic.BASE_NORM, e.op, e.row);
        if (squares == T.SQUARES) {
            (site.op, site.source) = (T.residualBefore(e.layer), T.RESIDUAL);
            if (e.kind == T.FINAL) {
                // The token before output `row`.
                site.row = c.program.nPrompt - 1 + e.row;
                site.norm = Manifest.tail(m) + Manifest.FINAL_NORM;
            } else {
                site.norm = e.entry + Manifest.ATTENTION_NORM;
            }
        } else if (squares == T.FFN_SQUARES) {
            (site.source, site.norm) = (T.MIDDLE, e.entry + Manifest.FFN_NORM);
        } else if (squares == T.POST_SQUARES) {
            (site.source, site.norm) = (T.BRANCH, e.entry + Manifest.ATTENTION_POST);
        } else {
            (site.source, site.norm) = (T.DOWN, e.entry + Manifest.FFN_POST);
        }
    }

    /// @dev Takes the last of a norm's squares.
    function _inverse(Evidence.Case memory c, Element memory e, uint256 squares) private view returns (int256) {
        uint256 last = T.squaresOf(c.program.model.width) - 1;
        return Arithmetic.inverseRoot(Evidence.u64At(_own(c, e, squares, last, 1), 0));
    }

    /// @dev The values that this peak is of; a norm's squares are taken here, once, before any value.
    function _site(Evidence.Case memory c, Element memory e, uint256 peak) private view returns (Site memory site) {
        Manifest.Model memory m = c.program.model;
        if (peak == T.MIX_PEAK) {
            (site.n, site.base, site.source) = (m.heads * m.headDim, Arithmetic.BASE_MIX, T.MIXES);
        } else if (peak == T.ACT_PEAK) {
            (site.n, site.base, site.source) = (m.ffn, Arithmetic.BASE_MLP, T.GATE_UP);
        } else {
            // A norm's squares stand right before its peak.
            site = _norm(c, e, peak - 1);
        }
    }

    function _ready(Evidence.Case memory c, Element memory e, Site memory site, uint256 peak) private view {
        if (site.norm != 0) site.inverse = _inverse(c, e, peak - 1);
    }

    /// @dev Value `i` before its exponent is taken off.
    function _valueAt(Evidence.Case memory c, Element memory e, Site memory site, uint256 i)
        private
        view
        returns (int256)
    {
        if (site.source == T.MIXES) {
            (, uint256 blocks) = _blocks(c, e);
            return Evidence.i32At(_own(c, e, T.MIXES, (blocks - 1) * site.n + i, 1), 0);
        }
        if (site.source == T.GATE_UP) {
            int256 gate = Evidence.i32At(_own(c, e, T.GATE_UP, i, 1), 0);
            int256 up = Evidence.i32At(_own(c, e, T.GATE_UP, site.n + i, 1), 0);
            uint256 ptr = uint256(Arithmetic.abs(gate));
            if (ptr >= ACT_LENGTH) ptr = ACT_LENGTH - 1;
            bytes32 root = Manifest.actRoot(Manifest.tail(c.program.model));
            return Arithmetic.product(gate, up, c.takeValue(root, ACT_LENGTH, ptr));
        }
        int256 x = Evidence.i32At(c.take(site.op, site.row, site.source, i, 1), 0);
        return Arithmetic.norm(x, site.inverse, c.takeGain(site.norm, site.n, i));
    }

    function _isNoPeak(Evidence.Case memory c, Element memory e) private view returns (bool) {
        Site memory site = _site(c, e, e.segment);
        if (e.claimed < 0 || uint256(e.claimed) >= site.n) return true;
        if (e.witness >= site.n) revert WitnessOutside(e.witness, site.n);
        _ready(c, e, site, e.segment);
        int256 peak = Arithmetic.abs(_valueAt(c, e, site, uint256(e.claimed)));
        int256 other = Arithmetic.abs(_valueAt(c, e, site, e.witness));
        return _beats(other, e.witness, peak, uint256(e.claimed));
    }

    function _exponent(Evidence.Case memory c, Element memory e) private view returns (int256) {
        Site memory site = _site(c, e, e.segment);
        int256 m = Evidence.i64At(e.ptr - 8, 0);
        if (m < 0 || uint256(m) >= site.n) revert NotTheFirstFault();
        _ready(c, e, site, e.segment);
        return Arithmetic.exponent(Arithmetic.abs(_valueAt(c, e, site, uint256(m))), site.base);
    }

    function _isNoX12(Evidence.Case memory c, Element memory e) private view returns (bool) {
        // A site's peak stands right before its x12.
        uint256 peak = e.segment - 1;
        int256 exponent = Evidence.i64At(_own(c, e, peak, 0, 2), 1);
        Site memory site = _site(c, e, peak);
        _ready(c, e, site, peak);
        int256 x = Arithmetic.rsh(_valueAt(c, e, site, e.index), site.base + exponent);
        return e.claimed != x || Arithmetic.abs(x) > Arithmetic.X_MAX;
    }

    /// @dev Whether a witness shows that something else is no maximum: larger, or equal and lower.
    function _beats(int256 value, uint256 ptr, int256 claimed, uint256 claimedAt) private pure returns (bool) {
        return value > claimed || (value == claimed && ptr < claimedAt);
    }

    // ---------------------------------------------------------------- matrices

    function _linear(Evidence.Case memory c, Element memory e) private view returns (int256) {
        Product memory p = e.segment == T.QKV
            ? _qkvProduct(c.program.model, e)
            : e.segment == T.GATE_UP ? _mlpProduct(c.program.model, e) : _branchProduct(c.program.model, e);
        int256 exponent = Evidence.i64At(_own(c, e, p.x12 - 1, 0, 2), 1);
        uint256 n = c.placeOf(e.op, e.row, p.x12).length;
        uint256 x = _own(c, e, p.x12, 0, n);
        (int256 a, uint256 weights) = c.takeRow(Manifest.rowsRoot(p.matrix), p.rows, p.index, n);
        int256 shift = Manifest.shOf(p.matrix) + p.shift - exponent;
        return Arithmetic.requantize(Lanes.dot(x, weights, n), a, shift, p.limit);
    }

    function _qkvProduct(Manifest.Model memory m, Element memory e) private pure returns (Product memory p) {
        (uint256 q, uint256 kv) = (m.heads * m.headDim, m.kvHeads * m.headDim);
        (p.x12, p.limit) = (T.X12, Arithmetic.QKV_MAX);
        p.shift = Manifest.fsOf(e.entry + Manifest.ATTENTION_NORM) - Arithmetic.BASE_NORM - Arithmetic.F_INNER;
        if (e.index < q) (p.matrix, p.rows, p.index) = (e.entry + Manifest.Q, q, e.index);
        else if (e.index < q + kv) (p.matrix, p.rows, p.index) = (e.entry + Manifest.K, kv, e.index - q);
        else (p.matrix, p.rows, p.index) = (e.entry + Manifest.V, kv, e.index - q - kv);
    }

    function _mlpProduct(Manifest.Model memory m, Element memory e) private pure returns (Product memory p) {
        (p.x12, p.limit, p.rows) = (T.FFN_X12, Arithmetic.MLP_MAX, m.ffn);
        p.shift = Manifest.fsOf(e.entry + Manifest.FFN_NORM) - Arithmetic.BASE_NORM - Arithmetic.F_INNER;
        if (e.index < m.ffn) (p.matrix, p.index) = (e.entry + Manifest.GATE, e.index);
        else (p.matrix, p.index) = (e.entry + Manifest.UP, e.index - m.ffn);
    }

    /// @dev What is added to the residual, or goes into gemma's norm before that.
    function _branchProduct(Manifest.Model memory m, Element memory e) private pure returns (Product memory p) {
        (p.limit, p.rows, p.index) = (Arithmetic.RESIDUAL_MAX, m.width, e.index);
        if (e.segment == T.BRANCH) {
            (p.x12, p.matrix) = (T.MIX_X12, e.entry + Manifest.O);
            p.shift = F_MIX + Manifest.i8(e.entry, Manifest.FRACTION_V);
        } else {
            (p.x12, p.matrix) = (T.ACT_X12, e.entry + Manifest.DOWN);
            p.shift = F_ACT + Arithmetic.F_INNER - Arithmetic.BASE_MLP;
        }
        p.shift -= m.gemma ? Arithmetic.F_BRANCH : m.fraction;
    }

    function _added(Evidence.Case memory c, Element memory e) private view returns (int256) {
        bool middle = e.segment == T.MIDDLE;
        int256 x = middle
            ? Evidence.i32At(c.take(T.residualBefore(e.layer), e.row, T.RESIDUAL, e.index, 1), 0)
            : Evidence.i32At(_own(c, e, T.MIDDLE, e.index, 1), 0);
        int256 y = Evidence.i32At(_own(c, e, middle ? T.BRANCH : T.DOWN, e.index, 1), 0);
        Manifest.Model memory m = c.program.model;
        if (m.gemma) {
            int256 inverse = _inverse(c, e, middle ? T.POST_SQUARES : T.DOWN_SQUARES);
            uint256 norm = e.entry + (middle ? Manifest.ATTENTION_POST : Manifest.FFN_POST);
            y = Arithmetic.norm(y, inverse, c.takeGain(norm, m.width, e.index));
            y = Arithmetic.rsh(y, Manifest.fsOf(norm) - m.fraction);
        }
        return Arithmetic.add(x, y);
    }

    // ---------------------------------------------------------------- q, k, v

    function _turned(Evidence.Case memory c, Element memory e) private view returns (int256) {
        // The head among q's and k's together, and the two elements of it that turn together.
        uint256 dim = c.program.model.headDim;
        uint256 head = e.index / dim + (e.segment == T.Q ? 0 : c.program.model.heads);
        (uint256 first, uint256 second) = _pair(c.program.model, e.index % dim);
        int256 a = Evidence.i32At(_own(c, e, T.QKV, head * dim + first, 1), 0);
        int256 b = Evidence.i32At(_own(c, e, T.QKV, head * dim + second, 1), 0);
        int256 inverse = c.program.model.gemma ? _headInverse(c, e, head) : int256(0);
        (int256 cos, int256 sin) = _angle(c, e, first);
        if (c.program.model.gemma) {
            a = _headNormed(c, e, a, inverse, first);
            b = _headNormed(c, e, b, inverse, second);
        }
        int256 turned =
            e.index % dim == first ? Arithmetic.turnFirst(a, b, cos, sin) : Arithmetic.turnSecond(a, b, cos, sin);
        uint256 fraction = e.segment == T.Q ? Manifest.FRACTION_Q : Manifest.FRACTION_K;
        return Arithmetic.quantizeQk(turned, Manifest.i8(e.entry, fraction));
    }

    /// @dev Takes the last of a head's squares.
    function _headInverse(Evidence.Case memory c, Element memory e, uint256 head) private view returns (int256) {
        uint256 blocks = T.squaresOf(c.program.model.headDim);
        uint256 last = head * blocks + blocks - 1;
        return Arithmetic.inverseRoot(Evidence.u64At(_own(c, e, T.HEAD_SQUARES, last, 1), 0));
    }

    /// @dev Element `i` of a head after gemma's norm of q or k, at Q.12.
    function _headNormed(Evidence.Case memory c, Element memory e, int256 x, int256 inverse, uint256 i)
        private
        pure
        returns (int256)
    {
        uint256 norm = e.entry + (e.segment == T.Q ? Manifest.Q_NORM : Manifest.K_NORM);
        int256 normed = Arithmetic.norm(x, inverse, c.takeGain(norm, c.program.model.headDim, i));
        return Arithmetic.rsh(normed, Manifest.fsOf(norm) - Arithmetic.F_INNER);
    }

    /// @dev Takes the position's row of the layer's RoPE table: cos and sin for a pair by its first
    ///      element. Pairs lie side by side for llama, and halves apart for gemma.
    function _angle(Evidence.Case memory c, Element memory e, uint256 first)
        private
        view
        returns (int256 cos, int256 sin)
    {
        Manifest.Model memory m = c.program.model;
        bytes32 root = Manifest.ropeRoot(Manifest.tail(m), Manifest.u8(e.entry, Manifest.ROPE));
        uint256 row = c.takeEntry(root, m.contextMax, e.row, 2 * m.headDim);
        uint256 frequency = m.gemma ? first : first / 2;
        (cos, sin) = (Evidence.i16At(row, 2 * frequency), Evidence.i16At(row, 2 * frequency + 1));
    }

    /// @dev The two elements of a head that turn together, of which `i` is one.
    function _pair(Manifest.Model memory m, uint256 i) private pure returns (uint256 first, uint256 second) {
        uint256 half = m.headDim / 2;
        first = m.gemma ? i % half : i - i % 2;
        second = m.gemma ? first + half : first + 1;
    }

    function _value(Evidence.Case memory c, Element memory e) private view returns (int256) {
        Manifest.Model memory m = c.program.model;
        uint256 ptr = (m.heads + m.kvHeads) * m.headDim + e.index;
        int256 v = Evidence.i32At(_own(c, e, T.QKV, ptr, 1), 0);
        return Arithmetic.quantizeV(v, Manifest.i8(e.entry, Manifest.FRACTION_V));
    }

    function _column(Evidence.Case memory c, Element memory e) private view returns (int256) {
        uint256 position = e.row * T.BLOCK + e.index % T.BLOCK;
        if (position >= T.tokens(c.program)) return 0;
        return Evidence.i16At(c.take(e.op - 1, position, T.V, e.index / T.BLOCK, 1), 0);
    }

    // ---------------------------------------------------------------- attention

    /// @dev The first position seen from the element's row.
    function _from(Element memory e) private pure returns (uint256) {
        return T.firstSeen(e.row, Manifest.u32(e.entry, Manifest.WINDOW));
    }

    function _blocks(Evidence.Case memory, Element memory e) private pure returns (uint256 first, uint256 count) {
        return T.blocksSeen(e.row, Manifest.u32(e.entry, Manifest.WINDOW));
    }

    /// @dev Takes a head of q at the element's row.
    function _query(Evidence.Case memory c, Element memory e, uint256 head) private view returns (uint256) {
        uint256 dim = c.program.model.headDim;
        return c.take(e.op - 2, e.row, T.Q, head * dim, dim);
    }

    /// @dev Takes the head of k at a position that this head of q meets, and multiplies the two.
    function _score(Evidence.Case memory c, Element memory e, uint256 query, uint256 head, uint256 position)
        private
        view
        returns (int256)
    {
        Manifest.Model memory m = c.program.model;
        uint256 key = c.take(e.op - 2, position, T.K, _group(m, head) * m.headDim, m.headDim);
        return Lanes.dot(query, key, m.headDim);
    }

    /// @dev The kv head of a head.
    function _group(Manifest.Model memory m, uint256 head) private pure returns (uint256) {
        return head / (m.heads / m.kvHeads);
    }

    function _isNoMaximum(Evidence.Case memory c, Element memory e) private view returns (bool) {
        uint256 from = _from(e);
        if (e.claimed < int256(from) || e.claimed > int256(e.row)) return true;
        if (e.witness < from || e.witness > e.row) revert WitnessOutside(e.witness, e.row + 1);
        uint256 head = e.index / 2;
        uint256 query = _query(c, e, head);
        int256 score = _score(c, e, query, head, uint256(e.claimed));
        return _beats(_score(c, e, query, head, e.witness), e.witness, score, uint256(e.claimed));
    }

    function _maximum(Evidence.Case memory c, Element memory e) private view returns (int256) {
        int256 ptr = Evidence.i64At(e.ptr - 8, 0);
        if (ptr < int256(_from(e)) || ptr > int256(e.row)) revert NotTheFirstFault();
        uint256 head = e.index / 2;
        uint256 query = _query(c, e, head);
        return _score(c, e, query, head, uint256(ptr));
    }

    function _term(Evidence.Case memory c, Element memory e) private view returns (int256) {
        (uint256 head, uint256 position) = _termOf(c, e);
        if (position < _from(e) || position > e.row) return 0;
        int256 below = Evidence.i64At(_own(c, e, T.SEEN, 2 * head, 2), 1);
        uint256 query = _query(c, e, head);
        unchecked {
            // An i64 less a sum of fewer than 2^32 products of 32 bits.
            below -= _score(c, e, query, head, position);
        }
        int256 t = Arithmetic.distance(below, c.program.model.scale, _scaleShift(c, e));
        if (!Arithmetic.hasTerm(t)) return 0;
        bytes32 root = Manifest.expRoot(Manifest.tail(c.program.model));
        return Arithmetic.exponential(t, c.takeValue(root, EXP_LENGTH, uint256(t) & 255));
    }

    /// @dev The head and the position that a term is of.
    function _termOf(Evidence.Case memory c, Element memory e) private pure returns (uint256 head, uint256 position) {
        (uint256 first, uint256 blocks) = _blocks(c, e);
        uint256 b = e.index / T.BLOCK;
        head = b / blocks;
        position = (first + b % blocks) * T.BLOCK + e.index % T.BLOCK;
    }

    function _scaleShift(Evidence.Case memory c, Element memory e) private pure returns (int256) {
        return c.program.model.scaleShift + Manifest.i8(e.entry, Manifest.FRACTION_Q)
            + Manifest.i8(e.entry, Manifest.FRACTION_K);
    }

    function _sum(Evidence.Case memory c, Element memory e) private view returns (int256) {
        (, uint256 blocks) = _blocks(c, e);
        int256 sum = e.index % blocks == 0 ? int256(0) : Evidence.i64At(_before(c, e), 0);
        // An i64 and 128 terms of 16 bits.
        return sum + int256(Lanes.sum16(_own(c, e, T.EXPS, e.index * T.BLOCK, T.BLOCK), T.BLOCK));
    }

    function _mixed(Evidence.Case memory c, Element memory e) private view returns (int256 sum) {
        uint256 all = c.program.model.heads * c.program.model.headDim;
        (uint256 b, uint256 i) = (e.index / all, e.index % all);
        if (b > 0) sum = Evidence.i32At(_own(c, e, T.MIXES, e.index - all, 1), 0);
        (uint256 inverse, uint256 terms) = _shares(c, e, i / c.program.model.headDim, b);
        // An i32 and 128 products below 2^(16 + 45 − 30 + 16).
        sum += Lanes.mix(terms, _values(c, e, i, b), T.BLOCK, inverse);
    }

    /// @dev Takes the sum of a head's terms, as a reciprocal, and a block of them.
    function _shares(Evidence.Case memory c, Element memory e, uint256 head, uint256 b)
        private
        view
        returns (uint256 inverse, uint256 terms)
    {
        (, uint256 blocks) = _blocks(c, e);
        inverse = Arithmetic.reciprocal(Evidence.u64At(_own(c, e, T.SUMS, head * blocks + blocks - 1, 1), 0));
        terms = _own(c, e, T.EXPS, (head * blocks + b) * T.BLOCK, T.BLOCK);
    }

    /// @dev Takes the block's column of v that element `i` of the mix is of.
    function _values(Evidence.Case memory c, Element memory e, uint256 i, uint256 b) private view returns (uint256) {
        Manifest.Model memory m = c.program.model;
        (uint256 first,) = _blocks(c, e);
        uint256 column = _group(m, i / m.headDim) * m.headDim + i % m.headDim;
        return c.take(e.op - 1, first + b, T.COLUMNS, column * T.BLOCK, T.BLOCK);
    }
}
