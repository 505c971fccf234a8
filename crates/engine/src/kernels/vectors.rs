//! 12-bit inputs of a matrix product: one vector a token with its exponent, and for a single token the
//! forms that the 4-bit kernel reads.

/// Inputs of a matrix product.
#[derive(Default)]
pub(crate) struct Vectors {
    pub cols: usize,
    pub count: usize,
    /// Token after token.
    pub x: Vec<i16>,
    /// A token's exponent.
    pub e: Vec<i32>,
    pub split: Split,
}

/// `x = 16·high + low`, in the order in which 4-bit codes come out of their bytes, and block sums S as
/// two halves `S = half + rest` that each fit 16 bits.
#[derive(Default)]
pub(crate) struct Split {
    pub high: Vec<i8>,
    pub low: Vec<i8>,
    pub half: Vec<i16>,
    pub rest: Vec<i16>,
}

impl Vectors {
    pub(crate) fn resize(&mut self, count: usize, cols: usize) {
        (self.cols, self.count) = (cols, count);
        self.x.resize(count * cols, 0);
        self.e.resize(count, 0);
    }

    /// Makes the forms for a single token. Where columns do not come in 64s only the plain form is used.
    pub(crate) fn prepare(&mut self) {
        if self.count != 1 || !self.cols.is_multiple_of(64) {
            return;
        }
        let Vectors { x, split, cols, .. } = self;
        split.high.resize(*cols, 0);
        split.low.resize(*cols, 0);
        split.half.resize(*cols / 32, 0);
        split.rest.resize(*cols / 32, 0);
        for (g, x) in x.chunks_exact(64).enumerate() {
            let (high, low) = (
                &mut split.high[g * 64..][..64],
                &mut split.low[g * 64..][..64],
            );
            // Columns 0..16 and 32..48 are the low nibbles of 32 bytes, 16..32 and 48..64 the high ones.
            for (to, from) in [(0, 0), (16, 32), (32, 16), (48, 48)] {
                for i in 0..16 {
                    high[to + i] = (x[from + i] >> 4) as i8;
                    low[to + i] = (x[from + i] & 15) as i8;
                }
            }
            for b in 0..2 {
                let sum: i32 = x[b * 32..][..32].iter().map(|x| i32::from(*x)).sum();
                split.half[2 * g + b] = (sum >> 1) as i16;
                split.rest[2 * g + b] = (sum - (sum >> 1)) as i16;
            }
        }
    }
}
