// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Channels} from "../src/Channels.sol";
import {Erc3009Collector} from "../src/Erc3009Collector.sol";
import {TestDollar} from "../src/TestDollar.sol";
import {Market} from "./Base.sol";
import {FeeToken, GreedyCollector, LazyCollector, ReentrantToken, Wallet} from "./Hostile.sol";

/// @title Channels: what each party may do, and every way that somebody else may not.
contract ChannelsTest is Market {
    /// Computed ahead of the call: a cheat code minds the very next call only.
    bytes private expected;

    // ---------------------------------------------------------------- the honest way

    function test_a_voucher_is_claimed_settled_and_the_rest_goes_back() public {
        Channels.ChannelConfig memory c = config(1);
        open(c, 10e6);
        claim(c, 4e6);
        channels.settle(address(vault), address(dollar));
        eq(dollar.balanceOf(address(vault)), 4e6, "vault");
        vm.prank(offerKey);
        channels.refund(c, 100e6);
        eq(dollar.balanceOf(payer), 996e6, "payer");
        eq(dollar.balanceOf(address(channels)), 0, "nothing stays");
    }

    function test_a_channel_is_topped_up_and_its_vouchers_grow() public {
        Channels.ChannelConfig memory c = config(1);
        open(c, 1e6);
        claim(c, 1e6);
        open(c, 2e6);
        claim(c, 3e6);
        eq(balance(c), 3e6, "balance");
        eq(claimed(c), 3e6, "claimed");
    }

    function test_anybody_relays_a_batch_that_the_authorizer_signed() public {
        Channels.VoucherClaim[] memory entries = new Channels.VoucherClaim[](20);
        for (uint256 i = 0; i < 20; ++i) {
            open(config(i), 1e6);
            entries[i] = voucher(config(i), 1e6, uint128(i + 1));
        }
        bytes memory sig = signature(OFFER_KEY, channels.getClaimBatchDigest(entries));
        vm.prank(stranger);
        channels.claimWithSignature(entries, sig);
        (uint128 total,) = channels.receivers(address(vault), address(dollar));
        eq(total, 210, "claimed in all");
    }

    function test_claim_and_refund_close_a_channel_in_one_transaction() public {
        Channels.ChannelConfig memory c = config(1);
        open(c, 10e6);
        Channels.VoucherClaim[] memory entries = one(voucher(c, 4e6, 3e6));
        bytes[] memory calls = new bytes[](2);
        calls[0] = abi.encodeCall(
            channels.claimWithSignature, (entries, signature(OFFER_KEY, channels.getClaimBatchDigest(entries)))
        );
        bytes32 digest = channels.getRefundDigest(channels.getChannelId(c), 0, 10e6);
        calls[1] = abi.encodeCall(channels.refundWithSignature, (c, 10e6, 0, signature(OFFER_KEY, digest)));
        channels.multicall(calls);
        eq(dollar.balanceOf(payer), 997e6, "payer");
        eq(balance(c), 3e6, "what was claimed stays for its receiver");
    }

    function test_a_session_key_signs_vouchers_and_the_payer_itself_then_cannot() public {
        Channels.ChannelConfig memory c = config(1);
        c.payerAuthorizer = stranger;
        open(c, 1e6);
        Channels.VoucherClaim[] memory entries = one(voucherBy(STRANGER_KEY, c, 1e6, 1e5));
        vm.prank(offerKey);
        channels.claim(entries);
        entries = one(voucher(c, 1e6, 2e5));
        expected = abi.encodeWithSelector(Channels.InvalidVoucherSignature.selector, channels.getChannelId(c), stranger);
        vm.prank(offerKey);
        vm.expectRevert(expected);
        channels.claim(entries);
    }

    function test_a_contract_may_pay_and_sign_by_eip1271() public {
        Wallet wallet = new Wallet(payer);
        dollar.mint(address(wallet), 10e6);
        Channels.ChannelConfig memory c = config(1);
        c.payer = address(wallet);
        open(c, 1e6);
        Channels.VoucherClaim[] memory entries = one(voucher(c, 1e6, 1e6));
        vm.prank(offerKey);
        channels.claim(entries);
        eq(claimed(c), 1e6, "claimed");
    }

    // ---------------------------------------------------------------- what is refused

    function test_a_deposit_of_nothing_or_with_a_hole_in_its_config_is_refused() public {
        bytes memory none;
        Channels.ChannelConfig memory c = config(1);
        vm.expectRevert(Channels.ZeroAmount.selector);
        channels.deposit(c, 0, address(collector), none);
        vm.expectRevert(Channels.ZeroAddress.selector);
        channels.deposit(c, 1, address(0), none);
        c.receiverAuthorizer = address(0);
        vm.expectRevert(Channels.ZeroAddress.selector);
        channels.deposit(c, 1, address(collector), none);
        c = config(1);
        c.withdrawDelay = 899;
        vm.expectRevert(abi.encodeWithSelector(Channels.WithdrawDelayOutOfRange.selector, uint40(899)));
        channels.deposit(c, 1, address(collector), none);
        c.withdrawDelay = 30 days + 1;
        vm.expectRevert(abi.encodeWithSelector(Channels.WithdrawDelayOutOfRange.selector, uint40(30 days + 1)));
        channels.deposit(c, 1, address(collector), none);
    }

    function test_a_signed_deposit_opens_no_other_channel_and_no_second_time() public {
        bytes memory data = collectorData(config(1), 1e6, 7);
        vm.expectRevert(abi.encodeWithSelector(TestDollar.InvalidAuthorizationSignature.selector, payer));
        channels.deposit(config(2), 1e6, address(collector), data);
        vm.expectRevert(abi.encodeWithSelector(TestDollar.InvalidAuthorizationSignature.selector, payer));
        channels.deposit(config(1), 2e6, address(collector), data);
        channels.deposit(config(1), 1e6, address(collector), data);
        bytes32 nonce = keccak256(abi.encode(channels.getChannelId(config(1)), uint256(7)));
        vm.expectRevert(abi.encodeWithSelector(TestDollar.AuthorizationSpent.selector, payer, nonce));
        channels.deposit(config(1), 1e6, address(collector), data);
    }

    function test_nobody_but_the_channels_has_the_collector_pull() public {
        bytes memory data = collectorData(config(1), 1e6, 7);
        bytes32 id = channels.getChannelId(config(1));
        vm.prank(stranger);
        vm.expectRevert(abi.encodeWithSelector(Erc3009Collector.NotChannels.selector, stranger));
        collector.collect(payer, address(dollar), 1e6, id, data);
    }

    function test_a_claim_above_voucher_or_balance_is_refused_with_the_figures() public {
        Channels.ChannelConfig memory c = config(1);
        bytes32 id = channels.getChannelId(c);
        open(c, 3);
        Channels.VoucherClaim[] memory entries = one(voucher(c, 2, 3));
        vm.prank(offerKey);
        vm.expectRevert(abi.encodeWithSelector(Channels.ClaimAboveVoucher.selector, id, uint128(3), uint128(2)));
        channels.claim(entries);
        entries = one(voucher(c, 5, 5));
        vm.prank(offerKey);
        vm.expectRevert(abi.encodeWithSelector(Channels.ClaimAboveBalance.selector, id, uint128(5), uint128(3)));
        channels.claim(entries);
    }

    function test_a_stranger_neither_claims_nor_refunds_nor_withdraws() public {
        Channels.ChannelConfig memory c = config(1);
        bytes32 id = channels.getChannelId(c);
        open(c, 1e6);
        Channels.VoucherClaim[] memory entries = one(voucher(c, 1e6, 1e6));
        bytes memory notTheirs = abi.encodeWithSelector(Channels.NotReceiverSide.selector, id, stranger);
        vm.prank(stranger);
        vm.expectRevert(notTheirs);
        channels.claim(entries);
        vm.prank(stranger);
        vm.expectRevert(notTheirs);
        channels.refund(c, 1);
        notTheirs = abi.encodeWithSelector(Channels.NotPayerSide.selector, id, stranger);
        vm.prank(stranger);
        vm.expectRevert(notTheirs);
        channels.initiateWithdraw(c, 1);
        vm.prank(stranger);
        vm.expectRevert(notTheirs);
        channels.finalizeWithdraw(c);
    }

    function test_a_voucher_by_another_key_counts_for_nothing() public {
        Channels.ChannelConfig memory c = config(1);
        open(c, 1e6);
        Channels.VoucherClaim[] memory entries = one(voucherBy(STRANGER_KEY, c, 1e6, 1e6));
        expected = abi.encodeWithSelector(Channels.InvalidVoucherSignature.selector, channels.getChannelId(c), payer);
        vm.prank(offerKey);
        vm.expectRevert(expected);
        channels.claim(entries);
    }

    function test_the_malleable_twin_of_a_signature_is_refused_everywhere() public {
        Channels.ChannelConfig memory c = config(1);
        open(c, 1e6);
        Channels.VoucherClaim[] memory entries = one(voucher(c, 1e6, 1e6));
        bytes memory batch = malleable(signature(OFFER_KEY, channels.getClaimBatchDigest(entries)));
        vm.expectRevert(abi.encodeWithSelector(Channels.InvalidAuthorizerSignature.selector, offerKey));
        channels.claimWithSignature(entries, batch);
        entries[0].signature = malleable(entries[0].signature);
        expected = abi.encodeWithSelector(Channels.InvalidVoucherSignature.selector, channels.getChannelId(c), payer);
        vm.prank(offerKey);
        vm.expectRevert(expected);
        channels.claim(entries);
        c.payerAuthorizer = stranger;
        open(c, 1e6);
        entries = one(voucherBy(STRANGER_KEY, c, 1e6, 1e6));
        entries[0].signature = malleable(entries[0].signature);
        expected = abi.encodeWithSelector(Channels.InvalidVoucherSignature.selector, channels.getChannelId(c), stranger);
        vm.prank(offerKey);
        vm.expectRevert(expected);
        channels.claim(entries);
    }

    function test_an_old_voucher_claimed_again_changes_nothing() public {
        Channels.ChannelConfig memory c = config(1);
        open(c, 1e6);
        Channels.VoucherClaim[] memory old = one(voucher(c, 3e5, 3e5));
        claim(c, 5e5);
        vm.prank(offerKey);
        channels.claim(old);
        eq(claimed(c), 5e5, "claimed");
    }

    function test_a_voucher_of_another_chain_or_contract_is_for_another_channel() public {
        Channels.ChannelConfig memory c = config(1);
        bytes32 here = channels.getChannelId(c);
        Channels other = new Channels();
        yes(other.getChannelId(c) != here, "contract");
        open(c, 1e6);
        Channels.VoucherClaim memory entry = voucher(c, 1e6, 1e6);
        vm.chainId(1);
        yes(channels.getChannelId(c) != here, "chain");
        // On the other chain this channel has no money.
        expected = abi.encodeWithSelector(
            Channels.ClaimAboveBalance.selector, channels.getChannelId(c), uint128(1e6), uint128(0)
        );
        vm.prank(offerKey);
        vm.expectRevert(expected);
        channels.claim(one(entry));
    }

    function test_a_batch_of_two_authorizers_or_changed_after_signing_is_refused() public {
        open(config(1), 1e6);
        Channels.ChannelConfig memory other = config(2);
        other.receiverAuthorizer = stranger;
        open(other, 1e6);
        Channels.VoucherClaim[] memory entries = new Channels.VoucherClaim[](2);
        entries[0] = voucher(config(1), 1e6, 1);
        entries[1] = voucher(other, 1e6, 1);
        bytes memory sig = signature(OFFER_KEY, channels.getClaimBatchDigest(entries));
        vm.expectRevert(abi.encodeWithSelector(Channels.MixedAuthorizers.selector, offerKey, stranger));
        channels.claimWithSignature(entries, sig);

        entries = one(voucher(config(1), 1e6, 1));
        sig = signature(OFFER_KEY, channels.getClaimBatchDigest(entries));
        entries[0].totalClaimed = 2;
        vm.expectRevert(abi.encodeWithSelector(Channels.InvalidAuthorizerSignature.selector, offerKey));
        channels.claimWithSignature(entries, sig);
        vm.expectRevert(Channels.EmptyBatch.selector);
        channels.claimWithSignature(new Channels.VoucherClaim[](0), sig);
    }

    function test_a_signed_refund_works_once_and_never_lies_in_wait() public {
        Channels.ChannelConfig memory c = config(1);
        bytes32 id = channels.getChannelId(c);
        bytes memory sig = signature(OFFER_KEY, channels.getRefundDigest(id, 0, 5e5));
        open(c, 1e6);
        claim(c, 1e6);
        // Nothing is left to give, and the nonce is spent all the same, as the event says.
        vm.expectEmit(true, true, false, true);
        emit Channels.Refunded(id, address(this), 0);
        channels.refundWithSignature(c, 5e5, 0, sig);
        open(c, 1e6);
        vm.expectRevert(abi.encodeWithSelector(Channels.WrongRefundNonce.selector, id, uint256(1), uint256(0)));
        channels.refundWithSignature(c, 5e5, 0, sig);
        bytes memory forged = signature(STRANGER_KEY, channels.getRefundDigest(id, 1, 5e5));
        vm.expectRevert(abi.encodeWithSelector(Channels.InvalidAuthorizerSignature.selector, offerKey));
        channels.refundWithSignature(c, 5e5, 1, forged);
    }

    // ---------------------------------------------------------------- the race of the withdrawal

    function test_a_claim_within_the_delay_beats_the_withdrawal() public {
        Channels.ChannelConfig memory c = config(1);
        open(c, 1e6);
        vm.prank(payer);
        channels.initiateWithdraw(c, 1e6);
        vm.warp(block.timestamp + DELAY - 1);
        expected = abi.encodeWithSelector(
            Channels.WithdrawTooEarly.selector, channels.getChannelId(c), uint40(block.timestamp + 1)
        );
        vm.prank(payer);
        vm.expectRevert(expected);
        channels.finalizeWithdraw(c);
        claim(c, 9e5);
        vm.warp(block.timestamp + 1);
        vm.prank(payer);
        channels.finalizeWithdraw(c);
        eq(dollar.balanceOf(payer), 1000e6 - 9e5, "payer has what was not claimed");
        eq(balance(c) - claimed(c), 0, "nothing is left over");
        expected = abi.encodeWithSelector(Channels.NoWithdrawalPending.selector, channels.getChannelId(c));
        vm.prank(payer);
        vm.expectRevert(expected);
        channels.finalizeWithdraw(c);
    }

    function test_a_claim_after_the_withdrawal_comes_too_late() public {
        Channels.ChannelConfig memory c = config(1);
        open(c, 1e6);
        vm.prank(payer);
        channels.initiateWithdraw(c, 1e6);
        vm.warp(block.timestamp + DELAY);
        vm.prank(payer);
        channels.finalizeWithdraw(c);
        Channels.VoucherClaim[] memory entries = one(voucher(c, 1e6, 1e6));
        expected = abi.encodeWithSelector(
            Channels.ClaimAboveBalance.selector, channels.getChannelId(c), uint128(1e6), uint128(0)
        );
        vm.prank(offerKey);
        vm.expectRevert(expected);
        channels.claim(entries);
    }

    function test_a_withdrawal_asks_for_no_more_than_is_unclaimed_and_once_at_a_time() public {
        Channels.ChannelConfig memory c = config(1);
        bytes32 id = channels.getChannelId(c);
        open(c, 1e6);
        claim(c, 4e5);
        vm.prank(payer);
        vm.expectRevert(
            abi.encodeWithSelector(Channels.WithdrawAboveAvailable.selector, id, uint128(6e5 + 1), uint128(6e5))
        );
        channels.initiateWithdraw(c, 6e5 + 1);
        vm.prank(payer);
        channels.initiateWithdraw(c, 1e5);
        vm.prank(payer);
        vm.expectRevert(abi.encodeWithSelector(Channels.WithdrawalPending.selector, id, uint40(block.timestamp)));
        channels.initiateWithdraw(c, 1e5);
    }

    function test_a_refund_serves_the_pending_withdrawal_first() public {
        Channels.ChannelConfig memory c = config(1);
        bytes32 id = channels.getChannelId(c);
        open(c, 1e6);
        vm.prank(payer);
        channels.initiateWithdraw(c, 5e5);
        vm.prank(offerKey);
        channels.refund(c, 2e5);
        (uint128 left,) = channels.pendingWithdrawals(id);
        eq(left, 3e5, "left to withdraw");
        vm.prank(offerKey);
        channels.refund(c, 3e5);
        (, uint40 since) = channels.pendingWithdrawals(id);
        eq(since, 0, "served");
    }

    // ---------------------------------------------------------------- hostile tokens and collectors

    function test_a_token_that_takes_a_fee_is_refused() public {
        FeeToken token = new FeeToken();
        Channels.ChannelConfig memory c = config(1);
        c.token = address(token);
        GreedyCollector greedy = new GreedyCollector(address(channels));
        token.mint(address(greedy), 1e6);
        vm.expectRevert(abi.encodeWithSelector(Channels.DepositNotReceived.selector, uint256(1e6), uint256(99e4)));
        channels.deposit(c, 1e6, address(greedy), "");
    }

    function test_a_collector_that_brings_nothing_credits_nothing() public {
        LazyCollector lazy = new LazyCollector();
        vm.expectRevert(abi.encodeWithSelector(Channels.DepositNotReceived.selector, uint256(1e6), uint256(0)));
        channels.deposit(config(1), 1e6, address(lazy), "");
    }

    function test_a_token_that_calls_back_finds_every_door_shut() public {
        ReentrantToken token = new ReentrantToken(channels);
        Channels.ChannelConfig memory c = config(1);
        c.token = address(token);
        c.payer = address(token);
        c.receiver = address(token);
        c.receiverAuthorizer = address(token);
        GreedyCollector greedy = new GreedyCollector(address(channels));
        token.mint(address(greedy), 2e6);
        channels.deposit(c, 1e6, address(greedy), "");
        token.arm(c);
        // Refunding calls the token, which tries to be refunded once more.
        vm.prank(address(token));
        channels.refund(c, 6e5);
        eq(token.attempts(), 6, "it tried every door");
        eq(token.entered(), 0, "and none opened");
        eq(balance(c), 4e5, "the books are right");
        eq(token.balanceOf(address(channels)), 4e5, "and so is the money");
    }

    function test_money_of_one_token_never_pays_for_another() public {
        TestDollar other = new TestDollar();
        open(config(1), 1e6);
        claim(config(1), 1e6);
        channels.settle(address(vault), address(other));
        eq(other.balanceOf(address(vault)), 0, "other");
        channels.settle(address(vault), address(dollar));
        channels.settle(address(vault), address(dollar));
        eq(dollar.balanceOf(address(vault)), 1e6, "once");
    }

    // ---------------------------------------------------------------- compatibility

    function test_every_selector_is_x402s() public pure {
        string memory cfg = "(address,address,address,address,address,uint40,bytes32)";
        string memory claims = string.concat("((", cfg, ",uint128),bytes,uint128)[]");
        same(Channels.deposit.selector, string.concat("deposit(", cfg, ",uint128,address,bytes)"));
        same(Channels.claim.selector, string.concat("claim(", claims, ")"));
        same(Channels.claimWithSignature.selector, string.concat("claimWithSignature(", claims, ",bytes)"));
        same(Channels.settle.selector, "settle(address,address)");
        same(Channels.initiateWithdraw.selector, string.concat("initiateWithdraw(", cfg, ",uint128)"));
        same(Channels.finalizeWithdraw.selector, string.concat("finalizeWithdraw(", cfg, ")"));
        same(Channels.refund.selector, string.concat("refund(", cfg, ",uint128)"));
        same(
            Channels.refundWithSignature.selector, string.concat("refundWithSignature(", cfg, ",uint128,uint256,bytes)")
        );
        same(Channels.getChannelId.selector, string.concat("getChannelId(", cfg, ")"));
        same(Channels.getVoucherDigest.selector, "getVoucherDigest(bytes32,uint128)");
        same(Channels.getRefundDigest.selector, "getRefundDigest(bytes32,uint256,uint128)");
        same(Channels.getClaimBatchDigest.selector, string.concat("getClaimBatchDigest(", claims, ")"));
    }

    function same(bytes4 selector, string memory name) private pure {
        eq(bytes32(selector), bytes32(bytes4(keccak256(bytes(name)))), name);
    }

    // ---------------------------------------------------------------- fuzz

    function testFuzz_a_claim_moves_exactly_what_it_says_or_nothing(uint128 deposited, uint128 most, uint128 total)
        public
    {
        deposited = uint128(bound(deposited, 1, 1000e6));
        Channels.ChannelConfig memory c = config(1);
        open(c, deposited);
        Channels.VoucherClaim[] memory entries = one(voucher(c, most, total));
        bool good = total <= most && total <= deposited;
        vm.prank(offerKey);
        if (!good) vm.expectRevert();
        channels.claim(entries);
        eq(claimed(c), good ? total : 0, "claimed");
        channels.settle(address(vault), address(dollar));
        eq(dollar.balanceOf(address(vault)), good ? total : 0, "settled");
        vm.prank(offerKey);
        channels.refund(c, type(uint128).max);
        eq(dollar.balanceOf(payer), 1000e6 - (good ? total : 0), "payer");
    }

    function testFuzz_no_random_bytes_are_a_signature(bytes calldata junk, uint128 total) public {
        total = uint128(bound(total, 1, 1e6));
        Channels.ChannelConfig memory c = config(1);
        open(c, 1e6);
        Channels.VoucherClaim[] memory entries = one(voucher(c, total, total));
        entries[0].signature = junk;
        vm.prank(offerKey);
        vm.expectRevert();
        channels.claim(entries);
    }
}
