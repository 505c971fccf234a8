// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Scoreboard} from "./Scoreboard.sol";
import {IIdentityRegistry} from "./interfaces/IIdentityRegistry.sol";
import {IReputationRegistry} from "./interfaces/IReputationRegistry.sol";

/// @title Carries a provider's score into the chain's ERC-8004 reputation registry.
/// @notice The registry then names this contract as the client that gave the feedback: who trusts the
///         scoreboard filters by this address. A provider links the agent that it owns; publishing is
///         anybody's, once a period, and only where something was posted since.
///
///         Every value tells of all service up to then, so the newest replaces those before it. Holds
///         no money; no owner, no pause, no upgrade.
/// @dev A provider that approves this contract as its agent's operator makes the registry refuse its
///      feedback, and can so have none; nobody can make it have better.
contract ReputationAdapter {
    struct Link {
        uint256 agentId;
        bool linked;
        /// When the provider's score was last published, on whatever agent.
        uint64 publishedAt;
        /// How many records the score on this agent was over.
        uint64 records;
    }

    /// @notice Published for the slowest class of times to the first token, which has no upper end.
    uint256 public constant SLOWEST_MS = 16_000;

    /// @notice Whose scores it carries.
    Scoreboard public immutable SCOREBOARD;
    /// @notice Whose agents they are about.
    IIdentityRegistry public immutable IDENTITY;
    /// @notice Where to.
    IReputationRegistry public immutable REPUTATION;
    /// @notice Seconds between two publications about one provider.
    uint64 public immutable PERIOD;

    /// @notice A provider's agent, and what was last published about it.
    mapping(address provider => Link) public linkOf;

    /// @notice A provider named its agent.
    event Linked(address indexed provider, uint256 indexed agentId);
    /// @notice A provider's score, over so many records, was written as feedback about its agent.
    event Published(address indexed provider, uint256 indexed agentId, uint64 records);

    /// @notice The two registries do not belong together.
    error OtherIdentityRegistry(address expected, address got);
    /// @notice The agent is not the provider's.
    error NotTheOwner(uint256 agentId, address owner, address provider);
    /// @notice The provider named no agent.
    error NotLinked(address provider);
    /// @notice Once a period.
    error TooEarly(address provider, uint256 readyAt);
    /// @notice Nothing was posted since.
    error NothingNew(address provider);

    constructor(Scoreboard scoreboard, IIdentityRegistry identity, IReputationRegistry reputation, uint64 period) {
        address kept = reputation.getIdentityRegistry();
        if (kept != address(identity)) revert OtherIdentityRegistry(address(identity), kept);
        SCOREBOARD = scoreboard;
        IDENTITY = identity;
        REPUTATION = reputation;
        PERIOD = period;
    }

    /// @notice Names the caller's agent, which it must own. Another may be named later.
    function link(uint256 agentId) external {
        _requireOwner(agentId, msg.sender);
        Link storage own = linkOf[msg.sender];
        (own.agentId, own.linked, own.records) = (agentId, true, 0);
        emit Linked(msg.sender, agentId);
    }

    /// @notice Writes a provider's score as feedback about its agent: `uptime`, `successRate` (percent,
    ///         two decimals) and `responseTime` (milliseconds), as far as there is anything to tell.
    function publish(address provider) external {
        Link storage own = linkOf[provider];
        if (!own.linked) revert NotLinked(provider);
        uint256 agentId = own.agentId;
        // Sold, it is somebody else's name.
        _requireOwner(agentId, provider);
        uint256 readyAt = uint256(own.publishedAt) + PERIOD;
        if (block.timestamp < readyAt) revert TooEarly(provider, readyAt);
        (Scoreboard.Totals memory totals,,) = SCOREBOARD.scoreOf(provider);
        if (totals.records == own.records) revert NothingNew(provider);
        (own.publishedAt, own.records) = (uint64(block.timestamp), totals.records);
        emit Published(provider, agentId, totals.records);

        uint256 asked = uint256(totals.requests) + totals.failures;
        if (asked > 0) _give(agentId, uint256(totals.requests) * 10_000 / asked, 2, "uptime");
        if (totals.revenue > 0) _give(agentId, SCOREBOARD.successPpm(provider) / 100, 2, "successRate");
        if (totals.requests > 0) _give(agentId, _msBelow(SCOREBOARD.ttftQuantile(provider, 50)), 0, "responseTime");
    }

    /// @dev At most 16,000, whatever it is.
    function _give(uint256 agentId, uint256 value, uint8 decimals, string memory tag) private {
        REPUTATION.giveFeedback(agentId, int128(int256(value)), decimals, tag, "", "", "", 0);
    }

    function _requireOwner(uint256 agentId, address provider) private view {
        address owner = IDENTITY.ownerOf(agentId);
        if (owner != provider) revert NotTheOwner(agentId, owner, provider);
    }

    /// @dev The upper end of a class, as the scoreboard's records count them.
    function _msBelow(uint256 class) private pure returns (uint256) {
        uint16[8] memory below = [100, 250, 500, 1000, 2000, 4000, 8000, uint16(SLOWEST_MS)];
        return below[class];
    }
}
