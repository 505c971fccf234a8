//! Products against their definition, and what a verifier must not accept.

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
            let apart = 1 + random.below(40);
            let cells = (0..len)
                .filter(|_| random.below(apart) == 0)
                .collect::<Vec<_>>();
            let cells = cells.into_iter().map(|i| (i, random.element())).collect();
            Factor::Sparse { len, cells }
        }
        _ => Factor::Integers((0..len).map(|_| random.integer(47)).collect()),
    }
}

fn with_zeros(random: &mut Random, len: usize) -> Vec<K> {
    let element = |random: &mut Random| match random.below(5) {
        0 => K::ZERO,
        _ => random.element(),
    };
    (0..len).map(|_| element(random)).collect()
}

fn product(random: &mut Random) -> Product {
    let rows = 1 + random.below(40);
    let tokens = 1 << random.below(6);
    let (len, weight) = match random.below(3) {
        0 => (rows, Weight::One),
        _ => (
            rows * tokens,
            Weight::Tensor {
                rows: with_zeros(random, rows),
                tokens: with_zeros(random, tokens),
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

/// Products none of whose ends is zero: beside a zero, only the opening binds a factor.
fn telling(count: usize) -> (Vec<Product>, ProductsProof) {
    let tells = |products: &[Product], reduced: &Reduced| {
        let ends = products.iter().zip(&reduced.factors);
        let end = |(product, (left, right)): (&Product, &(K, K))| {
            product.weight.at(&reduced.point) * *left * *right
        };
        ends.map(end).all(|end| end != K::ZERO)
    };
    let with_proof = |seed| {
        let products = some(seed, count);
        let (proof, reduced) = prove(products.clone(), 1, &mut transcript());
        tells(&products, &reduced).then_some((products, proof))
    };
    (0..).find_map(with_proof).expect("most are")
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

#[test]
fn every_element_of_a_proof_is_bound() {
    let (products, proof) = telling(4);
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
    let (products, proof) = telling(3);
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

/// Whoever knew the batching challenge first could let wrong sums cancel.
#[test]
fn the_batching_challenge_is_drawn_after_the_sums() {
    let scales = |last| open(&[K::ONE, last], &mut transcript());
    assert_eq!(scales(K::ONE)[0], K::ONE);
    assert_ne!(scales(K::ONE)[1], scales(K::TWO)[1]);
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
