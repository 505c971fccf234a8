// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Channels} from "../src/Channels.sol";
import {Erc3009Collector} from "../src/Erc3009Collector.sol";
import {Merkle} from "../src/Merkle.sol";
import {Market} from "./Base.sol";

/// @title The vectors that Rust, Solidity and viem must agree on, accept and reject.
contract VectorsTest is Market {
    /// Where x402's contract stands, and where the vectors sign for.
    Channels private at;

    function place(address where) private {
        vm.etch(where, address(channels).code);
        at = Channels(where);
    }

    function key(string memory list, uint256 i, string memory name) private pure returns (string memory) {
        return string.concat(".", list, "[", vm.toString(i), "].", name);
    }

    function configOf(string memory json, uint256 i) private pure returns (Channels.ChannelConfig memory) {
        return Channels.ChannelConfig({
            payer: vm.parseJsonAddress(json, key("accept", i, "config.payer")),
            payerAuthorizer: vm.parseJsonAddress(json, key("accept", i, "config.payerAuthorizer")),
            receiver: vm.parseJsonAddress(json, key("accept", i, "config.receiver")),
            receiverAuthorizer: vm.parseJsonAddress(json, key("accept", i, "config.receiverAuthorizer")),
            token: vm.parseJsonAddress(json, key("accept", i, "config.token")),
            withdrawDelay: uint40(vm.parseJsonUint(json, key("accept", i, "config.withdrawDelay"))),
            salt: vm.parseJsonBytes32(json, key("accept", i, "config.salt"))
        });
    }

    function test_channel_ids_and_digests_are_x402s() public {
        string memory json = vm.readFile("../vectors/channels.json");
        uint256 i = 0;
        for (; vm.keyExistsJson(json, key("accept", i, "name")); ++i) {
            string memory name = vm.parseJsonString(json, key("accept", i, "name"));
            vm.chainId(vm.parseJsonUint(json, key("accept", i, "chainId")));
            place(vm.parseJsonAddress(json, key("accept", i, "contract")));
            Channels.ChannelConfig memory c = configOf(json, i);
            bytes32 id = vm.parseJsonBytes32(json, key("accept", i, "channelId"));
            uint128 most = uint128(vm.parseJsonUint(json, key("accept", i, "maxClaimableAmount")));
            uint128 total = uint128(vm.parseJsonUint(json, key("accept", i, "totalClaimed")));
            uint256 nonce = vm.parseJsonUint(json, key("accept", i, "refundNonce"));
            eq(at.getChannelId(c), id, name);
            eq(at.getVoucherDigest(id, most), vm.parseJsonBytes32(json, key("accept", i, "voucherDigest")), name);
            eq(at.getRefundDigest(id, nonce, total), vm.parseJsonBytes32(json, key("accept", i, "refundDigest")), name);
            Channels.VoucherClaim[] memory entries = one(Channels.VoucherClaim(Channels.Voucher(c, most), "", total));
            eq(at.getClaimBatchDigest(entries), vm.parseJsonBytes32(json, key("accept", i, "claimOfOneDigest")), name);
            eq(
                at.getClaimBatchDigest(new Channels.VoucherClaim[](0)),
                vm.parseJsonBytes32(json, key("accept", i, "emptyClaimDigest")),
                name
            );
        }
        yes(i >= 5, "there are vectors");
    }

    function test_forged_vouchers_are_refused_and_the_good_one_counts() public {
        string memory json = vm.readFile("../vectors/channels.json");
        vm.chainId(vm.parseJsonUint(json, key("accept", 0, "chainId")));
        place(vm.parseJsonAddress(json, key("accept", 0, "contract")));
        Channels.ChannelConfig memory c = configOf(json, 0);
        uint128 most = uint128(vm.parseJsonUint(json, key("accept", 0, "maxClaimableAmount")));
        // The vectors' token stands where ours is put for this test.
        vm.etch(c.token, address(dollar).code);
        fund(c, most);
        uint256 i = 0;
        for (; vm.keyExistsJson(json, key("reject", i, "name")); ++i) {
            bytes memory forged = vm.parseJsonBytes(json, key("reject", i, "signature"));
            Channels.VoucherClaim[] memory entries = one(Channels.VoucherClaim(Channels.Voucher(c, most), forged, most));
            vm.prank(c.receiverAuthorizer);
            (bool ok, bytes memory why) = address(at).call(abi.encodeCall(at.claim, (entries)));
            yes(!ok, vm.parseJsonString(json, key("reject", i, "name")));
            eq(bytes32(bytes4(why)), bytes32(Channels.InvalidVoucherSignature.selector), "for its signature");
        }
        yes(i >= 10, "there are forgeries");
        bytes memory good = vm.parseJsonBytes(json, key("accept", 0, "voucherSignature"));
        Channels.VoucherClaim[] memory honest = one(Channels.VoucherClaim(Channels.Voucher(c, most), good, most));
        vm.prank(c.receiverAuthorizer);
        at.claim(honest);
    }

    function test_signed_deposits_of_the_vectors_open_their_channels_and_no_others() public {
        string memory json = vm.readFile("../vectors/channels.json");
        uint256 i = 0;
        for (; vm.keyExistsJson(json, key("accept", i, "name")); ++i) {
            string memory name = vm.parseJsonString(json, key("accept", i, "name"));
            vm.chainId(vm.parseJsonUint(json, key("accept", i, "chainId")));
            place(vm.parseJsonAddress(json, key("accept", i, "contract")));
            Channels.ChannelConfig memory c = configOf(json, i);
            vm.etch(c.token, address(dollar).code);
            address pulls = vm.parseJsonAddress(json, key("accept", i, "deposit.collector"));
            vm.etch(pulls, address(new Erc3009Collector(address(at))).code);
            uint128 amount = uint128(vm.parseJsonUint(json, key("accept", i, "maxClaimableAmount")));
            // More than may be minted at once: the first slot of the token is its balances.
            vm.store(c.token, keccak256(abi.encode(c.payer, 0)), bytes32(uint256(amount)));
            bytes memory data = vm.parseJsonBytes(json, key("accept", i, "deposit.collectorData"));
            Channels.ChannelConfig memory other = configOf(json, i);
            other.salt = keccak256("another lane");
            (bool ok,) = address(at).call(abi.encodeCall(at.deposit, (other, amount, pulls, data)));
            yes(!ok, "it was signed for one channel");
            at.deposit(c, amount, pulls, data);
            (uint128 held,) = at.channels(vm.parseJsonBytes32(json, key("accept", i, "channelId")));
            eq(held, amount, name);
        }
        yes(i >= 5, "there are vectors");
    }

    function test_a_batch_over_two_channels_has_x402s_digest_and_signature() public {
        string memory json = vm.readFile("../vectors/channels.json");
        vm.chainId(vm.parseJsonUint(json, key("accept", 0, "chainId")));
        place(vm.parseJsonAddress(json, key("accept", 0, "contract")));
        Channels.VoucherClaim[] memory entries = new Channels.VoucherClaim[](2);
        for (uint256 i = 0; i < 2; ++i) {
            uint256 which = 3 * i;
            uint128 most = uint128(vm.parseJsonUint(json, key("accept", which, "maxClaimableAmount")));
            bytes memory sig = vm.parseJsonBytes(json, key("accept", which, "voucherSignature"));
            Channels.ChannelConfig memory c = configOf(json, which);
            entries[i] = Channels.VoucherClaim(
                Channels.Voucher(c, most), sig, uint128(vm.parseJsonUint(json, key("accept", which, "totalClaimed")))
            );
            vm.etch(c.token, address(dollar).code);
            vm.store(c.token, keccak256(abi.encode(address(this), 0)), bytes32(uint256(most)));
            at.deposit(c, most, address(this), "");
        }
        eq(at.getClaimBatchDigest(entries), vm.parseJsonBytes32(json, ".claimOfTwo.digest"), "digest");
        at.claimWithSignature(entries, vm.parseJsonBytes(json, ".claimOfTwo.signature"));
    }

    /// A collector too: gives what this test has.
    function collect(address, address token, uint256 amount, bytes32, bytes calldata) external {
        IToken(token).transfer(msg.sender, amount);
    }

    /// No contract reads offers; their digest is held here all the same.
    function test_an_offer_has_the_digest_that_viem_computes() public view {
        string memory json = vm.readFile("../vectors/receipts.json");
        bytes32 typehash = keccak256(
            "Offer(address provider,bytes32 modelId,uint64 inputPrice,uint64 cachedInputPrice,uint64 outputPrice,uint32 maxContext,uint32 concurrency,uint32 ttftPromiseMs,uint64 expiresAt)"
        );
        bytes32 body = keccak256(
            bytes.concat(
                abi.encode(
                    typehash,
                    vm.parseJsonAddress(json, ".offer.provider"),
                    vm.parseJsonBytes32(json, ".offer.modelId"),
                    vm.parseJsonUint(json, ".offer.inputPrice"),
                    vm.parseJsonUint(json, ".offer.cachedInputPrice"),
                    vm.parseJsonUint(json, ".offer.outputPrice")
                ),
                abi.encode(
                    vm.parseJsonUint(json, ".offer.maxContext"),
                    vm.parseJsonUint(json, ".offer.concurrency"),
                    vm.parseJsonUint(json, ".offer.ttftPromiseMs"),
                    vm.parseJsonUint(json, ".offer.expiresAt")
                )
            )
        );
        bytes32 domain = keccak256(
            abi.encode(
                keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"),
                keccak256("Assay"),
                keccak256("1"),
                vm.parseJsonUint(json, ".chainId"),
                vm.parseJsonAddress(json, ".registry")
            )
        );
        bytes32 digest = keccak256(abi.encodePacked(hex"1901", domain, body));
        eq(digest, vm.parseJsonBytes32(json, ".offerDigest"), "digest");
        bytes memory sig = vm.parseJsonBytes(json, ".offerSignature");
        address signer = ecrecover(digest, uint8(sig[64]), word(sig, 0), word(sig, 32));
        eq(signer, vm.parseJsonAddress(json, ".signer"), "signer");
    }

    /// Puts money into the channel by a collector that has it.
    function fund(Channels.ChannelConfig memory c, uint128 amount) private {
        Giver giver = new Giver();
        (bool minted,) = c.token.call(abi.encodeWithSignature("mint(address,uint256)", address(giver), amount));
        yes(minted, "minted");
        at.deposit(c, amount, address(giver), "");
    }

    function test_merkle_roots_and_openings_agree_with_rust() public view {
        string memory json = vm.readFile("../vectors/merkle.json");
        uint256 trees = 0;
        for (; vm.keyExistsJson(json, key("trees", trees, "root")); ++trees) {
            // An empty list has no type that the parser could guess.
            uint256 count = 0;
            while (vm.keyExistsJson(json, key("trees", trees, string.concat("tokens[", vm.toString(count), "]")))) {
                ++count;
            }
            bytes32[] memory leaves = new bytes32[](count);
            for (uint256 i = 0; i < count; ++i) {
                uint256 id = vm.parseJsonUint(json, key("trees", trees, string.concat("tokens[", vm.toString(i), "]")));
                leaves[i] = Merkle.leafOf(abi.encodePacked(uint32(id)));
            }
            eq(Merkle.rootOf(leaves), vm.parseJsonBytes32(json, key("trees", trees, "root")), "root");
        }
        yes(trees >= 11, "there are trees");
        uint256 i = 0;
        for (; vm.keyExistsJson(json, key("accept", i, "root")); ++i) {
            yes(opens(json, "accept", i), "an honest opening");
        }
        yes(i >= 9, "there are openings");
        for (i = 0; vm.keyExistsJson(json, key("reject", i, "root")); ++i) {
            yes(!opens(json, "reject", i), vm.parseJsonString(json, key("reject", i, "name")));
        }
        yes(i >= 13, "there are forgeries");
    }

    function opens(string memory json, string memory list, uint256 i) private view returns (bool) {
        return Merkle.opens(
            vm.parseJsonBytes32(json, key(list, i, "root")),
            vm.parseJsonBytes32(json, key(list, i, "leaf")),
            uint64(vm.parseJsonUint(json, key(list, i, "count"))),
            uint64(vm.parseJsonUint(json, key(list, i, "index"))),
            siblings(json, list, i)
        );
    }

    function siblings(string memory json, string memory list, uint256 i) private view returns (bytes32[] memory) {
        if (!vm.keyExistsJson(json, key(list, i, "siblings[0]"))) return new bytes32[](0);
        return vm.parseJsonBytes32Array(json, key(list, i, "siblings"));
    }
}

interface IToken {
    function transfer(address to, uint256 value) external returns (bool);
}

/// @title Gives what it has.
contract Giver {
    function collect(address, address token, uint256 amount, bytes32, bytes calldata) external {
        IToken(token).transfer(msg.sender, amount);
    }
}
