// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";

import {Channels} from "../Channels.sol";
import {PayoutVault} from "../PayoutVault.sol";
import {Registry} from "../Registry.sol";
import {IReferee, Statement} from "./IReferee.sol";
import {Nodes} from "./Nodes.sol";
import {Trees} from "./Trees.sol";

/// @notice What a provider signs with every answer: `protocol::Receipt`, word by word.
struct Receipt {
    Statement statement;
    address provider;
    address payer;
    bytes32 channelId;
    uint64 chargedMicroUsd;
    uint64 cumulative;
    uint64 servedAt;
    uint32 ttftMs;
    uint32 durationMs;
    uint8 tier;
    bytes32 requestId;
}

/// @title The game by which anybody proves a signed receipt false: who moves, by when, who pays.
/// @notice Permissionless: every challenger plays a game of its own about a receipt, against the one
///         trace root that the provider has posted for it. One of two clocks always runs, and who
///         lets its own run out loses. What is true is the referee's to say and never decided here.
///
///         The rules are docs/dispute.md. There is no owner, no pause, no upgrade. The money in here
///         is the bonds of open games, and what could not be paid when it was due.
/// @dev Of a receipt only its digest's trace root is kept: the moves bring the receipt itself, which
///      is cheaper than storing it. Of a game, its clocks and where it is; from its first request on,
///      also the one hash that was shown there.
contract DisputeGame is ReentrancyGuardTransient {
    using SafeERC20 for IERC20;

    /// @notice Whose move it is; `None` where no game is open.
    enum Turn {
        None,
        /// The provider's: to post the trace's root.
        Trace,
        /// The provider's: to reveal below what was requested.
        Reveal,
        /// The challenger's: to request or to prove.
        Challenger
    }

    /// @notice A game's clocks, and the node that it is at: one slot. Who plays is in the game's id.
    struct Game {
        /// When the present turn began, in seconds; good until the year 2106.
        uint32 since;
        Turn turn;
        /// How the sampler shapes the trace: the referee's word.
        uint8 flags;
        /// Seconds left of each side's extension.
        uint24 providerExtra;
        uint24 challengerExtra;
        /// Whether anything was requested yet.
        bool asked;
        /// Where the node lies that was requested last; the top of the tree of ops before that.
        /// Stage 0: in the tree of ops. 1: of an op's rows. 2: of a leaf's chunks. 3: a chunk's bytes.
        uint8 stage;
        /// Levels above the tree's leaves.
        uint8 height;
        uint32 index;
        uint32 op;
        uint32 row;
        /// The tree's leaves; at stage 3 the chunk's bytes.
        uint32 count;
    }

    /// @notice The rules of the game; they never change.
    struct Rules {
        uint128 bond;
        uint32 responseTime;
        uint24 extension;
    }

    /// @notice The inner type of a receipt.
    bytes32 public constant STATEMENT_TYPEHASH = keccak256(
        "Statement(bytes32 modelId,bytes32 promptRoot,uint32 nPrompt,bytes32 samplerHash,bytes32 outputRoot,uint32 nOutput,uint8 stopReason)"
    );
    /// @notice What providers sign.
    bytes32 public constant RECEIPT_TYPEHASH = keccak256(
        "Receipt(Statement statement,address provider,address payer,bytes32 channelId,uint64 chargedMicroUsd,uint64 cumulative,uint64 servedAt,uint32 ttftMs,uint32 durationMs,uint8 tier,bytes32 requestId)Statement(bytes32 modelId,bytes32 promptRoot,uint32 nPrompt,bytes32 samplerHash,bytes32 outputRoot,uint32 nOutput,uint8 stopReason)"
    );
    /// @notice Stands in place of a trace root once the receipt is convicted. No hash is this.
    bytes32 public constant CONVICTED = bytes32(type(uint256).max);
    /// @notice Where the burned part of a stake goes.
    address public constant BURN = address(0xdEaD);
    /// @notice Of a slashed stake, the winner's part.
    uint256 public constant CHALLENGER_PERCENT = 30;
    /// @notice The payer's part at least.
    uint256 public constant PAYER_PERCENT = 20;
    /// @notice The payer's charge is made up from the stake to this part at most, so that a fifth of
    ///         it always burns: a provider that writes itself an absurd receipt still loses.
    uint256 public constant PAYER_PERCENT_MOST = 50;

    /// @notice The registry that it made, and slashes and jails in.
    Registry public immutable REGISTRY;
    /// @notice Who says what is true.
    IReferee public immutable REFEREE;
    /// @notice The market's stablecoin.
    IERC20 public immutable TOKEN;
    /// @notice Seconds after its service for which a receipt can be doubted.
    uint64 public immutable CHALLENGE_WINDOW;
    /// @notice What a doubt costs who loses it.
    uint128 public immutable BOND;
    /// @notice Seconds that every turn has.
    uint32 public immutable RESPONSE_TIME;
    /// @notice Seconds beyond that, in all, that each side has in one game.
    uint24 public immutable EXTENSION;

    bytes32 private immutable _domain;
    uint256 private immutable _chainId;

    /// @notice The trace root that the provider has posted, or `CONVICTED`.
    mapping(bytes32 receipt => bytes32) public roots;
    mapping(bytes32 game => Game) private _games;
    /// @dev The hash of the node that was requested last.
    mapping(bytes32 game => bytes32) private _hashes;
    /// @notice What an account is owed because a transfer to it failed.
    mapping(address account => uint256) public owed;

    /// @notice A receipt is doubted: all that a provider needs in order to answer.
    event Opened(
        bytes32 indexed game,
        bytes32 indexed receiptDigest,
        address indexed provider,
        address challenger,
        Receipt receipt,
        bytes signature,
        bytes sampler,
        uint8 flags
    );
    /// @notice The root, how many ops it is over, and the nodes of the first reveal below it.
    event TracePosted(
        bytes32 indexed game, bytes32 indexed receiptDigest, bytes32 root, uint32 ops, bytes32[] children
    );
    /// @notice A node is `stage << 104 | height << 96 | op << 64 | row << 32 | index`.
    event Requested(bytes32 indexed game, uint256 node);
    /// @notice What lies below the node that was requested.
    event Revealed(bytes32 indexed game, uint256 node, bytes32[] children);
    /// @notice The bytes of the chunk that was requested.
    event DataRevealed(bytes32 indexed game, uint256 node, bytes data);
    /// @notice The receipt is false. `game` is zero where none was played.
    event Convicted(
        bytes32 indexed receiptDigest,
        address indexed provider,
        address indexed winner,
        bytes32 game,
        uint256 stake,
        uint256 toWinner,
        uint256 toPayer,
        uint256 burned
    );
    /// @notice The challenger's clock ran out.
    event Lost(bytes32 indexed game, bytes32 indexed receiptDigest, address indexed provider, address challenger);
    /// @notice Another game convicted the receipt first; the bond went back.
    event Closed(bytes32 indexed game, bytes32 indexed receiptDigest, address challenger);
    /// @notice A receipt that contradicts a convicted one is convicted with it.
    event Contradicted(bytes32 indexed receiptDigest, bytes32 indexed otherDigest);
    /// @notice A transfer failed; the money waits.
    event Owed(address indexed account, uint256 amount);
    /// @notice And was paid.
    event OwedPaid(address indexed account, uint256 amount);

    /// @notice There is no referee.
    error ZeroAddress();
    /// @notice A turn has no time.
    error ZeroTime();
    /// @notice The signer was not the provider's offer key at that time.
    error NotOfferKey(address provider, address signer, uint64 servedAt);
    /// @notice The receipt is too old to be doubted.
    error WindowClosed(uint64 servedAt, uint64 window);
    /// @notice The receipt is known to be false.
    error AlreadyConvicted(bytes32 receiptDigest);
    /// @notice No game convicted it.
    error NotConvicted(bytes32 receiptDigest);
    /// @notice An answer without tokens has no trace.
    error NothingToTrace();
    /// @notice The bytes are not the statement's sampler.
    error WrongSampler(bytes32 expected, bytes32 got);
    /// @notice The caller doubts this receipt already.
    error GameExists(bytes32 game);
    /// @notice No such game is open.
    error NoGame(bytes32 game);
    /// @notice Only the provider commits itself to a trace.
    error NotTheProvider(address provider, address caller);
    /// @notice It is the other side that must move, or another move that must be made.
    error NotTheTurn(bytes32 game, Turn turn);
    /// @notice The clock ran out.
    error TooLate(bytes32 game, uint256 deadline);
    /// @notice The clock still runs.
    error TooEarly(bytes32 game, uint256 deadline);
    /// @notice The provider is committed to another trace.
    error OtherRoot(bytes32 posted, bytes32 got);
    /// @notice What was shown is not what was committed to.
    error WrongHash(bytes32 expected, bytes32 got);
    /// @notice A chunk of another length, or none is asked for here.
    error WrongLength(uint256 expected, uint256 got);
    /// @notice The node has fewer children.
    error NoSuchChild(uint256 index, uint256 count);
    /// @notice A chunk is asked for once.
    error NothingBelow(bytes32 game);
    /// @notice The step is true.
    error StepHolds(bytes32 game);
    /// @notice The fact does not contradict the statement.
    error FactHolds(bytes32 receiptDigest);
    /// @notice These two receipts do not contradict each other.
    error NoEquivocation();

    /// @notice Makes the registry too: whom it lets slash and its whole life are then one address.
    constructor(
        IERC20 token,
        Channels channels,
        IReferee referee,
        uint128 minStake,
        uint64 unbondingPeriod,
        uint64 challengeWindow,
        Rules memory rules
    ) {
        if (address(referee) == address(0)) revert ZeroAddress();
        if (rules.responseTime == 0) revert ZeroTime();
        REGISTRY = new Registry(token, channels, address(this), minStake, unbondingPeriod, challengeWindow);
        REFEREE = referee;
        TOKEN = token;
        CHALLENGE_WINDOW = challengeWindow;
        BOND = rules.bond;
        RESPONSE_TIME = rules.responseTime;
        EXTENSION = rules.extension;
        _chainId = block.chainid;
        _domain = _domainSeparator();
    }

    // ---------------------------------------------------------------- moves

    /// @notice Doubts a receipt. Takes the bond out of the caller's allowance; locks the provider's
    ///         stake and holds the charge in its vault, as far as it is there.
    /// @param sampler The canonical bytes behind the statement's `samplerHash`.
    function open(Receipt calldata receipt, bytes calldata signature, bytes calldata sampler)
        external
        nonReentrant
        returns (bytes32 game)
    {
        bytes32 digest = _authored(receipt, signature);
        bytes32 root = roots[digest];
        if (root == CONVICTED) revert AlreadyConvicted(digest);
        game = gameOf(digest, msg.sender);
        if (_games[game].turn != Turn.None) revert GameExists(game);
        Statement calldata statement = receipt.statement;
        // An answer without a token has no trace; whether it may be empty is a matter of facts.
        if (statement.nOutput == 0) revert NothingToTrace();
        if (keccak256(sampler) != statement.samplerHash) {
            revert WrongSampler(statement.samplerHash, keccak256(sampler));
        }
        uint8 flags = REFEREE.samplingFlags(statement.modelId, sampler);
        Game memory state;
        state.since = uint32(block.timestamp);
        // Where another game made the provider post its root, this one starts below it.
        state.turn = root == 0 ? Turn.Trace : Turn.Challenger;
        state.flags = flags;
        (state.providerExtra, state.challengerExtra) = (EXTENSION, EXTENSION);
        _games[game] = state;
        emit Opened(game, digest, receipt.provider, msg.sender, receipt, signature, sampler, flags);
        PayoutVault(REGISTRY.lock(receipt.provider)).hold(game, receipt.chargedMicroUsd);
        TOKEN.safeTransferFrom(msg.sender, address(this), BOND);
    }

    /// @notice Commits the provider to one trace, for this receipt and for good, and reveals what lies
    ///         first below the root. The provider's owner or its present offer key may.
    function postTrace(Receipt calldata receipt, address challenger, bytes32 root, bytes32[] calldata children)
        external
        nonReentrant
    {
        bytes32 digest = receiptDigest(receipt);
        bytes32 game = gameOf(digest, challenger);
        Game memory state = _atTurn(game, Turn.Trace);
        address provider = receipt.provider;
        if (msg.sender != provider && !REGISTRY.isOfferKey(provider, msg.sender, uint64(block.timestamp))) {
            revert NotTheProvider(provider, msg.sender);
        }
        uint32 count = _opCount(receipt, state.flags);
        uint256 height = Trees.depthOf(count);
        bytes32 got = Nodes.fold(children, count, height, 0);
        if (got != root) revert WrongHash(root, got);
        bytes32 posted = roots[digest];
        if (posted == 0) roots[digest] = root;
        else if (posted != root) revert OtherRoot(posted, root);
        (state.count, state.height) = (count, uint8(height));
        _turnTo(game, state, Turn.Challenger);
        emit TracePosted(game, digest, root, count, children);
    }

    /// @notice Asks for what lies below a node that was revealed.
    /// @param index The node's number among those that the last reveal listed.
    /// @param siblings Prove the node under the hash that the contract holds, from below.
    function request(Receipt calldata receipt, uint32 index, bytes32 child, bytes32[] calldata siblings)
        external
        nonReentrant
    {
        bytes32 digest = receiptDigest(receipt);
        bytes32 game = gameOf(digest, msg.sender);
        Game memory state = _atTurn(game, Turn.Challenger);
        if (state.count == 0) {
            // The root was posted in another game.
            state.count = _opCount(receipt, state.flags);
            state.height = uint8(Trees.depthOf(state.count));
        }
        bytes32 hash = state.asked ? _hashes[game] : roots[digest];
        state.asked = true;
        if (state.stage == 3) revert NothingBelow(game);
        uint256 children = Nodes.childCount(state.count, state.height, state.index);
        if (index >= children) revert NoSuchChild(index, children);
        bytes32 got = Nodes.climb(child, index, siblings, state.count, state.height);
        if (got != hash) revert WrongHash(hash, got);
        _descend(receipt.statement, state, index);
        _hashes[game] = child;
        _turnTo(game, state, Turn.Reveal);
        emit Requested(game, _node(state));
    }

    /// @notice Answers a request with the nodes below the one requested. Anybody may: they are proven
    ///         by their hash.
    function reveal(bytes32 game, bytes32[] calldata children) external nonReentrant {
        Game memory state = _atTurn(game, Turn.Reveal);
        if (state.stage == 3) revert WrongLength(state.count, 0);
        bytes32 hash = _hashes[game];
        bytes32 got = Nodes.fold(children, state.count, state.height, state.index);
        if (got != hash) revert WrongHash(hash, got);
        _turnTo(game, state, Turn.Challenger);
        emit Revealed(game, _node(state), children);
    }

    /// @notice Answers the last request: the bytes of one chunk.
    function revealData(bytes32 game, bytes calldata data) external nonReentrant {
        Game memory state = _atTurn(game, Turn.Reveal);
        uint256 length = state.stage == 3 ? state.count : 0;
        if (data.length != length || length == 0) revert WrongLength(length, data.length);
        bytes32 hash = _hashes[game];
        bytes32 got = Nodes.leaf(data);
        if (got != hash) revert WrongHash(hash, got);
        _turnTo(game, state, Turn.Challenger);
        emit DataRevealed(game, _node(state), data);
    }

    /// @notice Shows that one element of the posted trace is false. Wins.
    /// @param step `abi.encode(Step)`.
    function prove(Receipt calldata receipt, bytes calldata step) external nonReentrant {
        bytes32 digest = receiptDigest(receipt);
        bytes32 game = gameOf(digest, msg.sender);
        _atTurn(game, Turn.Challenger);
        bytes32 root = roots[digest];
        if (root == CONVICTED) revert AlreadyConvicted(digest);
        if (!REFEREE.convicts(receipt.statement, root, step)) revert StepHolds(game);
        _win(receipt, digest, game, msg.sender);
    }

    /// @notice Shows that a statement is false whatever the pass computes. Takes no bond: it is proven
    ///         at once or not at all. The signature is not looked at where the caller has a game.
    /// @param fact `abi.encode(Fact)`.
    function proveFact(Receipt calldata receipt, bytes calldata signature, bytes calldata fact) external nonReentrant {
        bytes32 digest = receiptDigest(receipt);
        bytes32 game = gameOf(digest, msg.sender);
        bool playing = _games[game].turn != Turn.None;
        if (!playing) _authored(receipt, signature);
        if (roots[digest] == CONVICTED) revert AlreadyConvicted(digest);
        if (!REFEREE.factConvicts(receipt.statement, fact)) revert FactHolds(digest);
        if (playing) {
            _win(receipt, digest, game, msg.sender);
        } else {
            uint128 charged = receipt.chargedMicroUsd;
            _convict(receipt, charged, _take(receipt, charged, digest), digest, 0, msg.sender);
        }
    }

    /// @notice Shows two receipts that charge one payer twice for one request. Takes no bond.
    /// @dev On one channel: a provider that lost its books names a new offer key, and channels name
    ///      the key, so that nothing which it answered before can be held against its new books.
    function equivocation(
        Receipt calldata one,
        bytes calldata oneSignature,
        Receipt calldata other,
        bytes calldata otherSignature
    ) external nonReentrant {
        bytes32 digest = _authored(one, oneSignature);
        bytes32 otherDigest = _authored(other, otherSignature);
        if (
            digest == otherDigest || one.provider != other.provider || one.payer != other.payer
                || one.channelId != other.channelId || one.requestId != other.requestId || one.chargedMicroUsd == 0
                || other.chargedMicroUsd == 0
        ) revert NoEquivocation();
        if (roots[digest] == CONVICTED) revert AlreadyConvicted(digest);
        if (roots[otherDigest] == CONVICTED) revert AlreadyConvicted(otherDigest);
        roots[otherDigest] = CONVICTED;
        emit Contradicted(digest, otherDigest);
        uint128 charged = uint128(one.chargedMicroUsd) + other.chargedMicroUsd;
        _convict(one, charged, _take(one, charged, digest), digest, 0, msg.sender);
    }

    /// @notice Ends a game whose clock ran out, against who let it. Anybody may.
    function timeout(Receipt calldata receipt, address challenger) external nonReentrant {
        bytes32 digest = receiptDigest(receipt);
        bytes32 game = gameOf(digest, challenger);
        Game memory state = _games[game];
        if (state.turn == Turn.None) revert NoGame(game);
        if (roots[digest] == CONVICTED) revert AlreadyConvicted(digest);
        uint256 end = _deadline(state);
        if (block.timestamp <= end) revert TooEarly(game, end);
        if (state.turn != Turn.Challenger) {
            _win(receipt, digest, game, challenger);
            return;
        }
        _end(receipt, game);
        emit Lost(game, digest, receipt.provider, challenger);
        _pay(REGISTRY.payoutOf(receipt.provider), BOND);
    }

    /// @notice Ends a game about a receipt that another game convicted; the bond goes back. Anybody may.
    function close(Receipt calldata receipt, address challenger) external nonReentrant {
        bytes32 digest = receiptDigest(receipt);
        bytes32 game = gameOf(digest, challenger);
        if (_games[game].turn == Turn.None) revert NoGame(game);
        if (roots[digest] != CONVICTED) revert NotConvicted(digest);
        _end(receipt, game);
        emit Closed(game, digest, challenger);
        _pay(challenger, BOND);
    }

    /// @notice Pays what is owed to an account. Anybody may.
    function payOwed(address account) external nonReentrant {
        uint256 amount = owed[account];
        owed[account] = 0;
        emit OwedPaid(account, amount);
        TOKEN.safeTransfer(account, amount);
    }

    // ---------------------------------------------------------------- what readers ask

    /// @notice A game, and the hash of the node that it is at.
    function getGame(bytes32 game) external view returns (Game memory state, bytes32 hash) {
        return (_games[game], _hashes[game]);
    }

    /// @notice The last second at which the present turn's move counts; zero where no game is open.
    function deadline(bytes32 game) external view returns (uint256) {
        Game memory state = _games[game];
        return state.turn == Turn.None ? 0 : _deadline(state);
    }

    /// @notice The game of a challenger about a receipt. Each has one at a time.
    function gameOf(bytes32 digest, address challenger) public pure returns (bytes32) {
        return keccak256(abi.encode(digest, challenger));
    }

    /// @notice What the provider signs: the receipt as EIP-712 typed data of the registry's domain.
    /// @dev Copies the words as they came. A word with dirt above its type hashes to what nobody
    ///      signed; and what reads it as its type reverts.
    function receiptDigest(Receipt calldata receipt) public view returns (bytes32 digest) {
        bytes32 statementType = STATEMENT_TYPEHASH;
        bytes32 receiptType = RECEIPT_TYPEHASH;
        bytes32 domain = block.chainid == _chainId ? _domain : _domainSeparator();
        assembly ("memory-safe") {
            let words := mload(0x40)
            mstore(words, statementType)
            calldatacopy(add(words, 0x20), receipt, 0xe0)
            let statement := keccak256(words, 0x100)
            mstore(words, receiptType)
            mstore(add(words, 0x20), statement)
            calldatacopy(add(words, 0x40), add(receipt, 0xe0), 0x140)
            let body := keccak256(words, 0x180)
            mstore(words, hex"1901")
            mstore(add(words, 0x02), domain)
            mstore(add(words, 0x22), body)
            digest := keccak256(words, 0x42)
        }
    }

    // ---------------------------------------------------------------- inside: clocks and places

    function _atTurn(bytes32 game, Turn turn) private view returns (Game memory state) {
        state = _games[game];
        if (state.turn == Turn.None) revert NoGame(game);
        if (state.turn != turn) revert NotTheTurn(game, state.turn);
        uint256 end = _deadline(state);
        if (block.timestamp > end) revert TooLate(game, end);
    }

    function _deadline(Game memory state) private view returns (uint256) {
        uint256 extra = state.turn == Turn.Challenger ? state.challengerExtra : state.providerExtra;
        return uint256(state.since) + RESPONSE_TIME + extra;
    }

    /// @dev Ends a turn within its deadline: what it took beyond the response time is spent for good.
    function _turnTo(bytes32 game, Game memory state, Turn next) private {
        uint256 used = block.timestamp - state.since;
        if (used > RESPONSE_TIME) {
            // Within the deadline, so no more than what was left.
            uint24 over = uint24(used - RESPONSE_TIME);
            if (state.turn == Turn.Challenger) state.challengerExtra -= over;
            else state.providerExtra -= over;
        }
        state.since = uint32(block.timestamp);
        state.turn = next;
        _games[game] = state;
    }

    function _opCount(Receipt calldata receipt, uint8 flags) private view returns (uint32) {
        Statement calldata s = receipt.statement;
        return REFEREE.opCount(s.modelId, s.nPrompt, s.nOutput, flags);
    }

    /// @dev Goes to child `index` of the present node; at a leaf of a tree, to the top of the tree that
    ///      hangs there.
    function _descend(Statement calldata s, Game memory state, uint32 index) private view {
        uint256 levels = Nodes.levelsBelow(state.height);
        state.height -= uint8(levels);
        state.index = (state.index << uint32(levels)) + index;
        if (state.height != 0) return;
        if (state.stage == 0) {
            state.op = state.index;
            state.count = REFEREE.rowCount(s.modelId, s.nPrompt, s.nOutput, state.flags, state.op);
        } else if (state.stage == 1) {
            state.row = state.index;
            state.count = REFEREE.chunkCount(s.modelId, s.nPrompt, s.nOutput, state.flags, state.op, state.row);
        } else {
            // The chunk's number stays in `index`; what hangs here is its bytes, and no tree.
            state.stage = 3;
            state.count =
                REFEREE.chunkLength(s.modelId, s.nPrompt, s.nOutput, state.flags, state.op, state.row, state.index);
            return;
        }
        state.stage += 1;
        state.index = 0;
        state.height = uint8(Trees.depthOf(state.count));
    }

    function _node(Game memory state) private pure returns (uint256) {
        return uint256(state.stage) << 104 | uint256(state.height) << 96 | uint256(state.op) << 64 | uint256(state.row)
            << 32 | state.index;
    }

    // ---------------------------------------------------------------- inside: who signed

    /// @dev The digest of a receipt within its window that the provider's key of the time signed. A
    ///      receipt dated ahead is its signer's own trouble: it can be doubted for longer.
    function _authored(Receipt calldata receipt, bytes calldata signature) private view returns (bytes32 digest) {
        digest = receiptDigest(receipt);
        uint64 servedAt = receipt.servedAt;
        if (block.timestamp > servedAt && block.timestamp - servedAt > CHALLENGE_WINDOW) {
            revert WindowClosed(servedAt, CHALLENGE_WINDOW);
        }
        // OpenZeppelin refuses the malleable twin; a receipt's digest does not hold its signature.
        address signer = ECDSA.recover(digest, signature);
        if (!REGISTRY.isOfferKey(receipt.provider, signer, servedAt)) {
            revert NotOfferKey(receipt.provider, signer, servedAt);
        }
    }

    function _domainSeparator() private view returns (bytes32) {
        return keccak256(
            abi.encode(
                keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"),
                keccak256("Assay"),
                keccak256("1"),
                block.chainid,
                address(REGISTRY)
            )
        );
    }

    // ---------------------------------------------------------------- inside: money

    /// @dev Takes up to `amount` of a provider's vault at once, where no game holds it yet.
    function _take(Receipt calldata receipt, uint128 amount, bytes32 digest) private returns (uint128 taken) {
        PayoutVault vault = PayoutVault(REGISTRY.vaultOf(receipt.provider));
        vault.hold(digest, amount);
        taken = vault.take(digest, address(this));
    }

    /// @dev The game's hold goes to the payer, the stake to all that were wronged, the bond back.
    function _win(Receipt calldata receipt, bytes32 digest, bytes32 game, address challenger) private {
        _forget(game);
        uint128 held = PayoutVault(REGISTRY.unlock(receipt.provider)).take(game, address(this));
        _convict(receipt, receipt.chargedMicroUsd, held, digest, game, challenger);
    }

    function _end(Receipt calldata receipt, bytes32 game) private {
        _forget(game);
        PayoutVault vault = PayoutVault(REGISTRY.unlock(receipt.provider));
        if (vault.holds(game) > 0) vault.free(game);
    }

    function _forget(bytes32 game) private {
        bool asked = _games[game].asked;
        delete _games[game];
        if (asked) delete _hashes[game];
    }

    /// @dev Slashes the whole stake, and jails. `refund` of what the payer was charged is here already, out of the
    ///      vault. The burned fifth, at least, is what makes it a loss to slash oneself.
    function _convict(
        Receipt calldata receipt,
        uint128 charged,
        uint128 refund,
        bytes32 digest,
        bytes32 game,
        address winner
    ) private {
        roots[digest] = CONVICTED;
        uint256 stake = REGISTRY.slash(receipt.provider, type(uint128).max, address(this));
        REGISTRY.jail(receipt.provider);
        uint256 toWinner = stake * CHALLENGER_PERCENT / 100;
        uint256 toPayer = stake * PAYER_PERCENT / 100;
        if (charged - refund > toPayer) {
            uint256 most = stake * PAYER_PERCENT_MOST / 100;
            toPayer = charged - refund < most ? charged - refund : most;
        }
        uint256 burned = stake - toWinner - toPayer;
        emit Convicted(digest, receipt.provider, winner, game, stake, toWinner, toPayer + refund, burned);
        _pay(winner, game == 0 ? toWinner : toWinner + BOND);
        _pay(receipt.payer, toPayer + refund);
        _pay(BURN, burned);
    }

    /// @dev A transfer that fails must block nobody else's: the money waits for `payOwed`.
    function _pay(address to, uint256 amount) private {
        if (amount == 0 || TOKEN.trySafeTransfer(to, amount)) return;
        owed[to] += amount;
        emit Owed(to, amount);
    }
}
