//! A matrix in the file: row scales, and weights packed in the order that kernels read them; what plain
//! weights they stand for. Never multiplies (see `kernels`).
//!
//! Row r, column k, block b of k: `w = D[r][b]·q[r][k] + M[r][b]`. A section holds a head of 64 bytes (the
//! format's number, zeros), A (`u16` a row), and tiles of 16 rows by 32 columns, sixteen rows after
//! sixteen rows, each aligned. A tile holds codes, D (`i16` a row; I8x16: of the first 16 columns, then of
//! the others) and M (likewise, U4 alone). Its codes come in lines of 64 bytes, four a row: a vector
//! register sees as many rows as it has 32-bit lanes, and one sequential stream feeds them all. Within
//! such four bytes columns come as 0, 2, 1, 3, so that even and odd bytes widen to neighbouring columns.
//! Rows beyond the last are zero.

use assay_protocol::{B256, merkle};

use super::{ALIGNMENT, LayoutError};

/// Columns come in blocks of this many, whatever the format.
pub const BLOCK: usize = 32;
/// Rows that lie side by side.
pub const PANEL: usize = 16;
/// Bytes of a line of codes: four a row.
const LINE: usize = 4 * PANEL;
/// Bytes of one factor of every row.
const FACTORS: usize = 2 * PANEL;

/// How a matrix's weights are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Format {
    /// Codes 0..=15, D and M a block of 32: Q4_1, Q4_K. Line j has columns 4j.. in low nibbles and
    /// 16 + 4j.. in high ones.
    U4 = 1,
    /// Signed byte codes, D a block of 32: Q8_0. Line j has columns 4j..
    I8x32 = 2,
    /// Signed byte codes, D a block of 16: Q6_K.
    I8x16 = 3,
    /// Plain weights: F16, F32. Two lines for columns 4j..: two `i16` a row each.
    I16 = 4,
    /// Codes −16..=15, 16 added, D a block of 32: Q5_0. Four bits as in U4, then a line of fifth bits: bit
    /// j of a byte belongs to line j's low nibble, bit 4 + j to its high one.
    I5 = 5,
}

impl Format {
    fn from_u8(byte: u8) -> Option<Format> {
        [
            Format::U4,
            Format::I8x32,
            Format::I8x16,
            Format::I16,
            Format::I5,
        ]
        .into_iter()
        .find(|format| *format as u8 == byte)
    }

    /// Columns a block factor covers; 0 for plain weights.
    pub fn block(self) -> usize {
        match self {
            Format::U4 | Format::I8x32 | Format::I5 => 32,
            Format::I8x16 => 16,
            Format::I16 => 0,
        }
    }

    /// Bytes of a tile's codes.
    pub(crate) const fn codes_len(self) -> usize {
        match self {
            Format::U4 => 4 * LINE,
            Format::I5 => 5 * LINE,
            Format::I8x32 | Format::I8x16 => 8 * LINE,
            Format::I16 => 16 * LINE,
        }
    }

    /// Bytes of a tile.
    pub(crate) const fn tile_len(self) -> usize {
        let factors = match self {
            Format::I16 => 0,
            Format::I8x32 | Format::I5 => 1,
            Format::U4 | Format::I8x16 => 2,
        };
        self.codes_len() + factors * FACTORS
    }
}

/// Weights as an importer makes them, row after row, column after column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Codes {
    /// `codes`: 16 bytes a block; the low nibble of byte i is column i, the high one column 16 + i (GGUF's
    /// own order).
    U4 {
        codes: Vec<u8>,
        d: Vec<i16>,
        m: Vec<i16>,
    },
    /// Codes within −16..=15.
    I5 {
        codes: Vec<i8>,
        d: Vec<i16>,
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

impl Codes {
    fn format(&self) -> Format {
        match self {
            Codes::U4 { .. } => Format::U4,
            Codes::I5 { .. } => Format::I5,
            Codes::I8x32 { .. } => Format::I8x32,
            Codes::I8x16 { .. } => Format::I8x16,
            Codes::I16 { .. } => Format::I16,
        }
    }

    /// Whether there are as many numbers as the shape takes, each as small as its format holds.
    fn fit(&self, rows: usize, cols: usize) -> bool {
        let (n, blocks) = (rows * cols, rows * cols / BLOCK);
        match self {
            Codes::U4 { codes, d, m } => {
                codes.len() == n / 2 && d.len() == blocks && m.len() == blocks
            }
            Codes::I5 { codes, d } => {
                let small = codes.iter().all(|q| (-16..16).contains(q));
                codes.len() == n && d.len() == blocks && small
            }
            Codes::I8x32 { codes, d } => codes.len() == n && d.len() == blocks,
            Codes::I8x16 { codes, d } => codes.len() == n && d.len() == 2 * blocks,
            Codes::I16 { weights } => weights.len() == n,
        }
    }
}

/// One whole matrix on its way into a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MatrixParts {
    pub rows: u32,
    pub cols: u32,
    pub sh: u8,
    /// A, one a row.
    pub scales: Vec<u16>,
    pub codes: Codes,
}

/// Where four columns of a line lie among a row's four bytes.
fn within(column: usize) -> usize {
    [0, 2, 1, 3][column % 4]
}

impl MatrixParts {
    /// The section's bytes.
    pub fn to_bytes(&self) -> Result<Vec<u8>, LayoutError> {
        let wrong = LayoutError::Matrix {
            rows: self.rows,
            cols: self.cols,
        };
        let format = self.codes.format();
        let parts = Parts::new(self.rows, self.cols, format).ok_or(wrong.clone())?;
        let (rows, cols) = (self.rows as usize, self.cols as usize);
        if self.scales.len() != rows || !self.codes.fit(rows, cols) {
            return Err(wrong);
        }
        let mut bytes = vec![0u8; parts.len];
        bytes[0] = format as u8;
        let scales = bytes[parts.scales].chunks_exact_mut(2);
        for (to, a) in scales.zip(&self.scales) {
            to.copy_from_slice(&a.to_le_bytes());
        }
        let blocks = cols / BLOCK;
        let tiles = bytes[parts.tiles].chunks_exact_mut(format.tile_len());
        for (index, tile) in tiles.enumerate() {
            let (first, block) = (index / blocks * PANEL, index % blocks);
            for lane in 0..PANEL.min(rows - first) {
                self.pack(first + lane, block, lane, tile);
            }
        }
        Ok(bytes)
    }

    /// Writes one row's block into its lane of a tile.
    fn pack(&self, row: usize, block: usize, lane: usize, tile: &mut [u8]) {
        let cols = self.cols as usize;
        let at = row * cols + block * BLOCK;
        let (codes, factors) = tile.split_at_mut(self.codes.format().codes_len());
        let mut factor = |index: usize, value: i16| {
            let to = index * FACTORS + 2 * lane;
            factors[to..to + 2].copy_from_slice(&value.to_le_bytes());
        };
        // The place of a column in its line.
        let place = |column: usize| (column % 16 / 4) * LINE + 4 * lane + within(column);
        match &self.codes {
            Codes::U4 { codes: q, d, m } => {
                factor(0, d[at / BLOCK]);
                factor(1, m[at / BLOCK]);
                for (column, q) in q[at / 2..][..BLOCK / 2].iter().enumerate() {
                    codes[place(column)] = *q;
                }
            }
            Codes::I5 { codes: q, d } => {
                factor(0, d[at / BLOCK]);
                for column in 0..BLOCK {
                    let (q, high) = ((q[at + column] + 16) as u8, column / 16);
                    codes[place(column)] |= (q & 15) << (4 * high);
                    let line = column % 16 / 4;
                    codes[4 * LINE + 4 * lane + within(column)] |= (q >> 4) << (4 * high + line);
                }
            }
            Codes::I8x32 { codes: q, d } => {
                factor(0, d[at / BLOCK]);
                for column in 0..BLOCK {
                    codes[column / 4 * LINE + 4 * lane + within(column)] = q[at + column] as u8;
                }
            }
            Codes::I8x16 { codes: q, d } => {
                factor(0, d[at / 16]);
                factor(1, d[at / 16 + 1]);
                for column in 0..BLOCK {
                    codes[column / 4 * LINE + 4 * lane + within(column)] = q[at + column] as u8;
                }
            }
            Codes::I16 { weights } => {
                for column in 0..BLOCK {
                    let to = column / 2 * LINE + 4 * lane + 2 * (column % 2);
                    codes[to..to + 2].copy_from_slice(&weights[at + column].to_le_bytes());
                }
            }
        }
    }
}

/// Where the parts lie within a section.
struct Parts {
    scales: std::ops::Range<usize>,
    tiles: std::ops::Range<usize>,
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
        let start = (ALIGNMENT + rows * 2).next_multiple_of(ALIGNMENT);
        let end = start + rows.div_ceil(PANEL) * (cols / BLOCK) * format.tile_len();
        Some(Parts {
            scales: ALIGNMENT..ALIGNMENT + rows * 2,
            tiles: start..end,
            len: end.next_multiple_of(ALIGNMENT),
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
    tiles: &'a [u8],
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
            tiles: &section[parts.tiles],
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

    /// Sixteens of rows, the last one filled up with zeros.
    #[inline(always)]
    pub fn panels(&self) -> usize {
        self.rows.div_ceil(PANEL)
    }

    /// Bytes of a panel's tiles, block after block.
    #[inline(always)]
    pub(crate) fn panel(&self, panel: usize) -> &'a [u8] {
        let len = self.cols / BLOCK * self.format.tile_len();
        &self.tiles[panel * len..(panel + 1) * len]
    }

    /// The tile of a row's block, and the row's lane in it.
    #[inline(always)]
    fn tile(&self, row: usize, block: usize) -> (&'a [u8], usize) {
        let len = self.format.tile_len();
        (&self.panel(row / PANEL)[block * len..][..len], row % PANEL)
    }

    /// D of a row at a column, and M: 1 and 0 for plain weights.
    #[inline(always)]
    pub(crate) fn factors(&self, row: usize, column: usize) -> (i16, i16) {
        let (tile, lane) = self.tile(row, column / BLOCK);
        let factor = |index: usize| short(&tile[self.format.codes_len()..], index * PANEL + lane);
        match self.format {
            Format::I16 => (1, 0),
            Format::U4 => (factor(0), factor(1)),
            Format::I5 | Format::I8x32 => (factor(0), 0),
            Format::I8x16 => (factor(column % BLOCK / 16), 0),
        }
    }

    /// The code of a row at a column: the weight itself where weights are plain.
    #[inline(always)]
    pub(crate) fn code(&self, row: usize, column: usize) -> i16 {
        let (tile, lane) = self.tile(row, column / BLOCK);
        let column = column % BLOCK;
        let (high, line) = (column / 16, column % 16 / 4);
        let byte = |line: usize| tile[line * LINE + 4 * lane + within(column)];
        let nibble = || i16::from(byte(line) >> (4 * high) & 15);
        match self.format {
            Format::U4 => nibble(),
            Format::I5 => {
                let fifth = byte(4) >> (4 * high + line) & 1;
                nibble() + i16::from(fifth << 4) - 16
            }
            Format::I8x32 | Format::I8x16 => i16::from(byte(column / 4) as i8),
            Format::I16 => short(tile, column / 2 * 2 * PANEL + 2 * lane + column % 2),
        }
    }

    /// Whether any code could take a weight of this panel out of 16 bits. Such a matrix is refused when
    /// the model is opened, so that kernels which never form the weight agree with those that do. Gives
    /// the row.
    pub(crate) fn wraps(&self, panel: usize) -> Option<usize> {
        let (len, codes) = (self.format.tile_len(), self.format.codes_len());
        let fits = |w: i32| i16::try_from(w).is_ok();
        self.panel(panel).chunks_exact(len).find_map(|tile| {
            let factors = &tile[codes..];
            let lane = (0..PANEL).find(|lane| {
                let factor = |index: usize| i32::from(short(factors, index * PANEL + lane));
                !match self.format {
                    Format::I16 => true,
                    Format::U4 => fits(15 * factor(0) + factor(1)),
                    Format::I5 => fits(-16 * factor(0)),
                    Format::I8x32 => fits(-128 * factor(0)),
                    Format::I8x16 => fits(-128 * factor(0)) && fits(-128 * factor(1)),
                }
            });
            lane.map(|lane| panel * PANEL + lane)
        })
    }

    /// Writes the row's plain weights.
    pub fn row(&self, row: usize, w: &mut [i16]) {
        // A factor covers sixteen columns at least.
        for (start, w) in w[..self.cols].chunks_exact_mut(16).enumerate() {
            let (d, m) = self.factors(row, 16 * start);
            for (column, w) in w.iter_mut().enumerate() {
                let code = self.code(row, 16 * start + column);
                *w = d.wrapping_mul(code).wrapping_add(m);
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
        assert!(MatrixView::parse(17, 64, 20, &bytes).is_err());
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
