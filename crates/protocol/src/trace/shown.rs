//! What a referee is shown of a model: a weight row and an entry of a table, each with the path to the
//! root that the manifest states. Data alone; the engine makes it, the dispute sends it.

use serde::{Deserialize, Serialize};

use crate::B256;
use crate::manifest::{Architecture, GainEntry, Manifest, MatrixEntry};

/// A matrix of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MatrixRef {
    Embedding,
    /// What makes the logits: the embedding, where that is tied.
    Head,
    Q(u32),
    K(u32),
    V(u32),
    O(u32),
    Gate(u32),
    Up(u32),
    Down(u32),
}

impl MatrixRef {
    /// What the manifest says of it; `None` where there is no such layer.
    pub fn entry(self, manifest: &Manifest) -> Option<&MatrixEntry> {
        let layer = |l: u32| manifest.layers.get(l as usize);
        match self {
            MatrixRef::Embedding => Some(&manifest.embedding),
            MatrixRef::Head => Some(manifest.head()),
            MatrixRef::Q(l) => layer(l).map(|layer| &layer.q),
            MatrixRef::K(l) => layer(l).map(|layer| &layer.k),
            MatrixRef::V(l) => layer(l).map(|layer| &layer.v),
            MatrixRef::O(l) => layer(l).map(|layer| &layer.o),
            MatrixRef::Gate(l) => layer(l).map(|layer| &layer.gate),
            MatrixRef::Up(l) => layer(l).map(|layer| &layer.up),
            MatrixRef::Down(l) => layer(l).map(|layer| &layer.down),
        }
    }
}

/// A table of the model: a norm's gains, EXP, ACT, or a RoPE table by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TableRef {
    Exp,
    Act,
    Rope(u8),
    AttentionNorm(u32),
    QNorm(u32),
    KNorm(u32),
    AttentionPost(u32),
    FfnNorm(u32),
    FfnPost(u32),
    FinalNorm,
}

impl TableRef {
    /// Its root and how many entries it is over; `None` where the model has no such table.
    pub fn root(self, manifest: &Manifest) -> Option<(B256, u64)> {
        let gain = |entry: &GainEntry| (entry.root, u64::from(entry.len));
        let layer = |l: u32| manifest.layers.get(l as usize);
        let gemma = |l: u32| {
            layer(l)
                .filter(|_| manifest.architecture == Architecture::Gemma3)
                .and_then(|layer| layer.gemma.as_ref())
        };
        match self {
            TableRef::Exp => Some((manifest.exp_root, 1 << 8)),
            TableRef::Act => Some((manifest.act_root, 1 << 16)),
            TableRef::Rope(table) => manifest
                .rope_roots
                .get(usize::from(table))
                .map(|root| (*root, manifest.dims.context_max.into())),
            TableRef::AttentionNorm(l) => layer(l).map(|layer| gain(&layer.attention_norm)),
            TableRef::QNorm(l) => gemma(l).map(|norms| gain(&norms.q_norm)),
            TableRef::KNorm(l) => gemma(l).map(|norms| gain(&norms.k_norm)),
            TableRef::AttentionPost(l) => gemma(l).map(|norms| gain(&norms.attention_post)),
            TableRef::FfnNorm(l) => layer(l).map(|layer| gain(&layer.ffn_norm)),
            TableRef::FfnPost(l) => gemma(l).map(|norms| gain(&norms.ffn_post)),
            TableRef::FinalNorm => Some(gain(&manifest.final_norm)),
        }
    }
}

/// A weight row, packed. All numbers are big-endian.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowShown {
    /// How `data` goes on after A: 0 plain, 1 to 4 codes (docs/dispute.md).
    pub format: u8,
    pub data: Vec<u8>,
    /// Siblings from the row to the matrix's top; missing ones are zero words.
    pub path: Vec<B256>,
}

/// An entry of a table, in the bytes that its leaf hashes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryShown {
    pub data: Vec<u8>,
    /// Siblings from the entry to the table's top; missing ones are zero words.
    pub path: Vec<B256>,
}

impl RowShown {
    /// The row's scale and plain weights; `None` where the bytes are no row of so many columns.
    pub fn expand(&self, cols: usize) -> Option<(u16, Vec<i16>)> {
        let (scale, body) = self.data.split_first_chunk::<2>()?;
        let short = |bytes: &[u8], at: usize| i16::from_be_bytes([bytes[at], bytes[at + 1]]);
        // Columns and bytes of a block.
        let (columns, len) = match self.format {
            0 => (1, 2),
            1 => (32, 20),
            2 => (32, 34),
            3 => (16, 18),
            4 => (128, 112),
            _ => return None,
        };
        if !cols.is_multiple_of(columns) || Some(body.len()) != (cols / columns).checked_mul(len) {
            return None;
        }
        let weights = body.chunks_exact(len).flat_map(|block| {
            let d = short(block, 0);
            match self.format {
                0 => vec![d],
                1 => {
                    let m = short(block, 2);
                    let weight = |q: u8| d.wrapping_mul(q.into()).wrapping_add(m);
                    let codes = &block[4..];
                    let low = codes.iter().map(|code| weight(code & 15));
                    low.chain(codes.iter().map(|code| weight(code >> 4)))
                        .collect()
                }
                4 => sixes(block),
                _ => block[2..]
                    .iter()
                    .map(|code| d.wrapping_mul((*code as i8).into()))
                    .collect::<Vec<i16>>(),
            }
        });
        Some((u16::from_be_bytes(*scale), weights.collect()))
    }

    /// The data that the manifest's leaf hashes: the scale, then plain weights.
    pub fn leaf_data(&self, cols: usize) -> Option<Vec<u8>> {
        let (scale, weights) = self.expand(cols)?;
        let weights = weights.iter().flat_map(|w| w.to_be_bytes());
        Some(scale.to_be_bytes().into_iter().chain(weights).collect())
    }
}

/// The weights of a block of format 4: eight `D`, one for 16 columns each, and three words of 16 numbers,
/// of which number i holds column i of groups 2k and 2k + 1 in its upper twelve bits. The lower four
/// of the three together hold groups 6 and 7 likewise.
fn sixes(block: &[u8]) -> Vec<i16> {
    let short = |at: usize| u16::from_be_bytes([block[2 * at], block[2 * at + 1]]);
    let number = |word: usize, i: usize| short(8 + 16 * word + i);
    let weight = |group: usize, i: usize| {
        let pair = match group / 2 {
            3 => (0..3).fold(0, |pair, word| pair << 4 | number(word, i) & 15),
            word => number(word, i) >> 4,
        };
        let code = pair >> (6 * (1 - group % 2)) & 63;
        (short(group) as i16).wrapping_mul(code as i16 - 32)
    };
    (0..128)
        .map(|column| weight(column / 16, column % 16))
        .collect()
}
