// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";

import {Registry} from "../../src/Registry.sol";
import {DisputeGame, Receipt} from "../../src/dispute/DisputeGame.sol";
import {Statement} from "../../src/dispute/IReferee.sol";
import {Trees} from "../../src/dispute/Trees.sol";
import {Disputes, Trace} from "./GameBase.sol";
import {Toy, ToyReferee} from "./Toy.sol";

/// @title DisputeGame, move by move: what each does, and what each refuses.
contract DisputeGameTest is Disputes {
    // ---------------------------------------------------------------- whole games

    function test_the_fast_game_convicts_without_a_request() public {
        Receipt memory r = receiptOf(1);
        earn(5e6);
        Trace liar = lying(r, 3, 1, 4);
        uint256 before = dollar.balanceOf(payer);
        openAs(watcher, r);
        postAs(OWNER, r, watcher, liar);
        proveAs(watcher, r, liar.step(3, 1, 4));
        // The bond is back, with 30% of the stake.
        eq(dollar.balanceOf(watcher), 100e6 + STAKE * 30 / 100, "the challenger's");
        // The charge out of the vault, and 20% of the stake.
        eq(dollar.balanceOf(payer), before + r.chargedMicroUsd + STAKE * 20 / 100, "the payer's");
        eq(dollar.balanceOf(BURN), STAKE / 2, "burned");
        eq(registry.getProvider(OWNER).stake, 0, "no stake is left");
        yes(!registry.getProvider(OWNER).active, "not listed");
        eq(dollar.balanceOf(address(game)), 0, "nothing stays here");
        eq(registry.locksOf(OWNER), 0, "no lock stays");
        (,,, uint128 held,) = vault.status();
        eq(held, 0, "no hold stays");
    }

    function test_the_slow_game_convicts_wherever_the_lie_is() public {
        for (uint32 op = 0; op < 5; ++op) {
            Receipt memory r = receiptOf(100 + op);
            uint32 row = Toy.rows(r.statement, op) - 1;
            uint32 chunk = Toy.chunks(r.statement, op, row) / 2;
            Trace liar = lying(r, op, row, chunk);
            openAs(watcher, r);
            postAs(offerKey, r, watcher, liar);
            descend(watcher, r, liar, op, row, chunk);
            proveAs(watcher, r, liar.step(op, row, chunk));
            eq(game.roots(game.receiptDigest(r)), game.CONVICTED(), "convicted");
        }
    }

    function test_an_honest_provider_answers_every_question_and_gets_the_bond() public {
        earn(5e6);
        for (uint32 op = 0; op < 5; ++op) {
            Receipt memory r = receiptOf(200 + op);
            Trace truth = honest(r);
            bytes32 id = openAs(watcher, r);
            (,,, uint128 held,) = vault.status();
            eq(held, r.chargedMicroUsd, "held");
            postAs(offerKey, r, watcher, truth);
            uint32 row = Toy.rows(r.statement, op) / 2;
            descend(watcher, r, truth, op, row, 0);
            bytes memory step = truth.step(op, row, 0);
            vm.prank(watcher);
            vm.expectRevert(abi.encodeWithSelector(DisputeGame.StepHolds.selector, id));
            game.prove(r, step);
            wait(RESPONSE + EXTENSION + 1);
            game.timeout(r, watcher);
            eq(dollar.balanceOf(PAYOUT), BOND * (op + 1), "the bond is the provider's");
            (,,, held,) = vault.status();
            eq(held, 0, "freed");
        }
        eq(registry.getProvider(OWNER).stake, STAKE, "the stake is whole");
        eq(registry.locksOf(OWNER), 0, "no lock stays");
        eq(dollar.balanceOf(address(game)), 0, "nothing stays here");
    }

    function test_a_later_game_starts_below_the_root_that_was_posted() public {
        Receipt memory r = receiptOf(1);
        Trace liar = lying(r, 2, 1, 0);
        openAs(watcher, r);
        postAs(offerKey, r, watcher, liar);
        // The first challenger gives up; nothing is final by that.
        wait(RESPONSE + EXTENSION + 1);
        game.timeout(r, watcher);
        bytes32 id = openAs(second, r);
        eq(uint256(turnOf(id)), uint256(DisputeGame.Turn.Challenger), "the challenger's turn");
        descend(second, r, liar, 2, 1, 0);
        proveAs(second, r, liar.step(2, 1, 0));
        eq(dollar.balanceOf(second), 100e6 + STAKE * 30 / 100, "it won");
    }

    function test_every_shape_of_tree_folds_and_climbs_to_what_merkle_says() public {
        // One to seven rows an op, one to eleven chunks a row: every path is played.
        Receipt memory r = receiptOf(1);
        r.statement.nOutput = 12;
        Trace truth = honest(r);
        openAs(watcher, r);
        postAs(offerKey, r, watcher, truth);
        uint256 rounds = descend(watcher, r, truth, 11, Toy.rows(r.statement, 11) - 1, 0);
        yes(rounds >= 3, "rounds");
    }

    // ---------------------------------------------------------------- open

    function test_only_the_offer_key_of_its_time_makes_a_receipt() public {
        Receipt memory r = receiptOf(1);
        bytes32 digest = game.receiptDigest(r);
        bytes memory sig = signature(STRANGER_KEY, digest);
        refusesOpen(
            r, sig, SAMPLER, abi.encodeWithSelector(DisputeGame.NotOfferKey.selector, OWNER, stranger, r.servedAt)
        );
        // The malleable twin of a good signature.
        sig = malleable(signed(r));
        refusesOpen(r, sig, SAMPLER, abi.encodeWithSelector(ECDSA.ECDSAInvalidSignatureS.selector, word(sig, 32)));
        // A key that was retired before.
        wait(5);
        vm.prank(OWNER);
        registry.rotateOfferKey(address(0xBEEF));
        wait(5);
        Receipt memory late = receiptOf(2);
        sig = signed(late);
        refusesOpen(
            late, sig, SAMPLER, abi.encodeWithSelector(DisputeGame.NotOfferKey.selector, OWNER, offerKey, late.servedAt)
        );
        // What it signed while it was in use still counts.
        openAs(watcher, r);
    }

    function test_a_signature_is_for_one_receipt_registry_and_chain() public {
        Receipt memory r = receiptOf(1);
        bytes memory sig = signed(r);
        Receipt memory other = receiptOf(1);
        other.chargedMicroUsd += 1;
        refusesAnyOpen(other, sig, "another charge");
        other = receiptOf(1);
        other.statement.stopReason = 2;
        refusesAnyOpen(other, sig, "another reason");
        other = receiptOf(1);
        other.payer = stranger;
        refusesAnyOpen(other, sig, "another payer");
        DisputeGame elsewhere = new DisputeGame(
            dollar,
            channels,
            new ToyReferee(),
            MIN_STAKE,
            UNBONDING,
            WINDOW,
            DisputeGame.Rules({bond: BOND, responseTime: RESPONSE, extension: EXTENSION})
        );
        yes(elsewhere.receiptDigest(r) != game.receiptDigest(r), "another registry");
        bytes32 here = game.receiptDigest(r);
        vm.chainId(1);
        yes(game.receiptDigest(r) != here, "another chain");
    }

    function test_the_window_closes() public {
        Receipt memory r = receiptOf(1);
        bytes memory sig = signed(r);
        wait(WINDOW + 1);
        refusesOpen(r, sig, SAMPLER, abi.encodeWithSelector(DisputeGame.WindowClosed.selector, r.servedAt, WINDOW));
        vm.warp(r.servedAt + WINDOW);
        openAs(watcher, r);
    }

    function test_a_receipt_dated_ahead_can_be_doubted_at_once() public {
        Receipt memory r = receiptOf(1);
        r.servedAt = type(uint64).max;
        openAs(watcher, r);
    }

    function test_a_game_needs_the_sampler_a_token_and_a_bond() public {
        Receipt memory r = receiptOf(1);
        bytes memory sig = signed(r);
        bytes memory wrong = hex"01";
        refusesOpen(
            r,
            sig,
            wrong,
            abi.encodeWithSelector(DisputeGame.WrongSampler.selector, keccak256(SAMPLER), keccak256(wrong))
        );
        Receipt memory empty = receiptOf(2);
        empty.statement.nOutput = 0;
        refusesOpen(empty, signed(empty), SAMPLER, abi.encodeWithSelector(DisputeGame.NothingToTrace.selector));
        vm.prank(stranger);
        (bool ok,) = address(game).call(abi.encodeCall(game.open, (r, sig, SAMPLER)));
        yes(!ok, "no bond, no game");
        bytes32 id = openAs(watcher, r);
        refusesOpen(r, sig, SAMPLER, abi.encodeWithSelector(DisputeGame.GameExists.selector, id));
    }

    // ---------------------------------------------------------------- postTrace

    function test_only_the_provider_commits_itself() public {
        Receipt memory r = receiptOf(1);
        Trace trace = honest(r);
        bytes32 id = openAs(watcher, r);
        bytes32 root = trace.root();
        bytes32[] memory children = trace.childrenOf(trace.top());
        vm.prank(stranger);
        vm.expectRevert(abi.encodeWithSelector(DisputeGame.NotTheProvider.selector, OWNER, stranger));
        game.postTrace(r, watcher, root, children);
        vm.prank(OWNER);
        registry.rotateOfferKey(address(0xBEEF));
        wait(1);
        vm.prank(offerKey);
        vm.expectRevert(abi.encodeWithSelector(DisputeGame.NotTheProvider.selector, OWNER, offerKey));
        game.postTrace(r, watcher, root, children);
        vm.prank(address(0xBEEF));
        game.postTrace(r, watcher, root, children);
        vm.prank(OWNER);
        vm.expectRevert(abi.encodeWithSelector(DisputeGame.NotTheTurn.selector, id, DisputeGame.Turn.Challenger));
        game.postTrace(r, watcher, root, children);
    }

    function test_a_root_is_posted_with_its_own_children_and_no_others() public {
        Receipt memory r = receiptOf(1);
        Trace trace = honest(r);
        openAs(watcher, r);
        bytes32 root = trace.root();
        bytes32[] memory children = trace.childrenOf(trace.top());
        refusesPost(r, bytes32(uint256(1)), children, "another root");
        refusesPost(r, root, new bytes32[](0), "none");
        refusesPost(r, root, cut(children), "one fewer");
        // A tree of more ops than there are, bound to its own count, is no trace of this statement.
        Receipt memory longer = receiptOf(1);
        longer.statement.nOutput += 1;
        Trace other = honest(longer);
        bytes32[] memory more = other.childrenOf(other.top());
        refusesPost(r, other.root(), more, "another geometry");
        children[0] = bytes32(uint256(children[0]) ^ 1);
        refusesPost(r, root, children, "another child");
    }

    function test_a_provider_has_one_trace_a_receipt() public {
        Receipt memory r = receiptOf(1);
        openAs(watcher, r);
        openAs(second, r);
        Trace liar = lying(r, 2, 1, 0);
        Trace truth = honest(r);
        postAs(OWNER, r, watcher, liar);
        bytes32 root = truth.root();
        bytes32[] memory children = truth.childrenOf(truth.top());
        bytes32 posted = liar.root();
        vm.prank(OWNER);
        vm.expectRevert(abi.encodeWithSelector(DisputeGame.OtherRoot.selector, posted, root));
        game.postTrace(r, second, root, children);
        postAs(OWNER, r, second, liar);
    }

    // ---------------------------------------------------------------- request and reveal

    function test_a_request_names_a_child_that_was_revealed() public {
        Receipt memory r = receiptOf(1);
        Trace trace = honest(r);
        bytes32 id = openAs(watcher, r);
        postAs(OWNER, r, watcher, trace);
        bytes32[] memory children = trace.childrenOf(trace.top());
        bytes32[] memory path = siblingsIn(children, 1, 3);
        refusesRequest(watcher, r, 2, children[1], path, "another index");
        refusesRequest(watcher, r, 1, children[2], path, "another child");
        refusesRequest(watcher, r, 5, children[4], path, "past the end");
        refusesRequest(watcher, r, 9, children[1], path, "an alias");
        refusesRequest(watcher, r, 1, children[1], cut(path), "a sibling too few");
        refusesRequest(watcher, r, 1, children[1], pad(path), "a sibling too many");
        // An inner node is no child, and a padding word is none.
        bytes32 inner = Trees.node(children[0], children[1]);
        refusesRequest(watcher, r, 0, inner, cut(siblingsIn(children, 0, 3)), "an inner node");
        refusesRequest(watcher, r, 5, bytes32(0), siblingsIn(children, 5, 3), "a padding word");
        refusesRequest(stranger, r, 1, children[1], path, "a stranger");
        vm.prank(watcher);
        game.request(r, 1, children[1], path);
        vm.prank(watcher);
        vm.expectRevert(abi.encodeWithSelector(DisputeGame.NotTheTurn.selector, id, DisputeGame.Turn.Reveal));
        game.request(r, 1, children[1], path);
    }

    function test_a_reveal_lists_what_is_below_and_nothing_else() public {
        Receipt memory r = receiptOf(1);
        Trace trace = honest(r);
        bytes32 id = openAs(watcher, r);
        postAs(OWNER, r, watcher, trace);
        vm.expectRevert(abi.encodeWithSelector(DisputeGame.NotTheTurn.selector, id, DisputeGame.Turn.Challenger));
        game.reveal(id, new bytes32[](1));
        requestAs(watcher, r, trace, 0);
        DisputeGame.Game memory place = placeOf(id, trace);
        bytes32[] memory children = trace.childrenOf(place);
        refusesReveal(id, cut(children), "one fewer");
        refusesReveal(id, pad(children), "one more");
        refusesReveal(id, new bytes32[](0), "none");
        // The nodes one level higher fold to the same top; they are not what a reveal lists.
        refusesReveal(id, trace.levelOf(children, 1), "another height");
        vm.expectRevert(abi.encodeWithSelector(DisputeGame.WrongLength.selector, uint256(0), uint256(32)));
        game.revealData(id, abi.encode(children[0]));
        (children[0], children[1]) = (children[1], children[0]);
        refusesReveal(id, children, "another order");
        // Anybody may bring the right ones.
        vm.prank(stranger);
        game.reveal(id, trace.childrenOf(place));
    }

    function test_a_chunk_is_revealed_as_its_bytes() public {
        Receipt memory r = receiptOf(1);
        Trace trace = honest(r);
        bytes32 id = openAs(watcher, r);
        postAs(OWNER, r, watcher, trace);
        DisputeGame.Game memory place;
        while (true) {
            place = placeOf(id, trace);
            requestAs(watcher, r, trace, towards(place, 1, 1, 3));
            place = placeOf(id, trace);
            if (place.stage == 3) break;
            revealFrom(trace, id);
        }
        bytes memory data = trace.dataOf(1, 1, 3);
        vm.expectRevert(abi.encodeWithSelector(DisputeGame.WrongLength.selector, data.length, uint256(0)));
        game.reveal(id, new bytes32[](1));
        vm.expectRevert(abi.encodeWithSelector(DisputeGame.WrongLength.selector, data.length, data.length + 1));
        game.revealData(id, bytes.concat(data, hex"00"));
        bytes memory other = bytes.concat(data);
        other[0] ^= 0x80;
        (bool ok,) = address(game).call(abi.encodeCall(game.revealData, (id, other)));
        yes(!ok, "other bytes");
        game.revealData(id, data);
        // Nothing lies below: the challenger proves now, or loses.
        vm.prank(watcher);
        vm.expectRevert(abi.encodeWithSelector(DisputeGame.NothingBelow.selector, id));
        game.request(r, 0, bytes32(0), new bytes32[](0));
    }

    // ---------------------------------------------------------------- prove

    function test_a_step_counts_from_the_challenger_at_its_turn_only() public {
        Receipt memory r = receiptOf(1);
        Trace liar = lying(r, 3, 1, 4);
        bytes memory step = liar.step(3, 1, 4);
        bytes32 id = openAs(watcher, r);
        vm.prank(watcher);
        vm.expectRevert(abi.encodeWithSelector(DisputeGame.NotTheTurn.selector, id, DisputeGame.Turn.Trace));
        game.prove(r, step);
        postAs(OWNER, r, watcher, liar);
        // Who sees the step on its way cannot take it.
        bytes32 none = idOf(r, second);
        vm.prank(second);
        vm.expectRevert(abi.encodeWithSelector(DisputeGame.NoGame.selector, none));
        game.prove(r, step);
        requestAs(watcher, r, liar, 3);
        vm.prank(watcher);
        vm.expectRevert(abi.encodeWithSelector(DisputeGame.NotTheTurn.selector, id, DisputeGame.Turn.Reveal));
        game.prove(r, step);
        revealFrom(liar, id);
        // Openings of another trace do not verify.
        bytes memory foreign = lying(r, 2, 1, 0).step(2, 1, 0);
        vm.prank(watcher);
        vm.expectRevert(ToyReferee.Unproven.selector);
        game.prove(r, foreign);
        proveAs(watcher, r, step);
    }

    // ---------------------------------------------------------------- facts and equivocation

    function test_a_fact_convicts_with_a_game_and_without() public {
        earn(10e6);
        Receipt memory r = receiptOf(1);
        bytes memory sig = signed(r);
        vm.prank(stranger);
        vm.expectRevert(abi.encodeWithSelector(DisputeGame.FactHolds.selector, game.receiptDigest(r)));
        game.proveFact(r, sig, hex"00");
        vm.prank(stranger);
        vm.expectRevert(ToyReferee.Unproven.selector);
        game.proveFact(r, sig, hex"02");
        uint256 before = dollar.balanceOf(payer);
        vm.prank(stranger);
        game.proveFact(r, sig, hex"01");
        eq(dollar.balanceOf(stranger), STAKE * 30 / 100, "the reward");
        eq(dollar.balanceOf(payer), before + r.chargedMicroUsd + STAKE * 20 / 100, "the payer's");
        vm.prank(second);
        vm.expectRevert(abi.encodeWithSelector(DisputeGame.AlreadyConvicted.selector, game.receiptDigest(r)));
        game.proveFact(r, sig, hex"01");

        restake(STAKE);
        Receipt memory other = receiptOf(2);
        openAs(watcher, other);
        // In a game no signature is asked for, and the window does not close.
        wait(RESPONSE + EXTENSION + WINDOW);
        vm.prank(watcher);
        game.proveFact(other, "", hex"01");
        eq(dollar.balanceOf(watcher), 100e6 + STAKE * 30 / 100, "bond and reward");
        eq(dollar.balanceOf(address(game)), 0, "nothing stays here");
    }

    function test_facts_without_a_game_need_the_signature_and_the_window() public {
        Receipt memory r = receiptOf(1);
        bytes memory sig = signature(STRANGER_KEY, game.receiptDigest(r));
        vm.expectRevert(abi.encodeWithSelector(DisputeGame.NotOfferKey.selector, OWNER, stranger, r.servedAt));
        game.proveFact(r, sig, hex"01");
        sig = signed(r);
        wait(WINDOW + 1);
        vm.expectRevert(abi.encodeWithSelector(DisputeGame.WindowClosed.selector, r.servedAt, WINDOW));
        game.proveFact(r, sig, hex"01");
    }

    function test_two_receipts_for_one_request_convict() public {
        earn(20e6);
        Receipt memory one = receiptOf(1);
        Receipt memory other = receiptOf(1);
        other.statement.outputRoot = keccak256("another answer");
        other.chargedMicroUsd = 4e6;
        uint256 before = dollar.balanceOf(payer);
        (bytes32 first, bytes32 with_) = (game.receiptDigest(one), game.receiptDigest(other));
        (bytes memory a, bytes memory b) = (signed(one), signed(other));
        vm.expectEmit(true, true, false, true);
        emit DisputeGame.Contradicted(first, with_);
        vm.prank(stranger);
        game.equivocation(one, a, other, b);
        eq(game.roots(first), game.CONVICTED(), "the one");
        eq(game.roots(with_), game.CONVICTED(), "and the other");
        eq(dollar.balanceOf(payer), before + 7e6 + STAKE * 20 / 100, "both charges");
        eq(dollar.balanceOf(stranger), STAKE * 30 / 100, "the reward");
        restake(STAKE);
        refusesEquivocation(one, other, "twice");
        Receipt memory third = receiptOf(1);
        third.chargedMicroUsd = 5e6;
        refusesEquivocation(third, other, "one of them again");
        eq(registry.getProvider(OWNER).stake, STAKE, "the new stake is whole");
    }

    function test_what_is_no_equivocation() public {
        Receipt memory one = receiptOf(1);
        refusesEquivocation(one, receiptOf(1), "the same receipt");
        refusesEquivocation(one, receiptOf(2), "another request");
        Receipt memory other = receiptOf(1);
        other.payer = stranger;
        refusesEquivocation(one, other, "another payer");
        // What a provider answered before it lost its books and named a new offer key.
        other = receiptOf(1);
        other.channelId = bytes32(uint256(2));
        refusesEquivocation(one, other, "another channel");
        other = receiptOf(1);
        other.chargedMicroUsd = 0;
        refusesEquivocation(one, other, "a free one");
        other = receiptOf(1);
        other.tier = 2;
        bytes memory sig = signed(one);
        bytes memory forged = signature(STRANGER_KEY, game.receiptDigest(other));
        vm.expectRevert(abi.encodeWithSelector(DisputeGame.NotOfferKey.selector, OWNER, stranger, other.servedAt));
        game.equivocation(one, sig, other, forged);
        // An old key that leaked cannot be made to contradict what is signed today.
        other.servedAt -= uint64(WINDOW + 1);
        refusesEquivocation(one, other, "outside its window");
    }

    // ---------------------------------------------------------------- the ends

    function test_close_returns_the_bond_of_a_game_that_another_decided() public {
        earn(10e6);
        Receipt memory r = receiptOf(1);
        openAs(watcher, r);
        openAs(second, r);
        vm.expectRevert(abi.encodeWithSelector(DisputeGame.NotConvicted.selector, game.receiptDigest(r)));
        game.close(r, second);
        wait(RESPONSE + EXTENSION + 1);
        game.timeout(r, watcher);
        // Decided is decided: neither clock nor step moves the other game any more.
        vm.expectRevert(abi.encodeWithSelector(DisputeGame.AlreadyConvicted.selector, game.receiptDigest(r)));
        game.timeout(r, second);
        vm.prank(stranger);
        game.close(r, second);
        eq(dollar.balanceOf(second), 100e6, "the bond is back");
        (,,, uint128 held,) = vault.status();
        eq(held, 0, "no hold stays");
        eq(registry.locksOf(OWNER), 0, "no lock stays");
        bytes32 id = idOf(r, second);
        vm.expectRevert(abi.encodeWithSelector(DisputeGame.NoGame.selector, id));
        game.close(r, second);
        refusesOpen(
            r, signed(r), SAMPLER, abi.encodeWithSelector(DisputeGame.AlreadyConvicted.selector, game.receiptDigest(r))
        );
    }

    function test_a_hold_that_finds_nothing_blocks_nothing() public {
        Receipt memory r = receiptOf(1);
        uint256 before = dollar.balanceOf(payer);
        openAs(watcher, r);
        wait(RESPONSE + EXTENSION + 1);
        game.timeout(r, watcher);
        // The stake's part covers the charge.
        eq(dollar.balanceOf(payer), before + STAKE * 20 / 100, "the payer's");
        Receipt memory lost = receiptOf(2);
        openAs(watcher, lost);
        postAs(OWNER, lost, watcher, honest(lost));
        wait(RESPONSE + EXTENSION + 1);
        game.timeout(lost, watcher);
        eq(dollar.balanceOf(PAYOUT), BOND, "ended");
    }

    function test_the_payer_gets_its_charge_from_vault_and_stake_up_to_half_of_it() public {
        // 2 of 20 are in the vault; 18 are less than half of the stake and more than a fifth.
        earn(2e6);
        Receipt memory r = receiptOf(1);
        r.chargedMicroUsd = 20e6;
        uint256 before = dollar.balanceOf(payer);
        openAs(watcher, r);
        wait(RESPONSE + EXTENSION + 1);
        game.timeout(r, watcher);
        eq(dollar.balanceOf(payer), before + 20e6, "the charge");
        eq(dollar.balanceOf(BURN), STAKE - 18e6 - STAKE * 30 / 100, "the rest");
        restake(STAKE);
        r = receiptOf(2);
        r.chargedMicroUsd = 1000e6;
        before = dollar.balanceOf(payer);
        openAs(watcher, r);
        wait(RESPONSE + EXTENSION + 1);
        game.timeout(r, watcher);
        eq(dollar.balanceOf(payer), before + STAKE / 2, "half the stake at most");
    }

    function test_a_receipt_is_hashed_as_viem_does_it() public {
        string memory json = vm.readFile("../vectors/receipts.json");
        Receipt memory r;
        r.statement = Statement({
            modelId: vm.parseJsonBytes32(json, ".receipt.statement.modelId"),
            promptRoot: vm.parseJsonBytes32(json, ".receipt.statement.promptRoot"),
            nPrompt: uint32(vm.parseJsonUint(json, ".receipt.statement.nPrompt")),
            samplerHash: vm.parseJsonBytes32(json, ".receipt.statement.samplerHash"),
            outputRoot: vm.parseJsonBytes32(json, ".receipt.statement.outputRoot"),
            nOutput: uint32(vm.parseJsonUint(json, ".receipt.statement.nOutput")),
            stopReason: uint8(vm.parseJsonUint(json, ".receipt.statement.stopReason"))
        });
        r.provider = vm.parseJsonAddress(json, ".receipt.provider");
        r.payer = vm.parseJsonAddress(json, ".receipt.payer");
        r.channelId = vm.parseJsonBytes32(json, ".receipt.channelId");
        r.chargedMicroUsd = uint64(vm.parseJsonUint(json, ".receipt.chargedMicroUsd"));
        r.cumulative = uint64(vm.parseJsonUint(json, ".receipt.cumulative"));
        r.servedAt = uint64(vm.parseJsonUint(json, ".receipt.servedAt"));
        r.ttftMs = uint32(vm.parseJsonUint(json, ".receipt.ttftMs"));
        r.durationMs = uint32(vm.parseJsonUint(json, ".receipt.durationMs"));
        r.tier = uint8(vm.parseJsonUint(json, ".receipt.tier"));
        r.requestId = vm.parseJsonBytes32(json, ".receipt.requestId");
        address there = vm.parseJsonAddress(json, ".registry");
        uint256 chain = vm.parseJsonUint(json, ".chainId");
        eq(plainDigest(r, there, chain), vm.parseJsonBytes32(json, ".receiptDigest"), "as viem");
        vm.chainId(chain);
        eq(game.receiptDigest(r), plainDigest(r, address(registry), chain), "as the game");
    }

    // ---------------------------------------------------------------- words

    /// The digest as the type says, without the game's short cut.
    function plainDigest(Receipt memory r, address there, uint256 chain) private view returns (bytes32) {
        bytes32 statement = keccak256(abi.encode(game.STATEMENT_TYPEHASH(), r.statement));
        bytes32 body = keccak256(
            bytes.concat(
                abi.encode(game.RECEIPT_TYPEHASH(), statement, r.provider, r.payer, r.channelId, r.chargedMicroUsd),
                abi.encode(r.cumulative, r.servedAt, r.ttftMs, r.durationMs, r.tier, r.requestId)
            )
        );
        bytes32 domain = keccak256(
            abi.encode(
                keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"),
                keccak256("Assay"),
                keccak256("1"),
                chain,
                there
            )
        );
        return keccak256(abi.encodePacked(hex"1901", domain, body));
    }

    function refusesOpen(Receipt memory r, bytes memory sig, bytes memory sampler, bytes memory why) private {
        vm.prank(watcher);
        vm.expectRevert(why);
        game.open(r, sig, sampler);
    }

    function refusesAnyOpen(Receipt memory r, bytes memory sig, string memory what) private {
        vm.prank(watcher);
        (bool ok,) = address(game).call(abi.encodeCall(game.open, (r, sig, SAMPLER)));
        yes(!ok, what);
    }

    function refusesPost(Receipt memory r, bytes32 root, bytes32[] memory children, string memory what) private {
        vm.prank(OWNER);
        (bool ok,) = address(game).call(abi.encodeCall(game.postTrace, (r, watcher, root, children)));
        yes(!ok, what);
    }

    function refusesRequest(
        address who,
        Receipt memory r,
        uint32 index,
        bytes32 child,
        bytes32[] memory path,
        string memory what
    ) private {
        vm.prank(who);
        (bool ok,) = address(game).call(abi.encodeCall(game.request, (r, index, child, path)));
        yes(!ok, what);
    }

    function refusesReveal(bytes32 id, bytes32[] memory children, string memory what) private {
        (bool ok,) = address(game).call(abi.encodeCall(game.reveal, (id, children)));
        yes(!ok, what);
    }

    function refusesEquivocation(Receipt memory one, Receipt memory other, string memory what) private {
        (bytes memory a, bytes memory b) = (signed(one), signed(other));
        (bool ok,) = address(game).call(abi.encodeCall(game.equivocation, (one, a, other, b)));
        yes(!ok, what);
    }
}
