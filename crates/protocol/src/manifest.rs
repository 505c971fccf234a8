//! The manifest: everything that fixes a model's arithmetic, in canonical bytes whose keccak is the
//! model's id. It holds shapes, scales and roots; it never holds a weight, nor how a file packs one.
//!
//! A matrix's root is over its rows: leaf data is the row scale `A` as `u16`, then every plain weight
//! as `i16`, big-endian. A gain's leaves are its integers as `i32`, a table's its entries (`u16` for
//! EXP and ACT; for RoPE one leaf a position: cos and sin as `i16` pairs, by frequency). NUMERICS.md
//! says what the numbers mean.

use alloy_primitives::{B256, keccak256};
use serde::{Deserialize, Serialize};

use crate::codec::{CodecError, Reader, Writer};
use crate::{ModelId, TokenId};

const TAG: &str = "assay/manifest/v1";
/// The arithmetic that this manifest is about; other arithmetic takes another number.
pub const NUMERICS_VERSION: u16 = 1;
/// The sampler of NUMERICS v1.
pub const SAMPLER_VERSION: u16 = 1;
pub const LAYERS_MAX: usize = 1024;
pub const ROPE_TABLES_MAX: usize = 4;
pub const EOS_MAX: usize = 64;

/// Which op program the layers run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Architecture {
    /// RMS norm, RoPE over pairs, SwiGLU.
    Llama = 1,
    /// QK-norm, RoPE over halves, GeGLU, post-norms, windowed layers, scaled embedding.
    Gemma3 = 2,
}

/// Shapes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Dims {
    pub layers: u32,
    /// Length of the residual vector.
    pub width: u32,
    pub heads: u32,
    pub kv_heads: u32,
    pub head_dim: u32,
    /// Length of the MLP's inner vector.
    pub ffn: u32,
    pub vocab: u32,
    /// Positions that the RoPE tables cover.
    pub context_max: u32,
}

/// An integer matrix: `rows` outputs, `cols` inputs, `w·A·2^-sh` the real weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MatrixEntry {
    pub rows: u32,
    pub cols: u32,
    pub sh: u8,
    pub root: B256,
}

/// A norm's gains, in `Q.(fs)` before the root of n is divided out, and its epsilon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct GainEntry {
    pub len: u32,
    pub fs: u8,
    /// `rint(eps·n·4^f)` at the fraction f of the norm's input.
    pub eps: u64,
    pub root: B256,
}

/// What gemma's layers have and llama's do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct GemmaNorms {
    pub q_norm: GainEntry,
    pub k_norm: GainEntry,
    pub attention_post: GainEntry,
    pub ffn_post: GainEntry,
}

/// The fractions of q and k after RoPE and of v, found by calibration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Fractions {
    pub q: i8,
    pub k: i8,
    pub v: i8,
}

/// One layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LayerEntry {
    pub fractions: Fractions,
    /// How many positions back attention sees, itself included; 0 sees all.
    pub window: u32,
    /// Which of the manifest's RoPE tables turns this layer.
    pub rope: u8,
    pub attention_norm: GainEntry,
    pub q: MatrixEntry,
    pub k: MatrixEntry,
    pub v: MatrixEntry,
    pub o: MatrixEntry,
    pub ffn_norm: GainEntry,
    pub gate: MatrixEntry,
    pub up: MatrixEntry,
    pub down: MatrixEntry,
    /// Present exactly for [`Architecture::Gemma3`].
    pub gemma: Option<GemmaNorms>,
}

/// `c·2^-csh = log2(e)/sqrt(head_dim)·2^8`; a layer shifts by `csh + f_q + f_k`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AttentionScale {
    pub c: u32,
    pub csh: u8,
}

/// A model, as far as its arithmetic goes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Manifest {
    pub architecture: Architecture,
    pub dims: Dims,
    /// The residual's fraction rf: 10 (llama), 8 (gemma).
    pub residual_fraction: u8,
    pub attention_scale: AttentionScale,
    pub layers: Vec<LayerEntry>,
    pub final_norm: GainEntry,
    pub embedding: MatrixEntry,
    /// `None` where the embedding serves as the head (tied).
    pub head: Option<MatrixEntry>,
    pub exp_root: B256,
    pub act_root: B256,
    pub rope_roots: Vec<B256>,
    /// keccak of the tokenizer's and the chat template's blobs in the model file; zero for none.
    pub tokenizer_hash: B256,
    pub chat_template_hash: B256,
    pub bos: Option<TokenId>,
    /// Tokens that end an answer, in ascending order.
    pub eos: Vec<TokenId>,
}

impl Manifest {
    /// The model's id.
    pub fn id(&self) -> ModelId {
        keccak256(self.encode())
    }

    /// Whether this token ends an answer.
    pub fn is_eos(&self, token: TokenId) -> bool {
        self.eos.binary_search(&token).is_ok()
    }

    /// The matrix that makes the logits.
    pub fn head(&self) -> &MatrixEntry {
        self.head.as_ref().unwrap_or(&self.embedding)
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new(TAG);
        w.u16(NUMERICS_VERSION).u16(SAMPLER_VERSION);
        let d = &self.dims;
        w.u8(self.architecture as u8);
        for dim in [
            d.layers,
            d.width,
            d.heads,
            d.kv_heads,
            d.head_dim,
            d.ffn,
            d.vocab,
            d.context_max,
        ] {
            w.u32(dim);
        }
        w.u8(self.residual_fraction);
        w.u32(self.attention_scale.c).u8(self.attention_scale.csh);
        w.len(self.layers.len());
        for layer in &self.layers {
            layer.write(&mut w);
        }
        self.final_norm.write(&mut w);
        self.embedding.write(&mut w);
        w.u8(u8::from(self.head.is_some()));
        if let Some(head) = &self.head {
            head.write(&mut w);
        }
        w.b256(&self.exp_root).b256(&self.act_root);
        w.len(self.rope_roots.len());
        for root in &self.rope_roots {
            w.b256(root);
        }
        w.b256(&self.tokenizer_hash).b256(&self.chat_template_hash);
        w.u8(u8::from(self.bos.is_some()));
        if let Some(bos) = self.bos {
            w.u32(bos);
        }
        w.len(self.eos.len());
        for eos in &self.eos {
            w.u32(*eos);
        }
        w.finish()
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut r = Reader::new(TAG, bytes)?;
        version(&mut r, "numerics version", NUMERICS_VERSION)?;
        version(&mut r, "sampler version", SAMPLER_VERSION)?;
        let architecture = match r.u8()? {
            1 => Architecture::Llama,
            2 => Architecture::Gemma3,
            other => return Err(bad("architecture", other.into())),
        };
        let dims = Dims {
            layers: r.u32()?,
            width: r.u32()?,
            heads: r.u32()?,
            kv_heads: r.u32()?,
            head_dim: r.u32()?,
            ffn: r.u32()?,
            vocab: r.u32()?,
            context_max: r.u32()?,
        };
        let residual_fraction = r.u8()?;
        let attention_scale = AttentionScale {
            c: r.u32()?,
            csh: r.u8()?,
        };
        let layers = (0..r.len(LAYERS_MAX)?)
            .map(|_| LayerEntry::read(&mut r))
            .collect::<Result<Vec<_>, _>>()?;
        if layers.len() as u64 != u64::from(dims.layers) {
            return Err(bad("number of layers", layers.len() as u64));
        }
        let final_norm = GainEntry::read(&mut r)?;
        let embedding = MatrixEntry::read(&mut r)?;
        let head = if flag(&mut r)? {
            Some(MatrixEntry::read(&mut r)?)
        } else {
            None
        };
        let (exp_root, act_root) = (r.b256()?, r.b256()?);
        let rope_roots = (0..r.len(ROPE_TABLES_MAX)?)
            .map(|_| r.b256())
            .collect::<Result<Vec<_>, _>>()?;
        let (tokenizer_hash, chat_template_hash) = (r.b256()?, r.b256()?);
        let bos = if flag(&mut r)? { Some(r.u32()?) } else { None };
        let eos = (0..r.len(EOS_MAX)?)
            .map(|_| r.u32())
            .collect::<Result<Vec<_>, _>>()?;
        // One set of end tokens has one encoding.
        if let Some(pair) = eos.windows(2).find(|pair| pair[0] >= pair[1]) {
            return Err(bad("ascending end token", pair[1].into()));
        }
        r.finish()?;
        Ok(Manifest {
            architecture,
            dims,
            residual_fraction,
            attention_scale,
            layers,
            final_norm,
            embedding,
            head,
            exp_root,
            act_root,
            rope_roots,
            tokenizer_hash,
            chat_template_hash,
            bos,
            eos,
        })
    }
}

fn bad(what: &'static str, value: u64) -> CodecError {
    CodecError::BadValue { what, value }
}

fn version(r: &mut Reader<'_>, what: &'static str, expected: u16) -> Result<(), CodecError> {
    match r.u16()? {
        found if found == expected => Ok(()),
        found => Err(bad(what, found.into())),
    }
}

fn flag(r: &mut Reader<'_>) -> Result<bool, CodecError> {
    match r.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(bad("flag", other.into())),
    }
}

fn fraction(r: &mut Reader<'_>) -> Result<i8, CodecError> {
    Ok(i8::from_be_bytes([r.u8()?]))
}

impl MatrixEntry {
    fn write(&self, w: &mut Writer) {
        w.u32(self.rows).u32(self.cols).u8(self.sh).b256(&self.root);
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, CodecError> {
        Ok(MatrixEntry {
            rows: r.u32()?,
            cols: r.u32()?,
            sh: r.u8()?,
            root: r.b256()?,
        })
    }
}

impl GainEntry {
    fn write(&self, w: &mut Writer) {
        w.u32(self.len).u8(self.fs).u64(self.eps).b256(&self.root);
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, CodecError> {
        Ok(GainEntry {
            len: r.u32()?,
            fs: r.u8()?,
            eps: r.u64()?,
            root: r.b256()?,
        })
    }
}

impl LayerEntry {
    fn write(&self, w: &mut Writer) {
        let f = self.fractions;
        for fraction in [f.q, f.k, f.v] {
            w.u8(fraction.to_be_bytes()[0]);
        }
        w.u32(self.window).u8(self.rope);
        self.attention_norm.write(w);
        for matrix in [&self.q, &self.k, &self.v, &self.o] {
            matrix.write(w);
        }
        self.ffn_norm.write(w);
        for matrix in [&self.gate, &self.up, &self.down] {
            matrix.write(w);
        }
        w.u8(u8::from(self.gemma.is_some()));
        if let Some(norms) = &self.gemma {
            for gain in [
                &norms.q_norm,
                &norms.k_norm,
                &norms.attention_post,
                &norms.ffn_post,
            ] {
                gain.write(w);
            }
        }
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, CodecError> {
        Ok(LayerEntry {
            fractions: Fractions {
                q: fraction(r)?,
                k: fraction(r)?,
                v: fraction(r)?,
            },
            window: r.u32()?,
            rope: r.u8()?,
            attention_norm: GainEntry::read(r)?,
            q: MatrixEntry::read(r)?,
            k: MatrixEntry::read(r)?,
            v: MatrixEntry::read(r)?,
            o: MatrixEntry::read(r)?,
            ffn_norm: GainEntry::read(r)?,
            gate: MatrixEntry::read(r)?,
            up: MatrixEntry::read(r)?,
            down: MatrixEntry::read(r)?,
            gemma: if flag(r)? {
                Some(GemmaNorms {
                    q_norm: GainEntry::read(r)?,
                    k_norm: GainEntry::read(r)?,
                    attention_post: GainEntry::read(r)?,
                    ffn_post: GainEntry::read(r)?,
                })
            } else {
                None
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix(rows: u32, cols: u32) -> MatrixEntry {
        MatrixEntry {
            rows,
            cols,
            sh: 30,
            root: B256::repeat_byte(rows as u8),
        }
    }

    fn gain(len: u32) -> GainEntry {
        GainEntry {
            len,
            fs: 40,
            eps: 6040,
            root: B256::repeat_byte(9),
        }
    }

    fn sample(gemma: bool) -> Manifest {
        let norms = GemmaNorms {
            q_norm: gain(16),
            k_norm: gain(16),
            attention_post: gain(32),
            ffn_post: gain(32),
        };
        let layer = LayerEntry {
            fractions: Fractions { q: 7, k: -1, v: 9 },
            window: if gemma { 512 } else { 0 },
            rope: 0,
            attention_norm: gain(32),
            q: matrix(32, 32),
            k: matrix(16, 32),
            v: matrix(16, 32),
            o: matrix(32, 32),
            ffn_norm: gain(32),
            gate: matrix(64, 32),
            up: matrix(64, 32),
            down: matrix(32, 64),
            gemma: gemma.then_some(norms),
        };
        Manifest {
            architecture: if gemma {
                Architecture::Gemma3
            } else {
                Architecture::Llama
            },
            dims: Dims {
                layers: 1,
                width: 32,
                heads: 2,
                kv_heads: 1,
                head_dim: 16,
                ffn: 64,
                vocab: 256,
                context_max: 128,
            },
            residual_fraction: 10,
            attention_scale: AttentionScale { c: 47_274, csh: 10 },
            layers: vec![layer],
            final_norm: gain(32),
            embedding: matrix(256, 32),
            head: (!gemma).then(|| matrix(256, 32)),
            exp_root: B256::repeat_byte(1),
            act_root: B256::repeat_byte(2),
            rope_roots: vec![B256::repeat_byte(3)],
            tokenizer_hash: B256::repeat_byte(4),
            chat_template_hash: B256::ZERO,
            bos: gemma.then_some(2),
            eos: vec![1, 106],
        }
    }

    #[test]
    fn the_encoding_is_pinned() {
        let head = "000000116173736179";
        assert!(hex::encode(sample(false).encode()).starts_with(head));
        assert_eq!(sample(false).id().to_string(), LLAMA_ID);
        assert_eq!(sample(true).id().to_string(), GEMMA_ID);
    }
    const LLAMA_ID: &str = "0xdfc0fd5a00fadd712fca292d5effe5a32c7b6d55a642dfccc27bb741bc1bd74c";
    const GEMMA_ID: &str = "0x038d0ca2efef569396db34a3adcf91e1afe7398f9f0f42cb794b74e9b61eadb0";

    #[test]
    fn what_was_written_is_read() {
        for gemma in [false, true] {
            let manifest = sample(gemma);
            assert_eq!(Manifest::decode(&manifest.encode()), Ok(manifest));
        }
    }

    #[test]
    fn every_truncation_is_refused() {
        let bytes = sample(true).encode();
        for len in 0..bytes.len() {
            assert!(
                Manifest::decode(&bytes[..len]).is_err(),
                "{len} bytes were accepted"
            );
        }
    }

    #[test]
    fn a_flipped_bit_is_refused_or_makes_another_model() {
        let manifest = sample(true);
        let bytes = manifest.encode();
        for bit in 0..bytes.len() * 8 {
            let mut other = bytes.clone();
            other[bit / 8] ^= 1 << (bit % 8);
            if let Ok(other) = Manifest::decode(&other) {
                assert_ne!(other.id(), manifest.id(), "bit {bit}");
            }
        }
    }

    #[test]
    fn end_tokens_out_of_order_are_refused() {
        let mut manifest = sample(false);
        manifest.eos = vec![106, 1];
        assert!(matches!(
            Manifest::decode(&manifest.encode()),
            Err(CodecError::BadValue { value: 1, .. })
        ));
    }
}
