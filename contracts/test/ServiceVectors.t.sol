// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Channels} from "../src/Channels.sol";
import {Registry} from "../src/Registry.sol";
import {Scoreboard} from "../src/Scoreboard.sol";
import {TestDollar} from "../src/TestDollar.sol";
import {Scores} from "./Scores.sol";

/// @title Service records and batches as Rust, Solidity and viem must agree on them, posted for real.
contract ServiceVectorsTest is Scores {
    string private json;
    Channels.ChannelConfig private channel;

    /// The market of the vectors: x402's address, their channel as paid, a board at their address.
    function setUp() public override {
        super.setUp();
        json = vm.readFile("../vectors/service.json");
        string memory paid_ = vm.readFile("../vectors/channels.json");
        vm.chainId(vm.parseJsonUint(paid_, ".accept[0].chainId"));
        address where = vm.parseJsonAddress(paid_, ".accept[0].contract");
        vm.etch(where, address(channels).code);
        channels = Channels(where);
        channel = Channels.ChannelConfig({
            payer: vm.parseJsonAddress(paid_, ".accept[0].config.payer"),
            payerAuthorizer: vm.parseJsonAddress(paid_, ".accept[0].config.payerAuthorizer"),
            receiver: vm.parseJsonAddress(paid_, ".accept[0].config.receiver"),
            receiverAuthorizer: vm.parseJsonAddress(paid_, ".accept[0].config.receiverAuthorizer"),
            token: vm.parseJsonAddress(paid_, ".accept[0].config.token"),
            withdrawDelay: uint40(vm.parseJsonUint(paid_, ".accept[0].config.withdrawDelay")),
            salt: vm.parseJsonBytes32(paid_, ".accept[0].config.salt")
        });
        vm.etch(channel.token, address(dollar).code);
        dollar = TestDollar(channel.token);
        registry = new Registry(dollar, channels, ARBITER, MIN_STAKE, UNBONDING, WINDOW);
        vm.prank(OWNER);
        registry.register(channel.receiverAuthorizer, PAYOUT, "", new bytes32[](0));
        // No vault stands at the receiver that the vectors name.
        vm.mockCall(address(registry), abi.encodeCall(registry.vaultOf, (OWNER)), abi.encode(channel.receiver));
        dollar.mint(address(this), 5e6);
        channels.deposit(channel, 5e6, address(this), "");
        claim(channel, 3e6);
        board = Scoreboard(vm.parseJsonAddress(json, ".accept[0].scoreboard"));
        vm.etch(address(board), address(new Scoreboard(registry)).code);
    }

    /// A collector too: gives what this test has.
    function collect(address, address token, uint256 amount, bytes32, bytes calldata) external {
        TestDollar(token).transfer(msg.sender, amount);
    }

    function at_(string memory list, uint256 i, string memory name) private pure returns (string memory) {
        return string.concat(".", list, "[", vm.toString(i), "].", name);
    }

    function recordAt(string memory path) private view returns (Scoreboard.ServiceRecord memory) {
        return Scoreboard.ServiceRecord({
            channelId: vm.parseJsonBytes32(json, string.concat(path, ".channelId")),
            revenue: uint64(vm.parseJsonUint(json, string.concat(path, ".revenue"))),
            promptTokens: uint64(vm.parseJsonUint(json, string.concat(path, ".promptTokens"))),
            outputTokens: uint64(vm.parseJsonUint(json, string.concat(path, ".outputTokens"))),
            requests: uint32(vm.parseJsonUint(json, string.concat(path, ".requests"))),
            failures: uint32(vm.parseJsonUint(json, string.concat(path, ".failures"))),
            ttft: uint256(vm.parseJsonBytes32(json, string.concat(path, ".ttft"))),
            speed: uint256(vm.parseJsonBytes32(json, string.concat(path, ".speed")))
        });
    }

    function test_records_and_batches_have_the_digests_that_viem_computes() public {
        eq(board.SERVICE_RECORD_TYPEHASH(), vm.parseJsonBytes32(json, ".recordTypehash"), "type");
        uint256 i = 0;
        for (; vm.keyExistsJson(json, at_("accept", i, "name")); ++i) {
            string memory name = vm.parseJsonString(json, at_("accept", i, "name"));
            vm.chainId(vm.parseJsonUint(json, at_("accept", i, "chainId")));
            address where = vm.parseJsonAddress(json, at_("accept", i, "scoreboard"));
            vm.etch(where, address(board).code);
            Scoreboard.ServiceRecord[] memory records = new Scoreboard.ServiceRecord[](1);
            records[0] = recordAt(at_("accept", i, "record"));
            Scoreboard there = Scoreboard(where);
            eq(there.structHash(records[0]), vm.parseJsonBytes32(json, at_("accept", i, "structHash")), name);
            eq(there.recordDigest(records[0]), vm.parseJsonBytes32(json, at_("accept", i, "digest")), name);
            eq(there.batchDigest(records), vm.parseJsonBytes32(json, at_("accept", i, "batchOfOneDigest")), name);
        }
        yes(i >= 6, "there are vectors");
    }

    function test_the_signed_records_of_the_vectors_are_posted_and_forgeries_are_not() public {
        Scoreboard.ServiceRecord memory first = recordAt(".accept[0].record");
        bytes memory payers = vm.parseJsonBytes(json, ".accept[0].payerSignature");
        bytes memory providers = vm.parseJsonBytes(json, ".accept[0].providerSignature");
        uint256 i = 0;
        for (; vm.keyExistsJson(json, at_("rejectPayer", i, "name")); ++i) {
            bytes memory forged = vm.parseJsonBytes(json, at_("rejectPayer", i, "signature"));
            refuses(
                just(Scoreboard.Entry(channel, first, none(), forged)),
                providers,
                abi.encodeWithSelector(Scoreboard.InvalidPayerSignature.selector, first.channelId, channel.payer)
            );
        }
        yes(i >= 13, "there are forgeries of the payer's");
        for (i = 0; vm.keyExistsJson(json, at_("rejectProvider", i, "name")); ++i) {
            bytes memory forged = vm.parseJsonBytes(json, at_("rejectProvider", i, "signature"));
            refuses(
                just(Scoreboard.Entry(channel, first, none(), payers)),
                forged,
                abi.encodeWithSelector(Scoreboard.InvalidProviderSignature.selector, channel.receiverAuthorizer)
            );
        }
        yes(i >= 13, "there are forgeries of the provider's");
        board.post(OWNER, just(Scoreboard.Entry(channel, first, none(), payers)), providers);
        eq(board.lastOf(first.channelId), vm.parseJsonBytes32(json, ".accept[0].structHash"), "posted");
    }

    function test_a_batch_of_two_is_posted_under_one_signature() public {
        Scoreboard.ServiceRecord memory first = recordAt(".accept[0].record");
        Scoreboard.ServiceRecord memory second = recordAt(".accept[1].record");
        Scoreboard.Entry[] memory entries = two(
            Scoreboard.Entry(channel, first, none(), vm.parseJsonBytes(json, ".accept[0].payerSignature")),
            Scoreboard.Entry(channel, second, first, vm.parseJsonBytes(json, ".accept[1].payerSignature"))
        );
        board.post(OWNER, entries, vm.parseJsonBytes(json, ".batchOfTwo.signature"));
        eq(scoreOf(OWNER).revenue, second.revenue, "the second is the last");
    }

    function test_which_record_may_follow_which() public {
        uint256 i = 0;
        uint256 taken;
        for (; vm.keyExistsJson(json, at_("steps", i, "name")); ++i) {
            board = new Scoreboard(registry);
            Scoreboard.ServiceRecord memory previous = recordAt(at_("steps", i, "previous"));
            Scoreboard.ServiceRecord memory next = recordAt(at_("steps", i, "record"));
            if (previous.channelId != 0) post(channel, previous, none());
            Scoreboard.Entry[] memory entries = just(entry(channel, next, previous));
            bytes memory sig = batchBy(OFFER_KEY, entries);
            (bool ok,) = address(board).call(abi.encodeCall(board.post, (OWNER, entries, sig)));
            bool expected = vm.parseJsonBool(json, at_("steps", i, "taken"));
            yes(ok == expected, vm.parseJsonString(json, at_("steps", i, "name")));
            if (ok) ++taken;
        }
        yes(i >= 15 && taken >= 3, "there are steps of both kinds");
    }
}
