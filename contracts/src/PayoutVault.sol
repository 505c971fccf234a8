// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Clones} from "@openzeppelin/contracts/proxy/Clones.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";

import {Channels} from "./Channels.sol";
import {Registry} from "./Registry.sol";

/// @title Where a provider's channels pay to: what is settled becomes the provider's only after the
///        challenge window.
/// @notice Each provider has a vault of its own, a clone at an address that follows from the
///         provider's. So the vault needs no book of who earned what: all that is in it was earned
///         by one provider, and a payer checks one address to know that its money goes through the
///         window.
///
///         Money enters by `collect` (or by anybody's `Channels.settle`, and is then noticed by
///         the next call here), waits for the window, and leaves by `release` to the provider's
///         payout address. Anybody may call these. Only the arbiter, the dispute contract that was
///         fixed at deployment, can hold money back or award it to a payer, and only money within
///         a dispute it opened; if the arbiter is the zero address, nobody can. No key of anybody
///         moves money anywhere else.
/// @dev The books: `queued + ready - spent` is all the money that was noticed and has not left;
///      `held` of it may not be released. Awards are paid at once and taken out of what matures
///      next (`spent`), so that a dispute costs the same however long the queue is.
contract PayoutVault is ReentrancyGuardTransient {
    using SafeERC20 for IERC20;

    struct Tranche {
        uint128 amount;
        uint64 releaseAt;
    }

    /// @notice Tranches that one `release` walks at most: a long queue takes several calls, and
    ///         dust sent by strangers cannot block it.
    uint256 public constant TRANCHES_MOST = 64;

    /// @notice Which made it, and says where payouts go.
    Registry public immutable REGISTRY;
    /// @notice Whence money comes.
    Channels public immutable CHANNELS;
    /// @notice The market's stablecoin: any other that is sent here is lost.
    IERC20 public immutable TOKEN;
    /// @notice Who alone may hold money back.
    address public immutable ARBITER;
    /// @notice Seconds that money waits.
    uint64 public immutable CHALLENGE_WINDOW;
    /// @dev Release times are rounded up to this grain, so that many small settlements share one
    ///      tranche: a sixteenth of the window.
    uint64 public immutable GRAIN;

    Tranche[] private _queue;
    uint256 private _head;
    uint128 private _queued;
    uint128 private _ready;
    uint128 private _spent;
    uint128 private _held;
    /// @notice What a dispute keeps back.
    mapping(bytes32 disputeId => uint128 amount) public holds;

    /// @notice Money was noticed; it may leave from `releaseAt` on.
    event Received(uint128 amount, uint64 releaseAt);
    /// @notice Money left to the provider's payout address.
    event Released(address indexed payout, uint128 amount);
    /// @notice A dispute keeps this much back.
    event Held(bytes32 indexed disputeId, uint128 amount);
    /// @notice A hold ended in favour of the provider.
    event Freed(bytes32 indexed disputeId, uint128 amount);
    /// @notice A part of a hold, or all of it, was paid out.
    event Awarded(bytes32 indexed disputeId, address indexed to, uint128 amount);

    /// @notice Only the arbiter may.
    error NotArbiter(address caller);
    /// @notice The dispute holds money already.
    error HoldExists(bytes32 disputeId);
    /// @notice The dispute holds nothing.
    error NoHold(bytes32 disputeId);
    /// @notice More than is held.
    error AboveHold(bytes32 disputeId, uint128 amount, uint128 held);

    modifier onlyArbiter() {
        if (msg.sender != ARBITER) revert NotArbiter(msg.sender);
        _;
    }

    /// @dev Made once by the registry; the clones share its code and its immutables.
    constructor(Channels channels, IERC20 token, address arbiter, uint64 challengeWindow) {
        REGISTRY = Registry(msg.sender);
        CHANNELS = channels;
        TOKEN = token;
        ARBITER = arbiter;
        CHALLENGE_WINDOW = challengeWindow;
        GRAIN = challengeWindow < 16 ? 1 : challengeWindow / 16;
    }

    /// @notice Whose vault this is: written into the clone's code, so nothing can change it.
    function PROVIDER() public view returns (address) {
        return abi.decode(Clones.fetchCloneArgs(address(this)), (address));
    }

    /// @notice Brings in what was claimed and starts its window.
    function collect() external nonReentrant {
        CHANNELS.settle(address(this), address(TOKEN));
        _sync();
    }

    /// @notice Starts the window of money that is here but was not noticed yet.
    function sync() external nonReentrant {
        _sync();
    }

    /// @notice Pays the provider what has outlived its window and is not held.
    function release() external nonReentrant returns (uint128 amount) {
        _sync();
        uint256 head = _head;
        uint256 end = _queue.length;
        if (end - head > TRANCHES_MOST) end = head + TRANCHES_MOST;
        uint128 matured;
        for (; head < end; ++head) {
            Tranche memory tranche = _queue[head];
            if (tranche.releaseAt > block.timestamp) break;
            matured += tranche.amount;
            delete _queue[head];
        }
        _head = head;
        _queued -= matured;
        (uint128 ready, uint128 spent) = _afterAwards(_ready + matured, _spent);
        uint128 unheld = _queued + ready - spent - _held;
        amount = ready < unheld ? ready : unheld;
        _ready = ready - amount;
        _spent = spent;
        if (amount == 0) return 0;
        address payout = REGISTRY.payoutOf(PROVIDER());
        emit Released(payout, amount);
        TOKEN.safeTransfer(payout, amount);
    }

    /// @notice Where the money is: claimed but not settled; in its window; releasable now; held by
    ///         disputes; and when the next part matures (zero if nothing waits).
    function status()
        external
        view
        returns (uint128 unsettled, uint128 waiting, uint128 releasable, uint128 held, uint64 nextReleaseAt)
    {
        (uint128 claimed, uint128 settled) = CHANNELS.receivers(address(this), address(TOKEN));
        unsettled = claimed - settled;
        uint128 matured;
        uint256 end = _queue.length;
        for (uint256 i = _head; i < end; ++i) {
            if (_queue[i].releaseAt > block.timestamp) {
                nextReleaseAt = _queue[i].releaseAt;
                break;
            }
            matured += _queue[i].amount;
        }
        (uint128 ready, uint128 spent) = _afterAwards(_ready + matured, _spent);
        uint128 total = _queued - matured + ready - spent;
        releasable = ready < total - _held ? ready : total - _held;
        held = _held;
        waiting = total - releasable - held;
        uint128 unnoticed = _unnoticed();
        if (unnoticed > 0) {
            waiting += unnoticed;
            if (nextReleaseAt == 0) nextReleaseAt = _releaseAt();
        }
    }

    // ---------------------------------------------------------------- disputes

    /// @notice Keeps up to `amount` back for a dispute; returns how much there was to keep.
    function hold(bytes32 disputeId, uint128 amount) external onlyArbiter nonReentrant returns (uint128 kept) {
        if (holds[disputeId] != 0) revert HoldExists(disputeId);
        _sync();
        uint128 unheld = _queued + _ready - _spent - _held;
        kept = amount < unheld ? amount : unheld;
        holds[disputeId] = kept;
        _held += kept;
        emit Held(disputeId, kept);
    }

    /// @notice Ends a hold in the provider's favour.
    function free(bytes32 disputeId) external onlyArbiter nonReentrant {
        uint128 amount = holds[disputeId];
        if (amount == 0) revert NoHold(disputeId);
        delete holds[disputeId];
        _held -= amount;
        emit Freed(disputeId, amount);
    }

    /// @notice Pays a part of a hold to whom the dispute found right; the rest stays held.
    function award(bytes32 disputeId, address to, uint128 amount) external onlyArbiter nonReentrant {
        uint128 held = holds[disputeId];
        if (held == 0) revert NoHold(disputeId);
        if (amount > held) revert AboveHold(disputeId, amount, held);
        _award(disputeId, to, amount, held);
    }

    /// @notice Pays all of a hold; nothing, where a dispute found nothing to hold.
    function take(bytes32 disputeId, address to) external onlyArbiter nonReentrant returns (uint128 held) {
        held = holds[disputeId];
        if (held > 0) _award(disputeId, to, held, held);
    }

    // ---------------------------------------------------------------- inside

    function _award(bytes32 disputeId, address to, uint128 amount, uint128 held) private {
        holds[disputeId] = held - amount;
        _held -= amount;
        _spent += amount;
        emit Awarded(disputeId, to, amount);
        TOKEN.safeTransfer(to, amount);
    }

    function _sync() private {
        uint128 amount = _unnoticed();
        if (amount == 0) return;
        uint64 releaseAt = _releaseAt();
        uint256 length = _queue.length;
        _queued += amount;
        if (length > _head && _queue[length - 1].releaseAt == releaseAt) {
            _queue[length - 1].amount += amount;
        } else {
            _queue.push(Tranche(amount, releaseAt));
        }
        emit Received(amount, releaseAt);
    }

    function _unnoticed() private view returns (uint128) {
        uint256 balance = TOKEN.balanceOf(address(this));
        uint256 known = uint256(_queued) + _ready - _spent;
        return balance > known ? SafeCast.toUint128(balance - known) : 0;
    }

    function _releaseAt() private view returns (uint64) {
        uint64 earliest = uint64(block.timestamp) + CHALLENGE_WINDOW;
        return (earliest + GRAIN - 1) / GRAIN * GRAIN;
    }

    /// @dev Awards that were paid ahead come out of what has matured.
    function _afterAwards(uint128 ready, uint128 spent) private pure returns (uint128, uint128) {
        uint128 paid = ready < spent ? ready : spent;
        return (ready - paid, spent - paid);
    }
}
