//! What this machine could do at best, in the two coins that a pass is paid in: bytes read in a row, and
//! multiply-adds of 16-bit integers in registers. Only the work stands here; whoever measures holds the
//! clock and the threads.

use crate::kernels::Path;

/// Multiply-adds that one round of the widest form makes; counts are rounded up to it.
const ROUND: u64 = (CHAINS * 32) as u64;
/// Sums that do not wait for each other: enough to hide a multiply-add's latency, few enough for the
/// registers of AVX2.
const CHAINS: usize = 12;
/// An odd factor, so that no sum dies out at 0.
const FACTOR: i16 = 0x3a5b;

/// The widest multiply-add of 16-bit integers here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Widest {
    Portable,
    /// Each of these is made by [`Widest::detect`] alone, on a CPU that has it.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni,
}

impl Widest {
    fn detect() -> Widest {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::is_x86_feature_detected as has;
            if has!("avx512f") && has!("avx512bw") {
                return match has!("avx512vnni") {
                    true => Widest::Avx512Vnni,
                    false => Widest::Avx512,
                };
            }
            if has!("avx2") {
                return Widest::Avx2;
            }
        }
        Widest::Portable
    }
}

/// What [`multiply_adds`] runs here, in words.
pub fn instruction() -> &'static str {
    match Widest::detect() {
        Widest::Portable => "portable",
        #[cfg(target_arch = "x86_64")]
        Widest::Avx2 => "AVX2 vpmaddwd",
        #[cfg(target_arch = "x86_64")]
        Widest::Avx512 => "AVX-512 vpmaddwd",
        #[cfg(target_arch = "x86_64")]
        Widest::Avx512Vnni => "AVX-512 VNNI vpdpwssd",
    }
}

/// Reads every whole piece of 128 bytes once, in order. The sum means nothing: it keeps compilers from
/// leaving the reading out.
pub fn read(buffer: &[u8]) -> u64 {
    Path::detect().run(
        #[inline(always)]
        || {
            let mut sums = [0u64; 16];
            for piece in buffer.chunks_exact(128) {
                for (sum, word) in sums.iter_mut().zip(piece.chunks_exact(8)) {
                    let word = u64::from_le_bytes(word.try_into().expect("pieces of eight"));
                    *sum = sum.wrapping_add(word);
                }
            }
            sums.into_iter().fold(0, u64::wrapping_add)
        },
    )
}

/// Makes at least `count` multiply-adds of 16-bit integers into 32-bit sums, without touching memory, by
/// the widest instruction here. The sum means nothing, as above.
pub fn multiply_adds(count: u64) -> i32 {
    let rounds = count.div_ceil(ROUND);
    match Widest::detect() {
        Widest::Portable => portable(rounds),
        // Safety: `Widest` names only what the CPU was asked for.
        #[cfg(target_arch = "x86_64")]
        Widest::Avx2 => unsafe { x86::avx2(rounds) },
        #[cfg(target_arch = "x86_64")]
        Widest::Avx512 => unsafe { x86::avx512(rounds) },
        #[cfg(target_arch = "x86_64")]
        Widest::Avx512Vnni => unsafe { x86::avx512_vnni(rounds) },
    }
}

fn portable(rounds: u64) -> i32 {
    let mut sums = [1i32; CHAINS * 4];
    let factor = i32::from(std::hint::black_box(FACTOR));
    for _ in 0..rounds * 32 / 4 {
        for sum in &mut sums {
            *sum = sum.wrapping_add(i32::from(*sum as i16) * factor);
        }
    }
    sums.into_iter().fold(0, i32::wrapping_add)
}

/// Where a loop is of intrinsics, a sum is also the multiply-add's own input: nothing can be computed ahead.
#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{CHAINS, FACTOR};
    use std::arch::asm;
    use std::arch::x86_64::*;
    use std::hint::black_box;

    #[target_feature(enable = "avx2")]
    pub(super) fn avx2(rounds: u64) -> i32 {
        let factor = _mm256_set1_epi16(black_box(FACTOR));
        let mut sums = [_mm256_set1_epi32(1); CHAINS];
        // Half as wide as a round says.
        for _ in 0..2 * rounds {
            for sum in &mut sums {
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(*sum, factor));
            }
        }
        let mut all = _mm256_setzero_si256();
        for sum in sums {
            all = _mm256_add_epi32(all, sum);
        }
        _mm256_extract_epi32::<0>(all)
    }

    #[target_feature(enable = "avx512f,avx512bw")]
    pub(super) fn avx512(rounds: u64) -> i32 {
        let factor = _mm512_set1_epi16(black_box(FACTOR));
        let mut sums = [_mm512_set1_epi32(1); CHAINS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm512_add_epi32(*sum, _mm512_madd_epi16(*sum, factor));
            }
        }
        fold(&sums)
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    pub(super) fn avx512_vnni(rounds: u64) -> i32 {
        let factor = _mm512_set1_epi16(black_box(FACTOR));
        let x = _mm512_set1_epi32(1);
        let mut sums = [x; CHAINS];
        for _ in 0..rounds {
            for sum in &mut sums {
                // Not the intrinsic, which LLVM takes apart into vpmaddwd and vpaddd to shorten the chain.
                // Safety: registers alone, by this function's own CPU features.
                unsafe {
                    asm!(
                        "vpdpwssd {sum}, {x}, {factor}",
                        sum = inout(zmm_reg) *sum,
                        x = in(zmm_reg) x,
                        factor = in(zmm_reg) factor,
                        options(pure, nomem, nostack, preserves_flags),
                    );
                }
            }
        }
        fold(&sums)
    }

    #[target_feature(enable = "avx512f")]
    fn fold(sums: &[__m512i; CHAINS]) -> i32 {
        sums.iter().fold(0i32, |all, sum| {
            all.wrapping_add(_mm512_reduce_add_epi32(*sum))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_of_whole_pieces_is_read() {
        let mut buffer = vec![0u8; 128 * 9 + 5];
        assert_eq!(read(&buffer), 0);
        for at in (0..128 * 9).step_by(8) {
            buffer[at] = 1;
        }
        assert_eq!(read(&buffer), 128 * 9 / 8);
    }

    #[test]
    fn every_instruction_of_this_machine_does_its_rounds() {
        // `x + (x mod 2^16)·FACTOR` from 1: two lanes of 16 bits, of which the upper is the carry.
        let lane = |rounds: u64| {
            (0..rounds).fold(1i32, |sum, _| {
                let (low, high) = (i32::from(sum as i16), sum >> 16);
                let products = (low * i32::from(FACTOR)).wrapping_add(high * i32::from(FACTOR));
                sum.wrapping_add(products)
            })
        };
        for rounds in [0, 1, 2, 50] {
            #[cfg(target_arch = "x86_64")]
            {
                use std::arch::is_x86_feature_detected as has;
                let chains = CHAINS as i32;
                if has!("avx2") {
                    // Safety: just asked for.
                    let found = unsafe { x86::avx2(rounds) };
                    assert_eq!(found, lane(2 * rounds).wrapping_mul(chains));
                }
                let lanes = chains * 16;
                if has!("avx512f") && has!("avx512bw") {
                    // Safety: just asked for.
                    let found = unsafe { x86::avx512(rounds) };
                    assert_eq!(found, lane(rounds).wrapping_mul(lanes));
                }
                if has!("avx512f") && has!("avx512bw") && has!("avx512vnni") {
                    // Safety: just asked for.
                    let found = unsafe { x86::avx512_vnni(rounds) };
                    let lane = 1 + rounds as i32 * i32::from(FACTOR);
                    assert_eq!(found, lane.wrapping_mul(lanes));
                }
            }
            let _ = (portable(rounds), lane(rounds));
        }
        assert_eq!(multiply_adds(ROUND), multiply_adds(1), "rounded up");
        assert!(!instruction().is_empty());
    }
}
