// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

/// @title What this market asks of ERC-8004's reputation registry (version 2.0.0).
interface IReputationRegistry {
    /// @notice Whose agents it keeps feedback about.
    function getIdentityRegistry() external view returns (address);

    /// @notice Adds feedback about an agent in the caller's name. Refuses the agent's owner and whom the
    ///         owner approved, agents that do not exist, more than 18 decimals, and values beyond 1e38.
    function giveFeedback(
        uint256 agentId,
        int128 value,
        uint8 valueDecimals,
        string calldata tag1,
        string calldata tag2,
        string calldata endpoint,
        string calldata feedbackURI,
        bytes32 feedbackHash
    ) external;
}
