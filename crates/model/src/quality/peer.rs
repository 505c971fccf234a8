//! What llama.cpp's CPU path rounds that the float reference does not: the vectors before every matrix,
//! to bytes in blocks, and what the KV cache keeps, to 16-bit floats. Its other losses (16-bit queries
//! and attention weights, sums of blocks) are left out, in its favour.

use crate::gguf::TensorType;

/// A vector as a matrix of this packing sees it: `ggml`'s Q8_0 and Q8_1 (blocks of 32, a 16-bit
/// scale) or, under K-quants, Q8_K (blocks of 256, a 32-bit scale).
pub(super) fn round_vector(kind: TensorType, x: &mut [f32]) {
    let (block, scale_of): (usize, fn(f32) -> f32) = match kind {
        TensorType::Q4_1 | TensorType::Q5_0 | TensorType::Q8_0 => (32, half),
        TensorType::Q4K | TensorType::Q6K => (256, |scale| scale),
        TensorType::F16 => return round_halves(x),
        TensorType::F32 => return,
    };
    for block in x.chunks_mut(block) {
        let max = block.iter().fold(0.0f32, |max, v| max.max(v.abs()));
        if max == 0.0 {
            continue;
        }
        let (inverse, scale) = (127.0 / max, scale_of(max / 127.0));
        for value in block {
            *value = (*value * inverse).round_ties_even() * scale;
        }
    }
}

/// Keys or values as a 16-bit cache keeps them.
pub(super) fn round_halves(values: &mut [f32]) {
    for value in values {
        *value = half(*value);
    }
}

/// The nearest 16-bit float.
fn half(value: f32) -> f32 {
    /// Bits of 2^-14, below which steps stay the same.
    const SMALLEST_NORMAL: u32 = 113 << 23;
    const MAX: f32 = 65_504.0;
    let power = f32::from_bits((value.to_bits() & 0x7f80_0000).max(SMALLEST_NORMAL));
    // Beside a number of 2^13 times the value's power, a 32-bit float keeps steps of 2^-10 of it.
    let beside = power * 12_288.0;
    let near = (value + beside) - beside;
    match near.abs() <= MAX {
        true => near,
        false => near * f32::INFINITY,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_the_nearest_16_bit_floats() {
        for (value, expected) in [
            (0.0, 0.0),
            (1.0, 1.0),
            (1.0 + 1.0 / 2048.0, 1.0),
            (1.0 + 3.0 / 2048.0, 1.0 + 1.0 / 512.0),
            (-0.333_333_34, -0.333_251_95),
            (5.960_464_5e-8, 5.960_464_5e-8),
            (2.0e-8, 0.0),
            (65_504.0, 65_504.0),
            (65_519.0, 65_504.0),
            (65_520.0, f32::INFINITY),
            (-1e6, f32::NEG_INFINITY),
        ] {
            assert_eq!(half(value), expected, "{value}");
        }
    }

    #[test]
    fn a_vector_keeps_127_steps_to_each_side_of_a_block() {
        let vector: Vec<f32> = (0..512).map(|i| (i as f32 * 0.7).sin() * 3.0).collect();
        for (kind, block) in [(TensorType::Q4_1, 32), (TensorType::Q6K, 256)] {
            let mut rounded = vector.clone();
            round_vector(kind, &mut rounded);
            for (x, y) in vector.chunks(block).zip(rounded.chunks(block)) {
                let step = x.iter().fold(0.0f32, |max, v| max.max(v.abs())) / 127.0;
                for (x, y) in x.iter().zip(y) {
                    // The 16-bit scale itself is off by up to 2^-11.
                    assert!(
                        (x - y).abs() <= step * 0.5 + x.abs() / 2048.0 + 1e-6,
                        "{x} {y}"
                    );
                }
            }
            assert_ne!(rounded, vector);
        }
    }
}
