// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

/// @title How `Channels` has a deposit pulled: whichever way the payer signed.
interface IDepositCollector {
    /// @notice Moves `amount` of `token` from `payer` to the caller, bound to `channelId`.
    function collect(address payer, address token, uint256 amount, bytes32 channelId, bytes calldata data) external;
}
