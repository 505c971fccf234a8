//! Shifts, limits and the integer root that every other operation is made of.

/// `v / 2^s`, rounded to the nearest, half up; `v·2^-s` where s ≤ 0. |v| < 2^62 and the result likewise.
#[inline(always)]
pub fn rsh(v: i64, s: i32) -> i64 {
    if s > 0 {
        (v + (1 << (s - 1))) >> s
    } else {
        v << -s
    }
}

/// v, held within ±limit.
#[inline(always)]
pub fn clamp(v: i64, limit: i32) -> i32 {
    // The limit fits an i32, so the result does.
    v.clamp(-i64::from(limit), i64::from(limit)) as i32
}

/// The floor of the square root.
pub fn isqrt(v: u64) -> u64 {
    v.isqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn halves_are_rounded_up() {
        let check = |v, s, expected| assert_eq!(rsh(v, s), expected, "{v} >> {s}");
        check(3, 1, 2);
        check(-3, 1, -1);
        check(-5, 1, -2);
        check(5, 2, 1);
        check(6, 2, 2);
        check(-6, 2, -1);
        check(7, 0, 7);
        check(-7, -3, -56);
        check((1 << 62) - 1, 62, 1);
        check(-(1 << 61), 62, 0);
    }

    proptest! {
        #[test]
        fn a_root_is_the_largest_whose_square_fits(v in any::<u64>()) {
            let root = u128::from(isqrt(v));
            prop_assert!(root * root <= u128::from(v));
            prop_assert!((root + 1) * (root + 1) > u128::from(v));
        }

        #[test]
        fn a_negated_value_never_rounds_further_out(v in 0i64..1 << 61, s in 0i32..62) {
            prop_assert!(rsh(-v, s) >= -rsh(v, s));
        }
    }
}
