//! The interfaces of the dispute contracts, and what stands inside their `bytes` arguments.

use alloy_sol_types::sol;

sol! {
    /// What `DisputeGame.prove` takes as `step`, ABI-encoded by itself; `IReferee.sol` has it.
    #[derive(Debug, PartialEq, Eq)]
    struct Opening {
        uint32 op;
        uint32 row;
        uint32 first;
        uint8 packing;
        bytes data;
        bytes32[] siblings;
        bytes32[] path;
    }

    #[derive(Debug, PartialEq, Eq)]
    struct Row {
        uint8 format;
        bytes data;
        bytes32[] path;
    }

    #[derive(Debug, PartialEq, Eq)]
    struct Entry {
        bytes data;
        bytes32[] path;
    }

    #[derive(Debug, PartialEq, Eq)]
    struct TokenOpening {
        uint32 token;
        bytes32[] path;
    }

    #[derive(Debug, PartialEq, Eq)]
    struct Step {
        uint32 op;
        uint32 row;
        uint32 chunk;
        uint32 slot;
        uint64 witness;
        Opening[] openings;
        Row[] rows;
        Entry[] entries;
        TokenOpening[] tokens;
        bytes sampler;
    }

    /// What `DisputeGame.proveFact` takes as `fact`.
    #[derive(Debug, PartialEq, Eq)]
    struct Fact {
        uint8 kind;
        uint32 position;
        TokenOpening[] tokens;
        bytes sampler;
    }

    #[derive(Debug, PartialEq, Eq)]
    interface IDisputeGame {
        struct Statement {
            bytes32 modelId;
            bytes32 promptRoot;
            uint32 nPrompt;
            bytes32 samplerHash;
            bytes32 outputRoot;
            uint32 nOutput;
            uint8 stopReason;
        }
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
        enum Turn { None, Trace, Reveal, Challenger }
        struct Game {
            uint32 since;
            Turn turn;
            uint8 flags;
            uint24 providerExtra;
            uint24 challengerExtra;
            bool asked;
            uint8 stage;
            uint8 height;
            uint32 index;
            uint32 op;
            uint32 row;
            uint32 count;
        }

        function open(Receipt calldata receipt, bytes calldata signature, bytes calldata sampler) external returns (bytes32 game);
        function postTrace(Receipt calldata receipt, address challenger, bytes32 root, bytes32[] calldata children) external;
        function request(Receipt calldata receipt, uint32 index, bytes32 child, bytes32[] calldata siblings) external;
        function reveal(bytes32 game, bytes32[] calldata children) external;
        function revealData(bytes32 game, bytes calldata data) external;
        function prove(Receipt calldata receipt, bytes calldata step) external;
        function proveFact(Receipt calldata receipt, bytes calldata signature, bytes calldata fact) external;
        function equivocation(Receipt calldata one, bytes calldata oneSignature, Receipt calldata other, bytes calldata otherSignature) external;
        function timeout(Receipt calldata receipt, address challenger) external;
        function close(Receipt calldata receipt, address challenger) external;
        function payOwed(address account) external;
        function roots(bytes32 receiptDigest) external view returns (bytes32);
        function owed(address account) external view returns (uint256);
        function getGame(bytes32 game) external view returns (Game memory state, bytes32 hash);
        function deadline(bytes32 game) external view returns (uint256);
        function gameOf(bytes32 digest, address challenger) external pure returns (bytes32);
        function receiptDigest(Receipt calldata receipt) external view returns (bytes32);
        function REGISTRY() external view returns (address);
        function REFEREE() external view returns (address);
        function BOND() external view returns (uint128);
        function RESPONSE_TIME() external view returns (uint32);
        function EXTENSION() external view returns (uint24);

        event Opened(bytes32 indexed game, bytes32 indexed receiptDigest, address indexed provider, address challenger, Receipt receipt, bytes signature, bytes sampler, uint8 flags);
        event TracePosted(bytes32 indexed game, bytes32 indexed receiptDigest, bytes32 root, uint32 ops, bytes32[] children);
        event Requested(bytes32 indexed game, uint256 node);
        event Revealed(bytes32 indexed game, uint256 node, bytes32[] children);
        event DataRevealed(bytes32 indexed game, uint256 node, bytes data);
        event Convicted(bytes32 indexed receiptDigest, address indexed provider, address indexed winner, bytes32 game, uint256 stake, uint256 toWinner, uint256 toPayer, uint256 burned);
        event Lost(bytes32 indexed game, bytes32 indexed receiptDigest, address indexed provider, address challenger);
        event Closed(bytes32 indexed game, bytes32 indexed receiptDigest, address challenger);
        event Owed(address indexed account, uint256 amount);

        error ZeroAddress();
        error ZeroTime();
        error NotOfferKey(address provider, address signer, uint64 servedAt);
        error WindowClosed(uint64 servedAt, uint64 window);
        error AlreadyConvicted(bytes32 receiptDigest);
        error NotConvicted(bytes32 receiptDigest);
        error NothingToTrace();
        error WrongSampler(bytes32 expected, bytes32 got);
        error GameExists(bytes32 game);
        error NoGame(bytes32 game);
        error NotTheProvider(address provider, address caller);
        error NotTheTurn(bytes32 game, Turn turn);
        error TooLate(bytes32 game, uint256 deadline);
        error TooEarly(bytes32 game, uint256 deadline);
        error OtherRoot(bytes32 posted, bytes32 got);
        error WrongHash(bytes32 expected, bytes32 got);
        error WrongLength(uint256 expected, uint256 got);
        error NoSuchChild(uint256 index, uint256 count);
        error NothingBelow(bytes32 game);
        error StepHolds(bytes32 game);
        error FactHolds(bytes32 receiptDigest);
        error NoEquivocation();
    }

    #[derive(Debug, PartialEq, Eq)]
    interface IModels {
        function publish(bytes calldata manifest) external returns (bytes32 modelId);
        function isPublished(bytes32 modelId) external view returns (bool);
        function manifestOf(bytes32 modelId) external view returns (bytes memory manifest);

        event Published(bytes32 indexed modelId, uint256 length);
    }

    #[derive(Debug, PartialEq, Eq)]
    interface IReferee {
        function MODELS() external view returns (address);
        function SAMPLES() external view returns (address);
        function convicts(IDisputeGame.Statement calldata statement, bytes32 traceRoot, bytes calldata step) external view returns (bool);
        function factConvicts(IDisputeGame.Statement calldata statement, bytes calldata fact) external view returns (bool);

        error UnknownModel(bytes32 modelId);
    }
}
