//! Weight rows and table entries as a referee is shown them, each with its path to the root that the
//! manifest states. Hashes a whole matrix for one path; asked for a few times a dispute.

use assay_protocol::trace::{EntryShown, MatrixRef, RowShown, TableRef};
use assay_protocol::{B256, merkle};

use super::{TraceError, hash};
use crate::kernels::{self, Path};
use crate::layout::{BLOCK, Format, MatrixView, PANEL};
use crate::model::{Inner, Layer, Model};
use crate::pool::Pool;
use crate::shared::Shared;

/// Columns of a block of 6-bit codes.
const SIXES: usize = 128;

fn missing(what: impl std::fmt::Debug, row: u64) -> TraceError {
    TraceError::NoSuchRow {
        what: format!("{what:?}"),
        row,
    }
}

/// A row of a matrix, packed as the model file packs it.
pub fn weight_row(
    model: &Model,
    threads: usize,
    matrix: MatrixRef,
    row: u32,
) -> Result<RowShown, TraceError> {
    let inner = &*model.inner;
    let view = view(inner, matrix)
        .filter(|view| (row as usize) < view.rows)
        .ok_or_else(|| missing(matrix, row.into()))?;
    let (format, data) = packed(&view, row as usize);
    let path = merkle::open(&row_hashes(&view, threads), row.into())
        .ok_or_else(|| missing(matrix, row.into()))?
        .siblings;
    Ok(RowShown { format, data, path })
}

/// An entry of a table: a gain, an entry of EXP or ACT, a position's RoPE row.
pub fn entry(model: &Model, table: TableRef, index: u64) -> Result<EntryShown, TraceError> {
    let inner = &*model.inner;
    let entries = entries(inner, table).ok_or_else(|| missing(table, index))?;
    let hashes: Vec<B256> = entries.iter().map(|data| merkle::leaf(data)).collect();
    let path = merkle::open(&hashes, index).ok_or_else(|| missing(table, index))?;
    Ok(EntryShown {
        data: entries[path.index as usize].clone(),
        path: path.siblings,
    })
}

fn layer(inner: &Inner, number: u32) -> Option<&Layer> {
    inner.layers.get(number as usize)
}

fn view(inner: &Inner, matrix: MatrixRef) -> Option<MatrixView<'_>> {
    let of = |number, pick: fn(&Layer) -> &crate::model::Linear| {
        layer(inner, number).map(|layer| &pick(layer).matrix)
    };
    let matrix = match matrix {
        MatrixRef::Embedding => Some(&inner.embedding),
        MatrixRef::Head => Some(&inner.head.matrix),
        MatrixRef::Q(l) => of(l, |layer| &layer.q),
        MatrixRef::K(l) => of(l, |layer| &layer.k),
        MatrixRef::V(l) => of(l, |layer| &layer.v),
        MatrixRef::O(l) => of(l, |layer| &layer.o),
        MatrixRef::Gate(l) => of(l, |layer| &layer.gate),
        MatrixRef::Up(l) => of(l, |layer| &layer.up),
        MatrixRef::Down(l) => of(l, |layer| &layer.down),
    };
    Some(matrix?.view(inner))
}

/// All entries of a table, in the bytes that their leaves hash.
fn entries(inner: &Inner, table: TableRef) -> Option<Vec<Vec<u8>>> {
    let gains = |norm: &crate::model::Norm| -> Vec<Vec<u8>> {
        norm.gains
            .iter()
            .map(|g| g.to_be_bytes().to_vec())
            .collect()
    };
    let shorts = |table: &[u16]| -> Vec<Vec<u8>> {
        table.iter().map(|t| t.to_be_bytes().to_vec()).collect()
    };
    let gemma = |l| layer(inner, l).and_then(|layer| layer.gemma.as_ref());
    match table {
        TableRef::Exp => Some(shorts(&inner.exp.narrow)),
        TableRef::Act => Some(shorts(&inner.act[..])),
        TableRef::Rope(table) => {
            let table = usize::from(table);
            let positions = 0..inner.manifest.dims.context_max as usize;
            let position = |position| {
                let at = inner.rope_at(table, position);
                (0..at.frequencies())
                    .map(|i| at.get(i))
                    .flat_map(|(cos, sin)| [cos.to_be_bytes(), sin.to_be_bytes()])
                    .flatten()
                    .collect()
            };
            (table < inner.manifest.rope_roots.len()).then(|| positions.map(position).collect())
        }
        TableRef::AttentionNorm(l) => layer(inner, l).map(|layer| gains(&layer.attention_norm)),
        TableRef::QNorm(l) => gemma(l).map(|norms| gains(&norms.q_norm)),
        TableRef::KNorm(l) => gemma(l).map(|norms| gains(&norms.k_norm)),
        TableRef::AttentionPost(l) => gemma(l).map(|norms| gains(&norms.attention_post)),
        TableRef::FfnNorm(l) => layer(inner, l).map(|layer| gains(&layer.ffn_norm)),
        TableRef::FfnPost(l) => gemma(l).map(|norms| gains(&norms.ffn_post)),
        TableRef::FinalNorm => Some(gains(&inner.final_norm)),
    }
}

/// The number of a row's packing, and its bytes: the file's numbers, turned big-endian and brought
/// together block by block.
fn packed(view: &MatrixView<'_>, row: usize) -> (u8, Vec<u8>) {
    let codes: Vec<i16> = (0..view.cols).map(|k| view.code(row, k)).collect();
    let bytes: Vec<u8> = codes.iter().map(|q| *q as u8).collect();
    let d = |column: usize| view.factors(row, column).0.to_be_bytes();
    let mut data = view.scale(row).to_be_bytes().to_vec();
    let mut blocks = |len: usize| {
        for (b, codes) in bytes.chunks_exact(len).enumerate() {
            data.extend(d(b * len));
            data.extend(codes);
        }
    };
    let format = match view.format {
        Format::I16 => {
            data.extend(codes.iter().flat_map(|w| w.to_be_bytes()));
            0
        }
        Format::U4 => {
            for (b, codes) in bytes.chunks_exact(BLOCK).enumerate() {
                let (d, m) = view.factors(row, b * BLOCK);
                data.extend([d.to_be_bytes(), m.to_be_bytes()].as_flattened());
                let (low, high) = codes.split_at(BLOCK / 2);
                data.extend(low.iter().zip(high).map(|(l, h)| l | h << 4));
            }
            1
        }
        Format::I8x32 | Format::I5 => {
            blocks(BLOCK);
            2
        }
        Format::I8x16 if fits_six(&bytes) => {
            for (group, codes) in bytes.chunks_exact(SIXES).enumerate() {
                data.extend((0..8).flat_map(|i| d(group * SIXES + 16 * i)));
                data.extend(sixes(codes).as_flattened());
            }
            4
        }
        Format::I8x16 => {
            blocks(16);
            3
        }
    };
    (format, data)
}

/// Whether codes are as a 6-bit quantization leaves them, in whole blocks.
fn fits_six(codes: &[u8]) -> bool {
    let six = |code: &u8| (-32..32).contains(&(*code as i8));
    codes.len().is_multiple_of(SIXES) && codes.iter().all(six)
}

/// Three words of 16 numbers, the k-th with groups 2k and 2k + 1 of 16 codes in the upper twelve bits; the
/// lower four of the three together are of groups 6 and 7. Each code has 32 added. So a referee parts
/// sixteen columns at a time, by one mask.
fn sixes(codes: &[u8]) -> [[u8; 2]; 48] {
    let pair = |groups: usize, i: usize| {
        let code = |group: usize| u16::from(codes[16 * group + i].wrapping_add(32));
        code(2 * groups) << 6 | code(2 * groups + 1)
    };
    std::array::from_fn(|at| {
        let (word, i) = (at / 16, at % 16);
        (pair(word, i) << 4 | pair(3, i) >> (8 - 4 * word) & 15).to_be_bytes()
    })
}

/// The leaves of all rows.
fn row_hashes(view: &MatrixView<'_>, threads: usize) -> Vec<B256> {
    let (pool, path) = (Pool::new(threads.max(1)), Path::detect());
    let mut hashes = vec![B256::ZERO; view.rows];
    let shared = Shared::new(&mut hashes);
    pool.run(view.panels(), &|panel| {
        let rows = panel * PANEL..view.rows.min((panel + 1) * PANEL);
        // Safety: one task a panel.
        let hashes = unsafe { shared.slice(rows.clone()) };
        let mut w = vec![0i16; PANEL * view.cols];
        kernels::unpack_rows(path, view, panel, &mut w);
        let mut data = vec![0u8; rows.len() * (2 + 2 * view.cols)];
        let places = data.chunks_exact_mut(2 + 2 * view.cols);
        for ((row, w), data) in rows.zip(w.chunks_exact(view.cols)).zip(places) {
            data[..2].copy_from_slice(&view.scale(row).to_be_bytes());
            for (place, w) in data[2..].chunks_exact_mut(2).zip(w) {
                place.copy_from_slice(&w.to_be_bytes());
            }
        }
        let found = hash::leaves(path, data.chunks_exact(2 + 2 * view.cols));
        for (hash, found) in hashes.iter_mut().zip(found) {
            *hash = found.into();
        }
    });
    hashes
}
