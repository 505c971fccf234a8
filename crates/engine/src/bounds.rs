//! The static bounds of NUMERICS: what must hold of shapes, scales, gains and tables for no product or
//! sum of the pass to overflow, on any input. Checked once, when a model is opened, or by whoever takes a
//! model's numbers from elsewhere than a model file; judges only.

use assay_protocol::manifest::{Architecture, Manifest, MatrixEntry};

use crate::kernels::{self, Path};
use crate::layout::{MatrixView, PANEL, Section};
use crate::model::{BASE_MIX, BASE_MLP, BASE_NORM};
use crate::ops::{ACC_MAX, V_MAX, X_MAX, bfp};

/// Longest context: with it the mix of values stays within an i32.
const CONTEXT_MAX: u32 = 1 << 20;
const VOCAB_MAX: u32 = 1 << 24;
const DIM_MAX: u32 = 1 << 16;
/// A head's score stays below 2^34.
const HEAD_DIM_MAX: u32 = 1 << 10;
/// Heads are read 16 elements at a time.
const HEAD_DIM_STEP: u32 = 16;
/// Shifts of 64-bit products: to the right, and to the left of what is below 2^46.
const SHIFT_MAX: i32 = 62;
const SHIFT_MIN: i32 = -15;
/// Results of a norm that no matrix follows fit an i32 with room for one addition.
const NORM_OUTPUT_BITS: i32 = 30;

/// A bound that a file breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BoundError {
    #[error("manifest: {what} is {value}, which this engine does not run")]
    Shape { what: &'static str, value: u64 },
    #[error("{section} row {row}: the sum of weights {sum} could overflow an accumulator")]
    Row {
        section: Section,
        row: usize,
        sum: i64,
    },
    #[error("{section} row {row}: a block's factors could take a weight out of 16 bits")]
    Wraps { section: Section, row: usize },
    #[error("{section}: a shift of {shift} leaves 64 bits")]
    Shift { section: Section, shift: i32 },
    #[error("{section}: gains, epsilon or length could overflow the norm")]
    Norm { section: Section },
    #[error("{0} does not have the values that bound the arithmetic")]
    Table(Section),
}

fn shape(what: &'static str, value: impl Into<u64>, ok: bool) -> Result<(), BoundError> {
    if ok {
        Ok(())
    } else {
        Err(BoundError::Shape {
            what,
            value: value.into(),
        })
    }
}

/// Shapes and fractions, before anything of their size is read.
pub fn check_manifest(manifest: &Manifest) -> Result<(), BoundError> {
    let d = &manifest.dims;
    for (what, value, max) in [
        ("layers", d.layers, u32::from(u16::MAX)),
        ("width", d.width, DIM_MAX),
        ("heads", d.heads, DIM_MAX),
        ("kv_heads", d.kv_heads, d.heads),
        ("head_dim", d.head_dim, HEAD_DIM_MAX),
        ("ffn", d.ffn, DIM_MAX),
        ("vocab", d.vocab, VOCAB_MAX),
        ("context_max", d.context_max, CONTEXT_MAX),
    ] {
        shape(what, value, (1..=max).contains(&value))?;
    }
    shape(
        "head_dim",
        d.head_dim,
        d.head_dim.is_multiple_of(HEAD_DIM_STEP),
    )?;
    shape("kv_heads", d.kv_heads, d.heads.is_multiple_of(d.kv_heads))?;
    let f = manifest.residual_fraction;
    shape("residual fraction", f, f <= 16)?;
    let scale = manifest.attention_scale;
    shape("attention scale", scale.c, scale.c <= 1 << 24)?;
    shape(
        "number of RoPE tables",
        manifest.rope_roots.len() as u64,
        !manifest.rope_roots.is_empty(),
    )?;
    if let Some(bos) = manifest.bos {
        shape("bos", bos, bos < d.vocab)?;
    }
    for eos in &manifest.eos {
        shape("eos", *eos, *eos < d.vocab)?;
    }
    // Both factors are below 2^16.
    let (q, kv) = (d.heads * d.head_dim, d.kv_heads * d.head_dim);
    let matrix = |what, entry: &MatrixEntry, rows: u32, cols: u32| {
        shape(what, entry.rows, entry.rows == rows)?;
        shape(what, entry.cols, entry.cols == cols)?;
        shape(what, entry.sh, entry.sh <= 62)
    };
    for layer in &manifest.layers {
        matrix("q", &layer.q, q, d.width)?;
        matrix("k", &layer.k, kv, d.width)?;
        matrix("v", &layer.v, kv, d.width)?;
        matrix("o", &layer.o, d.width, q)?;
        matrix("gate", &layer.gate, d.ffn, d.width)?;
        matrix("up", &layer.up, d.ffn, d.width)?;
        matrix("down", &layer.down, d.width, d.ffn)?;
        let norm = |entry: u32, len: u32| shape("gains", entry, entry == len);
        norm(layer.attention_norm.len, d.width)?;
        norm(layer.ffn_norm.len, d.width)?;
        let gemma = manifest.architecture == Architecture::Gemma3;
        shape(
            "gemma norms",
            layer.gemma.is_some(),
            layer.gemma.is_some() == gemma,
        )?;
        if let Some(norms) = &layer.gemma {
            norm(norms.q_norm.len, d.head_dim)?;
            norm(norms.k_norm.len, d.head_dim)?;
            norm(norms.attention_post.len, d.width)?;
            norm(norms.ffn_post.len, d.width)?;
        }
        let rope = u64::from(layer.rope);
        shape("RoPE table", rope, rope < manifest.rope_roots.len() as u64)?;
        let fractions = layer.fractions;
        for fraction in [fractions.q, fractions.k, fractions.v] {
            shape(
                "fraction",
                fraction.unsigned_abs(),
                (-12..=20).contains(&fraction),
            )?;
        }
        // Two scores are less than 2^35 apart and c is at most 2^24: below 2^59.
        let shift = i32::from(scale.csh) + i32::from(fractions.q) + i32::from(fractions.k);
        shape(
            "attention shift",
            shift.unsigned_abs(),
            (0..=SHIFT_MAX).contains(&shift),
        )?;
    }
    matrix("embedding", &manifest.embedding, d.vocab, d.width)?;
    matrix("head", manifest.head(), d.vocab, d.width)?;
    shape(
        "final gains",
        manifest.final_norm.len,
        manifest.final_norm.len == d.width,
    )
}

/// Weights within 16 bits and `2047·Σ|w| ≤ 2^30 − 1` for every row.
pub(crate) fn check_rows(section: Section, matrix: &MatrixView<'_>) -> Result<(), BoundError> {
    let path = Path::detect();
    for panel in 0..matrix.panels() {
        if let Some(row) = matrix.wraps(panel) {
            return Err(BoundError::Wraps { section, row });
        }
        let sums = kernels::row_sums(path, matrix, panel);
        for (row, sum) in (panel * PANEL..).zip(sums) {
            // A sum is below 2^32, as columns are below 2^16 and weights below 2^15.
            let sum = sum as i64;
            if sum * X_MAX > ACC_MAX {
                return Err(BoundError::Row { section, row, sum });
            }
        }
    }
    Ok(())
}

/// A requantizing shift, over all exponents its input may have. Exponents have 62 bits of slack upwards.
pub fn check_shift(section: Section, shift: i32, e_max: i32) -> Result<(), BoundError> {
    for shift in [shift, shift - e_max] {
        if !(SHIFT_MIN..=SHIFT_MAX).contains(&shift) {
            return Err(BoundError::Shift { section, shift });
        }
    }
    Ok(())
}

/// `w·E` is below 2^45.
pub fn check_embedding_shift(shift: i32) -> Result<(), BoundError> {
    check_shift(Section::Embedding, shift, 0)
}

/// Gains below 2^23, an epsilon that keeps the root from being 0, a sum of squares that fits 64 bits.
pub fn check_norm(section: Section, gains: &[i32], eps: u64, limit: i64) -> Result<(), BoundError> {
    let squares = u128::from(limit.unsigned_abs()).pow(2) * gains.len() as u128;
    let fits = squares + u128::from(eps) < 1 << 64;
    let small = gains.iter().all(|g| g.unsigned_abs() < 1 << 23);
    if eps >= 1 && fits && small {
        Ok(())
    } else {
        Err(BoundError::Norm { section })
    }
}

/// A norm's result is below 2^47; shifted to the fraction it must fit.
pub fn check_norm_output(section: Section, fs: i32, f: i32) -> Result<(), BoundError> {
    let shift = fs - f;
    if (47 - NORM_OUTPUT_BITS..=SHIFT_MAX).contains(&shift) {
        Ok(())
    } else {
        Err(BoundError::Shift { section, shift })
    }
}

/// EXP starts at 2^15 and never exceeds it, so that a softmax sum is never 0 and a share at most 2^15;
/// ACT takes nothing off at its end and keeps `relu − ACT` within 25 bits.
pub fn check_tables(exp: &[u16], act: &[u16]) -> Result<(), BoundError> {
    if exp[0] != 1 << 15 || exp.iter().any(|e| *e > 1 << 15) {
        return Err(BoundError::Table(Section::Exp));
    }
    match act.last() {
        Some(0) => Ok(()),
        _ => Err(BoundError::Table(Section::Act)),
    }
}

/// The largest exponents that bfp can give at its three sites.
pub fn exponent_after_norm() -> i32 {
    bfp::exponent(1 << 47, BASE_NORM)
}

pub fn exponent_after_mix(context_max: u32) -> i32 {
    let shares = (1i64 << 15) + i64::from(context_max) / 2;
    bfp::exponent(shares * i64::from(V_MAX), BASE_MIX)
}

pub fn exponent_after_product() -> i32 {
    bfp::exponent(1 << 45, BASE_MLP)
}
