// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

/// @title What this market asks of ERC-8004's identity registry: an agent is an ERC-721 token.
interface IIdentityRegistry {
    /// @notice Who owns an agent. Reverts where there is none.
    function ownerOf(uint256 agentId) external view returns (address);
}
