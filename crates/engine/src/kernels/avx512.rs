//! The two products for AVX-512 with VNNI, where registers of sixteen lanes and `vpdpbusd`, `vpdpwssd` pay;
//! the rest is as for AVX2. `unsafe` only in that the CPU must have F, BW, VL and VNNI; slices are read
//! within their bounds, which callers in `kernels` have asserted or the layout guarantees.

use std::arch::asm;
use std::arch::x86_64::*;

use super::{Single, Strip};
use crate::layout::{BLOCK, Format, MatrixView, PANEL};

/// Bytes of a line of codes.
const LINE: usize = 64;
/// Vectors that a strip takes at a time: so many sums stay in registers.
const WIDE: usize = 12;

/// A line of codes.
///
/// # Safety
/// It must be one of the tile's.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
#[inline]
unsafe fn line(codes: &[u8], line: usize) -> __m512i {
    debug_assert!((line + 1) * LINE <= codes.len());
    // Safety: the caller's.
    unsafe { _mm512_loadu_si512(codes.as_ptr().add(line * LINE).cast()) }
}

/// The four bytes from the `at`-th element on, to every lane of 32 bits.
///
/// # Safety
/// They must be there.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
#[inline]
unsafe fn spread<T>(x: &[T], at: usize) -> __m512i {
    debug_assert!(at + 4 / size_of::<T>() <= x.len());
    // Safety: the caller's, and an i32 may be any bytes.
    _mm512_set1_epi32(unsafe { x.as_ptr().add(at).cast::<i32>().read_unaligned() })
}

/// `vpdpwssd`, spelled out: from the intrinsic the compiler makes a product and a sum, two instructions.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
#[inline]
fn dpwssd(mut acc: __m512i, a: __m512i, b: __m512i) -> __m512i {
    // Safety: registers alone, and the function's target has the instruction.
    unsafe {
        asm!("vpdpwssd {0}, {1}, {2}", inout(zmm_reg) acc, in(zmm_reg) a, in(zmm_reg) b,
            options(pure, nomem, nostack, preserves_flags));
    }
    acc
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) fn strip(task: Strip<'_>, out: &mut [i32], stride: usize, add: bool) {
    let mut j = 0;
    while j < task.count {
        let x = &task.x[j * task.x_stride..];
        let out = &mut out[j * stride..];
        let left = task.count - j;
        // Safety: `kernels::strip` has asserted that this many vectors and results are there.
        let took = unsafe {
            match left {
                WIDE.. => block::<WIDE>(task, x, out, stride, add),
                6.. => block::<6>(task, x, out, stride, add),
                3.. => block::<3>(task, x, out, stride, add),
                2 => block::<2>(task, x, out, stride, add),
                _ => block::<1>(task, x, out, stride, add),
            }
        };
        j += took;
    }
}

/// Gives N.
///
/// # Safety
/// `x` must hold N vectors, `out` N results, and `w` what the task says.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
#[inline]
unsafe fn block<const N: usize>(
    task: Strip<'_>,
    x: &[i16],
    out: &mut [i32],
    stride: usize,
    add: bool,
) -> usize {
    let mut acc = [_mm512_setzero_si512(); N];
    let (to, x) = (out.as_mut_ptr(), x.as_ptr());
    // Safety: the caller's: every offset is below the lengths that were asserted.
    unsafe {
        if add {
            for (j, acc) in acc.iter_mut().enumerate() {
                *acc = _mm512_loadu_si512(to.add(j * stride).cast());
            }
        }
        let mut w = task.w.as_ptr();
        for pair in 0..task.pairs {
            let both = _mm512_loadu_si512(w.cast());
            for (j, acc) in acc.iter_mut().enumerate() {
                let x = x.add(j * task.x_stride + 2 * pair).cast::<i32>();
                *acc = dpwssd(*acc, both, _mm512_set1_epi32(x.read_unaligned()));
            }
            w = w.wrapping_add(task.step);
        }
        for (j, acc) in acc.iter().enumerate() {
            _mm512_storeu_si512(to.add(j * stride).cast(), *acc);
        }
    }
    N
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) fn gemv(matrix: &MatrixView<'_>, panel: usize, xs: &Single<'_>, acc: &mut [i32]) {
    let tiles = matrix.panel(panel);
    let sums = match matrix.format {
        Format::U4 => narrow::<false>(tiles, xs),
        Format::I5 => narrow::<true>(tiles, xs),
        Format::I8x32 => bytes::<1>(tiles, xs),
        Format::I8x16 => bytes::<2>(tiles, xs),
        Format::I16 => plain(tiles, xs),
    };
    assert!(acc.len() >= PANEL);
    // Safety: sixteen lanes.
    unsafe { _mm512_storeu_si512(acc.as_mut_ptr().cast(), sums) };
}

/// A factor of all rows as `i32`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
#[inline]
fn wide(factors: &[u8]) -> __m512i {
    assert!(factors.len() >= 2 * PANEL);
    // Safety: 32 bytes are there.
    _mm512_cvtepi16_epi32(unsafe { _mm256_loadu_si256(factors.as_ptr().cast()) })
}

/// Codes of four bits and an offset, or of five with 16 added. `vpdpbusd` sums four products of code and
/// h, or code and l, without saturation.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
#[inline]
fn narrow<const FIVE: bool>(tiles: &[u8], xs: &Single<'_>) -> __m512i {
    let format = if FIVE { Format::I5 } else { Format::U4 };
    let nibble = _mm512_set1_epi8(15);
    let zero = _mm512_setzero_si512();
    let mut acc = zero;
    let blocks = xs.split.blocks();
    for (tile, ((high, low), sum)) in tiles.chunks_exact(format.tile_len()).zip(blocks) {
        let (codes, factors) = tile.split_at(format.codes_len());
        let (mut sum_high, mut sum_low) = (zero, zero);
        // Safety, here and below: a tile has four lines of codes, five with the fifth bits, and a block of
        // x has 32 elements.
        let fifths = match FIVE {
            true => unsafe { line(codes, 4) },
            false => zero,
        };
        for number in 0..4 {
            let bytes = unsafe { line(codes, number) };
            let mut q = [
                _mm512_and_si512(bytes, nibble),
                _mm512_and_si512(_mm512_srli_epi16::<4>(bytes), nibble),
            ];
            for (part, q) in q.iter_mut().enumerate() {
                if FIVE {
                    *q = _mm512_or_si512(*q, fifth(fifths, 4 * part + number));
                }
                let at = part * 16 + number * 4;
                let (h, l) = unsafe { (spread(high, at), spread(low, at)) };
                sum_high = _mm512_dpbusd_epi32(sum_high, *q, h);
                sum_low = _mm512_dpbusd_epi32(sum_low, *q, l);
            }
        }
        let d = wide(factors);
        // What each element of x is multiplied with besides its code: M, or the 16 that codes have added.
        let offset = match FIVE {
            true => _mm512_slli_epi32::<4>(_mm512_sub_epi32(zero, d)),
            false => wide(&factors[2 * PANEL..]),
        };
        let whole = _mm512_add_epi32(_mm512_slli_epi32::<5>(sum_high), sum_low);
        let rest = _mm512_mullo_epi32(offset, _mm512_set1_epi32(*sum));
        let whole = _mm512_add_epi32(_mm512_mullo_epi32(whole, d), rest);
        acc = _mm512_add_epi32(acc, whole);
    }
    acc
}

/// Bit `bit` of each byte as 16.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
#[inline]
fn fifth(bits: __m512i, bit: usize) -> __m512i {
    let moved = match bit {
        0 => _mm512_slli_epi16::<4>(bits),
        1 => _mm512_slli_epi16::<3>(bits),
        2 => _mm512_slli_epi16::<2>(bits),
        3 => _mm512_slli_epi16::<1>(bits),
        4 => bits,
        5 => _mm512_srli_epi16::<1>(bits),
        6 => _mm512_srli_epi16::<2>(bits),
        _ => _mm512_srli_epi16::<3>(bits),
    };
    _mm512_and_si512(moved, _mm512_set1_epi8(16))
}

/// Signed bytes, with one factor a block or two, widened to 16 bits: against h and l apart they would take
/// as many products.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
#[inline]
fn bytes<const FACTORS: usize>(tiles: &[u8], xs: &Single<'_>) -> __m512i {
    let format = match FACTORS {
        1 => Format::I8x32,
        _ => Format::I8x16,
    };
    let zero = _mm512_setzero_si512();
    let mut acc = zero;
    let tiles = tiles.chunks_exact(format.tile_len());
    for (tile, x) in tiles.zip(xs.x.chunks_exact(BLOCK)) {
        let (codes, factors) = tile.split_at(format.codes_len());
        for part in 0..FACTORS {
            let (mut even_sum, mut odd_sum) = (zero, zero);
            let lines = 8 / FACTORS;
            for number in part * lines..(part + 1) * lines {
                // Safety: a tile has eight lines of codes, and a block of x has 32 elements.
                let (bytes, first, second) = unsafe {
                    (
                        line(codes, number),
                        spread(x, number * 4),
                        spread(x, number * 4 + 2),
                    )
                };
                let even = _mm512_srai_epi16::<8>(_mm512_slli_epi16::<8>(bytes));
                let odd = _mm512_srai_epi16::<8>(bytes);
                even_sum = dpwssd(even_sum, even, first);
                odd_sum = dpwssd(odd_sum, odd, second);
            }
            let d = wide(&factors[part * 2 * PANEL..]);
            let sum = _mm512_add_epi32(even_sum, odd_sum);
            acc = _mm512_add_epi32(acc, _mm512_mullo_epi32(sum, d));
        }
    }
    acc
}

/// Weights as they are.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
#[inline]
fn plain(tiles: &[u8], xs: &Single<'_>) -> __m512i {
    let mut acc = _mm512_setzero_si512();
    for (codes, x) in tiles.chunks_exact(LINE).zip(xs.x.chunks_exact(2)) {
        // Safety: a line and a pair of elements.
        let (w, both) = unsafe { (line(codes, 0), spread(x, 0)) };
        acc = dpwssd(acc, w, both);
    }
    acc
}
