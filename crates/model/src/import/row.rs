//! One row at one scale: the factors, offsets and codes that stand for its values. 4-bit codes stay
//! the GGUF's own, with an offset that repairs what rounding the factor took; signed codes are found
//! anew for each factor that might do. Judges scales; which are tried is `matrix`'s.

use assay_engine::layout::BLOCK;

use crate::gguf::TensorType;
use crate::gguf::quant::CodedRow;

/// Largest size of a 12-bit activation.
pub(super) const ACTIVATION_MAX: i64 = 2047;
/// What every row's sum must stay within, so that it fits 32 bits.
pub(super) const SUM_MAX: i64 = (1 << 30) - 1;
pub(super) const WEIGHT_MAX: f64 = 32_767.0;

/// Whether the packing's blocks have offsets; their codes then have 4 bits.
fn has_offsets(kind: TensorType) -> bool {
    matches!(kind, TensorType::Q4_1 | TensorType::Q4K)
}

/// The largest factor: no code may take a weight out of 16 bits, and small codes leave more room.
pub(super) fn factor_max(kind: TensorType) -> f64 {
    match has_offsets(kind) {
        true => 2047.0,
        false => 255.0,
    }
}

/// Smallest and largest signed code.
fn code_range(kind: TensorType) -> (f64, f64) {
    match kind {
        TensorType::Q5_0 => (-16.0, 15.0),
        _ => (-127.0, 127.0),
    }
}

/// One row as integers.
pub(super) struct Row {
    block_len: usize,
    offsets: bool,
    codes: Vec<i8>,
    d: Vec<i16>,
    /// Zeros where the packing has no offsets.
    m: Vec<i16>,
    /// For the float packings alone.
    weights: Vec<i16>,
}

/// Rows one after the other, as a matrix's parts hold them.
#[derive(Default)]
pub(super) struct Rows {
    pub scales: Vec<u16>,
    pub bytes: Vec<u8>,
    pub d: Vec<i16>,
    pub m: Vec<i16>,
    pub weights: Vec<i16>,
}

/// A row of a packing with codes; `None` where a factor or an offset leaves 16 bits.
pub(super) fn code_row(kind: TensorType, coded: &CodedRow, scale: f64) -> Option<Row> {
    let mut row = Row {
        block_len: coded.block_len,
        offsets: has_offsets(kind),
        codes: Vec::with_capacity(coded.codes.len()),
        d: Vec::with_capacity(coded.scales.len()),
        m: Vec::with_capacity(coded.scales.len()),
        weights: Vec::new(),
    };
    let mut found = [0i8; BLOCK];
    for (codes, d, m) in coded.blocks() {
        let (factor, offset) = if row.offsets {
            row.codes.extend_from_slice(codes);
            offset_block(codes, d / scale, m / scale)
        } else {
            let found = &mut found[..codes.len()];
            let factor = signed_block(kind, codes, d / scale, found);
            row.codes.extend_from_slice(found);
            (factor, 0.0)
        };
        row.d.push(small(factor)?);
        row.m.push(small(offset)?);
    }
    Some(row)
}

/// A row of a float packing; `None` where a weight leaves 16 bits.
pub(super) fn plain_row(values: &[f32], scale: f64) -> Option<Row> {
    let weights = values
        .iter()
        .map(|&value| small(libm::rint(f64::from(value) / scale)))
        .collect::<Option<_>>()?;
    Some(Row {
        block_len: BLOCK,
        offsets: false,
        codes: Vec::new(),
        d: Vec::new(),
        m: Vec::new(),
        weights,
    })
}

/// Factor and offset of a block whose codes stay.
fn offset_block(codes: &[i8], d: f64, m: f64) -> (f64, f64) {
    let factor = nearest(d);
    let sum: i32 = codes.iter().map(|&q| i32::from(q)).sum();
    // The mean of what is missing also repairs the factor's rounding.
    let missing = (d - factor) * f64::from(sum) / codes.len() as f64;
    (factor, nearest(m + missing))
}

/// The factor and the codes that come closest to `d·codes`; the codes go to `found`. A factor may be
/// as small as lets the largest code reach the largest value: 6-bit codes have a byte here, so that
/// their steps can be finer than the GGUF's. It is never larger than the GGUF's own, rounded up.
fn signed_block(kind: TensorType, codes: &[i8], d: f64, found: &mut [i8]) -> f64 {
    let mut values = [0.0f64; BLOCK];
    let values = &mut values[..codes.len()];
    let mut peak = 0.0f64;
    for (value, &q) in values.iter_mut().zip(codes) {
        *value = d * f64::from(q);
        peak = peak.max(value.abs());
    }
    let (low, high) = code_range(kind);
    let code = |value: f64, factor: f64| nearest(value * (1.0 / factor)).clamp(low, high);
    let loss = |factor: f64| {
        // Four sums that do not wait for each other.
        let mut lost = [0.0f64; 4];
        for values in values.chunks_exact(4) {
            for (lost, &value) in lost.iter_mut().zip(values) {
                let missing = value - factor * code(value, factor);
                *lost += missing * missing;
            }
        }
        (lost[0] + lost[1]) + (lost[2] + lost[3])
    };
    let sign = if d < 0.0 { -1.0 } else { 1.0 };
    let smallest = floor(d.abs()).min(ceil(peak / high)).max(1.0);
    let mut size = ceil(d.abs()).clamp(1.0, factor_max(kind));
    let (mut best, mut least) = (sign * size, loss(sign * size));
    while size > smallest {
        size -= 1.0;
        let lost = loss(sign * size);
        if lost < least {
            (best, least) = (sign * size, lost);
        }
    }
    for (found, &value) in found.iter_mut().zip(&*values) {
        *found = code(value, best) as i8;
    }
    best
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

fn floor(value: f64) -> f64 {
    let near = nearest(value);
    if near > value { near - 1.0 } else { near }
}

fn ceil(value: f64) -> f64 {
    -floor(-value)
}

impl Row {
    /// What the loader verifies: the bound on the sum, and that no code takes a weight out of 16 bits.
    pub(super) fn fits(&self) -> bool {
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
        // The largest factor alone keeps signed codes safe.
        let wraps = self.offsets && {
            let mut factors = self.d.iter().zip(&self.m);
            factors.any(|(&d, &m)| i16::try_from(15 * i32::from(d) + i32::from(m)).is_err())
        };
        small && !wraps && ACTIVATION_MAX * sum <= SUM_MAX
    }

    pub(super) fn append(self, scale: u16, rows: &mut Rows) {
        rows.scales.push(scale);
        rows.d.extend(self.d);
        rows.weights.extend(self.weights);
        if self.offsets {
            rows.m.extend(self.m);
            for block in self.codes.chunks_exact(BLOCK) {
                let (low, high) = block.split_at(BLOCK / 2);
                let packed = low
                    .iter()
                    .zip(high)
                    .map(|(&l, &h)| l as u8 | (h as u8) << 4);
                rows.bytes.extend(packed);
            }
        } else {
            rows.bytes.extend(self.codes.iter().map(|&q| q as u8));
        }
    }
}

/// What a row will lose at a scale, from a few sums over each block: quick, so that many scales can be
/// tried. Exact where codes stay as they are; an estimate where they are found anew.
pub(super) struct Forecast {
    offsets: bool,
    blocks: Vec<BlockSums>,
}

struct BlockSums {
    d: f64,
    m: f64,
    len: f64,
    /// Of the codes.
    mean: f64,
    /// Squares of the codes, from their mean where an offset can follow it.
    squares: f64,
}

impl Forecast {
    /// `None` for packings without codes, and for Q6_K: its many small blocks average luck away, and
    /// their codes are all found anew.
    pub(super) fn new(kind: TensorType, coded: &CodedRow) -> Option<Self> {
        if matches!(kind, TensorType::F32 | TensorType::F16 | TensorType::Q6K) {
            return None;
        }
        let offsets = has_offsets(kind);
        let sums = |(codes, d, m): (&[i8], f64, f64)| {
            let (mut sum, mut squares) = (0, 0);
            for &q in codes {
                sum += i32::from(q);
                squares += i32::from(q) * i32::from(q);
            }
            let len = codes.len() as f64;
            let mean = f64::from(sum) / len;
            let followed = if offsets { len * mean * mean } else { 0.0 };
            let squares = f64::from(squares) - followed;
            BlockSums {
                d,
                m,
                len,
                mean,
                squares,
            }
        };
        Some(Forecast {
            offsets,
            blocks: coded.blocks().map(sums).collect(),
        })
    }

    /// The sum of the squares of what the values lose.
    pub(super) fn loss(&self, scale: f64) -> f64 {
        let mut loss = 0.0;
        for block in &self.blocks {
            let d = block.d / scale;
            let missing = d - nearest(d);
            let kept = missing * missing * block.squares;
            loss += if self.offsets {
                let m = block.m / scale + missing * block.mean;
                let missing = m - nearest(m);
                kept + missing * missing * block.len
            } else {
                // New codes are off by up to half a step either way: a twelfth of a step squared.
                let step = ceil(d.abs()).max(1.0);
                kept.min(step * step / 12.0 * block.len)
            };
        }
        loss * scale * scale
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: u64 = 11;

    fn random(state: &mut u64) -> f64 {
        *state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (*state >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Codes like a bell's within the packing's range, factors of about `size` (of either sign where
    /// there are no offsets), on a scale of 1.
    fn random_row(kind: TensorType, size: f64, state: &mut u64) -> CodedRow {
        let block_len = if kind == TensorType::Q6K { 16 } else { 32 };
        let (low, high) = match kind {
            TensorType::Q4_1 | TensorType::Q4K => (0.0, 15.0),
            TensorType::Q6K => (-32.0, 31.0),
            kind => code_range(kind),
        };
        let mut row = CodedRow {
            block_len,
            ..CodedRow::default()
        };
        for _ in 0..640 / block_len {
            let factor = size * (0.5 + random(state));
            let negative = !has_offsets(kind) && random(state) < 0.5;
            row.scales.push(if negative { -factor } else { factor });
            let offset = -factor * (6.0 + 4.0 * random(state));
            row.offsets
                .push(if has_offsets(kind) { offset } else { 0.0 });
            for _ in 0..block_len {
                let bell = (0..4).map(|_| random(state)).sum::<f64>() / 4.0;
                row.codes.push((low + bell * (high - low)).round() as i8);
            }
        }
        row
    }

    /// What each block's values lose, as squares.
    fn losses(row: &Row, coded: &CodedRow, scale: f64) -> Vec<f64> {
        let loss = |(b, (codes, d, m)): (usize, (&[i8], f64, f64))| {
            let found = &row.codes[b * row.block_len..][..row.block_len];
            let (factor, offset) = (f64::from(row.d[b]), f64::from(row.m[b]));
            let each = codes.iter().zip(found).map(|(&q, &code)| {
                let value = d * f64::from(q) + m;
                (value - scale * (factor * f64::from(code) + offset)).powi(2)
            });
            each.sum()
        };
        coded.blocks().enumerate().map(loss).collect()
    }

    /// The GGUF's own codes under its factor, rounded.
    fn kept(coded: &CodedRow, scale: f64) -> Row {
        let rint = |v: &f64| libm::rint(v / scale) as i16;
        Row {
            block_len: coded.block_len,
            offsets: false,
            codes: coded.codes.clone(),
            d: coded.scales.iter().map(rint).collect(),
            m: vec![0; coded.scales.len()],
            weights: Vec::new(),
        }
    }

    #[test]
    fn no_block_is_further_from_the_truth_than_with_the_ggufs_own_codes() {
        let mut state = SEED;
        for kind in [TensorType::Q5_0, TensorType::Q8_0, TensorType::Q6K] {
            for size in [0.3, 1.0, 4.0, 25.0, 140.0] {
                let coded = random_row(kind, size, &mut state);
                let mine = losses(&code_row(kind, &coded, 1.0).unwrap(), &coded, 1.0);
                let theirs = losses(&kept(&coded, 1.0), &coded, 1.0);
                for (b, (mine, theirs)) in mine.iter().zip(&theirs).enumerate() {
                    assert!(
                        *mine <= theirs + 1e-9,
                        "{kind:?} {size} block {b}: {mine} > {theirs}"
                    );
                }
            }
        }
    }

    #[test]
    fn six_bit_codes_find_finer_steps_in_a_byte() {
        let coded = random_row(TensorType::Q6K, 25.0, &mut SEED.clone());
        let row = code_row(TensorType::Q6K, &coded, 1.0).unwrap();
        let mine: f64 = losses(&row, &coded, 1.0).iter().sum();
        let theirs: f64 = losses(&kept(&coded, 1.0), &coded, 1.0).iter().sum();
        assert!(mine < 0.25 * theirs, "{mine} {theirs}");
    }

    #[test]
    fn codes_and_factors_stay_within_their_packing() {
        let mut state = SEED;
        for kind in [TensorType::Q5_0, TensorType::Q8_0, TensorType::Q6K] {
            for size in [0.0, 1e-9, 1.0, 20.0, 170.0] {
                let coded = random_row(kind, size, &mut state);
                let row = code_row(kind, &coded, 1.0).unwrap();
                let (low, high) = code_range(kind);
                let within = |&q: &i8| (low..=high).contains(&f64::from(q));
                assert!(row.codes.iter().all(within));
                assert!(row.d.iter().all(|d| (1..=255).contains(&d.abs())));
            }
        }
    }

    #[test]
    fn a_forecast_for_codes_that_stay_is_exact() {
        let mut state = SEED;
        for kind in [TensorType::Q4_1, TensorType::Q4K, TensorType::Q5_0] {
            let coded = random_row(kind, 100.0, &mut state);
            let forecast = Forecast::new(kind, &coded).unwrap();
            for scale in [0.7, 1.0, 1.01, 1.3] {
                let row = code_row(kind, &coded, scale).unwrap();
                let found: f64 = losses(&row, &coded, scale).iter().sum();
                let told = forecast.loss(scale);
                assert!((told / found - 1.0).abs() < 1e-6, "{kind:?} {told} {found}");
            }
        }
    }

    #[test]
    fn a_row_that_the_loader_would_refuse_does_not_fit() {
        let row = |offsets, q: i8, d, m| Row {
            block_len: 32,
            offsets,
            codes: vec![q; 32],
            d: vec![d],
            m: vec![m],
            weights: Vec::new(),
        };
        // 32 weights of 16,391 are the most that a sum may hold.
        assert!(row(false, 127, 129, 0).fits());
        assert!(!row(false, 127, 130, 0).fits());
        assert!(row(true, 1, 2000, 2767).fits());
        // No code of 15 is there, but one could be.
        assert!(!row(true, 1, 2000, 2768).fits());
    }

    #[test]
    fn nearest_is_rint() {
        let mut value = -300.0;
        while value < 300.0 {
            assert_eq!(nearest(value), libm::rint(value), "{value}");
            assert_eq!(floor(value), libm::floor(value), "{value}");
            assert_eq!(ceil(value), libm::ceil(value), "{value}");
            value += 0.015_625;
        }
    }
}
