// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IERC1271} from "@openzeppelin/contracts/interfaces/IERC1271.sol";

import {Channels} from "../src/Channels.sol";
import {Registry} from "../src/Registry.sol";
import {Scoreboard} from "../src/Scoreboard.sol";
import {GreedyCollector, ReentrantToken} from "./Hostile.sol";
import {Scores} from "./Scores.sol";

/// @title A wallet that would post while it is asked for its signature.
contract EagerWallet is IERC1271 {
    Scoreboard private immutable _board;
    bytes private _call;

    constructor(Scoreboard board) {
        _board = board;
    }

    function arm(bytes calldata call) external {
        _call = call;
    }

    function isValidSignature(bytes32, bytes memory) external view returns (bytes4) {
        // A static call: whatever this does, it changes nothing; and if it could, all would revert.
        if (_call.length > 0) {
            (bool ok,) = address(_board).staticcall(_call);
            require(!ok, "posted within a post");
        }
        return IERC1271.isValidSignature.selector;
    }
}

/// @title Scoreboard: everything by which a score could be made, spoiled or bought for less.
contract ScoreboardAttacks is Scores {
    Channels.ChannelConfig internal c;
    Scoreboard.ServiceRecord internal first;

    function setUp() public override {
        super.setUp();
        c = paid(1, 10e6);
        first = answers(c, 10, 0, 1e5);
        post(c, first, none());
    }

    // ---------------------------------------------------------------- replayed and stale

    function test_a_record_posted_twice_counts_once() public {
        Scoreboard.Entry[] memory again = just(entry(c, first, none()));
        refusesBoth(
            again,
            abi.encodeWithSelector(
                Scoreboard.WrongPrevious.selector, first.channelId, board.structHash(first), bytes32(0)
            )
        );
        // With itself as the record before it, it is nothing new.
        again = just(entry(c, first, first));
        bytes memory nothing = abi.encodeWithSelector(Scoreboard.NothingNew.selector, first.channelId);
        refusesBoth(again, nothing);
        refuses(again, "", nothing);
        eq(scoreOf(OWNER).records, 1, "once");
    }

    function test_a_stale_record_does_not_come_back() public {
        Scoreboard.ServiceRecord memory newer = answers(c, 20, 3, 1e5);
        post(c, newer, first);
        Scoreboard.Entry[] memory stale = just(entry(c, first, none()));
        refusesBoth(
            stale,
            abi.encodeWithSelector(
                Scoreboard.WrongPrevious.selector, first.channelId, board.structHash(newer), bytes32(0)
            )
        );
        stale = just(entry(c, first, newer));
        refusesBoth(stale, abi.encodeWithSelector(Scoreboard.Forgotten.selector, first.channelId));
    }

    function test_a_step_needs_exactly_the_record_before_it() public {
        Scoreboard.ServiceRecord memory second = answers(c, 20, 0, 1e5);
        Scoreboard.ServiceRecord memory third = answers(c, 30, 0, 1e5);
        // The one between was never posted.
        refusesBoth(
            just(entry(c, third, second)),
            abi.encodeWithSelector(
                Scoreboard.WrongPrevious.selector, first.channelId, board.structHash(first), board.structHash(second)
            )
        );
        // A forged one, that would count twice what was counted before.
        Scoreboard.ServiceRecord memory less = answers(c, 1, 0, 1e5);
        refusesBoth(
            just(entry(c, third, less)),
            abi.encodeWithSelector(
                Scoreboard.WrongPrevious.selector, first.channelId, board.structHash(first), board.structHash(less)
            )
        );
        // One of a channel that has none.
        Channels.ChannelConfig memory fresh = config(2);
        refusesBoth(
            just(entry(fresh, answers(fresh, 0, 1, 0), first)),
            abi.encodeWithSelector(
                Scoreboard.WrongPrevious.selector, channels.getChannelId(fresh), bytes32(0), board.structHash(first)
            )
        );
        // Two steps in one batch, in the wrong order.
        Scoreboard.Entry[] memory swapped = two(entry(c, third, second), entry(c, second, first));
        refusesBoth(
            swapped,
            abi.encodeWithSelector(
                Scoreboard.WrongPrevious.selector, first.channelId, board.structHash(first), board.structHash(second)
            )
        );
        eq(scoreOf(OWNER).requests, 10, "nothing was counted");
    }

    function test_only_a_record_of_zeros_stands_for_none() public {
        // A record before the first that hides a part of it from the sums, or claims a part twice.
        Channels.ChannelConfig memory fresh = paid(2, 10e6);
        Scoreboard.ServiceRecord memory r = answers(fresh, 10, 5, 1e5);
        for (uint256 i = 0; i < 8; ++i) {
            Scoreboard.ServiceRecord memory before = none();
            if (i == 0) before.channelId = r.channelId;
            else if (i == 1) before.revenue = 1;
            else if (i == 2) before.promptTokens = 1;
            else if (i == 3) before.outputTokens = 1;
            else if (i == 4) before.requests = 1;
            else if (i == 5) before.failures = 1;
            else if (i == 6) before.ttft = 1 << 32;
            else before.speed = 1 << 128;
            refusesBoth(
                just(entry(fresh, r, before)),
                abi.encodeWithSelector(
                    Scoreboard.WrongPrevious.selector, r.channelId, bytes32(0), board.structHash(before)
                )
            );
        }
        post(fresh, r, none());
    }

    function test_a_batch_is_posted_whole_or_not_at_all() public {
        Channels.ChannelConfig memory other = config(2);
        Scoreboard.Entry[] memory batch =
            two(entry(c, answers(c, 20, 0, 1e5), first), entry(other, answers(other, 1, 0, 1), none()));
        refusesBoth(
            batch,
            abi.encodeWithSelector(Scoreboard.AboveClaims.selector, channels.getChannelId(other), uint64(1), uint128(0))
        );
        eq(board.lastOf(first.channelId), board.structHash(first), "the good one neither");
        refuses(new Scoreboard.Entry[](0), "", abi.encodeWithSelector(Scoreboard.EmptyBatch.selector));
    }

    // ---------------------------------------------------------------- signatures

    function test_a_record_of_another_chain_or_contract_counts_for_nothing() public {
        Scoreboard elsewhere = new Scoreboard(registry);
        Scoreboard.ServiceRecord memory r = answers(c, 20, 0, 1e5);
        Scoreboard.Entry[] memory entries = just(entry(c, r, first));
        bytes memory own = batchBy(OFFER_KEY, entries);
        bytes memory wrongPayer =
            abi.encodeWithSelector(Scoreboard.InvalidPayerSignature.selector, first.channelId, payer);
        bytes memory wrongProvider = abi.encodeWithSelector(Scoreboard.InvalidProviderSignature.selector, offerKey);
        uint256 here = block.chainid;
        for (uint256 i = 0; i < 2; ++i) {
            if (i == 1) vm.chainId(here + 1);
            Scoreboard at = i == 0 ? elsewhere : board;
            Scoreboard.ServiceRecord[] memory records = new Scoreboard.ServiceRecord[](1);
            records[0] = r;
            bytes memory payers = signature(PAYER_KEY, at.recordDigest(r));
            bytes memory providers = signature(OFFER_KEY, at.batchDigest(records));
            vm.chainId(here);
            entries[0].payerSignature = payers;
            refuses(entries, own, wrongPayer);
            entries[0].payerSignature = signature(PAYER_KEY, board.recordDigest(r));
            refuses(entries, providers, wrongProvider);
        }
        board.post(OWNER, entries, own);
    }

    function test_the_malleable_twin_of_a_signature_is_refused() public {
        Scoreboard.Entry[] memory entries = just(entry(c, answers(c, 20, 0, 1e5), first));
        bytes memory own = batchBy(OFFER_KEY, entries);
        refuses(entries, malleable(own), abi.encodeWithSelector(Scoreboard.InvalidProviderSignature.selector, offerKey));
        entries[0].payerSignature = malleable(entries[0].payerSignature);
        refuses(entries, own, abi.encodeWithSelector(Scoreboard.InvalidPayerSignature.selector, first.channelId, payer));
        // The same for a session key's.
        Channels.ChannelConfig memory lane = config(2);
        lane.payerAuthorizer = stranger;
        entries = just(entryBy(STRANGER_KEY, lane, answers(lane, 0, 1, 0), none()));
        entries[0].payerSignature = malleable(entries[0].payerSignature);
        refuses(
            entries,
            "",
            abi.encodeWithSelector(Scoreboard.InvalidPayerSignature.selector, channels.getChannelId(lane), stranger)
        );
    }

    function test_nobody_signs_for_another() public {
        Scoreboard.ServiceRecord memory r = answers(c, 20, 0, 1e5);
        // The provider in its payer's place, a stranger, and a payer that signed other numbers.
        Scoreboard.Entry[] memory entries = just(entryBy(OFFER_KEY, c, r, first));
        bytes memory why = abi.encodeWithSelector(Scoreboard.InvalidPayerSignature.selector, first.channelId, payer);
        refusesBoth(entries, why);
        entries = just(entryBy(STRANGER_KEY, c, r, first));
        refusesBoth(entries, why);
        entries = just(entry(c, answers(c, 20, 1, 1e5), first));
        entries[0].record.failures = 0;
        refusesBoth(entries, why);
        // The payer in its provider's place, and a provider that signed another batch.
        entries = just(entry(c, r, first));
        why = abi.encodeWithSelector(Scoreboard.InvalidProviderSignature.selector, offerKey);
        refuses(entries, batchBy(PAYER_KEY, entries), why);
        refuses(entries, batchBy(OFFER_KEY, just(entry(c, first, none()))), why);
        refuses(entries, signature(OFFER_KEY, board.recordDigest(r)), why);
        refuses(entries, hex"00", why);
    }

    function testFuzz_no_random_bytes_are_a_signature(bytes calldata junk) public {
        Scoreboard.Entry[] memory entries = just(entry(c, answers(c, 20, 0, 1e5), first));
        bytes memory own = batchBy(OFFER_KEY, entries);
        vm.assume(keccak256(junk) != keccak256(own) && keccak256(junk) != keccak256(entries[0].payerSignature));
        (bool ok,) = address(board).call(abi.encodeCall(board.post, (OWNER, entries, junk)));
        yes(!ok, "no provider's");
        entries[0].payerSignature = junk;
        (ok,) = address(board).call(abi.encodeCall(board.post, (OWNER, entries, own)));
        yes(!ok, "no payer's");
    }

    function test_a_payer_that_names_its_own_key_as_the_providers_signs_for_nobody() public {
        // It claims its own channel, into the provider's vault, and would sign for both sides.
        Channels.ChannelConfig memory own = config(2);
        own.receiverAuthorizer = payer;
        Scoreboard.Entry[] memory entries = just(entry(own, answers(own, 1000, 0, 0), none()));
        refuses(
            entries, batchBy(PAYER_KEY, entries), abi.encodeWithSelector(Scoreboard.NotOfferKey.selector, OWNER, payer)
        );
    }

    function test_a_batch_has_one_provider_key() public {
        Channels.ChannelConfig memory other = config(2);
        other.receiverAuthorizer = stranger;
        Scoreboard.Entry[] memory batch =
            two(entry(c, answers(c, 20, 0, 1e5), first), entry(other, answers(other, 0, 1, 0), none()));
        refusesBoth(batch, abi.encodeWithSelector(Scoreboard.MixedAuthorizers.selector, offerKey, stranger));
    }

    // ---------------------------------------------------------------- whose channel, whose money

    function test_another_providers_channel_gives_nobody_a_score() public {
        vm.prank(stranger);
        registry.register(stranger, stranger, "", new bytes32[](0));
        Scoreboard.Entry[] memory entries = just(entry(c, answers(c, 20, 0, 1e5), first));
        // Not to be taken by another provider, whoever signs.
        bytes memory elsewhere = abi.encodeWithSelector(
            Scoreboard.NotTheVault.selector, first.channelId, address(vault), registry.vaultOf(stranger)
        );
        refusesFor(
            stranger,
            entries,
            batchBy(OFFER_KEY, entries),
            abi.encodeWithSelector(Scoreboard.NotOfferKey.selector, stranger, offerKey)
        );
        refusesFor(stranger, entries, "", elsewhere);
        // Nor by this one from a channel that pays past the vault.
        Channels.ChannelConfig memory past = config(2);
        past.receiver = PAYOUT;
        entries = just(entry(past, answers(past, 1, 0, 0), none()));
        refusesBoth(
            entries,
            abi.encodeWithSelector(Scoreboard.NotTheVault.selector, channels.getChannelId(past), PAYOUT, address(vault))
        );
        // A record is of the channel that is shown with it.
        entries = just(entry(config(3), answers(c, 20, 0, 1e5), first));
        refusesBoth(
            entries,
            abi.encodeWithSelector(Scoreboard.WrongChannel.selector, channels.getChannelId(config(3)), first.channelId)
        );
    }

    function test_revenue_is_what_was_claimed_and_no_more() public {
        Scoreboard.ServiceRecord memory r = answers(c, 100, 0, 1e5);
        post(c, r, first);
        Scoreboard.ServiceRecord memory more = answers(c, 100, 1, 1e5);
        more.revenue += 1;
        refusesBoth(
            just(entry(c, more, r)),
            abi.encodeWithSelector(Scoreboard.AboveClaims.selector, first.channelId, uint64(10e6 + 1), uint128(10e6))
        );
        eq(board.successPpm(OWNER), 1e6, "all that was paid");
        // What is only deposited, or only signed for, is not paid.
        Channels.ChannelConfig memory rich = config(2);
        open(rich, 5e6);
        refusesBoth(
            just(entry(rich, answers(rich, 1, 0, 1), none())),
            abi.encodeWithSelector(Scoreboard.AboveClaims.selector, channels.getChannelId(rich), uint64(1), uint128(0))
        );
    }

    function test_money_of_ones_own_making_weighs_nothing() public {
        ReentrantToken play = new ReentrantToken(channels);
        GreedyCollector giver = new GreedyCollector(address(channels));
        play.mint(address(giver), 1e18);
        Channels.ChannelConfig memory own = config(2);
        own.token = address(play);
        channels.deposit(own, 1e18, address(giver), "");
        claim(own, 1e18);
        refusesBoth(
            just(entry(own, answers(own, 1, 0, 1e9), none())),
            abi.encodeWithSelector(Scoreboard.WrongToken.selector, channels.getChannelId(own), address(play))
        );
    }

    // ---------------------------------------------------------------- numbers

    function test_no_count_is_ever_forgotten() public {
        Scoreboard.ServiceRecord memory base = answers(c, 20, 5, 1e5);
        base.ttft = counts([uint32(0), 12, 0, 0, 0, 0, 0, 8]);
        base.speed = counts([uint32(0), 0, 0, 0, 12, 0, 0, 4]);
        post(c, base, first);
        bytes memory why = abi.encodeWithSelector(Scoreboard.Forgotten.selector, first.channelId);
        for (uint256 i = 0; i < 8; ++i) {
            Scoreboard.ServiceRecord memory r = answers(c, 20, 5, 1e5);
            (r.ttft, r.speed) = (base.ttft, base.speed);
            if (i == 0) r.revenue -= 1;
            else if (i == 1) r.promptTokens -= 1;
            else if (i == 2) r.outputTokens -= 1;
            else if (i == 3) r.failures -= 1;
            else if (i == 4) (r.requests, r.ttft) = (19, counts([uint32(0), 12, 0, 0, 0, 0, 0, 7]));
            // A request that changes its class, up or down.
            else if (i == 5) r.ttft = counts([uint32(0), 13, 0, 0, 0, 0, 0, 7]);
            else if (i == 6) r.ttft = counts([uint32(0), 11, 0, 0, 0, 0, 0, 9]);
            else r.speed = counts([uint32(0), 0, 0, 0, 11, 0, 0, 9]);
            refusesBoth(just(entry(c, r, base)), why);
        }
    }

    function test_counts_that_do_not_fit_their_requests_are_refused() public {
        bytes memory why = abi.encodeWithSelector(Scoreboard.Unsound.selector, first.channelId);
        Scoreboard.ServiceRecord memory r = answers(c, 20, 0, 1e5);
        r.ttft += 1;
        refusesBoth(just(entry(c, r, first)), why);
        r = answers(c, 20, 0, 1e5);
        r.requests += 1;
        refusesBoth(just(entry(c, r, first)), why);
        r = answers(c, 20, 0, 1e5);
        r.speed += 1;
        refusesBoth(just(entry(c, r, first)), why);
        // Eight full classes sum to more than 32 bits hold, and must not wrap to what fits.
        r.ttft = type(uint256).max;
        r.requests = uint32(8 * uint256(type(uint32).max));
        refusesBoth(just(entry(c, r, first)), why);
    }

    function test_a_payer_alone_changes_nothing_but_failures() public {
        for (uint256 i = 0; i < 6; ++i) {
            Scoreboard.ServiceRecord memory r = answers(c, 10, 1, 1e5);
            if (i == 0) r.revenue += 1;
            else if (i == 1) r.promptTokens += 1;
            else if (i == 2) r.outputTokens += 1;
            else if (i == 3) (r.requests, r.ttft) = (11, uint256(11) << 32);
            else if (i == 4) r.speed -= 1 << 128;
            else r.ttft = (uint256(9) << 32) + 1;
            bytes memory why = i < 4
                ? abi.encodeWithSelector(Scoreboard.NotThePayers.selector, first.channelId)
                : abi.encodeWithSelector(Scoreboard.Forgotten.selector, first.channelId);
            refuses(just(entry(c, r, first)), "", why);
        }
        // A pace more, where one was missing; and fewer failures.
        Channels.ChannelConfig memory lane = config(2);
        Scoreboard.ServiceRecord memory a = answers(lane, 2, 2, 0);
        a.speed = 0;
        post(lane, a, none());
        Scoreboard.ServiceRecord memory b = answers(lane, 2, 3, 0);
        refuses(just(entry(lane, b, a)), "", abi.encodeWithSelector(Scoreboard.NotThePayers.selector, a.channelId));
        b = answers(lane, 2, 1, 0);
        b.speed = 0;
        refuses(just(entry(lane, b, a)), "", abi.encodeWithSelector(Scoreboard.Forgotten.selector, a.channelId));
    }

    function test_what_a_payer_says_alone_costs_its_provider_no_more_than_it_paid() public {
        Channels.ChannelConfig memory whale = paid(2, 90e6);
        post(whale, answers(whale, 90, 0, 1e6), none());
        Scoreboard.ServiceRecord memory worst = first;
        worst.failures = type(uint32).max;
        report(c, worst, first);
        Scoreboard.Totals memory t = scoreOf(OWNER);
        yes(t.weightedFailures <= 1e6, "what this payer paid");
        yes(board.successPpm(OWNER) >= 989_010, "one dollar of ninety-one");
        eq(t.failures, 0, "and no failure that the provider signed for");
    }

    // ---------------------------------------------------------------- reentrancy

    function test_a_wallet_that_is_asked_for_its_signature_posts_nothing_meanwhile() public {
        EagerWallet wallet = new EagerWallet(board);
        Channels.ChannelConfig memory lane = config(2);
        lane.payer = address(wallet);
        Scoreboard.ServiceRecord memory r = answers(lane, 0, 1, 0);
        Scoreboard.Entry[] memory entries = just(Scoreboard.Entry(lane, r, none(), ""));
        wallet.arm(abi.encodeCall(board.post, (OWNER, entries, "")));
        board.post(OWNER, entries, "");
        eq(scoreOf(OWNER).reported, 1, "once");
        eq(scoreOf(OWNER).records, 2, "and one record more than before");
    }
}
