// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Channels} from "../src/Channels.sol";
import {Erc3009Collector} from "../src/Erc3009Collector.sol";
import {PayoutVault} from "../src/PayoutVault.sol";
import {Registry} from "../src/Registry.sol";
import {TestDollar} from "../src/TestDollar.sol";

/// @title The part of forge's cheat codes that these tests use.
interface Vm {
    function warp(uint256 timestamp) external;
    function prank(address sender) external;
    function addr(uint256 key) external pure returns (address);
    function sign(uint256 key, bytes32 digest) external pure returns (uint8 v, bytes32 r, bytes32 s);
    function expectRevert() external;
    function expectRevert(bytes4 selector) external;
    function expectRevert(bytes calldata data) external;
    function expectEmit(bool topic1, bool topic2, bool topic3, bool data) external;
    function assume(bool condition) external pure;
    function chainId(uint256 id) external;
    function snapshotGasLastCall(string calldata group, string calldata name) external returns (uint256 gasUsed);
    function etch(address target, bytes calldata code) external;
    function mockCall(address callee, bytes calldata data, bytes calldata returned) external;
    function clearMockedCalls() external;
    function store(address target, bytes32 slot, bytes32 value) external;
    function readFile(string calldata path) external view returns (string memory);
    function parseJsonBytes32(string calldata json, string calldata key) external pure returns (bytes32);
    function parseJsonBytes(string calldata json, string calldata key) external pure returns (bytes memory);
    function parseJsonAddress(string calldata json, string calldata key) external pure returns (address);
    function parseJsonUint(string calldata json, string calldata key) external pure returns (uint256);
    function parseJsonBool(string calldata json, string calldata key) external pure returns (bool);
    function parseJsonString(string calldata json, string calldata key) external pure returns (string memory);
    function parseJsonBytes32Array(string calldata json, string calldata key) external pure returns (bytes32[] memory);
    function keyExistsJson(string calldata json, string calldata key) external view returns (bool);
    function toString(uint256 value) external pure returns (string memory);
}

/// @title Asserts and cheat codes.
abstract contract Test {
    Vm internal constant vm = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));

    // solhint-disable-next-line var-name-mixedcase
    bool public IS_TEST = true;

    error Unequal(string what, uint256 got, uint256 expected);
    error UnequalWords(string what, bytes32 got, bytes32 expected);
    error Untrue(string what);

    function eq(uint256 got, uint256 expected, string memory what) internal pure {
        if (got != expected) revert Unequal(what, got, expected);
    }

    function eq(bytes32 got, bytes32 expected, string memory what) internal pure {
        if (got != expected) revert UnequalWords(what, got, expected);
    }

    function eq(address got, address expected, string memory what) internal pure {
        eq(uint256(uint160(got)), uint256(uint160(expected)), what);
    }

    function yes(bool condition, string memory what) internal pure {
        if (!condition) revert Untrue(what);
    }

    function bound(uint256 value, uint256 least, uint256 most) internal pure returns (uint256) {
        return least + value % (most - least + 1);
    }
}

/// @title A market with one payer and one provider, and the words to act in it.
abstract contract Market is Test {
    uint256 internal constant PAYER_KEY = 0xA11CE;
    uint256 internal constant OFFER_KEY = 0x0FFE2;
    uint256 internal constant STRANGER_KEY = 0x57A4;
    /// The order of secp256k1.
    uint256 internal constant N = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141;

    uint64 internal constant WINDOW = 60;
    uint64 internal constant UNBONDING = 180;
    uint128 internal constant MIN_STAKE = 10e6;
    uint40 internal constant DELAY = 15 minutes;

    address internal constant OWNER = address(0x0137);
    address internal constant PAYOUT = address(0x9A10);
    address internal constant ARBITER = address(0xA4B1);
    address internal payer = vm.addr(PAYER_KEY);
    address internal offerKey = vm.addr(OFFER_KEY);
    address internal stranger = vm.addr(STRANGER_KEY);

    TestDollar internal dollar;
    Channels internal channels;
    Erc3009Collector internal collector;
    Registry internal registry;
    PayoutVault internal vault;

    function setUp() public virtual {
        vm.warp(1_800_000_000);
        dollar = new TestDollar();
        channels = new Channels();
        collector = new Erc3009Collector(address(channels));
        registry = new Registry(dollar, channels, ARBITER, MIN_STAKE, UNBONDING, WINDOW);
        dollar.mint(payer, 1000e6);
        dollar.mint(OWNER, 1000e6);
        vm.prank(OWNER);
        registry.register(offerKey, PAYOUT, "http://127.0.0.1:9001", new bytes32[](1));
        vault = PayoutVault(registry.vaultOf(OWNER));
    }

    function config(uint256 salt) internal view returns (Channels.ChannelConfig memory) {
        return Channels.ChannelConfig({
            payer: payer,
            payerAuthorizer: address(0),
            receiver: address(vault),
            receiverAuthorizer: offerKey,
            token: address(dollar),
            withdrawDelay: DELAY,
            salt: bytes32(salt)
        });
    }

    function signature(uint256 key, bytes32 digest) internal pure returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, digest);
        return abi.encodePacked(r, s, v);
    }

    /// The other signature that the same key could have made: s becomes n - s.
    function malleable(bytes memory sig) internal pure returns (bytes memory) {
        (bytes32 r, uint256 s, uint8 v) = (word(sig, 0), uint256(word(sig, 32)), uint8(sig[64]));
        return abi.encodePacked(r, bytes32(N - s), v == 27 ? uint8(28) : uint8(27));
    }

    function word(bytes memory data, uint256 offset) internal pure returns (bytes32 out) {
        assembly ("memory-safe") {
            out := mload(add(add(data, 32), offset))
        }
    }

    function authorization(
        uint256 key,
        address from,
        address to,
        uint256 value,
        uint256 validAfter,
        uint256 validBefore,
        bytes32 nonce
    ) internal view returns (bytes memory) {
        bytes32 structHash = keccak256(
            abi.encode(dollar.RECEIVE_WITH_AUTHORIZATION_TYPEHASH(), from, to, value, validAfter, validBefore, nonce)
        );
        return signature(key, keccak256(abi.encodePacked(hex"1901", dollar.DOMAIN_SEPARATOR(), structHash)));
    }

    function collectorData(Channels.ChannelConfig memory c, uint128 amount, uint256 salt)
        internal
        view
        returns (bytes memory)
    {
        bytes32 nonce = keccak256(abi.encode(channels.getChannelId(c), salt));
        bytes memory sig = authorization(PAYER_KEY, c.payer, address(collector), amount, 0, type(uint64).max, nonce);
        return abi.encode(uint256(0), uint256(type(uint64).max), salt, sig);
    }

    uint256 private _deposits;

    function open(Channels.ChannelConfig memory c, uint128 amount) internal {
        bytes memory data = collectorData(c, amount, ++_deposits);
        channels.deposit(c, amount, address(collector), data);
    }

    function voucher(Channels.ChannelConfig memory c, uint128 most, uint128 total)
        internal
        view
        returns (Channels.VoucherClaim memory)
    {
        return voucherBy(PAYER_KEY, c, most, total);
    }

    function voucherBy(uint256 key, Channels.ChannelConfig memory c, uint128 most, uint128 total)
        internal
        view
        returns (Channels.VoucherClaim memory)
    {
        bytes32 digest = channels.getVoucherDigest(channels.getChannelId(c), most);
        return Channels.VoucherClaim(Channels.Voucher(c, most), signature(key, digest), total);
    }

    function one(Channels.VoucherClaim memory entry) internal pure returns (Channels.VoucherClaim[] memory all) {
        all = new Channels.VoucherClaim[](1);
        all[0] = entry;
    }

    /// The receiver's authorizer claims by itself.
    function claim(Channels.ChannelConfig memory c, uint128 total) internal {
        Channels.VoucherClaim[] memory entries = one(voucher(c, total, total));
        vm.prank(offerKey);
        channels.claim(entries);
    }

    function balance(Channels.ChannelConfig memory c) internal view returns (uint128 held) {
        (held,) = channels.channels(channels.getChannelId(c));
    }

    function claimed(Channels.ChannelConfig memory c) internal view returns (uint128 total) {
        (, total) = channels.channels(channels.getChannelId(c));
    }
}
