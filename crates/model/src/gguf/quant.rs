//! The packings that a GGUF's tensors come in. A row is read as blocks of integer codes with a
//! scale and an offset each (`w = scale·code + offset`, in 64-bit floats, which hold them exactly),
//! because import keeps the codes; plain values follow from that.

use super::{Gguf, GgufError, TensorInfo};

/// How a tensor is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TensorType {
    F32,
    F16,
    Q4_1,
    Q5_0,
    Q8_0,
    Q4K,
    Q6K,
}

impl TensorType {
    pub(super) fn from_code(code: u32) -> Option<Self> {
        Some(match code {
            0 => TensorType::F32,
            1 => TensorType::F16,
            3 => TensorType::Q4_1,
            6 => TensorType::Q5_0,
            8 => TensorType::Q8_0,
            12 => TensorType::Q4K,
            14 => TensorType::Q6K,
            _ => return None,
        })
    }

    /// Values in one unit of packing.
    pub fn block_len(self) -> usize {
        match self {
            TensorType::F32 | TensorType::F16 => 1,
            TensorType::Q4_1 | TensorType::Q5_0 | TensorType::Q8_0 => 32,
            TensorType::Q4K | TensorType::Q6K => 256,
        }
    }

    pub fn block_bytes(self) -> usize {
        match self {
            TensorType::F32 => 4,
            TensorType::F16 => 2,
            TensorType::Q4_1 => 20,
            TensorType::Q5_0 => 22,
            TensorType::Q8_0 => 34,
            TensorType::Q4K => 144,
            TensorType::Q6K => 210,
        }
    }

    /// Bytes of a row of this many values, which must be whole blocks.
    pub fn row_bytes(self, columns: usize) -> usize {
        columns / self.block_len() * self.block_bytes()
    }
}

/// A row as codes: every `block_len` of them share a scale and an offset.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CodedRow {
    pub block_len: usize,
    pub codes: Vec<i8>,
    pub scales: Vec<f64>,
    /// Zero in formats that have none.
    pub offsets: Vec<f64>,
}

impl CodedRow {
    fn clear(&mut self, block_len: usize) {
        self.block_len = block_len;
        self.codes.clear();
        self.scales.clear();
        self.offsets.clear();
    }

    fn push(&mut self, scale: f64, offset: f64, codes: impl IntoIterator<Item = i8>) {
        self.scales.push(scale);
        self.offsets.push(offset);
        self.codes.extend(codes);
    }

    /// Each block's codes, scale and offset.
    pub fn blocks(&self) -> impl Iterator<Item = (&[i8], f64, f64)> {
        let factors = self.scales.iter().zip(&self.offsets);
        let blocks = self.codes.chunks_exact(self.block_len);
        blocks.zip(factors).map(|(codes, (&d, &m))| (codes, d, m))
    }

    /// The row's real values.
    pub fn values(&self) -> impl Iterator<Item = f64> {
        self.codes.iter().enumerate().map(|(k, &code)| {
            let block = k / self.block_len;
            self.scales[block] * f64::from(code) + self.offsets[block]
        })
    }
}

impl TensorType {
    /// Reads a row as codes; `false` for the float packings, which have none.
    pub fn codes(self, bytes: &[u8], row: &mut CodedRow) -> bool {
        match self {
            TensorType::F32 | TensorType::F16 => return false,
            TensorType::Q6K => row.clear(16),
            _ => row.clear(32),
        }
        for block in bytes.chunks_exact(self.block_bytes()) {
            match self {
                TensorType::F32 | TensorType::F16 => {}
                TensorType::Q4_1 => q4_1(block, row),
                TensorType::Q5_0 => q5_0(block, row),
                TensorType::Q8_0 => {
                    let codes = block[2..].iter().map(|&b| i8::from_le_bytes([b]));
                    row.push(half(block), 0.0, codes);
                }
                TensorType::Q4K => q4_k(block, row),
                TensorType::Q6K => q6_k(block, row),
            }
        }
        true
    }

    /// Reads a row as values.
    pub fn values(self, bytes: &[u8]) -> Vec<f32> {
        match self {
            TensorType::F32 => super::words(bytes).map(f32::from_le_bytes).collect(),
            TensorType::F16 => bytes
                .chunks_exact(2)
                .map(|pair| half(pair) as f32)
                .collect(),
            _ => {
                let mut row = CodedRow::default();
                self.codes(bytes, &mut row);
                row.values().map(|value| value as f32).collect()
            }
        }
    }
}

impl Gguf {
    /// All values of a small tensor, such as a norm's gains.
    pub fn values(&self, tensor: &TensorInfo) -> Result<Vec<f32>, GgufError> {
        let values: Vec<f32> = (0..tensor.rows())
            .flat_map(|row| tensor.kind.values(self.row(tensor, row)))
            .collect();
        match values.iter().all(|value| value.is_finite()) {
            true => Ok(values),
            false => Err(GgufError::BadTensor {
                name: tensor.name.clone(),
                problem: "holds a value that is not finite",
            }),
        }
    }
}

fn q4_1(block: &[u8], row: &mut CodedRow) {
    let (scale, offset) = (half(block), half(&block[2..]));
    let packed = &block[4..20];
    let low = packed.iter().map(|&b| (b & 15) as i8);
    let high = packed.iter().map(|&b| (b >> 4) as i8);
    row.push(scale, offset, low.chain(high));
}

fn q5_0(block: &[u8], row: &mut CodedRow) {
    let fifth = u32::from_le_bytes([block[2], block[3], block[4], block[5]]);
    let packed = &block[6..22];
    let code = |nibble: u8, bit: usize| (nibble | ((fifth >> bit & 1) as u8) << 4) as i8 - 16;
    let low = packed.iter().enumerate().map(|(j, &b)| code(b & 15, j));
    let high = packed
        .iter()
        .enumerate()
        .map(|(j, &b)| code(b >> 4, j + 16));
    row.push(half(block), 0.0, low.chain(high));
}

fn q4_k(block: &[u8], row: &mut CodedRow) {
    let (scale, min) = (half(block), half(&block[2..]));
    let packed_scales = &block[4..16];
    for (pair, packed) in block[16..144].chunks_exact(32).enumerate() {
        for (sub, shift) in [(2 * pair, 0), (2 * pair + 1, 4)] {
            let (sub_scale, sub_min) = six_bits(packed_scales, sub);
            row.push(
                scale * f64::from(sub_scale),
                -(min * f64::from(sub_min)),
                packed.iter().map(|&b| (b >> shift & 15) as i8),
            );
        }
    }
}

/// The `j`th of eight scales and minima, six bits each, packed in twelve bytes.
fn six_bits(packed: &[u8], j: usize) -> (u8, u8) {
    if j < 4 {
        (packed[j] & 63, packed[j + 4] & 63)
    } else {
        (
            packed[j + 4] & 15 | packed[j - 4] >> 6 << 4,
            packed[j + 4] >> 4 | packed[j] >> 6 << 4,
        )
    }
}

fn q6_k(block: &[u8], row: &mut CodedRow) {
    let (low, high, scales) = (&block[..128], &block[128..192], &block[192..208]);
    let scale = half(&block[208..]);
    for half_block in 0..2 {
        let (low, high) = (&low[64 * half_block..], &high[32 * half_block..]);
        for group in 0..8 {
            // Groups of 16 in the order of the values: four quarters of 32, two groups each.
            let quarter = group / 2;
            let sub_scale = i8::from_le_bytes([scales[8 * half_block + group]]);
            let codes = (0..16).map(|i| {
                let l = 16 * (group % 2) + i;
                let nibble = match quarter {
                    0 => low[l] & 15,
                    1 => low[l + 32] & 15,
                    2 => low[l] >> 4,
                    _ => low[l + 32] >> 4,
                };
                (nibble | (high[l] >> (2 * quarter) & 3) << 4) as i8 - 32
            });
            row.push(scale * f64::from(sub_scale), 0.0, codes);
        }
    }
}

/// The 16-bit float that some bytes open with.
fn half(bytes: &[u8]) -> f64 {
    let bits = u16::from_le_bytes([bytes[0], bytes[1]]);
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let exponent = u32::from(bits >> 10 & 31);
    let fraction = f64::from(bits & 1023);
    sign * match exponent {
        0 => fraction / 16_777_216.0,
        31 if bits & 1023 == 0 => f64::INFINITY,
        31 => f64::NAN,
        // (1024 + fraction) · 2^(exponent − 25), by an exact power of two.
        _ => (1024.0 + fraction) * f64::from(1u32 << exponent) / 33_554_432.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_floats_are_read_exactly() {
        for (bits, value) in [
            (0x3c00u16, 1.0),
            (0xc000, -2.0),
            (0x0001, 5.960_464_477_539_063e-8),
            (0x03ff, 6.097_555_160_522_461e-5),
            (0x7bff, 65504.0),
            (0x3555, 0.333_251_953_125),
        ] {
            assert_eq!(half(&bits.to_le_bytes()), value);
        }
        assert!(half(&0x7e00u16.to_le_bytes()).is_nan());
    }

    /// Bytes 0, 1, 2, … as one block of each packing, with scales of 1 (and offset 2): values
    /// from the Python package `gguf` 0.17 (`gguf.quants.dequantize`).
    #[test]
    fn blocks_are_read_as_an_independent_reader_reads_them() {
        for line in include_str!("../../tests/data/dequantized.txt")
            .lines()
            .filter(|line| !line.starts_with('#'))
        {
            let mut fields = line.split(' ');
            let kind = match fields.next() {
                Some("F16") => TensorType::F16,
                Some("Q4_1") => TensorType::Q4_1,
                Some("Q5_0") => TensorType::Q5_0,
                Some("Q8_0") => TensorType::Q8_0,
                Some("Q4_K") => TensorType::Q4K,
                Some("Q6_K") => TensorType::Q6K,
                other => panic!("fixture names {other:?}"),
            };
            let hex = fields.next().unwrap();
            let bytes: Vec<u8> = (0..hex.len() / 2)
                .map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap())
                .collect();
            let expected: Vec<f32> = fields.map(|f| f.parse().unwrap()).collect();
            let got = kind.values(&bytes);
            assert_eq!(got.len(), expected.len());
            for (got, expected) in got.iter().zip(&expected) {
                // The reader rounds every step to 32 bits; ours rounds once.
                let slack = 2e-6 * expected.abs().max(0.01);
                assert!(
                    (got - expected).abs() <= slack,
                    "{kind:?}: {got} {expected}"
                );
            }
        }
    }
}
