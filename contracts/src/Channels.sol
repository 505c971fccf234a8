// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {SignatureChecker} from "@openzeppelin/contracts/utils/cryptography/SignatureChecker.sol";
import {Multicall} from "@openzeppelin/contracts/utils/Multicall.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";

import {IDepositCollector} from "./interfaces/IDepositCollector.sol";

/// @title One-way payment channels with cumulative vouchers.
/// @notice Speaks the interface, the events and the signatures of x402's `batch-settlement` scheme,
///         so that official clients pay through it where the canonical contract is not deployed.
///
///         A payer deposits once and then signs vouchers off-chain: "the receiver may have up to
///         this much in all, ever". The receiver's side claims what it really charged, at any time
///         and many channels at once; claimed money is settled to the receiver by anybody.
///         What is not claimed goes back to the payer: at once with the receiver's consent, and
///         without it after a delay that both agreed on.
///
///         There is no owner, no fee, no upgrade. `balance - totalClaimed` of a channel is the
///         payer's; `totalClaimed - totalSettled` of a receiver is the receiver's; nothing else
///         is in here.
/// @dev Fee-on-transfer tokens are refused at the deposit. A rebasing token that shrinks would make
///      the contract insolvent for that token, and for no other: do not use one.
contract Channels is EIP712, Multicall, ReentrancyGuardTransient {
    using SafeERC20 for IERC20;

    /// @notice What a channel is, for good; its EIP-712 hash is the channel's id.
    struct ChannelConfig {
        /// Whose money it is.
        address payer;
        /// The key that signs vouchers; zero means the payer itself, which may be a contract.
        address payerAuthorizer;
        /// Where settled money goes.
        address receiver;
        /// Signs claims and refunds for the receiver; may be a contract.
        address receiverAuthorizer;
        address token;
        /// Seconds between asking for unclaimed money and having it.
        uint40 withdrawDelay;
        /// Tells the channels between the same parties apart.
        bytes32 salt;
    }

    struct Channel {
        uint128 balance;
        uint128 totalClaimed;
    }

    struct Withdrawal {
        uint128 amount;
        uint40 initiatedAt;
    }

    struct Receiver {
        uint128 totalClaimed;
        uint128 totalSettled;
    }

    struct Voucher {
        ChannelConfig channel;
        uint128 maxClaimableAmount;
    }

    /// @notice A signed voucher, and how much of it the receiver takes: a total, not a step, so
    ///         that claiming twice changes nothing.
    struct VoucherClaim {
        Voucher voucher;
        bytes signature;
        uint128 totalClaimed;
    }

    /// @notice The shortest delay that a channel may name, in seconds.
    uint40 public constant MIN_WITHDRAW_DELAY = 15 minutes;
    /// @notice The longest.
    uint40 public constant MAX_WITHDRAW_DELAY = 30 days;

    /// @notice EIP-712 types, as x402 has them.
    bytes32 public constant CHANNEL_CONFIG_TYPEHASH = keccak256(
        "ChannelConfig(address payer,address payerAuthorizer,address receiver,address receiverAuthorizer,address token,uint40 withdrawDelay,bytes32 salt)"
    );
    /// @notice What a payer signs.
    bytes32 public constant VOUCHER_TYPEHASH = keccak256("Voucher(bytes32 channelId,uint128 maxClaimableAmount)");
    /// @notice What a receiver's authorizer signs to give money back.
    bytes32 public constant REFUND_TYPEHASH = keccak256("Refund(bytes32 channelId,uint256 nonce,uint128 amount)");
    /// @notice One row of a batch.
    bytes32 public constant CLAIM_ENTRY_TYPEHASH =
        keccak256("ClaimEntry(bytes32 channelId,uint128 maxClaimableAmount,uint128 totalClaimed)");
    /// @notice What a receiver's authorizer signs to claim.
    bytes32 public constant CLAIM_BATCH_TYPEHASH = keccak256(
        "ClaimBatch(ClaimEntry[] claims)ClaimEntry(bytes32 channelId,uint128 maxClaimableAmount,uint128 totalClaimed)"
    );

    /// @notice The money of a channel: all deposits less what went back, and what was claimed of it.
    mapping(bytes32 channelId => Channel) public channels;
    /// @notice Counts refunds, so that each signed one works once.
    mapping(bytes32 channelId => uint256) public refundNonce;
    /// @notice What a payer has asked for and not taken yet; all zero where nothing is pending.
    mapping(bytes32 channelId => Withdrawal) public pendingWithdrawals;
    /// @notice What all channels of a receiver owe it and have paid it.
    mapping(address receiver => mapping(address token => Receiver)) public receivers;

    /// @notice A channel that held nothing holds money now.
    event ChannelCreated(bytes32 indexed channelId, ChannelConfig config);
    /// @notice All that a channel held went back.
    event ChannelClosed(bytes32 indexed channelId, ChannelConfig config);
    /// @notice Money came in; `newBalance` counts what was claimed of it too.
    event Deposited(bytes32 indexed channelId, address indexed sender, uint128 amount, uint128 newBalance);
    /// @notice A part of a channel became its receiver's.
    event Claimed(bytes32 indexed channelId, address indexed sender, uint128 claimAmount, uint128 newTotalClaimed);
    /// @notice What was claimed went to its receiver.
    event Settled(address indexed receiver, address indexed token, address indexed sender, uint128 amount);
    /// @notice The refund nonce moved by one, and this much went back, out of a pending withdrawal first.
    event Refunded(bytes32 indexed channelId, address indexed sender, uint128 amount);
    /// @notice A payer asked for unclaimed money.
    event WithdrawInitiated(bytes32 indexed channelId, uint128 amount, uint40 finalizeAfter);
    /// @notice And took it, or what was left of it.
    event WithdrawFinalized(bytes32 indexed channelId, address indexed sender, uint128 amount);

    /// @notice A config has a hole.
    error ZeroAddress();
    /// @notice The delay is not between the bounds.
    error WithdrawDelayOutOfRange(uint40 delay);
    /// @notice Nothing was asked for.
    error ZeroAmount();
    /// @notice A batch of no claims.
    error EmptyBatch();
    /// @notice The collector brought another amount: the token takes a fee, or the collector lied.
    error DepositNotReceived(uint256 expected, uint256 received);
    /// @notice The voucher's signature is not its signer's.
    error InvalidVoucherSignature(bytes32 channelId, address expectedSigner);
    /// @notice The signature is not that of the receiver's authorizer.
    error InvalidAuthorizerSignature(address expectedSigner);
    /// @notice Two authorizers in one batch.
    error MixedAuthorizers(address expected, address got);
    /// @notice The caller is neither receiver nor its authorizer.
    error NotReceiverSide(bytes32 channelId, address caller);
    /// @notice The caller is neither payer nor its authorizer.
    error NotPayerSide(bytes32 channelId, address caller);
    /// @notice More is claimed than was signed for.
    error ClaimAboveVoucher(bytes32 channelId, uint128 claimed, uint128 voucher);
    /// @notice More is claimed than was deposited.
    error ClaimAboveBalance(bytes32 channelId, uint128 claimed, uint128 balance);
    /// @notice One withdrawal at a time.
    error WithdrawalPending(bytes32 channelId, uint40 initiatedAt);
    /// @notice None was asked for.
    error NoWithdrawalPending(bytes32 channelId);
    /// @notice The delay is not over.
    error WithdrawTooEarly(bytes32 channelId, uint40 readyAt);
    /// @notice More is asked for than is unclaimed.
    error WithdrawAboveAvailable(bytes32 channelId, uint128 amount, uint128 available);
    /// @notice The refund was used, or its turn has not come.
    error WrongRefundNonce(bytes32 channelId, uint256 expected, uint256 got);

    constructor() EIP712("x402 Batch Settlement", "1") {}

    // ---------------------------------------------------------------- money in

    /// @notice Adds to a channel, which opens with its first deposit. Anybody may submit it; the
    ///         collector proves that the payer agreed.
    /// @dev A hostile collector harms nobody: the channel is credited only by what arrived here
    ///      during the call, and the guard keeps every other door shut meanwhile.
    function deposit(ChannelConfig calldata config, uint128 amount, address collector, bytes calldata collectorData)
        external
        nonReentrant
    {
        if (
            config.payer == address(0) || config.receiver == address(0) || config.receiverAuthorizer == address(0)
                || config.token == address(0) || collector == address(0)
        ) revert ZeroAddress();
        if (config.withdrawDelay < MIN_WITHDRAW_DELAY || config.withdrawDelay > MAX_WITHDRAW_DELAY) {
            revert WithdrawDelayOutOfRange(config.withdrawDelay);
        }
        if (amount == 0) revert ZeroAmount();

        bytes32 channelId = getChannelId(config);
        IERC20 token = IERC20(config.token);
        uint256 before = token.balanceOf(address(this));
        IDepositCollector(collector).collect(config.payer, config.token, amount, channelId, collectorData);
        // Checked arithmetic refuses a token whose balance shrank.
        uint256 received = token.balanceOf(address(this)) - before;
        if (received != amount) revert DepositNotReceived(amount, received);

        Channel storage channel = channels[channelId];
        if (channel.balance == 0) emit ChannelCreated(channelId, config);
        uint128 balance = channel.balance + amount;
        channel.balance = balance;
        emit Deposited(channelId, msg.sender, amount, balance);
    }

    // ---------------------------------------------------------------- money to the receiver

    /// @notice Cashes vouchers. The caller must be receiver or receiver's authorizer of each channel.
    function claim(VoucherClaim[] calldata voucherClaims) external nonReentrant {
        uint256 count = voucherClaims.length;
        if (count == 0) revert EmptyBatch();
        for (uint256 i = 0; i < count; ++i) {
            ChannelConfig calldata config = voucherClaims[i].voucher.channel;
            bytes32 channelId = getChannelId(config);
            _requireReceiverSide(channelId, config);
            _claim(channelId, voucherClaims[i]);
        }
    }

    /// @notice Cashes vouchers with the signature of the receiver's authorizer, who must be the
    ///         same for all of them. Anybody may submit it, so that an empty gas wallet never
    ///         keeps a receiver from its money.
    function claimWithSignature(VoucherClaim[] calldata voucherClaims, bytes calldata authorizerSignature)
        external
        nonReentrant
    {
        uint256 count = voucherClaims.length;
        if (count == 0) revert EmptyBatch();
        address authorizer = voucherClaims[0].voucher.channel.receiverAuthorizer;
        (bytes32 digest, bytes32[] memory channelIds) = _claimBatchDigest(voucherClaims);
        if (!SignatureChecker.isValidSignatureNow(authorizer, digest, authorizerSignature)) {
            revert InvalidAuthorizerSignature(authorizer);
        }
        for (uint256 i = 0; i < count; ++i) {
            address own = voucherClaims[i].voucher.channel.receiverAuthorizer;
            if (own != authorizer) revert MixedAuthorizers(authorizer, own);
            _claim(channelIds[i], voucherClaims[i]);
        }
    }

    /// @notice Moves what was claimed for a receiver to it. Anybody may.
    function settle(address receiver, address token) external nonReentrant {
        Receiver storage account = receivers[receiver][token];
        uint128 amount = account.totalClaimed - account.totalSettled;
        if (amount == 0) return;
        account.totalSettled = account.totalClaimed;
        emit Settled(receiver, token, msg.sender, amount);
        IERC20(token).safeTransfer(receiver, amount);
    }

    // ---------------------------------------------------------------- money back to the payer

    /// @notice Asks for unclaimed money. The receiver's side has the channel's delay to claim what
    ///         it is owed; a voucher that is not claimed by then may be worth nothing.
    function initiateWithdraw(ChannelConfig calldata config, uint128 amount) external nonReentrant {
        bytes32 channelId = getChannelId(config);
        _requirePayerSide(channelId, config);
        if (amount == 0) revert ZeroAmount();
        Withdrawal storage withdrawal = pendingWithdrawals[channelId];
        if (withdrawal.initiatedAt != 0) revert WithdrawalPending(channelId, withdrawal.initiatedAt);
        uint128 available = _available(channelId);
        if (amount > available) revert WithdrawAboveAvailable(channelId, amount, available);
        withdrawal.amount = amount;
        withdrawal.initiatedAt = uint40(block.timestamp);
        emit WithdrawInitiated(channelId, amount, uint40(block.timestamp) + config.withdrawDelay);
    }

    /// @notice Takes the money after the delay: what was asked for, or what is still unclaimed.
    function finalizeWithdraw(ChannelConfig calldata config) external nonReentrant {
        bytes32 channelId = getChannelId(config);
        _requirePayerSide(channelId, config);
        Withdrawal memory withdrawal = pendingWithdrawals[channelId];
        if (withdrawal.initiatedAt == 0) revert NoWithdrawalPending(channelId);
        uint40 readyAt = withdrawal.initiatedAt + config.withdrawDelay;
        if (block.timestamp < readyAt) revert WithdrawTooEarly(channelId, readyAt);
        delete pendingWithdrawals[channelId];
        uint128 amount = _min(withdrawal.amount, _available(channelId));
        emit WithdrawFinalized(channelId, msg.sender, amount);
        _giveBack(channelId, config, amount);
    }

    /// @notice Gives unclaimed money back at once; the caller must be of the receiver's side.
    function refund(ChannelConfig calldata config, uint128 amount) external nonReentrant {
        bytes32 channelId = getChannelId(config);
        _requireReceiverSide(channelId, config);
        _refund(channelId, config, amount);
    }

    /// @notice The same with the signature of the receiver's authorizer; anybody may submit it.
    /// @dev `multicall` of `claimWithSignature` and this closes a channel in one transaction.
    function refundWithSignature(
        ChannelConfig calldata config,
        uint128 amount,
        uint256 nonce,
        bytes calldata receiverAuthorizerSignature
    ) external nonReentrant {
        bytes32 channelId = getChannelId(config);
        if (nonce != refundNonce[channelId]) revert WrongRefundNonce(channelId, refundNonce[channelId], nonce);
        bytes32 digest = getRefundDigest(channelId, nonce, amount);
        if (!SignatureChecker.isValidSignatureNow(config.receiverAuthorizer, digest, receiverAuthorizerSignature)) {
            revert InvalidAuthorizerSignature(config.receiverAuthorizer);
        }
        _refund(channelId, config, amount);
    }

    // ---------------------------------------------------------------- digests

    /// @notice The channel's id: bound to this chain and this contract, so that a voucher for
    ///         another one is for another channel.
    function getChannelId(ChannelConfig calldata config) public view returns (bytes32) {
        return _hashTypedDataV4(keccak256(abi.encode(CHANNEL_CONFIG_TYPEHASH, config)));
    }

    /// @notice What the payer's side signs.
    function getVoucherDigest(bytes32 channelId, uint128 maxClaimableAmount) public view returns (bytes32) {
        return _hashTypedDataV4(keccak256(abi.encode(VOUCHER_TYPEHASH, channelId, maxClaimableAmount)));
    }

    /// @notice What the receiver's authorizer signs to give money back.
    function getRefundDigest(bytes32 channelId, uint256 nonce, uint128 amount) public view returns (bytes32) {
        return _hashTypedDataV4(keccak256(abi.encode(REFUND_TYPEHASH, channelId, nonce, amount)));
    }

    /// @notice What the receiver's authorizer signs to have a batch claimed.
    function getClaimBatchDigest(VoucherClaim[] calldata voucherClaims) external view returns (bytes32 digest) {
        (digest,) = _claimBatchDigest(voucherClaims);
    }

    // ---------------------------------------------------------------- inside

    /// @dev A total at or below what is claimed already is no error: relays may overlap.
    function _claim(bytes32 channelId, VoucherClaim calldata entry) private {
        Channel storage channel = channels[channelId];
        uint128 claimed = channel.totalClaimed;
        uint128 total = entry.totalClaimed;
        if (total <= claimed) return;
        uint128 most = entry.voucher.maxClaimableAmount;
        if (total > most) revert ClaimAboveVoucher(channelId, total, most);
        if (total > channel.balance) revert ClaimAboveBalance(channelId, total, channel.balance);
        ChannelConfig calldata config = entry.voucher.channel;
        _requireVoucherSignature(channelId, config, most, entry.signature);
        channel.totalClaimed = total;
        receivers[config.receiver][config.token].totalClaimed += total - claimed;
        emit Claimed(channelId, msg.sender, total - claimed, total);
    }

    /// @dev ECDSA refuses the malleable twin of a signature; a payer that is a contract is asked
    ///      by EIP-1271, but only where no authorizer key is named.
    function _requireVoucherSignature(
        bytes32 channelId,
        ChannelConfig calldata config,
        uint128 most,
        bytes calldata signature
    ) private view {
        bytes32 digest = getVoucherDigest(channelId, most);
        address signer = config.payerAuthorizer;
        if (signer == address(0)) {
            if (SignatureChecker.isValidSignatureNow(config.payer, digest, signature)) return;
            revert InvalidVoucherSignature(channelId, config.payer);
        }
        (address recovered, ECDSA.RecoverError failed,) = ECDSA.tryRecoverCalldata(digest, signature);
        if (failed != ECDSA.RecoverError.NoError || recovered != signer) {
            revert InvalidVoucherSignature(channelId, signer);
        }
    }

    /// @dev Takes at most what is unclaimed. The nonce moves even when nothing is left to give, so
    ///      that a signed refund never lies in wait for a later deposit; and says so, with an amount of
    ///      zero.
    function _refund(bytes32 channelId, ChannelConfig calldata config, uint128 asked) private {
        if (asked == 0) revert ZeroAmount();
        ++refundNonce[channelId];
        uint128 amount = _min(asked, _available(channelId));
        emit Refunded(channelId, msg.sender, amount);
        if (amount == 0) return;
        // A refund serves a pending withdrawal first.
        Withdrawal storage withdrawal = pendingWithdrawals[channelId];
        if (withdrawal.initiatedAt != 0) {
            if (amount >= withdrawal.amount) delete pendingWithdrawals[channelId];
            else withdrawal.amount -= amount;
        }
        _giveBack(channelId, config, amount);
    }

    function _giveBack(bytes32 channelId, ChannelConfig calldata config, uint128 amount) private {
        Channel storage channel = channels[channelId];
        channel.balance -= amount;
        if (channel.balance == 0) emit ChannelClosed(channelId, config);
        if (amount > 0) IERC20(config.token).safeTransfer(config.payer, amount);
    }

    /// @dev Never negative: a claim is bounded by the balance, and only unclaimed money leaves it.
    function _available(bytes32 channelId) private view returns (uint128) {
        Channel storage channel = channels[channelId];
        return channel.balance - channel.totalClaimed;
    }

    function _requireReceiverSide(bytes32 channelId, ChannelConfig calldata config) private view {
        if (msg.sender != config.receiver && msg.sender != config.receiverAuthorizer) {
            revert NotReceiverSide(channelId, msg.sender);
        }
    }

    /// @dev An authorizer of zero is nobody: no transaction comes from the zero address.
    function _requirePayerSide(bytes32 channelId, ChannelConfig calldata config) private view {
        if (msg.sender != config.payer && msg.sender != config.payerAuthorizer) {
            revert NotPayerSide(channelId, msg.sender);
        }
    }

    function _claimBatchDigest(VoucherClaim[] calldata voucherClaims)
        private
        view
        returns (bytes32 digest, bytes32[] memory channelIds)
    {
        uint256 count = voucherClaims.length;
        channelIds = new bytes32[](count);
        bytes32[] memory entries = new bytes32[](count);
        for (uint256 i = 0; i < count; ++i) {
            VoucherClaim calldata entry = voucherClaims[i];
            channelIds[i] = getChannelId(entry.voucher.channel);
            entries[i] = keccak256(
                abi.encode(CLAIM_ENTRY_TYPEHASH, channelIds[i], entry.voucher.maxClaimableAmount, entry.totalClaimed)
            );
        }
        digest = _hashTypedDataV4(keccak256(abi.encode(CLAIM_BATCH_TYPEHASH, keccak256(abi.encodePacked(entries)))));
    }

    function _min(uint128 a, uint128 b) private pure returns (uint128) {
        return a < b ? a : b;
    }
}
