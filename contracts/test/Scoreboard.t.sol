// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Channels} from "../src/Channels.sol";
import {Scoreboard} from "../src/Scoreboard.sol";
import {Wallet} from "./Hostile.sol";
import {Scores} from "./Scores.sol";

/// @title Scoreboard: what counts, by whose word, and how it adds up.
contract ScoreboardTest is Scores {
    event Posted(
        address indexed provider, bytes32 indexed channelId, Scoreboard.ServiceRecord record, bool counterSigned
    );

    // ---------------------------------------------------------------- what counts

    function test_a_record_that_both_signed_is_the_providers_score() public {
        Channels.ChannelConfig memory c = paid(1, 3e6);
        Scoreboard.ServiceRecord memory r = answers(c, 30, 10, 100_000);
        vm.expectEmit(true, true, false, true);
        emit Posted(OWNER, r.channelId, r, true);
        post(c, r, none());
        Scoreboard.Totals memory t = scoreOf(OWNER);
        eq(t.revenue, 3e6, "revenue");
        eq(t.weightedFailures, 750_000, "a quarter of it spoiled");
        eq(t.promptTokens, 3000, "prompt tokens");
        eq(t.outputTokens, 300, "output tokens");
        eq(t.requests, 30, "requests");
        eq(t.failures, 10, "failures");
        eq(t.reported, 0, "nothing reported alone");
        eq(t.records, 1, "records");
        eq(t.ttft, r.ttft, "ttft");
        eq(t.speed, r.speed, "speed");
        eq(board.successPpm(OWNER), 750_000, "success");
        eq(board.ttftQuantile(OWNER, 50), 1, "median class of ttft");
        eq(board.speedQuantile(OWNER, 50), 4, "median class of pace");
        eq(board.lastOf(r.channelId), board.structHash(r), "the last record");
        eq(scoreOf(stranger).revenue, 0, "nobody else's");
    }

    function test_a_newer_record_replaces_the_older_one() public {
        Channels.ChannelConfig memory c = paid(1, 10e6);
        Scoreboard.ServiceRecord memory a = answers(c, 10, 5, 100_000);
        Scoreboard.ServiceRecord memory b = answers(c, 90, 10, 100_000);
        post(c, a, none());
        eq(scoreOf(OWNER).weightedFailures, 333_333, "rounded down");
        post(c, b, a);
        Scoreboard.Totals memory t = scoreOf(OWNER);
        eq(t.requests, 90, "requests");
        eq(t.failures, 10, "failures");
        eq(t.revenue, 9e6, "revenue");
        eq(t.weightedFailures, 900_000, "as if the second were the only one");
        eq(t.ttft, b.ttft, "ttft");
        eq(t.speed, b.speed, "speed");
        eq(t.records, 2, "records");
    }

    function test_channels_add_up_each_weighed_by_what_it_paid() public {
        Channels.ChannelConfig memory rich = paid(1, 9e6);
        Channels.ChannelConfig memory poor = paid(2, 1e6);
        Scoreboard.Entry[] memory both =
            two(entry(rich, answers(rich, 9, 0, 1e6), none()), entry(poor, answers(poor, 1, 9, 1e6), none()));
        board.post(OWNER, both, batchBy(OFFER_KEY, both));
        Scoreboard.Totals memory t = scoreOf(OWNER);
        eq(t.requests, 10, "requests");
        eq(t.failures, 9, "failures");
        eq(t.weightedFailures, 900_000, "nine tenths of a tenth");
        eq(board.successPpm(OWNER), 910_000, "success");
    }

    function test_one_batch_may_carry_two_steps_of_one_channel() public {
        Channels.ChannelConfig memory c = paid(1, 2e6);
        (Scoreboard.ServiceRecord memory a, Scoreboard.ServiceRecord memory b) =
            (answers(c, 1, 0, 1e6), answers(c, 2, 1, 1e6));
        Scoreboard.Entry[] memory steps = two(entry(c, a, none()), entry(c, b, a));
        board.post(OWNER, steps, batchBy(OFFER_KEY, steps));
        eq(scoreOf(OWNER).requests, 2, "requests");
        eq(scoreOf(OWNER).records, 2, "records");
        eq(board.lastOf(b.channelId), board.structHash(b), "the second is the last");
    }

    function test_a_payer_alone_reports_failures_and_they_weigh_what_it_paid() public {
        Channels.ChannelConfig memory c = paid(1, 4e6);
        Scoreboard.ServiceRecord memory a = answers(c, 4, 0, 1e6);
        post(c, a, none());
        Scoreboard.ServiceRecord memory b = answers(c, 4, 4, 1e6);
        vm.expectEmit(true, true, false, true);
        emit Posted(OWNER, b.channelId, b, false);
        report(c, b, a);
        Scoreboard.Totals memory t = scoreOf(OWNER);
        eq(t.failures, 0, "the provider signed for none");
        eq(t.reported, 4, "its payer for four");
        eq(t.weightedFailures, 2e6, "which weigh half of what it paid");
        // The provider signs on, from what stands there now.
        Scoreboard.ServiceRecord memory d = answers(c, 4, 5, 1e6);
        post(c, d, b);
        t = scoreOf(OWNER);
        eq(t.failures, 1, "one more, by both");
        eq(t.reported, 4, "and the four stay what they were");
    }

    function test_a_payer_alone_may_be_the_first_to_speak_and_then_weighs_nothing() public {
        // Nothing was ever paid or even deposited here.
        Channels.ChannelConfig memory c = config(1);
        Scoreboard.ServiceRecord memory r;
        (r.channelId, r.failures) = (channels.getChannelId(c), type(uint32).max);
        report(c, r, none());
        Scoreboard.Totals memory t = scoreOf(OWNER);
        eq(t.reported, type(uint32).max, "counted apart");
        eq(t.failures, 0, "not among those that both signed for");
        eq(t.weightedFailures, 0, "and worth what was paid");
    }

    function test_a_session_key_signs_records_and_the_payer_itself_then_cannot() public {
        Channels.ChannelConfig memory c = config(1);
        c.payerAuthorizer = stranger;
        open(c, 1e6);
        Scoreboard.ServiceRecord memory r = answers(c, 0, 1, 0);
        refuses(
            just(entry(c, r, none())),
            "",
            abi.encodeWithSelector(Scoreboard.InvalidPayerSignature.selector, r.channelId, stranger)
        );
        board.post(OWNER, just(entryBy(STRANGER_KEY, c, r, none())), "");
        eq(scoreOf(OWNER).reported, 1, "the session key's");
    }

    function test_a_contract_may_be_payer_or_provider_and_sign_by_eip1271() public {
        Channels.ChannelConfig memory c = config(1);
        c.payer = address(new Wallet(stranger));
        Wallet signer = new Wallet(offerKey);
        c.receiverAuthorizer = address(signer);
        vm.prank(OWNER);
        registry.rotateOfferKey(address(signer));
        Scoreboard.ServiceRecord memory r = answers(c, 5, 0, 0);
        Scoreboard.Entry[] memory entries = just(entryBy(STRANGER_KEY, c, r, none()));
        board.post(OWNER, entries, batchBy(OFFER_KEY, entries));
        eq(scoreOf(OWNER).requests, 5, "both are contracts");
    }

    function test_a_retired_offer_key_still_signs_for_the_channels_that_name_it() public {
        Channels.ChannelConfig memory c = paid(1, 1e6);
        vm.prank(OWNER);
        registry.rotateOfferKey(stranger);
        vm.warp(block.timestamp + 1 days);
        post(c, answers(c, 1, 0, 1e6), none());
        eq(scoreOf(OWNER).revenue, 1e6, "counted");
    }

    function test_a_score_tells_of_convictions_and_jail() public {
        vm.prank(ARBITER);
        registry.jail(OWNER);
        (, uint32 convictions, uint64 until) = board.scoreOf(OWNER);
        eq(convictions, 1, "convictions");
        eq(until, block.timestamp + UNBONDING, "jail");
    }

    // ---------------------------------------------------------------- what readers get

    function test_without_revenue_there_is_no_success_to_tell_of() public {
        eq(board.successPpm(OWNER), 0, "nothing is known");
        vm.expectRevert(abi.encodeWithSelector(Scoreboard.NothingCounted.selector, OWNER));
        board.ttftQuantile(OWNER, 50);
        vm.expectRevert(abi.encodeWithSelector(Scoreboard.NothingCounted.selector, OWNER));
        board.speedQuantile(OWNER, 50);
    }

    function test_a_quantile_is_the_class_that_reaches_it() public {
        Channels.ChannelConfig memory c = config(1);
        Scoreboard.ServiceRecord memory r = answers(c, 100, 0, 0);
        r.ttft = counts([uint32(50), 49, 0, 1, 0, 0, 0, 0]);
        r.speed = counts([uint32(0), 0, 0, 0, 0, 0, 0, 3]);
        post(c, r, none());
        uint8[5] memory percents = [0, 50, 51, 99, 100];
        uint8[5] memory classes = [0, 0, 1, 1, 3];
        for (uint256 i = 0; i < 5; ++i) {
            eq(board.ttftQuantile(OWNER, percents[i]), classes[i], "class");
            eq(board.speedQuantile(OWNER, percents[i]), 7, "the last class");
        }
        vm.expectRevert(abi.encodeWithSelector(Scoreboard.PercentOutOfRange.selector, uint256(101)));
        board.ttftQuantile(OWNER, 101);
    }

    function test_a_quantile_that_falls_between_two_requests_is_the_later_ones() public {
        Channels.ChannelConfig memory c = config(1);
        Scoreboard.ServiceRecord memory r = answers(c, 3, 0, 0);
        r.ttft = counts([uint32(1), 1, 1, 0, 0, 0, 0, 0]);
        post(c, r, none());
        eq(board.ttftQuantile(OWNER, 33), 0, "not all of the first");
        eq(board.ttftQuantile(OWNER, 34), 1, "a little more than the first");
        eq(board.ttftQuantile(OWNER, 67), 2, "a little more than two");
    }

    function test_a_class_that_is_full_stops_counting_and_no_other_does() public {
        Scoreboard.ServiceRecord memory r;
        for (uint256 i = 1; i <= 3; ++i) {
            Channels.ChannelConfig memory c = config(i);
            r = answers(c, type(uint32).max, 0, 0);
            r.ttft = counts([type(uint32).max - 7, 0, 0, 0, 0, 0, 0, 7]);
            r.speed = counts([uint32(0), type(uint32).max, 0, 0, 0, 0, 0, 0]);
            post(c, r, none());
        }
        Scoreboard.Totals memory t = scoreOf(OWNER);
        eq(t.ttft, counts([type(uint32).max, 0, 0, 0, 0, 0, 0, 21]), "saturated, and no carry");
        eq(t.speed, counts([uint32(0), type(uint32).max, 0, 0, 0, 0, 0, 0]), "saturated");
        eq(t.requests, 3 * uint256(type(uint32).max), "requests go on");
        eq(board.ttftQuantile(OWNER, 100), 7, "quantiles too");
    }

    function test_the_largest_record_of_all_fits() public {
        Channels.ChannelConfig memory c = config(1);
        // More than may be minted at once: the first slot of the token is its balances.
        vm.store(address(dollar), keccak256(abi.encode(payer, 0)), bytes32(uint256(type(uint64).max)));
        open(c, type(uint64).max);
        claim(c, type(uint64).max);
        Scoreboard.ServiceRecord memory r;
        r.channelId = channels.getChannelId(c);
        (r.revenue, r.promptTokens, r.outputTokens) = (type(uint64).max, type(uint64).max, type(uint64).max);
        (r.requests, r.failures) = (type(uint32).max, type(uint32).max);
        r.ttft = type(uint32).max;
        r.speed = type(uint32).max;
        post(c, r, none());
        eq(scoreOf(OWNER).weightedFailures, type(uint64).max / 2, "half");
        eq(board.successPpm(OWNER), 500_000, "of all money");
    }

    // ---------------------------------------------------------------- fuzz

    struct Step {
        uint8 channel;
        uint16 revenue;
        uint16 promptTokens;
        uint16 outputTokens;
        uint8[8] ttft;
        uint8[8] speed;
        uint16 failures;
        bool alone;
    }

    Scoreboard.ServiceRecord[3] private _last;

    /// Whatever is posted in whatever order: the totals are the fold of the last records.
    function testFuzz_the_score_is_the_sum_over_channels_of_their_last_records(Step[6] calldata steps) public {
        Channels.ChannelConfig[3] memory lanes = [paid(1, 10e6), paid(2, 10e6), paid(3, 10e6)];
        uint256 signed;
        uint256 reported;
        for (uint256 i = 0; i < steps.length; ++i) {
            Step calldata s = steps[i];
            Channels.ChannelConfig memory c = lanes[s.channel % 3];
            Scoreboard.ServiceRecord memory before = _last[s.channel % 3];
            Scoreboard.ServiceRecord memory next = grown(before, s);
            next.channelId = channels.getChannelId(c);
            uint256 failed = next.failures - before.failures;
            if (s.alone) {
                report(c, next, before);
                reported += failed;
            } else {
                post(c, next, before);
                signed += failed;
            }
            _last[s.channel % 3] = next;
        }
        Scoreboard.Totals memory t = scoreOf(OWNER);
        Scoreboard.Totals memory sum;
        for (uint256 i = 0; i < 3; ++i) {
            Scoreboard.ServiceRecord memory r = _last[i];
            sum.revenue += r.revenue;
            sum.promptTokens += r.promptTokens;
            sum.outputTokens += r.outputTokens;
            sum.requests += r.requests;
            uint256 all = uint256(r.requests) + r.failures;
            if (all > 0) sum.weightedFailures += uint128(uint256(r.revenue) * r.failures / all);
            // Too few to saturate, so the words add up.
            sum.ttft += r.ttft;
            sum.speed += r.speed;
        }
        (sum.failures, sum.reported, sum.records) = (uint64(signed), uint64(reported), uint64(steps.length));
        eq(keccak256(abi.encode(t)), keccak256(abi.encode(sum)), "the fold");
        yes(t.weightedFailures <= t.revenue, "no more is spoiled than was paid");
    }

    function grown(Scoreboard.ServiceRecord memory before, Step calldata s)
        private
        pure
        returns (Scoreboard.ServiceRecord memory next)
    {
        next = Scoreboard.ServiceRecord(
            before.channelId,
            before.revenue,
            before.promptTokens,
            before.outputTokens,
            before.requests,
            before.failures + s.failures + 1,
            before.ttft,
            before.speed
        );
        if (s.alone) return next;
        next.revenue += s.revenue;
        next.promptTokens += s.promptTokens;
        next.outputTokens += s.outputTokens;
        for (uint256 i = 0; i < 8; ++i) {
            next.requests += s.ttft[i];
            next.ttft += uint256(s.ttft[i]) << (32 * i);
            uint8 paced = s.speed[i] < s.ttft[i] ? s.speed[i] : s.ttft[i];
            next.speed += uint256(paced) << (32 * i);
        }
    }

    /// Of any two records: the second is taken if and only if it forgets nothing and its counts fit.
    function testFuzz_a_record_counts_only_if_it_is_sound_and_forgets_nothing(
        uint64[3] calldata figures,
        uint32[2] calldata requestsAndFailures,
        uint256 ttft,
        uint256 speed,
        bool sound
    ) public {
        Channels.ChannelConfig memory c = paid(1, 10e6);
        Scoreboard.ServiceRecord memory a = answers(c, 20, 5, 100_000);
        post(c, a, none());
        Scoreboard.ServiceRecord memory b = Scoreboard.ServiceRecord({
            channelId: a.channelId,
            revenue: figures[0] % 12e6,
            promptTokens: figures[1] % 4000,
            outputTokens: figures[2] % 400,
            requests: requestsAndFailures[0] % 40,
            failures: requestsAndFailures[1] % 10,
            ttft: ttft,
            speed: speed
        });
        // Random words never sum to the requests: put right what can be.
        if (sound) (b.ttft, b.speed) = (uint256(b.requests) << 32, uint256(b.requests) << 128);
        bool fits = b.revenue >= a.revenue && b.revenue <= 10e6 && b.promptTokens >= a.promptTokens
            && b.outputTokens >= a.outputTokens && b.requests >= a.requests && b.failures >= a.failures;
        uint256 sums;
        uint256 paces;
        for (uint256 i = 0; i < 8; ++i) {
            if (countAt(b.ttft, i) < countAt(a.ttft, i) || countAt(b.speed, i) < countAt(a.speed, i)) fits = false;
            sums += countAt(b.ttft, i);
            paces += countAt(b.speed, i);
        }
        if (sums != b.requests || paces > b.requests) fits = false;
        if (keccak256(abi.encode(a)) == keccak256(abi.encode(b))) fits = false;
        Scoreboard.Entry[] memory entries = just(entry(c, b, a));
        bytes memory sig = batchBy(OFFER_KEY, entries);
        (bool ok,) = address(board).call(abi.encodeCall(board.post, (OWNER, entries, sig)));
        yes(ok == fits, "taken if and only if it is right");
    }
}
