//! The forward pass in 32-bit floats over a GGUF's own weights: what the integer model is measured
//! against. Follows llama.cpp's graphs of the two architectures, and can round where llama.cpp does.
//! Used by the quality report alone.

use assay_protocol::TokenId;
use assay_protocol::manifest::Architecture;

use super::attend::{Heads, attend};
use super::gemm::multiply;
use super::peer;
use crate::gguf::{Gguf, TensorInfo};
use crate::import::ImportError;
use crate::import::plan::Plan;
use crate::parallel::over_ranges;

/// What is rounded on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rounding {
    /// Nothing but 32-bit floats themselves.
    None,
    LlamaCpp,
}

/// A GGUF as a float model.
pub(super) struct Reference<'a> {
    gguf: &'a Gguf,
    plan: Plan,
    rounding: Rounding,
}

impl<'a> Reference<'a> {
    pub(super) fn new(gguf: &'a Gguf, rounding: Rounding) -> Result<Self, ImportError> {
        let plan = Plan::read(gguf)?;
        Ok(Reference {
            gguf,
            plan,
            rounding,
        })
    }

    /// What the head sees at every position of a sequence: the last norm's results.
    pub(super) fn hidden(&self, tokens: &[TokenId]) -> Result<Vec<f32>, ImportError> {
        let mut x = self.embed(tokens)?;
        for layer in 0..self.plan.dims.layers {
            self.attention(layer, &mut x)?;
            self.mlp(layer, &mut x)?;
        }
        self.norm("output_norm.weight", &x)
    }

    /// Logits of the positions whose hidden vectors these are.
    pub(super) fn logits(&self, hidden: &[f32]) -> Result<Vec<f32>, ImportError> {
        let dims = &self.plan.dims;
        let name = match self.gguf.has_tensor("output.weight") {
            true => "output.weight",
            false => "token_embd.weight",
        };
        let head = self.tensor(name, &[dims.width, dims.vocab])?;
        Ok(self.product(head, hidden))
    }

    /// Consecutive vectors times a whole tensor.
    fn product(&self, tensor: &TensorInfo, x: &[f32]) -> Vec<f32> {
        if self.rounding == Rounding::None {
            return multiply(self.gguf, tensor, x);
        }
        let mut x = x.to_vec();
        for vector in x.chunks_exact_mut(tensor.columns()) {
            peer::round_vector(tensor.kind, vector);
        }
        multiply(self.gguf, tensor, &x)
    }

    fn tensor(&self, name: &str, shape: &[u32]) -> Result<&TensorInfo, ImportError> {
        self.plan.tensor(self.gguf, name, shape)
    }

    fn embed(&self, tokens: &[TokenId]) -> Result<Vec<f32>, ImportError> {
        let dims = &self.plan.dims;
        let tensor = self.tensor("token_embd.weight", &[dims.width, dims.vocab])?;
        let scale = match self.plan.architecture {
            Architecture::Llama => 1.0,
            Architecture::Gemma3 => (dims.width as f32).sqrt(),
        };
        Ok(tokens
            .iter()
            .flat_map(|&token| tensor.kind.values(self.gguf.row(tensor, token as usize)))
            .map(|value| value * scale)
            .collect())
    }

    fn linear(
        &self,
        layer: u32,
        part: &str,
        rows: u32,
        x: &[f32],
        cols: u32,
    ) -> Result<Vec<f32>, ImportError> {
        let name = format!("blk.{layer}.{part}.weight");
        Ok(self.product(self.tensor(&name, &[cols, rows])?, x))
    }

    /// RMS norm of consecutive vectors of the gains' length.
    fn norm(&self, name: &str, x: &[f32]) -> Result<Vec<f32>, ImportError> {
        let gains = self.gguf.values(self.gguf.tensor(name)?)?;
        let mut y = Vec::with_capacity(x.len());
        for vector in x.chunks_exact(gains.len()) {
            let squares: f64 = vector.iter().map(|v| f64::from(*v) * f64::from(*v)).sum();
            let mean = squares / gains.len() as f64;
            let inverse = (1.0 / (mean + self.plan.epsilon).sqrt()) as f32;
            y.extend(vector.iter().zip(&gains).map(|(v, g)| v * inverse * g));
        }
        Ok(y)
    }

    fn layer_norm(&self, layer: u32, part: &str, x: &[f32]) -> Result<Vec<f32>, ImportError> {
        self.norm(&format!("blk.{layer}.{part}.weight"), x)
    }

    fn attention(&self, layer: u32, x: &mut [f32]) -> Result<(), ImportError> {
        let d = self.plan.dims;
        let gemma = self.plan.post_norms();
        let input = self.layer_norm(layer, "attn_norm", x)?;
        let (q_len, kv_len) = (d.heads * d.head_dim, d.kv_heads * d.head_dim);
        let mut q = self.linear(layer, "attn_q", q_len, &input, d.width)?;
        let mut k = self.linear(layer, "attn_k", kv_len, &input, d.width)?;
        let mut v = self.linear(layer, "attn_v", kv_len, &input, d.width)?;
        if gemma {
            q = self.layer_norm(layer, "attn_q_norm", &q)?;
            k = self.layer_norm(layer, "attn_k_norm", &k)?;
        }
        let (window, table) = self.plan.attention(layer);
        let base = self.plan.rope_bases[usize::from(table)];
        self.rope(&mut q, q_len as usize, base);
        self.rope(&mut k, kv_len as usize, base);
        if self.rounding == Rounding::LlamaCpp {
            peer::round_halves(&mut k);
            peer::round_halves(&mut v);
        }
        let mixed = self.mix(&q, &k, &v, window as usize);
        let mut branch = self.linear(layer, "attn_output", d.width, &mixed, q_len)?;
        if gemma {
            branch = self.layer_norm(layer, "post_attention_norm", &branch)?;
        }
        add(x, &branch);
        Ok(())
    }

    /// Turns every head of every position.
    fn rope(&self, vectors: &mut [f32], len: usize, base: f64) {
        let dim = self.plan.dims.head_dim as usize;
        for (position, vector) in vectors.chunks_exact_mut(len).enumerate() {
            for i in 0..dim / 2 {
                let angle = position as f64 * base.powf(-2.0 * i as f64 / dim as f64);
                let (sin, cos) = (angle.sin() as f32, angle.cos() as f32);
                let (left, right) = match self.plan.architecture {
                    Architecture::Llama => (2 * i, 2 * i + 1),
                    Architecture::Gemma3 => (i, i + dim / 2),
                };
                for head in vector.chunks_exact_mut(dim) {
                    let (a, b) = (head[left], head[right]);
                    head[left] = a * cos - b * sin;
                    head[right] = a * sin + b * cos;
                }
            }
        }
    }

    /// Softmax attention of every position over those before it, within the window (0 has none).
    fn mix(&self, q: &[f32], k: &[f32], v: &[f32], window: usize) -> Vec<f32> {
        let d = &self.plan.dims;
        let (dim, heads, kv_heads) = (d.head_dim as usize, d.heads as usize, d.kv_heads as usize);
        let (q_len, kv_len) = (dim * heads, dim * kv_heads);
        let scale = 1.0 / (dim as f32).sqrt();
        let parts = over_ranges(q.len() / q_len, |range| {
            let mut mixed = vec![0.0; range.len() * q_len];
            for (position, out) in range.zip(mixed.chunks_exact_mut(q_len)) {
                let first = match window {
                    0 => 0,
                    window => (position + 1).saturating_sub(window),
                };
                for head in 0..heads {
                    let offset = head / (heads / kv_heads) * dim;
                    let at = |data| Heads {
                        data,
                        stride: kv_len,
                        offset,
                    };
                    attend(
                        &q[position * q_len + head * dim..][..dim],
                        at(k),
                        at(v),
                        first..position + 1,
                        scale,
                        &mut out[head * dim..(head + 1) * dim],
                    );
                }
            }
            mixed
        });
        parts.concat()
    }

    fn mlp(&self, layer: u32, x: &mut [f32]) -> Result<(), ImportError> {
        let d = self.plan.dims;
        let input = self.layer_norm(layer, "ffn_norm", x)?;
        let mut gate = self.linear(layer, "ffn_gate", d.ffn, &input, d.width)?;
        let up = self.linear(layer, "ffn_up", d.ffn, &input, d.width)?;
        let activation = match self.plan.architecture {
            Architecture::Llama => |z: f32| z / (1.0 + (-z).exp()),
            Architecture::Gemma3 => |z: f32| {
                let inner = (2.0 / std::f32::consts::PI).sqrt() * (z + 0.044_715 * z * z * z);
                0.5 * z * (1.0 + inner.tanh())
            },
        };
        for (gate, up) in gate.iter_mut().zip(&up) {
            *gate = activation(*gate) * up;
        }
        let mut branch = self.linear(layer, "ffn_down", d.width, &gate, d.ffn)?;
        if self.plan.post_norms() {
            branch = self.layer_norm(layer, "post_ffw_norm", &branch)?;
        }
        add(x, &branch);
        Ok(())
    }
}

fn add(x: &mut [f32], branch: &[f32]) {
    for (x, y) in x.iter_mut().zip(branch) {
        *x += y;
    }
}
