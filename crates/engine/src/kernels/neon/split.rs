//! A vector in the two halves that packed weights are multiplied with.

use std::arch::aarch64::*;

use super::load;

/// Sixteen columns at a time, narrowed and put in the order of a line.
#[target_feature(enable = "neon")]
pub(in super::super) fn split(x: &[i16], high: &mut [i8], low: &mut [u8], sums: &mut [i32]) {
    let order = load(&[0u8, 2, 1, 3, 4, 6, 5, 7, 8, 10, 9, 11, 12, 14, 13, 15]);
    let halves = high.chunks_exact_mut(32).zip(low.chunks_exact_mut(32));
    for ((x, (high, low)), sum) in x.chunks_exact(32).zip(halves).zip(sums) {
        let mut all = vdupq_n_s32(0);
        let parts = high.chunks_exact_mut(16).zip(low.chunks_exact_mut(16));
        for (x, (high, low)) in x.chunks_exact(16).zip(parts) {
            let x = [load(x), load(&x[8..])].map(|x| vreinterpretq_s16_u8(x));
            let h = vshrn_high_n_s16::<5>(vshrn_n_s16::<5>(x[0]), x[1]);
            let l = vmovn_high_s16(vmovn_s16(x[0]), x[1]);
            let l = vandq_u8(vreinterpretq_u8_s8(l), vdupq_n_u8(31));
            // Safety: chunks of sixteen.
            unsafe {
                vst1q_s8(high.as_mut_ptr(), vqtbl1q_s8(h, order));
                vst1q_u8(low.as_mut_ptr(), vqtbl1q_u8(l, order));
            }
            all = vpadalq_s16(vpadalq_s16(all, x[0]), x[1]);
        }
        *sum = vaddvq_s32(all);
    }
}
