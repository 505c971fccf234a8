//! The permutation of Keccak on four states at once, one in each 64-bit lane of an AVX2 register.
//! `unsafe` only in that the CPU must have AVX2.

use std::arch::x86_64::*;

const CONSTANTS: [u64; 24] = [
    0x0000_0000_0000_0001,
    0x0000_0000_0000_8082,
    0x8000_0000_0000_808a,
    0x8000_0000_8000_8000,
    0x0000_0000_0000_808b,
    0x0000_0000_8000_0001,
    0x8000_0000_8000_8081,
    0x8000_0000_0000_8009,
    0x0000_0000_0000_008a,
    0x0000_0000_0000_0088,
    0x0000_0000_8000_8009,
    0x0000_0000_8000_000a,
    0x0000_0000_8000_808b,
    0x8000_0000_0000_008b,
    0x8000_0000_0000_8089,
    0x8000_0000_0000_8003,
    0x8000_0000_0000_8002,
    0x8000_0000_0000_0080,
    0x0000_0000_0000_800a,
    0x8000_0000_8000_000a,
    0x8000_0000_8000_8081,
    0x8000_0000_0000_8080,
    0x0000_0000_8000_0001,
    0x8000_0000_8000_8008,
];

/// A lane of four states.
type Lane = __m256i;

/// Keccak-f[1600] on four states; lane x, y of them stands at x + 5y.
#[target_feature(enable = "avx2")]
pub(in super::super) fn permute(states: &mut [[u64; 4]; 25]) {
    let mut a = [_mm256_setzero_si256(); 25];
    for (a, words) in a.iter_mut().zip(states.iter()) {
        // Safety: four words are there.
        *a = unsafe { _mm256_loadu_si256(words.as_ptr().cast()) };
    }
    for pair in CONSTANTS.chunks_exact(2) {
        let b = round(&a, pair[0]);
        a = round(&b, pair[1]);
    }
    for (a, words) in a.iter().zip(states) {
        // Safety: four words are there.
        unsafe { _mm256_storeu_si256(words.as_mut_ptr().cast(), *a) };
    }
}

#[target_feature(enable = "avx2")]
#[inline]
fn xor(a: Lane, b: Lane) -> Lane {
    _mm256_xor_si256(a, b)
}

/// Turned left by L; R is 64 − L.
#[target_feature(enable = "avx2")]
#[inline]
fn turn<const L: i32, const R: i32>(v: Lane) -> Lane {
    _mm256_or_si256(_mm256_slli_epi64::<L>(v), _mm256_srli_epi64::<R>(v))
}

/// A row's last step: the one that is not linear.
#[target_feature(enable = "avx2")]
#[inline]
fn chi(b: [Lane; 5]) -> [Lane; 5] {
    let one = |i: usize| xor(b[i], _mm256_andnot_si256(b[(i + 1) % 5], b[(i + 2) % 5]));
    [one(0), one(1), one(2), one(3), one(4)]
}

/// Written out, as compilers do not unroll it: lanes must stay in registers.
#[target_feature(enable = "avx2")]
#[inline]
#[rustfmt::skip]
fn round(a: &[Lane; 25], constant: u64) -> [Lane; 25] {
    let column = |x: usize| xor(xor(xor(a[x], a[x + 5]), xor(a[x + 10], a[x + 15])), a[x + 20]);
    let c = [column(0), column(1), column(2), column(3), column(4)];
    let parity = |x: usize| xor(c[(x + 4) % 5], turn::<1, 63>(c[(x + 1) % 5]));
    let d = [parity(0), parity(1), parity(2), parity(3), parity(4)];
    let t = |lane: usize| xor(a[lane], d[lane % 5]);
    let mut rows = [
        chi([t(0), turn::<44, 20>(t(6)), turn::<43, 21>(t(12)), turn::<21, 43>(t(18)), turn::<14, 50>(t(24))]),
        chi([turn::<28, 36>(t(3)), turn::<20, 44>(t(9)), turn::<3, 61>(t(10)), turn::<45, 19>(t(16)), turn::<61, 3>(t(22))]),
        chi([turn::<1, 63>(t(1)), turn::<6, 58>(t(7)), turn::<25, 39>(t(13)), turn::<8, 56>(t(19)), turn::<18, 46>(t(20))]),
        chi([turn::<27, 37>(t(4)), turn::<36, 28>(t(5)), turn::<10, 54>(t(11)), turn::<15, 49>(t(17)), turn::<56, 8>(t(23))]),
        chi([turn::<62, 2>(t(2)), turn::<55, 9>(t(8)), turn::<39, 25>(t(14)), turn::<41, 23>(t(15)), turn::<2, 62>(t(21))]),
    ];
    rows[0][0] = xor(rows[0][0], _mm256_set1_epi64x(constant as i64));
    let mut all = *a;
    all.copy_from_slice(rows.as_flattened());
    all
}
