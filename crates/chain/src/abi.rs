//! The contracts' interfaces as Rust types. A test holds every selector here against the
//! checked-in artifacts; nothing else in the workspace spells an ABI.

use alloy_sol_types::sol;

// The macro makes a function of each event's parameters, as many as Solidity gave it.
#[allow(clippy::too_many_arguments)]
mod dispute;

pub use dispute::{Entry, Fact, IDisputeGame, IModels, IReferee, Opening, Row, Step, TokenOpening};

sol! {
    #[derive(Debug, PartialEq, Eq)]
    interface ITestDollar {
        function name() external view returns (string);
        function version() external view returns (string);
        function DOMAIN_SEPARATOR() external view returns (bytes32);
        function decimals() external view returns (uint8);
        function mint(address to, uint256 value) external;
        function balanceOf(address account) external view returns (uint256);
        function transfer(address to, uint256 value) external returns (bool);
        function approve(address spender, uint256 value) external returns (bool);
        function allowance(address owner, address spender) external view returns (uint256);
        function authorizationState(address authorizer, bytes32 nonce) external view returns (bool);

        event Transfer(address indexed from, address indexed to, uint256 value);

        error ERC20InsufficientBalance(address sender, uint256 balance, uint256 needed);
        error ERC20InsufficientAllowance(address spender, uint256 allowance, uint256 needed);
        error AuthorizationSpent(address authorizer, bytes32 nonce);
        error AuthorizationNotYetValid(uint256 validAfter);
        error AuthorizationExpired(uint256 validBefore);
        error CallerIsNotPayee(address caller, address payee);
        error InvalidAuthorizationSignature(address expectedSigner);
        error MintTooLarge(uint256 value, uint256 most);
    }

    #[derive(Debug, PartialEq, Eq)]
    interface IChannels {
        struct ChannelConfig {
            address payer;
            address payerAuthorizer;
            address receiver;
            address receiverAuthorizer;
            address token;
            uint40 withdrawDelay;
            bytes32 salt;
        }
        struct Voucher {
            ChannelConfig channel;
            uint128 maxClaimableAmount;
        }
        struct VoucherClaim {
            Voucher voucher;
            bytes signature;
            uint128 totalClaimed;
        }

        function multicall(bytes[] calldata data) external returns (bytes[] memory results);
        function deposit(ChannelConfig calldata config, uint128 amount, address collector, bytes calldata collectorData) external;
        function claim(VoucherClaim[] calldata voucherClaims) external;
        function claimWithSignature(VoucherClaim[] calldata voucherClaims, bytes calldata authorizerSignature) external;
        function settle(address receiver, address token) external;
        function initiateWithdraw(ChannelConfig calldata config, uint128 amount) external;
        function finalizeWithdraw(ChannelConfig calldata config) external;
        function refund(ChannelConfig calldata config, uint128 amount) external;
        function refundWithSignature(ChannelConfig calldata config, uint128 amount, uint256 nonce, bytes calldata receiverAuthorizerSignature) external;
        function getChannelId(ChannelConfig calldata config) external view returns (bytes32);
        function getVoucherDigest(bytes32 channelId, uint128 maxClaimableAmount) external view returns (bytes32);
        function getRefundDigest(bytes32 channelId, uint256 nonce, uint128 amount) external view returns (bytes32);
        function getClaimBatchDigest(VoucherClaim[] calldata voucherClaims) external view returns (bytes32);
        function channels(bytes32 channelId) external view returns (uint128 balance, uint128 totalClaimed);
        function pendingWithdrawals(bytes32 channelId) external view returns (uint128 amount, uint40 initiatedAt);
        function receivers(address receiver, address token) external view returns (uint128 totalClaimed, uint128 totalSettled);
        function refundNonce(bytes32 channelId) external view returns (uint256);

        event ChannelCreated(bytes32 indexed channelId, ChannelConfig config);
        event ChannelClosed(bytes32 indexed channelId, ChannelConfig config);
        event Deposited(bytes32 indexed channelId, address indexed sender, uint128 amount, uint128 newBalance);
        event Claimed(bytes32 indexed channelId, address indexed sender, uint128 claimAmount, uint128 newTotalClaimed);
        event Settled(address indexed receiver, address indexed token, address indexed sender, uint128 amount);
        event Refunded(bytes32 indexed channelId, address indexed sender, uint128 amount);
        event WithdrawInitiated(bytes32 indexed channelId, uint128 amount, uint40 finalizeAfter);
        event WithdrawFinalized(bytes32 indexed channelId, address indexed sender, uint128 amount);

        error ZeroAddress();
        error WithdrawDelayOutOfRange(uint40 delay);
        error ZeroAmount();
        error EmptyBatch();
        error DepositNotReceived(uint256 expected, uint256 received);
        error InvalidVoucherSignature(bytes32 channelId, address expectedSigner);
        error InvalidAuthorizerSignature(address expectedSigner);
        error MixedAuthorizers(address expected, address got);
        error NotReceiverSide(bytes32 channelId, address caller);
        error NotPayerSide(bytes32 channelId, address caller);
        error ClaimAboveVoucher(bytes32 channelId, uint128 claimed, uint128 voucher);
        error ClaimAboveBalance(bytes32 channelId, uint128 claimed, uint128 balance);
        error WithdrawalPending(bytes32 channelId, uint40 initiatedAt);
        error NoWithdrawalPending(bytes32 channelId);
        error WithdrawTooEarly(bytes32 channelId, uint40 readyAt);
        error WithdrawAboveAvailable(bytes32 channelId, uint128 amount, uint128 available);
        error WrongRefundNonce(bytes32 channelId, uint256 expected, uint256 got);
    }

    /// What the canonical x402 contract says instead: the same refusals without facts.
    #[derive(Debug, PartialEq, Eq)]
    interface ICanonicalErrors {
        error InvalidChannel();
        error ZeroDeposit();
        error DepositOverflow();
        error InvalidSignature();
        error NotReceiverAuthorizer();
        error NotAuthorizedToClaim();
        error NotAuthorizedToRefund();
        error ClaimExceedsCeiling();
        error ClaimExceedsBalance();
        error WithdrawalAlreadyPending();
        error WithdrawalNotPending();
        error NotAuthorizedToFinalizeWithdraw();
        error WithdrawDelayNotElapsed();
        error NothingToWithdraw();
        error WithdrawAmountExceedsAvailable();
        error DepositCollectionFailed();
        error InvalidCollector();
        error InvalidRefundNonce();
        error ZeroRefund();
    }

    #[derive(Debug, PartialEq, Eq)]
    interface IRegistry {
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

        function multicall(bytes[] calldata data) external returns (bytes[] memory results);
        function register(address offerKey, address payout, string calldata endpoint, bytes32[] calldata models) external;
        function setEndpoint(string calldata endpoint) external;
        function setModels(bytes32[] calldata models) external;
        function setPayout(address payout) external;
        function rotateOfferKey(address offerKey) external;
        function stake(uint128 amount) external;
        function stakeWithAuthorization(address provider, uint128 amount, uint256 validAfter, uint256 validBefore, bytes32 nonce, bytes calldata signature) external;
        function unbond(uint128 amount) external;
        function withdrawStake() external;
        function release() external;
        function convictionsOf(address provider) external view returns (uint32);
        function jailedUntil(address provider) external view returns (uint64);
        function getProvider(address provider) external view returns (Provider memory);
        function vaultOf(address provider) external view returns (address);
        function isOfferKey(address provider, address key, uint64 time) external view returns (bool);
        function activeCount() external view returns (uint256);
        function activePage(uint256 start, uint256 count) external view returns (Provider[] memory);
        function TOKEN() external view returns (address);
        function CHANNELS() external view returns (address);
        function ARBITER() external view returns (address);
        function VAULT_IMPLEMENTATION() external view returns (address);
        function MIN_STAKE() external view returns (uint128);
        function UNBONDING_PERIOD() external view returns (uint64);
        function CHALLENGE_WINDOW() external view returns (uint64);

        event Registered(address indexed provider, address vault);
        event EndpointSet(address indexed provider, string endpoint);
        event ModelsSet(address indexed provider, bytes32[] models);
        event PayoutSet(address indexed provider, address payout);
        event OfferKeyAdded(address indexed provider, address indexed key);
        event OfferKeyRetired(address indexed provider, address indexed key);
        event Staked(address indexed provider, uint128 amount, uint128 stake);
        event UnbondingStarted(address indexed provider, uint128 amount, uint128 unbonding, uint64 readyAt);
        event StakeWithdrawn(address indexed provider, uint128 amount);
        event Slashed(address indexed provider, address indexed to, uint128 amount);
        event Jailed(address indexed provider, uint32 convictions, uint64 until);
        event ReleasedFromJail(address indexed provider);

        error ZeroAddress();
        error ZeroAmount();
        error AlreadyRegistered(address provider);
        error NotRegistered(address provider);
        error EndpointTooLong(uint256 length, uint256 most);
        error TooManyModels(uint256 count, uint256 most);
        error OfferKeyKnown(address provider, address key);
        error StakeNotReceived(uint256 expected, uint256 received);
        error AboveStake(address provider, uint128 amount, uint128 stake);
        error NothingUnbonding(address provider);
        error StillUnbonding(address provider, uint64 readyAt);
        error StakeLocked(address provider, uint32 disputes);
        error NotJailed(address provider);
        error StillJailed(address provider, uint64 until);
        error BelowMinimum(address provider, uint128 stake, uint128 least);
        error NotArbiter(address caller);
        error WindowOutlivesUnbonding(uint64 window, uint64 unbonding);
    }

    #[derive(Debug, PartialEq, Eq)]
    interface IPayoutVault {
        function PROVIDER() external view returns (address);
        function collect() external;
        function sync() external;
        function release() external returns (uint128);
        function status() external view returns (uint128 unsettled, uint128 waiting, uint128 releasable, uint128 held, uint64 nextReleaseAt);

        event Received(uint128 amount, uint64 releaseAt);
        event Released(address indexed payout, uint128 amount);
        event Held(bytes32 indexed disputeId, uint128 amount);
        event Freed(bytes32 indexed disputeId, uint128 amount);
        event Awarded(bytes32 indexed disputeId, address indexed to, uint128 amount);

        error NotArbiter(address caller);
        error HoldExists(bytes32 disputeId);
        error NoHold(bytes32 disputeId);
        error AboveHold(bytes32 disputeId, uint128 amount, uint128 held);
    }

    #[derive(Debug, PartialEq, Eq)]
    interface ICollector {
        error NotChannels(address caller);
    }

    #[derive(Debug, PartialEq, Eq)]
    interface IScoreboard {
        struct ServiceRecord {
            bytes32 channelId;
            uint64 revenue;
            uint64 promptTokens;
            uint64 outputTokens;
            uint32 requests;
            uint32 failures;
            uint256 ttft;
            uint256 speed;
        }
        struct Entry {
            IChannels.ChannelConfig channel;
            ServiceRecord record;
            ServiceRecord previous;
            bytes payerSignature;
        }
        struct Totals {
            uint128 revenue;
            uint128 weightedFailures;
            uint128 promptTokens;
            uint128 outputTokens;
            uint64 requests;
            uint64 failures;
            uint64 reported;
            uint64 records;
            uint256 ttft;
            uint256 speed;
        }

        function post(address provider, Entry[] calldata entries, bytes calldata providerSignature) external;
        function scoreOf(address provider) external view returns (Totals memory totals, uint32 convictions, uint64 jailedUntil);
        function lastOf(bytes32 channelId) external view returns (bytes32);
        function REGISTRY() external view returns (address);
        function CHANNELS() external view returns (address);
        function TOKEN() external view returns (address);

        event Posted(address indexed provider, bytes32 indexed channelId, ServiceRecord record, bool counterSigned);

        error EmptyBatch();
        error WrongChannel(bytes32 expected, bytes32 got);
        error NotTheVault(bytes32 channelId, address receiver, address vault);
        error WrongToken(bytes32 channelId, address token);
        error WrongPrevious(bytes32 channelId, bytes32 posted, bytes32 got);
        error NothingNew(bytes32 channelId);
        error Forgotten(bytes32 channelId);
        error Unsound(bytes32 channelId);
        error AboveClaims(bytes32 channelId, uint64 revenue, uint128 claimed);
        error NotThePayers(bytes32 channelId);
        error InvalidPayerSignature(bytes32 channelId, address expectedSigner);
        error NotOfferKey(address provider, address authorizer);
        error MixedAuthorizers(address expected, address got);
        error InvalidProviderSignature(address expectedSigner);
        error NothingCounted(address provider);
        error PercentOutOfRange(uint256 percent);
    }

    #[derive(Debug, PartialEq, Eq)]
    interface IReputationAdapter {
        function link(uint256 agentId) external;
        function publish(address provider) external;
        function SCOREBOARD() external view returns (address);
        function IDENTITY() external view returns (address);
        function REPUTATION() external view returns (address);
        function PERIOD() external view returns (uint64);
        function linkOf(address provider) external view returns (uint256 agentId, bool linked, uint64 publishedAt, uint64 records);

        event Linked(address indexed provider, uint256 indexed agentId);
        event Published(address indexed provider, uint256 indexed agentId, uint64 records);

        error OtherIdentityRegistry(address expected, address got);
        error NotTheOwner(uint256 agentId, address owner, address provider);
        error NotLinked(address provider);
        error TooEarly(address provider, uint256 readyAt);
        error NothingNew(address provider);
    }

    #[derive(Debug, PartialEq, Eq)]
    interface IMulticall3 {
        struct Call3 {
            address target;
            bool allowFailure;
            bytes callData;
        }
        struct Result {
            bool success;
            bytes returnData;
        }

        function aggregate3(Call3[] calldata calls) external payable returns (Result[] memory results);
        function getCurrentBlockTimestamp() external view returns (uint256);
    }
}
