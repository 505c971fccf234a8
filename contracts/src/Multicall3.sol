// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

/// @title Many reads in one call, as wallets and libraries expect them at `0xcA11…CA11`.
/// @notice For development chains, which lack the one that real networks carry. Holds nothing and
///         may be called by anybody; give it no allowance, for anybody can spend it.
contract Multicall3 {
    struct Call {
        address target;
        bytes callData;
    }

    struct Call3 {
        address target;
        bool allowFailure;
        bytes callData;
    }

    struct Result {
        bool success;
        bytes returnData;
    }

    error CallFailed(uint256 index);

    /// @notice Makes every call; fails as a whole if one fails and success is required.
    function tryAggregate(bool requireSuccess, Call[] calldata calls)
        external
        payable
        returns (Result[] memory results)
    {
        uint256 count = calls.length;
        results = new Result[](count);
        for (uint256 i = 0; i < count; ++i) {
            results[i] = _call(i, calls[i].target, calls[i].callData, !requireSuccess);
        }
    }

    /// @notice Makes every call; each says for itself whether it may fail.
    function aggregate3(Call3[] calldata calls) external payable returns (Result[] memory results) {
        uint256 count = calls.length;
        results = new Result[](count);
        for (uint256 i = 0; i < count; ++i) {
            results[i] = _call(i, calls[i].target, calls[i].callData, calls[i].allowFailure);
        }
    }

    function getBlockNumber() external view returns (uint256) {
        return block.number;
    }

    function getCurrentBlockTimestamp() external view returns (uint256) {
        return block.timestamp;
    }

    function _call(uint256 index, address target, bytes calldata data, bool mayFail)
        private
        returns (Result memory result)
    {
        (result.success, result.returnData) = target.call(data);
        if (!result.success && !mayFail) revert CallFailed(index);
    }
}
