//! 12-bit inputs of a matrix product: one vector a token with its exponent, and for few tokens the forms
//! that the kernel reads which leaves weights packed.

use super::{self as kernels, Path};
use crate::layout::BLOCK;

/// Most tokens that are each multiplied with the packed weights: for more it pays to unpack them once.
const FEW: usize = 3;

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

/// `x = 32·high + low` in the order in which codes lie in a line, and sums of x over blocks of 32: token
/// after token.
#[derive(Default)]
pub(crate) struct Split {
    /// Within −64..=63.
    pub high: Vec<i8>,
    /// Within 0..=31.
    pub low: Vec<u8>,
    pub sums: Vec<i32>,
}

/// One token's vector, in the same forms.
pub(crate) struct Single<'a> {
    pub x: &'a [i16],
    pub split: Halves<'a>,
}

pub(crate) struct Halves<'a> {
    pub high: &'a [i8],
    pub low: &'a [u8],
    pub sums: &'a [i32],
}

impl<'a> Halves<'a> {
    /// High and low halves of each block, and its sum: what belongs to a tile.
    #[inline(always)]
    pub(crate) fn blocks(&self) -> impl Iterator<Item = ((&'a [i8], &'a [u8]), &'a i32)> {
        let halves = self
            .high
            .chunks_exact(BLOCK)
            .zip(self.low.chunks_exact(BLOCK));
        halves.zip(self.sums)
    }
}

impl Vectors {
    pub(crate) fn resize(&mut self, count: usize, cols: usize) {
        (self.cols, self.count) = (cols, count);
        self.x.resize(count * cols, 0);
        self.e.resize(count, 0);
    }

    /// Whether weights stay packed.
    pub(crate) fn few(&self) -> bool {
        self.count <= FEW
    }

    /// Makes the forms for few tokens.
    pub(crate) fn prepare(&mut self, path: Path) {
        if !self.few() {
            return;
        }
        let Vectors { x, split, .. } = self;
        split.high.resize(x.len(), 0);
        split.low.resize(x.len(), 0);
        split.sums.resize(x.len() / BLOCK, 0);
        kernels::split(path, x, &mut split.high, &mut split.low, &mut split.sums);
    }

    /// A token's vector, where [`Vectors::prepare`] has made all its forms.
    pub(crate) fn single(&self, token: usize) -> Single<'_> {
        let (at, blocks) = (token * self.cols, self.cols / BLOCK);
        Single {
            x: &self.x[at..at + self.cols],
            split: Halves {
                high: &self.split.high[at..at + self.cols],
                low: &self.split.low[at..at + self.cols],
                sums: &self.split.sums[token * blocks..(token + 1) * blocks],
            },
        }
    }
}
