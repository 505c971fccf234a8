// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {IERC1271} from "@openzeppelin/contracts/interfaces/IERC1271.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";

import {Channels} from "../src/Channels.sol";
import {IDepositCollector} from "../src/interfaces/IDepositCollector.sol";

/// @title A wallet that is a contract: its key signs by EIP-1271. Not hostile, only unusual.
contract Wallet is IERC1271 {
    address private immutable _key;

    constructor(address key) {
        _key = key;
    }

    function isValidSignature(bytes32 hash, bytes memory signature) external view returns (bytes4) {
        (address signer,,) = ECDSA.tryRecover(hash, signature);
        return signer == _key ? IERC1271.isValidSignature.selector : bytes4(0xffffffff);
    }
}

/// @title Keeps a hundredth of every transfer.
contract FeeToken is ERC20("Fee", "FEE") {
    function mint(address to, uint256 value) external {
        _mint(to, value);
    }

    function _update(address from, address to, uint256 value) internal override {
        if (from != address(0) && to != address(0)) {
            super._update(from, address(this), value / 100);
            value -= value / 100;
        }
        super._update(from, to, value);
    }
}

/// @title Deposits its own tokens into whatever channel asks.
contract GreedyCollector is IDepositCollector {
    address private immutable _channels;

    constructor(address channels) {
        _channels = channels;
    }

    function collect(address, address token, uint256 amount, bytes32, bytes calldata) external {
        IERC20(token).transfer(_channels, amount);
    }
}

/// @title Says that it collected.
contract LazyCollector is IDepositCollector {
    function collect(address, address, uint256, bytes32, bytes calldata) external {}
}

/// @title Calls every door of the channels while it is being transferred.
contract ReentrantToken is ERC20("Again", "AGAIN") {
    Channels private immutable _channels;
    Channels.ChannelConfig private _config;
    bool private _armed;
    uint256 public attempts;
    uint256 public entered;

    constructor(Channels channels) {
        _channels = channels;
    }

    function mint(address to, uint256 value) external {
        _mint(to, value);
    }

    function arm(Channels.ChannelConfig calldata config) external {
        _config = config;
        _armed = true;
    }

    function _update(address from, address to, uint256 value) internal override {
        super._update(from, to, value);
        if (!_armed) return;
        _armed = false;
        attempt(abi.encodeCall(_channels.refund, (_config, 1)));
        attempt(abi.encodeCall(_channels.settle, (address(this), address(this))));
        attempt(abi.encodeCall(_channels.initiateWithdraw, (_config, 1)));
        attempt(abi.encodeCall(_channels.finalizeWithdraw, (_config)));
        attempt(abi.encodeCall(_channels.deposit, (_config, 1, address(this), "")));
        bytes[] memory calls = new bytes[](1);
        calls[0] = abi.encodeCall(_channels.refund, (_config, 1));
        attempt(abi.encodeCall(_channels.multicall, (calls)));
    }

    function attempt(bytes memory call) private {
        ++attempts;
        (bool ok,) = address(_channels).call(call);
        if (ok) ++entered;
    }
}

/// @title Makes any calls while it is being transferred, and counts those that a guard refused.
contract CallingToken is ERC20("Call", "CALL") {
    address[] private _at;
    bytes[] private _calls;
    uint256 public attempts;
    uint256 public shut;

    function mint(address to, uint256 value) external {
        _mint(to, value);
    }

    function arm(address at, bytes calldata call) external {
        _at.push(at);
        _calls.push(call);
    }

    function _update(address from, address to, uint256 value) internal override {
        super._update(from, to, value);
        while (_calls.length > 0) {
            (address at, bytes memory call) = (_at[_at.length - 1], _calls[_calls.length - 1]);
            _at.pop();
            _calls.pop();
            ++attempts;
            (bool ok, bytes memory why) = at.call(call);
            if (!ok && bytes4(why) == ReentrancyGuardTransient.ReentrancyGuardReentrantCall.selector) ++shut;
        }
    }
}

/// @title Answers "no" to a transfer instead of reverting, and moves nothing; or reverts.
contract RefusingToken is ERC20("Refuse", "NO") {
    bool private _reverts;
    bool private _refuses;

    error Refused();

    function mint(address to, uint256 value) external {
        _mint(to, value);
    }

    function refuse(bool refuses, bool reverts) external {
        (_refuses, _reverts) = (refuses, reverts);
    }

    function transfer(address to, uint256 value) public override returns (bool) {
        return refused() ? false : super.transfer(to, value);
    }

    function transferFrom(address from, address to, uint256 value) public override returns (bool) {
        return refused() ? false : super.transferFrom(from, to, value);
    }

    function refused() private view returns (bool) {
        if (_refuses && _reverts) revert Refused();
        return _refuses;
    }
}
