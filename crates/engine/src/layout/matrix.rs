//! A matrix in the file: row scales, block factors and codes; what plain weights they stand for.
//! Reads rows; never multiplies (see `kernels`).
//!
//! Row r, column k, block b of k: `w = D[r][b]·q[r][k] + M[r][b]`. A section holds, each part aligned:
//! a head of 64 bytes (the format's number, zeros), A (`u16` a row), D (`i16` a row and block), M
//! (likewise, U4 alone), codes. A U4 block is 16 bytes: the low nibble of byte i is column i, the high
//! one column 16 + i.

use assay_protocol::{B256, merkle};

use super::{ALIGNMENT, LayoutError};

/// Columns come in blocks of this many, whatever the format.
pub const BLOCK: usize = 32;

/// How a matrix's weights are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Format {
    /// 4-bit codes 0..=15, D and M a block of 32: Q4_1, Q4_K.
    U4 = 1,
    /// Signed byte codes, D a block of 32: Q5_0, Q8_0.
    I8x32 = 2,
    /// Signed byte codes, D a block of 16: Q6_K.
    I8x16 = 3,
    /// Plain weights: F16, F32.
    I16 = 4,
}

impl Format {
    fn from_u8(byte: u8) -> Option<Format> {
        [Format::U4, Format::I8x32, Format::I8x16, Format::I16]
            .into_iter()
            .find(|format| *format as u8 == byte)
    }

    /// Columns a block factor covers; 0 for plain weights.
    pub fn block(self) -> usize {
        match self {
            Format::U4 | Format::I8x32 => 32,
            Format::I8x16 => 16,
            Format::I16 => 0,
        }
    }
}

/// Weights as an importer makes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Codes {
    /// `codes`: 16 bytes a block, in the nibble order of this file's head comment (GGUF's own).
    U4 {
        codes: Vec<u8>,
        d: Vec<i16>,
        m: Vec<i16>,
    },
    I8x32 {
        codes: Vec<i8>,
        d: Vec<i16>,
    },
    I8x16 {
        codes: Vec<i8>,
        d: Vec<i16>,
    },
    I16 {
        weights: Vec<i16>,
    },
}

/// One whole matrix on its way into a file, row after row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MatrixParts {
    pub rows: u32,
    pub cols: u32,
    pub sh: u8,
    /// A, one a row.
    pub scales: Vec<u16>,
    pub codes: Codes,
}

impl MatrixParts {
    /// The section's bytes.
    pub fn to_bytes(&self) -> Result<Vec<u8>, LayoutError> {
        let wrong = LayoutError::Matrix {
            rows: self.rows,
            cols: self.cols,
        };
        let (format, d, m) = match &self.codes {
            Codes::U4 { d, m, .. } => (Format::U4, &d[..], &m[..]),
            Codes::I8x32 { d, .. } => (Format::I8x32, &d[..], &[][..]),
            Codes::I8x16 { d, .. } => (Format::I8x16, &d[..], &[][..]),
            Codes::I16 { .. } => (Format::I16, &[][..], &[][..]),
        };
        let parts = Parts::new(self.rows, self.cols, format).ok_or(wrong.clone())?;
        let mut bytes = vec![0u8; parts.len];
        bytes[0] = format as u8;
        let mut put =
            |range: &std::ops::Range<usize>, found: &mut dyn Iterator<Item = u8>, len: usize| {
                if range.len() != len {
                    return Err(wrong.clone());
                }
                bytes[range.clone()]
                    .iter_mut()
                    .zip(found)
                    .for_each(|(to, from)| *to = from);
                Ok(())
            };
        let shorts = |values: &[i16]| {
            values
                .iter()
                .flat_map(|v| v.to_le_bytes())
                .collect::<Vec<_>>()
        };
        let scales = &mut self.scales.iter().flat_map(|a| a.to_le_bytes());
        put(&parts.scales, scales, self.scales.len() * 2)?;
        put(&parts.d, &mut shorts(d).into_iter(), d.len() * 2)?;
        put(&parts.m, &mut shorts(m).into_iter(), m.len() * 2)?;
        match &self.codes {
            Codes::U4 { codes, .. } => put(&parts.codes, &mut codes.iter().copied(), codes.len())?,
            Codes::I8x32 { codes, .. } | Codes::I8x16 { codes, .. } => {
                put(
                    &parts.codes,
                    &mut codes.iter().map(|q| *q as u8),
                    codes.len(),
                )?;
            }
            Codes::I16 { weights } => {
                put(
                    &parts.codes,
                    &mut shorts(weights).into_iter(),
                    weights.len() * 2,
                )?;
            }
        }
        Ok(bytes)
    }
}

/// Where the parts lie within a section.
struct Parts {
    scales: std::ops::Range<usize>,
    d: std::ops::Range<usize>,
    m: std::ops::Range<usize>,
    codes: std::ops::Range<usize>,
    len: usize,
}

impl Parts {
    /// `None` for shapes that no file of ours has; the sums cannot overflow below them.
    fn new(rows: u32, cols: u32, format: Format) -> Option<Parts> {
        const DIM_MAX: u32 = 1 << 24;
        let fits = (1..=DIM_MAX).contains(&rows) && (1..=DIM_MAX).contains(&cols);
        if !fits || !(cols as usize).is_multiple_of(BLOCK) {
            return None;
        }
        let (rows, cols) = (rows as usize, cols as usize);
        let factors = rows * cols.checked_div(format.block()).unwrap_or(0) * 2;
        let codes = match format {
            Format::U4 => rows * cols / 2,
            Format::I8x32 | Format::I8x16 => rows * cols,
            Format::I16 => rows * cols * 2,
        };
        let offsets = if format == Format::U4 { factors } else { 0 };
        let mut end = ALIGNMENT;
        let mut next = |len: usize| {
            let start = end;
            end = (start + len).next_multiple_of(ALIGNMENT);
            start..start + len
        };
        let (scales, d, m, codes) = (next(rows * 2), next(factors), next(offsets), next(codes));
        Some(Parts {
            len: codes.end,
            scales,
            d,
            m,
            codes,
        })
    }
}

/// A matrix as it lies in the file.
#[derive(Debug, Clone, Copy)]
pub struct MatrixView<'a> {
    pub rows: usize,
    pub cols: usize,
    pub sh: u8,
    pub format: Format,
    scales: &'a [u8],
    d: &'a [u8],
    m: &'a [u8],
    codes: &'a [u8],
}

/// The i-th little-endian `i16`.
#[inline(always)]
fn short(bytes: &[u8], i: usize) -> i16 {
    i16::from_le_bytes([bytes[2 * i], bytes[2 * i + 1]])
}

impl<'a> MatrixView<'a> {
    /// Finds the parts of a section; every length is checked against the shape.
    pub fn parse(rows: u32, cols: u32, sh: u8, section: &'a [u8]) -> Result<Self, LayoutError> {
        let wrong = LayoutError::Matrix { rows, cols };
        let format = section
            .first()
            .copied()
            .and_then(Format::from_u8)
            .ok_or(wrong.clone())?;
        let parts = Parts::new(rows, cols, format).ok_or(wrong.clone())?;
        if section.len() != parts.len {
            return Err(wrong);
        }
        Ok(MatrixView {
            rows: rows as usize,
            cols: cols as usize,
            sh,
            format,
            scales: &section[parts.scales],
            d: &section[parts.d],
            m: &section[parts.m],
            codes: &section[parts.codes],
        })
    }

    /// The row scale A.
    #[inline(always)]
    pub fn scale(&self, row: usize) -> u16 {
        short(self.scales, row) as u16
    }

    /// Bytes of these rows' A, `u16` each.
    #[inline(always)]
    pub fn scales(&self, rows: std::ops::Range<usize>) -> &'a [u8] {
        &self.scales[rows.start * 2..rows.end * 2]
    }

    /// Bytes of the row's codes.
    #[inline(always)]
    pub fn codes(&self, row: usize) -> &'a [u8] {
        let len = self.codes.len() / self.rows;
        &self.codes[row * len..(row + 1) * len]
    }

    /// Bytes of the row's factors D, `i16` each.
    #[inline(always)]
    pub fn factors(&self, row: usize) -> &'a [u8] {
        let len = self.d.len() / self.rows;
        &self.d[row * len..(row + 1) * len]
    }

    /// Bytes of the row's offsets M, `i16` each; empty but for U4.
    #[inline(always)]
    pub fn offsets(&self, row: usize) -> &'a [u8] {
        let len = self.m.len() / self.rows;
        &self.m[row * len..(row + 1) * len]
    }

    /// Whether any code could take a weight of this row out of 16 bits. Such a row is refused when the
    /// model is opened, so that kernels which never form the weight agree with those that do.
    pub fn row_wraps(&self, row: usize) -> bool {
        let (d, m) = (self.factors(row), self.offsets(row));
        let fits = |w: i32| i16::try_from(w).is_ok();
        (0..d.len() / 2).any(|b| {
            let d = i32::from(short(d, b));
            match self.format {
                Format::U4 => !fits(short(m, b).into()) || !fits(15 * d + i32::from(short(m, b))),
                _ => !fits(-128 * d),
            }
        })
    }

    /// Writes the row's plain weights.
    #[inline(always)]
    pub fn row(&self, row: usize, w: &mut [i16]) {
        let (codes, d, m) = (self.codes(row), self.factors(row), self.offsets(row));
        let w = &mut w[..self.cols];
        match self.format {
            Format::U4 => {
                for (b, (w, codes)) in w
                    .chunks_exact_mut(32)
                    .zip(codes.chunks_exact(16))
                    .enumerate()
                {
                    let (d, m) = (short(d, b), short(m, b));
                    let (low, high) = w.split_at_mut(16);
                    for i in 0..16 {
                        low[i] = d.wrapping_mul(i16::from(codes[i] & 15)).wrapping_add(m);
                        high[i] = d.wrapping_mul(i16::from(codes[i] >> 4)).wrapping_add(m);
                    }
                }
            }
            Format::I8x32 => factored::<32>(w, codes, d),
            Format::I8x16 => factored::<16>(w, codes, d),
            Format::I16 => {
                for (w, bytes) in w.iter_mut().zip(codes.chunks_exact(2)) {
                    *w = i16::from_le_bytes([bytes[0], bytes[1]]);
                }
            }
        }
    }

    /// The Merkle root over rows that the manifest commits to.
    pub fn root(&self) -> B256 {
        let mut w = vec![0i16; self.cols];
        let mut data = Vec::with_capacity(2 + 2 * self.cols);
        let leaves: Vec<B256> = (0..self.rows)
            .map(|row| {
                self.row(row, &mut w);
                data.clear();
                data.extend_from_slice(&self.scale(row).to_be_bytes());
                data.extend(w.iter().flat_map(|w| w.to_be_bytes()));
                merkle::leaf(&data)
            })
            .collect();
        merkle::root(&leaves)
    }
}

#[inline(always)]
fn factored<const N: usize>(w: &mut [i16], codes: &[u8], d: &[u8]) {
    for (b, (w, codes)) in w.chunks_exact_mut(N).zip(codes.chunks_exact(N)).enumerate() {
        let d = short(d, b);
        for (w, q) in w.iter_mut().zip(codes) {
            *w = d.wrapping_mul(i16::from(*q as i8));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(codes: Codes, expected: impl Fn(usize, usize) -> i16) {
        let parts = MatrixParts {
            rows: 2,
            cols: 64,
            sh: 20,
            scales: vec![1, 65_535],
            codes,
        };
        let bytes = parts.to_bytes().unwrap();
        assert!(bytes.len() > ALIGNMENT);
        let view = MatrixView::parse(2, 64, 20, &bytes).unwrap();
        for row in 0..2 {
            let mut w = [0i16; 64];
            view.row(row, &mut w);
            for (k, w) in w.iter().enumerate() {
                assert_eq!(*w, expected(row, k), "row {row} column {k}");
            }
        }
        assert_eq!((view.scale(0), view.scale(1)), (1, 65_535));
        for len in [0, 1, ALIGNMENT, bytes.len() - 1] {
            assert!(MatrixView::parse(2, 64, 20, &bytes[..len]).is_err());
        }
        assert!(MatrixView::parse(3, 64, 20, &bytes).is_err());
        assert!(MatrixView::parse(2, 48, 20, &bytes).is_err());
        assert!(MatrixView::parse(u32::MAX, u32::MAX - 31, 20, &bytes).is_err());
    }

    #[test]
    fn nibbles_are_scaled_and_shifted_by_block() {
        let codes = (0..64u8).map(|i| i.wrapping_mul(37)).collect::<Vec<_>>();
        let (d, m) = (vec![3, -4, 255, -255], vec![1, 0, -7, 9]);
        let nibble = |byte: u8, high: bool| i16::from(if high { byte >> 4 } else { byte & 15 });
        check(
            Codes::U4 {
                codes: codes.clone(),
                d: d.clone(),
                m: m.clone(),
            },
            move |row, k| {
                let block = row * 2 + k / 32;
                let byte = codes[block * 16 + k % 16];
                d[block] * nibble(byte, k % 32 >= 16) + m[block]
            },
        );
    }

    #[test]
    fn signed_codes_are_scaled_by_block() {
        let codes = (0..128u8)
            .map(|i| i.wrapping_mul(91) as i8)
            .collect::<Vec<_>>();
        let d = vec![3, -4, 255, -255];
        let (c, f) = (codes.clone(), d.clone());
        check(
            Codes::I8x32 {
                codes: codes.clone(),
                d,
            },
            move |row, k| f[row * 2 + k / 32].wrapping_mul(c[row * 64 + k].into()),
        );
        let d = vec![1, -2, 3, -4, 5, -6, 7, -8];
        let (c, f) = (codes.clone(), d.clone());
        check(Codes::I8x16 { codes, d }, move |row, k| {
            f[row * 4 + k / 16] * i16::from(c[row * 64 + k])
        });
    }

    #[test]
    fn plain_weights_are_read_as_they_are() {
        let weights = (0..128i16).map(|i| i.wrapping_mul(999)).collect::<Vec<_>>();
        let w = weights.clone();
        check(Codes::I16 { weights }, move |row, k| w[row * 64 + k]);
    }

    #[test]
    fn parts_of_the_wrong_length_are_refused() {
        let codes = Codes::I16 {
            weights: vec![0; 63],
        };
        let parts = MatrixParts {
            rows: 2,
            cols: 32,
            sh: 20,
            scales: vec![1, 1],
            codes,
        };
        assert_eq!(
            parts.to_bytes(),
            Err(LayoutError::Matrix { rows: 2, cols: 32 })
        );
    }

    #[test]
    fn the_root_sees_weights_and_not_their_packing() {
        let packed = Codes::I8x32 {
            codes: vec![5; 32],
            d: vec![3],
        };
        let plain = Codes::I16 {
            weights: vec![15; 32],
        };
        let root = |codes| {
            let parts = MatrixParts {
                rows: 1,
                cols: 32,
                sh: 20,
                scales: vec![7],
                codes,
            };
            let bytes = parts.to_bytes().unwrap();
            MatrixView::parse(1, 32, 20, &bytes).unwrap().root()
        };
        assert_eq!(root(packed), root(plain));
        let mut leaf = vec![0, 7];
        leaf.extend([0, 15].repeat(32));
        assert_eq!(
            root(Codes::I16 {
                weights: vec![15; 32]
            }),
            merkle::root(&[merkle::leaf(&leaf)])
        );
    }
}
