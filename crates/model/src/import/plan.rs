//! What a GGUF's metadata says of the model's shape, checked before any tensor is read.

use assay_protocol::manifest::{Architecture, Dims, LAYERS_MAX};

use super::ImportError;
use crate::gguf::{Gguf, TensorInfo};

/// Fraction of q and k before gemma's QK-norm.
pub(super) const QK_FRACTION: u8 = 12;
/// Fraction of a residual branch before gemma's post-norm.
pub(super) const BRANCH_FRACTION: u8 = 16;
/// Gemma 3: every sixth layer sees everything, the others a window.
const GLOBAL_EVERY: u32 = 6;
/// A RoPE table is held in memory while it is written: 256 MB.
const ROPE_ENTRIES_MAX: u64 = 1 << 26;
const LOCAL_ROPE_BASE: f32 = 10_000.0;

pub(crate) struct Plan {
    pub architecture: Architecture,
    pub dims: Dims,
    pub residual_fraction: u8,
    pub epsilon: f64,
    /// One RoPE table each.
    pub rope_bases: Vec<f64>,
    /// Gemma's local layers; 0 without.
    pub window: u32,
}

impl Plan {
    pub(crate) fn read(gguf: &Gguf) -> Result<Self, ImportError> {
        let name = gguf.string("general.architecture")?;
        let (architecture, residual_fraction) = match name {
            "llama" => (Architecture::Llama, 10),
            "gemma3" => (Architecture::Gemma3, 8),
            other => return Err(ImportError::Architecture(other.to_owned())),
        };
        let key = |suffix: &str| format!("{name}.{suffix}");
        let within = |suffix: &str, min: u64, max: u64| {
            let key = key(suffix);
            match gguf.uint(&key)? {
                got if (min..=max).contains(&got) => Ok(got as u32),
                got => Err(ImportError::Dimension { key, got, min, max }),
            }
        };
        let width = within("embedding_length", 32, 1 << 16)?;
        let heads = within("attention.head_count", 1, 1 << 10)?;
        let kv_heads = match Gguf::optional(gguf.uint(&key("attention.head_count_kv")))? {
            None => heads,
            Some(_) => within("attention.head_count_kv", 1, heads.into())?,
        };
        let head_dim = match Gguf::optional(gguf.uint(&key("attention.key_length")))? {
            None => width / heads,
            Some(_) => within("attention.key_length", 2, 1 << 12)?,
        };
        let dims = Dims {
            layers: within("block_count", 1, LAYERS_MAX as u64)?,
            width,
            heads,
            kv_heads,
            head_dim,
            ffn: within("feed_forward_length", 32, 1 << 18)?,
            vocab: vocabulary(gguf)?,
            context_max: within("context_length", 1, 1 << 20)?,
        };
        refuse_variants(gguf, name, &dims)?;
        let angles = u64::from(dims.context_max) * u64::from(dims.head_dim / 2);
        if angles > ROPE_ENTRIES_MAX {
            return Err(unsupported(format!(
                "a context of {} positions",
                dims.context_max
            )));
        }

        let base = Gguf::optional(gguf.float(&key("rope.freq_base")))?.unwrap_or(LOCAL_ROPE_BASE);
        let (rope_bases, window) = match architecture {
            Architecture::Llama => (vec![base.into()], 0),
            Architecture::Gemma3 => {
                let local = Gguf::optional(gguf.float(&key("rope.freq_base_swa")))?
                    .unwrap_or(LOCAL_ROPE_BASE);
                let window = within("attention.sliding_window", 1, 1 << 20)?;
                (vec![local.into(), base.into()], window)
            }
        };
        if let Some(base) = rope_bases.iter().find(|&&base: &&f64| base < 1.0) {
            return Err(unsupported(format!("a RoPE base of {base}")));
        }
        let epsilon = gguf.float(&key("attention.layer_norm_rms_epsilon"))?;
        if !(0.0..1.0).contains(&epsilon) {
            return Err(unsupported(format!("a norm's epsilon of {epsilon}")));
        }
        Ok(Plan {
            architecture,
            dims,
            residual_fraction,
            epsilon: epsilon.into(),
            rope_bases,
            window,
        })
    }

    /// QK-norms and post-norms.
    pub(crate) fn post_norms(&self) -> bool {
        self.architecture == Architecture::Gemma3
    }

    /// A layer's window and RoPE table.
    pub(crate) fn attention(&self, layer: u32) -> (u32, u8) {
        match self.architecture {
            Architecture::Llama => (0, 0),
            Architecture::Gemma3 if (layer + 1).is_multiple_of(GLOBAL_EVERY) => (0, 1),
            Architecture::Gemma3 => (self.window, 0),
        }
    }

    pub(super) fn check_vocabulary(&self, pieces: usize) -> Result<(), ImportError> {
        match pieces == self.dims.vocab as usize {
            true => Ok(()),
            false => Err(unsupported(format!(
                "a tokenizer of {pieces} tokens for {} embeddings",
                self.dims.vocab
            ))),
        }
    }

    /// A tensor of exactly this shape, the innermost dimension first.
    pub(crate) fn tensor<'a>(
        &self,
        gguf: &'a Gguf,
        name: &str,
        shape: &[u32],
    ) -> Result<&'a TensorInfo, ImportError> {
        let tensor = gguf.tensor(name)?;
        let expected: Vec<usize> = shape.iter().map(|&n| n as usize).collect();
        match tensor.dimensions == expected {
            true => Ok(tensor),
            false => Err(ImportError::Shape {
                name: name.to_owned(),
                got: tensor.dimensions.clone(),
                expected,
            }),
        }
    }
}

fn vocabulary(gguf: &Gguf) -> Result<u32, ImportError> {
    let (min, max) = (2, 1 << 20);
    match gguf.tensor("token_embd.weight")?.rows() as u64 {
        got if (min..=max).contains(&got) => Ok(got as u32),
        got => Err(ImportError::Dimension {
            key: "number of embeddings".to_owned(),
            got,
            min,
            max,
        }),
    }
}

/// Refuses relatives of the two architectures that would import into another model than they are.
fn refuse_variants(gguf: &Gguf, name: &str, dims: &Dims) -> Result<(), ImportError> {
    if !dims.heads.is_multiple_of(dims.kv_heads) || !dims.head_dim.is_multiple_of(2) {
        return Err(unsupported(format!(
            "{} heads of {} over {} key heads",
            dims.heads, dims.head_dim, dims.kv_heads
        )));
    }
    let rotated = Gguf::optional(gguf.uint(&format!("{name}.rope.dimension_count")))?;
    if rotated.is_some_and(|rotated| rotated != u64::from(dims.head_dim)) {
        return Err(unsupported("partial RoPE".to_owned()));
    }
    let value_length = Gguf::optional(gguf.uint(&format!("{name}.attention.value_length")))?;
    if value_length.is_some_and(|length| length != u64::from(dims.head_dim)) {
        return Err(unsupported("values of another length than keys".to_owned()));
    }
    for suffix in ["rope.scaling.factor", "rope.scale_linear"] {
        let factor = Gguf::optional(gguf.float(&format!("{name}.{suffix}")))?;
        if factor.is_some_and(|factor| factor != 1.0) {
            return Err(unsupported("RoPE scaling".to_owned()));
        }
    }
    for suffix in ["attn_logit_softcapping", "final_logit_softcapping"] {
        let cap = Gguf::optional(gguf.float(&format!("{name}.{suffix}")))?;
        if cap.is_some_and(|cap| cap != 0.0) {
            return Err(unsupported("logit soft-capping".to_owned()));
        }
    }
    if Gguf::optional(gguf.uint(&format!("{name}.expert_count")))?.is_some_and(|n| n > 0) {
        return Err(unsupported("mixture of experts".to_owned()));
    }
    for tensor in [
        "rope_freqs.weight",
        "blk.0.attn_q.bias",
        "blk.0.ffn_up.bias",
    ] {
        if gguf.has_tensor(tensor) {
            return Err(unsupported(format!("tensor {tensor}")));
        }
    }
    Ok(())
}

fn unsupported(what: String) -> ImportError {
    ImportError::Unsupported { what }
}
