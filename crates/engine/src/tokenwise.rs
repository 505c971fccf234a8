//! What happens to one token's vector between matrices, composed from `ops` without allocation.
//! Every function gives how many results stand at their limit.

use crate::layout::ACT_LEN;
use crate::model::{F_INNER, Norm, RopeRow};
use crate::ops::rope::Pairing;
use crate::ops::{self, QK_MAX, RESIDUAL_MAX, V_MAX};

/// Makes `len` wide values in `wide`, then their 12-bit form under one exponent, which it returns.
#[inline(always)]
fn bfp(wide: &mut Vec<i64>, base: i32, x: &mut [i16], fill: impl FnOnce(&mut [i64])) -> i32 {
    wide.resize(x.len(), 0);
    fill(wide);
    ops::bfp::bfp(wide, base, x)
}

/// RMS norm before a matrix.
#[inline(always)]
pub(crate) fn normalize(x: &[i32], norm: &Norm, wide: &mut Vec<i64>, out: &mut [i16]) -> i32 {
    let inverse = ops::norm::inverse_root(ops::norm::sum_of_squares(x, norm.eps));
    bfp(wide, crate::model::BASE_NORM, out, |wide| {
        for ((v, x), gain) in wide.iter_mut().zip(x).zip(&norm.gains) {
            *v = ops::norm::element(*x, inverse, *gain);
        }
    })
}

/// RMS norm that no matrix follows, in place and from any fraction to `fraction`.
#[inline(always)]
pub(crate) fn normalize_to(x: &mut [i32], norm: &Norm, fraction: i32) {
    let inverse = ops::norm::inverse_root(ops::norm::sum_of_squares(x, norm.eps));
    for (x, gain) in x.iter_mut().zip(&norm.gains) {
        // The loader has checked that the result fits.
        *x = ops::arith::rsh(ops::norm::element(*x, inverse, *gain), norm.fs - fraction) as i32;
    }
}

/// QK-norm of one head, to Q.12.
#[inline(always)]
pub(crate) fn normalize_head(head: &mut [i32], norm: &Norm) {
    normalize_to(head, norm, F_INNER);
}

/// Turns one head and quantizes it.
#[inline(always)]
pub(crate) fn rope(
    head: &[i32],
    at: RopeRow<'_>,
    pairing: Pairing,
    f: i32,
    out: &mut [i16],
) -> u64 {
    let n = at.frequencies();
    for i in 0..n {
        let (first, second) = pairing.indices(i, n);
        let (a, b) = ops::rope::turn(head[first], head[second], at.get(i));
        out[first] = ops::rope::quantize(a, f);
        out[second] = ops::rope::quantize(b, f);
    }
    count(out.iter().map(|q| i32::from(*q)), QK_MAX)
}

/// The largest magnitude of a head once turned, at Q.26.
#[inline(always)]
pub(crate) fn rope_max(head: &[i32], at: RopeRow<'_>, pairing: Pairing) -> i64 {
    let n = at.frequencies();
    (0..n)
        .map(|i| {
            let (first, second) = pairing.indices(i, n);
            let (a, b) = ops::rope::turn(head[first], head[second], at.get(i));
            a.abs().max(b.abs())
        })
        .max()
        .unwrap_or(0)
}

#[inline(always)]
pub(crate) fn quantize_v(v: &[i32], f: i32, out: &mut [i16]) -> u64 {
    for (out, v) in out.iter_mut().zip(v) {
        *out = ops::attention::quantize_v(*v, f);
    }
    count(out.iter().map(|v| i32::from(*v)), V_MAX)
}

/// The mixed heads before the output matrix.
#[inline(always)]
pub(crate) fn mixed(heads: &[i32], wide: &mut Vec<i64>, out: &mut [i16]) -> i32 {
    bfp(wide, crate::model::BASE_MIX, out, |wide| {
        for (v, a) in wide.iter_mut().zip(heads) {
            *v = i64::from(*a);
        }
    })
}

/// `act(gate)·up` before the down matrix.
#[inline(always)]
pub(crate) fn product(
    gate: &[i32],
    up: &[i32],
    act: &[u16; ACT_LEN],
    wide: &mut Vec<i64>,
    out: &mut [i16],
) -> i32 {
    bfp(wide, crate::model::BASE_MLP, out, |wide| {
        for ((v, g), u) in wide.iter_mut().zip(gate).zip(up) {
            *v = ops::act::product(*g, *u, act);
        }
    })
}

/// Adds a branch to the residual, through gemma's post-norm where there is one.
#[inline(always)]
pub(crate) fn add(x: &mut [i32], branch: &mut [i32], post: Option<&Norm>, fraction: i32) -> u64 {
    if let Some(norm) = post {
        normalize_to(branch, norm, fraction);
    }
    for (x, y) in x.iter_mut().zip(branch.iter()) {
        *x = ops::linear::add(*x, *y);
    }
    count(x.iter().copied(), RESIDUAL_MAX)
}

#[inline(always)]
fn count(values: impl Iterator<Item = i32>, limit: i32) -> u64 {
    values.map(|v| u64::from(v.abs() == limit)).sum()
}
