//! Norms and block floating point over all tokens at once.

use std::sync::Arc;

use super::parts::{Shifts, each_part};
use super::{BfpValues, FixedValues, NormConstants, NormValues};
use crate::crew::Crew;
use crate::ops::{arith::rsh, bfp, norm};

/// A norm before a matrix.
pub(super) fn normed(
    crew: &Crew,
    x: &Arc<Vec<i32>>,
    by: &NormConstants<'_>,
    tokens: usize,
) -> NormValues<BfpValues> {
    let (ss, u) = rooted(crew, x, by, tokens);
    let mut v = vec![0; u.len()];
    let path = crew.path;
    each_part(&crew.pool, &mut v, tokens, |row, v| {
        let (u, gain) = (&u[row * tokens..], i64::from(by.gains[row]));
        path.run(|| {
            for (v, u) in v.iter_mut().zip(u) {
                *v = i64::from(*u) * gain;
            }
        });
    });
    NormValues {
        x: x.clone(),
        ss,
        u,
        y: quantized(crew, &v, by.shift, tokens),
    }
}

/// A norm that no matrix follows, of one vector or of several below each other.
pub(super) fn fixed(
    crew: &Crew,
    x: &Arc<Vec<i32>>,
    by: &NormConstants<'_>,
    tokens: usize,
) -> NormValues<FixedValues> {
    let (ss, u) = rooted(crew, x, by, tokens);
    let mut y = vec![0; u.len()];
    let path = crew.path;
    each_part(&crew.pool, &mut y, tokens, |row, y| {
        let gain = i64::from(by.gains[row % by.gains.len()]);
        path.run(|| {
            for (y, u) in y.iter_mut().zip(&u[row * tokens..]) {
                // The loader has checked that the result fits.
                *y = rsh(i64::from(*u) * gain, by.shift) as i32;
            }
        });
    });
    NormValues {
        x: x.clone(),
        ss,
        u,
        y: Arc::new(y),
    }
}

/// The sums of squares, and x over their roots.
fn rooted(crew: &Crew, x: &[i32], by: &NormConstants<'_>, tokens: usize) -> (Vec<u64>, Vec<i32>) {
    let len = by.gains.len();
    let mut ss = vec![by.eps; x.len() / len];
    let path = crew.path;
    each_part(&crew.pool, &mut ss, tokens, |vector, ss| {
        let x = &x[vector * len * tokens..][..len * tokens];
        path.run(|| {
            for row in x.chunks_exact(tokens) {
                for (ss, x) in ss.iter_mut().zip(row) {
                    *ss += (i64::from(*x) * i64::from(*x)) as u64;
                }
            }
        });
    });
    let inverse: Vec<i64> = ss.iter().map(|ss| norm::inverse_root(*ss)).collect();
    let mut u = vec![0; x.len()];
    each_part(&crew.pool, &mut u, tokens, |row, u| {
        let inverse = &inverse[row / len * tokens..][..tokens];
        path.run(|| {
            for ((u, x), inverse) in u.iter_mut().zip(&x[row * tokens..]).zip(inverse) {
                *u = rsh(i64::from(*x) * inverse, 23) as i32;
            }
        });
    });
    (ss, u)
}

/// A vector a token, under an exponent a token.
pub(super) fn quantized(crew: &Crew, v: &[i64], base: i32, tokens: usize) -> BfpValues {
    let (mut max, mut peak) = (vec![0; tokens], v[..tokens].to_vec());
    let mut peak_at = vec![0; tokens];
    crew.path.run(|| {
        for (row, v) in (0u32..).zip(v.chunks_exact(tokens)) {
            for (((max, peak), at), v) in max.iter_mut().zip(&mut peak).zip(&mut peak_at).zip(v) {
                // The lowest of equals.
                if v.abs() > *max {
                    (*max, *peak, *at) = (v.abs(), *v, row);
                }
            }
        }
    });
    let e: Vec<u8> = max
        .iter()
        .map(|max| bfp::exponent(*max, base) as u8)
        .collect();
    let shifts = Shifts::new(e.iter().map(|e| base + i32::from(*e)));
    let mut x12 = vec![0; v.len()];
    let path = crew.path;
    each_part(&crew.pool, &mut x12, tokens, |row, x12| {
        let v = v[row * tokens..][..tokens].iter().copied();
        path.run(|| {
            for (x12, v) in x12.iter_mut().zip(shifts.of(v)) {
                *x12 = v as i16;
            }
        });
    });
    BfpValues {
        e,
        peak_at,
        peak,
        x12,
    }
}
