//! What both sides derive from the relation and the challenges: the leaves' claims, the linear constraints
//! at a random point, the products, and the one functional of the trace that all of it comes down to. The
//! prover and the verifier call the same functions; only what is in `prove` needs the trace.

use std::collections::HashMap;

use assay_engine::values::Constants;
use assay_protocol::trace::MatrixRef;
use p3_field::PrimeCharacteristicRing;

use crate::clear::{ChoiceClear, Clear};
use crate::field::{F, K, eq_table, log2_ceil, signed};
use crate::fractions::{FractionClaim, eq_below};
use crate::functional::{Entry, Functional};
use crate::products::{Reduced, Weight};
use crate::public::Public;
use crate::relation::program::Positions;
use crate::relation::{
    Angle, ByToken, Column, Constraint, Known, Leaf, ONES, Product, Relation, Sum, Tags, Term, sees,
};
use crate::transcript::Transcript;

/// What a proof is checked against, known to both sides.
pub(crate) struct Instance<'a> {
    pub(crate) public: &'a Public,
    pub(crate) relation: &'a Relation,
    pub(crate) clear: &'a Clear,
    pub(crate) tokens: &'a [u32],
    pub(crate) positions: Positions,
}

/// The look-up argument's challenges: a leaf's denominator is `α − (tag + γ·v0 + γ²·v1 + γ³·v2)`.
#[derive(Clone, Copy)]
pub(crate) struct LookUp {
    pub(crate) alpha: K,
    pub(crate) gamma: K,
}

/// Work before the look-up's challenges, in bits: who tries other traces for luckier ones pays for each try.
/// All look-ups of a proof hang on one draw, the largest error of the argument over K.
pub(crate) const LOOK_UP_WORK: u32 = 12;

impl LookUp {
    pub(crate) fn draw(t: &mut Transcript) -> LookUp {
        LookUp {
            alpha: t.challenge("look-up: alpha"),
            gamma: t.challenge("look-up: gamma"),
        }
    }

    pub(crate) fn powers(&self) -> [K; 3] {
        let square = self.gamma * self.gamma;
        [self.gamma, square, square * self.gamma]
    }
}

/// The random point of all linear constraints, and the power of each.
pub(crate) struct Linear {
    pub(crate) row_point: Vec<K>,
    /// `eq(point, i)` for every row of a constraint.
    pub(crate) rows: Vec<K>,
    /// `eq(point, t)`.
    pub(crate) tokens: Vec<K>,
    lambda: K,
}

impl Linear {
    pub(crate) fn draw(relation: &Relation, t: &mut Transcript) -> Linear {
        let rows = relation.longest();
        let row_point = t.point("constraints: row", log2_ceil(rows));
        let token_point = t.point("constraints: position", log2_ceil(relation.tokens));
        Linear {
            rows: eq_table(&row_point, rows),
            tokens: eq_table(&token_point, relation.tokens),
            row_point,
            lambda: t.challenge("constraints: batching"),
        }
    }

    /// `eq·vector`.
    pub(crate) fn weighted(&self, relation: &Relation, vector: ByToken) -> Vec<K> {
        weighted(&self.tokens, relation, vector)
    }
}

fn weighted(eq: &[K], relation: &Relation, vector: ByToken) -> Vec<K> {
    match vector {
        ONES => eq.to_vec(),
        _ => {
            let of = &relation.by_token[vector];
            eq.iter().zip(of).map(|(eq, v)| *eq * *v).collect()
        }
    }
}

/// The vector of the one term that each product stands in.
pub(crate) fn product_tokens(relation: &Relation) -> Vec<ByToken> {
    let mut tokens = vec![ONES; relation.products.len()];
    for constraint in &relation.constraints {
        for term in &constraint.terms {
            if let Term::Product {
                product,
                tokens: by,
            } = term
            {
                tokens[*product] = *by;
            }
        }
    }
    tokens
}

/// Rows of the constraint that each product stands in: matrices' rows.
pub(crate) fn product_rows(relation: &Relation) -> Vec<usize> {
    let mut rows = vec![0; relation.products.len()];
    for constraint in &relation.constraints {
        for term in &constraint.terms {
            if let Term::Product { product, .. } = term {
                rows[*product] = constraint.rows;
            }
        }
    }
    rows
}

/// The matrices of all products, with their shapes, and which product each is of.
pub(crate) fn matrices(relation: &Relation) -> Vec<(usize, (MatrixRef, usize, usize))> {
    let rows = product_rows(relation);
    let matrix = |(index, product): (usize, &Product)| match product {
        Product::Matrix { matrix, input } => Some((index, (*matrix, rows[index], input.rows))),
        _ => None,
    };
    relation
        .products
        .iter()
        .enumerate()
        .filter_map(matrix)
        .collect()
}

/// Vectors, weights and known sums of the products' sumcheck: first the claimed products, then the known.
pub(crate) fn shapes(
    instance: &Instance<'_>,
    linear: &Linear,
    claimed: &[K],
) -> Vec<(usize, Weight, K)> {
    let relation = instance.relation;
    let tokens = product_tokens(relation);
    let t = relation.tokens;
    let product = |((product, by), sum): ((&Product, &ByToken), &K)| {
        let (len, weight) = match product {
            Product::Matrix { input, .. } => (input.rows, Weight::One),
            Product::Scores { query, .. } => (query.rows, Weight::One),
            Product::Mix { share, .. } => (share.rows, Weight::One),
            Product::Cells { left, .. } => {
                let weight = Weight::Tensor {
                    rows: linear.rows[..left.rows()].to_vec(),
                    tokens: linear.weighted(relation, *by),
                };
                (left.rows() * t, weight)
            }
        };
        (len, weight, *sum)
    };
    let products = relation.products.iter().zip(&tokens).zip(claimed);
    let known = |known: &Known| match known {
        Known::Squares { input, sums } => {
            let sums = sums.iter().zip(&linear.tokens);
            let weight = Weight::Tensor {
                rows: vec![K::ONE; input.rows()],
                tokens: linear.tokens.clone(),
            };
            let sum = sums.map(|(v, eq)| *eq * F::from_u64(*v)).sum();
            (input.rows() * t, weight, sum)
        }
        Known::Gather { terms, values, .. } => {
            let sums = values.iter().zip(&linear.tokens);
            let sum = sums.map(|(v, eq)| *eq * signed(*v)).sum();
            (terms[0].0.rows * t, Weight::One, sum)
        }
    };
    products
        .map(product)
        .chain(relation.known.iter().map(known))
        .collect()
}

/// The cells that a gather takes, each with its weight.
pub(crate) fn gathered(at: &[u32], linear: &Linear) -> Vec<(usize, K)> {
    let n = at.len();
    let cell = |(t, at): (usize, &u32)| (*at as usize * n + t, linear.tokens[t]);
    let mut cells: Vec<_> = at.iter().enumerate().map(cell).collect();
    cells.sort_unstable_by_key(|cell| cell.0);
    cells
}

/// A gather's left factor at the products' point, which the verifier computes alone.
fn gather_at(at: &[u32], linear: &Linear, rows: &[K], tokens: &[K]) -> K {
    let term = |(t, at): (usize, &u32)| linear.tokens[t] * rows[*at as usize] * tokens[t];
    at.iter().enumerate().map(term).sum()
}

/// Numerators of a tree's leaves at a point: one for every look-up, zero for what only must not be zero.
pub(crate) fn numerators_at(leaves: &[Leaf], rows: &[K]) -> K {
    let (mut sum, mut from) = (K::ZERO, 0);
    for leaf in leaves {
        if matches!(leaf, Leaf::Key { .. }) {
            sum += rows[from..from + leaf.rows()].iter().copied().sum::<K>();
        }
        from += leaf.rows();
    }
    sum
}

/// Rows of all leaves of a tree.
pub(crate) fn leaf_rows(leaves: &[Leaf]) -> usize {
    leaves.iter().map(Leaf::rows).sum()
}

/// What the constraints take at their point beside the trace: the embedding's value and the products'.
pub(crate) struct Values<'a> {
    pub(crate) embedded: K,
    pub(crate) claimed: &'a [K],
}

impl Values<'_> {
    pub(crate) fn absorb(&self, t: &mut Transcript) {
        t.absorb("embedding: value", &[self.embedded]);
        t.absorb("products: values", self.claimed);
    }
}

/// Collects claims about linear functionals of one matrix; each gets its power of a challenge.
pub(crate) struct Claims {
    pub(crate) functional: Functional,
    scale: K,
    beta: K,
}

impl Claims {
    pub(crate) fn new(beta: K) -> Claims {
        Claims {
            functional: Functional {
                vectors: Vec::new(),
                entries: Vec::new(),
                value: K::ZERO,
            },
            scale: K::ONE,
            beta,
        }
    }

    pub(crate) fn vector(&mut self, vector: Vec<K>) -> usize {
        self.functional.vectors.push(vector);
        self.functional.vectors.len() - 1
    }

    /// Adds `Σ weights(i)·vector(t)·column(i, t)` to the claim at hand.
    pub(crate) fn add(&mut self, vector: usize, column: Column, weights: Vec<K>) {
        let scale = self.scale;
        let weights = weights.into_iter().map(|w| w * scale).collect();
        self.add_scaled(vector, column, weights);
    }

    /// The same of weights that have the claim's scale in them.
    pub(crate) fn add_scaled(&mut self, vector: usize, column: Column, weights: Vec<K>) {
        debug_assert_eq!(weights.len(), column.rows);
        self.functional.entries.push(Entry {
            vector,
            first_row: column.first,
            stride: column.stride,
            weights,
        });
    }

    pub(crate) fn scale(&self) -> K {
        self.scale
    }

    /// Ends the claim: what was added has this value.
    pub(crate) fn close(&mut self, value: K) {
        self.functional.value += self.scale * value;
        self.scale *= self.beta;
    }
}

/// All that is claimed of the trace, as one functional.
pub(crate) fn functional(
    instance: &Instance<'_>,
    look_up: &LookUp,
    trees: &[FractionClaim],
    linear: &Linear,
    values: &Values<'_>,
    reduced: &Reduced,
    t: &mut Transcript,
) -> Functional {
    let mut claims = Claims::new(t.challenge("functional: batching"));
    let relation = instance.relation;
    for (leaves, tree) in relation.groups.iter().zip(trees) {
        leaf_claim(instance, look_up, leaves, tree, &mut claims);
    }
    let last = trees.last().expect("the table's tree is the last");
    let (low, high) = last.point.split_at(log2_ceil(relation.tokens));
    let vector = claims.vector(eq_table(low, relation.tokens));
    let rows = eq_table(high, relation.multiplicities.rows);
    claims.add(vector, relation.multiplicities, rows);
    claims.close(last.numerator);
    linear_claim(instance, linear, values, &mut claims);
    product_claims(instance, linear, reduced, &mut claims);
    claims.functional
}

/// The denominators of a tree's leaves at its point.
fn leaf_claim(
    instance: &Instance<'_>,
    look_up: &LookUp,
    leaves: &[Leaf],
    tree: &FractionClaim,
    claims: &mut Claims,
) {
    let relation = instance.relation;
    let n = relation.tokens;
    let (low, high) = tree.point.split_at(log2_ceil(n));
    let (tokens, rows) = (eq_table(low, n), eq_table(high, leaf_rows(leaves)));
    // Beyond the leaves stand ones.
    let mut rest = tree.denominator - (K::ONE - eq_below(high, rows.len()));
    let mut vectors: HashMap<ByToken, usize> = HashMap::new();
    let along = |vector: ByToken| -> K {
        let of = relation.by_token[vector].iter().zip(&tokens);
        of.map(|(v, eq)| *eq * *v).sum()
    };
    let mut vector = |claims: &mut Claims, by: ByToken| {
        *vectors
            .entry(by)
            .or_insert_with(|| claims.vector(weighted(&tokens, relation, by)))
    };
    let mut from = 0;
    for leaf in leaves {
        let weights = &rows[from..from + leaf.rows()];
        let total: K = weights.iter().copied().sum();
        match leaf {
            Leaf::Key { tags, values } => {
                let tag = match tags {
                    Tags::Same(tag) => total * F::from_u32(tag.number()),
                    // The tag of a width is the width.
                    Tags::Bits(widths) => {
                        let term = |(w, eq): (&u8, &K)| *eq * F::from_u8(*w);
                        total * widths.iter().zip(&tokens).map(term).sum::<K>()
                    }
                    Tags::Causal {
                        seen,
                        unseen,
                        window,
                    } => {
                        let (seen, unseen) = (seen.number(), unseen.number());
                        let seeing = seeing(&tokens, *window);
                        let row = |(w, sees): (&K, &K)| {
                            *w * (*sees * F::from_u32(seen)
                                + (K::ONE - *sees) * F::from_u32(unseen))
                        };
                        weights.iter().zip(&seeing).map(row).sum()
                    }
                };
                rest -= look_up.alpha * total - tag;
                let plain = vector(claims, ONES);
                for (power, column) in look_up.powers().iter().zip(values) {
                    let scaled = weights.iter().map(|w| -(*w * *power));
                    claims.add(plain, *column, scaled.collect());
                }
            }
            Leaf::NotZero { terms, constant } => {
                rest -= total * along(*constant);
                for (column, k, by) in terms {
                    let at = vector(claims, *by);
                    let scaled = weights.iter().map(|w| *w * signed(*k));
                    claims.add(at, *column, scaled.collect());
                }
            }
        }
        from += leaf.rows();
    }
    claims.close(rest);
}

/// `Σ_t eq(t)·[t sees j]` for every j.
fn seeing(tokens: &[K], window: usize) -> Vec<K> {
    let n = tokens.len();
    let mut before = vec![K::ZERO];
    for eq in tokens {
        before.push(*before.last().expect("one at least") + *eq);
    }
    let position = |j: usize| {
        let end = if window == 0 { n } else { n.min(j + window) };
        debug_assert!(sees(j, j, window) && (end == n || !sees(end, j, window)));
        before[end] - before[j]
    };
    (0..n).map(position).collect()
}

/// All linear constraints at the random point.
fn linear_claim(
    instance: &Instance<'_>,
    linear: &Linear,
    values: &Values<'_>,
    claims: &mut Claims,
) {
    let relation = instance.relation;
    let mut walk = LinearWalk {
        instance,
        linear,
        embedded: values.embedded,
        claims,
        vectors: HashMap::new(),
        sums: HashMap::new(),
        angles: HashMap::new(),
        turned: HashMap::new(),
        known: K::ZERO,
    };
    let mut scale = K::ONE;
    for constraint in &relation.constraints {
        walk.constraint(constraint, scale, values.claimed);
        scale *= linear.lambda;
    }
    let known = walk.known;
    let mut turned: Vec<_> = walk.turned.drain().collect();
    turned.sort_unstable_by_key(|(place, _)| *place);
    for ((vector, row), weight) in turned {
        let column = Column {
            first: row,
            rows: 1,
            stride: 1,
        };
        claims.add(vector, column, vec![weight]);
    }
    claims.close(-known);
}

struct LinearWalk<'a> {
    instance: &'a Instance<'a>,
    linear: &'a Linear,
    /// The embedding's value at the constraints' point.
    embedded: K,
    claims: &'a mut Claims,
    vectors: HashMap<ByToken, usize>,
    /// `Σ_t eq(t)·vector(t)`.
    sums: HashMap<ByToken, K>,
    /// A frequency's entries of a RoPE table: its vector, and the vector's sum.
    angles: HashMap<(usize, bool, usize), (usize, K)>,
    /// Weights of rows along the angles' vectors.
    turned: HashMap<(usize, usize), K>,
    /// What does not depend on the trace, and the products.
    known: K,
}

impl LinearWalk<'_> {
    fn vector(&mut self, by: ByToken) -> usize {
        let (claims, linear) = (&mut *self.claims, self.linear);
        let relation = self.instance.relation;
        *self
            .vectors
            .entry(by)
            .or_insert_with(|| claims.vector(linear.weighted(relation, by)))
    }

    fn sum(&mut self, by: ByToken) -> K {
        let (linear, relation) = (self.linear, self.instance.relation);
        *self
            .sums
            .entry(by)
            .or_insert_with(|| linear.weighted(relation, by).into_iter().sum())
    }

    fn angle(&mut self, table: usize, sine: bool, frequency: usize) -> (usize, K) {
        let (claims, linear) = (&mut *self.claims, self.linear);
        let public = self.instance.public;
        let make = || {
            let value = |(t, eq): (usize, &K)| {
                let (cos, sin) = public.rope(table, t, frequency);
                *eq * signed(i64::from(if sine { sin } else { cos }))
            };
            let vector: Vec<K> = linear.tokens.iter().enumerate().map(value).collect();
            let sum = vector.iter().copied().sum();
            (claims.vector(vector), sum)
        };
        *self
            .angles
            .entry((table, sine, frequency))
            .or_insert_with(make)
    }

    fn constraint(&mut self, constraint: &Constraint, scale: K, claimed: &[K]) {
        let linear = self.linear;
        let weights = &linear.rows[..constraint.rows];
        let by_row = |k: K, rows: &Option<crate::relation::ByRow>| -> Vec<K> {
            match rows {
                None => weights.iter().map(|w| *w * k).collect(),
                Some(rows) => {
                    let rows = weights.iter().zip(rows.iter());
                    rows.map(|(w, v)| *w * k * signed(*v)).collect()
                }
            }
        };
        for term in &constraint.terms {
            match term {
                Term::Cells {
                    column,
                    scale: k,
                    rows,
                    tokens,
                } => {
                    let vector = self.vector(*tokens);
                    self.claims.add(vector, *column, by_row(scale * *k, rows));
                }
                Term::Public {
                    scale: k,
                    rows,
                    tokens,
                } => {
                    let total: K = by_row(scale * *k, rows).into_iter().sum();
                    let along = self.sum(*tokens);
                    self.known += total * along;
                }
                Term::Turned {
                    column,
                    scale: k,
                    angle,
                } => {
                    for (i, weight) in by_row(scale * *k, &None).into_iter().enumerate() {
                        let (vector, _) = self.angle(angle.table, angle.sine, i);
                        let place = self.turned.entry((vector, column.row(i)));
                        *place.or_insert(K::ZERO) += directed(weight, *angle);
                    }
                }
                Term::TurnedConstant { value, angle } => {
                    for (i, weight) in by_row(scale * *value, &None).into_iter().enumerate() {
                        let (_, sum) = self.angle(angle.table, angle.sine, i);
                        self.known += directed(weight * sum, *angle);
                    }
                }
                Term::Product { product, .. } => self.known += scale * claimed[*product],
                Term::Total { column } => {
                    let vector = self.vector(ONES);
                    let weight = -(scale * weights[0]);
                    self.claims.add(vector, *column, vec![weight; column.rows]);
                }
                Term::Embedded => self.known += scale * self.embedded,
                Term::Before { at, tokens } => self.known += scale * self.before(at, *tokens),
                Term::Shown => self.known -= scale * self.shown(weights),
            }
        }
    }

    /// `Σ_t eq(t)·vector(t)·Σ_{i < at(t)} eq(i)`.
    fn before(&self, at: &[u32], tokens: ByToken) -> K {
        let mut prefixes = vec![K::ZERO];
        for weight in &self.linear.rows {
            prefixes.push(*prefixes.last().expect("one at least") + *weight);
        }
        let weights = self.linear.weighted(self.instance.relation, tokens);
        let term = |(at, weight): (&u32, &K)| prefixes[*at as usize] * *weight;
        at.iter().zip(&weights).map(term).sum()
    }

    fn shown(&self, weights: &[K]) -> K {
        let Positions {
            first_choice,
            choices,
            ..
        } = self.instance.positions;
        let tokens = &self.linear.tokens[first_choice..first_choice + choices];
        let ChoiceClear::Shown(shown) = &self.instance.clear.choice else {
            return K::ZERO;
        };
        let rows = shown.chunks(choices).zip(weights);
        let row = |(row, weight): (&[i16], &K)| -> K {
            let terms = row.iter().zip(tokens);
            *weight * terms.map(|(x, eq)| *eq * signed(i64::from(*x))).sum::<K>()
        };
        rows.map(row).sum()
    }
}

fn directed(weight: K, angle: Angle) -> K {
    if angle.negative { -weight } else { weight }
}

/// The products' factors at their common point, as far as they are of the trace.
fn product_claims(
    instance: &Instance<'_>,
    linear: &Linear,
    reduced: &Reduced,
    claims: &mut Claims,
) {
    let relation = instance.relation;
    let n = relation.tokens;
    let longest = relation.longest();
    // For vectors, the point's low variables number the entries; for cells, the positions.
    let entries = eq_table(&reduced.point, longest.min(1 << reduced.point.len()));
    let (low, high) = reduced.point.split_at(log2_ceil(n));
    let rows = eq_table(high, longest.min(1 << high.len()));
    let tokens = eq_table(low, n);
    let cell_vector = claims.vector(tokens.clone());
    let plain = claims.vector(linear.tokens.clone());
    let by_row = claims.vector(linear.rows[..n].to_vec());
    let by_entry = claims.vector(entries[..n].to_vec());
    let mut by_token: HashMap<ByToken, usize> = HashMap::from([(ONES, plain)]);
    let mut cells_by_token: HashMap<ByToken, usize> = HashMap::from([(ONES, cell_vector)]);
    let sum_claim = |claims: &mut Claims, sum: &Sum, value: K| {
        let weights = &rows[..sum.rows()];
        for (column, k) in &sum.terms {
            let scaled = weights.iter().map(|w| *w * signed(*k)).collect();
            claims.add(cell_vector, *column, scaled);
        }
        let constant = weights.iter().copied().sum::<K>() * signed(sum.constant);
        claims.close(value - constant);
    };
    let product_by = product_tokens(relation);
    for ((product, by), (left, right)) in relation
        .products
        .iter()
        .zip(product_by)
        .zip(&reduced.factors)
    {
        let mut linear_vector = |claims: &mut Claims| {
            *by_token
                .entry(by)
                .or_insert_with(|| claims.vector(linear.weighted(relation, by)))
        };
        match product {
            Product::Matrix { input, .. } => {
                let vector = linear_vector(claims);
                claims.add(vector, *input, entries[..input.rows].to_vec());
                claims.close(*right);
            }
            Product::Cells { left: a, right: b } => {
                sum_claim(claims, a, *left);
                sum_claim(claims, b, *right);
            }
            Product::Scores { query, key } => {
                let vector = linear_vector(claims);
                claims.add(vector, *query, entries[..query.rows].to_vec());
                claims.close(*left);
                claims.add(by_row, *key, entries[..key.rows].to_vec());
                claims.close(*right);
            }
            Product::Mix { share, value } => {
                let vector = linear_vector(claims);
                claims.add(vector, *share, entries[..share.rows].to_vec());
                claims.close(*left);
                claims.add(by_entry, *value, linear.rows[..value.rows].to_vec());
                claims.close(*right);
            }
        }
    }
    let known = &reduced.factors[relation.products.len()..];
    for (known, (left, right)) in relation.known.iter().zip(known) {
        match known {
            Known::Squares { input, .. } => {
                sum_claim(claims, input, *left);
                sum_claim(claims, input, *right);
            }
            Known::Gather { terms, .. } => {
                for (column, k, by) in terms {
                    let vector = *cells_by_token
                        .entry(*by)
                        .or_insert_with(|| claims.vector(weighted(&tokens, relation, *by)));
                    let scaled = rows[..column.rows].iter().map(|w| *w * signed(*k));
                    claims.add(vector, *column, scaled.collect());
                }
                claims.close(*right);
            }
        }
    }
}

/// The gathers' left factors, which are public: product number and value.
pub(crate) fn gathers_at(relation: &Relation, linear: &Linear, point: &[K]) -> Vec<(usize, K)> {
    let n = relation.tokens;
    let (low, high) = point.split_at(log2_ceil(n));
    let longest = relation.longest();
    let rows = eq_table(high, longest.min(1 << high.len()));
    let tokens = eq_table(low, n);
    let first = relation.products.len();
    let gather = |(index, known): (usize, &Known)| match known {
        Known::Gather { at, .. } => Some((first + index, gather_at(at, linear, &rows, &tokens))),
        Known::Squares { .. } => None,
    };
    relation
        .known
        .iter()
        .enumerate()
        .filter_map(gather)
        .collect()
}

/// `Σ_k eq(point, k)·sums(k)`: a matrix's factor at the products' point.
pub(crate) fn matrix_at(sums: &[K], point: &[K]) -> K {
    let eq = eq_table(point, sums.len());
    sums.iter().zip(eq).map(|(a, b)| *a * b).sum()
}

/// `Σ eq·w(token of t, i)·E(token of t)`: the embedding's value at the constraints' point.
pub(crate) fn embedded(constants: &Constants<'_>, instance: &Instance<'_>, linear: &Linear) -> K {
    let public = instance.public;
    let mut w = vec![0i16; public.manifest.dims.width as usize];
    let mut sum = K::ZERO;
    for (token, eq) in instance.tokens.iter().zip(&linear.tokens) {
        constants.row(MatrixRef::Embedding, *token as usize, &mut w);
        let terms = w.iter().zip(&linear.rows);
        let row: K = terms.map(|(w, eq)| *eq * signed(i64::from(*w))).sum();
        sum += row * *eq * signed(public.embedding_scale(*token));
    }
    sum
}
