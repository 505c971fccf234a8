//! Sixteen rows against up to six vectors at a time: twelve sums of eight lanes stay in registers while
//! pairs of elements go by.

use std::arch::x86_64::*;

use super::super::Strip;
use crate::layout::PANEL;

#[target_feature(enable = "avx2")]
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
                5 => block::<5>(task, x, out, stride, add),
                _ => block::<6>(task, x, out, stride, add),
            }
        }
        j += 6;
    }
}

/// # Safety
/// `x` must hold N vectors, `out` N results, and `w` what the task says.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn block<const N: usize>(
    task: Strip<'_>,
    x: &[i16],
    out: &mut [i32],
    stride: usize,
    add: bool,
) {
    let mut acc = [[_mm256_setzero_si256(); 2]; N];
    let (to, x) = (out.as_mut_ptr(), x.as_ptr());
    // Safety: the caller's: every offset is below the lengths that were asserted.
    unsafe {
        if add {
            for (j, acc) in acc.iter_mut().enumerate() {
                acc[0] = _mm256_loadu_si256(to.add(j * stride).cast());
                acc[1] = _mm256_loadu_si256(to.add(j * stride + PANEL / 2).cast());
            }
        }
        let mut w = task.w.as_ptr();
        let mut xs: [*const i16; N] = std::array::from_fn(|j| x.add(j * task.x_stride));
        for _ in 0..task.pairs {
            let low = _mm256_loadu_si256(w.cast());
            let high = _mm256_loadu_si256(w.add(PANEL).cast());
            for (acc, x) in acc.iter_mut().zip(&mut xs) {
                let both = _mm256_set1_epi32(x.cast::<i32>().read_unaligned());
                acc[0] = _mm256_add_epi32(acc[0], _mm256_madd_epi16(low, both));
                acc[1] = _mm256_add_epi32(acc[1], _mm256_madd_epi16(high, both));
                *x = x.wrapping_add(2);
            }
            w = w.wrapping_add(task.step);
        }
        for (j, acc) in acc.iter().enumerate() {
            _mm256_storeu_si256(to.add(j * stride).cast(), acc[0]);
            _mm256_storeu_si256(to.add(j * stride + PANEL / 2).cast(), acc[1]);
        }
    }
}
