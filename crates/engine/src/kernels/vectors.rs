//! 12-bit inputs of a matrix product: one vector a token with its exponent, and for a single token the
//! forms that the kernel reads which leaves weights packed.

use super::{self as kernels, Path};

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

/// `x = 32·high + low` in the order in which codes lie in a line, and sums of x over blocks of 32.
#[derive(Default)]
pub(crate) struct Split {
    /// Within −64..=63.
    pub high: Vec<i8>,
    /// Within 0..=31.
    pub low: Vec<u8>,
    pub sums: Vec<i32>,
}

impl Vectors {
    pub(crate) fn resize(&mut self, count: usize, cols: usize) {
        (self.cols, self.count) = (cols, count);
        self.x.resize(count * cols, 0);
        self.e.resize(count, 0);
    }

    /// Makes the forms for a single token.
    pub(crate) fn prepare(&mut self, path: Path) {
        if self.count != 1 {
            return;
        }
        let Vectors { x, split, .. } = self;
        split.high.resize(x.len(), 0);
        split.low.resize(x.len(), 0);
        split.sums.resize(x.len() / 32, 0);
        kernels::split(path, x, &mut split.high, &mut split.low, &mut split.sums);
    }
}
