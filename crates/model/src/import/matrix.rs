//! A tensor's rows as integers: `w = D·q + M` in blocks, times a row scale `A·2^-SH`. Chooses each
//! row's scale: the smallest that keeps every bound, or one a little larger at which the block factors
//! fall closer to whole numbers. What a row is at a scale is `row`'s.

use std::ops::Range;

use assay_engine::layout::{BLOCK, Codes, MatrixParts};

use super::ImportError;
use super::row::{self, ACTIVATION_MAX, Forecast, Row, Rows, SUM_MAX, WEIGHT_MAX};
use crate::gguf::quant::CodedRow;
use crate::gguf::{Gguf, TensorInfo, TensorType};
use crate::parallel::over_ranges;

const SCALE_MAX: f64 = 65_535.0;
/// Scales tried beside the smallest, and how far they reach above it. Rounding errors of a row's few
/// factors differ much from scale to scale; far above, all weights are smaller and lose more.
const TRIES: usize = 64;
const REACH: f64 = 1.1;
/// Room for what rounding adds to a row, and how often a row that needs more may take it.
const MARGIN: f64 = 1.02;
const RETRIES: usize = 8;

pub(super) fn quantize(gguf: &Gguf, tensor: &TensorInfo) -> Result<MatrixParts, ImportError> {
    let (rows, cols) = (tensor.rows(), tensor.columns());
    if !cols.is_multiple_of(BLOCK) {
        return Err(ImportError::Unsupported {
            what: format!("tensor {} with rows of {cols} values", tensor.name),
        });
    }
    let least = over_ranges(rows, |range| least_scales(gguf, tensor, range));
    let least: Vec<f64> = least.into_iter().collect::<Result<Vec<_>, _>>()?.concat();
    let sh = shift(MARGIN * least.iter().copied().fold(0.0, f64::max));
    let chunks = over_ranges(rows, |range| code_rows(gguf, tensor, range, &least, sh));
    let mut whole = Rows::default();
    for chunk in chunks {
        let chunk = chunk?;
        whole.scales.extend(chunk.scales);
        whole.bytes.extend(chunk.bytes);
        whole.d.extend(chunk.d);
        whole.m.extend(chunk.m);
        whole.weights.extend(chunk.weights);
    }
    let Rows {
        scales,
        bytes,
        d,
        m,
        weights,
    } = whole;
    let signed = |bytes: Vec<u8>| bytes.into_iter().map(|b| b as i8).collect();
    let codes = match tensor.kind {
        TensorType::Q4_1 | TensorType::Q4K => Codes::U4 { codes: bytes, d, m },
        TensorType::Q5_0 => Codes::I5 {
            codes: signed(bytes),
            d,
        },
        TensorType::Q8_0 => Codes::I8x32 {
            codes: signed(bytes),
            d,
        },
        TensorType::Q6K => Codes::I8x16 {
            codes: signed(bytes),
            d,
        },
        TensorType::F16 | TensorType::F32 => Codes::I16 { weights },
    };
    Ok(MatrixParts {
        // The plan checked the tensor against 32-bit dimensions.
        rows: rows as u32,
        cols: cols as u32,
        sh,
        scales,
        codes,
    })
}

/// Each row's smallest scale, before rounding: factors fit, sums fit, weights fit.
fn least_scales(
    gguf: &Gguf,
    tensor: &TensorInfo,
    range: Range<usize>,
) -> Result<Vec<f64>, ImportError> {
    let mut coded = CodedRow::default();
    let mut scales = Vec::with_capacity(range.len());
    for row in range {
        let bytes = gguf.row(tensor, row);
        let (mut sum, mut largest, mut factor) = (0.0f64, 0.0f64, 0.0f64);
        let mut see = |value: f64| {
            sum += value.abs();
            largest = largest.max(value.abs());
        };
        if tensor.kind.codes(bytes, &mut coded) {
            coded.values().for_each(&mut see);
            factor = coded.scales.iter().fold(0.0, |max, d| max.max(d.abs()));
        } else {
            for value in tensor.kind.values(bytes) {
                see(value.into());
            }
        }
        let scale = (factor / row::factor_max(tensor.kind))
            .max(sum * ACTIVATION_MAX as f64 / SUM_MAX as f64)
            .max(largest / WEIGHT_MAX);
        // `max` passes over a NaN, a sum does not.
        if !(scale + sum).is_finite() {
            return Err(ImportError::NotFinite {
                name: tensor.name.clone(),
                row,
            });
        }
        scales.push(scale);
    }
    Ok(scales)
}

/// The largest SH at which the largest scale still has an A of 16 bits.
fn shift(largest: f64) -> u8 {
    /// Enough for scales down to 2^-24; smaller ones, or none, are as good as zero.
    const SHIFT_MAX: i32 = 40;
    (0..=SHIFT_MAX)
        .rev()
        .find(|&sh| libm::scalbn(largest, sh) <= SCALE_MAX)
        .unwrap_or(0) as u8
}

fn code_rows(
    gguf: &Gguf,
    tensor: &TensorInfo,
    range: Range<usize>,
    least: &[f64],
    sh: u8,
) -> Result<Rows, ImportError> {
    let mut rows = Rows::default();
    let mut coded = CodedRow::default();
    let real = |a: f64| libm::scalbn(a, -i32::from(sh));
    for row in range {
        let bytes = gguf.row(tensor, row);
        let has_codes = tensor.kind.codes(bytes, &mut coded);
        let forecast = match has_codes {
            true => Forecast::new(tensor.kind, &coded),
            false => None,
        };
        let least = libm::ceil(libm::scalbn(least[row], i32::from(sh))).max(1.0);
        let found = scales_to_try(least, |a| Some(forecast.as_ref()?.loss(real(a))))
            .into_iter()
            .find_map(|a| {
                let integers = match has_codes {
                    true => row::code_row(tensor.kind, &coded, real(a)),
                    false => row::plain_row(&tensor.kind.values(bytes), real(a)),
                };
                Some((a, integers.filter(Row::fits)?))
            });
        let (a, integers) = found.ok_or_else(|| ImportError::RowTooLarge {
            name: tensor.name.clone(),
            row,
        })?;
        integers.append(a as u16, &mut rows);
    }
    Ok(rows)
}

/// Values for A, the most promising first; at the end larger ones, for a row that fits none of these.
fn scales_to_try(least: f64, loss: impl Fn(f64) -> Option<f64>) -> Vec<f64> {
    let step = ((REACH - 1.0) * least / TRIES as f64).max(1.0);
    let mut ranked: Vec<(f64, f64)> = (0..=TRIES)
        .map(|i| least + libm::floor(i as f64 * step))
        .take_while(|&a| a <= REACH * least)
        .map_while(|a| Some((loss(a)?, a)))
        .collect();
    // Stable: of equals the smallest stays first.
    ranked.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    let larger = std::iter::successors(Some(least), |a| Some(libm::ceil(a * MARGIN)));
    ranked
        .into_iter()
        .map(|(_, a)| a)
        .chain(larger.take(1 + RETRIES))
        .filter(|&a| a <= SCALE_MAX)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shift_is_the_largest_that_fits_16_bits() {
        for largest in [1e-6, 3.7e-4, 0.999, 1.0, 1.001, 2.0 - 1e-9] {
            let sh = i32::from(shift(largest));
            assert!(libm::ceil(libm::scalbn(largest, sh)) <= SCALE_MAX);
            assert!(libm::ceil(libm::scalbn(largest, sh + 1)) > SCALE_MAX);
        }
        assert_eq!(shift(0.0), 40);
        assert_eq!(shift(1e9), 0);
    }

    #[test]
    fn the_least_loss_is_tried_first_and_larger_scales_last() {
        let tried = scales_to_try(1000.0, |a| Some((a - 1042.0).abs()));
        assert!((tried[0] - 1042.0).abs() <= 1.0);
        assert!(tried[..65].iter().all(|a| (1000.0..=1100.0).contains(a)));
        assert_eq!(tried.last(), Some(&1176.0));
        // Without a forecast the smallest comes first, and none has more than 16 bits.
        assert_eq!(scales_to_try(65_000.0, |_| None), [65_000.0]);
        assert_eq!(scales_to_try(1.0, |_| None)[..3], [1.0, 2.0, 3.0]);
    }
}
