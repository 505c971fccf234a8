// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Clones} from "@openzeppelin/contracts/proxy/Clones.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {Multicall} from "@openzeppelin/contracts/utils/Multicall.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import {EnumerableSet} from "@openzeppelin/contracts/utils/structs/EnumerableSet.sol";

import {Channels} from "./Channels.sol";
import {PayoutVault} from "./PayoutVault.sol";
import {IERC3009} from "./interfaces/IERC3009.sol";

/// @title The root of discovery: who serves what, where, with which key, and with what at stake.
/// @notice Permissionless. A provider is its owner's address, a key that can stay cold; offers and
///         receipts are signed with a hot offer key that the owner names and replaces. Retired keys
///         are remembered, so that no receipt loses its author by a rotation.
///
///         Only the arbiter, fixed at deployment, can slash and jail; the zero address means that
///         nobody can. There is no owner, no pause, no upgrade.
/// @dev Stake is in the market's stablecoin. Providers below `MIN_STAKE` stay known but are not
///      listed: listing oneself a thousand times costs a thousand stakes. Nor are those in jail,
///      whatever their stake.
contract Registry is Multicall, ReentrancyGuardTransient {
    using SafeERC20 for IERC20;
    using EnumerableSet for EnumerableSet.AddressSet;

    /// @notice A provider as readers see it; all zero but `provider` and `vault` if unknown.
    struct Provider {
        address provider;
        address vault;
        address offerKey;
        address payout;
        uint128 stake;
        uint128 unbonding;
        uint64 unbondingReadyAt;
        bool active;
        string endpoint;
        bytes32[] models;
    }

    /// @dev Small counts stand beside the addresses, so that they cost no slot of their own.
    struct Record {
        address offerKey;
        /// Convictions, ever.
        uint32 convictions;
        address payout;
        /// Open disputes.
        uint32 locks;
        /// When the provider may leave jail; zero where it is in none.
        uint64 jailedUntil;
        uint128 stake;
        uint128 unbonding;
        uint64 unbondingReadyAt;
        string endpoint;
        bytes32[] models;
    }

    /// @notice When a key signed for a provider.
    struct Span {
        uint64 since;
        uint64 until;
    }

    /// @notice The longest endpoint.
    uint256 public constant ENDPOINT_BYTES_MOST = 256;
    /// @notice The most models of one provider.
    uint256 public constant MODELS_MOST = 64;

    /// @notice The market's stablecoin.
    IERC20 public immutable TOKEN;
    /// @notice Where payers pay through.
    Channels public immutable CHANNELS;
    /// @notice The dispute contract; zero means that stakes and payouts are never taken.
    address public immutable ARBITER;
    /// @notice What every vault is a clone of.
    PayoutVault public immutable VAULT_IMPLEMENTATION;
    /// @notice Below this, a provider is not listed.
    uint128 public immutable MIN_STAKE;
    /// @notice Seconds until stake that was asked for may leave; also the length of a jail.
    uint64 public immutable UNBONDING_PERIOD;
    /// @notice Seconds after its service for which an answer can be disputed, and for which a vault keeps
    ///         money.
    uint64 public immutable CHALLENGE_WINDOW;

    mapping(address provider => Record) private _records;
    /// @notice When a key signed for a provider; `since` is zero where it never did.
    mapping(address provider => mapping(address key => Span)) public offerKeys;
    EnumerableSet.AddressSet private _active;

    /// @notice A provider entered the market, and its vault was made.
    event Registered(address indexed provider, address vault);
    /// @notice Where it serves.
    event EndpointSet(address indexed provider, string endpoint);
    /// @notice What it serves, all of it.
    event ModelsSet(address indexed provider, bytes32[] models);
    /// @notice Where its released money goes.
    event PayoutSet(address indexed provider, address payout);
    /// @notice A key signs for a provider from this second on.
    event OfferKeyAdded(address indexed provider, address indexed key);
    /// @notice And up to this second.
    event OfferKeyRetired(address indexed provider, address indexed key);
    /// @notice Stake came in.
    event Staked(address indexed provider, uint128 amount, uint128 stake);
    /// @notice Stake is on its way out: `unbonding` in all, from `readyAt` on.
    event UnbondingStarted(address indexed provider, uint128 amount, uint128 unbonding, uint64 readyAt);
    /// @notice Stake that had unbonded left.
    event StakeWithdrawn(address indexed provider, uint128 amount);
    /// @notice The arbiter took stake, bonded first, then unbonding.
    event Slashed(address indexed provider, address indexed to, uint128 amount);
    /// @notice A conviction, and how long the provider is off the list for it.
    event Jailed(address indexed provider, uint32 convictions, uint64 until);
    /// @notice The provider may be listed again.
    event ReleasedFromJail(address indexed provider);

    /// @notice An address is missing.
    error ZeroAddress();
    /// @notice Nothing was asked for.
    error ZeroAmount();
    /// @notice Once is enough.
    error AlreadyRegistered(address provider);
    /// @notice No such provider.
    error NotRegistered(address provider);
    /// @notice Longer than `ENDPOINT_BYTES_MOST`.
    error EndpointTooLong(uint256 length, uint256 most);
    /// @notice More than `MODELS_MOST`.
    error TooManyModels(uint256 count, uint256 most);
    /// @notice A key is used for one span of time.
    error OfferKeyKnown(address provider, address key);
    /// @notice The token takes a fee.
    error StakeNotReceived(uint256 expected, uint256 received);
    /// @notice More is asked for than is bonded.
    error AboveStake(address provider, uint128 amount, uint128 stake);
    /// @notice Nothing was asked for.
    error NothingUnbonding(address provider);
    /// @notice The unbonding is not over.
    error StillUnbonding(address provider, uint64 readyAt);
    /// @notice Disputes are open.
    error StakeLocked(address provider, uint32 disputes);
    /// @notice The provider is in no jail.
    error NotJailed(address provider);
    /// @notice Its time is not over.
    error StillJailed(address provider, uint64 until);
    /// @notice It takes the minimum stake to be listed again.
    error BelowMinimum(address provider, uint128 stake, uint128 least);
    /// @notice Only the arbiter may.
    error NotArbiter(address caller);
    /// @notice A stake that leaves before the window closes secures nothing.
    error WindowOutlivesUnbonding(uint64 window, uint64 unbonding);

    modifier onlyRegistered() {
        if (_records[msg.sender].offerKey == address(0)) revert NotRegistered(msg.sender);
        _;
    }

    modifier onlyArbiter() {
        if (msg.sender != ARBITER) revert NotArbiter(msg.sender);
        _;
    }

    /// @dev A stake that could leave before the window closes would secure nothing.
    constructor(
        IERC20 token,
        Channels channels,
        address arbiter,
        uint128 minStake,
        uint64 unbondingPeriod,
        uint64 challengeWindow
    ) {
        if (address(token) == address(0) || address(channels) == address(0)) {
            revert ZeroAddress();
        }
        if (challengeWindow >= unbondingPeriod) revert WindowOutlivesUnbonding(challengeWindow, unbondingPeriod);
        TOKEN = token;
        CHANNELS = channels;
        ARBITER = arbiter;
        MIN_STAKE = minStake;
        UNBONDING_PERIOD = unbondingPeriod;
        CHALLENGE_WINDOW = challengeWindow;
        VAULT_IMPLEMENTATION = new PayoutVault(channels, token, arbiter, challengeWindow);
    }

    // ---------------------------------------------------------------- the provider's moves

    /// @notice Enters the market and makes the caller's vault. Stake follows with `stake` or
    ///         `stakeWithAuthorization`, in the same transaction by `multicall`.
    function register(address offerKey, address payout, string calldata endpoint, bytes32[] calldata models)
        external
        nonReentrant
    {
        Record storage record = _records[msg.sender];
        if (record.offerKey != address(0)) revert AlreadyRegistered(msg.sender);
        address vault = Clones.cloneDeterministicWithImmutableArgs(
            address(VAULT_IMPLEMENTATION), abi.encode(msg.sender), bytes32(0)
        );
        emit Registered(msg.sender, vault);
        _addOfferKey(record, offerKey);
        _setPayout(record, payout);
        _setEndpoint(record, endpoint);
        _setModels(record, models);
        // A minimum of zero lists everybody who registers.
        _list(msg.sender, record);
    }

    /// @notice Says where the caller serves.
    function setEndpoint(string calldata endpoint) external onlyRegistered {
        _setEndpoint(_records[msg.sender], endpoint);
    }

    /// @notice Says what the caller serves; replaces what it said before.
    function setModels(bytes32[] calldata models) external onlyRegistered {
        _setModels(_records[msg.sender], models);
    }

    /// @notice Says where the caller's released money goes from now on.
    function setPayout(address payout) external onlyRegistered {
        _setPayout(_records[msg.sender], payout);
    }

    /// @notice Retires the offer key and names another. A key that was used once is never used
    ///         again, so that its span has one beginning and one end.
    function rotateOfferKey(address offerKey) external onlyRegistered {
        Record storage record = _records[msg.sender];
        offerKeys[msg.sender][record.offerKey].until = uint64(block.timestamp);
        emit OfferKeyRetired(msg.sender, record.offerKey);
        _addOfferKey(record, offerKey);
    }

    /// @notice Adds to the caller's stake out of an allowance.
    function stake(uint128 amount) external nonReentrant onlyRegistered {
        uint256 before = TOKEN.balanceOf(address(this));
        TOKEN.safeTransferFrom(msg.sender, address(this), amount);
        _stake(msg.sender, amount, before);
    }

    /// @notice Adds to a provider's stake out of its own EIP-3009 authorization to this contract.
    ///         Anybody may submit it: the money is the provider's and becomes the provider's stake.
    function stakeWithAuthorization(
        address provider,
        uint128 amount,
        uint256 validAfter,
        uint256 validBefore,
        bytes32 nonce,
        bytes calldata signature
    ) external nonReentrant {
        if (_records[provider].offerKey == address(0)) revert NotRegistered(provider);
        uint256 before = TOKEN.balanceOf(address(this));
        IERC3009(address(TOKEN))
            .receiveWithAuthorization(provider, address(this), amount, validAfter, validBefore, nonce, signature);
        _stake(provider, amount, before);
    }

    /// @notice Starts to take stake out. What unbonds can still be slashed; asking for more starts
    ///         the clock of all of it anew.
    function unbond(uint128 amount) external onlyRegistered {
        if (amount == 0) revert ZeroAmount();
        Record storage record = _records[msg.sender];
        if (amount > record.stake) revert AboveStake(msg.sender, amount, record.stake);
        record.stake -= amount;
        record.unbonding += amount;
        record.unbondingReadyAt = uint64(block.timestamp) + UNBONDING_PERIOD;
        emit UnbondingStarted(msg.sender, amount, record.unbonding, record.unbondingReadyAt);
        _list(msg.sender, record);
    }

    /// @notice Pays what has unbonded to the owner, once no dispute is open.
    function withdrawStake() external nonReentrant onlyRegistered {
        Record storage record = _records[msg.sender];
        uint128 amount = record.unbonding;
        if (amount == 0) revert NothingUnbonding(msg.sender);
        if (block.timestamp < record.unbondingReadyAt) revert StillUnbonding(msg.sender, record.unbondingReadyAt);
        if (record.locks != 0) revert StakeLocked(msg.sender, record.locks);
        record.unbonding = 0;
        record.unbondingReadyAt = 0;
        emit StakeWithdrawn(msg.sender, amount);
        TOKEN.safeTransfer(msg.sender, amount);
    }

    /// @notice Leaves jail once its time is over, with the minimum stake in place, and is listed again.
    function release() external onlyRegistered {
        Record storage record = _records[msg.sender];
        uint64 until = record.jailedUntil;
        if (until == 0) revert NotJailed(msg.sender);
        if (block.timestamp < until) revert StillJailed(msg.sender, until);
        if (record.stake < MIN_STAKE) revert BelowMinimum(msg.sender, record.stake, MIN_STAKE);
        record.jailedUntil = 0;
        emit ReleasedFromJail(msg.sender);
        _list(msg.sender, record);
    }

    // ---------------------------------------------------------------- the arbiter's moves

    /// @notice Keeps a provider's stake in for the length of a dispute. Answers its vault, where the
    ///         dispute goes next.
    function lock(address provider) external onlyArbiter returns (address vault) {
        _records[provider].locks += 1;
        return vaultOf(provider);
    }

    /// @notice Ends one lock.
    function unlock(address provider) external onlyArbiter returns (address vault) {
        _records[provider].locks -= 1;
        return vaultOf(provider);
    }

    /// @notice Takes up to `amount` of a provider's stake, bonded first, and returns what it took.
    function slash(address provider, uint128 amount, address to)
        external
        onlyArbiter
        nonReentrant
        returns (uint128 taken)
    {
        if (to == address(0)) revert ZeroAddress();
        Record storage record = _records[provider];
        uint128 bonded = amount < record.stake ? amount : record.stake;
        uint128 rest = amount - bonded;
        uint128 unbonding = rest < record.unbonding ? rest : record.unbonding;
        record.stake -= bonded;
        record.unbonding -= unbonding;
        taken = bonded + unbonding;
        emit Slashed(provider, to, taken);
        _list(provider, record);
        if (taken > 0) TOKEN.safeTransfer(to, taken);
    }

    /// @notice Counts a conviction and takes the provider off the list for the length of an unbonding,
    ///         from now on, and until it calls `release`. Takes no money.
    function jail(address provider) external onlyArbiter {
        Record storage record = _records[provider];
        uint64 until = uint64(block.timestamp) + UNBONDING_PERIOD;
        uint32 convictions = record.convictions + 1;
        (record.convictions, record.jailedUntil) = (convictions, until);
        emit Jailed(provider, convictions, until);
        _list(provider, record);
    }

    // ---------------------------------------------------------------- what readers ask

    /// @notice Everything about a provider but its disputes: `locksOf`, `convictionsOf`, `jailedUntil`.
    function getProvider(address provider) public view returns (Provider memory) {
        Record storage record = _records[provider];
        return Provider({
            provider: provider,
            vault: vaultOf(provider),
            offerKey: record.offerKey,
            payout: record.payout,
            stake: record.stake,
            unbonding: record.unbonding,
            unbondingReadyAt: record.unbondingReadyAt,
            active: _active.contains(provider),
            endpoint: record.endpoint,
            models: record.models
        });
    }

    /// @notice Where a provider's channels pay to; the same before and after it registers.
    function vaultOf(address provider) public view returns (address) {
        return Clones.predictDeterministicAddressWithImmutableArgs(
            address(VAULT_IMPLEMENTATION), abi.encode(provider), bytes32(0), address(this)
        );
    }

    /// @notice Where released money goes.
    function payoutOf(address provider) external view returns (address) {
        return _records[provider].payout;
    }

    /// @notice Open disputes about a provider's receipts: while there are any, no stake leaves.
    function locksOf(address provider) external view returns (uint32) {
        return _records[provider].locks;
    }

    /// @notice How many false receipts of a provider were proven, ever.
    function convictionsOf(address provider) external view returns (uint32) {
        return _records[provider].convictions;
    }

    /// @notice From when on a provider may leave jail; zero where it is in none.
    function jailedUntil(address provider) external view returns (uint64) {
        return _records[provider].jailedUntil;
    }

    /// @notice Whether `key` signed for `provider` at that time.
    function isOfferKey(address provider, address key, uint64 time) external view returns (bool) {
        Span memory span = offerKeys[provider][key];
        return span.since != 0 && span.since <= time && time <= span.until;
    }

    /// @notice How many providers are listed: registered, with the minimum stake, not in jail.
    function activeCount() external view returns (uint256) {
        return _active.length();
    }

    /// @notice A page of them. The order changes when one leaves: a reader that must not miss any
    ///         pages within one block.
    function activePage(uint256 start, uint256 count) external view returns (Provider[] memory page) {
        uint256 length = _active.length();
        if (start >= length) return page;
        if (count > length - start) count = length - start;
        page = new Provider[](count);
        for (uint256 i = 0; i < count; ++i) {
            page[i] = getProvider(_active.at(start + i));
        }
    }

    // ---------------------------------------------------------------- inside

    function _stake(address provider, uint128 amount, uint256 before) private {
        if (amount == 0) revert ZeroAmount();
        uint256 received = TOKEN.balanceOf(address(this)) - before;
        if (received != amount) revert StakeNotReceived(amount, received);
        Record storage record = _records[provider];
        record.stake += amount;
        emit Staked(provider, amount, record.stake);
        _list(provider, record);
    }

    function _list(address provider, Record storage record) private {
        bool listed = record.offerKey != address(0) && record.stake >= MIN_STAKE && record.jailedUntil == 0;
        if (listed) _active.add(provider);
        else _active.remove(provider);
    }

    function _addOfferKey(Record storage record, address key) private {
        if (key == address(0)) revert ZeroAddress();
        if (offerKeys[msg.sender][key].since != 0) revert OfferKeyKnown(msg.sender, key);
        offerKeys[msg.sender][key] = Span(uint64(block.timestamp), type(uint64).max);
        record.offerKey = key;
        emit OfferKeyAdded(msg.sender, key);
    }

    function _setPayout(Record storage record, address payout) private {
        if (payout == address(0)) revert ZeroAddress();
        record.payout = payout;
        emit PayoutSet(msg.sender, payout);
    }

    function _setEndpoint(Record storage record, string calldata endpoint) private {
        uint256 length = bytes(endpoint).length;
        if (length > ENDPOINT_BYTES_MOST) revert EndpointTooLong(length, ENDPOINT_BYTES_MOST);
        record.endpoint = endpoint;
        emit EndpointSet(msg.sender, endpoint);
    }

    function _setModels(Record storage record, bytes32[] calldata models) private {
        if (models.length > MODELS_MOST) revert TooManyModels(models.length, MODELS_MOST);
        record.models = models;
        emit ModelsSet(msg.sender, models);
    }
}
