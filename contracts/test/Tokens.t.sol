// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";

import {Channels} from "../src/Channels.sol";
import {PayoutVault} from "../src/PayoutVault.sol";
import {Registry} from "../src/Registry.sol";
import {DisputeGame, Receipt} from "../src/dispute/DisputeGame.sol";
import {CallingToken, FeeToken, GreedyCollector, RefusingToken} from "./Hostile.sol";
import {Disputes} from "./dispute/GameBase.sol";
import {ToyReferee} from "./dispute/Toy.sol";

/// @title Tokens that take a fee, answer no, revert or call back, at every door that money goes through.
contract TokensTest is Disputes {
    function marketIn(IERC20 token) private returns (DisputeGame there, Registry its, PayoutVault own) {
        there = new DisputeGame(
            token,
            channels,
            new ToyReferee(),
            MIN_STAKE,
            UNBONDING,
            WINDOW,
            DisputeGame.Rules({bond: BOND, responseTime: RESPONSE, extension: EXTENSION})
        );
        its = there.REGISTRY();
        vm.prank(OWNER);
        its.register(offerKey, PAYOUT, "", new bytes32[](0));
        own = PayoutVault(its.vaultOf(OWNER));
    }

    function laneIn(IERC20 token, PayoutVault to) private view returns (Channels.ChannelConfig memory c) {
        c = config(1);
        (c.token, c.receiver) = (address(token), address(to));
    }

    function approveFor(address who, IERC20 token, address spender) private {
        vm.prank(who);
        token.approve(spender, type(uint256).max);
    }

    function test_a_token_that_takes_a_fee_is_refused_as_stake() public {
        FeeToken fee = new FeeToken();
        (, Registry its,) = marketIn(fee);
        fee.mint(OWNER, 100e6);
        approveFor(OWNER, fee, address(its));
        vm.prank(OWNER);
        vm.expectRevert(abi.encodeWithSelector(Registry.StakeNotReceived.selector, uint256(50e6), uint256(49.5e6)));
        its.stake(50e6);
    }

    function test_a_token_that_answers_no_or_reverts_credits_nothing() public {
        RefusingToken token = new RefusingToken();
        (DisputeGame there, Registry its, PayoutVault own) = marketIn(token);
        GreedyCollector giver = new GreedyCollector(address(channels));
        token.mint(address(giver), 10e6);
        token.mint(OWNER, 100e6);
        token.mint(watcher, 100e6);
        approveFor(OWNER, token, address(its));
        approveFor(watcher, token, address(there));
        Channels.ChannelConfig memory c = laneIn(token, own);
        Receipt memory r = receiptOf(1);
        bytes memory sig = signature(OFFER_KEY, there.receiptDigest(r));
        for (uint256 i = 0; i < 2; ++i) {
            token.refuse(true, i == 1);
            (bool ok,) = address(channels).call(abi.encodeCall(channels.deposit, (c, 1e6, address(giver), "")));
            yes(!ok, "no deposit");
            vm.prank(OWNER);
            (ok,) = address(its).call(abi.encodeCall(its.stake, (MIN_STAKE)));
            yes(!ok, "no stake");
            vm.prank(watcher);
            (ok,) = address(there).call(abi.encodeCall(there.open, (r, sig, SAMPLER)));
            yes(!ok, "no bond");
        }
        eq(its.getProvider(OWNER).stake, 0, "no stake");
        eq(balance(c), 0, "no balance");
        // What it refuses to pay out stays where it is, and is paid when it no longer refuses.
        token.refuse(false, false);
        channels.deposit(c, 5e6, address(giver), "");
        claim(c, 2e6);
        for (uint256 i = 0; i < 2; ++i) {
            token.refuse(true, i == 1);
            (bool ok,) = address(channels).call(abi.encodeCall(channels.settle, (address(own), address(token))));
            yes(!ok, "not settled");
            vm.prank(offerKey);
            (ok,) = address(channels).call(abi.encodeCall(channels.refund, (c, 1e6)));
            yes(!ok, "not refunded");
        }
        (uint128 total, uint128 settled) = channels.receivers(address(own), address(token));
        eq(total - settled, 2e6, "still owed");
        eq(balance(c), 5e6, "still there");
        token.refuse(false, false);
        own.collect();
        eq(token.balanceOf(address(own)), 2e6, "settled");
        // Channels in other tokens never noticed.
        open(config(7), 1e6);
        claim(config(7), 1e6);
        vault.collect();
    }

    function test_a_payout_address_that_cannot_be_paid_keeps_its_money_waiting_and_nobody_elses() public {
        RefusingToken token = new RefusingToken();
        (DisputeGame there, Registry its, PayoutVault own) = marketIn(token);
        GreedyCollector giver = new GreedyCollector(address(channels));
        token.mint(address(giver), 10e6);
        Channels.ChannelConfig memory c = laneIn(token, own);
        channels.deposit(c, 5e6, address(giver), "");
        claim(c, 5e6);
        own.collect();
        wait(2 * WINDOW);
        token.refuse(true, false);
        vm.expectRevert(abi.encodeWithSelector(SafeERC20.SafeERC20FailedOperation.selector, address(token)));
        own.release();
        token.refuse(false, false);
        vm.prank(OWNER);
        its.setPayout(stranger);
        own.release();
        eq(token.balanceOf(stranger), 5e6, "released");
        eq(token.balanceOf(address(there)), 0, "nothing here");
    }

    function test_a_token_that_calls_back_finds_every_door_of_the_market_shut() public {
        CallingToken token = new CallingToken();
        (DisputeGame there, Registry its, PayoutVault own) = marketIn(token);
        GreedyCollector giver = new GreedyCollector(address(channels));
        token.mint(address(giver), 10e6);
        token.mint(OWNER, 100e6);
        token.mint(watcher, 100e6);
        approveFor(OWNER, token, address(its));
        approveFor(watcher, token, address(there));
        Receipt memory r = receiptOf(1);
        bytes memory sig = signature(OFFER_KEY, there.receiptDigest(r));

        // While a stake comes in and goes out.
        bytes memory stakes =
            abi.encodeCall(its.stakeWithAuthorization, (OWNER, 1, 0, type(uint64).max, bytes32(0), ""));
        token.arm(address(its), stakes);
        vm.prank(OWNER);
        its.stake(50e6);
        vm.prank(OWNER);
        its.unbond(20e6);
        wait(UNBONDING);
        r.servedAt = uint64(block.timestamp);
        sig = signature(OFFER_KEY, there.receiptDigest(r));
        token.arm(address(its), stakes);
        vm.prank(OWNER);
        its.withdrawStake();

        // While the channels settle to a vault, and the vault pays.
        Channels.ChannelConfig memory c = laneIn(token, own);
        channels.deposit(c, 5e6, address(giver), "");
        claim(c, 5e6);
        bytes[4] memory doors = [
            abi.encodeCall(own.collect, ()),
            abi.encodeCall(own.sync, ()),
            abi.encodeCall(own.release, ()),
            abi.encodeCall(channels.settle, (address(own), address(token)))
        ];
        for (uint256 i = 0; i < 4; ++i) {
            token.arm(i == 3 ? address(channels) : address(own), doors[i]);
        }
        own.collect();
        wait(2 * WINDOW);
        for (uint256 i = 0; i < 3; ++i) {
            token.arm(address(own), doors[i]);
        }
        own.release();
        eq(token.balanceOf(PAYOUT), 5e6, "paid once");

        // While a bond comes in, and while a conviction is paid for.
        r.servedAt = uint64(block.timestamp);
        sig = signature(OFFER_KEY, there.receiptDigest(r));
        bytes[5] memory moves = [
            abi.encodeCall(there.open, (r, sig, SAMPLER)),
            abi.encodeCall(there.proveFact, (r, sig, hex"01")),
            abi.encodeCall(there.timeout, (r, watcher)),
            abi.encodeCall(there.close, (r, watcher)),
            abi.encodeCall(there.payOwed, (watcher))
        ];
        for (uint256 i = 0; i < 5; ++i) {
            token.arm(address(there), moves[i]);
        }
        vm.prank(watcher);
        there.open(r, sig, SAMPLER);
        wait(RESPONSE + EXTENSION + 1);
        for (uint256 i = 0; i < 5; ++i) {
            token.arm(address(there), moves[i]);
        }
        there.timeout(r, watcher);
        eq(token.balanceOf(watcher), 100e6 + 30e6 * 30 / 100, "bond and reward, once");
        eq(token.attempts(), 2 + 4 + 3 + 5 + 5, "every door was tried");
        eq(token.shut(), token.attempts(), "and shut");
    }
}
