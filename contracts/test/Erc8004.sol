// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {ERC721} from "@openzeppelin/contracts/token/ERC721/ERC721.sol";

import {IReputationRegistry} from "../src/interfaces/IReputationRegistry.sol";

/// @title ERC-8004's identity registry, as far as feedback asks of it: agents are tokens, from number 0 on.
contract Agents is ERC721("Agents", "AGENT") {
    uint256 private _next;

    function register() external returns (uint256 agentId) {
        agentId = _next++;
        _mint(msg.sender, agentId);
    }

    /// Reverts where there is no such agent.
    function isAuthorizedOrOwner(address who, uint256 agentId) external view returns (bool) {
        return _isAuthorized(ownerOf(agentId), who, agentId);
    }
}

/// @title ERC-8004's reputation registry with the rules of version 2.0.0 about who may say what.
contract Feedbacks is IReputationRegistry {
    struct Feedback {
        address client;
        int128 value;
        uint8 decimals;
        string tag1;
        string rest;
    }

    Agents private immutable _agents;
    mapping(uint256 agentId => Feedback[]) private _given;

    error TooManyDecimals();
    error ValueTooLarge();
    error SelfFeedback();

    constructor(Agents agents) {
        _agents = agents;
    }

    function getIdentityRegistry() external view returns (address) {
        return address(_agents);
    }

    function giveFeedback(
        uint256 agentId,
        int128 value,
        uint8 valueDecimals,
        string calldata tag1,
        string calldata tag2,
        string calldata endpoint,
        string calldata feedbackURI,
        bytes32
    ) external {
        if (valueDecimals > 18) revert TooManyDecimals();
        if (value > 1e38 || value < -1e38) revert ValueTooLarge();
        if (_agents.isAuthorizedOrOwner(msg.sender, agentId)) revert SelfFeedback();
        string memory rest = string.concat(tag2, endpoint, feedbackURI);
        _given[agentId].push(Feedback(msg.sender, value, valueDecimals, tag1, rest));
    }

    function count(uint256 agentId) external view returns (uint256) {
        return _given[agentId].length;
    }

    function at_(uint256 agentId, uint256 i) external view returns (Feedback memory) {
        return _given[agentId][i];
    }
}
