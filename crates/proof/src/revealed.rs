//! The plainest verifier: given all cells of a trace, every look-up, constraint and product is checked at
//! every row and position. No succinctness; the oracle that the succinct argument is tested against.

use assay_engine::values::Constants;
use assay_protocol::trace::MatrixRef;
use p3_field::PrimeCharacteristicRing;

use crate::clear::{ChoiceClear, Clear};
use crate::field::{F, signed};
use crate::matrix::TraceMatrix;
use crate::relation::{ByToken, Column, Constraint, Known, Leaf, Product, Relation, Sum, Term};

/// The first thing that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    #[error("{column}: row {row} at position {token} is not in the table")]
    LookUp {
        column: &'static str,
        row: usize,
        token: usize,
    },
    #[error(
        "{column}: row {row} at position {token} stands for a magnitude that needs a larger exponent"
    )]
    Edge {
        column: &'static str,
        row: usize,
        token: usize,
    },
    #[error("{name}: row {row} at position {token} does not hold")]
    Constraint {
        name: &'static str,
        row: usize,
        token: usize,
    },
    #[error("{column}: the value in the clear at position {token} is not the trace's")]
    Known { column: &'static str, token: usize },
    #[error("the table's row {0} is counted wrongly")]
    Multiplicity(usize),
}

/// What a trace is checked against.
pub struct Revealed<'a> {
    pub constants: &'a Constants<'a>,
    pub relation: &'a Relation,
    pub clear: &'a Clear,
    pub tokens: &'a [u32],
    pub trace: &'a TraceMatrix,
    /// Positions that choose a token: the first and their number.
    pub first_choice: usize,
    pub choices: usize,
}

impl Revealed<'_> {
    pub fn check(&self) -> Result<(), Violation> {
        self.look_ups()?;
        for constraint in &self.relation.constraints {
            self.constraint(constraint)?;
        }
        self.relation
            .known
            .iter()
            .try_for_each(|known| self.known(known))
    }

    fn cell(&self, column: Column, i: usize, t: usize) -> i64 {
        self.trace.values()[column.row(i) * self.trace.tokens() + t].into()
    }

    fn by_token(&self, vector: ByToken, t: usize) -> F {
        self.relation.by_token[vector][t]
    }

    fn sum(&self, sum: &Sum, i: usize, t: usize) -> i64 {
        let term = |(column, k): &(Column, i64)| self.cell(*column, i, t) * k;
        sum.terms.iter().map(term).sum::<i64>() + sum.constant
    }

    fn look_ups(&self) -> Result<(), Violation> {
        let table = &self.relation.table;
        let mut counts = vec![0i64; table.len()];
        for leaf in self.relation.groups.iter().flatten() {
            for row in 0..leaf.rows() {
                for token in 0..self.trace.tokens() {
                    match leaf {
                        Leaf::Key { tags, values } => {
                            let tuple: Vec<i64> =
                                values.iter().map(|c| self.cell(*c, row, token)).collect();
                            let column = self.relation.name(values[0]);
                            let place = table.find(tags.at(row, token), &tuple);
                            counts[place.ok_or(Violation::LookUp { column, row, token })?] += 1;
                        }
                        Leaf::NotZero { terms, constant } => {
                            let mut sum = self.by_token(*constant, token);
                            for (column, k, by) in terms {
                                let cell = self.cell(*column, row, token);
                                sum += signed(cell) * signed(*k) * self.by_token(*by, token);
                            }
                            if sum == F::ZERO {
                                let column = self.relation.name(terms[0].0);
                                return Err(Violation::Edge { column, row, token });
                            }
                        }
                    }
                }
            }
        }
        let at = self.relation.multiplicities.first * self.trace.tokens();
        let stated = &self.trace.values()[at..at + counts.len()];
        let wrong = |(stated, count): (&i32, &i64)| i64::from(*stated) != *count;
        match stated.iter().zip(&counts).position(wrong) {
            Some(row) => Err(Violation::Multiplicity(row)),
            None => Ok(()),
        }
    }

    fn constraint(&self, constraint: &Constraint) -> Result<(), Violation> {
        for row in 0..constraint.rows {
            let weights = constraint.terms.iter().map(|term| self.weights(term, row));
            let weights: Vec<Option<Vec<i64>>> = weights.collect();
            for token in 0..self.trace.tokens() {
                let terms = constraint.terms.iter().zip(&weights);
                let term = |(term, w): (&Term, &Option<Vec<i64>>)| self.term(term, w, row, token);
                if terms.map(term).sum::<F>() != F::ZERO {
                    let name = constraint.name;
                    return Err(Violation::Constraint { name, row, token });
                }
            }
        }
        Ok(())
    }

    /// A matrix's row times its scale, read once for all positions.
    fn weights(&self, term: &Term, row: usize) -> Option<Vec<i64>> {
        let Term::Product { product, .. } = term else {
            return None;
        };
        let Product::Matrix { matrix, input } = &self.relation.products[*product] else {
            return None;
        };
        let mut w = vec![0i16; input.rows];
        self.constants.row(*matrix, row, &mut w);
        let a = i64::from(self.constants.scale(*matrix, row));
        Some(w.iter().map(|w| i64::from(*w) * a).collect())
    }

    fn term(&self, term: &Term, weights: &Option<Vec<i64>>, i: usize, t: usize) -> F {
        let angle = |angle: &crate::relation::Angle| {
            let (cos, sin) = self.constants.rope(angle.table, t, i);
            let v = i64::from(if angle.sine { sin } else { cos });
            signed(if angle.negative { -v } else { v })
        };
        match term {
            Term::Cells {
                column,
                scale,
                rows,
                tokens,
            } => {
                let row = rows.as_ref().map_or(F::ONE, |rows| signed(rows[i]));
                *scale * row * self.by_token(*tokens, t) * signed(self.cell(*column, i, t))
            }
            Term::Public {
                scale,
                rows,
                tokens,
            } => {
                let row = rows.as_ref().map_or(F::ONE, |rows| signed(rows[i]));
                *scale * row * self.by_token(*tokens, t)
            }
            Term::Turned {
                column,
                scale,
                angle: by,
            } => *scale * angle(by) * signed(self.cell(*column, i, t)),
            Term::TurnedConstant { value, angle: by } => *value * angle(by),
            Term::Product { product, tokens } => {
                let product = &self.relation.products[*product];
                self.by_token(*tokens, t) * self.product(product, weights, i, t)
            }
            Term::Total { column } => {
                let cells = (0..column.rows).map(|j| self.cell(*column, j, t));
                -signed(cells.sum())
            }
            Term::Embedded => {
                let mut w = vec![0i16; self.constants.dims.width as usize];
                let token = self.tokens[t];
                self.constants
                    .row(MatrixRef::Embedding, token as usize, &mut w);
                signed(i64::from(w[i]) * self.constants.embedding_scale(token))
            }
            Term::Before { at, tokens } => match i < at[t] as usize {
                true => self.by_token(*tokens, t),
                false => F::ZERO,
            },
            Term::Shown => {
                let ChoiceClear::Shown(shown) = &self.clear.choice else {
                    return F::ZERO;
                };
                let chosen = self.first_choice..self.first_choice + self.choices;
                match chosen.contains(&t) {
                    true => {
                        let at = i * self.choices + t - self.first_choice;
                        -signed(shown[at].into())
                    }
                    false => F::ZERO,
                }
            }
        }
    }

    fn product(&self, product: &Product, weights: &Option<Vec<i64>>, i: usize, t: usize) -> F {
        let sum: i64 = match product {
            Product::Matrix { input, .. } => {
                let weights = weights.as_deref().unwrap_or_default();
                let term = |(k, w): (usize, &i64)| w * self.cell(*input, k, t);
                weights.iter().enumerate().map(term).sum()
            }
            Product::Cells { left, right } => self.sum(left, i, t) * self.sum(right, i, t),
            Product::Scores { query, key } => (0..query.rows)
                .map(|d| self.cell(*query, d, t) * self.cell(*key, d, i))
                .sum(),
            Product::Mix { share, value } => (0..share.rows)
                .map(|j| self.cell(*share, j, t) * self.cell(*value, i, j))
                .sum(),
        };
        signed(sum)
    }

    fn known(&self, known: &Known) -> Result<(), Violation> {
        for token in 0..self.trace.tokens() {
            let (column, holds) = match known {
                Known::Squares { input, sums } => {
                    let square = |i| {
                        let v = signed(self.sum(input, i, token));
                        v * v
                    };
                    let sum: F = (0..input.rows()).map(square).sum();
                    (input.terms[0].0, sum == F::from_u64(sums[token]))
                }
                Known::Gather { terms, at, values } => {
                    let term = |(column, k, by): &(Column, i64, ByToken)| {
                        let cell = self.cell(*column, at[token] as usize, token);
                        signed(cell) * signed(*k) * self.by_token(*by, token)
                    };
                    let sum: F = terms.iter().map(term).sum();
                    (terms[0].0, sum == signed(values[token]))
                }
            };
            if !holds {
                let column = self.relation.name(column);
                return Err(Violation::Known { column, token });
            }
        }
        Ok(())
    }
}
