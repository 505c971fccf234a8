// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Opening, Statement, Step} from "../../src/dispute/IReferee.sol";
import {Evidence} from "../../src/dispute/Evidence.sol";
import {LayerElements} from "../../src/dispute/LayerElements.sol";
import {TraceGeometry as T} from "../../src/dispute/TraceGeometry.sol";
import {Trees} from "../../src/dispute/Trees.sol";
import {ManifestBytes} from "./ManifestBytes.sol";
import {StepBase} from "./StepBase.sol";

/// @title Steps that show something else than they must: none may convict, and most must revert.
contract AttacksTest is StepBase {
    uint256 private constant ROW = 6;
    uint256 private constant LAYER = 3;

    Statement private statement;
    bytes32 private root;

    /// A step that convicts: an addition that is one too large.
    function good() private returns (Step memory) {
        begin(ManifestBytes.tiny(false));
        set(0, ROW, T.RESIDUAL, 40, 1000);
        set(LAYER, ROW, T.BRANCH, 40, 234);
        set(LAYER, ROW, T.MIDDLE, 40, 1235);
        ask(LAYER, ROW, T.MIDDLE, 40, 1);
        ask(0, ROW, T.RESIDUAL, 40, 1);
        ask(LAYER, ROW, T.BRANCH, 40, 1);
        (Statement memory s, bytes32 r) = closed();
        (statement, root) = (s, r);
        Step memory step = stepOf(LAYER, ROW, 0);
        yes(convicts(step), "the good one convicts");
        return step;
    }

    function convicts(Step memory step) private view returns (bool) {
        return referee.convicts(statement, root, abi.encode(step));
    }

    function refused(Step memory step, string memory what) private view {
        try referee.convicts(statement, root, abi.encode(step)) returns (bool) {
            revert(what);
        } catch {}
    }

    function test_an_opening_of_another_place_is_refused() public {
        Step memory step = good();
        for (uint256 i = 0; i < 3; ++i) {
            Opening memory o = step.openings[i];
            o.row += 1;
            refused(step, "row");
            o.row -= 1;
            o.op += 1;
            refused(step, "op");
            o.op -= 1;
            o.first += 1;
            refused(step, "first");
            o.first -= 1;
        }
        yes(convicts(step), "as before");
        (step.openings[1], step.openings[2]) = (step.openings[2], step.openings[1]);
        refused(step, "another order");
    }

    function test_the_element_is_named_within_its_trace() public {
        Step memory step = good();
        step.slot = 64;
        refused(step, "no such slot");
        step.slot = type(uint32).max;
        refused(step, "no such slot at all");
        step.slot = 40;
        (step.chunk, step.row) = (type(uint32).max, uint32(ROW));
        vm.expectRevert(abi.encodeWithSelector(T.NoSuchChunk.selector, LAYER, ROW, type(uint32).max));
        referee.convicts(statement, root, abi.encode(step));
        step.row = 7;
        vm.expectRevert(abi.encodeWithSelector(T.NoSuchRow.selector, LAYER, 7));
        referee.convicts(statement, root, abi.encode(step));
        step.op = 6;
        vm.expectRevert(abi.encodeWithSelector(T.NoSuchOp.selector, 6));
        referee.convicts(statement, root, abi.encode(step));
    }

    function test_other_bytes_or_hashes_are_refused() public {
        Step memory step = good();
        for (uint256 i = 0; i < 3; ++i) {
            Opening memory o = step.openings[i];
            o.data[3] ^= 0x01;
            refused(step, "data");
            o.data[3] ^= 0x01;
            for (uint256 j = 0; j < o.siblings.length; ++j) {
                o.siblings[j] ^= bytes32(uint256(1));
                refused(step, "sibling");
                o.siblings[j] ^= bytes32(uint256(1));
            }
            for (uint256 j = 0; j < o.path.length; ++j) {
                o.path[j] ^= bytes32(uint256(1));
                refused(step, "path");
                o.path[j] ^= bytes32(uint256(1));
            }
            bytes memory data = o.data;
            o.data = bytes.concat(data, bytes1(0));
            refused(step, "a byte more");
            o.data = slice(data, 0, data.length - 1);
            refused(step, "a byte less");
            o.data = "";
            refused(step, "nothing");
            o.data = data;
        }
        yes(convicts(step), "as before");
        root ^= bytes32(uint256(1));
        refused(step, "another root");
    }

    function test_a_wider_range_than_asked_for_is_refused() public {
        begin(ManifestBytes.tiny(false));
        set(LAYER, ROW, T.MIXES, 5, 99);
        set(LAYER, ROW, T.MIX_PEAK, 0, 5);
        ask(LAYER, ROW, T.MIX_PEAK, 1, 1);
        ask(LAYER, ROW, T.MIXES, 5, 60);
        (Statement memory s, bytes32 r) = closed();
        (statement, root) = (s, r);
        refused(stepOf(LAYER, ROW, 0), "two chunks for one");
    }

    function test_a_leaf_is_shown_by_one_path() public {
        Step memory step = good();
        bytes32[] memory path = step.openings[0].path;
        yes(step.openings[2].path.length == 0, "the same leaf");
        step.openings[2].path = path;
        refused(step, "shown again");
        step.openings[2].path = new bytes32[](0);
        step.openings[0].path = new bytes32[](0);
        refused(step, "not shown");
        step.openings[0].path = path;
        step.openings[1].path = new bytes32[](0);
        refused(step, "another leaf not shown");
    }

    function test_twelve_bits_are_for_short_elements() public {
        Step memory step = good();
        step.openings[1].packing = 1;
        vm.expectRevert(abi.encodeWithSelector(Evidence.WrongPacking.selector, 1, 1));
        referee.convicts(statement, root, abi.encode(step));
        step.openings[1].packing = 2;
        vm.expectRevert(abi.encodeWithSelector(Evidence.WrongPacking.selector, 1, 2));
        referee.convicts(statement, root, abi.encode(step));
    }

    /// A packing is believed for what it unpacks to, and only at its exact length.
    function test_a_packing_says_what_it_unpacks_to() public {
        begin(ManifestBytes.tiny(false));
        int256[] memory x = some(1, 64, 2047, true);
        // The second of four halves is narrow.
        for (uint256 i = 16; i < 32; ++i) {
            x[i] %= 128;
        }
        set(1, ROW, T.X12, 0, x);
        set(1, ROW, T.QKV, 5, 1 << 25);
        ask(1, ROW, T.QKV, 5, 1);
        ask(1, ROW, T.PEAK, 0, 2);
        askPacked(1, ROW, T.X12, 0, 64);
        showRow(0, 128, 5, 50_000, 64);
        (Statement memory s, bytes32 r) = closed();
        (statement, root) = (s, r);
        Step memory step = stepOf(1, ROW, 0);
        yes(convicts(step), "the right one");
        bytes memory packed = step.openings[2].data;
        eq(packed.length, 1 + 64 + 3 * 8, "three wide halves");
        for (uint256 i = 0; i < packed.length; ++i) {
            packed[i] ^= i == 0 ? bytes1(0x80) : bytes1(0x10);
            refused(step, "a changed byte");
            packed[i] ^= i == 0 ? bytes1(0x80) : bytes1(0x10);
        }
        // A flag of no half is not looked at: what it unpacks to is the same.
        packed[0] ^= 0x01;
        yes(convicts(step), "a flag beyond the last half");
        packed[0] ^= 0x01;
        step.openings[2].data = bytes.concat(packed, hex"00");
        refused(step, "a byte too many");
        step.openings[2].data = bytes.concat(bytes1(packed[0] | 0x40), packed);
        refused(step, "too many flags");
        step.openings[2].data = "";
        refused(step, "nothing");
        // A narrow half may be shown as a wide one: its nibbles are the signs.
        bytes memory nibbles = new bytes(8);
        for (uint256 i = 0; i < 16; ++i) {
            if (x[16 + i] < 0) nibbles[2 * (i % 4) + (i < 8 ? 1 : 0)] |= bytes1(uint8(15 << (i / 4 % 2 * 4)));
        }
        bytes memory wide;
        for (uint256 i = 0; i < packed.length; ++i) {
            if (i == 1 + 64 + 8) wide = bytes.concat(wide, nibbles);
            wide = bytes.concat(wide, i == 0 ? packed[0] | 0x40 : packed[i]);
        }
        step.openings[2].data = wide;
        yes(convicts(step), "wide where narrow does");
    }

    function test_too_few_openings_are_refused() public {
        Step memory step = good();
        Opening[] memory all = step.openings;
        for (uint256 n = 0; n < 3; ++n) {
            step.openings = new Opening[](n);
            for (uint256 i = 0; i < n; ++i) {
                step.openings[i] = all[i];
            }
            refused(step, "too few");
        }
    }

    function test_a_step_about_another_statement_is_refused() public {
        Step memory step = good();
        statement.nPrompt += 1;
        refused(step, "another count");
        statement.nPrompt -= 1;
        statement.modelId = models.publish(ManifestBytes.encode(shape, ManifestBytes.someRoots()));
        // The same shapes: an addition takes nothing else of the model.
        yes(convicts(step), "the same geometry");
        ManifestBytes.Shape memory other = shape;
        other.layers = 2;
        statement.modelId = models.publish(ManifestBytes.encode(other, ManifestBytes.someRoots()));
        refused(step, "another count of ops");
        statement.modelId = bytes32(uint256(1));
        refused(step, "an unknown model");
    }

    function test_a_row_or_entry_of_another_place_is_refused() public {
        begin(ManifestBytes.tiny(false));
        set(1, ROW, T.X12, 0, some(1, 64, 2047, true));
        ask(1, ROW, T.QKV, 5, 1);
        ask(1, ROW, T.PEAK, 0, 2);
        ask(1, ROW, T.X12, 0, 64);
        showRow(0, 128, 6, 50_000, 64);
        set(1, ROW, T.QKV, 5, 1 << 25);
        (Statement memory s, bytes32 r) = closed();
        (statement, root) = (s, r);
        refused(stepOf(1, ROW, 0), "row 6 for row 5");
        delete rows;
        showRow(1, 64, 5, 50_000, 64);
        refused(stepOf(1, ROW, 0), "k's for q's");
        delete rows;
        showRow(0, 128, 5, 50_000, 64);
        (s, r) = closed();
        (statement, root) = (s, r);
        Step memory step = stepOf(1, ROW, 0);
        yes(convicts(step), "the right one");
        step.rows[0].data[0] ^= 0x01;
        refused(step, "another A");
        step.rows[0].data[0] ^= 0x01;
        step.rows[0].format = 0;
        refused(step, "another format");
    }

    function test_a_witness_must_lie_within() public {
        begin(ManifestBytes.tiny(false));
        set(LAYER, ROW, T.MIX_PEAK, 0, 5);
        ask(LAYER, ROW, T.MIX_PEAK, 0, 1);
        ask(LAYER, ROW, T.MIXES, 5, 1);
        ask(LAYER, ROW, T.MIXES, 127, 1);
        (Statement memory s, bytes32 r) = closed();
        (statement, root) = (s, r);
        bytes memory encoded = abi.encode(stepOf(LAYER, ROW, 128));
        vm.expectRevert(abi.encodeWithSelector(LayerElements.WitnessOutside.selector, 128, 128));
        referee.convicts(statement, root, encoded);
        yes(!convicts(stepOf(LAYER, ROW, 127)), "within, and no larger");
    }

    /// Steps that show an honest trace: of an addition, of a matrix's row, of a norm, of a drawn token.
    /// What is not set is zero, and right in these places.
    function honest(uint256 which) private returns (uint256 op, uint256 row) {
        if (which == 3) sampler = drawing(1);
        begin(ManifestBytes.tiny(false));
        (op, row) = (LAYER, ROW);
        if (which == 0) {
            set(0, ROW, T.RESIDUAL, 40, 1000);
            set(LAYER, ROW, T.BRANCH, 40, 234);
            set(LAYER, ROW, T.MIDDLE, 40, 1234);
            ask(LAYER, ROW, T.MIDDLE, 40, 1);
            ask(0, ROW, T.RESIDUAL, 40, 1);
            ask(LAYER, ROW, T.BRANCH, 40, 1);
        } else if (which == 1) {
            op = 1;
            set(1, ROW, T.PEAK, 1, 3);
            ask(1, ROW, T.QKV, 5, 1);
            ask(1, ROW, T.PEAK, 0, 2);
            askPacked(1, ROW, T.X12, 0, 64);
            showRow(0, 128, 5, 50_000, 64);
        } else if (which == 2) {
            set(LAYER, ROW, T.FFN_SQUARES, 0, 1 << 40);
            ask(LAYER, ROW, T.FFN_X12, 7, 1);
            ask(LAYER, ROW, T.FFN_PEAK, 0, 2);
            ask(LAYER, ROW, T.FFN_SQUARES, 0, 1);
            ask(LAYER, ROW, T.MIDDLE, 7, 1);
            showGain(1, 64, 7, 1234);
        } else {
            (op, row) = (T.TOKEN, 2);
            set(5, 2, T.WEIGHTS, 0, 100);
            set(5, 2, T.KEPT, 0, 100);
            set(5, 2, T.KEPT, 1, 100);
            ask(5, 2, T.KEPT, 1, 1);
            ask(5, 2, T.LOGITS, 0, 256);
            ask(5, 2, T.WEIGHTS, 0, 256);
            showToken(nPrompt + 2, 0);
        }
    }

    function drawing(uint256 beta) private pure returns (bytes memory) {
        return abi.encodePacked(
            uint32(16), "assay/sampler/v1", uint32(beta), uint32(0), uint32(65_536), bytes32(0), uint32(3), uint32(0)
        );
    }

    function test_the_honest_steps_are_judged_and_stand() public {
        for (uint256 which = 0; which < 4; ++which) {
            (uint256 op, uint256 row) = honest(which);
            yes(!judge(op, row, 0), "stands");
            forget();
            forgetVectors();
        }
    }

    /// An honest provider's step, whatever is bent in its encoding, never convicts.
    /// forge-config: default.fuzz.runs = 256
    /// forge-config: deep.fuzz.runs = 4096
    function testFuzz_no_bent_encoding_convicts_the_honest(uint256 place, uint256 word, uint256 kind, uint8 which)
        public
    {
        (uint256 op, uint256 row) = honest(which % 4);
        (Statement memory s, bytes32 r) = closed();
        bytes memory encoded = abi.encode(stepOf(op, row, 0));
        place %= encoded.length;
        if (kind % 4 == 0) place = place % 24 * 32;
        if (kind % 4 == 1) word = word % 1024;
        if (kind % 4 == 2) {
            encoded = slice(encoded, 0, place);
        } else {
            if (place + 32 > encoded.length) place = encoded.length - 32;
            assembly ("memory-safe") {
                mstore(add(add(encoded, 32), place), word)
            }
        }
        try referee.convicts(s, r, encoded) returns (bool guilty) {
            yes(!guilty, "the honest convicted");
        } catch {}
    }

    function test_bytes_that_are_no_step_are_refused() public {
        good();
        bytes[5] memory garbage = [
            bytes(""),
            hex"20",
            abi.encode(32),
            abi.encode(32, 0, 0, 0, 0, 0, 0, 0, 0, 0),
            abi.encode(64, LAYER, ROW, 0, 0, 0, 0, 0, 0, 0, 0, 0)
        ];
        for (uint256 i = 0; i < 5; ++i) {
            vm.expectRevert(Evidence.MalformedStep.selector);
            referee.convicts(statement, root, garbage[i]);
        }
        // Every offset points far away, or to itself.
        vm.expectRevert();
        referee.convicts(statement, root, abi.encode(32, LAYER, ROW, 0, 0, 0, 0, 0, 0, 0, 0));
        uint256 far = type(uint256).max;
        vm.expectRevert();
        referee.convicts(statement, root, abi.encode(32, LAYER, ROW, 0, 0, 0, far, far, far, far, far));
    }

    // ---------------------------------------------------------------- the count of ops

    function test_with_or_without_a_sampler_a_layers_step_is_the_same() public {
        // With two layers, eight ops or nine: paths of another length.
        ManifestBytes.Shape memory s = ManifestBytes.tiny(false);
        s.layers = 2;
        for (uint256 i = 0; i < 2; ++i) {
            sampler = drawing(i);
            begin(s);
            forget();
            set(0, ROW, T.RESIDUAL, 40, 1000);
            set(LAYER, ROW, T.BRANCH, 40, 234);
            ask(LAYER, ROW, T.MIDDLE, 40, 1);
            ask(0, ROW, T.RESIDUAL, 40, 1);
            ask(LAYER, ROW, T.BRANCH, 40, 1);
            check(1234, "middle");
        }
    }

    function test_a_path_of_another_depth_is_refused() public {
        Step memory step = good();
        bytes32[] memory path = step.openings[0].path;
        bytes32[] memory longer = new bytes32[](path.length + 1);
        bytes32[] memory shorter = new bytes32[](path.length - 1);
        for (uint256 i = 0; i < path.length; ++i) {
            longer[i] = path[i];
            if (i > 0) shorter[i - 1] = path[i];
        }
        step.openings[0].path = longer;
        refused(step, "longer");
        step.openings[0].path = shorter;
        refused(step, "shorter");
        step.openings[0].path = new bytes32[](1);
        vm.expectRevert(abi.encodeWithSelector(Trees.WrongPath.selector, 1, 3));
        referee.convicts(statement, root, abi.encode(step));
    }
}
