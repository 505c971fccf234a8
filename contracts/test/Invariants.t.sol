// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Channels} from "../src/Channels.sol";
import {PayoutVault} from "../src/PayoutVault.sol";
import {Registry} from "../src/Registry.sol";
import {Market} from "./Base.sol";

/// @title Everybody at once: payers, a provider, the arbiter and a thief act in any order; the
///        books are kept here a second time, from what was asked and granted alone.
contract Everybody is Market {
    uint256 public constant LANES = 4;
    address public constant THIEF = address(0x7417EF);

    /// The highest voucher that the payer ever signed, by lane.
    mapping(uint256 lane => uint128) public signed;
    mapping(uint256 lane => uint128) public deposited;
    uint256 public slashed;
    uint256 public awarded;
    uint256 private _holds;
    uint256 private _signature;

    function money() external view returns (uint256 channelsHold, uint256 vaultHolds, uint256 registryHolds) {
        channelsHold = dollar.balanceOf(address(channels));
        vaultHolds = dollar.balanceOf(address(vault));
        registryHolds = dollar.balanceOf(address(registry));
    }

    function supply() external view returns (uint256 all, uint256 counted) {
        all = dollar.totalSupply();
        counted = dollar.balanceOf(payer) + dollar.balanceOf(OWNER) + dollar.balanceOf(PAYOUT)
            + dollar.balanceOf(address(channels)) + dollar.balanceOf(address(vault))
            + dollar.balanceOf(address(registry)) + slashed;
    }

    function thiefs() external view returns (uint256) {
        return dollar.balanceOf(THIEF);
    }

    function lane(uint256 i) external view returns (uint128 held, uint128 taken) {
        return (balance(config(i)), claimed(config(i)));
    }

    function receiver() external view returns (uint128 total, uint128 settled) {
        return channels.receivers(address(vault), address(dollar));
    }

    function provider() external view returns (Registry.Provider memory) {
        return registry.getProvider(OWNER);
    }

    function vaultStatus() external view returns (uint256 total) {
        (, uint128 waiting, uint128 releasable, uint128 held,) = vault.status();
        total = uint256(waiting) + releasable + held;
    }

    function paidOut() external view returns (uint256) {
        return dollar.balanceOf(PAYOUT);
    }

    // ---------------------------------------------------------------- honest moves

    function pass(uint256 time) external {
        vm.warp(block.timestamp + bound(time, 1, 600));
    }

    function put(uint256 at_, uint128 amount) external {
        uint256 left = dollar.balanceOf(payer);
        if (left == 0) return;
        amount = uint128(bound(amount, 1, left));
        at_ %= LANES;
        bytes memory data = collectorData(config(at_), amount, ++_signature);
        channels.deposit(config(at_), amount, address(collector), data);
        deposited[at_] += amount;
    }

    function take(uint256 at_, uint128 most, uint128 total, bool relayed) external {
        at_ %= LANES;
        Channels.ChannelConfig memory c = config(at_);
        most = uint128(bound(most, 0, uint256(balance(c)) + 10));
        total = uint128(bound(total, 0, uint256(most) + 10));
        if (most > signed[at_]) signed[at_] = most;
        Channels.VoucherClaim[] memory entries = one(voucher(c, most, total));
        if (relayed) {
            bytes memory sig = signature(OFFER_KEY, channels.getClaimBatchDigest(entries));
            vm.prank(THIEF);
            channels.claimWithSignature(entries, sig);
        } else {
            vm.prank(offerKey);
            channels.claim(entries);
        }
    }

    function giveBack(uint256 at_, uint128 amount) external {
        vm.prank(offerKey);
        channels.refund(config(at_ % LANES), amount);
    }

    function askBack(uint256 at_, uint128 amount) external {
        Channels.ChannelConfig memory c = config(at_ % LANES);
        amount = uint128(bound(amount, 0, uint256(balance(c) - claimed(c)) + 5));
        vm.prank(payer);
        channels.initiateWithdraw(c, amount);
    }

    function takeBack(uint256 at_) external {
        vm.prank(payer);
        channels.finalizeWithdraw(config(at_ % LANES));
    }

    function collect() external {
        vault.collect();
    }

    function release() external {
        vault.release();
    }

    function stake(uint128 amount) external {
        amount = uint128(bound(amount, 1, 50e6));
        vm.prank(OWNER);
        dollar.approve(address(registry), amount);
        vm.prank(OWNER);
        registry.stake(amount);
    }

    function unbond(uint128 amount) external {
        amount = uint128(bound(amount, 1, 50e6));
        vm.prank(OWNER);
        registry.unbond(amount);
    }

    function withdrawStake() external {
        vm.prank(OWNER);
        registry.withdrawStake();
    }

    // ---------------------------------------------------------------- the arbiter

    function slash(uint128 amount) external {
        amount = uint128(bound(amount, 1, 20e6));
        vm.prank(ARBITER);
        slashed += registry.slash(OWNER, amount, address(0xdead));
    }

    function hold(uint128 amount) external {
        vm.prank(ARBITER);
        vault.hold(bytes32(++_holds), amount);
    }

    function judge(uint256 id, uint128 amount, bool guilty) external {
        bytes32 dispute = bytes32(bound(id, 1, _holds + 1));
        uint128 held = vault.holds(dispute);
        if (guilty && held > 0) {
            amount = uint128(bound(amount, 1, held));
            vm.prank(ARBITER);
            vault.award(dispute, payer, amount);
            awarded += amount;
        } else {
            vm.prank(ARBITER);
            vault.free(dispute);
        }
    }

    // ---------------------------------------------------------------- the thief

    /// Everything that could move money, called by somebody who has no right to any.
    function steal(uint256 way, uint256 at_, uint128 amount, bytes calldata junk) external {
        Channels.ChannelConfig memory c = config(at_ % LANES);
        Channels.VoucherClaim[] memory entries = one(voucherBy(STRANGER_KEY, c, amount, amount));
        Channels.ChannelConfig memory own = c;
        own.receiver = THIEF;
        own.receiverAuthorizer = THIEF;
        vm.prank(THIEF);
        way %= 14;
        if (way == 0) channels.claim(entries);
        else if (way == 1) channels.claimWithSignature(entries, junk);
        else if (way == 2) channels.refund(c, amount);
        else if (way == 3) channels.refundWithSignature(c, amount, at_, junk);
        else if (way == 4) channels.initiateWithdraw(c, amount);
        else if (way == 5) channels.finalizeWithdraw(c);
        else if (way == 6) channels.claim(one(voucherBy(PAYER_KEY, own, amount, amount)));
        else if (way == 7) channels.settle(THIEF, address(dollar));
        else if (way == 8) registry.slash(OWNER, amount, THIEF);
        else if (way == 9) registry.withdrawStake();
        else if (way == 10) vault.award(bytes32(at_), THIEF, amount);
        else if (way == 11) vault.hold(bytes32(at_), amount);
        else if (way == 12) registry.setPayout(THIEF);
        else dollar.transferWithAuthorization(payer, THIEF, amount, 0, type(uint64).max, bytes32(at_), junk);
    }
}

/// @title What holds after any sequence of calls by anybody.
contract InvariantTest is Market {
    Everybody private everybody;

    function setUp() public override {
        everybody = new Everybody();
        everybody.setUp();
    }

    function targetContracts() external view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(everybody);
    }

    struct FuzzSelector {
        address addr;
        bytes4[] selectors;
    }

    function targetSelectors() external view returns (FuzzSelector[] memory targets) {
        bytes4[] memory moves = new bytes4[](15);
        moves[0] = Everybody.pass.selector;
        moves[1] = Everybody.put.selector;
        moves[2] = Everybody.take.selector;
        moves[3] = Everybody.giveBack.selector;
        moves[4] = Everybody.askBack.selector;
        moves[5] = Everybody.takeBack.selector;
        moves[6] = Everybody.collect.selector;
        moves[7] = Everybody.release.selector;
        moves[8] = Everybody.stake.selector;
        moves[9] = Everybody.unbond.selector;
        moves[10] = Everybody.withdrawStake.selector;
        moves[11] = Everybody.hold.selector;
        moves[12] = Everybody.judge.selector;
        moves[13] = Everybody.steal.selector;
        moves[14] = Everybody.slash.selector;
        targets = new FuzzSelector[](1);
        targets[0] = FuzzSelector(address(everybody), moves);
    }

    function invariant_every_dollar_has_one_place() public view {
        (uint256 all, uint256 counted) = everybody.supply();
        eq(counted, all, "all dollars");
    }

    function invariant_the_channels_hold_what_they_owe() public view {
        (uint256 held,,) = everybody.money();
        (uint128 total, uint128 settled) = everybody.receiver();
        uint256 owed = total - settled;
        for (uint256 i = 0; i < everybody.LANES(); ++i) {
            (uint128 balance_, uint128 taken) = everybody.lane(i);
            owed += balance_ - taken;
        }
        eq(held, owed, "channels");
    }

    function invariant_claimed_is_at_most_signed_and_at_most_deposited() public view {
        for (uint256 i = 0; i < everybody.LANES(); ++i) {
            (uint128 balance_, uint128 taken) = everybody.lane(i);
            yes(taken <= everybody.signed(i), "claimed <= signed");
            yes(taken <= balance_, "claimed <= balance");
            yes(balance_ <= everybody.deposited(i), "balance <= deposited");
        }
    }

    function invariant_the_vault_holds_what_it_says_and_pays_only_what_was_claimed() public view {
        (, uint256 held,) = everybody.money();
        eq(held, everybody.vaultStatus(), "vault");
        (, uint128 settled) = everybody.receiver();
        eq(everybody.paidOut() + everybody.awarded() + held, settled, "paid out");
    }

    function invariant_the_registry_holds_every_stake() public view {
        (,, uint256 held) = everybody.money();
        Registry.Provider memory provider = everybody.provider();
        eq(held, uint256(provider.stake) + provider.unbonding, "registry");
        yes(provider.active == (provider.stake >= MIN_STAKE), "listed by stake alone");
        eq(provider.payout, PAYOUT, "and the payout is the owner's to set");
    }

    function invariant_the_thief_has_nothing() public view {
        eq(everybody.thiefs(), 0, "thief");
    }
}
