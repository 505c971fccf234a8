//! The weights as one committed matrix, and what a proof claims of it: each product's factor that is a
//! matrix, and the tokens' rows of the embedding. Whoever verifies against the commitment needs no weights.
//!
//! A row has [`COLUMNS`] values. A layer's matrix stands as A(r)·w(r, k), row after row, each cut into runs
//! of [`COLUMNS`]; the embedding as plain w, as its A are public; the head, where it is one of its own, as
//! A·w again. A row's last run is filled up with zeros, on which the claims rely: they give those places
//! weight. The commitment is part of the model's key, so that no prover chooses it.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::thread;

use assay_engine::Model;
use assay_engine::values::{Constants, PANEL};
use assay_protocol::ModelId;
use assay_protocol::manifest::Manifest;
use assay_protocol::trace::MatrixRef;
use p3_field::PrimeCharacteristicRing;

use crate::argument::{Claims, Instance, Linear, matrices};
use crate::commit::{self, Commitment};
use crate::field::{F, K, eq_table, log2_ceil, signed};
use crate::functional::{self, Functional};
use crate::matrix::TraceMatrix;
use crate::products::Reduced;
use crate::relation::{Column, Relation};
use crate::security::{Probability, Security};
use crate::transcript::Transcript;

/// Values of a row: widths of real models are multiples of it.
pub(crate) const COLUMNS: usize = 64;
/// Panels that a thread fills at a time.
const PIECE: usize = 16;

/// Where a matrix stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) first: usize,
    pub(crate) rows: usize,
    cols: usize,
}

impl Place {
    /// Rows of the committed matrix that one of this matrix takes.
    pub(crate) fn runs(&self) -> usize {
        self.cols.div_ceil(COLUMNS)
    }
}

/// The places of all matrices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layout {
    places: BTreeMap<MatrixRef, Place>,
    /// In the order of their places.
    order: Vec<MatrixRef>,
    pub(crate) rows: usize,
}

impl Layout {
    /// Of a manifest whose shapes are within the engine's bounds.
    pub(crate) fn of(manifest: &Manifest) -> Layout {
        let layer = |l: u32| {
            [
                MatrixRef::Q(l),
                MatrixRef::K(l),
                MatrixRef::V(l),
                MatrixRef::O(l),
                MatrixRef::Gate(l),
                MatrixRef::Up(l),
                MatrixRef::Down(l),
            ]
        };
        let mut order: Vec<MatrixRef> = (0..manifest.dims.layers).flat_map(layer).collect();
        order.push(MatrixRef::Embedding);
        order.extend(manifest.head.map(|_| MatrixRef::Head));
        let (mut places, mut rows) = (BTreeMap::new(), 0);
        for matrix in &order {
            let entry = matrix.entry(manifest).expect("a matrix of the manifest");
            let place = Place {
                first: rows,
                rows: entry.rows as usize,
                cols: entry.cols as usize,
            };
            rows += place.rows * place.runs();
            places.insert(*matrix, place);
        }
        Layout {
            places,
            order,
            rows,
        }
    }

    /// A tied head stands where the embedding does.
    pub(crate) fn place(&self, matrix: MatrixRef) -> Place {
        let own = self.places.get(&matrix);
        *own.unwrap_or_else(|| &self.places[&MatrixRef::Embedding])
    }

    /// Values of the committed matrix.
    pub(crate) fn len(&self) -> usize {
        self.rows * COLUMNS
    }

    /// Whether a commitment can hold them.
    pub(crate) fn fits(&self) -> bool {
        commit::fits(self.len())
    }

    /// All weights.
    pub(crate) fn matrix(&self, constants: &Constants<'_>, threads: usize) -> TraceMatrix {
        let mut matrix = TraceMatrix::zeros(self.rows, COLUMNS);
        let mut rest = matrix.run_mut(0, self.rows);
        let mut pieces = Vec::new();
        for matrix in &self.order {
            let place = self.place(*matrix);
            let (all, after) = rest.split_at_mut(place.rows * place.runs() * COLUMNS);
            let long = PIECE * PANEL * place.runs() * COLUMNS;
            let of = |(i, piece)| (*matrix, i * PIECE, piece);
            pieces.extend(all.chunks_mut(long).enumerate().map(of));
            rest = after;
        }
        let next = Mutex::new(pieces.into_iter());
        let work = || loop {
            let piece = next.lock().expect("no other thread panics").next();
            let Some((matrix, panel, piece)) = piece else {
                return;
            };
            self.fill(constants, matrix, panel, piece);
        };
        thread::scope(|scope| {
            for _ in 0..threads.max(1) {
                scope.spawn(work);
            }
        });
        matrix
    }

    /// Some of a matrix's rows, from a panel on.
    fn fill(&self, constants: &Constants<'_>, matrix: MatrixRef, panel: usize, out: &mut [i32]) {
        let place = self.place(matrix);
        let long = place.runs() * COLUMNS;
        let mut w = vec![0i16; PANEL * place.cols];
        for (panel, out) in (panel..).zip(out.chunks_mut(PANEL * long)) {
            constants.panel(matrix, panel, &mut w);
            let rows = out.chunks_mut(long).zip(w.chunks(place.cols));
            for (row, (out, w)) in (panel * PANEL..).zip(rows) {
                let scale = match matrix {
                    MatrixRef::Embedding => 1,
                    _ => i32::from(constants.scale(matrix, row)),
                };
                // |w| ≤ 2^15 and A < 2^16: an i32 holds the product.
                for (out, w) in out.iter_mut().zip(w) {
                    *out = i32::from(*w) * scale;
                }
            }
        }
    }
}

/// The commitment's tree, which a prover keeps: 64 bytes for each position of a column. The matrix itself is
/// read from the model again where it is opened.
pub struct WeightsCommitted {
    model: ModelId,
    layout: Layout,
    commitment: Commitment,
    committed: commit::Committed,
}

impl WeightsCommitted {
    /// Commits to a model's weights: about as much work as committing to a trace of as many values.
    pub(crate) fn new(model: &Model, layout: Layout, threads: usize) -> Self {
        let matrix = layout.matrix(&Constants::new(model), threads);
        let (commitment, committed) = commit::commit(matrix.values(), threads);
        WeightsCommitted {
            model: model.id(),
            layout,
            commitment,
            committed,
        }
    }

    pub fn model_id(&self) -> ModelId {
        self.model
    }

    pub fn commitment(&self) -> Commitment {
        self.commitment
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    pub(crate) fn committed(&self) -> &commit::Committed {
        &self.committed
    }
}

/// A point's equalities over a run's places, and over the runs.
fn cut(point: &[K], runs: usize) -> (Vec<K>, Vec<K>) {
    let within = log2_ceil(COLUMNS);
    let mut point = point.to_vec();
    point.resize(point.len().max(within), K::ZERO);
    let (low, high) = point.split_at(within);
    (eq_table(low, COLUMNS), eq_table(high, runs))
}

/// All that a proof claims of the weights, as one functional of the committed matrix. Each matrix m has
/// `Σ_r eq(rows, r)·Σ_k eq(κ, k)·A·w = ` its factor at the products' point κ; the embedding's value is
/// `Σ_t eq(tokens, t)·E(tok_t)·Σ_i eq(rows, i)·w(tok_t, i)`.
pub(crate) fn functional(
    layout: &Layout,
    instance: &Instance<'_>,
    linear: &Linear,
    reduced: &Reduced,
    embedded: K,
    t: &mut Transcript,
) -> Functional {
    let mut claims = Claims::new(t.challenge("weights: batching"));
    let matrices = matrices(instance.relation);
    let places = matrices
        .iter()
        .map(|(_, (matrix, ..))| layout.place(*matrix));
    let (low, high) = cut(&reduced.point, places.map(|p| p.runs()).max().unwrap_or(1));
    let vector = claims.vector(low);
    for (product, (matrix, rows, _)) in matrices {
        let place = layout.place(matrix);
        let high = &high[..place.runs()];
        let tied = matrix == MatrixRef::Head && instance.public.manifest.head.is_none();
        let mut weights = Vec::with_capacity(rows * high.len());
        for (row, eq) in linear.rows[..rows].iter().enumerate() {
            let mut scale = *eq * claims.scale();
            if tied {
                scale *= F::from_u16(instance.public.embedding(row));
            }
            weights.extend(high.iter().map(|high| scale * *high));
        }
        claims.add_scaled(vector, rows_of(place, 0, rows), weights);
        claims.close(reduced.factors[product].0);
    }
    let place = layout.place(MatrixRef::Embedding);
    let (low, high) = cut(&linear.row_point, place.runs());
    let vector = claims.vector(low);
    for (token, eq) in instance.tokens.iter().zip(&linear.tokens) {
        let scale = *eq * signed(instance.public.embedding_scale(*token));
        let weights = high.iter().map(|high| scale * *high).collect();
        claims.add(vector, rows_of(place, *token as usize, 1), weights);
    }
    claims.close(embedded);
    claims.functional
}

/// The errors of a proof's claims about the weights and of their opening, beside those of all else.
pub(crate) fn security(layout: &Layout, relation: &Relation) -> Security {
    let mut security = Security::default();
    let claims = matrices(relation).len() as u128;
    let reduced = functional::error_over_field(layout.rows, COLUMNS);
    for (part, error) in [
        ("weights: batching of claims", claims),
        ("weights: functional's sumcheck", reduced),
    ] {
        security.add(part, Probability::over_field(error));
    }
    security.parts.extend(commit::security(layout.len()).parts);
    security
}

/// The committed matrix's rows of `rows` of a matrix's rows.
fn rows_of(place: Place, first: usize, rows: usize) -> Column {
    Column {
        first: place.first + first * place.runs(),
        rows: rows * place.runs(),
        stride: 1,
    }
}

#[cfg(test)]
mod tests {
    use assay_testkit::tiny::Tiny;

    use super::*;

    #[test]
    fn every_weight_stands_in_its_place_and_the_rest_is_zero() {
        for tiny in [Tiny::llama(1), Tiny::gemma3(2)] {
            let model = tiny.model();
            let constants = Constants::new(&model);
            let layout = Layout::of(model.manifest());
            let matrix = layout.matrix(&constants, 2);
            let mut next = 0;
            for of in &layout.order {
                let place = layout.place(*of);
                assert_eq!(place.first, next);
                let mut w = vec![0i16; place.cols];
                for row in 0..place.rows {
                    constants.row(*of, row, &mut w);
                    let a = match of {
                        MatrixRef::Embedding => 1,
                        _ => i32::from(constants.scale(*of, row)),
                    };
                    let run = matrix.run(place.first + row * place.runs(), place.runs());
                    let (weights, zeros) = run.split_at(place.cols);
                    assert!(weights.iter().zip(&w).all(|(v, w)| *v == i32::from(*w) * a));
                    assert!(zeros.iter().all(|v| *v == 0));
                }
                next += place.rows * place.runs();
            }
            assert_eq!(next, layout.rows);
            assert_eq!(layout.order.contains(&MatrixRef::Head), !tiny.tied);
        }
    }
}
