//! What both sides derive from the number of values alone: the oracles of an opening, their sizes and their
//! queries. Nothing of it is ever read from a proof.

use crate::field::log2_ceil;
use crate::security::Probability;

/// Grinding before the positions of an oracle are drawn; it stands in for that many bits of queries.
pub(super) const GRIND_BITS: usize = 18;
/// Soundness of the queries into one oracle, with grinding, in hundredths of a bit. An opening has at most
/// five oracles and a proof two openings, so that their sum keeps above 100 bits.
pub(super) const ORACLE_CENTIBITS: u32 = 10_450;
/// The first fold takes this many variables, as far as the columns keep a sensible length.
const FIRST_FOLD: usize = 6;
const FIRST_LOG_LEN_MIN: usize = 8;
/// Variables that a later oracle folds: fewer would take more oracles, more would take longer rows.
const FOLD: usize = 4;
/// A polynomial of so few variables is sent instead of committed.
const LAST_VARIABLES_MAX: usize = 11;
/// Rates of the later oracles: each is small beside the first, so that a lower rate costs little and saves
/// queries.
const LOG_INV_RATES: [usize; 4] = [2, 4, 6, 7];
/// Most values of one commitment: the domain stays within the field's subgroup of 2^32 elements.
pub(super) const LEN_MAX: usize = 1 << 31;

/// A committed matrix: each column the coefficients of a polynomial, encoded on one domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    /// Variables of a column: it has 2^this coefficients.
    pub(super) log_len: usize,
    /// Columns over the base field; an element of K is two of them.
    pub(super) columns: usize,
    pub(super) log_inv_rate: usize,
    /// Positions drawn; equal ones are opened once.
    pub(super) queries: usize,
}

impl Shape {
    fn new(log_len: usize, columns: usize, log_inv_rate: usize) -> Self {
        let error = |queries: &usize| query_error(*queries, log_inv_rate).centibits();
        let enough = (1..).find(|queries| error(queries) >= ORACLE_CENTIBITS);
        Shape {
            log_len,
            columns,
            log_inv_rate,
            queries: enough.expect("each query adds bits"),
        }
    }

    pub(super) fn len(&self) -> usize {
        1 << self.log_len
    }

    pub(super) fn log_positions(&self) -> usize {
        self.log_len + self.log_inv_rate
    }

    pub(super) fn positions(&self) -> usize {
        1 << self.log_positions()
    }

    /// What the queries miss, with grinding.
    pub(super) fn query_error(&self) -> Probability {
        query_error(self.queries, self.log_inv_rate)
    }
}

/// In the regime of unique decoding a position misses with probability (1 + rate)/2.
fn query_error(queries: usize, log_inv_rate: usize) -> Probability {
    let work = Probability::bits(GRIND_BITS as u32);
    let miss =
        |error: Probability, _| error.times((1 << log_inv_rate) + 1, log_inv_rate as u32 + 1);
    (0..queries).fold(work, miss)
}

/// The first oracle, over the base field, and the later ones, over K.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Schedule {
    pub(super) first: Shape,
    pub(super) later: Vec<Shape>,
}

impl Schedule {
    /// None for no values, or more than a commitment may hold.
    pub(super) fn new(len: usize) -> Option<Self> {
        if len == 0 || len > LEN_MAX {
            return None;
        }
        let log_len = log2_ceil(len)
            .saturating_sub(FIRST_FOLD)
            .max(FIRST_LOG_LEN_MIN);
        let first = Shape::new(log_len, len.div_ceil(1 << log_len), 1);
        let mut later = Vec::new();
        let mut variables = log_len;
        while variables > LAST_VARIABLES_MAX {
            variables -= FOLD;
            let rate = LOG_INV_RATES[later.len().min(LOG_INV_RATES.len() - 1)];
            later.push(Shape::new(variables, 2 << FOLD, rate));
        }
        Some(Schedule { first, later })
    }

    /// Variables that the caller's point has.
    pub(super) fn variables(len: usize) -> usize {
        log2_ceil(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_oracle_continues_the_one_before() {
        for log in 0..=31 {
            for len in [(1usize << log) / 2 + 1, 1 << log] {
                let schedule = Schedule::new(len).expect("within the bounds");
                let first = schedule.first;
                assert!(first.columns * first.len() >= len);
                assert!((first.columns - 1) * first.len() < len, "no empty column");
                let mut variables = first.log_len;
                for shape in &schedule.later {
                    assert_eq!(shape.columns << shape.log_len, 2 << variables);
                    variables = shape.log_len;
                }
                assert!(variables <= LAST_VARIABLES_MAX);
                assert!(schedule.later.len() <= 4);
            }
        }
        assert_eq!(Schedule::new(0), None);
        assert_eq!(Schedule::new(LEN_MAX + 1), None);
    }
}
