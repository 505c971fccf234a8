//! A GGUF becomes the integer model file: the one place where floats decide numbers, and only by
//! IEEE basic operations and the pure-Rust `libm`, so that every machine imports the same bits.
//! Never fuses a multiply with an add, never calls the platform's `exp`. NUMERICS.md, "Numbers that
//! a model file holds", is what `matrix`, `gains` and `tables` implement,
//! with docs/adr/0017 for how blocks are rounded.

mod calibration;
mod gains;
mod matrix;
pub(crate) mod plan;
mod row;
mod tables;

use std::fs::{self, File};
use std::io::BufWriter;
use std::path::Path;

use assay_engine::layout::{FileBuilder, LayerPart, Section, WriteError};
use assay_protocol::manifest::{
    AttentionScale, Fractions, GainEntry, GemmaNorms, LayerEntry, Manifest, MatrixEntry,
};
use assay_protocol::{B256, ModelId};

use crate::gguf::{Gguf, GgufError};
use crate::progress::{Progress, Stage};
use crate::template::{ChatTemplate, TemplateError};
use crate::tokenizer::{TokenizerImportError, TokenizerSpec};
use plan::Plan;

/// Why a GGUF cannot become an integer model.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error(transparent)]
    Gguf(#[from] GgufError),
    #[error(transparent)]
    Tokenizer(#[from] TokenizerImportError),
    #[error(transparent)]
    Template(#[from] TemplateError),
    #[error("architecture {0:?} is not supported, only llama and gemma3 are")]
    Architecture(String),
    #[error("{what} is not supported; import another conversion of the model")]
    Unsupported { what: String },
    #[error("{key} is {got}, {min} to {max} supported")]
    Dimension {
        key: String,
        got: u64,
        min: u64,
        max: u64,
    },
    #[error("tensor {name} is {got:?}, {expected:?} expected (columns, rows)")]
    Shape {
        name: String,
        got: Vec<usize>,
        expected: Vec<usize>,
    },
    #[error("tensor {name}: row {row} has a value that is not finite")]
    NotFinite { name: String, row: usize },
    #[error("tensor {name}: row {row} does not fit 32-bit sums at any scale")]
    RowTooLarge { name: String, row: usize },
    #[error("norm {0} has gains that no fraction fits")]
    Gain(String),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error("cannot write the model file: {0}; check that the disk has room")]
    Io(#[from] std::io::Error),
    #[error("the imported file does not load: {0}")]
    Load(#[from] assay_engine::LoadError),
    #[error("calibration failed: {0}")]
    Calibration(String),
}

/// Imports a GGUF into `to`. The file appears whole or not at all; two imports give the same bytes.
pub fn import(
    gguf: &Gguf,
    to: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<ModelId, ImportError> {
    let partial = to.with_extension("part");
    let result = write(gguf, &partial, progress).and_then(|id| {
        File::open(&partial)?.sync_all()?;
        fs::rename(&partial, to)?;
        Ok(id)
    });
    if result.is_err() {
        // The error that is reported is the one that stopped the import.
        let _ = fs::remove_file(&partial);
    }
    result
}

fn write(
    gguf: &Gguf,
    partial: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<ModelId, ImportError> {
    let plan = Plan::read(gguf)?;
    let file = BufWriter::with_capacity(1 << 20, File::create(partial)?);
    let mut writer = Writer {
        gguf,
        plan: &plan,
        file: FileBuilder::new(file),
    };
    let steps = u64::from(plan.dims.layers) + 2;
    let mut step = |done| {
        progress(Progress {
            stage: Stage::Import,
            done,
            total: steps,
        });
    };
    step(0);
    let tokenizer = TokenizerSpec::from_gguf(gguf)?;
    plan.check_vocabulary(tokenizer.pieces.len())?;
    let manifest = writer.model(&tokenizer, &mut step)?;
    writer.file.finish(&manifest)?;
    step(steps);
    calibration::calibrate(partial, manifest, progress)
}

struct Writer<'a> {
    gguf: &'a Gguf,
    plan: &'a Plan,
    file: FileBuilder<BufWriter<File>>,
}

impl Writer<'_> {
    /// Writes every section but the manifest, which it returns with fractions still to be found.
    fn model(
        &mut self,
        tokenizer: &TokenizerSpec,
        step: &mut dyn FnMut(u64),
    ) -> Result<Manifest, ImportError> {
        let plan = self.plan;
        let tokenizer_hash = self.file.blob(Section::Tokenizer, &tokenizer.to_blob())?;
        let chat_template_hash = match Gguf::optional(self.gguf.string("tokenizer.chat_template"))?
        {
            None => B256::ZERO,
            Some(source) => {
                // A template that cannot be used is refused now, not at the first chat.
                ChatTemplate::new(source, "", "")?;
                self.file.blob(Section::ChatTemplate, source.as_bytes())?
            }
        };
        let exp_root = self.file.table(Section::Exp, &tables::exp())?;
        let act = tables::act(plan.architecture);
        let act_root = self.file.table(Section::Act, &act)?;
        let mut rope_roots = Vec::new();
        for (index, base) in (0..).zip(&plan.rope_bases) {
            let pairs = tables::rope(*base, plan.dims.head_dim, plan.dims.context_max);
            let frequencies = plan.dims.head_dim as usize / 2;
            rope_roots.push(self.file.rope(index, &pairs, frequencies)?);
        }
        let d = &plan.dims;
        let embedding = self.matrix(Section::Embedding, "token_embd.weight", d.vocab, d.width)?;
        let head = match self.gguf.has_tensor("output.weight") {
            true => Some(self.matrix(Section::Head, "output.weight", d.vocab, d.width)?),
            false => None,
        };
        step(1);
        let mut layers = Vec::new();
        for layer in 0..d.layers {
            layers.push(self.layer(layer)?);
            step(2 + u64::from(layer));
        }
        let rf = plan.residual_fraction;
        let final_norm = self.gain(Section::FinalNorm, "output_norm.weight", d.width, rf)?;
        Ok(Manifest {
            architecture: plan.architecture,
            dims: plan.dims,
            residual_fraction: plan.residual_fraction,
            attention_scale: attention_scale(d.head_dim),
            layers,
            final_norm,
            embedding,
            head,
            exp_root,
            act_root,
            rope_roots,
            tokenizer_hash,
            chat_template_hash,
            bos: tokenizer.bos,
            eos: tokenizer.eos.clone(),
        })
    }

    fn layer(&mut self, layer: u32) -> Result<LayerEntry, ImportError> {
        let plan = self.plan;
        let d = plan.dims;
        let rf = self.plan.residual_fraction;
        let (q, kv) = (d.heads * d.head_dim, d.kv_heads * d.head_dim);
        let number = u16::try_from(layer).expect("the plan bounds the number of layers");
        let section = |part| Section::Layer(number, part);
        let name = |part: &str| format!("blk.{layer}.{part}.weight");
        let mut matrix =
            |part, tensor, rows, cols| self.matrix(section(part), &name(tensor), rows, cols);
        let q_matrix = matrix(LayerPart::Q, "attn_q", q, d.width)?;
        let k_matrix = matrix(LayerPart::K, "attn_k", kv, d.width)?;
        let v_matrix = matrix(LayerPart::V, "attn_v", kv, d.width)?;
        let o_matrix = matrix(LayerPart::O, "attn_output", d.width, q)?;
        let gate = matrix(LayerPart::Gate, "ffn_gate", d.ffn, d.width)?;
        let up = matrix(LayerPart::Up, "ffn_up", d.ffn, d.width)?;
        let down = matrix(LayerPart::Down, "ffn_down", d.width, d.ffn)?;
        let mut gain =
            |part, tensor, len, fraction| self.gain(section(part), &name(tensor), len, fraction);
        let attention_norm = gain(LayerPart::AttentionNorm, "attn_norm", d.width, rf)?;
        let ffn_norm = gain(LayerPart::FfnNorm, "ffn_norm", d.width, rf)?;
        let gemma = match plan.post_norms() {
            false => None,
            true => Some(GemmaNorms {
                q_norm: gain(
                    LayerPart::QNorm,
                    "attn_q_norm",
                    d.head_dim,
                    plan::QK_FRACTION,
                )?,
                k_norm: gain(
                    LayerPart::KNorm,
                    "attn_k_norm",
                    d.head_dim,
                    plan::QK_FRACTION,
                )?,
                attention_post: gain(
                    LayerPart::AttentionPost,
                    "post_attention_norm",
                    d.width,
                    plan::BRANCH_FRACTION,
                )?,
                ffn_post: gain(
                    LayerPart::FfnPost,
                    "post_ffw_norm",
                    d.width,
                    plan::BRANCH_FRACTION,
                )?,
            }),
        };
        let (window, rope) = plan.attention(layer);
        Ok(LayerEntry {
            fractions: Fractions { q: 0, k: 0, v: 0 },
            window,
            rope,
            attention_norm,
            q: q_matrix,
            k: k_matrix,
            v: v_matrix,
            o: o_matrix,
            ffn_norm,
            gate,
            up,
            down,
            gemma,
        })
    }

    fn matrix(
        &mut self,
        section: Section,
        name: &str,
        rows: u32,
        cols: u32,
    ) -> Result<MatrixEntry, ImportError> {
        let tensor = self.plan.tensor(self.gguf, name, &[cols, rows])?;
        let parts = matrix::quantize(self.gguf, tensor)?;
        Ok(self.file.matrix(section, &parts)?)
    }

    fn gain(
        &mut self,
        section: Section,
        name: &str,
        len: u32,
        fraction: u8,
    ) -> Result<GainEntry, ImportError> {
        let tensor = self.plan.tensor(self.gguf, name, &[len])?;
        let values = self.gguf.values(tensor)?;
        let parts = gains::quantize(name, &values, self.plan.epsilon, fraction)?;
        Ok(self.file.gain(section, &parts)?)
    }
}

/// `c·2^-csh = log2(e)/sqrt(head_dim)·2^8`, with 17 bits of c: as many as the engine's bounds allow.
fn attention_scale(head_dim: u32) -> AttentionScale {
    const C_LIMIT: f64 = 131_072.0;
    let exact = std::f64::consts::LOG2_E / libm::sqrt(f64::from(head_dim)) * 256.0;
    let mut csh = 0u8;
    while libm::rint(libm::scalbn(exact, i32::from(csh) + 1)) < C_LIMIT {
        csh += 1;
    }
    AttentionScale {
        c: libm::rint(libm::scalbn(exact, csh.into())) as u32,
        csh,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_attention_scale_has_17_bits() {
        for head_dim in [2, 16, 64, 256, 1024] {
            let AttentionScale { c, csh } = attention_scale(head_dim);
            assert!((1 << 16..1 << 17).contains(&c), "{c}");
            let got = f64::from(c) / (1u64 << csh) as f64;
            let exact = 256.0 * std::f64::consts::LOG2_E / f64::from(head_dim).sqrt();
            assert!((got / exact - 1.0).abs() < 1e-5);
        }
    }
}
