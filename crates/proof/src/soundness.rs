//! How likely a proof of something false passes: each step's error, from the shapes in use. For a false
//! statement some look-up, constraint, product or opening is false; the sum over all steps bounds the
//! chance that every random check of it fails to notice.

use crate::argument::{LOOK_UP_WORK, leaf_rows};
use crate::commit;
use crate::field::log2_ceil;
use crate::fractions;
use crate::functional;
use crate::products;
use crate::relation::Relation;
use crate::relation::table::VALUES_MAX;
use crate::schedule;
use crate::security::{Probability, Security};

/// Weaker proofs are not accepted, in hundredths of a bit.
pub(crate) const CENTIBITS_MIN: u32 = 10_000;

/// The errors of a proof of this relation.
pub(crate) fn soundness(relation: &Relation) -> Security {
    let mut security = Security::default();
    let sizes = schedule::tree_sizes(relation);
    // A tuple that is not in the table has, but for degree/|K| for each row, a key of its own; then the
    // difference of both sums is a rational function of α, not zero, with at most so many zeros. Counts of
    // one key stay below p, so none vanishes.
    let looked_up: usize = relation.groups.iter().map(|leaves| leaf_rows(leaves)).sum();
    let degree = (looked_up * relation.tokens + relation.table.len()) as u128;
    let collisions = (VALUES_MAX * relation.table.len()) as u128;
    let drawn = Probability::over_field(degree + collisions);
    security.add(
        "look-ups' challenges, after work",
        drawn.times(1, LOOK_UP_WORK),
    );
    let trees = sizes
        .iter()
        .map(|leaves| fractions::error_over_field(*leaves));
    security.add("look-ups' trees", Probability::over_field(trees.sum()));
    // A point in each variable of rows and positions, and the powers of the batching challenge.
    let point = log2_ceil(relation.longest()) + log2_ceil(relation.tokens);
    let linear = (point + relation.constraints.len()) as u128;
    security.add(
        "constraints' point and batching",
        Probability::over_field(linear),
    );
    let lens = schedule::product_lens(relation);
    let products = products::error_over_field(&lens);
    security.add("products' sumcheck", Probability::over_field(products));
    let claims = (relation.groups.len() + 2 + 2 * lens.len()) as u128;
    security.add("batching of all claims", Probability::over_field(claims));
    let reduced = functional::error_over_field(relation.rows, relation.tokens);
    security.add("functional's sumcheck", Probability::over_field(reduced));
    let opened = commit::security(schedule::committed_len(relation));
    security.parts.extend(opened.parts);
    security
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_trace_with_committed_weights_keeps_a_hundred_bits() {
        for (trace, weights) in [
            (1 << 24, 1 << 20),
            (400_000_000, 1 << 27),
            (1 << 31, 1 << 29),
        ] {
            let mut security = commit::security(trace);
            security.parts.extend(commit::security(weights).parts);
            // Every value looked up, and far more of the rest than any shape has.
            let drawn = Probability::over_field(trace as u128 + (1 << 25));
            security.add("look-ups", drawn.times(1, LOOK_UP_WORK));
            security.add("rest", Probability::over_field(1 << 20));
            println!("{trace} values\n{security}");
            assert!(security.total().centibits() >= CENTIBITS_MIN, "{trace}");
        }
    }
}
