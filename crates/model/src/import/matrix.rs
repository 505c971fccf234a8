//! A tensor's rows as integers: `w = D·q + M` in blocks, times a row scale `A·2^-SH`.
//! The GGUF's own codes are kept where it has them.

use std::ops::Range;

use assay_engine::layout::{BLOCK, Codes, MatrixParts};

use super::ImportError;
use crate::gguf::quant::CodedRow;
use crate::gguf::{Gguf, TensorInfo, TensorType};
use crate::parallel::over_ranges;

/// Largest size of a 12-bit activation.
const ACTIVATION_MAX: i64 = 2047;
/// What every row's sum must stay within, so that it fits 32 bits.
const SUM_MAX: i64 = (1 << 30) - 1;
const WEIGHT_MAX: f64 = 32_767.0;
const FACTOR_MAX: f64 = 255.0;
const SCALE_MAX: f64 = 65_535.0;
/// Room for what rounding adds to a row.
const MARGIN: f64 = 1.02;
/// How often a row whose rounding added more than that may be scaled up.
const RETRIES: usize = 8;

pub(super) fn quantize(gguf: &Gguf, tensor: &TensorInfo) -> Result<MatrixParts, ImportError> {
    let (rows, cols) = (tensor.rows(), tensor.columns());
    if !cols.is_multiple_of(BLOCK) {
        return Err(ImportError::Unsupported {
            what: format!("tensor {} with rows of {cols} values", tensor.name),
        });
    }
    let exact = over_ranges(rows, |range| row_scales(gguf, tensor, range));
    let exact: Vec<f64> = exact.into_iter().collect::<Result<Vec<_>, _>>()?.concat();
    let sh = shift(exact.iter().copied().fold(0.0, f64::max));
    let chunks = over_ranges(rows, |range| code_rows(gguf, tensor, range, &exact, sh));
    let mut whole = Chunk::default();
    for chunk in chunks {
        let chunk = chunk?;
        whole.scales.extend(chunk.scales);
        whole.bytes.extend(chunk.bytes);
        whole.d.extend(chunk.d);
        whole.m.extend(chunk.m);
        whole.weights.extend(chunk.weights);
    }
    let Chunk {
        scales,
        bytes,
        d,
        m,
        weights,
    } = whole;
    let signed = |bytes: Vec<u8>| bytes.into_iter().map(|b| b as i8).collect();
    let codes = match tensor.kind {
        TensorType::Q4_1 | TensorType::Q4K => Codes::U4 { codes: bytes, d, m },
        TensorType::Q5_0 | TensorType::Q8_0 => Codes::I8x32 {
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

/// Each row's scale before it is snapped: factors fit, sums fit, weights fit.
fn row_scales(
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
        let scale = (factor / FACTOR_MAX)
            .max(MARGIN * sum * ACTIVATION_MAX as f64 / SUM_MAX as f64)
            .max(MARGIN * largest / WEIGHT_MAX);
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

#[derive(Default)]
struct Chunk {
    scales: Vec<u16>,
    bytes: Vec<u8>,
    d: Vec<i16>,
    m: Vec<i16>,
    weights: Vec<i16>,
}

fn code_rows(
    gguf: &Gguf,
    tensor: &TensorInfo,
    range: Range<usize>,
    exact: &[f64],
    sh: u8,
) -> Result<Chunk, ImportError> {
    let mut chunk = Chunk::default();
    let mut coded = CodedRow::default();
    for row in range {
        let bytes = gguf.row(tensor, row);
        let has_codes = tensor.kind.codes(bytes, &mut coded);
        let too_large = || ImportError::RowTooLarge {
            name: tensor.name.clone(),
            row,
        };
        let mut scale = libm::ceil(libm::scalbn(exact[row], i32::from(sh))).max(1.0);
        let mut retries = 0;
        loop {
            if scale > SCALE_MAX || retries > RETRIES {
                return Err(too_large());
            }
            let snapped = libm::scalbn(scale, -i32::from(sh));
            let integers = match has_codes {
                true => code_row(tensor.kind, &coded, snapped),
                false => plain_row(&tensor.kind.values(bytes), snapped),
            };
            if let Some(integers) = integers.filter(Row::fits) {
                integers.append(tensor.kind, scale as u16, &mut chunk);
                break;
            }
            scale = libm::ceil(scale * MARGIN);
            retries += 1;
        }
    }
    Ok(chunk)
}

/// One row as integers.
struct Row {
    block_len: usize,
    codes: Vec<i8>,
    d: Vec<i16>,
    m: Vec<i16>,
    /// For the float packings alone.
    weights: Vec<i16>,
}

/// A float that was rounded, if it is a factor's size.
fn small(value: f64) -> Option<i16> {
    (value.abs() <= WEIGHT_MAX).then_some(value as i16)
}

/// As `libm::rint`, for values below 2^51: adding 1.5·2^52 leaves no bits for a fraction, and the
/// addition itself rounds ties to even. Inlines, where import spends its time.
fn nearest(value: f64) -> f64 {
    const MAGIC: f64 = 6_755_399_441_055_744.0;
    (value + MAGIC) - MAGIC
}

fn code_row(kind: TensorType, coded: &CodedRow, scale: f64) -> Option<Row> {
    let len = coded.block_len;
    let mut row = Row {
        block_len: len,
        codes: Vec::with_capacity(coded.codes.len()),
        d: Vec::with_capacity(coded.scales.len()),
        m: Vec::with_capacity(coded.scales.len()),
        weights: Vec::new(),
    };
    let blocks = coded.codes.chunks_exact(len);
    for (codes, (&d, &m)) in blocks.zip(coded.scales.iter().zip(&coded.offsets)) {
        if kind == TensorType::Q8_0 {
            // A factor that is rounded up, and codes for it: 8-bit codes have bits to spare.
            let factor = libm::ceil(d.abs() / scale).max(1.0);
            row.d.push(small(factor)?);
            let code = |&q: &i8| nearest(d * f64::from(q) / scale / factor).clamp(-127.0, 127.0);
            row.codes.extend(codes.iter().map(|q| code(q) as i8));
            row.m.push(0);
            continue;
        }
        let factor = libm::rint(d / scale);
        row.d.push(small(factor)?);
        row.codes.extend_from_slice(codes);
        if !matches!(kind, TensorType::Q4_1 | TensorType::Q4K) {
            row.m.push(0);
            continue;
        }
        // The mean of what is missing also repairs the factor's rounding.
        let mut missing = 0.0;
        for &q in codes {
            let q = f64::from(q);
            missing += (d * q + m) / scale - factor * q;
        }
        row.m.push(small(libm::rint(missing / len as f64))?);
    }
    Some(row)
}

fn plain_row(values: &[f32], scale: f64) -> Option<Row> {
    let weights = values
        .iter()
        .map(|&value| small(libm::rint(f64::from(value) / scale)))
        .collect::<Option<_>>()?;
    Some(Row {
        block_len: BLOCK,
        codes: Vec::new(),
        d: Vec::new(),
        m: Vec::new(),
        weights,
    })
}

impl Row {
    /// The bound that the loader verifies, and that no product wraps.
    fn fits(&self) -> bool {
        let mut sum: i64 = 0;
        let mut small = true;
        let mut see = |weight: i64| {
            sum += weight.abs();
            small &= weight.abs() <= WEIGHT_MAX as i64;
        };
        let blocks = self.codes.chunks_exact(self.block_len);
        for (codes, (&d, &m)) in blocks.zip(self.d.iter().zip(&self.m)) {
            for &q in codes {
                see(i64::from(d) * i64::from(q) + i64::from(m));
            }
        }
        for &weight in &self.weights {
            see(weight.into());
        }
        small && ACTIVATION_MAX * sum <= SUM_MAX
    }

    fn append(self, kind: TensorType, scale: u16, chunk: &mut Chunk) {
        chunk.scales.push(scale);
        chunk.d.extend(self.d);
        chunk.weights.extend(self.weights);
        if matches!(kind, TensorType::Q4_1 | TensorType::Q4K) {
            chunk.m.extend(self.m);
            for block in self.codes.chunks_exact(BLOCK) {
                let (low, high) = block.split_at(BLOCK / 2);
                let packed = low
                    .iter()
                    .zip(high)
                    .map(|(&l, &h)| l as u8 | (h as u8) << 4);
                chunk.bytes.extend(packed);
            }
        } else {
            chunk.bytes.extend(self.codes.iter().map(|&q| q as u8));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_is_rint() {
        let mut value = -300.0;
        while value < 300.0 {
            assert_eq!(nearest(value), libm::rint(value), "{value}");
            value += 0.015_625;
        }
    }

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
}
