// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {TestDollar} from "../src/TestDollar.sol";
import {Market} from "./Base.sol";

/// @title The test dollar: EIP-3009 as USDC has it.
contract TestDollarTest is Market {
    bytes32 private constant NONCE = bytes32(uint256(42));

    function transferSignature(uint256 validAfter, uint256 validBefore) private view returns (bytes memory) {
        bytes32 structHash = keccak256(
            abi.encode(dollar.TRANSFER_WITH_AUTHORIZATION_TYPEHASH(), payer, OWNER, 5e6, validAfter, validBefore, NONCE)
        );
        return signature(PAYER_KEY, keccak256(abi.encodePacked(hex"1901", dollar.DOMAIN_SEPARATOR(), structHash)));
    }

    function test_anybody_submits_a_signed_transfer_once() public {
        uint256 soon = block.timestamp + 60;
        bytes memory sig = transferSignature(0, soon);
        vm.prank(stranger);
        dollar.transferWithAuthorization(payer, OWNER, 5e6, 0, soon, NONCE, sig);
        eq(dollar.balanceOf(OWNER), 1005e6, "owner");
        yes(dollar.authorizationState(payer, NONCE), "used");
        vm.expectRevert(abi.encodeWithSelector(TestDollar.AuthorizationSpent.selector, payer, NONCE));
        dollar.transferWithAuthorization(payer, OWNER, 5e6, 0, soon, NONCE, sig);
    }

    function test_split_signatures_work_too() public {
        uint256 soon = block.timestamp + 60;
        bytes memory sig = transferSignature(0, soon);
        (bytes32 r, bytes32 s, uint8 v) = (word(sig, 0), word(sig, 32), uint8(sig[64]));
        dollar.transferWithAuthorization(payer, OWNER, 5e6, 0, soon, NONCE, v, r, s);
        eq(dollar.balanceOf(OWNER), 1005e6, "owner");
    }

    function test_an_authorization_counts_strictly_between_its_bounds() public {
        uint256 time = block.timestamp;
        bytes memory sig = transferSignature(time, time + 60);
        vm.expectRevert(abi.encodeWithSelector(TestDollar.AuthorizationNotYetValid.selector, time));
        dollar.transferWithAuthorization(payer, OWNER, 5e6, time, time + 60, NONCE, sig);
        vm.warp(time + 60);
        vm.expectRevert(abi.encodeWithSelector(TestDollar.AuthorizationExpired.selector, time + 60));
        dollar.transferWithAuthorization(payer, OWNER, 5e6, time, time + 60, NONCE, sig);
        vm.warp(time + 59);
        dollar.transferWithAuthorization(payer, OWNER, 5e6, time, time + 60, NONCE, sig);
    }

    function test_only_the_payee_receives_and_a_transfer_is_no_receipt() public {
        uint256 soon = block.timestamp + 60;
        bytes memory sig = authorization(PAYER_KEY, payer, OWNER, 5e6, 0, soon, NONCE);
        vm.prank(stranger);
        vm.expectRevert(abi.encodeWithSelector(TestDollar.CallerIsNotPayee.selector, stranger, OWNER));
        dollar.receiveWithAuthorization(payer, OWNER, 5e6, 0, soon, NONCE, sig);
        // Signed for receiving, it is no signature of a transfer.
        vm.expectRevert(abi.encodeWithSelector(TestDollar.InvalidAuthorizationSignature.selector, payer));
        dollar.transferWithAuthorization(payer, OWNER, 5e6, 0, soon, NONCE, sig);
        vm.prank(OWNER);
        dollar.receiveWithAuthorization(payer, OWNER, 5e6, 0, soon, NONCE, sig);
    }

    function test_a_cancelled_authorization_is_worthless() public {
        bytes32 structHash = keccak256(abi.encode(dollar.CANCEL_AUTHORIZATION_TYPEHASH(), payer, NONCE));
        bytes memory sig =
            signature(PAYER_KEY, keccak256(abi.encodePacked(hex"1901", dollar.DOMAIN_SEPARATOR(), structHash)));
        vm.expectRevert(abi.encodeWithSelector(TestDollar.InvalidAuthorizationSignature.selector, OWNER));
        dollar.cancelAuthorization(OWNER, NONCE, sig);
        dollar.cancelAuthorization(payer, NONCE, sig);
        uint256 soon = block.timestamp + 60;
        bytes memory transfer = transferSignature(0, soon);
        vm.expectRevert(abi.encodeWithSelector(TestDollar.AuthorizationSpent.selector, payer, NONCE));
        dollar.transferWithAuthorization(payer, OWNER, 5e6, 0, soon, NONCE, transfer);
        vm.expectRevert(abi.encodeWithSelector(TestDollar.AuthorizationSpent.selector, payer, NONCE));
        dollar.cancelAuthorization(payer, NONCE, sig);
    }

    function test_a_malleable_signature_and_another_amount_are_refused() public {
        uint256 soon = block.timestamp + 60;
        bytes memory sig = transferSignature(0, soon);
        bytes memory twin = malleable(sig);
        bytes memory wrong = abi.encodeWithSelector(TestDollar.InvalidAuthorizationSignature.selector, payer);
        vm.expectRevert(wrong);
        dollar.transferWithAuthorization(payer, OWNER, 5e6, 0, soon, NONCE, twin);
        vm.expectRevert(wrong);
        dollar.transferWithAuthorization(payer, OWNER, 6e6, 0, soon, NONCE, sig);
        vm.chainId(2);
        vm.expectRevert(wrong);
        dollar.transferWithAuthorization(payer, OWNER, 5e6, 0, soon, NONCE, sig);
    }

    function test_a_mint_has_a_bound_and_dollars_have_six_decimals() public {
        eq(dollar.decimals(), 6, "decimals");
        uint256 most = dollar.MINT_MOST();
        vm.expectRevert(abi.encodeWithSelector(TestDollar.MintTooLarge.selector, most + 1, most));
        dollar.mint(stranger, most + 1);
        dollar.mint(stranger, most);
    }
}
