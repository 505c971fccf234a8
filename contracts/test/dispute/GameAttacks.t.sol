// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Channels} from "../../src/Channels.sol";
import {PayoutVault} from "../../src/PayoutVault.sol";
import {Registry} from "../../src/Registry.sol";
import {DisputeGame, Receipt} from "../../src/dispute/DisputeGame.sol";
import {IReferee} from "../../src/dispute/IReferee.sol";
import {Disputes, Trace} from "./GameBase.sol";
import {Toy, ToyReferee} from "./Toy.sol";

/// @title What dishonest players try, and what it costs them.
contract GameAttacksTest is Disputes {
    // ---------------------------------------------------------------- clocks

    function test_a_move_in_the_last_second_counts_and_one_later_does_not() public {
        Receipt memory r = receiptOf(1);
        Trace trace = honest(r);
        uint256 start = block.timestamp;
        bytes32 id = openAs(watcher, r);
        uint256 end = start + RESPONSE + EXTENSION;
        eq(game.deadline(id), end, "the deadline");
        vm.warp(end);
        vm.expectRevert(abi.encodeWithSelector(DisputeGame.TooEarly.selector, id, end));
        game.timeout(r, watcher);
        postAs(OWNER, r, watcher, trace);
        // The purse is empty now: what comes next has the response time alone.
        requestAs(watcher, r, trace, 0);
        end = block.timestamp + RESPONSE;
        eq(game.deadline(id), end, "no extension left");
        vm.warp(end + 1);
        bytes32[] memory children = trace.childrenOf(placeOf(id, trace));
        vm.expectRevert(abi.encodeWithSelector(DisputeGame.TooLate.selector, id, end));
        game.reveal(id, children);
        game.timeout(r, watcher);
        eq(registry.getProvider(OWNER).stake, 0, "the provider lost by its clock");
    }

    function test_extensions_stack_to_one_purse_a_side_and_no_further() public {
        Receipt memory r = receiptOf(1);
        Trace trace = honest(r);
        bytes32 id = openAs(watcher, r);
        postAs(OWNER, r, watcher, trace);
        uint256 start = block.timestamp;
        uint256 rounds;
        // Both sides use every second of every turn.
        while (true) {
            DisputeGame.Game memory place = placeOf(id, trace);
            if (place.stage == 3) break;
            vm.warp(game.deadline(id));
            requestAs(watcher, r, trace, towards(place, 4, 0, 0));
            vm.warp(game.deadline(id));
            revealFrom(trace, id);
            ++rounds;
        }
        uint256 most = rounds * 2 * RESPONSE + 2 * EXTENSION;
        eq(block.timestamp - start, most, "the longest game");
        vm.warp(game.deadline(id) + 1);
        game.timeout(r, watcher);
        eq(dollar.balanceOf(PAYOUT), BOND, "it ended");
    }

    function test_a_challenger_that_stalls_loses_its_bond_and_the_next_one_may_still_win() public {
        Receipt memory r = receiptOf(1);
        Trace liar = lying(r, 2, 1, 0);
        openAs(watcher, r);
        openAs(second, r);
        postAs(OWNER, r, watcher, liar);
        postAs(OWNER, r, second, liar);
        proveAs(second, r, liar.step(2, 1, 0));
        // The stalling one has its bond back, for the receipt is false.
        wait(RESPONSE + EXTENSION + 1);
        game.close(r, watcher);
        eq(dollar.balanceOf(watcher), 100e6, "the bond");
        eq(dollar.balanceOf(second), 100e6 + STAKE * 30 / 100, "the winner");
    }

    // ---------------------------------------------------------------- withholding

    function test_withholding_loses_at_every_stage() public {
        for (uint256 stop = 0; stop < 5; ++stop) {
            Receipt memory r = receiptOf(10 + stop);
            r.statement.nOutput = 5;
            Trace trace = honest(r);
            bytes32 id = openAs(watcher, r);
            if (stop > 0) {
                postAs(OWNER, r, watcher, trace);
                for (uint256 i = 1; i < stop; ++i) {
                    requestAs(watcher, r, trace, towards(placeOf(id, trace), 2, 5, 3));
                    revealFrom(trace, id);
                }
                if (placeOf(id, trace).stage != 3) {
                    requestAs(watcher, r, trace, towards(placeOf(id, trace), 2, 5, 3));
                }
            }
            wait(RESPONSE + EXTENSION + 1);
            // An honest trace is no excuse for silence.
            if (turnOf(id) == DisputeGame.Turn.Challenger) continue;
            game.timeout(r, watcher);
            eq(game.roots(game.receiptDigest(r)), game.CONVICTED(), "convicted");
        }
    }

    function test_a_tree_that_nothing_stands_below_cannot_be_revealed() public {
        // The provider commits to hashes of nothing: it loses by its clock where it should show them.
        Receipt memory r = receiptOf(1);
        bytes32 id = openAs(watcher, r);
        bytes32[] memory nothing = new bytes32[](5);
        for (uint256 i = 0; i < 5; ++i) {
            nothing[i] = keccak256(abi.encode("nothing", i));
        }
        Trace fold = honest(r);
        bytes32 top = fold.levelOf(nothing, 255)[0];
        bytes32 root = keccak256(abi.encodePacked(bytes1(0x02), uint64(5), top));
        vm.prank(OWNER);
        game.postTrace(r, watcher, root, nothing);
        bytes32[] memory path = siblingsIn(nothing, 3, 3);
        vm.prank(watcher);
        game.request(r, 3, nothing[3], path);
        bytes32[] memory guess = fold.childrenOf(placeOf(id, fold));
        (bool ok,) = address(game).call(abi.encodeCall(game.reveal, (id, guess)));
        yes(!ok, "it knows no preimage");
        wait(RESPONSE + EXTENSION + 1);
        game.timeout(r, watcher);
        eq(registry.getProvider(OWNER).stake, 0, "slashed");
    }

    // ---------------------------------------------------------------- money

    function test_slashing_oneself_loses_money_however_it_is_done() public {
        // The provider challenges itself, with itself as the payer, over an absurd charge.
        for (uint256 way = 0; way < 3; ++way) {
            if (way > 0) restake(STAKE);
            Receipt memory r = receiptOf(20 + way);
            (r.payer, r.chargedMicroUsd) = (OWNER, 1_000_000e6);
            bytes memory sig = signed(r);
            uint256 before = dollar.balanceOf(OWNER) + dollar.balanceOf(PAYOUT) + STAKE;
            if (way == 0) {
                arm(OWNER);
                before = dollar.balanceOf(OWNER) + dollar.balanceOf(PAYOUT) + STAKE;
                openAs(OWNER, r);
                wait(RESPONSE + EXTENSION + 1);
                game.timeout(r, OWNER);
            } else if (way == 1) {
                vm.prank(OWNER);
                game.proveFact(r, sig, hex"01");
            } else {
                Receipt memory other = receiptOf(20 + way);
                (other.payer, other.chargedMicroUsd) = (OWNER, 5e6);
                bytes memory otherSig = signed(other);
                vm.prank(OWNER);
                game.equivocation(r, sig, other, otherSig);
            }
            uint256 afterwards = dollar.balanceOf(OWNER) + dollar.balanceOf(PAYOUT);
            eq(before - afterwards, STAKE / 5, "a fifth burns, at least");
        }
    }

    function test_the_vault_pays_the_provider_nothing_that_it_took_from_itself() public {
        earn(30e6);
        Receipt memory r = receiptOf(1);
        (r.payer, r.chargedMicroUsd) = (OWNER, 30e6);
        bytes memory sig = signed(r);
        uint256 before = dollar.balanceOf(OWNER) + dollar.balanceOf(address(vault)) + STAKE;
        vm.prank(OWNER);
        game.proveFact(r, sig, hex"01");
        uint256 afterwards = dollar.balanceOf(OWNER) + dollar.balanceOf(address(vault));
        eq(before - afterwards, STAKE / 2, "half of the stake is gone");
    }

    function test_a_payer_that_cannot_be_paid_blocks_nobody() public {
        // Transfers to the zero address fail: a provider could name it to make convicting impossible.
        Receipt memory r = receiptOf(1);
        r.payer = address(0);
        openAs(watcher, r);
        wait(RESPONSE + EXTENSION + 1);
        game.timeout(r, watcher);
        eq(dollar.balanceOf(watcher), 100e6 + STAKE * 30 / 100, "the challenger's");
        eq(game.owed(address(0)), STAKE * 20 / 100, "owed");
        eq(dollar.balanceOf(address(game)), STAKE * 20 / 100, "and kept");
        (bool ok,) = address(game).call(abi.encodeCall(game.payOwed, (address(0))));
        yes(!ok, "still impossible");
        eq(game.owed(address(0)), STAKE * 20 / 100, "and still owed");
    }

    function test_what_a_payer_could_not_be_paid_waits_for_it() public {
        Receipt memory r = receiptOf(1);
        openAs(watcher, r);
        wait(RESPONSE + EXTENSION + 1);
        uint256 due = STAKE * 20 / 100;
        uint256 before = dollar.balanceOf(payer);
        vm.mockCall(address(dollar), abi.encodeCall(dollar.transfer, (payer, due)), abi.encode(false));
        game.timeout(r, watcher);
        eq(game.owed(payer), due, "owed");
        eq(dollar.balanceOf(payer), before, "not paid");
        vm.clearMockedCalls();
        vm.expectEmit(true, false, false, true);
        emit DisputeGame.OwedPaid(payer, due);
        game.payOwed(payer);
        eq(dollar.balanceOf(payer), before + due, "paid");
        game.payOwed(payer);
        eq(dollar.balanceOf(payer), before + due, "once");
        eq(dollar.balanceOf(address(game)), 0, "and nothing is left");
    }

    function test_many_challengers_cost_themselves_and_hurt_nobody() public {
        earn(20e6);
        Receipt memory r = receiptOf(1);
        Trace trace = honest(r);
        for (uint160 i = 1; i <= 12; ++i) {
            address who = address(0x5000 + i);
            arm(who);
            // Once the root is posted, games begin below it.
            if (turnOf(openAs(who, r)) == DisputeGame.Turn.Trace) postAs(offerKey, r, who, trace);
        }
        eq(registry.locksOf(OWNER), 12, "locks");
        (,,, uint128 held,) = vault.status();
        eq(held, 20e6, "no more is held than is there");
        wait(RESPONSE + EXTENSION + 1);
        for (uint160 i = 1; i <= 12; ++i) {
            game.timeout(r, address(0x5000 + i));
        }
        eq(dollar.balanceOf(PAYOUT), 12 * BOND, "every bond is the provider's");
        eq(registry.getProvider(OWNER).stake, STAKE, "and its stake whole");
        eq(registry.locksOf(OWNER), 0, "and free");
        (,,, held,) = vault.status();
        eq(held, 0, "and its payouts");
    }

    function test_one_of_many_convicts_and_all_bonds_go_back() public {
        Receipt memory r = receiptOf(1);
        Trace liar = lying(r, 2, 1, 0);
        for (uint160 i = 1; i <= 6; ++i) {
            address who = address(0x5000 + i);
            arm(who);
            openAs(who, r);
        }
        postAs(OWNER, r, address(0x5003), liar);
        proveAs(address(0x5003), r, liar.step(2, 1, 0));
        for (uint160 i = 1; i <= 6; ++i) {
            if (i == 3) continue;
            game.close(r, address(0x5000 + i));
            eq(dollar.balanceOf(address(0x5000 + i)), 100e6, "the bond");
        }
        eq(dollar.balanceOf(address(game)), 0, "nothing stays here");
    }

    // ---------------------------------------------------------------- the stake

    function test_no_stake_leaves_while_a_game_is_open() public {
        vm.prank(OWNER);
        registry.unbond(STAKE);
        wait(UNBONDING - 5);
        Receipt memory r = receiptOf(1);
        openAs(watcher, r);
        wait(10);
        vm.prank(OWNER);
        vm.expectRevert(abi.encodeWithSelector(Registry.StakeLocked.selector, OWNER, uint32(1)));
        registry.withdrawStake();
        wait(RESPONSE + EXTENSION);
        game.timeout(r, watcher);
        eq(dollar.balanceOf(watcher), 100e6 + STAKE * 30 / 100, "what unbonds is slashed too");
        vm.prank(OWNER);
        vm.expectRevert(abi.encodeWithSelector(Registry.NothingUnbonding.selector, OWNER));
        registry.withdrawStake();
    }

    function test_the_last_receipt_before_the_unbonding_outlives_its_window_in_stake() public {
        // A provider that stops being listed and serves no more cannot be out before its last receipt's
        // window is.
        Receipt memory r = receiptOf(1);
        vm.prank(OWNER);
        registry.unbond(STAKE);
        wait(WINDOW);
        vm.prank(OWNER);
        vm.expectRevert();
        registry.withdrawStake();
        openAs(watcher, r);
        wait(UNBONDING);
        game.timeout(r, watcher);
        eq(registry.getProvider(OWNER).unbonding, 0, "slashed");
    }

    function test_only_the_game_locks_slashes_holds_and_awards() public {
        bytes memory why = abi.encodeWithSelector(Registry.NotArbiter.selector, stranger);
        vm.prank(stranger);
        vm.expectRevert(why);
        registry.lock(OWNER);
        vm.prank(stranger);
        vm.expectRevert(why);
        registry.unlock(OWNER);
        vm.prank(stranger);
        vm.expectRevert(why);
        registry.slash(OWNER, 1, stranger);
        vm.prank(stranger);
        vm.expectRevert(why);
        registry.jail(OWNER);
        why = abi.encodeWithSelector(PayoutVault.NotArbiter.selector, stranger);
        vm.prank(stranger);
        vm.expectRevert(why);
        vault.hold(bytes32(0), 1);
        eq(registry.ARBITER(), address(game), "the arbiter is the game");
    }

    function test_a_stake_that_is_gone_blocks_no_later_game() public {
        Receipt memory first = receiptOf(1);
        Receipt memory later = receiptOf(2);
        openAs(watcher, first);
        openAs(second, later);
        wait(RESPONSE + EXTENSION + 1);
        game.timeout(first, watcher);
        // Nothing is left to win but the bond; the game ends all the same.
        game.timeout(later, second);
        eq(dollar.balanceOf(second), 100e6, "the bond");
        eq(registry.locksOf(OWNER), 0, "no lock");
    }

    // ---------------------------------------------------------------- jail

    function test_every_conviction_jails_once_whichever_way_it_came() public {
        Receipt memory late = receiptOf(1);
        openAs(watcher, late);
        openAs(second, late);
        Receipt memory false_ = receiptOf(2);
        openAs(watcher, false_);
        Trace lie = lying(false_, 0, 0, 0);
        postAs(OWNER, false_, watcher, lie);
        proveAs(watcher, false_, lie.step(0, 0, 0));
        eq(registry.convictionsOf(OWNER), 1, "a step");
        wait(RESPONSE + EXTENSION + 1);
        game.timeout(late, watcher);
        eq(registry.convictionsOf(OWNER), 2, "a clock");
        eq(registry.jailedUntil(OWNER), block.timestamp + UNBONDING, "from now on");
        game.close(late, second);
        eq(registry.convictionsOf(OWNER), 2, "closing another game about it is none");
        Receipt memory r = receiptOf(3);
        bytes memory sig = signed(r);
        game.proveFact(r, sig, hex"01");
        eq(registry.convictionsOf(OWNER), 3, "a fact");
        (Receipt memory one, Receipt memory other) = (receiptOf(4), receiptOf(4));
        other.tier = 2;
        (sig, r) = (signed(one), other);
        bytes memory otherSig = signed(other);
        game.equivocation(one, sig, other, otherSig);
        eq(registry.convictionsOf(OWNER), 4, "two receipts for one request");
        // Out of jail by time, stake and word.
        restake(STAKE);
        yes(!registry.getProvider(OWNER).active, "stake alone lists nobody");
        wait(UNBONDING);
        vm.prank(OWNER);
        registry.release();
        yes(registry.getProvider(OWNER).active, "listed again");
    }

    function test_a_lost_doubt_jails_nobody() public {
        Receipt memory r = receiptOf(1);
        openAs(watcher, r);
        postAs(OWNER, r, watcher, honest(r));
        wait(RESPONSE + EXTENSION + 1);
        game.timeout(r, watcher);
        eq(registry.convictionsOf(OWNER), 0, "no conviction");
        eq(registry.jailedUntil(OWNER), 0, "no jail");
        yes(registry.getProvider(OWNER).active, "listed");
    }

    // ---------------------------------------------------------------- deployment

    function test_a_game_without_referee_or_time_is_not_made() public {
        DisputeGame.Rules memory rules = DisputeGame.Rules({bond: BOND, responseTime: 0, extension: EXTENSION});
        IReferee referee = new ToyReferee();
        vm.expectRevert(DisputeGame.ZeroTime.selector);
        new DisputeGame(dollar, channels, referee, MIN_STAKE, UNBONDING, WINDOW, rules);
        rules.responseTime = RESPONSE;
        vm.expectRevert(DisputeGame.ZeroAddress.selector);
        new DisputeGame(dollar, channels, IReferee(address(0)), MIN_STAKE, UNBONDING, WINDOW, rules);
        vm.expectRevert(abi.encodeWithSelector(Registry.WindowOutlivesUnbonding.selector, UNBONDING, UNBONDING));
        new DisputeGame(dollar, channels, referee, MIN_STAKE, UNBONDING, UNBONDING, rules);
    }
}
