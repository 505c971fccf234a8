//! Sixteen rows against up to five vectors at a time: twenty sums of four lanes stay in registers while
//! pairs of elements go by.

use std::arch::aarch64::*;

use super::super::Strip;
use crate::layout::PANEL;

/// Vectors at a time.
const WIDE: usize = 5;

#[target_feature(enable = "neon")]
pub(in super::super) fn strip(task: Strip<'_>, out: &mut [i32], stride: usize, add: bool) {
    let mut j = 0;
    while j < task.count {
        let x = &task.x[j * task.x_stride..];
        let out = &mut out[j * stride..];
        // Safety: `kernels::strip` has asserted that this many vectors and results are there.
        unsafe {
            match task.count - j {
                1 => block::<1>(task, x, out, stride, add),
                2 => block::<2>(task, x, out, stride, add),
                3 => block::<3>(task, x, out, stride, add),
                4 => block::<4>(task, x, out, stride, add),
                _ => block::<WIDE>(task, x, out, stride, add),
            }
        }
        j += WIDE;
    }
}

/// A pair of elements against one pair of weights a row: the first elements of all rows, then the second.
/// The products are of 16 bits, each added to its row's sum.
///
/// # Safety
/// `w` must hold a pair of weights for each of sixteen rows.
#[target_feature(enable = "neon")]
#[inline]
pub(super) unsafe fn pair<const N: usize>(
    sums: &mut [[int32x4_t; 4]; N],
    w: *const i16,
    x: [int16x4_t; N],
) {
    // Safety: the caller's.
    let w = unsafe { [vld2q_s16(w), vld2q_s16(w.add(PANEL))] };
    for (sums, x) in sums.iter_mut().zip(x) {
        for (half, w) in w.iter().enumerate() {
            let (int16x8x2_t(even, odd), at) = (*w, 2 * half);
            sums[at] = vmlal_lane_s16::<0>(sums[at], vget_low_s16(even), x);
            sums[at] = vmlal_lane_s16::<1>(sums[at], vget_low_s16(odd), x);
            sums[at + 1] = vmlal_high_lane_s16::<0>(sums[at + 1], even, x);
            sums[at + 1] = vmlal_high_lane_s16::<1>(sums[at + 1], odd, x);
        }
    }
}

/// # Safety
/// `x` must hold N vectors, `out` N results, and `w` what the task says.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn block<const N: usize>(
    task: Strip<'_>,
    x: &[i16],
    out: &mut [i32],
    stride: usize,
    add: bool,
) {
    let mut sums = [[vdupq_n_s32(0); 4]; N];
    let (to, x) = (out.as_mut_ptr(), x.as_ptr());
    // Safety: the caller's: every offset is below the lengths that were asserted.
    unsafe {
        if add {
            for (j, sums) in sums.iter_mut().enumerate() {
                for (quarter, sum) in sums.iter_mut().enumerate() {
                    *sum = vld1q_s32(to.add(j * stride + 4 * quarter));
                }
            }
        }
        let mut w = task.w.as_ptr();
        for t in 0..task.pairs {
            let x = std::array::from_fn(|j| both(x.add(j * task.x_stride + 2 * t)));
            pair(&mut sums, w, x);
            w = w.wrapping_add(task.step);
        }
        for (j, sums) in sums.iter().enumerate() {
            for (quarter, sum) in sums.iter().enumerate() {
                vst1q_s32(to.add(j * stride + 4 * quarter), *sum);
            }
        }
    }
}

/// Two elements.
///
/// # Safety
/// They must be there.
#[target_feature(enable = "neon")]
#[inline]
pub(super) unsafe fn both(x: *const i16) -> int16x4_t {
    // Safety: the caller's, and an i32 may be any bytes.
    vreinterpret_s16_s32(vdup_n_s32(unsafe { x.cast::<i32>().read_unaligned() }))
}
