//! The public constants of a model: everything that the pass takes besides tokens, as the arithmetic of
//! `ops` takes it. Reads the opened file and copies nothing; what it says, the manifest's roots bind.

use assay_protocol::TokenId;
use assay_protocol::manifest::{Architecture, Dims, Fractions};
use assay_protocol::trace::MatrixRef;

use crate::kernels::{self, Path};
use crate::layout::{ACT_LEN, EXP_LEN, MatrixView};
use crate::model::{self, Inner, Layer, Linear, Model, Norm};
use crate::ops;
use crate::ops::rope::Pairing;

pub use crate::layout::PANEL;

/// The base of bfp after a norm, after the mix, and after the MLP's product.
pub const BASE_NORM: i32 = model::BASE_NORM;
pub const BASE_MIX: i32 = model::BASE_MIX;
pub const BASE_MLP: i32 = model::BASE_MLP;
/// The fraction of q, k, v, gate and up, and of gemma's q and k after their norms.
pub const F_INNER: i32 = model::F_INNER;

/// A model's constants.
pub struct Constants<'a> {
    inner: &'a Inner,
    pub dims: Dims,
    pub architecture: Architecture,
    /// The residual's fraction.
    pub residual_fraction: i32,
    /// `x = rsh(w·E, embedding_shift)`, E being [`Constants::embedding_scale`].
    pub embedding_shift: i32,
    pub layers: Vec<LayerConstants<'a>>,
    pub final_norm: NormConstants<'a>,
    pub head: LinearConstants<'a>,
    /// `rsh(below·c, csh)` takes a score's distance to Q.8 of log2; csh is its layer's.
    pub c: u32,
    pub pairing: Pairing,
    pub exp: &'a [u16; EXP_LEN],
    pub act: &'a [u16; ACT_LEN],
}

/// A matrix between two fractions: `z = rsh(acc·A, shift − e)`, e being its input's exponent.
#[derive(Clone, Copy)]
pub struct LinearConstants<'a> {
    pub matrix: MatrixRef,
    pub rows: usize,
    pub cols: usize,
    /// With the layer's v fraction, where the matrix is `o`.
    pub shift: i32,
    /// z is held within ±limit.
    pub limit: i32,
    view: MatrixView<'a>,
}

/// A norm: `v = rsh(x·inv, 23)·gain`.
#[derive(Clone, Copy)]
pub struct NormConstants<'a> {
    pub gains: &'a [i32],
    pub eps: u64,
    /// v is in Q.fs.
    pub fs: i32,
    /// What v is shifted by: [`BASE_NORM`], to which the exponent is added, where a matrix follows; else
    /// from fs to the result's fraction.
    pub shift: i32,
}

/// One layer's program.
pub struct LayerConstants<'a> {
    pub fractions: Fractions,
    /// Positions that a token sees, itself included; 0 is all.
    pub window: usize,
    /// The number of its RoPE table.
    pub rope: usize,
    /// The fractions of q and k included.
    pub csh: i32,
    pub attention_norm: NormConstants<'a>,
    pub q: LinearConstants<'a>,
    pub k: LinearConstants<'a>,
    pub v: LinearConstants<'a>,
    pub o: LinearConstants<'a>,
    pub ffn_norm: NormConstants<'a>,
    pub gate: LinearConstants<'a>,
    pub up: LinearConstants<'a>,
    pub down: LinearConstants<'a>,
    pub gemma: Option<GemmaConstants<'a>>,
}

/// The norms that gemma has besides. Those of q and k are over one head each.
pub struct GemmaConstants<'a> {
    pub q_norm: NormConstants<'a>,
    pub k_norm: NormConstants<'a>,
    pub attention_post: NormConstants<'a>,
    pub ffn_post: NormConstants<'a>,
}

impl<'a> LinearConstants<'a> {
    fn new(inner: &'a Inner, matrix: MatrixRef, by: &Linear, fraction: i32) -> Self {
        let view = by.matrix.view(inner);
        LinearConstants {
            matrix,
            rows: view.rows,
            cols: view.cols,
            shift: by.shift + fraction,
            limit: by.limit,
            view,
        }
    }

    /// The row scale A.
    pub fn scale(&self, row: usize) -> u16 {
        self.view.scale(row)
    }

    /// Writes the plain weights of [`PANEL`] rows, row after row, from row `PANEL·panel` on: the fast way to
    /// read all. Rows beyond the last are zeros.
    pub fn panel(&self, panel: usize, w: &mut [i16]) {
        kernels::unpack_rows(Path::detect(), &self.view, panel, w);
    }

    pub(super) fn view(&self) -> &MatrixView<'a> {
        &self.view
    }
}

impl<'a> NormConstants<'a> {
    fn new(norm: &'a Norm, shift: i32) -> Self {
        NormConstants {
            gains: &norm.gains,
            eps: norm.eps,
            fs: norm.fs,
            shift,
        }
    }
}

impl<'a> Constants<'a> {
    pub fn new(model: &'a Model) -> Self {
        let inner = &*model.inner;
        let manifest = &inner.manifest;
        let layers = (0..).zip(&inner.layers);
        Constants {
            inner,
            dims: manifest.dims,
            architecture: manifest.architecture,
            residual_fraction: manifest.residual_fraction.into(),
            embedding_shift: inner.embedding_shift,
            layers: layers.map(|(l, layer)| program(inner, l, layer)).collect(),
            final_norm: NormConstants::new(&inner.final_norm, BASE_NORM),
            head: LinearConstants::new(inner, MatrixRef::Head, &inner.head, 0),
            c: manifest.attention_scale.c,
            pairing: inner.pairing,
            exp: &inner.exp.narrow,
            act: &inner.act,
        }
    }

    /// E of a token's row of the embedding.
    pub fn embedding_scale(&self, token: TokenId) -> i64 {
        let a = self.view(MatrixRef::Embedding).scale(token as usize);
        ops::embed::row_scale(a, self.inner.embedding_scale_squared)
    }

    /// Writes a row's plain weights.
    pub fn row(&self, matrix: MatrixRef, row: usize, w: &mut [i16]) {
        self.view(matrix).row(row, w);
    }

    /// A row's scale A.
    pub fn scale(&self, matrix: MatrixRef, row: usize) -> u16 {
        self.view(matrix).scale(row)
    }

    /// As [`LinearConstants::panel`], of any matrix.
    pub fn panel(&self, matrix: MatrixRef, panel: usize, w: &mut [i16]) {
        kernels::unpack_rows(Path::detect(), &self.view(matrix), panel, w);
    }

    /// cos and sin, Q.14.
    pub fn rope(&self, table: usize, position: usize, frequency: usize) -> (i16, i16) {
        self.inner.rope_at(table, position).get(frequency)
    }

    /// # Panics
    /// Where there is no such layer.
    fn view(&self, matrix: MatrixRef) -> MatrixView<'a> {
        let layer = |l: u32| &self.layers[l as usize];
        match matrix {
            MatrixRef::Embedding => self.inner.embedding.view(self.inner),
            MatrixRef::Head => self.head.view,
            MatrixRef::Q(l) => layer(l).q.view,
            MatrixRef::K(l) => layer(l).k.view,
            MatrixRef::V(l) => layer(l).v.view,
            MatrixRef::O(l) => layer(l).o.view,
            MatrixRef::Gate(l) => layer(l).gate.view,
            MatrixRef::Up(l) => layer(l).up.view,
            MatrixRef::Down(l) => layer(l).down.view,
        }
    }
}

fn program<'a>(inner: &'a Inner, l: u32, layer: &'a Layer) -> LayerConstants<'a> {
    let linear = |matrix, by| LinearConstants::new(inner, matrix, by, 0);
    let fractions = layer.fractions;
    let scale = inner.manifest.attention_scale;
    let residual = i32::from(inner.manifest.residual_fraction);
    let head = |norm| NormConstants::new(norm, norm.fs - F_INNER);
    let post = |norm| NormConstants::new(norm, norm.fs - residual);
    LayerConstants {
        fractions,
        window: layer.window,
        rope: layer.rope,
        csh: i32::from(scale.csh) + i32::from(fractions.q) + i32::from(fractions.k),
        attention_norm: NormConstants::new(&layer.attention_norm, BASE_NORM),
        q: linear(MatrixRef::Q(l), &layer.q),
        k: linear(MatrixRef::K(l), &layer.k),
        v: linear(MatrixRef::V(l), &layer.v),
        o: LinearConstants::new(inner, MatrixRef::O(l), &layer.o, fractions.v.into()),
        ffn_norm: NormConstants::new(&layer.ffn_norm, BASE_NORM),
        gate: linear(MatrixRef::Gate(l), &layer.gate),
        up: linear(MatrixRef::Up(l), &layer.up),
        down: linear(MatrixRef::Down(l), &layer.down),
        gemma: layer.gemma.as_ref().map(|gemma| GemmaConstants {
            q_norm: head(&gemma.q_norm),
            k_norm: head(&gemma.k_norm),
            attention_post: post(&gemma.attention_post),
            ffn_post: post(&gemma.ffn_post),
        }),
    }
}
