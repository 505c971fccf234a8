//! The gated activation: `act(g)·u`, where act is a ramp less an even remainder from a table.

use crate::layout::ACT_LEN;

/// `((max(g, 0) << 4) − ACT[min(|g|, 65535)])·u`: g and u at Q.12 within ±(2^20 − 1), the product at
/// Q.28 and below 2^45. ACT's last entry is 0, so that nothing is taken off beyond the table.
#[inline(always)]
pub fn product(g: i32, u: i32, act: &[u16; ACT_LEN]) -> i64 {
    let remainder = act[g.unsigned_abs().min(65_535) as usize];
    let activated = (g.max(0) << 4) - i32::from(remainder);
    i64::from(activated) * i64::from(u)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_remainder_is_even_and_ends_with_the_table() {
        let mut act = [0u16; ACT_LEN];
        act[5] = 3;
        assert_eq!(product(5, 2, &act), (80 - 3) * 2);
        assert_eq!(product(-5, 2, &act), -6);
        assert_eq!(product(1 << 19, -1, &act), -(1 << 23));
        assert_eq!(product(-(1 << 19), -1, &act), 0);
    }
}
