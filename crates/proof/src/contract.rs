//! Weighted sums of small integers, the passes over the whole trace: along the rows and along the tokens.
//!
//! A weight's two coordinates are cut into limbs of 22 bits, whose products with 32-bit integers add up in
//! 64 bits; only whole sums are reduced. The loops are plain, and compiled once more for wide registers.

use p3_field::{BasedVectorSpace, PrimeCharacteristicRing, PrimeField64};

use crate::field::{F, K};

const LIMB_BITS: u32 = 22;
const LIMBS: usize = 6;
/// |limb·value| ≤ 2^22·2^31: this many of them stay below 2^63.
const TERMS_MAX: usize = 512;
/// Rows taken together, so that a running sum is fetched once for all of them.
const ROWS: usize = 4;

/// Both coordinates, low limbs first.
fn limbs(weight: K) -> [i32; LIMBS] {
    let coordinates: &[F] = weight.as_basis_coefficients_slice();
    std::array::from_fn(|i| {
        let value = coordinates[i / 3].as_canonical_u64() >> (LIMB_BITS * (i as u32 % 3));
        (value & ((1 << LIMB_BITS) - 1)) as i32
    })
}

fn joined(sums: [i64; LIMBS]) -> K {
    let coordinate = |at: usize| {
        let limb = |i: usize| i128::from(sums[at + i]) << (LIMB_BITS * i as u32);
        let sum = limb(0) + limb(1) + limb(2);
        match sum >= 0 {
            true => F::from_u128(sum.unsigned_abs()),
            false => -F::from_u128(sum.unsigned_abs()),
        }
    };
    K::new([coordinate(0), coordinate(3)])
}

/// Σ_i weights[i]·row(i)[t] for every t, added to what stands in `sums`.
pub(crate) struct RowSums {
    tokens: usize,
    /// Limb by limb, `tokens` each.
    sums: Vec<i64>,
}

impl RowSums {
    pub(crate) fn new(tokens: usize) -> Self {
        RowSums {
            tokens,
            sums: vec![0; LIMBS * tokens],
        }
    }

    pub(crate) fn add<'a>(
        &mut self,
        weights: &[K],
        row: impl Fn(usize) -> &'a [i32],
        into: &mut [K],
    ) {
        assert_eq!(into.len(), self.tokens, "a sum for every token");
        for (block, weights) in weights.chunks(TERMS_MAX).enumerate() {
            let first = block * TERMS_MAX;
            let (together, rest) = weights.as_chunks::<ROWS>();
            for (i, weights) in together.iter().enumerate() {
                let rows = std::array::from_fn(|r| row(first + i * ROWS + r));
                add_rows(&mut self.sums, weights.map(limbs), rows);
            }
            for (i, weight) in rest.iter().enumerate() {
                let row = row(first + together.len() * ROWS + i);
                add_rows(&mut self.sums, [limbs(*weight)], [row]);
            }
            for (t, into) in into.iter_mut().enumerate() {
                *into += joined(std::array::from_fn(|l| self.sums[l * self.tokens + t]));
            }
            self.sums.fill(0);
        }
    }
}

/// Weights of tokens, ready to be summed along rows.
pub(crate) struct TokenWeights {
    tokens: usize,
    /// Limb by limb, `tokens` each.
    limbs: Vec<i32>,
}

impl TokenWeights {
    pub(crate) fn new(weights: &[K]) -> Self {
        let each = |l: usize| weights.iter().map(move |weight| limbs(*weight)[l]);
        TokenWeights {
            tokens: weights.len(),
            limbs: (0..LIMBS).flat_map(each).collect(),
        }
    }

    /// Σ_t weights[t]·row[t].
    pub(crate) fn along(&self, row: &[i32]) -> K {
        assert_eq!(row.len(), self.tokens, "a value for every token");
        let blocks = row.chunks(TERMS_MAX).enumerate();
        let sum = |(block, values): (usize, &[i32])| {
            let first = block * TERMS_MAX;
            let limb = |l| &self.limbs[l * self.tokens + first..][..values.len()];
            joined(dots(std::array::from_fn(limb), values))
        };
        blocks.map(sum).sum()
    }
}

#[inline(always)]
fn add_rows_plain<const N: usize>(sums: &mut [i64], limbs: [[i32; LIMBS]; N], rows: [&[i32]; N]) {
    let tokens = sums.len() / LIMBS;
    let rows = rows.map(|row| &row[..tokens]);
    let mut sums = sums.chunks_exact_mut(tokens);
    let sums: [&mut [i64]; LIMBS] = std::array::from_fn(|_| sums.next().expect("six limbs"));
    for t in 0..tokens {
        for l in 0..LIMBS {
            let mut sum = sums[l][t];
            for r in 0..N {
                let term = i64::from(limbs[r][l]).wrapping_mul(i64::from(rows[r][t]));
                sum = sum.wrapping_add(term);
            }
            sums[l][t] = sum;
        }
    }
}

#[inline(always)]
fn dots_plain(limbs: [&[i32]; LIMBS], values: &[i32]) -> [i64; LIMBS] {
    // Loops rather than closures: a closure would not be compiled for the registers of its caller.
    let mut sums = [0i64; LIMBS];
    for l in 0..LIMBS {
        let limbs = &limbs[l][..values.len()];
        for t in 0..values.len() {
            let term = i64::from(limbs[t]).wrapping_mul(i64::from(values[t]));
            sums[l] = sums[l].wrapping_add(term);
        }
    }
    sums
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn add_rows_avx2<const N: usize>(sums: &mut [i64], limbs: [[i32; LIMBS]; N], rows: [&[i32]; N]) {
    add_rows_plain(sums, limbs, rows);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn dots_avx2(limbs: [&[i32]; LIMBS], values: &[i32]) -> [i64; LIMBS] {
    dots_plain(limbs, values)
}

fn add_rows<const N: usize>(sums: &mut [i64], limbs: [[i32; LIMBS]; N], rows: [&[i32]; N]) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has what the function is compiled for.
        return unsafe { add_rows_avx2(sums, limbs, rows) };
    }
    add_rows_plain(sums, limbs, rows);
}

fn dots(limbs: [&[i32]; LIMBS], values: &[i32]) -> [i64; LIMBS] {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has what the function is compiled for.
        return unsafe { dots_avx2(limbs, values) };
    }
    dots_plain(limbs, values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field::signed;

    fn plainly(weights: &[K], values: impl Fn(usize) -> i32) -> K {
        let terms = weights.iter().enumerate();
        terms
            .map(|(i, weight)| *weight * signed(i64::from(values(i))))
            .sum()
    }

    /// The largest weights and values, long enough for several reductions.
    #[test]
    fn sums_at_their_bounds_do_not_wrap() {
        let weight = K::new([F::NEG_ONE, -F::TWO]);
        for value in [i32::MIN, i32::MAX, -1, 0] {
            let tokens = 1024;
            let weights = vec![weight; tokens];
            let row = vec![value; tokens];
            let expected = plainly(&weights, |_| value);
            assert_eq!(TokenWeights::new(&weights).along(&row), expected);
            let mut into = vec![K::ZERO; 8];
            RowSums::new(8).add(&weights, |_| &row[..8], &mut into);
            assert_eq!(into, [expected; 8]);
        }
    }

    #[test]
    fn both_directions_sum_what_they_say() {
        let element = |i: usize| {
            K::new([
                F::new((i as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15)),
                F::new(i as u64),
            ])
        };
        for (rows, tokens) in [(1, 1), (7, 4), (515, 2), (9, 1024)] {
            let value = |r: usize, t: usize| (r * 7919 + t * 104_729) as i32 - 50_000;
            let values: Vec<i32> = (0..rows * tokens)
                .map(|i| value(i / tokens, i % tokens))
                .collect();
            let row = |r: usize| &values[r * tokens..(r + 1) * tokens];
            let weights: Vec<K> = (0..rows).map(element).collect();
            let mut into = vec![K::ONE; tokens];
            RowSums::new(tokens).add(&weights, row, &mut into);
            for (t, sum) in into.iter().enumerate() {
                assert_eq!(
                    *sum,
                    K::ONE + plainly(&weights, |r| value(r, t)),
                    "token {t}"
                );
            }
            let weights: Vec<K> = (0..tokens).map(element).collect();
            let along = TokenWeights::new(&weights);
            for r in 0..rows {
                assert_eq!(
                    along.along(row(r)),
                    plainly(&weights, |t| value(r, t)),
                    "row {r}"
                );
            }
        }
    }
}
