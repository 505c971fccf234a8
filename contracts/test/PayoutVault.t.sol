// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Channels} from "../src/Channels.sol";
import {PayoutVault} from "../src/PayoutVault.sol";
import {Market} from "./Base.sol";

/// @title PayoutVault: the window, dust, disputes, and that money goes nowhere else.
contract PayoutVaultTest is Market {
    bytes32 private constant DISPUTE = bytes32(uint256(0xD15));

    function earn(uint256 salt, uint128 amount) private {
        open(config(salt), amount);
        claim(config(salt), amount);
        vault.collect();
    }

    function pastWindow() private {
        vm.warp(block.timestamp + WINDOW + vault.GRAIN());
    }

    function status() private view returns (uint128 waiting, uint128 releasable, uint128 held) {
        (, waiting, releasable, held,) = vault.status();
    }

    function test_money_waits_for_its_window_and_anybody_releases_it() public {
        eq(vault.PROVIDER(), OWNER, "provider");
        open(config(1), 5e6);
        claim(config(1), 5e6);
        (uint128 unsettled,,,,) = vault.status();
        eq(unsettled, 5e6, "claimed");
        vault.collect();
        (,,,, uint64 next) = vault.status();
        vm.warp(next - 1);
        vault.release();
        eq(dollar.balanceOf(PAYOUT), 0, "a second early");
        vm.warp(next);
        vm.prank(stranger);
        eq(vault.release(), 5e6, "released");
        eq(dollar.balanceOf(PAYOUT), 5e6, "payout");
        eq(vault.release(), 0, "once");
    }

    function test_the_window_is_never_shorter_than_promised() public {
        for (uint256 i = 0; i < 40; ++i) {
            vm.warp(block.timestamp + 1);
            open(config(i), 1e6);
            claim(config(i), 1e6);
            vault.collect();
            (,,,, uint64 next) = vault.status();
            if (i == 0) {
                yes(next >= block.timestamp + WINDOW, "at least the window");
                yes(next < block.timestamp + WINDOW + vault.GRAIN(), "at most a grain more");
            }
        }
    }

    function test_money_that_somebody_else_settled_starts_its_window_when_it_is_noticed() public {
        open(config(1), 5e6);
        claim(config(1), 5e6);
        vm.prank(stranger);
        channels.settle(address(vault), address(dollar));
        pastWindow();
        (uint128 waiting, uint128 releasable,) = status();
        eq(waiting, 5e6, "unnoticed money waits");
        eq(releasable, 0, "and is not released");
        eq(vault.release(), 0, "noticed now");
        pastWindow();
        eq(vault.release(), 5e6, "a window later");
    }

    function test_dust_neither_blocks_nor_delays_what_matures() public {
        earn(1, 5e6);
        dollar.mint(address(this), 1e6);
        for (uint256 i = 0; i < 300; ++i) {
            dollar.transfer(address(vault), 1);
            vault.sync();
            vm.warp(block.timestamp + vault.GRAIN());
        }
        uint256 before = gasleft();
        yes(vault.release() >= 5e6, "the first call pays the oldest");
        yes(before - gasleft() < 1_000_000, "at a bounded price");
        for (uint256 i = 0; i < 5; ++i) {
            vm.warp(block.timestamp + WINDOW);
            vault.release();
        }
        eq(dollar.balanceOf(address(vault)), 0, "all of it leaves");
    }

    function test_a_hold_keeps_money_back_and_freeing_it_pays_the_provider() public {
        earn(1, 5e6);
        vm.prank(ARBITER);
        eq(vault.hold(DISPUTE, 2e6), 2e6, "kept");
        pastWindow();
        eq(vault.release(), 3e6, "the rest");
        (, uint128 releasable, uint128 held) = status();
        eq(releasable, 0, "nothing more");
        eq(held, 2e6, "held");
        vm.prank(ARBITER);
        vault.free(DISPUTE);
        eq(vault.release(), 2e6, "freed");
    }

    function test_an_award_pays_the_payer_and_comes_out_of_what_matures() public {
        earn(1, 5e6);
        vm.prank(ARBITER);
        vault.hold(DISPUTE, 2e6);
        vm.prank(ARBITER);
        vault.award(DISPUTE, payer, 15e5);
        eq(dollar.balanceOf(payer), 1000e6 - 5e6 + 15e5, "payer");
        pastWindow();
        eq(vault.release(), 3e6, "less what is still held");
        vm.prank(ARBITER);
        vault.free(DISPUTE);
        eq(vault.release(), 5e5, "the rest of the hold");
        eq(dollar.balanceOf(address(vault)), 0, "nothing is left");
    }

    function test_a_hold_keeps_no_more_than_there_is_and_holds_do_not_overlap() public {
        earn(1, 5e6);
        vm.prank(ARBITER);
        eq(vault.hold(DISPUTE, 4e6), 4e6, "first");
        vm.prank(ARBITER);
        eq(vault.hold(bytes32(uint256(2)), 4e6), 1e6, "second");
        vm.prank(ARBITER);
        vm.expectRevert(abi.encodeWithSelector(PayoutVault.HoldExists.selector, DISPUTE));
        vault.hold(DISPUTE, 1);
        vm.prank(ARBITER);
        vm.expectRevert(abi.encodeWithSelector(PayoutVault.AboveHold.selector, DISPUTE, uint128(4e6 + 1), uint128(4e6)));
        vault.award(DISPUTE, payer, 4e6 + 1);
        vm.prank(ARBITER);
        vm.expectRevert(abi.encodeWithSelector(PayoutVault.NoHold.selector, bytes32(uint256(3))));
        vault.free(bytes32(uint256(3)));
    }

    function test_taking_a_hold_pays_all_of_it_and_nothing_where_nothing_is_held() public {
        Channels.ChannelConfig memory c = config(1);
        open(c, 5e6);
        claim(c, 5e6);
        vault.collect();
        vm.prank(ARBITER);
        vault.hold(bytes32(uint256(1)), 3e6);
        vm.prank(ARBITER);
        eq(vault.take(bytes32(uint256(1)), stranger), 3e6, "all");
        eq(dollar.balanceOf(stranger), 3e6, "paid");
        vm.prank(ARBITER);
        eq(vault.take(bytes32(uint256(1)), stranger), 0, "once");
        vm.prank(stranger);
        vm.expectRevert(abi.encodeWithSelector(PayoutVault.NotArbiter.selector, stranger));
        vault.take(bytes32(uint256(1)), stranger);
        vm.warp(block.timestamp + WINDOW * 2);
        vault.release();
        eq(dollar.balanceOf(PAYOUT), 2e6, "the rest is the provider's");
    }

    function test_nobody_but_the_arbiter_holds_frees_or_awards() public {
        earn(1, 5e6);
        bytes memory refused = abi.encodeWithSelector(PayoutVault.NotArbiter.selector, OWNER);
        vm.prank(OWNER);
        vm.expectRevert(refused);
        vault.hold(DISPUTE, 1);
        vm.prank(OWNER);
        vm.expectRevert(refused);
        vault.free(DISPUTE);
        vm.prank(OWNER);
        vm.expectRevert(refused);
        vault.award(DISPUTE, OWNER, 1);
    }

    function test_a_changed_payout_address_gets_what_is_released_afterwards() public {
        earn(1, 5e6);
        pastWindow();
        vm.prank(OWNER);
        registry.setPayout(stranger);
        vault.release();
        eq(dollar.balanceOf(stranger), 5e6, "new");
        eq(dollar.balanceOf(PAYOUT), 0, "old");
    }

    function testFuzz_whatever_the_order_every_dollar_goes_to_provider_or_payer(uint256 seed) public {
        uint128 earned;
        uint128 awarded;
        for (uint256 i = 0; i < 24; ++i) {
            seed = uint256(keccak256(abi.encode(seed)));
            uint256 move = seed % 6;
            uint128 amount = uint128(bound(seed >> 8, 1, 3e6));
            bytes32 id = bytes32(seed % 3);
            if (move == 0) {
                earn(i, amount);
                earned += amount;
            } else if (move == 1) {
                vm.warp(block.timestamp + amount % 90);
            } else if (move == 2) {
                vault.release();
            } else if (move == 3 && vault.holds(id) == 0) {
                vm.prank(ARBITER);
                vault.hold(id, amount);
            } else if (move == 4 && vault.holds(id) != 0) {
                vm.prank(ARBITER);
                vault.free(id);
            } else if (move == 5 && vault.holds(id) != 0) {
                uint128 part = uint128(bound(amount, 1, vault.holds(id)));
                vm.prank(ARBITER);
                vault.award(id, address(0xB0), part);
                awarded += part;
            }
            (uint128 waiting, uint128 releasable, uint128 held) = status();
            eq(uint256(waiting) + releasable + held, dollar.balanceOf(address(vault)), "the books are the money");
        }
        for (uint256 id = 0; id < 3; ++id) {
            if (vault.holds(bytes32(id)) == 0) continue;
            vm.prank(ARBITER);
            vault.free(bytes32(id));
        }
        pastWindow();
        vault.release();
        eq(dollar.balanceOf(address(vault)), 0, "nothing is stuck");
        eq(dollar.balanceOf(PAYOUT) + awarded, earned, "all of it arrived");
        eq(dollar.balanceOf(address(0xB0)), awarded, "the payer's part");
    }
}
