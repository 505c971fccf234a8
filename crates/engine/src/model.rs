//! A model file, opened: structure and every static bound of NUMERICS checked, so that nothing after it
//! can overflow. Never reads a path; never hashes unless asked ([`Model::verify_roots`]).

use std::ops::Range;
use std::sync::Arc;

use assay_protocol::manifest::{
    Architecture, Fractions, GainEntry, LayerEntry, Manifest, MatrixEntry,
};
use assay_protocol::{B256, ModelId, keccak256};

use crate::bounds::{self, BoundError};
use crate::kernels::ExpTable;
use crate::layout::{
    ACT_LEN, EXP_LEN, File, LayerPart, LayoutError, MatrixView, Section, gain_root, rope_root,
    table_root,
};
use crate::ops::rope::Pairing;
use crate::ops::{LOGIT_MAX, MLP_MAX, QKV_MAX, RESIDUAL_MAX};

/// A model file's bytes: a mapping, or memory.
pub type Bytes = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// Why a model file is not run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    #[error(transparent)]
    Layout(#[from] LayoutError),
    #[error(transparent)]
    Bound(#[from] BoundError),
}

/// A section that is not what the manifest says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{section} has root {found}, the manifest says {stated}; the file is damaged, import it again"
)]
pub struct RootError {
    pub section: Section,
    pub stated: B256,
    pub found: B256,
}

/// A model ready to run; clones share the file.
#[derive(Clone)]
pub struct Model {
    pub(crate) inner: Arc<Inner>,
    /// Layers left out, by number: empty but for [`Model::without_layers`].
    pub(crate) skipped: Arc<[usize]>,
}

pub(crate) struct Inner {
    bytes: Bytes,
    file: File,
    pub(crate) manifest: Manifest,
    id: ModelId,
    pub(crate) layers: Vec<Layer>,
    pub(crate) final_norm: Norm,
    pub(crate) embedding: Matrix,
    /// Takes a row's scale to the residual: 1, or the width.
    pub(crate) embedding_scale_squared: u32,
    pub(crate) embedding_shift: i32,
    pub(crate) head: Linear,
    pub(crate) exp: ExpTable,
    pub(crate) act: Box<[u16; ACT_LEN]>,
    rope: Vec<Range<usize>>,
    pub(crate) pairing: Pairing,
    pub(crate) frequencies: usize,
}

/// Where a matrix lies.
#[derive(Debug, Clone)]
pub(crate) struct Matrix {
    range: Range<usize>,
    entry: MatrixEntry,
}

/// A matrix between two fractions.
#[derive(Debug, Clone)]
pub(crate) struct Linear {
    pub(crate) matrix: Matrix,
    /// `SH + fx − fo`: the requantizing shift before the input's exponent is taken off.
    pub(crate) shift: i32,
    pub(crate) limit: i32,
}

/// A norm: its gains and what its result is in.
#[derive(Debug, Clone)]
pub(crate) struct Norm {
    pub(crate) gains: Vec<i32>,
    pub(crate) eps: u64,
    pub(crate) fs: i32,
}

/// One layer's program.
pub(crate) struct Layer {
    pub(crate) fractions: Fractions,
    pub(crate) window: usize,
    pub(crate) rope: usize,
    pub(crate) attention_norm: Norm,
    pub(crate) q: Linear,
    pub(crate) k: Linear,
    pub(crate) v: Linear,
    pub(crate) o: Linear,
    pub(crate) ffn_norm: Norm,
    pub(crate) gate: Linear,
    pub(crate) up: Linear,
    pub(crate) down: Linear,
    pub(crate) gemma: Option<Gemma>,
}

pub(crate) struct Gemma {
    pub(crate) q_norm: Norm,
    pub(crate) k_norm: Norm,
    pub(crate) attention_post: Norm,
    pub(crate) ffn_post: Norm,
}

/// The base of bfp after a norm, after the mix, and after the MLP's product.
pub(crate) const BASE_NORM: i32 = 12;
pub(crate) const BASE_MIX: i32 = 0;
pub(crate) const BASE_MLP: i32 = 4;
/// Fractions of q, k, v, gate and up; of a gemma branch before its post-norm; of logits.
pub(crate) const F_INNER: i32 = 12;
const F_BRANCH: i32 = 16;
const F_LOGITS: i32 = 16;

impl Model {
    /// Opens a model file. Hashes are not checked: that is [`Model::verify_roots`], once after an import
    /// or a download.
    pub fn open(bytes: Bytes) -> Result<Model, LoadError> {
        let data = (*bytes).as_ref();
        let file = File::parse(data)?;
        let manifest = file.manifest(data)?;
        bounds::check_manifest(&manifest)?;
        let load = Loader {
            data,
            file: &file,
            manifest: &manifest,
        };
        let layers = (0u16..)
            .zip(&manifest.layers)
            .map(|(index, entry)| load.layer(index, entry))
            .collect::<Result<Vec<_>, _>>()?;
        let final_norm = load.norm(Section::FinalNorm, &manifest.final_norm)?;
        let embedding = load.matrix(Section::Embedding, &manifest.embedding)?;
        let head = match &manifest.head {
            Some(entry) => load.matrix(Section::Head, entry)?,
            None => embedding.clone(),
        };
        let head = Linear {
            shift: i32::from(head.entry.sh) + final_norm.fs - BASE_NORM - F_LOGITS,
            matrix: head,
            limit: LOGIT_MAX,
        };
        let exp = load.table(Section::Exp, EXP_LEN)?;
        let act = load.table(Section::Act, ACT_LEN)?;
        bounds::check_tables(&exp, &act)?;
        let frequencies = manifest.dims.head_dim as usize / 2;
        let rope = (0..manifest.rope_roots.len())
            .map(|index| {
                let len = manifest.dims.context_max as usize * frequencies * 4;
                file.range_of(Section::Rope(index as u8), len)
            })
            .collect::<Result<Vec<_>, _>>()?;
        let (pairing, embedding_scale_squared) = match manifest.architecture {
            Architecture::Llama => (Pairing::Pairs, 1),
            Architecture::Gemma3 => (Pairing::Halves, manifest.dims.width),
        };
        let inner = Inner {
            id: manifest.id(),
            layers,
            final_norm,
            embedding_shift: i32::from(embedding.entry.sh) + 8
                - i32::from(manifest.residual_fraction),
            embedding,
            embedding_scale_squared,
            head,
            exp: ExpTable::new(exp.try_into().expect("the table's length was checked")),
            act: act.try_into().expect("the table's length was checked"),
            rope,
            pairing,
            frequencies,
            manifest,
            file,
            bytes,
        };
        inner.check_bounds()?;
        Ok(Model {
            inner: Arc::new(inner),
            skipped: Arc::new([]),
        })
    }

    pub fn manifest(&self) -> &Manifest {
        &self.inner.manifest
    }

    /// The id that this model answers under.
    pub fn id(&self) -> ModelId {
        self.inner.id
    }

    /// The tokenizer's or the chat template's bytes; `None` where the file has none.
    pub fn blob(&self, section: Section) -> Option<&[u8]> {
        let range = self.inner.file.range(section).ok()?;
        self.inner.data().get(range)
    }

    /// What a dishonest provider runs: a cheaper computation under the same id.
    pub fn without_layers(&self, skip: &[usize]) -> Model {
        Model {
            inner: self.inner.clone(),
            skipped: skip.into(),
        }
    }

    /// Recomputes every root and hash that the manifest states.
    pub fn verify_roots(&self) -> Result<(), RootError> {
        self.inner.verify_roots()
    }
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Model")
            .field("id", &self.inner.id)
            .field("skipped", &self.skipped)
            .finish()
    }
}

/// Finds what the manifest names, and checks its shape.
struct Loader<'a> {
    data: &'a [u8],
    file: &'a File,
    manifest: &'a Manifest,
}

impl Loader<'_> {
    fn matrix(&self, section: Section, entry: &MatrixEntry) -> Result<Matrix, LoadError> {
        let range = self.file.range(section)?;
        MatrixView::parse(entry.rows, entry.cols, entry.sh, &self.data[range.clone()])?;
        Ok(Matrix {
            range,
            entry: *entry,
        })
    }

    fn norm(&self, section: Section, entry: &GainEntry) -> Result<Norm, LoadError> {
        let range = self.file.range_of(section, entry.len as usize * 4)?;
        let gains = self.data[range]
            .chunks_exact(4)
            .map(|bytes| i32::from_le_bytes(bytes.try_into().expect("chunks of four")))
            .collect();
        Ok(Norm {
            gains,
            eps: entry.eps,
            fs: entry.fs.into(),
        })
    }

    fn table(&self, section: Section, len: usize) -> Result<Vec<u16>, LoadError> {
        let range = self.file.range_of(section, len * 2)?;
        let entry = |bytes: &[u8]| u16::from_le_bytes([bytes[0], bytes[1]]);
        Ok(self.data[range].chunks_exact(2).map(entry).collect())
    }

    fn layer(&self, index: u16, entry: &LayerEntry) -> Result<Layer, LoadError> {
        let at = |part| Section::Layer(index, part);
        let norm = |part, entry| self.norm(at(part), entry);
        let linear = |part, entry: &MatrixEntry, fx: i32, fo: i32, limit| {
            let matrix = self.matrix(at(part), entry)?;
            Ok::<_, LoadError>(Linear {
                matrix,
                shift: i32::from(entry.sh) + fx - fo,
                limit,
            })
        };
        let (fo, limit) = match self.manifest.architecture {
            Architecture::Llama => (self.manifest.residual_fraction.into(), RESIDUAL_MAX),
            Architecture::Gemma3 => (F_BRANCH, RESIDUAL_MAX),
        };
        let attention_norm = norm(LayerPart::AttentionNorm, &entry.attention_norm)?;
        let ffn_norm = norm(LayerPart::FfnNorm, &entry.ffn_norm)?;
        let (fx, fx_mlp) = (attention_norm.fs - BASE_NORM, ffn_norm.fs - BASE_NORM);
        let fractions = entry.fractions;
        let gemma = match &entry.gemma {
            None => None,
            Some(norms) => Some(Gemma {
                q_norm: norm(LayerPart::QNorm, &norms.q_norm)?,
                k_norm: norm(LayerPart::KNorm, &norms.k_norm)?,
                attention_post: norm(LayerPart::AttentionPost, &norms.attention_post)?,
                ffn_post: norm(LayerPart::FfnPost, &norms.ffn_post)?,
            }),
        };
        // The layer's v fraction is added where the matrix is used: calibration chooses it there.
        let fx_mix = 15 - BASE_MIX;
        let fx_down = 16 + F_INNER - BASE_MLP;
        Ok(Layer {
            fractions,
            window: entry.window as usize,
            rope: entry.rope.into(),
            attention_norm,
            q: linear(LayerPart::Q, &entry.q, fx, F_INNER, QKV_MAX)?,
            k: linear(LayerPart::K, &entry.k, fx, F_INNER, QKV_MAX)?,
            v: linear(LayerPart::V, &entry.v, fx, F_INNER, QKV_MAX)?,
            o: linear(LayerPart::O, &entry.o, fx_mix, fo, limit)?,
            ffn_norm,
            gate: linear(LayerPart::Gate, &entry.gate, fx_mlp, F_INNER, MLP_MAX)?,
            up: linear(LayerPart::Up, &entry.up, fx_mlp, F_INNER, MLP_MAX)?,
            down: linear(LayerPart::Down, &entry.down, fx_down, fo, limit)?,
            gemma,
        })
    }
}

impl Matrix {
    /// The matrix's parts; its section was parsed when the model was opened.
    pub(crate) fn view<'a>(&self, inner: &'a Inner) -> MatrixView<'a> {
        let MatrixEntry { rows, cols, sh, .. } = self.entry;
        MatrixView::parse(rows, cols, sh, &inner.data()[self.range.clone()])
            .expect("the section was parsed when the model was opened")
    }
}

/// cos and sin of one position, by frequency.
#[derive(Clone, Copy)]
pub(crate) struct RopeRow<'a>(&'a [u8]);

impl RopeRow<'_> {
    pub(crate) fn frequencies(&self) -> usize {
        self.0.len() / 4
    }

    #[inline(always)]
    pub(crate) fn get(&self, frequency: usize) -> (i16, i16) {
        let b = &self.0[4 * frequency..4 * frequency + 4];
        (
            i16::from_le_bytes([b[0], b[1]]),
            i16::from_le_bytes([b[2], b[3]]),
        )
    }
}

impl Inner {
    pub(crate) fn data(&self) -> &[u8] {
        (*self.bytes).as_ref()
    }

    /// The row of a RoPE table for a position, which the caller has checked.
    pub(crate) fn rope_at(&self, table: usize, position: usize) -> RopeRow<'_> {
        let len = self.frequencies * 4;
        RopeRow(&self.data()[self.rope[table].clone()][position * len..][..len])
    }

    /// Every matrix and norm against the bounds that the arithmetic relies on.
    fn check_bounds(&self) -> Result<(), BoundError> {
        let linear = |section, linear: &Linear, e_max| {
            bounds::check_shift(section, linear.shift, e_max)?;
            bounds::check_rows(section, &linear.matrix.view(self))
        };
        let residual = i64::from(RESIDUAL_MAX);
        let context = self.manifest.dims.context_max;
        let norm =
            |section, norm: &Norm, limit| bounds::check_norm(section, &norm.gains, norm.eps, limit);
        for (index, layer) in (0u16..).zip(&self.layers) {
            let at = |part| Section::Layer(index, part);
            norm(
                at(LayerPart::AttentionNorm),
                &layer.attention_norm,
                residual,
            )?;
            norm(at(LayerPart::FfnNorm), &layer.ffn_norm, residual)?;
            let e_norm = bounds::exponent_after_norm();
            let inputs = [
                (LayerPart::Q, &layer.q),
                (LayerPart::K, &layer.k),
                (LayerPart::V, &layer.v),
                (LayerPart::Gate, &layer.gate),
                (LayerPart::Up, &layer.up),
            ];
            for (part, matrix) in inputs {
                linear(at(part), matrix, e_norm)?;
            }
            let mut o = layer.o.clone();
            o.shift += i32::from(layer.fractions.v);
            linear(at(LayerPart::O), &o, bounds::exponent_after_mix(context))?;
            linear(
                at(LayerPart::Down),
                &layer.down,
                bounds::exponent_after_product(),
            )?;
            let Some(gemma) = &layer.gemma else { continue };
            let f = i32::from(self.manifest.residual_fraction);
            let qkv = i64::from(QKV_MAX);
            for (part, gains, limit, f) in [
                (LayerPart::QNorm, &gemma.q_norm, qkv, F_INNER),
                (LayerPart::KNorm, &gemma.k_norm, qkv, F_INNER),
                (LayerPart::AttentionPost, &gemma.attention_post, residual, f),
                (LayerPart::FfnPost, &gemma.ffn_post, residual, f),
            ] {
                norm(at(part), gains, limit)?;
                bounds::check_norm_output(at(part), gains.fs, f)?;
            }
        }
        norm(Section::FinalNorm, &self.final_norm, residual)?;
        bounds::check_embedding_shift(self.embedding_shift)?;
        let head = if self.manifest.head.is_some() {
            bounds::check_rows(Section::Embedding, &self.embedding.view(self))?;
            Section::Head
        } else {
            Section::Embedding
        };
        linear(head, &self.head, bounds::exponent_after_norm())
    }

    fn verify_roots(&self) -> Result<(), RootError> {
        let check = |section, stated: B256, found: B256| match stated == found {
            true => Ok(()),
            false => Err(RootError {
                section,
                stated,
                found,
            }),
        };
        let matrix =
            |section, matrix: &Matrix| check(section, matrix.entry.root, matrix.view(self).root());
        let norm = |section, stated: &GainEntry, norm: &Norm| {
            check(section, stated.root, gain_root(norm.gains.iter().copied()))
        };
        for ((index, layer), entry) in (0u16..).zip(&self.layers).zip(&self.manifest.layers) {
            let at = |part| Section::Layer(index, part);
            for (part, linear) in [
                (LayerPart::Q, &layer.q),
                (LayerPart::K, &layer.k),
                (LayerPart::V, &layer.v),
                (LayerPart::O, &layer.o),
                (LayerPart::Gate, &layer.gate),
                (LayerPart::Up, &layer.up),
                (LayerPart::Down, &layer.down),
            ] {
                matrix(at(part), &linear.matrix)?;
            }
            norm(
                at(LayerPart::AttentionNorm),
                &entry.attention_norm,
                &layer.attention_norm,
            )?;
            norm(at(LayerPart::FfnNorm), &entry.ffn_norm, &layer.ffn_norm)?;
            if let (Some(stated), Some(gemma)) = (&entry.gemma, &layer.gemma) {
                norm(at(LayerPart::QNorm), &stated.q_norm, &gemma.q_norm)?;
                norm(at(LayerPart::KNorm), &stated.k_norm, &gemma.k_norm)?;
                norm(
                    at(LayerPart::AttentionPost),
                    &stated.attention_post,
                    &gemma.attention_post,
                )?;
                norm(at(LayerPart::FfnPost), &stated.ffn_post, &gemma.ffn_post)?;
            }
        }
        norm(
            Section::FinalNorm,
            &self.manifest.final_norm,
            &self.final_norm,
        )?;
        matrix(Section::Embedding, &self.embedding)?;
        if self.manifest.head.is_some() {
            matrix(Section::Head, &self.head.matrix)?;
        }
        check(
            Section::Exp,
            self.manifest.exp_root,
            table_root(self.exp.narrow.into_iter()),
        )?;
        check(
            Section::Act,
            self.manifest.act_root,
            table_root(self.act.iter().copied()),
        )?;
        for (index, (stated, range)) in self.manifest.rope_roots.iter().zip(&self.rope).enumerate()
        {
            let found = rope_root(&self.data()[range.clone()], self.frequencies);
            check(Section::Rope(index as u8), *stated, found)?;
        }
        let blob = |section| match self.file.range(section) {
            Ok(range) => keccak256(&self.data()[range]),
            Err(_) => B256::ZERO,
        };
        check(
            Section::Tokenizer,
            self.manifest.tokenizer_hash,
            blob(Section::Tokenizer),
        )?;
        check(
            Section::ChatTemplate,
            self.manifest.chat_template_hash,
            blob(Section::ChatTemplate),
        )
    }
}
