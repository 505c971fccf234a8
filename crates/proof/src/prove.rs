//! The prover. Each step's messages are absorbed before the challenge that depends on them is drawn; the
//! order is the verifier's (`verify`), and both take everything that they can from `argument`.

use std::thread;

use assay_engine::Model;
use assay_engine::values::Constants;
use assay_protocol::Temperature;
use assay_protocol::codec::Writer;
use p3_field::PrimeCharacteristicRing;

use crate::argument::{self, Instance, LOOK_UP_WORK, Linear, LookUp, Values};
use crate::claim::{Claim, ClaimError, Key, Phase, Progress};
use crate::commit;
use crate::committed::{self, WeightsCommitted};
use crate::contract::{RowSums, TokenWeights};
use crate::field::{F, K, signed};
use crate::fractions::{self, FractionError, Leaves, Memory};
use crate::functional;
use crate::matrix::TraceMatrix;
use crate::products::{self, Factor, Product as Weighted};
use crate::proof::Proof;
use crate::public::Public;
use crate::relation::program::Positions;
use crate::relation::{ByToken, Column, Known, Leaf, Product, Relation, Sum};
use crate::schedule::{self, Parts, TooLong, VERSION, Weights, WeightsOpened};
use crate::weights;
use crate::witness::{Witness, WitnessError, witness};

/// Why there is no proof.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProveError {
    #[error(transparent)]
    Claim(#[from] ClaimError),
    #[error(transparent)]
    TooLong(#[from] TooLong),
    #[error(transparent)]
    Witness(#[from] WitnessError),
    #[error("the weights' commitment is another model's")]
    WrongWeights,
    /// A value rounds to −2047 whose magnitude needs a larger exponent, or with a chance of 2^-100 two
    /// challenges meet.
    #[error("the trace has a value that its exponent does not hold: {0}")]
    Tree(#[from] FractionError),
}

/// How a proof is made.
#[derive(Clone, Copy)]
pub struct Options<'a> {
    pub threads: usize,
    /// Opens this commitment to the weights, so that verifying takes the model's key alone.
    pub weights: Option<&'a WeightsCommitted>,
}

/// Proves a statement to whoever holds the model.
pub fn prove(
    model: &Model,
    claim: &Claim<'_>,
    threads: usize,
    progress: &mut dyn FnMut(Progress),
) -> Result<Proof, ProveError> {
    let options = Options {
        threads,
        weights: None,
    };
    prove_with(model, claim, &options, progress)
}

/// Proves a statement. Takes core-seconds a token: what remains is told to `progress`. Whether the answer
/// is the model's is not asked first: a proof of a false statement is made, and rejected.
pub fn prove_with(
    model: &Model,
    claim: &Claim<'_>,
    options: &Options<'_>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Proof, ProveError> {
    prove_from(model, model, claim, options, progress)
}

/// As [`prove_with`]. What is opened are the weights of `opened`, which is the model itself unless a liar
/// is to be tested.
pub(crate) fn prove_from(
    model: &Model,
    opened: &Model,
    claim: &Claim<'_>,
    options: &Options<'_>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Proof, ProveError> {
    claim.check(&Key::Weights(model))?;
    let manifest = model.manifest();
    if let Some(weights) = options.weights
        && weights.model_id() != model.id()
    {
        return Err(ProveError::WrongWeights);
    }
    let (tokens, positions) = schedule::tokens(claim, manifest)?;
    let public = Public::of(model, positions.tokens);
    let threads = options.threads;
    let made = witness(
        model,
        &public,
        &tokens,
        positions,
        is_greedy(claim),
        threads,
        progress,
    )?;
    schedule::check_len(&made.relation, tokens.len())?;
    let (constants, opened) = (Constants::new(model), Constants::new(opened));
    let setting = Setting {
        public: &public,
        constants: &constants,
        claim,
        tokens: &tokens,
        positions,
        threads,
        opened: options.weights.map(|weights| (weights, &opened)),
    };
    argue(&setting, made, progress)
}

/// What a trace is argued about in.
pub(crate) struct Setting<'a> {
    pub(crate) public: &'a Public,
    /// The weights that products are made of.
    pub(crate) constants: &'a Constants<'a>,
    pub(crate) claim: &'a Claim<'a>,
    pub(crate) tokens: &'a [u32],
    pub(crate) positions: Positions,
    pub(crate) threads: usize,
    /// The weights that are opened, and the commitment to them.
    pub(crate) opened: Option<(&'a WeightsCommitted, &'a Constants<'a>)>,
}

/// The largest logit is proven; a draw is left to who has the head.
pub(crate) fn is_greedy(claim: &Claim<'_>) -> bool {
    claim.sampler.temperature == Temperature::Greedy
}

/// The argument about a trace, whatever it is: a trace that does not fulfil the relation gives a proof
/// that is rejected.
pub(crate) fn argue(
    setting: &Setting<'_>,
    made: Witness,
    progress: &mut dyn FnMut(Progress),
) -> Result<Proof, ProveError> {
    let Setting {
        public,
        constants,
        claim,
        tokens,
        positions,
        threads,
        opened,
    } = *setting;
    let Witness {
        clear,
        relation,
        trace,
    } = made;
    let instance = Instance {
        public,
        relation: &relation,
        clear: &clear,
        tokens,
        positions,
    };
    let mut tell = |phase, done, of| progress(Progress { phase, done, of });
    tell(Phase::Commit, 0, 1);
    let clear_bytes = clear.to_bytes(&schedule::clear_shape(
        &public.manifest,
        positions,
        is_greedy(claim),
    ));
    let (commitment, committed) = commit::commit(trace.values(), threads);
    let weights = match opened {
        None => Weights::Read,
        Some((weights, _)) => Weights::Opened(weights.commitment()),
    };
    let mut t = schedule::begin(claim.statement, &weights, tokens, &clear_bytes, &commitment);

    let nonce = t.work(LOOK_UP_WORK);
    let look_up = LookUp::draw(&mut t);
    let of = relation.groups.len() as u32 + 1;
    let (mut trees, mut claims) = (Vec::new(), Vec::new());
    let mut memory = Memory::default();
    for (done, leaves) in relation.groups.iter().enumerate() {
        tell(Phase::Lookup, done as u32, of);
        let leaves = group_leaves(&relation, &look_up, leaves, &trace, threads);
        let (tree, claim) = fractions::prove_in(&mut memory, &leaves, threads, &mut t)?;
        trees.push(tree);
        claims.push(claim);
    }
    tell(Phase::Lookup, of - 1, of);
    let keys = relation.table.keys(look_up.gamma);
    let counts = trace.run(relation.multiplicities.first, relation.multiplicities.rows);
    let leaves = Leaves {
        numerators: Some(counts.iter().map(|n| signed(i64::from(*n))).collect()),
        denominators: keys.into_iter().map(|key| look_up.alpha - key).collect(),
    };
    let (tree, table_claim) = fractions::prove_in(&mut memory, &leaves, threads, &mut t)?;
    trees.push(tree);
    claims.push(table_claim);

    tell(Phase::Sumcheck, 0, 2);
    let linear = Linear::draw(&relation, &mut t);
    let embedded = argument::embedded(constants, &instance, &linear);
    let (claimed, factors) = factors(constants, &instance, &linear, &trace, threads);
    let values = Values {
        embedded,
        claimed: &claimed,
    };
    values.absorb(&mut t);
    let shapes = argument::shapes(&instance, &linear, &claimed);
    let all = shapes.into_iter().zip(factors);
    let weighted = all.map(|((_, weight, sum), (left, right))| Weighted {
        weight,
        left,
        right,
        sum,
    });
    let (products, reduced) = products::prove(weighted.collect(), threads, &mut t);
    tell(Phase::Sumcheck, 1, 2);
    let functional = argument::functional(
        &instance, &look_up, &claims, &linear, &values, &reduced, &mut t,
    );
    let (functional, point, value) = functional::prove(&functional, &trace, threads, &mut t);

    let steps = 1 + u32::from(opened.is_some());
    tell(Phase::Open, 0, steps);
    let point = schedule::opening_point(trace.values().len(), &point);
    let opening = committed.open(trace.values(), &point, value, threads, &mut t);
    drop((trace, committed));
    tell(Phase::Open, 1, steps);
    let opened = opened.map(|(committed, constants)| {
        let layout = committed.layout();
        let claims = committed::functional(layout, &instance, &linear, &reduced, embedded, &mut t);
        let matrix = layout.matrix(constants, threads);
        let (functional, point, value) = functional::prove(&claims, &matrix, threads, &mut t);
        let point = schedule::opening_point(layout.len(), &point);
        let committed = committed.committed();
        let opening = committed.open(matrix.values(), &point, value, threads, &mut t);
        WeightsOpened {
            embedded,
            functional,
            opening,
        }
    });
    tell(Phase::Open, steps, steps);
    let mut out = Writer::new(VERSION);
    weights.write(&mut out);
    out.bytes(&clear_bytes);
    let parts = Parts {
        commitment,
        nonce,
        trees,
        claimed,
        products,
        functional,
        opening,
        weights: opened,
    };
    parts.write(&mut out);
    Ok(Proof {
        bytes: out.finish(),
    })
}

/// A tree's leaves: what is looked up, and what must not be zero.
fn group_leaves(
    relation: &Relation,
    look_up: &LookUp,
    leaves: &[Leaf],
    trace: &TraceMatrix,
    threads: usize,
) -> Leaves {
    let n = relation.tokens;
    let total = argument::leaf_rows(leaves) * n;
    let mut denominators = vec![K::ZERO; total];
    let plain = leaves.iter().all(|leaf| matches!(leaf, Leaf::Key { .. }));
    let numerators = (!plain).then(|| {
        let ones = |leaf: &Leaf| {
            let one = F::from_bool(matches!(leaf, Leaf::Key { .. }));
            std::iter::repeat_n(one, leaf.rows() * n)
        };
        leaves.iter().flat_map(ones).collect()
    });
    // A row is a piece of work; leaves are of very different lengths.
    let mut rows: Vec<(&Leaf, usize, &mut [K])> = Vec::new();
    let mut rest = &mut denominators[..];
    for leaf in leaves {
        for row in 0..leaf.rows() {
            let (here, after) = rest.split_at_mut(n);
            rows.push((leaf, row, here));
            rest = after;
        }
    }
    let share = rows.len().div_ceil(threads.max(1)).max(1);
    thread::scope(|scope| {
        for rows in rows.chunks_mut(share) {
            scope.spawn(move || {
                for (leaf, row, out) in rows {
                    leaf_row(relation, look_up, leaf, *row, trace, out);
                }
            });
        }
    });
    Leaves {
        numerators,
        denominators,
    }
}

fn leaf_row(
    relation: &Relation,
    look_up: &LookUp,
    leaf: &Leaf,
    row: usize,
    trace: &TraceMatrix,
    out: &mut [K],
) {
    match leaf {
        Leaf::Key { tags, values } => {
            for (t, out) in out.iter_mut().enumerate() {
                *out = look_up.alpha - F::from_u32(tags.at(row, t).number());
            }
            for (power, column) in look_up.powers().iter().zip(values) {
                let cells = trace.run(column.row(row), 1);
                for (out, v) in out.iter_mut().zip(cells) {
                    *out -= *power * signed(i64::from(*v));
                }
            }
        }
        Leaf::NotZero { terms, constant } => {
            let of = &relation.by_token[*constant];
            let mut sums: Vec<F> = of.clone();
            for (column, k, by) in terms {
                let of = &relation.by_token[*by];
                let cells = trace.run(column.row(row), 1);
                for ((sum, v), by) in sums.iter_mut().zip(cells).zip(of) {
                    *sum += signed(i64::from(*v) * k) * *by;
                }
            }
            for (out, sum) in out.iter_mut().zip(sums) {
                *out = K::from(sum);
            }
        }
    }
}

/// The values that products are claimed to have, and all products' factors.
fn factors(
    constants: &Constants<'_>,
    instance: &Instance<'_>,
    linear: &Linear,
    trace: &TraceMatrix,
    threads: usize,
) -> (Vec<K>, Vec<(Factor, Factor)>) {
    let relation = instance.relation;
    let n = relation.tokens;
    let tokens = argument::product_tokens(relation);
    let matrices = argument::matrices(relation);
    let shapes: Vec<_> = matrices.iter().map(|(_, shape)| *shape).collect();
    let sums = weights::contracted(constants, &shapes, &linear.rows, threads);
    let mut sums = sums.into_iter();
    let by_row = TokenWeights::new(&linear.rows[..n]);
    let along = |by: ByToken| TokenWeights::new(&linear.weighted(relation, by));
    let rows = |column: Column, weights: &TokenWeights| -> Vec<K> {
        let row = |i: usize| weights.along(trace.run(column.row(i), 1));
        (0..column.rows).map(row).collect()
    };
    let dot = |a: &[K], b: &[K]| -> K { a.iter().zip(b).map(|(a, b)| *a * *b).sum() };
    let (mut claimed, mut factors) = (Vec::new(), Vec::new());
    for (product, by) in relation.products.iter().zip(tokens) {
        let (left, right) = match product {
            Product::Matrix { input, .. } => {
                let left = sums.next().expect("a sum a matrix");
                (left, rows(*input, &along(by)))
            }
            Product::Scores { query, key } => (rows(*query, &along(by)), rows(*key, &by_row)),
            Product::Mix { share, value } => {
                let mut mixed = vec![K::ZERO; n];
                let weights = &linear.rows[..value.rows];
                RowSums::new(n).add(weights, |i| trace.run(value.row(i), 1), &mut mixed);
                (rows(*share, &along(by)), mixed)
            }
            Product::Cells { left, right } => {
                let (left, right) = (integers(left, trace), integers(right, trace));
                let weights = linear.weighted(relation, by);
                let row = |(i, (a, b)): (usize, (&[i64], &[i64]))| {
                    let terms = a.iter().zip(b).zip(&weights);
                    let sum: K = terms.map(|((a, b), w)| *w * signed(*a * *b)).sum();
                    sum * linear.rows[i]
                };
                let pairs = left.chunks(n).zip(right.chunks(n));
                claimed.push(pairs.enumerate().map(row).sum());
                factors.push((Factor::Integers(left), Factor::Integers(right)));
                continue;
            }
        };
        claimed.push(dot(&left, &right));
        factors.push((Factor::Dense(left), Factor::Dense(right)));
    }
    for known in &relation.known {
        factors.push(match known {
            Known::Squares { input, .. } => {
                let input = integers(input, trace);
                (Factor::Integers(input.clone()), Factor::Integers(input))
            }
            Known::Gather { terms, at, .. } => {
                let len = terms[0].0.rows * n;
                let cells = argument::gathered(at, linear);
                let gathered = gather(relation, terms, trace);
                (Factor::Sparse { len, cells }, Factor::Integers(gathered))
            }
        });
    }
    (claimed, factors)
}

/// A sum's values, cell by cell.
fn integers(sum: &Sum, trace: &TraceMatrix) -> Vec<i64> {
    let n = trace.tokens();
    let mut out = vec![sum.constant; sum.rows() * n];
    for (column, k) in &sum.terms {
        for (i, out) in out.chunks_mut(n).enumerate() {
            for (out, v) in out.iter_mut().zip(trace.run(column.row(i), 1)) {
                *out += i64::from(*v) * k;
            }
        }
    }
    out
}

/// What a gather takes from: powers of two of each position, which are integers.
fn gather(relation: &Relation, terms: &[(Column, i64, ByToken)], trace: &TraceMatrix) -> Vec<i64> {
    use p3_field::PrimeField64;
    let n = trace.tokens();
    let mut out = vec![0i64; terms[0].0.rows * n];
    for (column, k, by) in terms {
        let by: Vec<i64> = relation.by_token[*by]
            .iter()
            .map(|v| v.as_canonical_u64() as i64 * k)
            .collect();
        for (i, out) in out.chunks_mut(n).enumerate() {
            let cells = trace.run(column.row(i), 1).iter().zip(&by);
            for (out, (v, by)) in out.iter_mut().zip(cells) {
                *out += i64::from(*v) * by;
            }
        }
    }
    out
}
