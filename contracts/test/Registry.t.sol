// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Channels} from "../src/Channels.sol";
import {Registry} from "../src/Registry.sol";
import {TestDollar} from "../src/TestDollar.sol";
import {Market} from "./Base.sol";

/// @title Registry: who is listed, which key counts when, and where stake can go.
contract RegistryTest is Market {
    function stakeAs(address provider, uint128 amount) private {
        vm.prank(provider);
        dollar.approve(address(registry), amount);
        vm.prank(provider);
        registry.stake(amount);
    }

    function test_a_provider_is_listed_from_its_minimum_stake_on() public {
        eq(registry.activeCount(), 0, "without stake");
        stakeAs(OWNER, MIN_STAKE - 1);
        eq(registry.activeCount(), 0, "below the minimum");
        stakeAs(OWNER, 1);
        eq(registry.activeCount(), 1, "at the minimum");
        Registry.Provider[] memory page = registry.activePage(0, 10);
        eq(page.length, 1, "page");
        eq(page[0].provider, OWNER, "provider");
        eq(page[0].vault, address(vault), "vault");
        eq(page[0].offerKey, offerKey, "key");
        eq(registry.activePage(1, 10).length, 0, "past the end");
        eq(registry.activePage(0, type(uint256).max).length, 1, "an absurd count");
    }

    function test_registering_and_staking_fit_one_transaction() public {
        bytes32 nonce = bytes32(uint256(9));
        dollar.mint(stranger, MIN_STAKE);
        bytes memory sig =
            authorization(STRANGER_KEY, stranger, address(registry), MIN_STAKE, 0, block.timestamp + 60, nonce);
        bytes[] memory calls = new bytes[](2);
        calls[0] = abi.encodeCall(registry.register, (address(1), stranger, "http://x", new bytes32[](0)));
        calls[1] =
            abi.encodeCall(registry.stakeWithAuthorization, (stranger, MIN_STAKE, 0, block.timestamp + 60, nonce, sig));
        vm.prank(stranger);
        registry.multicall(calls);
        yes(registry.getProvider(stranger).active, "active");
    }

    function test_an_authorized_stake_is_its_owners_whoever_submits_it() public {
        bytes32 nonce = bytes32(uint256(9));
        dollar.mint(stranger, MIN_STAKE);
        bytes memory sig =
            authorization(STRANGER_KEY, stranger, address(registry), MIN_STAKE, 0, block.timestamp + 60, nonce);
        uint256 soon = block.timestamp + 60;
        // Not registered: nobody can lock its money up.
        vm.expectRevert(abi.encodeWithSelector(Registry.NotRegistered.selector, stranger));
        registry.stakeWithAuthorization(stranger, MIN_STAKE, 0, soon, nonce, sig);
        // Another provider cannot take it for itself.
        vm.expectRevert(abi.encodeWithSelector(TestDollar.InvalidAuthorizationSignature.selector, OWNER));
        registry.stakeWithAuthorization(OWNER, MIN_STAKE, 0, soon, nonce, sig);
    }

    function test_registration_has_bounds() public {
        vm.prank(OWNER);
        vm.expectRevert(abi.encodeWithSelector(Registry.AlreadyRegistered.selector, OWNER));
        registry.register(offerKey, PAYOUT, "", new bytes32[](0));
        vm.prank(stranger);
        vm.expectRevert(abi.encodeWithSelector(Registry.TooManyModels.selector, uint256(65), uint256(64)));
        registry.register(offerKey, PAYOUT, "", new bytes32[](65));
        string memory long = string(new bytes(257));
        vm.prank(stranger);
        vm.expectRevert(abi.encodeWithSelector(Registry.EndpointTooLong.selector, uint256(257), uint256(256)));
        registry.register(offerKey, PAYOUT, long, new bytes32[](0));
        vm.prank(stranger);
        vm.expectRevert(Registry.ZeroAddress.selector);
        registry.register(address(0), PAYOUT, "", new bytes32[](0));
        vm.prank(stranger);
        vm.expectRevert(Registry.ZeroAddress.selector);
        registry.register(offerKey, address(0), "", new bytes32[](0));
        vm.prank(stranger);
        vm.expectRevert(abi.encodeWithSelector(Registry.NotRegistered.selector, stranger));
        registry.setEndpoint("http://x");
    }

    function test_stake_unbonds_by_the_clock_and_leaves_only_to_its_owner() public {
        stakeAs(OWNER, 30e6);
        vm.prank(OWNER);
        vm.expectRevert(abi.encodeWithSelector(Registry.AboveStake.selector, OWNER, uint128(31e6), uint128(30e6)));
        registry.unbond(31e6);
        vm.prank(OWNER);
        registry.unbond(15e6);
        yes(registry.getProvider(OWNER).active, "still above the minimum");
        vm.warp(block.timestamp + UNBONDING - 1);
        // More starts the clock of all of it anew.
        vm.prank(OWNER);
        registry.unbond(10e6);
        yes(!registry.getProvider(OWNER).active, "below the minimum");
        vm.warp(block.timestamp + 1);
        vm.prank(OWNER);
        vm.expectRevert(
            abi.encodeWithSelector(Registry.StillUnbonding.selector, OWNER, uint64(block.timestamp + UNBONDING - 1))
        );
        registry.withdrawStake();
        vm.warp(block.timestamp + UNBONDING);
        vm.prank(OWNER);
        registry.withdrawStake();
        eq(dollar.balanceOf(OWNER), 995e6, "owner");
        vm.prank(OWNER);
        vm.expectRevert(abi.encodeWithSelector(Registry.NothingUnbonding.selector, OWNER));
        registry.withdrawStake();
    }

    function test_a_slash_takes_bonded_stake_first_and_reaches_what_unbonds() public {
        stakeAs(OWNER, 30e6);
        vm.prank(OWNER);
        registry.unbond(10e6);
        vm.prank(stranger);
        vm.expectRevert(abi.encodeWithSelector(Registry.NotArbiter.selector, stranger));
        registry.slash(OWNER, 1, stranger);
        vm.prank(ARBITER);
        eq(registry.slash(OWNER, 25e6, address(0xB0)), 25e6, "taken");
        Registry.Provider memory left = registry.getProvider(OWNER);
        eq(left.stake, 0, "stake");
        eq(left.unbonding, 5e6, "unbonding");
        yes(!left.active, "unlisted");
        vm.prank(ARBITER);
        eq(registry.slash(OWNER, 25e6, address(0xB0)), 5e6, "never more than there is");
        eq(dollar.balanceOf(address(0xB0)), 30e6, "challenger");
    }

    // ---------------------------------------------------------------- jail

    event Jailed(address indexed provider, uint32 convictions, uint64 until);
    event ReleasedFromJail(address indexed provider);

    function jail(address provider) private {
        vm.prank(ARBITER);
        registry.jail(provider);
    }

    function test_who_is_in_jail_is_not_listed_whatever_its_stake() public {
        stakeAs(OWNER, 30e6);
        uint64 until = uint64(block.timestamp) + UNBONDING;
        vm.expectEmit(true, false, false, true);
        emit Jailed(OWNER, 1, until);
        jail(OWNER);
        yes(!registry.getProvider(OWNER).active, "not active");
        eq(registry.activeCount(), 0, "not listed");
        eq(registry.activePage(0, 10).length, 0, "on no page");
        eq(registry.convictionsOf(OWNER), 1, "one conviction");
        eq(registry.jailedUntil(OWNER), until, "until");
        // Money does not get it out, and moves as ever.
        stakeAs(OWNER, 100e6);
        vm.prank(OWNER);
        registry.unbond(20e6);
        yes(!registry.getProvider(OWNER).active, "still not");
        eq(registry.getProvider(OWNER).stake, 110e6, "the stake is the owner's");
        vm.warp(until);
        vm.prank(OWNER);
        registry.withdrawStake();
        yes(!registry.getProvider(OWNER).active, "nor does time alone");
    }

    function test_jail_ends_by_its_owners_word_after_its_time_with_the_minimum_in_place() public {
        stakeAs(OWNER, 5e6);
        vm.prank(OWNER);
        vm.expectRevert(abi.encodeWithSelector(Registry.NotJailed.selector, OWNER));
        registry.release();
        jail(OWNER);
        uint64 until = uint64(block.timestamp) + UNBONDING;
        vm.warp(until - 1);
        vm.prank(OWNER);
        vm.expectRevert(abi.encodeWithSelector(Registry.StillJailed.selector, OWNER, until));
        registry.release();
        vm.warp(until);
        vm.prank(OWNER);
        vm.expectRevert(abi.encodeWithSelector(Registry.BelowMinimum.selector, OWNER, uint128(5e6), MIN_STAKE));
        registry.release();
        // Stake does not list it before it is out.
        stakeAs(OWNER, 5e6);
        eq(registry.activeCount(), 0, "not yet");
        vm.prank(stranger);
        vm.expectRevert(abi.encodeWithSelector(Registry.NotRegistered.selector, stranger));
        registry.release();
        vm.expectEmit(true, false, false, true);
        emit ReleasedFromJail(OWNER);
        vm.prank(OWNER);
        registry.release();
        eq(registry.activeCount(), 1, "listed again");
        eq(registry.jailedUntil(OWNER), 0, "free");
        eq(registry.convictionsOf(OWNER), 1, "and remembered");
        vm.prank(OWNER);
        vm.expectRevert(abi.encodeWithSelector(Registry.NotJailed.selector, OWNER));
        registry.release();
    }

    function test_every_conviction_starts_the_time_anew() public {
        stakeAs(OWNER, MIN_STAKE);
        jail(OWNER);
        vm.warp(block.timestamp + UNBONDING - 1);
        jail(OWNER);
        vm.warp(block.timestamp + 1);
        vm.prank(OWNER);
        vm.expectRevert(
            abi.encodeWithSelector(Registry.StillJailed.selector, OWNER, uint64(block.timestamp + UNBONDING - 1))
        );
        registry.release();
        eq(registry.convictionsOf(OWNER), 2, "two");
        vm.warp(block.timestamp + UNBONDING);
        vm.prank(OWNER);
        registry.release();
        jail(OWNER);
        eq(registry.convictionsOf(OWNER), 3, "three");
        eq(registry.activeCount(), 0, "and in again");
    }

    function test_nobody_but_the_arbiter_jails() public {
        vm.prank(OWNER);
        vm.expectRevert(abi.encodeWithSelector(Registry.NotArbiter.selector, OWNER));
        registry.jail(OWNER);
        vm.expectRevert(abi.encodeWithSelector(Registry.NotArbiter.selector, address(this)));
        registry.jail(OWNER);
    }

    function test_without_an_arbiter_nobody_slashes_or_jails() public {
        Registry free = new Registry(dollar, channels, address(0), MIN_STAKE, UNBONDING, WINDOW);
        vm.expectRevert(abi.encodeWithSelector(Registry.NotArbiter.selector, address(this)));
        free.jail(OWNER);
        vm.expectRevert(abi.encodeWithSelector(Registry.NotArbiter.selector, address(this)));
        free.slash(OWNER, 1, stranger);
    }

    function test_a_window_that_outlives_the_unbonding_is_no_market() public {
        vm.expectRevert(abi.encodeWithSelector(Registry.WindowOutlivesUnbonding.selector, uint64(180), uint64(180)));
        new Registry(dollar, channels, ARBITER, MIN_STAKE, UNBONDING, UNBONDING);
    }

    function test_a_retired_key_keeps_its_time_and_never_comes_back() public {
        uint64 first = uint64(block.timestamp);
        vm.warp(first + 10);
        vm.prank(OWNER);
        registry.rotateOfferKey(stranger);
        yes(registry.isOfferKey(OWNER, offerKey, first), "while it was in use");
        yes(registry.isOfferKey(OWNER, offerKey, first + 10), "in its last second");
        yes(!registry.isOfferKey(OWNER, offerKey, first + 11), "afterwards");
        yes(!registry.isOfferKey(OWNER, offerKey, first - 1), "before");
        yes(!registry.isOfferKey(OWNER, stranger, first + 9), "the new one, before");
        yes(registry.isOfferKey(OWNER, stranger, type(uint64).max), "the new one, for good");
        yes(!registry.isOfferKey(PAYOUT, offerKey, first), "of another provider");
        vm.prank(OWNER);
        vm.expectRevert(abi.encodeWithSelector(Registry.OfferKeyKnown.selector, OWNER, offerKey));
        registry.rotateOfferKey(offerKey);
    }

    function test_a_vault_has_its_address_before_it_exists() public {
        address ahead = registry.vaultOf(stranger);
        eq(ahead.code.length, 0, "not yet");
        vm.prank(stranger);
        registry.register(address(1), stranger, "", new bytes32[](0));
        yes(ahead.code.length > 0, "now");
        eq(registry.getProvider(stranger).vault, ahead, "the same");
    }

    function testFuzz_listed_are_exactly_those_with_the_minimum(uint128[8] memory stakes) public {
        uint256 expected;
        for (uint160 i = 0; i < 8; ++i) {
            address provider = address(0x1000 + i);
            uint128 amount = uint128(bound(stakes[i], 1, 20e6));
            dollar.mint(provider, amount);
            vm.prank(provider);
            registry.register(address(1), provider, "", new bytes32[](0));
            stakeAs(provider, amount);
            if (amount >= MIN_STAKE) ++expected;
        }
        eq(registry.activeCount(), expected, "count");
        eq(registry.activePage(0, 100).length, expected, "page");
    }
}
