//! What a draw computes from the logits, listed: weights and their sums, both thresholds found bit by
//! bit, and the sums of what they keep. `ops::sampler` finds the same thresholds without the list.

use assay_protocol::trace::{IDS_BLOCK, Program, SEARCH_BITS};
use assay_protocol::{SamplerParams, Temperature};

use super::record::Record;
use crate::ops;

/// Added to a logit, so that thresholds are found among integers from 0 on.
const LIFT: i64 = 1 << 27;

/// A draw's parameters.
pub(super) struct Sample<'a> {
    pub(super) program: &'a Program,
    pub(super) sampler: &'a SamplerParams,
    pub(super) exp: &'a [u16; 256],
}

impl Sample<'_> {
    /// The vector of one drawn token.
    pub(super) fn record(&self, logits: &[i32], record: &mut Record) {
        let Temperature::Beta(beta) = self.sampler.temperature else {
            return;
        };
        let at = ops::sampler::argmax(logits) as usize;
        let max = i64::from(logits[at]);
        let weights: Vec<u32> = logits
            .iter()
            // At most 2^31.
            .map(|logit| ops::sampler::weight(max - i64::from(*logit), beta, self.exp) as u32)
            .collect();
        let mut totals = Vec::new();
        let total = prefix(&mut totals, logits, &weights, |_, w| w.into());
        record.i32s(logits);
        record.i64s(&[at as i64, max]);
        record.u32s(&weights);
        record.i64s(&totals);
        let mut least = i64::MIN;
        if self.program.searches_count() {
            let wanted = i64::from(self.sampler.top_k);
            let (search, found) = search(logits, &weights, |_| 1, |sum| sum >= wanted);
            record.i64s(&search);
            least = least.max(found);
        }
        if self.program.searches_sum() {
            let wanted = i128::from(total) * i128::from(self.sampler.top_p_q16);
            let suffices = |sum: i64| i128::from(sum) << 16 >= wanted;
            let (search, found) = search(logits, &weights, |w| w.into(), suffices);
            record.i64s(&search);
            least = least.max(found);
        }
        let mut kept = Vec::new();
        prefix(&mut kept, logits, &weights, |logit, w| {
            if i64::from(logit) >= least {
                w.into()
            } else {
                0
            }
        });
        record.i64s(&kept);
    }
}

/// Appends prefix sums over blocks of ids of what each id counts for; gives the last.
#[inline(always)]
fn prefix(
    sums: &mut Vec<i64>,
    logits: &[i32],
    weights: &[u32],
    counts: impl Fn(i32, u32) -> i64,
) -> i64 {
    let block = IDS_BLOCK as usize;
    let mut sum = 0;
    for (logits, weights) in logits.chunks(block).zip(weights.chunks(block)) {
        let ids = logits.iter().zip(weights);
        sum += ids.map(|(logit, w)| counts(*logit, *w)).sum::<i64>();
        sums.push(sum);
    }
    sum
}

/// The largest threshold whose sum suffices, and the way to it, a bit at a time.
#[inline(always)]
fn search(
    logits: &[i32],
    weights: &[u32],
    counts: impl Fn(u32) -> i64,
    suffices: impl Fn(i64) -> bool,
) -> (Vec<i64>, i64) {
    let (mut sums, mut found) = (Vec::new(), 0);
    for bit in (0..SEARCH_BITS).rev() {
        let candidate = found | 1 << bit;
        // Both are within 28 bits and a sign.
        let least = (candidate - LIFT) as i32;
        let sum = prefix(&mut sums, logits, weights, |logit, w| {
            if logit >= least { counts(w) } else { 0 }
        });
        if suffices(sum) {
            found = candidate;
        }
        sums.push(found);
    }
    (sums, found - LIFT)
}
