//! Every value of the pass over one sequence, layer by layer, and the public constants that it was computed
//! with: what a proof is made from. Equal to `reference` value for value; refuses where anything clamps, as
//! the proven relation has no clamps.
//!
//! All arrays have tokens side by side: the value of row r at token t lies at `r·tokens + t`. "Per token"
//! is one row; "per vector and token" is a row a vector.

mod attention;
mod choices;
mod constants;
mod linear;
mod norm;
mod parts;
mod pass;

use std::sync::Arc;

use crate::run::RunError;

pub use choices::choices;
pub use constants::{
    BASE_MIX, BASE_MLP, BASE_NORM, Constants, F_INNER, GemmaConstants, LayerConstants,
    LinearConstants, NormConstants, PANEL,
};
pub use pass::Pass;

/// A vector a token under an exponent a token.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BfpValues {
    /// The exponent, per token.
    pub e: Vec<u8>,
    /// The lowest row of the largest magnitude, per token.
    pub peak_at: Vec<u32>,
    /// The value there, with its sign, per token.
    pub peak: Vec<i64>,
    /// `rsh(v, base + e)`, all rows.
    pub x12: Vec<i16>,
}

/// One norm. Y is [`BfpValues`] where a matrix follows, else [`FixedValues`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NormValues<Y> {
    /// What is normed; rows of a head, head after head, for the norms of q and k.
    pub x: Arc<Vec<i32>>,
    /// Epsilon and the sum of squares, per vector and token: a vector is all rows, or a head's.
    pub ss: Vec<u64>,
    /// `rsh(x·inv, 23)`.
    pub u: Vec<i32>,
    /// Of `v = u·gain`.
    pub y: Y,
}

/// `rsh(v, shift)`, in a fixed fraction.
pub type FixedValues = Arc<Vec<i32>>;

/// One matrix against all tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinearValues {
    pub acc: Vec<i32>,
    /// `rsh(acc·A, shift − e)`, which is within the limit.
    pub z: Arc<Vec<i32>>,
}

/// Attention by head. "Per pair" is row `h·tokens + j` at column t, for query t of head h and position j, of
/// all j and t.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttentionValues {
    /// The lowest seen position of the largest score, per head and token.
    pub max_at: Vec<u32>,
    /// The score there, per head and token.
    pub max: Vec<i64>,
    /// Z, the sum of e over what is seen, per head and token.
    pub sum: Vec<u64>,
    /// `max − S`, per pair: negative only where it is not seen.
    pub below: Vec<i64>,
    /// Per pair; 0 where it is not seen, as p.
    pub e: Vec<u16>,
    pub p: Vec<u16>,
}

/// What one layer computes, in its order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerValues {
    pub attention_norm: NormValues<BfpValues>,
    pub q: LinearValues,
    pub k: LinearValues,
    pub v: LinearValues,
    /// Gemma's, of q and k.
    pub head_norms: Option<[NormValues<FixedValues>; 2]>,
    /// After RoPE, within 13 bits as the cache holds them; v within 12.
    pub q13: Vec<i16>,
    pub k13: Vec<i16>,
    pub v12: Vec<i16>,
    pub attention: AttentionValues,
    /// `Σ p·v12`, row `h·head_dim + i`.
    pub mix: Vec<i32>,
    pub mix_bfp: BfpValues,
    pub o: LinearValues,
    /// Gemma's, of o's z.
    pub attention_post: Option<NormValues<FixedValues>>,
    /// The residual after attention, which `ffn_norm` takes.
    pub middle: Arc<Vec<i32>>,
    pub ffn_norm: NormValues<BfpValues>,
    pub gate: LinearValues,
    pub up: LinearValues,
    /// `((max(g, 0) << 4) − ACT[min(|g|, 65535)])·u`.
    pub product: Vec<i64>,
    pub product_bfp: BfpValues,
    pub down: LinearValues,
    /// Gemma's, of down's z.
    pub ffn_post: Option<NormValues<FixedValues>>,
    /// The residual that the next layer takes.
    pub residual: Arc<Vec<i32>>,
}

/// Where the pass clamps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Site {
    Embedding,
    Q,
    K,
    V,
    O,
    Middle,
    Gate,
    Up,
    Down,
    Residual,
}

/// A result beyond its limit, which the pass clamps and the proven relation does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{site:?} of layer {layer}, row {row}, leaves its limit at token {token}")]
pub struct Clamped {
    pub site: Site,
    pub layer: u32,
    pub row: u32,
    pub token: u32,
}

/// Why a pass has no values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ValuesError {
    #[error(transparent)]
    Run(#[from] RunError),
    #[error(transparent)]
    Clamped(#[from] Clamped),
}
