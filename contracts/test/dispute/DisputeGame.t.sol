// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Registry} from "../../src/Registry.sol";
import {DisputeGame, Receipt} from "../../src/dispute/DisputeGame.sol";
import {Nodes} from "../../src/dispute/Nodes.sol";
import {Disputes, Trace} from "./GameBase.sol";
import {Toy, ToyReferee} from "./Toy.sol";

/// @title DisputeGame, move by move: what each does, and what each refuses.
contract DisputeGameTest is Disputes {
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
}
