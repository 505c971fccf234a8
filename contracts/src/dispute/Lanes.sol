// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

/// @title Vectors of 16-bit integers, sixteen in a word: unpacking them, and their dot product.
/// @notice Only this file computes on packed lanes. A vector is big-endian in memory, so its first
///         element is a word's most significant lane.
/// @dev Two ways to hold signed lanes: *plain*, each lane in two's complement by itself, as bytes are
///      hashed; and *summed*, the word as one number Σ v_i·2^(16i), where a negative lane borrows from
///      the next. Adding 2^15 to each lane of a summed word makes all of them non-negative, so that no
///      lane borrows; flipping each lane's top bit then gives the plain word. Backwards likewise.
library Lanes {
    error WrongLength(uint256 length, uint256 expected);
    error UnknownFormat(uint256 format);

    /// @dev Each sixteen-bit lane's top bit; each lane's 1.
    uint256 private constant TOPS = 0x8000800080008000800080008000800080008000800080008000800080008000;
    uint256 private constant ONES = 0x0001000100010001000100010001000100010001000100010001000100010001;

    /// @notice `Σ x_i·w_i` over n elements at two places in memory. Where n is no multiple of 32, the 64 bytes
    ///         after x become zero.
    /// @dev One multiplication makes eight products: with X = Σ x_i·2^(32i) and W = Σ w_(7−i)·2^(32i),
    ///      the coefficient of 2^224 in X·W is Σ x_i·w_i, those above vanish mod 2^256, and those below
    ///      come to less than 2^223 in magnitude, so that adding 2^223 before the shift rounds them
    ///      away. Four of these are added, of the even and the odd lanes of two words. Exact where
    ///      32·max|x|·max|w| < 2^31: weights are 16-bit and x at most 2047, or both at most 4095.
    function dot(uint256 x, uint256 w, uint256 n) internal pure returns (int256 sum) {
        assembly ("memory-safe") {
            let lows := 0x0000ffff0000ffff0000ffff0000ffff0000ffff0000ffff0000ffff0000ffff
            let tops := 0x0000800000008000000080000000800000008000000080000000800000008000
            let quarters := 0x0000000000000000ffffffffffffffff0000000000000000ffffffffffffffff
            let eighths := 0x00000000ffffffff00000000ffffffff00000000ffffffff00000000ffffffff
            let end := add(x, shl(1, n))
            // Of last words that are not full, what lies beyond the vector counts as zeros.
            if and(n, 31) {
                mstore(end, 0)
                mstore(add(end, 32), 0)
            }
            for {} lt(x, end) {
                x := add(x, 64)
                w := add(w, 64)
            } {
                // b's 32-bit lanes in the other order: halves, quarters, eighths change places.
                let a := xor(mload(x), TOPS)
                let b := xor(mload(w), TOPS)
                b := or(shr(128, b), shl(128, b))
                b := xor(b, mul(and(xor(b, shr(64, b)), quarters), 0x10000000000000001))
                b := xor(b, mul(and(xor(b, shr(32, b)), eighths), 0x100000001))
                let products :=
                    add(
                        mul(sub(and(a, lows), tops), sub(and(b, lows), tops)),
                        mul(sub(and(shr(16, a), lows), tops), sub(and(shr(16, b), lows), tops))
                    )
                // The second word likewise.
                a := xor(mload(add(x, 32)), TOPS)
                b := xor(mload(add(w, 32)), TOPS)
                b := or(shr(128, b), shl(128, b))
                b := xor(b, mul(and(xor(b, shr(64, b)), quarters), 0x10000000000000001))
                b := xor(b, mul(and(xor(b, shr(32, b)), eighths), 0x100000001))
                products := add(products, mul(sub(and(a, lows), tops), sub(and(b, lows), tops)))
                products := add(products, mul(sub(and(shr(16, a), lows), tops), sub(and(shr(16, b), lows), tops)))
                products := add(products, 0x80000000000000000000000000000000000000000000000000000000)
                sum := add(sum, sar(224, products))
            }
        }
    }

    /// @notice `Σ rsh(e_j·inverse, 30)·v_j` over n elements: `Arithmetic.share` of each unsigned e_j.
    function mix(uint256 e, uint256 v, uint256 n, uint256 inverse) internal pure returns (int256 sum) {
        assembly ("memory-safe") {
            for { let end := add(e, shl(1, n)) } lt(e, end) {
                e := add(e, 2)
                v := add(v, 2)
            } {
                let share := shr(30, add(mul(shr(240, mload(e)), inverse), 0x20000000))
                sum := add(sum, mul(share, sar(240, mload(v))))
            }
        }
    }

    /// @notice The sum of n unsigned elements, where n is a multiple of 16 and below 2^16.
    /// @dev Lanes of 32 bits hold the sums of pairs; the last multiplication adds these up in the top
    ///      lane, and no lane reaches 2^32.
    function sum16(uint256 e, uint256 n) internal pure returns (uint256 sum) {
        assembly ("memory-safe") {
            let lows := 0x0000ffff0000ffff0000ffff0000ffff0000ffff0000ffff0000ffff0000ffff
            for { let end := add(e, shl(1, n)) } lt(e, end) { e := add(e, 32) } {
                let a := mload(e)
                sum := add(sum, add(and(a, lows), and(shr(16, a), lows)))
            }
            sum := shr(224, mul(sum, 0x0000000100000001000000010000000100000001000000010000000100000001))
        }
    }

    /// @notice n elements of 12 bits, in blocks of 32 and halves of 16, the last padded: a bit for each half
    ///         that is wide, the high bits first, in whole bytes; 32 low bytes a block; four bits an
    ///         element more for each wide half, without which its elements have 8 bits. Written as
    ///         16-bit elements from `into` on; up to 64 bytes more change.
    /// @dev Bytes of a block alternate between its halves, so that two masks part them. The nibbles of a
    ///      half are four numbers of 16 bits, each holding every fourth element from the lowest nibble up:
    ///      of four copies 68 bits apart, each has the nibbles of its quarter at the top of their lanes.
    function unpack12(bytes calldata data, uint256 n, uint256 into) internal pure {
        uint256 used;
        assembly ("memory-safe") {
            let lows := 0x00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff
            let signs := 0x0080008000800080008000800080008000800080008000800080008000800080
            let blocks := shr(5, add(n, 31))
            let flags := data.offset
            let low := add(flags, shr(2, add(blocks, 3)))
            let high := add(low, shl(5, blocks))
            for { let end := add(into, shl(6, blocks)) } lt(into, end) {} {
                let wide := calldataload(flags)
                flags := add(flags, 32)
                // As many blocks as a word has flags for.
                for { let last := add(into, 8192) } and(lt(into, end), lt(into, last)) { into := add(into, 64) } {
                    let both := calldataload(low)
                    low := add(low, 32)
                    // 0x0080·0x1fe = 0xff00: a negative element's sign fills the byte above it.
                    let v := and(shr(8, both), lows)
                    v := or(v, mul(and(v, signs), 0x1fe))
                    if slt(wide, 0) {
                        let top :=
                            and(
                                mul(
                                    shr(192, calldataload(high)),
                                    0x1000000000000000010000000000000000100000000000000001
                                ),
                                0xf000f000f000f000f000f000f000f000f000f000f000f000f000f000f000f000
                            )
                        // 0x1000·0xf = 0xf000: likewise of the four bits above twelve.
                        v := or(or(and(v, lows), shr(4, top)), mul(shr(3, and(top, TOPS)), 0xf))
                        high := add(high, 8)
                    }
                    mstore(into, v)
                    v := and(both, lows)
                    v := or(v, mul(and(v, signs), 0x1fe))
                    if slt(shl(1, wide), 0) {
                        let top :=
                            and(
                                mul(
                                    shr(192, calldataload(high)),
                                    0x1000000000000000010000000000000000100000000000000001
                                ),
                                0xf000f000f000f000f000f000f000f000f000f000f000f000f000f000f000f000
                            )
                        // 0x1000·0xf = 0xf000: likewise of the four bits above twelve.
                        v := or(or(and(v, lows), shr(4, top)), mul(shr(3, and(top, TOPS)), 0xf))
                        high := add(high, 8)
                    }
                    mstore(add(into, 32), v)
                    wide := shl(2, wide)
                }
            }
            used := sub(high, data.offset)
        }
        // Past their end others were read, and are not believed.
        if (data.length != used) revert WrongLength(data.length, used);
    }

    /// @notice The weights of a row shown in one of the formats of docs/dispute.md, without its A.
    ///         Written as 16-bit elements from `into` on; up to 32 bytes more change.
    /// @dev A weight that leaves 16 bits wraps to a row of another hash, and proves nothing.
    function unpackWeights(uint256 format, bytes calldata data, uint256 n, uint256 into) internal pure {
        if (format == 0) {
            if (data.length != 2 * n) revert WrongLength(data.length, 2 * n);
            assembly ("memory-safe") {
                calldatacopy(into, data.offset, data.length)
            }
        } else if (format == 1) {
            _length(data, n, 32, 20);
            _unpackNibbles(data, into);
        } else if (format == 2) {
            _length(data, n, 32, 34);
            _unpackBytes(data, 2, into);
        } else if (format == 3) {
            _length(data, n, 16, 18);
            _unpackBytes(data, 1, into);
        } else if (format == 4) {
            _length(data, n, 128, 112);
            _unpackSixes(data, into);
        } else {
            revert UnknownFormat(format);
        }
    }

    function _length(bytes calldata data, uint256 n, uint256 columns, uint256 size) private pure {
        if (n % columns != 0 || data.length != n / columns * size) {
            revert WrongLength(data.length, n / columns * size);
        }
    }

    /// @dev Per 32 columns D, M and 16 bytes, the low nibble of byte i being column i, the high one
    ///      column 16 + i: `w = D·q + M`.
    function _unpackNibbles(bytes calldata data, uint256 into) private pure {
        assembly ("memory-safe") {
            let end := add(data.offset, data.length)
            for { let ptr := data.offset } lt(ptr, end) {
                ptr := add(ptr, 20)
                into := add(into, 64)
            } {
                let block32 := calldataload(ptr)
                let d := sar(240, block32)
                // M and what makes lanes non-negative, in every lane.
                let base := add(mul(sar(240, shl(16, block32)), ONES), TOPS)
                // Sixteen bytes, moved apart by halves as above.
                let v := and(shr(96, block32), 0xffffffffffffffffffffffffffffffff)
                v := add(v, mul(shr(64, v), 0xffffffffffffffff0000000000000000))
                v := add(
                    v,
                    mul(
                        and(shr(32, v), 0x000000000000000000000000ffffffff000000000000000000000000ffffffff),
                        0xffffffff00000000
                    )
                )
                v := add(
                    v,
                    mul(and(shr(16, v), 0x000000000000ffff000000000000ffff000000000000ffff000000000000ffff), 0xffff0000)
                )
                v := add(
                    v,
                    mul(and(shr(8, v), 0x000000ff000000ff000000ff000000ff000000ff000000ff000000ff000000ff), 0xff00)
                )
                let mask := 0x000f000f000f000f000f000f000f000f000f000f000f000f000f000f000f000f
                mstore(into, xor(add(mul(and(v, mask), d), base), TOPS))
                mstore(add(into, 32), xor(add(mul(and(shr(4, v), mask), d), base), TOPS))
            }
        }
    }

    /// @dev Per 16·groups columns D and as many signed bytes: `w = D·q`.
    function _unpackBytes(bytes calldata data, uint256 groups, uint256 into) private pure {
        assembly ("memory-safe") {
            let end := add(data.offset, data.length)
            for { let ptr := data.offset } lt(ptr, end) {} {
                let d := sar(240, calldataload(ptr))
                ptr := add(ptr, 2)
                for { let group := groups } group { group := sub(group, 1) } {
                    let v := shr(128, calldataload(ptr))
                    v := add(v, mul(shr(64, v), 0xffffffffffffffff0000000000000000))
                    v := add(
                        v,
                        mul(
                            and(shr(32, v), 0x000000000000000000000000ffffffff000000000000000000000000ffffffff),
                            0xffffffff00000000
                        )
                    )
                    v := add(
                        v,
                        mul(
                            and(shr(16, v), 0x000000000000ffff000000000000ffff000000000000ffff000000000000ffff),
                            0xffff0000
                        )
                    )
                    v := add(
                        v,
                        mul(and(shr(8, v), 0x000000ff000000ff000000ff000000ff000000ff000000ff000000ff000000ff), 0xff00)
                    )
                    let signs := 0x0080008000800080008000800080008000800080008000800080008000800080
                    v := sub(xor(v, signs), signs)
                    mstore(into, xor(add(mul(v, d), TOPS), TOPS))
                    ptr := add(ptr, 16)
                    into := add(into, 32)
                }
            }
        }
    }

    /// @dev Per 128 columns eight D, one for 16 columns each, and three words of codes that have 32 added:
    ///      lane i of word k holds column i of groups 2k and 2k + 1 in its upper twelve bits. Its lowest four
    ///      are the k-th of three that hold groups 6 and 7 in the same way. `w = D·(q − 32)`.
    function _unpackSixes(bytes calldata data, uint256 into) private pure {
        assembly ("memory-safe") {
            function put(codes, d, to) {
                codes := and(codes, 0x003f003f003f003f003f003f003f003f003f003f003f003f003f003f003f003f)
                codes := sub(codes, 0x0020002000200020002000200020002000200020002000200020002000200020)
                mstore(to, xor(add(mul(codes, sar(240, d)), TOPS), TOPS))
            }
            let end := add(data.offset, data.length)
            for { let ptr := data.offset } lt(ptr, end) { ptr := add(ptr, 112) } {
                let d := calldataload(ptr)
                let nibbles := 0x000f000f000f000f000f000f000f000f000f000f000f000f000f000f000f000f
                let last := 0
                for { let word := add(ptr, 16) } lt(word, add(ptr, 112)) { word := add(word, 32) } {
                    let v := calldataload(word)
                    put(shr(10, v), d, into)
                    put(shr(4, v), shl(16, d), add(into, 32))
                    last := or(shl(4, last), and(v, nibbles))
                    d := shl(32, d)
                    into := add(into, 64)
                }
                put(shr(6, last), d, into)
                put(last, shl(16, d), add(into, 32))
                into := add(into, 64)
            }
        }
    }
}
