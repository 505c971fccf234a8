// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {DisputeGame, Receipt} from "../../src/dispute/DisputeGame.sol";
import {Disputes, Trace} from "./GameBase.sol";
import {Toy} from "./Toy.sol";

/// @title Random games between honest and dishonest players: whatever happens, who is honest and moves
///        in time loses nothing, every dollar has one owner, and every game ends.
/// @notice Two providers: one whose every trace is honest, one who lies in one chunk of each. Two
///         challengers: one who doubts only what is false, one who doubts anything. Honest players move
///         whenever time would pass; the others move at random, or not.
contract GameInvariants is Disputes {
    uint256 private constant LIAR_OFFER_KEY = 0x11A2;
    address private constant LIAR = address(0x11A1);
    address private constant LIAR_PAYOUT = address(0x11A3);
    address private constant FOOL = address(0xF001);
    uint256 private constant RECEIPTS_MOST = 24;
    uint256 private constant START = 1000e6;

    struct Doubt {
        Receipt receipt;
        Trace trace;
        bool isFalse;
        uint32[3] lie;
    }

    Doubt[] private _doubts;
    uint256 public games;
    uint256 public convictions;
    uint256 public rejections;

    function setUp() public override {
        super.setUp();
        dollar.mint(LIAR, 1000e6);
        vm.prank(LIAR);
        registry.register(vm.addr(LIAR_OFFER_KEY), LIAR_PAYOUT, "http://liar", new bytes32[](0));
        stakeLiar();
        dollar.mint(watcher, START - 100e6);
        dollar.mint(FOOL, START);
        vm.prank(FOOL);
        dollar.approve(address(game), type(uint256).max);
        earn(20e6);
    }

    /// Forge calls what is named here, at random.
    function targetSelectors() external view returns (FuzzSelector[] memory targets) {
        bytes4[] memory names = new bytes4[](8);
        names[0] = this.serve.selector;
        names[1] = this.doubt.selector;
        names[2] = this.post.selector;
        names[3] = this.ask.selector;
        names[4] = this.answer.selector;
        names[5] = this.accuse.selector;
        names[6] = this.passTime.selector;
        names[7] = this.tidy.selector;
        targets = new FuzzSelector[](1);
        targets[0] = FuzzSelector(address(this), names);
    }

    struct FuzzSelector {
        address addr;
        bytes4[] selectors;
    }

    function targetContracts() external view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(this);
    }

    // ---------------------------------------------------------------- what happens

    /// A provider serves an answer; the liar's is false somewhere.
    function serve(uint256 seed, bool lies) external {
        if (_doubts.length == RECEIPTS_MOST) return;
        Receipt memory r = receiptOf(_doubts.length + 1);
        r.statement.nPrompt = uint32(bound(seed, 1, 3));
        r.statement.nOutput = uint32(bound(seed >> 16, 1, 4));
        r.chargedMicroUsd = uint64(bound(seed >> 32, 1, 5e6));
        if (lies) r.provider = LIAR;
        uint32 op = uint32(bound(seed >> 48, 0, r.statement.nOutput - 1));
        uint32 row = uint32(bound(seed >> 64, 0, Toy.rows(r.statement, op) - 1));
        uint32 chunk = uint32(bound(seed >> 80, 0, Toy.chunks(r.statement, op, row) - 1));
        Trace trace = lies ? lying(r, op, row, chunk) : honest(r);
        Doubt storage d = _doubts.push();
        (d.receipt, d.trace, d.isFalse, d.lie) = (r, trace, lies, [op, row, chunk]);
    }

    /// The watcher doubts what is false, the fool anything.
    function doubt(uint256 which, bool foolish) external {
        if (_doubts.length == 0) return;
        Doubt storage d = _doubts[which % _doubts.length];
        address who = foolish ? FOOL : watcher;
        if (!foolish && !d.isFalse) return;
        Receipt memory r = d.receipt;
        bytes32 digest = game.receiptDigest(r);
        bytes memory sig = signature(d.isFalse ? LIAR_OFFER_KEY : OFFER_KEY, digest);
        bool may = game.roots(digest) != game.CONVICTED() && turnOf(idOf(r, who)) == DisputeGame.Turn.None
            && block.timestamp <= r.servedAt + WINDOW && dollar.balanceOf(who) >= BOND;
        vm.prank(who);
        (bool ok,) = address(game).call(abi.encodeCall(game.open, (r, sig, SAMPLER)));
        yes(ok == may, "who may doubt can");
        if (ok) ++games;
    }

    function post(uint256 which, bool foolish) external {
        if (_doubts.length == 0) return;
        _post(which % _doubts.length, foolish ? FOOL : watcher);
    }

    /// The fool asks for any child.
    function ask(uint256 which, uint256 index) external {
        if (_doubts.length == 0) return;
        Doubt storage d = _doubts[which % _doubts.length];
        bytes32 id = idOf(d.receipt, FOOL);
        if (turnOf(id) != DisputeGame.Turn.Challenger || decided(d) || late(id)) return;
        DisputeGame.Game memory place = placeOf(id, d.trace);
        if (place.stage == 3) return;
        uint256 children = d.trace.childrenOf(place).length;
        requestAs(FOOL, d.receipt, d.trace, uint32(index % children));
    }

    function answer(uint256 which, bool foolish) external {
        if (_doubts.length == 0) return;
        _answer(which % _doubts.length, foolish ? FOOL : watcher);
    }

    /// The fool accuses a chunk at random; where the trace is honest it must not stick.
    function accuse(uint256 which, uint256 seed) external {
        if (_doubts.length == 0) return;
        Doubt storage d = _doubts[which % _doubts.length];
        Receipt memory r = d.receipt;
        bytes32 id = idOf(r, FOOL);
        if (turnOf(id) != DisputeGame.Turn.Challenger || decided(d)) return;
        uint32 op = uint32(bound(seed, 0, r.statement.nOutput - 1));
        uint32 row = uint32(bound(seed >> 32, 0, Toy.rows(r.statement, op) - 1));
        uint32 chunk = uint32(bound(seed >> 64, 0, Toy.chunks(r.statement, op, row) - 1));
        bytes memory step = d.trace.step(op, row, chunk);
        vm.prank(FOOL);
        (bool ok,) = address(game).call(abi.encodeCall(game.prove, (r, step)));
        if (ok) {
            yes(d.isFalse, "nobody proves an honest trace false");
            ++convictions;
            stakeLiar();
        }
    }

    /// Honest players move before their time is over; then it passes.
    function passTime(uint256 seconds_) external {
        honestMoves();
        vm.warp(block.timestamp + bound(seconds_, 1, RESPONSE));
        vault.release();
        endLate();
    }

    function tidy(uint256 which, bool foolish) external {
        if (_doubts.length == 0) return;
        Doubt storage d = _doubts[which % _doubts.length];
        address who = foolish ? FOOL : watcher;
        bool may = decided(d) && turnOf(idOf(d.receipt, who)) != DisputeGame.Turn.None;
        (bool ok,) = address(game).call(abi.encodeCall(game.close, (d.receipt, who)));
        yes(ok == may, "a decided game closes, and no other");
    }

    // ---------------------------------------------------------------- what holds

    /// One function, for forge plays the games anew for each.
    /// forge-config: default.invariant.fail-on-revert = true
    function invariant_the_honest_lose_nothing_and_the_books_agree() public view {
        uint256 opened = open();
        eq(dollar.balanceOf(address(game)), BOND * opened, "the game holds the bonds of open games");
        eq(registry.locksOf(OWNER) + registry.locksOf(LIAR), opened, "and locks the stake for each");
        eq(registry.getProvider(OWNER).stake, STAKE, "an honest provider keeps its stake");
        eq(
            dollar.balanceOf(address(registry)),
            uint256(STAKE) + registry.getProvider(LIAR).stake,
            "the registry holds every stake"
        );
        uint256 bonds;
        for (uint256 i = 0; i < _doubts.length; ++i) {
            if (turnOf(idOf(_doubts[i].receipt, watcher)) != DisputeGame.Turn.None) bonds += BOND;
        }
        yes(dollar.balanceOf(watcher) + bonds >= START, "an honest challenger has what it came with");
    }

    /// The moves above are games, and not refusals all along.
    function test_random_moves_make_games_that_both_sides_win() public {
        for (uint256 i = 0; i < 400; ++i) {
            uint256 seed = uint256(keccak256(abi.encode(i)));
            (uint256 a, bool b) = (seed >> 8, seed & 8 == 0);
            uint256 kind = seed % 8;
            if (kind == 0) this.serve(a, b);
            else if (kind == 1) this.doubt(a, b);
            else if (kind == 2) this.post(a, b);
            else if (kind == 3) this.ask(a, a >> 64);
            else if (kind == 4) this.answer(a, b);
            else if (kind == 5) this.accuse(a, a >> 64);
            else if (kind == 6) this.passTime(a);
            else this.tidy(a, b);
        }
        invariant_the_honest_lose_nothing_and_the_books_agree();
        afterInvariant();
        yes(games > 15 && convictions > 5 && rejections > 2, "games, convictions and rejections");
    }

    /// When nobody moves any more, every game ends, and nothing is left in it.
    function afterInvariant() public {
        honestMoves();
        for (uint256 round = 0; round < 30 && open() > 0; ++round) {
            honestMoves();
            vm.warp(block.timestamp + RESPONSE);
            endLate();
            for (uint256 i = 0; i < _doubts.length; ++i) {
                for (uint256 j = 0; j < 2; ++j) {
                    address who = j == 0 ? watcher : FOOL;
                    if (decided(_doubts[i]) && turnOf(idOf(_doubts[i].receipt, who)) != DisputeGame.Turn.None) {
                        game.close(_doubts[i].receipt, who);
                    }
                }
            }
        }
        eq(open(), 0, "every game ended");
        eq(dollar.balanceOf(address(game)), 0, "no bond is left");
        eq(registry.locksOf(OWNER) + registry.locksOf(LIAR), 0, "no lock is left");
        (,,, uint128 held,) = vault.status();
        eq(held, 0, "no hold is left");
        yes(dollar.balanceOf(watcher) >= START, "the watcher lost nothing");
    }

    // ---------------------------------------------------------------- honest players

    function honestMoves() private {
        for (uint256 i = 0; i < _doubts.length; ++i) {
            Doubt storage d = _doubts[i];
            if (decided(d)) continue;
            if (!d.isFalse) {
                _post(i, FOOL);
                _answer(i, FOOL);
                continue;
            }
            watch(d);
        }
    }

    /// The watcher goes down to the lie, and proves it there; or at once, where it is served off-chain.
    function watch(Doubt storage d) private {
        bytes32 id = idOf(d.receipt, watcher);
        if (turnOf(id) != DisputeGame.Turn.Challenger) return;
        DisputeGame.Game memory place = placeOf(id, d.trace);
        bool served = uint256(id) % 4 == 0;
        if (place.stage == 3 || served) {
            proveAs(watcher, d.receipt, d.trace.step(d.lie[0], d.lie[1], d.lie[2]));
            ++convictions;
            stakeLiar();
        } else {
            requestAs(watcher, d.receipt, d.trace, towards(place, d.lie[0], d.lie[1], d.lie[2]));
        }
    }

    function _post(uint256 i, address challenger) private {
        Doubt storage d = _doubts[i];
        bytes32 id = idOf(d.receipt, challenger);
        if (turnOf(id) != DisputeGame.Turn.Trace || decided(d) || late(id)) return;
        postAs(d.receipt.provider, d.receipt, challenger, d.trace);
    }

    function _answer(uint256 i, address challenger) private {
        Doubt storage d = _doubts[i];
        bytes32 id = idOf(d.receipt, challenger);
        if (turnOf(id) != DisputeGame.Turn.Reveal || decided(d) || late(id)) return;
        revealFrom(d.trace, id);
    }

    /// Ends what is late, as anybody may; it must not be an honest player's.
    function endLate() private {
        for (uint256 i = 0; i < _doubts.length; ++i) {
            for (uint256 j = 0; j < 2; ++j) {
                Doubt storage d = _doubts[i];
                address who = j == 0 ? watcher : FOOL;
                bytes32 id = idOf(d.receipt, who);
                if (decided(d) || turnOf(id) == DisputeGame.Turn.None || !late(id)) continue;
                if (turnOf(id) == DisputeGame.Turn.Challenger) {
                    yes(who == FOOL, "an honest challenger is never late");
                    ++rejections;
                } else {
                    yes(d.isFalse, "an honest provider is never late");
                    ++convictions;
                }
                game.timeout(d.receipt, who);
                stakeLiar();
            }
        }
    }

    // ---------------------------------------------------------------- words

    function late(bytes32 id) private view returns (bool) {
        return block.timestamp > game.deadline(id);
    }

    function decided(Doubt storage d) private view returns (bool) {
        return game.roots(game.receiptDigest(d.receipt)) == game.CONVICTED();
    }

    function open() private view returns (uint256 count) {
        for (uint256 i = 0; i < _doubts.length; ++i) {
            if (turnOf(idOf(_doubts[i].receipt, watcher)) != DisputeGame.Turn.None) ++count;
            if (turnOf(idOf(_doubts[i].receipt, FOOL)) != DisputeGame.Turn.None) ++count;
        }
    }

    /// The liar stakes again, so that there is always something to lose.
    function stakeLiar() private {
        uint128 missing = STAKE - registry.getProvider(LIAR).stake;
        if (missing == 0) return;
        dollar.mint(LIAR, missing);
        vm.prank(LIAR);
        dollar.approve(address(registry), missing);
        vm.prank(LIAR);
        registry.stake(missing);
    }
}
