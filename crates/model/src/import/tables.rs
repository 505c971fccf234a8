//! The tables that stand in for functions: EXP, ACT, cos and sin.

use assay_engine::layout::{ACT_LEN, EXP_LEN};
use assay_protocol::manifest::Architecture;

/// `rint(2^15·2^(−i/256))`.
pub(super) fn exp() -> Vec<u16> {
    (0..EXP_LEN)
        .map(|i| libm::rint(32_768.0 * libm::exp2(-(i as f64) / 256.0)) as u16)
        .collect()
}

/// `rint(2^16·c(a/4096))`, where c(z) is what relu has over the activation at z ≥ 0.
pub(super) fn act(architecture: Architecture) -> Vec<u16> {
    let remainder = match architecture {
        Architecture::Llama => |z: f64| z / (1.0 + libm::exp(z)),
        Architecture::Gemma3 => |z: f64| {
            let inner = (z + 0.044_715 * z * z * z) * libm::sqrt(2.0 / std::f64::consts::PI);
            z - 0.5 * z * (1.0 + libm::tanh(inner))
        },
    };
    (0..ACT_LEN)
        .map(|a| libm::rint(65_536.0 * remainder(a as f64 / 4096.0)) as u16)
        .collect()
}

/// cos and sin of `position·base^(−2i/head_dim)` at Q.14: all frequencies of a position, then the
/// next position.
pub(super) fn rope(base: f64, head_dim: u32, positions: u32) -> Vec<(i16, i16)> {
    let frequencies: Vec<f64> = (0..head_dim / 2)
        .map(|i| libm::pow(base, -2.0 * f64::from(i) / f64::from(head_dim)))
        .collect();
    let q14 = |value: f64| libm::rint(16_384.0 * value) as i16;
    let rows = crate::parallel::over_ranges(positions as usize, |range| {
        range
            .flat_map(|position| {
                frequencies.iter().map(move |frequency| {
                    let (sin, cos) = libm::sincos(position as f64 * frequency);
                    (q14(cos), q14(sin))
                })
            })
            .collect::<Vec<_>>()
    });
    rows.concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_halves_over_its_table() {
        let table = exp();
        assert_eq!((table[0], table[128], table[255]), (32_768, 23_170, 16_428));
    }

    #[test]
    fn act_is_the_even_remainder() {
        let silu = act(Architecture::Llama);
        // c(1) = 1/(1+e) = 0.26894…
        assert_eq!((silu[0], silu[4096], silu[65_535]), (0, 17_625, 0));
        let gelu = act(Architecture::Gemma3);
        // 1 − gelu_tanh(1) = 0.158808…
        assert_eq!((gelu[0], gelu[4096], gelu[65_535]), (0, 10_408, 0));
    }

    #[test]
    fn rope_turns_the_first_frequency_by_one_radian() {
        let table = rope(10_000.0, 64, 3);
        assert_eq!(table.len(), 3 * 32);
        assert_eq!(table[0], (16_384, 0));
        assert_eq!(table[32], (8_852, 13_787));
    }
}
