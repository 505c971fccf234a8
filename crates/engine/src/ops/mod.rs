//! The arithmetic, one operation a file: scalar definitions that are the law (NUMERICS v1). Kernels may
//! be faster, never different. Bounds stated here are enforced when a model is loaded (`bounds`).

pub mod act;
pub mod arith;
pub mod attention;
pub mod bfp;
pub mod embed;
pub mod linear;
pub mod norm;
pub mod rope;
pub mod sampler;

/// Bits of a weight row: `2047·Σ|w| ≤ ACC_MAX`, so every accumulator fits an i32.
pub const ACC_MAX: i64 = (1 << 30) - 1;
/// Activations before a matrix are 12-bit: within ±2047.
pub const X_MAX: i64 = 2047;
/// The residual and every branch that is added to it.
pub const RESIDUAL_MAX: i32 = (1 << 27) - 1;
/// q, k and v as they leave their matrices, Q.12.
pub const QKV_MAX: i32 = (1 << 24) - 1;
/// gate and up, Q.12.
pub const MLP_MAX: i32 = (1 << 20) - 1;
/// Logits, Q.16: their differences times β and log2(e) stay below 2^62.
pub const LOGIT_MAX: i32 = (1 << 27) - 1;
/// q and k after RoPE: 13 bits.
pub const QK_MAX: i32 = (1 << 12) - 1;
/// v in the cache: 12 bits.
pub const V_MAX: i32 = (1 << 11) - 1;
