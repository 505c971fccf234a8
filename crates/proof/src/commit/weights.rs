//! Linear functionals of a multilinear polynomial's values, and their sum: what a fold leaves to be shown.
//!
//! Both kinds are products over the variables, so that binding one is a factor, and the verifier never
//! writes out a functional of the whole polynomial.

use p3_field::PrimeCharacteristicRing;

use crate::field::{F, K};

/// Σ_i weight(i)·values[i], where the weight is a product with a factor for each bit of i.
#[derive(Debug, Clone)]
pub(super) struct Weight {
    scale: K,
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    /// eq(point, i).
    Eq(Vec<K>),
    /// x^i, as x^(2^bit) for each bit.
    Powers(Vec<F>),
}

impl Weight {
    pub(super) fn eq(point: &[K]) -> Self {
        Weight {
            scale: K::ONE,
            kind: Kind::Eq(point.to_vec()),
        }
    }

    pub(super) fn powers(scale: K, x: F, variables: usize) -> Self {
        let squares = std::iter::successors(Some(x), |x| Some(*x * *x));
        Weight {
            scale,
            kind: Kind::Powers(squares.take(variables).collect()),
        }
    }

    /// Binds the highest variable.
    pub(super) fn bind(&mut self, r: K) {
        self.scale *= match &mut self.kind {
            Kind::Eq(point) => {
                let p = point.pop().expect("a variable is left");
                let both = p * r;
                both + both + K::ONE - p - r
            }
            Kind::Powers(powers) => {
                let p = powers.pop().expect("a variable is left");
                K::ONE + r * (K::from(p) - K::ONE)
            }
        };
    }

    /// The functional at values of the variables left.
    pub(super) fn apply(&self, values: &[K]) -> K {
        let mut values = values.to_vec();
        let mut fold = |low: K, high: K| {
            let half = values.len() / 2;
            for i in 0..half {
                values[i] = low * values[i] + high * values[i + half];
            }
            values.truncate(half);
        };
        match &self.kind {
            Kind::Eq(point) => point.iter().rev().for_each(|p| fold(K::ONE - *p, *p)),
            Kind::Powers(powers) => {
                let powers = powers.iter().rev();
                powers.for_each(|p| fold(K::ONE, K::from(*p)));
            }
        }
        debug_assert_eq!(values.len(), 1, "one value for each corner");
        self.scale * values[0]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field::eq_table;

    #[test]
    fn a_bound_weight_is_the_functional_of_the_folded_values() {
        let k = |i: u64| K::new([F::new(i * i + 1), F::new(7 * i + 3)]);
        let values: Vec<K> = (0..8).map(k).collect();
        let point = [k(20), k(21), k(22)];
        let x = F::new(12345);
        let eq: K = values
            .iter()
            .zip(eq_table(&point, 8))
            .map(|(v, e)| *v * e)
            .sum();
        let mut power = k(9);
        let mut powers = K::ZERO;
        for v in &values {
            powers += power * *v;
            power *= x;
        }
        let mut weights = [Weight::eq(&point), Weight::powers(k(9), x, 3)];
        assert_eq!(weights[0].apply(&values), eq);
        assert_eq!(weights[1].apply(&values), powers);
        // Binding: Σ_i w(i)·(1, r)-extended values equals the bound weight of the folded values, where the
        // folded values are those of a polynomial that does not depend on the variable.
        let r = k(30);
        let low = &values[..4];
        for weight in &mut weights {
            let at = |bit: K, weight: &Weight| {
                let mut bound = weight.clone();
                bound.bind(bit);
                bound.apply(low)
            };
            let (zero, one) = (at(K::ZERO, weight), at(K::ONE, weight));
            let twice = [low, low].concat();
            assert_eq!(zero + one, weight.apply(&twice));
            weight.bind(r);
            assert_eq!(weight.apply(low), zero + r * (one - zero));
        }
    }
}
