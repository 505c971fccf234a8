// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Merkle} from "../../src/Merkle.sol";
import {Entry, Opening, Row, Statement, Step, TokenOpening} from "../../src/dispute/IReferee.sol";
import {Manifest} from "../../src/dispute/Manifest.sol";
import {Models} from "../../src/dispute/Models.sol";
import {SampleReferee} from "../../src/dispute/SampleReferee.sol";
import {StepReferee} from "../../src/dispute/StepReferee.sol";
import {TraceGeometry as T} from "../../src/dispute/TraceGeometry.sol";
import {Test} from "../Base.sol";
import {ManifestBytes} from "./ManifestBytes.sol";
import {Packing} from "./Packing.sol";

/// @title Makes traces of which only what a step touches is filled in, and the step that shows it.
/// @dev A test sets elements, weight rows and table entries, says in which order a step shows them, and
///      asks the referee. Leaves that nobody set hash to arbitrary words.
abstract contract StepBase is Test {
    event log_named_uint(string key, uint256 val);

    /// Trees by number: 0..8 matrices and 16..22 norms as in `ManifestBytes`, then these.
    uint256 internal constant EXP = 32;
    uint256 internal constant ACT = 33;
    uint256 internal constant ROPES = 34;
    uint256 internal constant PROMPT = 40;
    uint256 internal constant OUTPUT = 41;
    uint256 internal constant OPS = 50;
    uint256 internal constant ROWS_OF_OP = 100;

    /// Matrices and norms.
    uint256 internal constant EMBEDDING = 7;
    uint256 internal constant HEAD = 8;

    struct Ask {
        uint256 op;
        uint256 row;
        uint256 segment;
        uint256 index;
        uint256 count;
        uint256 packing;
    }

    struct Show {
        uint256 tree;
        uint256 count;
        uint256 index;
        uint256 format;
        bytes data;
    }

    Models internal models = new Models();
    StepReferee internal referee = new StepReferee(new SampleReferee(models));

    ManifestBytes.Shape internal shape;
    uint256 internal nPrompt = 5;
    uint256 internal nOutput = 3;
    bytes internal sampler;
    bytes32 private plan;

    mapping(uint256 leaf => bytes) private vectors;
    uint256[] private filled;
    mapping(uint256 tree => uint256[]) private places;
    mapping(uint256 tree => mapping(uint256 index => bytes32)) private leaves;
    Ask[] internal asks;
    Show[] internal rows;
    Show[] internal entries;
    Show[] internal tokens;

    // ---------------------------------------------------------------- the model

    function begin(ManifestBytes.Shape memory s) internal {
        shape = s;
        plan = models.publish(ManifestBytes.encode(s, ManifestBytes.someRoots()));
    }

    function program() internal view returns (T.Program memory p) {
        p.model = Manifest.load(models, plan);
        (p.nPrompt, p.nOutput) = (nPrompt, nOutput);
        p.flags = sampler.length == 0 ? 0 : referee.samplingFlags(plan, sampler);
    }

    function publish() private returns (bytes32) {
        ManifestBytes.Roots memory r;
        (uint256 q, uint256 kv) = (shape.heads * shape.headDim, shape.kvHeads * shape.headDim);
        uint256[9] memory counts = [q, kv, kv, shape.width, shape.ffn, shape.ffn, shape.width, shape.vocab, shape.vocab];
        for (uint256 i = 0; i < 9; ++i) {
            r.matrices[i] = rootOf(i, counts[i]);
        }
        for (uint256 i = 0; i < 7; ++i) {
            r.norms[i] = rootOf(16 + i, i == 2 || i == 3 ? shape.headDim : shape.width);
        }
        (r.exp, r.act) = (rootOf(EXP, 256), rootOf(ACT, 65_536));
        for (uint256 i = 0; i < 4; ++i) {
            r.ropes[i] = rootOf(ROPES + i, shape.context);
        }
        return models.publish(ManifestBytes.encode(shape, r));
    }

    // ---------------------------------------------------------------- trees with few leaves

    function put(uint256 tree, uint256 index, bytes32 leaf) internal {
        if (leaves[tree][index] == 0) places[tree].push(index);
        leaves[tree][index] = leaf;
    }

    function node(uint256 tree, uint256 count, uint256 level, uint256 index) private view returns (bytes32) {
        if (index << level >= count) return 0;
        if (level == 0 && leaves[tree][index] != 0) return leaves[tree][index];
        bool any = false;
        for (uint256 i = 0; i < places[tree].length; ++i) {
            any = any || places[tree][i] >> level == index;
        }
        if (!any) return keccak256(abi.encode("the rest", tree, level, index));
        bytes32 left = node(tree, count, level - 1, 2 * index);
        return keccak256(abi.encodePacked(bytes1(0x01), left, node(tree, count, level - 1, 2 * index + 1)));
    }

    function depth(uint256 count) private pure returns (uint256) {
        return Merkle.depthOf(uint64(count));
    }

    function rootOf(uint256 tree, uint256 count) internal view returns (bytes32) {
        return keccak256(abi.encodePacked(bytes1(0x02), uint64(count), node(tree, count, depth(count), 0)));
    }

    function pathOf(uint256 tree, uint256 count, uint256 index) internal view returns (bytes32[] memory path) {
        path = new bytes32[](depth(count));
        for (uint256 level = 0; level < path.length; ++level) {
            path[level] = node(tree, count, level, (index >> level) ^ 1);
        }
    }

    // ---------------------------------------------------------------- vectors

    function offsetOf(uint256 op, uint256 row, uint256 segment) private view returns (uint256 offset, uint256 all) {
        uint256[] memory spans = T.spansOf(program(), op, row);
        for (uint256 i = 1; i < spans.length; ++i) {
            if (spans[i] & 255 == segment) offset = all;
            all += (spans[i] >> 128) * T.widthOf(spans[i] & 255);
        }
    }

    function set(uint256 op, uint256 row, uint256 segment, uint256 index, int256[] memory values) internal {
        (uint256 offset, uint256 all) = offsetOf(op, row, segment);
        uint256 leaf = (op << 32) | row;
        if (vectors[leaf].length == 0) {
            filled.push(leaf);
            vectors[leaf] = new bytes(all);
        }
        bytes memory data = vectors[leaf];
        uint256 width = T.widthOf(segment);
        for (uint256 i = 0; i < values.length; ++i) {
            bytes32 value = bytes32(uint256(values[i]) << (256 - 8 * width));
            for (uint256 j = 0; j < width; ++j) {
                data[offset + (index + i) * width + j] = value[j];
            }
        }
        vectors[leaf] = data;
    }

    function set(uint256 op, uint256 row, uint256 segment, uint256 index, int256 value) internal {
        int256[] memory values = new int256[](1);
        values[0] = value;
        set(op, row, segment, index, values);
    }

    /// Numbers within ±limit, or from 0 to it.
    function some(uint256 seed, uint256 n, int256 limit, bool signed) internal pure returns (int256[] memory v) {
        v = new int256[](n);
        for (uint256 i = 0; i < n; ++i) {
            uint256 h = uint256(keccak256(abi.encode(seed, i)));
            v[i] = int256(h >> 8) % (limit + 1);
            if (signed && h % 2 == 0) v[i] = -v[i];
        }
    }

    function slice(bytes memory data, uint256 from, uint256 end) internal pure returns (bytes memory out) {
        out = new bytes(end - from);
        assembly ("memory-safe") {
            mcopy(add(out, 32), add(add(data, 32), from), sub(end, from))
        }
    }

    function chunkLeaves(uint256 op, uint256 row) private view returns (bytes32[] memory hashes) {
        uint256[] memory spans = T.spansOf(program(), op, row);
        hashes = new bytes32[](T.chunksOf(spans));
        bytes memory data = vectors[(op << 32) | row];
        (uint256 n, uint256 from) = (0, 0);
        for (uint256 i = 1; i < spans.length; ++i) {
            uint256 end = from + (spans[i] >> 128) * T.widthOf(spans[i] & 255);
            for (; from < end; ++n) {
                uint256 to = from + 256 < end ? from + 256 : end;
                hashes[n] = Merkle.leafOf(slice(data, from, to));
                from = to;
            }
        }
    }

    function traceRoot() private returns (bytes32) {
        T.Program memory p = program();
        for (uint256 i = 0; i < filled.length; ++i) {
            (uint256 op, uint256 row) = (filled[i] >> 32, filled[i] & type(uint32).max);
            put(ROWS_OF_OP + op, row, Merkle.rootOf(chunkLeaves(op, row)));
        }
        for (uint256 i = 0; i < filled.length; ++i) {
            uint256 op = filled[i] >> 32;
            put(OPS, op, rootOf(ROWS_OF_OP + op, T.rows(p, op)));
        }
        return rootOf(OPS, T.ops(p));
    }

    // ---------------------------------------------------------------- what a step shows

    function ask(uint256 op, uint256 row, uint256 segment, uint256 index, uint256 count) internal {
        asks.push(Ask(op, row, segment, index, count, 0));
    }

    function askPacked(uint256 op, uint256 row, uint256 segment, uint256 index, uint256 count) internal {
        asks.push(Ask(op, row, segment, index, count, 1));
    }

    /// A row of A and 4-bit codes, put in its matrix and shown by the step: its weights.
    function showRow(uint256 tree, uint256 count, uint256 index, uint256 a, uint256 n)
        internal
        returns (int256[] memory w)
    {
        bytes memory shown = abi.encodePacked(uint16(a));
        bytes memory plain = shown;
        w = new int256[](n);
        for (uint256 from = 0; from < n; from += 32) {
            uint256 h = uint256(keccak256(abi.encode("row", tree, index, from)));
            int256 d = int256(h % 200) - 100;
            int256 m = int256((h >> 20) % 400) - 200;
            bytes16 q = bytes16(keccak256(abi.encode(h)));
            shown = abi.encodePacked(shown, int16(d), int16(m), q);
            for (uint256 i = 0; i < 32; ++i) {
                uint8 code = i < 16 ? uint8(q[i]) & 15 : uint8(q[i - 16]) >> 4;
                w[from + i] = d * int256(uint256(code)) + m;
                plain = abi.encodePacked(plain, int16(w[from + i]));
            }
        }
        put(tree, index, Merkle.leafOf(plain));
        rows.push(Show(tree, count, index, 1, shown));
    }

    function showEntry(uint256 tree, uint256 count, uint256 index, bytes memory data) internal {
        put(tree, index, Merkle.leafOf(data));
        entries.push(Show(tree, count, index, 0, data));
    }

    function showGain(uint256 norm, uint256 count, uint256 index, int256 gain) internal {
        showEntry(16 + norm, count, index, abi.encodePacked(int32(gain)));
    }

    function showToken(uint256 position, uint256 token) internal {
        (uint256 tree, uint256 count, uint256 index) =
            position < nPrompt ? (PROMPT, nPrompt, position) : (OUTPUT, nOutput, position - nPrompt);
        bytes memory data = abi.encodePacked(uint32(token));
        put(tree, index, Merkle.leafOf(data));
        tokens.push(Show(tree, count, index, token, data));
    }

    function forget() internal {
        delete asks;
        delete rows;
        delete entries;
        delete tokens;
    }

    /// Vectors of another shape come next.
    function forgetVectors() internal {
        for (uint256 i = 0; i < filled.length; ++i) {
            delete vectors[filled[i]];
        }
        delete filled;
    }

    function opening(Ask memory a, bool first) private view returns (Opening memory o) {
        T.Program memory p = program();
        T.Place memory place = T.placeOf(T.spansOf(p, a.op, a.row), a.op, a.segment);
        uint256 from = a.index * place.width / 256;
        uint256 end = ((a.index + a.count) * place.width + 255) / 256;
        (o.op, o.row, o.first) = (uint32(a.op), uint32(a.row), uint32(place.firstChunk + from));
        o.packing = uint8(a.packing);
        o.data = rangeOf(a, place, from, end);
        if (a.packing == 1) o.data = Packing.pack12(o.data);
        o.siblings = rangeSiblings(chunkLeaves(a.op, a.row), place.firstChunk + from, place.firstChunk + end);
        if (!first) return o;
        bytes32[] memory row = pathOf(ROWS_OF_OP + a.op, T.rows(p, a.op), a.row);
        bytes32[] memory op = pathOf(OPS, T.ops(p), a.op);
        o.path = new bytes32[](row.length + op.length);
        for (uint256 i = 0; i < o.path.length; ++i) {
            o.path[i] = i < row.length ? row[i] : op[i - row.length];
        }
    }

    function rangeOf(Ask memory a, T.Place memory place, uint256 from, uint256 end)
        private
        view
        returns (bytes memory)
    {
        (uint256 offset,) = offsetOf(a.op, a.row, a.segment);
        uint256 to = end * 256 < place.length * place.width ? end * 256 : place.length * place.width;
        return slice(vectors[(a.op << 32) | a.row], offset + from * 256, offset + to);
    }

    function rangeSiblings(bytes32[] memory level, uint256 from, uint256 end)
        private
        pure
        returns (bytes32[] memory siblings)
    {
        siblings = new bytes32[](64);
        uint256 n = 0;
        while (level.length > 1) {
            if (from % 2 == 1) siblings[n++] = level[from - 1];
            if (end % 2 == 1 && end < level.length) siblings[n++] = level[end];
            bytes32[] memory up = new bytes32[]((level.length + 1) / 2);
            for (uint256 i = 0; i < up.length; ++i) {
                bytes32 right = 2 * i + 1 < level.length ? level[2 * i + 1] : bytes32(0);
                up[i] = keccak256(abi.encodePacked(bytes1(0x01), level[2 * i], right));
            }
            (level, from, end) = (up, from / 2, (end + 1) / 2);
        }
        assembly ("memory-safe") {
            mstore(siblings, n)
        }
    }

    /// The step about the first element that was asked for; about a token where none is.
    function stepOf(uint256 op, uint256 row, uint256 witness) internal view returns (Step memory s) {
        (s.op, s.row, s.witness) = (uint32(op), uint32(row), uint64(witness));
        if (op != T.TOKEN) {
            T.Place memory place = T.placeOf(T.spansOf(program(), op, row), op, asks[0].segment);
            uint256 perChunk = 256 / place.width;
            s.chunk = uint32(place.firstChunk + asks[0].index / perChunk);
            s.slot = uint32(asks[0].index % perChunk);
        }
        s.openings = new Opening[](asks.length);
        for (uint256 i = 0; i < asks.length; ++i) {
            bool first = true;
            for (uint256 j = 0; j < i; ++j) {
                first = first && (asks[j].op != asks[i].op || asks[j].row != asks[i].row);
            }
            s.openings[i] = opening(asks[i], first);
        }
        s.rows = new Row[](rows.length);
        for (uint256 i = 0; i < rows.length; ++i) {
            Show memory r = rows[i];
            s.rows[i] = Row(uint8(r.format), r.data, pathOf(r.tree, r.count, r.index));
        }
        s.entries = new Entry[](entries.length);
        for (uint256 i = 0; i < entries.length; ++i) {
            Show memory r = entries[i];
            s.entries[i] = Entry(r.data, pathOf(r.tree, r.count, r.index));
        }
        s.tokens = new TokenOpening[](tokens.length);
        for (uint256 i = 0; i < tokens.length; ++i) {
            Show memory r = tokens[i];
            s.tokens[i] = TokenOpening(uint32(r.format), pathOf(r.tree, r.count, r.index));
        }
        s.sampler = op == T.TOKEN || op == 2 + 3 * shape.layers ? sampler : bytes("");
    }

    /// The statement and the trace's root, as everything stands.
    function closed() internal returns (Statement memory s, bytes32 root) {
        root = traceRoot();
        s.modelId = publish();
        (s.promptRoot, s.outputRoot) = (rootOf(PROMPT, nPrompt), rootOf(OUTPUT, nOutput));
        (s.nPrompt, s.nOutput) = (uint32(nPrompt), uint32(nOutput));
        (s.samplerHash, s.stopReason) = (keccak256(sampler), 2);
    }

    function judge(uint256 op, uint256 row, uint256 witness) internal returns (bool) {
        (Statement memory statement, bytes32 root) = closed();
        return referee.convicts(statement, root, abi.encode(stepOf(op, row, witness)));
    }

    /// The element that was asked for first is right if it is `expected`, and convicts if it is not.
    function check(int256 expected, string memory what) internal {
        Ask memory a = asks[0];
        set(a.op, a.row, a.segment, a.index, expected);
        yes(!judge(a.op, a.row, 0), string.concat(what, " is right"));
        measure(what);
        set(a.op, a.row, a.segment, a.index, expected + 1);
        yes(judge(a.op, a.row, 0), string.concat(what, " is too large"));
        set(a.op, a.row, a.segment, a.index, expected == 0 ? int256(2) : expected - 1);
        yes(judge(a.op, a.row, 0), string.concat(what, " is another"));
        set(a.op, a.row, a.segment, a.index, expected);
    }

    /// What a transaction with this step costs, the game's own part aside.
    function measure(string memory what) internal returns (uint256 cost) {
        Ask memory a = asks[0];
        return measure(a.op, a.row, 0, what);
    }

    function measure(uint256 op, uint256 row, uint256 witness, string memory what) internal returns (uint256 cost) {
        (Statement memory statement, bytes32 root) = closed();
        bytes memory encoded = abi.encode(stepOf(op, row, witness));
        bytes memory input = abi.encodeCall(referee.convicts, (statement, root, encoded));
        address to = address(referee);
        uint256 execution;
        assembly ("memory-safe") {
            // By hand, so that this contract's memory, which is large, does not count.
            let before := gas()
            let done := staticcall(gas(), to, add(input, 32), mload(input), 0, 0)
            execution := mul(done, sub(before, gas()))
        }
        yes(execution != 0, string.concat(what, " is judged"));
        // EIP-7623.
        uint256 units = 0;
        for (uint256 i = 0; i < encoded.length; ++i) {
            units += encoded[i] == 0 ? 1 : 4;
        }
        cost = 21_000 + (execution + 4 * units > 10 * units ? execution + 4 * units : 10 * units);
        emit log_named_uint(string.concat(what, ": bytes"), encoded.length);
        emit log_named_uint(string.concat(what, ": execution"), execution);
        emit log_named_uint(string.concat(what, ": transaction"), cost);
    }
}
