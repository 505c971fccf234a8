// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Channels} from "../../src/Channels.sol";
import {PayoutVault} from "../../src/PayoutVault.sol";
import {Registry} from "../../src/Registry.sol";
import {DisputeGame, Receipt} from "../../src/dispute/DisputeGame.sol";
import {IReferee, Statement} from "../../src/dispute/IReferee.sol";
import {Nodes} from "../../src/dispute/Nodes.sol";
import {Trees} from "../../src/dispute/Trees.sol";
import {Market} from "../Base.sol";
import {Toy, ToyReferee} from "./Toy.sol";

/// @title A trace over the toy geometry, kept as leaves, with the moves that its owner can make.
/// @notice A liar's differs from the honest one in one chunk.
contract Trace {
    Statement private _statement;
    bytes private _lie;
    uint32[3] private _at;
    bool public lies;

    constructor(Statement memory s, bytes memory lie, uint32[3] memory at) {
        _statement = s;
        lies = lie.length != 0;
        (_lie, _at) = (lie, at);
    }

    function dataOf(uint32 op, uint32 row, uint32 chunk) public view returns (bytes memory) {
        if (lies && op == _at[0] && row == _at[1] && chunk == _at[2]) return _lie;
        return Toy.data(uint256(_statement.modelId), op, row, chunk);
    }

    /// The hashes of a stage's leaves.
    function leavesOf(uint8 stage, uint32 op, uint32 row) public view returns (bytes32[] memory leaves) {
        if (stage == 2) {
            leaves = new bytes32[](Toy.chunks(_statement, op, row));
            for (uint32 i = 0; i < leaves.length; ++i) {
                leaves[i] = keccak256(abi.encodePacked(bytes1(0), dataOf(op, row, i)));
            }
        } else {
            leaves = new bytes32[](stage == 1 ? Toy.rows(_statement, op) : Toy.ops(_statement));
            for (uint32 i = 0; i < leaves.length; ++i) {
                leaves[i] = stage == 1 ? rootOf(2, op, i) : rootOf(1, i, 0);
            }
        }
    }

    function rootOf(uint8 stage, uint32 op, uint32 row) public view returns (bytes32) {
        bytes32[] memory leaves = leavesOf(stage, op, row);
        return keccak256(abi.encodePacked(bytes1(0x02), uint64(leaves.length), levelOf(leaves, 255)[0]));
    }

    function root() external view returns (bytes32) {
        return rootOf(0, 0, 0);
    }

    /// All nodes at a height; the top, before the count is bound, where it is beyond.
    function levelOf(bytes32[] memory level, uint256 height) public pure returns (bytes32[] memory) {
        while (height > 0 && level.length > 1) {
            bytes32[] memory above = new bytes32[]((level.length + 1) / 2);
            for (uint256 i = 0; i < above.length; ++i) {
                above[i] = Trees.node(level[2 * i], 2 * i + 1 < level.length ? level[2 * i + 1] : bytes32(0));
            }
            (level, height) = (above, height - 1);
        }
        return level;
    }

    /// What a reveal of a node lists.
    function childrenOf(DisputeGame.Game memory place) public view returns (bytes32[] memory children) {
        bytes32[] memory leaves = leavesOf(place.stage, place.op, place.row);
        uint256 levels = Nodes.levelsBelow(place.height);
        bytes32[] memory level = levelOf(leaves, place.height - levels);
        children = new bytes32[](Nodes.childCount(uint32(leaves.length), place.height, place.index));
        for (uint256 i = 0; i < children.length; ++i) {
            children[i] = level[(uint256(place.index) << levels) + i];
        }
    }

    function top() public view returns (DisputeGame.Game memory place) {
        place.count = Toy.ops(_statement);
        place.height = uint8(Trees.depthOf(place.count));
    }

    /// The siblings from a chunk to the root, as `ToyReferee` takes them, with its claim.
    function step(uint32 op, uint32 row, uint32 chunk) external view returns (bytes memory) {
        bytes32[] memory path = new bytes32[](0);
        path = more(path, leavesOf(2, op, row), chunk);
        path = more(path, leavesOf(1, op, 0), row);
        path = more(path, leavesOf(0, 0, 0), op);
        return abi.encode(op, row, chunk, dataOf(op, row, chunk), path);
    }

    function more(bytes32[] memory path, bytes32[] memory level, uint256 index)
        private
        pure
        returns (bytes32[] memory longer)
    {
        uint256 height = Trees.depthOf(uint32(level.length));
        longer = new bytes32[](path.length + height);
        for (uint256 i = 0; i < path.length; ++i) {
            longer[i] = path[i];
        }
        for (uint256 i = 0; i < height; ++i) {
            uint256 beside = index ^ 1;
            longer[path.length + i] = beside < level.length ? level[beside] : bytes32(0);
            level = levelOf(level, 1);
            index /= 2;
        }
    }
}

/// @title A market with disputes over toy traces, and the words to play.
abstract contract Disputes is Market {
    uint128 internal constant BOND = 1e6;
    uint32 internal constant RESPONSE = 10;
    uint24 internal constant EXTENSION = 20;
    uint128 internal constant STAKE = 50e6;
    bytes internal constant SAMPLER = hex"00";
    address internal constant BURN = address(0xdEaD);

    DisputeGame internal game;
    address internal watcher = address(0x3A7C);
    address internal second = address(0x3A7D);

    function setUp() public virtual override {
        super.setUp();
        game = new DisputeGame(
            dollar,
            channels,
            new ToyReferee(),
            MIN_STAKE,
            UNBONDING,
            WINDOW,
            DisputeGame.Rules({bond: BOND, responseTime: RESPONSE, extension: EXTENSION})
        );
        registry = game.REGISTRY();
        vm.prank(OWNER);
        registry.register(offerKey, PAYOUT, "http://127.0.0.1:9001", new bytes32[](1));
        vault = PayoutVault(registry.vaultOf(OWNER));
        restake(STAKE);
        arm(watcher);
        arm(second);
    }

    function restake(uint128 amount) internal {
        vm.prank(OWNER);
        dollar.approve(address(registry), amount);
        vm.prank(OWNER);
        registry.stake(amount);
    }

    /// A challenger with money for many bonds.
    function arm(address who) internal {
        dollar.mint(who, 100e6);
        vm.prank(who);
        dollar.approve(address(game), type(uint256).max);
    }

    function receiptOf(uint256 seed) internal view returns (Receipt memory r) {
        r.statement = Statement({
            modelId: bytes32(seed),
            promptRoot: keccak256("prompt"),
            nPrompt: 7,
            samplerHash: keccak256(SAMPLER),
            outputRoot: keccak256("output"),
            nOutput: 5,
            stopReason: 1
        });
        r.provider = OWNER;
        r.payer = payer;
        r.channelId = bytes32(seed);
        r.chargedMicroUsd = 3e6;
        r.cumulative = 3e6;
        r.servedAt = uint64(block.timestamp);
        r.tier = 1;
        r.requestId = keccak256(abi.encode("request", seed));
    }

    function signed(Receipt memory r) internal view returns (bytes memory) {
        return signature(OFFER_KEY, game.receiptDigest(r));
    }

    function honest(Receipt memory r) internal returns (Trace) {
        return new Trace(r.statement, "", [uint32(0), 0, 0]);
    }

    /// A trace that is false in one chunk.
    function lying(Receipt memory r, uint32 op, uint32 row, uint32 chunk) internal returns (Trace) {
        bytes memory lie = Toy.data(uint256(r.statement.modelId), op, row, chunk);
        lie[lie.length - 1] ^= 0x01;
        return new Trace(r.statement, lie, [op, row, chunk]);
    }

    function idOf(Receipt memory r, address who) internal view returns (bytes32) {
        return game.gameOf(game.receiptDigest(r), who);
    }

    function openAs(address who, Receipt memory r) internal returns (bytes32) {
        bytes memory sig = signed(r);
        vm.prank(who);
        return game.open(r, sig, SAMPLER);
    }

    function postAs(address who, Receipt memory r, address challenger, Trace trace) internal {
        bytes32 root = trace.root();
        bytes32[] memory children = trace.childrenOf(trace.top());
        vm.prank(who);
        game.postTrace(r, challenger, root, children);
    }

    /// The place that the game is at; the top before its first request.
    function placeOf(bytes32 id, Trace trace) internal view returns (DisputeGame.Game memory place) {
        bytes32 hash;
        (place, hash) = game.getGame(id);
        if (hash == 0) (place.count, place.height) = (trace.top().count, trace.top().height);
    }

    function revealFrom(Trace trace, bytes32 id) internal {
        DisputeGame.Game memory place = placeOf(id, trace);
        if (place.stage == 3) game.revealData(id, trace.dataOf(place.op, place.row, place.index));
        else game.reveal(id, trace.childrenOf(place));
    }

    /// Which child of the present node leads to a chunk.
    function towards(DisputeGame.Game memory place, uint32 op, uint32 row, uint32 chunk)
        internal
        pure
        returns (uint32)
    {
        uint32 goal = place.stage == 0 ? op : place.stage == 1 ? row : chunk;
        uint256 levels = Nodes.levelsBelow(place.height);
        return uint32((uint256(goal) >> (place.height - levels)) - (uint256(place.index) << levels));
    }

    /// The siblings of a node up so many levels; the zero word where there is none.
    function siblingsIn(bytes32[] memory level, uint256 index, uint256 levels)
        internal
        pure
        returns (bytes32[] memory path)
    {
        path = new bytes32[](levels);
        for (uint256 i = 0; i < levels; ++i) {
            path[i] = (index ^ 1) < level.length ? level[index ^ 1] : bytes32(0);
            bytes32[] memory above = new bytes32[]((level.length + 1) / 2);
            for (uint256 j = 0; j < above.length; ++j) {
                above[j] = Trees.node(level[2 * j], 2 * j + 1 < level.length ? level[2 * j + 1] : bytes32(0));
            }
            (level, index) = (above, index / 2);
        }
    }

    /// One word fewer.
    function cut(bytes32[] memory words) internal pure returns (bytes32[] memory fewer) {
        fewer = new bytes32[](words.length - 1);
        for (uint256 i = 0; i < fewer.length; ++i) {
            fewer[i] = words[i];
        }
    }

    /// One zero word more.
    function pad(bytes32[] memory words) internal pure returns (bytes32[] memory more) {
        more = new bytes32[](words.length + 1);
        for (uint256 i = 0; i < words.length; ++i) {
            more[i] = words[i];
        }
    }

    /// The challenger's request for child `index`, proven from what the provider's trace revealed.
    function requestAs(address who, Receipt memory r, Trace shown, uint32 index) internal {
        DisputeGame.Game memory place = placeOf(idOf(r, who), shown);
        bytes32[] memory level = shown.childrenOf(place);
        bytes32 child = level[index];
        bytes32[] memory path = siblingsIn(level, index, Nodes.levelsBelow(place.height));
        vm.prank(who);
        game.request(r, index, child, path);
    }

    /// Requests and reveals until a chunk's bytes are out.
    function descend(address who, Receipt memory r, Trace trace, uint32 op, uint32 row, uint32 chunk)
        internal
        returns (uint256 rounds)
    {
        bytes32 id = idOf(r, who);
        while (true) {
            DisputeGame.Game memory place = placeOf(id, trace);
            if (place.stage == 3) return rounds;
            requestAs(who, r, trace, towards(place, op, row, chunk));
            revealFrom(trace, id);
            ++rounds;
        }
    }

    function proveAs(address who, Receipt memory r, bytes memory step) internal {
        vm.prank(who);
        game.prove(r, step);
    }

    /// Money of a channel, claimed and in the vault.
    function earn(uint128 amount) internal {
        Channels.ChannelConfig memory c = config(uint256(keccak256(abi.encode(amount, block.timestamp))));
        open(c, amount);
        claim(c, amount);
        vault.collect();
    }

    function turnOf(bytes32 id) internal view returns (DisputeGame.Turn) {
        (DisputeGame.Game memory state,) = game.getGame(id);
        return state.turn;
    }

    function wait(uint256 seconds_) internal {
        vm.warp(block.timestamp + seconds_);
    }
}
