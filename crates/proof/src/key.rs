//! A model's key: what a verifier without the weights holds. The model's public numbers, which the manifest
//! binds by their roots, and two things that it does not: the embedding's row scales and the commitment to
//! the weights. Anybody with the weights makes the same key ([`setup`]); its hash names it.

use assay_engine::Model;
use assay_engine::bounds::{self, BoundError};
use assay_engine::layout::{
    ACT_LEN, EXP_LEN, LayerPart, Section, gain_root, rope_root, table_root,
};
use assay_engine::ops::{QKV_MAX, RESIDUAL_MAX};
use assay_engine::values::F_INNER;
use assay_protocol::codec::{CodecError, Reader, Writer};
use assay_protocol::manifest::Manifest;
use assay_protocol::{B256, ModelId, keccak256};

use crate::commit::Commitment;
use crate::committed::{Layout, WeightsCommitted};
use crate::public::{Public, Tables, norms};

/// The versioned tag of a key's bytes, and of what is hashed.
const VERSION: &str = "assay/proof-key/v1";

/// A key, of which everything is checked that its manifest binds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyFile {
    public: Public,
    id: ModelId,
    weights: Commitment,
}

/// Why bytes are no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("a key has at most {most} bytes, this has {got}")]
    TooLarge { most: usize, got: usize },
    #[error("{0}")]
    Codec(#[from] CodecError),
    #[error("{0}")]
    Bound(#[from] BoundError),
    #[error("{section} has {got} bytes, {expected} expected")]
    Section {
        section: Section,
        expected: u64,
        got: usize,
    },
    #[error("{section} has root {found}, the manifest says {stated}; the key is damaged or false")]
    Root {
        section: Section,
        stated: B256,
        found: B256,
    },
    #[error("no commitment holds a model of {0} weights")]
    TooManyWeights(usize),
}

/// A model's key and the tree that a prover opens its weights from. Depends on nothing but the model.
pub fn setup(model: &Model, threads: usize) -> Result<(KeyFile, WeightsCommitted), KeyError> {
    let layout = Layout::of(model.manifest());
    if !layout.fits() {
        return Err(KeyError::TooManyWeights(layout.len()));
    }
    let committed = WeightsCommitted::new(model, layout, threads);
    let key = KeyFile {
        public: Public::of(model, model.manifest().dims.context_max as usize),
        id: model.id(),
        weights: committed.commitment(),
    };
    Ok((key, committed))
}

impl KeyFile {
    /// Longer keys are refused unread.
    pub const BYTES_MAX: usize = 1 << 28;

    /// What names a key. The manifest's id binds everything else in it.
    pub fn hash(&self) -> B256 {
        let mut named = Writer::new(VERSION);
        named
            .b256(&self.id)
            .b256(&keccak256(shorts(&self.public.tables.embedding)))
            .b256(&self.weights.0.into());
        named.hash()
    }

    pub fn model_id(&self) -> ModelId {
        self.id
    }

    pub fn manifest(&self) -> &Manifest {
        &self.public.manifest
    }

    /// The commitment to the weights.
    pub fn weights(&self) -> Commitment {
        self.weights
    }

    pub(crate) fn public(&self) -> &Public {
        &self.public
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let Public {
            manifest, tables, ..
        } = &self.public;
        let mut out = Writer::new(VERSION);
        out.bytes(&manifest.encode());
        for gains in self.public.gains() {
            out.bytes(
                &gains
                    .iter()
                    .flat_map(|g| g.to_be_bytes())
                    .collect::<Vec<u8>>(),
            );
        }
        out.bytes(&shorts(&tables.exp));
        out.bytes(&shorts(&tables.act));
        for table in &tables.rope {
            let pairs = table.as_flattened().iter();
            out.bytes(&pairs.flat_map(|v| v.to_be_bytes()).collect::<Vec<u8>>());
        }
        out.bytes(&shorts(&tables.embedding));
        out.b256(&self.weights.0.into());
        out.finish()
    }

    /// Reads a key and holds it against its manifest. Whether the manifest is the model's that is meant, and
    /// the rest what its weights give, only its hash tells.
    pub fn from_bytes(bytes: &[u8]) -> Result<KeyFile, KeyError> {
        if bytes.len() > KeyFile::BYTES_MAX {
            return Err(KeyError::TooLarge {
                most: KeyFile::BYTES_MAX,
                got: bytes.len(),
            });
        }
        let mut from = Reader::new(VERSION, bytes)?;
        let manifest = Manifest::decode(from.bytes()?)?;
        bounds::check_manifest(&manifest)?;
        let layout = Layout::of(&manifest);
        if !layout.fits() {
            return Err(KeyError::TooManyWeights(layout.len()));
        }
        let mut gains = Vec::new();
        for (section, entry) in norms(&manifest) {
            let bytes = read(&mut from, section, u64::from(entry.len) * 4)?;
            let all: Vec<i32> = bytes
                .as_chunks()
                .0
                .iter()
                .map(|g| i32::from_be_bytes(*g))
                .collect();
            check_root(section, entry.root, gain_root(all.iter().copied()))?;
            gains.push(all);
        }
        let tables = tables(&mut from, &manifest)?;
        let weights = Commitment(from.b256()?.0);
        from.finish()?;
        let id = manifest.id();
        let public = Public::new(manifest, gains, tables);
        check_bounds(&public)?;
        Ok(KeyFile {
            public,
            id,
            weights,
        })
    }
}

/// A section of exactly this length; nothing is allocated that the bytes do not cover.
fn read<'a>(from: &mut Reader<'a>, section: Section, expected: u64) -> Result<&'a [u8], KeyError> {
    let bytes = from.bytes_max(KeyFile::BYTES_MAX)?;
    match bytes.len() as u64 == expected {
        true => Ok(bytes),
        false => Err(KeyError::Section {
            section,
            expected,
            got: bytes.len(),
        }),
    }
}

fn check_root(section: Section, stated: B256, found: B256) -> Result<(), KeyError> {
    match stated == found {
        true => Ok(()),
        false => Err(KeyError::Root {
            section,
            stated,
            found,
        }),
    }
}

fn tables(from: &mut Reader<'_>, manifest: &Manifest) -> Result<Tables, KeyError> {
    let table = |from: &mut Reader<'_>, section, len: usize, root| {
        let all = of_shorts(read(from, section, len as u64 * 2)?);
        check_root(section, root, table_root(all.iter().copied()))?;
        Ok::<_, KeyError>(all)
    };
    let exp = table(from, Section::Exp, EXP_LEN, manifest.exp_root)?;
    let act = table(from, Section::Act, ACT_LEN, manifest.act_root)?;
    let frequencies = manifest.dims.head_dim as usize / 2;
    let mut rope = Vec::new();
    for (index, root) in (0u8..).zip(&manifest.rope_roots) {
        let section = Section::Rope(index);
        let pairs = u64::from(manifest.dims.context_max) * frequencies as u64;
        let values = of_shorts(read(from, section, 4 * pairs)?);
        let little: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        check_root(section, *root, rope_root(&little, frequencies))?;
        let pair = |[cos, sin]: &[u16; 2]| [cos.cast_signed(), sin.cast_signed()];
        rope.push(values.as_chunks().0.iter().map(pair).collect());
    }
    let rows = u64::from(manifest.dims.vocab);
    Ok(Tables {
        exp,
        act,
        rope,
        embedding: of_shorts(read(from, Section::Embedding, 2 * rows)?),
    })
}

fn shorts(values: &[u16]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_be_bytes()).collect()
}

fn of_shorts(bytes: &[u8]) -> Vec<u16> {
    bytes
        .as_chunks()
        .0
        .iter()
        .map(|v| u16::from_be_bytes(*v))
        .collect()
}

/// What opening a model file checks, but for the weights' rows: those are the commitment's.
fn check_bounds(public: &Public) -> Result<(), BoundError> {
    let manifest = &public.manifest;
    bounds::check_tables(public.exp(), public.act())?;
    bounds::check_embedding_shift(public.embedding_shift)?;
    let (residual, qkv) = (i64::from(RESIDUAL_MAX), i64::from(QKV_MAX));
    for ((section, entry), gains) in norms(manifest).into_iter().zip(public.gains()) {
        let of_head = matches!(
            section,
            Section::Layer(_, LayerPart::QNorm | LayerPart::KNorm)
        );
        let limit = if of_head { qkv } else { residual };
        bounds::check_norm(section, gains, entry.eps, limit)?;
        let f = match section {
            Section::Layer(_, LayerPart::QNorm | LayerPart::KNorm) => F_INNER,
            Section::Layer(_, LayerPart::AttentionPost | LayerPart::FfnPost) => {
                manifest.residual_fraction.into()
            }
            _ => continue,
        };
        bounds::check_norm_output(section, entry.fs.into(), f)?;
    }
    let normed = bounds::exponent_after_norm();
    let mixed = bounds::exponent_after_mix(manifest.dims.context_max);
    for (index, layer) in (0u16..).zip(&public.layers) {
        for (part, linear, e_max) in [
            (LayerPart::Q, &layer.q, normed),
            (LayerPart::K, &layer.k, normed),
            (LayerPart::V, &layer.v, normed),
            (LayerPart::O, &layer.o, mixed),
            (LayerPart::Gate, &layer.gate, normed),
            (LayerPart::Up, &layer.up, normed),
            (
                LayerPart::Down,
                &layer.down,
                bounds::exponent_after_product(),
            ),
        ] {
            bounds::check_shift(Section::Layer(index, part), linear.shift, e_max)?;
        }
    }
    bounds::check_shift(Section::Head, public.head.shift, normed)
}
