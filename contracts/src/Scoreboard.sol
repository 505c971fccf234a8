// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {SignatureChecker} from "@openzeppelin/contracts/utils/cryptography/SignatureChecker.sol";

import {Channels} from "./Channels.sol";
import {Registry} from "./Registry.sol";

/// @title What payers and providers agree was served, added up per provider and weighed by payment.
/// @notice Permissionless. A record is the total of one channel since it opened, signed by the key
///         that signs the channel's vouchers; the provider signs the batch that it stands in. Only
///         what the channel really paid counts as revenue. A payer may report failures alone; then
///         they weigh as much as that payer has paid, and are counted apart.
///
///         Proves that a payer who paid so much, and the provider, agree on these numbers. A provider
///         may pay itself: weigh a score by stake and convictions. The rules are docs/settlement.md.
///
///         Holds no money; no owner, no pause, no upgrade.
/// @dev Of a channel only the hash of its last record is kept: a post brings that record along, which
///      is cheaper than storing it. No call leaves this contract but to the registry, the channels and
///      views of signers (EIP-1271, static).
contract Scoreboard is EIP712 {
    /// @notice The service on a channel since it opened: `protocol::ServiceRecord`, word by word.
    struct ServiceRecord {
        bytes32 channelId;
        /// The charges of the requests that are counted here.
        uint64 revenue;
        uint64 promptTokens;
        uint64 outputTokens;
        /// Requests that ended in a receipt.
        uint32 requests;
        /// Requests that were paid for and did not.
        uint32 failures;
        /// Eight counts of 32 bits, class 0 lowest: time to the first token below 100, 250, 500, 1,000,
        /// 2,000, 4,000, 8,000 ms and above; one a request.
        uint256 ttft;
        /// Pace below 2, 5, 10, 20, 40, 80, 160 tokens a second and above; at most one a request.
        uint256 speed;
    }

    /// @notice A record, the channel that it tells of, the record that was posted before it (all zero
    ///         for the first), and the payer's signature.
    struct Entry {
        Channels.ChannelConfig channel;
        ServiceRecord record;
        ServiceRecord previous;
        bytes payerSignature;
    }

    /// @notice A provider's records, added up.
    struct Totals {
        uint128 revenue;
        /// Of that, the part that failures spoiled: the sum over channels of
        /// `revenue * failures / (requests + failures)`, each rounded down.
        uint128 weightedFailures;
        uint128 promptTokens;
        uint128 outputTokens;
        uint64 requests;
        /// Failures that the provider signed for.
        uint64 failures;
        /// Failures that payers reported alone: anybody may, for nothing. Trust `weightedFailures`.
        uint64 reported;
        /// Records that were posted.
        uint64 records;
        uint256 ttft;
        uint256 speed;
    }

    /// @notice What payers sign.
    bytes32 public constant SERVICE_RECORD_TYPEHASH = keccak256(
        "ServiceRecord(bytes32 channelId,uint64 revenue,uint64 promptTokens,uint64 outputTokens,uint32 requests,uint32 failures,uint256 ttft,uint256 speed)"
    );
    /// @notice What providers sign.
    bytes32 public constant SERVICE_BATCH_TYPEHASH = keccak256(
        "ServiceBatch(ServiceRecord[] records)ServiceRecord(bytes32 channelId,uint64 revenue,uint64 promptTokens,uint64 outputTokens,uint32 requests,uint32 failures,uint256 ttft,uint256 speed)"
    );
    uint256 private constant CLASSES = 8;
    uint256 private constant PPM = 1_000_000;

    /// @notice Whose providers these are.
    Registry public immutable REGISTRY;
    /// @notice Where they were paid.
    Channels public immutable CHANNELS;
    /// @notice The market's stablecoin: what channels in other tokens pay weighs nothing.
    address public immutable TOKEN;

    /// @notice The struct hash of a channel's last posted record; zero before the first.
    mapping(bytes32 channelId => bytes32) public lastOf;
    mapping(address provider => Totals) private _totals;

    /// @notice A channel's totals are now these. With the record before it, this is all that changed.
    event Posted(address indexed provider, bytes32 indexed channelId, ServiceRecord record, bool counterSigned);

    /// @notice A batch of no records.
    error EmptyBatch();
    /// @notice The record tells of another channel.
    error WrongChannel(bytes32 expected, bytes32 got);
    /// @notice The channel does not pay to this provider's vault.
    error NotTheVault(bytes32 channelId, address receiver, address vault);
    /// @notice The channel is not in the market's money.
    error WrongToken(bytes32 channelId, address token);
    /// @notice Another record was posted last.
    error WrongPrevious(bytes32 channelId, bytes32 posted, bytes32 got);
    /// @notice This record was posted last.
    error NothingNew(bytes32 channelId);
    /// @notice Something that was counted before is missing.
    error Forgotten(bytes32 channelId);
    /// @notice The counts do not fit the requests.
    error Unsound(bytes32 channelId);
    /// @notice More revenue than the channel has paid.
    error AboveClaims(bytes32 channelId, uint64 revenue, uint128 claimed);
    /// @notice Without its provider, a payer may report failures and nothing else.
    error NotThePayers(bytes32 channelId);
    /// @notice The signature is not that of the key that signs the vouchers.
    error InvalidPayerSignature(bytes32 channelId, address expectedSigner);
    /// @notice The channel's authorizer never was an offer key of the provider.
    error NotOfferKey(address provider, address authorizer);
    /// @notice Two keys in one batch.
    error MixedAuthorizers(address expected, address got);
    /// @notice The signature under the batch is not the authorizer's.
    error InvalidProviderSignature(address expectedSigner);
    /// @notice There is no quantile of nothing.
    error NothingCounted(address provider);
    /// @notice A share is at most all of it.
    error PercentOutOfRange(uint256 percent);

    constructor(Registry registry) EIP712("Assay", "1") {
        REGISTRY = registry;
        CHANNELS = registry.CHANNELS();
        TOKEN = address(registry.TOKEN());
    }

    // ---------------------------------------------------------------- posting

    /// @notice Replaces the records of some of a provider's channels by newer ones: all or none.
    ///         Anybody may submit it.
    /// @param providerSignature Over the `ServiceBatch` of the records, by the offer key that every
    ///        entry's channel names as its receiver's authorizer. Empty where the payers speak alone:
    ///        then nothing but `failures` may have changed.
    function post(address provider, Entry[] calldata entries, bytes calldata providerSignature) external {
        if (entries.length == 0) revert EmptyBatch();
        bool counterSigned = providerSignature.length != 0;
        if (counterSigned) _requireProvider(provider, entries, providerSignature);
        address vault = REGISTRY.vaultOf(provider);
        Totals memory totals = _totals[provider];
        for (uint256 i = 0; i < entries.length; ++i) {
            Entry calldata entry = entries[i];
            _requireChannel(entry.channel, entry.record, vault);
            _replace(entry.record, entry.previous);
            if (!counterSigned) _requireOnlyFailures(entry.record, entry.previous);
            _requirePayer(entry.channel, entry.record, entry.payerSignature);
            _add(totals, entry.record, entry.previous, counterSigned);
            emit Posted(provider, entry.record.channelId, entry.record, counterSigned);
        }
        _totals[provider] = totals;
    }

    // ---------------------------------------------------------------- what readers ask

    /// @notice A provider's totals, and what the registry says of its honesty.
    function scoreOf(address provider)
        external
        view
        returns (Totals memory totals, uint32 convictions, uint64 jailedUntil)
    {
        return (_totals[provider], REGISTRY.convictionsOf(provider), REGISTRY.jailedUntil(provider));
    }

    /// @notice The part of a provider's revenue that no failure spoiled, in millionths, rounded down.
    ///         Zero where nothing was paid: nothing is known then.
    function successPpm(address provider) external view returns (uint256) {
        Totals storage totals = _totals[provider];
        uint256 revenue = totals.revenue;
        if (revenue == 0) return 0;
        return (revenue - totals.weightedFailures) * PPM / revenue;
    }

    /// @notice The class of time to the first token within which this share of requests was answered.
    function ttftQuantile(address provider, uint256 percent) external view returns (uint256 class) {
        return _quantile(provider, _totals[provider].ttft, percent);
    }

    /// @notice The class of pace that this share of requests did not exceed.
    function speedQuantile(address provider, uint256 percent) external view returns (uint256 class) {
        return _quantile(provider, _totals[provider].speed, percent);
    }

    /// @notice What a payer signs.
    function recordDigest(ServiceRecord calldata record) external view returns (bytes32) {
        return _hashTypedDataV4(structHash(record));
    }

    /// @notice What a provider signs.
    function batchDigest(ServiceRecord[] calldata records) external view returns (bytes32) {
        bytes32[] memory hashes = new bytes32[](records.length);
        for (uint256 i = 0; i < records.length; ++i) {
            hashes[i] = structHash(records[i]);
        }
        return _batchDigest(hashes);
    }

    /// @notice What is kept of a channel's last record.
    function structHash(ServiceRecord calldata record) public pure returns (bytes32) {
        return keccak256(abi.encode(SERVICE_RECORD_TYPEHASH, record));
    }

    // ---------------------------------------------------------------- inside: who and where

    /// @dev The authorizer must be, or have been, the provider's offer key: otherwise a payer could
    ///      open a channel that names a key of its own, and sign for both.
    function _requireProvider(address provider, Entry[] calldata entries, bytes calldata signature) private view {
        address authorizer = entries[0].channel.receiverAuthorizer;
        (uint64 since,) = REGISTRY.offerKeys(provider, authorizer);
        if (since == 0) revert NotOfferKey(provider, authorizer);
        bytes32[] memory hashes = new bytes32[](entries.length);
        for (uint256 i = 0; i < entries.length; ++i) {
            address own = entries[i].channel.receiverAuthorizer;
            if (own != authorizer) revert MixedAuthorizers(authorizer, own);
            hashes[i] = structHash(entries[i].record);
        }
        if (!SignatureChecker.isValidSignatureNow(authorizer, _batchDigest(hashes), signature)) {
            revert InvalidProviderSignature(authorizer);
        }
    }

    /// @dev The channel is the provider's, in the market's money, and has paid what the record says. In
    ///      a token of its own making anybody could pay anything.
    function _requireChannel(Channels.ChannelConfig calldata channel, ServiceRecord calldata record, address vault)
        private
        view
    {
        bytes32 channelId = CHANNELS.getChannelId(channel);
        if (channelId != record.channelId) revert WrongChannel(channelId, record.channelId);
        if (channel.receiver != vault) revert NotTheVault(channelId, channel.receiver, vault);
        if (channel.token != TOKEN) revert WrongToken(channelId, channel.token);
        (, uint128 claimed) = CHANNELS.channels(channelId);
        if (record.revenue > claimed) revert AboveClaims(channelId, record.revenue, claimed);
    }

    /// @dev As the channels check a voucher: an authorizer is a key; the payer may be a contract.
    function _requirePayer(
        Channels.ChannelConfig calldata channel,
        ServiceRecord calldata record,
        bytes calldata signature
    ) private view {
        bytes32 digest = _hashTypedDataV4(structHash(record));
        address signer = channel.payerAuthorizer;
        if (signer == address(0)) {
            if (SignatureChecker.isValidSignatureNow(channel.payer, digest, signature)) return;
            revert InvalidPayerSignature(record.channelId, channel.payer);
        }
        (address recovered, ECDSA.RecoverError failed,) = ECDSA.tryRecoverCalldata(digest, signature);
        if (failed != ECDSA.RecoverError.NoError || recovered != signer) {
            revert InvalidPayerSignature(record.channelId, signer);
        }
    }

    function _batchDigest(bytes32[] memory hashes) private view returns (bytes32) {
        return _hashTypedDataV4(keccak256(abi.encode(SERVICE_BATCH_TYPEHASH, keccak256(abi.encodePacked(hashes)))));
    }

    // ---------------------------------------------------------------- inside: the records

    /// @dev The previous record is the one that was posted last, and the new one forgets nothing of it.
    function _replace(ServiceRecord calldata record, ServiceRecord calldata previous) private {
        bytes32 channelId = record.channelId;
        bytes32 posted = lastOf[channelId];
        bytes32 before = _isZero(previous) ? bytes32(0) : structHash(previous);
        if (before != posted) revert WrongPrevious(channelId, posted, before);
        bytes32 hash = structHash(record);
        if (hash == posted) revert NothingNew(channelId);
        _requireSound(record, previous);
        lastOf[channelId] = hash;
    }

    function _isZero(ServiceRecord calldata r) private pure returns (bool) {
        return r.channelId == 0 && r.revenue == 0 && r.promptTokens == 0 && r.outputTokens == 0 && r.requests == 0
            && r.failures == 0 && r.ttft == 0 && r.speed == 0;
    }

    /// @dev Requests are what `ttft` sums to, so that none is forgotten where no count of it is.
    function _requireSound(ServiceRecord calldata record, ServiceRecord calldata previous) private pure {
        if (
            record.revenue < previous.revenue || record.promptTokens < previous.promptTokens
                || record.outputTokens < previous.outputTokens || record.failures < previous.failures
        ) revert Forgotten(record.channelId);
        uint256 ttft;
        uint256 speed;
        for (uint256 i = 0; i < CLASSES; ++i) {
            (uint256 slow, uint256 pace) = (_count(record.ttft, i), _count(record.speed, i));
            if (slow < _count(previous.ttft, i) || pace < _count(previous.speed, i)) {
                revert Forgotten(record.channelId);
            }
            ttft += slow;
            speed += pace;
        }
        if (ttft != record.requests || speed > record.requests) revert Unsound(record.channelId);
    }

    /// @dev Requests are bound by `ttft`.
    function _requireOnlyFailures(ServiceRecord calldata record, ServiceRecord calldata previous) private pure {
        if (
            record.revenue != previous.revenue || record.promptTokens != previous.promptTokens
                || record.outputTokens != previous.outputTokens || record.ttft != previous.ttft
                || record.speed != previous.speed
        ) revert NotThePayers(record.channelId);
    }

    // ---------------------------------------------------------------- inside: the sums

    function _add(
        Totals memory totals,
        ServiceRecord calldata record,
        ServiceRecord calldata previous,
        bool counterSigned
    ) private pure {
        totals.revenue += record.revenue - previous.revenue;
        // What this channel weighed before is within the sum.
        totals.weightedFailures = totals.weightedFailures - _spoiled(previous) + _spoiled(record);
        totals.promptTokens += record.promptTokens - previous.promptTokens;
        totals.outputTokens += record.outputTokens - previous.outputTokens;
        totals.requests += record.requests - previous.requests;
        if (counterSigned) totals.failures += record.failures - previous.failures;
        else totals.reported += record.failures - previous.failures;
        totals.records += 1;
        totals.ttft = _merge(totals.ttft, record.ttft, previous.ttft);
        totals.speed = _merge(totals.speed, record.speed, previous.speed);
    }

    /// @dev No more than the revenue, so 64 bits.
    function _spoiled(ServiceRecord calldata record) private pure returns (uint128) {
        if (record.failures == 0) return 0;
        uint256 all = uint256(record.requests) + record.failures;
        return uint128(uint256(record.revenue) * record.failures / all);
    }

    /// @dev Adds what is new, class by class, and stops counting a class that is full.
    function _merge(uint256 sum, uint256 newer, uint256 older) private pure returns (uint256 merged) {
        for (uint256 i = 0; i < CLASSES; ++i) {
            uint256 count = _count(sum, i) + _count(newer, i) - _count(older, i);
            if (count > type(uint32).max) count = type(uint32).max;
            merged |= count << (32 * i);
        }
    }

    function _count(uint256 histogram, uint256 class) private pure returns (uint256) {
        return (histogram >> (32 * class)) & type(uint32).max;
    }

    function _quantile(address provider, uint256 histogram, uint256 percent) private pure returns (uint256 class) {
        if (percent > 100) revert PercentOutOfRange(percent);
        uint256 all;
        for (uint256 i = 0; i < CLASSES; ++i) {
            all += _count(histogram, i);
        }
        if (all == 0) revert NothingCounted(provider);
        uint256 wanted = (all * percent + 99) / 100;
        if (wanted == 0) wanted = 1;
        uint256 seen;
        // Reached within the classes: `wanted` is at most their sum.
        for (;; ++class) {
            seen += _count(histogram, class);
            if (seen >= wanted) return class;
        }
    }
}
