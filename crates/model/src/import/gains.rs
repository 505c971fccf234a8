//! A norm's gains and epsilon as integers.

use assay_engine::layout::GainParts;

use super::ImportError;

/// Gains stay below this.
const GAIN_LIMIT: f64 = 8_388_608.0;
/// More fraction than this helps nobody: gains that small are zero.
const FS_MAX: u8 = 47;

/// `G[i] = rint(sqrt(n)·g[i]·2^(Fs−24))` with the largest Fs that keeps |G| < 2^23, and
/// `EPS = rint(eps·n·4^f)` at the input's fraction f.
pub(super) fn quantize(
    name: &str,
    gains: &[f32],
    epsilon: f64,
    fraction: u8,
) -> Result<GainParts, ImportError> {
    let root = libm::sqrt(gains.len() as f64);
    let scaled =
        |gain: f32, fs: u8| libm::rint(libm::scalbn(root * f64::from(gain), i32::from(fs) - 24));
    let fits = |fs: &u8| {
        gains
            .iter()
            .all(|&gain| scaled(gain, *fs).abs() < GAIN_LIMIT)
    };
    let fs = (0..=FS_MAX)
        .rev()
        .find(fits)
        .ok_or_else(|| ImportError::Gain(name.to_owned()))?;
    let eps = libm::rint(libm::scalbn(
        epsilon * gains.len() as f64,
        2 * i32::from(fraction),
    ));
    Ok(GainParts {
        gains: gains.iter().map(|&gain| scaled(gain, fs) as i32).collect(),
        fs,
        eps: eps as u64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_fraction_that_fits_is_taken() {
        let parts = quantize("n", &[1.0, -0.5, 0.0, 0.25], 1e-5, 10).unwrap();
        // sqrt(4)·1·2^(Fs−24) < 2^23 holds up to Fs = 45.
        assert_eq!(parts.fs, 45);
        assert_eq!(parts.gains, [4_194_304, -2_097_152, 0, 1_048_576]);
        assert_eq!(parts.eps, 42);
    }

    #[test]
    fn gains_of_gemma_size_fit() {
        let parts = quantize("n", &[741.0; 640], 1e-6, 16).unwrap();
        assert_eq!(parts.fs, 32);
        assert_eq!(parts.eps, 2_748_779);
    }

    #[test]
    fn impossible_gains_are_refused() {
        assert!(matches!(
            quantize("n", &[f32::MAX; 4], 1e-6, 10),
            Err(ImportError::Gain(_))
        ));
    }
}
