// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Channels} from "../src/Channels.sol";
import {PayoutVault} from "../src/PayoutVault.sol";
import {Registry} from "../src/Registry.sol";
import {Scoreboard} from "../src/Scoreboard.sol";
import {DisputeGame, Receipt} from "../src/dispute/DisputeGame.sol";
import {Disputes, Trace} from "./dispute/GameBase.sol";

/// @title The whole market at once: an honest payer, an honest provider and an honest watcher, and a
///        provider and a payer who are one thief. What each may have is kept here a second time, from
///        what was signed and granted alone.
/// @notice Every move is tried and may fail, but for the assertions: those revert the test.
abstract contract Town is Disputes {
    uint256 internal constant THIEF_KEY = 0x7417EF;
    uint256 internal constant LIAR_OFFER_KEY = 0x11A2;
    address internal constant LIAR = address(0x11A1);
    address internal constant LIAR_PAYOUT = address(0x11A3);
    uint256 internal constant LANES = 6;
    uint256 internal constant SERVED_MOST = 8;
    address internal thief = vm.addr(THIEF_KEY);
    PayoutVault internal liarVault;
    Scoreboard internal board;

    struct Served {
        Receipt receipt;
        Trace trace;
        /// The provider's bonded stake at that time, and all that was slashed of it before.
        uint256 staked;
        uint256 slashed;
    }

    Served[] internal served;
    mapping(address provider => uint256) internal slashed;
    mapping(uint256 lane => uint256) internal signedFor;
    mapping(uint256 lane => uint256) internal deposited;
    mapping(address account => uint256) internal donated;
    Scoreboard.ServiceRecord[6] internal posted;
    mapping(address provider => uint64) internal signedFailures;
    mapping(address provider => uint64) internal reportedFailures;
    mapping(address provider => uint64) internal records;
    /// What disputes gave the payer, and lost bonds the honest provider.
    uint256 internal awarded;
    uint256 internal bondsWon;
    /// For each kind of move, how often it succeeded.
    mapping(string move => uint256) internal done;
    uint256 internal nonces;
    bytes internal lastClaim;
    bytes internal lastRefund;
    bytes internal lastDeposit;
    bytes internal lastPost;

    function setUp() public virtual override {
        super.setUp();
        board = new Scoreboard(registry);
        dollar.mint(LIAR, 1000e6);
        dollar.mint(thief, 1000e6);
        vm.prank(LIAR);
        registry.register(vm.addr(LIAR_OFFER_KEY), LIAR_PAYOUT, "http://liar", new bytes32[](0));
        liarVault = PayoutVault(registry.vaultOf(LIAR));
        vm.prank(LIAR);
        dollar.approve(address(registry), type(uint256).max);
        vm.prank(OWNER);
        dollar.approve(address(registry), type(uint256).max);
        vm.prank(thief);
        dollar.approve(address(game), type(uint256).max);
        vm.prank(LIAR);
        registry.stake(STAKE);
    }

    // ---------------------------------------------------------------- who is who

    /// Lanes 0 and 1 are the payer's to the honest provider, 2 and 3 to the liar, 4 and 5 the thief's.
    function laneOf(uint256 i) internal view returns (Channels.ChannelConfig memory c) {
        c = config(i);
        if (i >= 4) c.payer = thief;
        if (providerOf(i) == LIAR) {
            c.receiver = address(liarVault);
            c.receiverAuthorizer = vm.addr(LIAR_OFFER_KEY);
        }
    }

    function providerOf(uint256 lane) internal pure returns (address) {
        return lane == 2 || lane == 3 || lane == 5 ? LIAR : OWNER;
    }

    function payerKeyOf(uint256 lane) internal pure returns (uint256) {
        return lane < 4 ? PAYER_KEY : THIEF_KEY;
    }

    function offerKeyOf(address provider) internal pure returns (uint256) {
        return provider == LIAR ? LIAR_OFFER_KEY : OFFER_KEY;
    }

    function vaultFor(address provider) internal view returns (PayoutVault) {
        return provider == LIAR ? liarVault : vault;
    }

    function stakeOf(address provider) internal view returns (uint256) {
        Registry.Provider memory p = registry.getProvider(provider);
        return uint256(p.stake) + p.unbonding;
    }

    function unsettled(address provider) internal view returns (uint256) {
        (uint128 total, uint128 settled) = channels.receivers(registry.vaultOf(provider), address(dollar));
        return total - settled;
    }

    function claimedBy(address provider) internal view returns (uint256 all) {
        for (uint256 i = 0; i < LANES; ++i) {
            if (providerOf(i) == provider) all += claimed(laneOf(i));
        }
    }

    function openGames() internal view returns (uint256 all, uint256 thiefs) {
        for (uint256 i = 0; i < served.length; ++i) {
            if (turnOf(idOf(served[i].receipt, watcher)) != DisputeGame.Turn.None) ++all;
            if (turnOf(idOf(served[i].receipt, thief)) != DisputeGame.Turn.None) (++all, ++thiefs);
        }
    }

    function wealthOfProvider(address provider, address payout) internal view returns (uint256) {
        return dollar.balanceOf(provider) + dollar.balanceOf(payout) + stakeOf(provider)
            + dollar.balanceOf(registry.vaultOf(provider)) + unsettled(provider) + game.owed(provider)
            + game.owed(payout);
    }

    function wealthOfPayer(address who, uint256 from, uint256 to) internal view returns (uint256 all) {
        all = dollar.balanceOf(who) + game.owed(who);
        for (uint256 i = from; i < to; ++i) {
            all += balance(laneOf(i)) - claimed(laneOf(i));
        }
    }

    /// The coalition: a provider that lies, and a payer and challenger that is its friend.
    function wealthOfThieves() internal view returns (uint256) {
        (, uint256 bonds) = openGames();
        return wealthOfProvider(LIAR, LIAR_PAYOUT) + wealthOfPayer(thief, 4, 6) + bonds * BOND;
    }

    function attempt(address who, address at, bytes memory call) internal returns (bool ok) {
        vm.prank(who);
        (ok,) = at.call(call);
    }

    function count(string memory move, bool ok) internal returns (bool) {
        if (ok) ++done[move];
        return ok;
    }

    // ---------------------------------------------------------------- channels

    function put(uint256 lane, uint256 seed) external {
        lane %= LANES;
        Channels.ChannelConfig memory c = laneOf(lane);
        uint256 left = dollar.balanceOf(c.payer);
        if (left == 0) return;
        uint128 amount = uint128(bound(seed, 1, left < 200e6 ? left : 200e6));
        bytes32 nonce = keccak256(abi.encode(channels.getChannelId(c), ++nonces));
        bytes memory sig =
            authorization(payerKeyOf(lane), c.payer, address(collector), amount, 0, type(uint64).max, nonce);
        bytes memory data = abi.encode(uint256(0), uint256(type(uint64).max), nonces, sig);
        lastDeposit = abi.encodeCall(channels.deposit, (c, amount, address(collector), data));
        yes(attempt(thief, address(channels), lastDeposit), "anybody submits a deposit");
        deposited[lane] += amount;
    }

    /// The payer signs, its provider takes no more of it than both allow.
    function spend(uint256 lane, uint256 most, uint256 total, bool relayed) external {
        lane %= LANES;
        Channels.ChannelConfig memory c = laneOf(lane);
        most = bound(most, 0, uint256(balance(c)) + 10);
        total = bound(total, 0, most + 10);
        if (most > signedFor[lane]) signedFor[lane] = most;
        Channels.VoucherClaim[] memory all = one(voucherBy(payerKeyOf(lane), c, uint128(most), uint128(total)));
        if (relayed) {
            bytes memory sig = signature(offerKeyOf(providerOf(lane)), channels.getClaimBatchDigest(all));
            bytes memory call = abi.encodeCall(channels.claimWithSignature, (all, sig));
            if (count("relayed", attempt(thief, address(channels), call))) lastClaim = call;
        } else {
            attempt(c.receiverAuthorizer, address(channels), abi.encodeCall(channels.claim, (all)));
        }
    }

    function back(uint256 lane, uint256 way, uint128 amount) external {
        lane %= LANES;
        Channels.ChannelConfig memory c = laneOf(lane);
        bytes32 id = channels.getChannelId(c);
        amount = uint128(bound(amount, 0, uint256(balance(c) - claimed(c)) + 5));
        way %= 4;
        if (way == 0) {
            count(
                "refund", attempt(c.receiverAuthorizer, address(channels), abi.encodeCall(channels.refund, (c, amount)))
            );
        } else if (way == 1) {
            uint256 nonce = channels.refundNonce(id);
            bytes memory sig = signature(offerKeyOf(providerOf(lane)), channels.getRefundDigest(id, nonce, amount));
            bytes memory call = abi.encodeCall(channels.refundWithSignature, (c, amount, nonce, sig));
            if (count("signed refund", attempt(thief, address(channels), call))) lastRefund = call;
        } else if (way == 2) {
            attempt(c.payer, address(channels), abi.encodeCall(channels.initiateWithdraw, (c, amount)));
        } else {
            count("withdrawal", attempt(c.payer, address(channels), abi.encodeCall(channels.finalizeWithdraw, (c))));
        }
    }

    function payout(bool liars, uint256 way) external {
        PayoutVault v = vaultFor(liars ? LIAR : OWNER);
        if (way % 3 == 0) v.collect();
        else if (way % 3 == 1) v.sync();
        else if (v.release() > 0) count("release", true);
    }

    // ---------------------------------------------------------------- stake and jail

    function bond(bool liars, uint256 way, uint256 amount) external {
        address who = liars ? LIAR : OWNER;
        uint128 some = uint128(bound(amount, 1, 60e6));
        way %= 4;
        if (way == 0) {
            attempt(who, address(registry), abi.encodeCall(registry.stake, (some)));
        } else if (way == 1) {
            attempt(who, address(registry), abi.encodeCall(registry.unbond, (some)));
        } else if (way == 2) {
            count("unbonded", attempt(who, address(registry), abi.encodeCall(registry.withdrawStake, ())));
        } else {
            count("freed", attempt(who, address(registry), abi.encodeCall(registry.release, ())));
        }
    }

    /// Serves, asks for all of its stake at once, and tries to be gone before anybody doubts.
    function flee(bool liars, uint256 seed) external {
        address who = liars ? LIAR : OWNER;
        uint128 all = registry.getProvider(who).stake;
        if (all == 0) return;
        this.serve(seed, liars, false);
        attempt(who, address(registry), abi.encodeCall(registry.unbond, (all)));
        this.pass(seed);
        attempt(who, address(registry), abi.encodeCall(registry.withdrawStake, ()));
    }

    // ---------------------------------------------------------------- service and disputes

    /// The liar serves nothing that is true, and writes any payer and charge into it.
    function serve(uint256 seed, bool liars, bool friend) external {
        Receipt memory r = receiptOf(++nonces);
        (r.statement.nPrompt, r.statement.nOutput) = (1, 1);
        r.chargedMicroUsd = uint64(bound(seed, 1, 60e6));
        if (liars) r.provider = LIAR;
        if (liars && friend) r.payer = thief;
        bool fresh = served.length < SERVED_MOST;
        if (fresh) served.push();
        Served storage s = served[fresh ? served.length - 1 : seed % SERVED_MOST];
        // In the place of another that nobody plays about.
        if (!fresh) {
            if (turnOf(idOf(s.receipt, watcher)) != DisputeGame.Turn.None) return;
            if (turnOf(idOf(s.receipt, thief)) != DisputeGame.Turn.None) return;
        }
        s.receipt = r;
        s.trace = liars ? lying(r, 0, 0, 0) : honest(r);
        (s.staked, s.slashed) = (registry.getProvider(r.provider).stake, slashed[r.provider]);
    }

    /// The watcher doubts the liar, the thief anybody.
    function doubt(uint256 which, bool byThief) external {
        if (served.length == 0) return;
        Receipt memory r = served[which % served.length].receipt;
        if (!byThief && r.provider != LIAR) return;
        bytes memory sig = signature(offerKeyOf(r.provider), game.receiptDigest(r));
        count("doubt", attempt(byThief ? thief : watcher, address(game), abi.encodeCall(game.open, (r, sig, SAMPLER))));
    }

    /// A false statement is shown without a game, by the watcher or by the liar's friend; a true one not.
    function convict(uint256 which, bool byThief) external {
        if (served.length == 0) return;
        Receipt memory r = served[which % served.length].receipt;
        bytes memory sig = signature(offerKeyOf(r.provider), game.receiptDigest(r));
        bytes memory fact = r.provider == LIAR ? bytes(hex"01") : bytes(hex"00");
        bytes memory call = abi.encodeCall(game.proveFact, (r, sig, fact));
        judged(r.provider, byThief ? thief : watcher, call, "fact");
    }

    /// The liar answers one request twice.
    function contradict(uint256 which, bool byThief) external {
        if (served.length == 0) return;
        Receipt memory r = served[which % served.length].receipt;
        Receipt memory other = served[which % served.length].receipt;
        other.tier = 2;
        if (r.provider != LIAR) other.requestId = keccak256("another request");
        uint256 key = offerKeyOf(r.provider);
        bytes memory a = signature(key, game.receiptDigest(r));
        bytes memory b = signature(key, game.receiptDigest(other));
        bytes memory call = abi.encodeCall(game.equivocation, (r, a, other, b));
        judged(r.provider, byThief ? thief : watcher, call, "contradiction");
    }

    /// Tries what may convict, and keeps the books of it.
    function judged(address provider, address who, bytes memory call, string memory how) private returns (bool ok) {
        uint256 before = dollar.balanceOf(payer);
        uint256 stake = stakeOf(provider);
        ok = count(how, attempt(who, address(game), call));
        if (!ok) return false;
        awarded += dollar.balanceOf(payer) - before;
        if (stakeOf(provider) == stake) return true;
        yes(provider == LIAR, "nobody convicts who is honest");
        slashed[provider] += stake;
    }

    /// Honest providers answer, then time passes, then what is late is ended.
    function pass(uint256 time) external {
        for (uint256 i = 0; i < served.length; ++i) {
            Served storage s = served[i];
            if (s.receipt.provider != OWNER) continue;
            if (turnOf(idOf(s.receipt, thief)) == DisputeGame.Turn.Trace) postAs(OWNER, s.receipt, thief, s.trace);
        }
        vm.warp(block.timestamp + (time % 8 == 0 ? 1000 : bound(time, 1, 40)));
        for (uint256 i = 0; i < served.length; ++i) {
            end(served[i].receipt, watcher);
            end(served[i].receipt, thief);
        }
    }

    function end(Receipt memory r, address challenger) private {
        bytes32 id = idOf(r, challenger);
        if (turnOf(id) == DisputeGame.Turn.None) return;
        if (game.roots(game.receiptDigest(r)) == game.CONVICTED()) {
            attempt(stranger, address(game), abi.encodeCall(game.close, (r, challenger)));
        } else if (block.timestamp > game.deadline(id)) {
            bool rejected = turnOf(id) == DisputeGame.Turn.Challenger;
            yes(!rejected || challenger == thief, "an honest challenger is never late");
            yes(rejected || r.provider == LIAR, "an honest provider is never late");
            uint256 before = dollar.balanceOf(PAYOUT);
            bytes memory call = abi.encodeCall(game.timeout, (r, challenger));
            judged(r.provider, stranger, call, rejected ? "rejection" : "timeout");
            bondsWon += dollar.balanceOf(PAYOUT) - before;
        }
    }

    // ---------------------------------------------------------------- scores

    function score(uint256 lane, uint256 seed, bool alone, bool foul) external {
        lane %= LANES;
        Channels.ChannelConfig memory c = laneOf(lane);
        address provider = providerOf(lane);
        Scoreboard.ServiceRecord memory before = posted[lane];
        Scoreboard.ServiceRecord memory next = posted[lane];
        next.channelId = channels.getChannelId(c);
        uint32 failed = uint32(seed % 4);
        next.failures += failed;
        if (!alone) {
            uint32 answered = uint32((seed >> 8) % 5);
            uint256 class = (seed >> 16) % 8;
            next.requests += answered;
            next.ttft += uint256(answered) << (32 * class);
            next.speed += uint256(answered) << (32 * class);
            next.outputTokens += answered;
            // More than was claimed, now and then.
            next.revenue = uint64(bound(seed >> 32, next.revenue, uint256(claimed(c)) + 2));
        }
        Scoreboard.Entry[] memory all = new Scoreboard.Entry[](1);
        bytes memory sig = signature(foul ? STRANGER_KEY : payerKeyOf(lane), board.recordDigest(next));
        all[0] = Scoreboard.Entry(c, next, before, sig);
        Scoreboard.ServiceRecord[] memory signed_ = new Scoreboard.ServiceRecord[](1);
        signed_[0] = next;
        bytes memory batch = alone ? bytes("") : signature(offerKeyOf(provider), board.batchDigest(signed_));
        bytes memory call = abi.encodeCall(board.post, (provider, all, batch));
        if (!count(alone ? "report" : "score", attempt(thief, address(board), call))) return;
        yes(!foul, "the payer signed");
        yes(next.revenue <= claimed(c), "only what was paid weighs");
        posted[lane] = next;
        (alone ? reportedFailures : signedFailures)[provider] += failed;
        ++records[provider];
        lastPost = call;
    }

    // ---------------------------------------------------------------- the thief

    /// What nobody but somebody else may do: none of it may succeed.
    function steal(uint256 way, uint256 lane, uint128 amount, bytes calldata junk) external {
        lane %= 4;
        Channels.ChannelConfig memory c = laneOf(lane);
        Channels.VoucherClaim[] memory own = one(voucherBy(THIEF_KEY, c, amount, amount));
        bytes32 id = bytes32(uint256(amount));
        bytes memory call;
        address at = address(channels);
        way %= 20;
        if (way == 0) call = abi.encodeCall(channels.claim, (own));
        else if (way == 1) call = abi.encodeCall(channels.claimWithSignature, (own, junk));
        else if (way == 2) call = abi.encodeCall(channels.refund, (c, amount));
        else if (way == 3) call = abi.encodeCall(channels.refundWithSignature, (c, amount, 0, junk));
        else if (way == 4) call = abi.encodeCall(channels.initiateWithdraw, (c, amount));
        else if (way == 5) call = abi.encodeCall(channels.finalizeWithdraw, (c));
        else if (way == 6) call = lastDeposit;
        else if (way == 7) call = lastRefund;
        else at = way < 15 ? address(registry) : way < 18 ? address(vault) : address(board);
        if (way == 8) call = abi.encodeCall(registry.slash, (OWNER, amount, thief));
        else if (way == 9) call = abi.encodeCall(registry.jail, (OWNER));
        else if (way == 10) call = abi.encodeCall(registry.lock, (OWNER));
        else if (way == 11) call = abi.encodeCall(registry.unlock, (OWNER));
        else if (way == 12) call = abi.encodeCall(registry.setPayout, (thief));
        else if (way == 13) call = abi.encodeCall(registry.withdrawStake, ());
        else if (way == 14) call = abi.encodeCall(registry.release, ());
        else if (way == 15) call = abi.encodeCall(vault.hold, (id, amount));
        else if (way == 16) call = abi.encodeCall(vault.take, (id, thief));
        else if (way == 17) call = abi.encodeCall(vault.award, (id, thief, amount));
        else if (way >= 18) call = lastPost;
        if (call.length == 0) return;
        yes(!attempt(thief, at, call), "a thief's move");
        ++done["thwarted"];
    }

    /// A relayed claim, again: it may succeed, and changes nothing.
    function replay() external {
        if (lastClaim.length == 0) return;
        (uint256 honest_, uint256 liars) = (claimedBy(OWNER), claimedBy(LIAR));
        attempt(thief, address(channels), lastClaim);
        yes(claimedBy(OWNER) == honest_ && claimedBy(LIAR) == liars, "claimed once");
    }

    /// Money for nobody, to disturb somebody's books.
    function dust(uint256 where, uint256 amount) external {
        address[5] memory at = [address(channels), address(registry), address(game), address(vault), address(liarVault)];
        address to = at[where % 5];
        amount = bound(amount, 1, 10);
        if (attempt(thief, address(dollar), abi.encodeCall(dollar.transfer, (to, amount)))) donated[to] += amount;
    }
}
