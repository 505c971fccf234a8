// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Fact, Statement, Step, TokenOpening} from "../../src/dispute/IReferee.sol";
import {SampleReferee} from "../../src/dispute/SampleReferee.sol";
import {Sampling} from "../../src/dispute/Sampling.sol";
import {TraceGeometry as T} from "../../src/dispute/TraceGeometry.sol";
import {ManifestBytes} from "./ManifestBytes.sol";
import {StepBase} from "./StepBase.sol";

/// @title Every kind of element of a draw, tokens greedy and drawn, and every fact.
contract SampleStepsTest is StepBase {
    /// The tiny model's ops, 300 ids in two blocks, and an output's index.
    uint256 private constant FINAL = 4;
    uint256 private constant SAMPLE = 5;
    uint256 private constant ROW = 2;
    uint256 private constant IDS = 300;
    int256 private constant BIAS = 1 << 27;

    bytes32 private constant SEED = keccak256("seed");

    function sampled(uint32 beta, uint32 topK, uint32 topP) private {
        sampler = samplerOf(beta, topK, topP, 3, 0);
        begin(ManifestBytes.tiny(false));
    }

    function samplerOf(uint32 beta, uint32 topK, uint32 topP, uint32 most, uint32 stops)
        private
        pure
        returns (bytes memory out)
    {
        out = abi.encodePacked(uint32(16), "assay/sampler/v1", beta, topK, topP, SEED, most, stops);
        for (uint256 i = 0; i < stops; ++i) {
            out = abi.encodePacked(out, uint32(2), "\n\n");
        }
    }

    function test_flags_say_what_is_active() public {
        begin(ManifestBytes.tiny(false));
        bytes32 id = models.publish(ManifestBytes.encode(shape, ManifestBytes.someRoots()));
        eq(referee.samplingFlags(id, samplerOf(0, 40, 60_000, 9, 0)), 0, "greedy");
        eq(referee.samplingFlags(id, samplerOf(1, 0, 65_536, 9, 1)), 1, "plain");
        eq(referee.samplingFlags(id, samplerOf(1, 299, 65_536, 9, 0)), 3, "top-k");
        eq(referee.samplingFlags(id, samplerOf(1, 300, 65_536, 9, 0)), 1, "top-k of all");
        eq(referee.samplingFlags(id, samplerOf(1, 0, 65_535, 9, 4)), 5, "top-p");
        eq(referee.samplingFlags(id, samplerOf(9, 1, 1, 9, 0)), 7, "both");
        vm.expectRevert(Sampling.NotASampler.selector);
        referee.samplingFlags(id, new bytes(72));
        vm.expectRevert(Sampling.NotASampler.selector);
        referee.samplingFlags(id, bytes("assay"));
    }

    // ---------------------------------------------------------------- logits and weights

    function test_logits() public {
        sampled(366, 0, 65_536);
        int256[] memory x = some(1, 64, 2047, true);
        set(FINAL, ROW, T.X12, 0, x);
        set(FINAL, ROW, T.PEAK, 1, 20);
        ask(SAMPLE, ROW, T.LOGITS, 299, 1);
        ask(FINAL, ROW, T.PEAK, 0, 2);
        askPacked(FINAL, ROW, T.X12, 0, 64);
        int256[] memory w = showRow(HEAD, IDS, 299, 50_000, 64);
        check(logitOf(x, w, 50_000, 28, 20), "logit");
    }

    function test_logits_of_a_tied_head() public {
        sampler = samplerOf(1, 0, 65_536, 3, 0);
        ManifestBytes.Shape memory s = ManifestBytes.tiny(true);
        s.tied = true;
        begin(s);
        int256[] memory x = some(1, 64, 2047, true);
        set(FINAL, 0, T.X12, 0, x);
        set(FINAL, 0, T.PEAK, 1, 18);
        ask(SAMPLE, 0, T.LOGITS, 0, 1);
        ask(FINAL, 0, T.PEAK, 0, 2);
        ask(FINAL, 0, T.X12, 0, 64);
        int256[] memory w = showRow(EMBEDDING, IDS, 0, 60_000, 64);
        check(logitOf(x, w, 60_000, 27, 18), "logit");
    }

    /// `fs` of the final norm is 42.
    function logitOf(int256[] memory x, int256[] memory w, int256 a, int256 sh, int256 e)
        private
        pure
        returns (int256 y)
    {
        for (uint256 i = 0; i < x.length; ++i) {
            y += x[i] * w[i];
        }
        int256 shift = sh + 42 - 12 - 16 - e;
        y = (y * a + int256(1 << uint256(shift - 1))) >> uint256(shift);
    }

    function test_top() public {
        sampled(366, 40, 65_000);
        set(SAMPLE, ROW, T.LOGITS, 10, 500);
        set(SAMPLE, ROW, T.LOGITS, 290, 500);
        set(SAMPLE, ROW, T.LOGITS, 5, -500);
        set(SAMPLE, ROW, T.TOP, 0, 10);
        ask(SAMPLE, ROW, T.TOP, 0, 1);
        ask(SAMPLE, ROW, T.LOGITS, 10, 1);
        ask(SAMPLE, ROW, T.LOGITS, 290, 1);
        yes(!judge(SAMPLE, ROW, 290), "the lowest of equals stands");
        measure(SAMPLE, ROW, 290, "top");
        set(SAMPLE, ROW, T.TOP, 0, 290);
        forget();
        ask(SAMPLE, ROW, T.TOP, 0, 1);
        ask(SAMPLE, ROW, T.LOGITS, 290, 1);
        ask(SAMPLE, ROW, T.LOGITS, 10, 1);
        yes(judge(SAMPLE, ROW, 10), "a later equal falls");
        forget();
        ask(SAMPLE, ROW, T.TOP, 0, 1);
        set(SAMPLE, ROW, T.TOP, 0, 300);
        yes(judge(SAMPLE, ROW, 0), "out of range");
        set(SAMPLE, ROW, T.TOP, 0, -1);
        yes(judge(SAMPLE, ROW, 0), "negative");
        forget();
        set(SAMPLE, ROW, T.TOP, 0, 5);
        ask(SAMPLE, ROW, T.TOP, 1, 1);
        ask(SAMPLE, ROW, T.LOGITS, 5, 1);
        check(-500, "max");
    }

    function test_weights() public {
        sampled(366, 0, 65_536);
        int256[3] memory below = [int256(0), 300_000, 20_000_000];
        set(SAMPLE, ROW, T.TOP, 1, 1_000_000);
        for (uint256 i = 0; i < 3; ++i) {
            forget();
            set(SAMPLE, ROW, T.LOGITS, 256 + i, 1_000_000 - below[i]);
            ask(SAMPLE, ROW, T.WEIGHTS, 256 + i, 1);
            ask(SAMPLE, ROW, T.TOP, 0, 2);
            ask(SAMPLE, ROW, T.LOGITS, 256 + i, 1);
            int256 t = (below[i] * 366 * 47_274 + (1 << 30)) >> 31;
            int256 expected = 0;
            if (t < 32 * 256) {
                showEntry(EXP, 256, uint256(t) % 256, abi.encodePacked(uint16(20_001)));
                uint256 octaves = uint256(t) / 256;
                expected = 20_001 << 16;
                if (octaves > 0) expected = (expected + int256(1 << (octaves - 1))) >> octaves;
            }
            check(expected, "weight");
        }
    }

    // ---------------------------------------------------------------- sums over blocks

    function fillIds() private returns (int256[] memory logits, int256[] memory weights) {
        logits = some(3, IDS, (1 << 20) - 1, true);
        weights = some(4, IDS, (1 << 31) - 1, false);
        // Equals, extremes, and what weighs nothing.
        (logits[7], logits[260], logits[261]) = (logits[6], (1 << 27) - 1, -((1 << 27) - 1));
        (weights[9], weights[261]) = (0, 0);
        set(SAMPLE, ROW, T.LOGITS, 0, logits);
        set(SAMPLE, ROW, T.WEIGHTS, 0, weights);
    }

    function askIds(uint256 segment, uint256 b) private {
        ask(SAMPLE, ROW, segment, 256 * b, b == 0 ? 256 : 44);
    }

    function test_totals() public {
        sampled(366, 0, 65_536);
        (, int256[] memory w) = fillIds();
        int256 sum = 0;
        for (uint256 b = 0; b < 2; ++b) {
            forget();
            ask(SAMPLE, ROW, T.TOTALS, b, 1);
            if (b == 1) ask(SAMPLE, ROW, T.TOTALS, 0, 1);
            askIds(T.WEIGHTS, b);
            for (uint256 i = 256 * b; i < (b == 0 ? 256 : 300); ++i) {
                sum += w[i];
            }
            check(sum, "total");
        }
    }

    function checkSearch(uint256 segment, bool byWeight) private {
        (int256[] memory logits, int256[] memory weights) = fillIds();
        set(SAMPLE, ROW, T.TOTALS, 1, 1_000_000_000_000);
        // The first round, one in the middle, the last; both blocks of each.
        for (uint256 i = 0; i < 6; ++i) {
            uint256 round = i < 2 ? 0 : i < 4 ? 7 : 27;
            uint256 b = i % 2;
            int256 before = round == 0 ? int256(0) : round == 7 ? BIAS : BIAS + logits[6] - (logits[6] & 1);
            forget();
            ask(SAMPLE, ROW, segment, round * 3 + b, 1);
            if (round > 0) {
                set(SAMPLE, ROW, segment, round * 3 - 1, before);
                ask(SAMPLE, ROW, segment, round * 3 - 1, 1);
            }
            int256 sum = 0;
            if (b == 1) {
                sum = 1000 + int256(i);
                set(SAMPLE, ROW, segment, round * 3, sum);
                ask(SAMPLE, ROW, segment, round * 3, 1);
            }
            askIds(T.LOGITS, b);
            if (byWeight) askIds(T.WEIGHTS, b);
            int256 candidate = before + int256(1 << (27 - round));
            for (uint256 id = 256 * b; id < (b == 0 ? 256 : 300); ++id) {
                if (logits[id] + BIAS >= candidate) sum += byWeight ? weights[id] : int256(1);
            }
            check(sum, "searched");
        }
    }

    function checkThreshold(uint256 segment, int256 enough) private {
        for (uint256 i = 0; i < 4; ++i) {
            uint256 round = i < 2 ? 0 : 5;
            int256 before = round == 0 ? int256(0) : BIAS;
            forget();
            ask(SAMPLE, ROW, segment, round * 3 + 2, 1);
            if (round > 0) {
                set(SAMPLE, ROW, segment, round * 3 - 1, before);
                ask(SAMPLE, ROW, segment, round * 3 - 1, 1);
            }
            set(SAMPLE, ROW, segment, round * 3 + 1, i % 2 == 0 ? enough : enough - 1);
            ask(SAMPLE, ROW, segment, round * 3 + 1, 1);
            if (segment == T.SUM_SEARCH) {
                set(SAMPLE, ROW, T.TOTALS, 1, 1_000_000_007);
                ask(SAMPLE, ROW, T.TOTALS, 1, 1);
            }
            check(i % 2 == 0 ? before + int256(1 << (27 - round)) : before, "threshold");
        }
    }

    function test_search_by_count() public {
        sampled(366, 40, 65_536);
        checkSearch(T.COUNT_SEARCH, false);
        checkThreshold(T.COUNT_SEARCH, 40);
    }

    function test_search_by_sum() public {
        sampled(366, 0, 60_001);
        checkSearch(T.SUM_SEARCH, true);
        // The least F with F·65536 ≥ 60001·Z.
        checkThreshold(T.SUM_SEARCH, (60_001 * int256(1_000_000_007) + 65_535) / 65_536);
    }

    function test_kept() public {
        uint32[4] memory ks = [uint32(0), 40, 0, 40];
        uint32[4] memory ps = [uint32(65_536), 65_536, 60_000, 60_000];
        for (uint256 i = 0; i < 4; ++i) {
            sampled(366, ks[i], ps[i]);
            checkKept(ks[i] != 0, ps[i] != 65_536, i);
            forgetVectors();
        }
    }

    function checkKept(bool byCount, bool bySum, uint256 i) private {
        (int256[] memory logits, int256[] memory weights) = fillIds();
        int256 least = type(int256).min;
        int256 sum = 12_345;
        forget();
        ask(SAMPLE, ROW, T.KEPT, 1, 1);
        set(SAMPLE, ROW, T.KEPT, 0, sum);
        ask(SAMPLE, ROW, T.KEPT, 0, 1);
        if (byCount) {
            least = i == 1 ? int256(-3) : int256(1000);
            set(SAMPLE, ROW, T.COUNT_SEARCH, 83, least + BIAS);
            ask(SAMPLE, ROW, T.COUNT_SEARCH, 83, 1);
        }
        if (bySum) {
            set(SAMPLE, ROW, T.SUM_SEARCH, 83, BIAS - 20_000);
            ask(SAMPLE, ROW, T.SUM_SEARCH, 83, 1);
            if (least < -20_000) least = -20_000;
        }
        askIds(T.LOGITS, 1);
        askIds(T.WEIGHTS, 1);
        for (uint256 id = 256; id < 300; ++id) {
            if (logits[id] >= least) sum += weights[id];
        }
        check(sum, "kept");
    }

    // ---------------------------------------------------------------- tokens

    function test_a_greedy_token_that_is_not_the_largest() public {
        sampled(0, 0, 65_536);
        int256[] memory x = some(1, 64, 2047, true);
        set(FINAL, ROW, T.X12, 0, x);
        set(FINAL, ROW, T.PEAK, 1, 20);
        ask(FINAL, ROW, T.PEAK, 0, 2);
        askPacked(FINAL, ROW, T.X12, 0, 64);
        int256 first = logitOf(x, showRow(HEAD, IDS, 3, 50_000, 64), 50_000, 28, 20);
        int256 second = logitOf(x, showRow(HEAD, IDS, 200, 50_000, 64), 50_000, 28, 20);
        showToken(nPrompt + ROW, 3);
        yes(judge(T.TOKEN, ROW, 200) == (second > first), "one");
        measure(T.TOKEN, ROW, 200, "greedy token");
        delete rows;
        delete tokens;
        showRow(HEAD, IDS, 200, 50_000, 64);
        showRow(HEAD, IDS, 3, 50_000, 64);
        showToken(nPrompt + ROW, 200);
        yes(judge(T.TOKEN, ROW, 3) == (first >= second), "the other");
        yes(first != second, "they differ");
    }

    function test_a_token_stands_against_itself() public {
        sampled(0, 0, 65_536);
        set(FINAL, ROW, T.X12, 0, some(1, 64, 2047, true));
        ask(FINAL, ROW, T.PEAK, 0, 2);
        ask(FINAL, ROW, T.X12, 0, 64);
        showRow(HEAD, IDS, 3, 50_000, 64);
        showRow(HEAD, IDS, 3, 50_000, 64);
        showToken(nPrompt + ROW, 3);
        yes(!judge(T.TOKEN, ROW, 3), "no better than itself");
    }

    /// Shows what a drawn token takes; nothing but `kept` of the last block need be right for a draw.
    function showDrawn(uint256 token, int256 below, int256 all, int256 leastByCount, int256 leastBySum) private {
        forget();
        set(SAMPLE, ROW, T.KEPT, 1, all);
        ask(SAMPLE, ROW, T.KEPT, 1, 1);
        if (token >= 256) {
            set(SAMPLE, ROW, T.KEPT, 0, below);
            ask(SAMPLE, ROW, T.KEPT, 0, 1);
        }
        if (leastByCount != 0) {
            set(SAMPLE, ROW, T.COUNT_SEARCH, 83, leastByCount + BIAS);
            ask(SAMPLE, ROW, T.COUNT_SEARCH, 83, 1);
        }
        if (leastBySum != 0) {
            set(SAMPLE, ROW, T.SUM_SEARCH, 83, leastBySum + BIAS);
            ask(SAMPLE, ROW, T.SUM_SEARCH, 83, 1);
        }
        askIds(T.LOGITS, token / 256);
        askIds(T.WEIGHTS, token / 256);
        showToken(nPrompt + ROW, token);
    }

    function test_exactly_one_token_is_drawn() public {
        sampled(366, 40, 60_000);
        (int256[] memory logits, int256[] memory weights) = fillIds();
        (int256 least, int256 all, int256 below) = (-200_000, 0, 0);
        for (uint256 id = 0; id < IDS; ++id) {
            if (logits[id] >= least) all += weights[id];
            if (id == 255) below = all;
        }
        bytes32 hash = keccak256(abi.encodePacked(SEED, "sample", uint64(nPrompt + ROW)));
        int256 draw = int256((uint256(uint64(bytes8(hash))) * uint256(all)) >> 64);
        (uint256 drawn, int256 sum) = (IDS, 0);
        for (uint256 id = 0; id < IDS; ++id) {
            if (logits[id] >= least) sum += weights[id];
            if (sum > draw && drawn == IDS) drawn = id;
        }
        yes(drawn < IDS, "some token is drawn");
        uint256[7] memory others = [uint256(0), drawn - 1, drawn + 1, 9, 255, 256, 299];
        showDrawn(drawn, below, all, least, -300_000);
        yes(!judge(T.TOKEN, ROW, 0), "the drawn one stands");
        measure(T.TOKEN, ROW, 0, "drawn token");
        for (uint256 i = 0; i < 7; ++i) {
            if (others[i] == drawn) continue;
            showDrawn(others[i], below, all, least, -300_000);
            yes(judge(T.TOKEN, ROW, 0), "another falls");
        }
        // θ is the larger of the two thresholds.
        showDrawn(drawn, below, all, -300_000, least);
        yes(!judge(T.TOKEN, ROW, 0), "whichever found it");
    }

    function test_no_sampler_but_the_statements_counts() public {
        sampled(366, 0, 65_536);
        set(SAMPLE, ROW, T.LOGITS, 5, 9);
        set(SAMPLE, ROW, T.TOP, 0, 5);
        ask(SAMPLE, ROW, T.TOP, 1, 1);
        ask(SAMPLE, ROW, T.LOGITS, 5, 1);
        (Statement memory statement, bytes32 root) = closed();
        sampler = samplerOf(367, 0, 65_536, 3, 0);
        bytes memory encoded = abi.encode(stepOf(SAMPLE, ROW, 0));
        vm.expectRevert(
            abi.encodeWithSelector(Sampling.AnotherSampler.selector, keccak256(sampler), statement.samplerHash)
        );
        referee.convicts(statement, root, encoded);
        // A greedy statement has no such op, whatever its trace's root holds.
        bytes memory greedy = samplerOf(0, 0, 65_536, 3, 0);
        Step memory step = stepOf(SAMPLE, ROW, 0);
        (step.sampler, statement.samplerHash) = (greedy, keccak256(greedy));
        vm.expectRevert(SampleReferee.NoDraw.selector);
        referee.convicts(statement, root, abi.encode(step));
    }

    // ---------------------------------------------------------------- facts

    function fact(uint8 kind, uint256 position) private view returns (Fact memory f) {
        (f.kind, f.position, f.sampler) = (kind, uint32(position), sampler);
        f.tokens = new TokenOpening[](tokens.length);
        for (uint256 i = 0; i < tokens.length; ++i) {
            f.tokens[i] =
                TokenOpening(uint32(tokens[i].format), pathOf(tokens[i].tree, tokens[i].count, tokens[i].index));
        }
    }

    function says(Statement memory s, uint8 kind, uint256 position) private view returns (bool) {
        return referee.factConvicts(s, abi.encode(fact(kind, position)));
    }

    function statementOf(uint32 prompt, uint32 output, uint8 reason) private returns (Statement memory s) {
        (nPrompt, nOutput) = (5, 3);
        (s,) = closed();
        (s.nPrompt, s.nOutput, s.stopReason) = (prompt, output, reason);
    }

    function test_counts_and_reasons() public {
        sampled(366, 0, 65_536);
        yes(says(statementOf(5, 4, 4), 1, 0), "four of three");
        yes(!says(statementOf(5, 3, 4), 1, 0), "three of three");
        yes(says(statementOf(5, 2, 2), 2, 0), "two are not at the limit");
        yes(!says(statementOf(5, 3, 2), 2, 0), "three are");
        yes(!says(statementOf(5, 2, 1), 2, 0), "another reason");
        yes(says(statementOf(5, 3, 3), 6, 0), "no stop string");
        yes(!says(statementOf(5, 3, 2), 6, 0), "none claimed");
        yes(says(statementOf(510, 3, 4), 7, 0), "more than the context");
        yes(!says(statementOf(509, 3, 4), 7, 0), "all of the context");
        yes(says(statementOf(0, 3, 4), 9, 0), "no prompt");
        yes(says(statementOf(5, 0, 1), 9, 0), "no output");
        yes(!says(statementOf(5, 0, 4), 9, 0), "cut before any");
        yes(!says(statementOf(5, 1, 1), 9, 0), "some of both");
        sampler = samplerOf(366, 0, 65_536, 3, 1);
        yes(!says(statementOf(5, 3, 3), 6, 0), "one it has");
    }

    function test_end_tokens() public {
        // 2 and 106 end an answer.
        sampled(366, 0, 65_536);
        for (uint8 reason = 1; reason <= 4; ++reason) {
            delete tokens;
            showToken(7, 105);
            yes(says(statementOf(5, 3, reason), 3, 0) == (reason == 1), "not ended");
            yes(!says(statementOf(5, 3, reason), 5, 0), "no end token");
            delete tokens;
            showToken(7, 106);
            yes(!says(statementOf(5, 3, reason), 3, 0), "ended");
            yes(says(statementOf(5, 3, reason), 5, 0) == (reason == 2 || reason == 3), "ended otherwise");
            yes(!says(statementOf(5, 3, reason), 4, 2), "the last is not past the end");
            delete tokens;
            showToken(6, 2);
            yes(says(statementOf(5, 3, reason), 4, 1), "past the end");
            delete tokens;
            showToken(6, 3);
            yes(!says(statementOf(5, 3, reason), 4, 1), "no end");
        }
    }

    function test_unknown_tokens() public {
        sampled(366, 0, 65_536);
        uint256[4] memory positions = [uint256(0), 4, 5, 7];
        for (uint256 i = 0; i < 4; ++i) {
            delete tokens;
            showToken(positions[i], 300);
            yes(says(statementOf(5, 3, 2), 8, positions[i]), "unknown");
            delete tokens;
            showToken(positions[i], 299);
            yes(!says(statementOf(5, 3, 2), 8, positions[i]), "known");
        }
    }

    function refused(Statement memory s, uint8 kind, uint256 position) private {
        bytes memory encoded = abi.encode(fact(kind, position));
        vm.expectRevert();
        referee.factConvicts(s, encoded);
    }

    function test_what_does_not_verify_is_no_fact() public {
        sampled(366, 0, 65_536);
        showToken(7, 106);
        Statement memory s = statementOf(5, 3, 2);
        refused(s, 0, 0);
        refused(s, 10, 0);
        // Another place than the token's.
        refused(s, 8, 6);
        refused(s, 8, 8);
        refused(s, 4, 3);
        refused(s, 4, type(uint32).max);
        // No output to look at, no token shown, another sampler.
        refused(statementOf(5, 0, 1), 3, 0);
        delete tokens;
        refused(s, 5, 0);
        sampler = samplerOf(366, 0, 65_535, 2, 0);
        refused(s, 1, 0);
        vm.expectRevert();
        referee.factConvicts(s, "");
        vm.expectRevert();
        referee.factConvicts(s, abi.encode(uint256(64), 9, 0, 0, 0, 0));
    }
}
