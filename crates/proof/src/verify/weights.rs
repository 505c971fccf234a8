//! What a proof claims of the weights, checked against them or against the commitment to them.

#[cfg(test)]
mod tests;

use assay_engine::Model;
use assay_engine::values::Constants;

use super::Rejection;
use crate::argument::{self, Instance, Linear};
use crate::claim::Key;
use crate::commit::{self, Commitment};
use crate::committed::Layout;
use crate::field::K;
use crate::functional::{self, Functional};
use crate::products::Reduced;
use crate::schedule::{self, Parts, WeightsOpened};
use crate::transcript::Transcript;
use crate::weights::contracted;

/// A key without the weights needs them opened, and from its own commitment.
pub(super) fn check_opened(
    key: &Key<'_>,
    opened: &Option<(Commitment, Layout)>,
) -> Result<(), Rejection> {
    match (key, opened) {
        (Key::Weights(_), _) => Ok(()),
        (Key::Committed(_), None) => Err(Rejection::WeightsNotOpened),
        (Key::Committed(key), Some((opened, _))) if *opened == key.weights() => Ok(()),
        (Key::Committed(key), Some((opened, _))) => Err(Rejection::WrongKey {
            opened: opened.0.into(),
            known: key.weights().0.into(),
        }),
    }
}

/// The embedding's value: read from the weights, or what the proof says and opens.
pub(super) fn embedding(
    key: &Key<'_>,
    instance: &Instance<'_>,
    linear: &Linear,
    parts: &Parts,
) -> Result<K, Rejection> {
    let stated = parts.weights.as_ref().map(|opened| opened.embedded);
    match (key, stated) {
        (Key::Weights(model), stated) => {
            let own = argument::embedded(&Constants::new(model), instance, linear);
            match stated.is_none_or(|stated| stated == own) {
                true => Ok(own),
                false => Err(Rejection::Embedding),
            }
        }
        (Key::Committed(_), Some(stated)) => Ok(stated),
        (Key::Committed(_), None) => Err(Rejection::WeightsNotOpened),
    }
}

/// The products' factors that are matrices, against the weights themselves.
pub(super) fn check_matrices(
    model: &Model,
    instance: &Instance<'_>,
    linear: &Linear,
    reduced: &Reduced,
    threads: usize,
) -> Result<(), Rejection> {
    let matrices = argument::matrices(instance.relation);
    let shapes: Vec<_> = matrices.iter().map(|(_, shape)| *shape).collect();
    let constants = Constants::new(model);
    let sums = contracted(&constants, &shapes, &linear.rows, threads);
    for ((place, _), sums) in matrices.iter().zip(&sums) {
        if reduced.factors[*place].0 != argument::matrix_at(sums, &reduced.point) {
            return Err(Rejection::Weights);
        }
    }
    Ok(())
}

/// The products' factors that are matrices and the embedding's value, against the commitment.
pub(super) fn check_weights(
    commitment: Commitment,
    layout: &Layout,
    claims: &Functional,
    opened: &WeightsOpened,
    t: &mut Transcript,
) -> Result<(), Rejection> {
    let (point, value) = functional::verify(claims, layout.rows, &opened.functional, t)
        .map_err(Rejection::WeightsFunctional)?;
    let point = schedule::opening_point(layout.len(), &point);
    commit::verify(&commitment, layout.len(), &point, value, &opened.opening, t)
        .map_err(Rejection::WeightsOpening)
}
