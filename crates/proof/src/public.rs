//! What the relation and the argument need of a model besides its matrices' weights: shapes, shifts, gains
//! and tables, derived from the manifest and from what its roots bind. A verifier without the weights has
//! nothing else (`key`). The engine derives the same from a model file, and a test holds the two together.

use assay_engine::Model;
use assay_engine::layout::{LayerPart, Section};
use assay_engine::ops::{self, rope::Pairing};
use assay_engine::values::{BASE_MIX, BASE_MLP, BASE_NORM, Constants, F_INNER};
use assay_protocol::TokenId;
use assay_protocol::manifest::{Architecture, Fractions, GainEntry, LayerEntry, Manifest};
use assay_protocol::trace::MatrixRef;

/// The fraction of a gemma branch before its norm.
const F_BRANCH: i32 = 16;
/// Of attention's shares, and of the gated activation.
const F_SHARE: i32 = 15;
const F_ACT: i32 = 16;
const F_LOGITS: i32 = 16;

/// A model without its matrices' weights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Public {
    pub manifest: Manifest,
    /// `x = rsh(w·E, embedding_shift)`, E being [`Public::embedding_scale`].
    pub embedding_shift: i32,
    pub layers: Vec<LayerPublic>,
    pub final_norm: NormPublic,
    /// Logits are in Q.16.
    pub head: LinearPublic,
    pub pairing: Pairing,
    pub(crate) tables: Tables,
}

/// The numbers that the manifest knows by their roots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tables {
    pub(crate) exp: Vec<u16>,
    pub(crate) act: Vec<u16>,
    /// By table: cos and sin by position and frequency.
    pub(crate) rope: Vec<Vec<[i16; 2]>>,
    /// A of each row of the embedding.
    pub(crate) embedding: Vec<u16>,
}

/// A norm: `v = rsh(x·inv, 23)·gain`, shifted by this much, and by the exponent where a matrix follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NormPublic {
    pub gains: Vec<i32>,
    pub eps: u64,
    pub shift: i32,
}

/// A matrix between two fractions: `z = rsh(acc·A, shift − e)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinearPublic {
    pub matrix: MatrixRef,
    pub rows: usize,
    pub cols: usize,
    pub shift: i32,
}

/// One layer's program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerPublic {
    pub fractions: Fractions,
    /// Positions that a token sees, itself included; 0 is all.
    pub window: usize,
    /// The number of its RoPE table.
    pub rope: usize,
    /// The fractions of q and k included.
    pub csh: i32,
    pub attention_norm: NormPublic,
    pub q: LinearPublic,
    pub k: LinearPublic,
    pub v: LinearPublic,
    pub o: LinearPublic,
    pub ffn_norm: NormPublic,
    pub gate: LinearPublic,
    pub up: LinearPublic,
    pub down: LinearPublic,
    pub gemma: Option<GemmaPublic>,
}

/// The norms that gemma has besides. Those of q and k are over one head each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GemmaPublic {
    pub q_norm: NormPublic,
    pub k_norm: NormPublic,
    pub attention_post: NormPublic,
    pub ffn_post: NormPublic,
}

impl Public {
    /// Copies what a model file says, RoPE for as many positions as are asked for.
    pub fn of(model: &Model, positions: usize) -> Public {
        let constants = Constants::new(model);
        let manifest = model.manifest().clone();
        let dims = manifest.dims;
        let positions = positions.min(dims.context_max as usize);
        let mut gains = Vec::new();
        for layer in &constants.layers {
            gains.extend([&layer.attention_norm, &layer.ffn_norm]);
            if let Some(norms) = &layer.gemma {
                let heads = [&norms.q_norm, &norms.k_norm];
                gains.extend(
                    heads
                        .into_iter()
                        .chain([&norms.attention_post, &norms.ffn_post]),
                );
            }
        }
        gains.push(&constants.final_norm);
        let gains: Vec<Vec<i32>> = gains.iter().map(|norm| norm.gains.to_vec()).collect();
        let frequencies = dims.head_dim as usize / 2;
        let rope = (0..manifest.rope_roots.len()).map(|table| {
            let pair = |at: usize| {
                let (cos, sin) = constants.rope(table, at / frequencies, at % frequencies);
                [cos, sin]
            };
            (0..positions * frequencies).map(pair).collect()
        });
        let scale = |row| constants.scale(MatrixRef::Embedding, row);
        let tables = Tables {
            exp: constants.exp.to_vec(),
            act: constants.act.to_vec(),
            rope: rope.collect(),
            embedding: (0..dims.vocab as usize).map(scale).collect(),
        };
        Public::new(manifest, gains, tables)
    }

    /// `gains`: of [`norms`], each as long as its entry says.
    pub(crate) fn new(manifest: Manifest, gains: Vec<Vec<i32>>, tables: Tables) -> Public {
        let mut gains = gains.into_iter();
        let mut gains = || gains.next().expect("gains of every norm");
        let layers = (0..).zip(&manifest.layers);
        let layers = layers.map(|(l, entry)| layer(&manifest, l, entry, &mut gains));
        let layers = layers.collect();
        let final_norm = norm(&manifest.final_norm, BASE_NORM, &mut gains);
        let pairing = match manifest.architecture {
            Architecture::Llama => Pairing::Pairs,
            Architecture::Gemma3 => Pairing::Halves,
        };
        let residual = i32::from(manifest.residual_fraction);
        let from = i32::from(manifest.final_norm.fs) - BASE_NORM;
        Public {
            head: linear(&manifest, MatrixRef::Head, from, F_LOGITS),
            embedding_shift: i32::from(manifest.embedding.sh) + 8 - residual,
            layers,
            final_norm,
            pairing,
            manifest,
            tables,
        }
    }

    /// E of a token's row of the embedding.
    ///
    /// # Panics
    /// Where there is no such token.
    pub fn embedding_scale(&self, token: TokenId) -> i64 {
        let scale_squared = match self.manifest.architecture {
            Architecture::Llama => 1,
            Architecture::Gemma3 => self.manifest.dims.width,
        };
        ops::embed::row_scale(self.tables.embedding[token as usize], scale_squared)
    }

    /// A of a row of the embedding.
    pub(crate) fn embedding(&self, row: usize) -> u16 {
        self.tables.embedding[row]
    }

    /// cos and sin, Q.14.
    pub fn rope(&self, table: usize, position: usize, frequency: usize) -> (i16, i16) {
        let frequencies = self.manifest.dims.head_dim as usize / 2;
        let [cos, sin] = self.tables.rope[table][position * frequencies + frequency];
        (cos, sin)
    }

    /// The gains of every norm, in the order of [`norms`].
    pub(crate) fn gains(&self) -> impl Iterator<Item = &[i32]> {
        let layers = self.layers.iter().flat_map(|layer| {
            let gemma = layer.gemma.iter().flat_map(|norms| {
                let heads = [&norms.q_norm, &norms.k_norm];
                heads
                    .into_iter()
                    .chain([&norms.attention_post, &norms.ffn_post])
            });
            [&layer.attention_norm, &layer.ffn_norm]
                .into_iter()
                .chain(gemma)
        });
        layers.chain([&self.final_norm]).map(|norm| &norm.gains[..])
    }

    pub fn exp(&self) -> &[u16] {
        &self.tables.exp
    }

    pub fn act(&self) -> &[u16] {
        &self.tables.act
    }
}

/// Every norm of a model, in the order in which their gains are listed.
pub(crate) fn norms(manifest: &Manifest) -> Vec<(Section, &GainEntry)> {
    let mut all = Vec::new();
    for (index, layer) in (0u16..).zip(&manifest.layers) {
        let at = |part| Section::Layer(index, part);
        all.push((at(LayerPart::AttentionNorm), &layer.attention_norm));
        all.push((at(LayerPart::FfnNorm), &layer.ffn_norm));
        if let Some(norms) = &layer.gemma {
            all.push((at(LayerPart::QNorm), &norms.q_norm));
            all.push((at(LayerPart::KNorm), &norms.k_norm));
            all.push((at(LayerPart::AttentionPost), &norms.attention_post));
            all.push((at(LayerPart::FfnPost), &norms.ffn_post));
        }
    }
    all.push((Section::FinalNorm, &manifest.final_norm));
    all
}

fn norm(entry: &GainEntry, shift: i32, gains: &mut dyn FnMut() -> Vec<i32>) -> NormPublic {
    NormPublic {
        gains: gains(),
        eps: entry.eps,
        shift,
    }
}

/// A matrix whose input and output have these fractions.
fn linear(manifest: &Manifest, matrix: MatrixRef, from: i32, to: i32) -> LinearPublic {
    let entry = matrix.entry(manifest).expect("a matrix of the manifest");
    LinearPublic {
        matrix,
        rows: entry.rows as usize,
        cols: entry.cols as usize,
        shift: i32::from(entry.sh) + from - to,
    }
}

fn layer(
    manifest: &Manifest,
    l: u32,
    entry: &LayerEntry,
    gains: &mut dyn FnMut() -> Vec<i32>,
) -> LayerPublic {
    let residual = i32::from(manifest.residual_fraction);
    let branch = match manifest.architecture {
        Architecture::Llama => residual,
        Architecture::Gemma3 => F_BRANCH,
    };
    let linear = |matrix, from, to| linear(manifest, matrix, from, to);
    let normed = |entry: &GainEntry| i32::from(entry.fs) - BASE_NORM;
    let (attention, ffn) = (normed(&entry.attention_norm), normed(&entry.ffn_norm));
    let fractions = entry.fractions;
    let scale = manifest.attention_scale;
    // In the order of `norms`.
    let attention_norm = norm(&entry.attention_norm, BASE_NORM, gains);
    let ffn_norm = norm(&entry.ffn_norm, BASE_NORM, gains);
    let gemma = entry.gemma.as_ref().map(|norms| {
        let mut to = |entry: &GainEntry, f: i32| norm(entry, i32::from(entry.fs) - f, gains);
        GemmaPublic {
            q_norm: to(&norms.q_norm, F_INNER),
            k_norm: to(&norms.k_norm, F_INNER),
            attention_post: to(&norms.attention_post, residual),
            ffn_post: to(&norms.ffn_post, residual),
        }
    });
    let mixed = F_SHARE - BASE_MIX + i32::from(fractions.v);
    LayerPublic {
        fractions,
        window: entry.window as usize,
        rope: entry.rope.into(),
        csh: i32::from(scale.csh) + i32::from(fractions.q) + i32::from(fractions.k),
        attention_norm,
        q: linear(MatrixRef::Q(l), attention, F_INNER),
        k: linear(MatrixRef::K(l), attention, F_INNER),
        v: linear(MatrixRef::V(l), attention, F_INNER),
        o: linear(MatrixRef::O(l), mixed, branch),
        ffn_norm,
        gate: linear(MatrixRef::Gate(l), ffn, F_INNER),
        up: linear(MatrixRef::Up(l), ffn, F_INNER),
        down: linear(MatrixRef::Down(l), F_ACT + F_INNER - BASE_MLP, branch),
        gemma,
    }
}

#[cfg(test)]
mod tests {
    use assay_engine::values::{LinearConstants, NormConstants};
    use assay_testkit::tiny::Tiny;

    use super::*;

    fn same_norm(a: &NormPublic, b: &NormConstants<'_>) {
        assert_eq!((&a.gains[..], a.eps, a.shift), (b.gains, b.eps, b.shift));
    }

    fn same_linear(a: &LinearPublic, b: &LinearConstants<'_>) {
        let of = |matrix, rows, cols, shift| (matrix, rows, cols, shift);
        assert_eq!(
            of(a.matrix, a.rows, a.cols, a.shift),
            of(b.matrix, b.rows, b.cols, b.shift)
        );
    }

    #[test]
    fn what_is_derived_is_what_the_engine_runs() {
        for tiny in [Tiny::llama(1), Tiny::gemma3(2)] {
            let model = tiny.model();
            let (public, engine) = (Public::of(&model, 16), Constants::new(&model));
            assert_eq!(public.embedding_shift, engine.embedding_shift);
            assert_eq!(public.pairing, engine.pairing);
            same_norm(&public.final_norm, &engine.final_norm);
            same_linear(&public.head, &engine.head);
            assert_eq!(public.layers.len(), engine.layers.len());
            for (a, b) in public.layers.iter().zip(&engine.layers) {
                assert_eq!((a.fractions, a.window), (b.fractions, b.window));
                assert_eq!((a.rope, a.csh), (b.rope, b.csh));
                same_norm(&a.attention_norm, &b.attention_norm);
                same_norm(&a.ffn_norm, &b.ffn_norm);
                for (a, b) in [(&a.q, &b.q), (&a.k, &b.k), (&a.v, &b.v), (&a.o, &b.o)] {
                    same_linear(a, b);
                }
                for (a, b) in [(&a.gate, &b.gate), (&a.up, &b.up), (&a.down, &b.down)] {
                    same_linear(a, b);
                }
                assert_eq!(a.gemma.is_some(), b.gemma.is_some());
                if let (Some(a), Some(b)) = (&a.gemma, &b.gemma) {
                    same_norm(&a.q_norm, &b.q_norm);
                    same_norm(&a.k_norm, &b.k_norm);
                    same_norm(&a.attention_post, &b.attention_post);
                    same_norm(&a.ffn_post, &b.ffn_post);
                }
            }
            for token in 0..tiny.dims.vocab {
                assert_eq!(public.embedding_scale(token), engine.embedding_scale(token));
            }
            for (table, _) in model.manifest().rope_roots.iter().enumerate() {
                for (position, frequency) in [(0, 0), (3, 5), (15, 15)] {
                    let of_engine = engine.rope(table, position, frequency);
                    assert_eq!(public.rope(table, position, frequency), of_engine);
                }
            }
        }
    }
}
