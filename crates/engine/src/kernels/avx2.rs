//! Kernels for AVX2. Every function is `unsafe` only in that the CPU must have AVX2; slices are read
//! within their bounds, which callers in `kernels` have asserted or the layout guarantees.

use std::arch::x86_64::*;
use std::ops::Range;

use super::{Dots, ExpTable, Vectors, portable};
use crate::layout::{Format, MatrixView};

#[target_feature(enable = "avx2")]
pub(super) fn run<R>(f: impl FnOnce() -> R) -> R {
    f()
}

#[target_feature(enable = "avx2")]
pub(super) fn row_sum(matrix: &MatrixView<'_>, row: usize, w: &mut [i16]) -> i64 {
    portable::row_sum_body(matrix, row, w)
}

/// Plain weights of a row; 16-bit products wrap as in `MatrixView::row`.
#[target_feature(enable = "avx2")]
pub(super) fn unpack(matrix: &MatrixView<'_>, row: usize, w: &mut [i16]) {
    let (codes, d, m) = (matrix.codes(row), matrix.factors(row), matrix.offsets(row));
    let w = &mut w[..matrix.cols];
    match matrix.format {
        Format::U4 => {
            let nibble = _mm_set1_epi8(15);
            let blocks = w.chunks_exact_mut(32).zip(codes.chunks_exact(16));
            for ((w, q), (d, m)) in blocks.zip(d.chunks_exact(2).zip(m.chunks_exact(2))) {
                let (d, m) = (spread(d), spread(m));
                // Safety: chunks of 16 bytes.
                let q = unsafe { _mm_loadu_si128(q.as_ptr().cast()) };
                let low = _mm256_cvtepu8_epi16(_mm_and_si128(q, nibble));
                let high = _mm256_cvtepu8_epi16(_mm_and_si128(_mm_srli_epi16::<4>(q), nibble));
                let (low_w, high_w) = w.split_at_mut(16);
                store16(low_w, _mm256_add_epi16(_mm256_mullo_epi16(low, d), m));
                store16(high_w, _mm256_add_epi16(_mm256_mullo_epi16(high, d), m));
            }
        }
        Format::I8x32 | Format::I8x16 => {
            let step = matrix.format.block();
            let blocks = w.chunks_exact_mut(step).zip(codes.chunks_exact(step));
            for ((w, q), d) in blocks.zip(d.chunks_exact(2)) {
                let d = spread(d);
                for (w, q) in w.chunks_exact_mut(16).zip(q.chunks_exact(16)) {
                    store16(w, _mm256_mullo_epi16(load_signed(q), d));
                }
            }
        }
        Format::I16 => matrix.row(row, w),
    }
}

/// A little-endian `i16` in every lane.
#[target_feature(enable = "avx2")]
#[inline]
fn spread(bytes: &[u8]) -> __m256i {
    _mm256_set1_epi16(i16::from_le_bytes([bytes[0], bytes[1]]))
}

#[target_feature(enable = "avx2")]
#[inline]
fn store16(to: &mut [i16], v: __m256i) {
    assert!(to.len() >= 16);
    // Safety: 16 elements are there.
    unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), v) }
}

#[target_feature(enable = "avx2")]
#[inline]
fn load(slice: &[i16]) -> __m256i {
    assert!(slice.len() >= 16);
    // Safety: 16 elements are there.
    unsafe { _mm256_loadu_si256(slice.as_ptr().cast()) }
}

/// 32 bytes of anything.
#[target_feature(enable = "avx2")]
#[inline]
fn load_bytes<T: Copy>(slice: &[T]) -> __m256i {
    const { assert!(size_of::<T>() == 1) };
    assert!(slice.len() >= 32);
    // Safety: 32 bytes are there.
    unsafe { _mm256_loadu_si256(slice.as_ptr().cast()) }
}

/// 16 bytes of anything, each widened to 16 bits with its sign.
#[target_feature(enable = "avx2")]
#[inline]
fn load_signed(slice: &[u8]) -> __m256i {
    assert!(slice.len() >= 16);
    // Safety: 16 bytes are there.
    _mm256_cvtepi8_epi16(unsafe { _mm_loadu_si128(slice.as_ptr().cast()) })
}

/// Four sums of eight lanes each.
#[target_feature(enable = "avx2")]
#[inline]
fn sum4(a: [__m256i; 4]) -> __m128i {
    let halves = _mm256_hadd_epi32(_mm256_hadd_epi32(a[0], a[1]), _mm256_hadd_epi32(a[2], a[3]));
    _mm_add_epi32(
        _mm256_castsi256_si128(halves),
        _mm256_extracti128_si256::<1>(halves),
    )
}

#[target_feature(enable = "avx2")]
#[inline]
fn store4(to: &mut [i32], v: __m128i) {
    assert!(to.len() >= 4);
    // Safety: four elements are there.
    unsafe { _mm_storeu_si128(to.as_mut_ptr().cast(), v) }
}

/// Four rows against P vectors.
///
/// # Safety
/// Every pointer must have `len` elements behind it.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn tile<const P: usize>(w: [*const i16; 4], x: [*const i16; P], len: usize) -> [__m128i; P] {
    let mut acc = [[_mm256_setzero_si256(); 4]; P];
    let mut k = 0;
    while k < len {
        let mut xs = [_mm256_setzero_si256(); P];
        for (to, from) in xs.iter_mut().zip(x) {
            // Safety: k + 16 ≤ len.
            *to = unsafe { _mm256_loadu_si256(from.add(k).cast()) };
        }
        for (i, row) in w.iter().enumerate() {
            // Safety: k + 16 ≤ len.
            let row = unsafe { _mm256_loadu_si256(row.add(k).cast()) };
            for (acc, x) in acc.iter_mut().zip(xs) {
                acc[i] = _mm256_add_epi32(acc[i], _mm256_madd_epi16(row, x));
            }
        }
        k += 16;
    }
    let mut sums = [_mm_setzero_si128(); P];
    for (to, acc) in sums.iter_mut().zip(acc) {
        *to = sum4(acc);
    }
    sums
}

#[target_feature(enable = "avx2")]
pub(super) fn dots(task: Dots<'_>, out: &mut [i32], out_stride: usize) {
    let Dots {
        w,
        w_stride,
        rows,
        x,
        x_stride,
        count,
        len,
    } = task;
    let (w, x) = (w.as_ptr(), x.as_ptr());
    let mut write = |j: usize, i: usize, sums: __m128i| {
        let out = &mut out[j * out_stride + i..];
        if i + 4 <= rows {
            store4(out, sums);
        } else {
            let mut four = [0; 4];
            store4(&mut four, sums);
            out[..rows - i].copy_from_slice(&four[..rows - i]);
        }
    };
    for j in (0..count).step_by(2) {
        for i in (0..rows).step_by(4) {
            // Rows past the end repeat the last one; their sums are not written.
            let row = |n: usize| (i + n).min(rows - 1) * w_stride;
            // Safety: `super::dots` has checked that every row and vector has `len` elements.
            unsafe {
                let w = [w.add(row(0)), w.add(row(1)), w.add(row(2)), w.add(row(3))];
                let first = x.add(j * x_stride);
                if j + 1 < count {
                    let [a, b] = tile::<2>(w, [first, first.add(x_stride)], len);
                    write(j, i, a);
                    write(j + 1, i, b);
                } else {
                    let [a] = tile::<1>(w, [first], len);
                    write(j, i, a);
                }
            }
        }
    }
}

#[target_feature(enable = "avx2")]
pub(super) fn gemv(
    matrix: &MatrixView<'_>,
    rows: Range<usize>,
    xs: &Vectors,
    acc: &mut [i32],
    tile: &mut Vec<i16>,
) {
    if matrix.format == Format::U4 && !matrix.cols.is_multiple_of(64) {
        return portable::gemv(matrix, rows, xs, acc, tile);
    }
    let last = rows.end - 1;
    for (start, acc) in rows.step_by(4).zip(acc.chunks_mut(4)) {
        let four = [
            start,
            last.min(start + 1),
            last.min(start + 2),
            last.min(start + 3),
        ];
        let sums = match matrix.format {
            Format::U4 => u4_rows(matrix, four, xs),
            Format::I8x32 => i8_rows::<2>(matrix, four, xs),
            Format::I8x16 => i8_rows::<1>(matrix, four, xs),
            Format::I16 => i16_rows(matrix, four, xs),
        };
        let mut out = [0; 4];
        store4(&mut out, sums);
        acc.copy_from_slice(&out[..acc.len()]);
    }
}

/// Asks for the bytes that the next four rows have at this place: four short rows side by side are no
/// stream that the hardware follows by itself. A hint only; nothing is read.
#[target_feature(enable = "avx2")]
#[inline]
fn ahead(row: &[u8], at: usize) {
    _mm_prefetch::<_MM_HINT_T0>(row.as_ptr().wrapping_add(4 * row.len() + at).cast());
}

/// Four rows of 4-bit codes. With x = 16·h + l, h and l bytes: `vpmaddubsw` sums pairs q·h (at most
/// 2·15·128) and q·l; two of each are added in 16 bits and `vpmaddwd` brings in D. The offsets need
/// block sums of x alone.
#[target_feature(enable = "avx2")]
#[inline]
fn u4_rows(matrix: &MatrixView<'_>, rows: [usize; 4], xs: &Vectors) -> __m128i {
    let nibble = _mm256_set1_epi8(15);
    // The first of two factors to every lane of the low half, the second to the high half.
    let spread = _mm256_setr_epi8(
        0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 2, 3, 2, 3, 2, 3, 2, 3, 2, 3, 2, 3, 2, 3,
        2, 3,
    );
    let groups = matrix.cols / 64;
    let (high, low) = (&xs.split.high[..groups * 64], &xs.split.low[..groups * 64]);
    let codes = rows.map(|row| &matrix.codes(row)[..groups * 32]);
    let factors = rows.map(|row| &matrix.factors(row)[..groups * 4]);
    let mut acc_high = [_mm256_setzero_si256(); 4];
    let mut acc_low = [_mm256_setzero_si256(); 4];
    for g in 0..groups {
        let h = [
            load_bytes(&high[g * 64..]),
            load_bytes(&high[g * 64 + 32..]),
        ];
        let l = [load_bytes(&low[g * 64..]), load_bytes(&low[g * 64 + 32..])];
        for r in 0..4 {
            ahead(codes[r], g * 32);
            let bytes = load_bytes(&codes[r][g * 32..]);
            let q = [
                _mm256_and_si256(bytes, nibble),
                _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), nibble),
            ];
            let d = &factors[r][g * 4..g * 4 + 4];
            let d = i32::from_le_bytes([d[0], d[1], d[2], d[3]]);
            let d = _mm256_shuffle_epi8(_mm256_set1_epi32(d), spread);
            let sum = |x: [__m256i; 2]| {
                _mm256_add_epi16(
                    _mm256_maddubs_epi16(q[0], x[0]),
                    _mm256_maddubs_epi16(q[1], x[1]),
                )
            };
            acc_high[r] = _mm256_add_epi32(acc_high[r], _mm256_madd_epi16(sum(h), d));
            acc_low[r] = _mm256_add_epi32(acc_low[r], _mm256_madd_epi16(sum(l), d));
        }
    }
    let (half, rest) = (&xs.split.half[..groups * 2], &xs.split.rest[..groups * 2]);
    let whole = half.len() / 16 * 16;
    let mut tail = [0i32; 4];
    for r in 0..4 {
        let m = &matrix.offsets(rows[r])[..groups * 4];
        for b in (0..whole).step_by(16) {
            let m = load_bytes(&m[b * 2..]);
            let pair = _mm256_add_epi32(
                _mm256_madd_epi16(m, load(&half[b..])),
                _mm256_madd_epi16(m, load(&rest[b..])),
            );
            acc_low[r] = _mm256_add_epi32(acc_low[r], pair);
        }
        for b in whole..half.len() {
            let m = i32::from(i16::from_le_bytes([m[2 * b], m[2 * b + 1]]));
            let sum = i32::from(half[b]) + i32::from(rest[b]);
            tail[r] = tail[r].wrapping_add(m.wrapping_mul(sum));
        }
        acc_low[r] = _mm256_add_epi32(acc_low[r], _mm256_slli_epi32::<4>(acc_high[r]));
    }
    let tail = _mm_setr_epi32(tail[0], tail[1], tail[2], tail[3]);
    _mm_add_epi32(sum4(acc_low), tail)
}

/// Four rows of signed codes with a factor a block of N times 16. Code times factor fits 16 bits (see
/// `MatrixView::row_wraps`).
#[target_feature(enable = "avx2")]
#[inline]
fn i8_rows<const N: usize>(matrix: &MatrixView<'_>, rows: [usize; 4], xs: &Vectors) -> __m128i {
    let blocks = matrix.cols / (16 * N);
    let x = &xs.x[..blocks * 16 * N];
    let codes = rows.map(|row| &matrix.codes(row)[..blocks * 16 * N]);
    let factors = rows.map(|row| &matrix.factors(row)[..blocks * 2]);
    let mut acc = [_mm256_setzero_si256(); 4];
    for b in 0..blocks {
        for r in 0..4 {
            let d = spread(&factors[r][2 * b..2 * b + 2]);
            for i in 0..N {
                let at = (b * N + i) * 16;
                ahead(codes[r], at);
                let w = _mm256_mullo_epi16(load_signed(&codes[r][at..at + 16]), d);
                acc[r] = _mm256_add_epi32(acc[r], _mm256_madd_epi16(w, load(&x[at..at + 16])));
            }
        }
    }
    sum4(acc)
}

/// Four rows of plain weights, where they lie.
#[target_feature(enable = "avx2")]
#[inline]
fn i16_rows(matrix: &MatrixView<'_>, rows: [usize; 4], xs: &Vectors) -> __m128i {
    let w = rows.map(|row| {
        let bytes = matrix.codes(row);
        assert!(bytes.len() == 2 * xs.x.len() && xs.x.len().is_multiple_of(16));
        bytes.as_ptr().cast()
    });
    // Safety: the rows are as long as the vector, and `tile` reads without alignment.
    let [sums] = unsafe { tile::<1>(w, [xs.x.as_ptr()], xs.x.len()) };
    sums
}

/// Four results at a time. AVX2 shifts 64-bit lanes only without sign: a bias of 2^62 makes them
/// positive, and comes off again after the shift. |acc·A| is below 2^46, the rounding at most 2^61.
#[target_feature(enable = "avx2")]
pub(super) fn requantize(acc: &[i32], scales: &[u8], shift: i32, limit: i32, out: &mut [i32]) {
    let whole = if (1..=62).contains(&shift) {
        acc.len() / 4 * 4
    } else {
        0
    };
    if whole > 0 {
        let by = _mm_cvtsi32_si128(shift);
        let bias = _mm256_set1_epi64x((1 << 62) + (1 << (shift - 1)));
        let unbias = _mm256_set1_epi64x(1 << (62 - shift));
        let (top, bottom) = (
            _mm256_set1_epi64x(limit.into()),
            _mm256_set1_epi64x((-limit).into()),
        );
        let evens = _mm256_setr_epi32(0, 2, 4, 6, 0, 0, 0, 0);
        let groups = acc
            .chunks_exact(4)
            .zip(scales.chunks_exact(8))
            .zip(out.chunks_exact_mut(4));
        for ((acc, a), out) in groups {
            // Safety: chunks of 4 `i32` and of 8 bytes.
            let (acc, a) = unsafe {
                (
                    _mm_loadu_si128(acc.as_ptr().cast()),
                    _mm_loadl_epi64(a.as_ptr().cast()),
                )
            };
            let product = _mm256_mul_epi32(_mm256_cvtepi32_epi64(acc), _mm256_cvtepu16_epi64(a));
            let shifted = _mm256_srl_epi64(_mm256_add_epi64(product, bias), by);
            let y = _mm256_sub_epi64(shifted, unbias);
            let y = _mm256_blendv_epi8(y, top, _mm256_cmpgt_epi64(y, top));
            let y = _mm256_blendv_epi8(y, bottom, _mm256_cmpgt_epi64(bottom, y));
            let y = _mm256_permutevar8x32_epi32(y, evens);
            store4(out, _mm256_castsi256_si128(y));
        }
    }
    portable::requantize(
        &acc[whole..],
        &scales[whole * 2..],
        shift,
        limit,
        &mut out[whole..],
    );
}

/// 64 elements of the head at a time stay in registers while positions go by in pairs.
#[target_feature(enable = "avx2")]
pub(super) fn mix(p: &[i16], pairs: &[i16], out: &mut [i32]) {
    let step = 2 * out.len();
    let mut from = 0;
    while from < out.len() {
        let width = if out.len() - from >= 64 { 64 } else { 16 };
        let pairs = &pairs[2 * from..];
        let out = &mut out[from..from + width];
        if width == 64 {
            mix_part::<8>(p, pairs, step, out)
        } else {
            mix_part::<2>(p, pairs, step, out)
        }
        from += width;
    }
}

#[target_feature(enable = "avx2")]
#[inline]
fn mix_part<const N: usize>(p: &[i16], pairs: &[i16], step: usize, out: &mut [i32]) {
    let mut acc = [_mm256_setzero_si256(); N];
    for (p, at) in p.chunks_exact(2).zip((0..).step_by(step)) {
        let both = i32::from(p[0]) & 0xffff | i32::from(p[1]) << 16;
        let both = _mm256_set1_epi32(both);
        let v = &pairs[at..at + N * 16];
        for (i, acc) in acc.iter_mut().enumerate() {
            *acc = _mm256_add_epi32(*acc, _mm256_madd_epi16(load(&v[i * 16..]), both));
        }
    }
    for (out, acc) in out.chunks_exact_mut(8).zip(acc) {
        // Safety: chunks of 8.
        unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), acc) };
    }
}

/// Eight `u32` products with a factor below 2^31, rounded and shifted: even lanes, odd lanes.
#[target_feature(enable = "avx2")]
#[inline]
fn scaled(v: __m256i, factor: __m256i, half: __m256i, by: __m128i) -> (__m256i, __m256i) {
    let even = _mm256_mul_epu32(v, factor);
    let odd = _mm256_mul_epu32(_mm256_srli_epi64::<32>(v), factor);
    let shifted = |product| _mm256_srl_epi64(_mm256_add_epi64(product, half), by);
    (shifted(even), shifted(odd))
}

#[target_feature(enable = "avx2")]
pub(super) fn exponentials(
    below: &[u32],
    (c, csh): (u32, i32),
    exp: &ExpTable,
    e: &mut [u32],
) -> u64 {
    let whole = below.len() / 8 * 8;
    let (factor, by) = (_mm256_set1_epi64x(c.into()), _mm_cvtsi32_si128(csh));
    let half = _mm256_set1_epi64x((1 << csh) >> 1);
    // 16 octaves of 256 steps; what is further down is nothing.
    let end = _mm256_set1_epi64x(16 << 8);
    let mut total = 0;
    // Sums of 4096 values up to 2^15 stay in 32 bits.
    for (below, e) in below[..whole].chunks(4096).zip(e[..whole].chunks_mut(4096)) {
        let mut sum = _mm256_setzero_si256();
        for (below, e) in below.chunks_exact(8).zip(e.chunks_exact_mut(8)) {
            // Safety: chunks of 8.
            let v = unsafe { _mm256_loadu_si256(below.as_ptr().cast()) };
            let (even, odd) = scaled(v, factor, half, by);
            let (near_even, near_odd) =
                (_mm256_cmpgt_epi64(end, even), _mm256_cmpgt_epi64(end, odd));
            let near = _mm256_blend_epi32::<0b1010_1010>(near_even, near_odd);
            let t = _mm256_or_si256(
                _mm256_and_si256(even, near_even),
                _mm256_slli_epi64::<32>(_mm256_and_si256(odd, near_odd)),
            );
            let octaves = _mm256_srli_epi32::<8>(t);
            let at = _mm256_and_si256(t, _mm256_set1_epi32(255));
            // Safety: indices are below 256.
            let table = unsafe { _mm256_i32gather_epi32::<4>(exp.wide.as_ptr().cast(), at) };
            let half = _mm256_srli_epi32::<1>(_mm256_sllv_epi32(_mm256_set1_epi32(1), octaves));
            let value = _mm256_srlv_epi32(_mm256_add_epi32(table, half), octaves);
            let value = _mm256_and_si256(value, near);
            sum = _mm256_add_epi32(sum, value);
            // Safety: chunks of 8.
            unsafe { _mm256_storeu_si256(e.as_mut_ptr().cast(), value) };
        }
        let mut lanes = [0u32; 8];
        // Safety: eight lanes.
        unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), sum) };
        total += lanes.iter().map(|lane| u64::from(*lane)).sum::<u64>();
    }
    total + portable::exponentials(&below[whole..], (c, csh), exp, &mut e[whole..])
}

#[target_feature(enable = "avx2")]
pub(super) fn shares(e: &[u32], reciprocal: u64, p: &mut [i16]) {
    let whole = e.len() / 8 * 8;
    let (factor, by) = (_mm256_set1_epi64x(reciprocal as i64), _mm_cvtsi32_si128(30));
    let half = _mm256_set1_epi64x(1 << 29);
    for (e, p) in e[..whole]
        .chunks_exact(8)
        .zip(p[..whole].chunks_exact_mut(8))
    {
        // Safety: chunks of 8.
        let v = unsafe { _mm256_loadu_si256(e.as_ptr().cast()) };
        let (even, odd) = scaled(v, factor, half, by);
        let v = _mm256_or_si256(even, _mm256_slli_epi64::<32>(odd));
        let packed = _mm256_permute4x64_epi64::<0b1000>(_mm256_packus_epi32(v, v));
        // Safety: chunks of 8.
        unsafe { _mm_storeu_si128(p.as_mut_ptr().cast(), _mm256_castsi256_si128(packed)) };
    }
    portable::shares(&e[whole..], reciprocal, &mut p[whole..]);
}
