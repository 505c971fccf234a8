//! The tokens that final activations choose: logits by the head, and the sampler. For whoever checks shown
//! activations against an answer.

use assay_protocol::sampler::SamplerError;
use assay_protocol::{SamplerParams, TokenId};

use super::linear::Packed;
use super::parts::each_part;
use super::{BfpValues, Constants, PANEL};
use crate::crew::Crew;
use crate::kernels::Path;
use crate::model::Model;
use crate::ops;
use crate::pool::{Pool, Threads};

/// Positions whose logits are held at once.
const TOGETHER: usize = 4 * PANEL;

/// The model's choice after each position from `first` on, given the final norm's 12-bit activations there
/// (row i of position n at `i·positions + n`) and their exponents.
///
/// # Panics
/// Unless there is a row for every element of the width.
pub fn choices(
    model: &Model,
    x12: &[i16],
    e: &[u8],
    sampler: &SamplerParams,
    first: usize,
    threads: impl Into<Threads>,
) -> Result<Vec<TokenId>, SamplerError> {
    sampler.validate()?;
    let constants = Constants::new(model);
    let by = &constants.head;
    assert_eq!(x12.len(), by.cols * e.len(), "a row for every element");
    let crew = Crew {
        pool: Pool::new(threads),
        path: Path::detect(),
    };
    let mut chosen = Vec::with_capacity(e.len());
    for start in (0..e.len()).step_by(TOGETHER) {
        let n = TOGETHER.min(e.len() - start);
        let rows = x12.chunks_exact(e.len());
        let input = BfpValues {
            e: e[start..start + n].to_vec(),
            x12: rows
                .flat_map(|row| row[start..start + n].to_vec())
                .collect(),
            ..BfpValues::default()
        };
        let acc = super::linear::accumulated(&crew, by, &Packed::new(&crew, &input));
        // Logits position by position, as the sampler reads them.
        let mut logits = vec![0; acc.len()];
        each_part(&crew.pool, &mut logits, by.rows, |position, logits| {
            let shift = by.shift - i32::from(input.e[position]);
            for (row, logit) in logits.iter_mut().enumerate() {
                let acc = acc[row * n + position];
                *logit = ops::linear::requantize(acc, by.scale(row), shift, by.limit);
            }
        });
        for (position, logits) in logits.chunks_exact(by.rows).enumerate() {
            let next = (first + start + position) as u64 + 1;
            chosen.push(ops::sampler::choose(logits, sampler, next, constants.exp));
        }
    }
    Ok(chosen)
}
