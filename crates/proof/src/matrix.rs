//! The trace as one matrix of small integers: rows are the relation's values, columns are positions.

use crate::field::{K, eq_table, log2_ceil, signed};
use p3_field::PrimeCharacteristicRing;

/// Rows × tokens integers; the value of row r at token t is number r·tokens + t. The number of tokens is a
/// power of two, so that an index is a row's bits above a token's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceMatrix {
    rows: usize,
    tokens: usize,
    values: Vec<i32>,
}

impl TraceMatrix {
    pub fn zeros(rows: usize, tokens: usize) -> Self {
        TraceMatrix::new(tokens, vec![0; rows * tokens])
    }

    pub fn new(tokens: usize, values: Vec<i32>) -> Self {
        assert!(tokens.is_power_of_two(), "{tokens} tokens");
        assert_eq!(values.len() % tokens, 0, "whole rows");
        TraceMatrix {
            rows: values.len() / tokens,
            tokens,
            values,
        }
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn tokens(&self) -> usize {
        self.tokens
    }

    pub fn values(&self) -> &[i32] {
        &self.values
    }

    /// Consecutive rows.
    pub fn run(&self, first: usize, rows: usize) -> &[i32] {
        &self.values[first * self.tokens..(first + rows) * self.tokens]
    }

    pub fn run_mut(&mut self, first: usize, rows: usize) -> &mut [i32] {
        &mut self.values[first * self.tokens..(first + rows) * self.tokens]
    }

    /// Variables of a point: the token's first, then the row's.
    pub fn variables(&self) -> usize {
        log2_ceil(self.tokens) + log2_ceil(self.rows)
    }

    /// The extension's value at a point, by its definition. Rows are padded with zeros.
    pub fn at(&self, point: &[K]) -> K {
        assert_eq!(point.len(), self.variables(), "variables of the point");
        let (token, row) = point.split_at(log2_ceil(self.tokens));
        let tokens = eq_table(token, self.tokens);
        let rows = eq_table(row, self.rows);
        let along = |values: &[i32]| -> K {
            let terms = values.iter().zip(&tokens);
            terms.map(|(v, eq)| *eq * signed(i64::from(*v))).sum()
        };
        let all = self.values.chunks_exact(self.tokens).zip(&rows);
        all.map(|(values, eq)| along(values) * *eq)
            .fold(K::ZERO, |sum, term| sum + term)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_a_corner_the_extension_is_the_value() {
        let matrix = TraceMatrix::new(4, (0..12).map(|v| v - 5).collect());
        for row in 0..4 {
            for token in 0..4 {
                let index = row * 4 + token;
                let bits = (0..4).map(|b| K::from_u64((index >> b & 1) as u64));
                let expected = match row < 3 {
                    true => K::from(signed(i64::from(matrix.run(row, 1)[token]))),
                    false => K::ZERO,
                };
                assert_eq!(matrix.at(&bits.collect::<Vec<K>>()), expected);
            }
        }
    }
}
