// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {PayoutVault} from "../src/PayoutVault.sol";
import {Registry} from "../src/Registry.sol";
import {Scoreboard} from "../src/Scoreboard.sol";
import {Town} from "./Town.sol";

/// @title What holds after any sequence of moves by anybody, over all contracts at once.
contract MoneyInvariants is Town {
    uint256 private _payer;
    uint256 private _owner;
    uint256 private _thieves;
    uint256 private _watcher;

    function setUp() public override {
        super.setUp();
        _payer = wealthOfPayer(payer, 0, 4);
        _owner = wealthOfProvider(OWNER, PAYOUT);
        _thieves = wealthOfThieves();
        _watcher = dollar.balanceOf(watcher);
    }

    struct FuzzSelector {
        address addr;
        bytes4[] selectors;
    }

    function targetContracts() external view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(this);
    }

    function targetSelectors() external view returns (FuzzSelector[] memory targets) {
        bytes4[] memory moves = new bytes4[](15);
        moves[0] = this.put.selector;
        moves[1] = this.spend.selector;
        moves[2] = this.back.selector;
        moves[3] = this.payout.selector;
        moves[4] = this.bond.selector;
        moves[5] = this.serve.selector;
        moves[6] = this.doubt.selector;
        moves[7] = this.convict.selector;
        moves[8] = this.contradict.selector;
        moves[9] = this.pass.selector;
        moves[10] = this.score.selector;
        moves[11] = this.steal.selector;
        moves[12] = this.replay.selector;
        moves[13] = this.dust.selector;
        moves[14] = this.flee.selector;
        targets = new FuzzSelector[](1);
        targets[0] = FuzzSelector(address(this), moves);
    }

    /// One function, for forge plays everything anew for each.
    /// forge-config: default.invariant.fail-on-revert = true
    function invariant_every_token_has_one_owner_and_nobody_gains_what_is_not_theirs() public view {
        everyTokenHasOnePlace();
        nobodyGains();
        claimsAreBounded();
        stakesOutliveWindows();
        jailAndListAgree();
        scoresAreTheFoldOfRecords(OWNER);
        scoresAreTheFoldOfRecords(LIAR);
    }

    // ---------------------------------------------------------------- what holds

    /// A balance, a stake, a bond, a pending payout, or burned; and each contract holds what it owes.
    function everyTokenHasOnePlace() private view {
        (uint256 games,) = openGames();
        uint256 inChannels = wealthOfPayer(payer, 0, 4) - dollar.balanceOf(payer) - game.owed(payer)
            + wealthOfPayer(thief, 4, 6) - dollar.balanceOf(thief) - game.owed(thief);
        eq(
            dollar.balanceOf(address(channels)),
            inChannels + unsettled(OWNER) + unsettled(LIAR) + donated[address(channels)],
            "channels"
        );
        eq(dollar.balanceOf(address(registry)), stakeOf(OWNER) + stakeOf(LIAR) + donated[address(registry)], "registry");
        eq(dollar.balanceOf(address(game)), games * BOND + donated[address(game)], "game");
        eq(registry.locksOf(OWNER) + registry.locksOf(LIAR), games, "one lock a game");
        vaultHoldsWhatItSays(vault);
        vaultHoldsWhatItSays(liarVault);
        (, uint256 thiefs) = openGames();
        uint256 given = donated[address(channels)] + donated[address(registry)] + donated[address(game)];
        uint256 all = wealthOfPayer(payer, 0, 4) + wealthOfProvider(OWNER, PAYOUT) + wealthOfThieves()
            + dollar.balanceOf(watcher) + (games - thiefs) * BOND + dollar.balanceOf(second)
            + dollar.balanceOf(stranger) + dollar.balanceOf(BURN) + given;
        eq(all, dollar.totalSupply(), "every token");
    }

    function vaultHoldsWhatItSays(PayoutVault v) private view {
        (, uint128 waiting, uint128 releasable, uint128 held,) = v.status();
        eq(uint256(waiting) + releasable + held, dollar.balanceOf(address(v)), "vault");
    }

    function nobodyGains() private view {
        uint256 paid = claimed(laneOf(0)) + claimed(laneOf(1)) + claimed(laneOf(2)) + claimed(laneOf(3));
        uint256 toLiar = claimed(laneOf(2)) + claimed(laneOf(3));
        eq(wealthOfPayer(payer, 0, 4) + paid, _payer + awarded, "the payer has all but what it paid");
        eq(
            wealthOfProvider(OWNER, PAYOUT),
            _owner + claimedBy(OWNER) + bondsWon + donated[address(vault)],
            "the provider has what it earned"
        );
        (uint256 games, uint256 thiefs) = openGames();
        yes(dollar.balanceOf(watcher) + (games - thiefs) * BOND >= _watcher, "the watcher loses nothing");
        yes(wealthOfThieves() <= _thieves + toLiar, "thieves have no more than they came with and were paid");
        eq(slashed[OWNER], 0, "an honest stake is whole");
    }

    function claimsAreBounded() private view {
        for (uint256 i = 0; i < LANES; ++i) {
            uint256 taken = claimed(laneOf(i));
            yes(taken <= signedFor[i], "claimed <= signed");
            yes(taken <= deposited[i] && balance(laneOf(i)) <= deposited[i], "claimed <= deposited");
        }
    }

    /// What stood behind an answer when it was served still stands, or was slashed, until nobody may
    /// doubt it any more.
    function stakesOutliveWindows() private view {
        for (uint256 i = 0; i < served.length; ++i) {
            address provider = served[i].receipt.provider;
            if (block.timestamp > served[i].receipt.servedAt + WINDOW) continue;
            uint256 taken = slashed[provider] - served[i].slashed;
            yes(stakeOf(provider) + taken >= served[i].staked, "unbonding outran a window");
        }
    }

    function jailAndListAgree() private view {
        uint256 listed;
        address[2] memory all = [OWNER, LIAR];
        for (uint256 i = 0; i < 2; ++i) {
            Registry.Provider memory p = registry.getProvider(all[i]);
            bool jailed = registry.jailedUntil(all[i]) != 0;
            yes(p.active == (p.stake >= MIN_STAKE && !jailed), "listed by stake and out of jail");
            yes(!jailed || registry.convictionsOf(all[i]) > 0, "nobody is jailed unconvicted");
            if (p.active) ++listed;
        }
        eq(registry.activeCount(), listed, "count");
        eq(registry.activePage(0, 10).length, listed, "page");
        eq(registry.convictionsOf(OWNER), 0, "the honest are never convicted");
        eq(registry.convictionsOf(LIAR), done["fact"] + done["contradiction"] + done["timeout"], "each counted once");
    }

    function scoresAreTheFoldOfRecords(address provider) private view {
        Scoreboard.Totals memory sum;
        for (uint256 i = 0; i < LANES; ++i) {
            if (providerOf(i) != provider) continue;
            Scoreboard.ServiceRecord memory r = posted[i];
            sum.revenue += r.revenue;
            sum.promptTokens += r.promptTokens;
            sum.outputTokens += r.outputTokens;
            sum.requests += r.requests;
            uint256 asked = uint256(r.requests) + r.failures;
            if (asked > 0) sum.weightedFailures += uint128(uint256(r.revenue) * r.failures / asked);
            // Too few to fill a class, so the words add up.
            sum.ttft += r.ttft;
            sum.speed += r.speed;
        }
        (sum.failures, sum.reported, sum.records) =
        (signedFailures[provider], reportedFailures[provider], records[provider]);
        (Scoreboard.Totals memory totals,,) = board.scoreOf(provider);
        eq(keccak256(abi.encode(totals)), keccak256(abi.encode(sum)), "the fold");
        yes(totals.revenue <= claimedBy(provider), "no more revenue than was claimed");
    }

    // ---------------------------------------------------------------- and that something happens

    /// The moves above are moves, and not refusals all along.
    function test_random_moves_do_everything_there_is_to_do() public {
        for (uint256 i = 0; i < 900; ++i) {
            uint256 s = uint256(keccak256(abi.encode(i)));
            (uint256 a, uint256 b, bool x, bool y) = (s >> 16, s >> 80, s & 256 == 0, s & 512 == 0);
            uint256 kind = s % 15;
            if (kind == 0) this.put(a, b);
            else if (kind == 1) this.spend(a, b, b >> 32, x);
            else if (kind == 2) this.back(a, b, uint128(s));
            else if (kind == 3) this.payout(x, a);
            else if (kind == 4) this.bond(x, a, b);
            else if (kind == 5) this.serve(a, x, y);
            else if (kind == 6) this.doubt(a, x);
            else if (kind == 7 && i % 3 == 0) this.convict(a, x);
            else if (kind == 8 && i % 3 == 0) this.contradict(a, x);
            else if (kind == 9) this.pass(a);
            else if (kind == 10) this.score(a, b, x, y && i % 5 == 0);
            else if (kind == 11) this.steal(a, b, uint128(s), abi.encode(s));
            else if (kind == 12) this.replay();
            else if (kind == 13) this.dust(a, b);
            else if (kind == 14 && i % 3 == 0) this.flee(x, a);
            stakesOutliveWindows();
            if (i % 20 == 0) invariant_every_token_has_one_owner_and_nobody_gains_what_is_not_theirs();
        }
        invariant_every_token_has_one_owner_and_nobody_gains_what_is_not_theirs();
        string[15] memory moves = [
            "relayed",
            "refund",
            "signed refund",
            "withdrawal",
            "release",
            "unbonded",
            "freed",
            "doubt",
            "fact",
            "contradiction",
            "rejection",
            "timeout",
            "score",
            "report",
            "thwarted"
        ];
        for (uint256 i = 0; i < moves.length; ++i) {
            yes(done[moves[i]] > 0, moves[i]);
        }
    }
}
