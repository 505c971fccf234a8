//! The RMS norm: `v = x / sqrt(Σx² + EPS) · G`, the root of n being part of the gains.

use super::arith::{isqrt, rsh};

/// `EPS + Σx²`. The loader checks that `n·limit² + EPS < 2^64` for the input's limit.
pub fn sum_of_squares(x: &[i32], eps: u64) -> u64 {
    eps + x
        .iter()
        .map(|x| (i64::from(*x) * i64::from(*x)) as u64)
        .sum::<u64>()
}

/// `2^47 / R` with R the floor root; EPS ≥ 1 keeps R from being 0.
pub fn inverse_root(ss: u64) -> i64 {
    ((1u64 << 47) / isqrt(ss)) as i64
}

/// One element: `u = rsh(x·inv, 23)` is Q.24 of x over the root, and |x| ≤ R, so |u| ≤ 2^24 and with
/// |G| < 2^23 the product stays below 2^47.
#[inline(always)]
pub fn element(x: i32, inverse: i64, gain: i32) -> i64 {
    rsh(i64::from(x) * inverse, 23) * i64::from(gain)
}

/// A whole vector, in Q.Fs.
pub fn norm(x: &[i32], eps: u64, gains: &[i32]) -> Vec<i64> {
    let inverse = inverse_root(sum_of_squares(x, eps));
    x.iter()
        .zip(gains)
        .map(|(x, g)| element(*x, inverse, *g))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vector_of_one_kind_comes_out_as_its_gain() {
        // Four equal elements: x / sqrt(4x²) = 1/2.
        let v = norm(&[1 << 20; 4], 1, &[1 << 20; 4]);
        for v in v {
            assert!((v - (1 << 43)).abs() < 1 << 24, "{v}");
        }
    }

    #[test]
    fn extremes_stay_within_their_bound() {
        let gain = (1 << 23) - 1;
        for x in [
            vec![i32::from(i16::MAX); 1],
            vec![0; 8],
            vec![-((1 << 27) - 1); 1023],
        ] {
            let v = norm(&x, 1, &vec![gain; x.len()]);
            assert!(v.iter().all(|v| v.abs() < 1 << 47));
        }
    }
}
