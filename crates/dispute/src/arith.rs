//! Which entry of a table an element is made with: the little arithmetic that names an opening. The
//! elements themselves are the engine's and the referee's to compute.

/// Entry of ACT for a gate's value.
pub(crate) fn act_entry(gate: i64) -> u32 {
    // At most 65,535, so it fits.
    gate.unsigned_abs().min(65_535) as u32
}

/// Entry of EXP for a score so far below the largest; `None` from 16 octaves on, where nothing is left.
pub(crate) fn exp_entry(below: i64, c: u32, csh: i32) -> Option<u32> {
    entry(rsh(i128::from(below) * i128::from(c), csh), 16)
}

/// Entry of EXP for a logit so far below the largest; `None` from 32 octaves on.
pub(crate) fn weight_entry(below: i64, beta: u32) -> Option<u32> {
    const LOG2_E_Q15: i128 = 47_274;
    entry(
        rsh(i128::from(below) * i128::from(beta) * LOG2_E_Q15, 31),
        32,
    )
}

fn entry(t: i128, octaves: i128) -> Option<u32> {
    (0..octaves).contains(&(t >> 8)).then_some((t & 255) as u32)
}

/// As the engine's, wide enough for whatever a stranger's vector holds: products are below 2^114, so
/// that shifts beyond 120 give what 120 gives, and left shifts of more than 12 leave the table.
fn rsh(v: i128, s: i32) -> i128 {
    match s {
        1.. => {
            let s = s.min(120);
            (v + (1 << (s - 1))) >> s
        }
        _ => v << s.saturating_neg().min(12),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_spelled_out() {
        assert_eq!(act_entry(-5), 5);
        assert_eq!(act_entry(i64::MIN), 65_535);
        assert_eq!(exp_entry(0, 47_274, 20), Some(0));
        assert_eq!(exp_entry(3, 1 << 8, 8), Some(3));
        assert_eq!(exp_entry(16 << 8, 1, 0), None);
        assert_eq!(exp_entry((16 << 8) - 1, 1, 0), Some(255));
        assert_eq!(exp_entry(-1, 1 << 8, 0), None);
        assert_eq!(weight_entry(1 << 16, 256), Some(113));
        assert_eq!(weight_entry(1 << 28, 1 << 17), None);
    }

    #[test]
    fn no_number_is_too_large() {
        for below in [i64::MIN, -1, 0, 1, i64::MAX] {
            for csh in [i32::MIN + 1, -300, 0, 300, i32::MAX] {
                exp_entry(below, u32::MAX, csh);
            }
            weight_entry(below, u32::MAX);
        }
    }
}
