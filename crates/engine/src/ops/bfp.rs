//! Block floating point: a whole vector as 12-bit integers under one exponent.

use super::X_MAX;
use super::arith::rsh;

/// The smallest e ≥ 0 with `rsh(max, base + e) ≤ 2047`, where `max = max|v|` < 2^62.
pub fn exponent(max: i64, base: i32) -> i32 {
    let mut e = 0;
    while rsh(max, base + e) > X_MAX {
        e += 1;
    }
    e
}

/// Writes `rsh(v[i], base + e)` and returns e. Results lie within ±2047, as rounding is half up and
/// the largest magnitude fits.
pub fn bfp(v: &[i64], base: i32, x: &mut [i16]) -> i32 {
    let max = v.iter().map(|v| v.abs()).max().unwrap_or(0);
    let e = exponent(max, base);
    for (x, v) in x.iter_mut().zip(v) {
        *x = rsh(*v, base + e) as i16;
    }
    e
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_exponent_grows_where_rounding_would_reach_2048() {
        let check = |max, base, e| assert_eq!(exponent(max, base), e, "max {max} base {base}");
        check(0, 0, 0);
        check(2047, 0, 0);
        check(2048, 0, 1);
        check(4094, 0, 1);
        check(4095, 0, 2); // (4095 + 1) >> 1 = 2048
        check(2047 << 12, 12, 0);
        check((2047 << 12) + 2047, 12, 0);
        check((2047 << 12) + 2048, 12, 1);
    }

    proptest! {
        #[test]
        fn every_element_is_within_twelve_bits(v in prop::collection::vec(-(1i64 << 47)..1 << 47, 1..40), base in 0i32..13) {
            let mut x = vec![0i16; v.len()];
            let e = bfp(&v, base, &mut x);
            prop_assert!(x.iter().all(|x| i64::from(*x).abs() <= X_MAX));
            let max = v.iter().map(|v| v.abs()).max().unwrap();
            prop_assert!(e == 0 || rsh(max, base + e - 1) > X_MAX);
        }
    }
}
