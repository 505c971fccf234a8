//! The softmax in powers of two for NEON, four values at a time.

use std::arch::aarch64::*;

use super::super::{ExpTable, portable};
use super::load;

#[target_feature(enable = "neon")]
pub(in super::super) fn exponentials(
    below: &[u32],
    (c, csh): (u32, i32),
    exp: &ExpTable,
    e: &mut [u32],
) -> u64 {
    let whole = below.len() / 4 * 4;
    let (factor, by) = (vdupq_n_u32(c), vdupq_n_s64(i64::from(-csh)));
    // 16 octaves of 256 steps; what is further down is nothing.
    let end = vdupq_n_u32(16 << 8);
    let mut sum = vdupq_n_u64(0);
    let groups = below[..whole].chunks_exact(4).zip(e.chunks_exact_mut(4));
    for (below, e) in groups {
        let below = vreinterpretq_u32_u8(load(below));
        // A product is below 2^56; the shift rounds.
        let low = vrshlq_u64(vmull_u32(vget_low_u32(below), vget_low_u32(factor)), by);
        let high = vrshlq_u64(vmull_high_u32(below, factor), by);
        let t = vminq_u32(vqmovn_high_u64(vqmovn_u64(low), high), end);
        let octaves = vreinterpretq_s32_u32(vshrq_n_u32::<8>(t));
        let mut at = [0u32; 4];
        // Safety: four lanes.
        unsafe { vst1q_u32(at.as_mut_ptr(), t) };
        let table = at.map(|at| u32::from(exp.narrow[(at & 255) as usize]));
        let value = vrshlq_u32(vreinterpretq_u32_u8(load(&table)), vnegq_s32(octaves));
        let value = vandq_u32(value, vcltq_u32(t, end));
        sum = vpadalq_u32(sum, value);
        // Safety: a chunk of four.
        unsafe { vst1q_u32(e.as_mut_ptr(), value) };
    }
    vaddvq_u64(sum) + portable::exponentials(&below[whole..], (c, csh), exp, &mut e[whole..])
}

/// `e` times the reciprocal is below 2^62, and a share below 2^15.
#[target_feature(enable = "neon")]
pub(in super::super) fn shares(e: &[u32], reciprocal: u64, p: &mut [i16]) {
    let whole = e.len() / 4 * 4;
    let factor = vdupq_n_u32(reciprocal as u32);
    for (e, p) in e[..whole].chunks_exact(4).zip(p.chunks_exact_mut(4)) {
        let e = vreinterpretq_u32_u8(load(e));
        let low = vmull_u32(vget_low_u32(e), vget_low_u32(factor));
        let high = vmull_high_u32(e, factor);
        let share = vrshrn_high_n_u64::<30>(vrshrn_n_u64::<30>(low), high);
        // Safety: a chunk of four.
        unsafe { vst1_s16(p.as_mut_ptr(), vreinterpret_s16_u16(vmovn_u32(share))) };
    }
    portable::shares(&e[whole..], reciprocal, &mut p[whole..]);
}
