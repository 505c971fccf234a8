// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

/// @title Packs short elements as docs/dispute.md has it, byte by byte: what `Lanes.unpack12` reads.
library Packing {
    /// The packing of big-endian `i16`s of twelve bits.
    function pack12(bytes memory data) internal pure returns (bytes memory out) {
        uint256 blocks = (data.length / 2 + 31) / 32;
        bytes memory flags = new bytes((2 * blocks + 7) / 8);
        bytes memory lows = new bytes(32 * blocks);
        bytes memory highs;
        for (uint256 half = 0; half < 2 * blocks; ++half) {
            bool wide = false;
            bytes memory nibbles = new bytes(8);
            for (uint256 i = 0; i < 16; ++i) {
                int256 v = elementAt(data, 16 * half + i);
                wide = wide || v < -128 || v > 127;
                lows[half / 2 * 32 + 2 * i + half % 2] = bytes1(uint8(uint256(v)));
                // Elements c, 4 + c, 8 + c and 12 + c share number c, the first in the lowest nibble.
                uint256 place = 2 * (i % 4) + (i < 8 ? 1 : 0);
                nibbles[place] |= bytes1(uint8(((uint256(v) >> 8) & 15) << (i / 4 % 2 * 4)));
            }
            if (!wide) continue;
            flags[half / 8] |= bytes1(uint8(128 >> (half % 8)));
            highs = bytes.concat(highs, nibbles);
        }
        return bytes.concat(flags, lows, highs);
    }

    /// An element; zero beyond the last.
    function elementAt(bytes memory data, uint256 i) private pure returns (int256) {
        if (2 * i >= data.length) return 0;
        return int16(uint16(bytes2(bytes.concat(data[2 * i], data[2 * i + 1]))));
    }
}
