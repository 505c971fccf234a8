//! The choice of a token without sampling, for all ids of the vocabulary: the chosen logit is the largest,
//! and the lowest id of equals has it. Logits are not committed, only how far each is from refuting this.

use assay_engine::ops;
use assay_protocol::trace::MatrixRef;
use p3_field::PrimeCharacteristicRing;

use super::program::{Bfp, RelationError, Walk};
use super::table::{LIMB, Tag};
use super::{Column, Known, ONES, Product, Term, cell, public};
use crate::clear::GreedyClear;
use crate::field::{F, signed};

/// Rows that one tree takes: a vocabulary is too long for one.
const ROWS: usize = 1 << 14;
const LIMBS: usize = 3;
const NAMES: [&str; LIMBS] = ["slack.0", "slack.1", "slack.2"];
/// A logit's bound times 2^s stays below the limbs' 2^54, and so does the sum of both sides.
const SHIFT_MAX: i32 = 24;

/// Where the distances go.
pub struct GreedyColumns {
    pub limbs: [Column; LIMBS],
}

impl GreedyColumns {
    /// Each limb with its power of two.
    pub fn terms(&self) -> Vec<(Column, i64)> {
        let limb = |(i, column): (usize, &Column)| (*column, 1i64 << (LIMB as usize * i));
        self.limbs.iter().enumerate().map(limb).collect()
    }
}

impl Walk<'_> {
    /// `slack(v, t) = (M + 1 − [v < y])·2^s − 2^(s−1) − 1 − acc_v·A_v ≥ 0` says of every id v that its logit
    /// `rsh(acc_v·A_v, s)` is at most M, and less where v stands before y. At y itself the slack is below
    /// 2^s exactly where M is y's logit. So y and M are unique. M lies within the clamp's limits, so that
    /// clamping no other logit changes the choice.
    pub fn greedy(
        &mut self,
        last: &Bfp,
        clear: &GreedyClear,
    ) -> Result<GreedyColumns, RelationError> {
        let by = &self.public().head;
        let vocab = by.rows;
        let shifts: Vec<i32> = last
            .shift
            .by
            .iter()
            .map(|s| by.shift - (s - assay_engine::values::BASE_NORM))
            .collect();
        if shifts.iter().any(|s| !(1..=SHIFT_MAX).contains(s)) {
            return Err(RelationError::Wraps("head"));
        }
        let known = |y: &u32| (*y as usize) < vocab;
        let within = |m: &i64| m.unsigned_abs() < u64::from(ops::LOGIT_MAX.unsigned_abs());
        if !clear.chosen.iter().all(known) || !clear.logits.iter().all(within) {
            return Err(RelationError::Clear("a chosen token or its logit"));
        }
        let mut slacks = clear.slacks.iter().zip(&shifts);
        if !slacks.all(|(slack, s)| *slack < 1 << s) {
            return Err(RelationError::Clear("a chosen logit"));
        }
        let r = &mut self.relation;
        let columns = GreedyColumns {
            limbs: NAMES.map(|name| r.column(name, vocab)),
        };
        for first in (0..vocab).step_by(ROWS) {
            r.groups.push(Vec::new());
            for limb in columns.limbs {
                let slice = limb.slice(first, ROWS.min(vocab - first));
                r.look_up(Tag::Bits(LIMB), &[slice]);
            }
        }
        let bound = |(m, s): (&i64, &i32)| signed(((m + 1) << s) - (1 << (s - 1)) - 1);
        let bound = r.vector(clear.logits.iter().zip(&shifts).map(bound).collect());
        let step = r.vector(shifts.iter().map(|s| F::from_u64(1 << s)).collect());
        r.products.push(Product::Matrix {
            matrix: MatrixRef::Head,
            input: last.x12,
        });
        let mut terms = vec![
            Term::Product {
                product: r.products.len() - 1,
                tokens: ONES,
            },
            public(-F::ONE, bound),
            Term::Before {
                at: clear.chosen.clone(),
                tokens: step,
            },
        ];
        let limbs = columns.terms();
        terms.extend(limbs.iter().map(|(column, k)| cell(*column, *k, ONES)));
        r.constraint("largest logit", vocab, terms);
        r.known.push(Known::Gather {
            terms: limbs
                .iter()
                .map(|(column, k)| (*column, *k, ONES))
                .collect(),
            at: clear.chosen.clone(),
            values: clear.slacks.iter().map(|slack| *slack as i64).collect(),
        });
        Ok(columns)
    }
}
