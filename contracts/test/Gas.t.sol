// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Channels} from "../src/Channels.sol";
import {ReputationAdapter} from "../src/ReputationAdapter.sol";
import {Scoreboard} from "../src/Scoreboard.sol";
import {IIdentityRegistry} from "../src/interfaces/IIdentityRegistry.sol";
import {Receipt} from "../src/dispute/DisputeGame.sol";
import {Disputes, Trace} from "./dispute/GameBase.sol";
import {Agents, Feedbacks} from "./Erc8004.sol";
import {Scores} from "./Scores.sol";

/// @title What every move costs as a transaction of its own: snapshots/gas.json. Asserts nothing.
contract GasTest is Scores {
    function spent(string memory what) private {
        vm.snapshotGasLastCall("gas", what);
    }

    function test_gas_of_channels_and_vault() public {
        Channels.ChannelConfig memory c = config(1);
        open(c, 10e6);
        spent("Channels.deposit: a new channel, EIP-3009");
        open(c, 10e6);
        spent("Channels.deposit: a channel that is open");
        claim(c, 1e6);
        spent("Channels.claim: the first of a channel");
        Channels.VoucherClaim[] memory ten = new Channels.VoucherClaim[](10);
        for (uint256 i = 0; i < 10; ++i) {
            open(config(10 + i), 1e6);
            claim(config(10 + i), 1e5);
            ten[i] = voucher(config(10 + i), 2e5, 2e5);
        }
        bytes memory sig = signature(OFFER_KEY, channels.getClaimBatchDigest(ten));
        channels.claimWithSignature(ten, sig);
        spent("Channels.claimWithSignature: ten channels again");
        vault.collect();
        spent("PayoutVault.collect: the first money");
        claim(c, 2e6);
        vault.collect();
        spent("PayoutVault.collect: in the same grain of time");
        vm.warp(block.timestamp + 2 * WINDOW);
        vault.release();
        spent("PayoutVault.release: one tranche");
        vm.prank(offerKey);
        channels.refund(c, 1e6);
        spent("Channels.refund");
        bytes32 id = channels.getChannelId(c);
        sig = signature(OFFER_KEY, channels.getRefundDigest(id, 1, 1e6));
        channels.refundWithSignature(c, 1e6, 1, sig);
        spent("Channels.refundWithSignature");
        vm.prank(payer);
        channels.initiateWithdraw(c, 1e6);
        spent("Channels.initiateWithdraw");
        vm.warp(block.timestamp + DELAY);
        vm.prank(payer);
        channels.finalizeWithdraw(c);
        spent("Channels.finalizeWithdraw");
    }

    function test_gas_of_registry() public {
        vm.prank(stranger);
        registry.register(address(1), stranger, "https://node.example:9001", new bytes32[](1));
        spent("Registry.register: one model");
        vm.prank(OWNER);
        dollar.approve(address(registry), 100e6);
        vm.prank(OWNER);
        registry.stake(20e6);
        spent("Registry.stake: into the list");
        vm.prank(OWNER);
        registry.unbond(5e6);
        spent("Registry.unbond");
        vm.warp(block.timestamp + UNBONDING);
        vm.prank(OWNER);
        registry.withdrawStake();
        spent("Registry.withdrawStake");
        vm.prank(OWNER);
        registry.rotateOfferKey(stranger);
        spent("Registry.rotateOfferKey");
        vm.prank(ARBITER);
        registry.jail(OWNER);
        spent("Registry.jail: off the list");
        vm.warp(block.timestamp + UNBONDING);
        vm.prank(OWNER);
        registry.release();
        spent("Registry.release: back into the list");
    }

    function test_gas_of_scoreboard_and_adapter() public {
        Scoreboard.Entry[] memory ten = new Scoreboard.Entry[](10);
        Scoreboard.ServiceRecord memory r;
        for (uint256 i = 0; i < 10; ++i) {
            Channels.ChannelConfig memory c = paid(i, 10e6);
            r = answers(c, 3, 1, 1e6);
            post(c, r, none());
            if (i == 0) spent("Scoreboard.post: the first record of a provider");
            if (i == 1) spent("Scoreboard.post: the first record of a channel");
            ten[i] = entry(c, answers(c, 5, 1, 1e6), r);
        }
        bytes memory sig = batchBy(OFFER_KEY, ten);
        board.post(OWNER, ten, sig);
        spent("Scoreboard.post: ten newer records");
        report(config(1), answers(config(1), 5, 2, 1e6), answers(config(1), 5, 1, 1e6));
        spent("Scoreboard.post: a payer alone");
        Agents agents = new Agents();
        ReputationAdapter adapter =
            new ReputationAdapter(board, IIdentityRegistry(address(agents)), new Feedbacks(agents), 1 days);
        vm.prank(OWNER);
        agents.register();
        vm.prank(OWNER);
        adapter.link(0);
        spent("ReputationAdapter.link");
        adapter.publish(OWNER);
        spent("ReputationAdapter.publish: into the tests' registry");
    }
}

/// @title The same of the dispute game, over the tests' referee; the real one's steps are measured by
///        crates/chain/tests/chain/gas.rs.
contract GameGasTest is Disputes {
    function spent(string memory what) private {
        vm.snapshotGasLastCall("gas", what);
    }

    function test_gas_of_the_game() public {
        earn(20e6);
        Receipt memory r = receiptOf(1);
        openAs(watcher, r);
        spent("DisputeGame.open");
        Trace trace = honest(r);
        bytes32 root = trace.root();
        bytes32[] memory children = trace.childrenOf(trace.top());
        vm.prank(OWNER);
        game.postTrace(r, watcher, root, children);
        spent("DisputeGame.postTrace");
        wait(RESPONSE + EXTENSION + 1);
        game.timeout(r, watcher);
        spent("DisputeGame.timeout: the challenger's");
        openAs(watcher, r = receiptOf(2));
        wait(RESPONSE + EXTENSION + 1);
        game.timeout(r, watcher);
        spent("DisputeGame.timeout: the provider's");
        r = receiptOf(3);
        bytes memory sig = signed(r);
        game.proveFact(r, sig, hex"01");
        spent("DisputeGame.proveFact: without a game, a stake that is gone");
    }
}
