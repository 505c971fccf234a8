// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";

import {IDepositCollector} from "./interfaces/IDepositCollector.sol";
import {IERC3009} from "./interfaces/IERC3009.sol";

/// @title Pulls a channel's deposit by EIP-3009, so that the payer needs no gas and no approval.
/// @notice Holds nothing between transactions. Only the channels contract may call it: otherwise
///         somebody could have a signed deposit pulled outside of the channel it was signed for.
contract Erc3009Collector is IDepositCollector {
    using SafeERC20 for IERC20;

    /// @notice The channels contract that it pulls for.
    address public immutable CHANNELS;

    /// @notice Only the channels have it pull.
    error NotChannels(address caller);

    constructor(address channels) {
        CHANNELS = channels;
    }

    /// @inheritdoc IDepositCollector
    /// @param data `abi.encode(validAfter, validBefore, salt, signature)`. The authorization's nonce
    ///        is `keccak256(abi.encode(channelId, salt))`: it is good for this channel only.
    function collect(address payer, address token, uint256 amount, bytes32 channelId, bytes calldata data) external {
        if (msg.sender != CHANNELS) revert NotChannels(msg.sender);
        (uint256 validAfter, uint256 validBefore, uint256 salt, bytes memory signature) =
            abi.decode(data, (uint256, uint256, uint256, bytes));
        IERC3009(token)
            .receiveWithAuthorization(
                payer, address(this), amount, validAfter, validBefore, keccak256(abi.encode(channelId, salt)), signature
            );
        IERC20(token).safeTransfer(CHANNELS, amount);
    }
}
