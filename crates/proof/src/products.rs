//! Every product of two committed vectors, in one batched sumcheck: Σ_x weight(x)·left(x)·right(x) = sum.
//!
//! Vectors differ in length; each is padded with zeros to the variables of the longest, in thought only:
//! once its own variables are bound, a short one is multiplied by (1 − r) a round.

use std::sync::Mutex;
use std::thread;

use assay_protocol::codec::{CodecError, Reader, Writer};
use p3_field::PrimeCharacteristicRing;

pub use crate::factor::Factor;
use crate::field::{K, eq_table, log2_ceil};
use crate::rounds::{self, Round};
use crate::transcript::Transcript;

/// The public weight of a product.
#[derive(Debug, Clone)]
pub enum Weight {
    /// One everywhere, the padding included: that is zero by the factors.
    One,
    /// rows[i]·tokens[t] at i·tokens.len() + t, where tokens.len() is a power of two.
    Tensor { rows: Vec<K>, tokens: Vec<K> },
}

impl Weight {
    /// The zero-padded weight's extension.
    pub fn at(&self, point: &[K]) -> K {
        let Weight::Tensor { rows, tokens } = self else {
            return K::ONE;
        };
        let (token, row) = point.split_at(log2_ceil(tokens.len()));
        along(tokens, token) * along(rows, row)
    }

    fn assert_shape(&self, len: usize) {
        assert!(len > 0, "a product of empty vectors");
        if let Weight::Tensor { rows, tokens } = self {
            assert!(tokens.len().is_power_of_two(), "{} tokens", tokens.len());
            assert_eq!(rows.len() * tokens.len(), len, "length of the weight");
        }
    }
}

fn along(values: &[K], point: &[K]) -> K {
    let table = eq_table(point, values.len());
    values
        .iter()
        .zip(table)
        .map(|(value, eq)| *value * eq)
        .sum()
}

#[derive(Debug, Clone)]
pub struct Product {
    pub weight: Weight,
    pub left: Factor,
    pub right: Factor,
    pub sum: K,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProductsProof {
    rounds: Vec<Round<3>>,
    factors: Vec<(K, K)>,
}

/// What is left to show: each product's factors at one point. A factor with fewer variables than the point
/// is zero-padded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reduced {
    pub point: Vec<K>,
    pub factors: Vec<(K, K)>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProductsError {
    #[error("the products' proof has {got} rounds, {expected} expected")]
    Rounds { expected: usize, got: usize },
    #[error("the products' proof ends in {got} pairs of factors, {expected} expected")]
    Factors { expected: usize, got: usize },
    #[error("the products' proof ends in factors that its rounds do not lead to")]
    Value,
}

impl ProductsProof {
    pub fn write(&self, out: &mut Writer) {
        rounds::write_rounds(&self.rounds, out);
        for (left, right) in &self.factors {
            rounds::write_element(*left, out);
            rounds::write_element(*right, out);
        }
    }

    /// `lens`: of the products' vectors.
    pub fn read(lens: &[usize], from: &mut Reader) -> Result<Self, CodecError> {
        let rounds = rounds::read_rounds(variables(lens), from)?;
        let mut pair = || Ok((rounds::read_element(from)?, rounds::read_element(from)?));
        let factors = lens.iter().map(|_| pair()).collect::<Result<_, _>>()?;
        Ok(ProductsProof { rounds, factors })
    }
}

/// Of the point that products of these lengths end in.
pub fn variables(lens: &[usize]) -> usize {
    lens.iter().map(|len| log2_ceil(*len)).max().unwrap_or(0)
}

/// The soundness error is at most this over the number of elements of K: powers of the batching challenge
/// up to the number of products less one, and three for each round. `lens`: of the products' vectors.
pub fn error_over_field(lens: &[usize]) -> u128 {
    (lens.len().saturating_sub(1) + 3 * variables(lens)) as u128
}

/// What each sum is multiplied by, so that one claim stands for all.
fn open(sums: &[K], t: &mut Transcript) -> Vec<K> {
    t.absorb("products", sums);
    let batching = t.challenge("products' batching");
    batching.powers().take(sums.len()).collect()
}

fn close(factors: &[(K, K)], t: &mut Transcript) {
    let values: Vec<K> = factors
        .iter()
        .flat_map(|(left, right)| [*left, *right])
        .collect();
    t.absorb("products' factors", &values);
}

pub fn prove(
    products: Vec<Product>,
    threads: usize,
    t: &mut Transcript,
) -> (ProductsProof, Reduced) {
    let lens: Vec<usize> = products.iter().map(|product| product.left.len()).collect();
    let sums: Vec<K> = products.iter().map(|product| product.sum).collect();
    let scales = open(&sums, t);
    let mut claim = sums
        .iter()
        .zip(&scales)
        .map(|(sum, scale)| *sum * *scale)
        .sum();
    let all = products.into_iter().zip(scales);
    let mut running: Vec<Running> = all
        .map(|(product, scale)| Running::new(product, scale))
        .collect();

    let mut rounds = Vec::new();
    let mut point = Vec::new();
    for _ in 0..variables(&lens) {
        let round = Round(sum_of_all(&mut running, point.last().copied(), threads));
        point.push(round.step(&mut claim, t));
        rounds.push(round);
    }
    let last = point.last().copied();
    let factors: Vec<(K, K)> = running
        .into_iter()
        .map(|product| product.ends(last))
        .collect();
    close(&factors, t);
    (
        ProductsProof {
            rounds,
            factors: factors.clone(),
        },
        Reduced { point, factors },
    )
}

/// Binds every product's variable that was drawn last, and adds up their polynomials in the next.
fn sum_of_all(products: &mut [Running], bound: Option<K>, threads: usize) -> [K; 3] {
    /// Below this many elements a thread costs more than it brings.
    const ALONE: usize = 1 << 13;
    let work: usize = products.iter().map(|product| product.left.len()).sum();
    let queue = Mutex::new(products.iter_mut());
    let share = || {
        let mut sum = [K::ZERO; 3];
        loop {
            let next = queue.lock().expect("no other share panics").next();
            let Some(product) = next else {
                return sum;
            };
            if let Some(r) = bound {
                product.bind(r);
            }
            sum = add(sum, product.round());
        }
    };
    if threads <= 1 || work < ALONE {
        return share();
    }
    thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(share)).collect();
        let shares = running
            .into_iter()
            .map(|share| share.join().expect("a share's sum"));
        shares.fold([K::ZERO; 3], add)
    })
}

fn add(mut sums: [K; 3], others: [K; 3]) -> [K; 3] {
    for (sum, other) in sums.iter_mut().zip(others) {
        *sum += other;
    }
    sums
}

/// A product with the point's first variables bound, scaled for the batch.
struct Running {
    weight: Bound,
    left: Factor,
    right: Factor,
}

/// A weight while its variables are bound.
enum Bound {
    Everywhere(K),
    Tokens { rows: Vec<K>, tokens: Vec<K> },
    Rows(Vec<K>),
}

impl Bound {
    fn new(weight: Weight, scale: K) -> Self {
        match weight {
            Weight::One => Bound::Everywhere(scale),
            Weight::Tensor { rows, mut tokens } => {
                tokens.iter_mut().for_each(|token| *token *= scale);
                Bound::tokens(rows, tokens)
            }
        }
    }

    fn tokens(mut rows: Vec<K>, tokens: Vec<K>) -> Self {
        match tokens[..] {
            [last] => {
                rows.iter_mut().for_each(|row| *row *= last);
                Bound::Rows(rows)
            }
            _ => Bound::Tokens { rows, tokens },
        }
    }

    fn bind(self, r: K) -> Self {
        match self {
            Bound::Everywhere(scale) => Bound::Everywhere(scale),
            Bound::Tokens { rows, mut tokens } => {
                rounds::bind(&mut tokens, r);
                Bound::tokens(rows, tokens)
            }
            Bound::Rows(mut rows) => {
                rounds::bind(&mut rows, r);
                Bound::Rows(rows)
            }
        }
    }
}

impl Running {
    fn new(product: Product, scale: K) -> Self {
        let Product {
            weight,
            left,
            right,
            ..
        } = product;
        weight.assert_shape(left.len());
        assert_eq!(left.len(), right.len(), "length of a product's factors");
        left.assert_shape();
        right.assert_shape();
        Running {
            weight: Bound::new(weight, scale),
            left,
            right,
        }
    }

    fn bind(&mut self, r: K) {
        let weight = std::mem::replace(&mut self.weight, Bound::Everywhere(K::ZERO));
        self.weight = weight.bind(r);
        self.left.bind(r);
        self.right.bind(r);
    }

    fn ends(mut self, last: Option<K>) -> (K, K) {
        if let Some(r) = last {
            self.bind(r);
        }
        (self.left.only(), self.right.only())
    }

    /// The polynomial in the lowest variable that is not bound: coefficients of X^0, X^2 and X^3.
    fn round(&self) -> [K; 3] {
        match &self.weight {
            Bound::Everywhere(scale) => {
                let mut sum = Quadratic::default();
                Factor::for_pairs(&self.left, &self.right, |_, left, right| {
                    sum.add(left, right)
                });
                [sum.low * *scale, sum.top * *scale, K::ZERO]
            }
            Bound::Tokens { rows, tokens } => self.token_round(rows, tokens),
            Bound::Rows(rows) => {
                let mut sum = [K::ZERO; 3];
                Factor::for_pairs(&self.left, &self.right, |i, left, right| {
                    let mut weighted = Quadratic::default();
                    weighted.add(rounds::pair(rows, i), left);
                    sum = add(sum, weighted.times(right));
                });
                sum
            }
        }
    }

    /// Sums over the rows first: the tokens' weights are the same in every row.
    fn token_round(&self, rows: &[K], tokens: &[K]) -> [K; 3] {
        let half = tokens.len() / 2;
        let mut sums = vec![Quadratic::default(); half];
        Factor::for_pairs(&self.left, &self.right, |i, (low, high), right| {
            let row = rows[i >> half.trailing_zeros()];
            sums[i & (half - 1)].add((low * row, high * row), right);
        });
        let token = |(u, sum): (usize, &Quadratic)| sum.times(rounds::pair(tokens, u));
        sums.iter().enumerate().map(token).fold([K::ZERO; 3], add)
    }
}

/// A sum of products of two linear polynomials, by its values at 0 and 1 and its leading coefficient.
#[derive(Clone, Copy, Default)]
struct Quadratic {
    low: K,
    high: K,
    top: K,
}

impl Quadratic {
    #[inline(always)]
    fn add(&mut self, left: (K, K), right: (K, K)) {
        self.low += left.0 * right.0;
        self.high += left.1 * right.1;
        self.top += (left.1 - left.0) * (right.1 - right.0);
    }

    /// Times one more linear polynomial: coefficients of X^0, X^2 and X^3.
    #[inline(always)]
    fn times(&self, (low, high): (K, K)) -> [K; 3] {
        let linear = self.high - self.low - self.top;
        let rise = high - low;
        [
            self.low * low,
            self.top * low + linear * rise,
            self.top * rise,
        ]
    }
}

/// Each product is told by its length, its weight and its sum.
pub fn verify(
    shapes: &[(usize, &Weight, K)],
    proof: &ProductsProof,
    t: &mut Transcript,
) -> Result<Reduced, ProductsError> {
    shapes
        .iter()
        .for_each(|(len, weight, _)| weight.assert_shape(*len));
    let lens: Vec<usize> = shapes.iter().map(|(len, ..)| *len).collect();
    let (expected, got) = (variables(&lens), proof.rounds.len());
    if got != expected {
        return Err(ProductsError::Rounds { expected, got });
    }
    let (expected, got) = (lens.len(), proof.factors.len());
    if got != expected {
        return Err(ProductsError::Factors { expected, got });
    }
    let sums: Vec<K> = shapes.iter().map(|(.., sum)| *sum).collect();
    let scales = open(&sums, t);
    let claim = sums
        .iter()
        .zip(&scales)
        .map(|(sum, scale)| *sum * *scale)
        .sum();
    let (point, claim) = rounds::follow(&proof.rounds, claim, t);
    let ends = shapes.iter().zip(&scales).zip(&proof.factors);
    let end = |(((_, weight, _), scale), (left, right)): ((&(usize, &Weight, K), &K), &(K, K))| {
        *scale * weight.at(&point) * *left * *right
    };
    if ends.map(end).sum::<K>() != claim {
        return Err(ProductsError::Value);
    }
    close(&proof.factors, t);
    let factors = proof.factors.clone();
    Ok(Reduced { point, factors })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field::signed;
    use crate::rounds::testing::{Random, damaged, next_of};

    const TAG: &str = "products";

    fn values(factor: &Factor) -> Vec<K> {
        let mut factor = factor.clone();
        match &mut factor {
            Factor::Dense(values) => values.clone(),
            Factor::Integers(values) => values.iter().map(|v| signed(*v).into()).collect(),
            Factor::Sparse { len, cells } => {
                let cell = |i| {
                    cells
                        .iter()
                        .find(|cell| cell.0 == i)
                        .map_or(K::ZERO, |cell| cell.1)
                };
                (0..*len).map(cell).collect()
            }
        }
    }

    fn weights(weight: &Weight, len: usize) -> Vec<K> {
        match weight {
            Weight::One => vec![K::ONE; len],
            Weight::Tensor { rows, tokens } => {
                let row = |row: &K| tokens.iter().map(|token| *row * *token).collect::<Vec<K>>();
                rows.iter().flat_map(row).collect()
            }
        }
    }

    fn sum(weight: &Weight, left: &Factor, right: &Factor) -> K {
        let products = values(left)
            .into_iter()
            .zip(values(right))
            .map(|(l, r)| l * r);
        products
            .zip(weights(weight, left.len()))
            .map(|(p, w)| p * w)
            .sum()
    }

    fn factor(random: &mut Random, len: usize) -> Factor {
        match random.below(4) {
            0 => Factor::Dense(random.elements(len)),
            1 => {
                let cells = (0..len)
                    .filter(|_| random.below(9) == 0)
                    .collect::<Vec<_>>();
                let cells = cells.into_iter().map(|i| (i, random.element())).collect();
                Factor::Sparse { len, cells }
            }
            _ => Factor::Integers((0..len).map(|_| random.integer(47)).collect()),
        }
    }

    fn product(random: &mut Random) -> Product {
        let rows = 1 + random.below(40);
        let tokens = 1 << random.below(6);
        let (len, weight) = match random.below(3) {
            0 => (rows, Weight::One),
            _ => (
                rows * tokens,
                Weight::Tensor {
                    rows: random.elements(rows),
                    tokens: random.elements(tokens),
                },
            ),
        };
        let (left, right) = (factor(random, len), factor(random, len));
        let sum = sum(&weight, &left, &right);
        Product {
            weight,
            left,
            right,
            sum,
        }
    }

    fn some(seed: u64, count: usize) -> Vec<Product> {
        let mut random = Random(seed);
        (0..count).map(|_| product(&mut random)).collect()
    }

    fn transcript() -> Transcript {
        Transcript::new(TAG)
    }

    fn lens(products: &[Product]) -> Vec<usize> {
        products.iter().map(|product| product.left.len()).collect()
    }

    fn check(products: &[Product], proof: &ProductsProof) -> Result<Reduced, ProductsError> {
        check_with(products, proof, &mut transcript())
    }

    fn check_with(
        products: &[Product],
        proof: &ProductsProof,
        t: &mut Transcript,
    ) -> Result<Reduced, ProductsError> {
        let shape = |product| {
            let Product {
                weight, left, sum, ..
            }: &Product = product;
            (left.len(), weight, *sum)
        };
        verify(&products.iter().map(shape).collect::<Vec<_>>(), proof, t)
    }

    fn bytes(proof: &ProductsProof) -> Vec<u8> {
        let mut out = Writer::new(TAG);
        proof.write(&mut out);
        out.finish()
    }

    fn read(products: &[Product], bytes: &[u8]) -> Result<ProductsProof, CodecError> {
        let mut from = Reader::new(TAG, bytes)?;
        let proof = ProductsProof::read(&lens(products), &mut from)?;
        from.finish()?;
        Ok(proof)
    }

    #[test]
    fn products_of_any_shape_reduce_to_their_factors_extensions() {
        for seed in 0..60 {
            let products = some(seed, seed as usize % 13);
            let (mut proving, mut verifying) = (transcript(), transcript());
            let (proof, proven) = prove(products.clone(), 1 + seed as usize % 3, &mut proving);
            let proof = match read(&products, &bytes(&proof)) {
                Ok(read) if read == proof => read,
                other => panic!("seed {seed}: {other:?}"),
            };
            let reduced = check_with(&products, &proof, &mut verifying).expect("an honest proof");
            assert_eq!(proven, reduced, "seed {seed}");
            assert_eq!(
                next_of(&mut proving),
                next_of(&mut verifying),
                "seed {seed}"
            );
            assert_eq!(
                reduced.point.len(),
                variables(&lens(&products)),
                "seed {seed}"
            );
            for (product, (left, right)) in products.iter().zip(reduced.factors) {
                assert_eq!(
                    left,
                    along(&values(&product.left), &reduced.point),
                    "seed {seed}"
                );
                assert_eq!(
                    right,
                    along(&values(&product.right), &reduced.point),
                    "seed {seed}"
                );
            }
        }
    }

    #[test]
    fn many_threads_find_what_one_finds() {
        let mut random = Random(1);
        let big = |random: &mut Random| {
            let left = Factor::Integers((0..9000).map(|_| random.integer(47)).collect());
            let right = Factor::Dense(random.elements(9000));
            let sum = sum(&Weight::One, &left, &right);
            Product {
                weight: Weight::One,
                left,
                right,
                sum,
            }
        };
        let products: Vec<Product> = (0..3).map(|_| big(&mut random)).collect();
        let alone = prove(products.clone(), 1, &mut transcript());
        assert_eq!(alone, prove(products.clone(), 4, &mut transcript()));
        assert!(check(&products, &alone.0).is_ok());
    }

    #[test]
    fn a_weights_extension_is_that_of_its_padded_values() {
        let mut random = Random(2);
        for _ in 0..20 {
            let Product { weight, left, .. } = product(&mut random);
            if let Weight::Tensor { .. } = weight {
                let point = random.elements(log2_ceil(left.len()) + 2);
                assert_eq!(
                    weight.at(&point),
                    along(&weights(&weight, left.len()), &point)
                );
            }
        }
    }

    #[test]
    fn a_wrong_sum_is_rejected() {
        let mut products = some(3, 5);
        for wrong in 0..products.len() {
            products[wrong].sum += K::ONE;
            let (proof, _) = prove(products.clone(), 1, &mut transcript());
            assert_eq!(check(&products, &proof), Err(ProductsError::Value));
            products[wrong].sum -= K::ONE;
            let (proof, _) = prove(products.clone(), 1, &mut transcript());
            products[wrong].sum += K::ONE;
            assert_eq!(check(&products, &proof), Err(ProductsError::Value));
            products[wrong].sum -= K::ONE;
        }
    }

    /// Two wrong sums that cancel: only the batching challenge tells.
    #[test]
    fn sums_that_are_wrong_together_are_rejected() {
        let mut products = some(4, 2);
        products[0].sum += K::ONE;
        products[1].sum -= K::ONE;
        let (proof, _) = prove(products.clone(), 1, &mut transcript());
        assert_eq!(check(&products, &proof), Err(ProductsError::Value));
    }

    /// But for a factor beside one that is zero: that one is bound by the opening alone.
    #[test]
    fn every_element_of_a_proof_is_bound() {
        let products = some(10, 4);
        let (proof, _) = prove(products.clone(), 1, &mut transcript());
        assert!(
            proof
                .factors
                .iter()
                .all(|(left, right)| *left * *right != K::ZERO)
        );
        let bytes = bytes(&proof);
        let elements = 3 * proof.rounds.len() + 2 * proof.factors.len();
        assert_eq!(
            bytes.len(),
            4 + TAG.len() + 16 * elements,
            "nothing but elements"
        );
        for damaged in damaged(&bytes, 4 + TAG.len()) {
            let proof = read(&products, &damaged).expect("as many elements");
            assert_eq!(check(&products, &proof), Err(ProductsError::Value));
        }
    }

    #[test]
    fn another_number_of_rounds_or_factors_is_rejected() {
        let products = some(6, 4);
        let (proof, _) = prove(products.clone(), 1, &mut transcript());
        let (rounds, pairs) = (proof.rounds.len(), proof.factors.len());
        let mut short = proof.clone();
        short.rounds.pop();
        let expected = rounds;
        assert_eq!(
            check(&products, &short),
            Err(ProductsError::Rounds {
                expected,
                got: rounds - 1
            })
        );
        let mut long = proof.clone();
        long.rounds.push(Round([K::ZERO; 3]));
        assert_eq!(
            check(&products, &long),
            Err(ProductsError::Rounds {
                expected,
                got: rounds + 1
            })
        );
        let expected = pairs;
        let mut short = proof.clone();
        short.factors.pop();
        assert_eq!(
            check(&products, &short),
            Err(ProductsError::Factors {
                expected,
                got: pairs - 1
            })
        );
        let mut long = proof;
        long.factors.push((K::ZERO, K::ZERO));
        assert_eq!(
            check(&products, &long),
            Err(ProductsError::Factors {
                expected,
                got: pairs + 1
            })
        );
    }

    #[test]
    fn bytes_cut_short_or_made_up_are_refused_without_a_panic() {
        let products = some(7, 3);
        let (proof, _) = prove(products.clone(), 1, &mut transcript());
        let bytes = bytes(&proof);
        for len in 0..bytes.len() {
            assert!(read(&products, &bytes[..len]).is_err(), "{len} bytes");
        }
        let mut random = Random(8);
        for _ in 0..500 {
            let mut other = bytes.clone();
            for _ in 0..1 + random.below(8) {
                let at = 4 + TAG.len() + random.below(bytes.len() - 4 - TAG.len());
                other[at] ^= 1 + random.below(255) as u8;
            }
            if let Ok(proof) = read(&products, &other) {
                assert!(check(&products, &proof).is_err() || other == bytes);
            }
        }
    }

    /// What follows in the transcript depends on the sums and on the factors that were shown.
    #[test]
    fn sums_and_factors_are_absorbed() {
        let after = |sums: &[K], factors: &[(K, K)]| {
            let mut t = transcript();
            open(sums, &mut t);
            close(factors, &mut t);
            next_of(&mut t)
        };
        let plain = after(&[K::ONE], &[(K::ONE, K::TWO)]);
        assert_ne!(plain, after(&[K::TWO], &[(K::ONE, K::TWO)]));
        assert_ne!(plain, after(&[K::ONE], &[(K::TWO, K::TWO)]));
        assert_ne!(plain, after(&[K::ONE], &[(K::ONE, K::ONE)]));
    }

    #[test]
    fn the_error_counts_the_batch_and_the_rounds() {
        assert_eq!(error_over_field(&[]), 0);
        assert_eq!(error_over_field(&[1]), 0);
        assert_eq!(error_over_field(&[4, 1000, 1]), 2 + 3 * 10);
    }

    /// `cargo test --release -p assay-proof -- --ignored --nocapture typical_products`
    #[test]
    #[ignore = "a measurement"]
    fn typical_products_cost_so_much() {
        const TOKENS: usize = 256;
        let mut random = Random(9);
        let mut products = Vec::new();
        let tensor = |random: &mut Random, rows| Weight::Tensor {
            rows: random.elements(rows),
            tokens: random.elements(TOKENS),
        };
        for i in 0..120 {
            let rows = if i % 2 == 0 { 1536 } else { 576 };
            let mut integers =
                || Factor::Integers((0..rows * TOKENS).map(|_| random.integer(40)).collect());
            let (left, right) = (integers(), integers());
            products.push((tensor(&mut random, rows), left, right));
        }
        for _ in 0..30 {
            let cells = (0..TOKENS).map(|t| (random.below(576) * TOKENS + t, random.element()));
            let mut cells: Vec<(usize, K)> = cells.collect::<Vec<_>>();
            cells.sort_by_key(|cell| cell.0);
            let left = Factor::Sparse {
                len: 576 * TOKENS,
                cells,
            };
            let right = Factor::Integers((0..576 * TOKENS).map(|_| random.integer(40)).collect());
            products.push((tensor(&mut random, 576), left, right));
        }
        for i in 0..301 {
            let len = if i == 0 { 1 << 18 } else { 4096 - i };
            products.push((
                Weight::One,
                Factor::Dense(random.elements(len)),
                Factor::Dense(random.elements(len)),
            ));
        }
        let with = |(weight, left, right): (Weight, Factor, Factor)| {
            let sum = sum(&weight, &left, &right);
            Product {
                weight,
                left,
                right,
                sum,
            }
        };
        let products: Vec<Product> = products.into_iter().map(with).collect();
        let cells: usize = lens(&products).iter().sum();
        for threads in [1, 2] {
            let given = products.clone();
            let start = std::time::Instant::now();
            let (proof, _) = prove(given, threads, &mut transcript());
            let took = start.elapsed();
            let start = std::time::Instant::now();
            check(&products, &proof).expect("an honest proof");
            println!(
                "{} products, {cells} cells, {threads} threads: {took:?}, {} ns a cell; verified in {:?}, {} bytes",
                products.len(),
                took.as_nanos() / cells as u128,
                start.elapsed(),
                bytes(&proof).len(),
            );
        }
    }
}
