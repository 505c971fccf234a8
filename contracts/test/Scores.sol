// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Channels} from "../src/Channels.sol";
import {Scoreboard} from "../src/Scoreboard.sol";
import {Market} from "./Base.sol";

/// @title A market with a scoreboard, and the words to count, sign and post service.
abstract contract Scores is Market {
    Scoreboard internal board;

    function setUp() public virtual override {
        super.setUp();
        board = new Scoreboard(registry);
    }

    /// Eight counts, class 0 lowest.
    function counts(uint32[8] memory classes) internal pure returns (uint256 histogram) {
        for (uint256 i = 0; i < 8; ++i) {
            histogram |= uint256(classes[i]) << (32 * i);
        }
    }

    function countAt(uint256 histogram, uint256 class) internal pure returns (uint32) {
        return uint32(histogram >> (32 * class));
    }

    function none() internal pure returns (Scoreboard.ServiceRecord memory r) {}

    /// A record of `requests` answers at once, all of one class, each of ten tokens for `price`.
    function answers(Channels.ChannelConfig memory c, uint32 requests, uint32 failures, uint64 price)
        internal
        view
        returns (Scoreboard.ServiceRecord memory)
    {
        return Scoreboard.ServiceRecord({
            channelId: channels.getChannelId(c),
            revenue: requests * price,
            promptTokens: uint64(requests) * 100,
            outputTokens: uint64(requests) * 10,
            requests: requests,
            failures: failures,
            ttft: uint256(requests) << 32,
            speed: uint256(requests) << 128
        });
    }

    function entry(
        Channels.ChannelConfig memory c,
        Scoreboard.ServiceRecord memory record,
        Scoreboard.ServiceRecord memory previous
    ) internal view returns (Scoreboard.Entry memory) {
        return entryBy(PAYER_KEY, c, record, previous);
    }

    function entryBy(
        uint256 key,
        Channels.ChannelConfig memory c,
        Scoreboard.ServiceRecord memory record,
        Scoreboard.ServiceRecord memory previous
    ) internal view returns (Scoreboard.Entry memory) {
        return Scoreboard.Entry(c, record, previous, signature(key, board.recordDigest(record)));
    }

    function just(Scoreboard.Entry memory e) internal pure returns (Scoreboard.Entry[] memory all) {
        all = new Scoreboard.Entry[](1);
        all[0] = e;
    }

    function two(Scoreboard.Entry memory a, Scoreboard.Entry memory b)
        internal
        pure
        returns (Scoreboard.Entry[] memory all)
    {
        all = new Scoreboard.Entry[](2);
        (all[0], all[1]) = (a, b);
    }

    /// The provider's signature under a batch.
    function batchBy(uint256 key, Scoreboard.Entry[] memory entries) internal view returns (bytes memory) {
        Scoreboard.ServiceRecord[] memory records = new Scoreboard.ServiceRecord[](entries.length);
        for (uint256 i = 0; i < entries.length; ++i) {
            records[i] = entries[i].record;
        }
        return signature(key, board.batchDigest(records));
    }

    /// Posts what both sides signed.
    function post(
        Channels.ChannelConfig memory c,
        Scoreboard.ServiceRecord memory record,
        Scoreboard.ServiceRecord memory previous
    ) internal {
        Scoreboard.Entry[] memory entries = just(entry(c, record, previous));
        board.post(OWNER, entries, batchBy(OFFER_KEY, entries));
    }

    /// Posts what the payer alone says.
    function report(
        Channels.ChannelConfig memory c,
        Scoreboard.ServiceRecord memory record,
        Scoreboard.ServiceRecord memory previous
    ) internal {
        board.post(OWNER, just(entry(c, record, previous)), "");
    }

    function refuses(Scoreboard.Entry[] memory entries, bytes memory providerSignature, bytes memory why) internal {
        refusesFor(OWNER, entries, providerSignature, why);
    }

    /// Nothing is posted, for this reason and no other.
    function refusesFor(
        address provider,
        Scoreboard.Entry[] memory entries,
        bytes memory providerSignature,
        bytes memory why
    ) internal {
        (bool ok, bytes memory got) = address(board)
            .call(abi.encodeCall(board.post, (provider, entries, providerSignature)));
        yes(!ok, "refused");
        eq(keccak256(got), keccak256(why), "for this reason");
    }

    /// The same where both sides signed.
    function refusesBoth(Scoreboard.Entry[] memory entries, bytes memory why) internal {
        refuses(entries, batchBy(OFFER_KEY, entries), why);
    }

    function scoreOf(address provider) internal view returns (Scoreboard.Totals memory totals) {
        (totals,,) = board.scoreOf(provider);
    }

    /// A channel that has paid so much.
    function paid(uint256 salt, uint128 amount) internal returns (Channels.ChannelConfig memory c) {
        c = config(salt);
        open(c, amount);
        claim(c, amount);
    }
}
