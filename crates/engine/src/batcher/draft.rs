//! Guesses what a sequence says next by what followed the last time that it said the same, for answers that
//! copy their prompt or repeat themselves. A guess costs a row of the step and is kept only where the model
//! chooses the same, so that answers do not depend on it; and who guesses badly soon may not.

use assay_protocol::TokenId;

/// Tokens that must have come before, in this order; who has no credit beyond one try needs the first.
const MATCHES: [usize; 2] = [3, 2];
/// Tokens guessed at once.
const DRAFT_MIN: usize = 2;
const DRAFT_MAX: usize = 8;

/// What a step of one row costs. Guesses are paid from a credit that their successes and, a little, every
/// step fill: guessing costs an answer at most that little, 1/128 of its time, and one try.
const STEP: i32 = 128;
const CREDIT_A_STEP: i32 = 1;
const CREDIT_MAX: i32 = 6 * STEP;

/// What guesses cost beyond the step itself, measured with SmolLM2 on two cores with AVX2: steps of 3, 5 and
/// 9 rows took 2.2, 2.8 and 4.6 times as long as one of a single row.
const COST_ANY: i32 = STEP * 3 / 4;
const COST_EACH: i32 = STEP * 3 / 8;

fn cost(guesses: usize) -> i32 {
    COST_ANY + COST_EACH * guesses as i32
}

/// How well a sequence's guesses went.
#[derive(Debug)]
pub(super) struct Drafter {
    /// Tokens that it guesses the next time.
    most: usize,
    credit: i32,
}

impl Default for Drafter {
    fn default() -> Self {
        Drafter {
            most: DRAFT_MIN,
            credit: cost(DRAFT_MIN),
        }
    }
}

impl Drafter {
    /// Guesses at most `room` tokens that follow `tokens`; called once a step.
    pub(super) fn draft(&mut self, tokens: &[TokenId], room: usize) -> Vec<TokenId> {
        self.credit = (self.credit + CREDIT_A_STEP).min(CREDIT_MAX);
        let affordable = (self.credit - COST_ANY) / COST_EACH;
        let count = self.most.min(affordable.max(0) as usize);
        if count < DRAFT_MIN {
            return Vec::new();
        }
        let rich = self.credit >= 2 * cost(DRAFT_MIN);
        let matches = MATCHES.iter().take(1 + usize::from(rich));
        let followed = matches.copied().find_map(|n| after_the_last(tokens, n));
        let known = followed.map_or(&[][..], |from| &tokens[from..]);
        // Where what followed reaches to the end it is taken to go round.
        known
            .iter()
            .cycle()
            .take(count.min(room))
            .copied()
            .collect()
    }

    /// Takes note of how many of its guesses came true.
    pub(super) fn learn(&mut self, guessed: usize, true_ones: usize) {
        self.credit += STEP * true_ones as i32 - cost(guessed);
        self.most = if true_ones == guessed {
            (self.most * 2).min(DRAFT_MAX)
        } else {
            true_ones.max(DRAFT_MIN)
        };
    }
}

/// The place behind the last `n` tokens where they came before, the last time that they did.
fn after_the_last(tokens: &[TokenId], n: usize) -> Option<usize> {
    let (before, last) = tokens.split_at_checked(tokens.len().checked_sub(n)?)?;
    // What came before may overlap the last tokens themselves, but not be them.
    let ends = n..n + before.len();
    ends.rev().find(|end| &tokens[end - n..*end] == last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rich(most: usize) -> Drafter {
        Drafter {
            most,
            credit: CREDIT_MAX,
        }
    }

    #[test]
    fn what_followed_the_last_time_is_guessed_and_goes_round() {
        let check = |tokens: &[TokenId], room, expected: &[TokenId]| {
            assert_eq!(rich(8).draft(tokens, room), expected);
        };
        check(&[1, 2, 3, 4, 5, 9, 1, 2, 3], 8, &[4, 5, 9, 1, 2, 3, 4, 5]);
        check(&[1, 2, 3, 4, 5, 9, 1, 2, 3], 2, &[4, 5]);
        check(&[1, 2, 3, 4, 5, 9, 1, 2, 3], 0, &[]);
        // Two suffice, three are better, and the last time counts.
        check(&[1, 2, 7, 8, 0, 1, 2], 1, &[7]);
        check(&[0, 1, 2, 7, 5, 1, 2, 8, 0, 1, 2], 1, &[7]);
        check(&[1, 2, 7, 1, 2, 8, 1, 2], 1, &[8]);
        check(&[4, 4, 4], 3, &[4, 4, 4]);
        check(&[1, 2, 3, 4], 8, &[]);
        check(&[], 8, &[]);
        // With credit for one try alone two do not suffice.
        assert_eq!(Drafter::default().draft(&[1, 2, 7, 8, 0, 1, 2], 8), []);
        assert_eq!(Drafter::default().draft(&[0, 1, 2, 7, 0, 1, 2], 8), [7, 0]);
    }

    #[test]
    fn who_guesses_badly_loses_no_more_than_its_allowance() {
        let mut drafter = rich(DRAFT_MAX);
        let steps = 10_000;
        let mut lost = 0;
        for _ in 0..steps {
            let guesses = drafter.draft(&[1, 1, 1, 1], 100).len();
            if guesses > 0 {
                drafter.learn(guesses, 0);
                lost += cost(guesses);
            }
        }
        assert!(lost <= CREDIT_MAX + steps * CREDIT_A_STEP, "{lost}");
        assert!(lost >= steps * CREDIT_A_STEP, "it goes on trying");
    }

    #[test]
    fn who_guesses_well_guesses_more() {
        let mut drafter = Drafter::default();
        let mut guessed = Vec::new();
        for _ in 0..4 {
            let guesses = drafter.draft(&[1, 1, 1, 1], 100).len();
            drafter.learn(guesses, guesses);
            guessed.push(guesses);
        }
        // No more than it can pay for.
        assert_eq!(guessed, [2, 3, 6, 8]);
        drafter.learn(8, 3);
        assert_eq!(drafter.draft(&[1, 1, 1, 1], 100).len(), 3);
    }
}
