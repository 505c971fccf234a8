// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IERC721Errors} from "@openzeppelin/contracts/interfaces/draft-IERC6093.sol";

import {Channels} from "../src/Channels.sol";
import {ReputationAdapter} from "../src/ReputationAdapter.sol";
import {Scoreboard} from "../src/Scoreboard.sol";
import {IIdentityRegistry} from "../src/interfaces/IIdentityRegistry.sol";
import {Agents, Feedbacks} from "./Erc8004.sol";
import {Scores} from "./Scores.sol";

/// @title ReputationAdapter: whose agent, when, and which figures.
contract ReputationAdapterTest is Scores {
    uint64 private constant PERIOD = 1 days;

    event Linked(address indexed provider, uint256 indexed agentId);
    event Published(address indexed provider, uint256 indexed agentId, uint64 records);

    Agents private agents;
    Feedbacks private feedbacks;
    ReputationAdapter private adapter;
    uint256 private agent;

    function setUp() public override {
        super.setUp();
        agents = new Agents();
        feedbacks = new Feedbacks(agents);
        adapter = new ReputationAdapter(board, IIdentityRegistry(address(agents)), feedbacks, PERIOD);
        vm.prank(OWNER);
        agent = agents.register();
    }

    function linkAs(address who, uint256 agentId) private {
        vm.prank(who);
        adapter.link(agentId);
    }

    function told(uint256 i, string memory tag, int128 value, uint8 decimals) private view {
        Feedbacks.Feedback memory f = feedbacks.at_(agent, i);
        eq(f.client, address(adapter), "client");
        eq(keccak256(bytes(f.tag1)), keccak256(bytes(tag)), tag);
        eq(uint256(int256(f.value)), uint256(int256(value)), tag);
        eq(f.decimals, decimals, tag);
        eq(bytes(f.rest).length, 0, "and no other words");
    }

    function test_a_score_becomes_feedback_in_three_figures() public {
        eq(agent, 0, "the first agent has number 0, which must not pass for none");
        Channels.ChannelConfig memory c = paid(1, 30e6);
        Scoreboard.ServiceRecord memory r = answers(c, 29, 1, 1e6);
        r.ttft = counts([uint32(0), 14, 0, 15, 0, 0, 0, 0]);
        post(c, r, none());
        vm.expectEmit(true, true, false, true);
        emit Linked(OWNER, agent);
        linkAs(OWNER, agent);
        vm.expectEmit(true, true, false, true);
        emit Published(OWNER, agent, 1);
        vm.prank(stranger);
        adapter.publish(OWNER);
        eq(feedbacks.count(agent), 3, "three");
        told(0, "uptime", 9666, 2);
        // 29 dollars less what one failure in thirty spoiled of them, rounded down on the way.
        told(1, "successRate", 9666, 2);
        told(2, "responseTime", 1000, 0);
    }

    function test_uptime_is_what_both_signed_for_and_success_is_weighed_by_payment() public {
        Channels.ChannelConfig memory rich = paid(1, 90e6);
        Channels.ChannelConfig memory poor = config(2);
        post(rich, answers(rich, 90, 0, 1e6), none());
        Scoreboard.ServiceRecord memory r;
        (r.channelId, r.failures) = (channels.getChannelId(poor), type(uint32).max);
        report(poor, r, none());
        linkAs(OWNER, agent);
        adapter.publish(OWNER);
        told(0, "uptime", 10_000, 2);
        told(1, "successRate", 10_000, 2);
    }

    function test_what_is_not_known_is_not_told() public {
        Channels.ChannelConfig memory c = config(1);
        linkAs(OWNER, agent);
        // Free answers: no success that was paid for.
        post(c, answers(c, 3, 1, 0), none());
        adapter.publish(OWNER);
        eq(feedbacks.count(agent), 2, "two figures");
        told(0, "uptime", 7500, 2);
        told(1, "responseTime", 250, 0);
    }

    function test_a_provider_that_answered_nothing_has_no_time_and_one_that_nobody_asked_no_uptime() public {
        Channels.ChannelConfig memory c = config(1);
        Scoreboard.ServiceRecord memory said;
        (said.channelId, said.failures) = (channels.getChannelId(c), 5);
        report(c, said, none());
        linkAs(OWNER, agent);
        adapter.publish(OWNER);
        eq(feedbacks.count(agent), 0, "a payer's word alone is no figure");
        vm.warp(block.timestamp + PERIOD);
        Scoreboard.ServiceRecord memory signed;
        (signed.channelId, signed.failures) = (said.channelId, 6);
        post(c, signed, said);
        adapter.publish(OWNER);
        eq(feedbacks.count(agent), 1, "one figure");
        told(0, "uptime", 0, 2);
    }

    function test_every_class_of_times_has_its_upper_end() public {
        uint16[8] memory below = [100, 250, 500, 1000, 2000, 4000, 8000, 16_000];
        Channels.ChannelConfig memory c = config(1);
        linkAs(OWNER, agent);
        Scoreboard.ServiceRecord memory last;
        for (uint256 i = 0; i < 8; ++i) {
            Scoreboard.ServiceRecord memory next = answers(c, uint32(3 ** (i + 1) - 1) / 2, 0, 0);
            // More than all before it together.
            next.ttft = last.ttft + (uint256(3 ** i) << (32 * i));
            next.speed = 0;
            post(c, next, last);
            last = next;
            adapter.publish(OWNER);
            told(2 * i + 1, "responseTime", int128(uint128(below[i])), 0);
            vm.warp(block.timestamp + PERIOD);
        }
        eq(adapter.SLOWEST_MS(), 16_000, "the last has none of its own");
    }

    function test_publishing_is_once_a_period_and_only_of_something_new() public {
        Channels.ChannelConfig memory c = paid(1, 30e6);
        (Scoreboard.ServiceRecord memory a, Scoreboard.ServiceRecord memory b) =
            (answers(c, 10, 0, 1e6), answers(c, 20, 0, 1e6));
        linkAs(OWNER, agent);
        vm.expectRevert(abi.encodeWithSelector(ReputationAdapter.NothingNew.selector, OWNER));
        adapter.publish(OWNER);
        post(c, a, none());
        adapter.publish(OWNER);
        uint256 readyAt = block.timestamp + PERIOD;
        post(c, b, a);
        vm.warp(readyAt - 1);
        vm.expectRevert(abi.encodeWithSelector(ReputationAdapter.TooEarly.selector, OWNER, readyAt));
        adapter.publish(OWNER);
        vm.warp(readyAt);
        adapter.publish(OWNER);
        vm.warp(readyAt + PERIOD);
        vm.expectRevert(abi.encodeWithSelector(ReputationAdapter.NothingNew.selector, OWNER));
        adapter.publish(OWNER);
        eq(feedbacks.count(agent), 6, "twice three");
    }

    function test_nobody_links_an_agent_that_is_not_its_own() public {
        vm.prank(stranger);
        vm.expectRevert(abi.encodeWithSelector(ReputationAdapter.NotTheOwner.selector, agent, OWNER, stranger));
        adapter.link(agent);
        vm.prank(OWNER);
        agents.setApprovalForAll(stranger, true);
        vm.prank(stranger);
        vm.expectRevert(abi.encodeWithSelector(ReputationAdapter.NotTheOwner.selector, agent, OWNER, stranger));
        adapter.link(agent);
        vm.prank(OWNER);
        vm.expectRevert(abi.encodeWithSelector(IERC721Errors.ERC721NonexistentToken.selector, uint256(77)));
        adapter.link(77);
        vm.expectRevert(abi.encodeWithSelector(ReputationAdapter.NotLinked.selector, OWNER));
        adapter.publish(OWNER);
    }

    function test_an_agent_that_was_sold_is_told_nothing_more_about() public {
        Channels.ChannelConfig memory c = paid(1, 30e6);
        post(c, answers(c, 10, 0, 1e6), none());
        linkAs(OWNER, agent);
        vm.prank(OWNER);
        agents.transferFrom(OWNER, stranger, agent);
        vm.expectRevert(abi.encodeWithSelector(ReputationAdapter.NotTheOwner.selector, agent, stranger, OWNER));
        adapter.publish(OWNER);
    }

    function test_another_agent_gets_the_whole_score_and_no_earlier() public {
        Channels.ChannelConfig memory c = paid(1, 30e6);
        post(c, answers(c, 10, 10, 1e6), none());
        linkAs(OWNER, agent);
        adapter.publish(OWNER);
        vm.prank(OWNER);
        agent = agents.register();
        linkAs(OWNER, agent);
        vm.expectRevert(abi.encodeWithSelector(ReputationAdapter.TooEarly.selector, OWNER, block.timestamp + PERIOD));
        adapter.publish(OWNER);
        vm.warp(block.timestamp + PERIOD);
        adapter.publish(OWNER);
        told(0, "uptime", 5000, 2);
    }

    function test_an_owner_that_makes_the_adapter_its_operator_has_no_feedback_from_it() public {
        Channels.ChannelConfig memory c = paid(1, 30e6);
        post(c, answers(c, 10, 0, 1e6), none());
        linkAs(OWNER, agent);
        vm.prank(OWNER);
        agents.approve(address(adapter), agent);
        vm.expectRevert(Feedbacks.SelfFeedback.selector);
        adapter.publish(OWNER);
        vm.prank(OWNER);
        agents.approve(address(0), agent);
        // What was refused was not counted as published.
        adapter.publish(OWNER);
        eq(feedbacks.count(agent), 3, "three");
    }

    function test_the_two_registries_must_belong_together() public {
        Agents others = new Agents();
        vm.expectRevert(
            abi.encodeWithSelector(ReputationAdapter.OtherIdentityRegistry.selector, address(others), address(agents))
        );
        new ReputationAdapter(board, IIdentityRegistry(address(others)), feedbacks, PERIOD);
    }
}
