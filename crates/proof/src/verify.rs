//! The verifier: the same schedule as `prove`, with every check named by what it rejects.

mod weights;

use assay_engine::ops::bfp;
use assay_engine::values::{self, BASE_NORM};
use assay_protocol::codec::Reader;
use assay_protocol::manifest::Manifest;
use assay_protocol::sampler::SamplerError;
use assay_protocol::{B256, Statement, StopReason, TokenId};
use p3_field::{Field, PrimeCharacteristicRing};

use crate::argument::{self, Instance, LOOK_UP_WORK, Linear, LookUp, Values};
use crate::claim::{Claim, ClaimError, Key};
use crate::clear::{ChoiceClear, Clear};
use crate::commit::{self, OpeningError};
use crate::committed::{self, Layout};
use crate::field::{K, eq_table, log2_ceil};
use crate::fractions::{self, FractionClaim, FractionError, eq_below};
use crate::functional::{self, FunctionalError};
use crate::products::{self, ProductsError};
use crate::proof::Proof;
use crate::prove::is_greedy;
use crate::public::Public;
use crate::relation::Relation;
use crate::relation::program::{self, Positions, RelationError};
use crate::schedule::{self, FormatError, Parts, TooLong, VERSION, Weights};
use crate::security::Security;
use crate::soundness::{CENTIBITS_MIN, soundness};

/// What a proof shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proven {
    pub statement: Statement,
    pub chosen: Chosen,
    /// How likely a false proof would have passed.
    pub security: Security,
}

/// Whether the answer's tokens are what the last activations choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chosen {
    Checked,
    /// The activations are the model's; what they choose takes the head to tell, which a key does not have.
    Shown,
}

/// Why a proof is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    #[error(transparent)]
    Claim(#[from] ClaimError),
    #[error(transparent)]
    TooLong(#[from] TooLong),
    #[error(transparent)]
    Format(#[from] FormatError),
    #[error(transparent)]
    Relation(#[from] RelationError),
    #[error("look-ups: the nonce does not show the work that is asked for")]
    Nonce,
    #[error("look-ups: {0}")]
    Tree(#[from] FractionError),
    #[error("look-ups: what is looked up is not what the table has")]
    LookUps,
    #[error("look-ups: a tree's numerators are not those of its leaves")]
    Numerators,
    #[error("look-ups: the table is not the model's")]
    Table,
    #[error("products: {0}")]
    Products(#[from] ProductsError),
    #[error("products: a factor is not the model's weights")]
    Weights,
    #[error("products: a factor does not stand for the places in the clear")]
    Places,
    #[error("constraints: the embedding's value is not the model's")]
    Embedding,
    #[error(
        "the proof leaves the weights to whoever verifies: verify it with the model, or have one made that opens the weights"
    )]
    WeightsNotOpened,
    #[error("the proof opens weights committed to as {opened}, the key knows {known}")]
    WrongKey { opened: B256, known: B256 },
    #[error("weights: {0}")]
    WeightsFunctional(FunctionalError),
    #[error("weights: {0}")]
    WeightsOpening(OpeningError),
    #[error("trace: {0}")]
    Functional(#[from] FunctionalError),
    #[error("trace: {0}")]
    Opening(#[from] OpeningError),
    #[error(
        "wrong token: the model's choice at output position {position} is {chosen}, the answer has {stated}"
    )]
    WrongToken {
        position: usize,
        chosen: TokenId,
        stated: TokenId,
    },
    #[error(
        "a proof of this shape keeps {0} bits only: too many values are looked up or committed at once"
    )]
    Weak(u32),
    #[error(transparent)]
    Sampler(#[from] SamplerError),
    #[error("wrong end: {0}")]
    WrongEnd(&'static str),
}

/// Checks a proof of a statement.
pub fn verify(
    key: &Key<'_>,
    claim: &Claim<'_>,
    proof: &Proof,
    threads: usize,
) -> Result<Proven, Rejection> {
    claim.check(key)?;
    let manifest = key.manifest();
    let (tokens, positions) = schedule::tokens(claim, manifest)?;
    let mut from = Reader::new(VERSION, &proof.bytes).map_err(|_| FormatError::Version)?;
    let weights = Weights::read(&mut from)?;
    let opened = match weights {
        Weights::Read => None,
        Weights::Opened(commitment) => Some((commitment, Layout::of(manifest))),
    };
    weights::check_opened(key, &opened)?;
    let shape = schedule::clear_shape(manifest, positions, is_greedy(claim));
    let (clear, clear_bytes) = schedule::read_clear(&mut from, &shape)?;
    let public = match key {
        Key::Weights(model) => &Public::of(model, tokens.len()),
        Key::Committed(key) => key.public(),
    };
    let relation = program::build(public, &clear, positions)?;
    schedule::check_len(&relation, tokens.len())?;
    let layout = opened.as_ref().map(|(_, layout)| layout);
    let parts = Parts::read(&relation, layout, &mut from)?;
    from.finish().map_err(FormatError::from)?;
    let instance = Instance {
        public,
        relation: &relation,
        clear: &clear,
        tokens: &tokens,
        positions,
    };

    let statement = claim.statement;
    let mut t = schedule::begin(statement, &weights, &tokens, clear_bytes, &parts.commitment);
    if !t.worked(LOOK_UP_WORK, parts.nonce) {
        return Err(Rejection::Nonce);
    }
    let look_up = LookUp::draw(&mut t);
    let mut trees = Vec::new();
    for (leaves, tree) in schedule::tree_sizes(&relation)
        .into_iter()
        .zip(&parts.trees)
    {
        trees.push(fractions::verify(leaves, tree, &mut t)?);
    }
    check_look_ups(&relation, &look_up, &parts, &trees)?;

    let linear = Linear::draw(&relation, &mut t);
    let embedded = weights::embedding(key, &instance, &linear, &parts)?;
    let values = Values {
        embedded,
        claimed: &parts.claimed,
    };
    values.absorb(&mut t);
    let shapes = argument::shapes(&instance, &linear, &parts.claimed);
    let told: Vec<_> = shapes.iter().map(|(len, w, sum)| (*len, w, *sum)).collect();
    let reduced = products::verify(&told, &parts.products, &mut t)?;
    for (place, value) in argument::gathers_at(&relation, &linear, &reduced.point) {
        if reduced.factors[place].0 != value {
            return Err(Rejection::Places);
        }
    }
    if let Key::Weights(model) = key {
        weights::check_matrices(model, &instance, &linear, &reduced, threads)?;
    }
    let functional = argument::functional(
        &instance, &look_up, &trees, &linear, &values, &reduced, &mut t,
    );
    let (point, value) = functional::verify(&functional, relation.rows, &parts.functional, &mut t)?;
    let len = schedule::committed_len(&relation);
    let point = schedule::opening_point(len, &point);
    commit::verify(
        &parts.commitment,
        len,
        &point,
        value,
        &parts.opening,
        &mut t,
    )?;
    let mut security = soundness(&relation);
    // Who holds the weights does not need their opening, but a proof is accepted as a whole or not at all.
    if let (Some((commitment, layout)), Some(opened)) = (&opened, &parts.weights) {
        let claims = committed::functional(layout, &instance, &linear, &reduced, embedded, &mut t);
        weights::check_weights(*commitment, layout, &claims, opened, &mut t)?;
        let more = committed::security(layout, &relation);
        security.parts.extend(more.parts);
    }
    if security.total().centibits() < CENTIBITS_MIN {
        return Err(Rejection::Weak(security.total().centibits() / 100));
    }
    let chosen = check_choices(key, claim, &clear, positions, threads)?;
    check_end(manifest, claim)?;
    Ok(Proven {
        statement: *statement,
        chosen,
        security,
    })
}

/// What the last activations choose must be the answer. They are the trace's by the last constraint, or the
/// choice itself is proven.
fn check_choices(
    key: &Key<'_>,
    claim: &Claim<'_>,
    clear: &Clear,
    positions: Positions,
    threads: usize,
) -> Result<Chosen, Rejection> {
    let Positions {
        first_choice,
        choices,
        ..
    } = positions;
    let here = first_choice..first_choice + choices;
    let chosen = match (&clear.choice, key) {
        (ChoiceClear::Greedy(greedy), _) => greedy.chosen[here].to_vec(),
        (ChoiceClear::Shown(_), Key::Committed(_)) => return Ok(Chosen::Shown),
        (ChoiceClear::Shown(shown), Key::Weights(model)) => {
            let peak = clear.final_norm.peak.as_ref().ok_or(Rejection::Places)?;
            let exponent = |v: &i64| bfp::exponent(v.abs(), BASE_NORM) as u8;
            let e: Vec<u8> = peak.value[here].iter().map(exponent).collect();
            values::choices(model, shown, &e, claim.sampler, first_choice, threads)?
        }
    };
    let pairs = chosen.iter().zip(claim.output).enumerate();
    for (position, (chosen, stated)) in pairs {
        if chosen != stated {
            return Err(Rejection::WrongToken {
                position,
                chosen: *chosen,
                stated: *stated,
            });
        }
    }
    Ok(Chosen::Checked)
}

/// The answer ends where the statement says it does, as far as token ids tell: a stop string is text, and
/// held against the text by whoever has the tokenizer.
fn check_end(manifest: &Manifest, claim: &Claim<'_>) -> Result<(), Rejection> {
    let is_end = |token: &TokenId| manifest.is_eos(*token);
    let (last, before) = match claim.output.split_last() {
        Some((last, before)) => (last, before),
        None => return Err(Rejection::WrongEnd("the answer has no token")),
    };
    if before.iter().any(is_end) {
        return Err(Rejection::WrongEnd("the answer goes on after its end"));
    }
    let (len, most) = (
        claim.output.len() as u64,
        u64::from(claim.sampler.max_tokens),
    );
    if len > most {
        return Err(Rejection::WrongEnd("more tokens than asked for"));
    }
    match claim.statement.stop_reason {
        StopReason::EndOfText if !is_end(last) => {
            Err(Rejection::WrongEnd("its last token does not end a text"))
        }
        StopReason::MaxTokens if len < most => {
            Err(Rejection::WrongEnd("fewer tokens than asked for"))
        }
        _ => Ok(()),
    }
}

/// The sums of all trees are the table's, and each tree's numerators and the table's denominators are what
/// they are known to be.
fn check_look_ups(
    relation: &Relation,
    look_up: &LookUp,
    parts: &Parts,
    trees: &[FractionClaim],
) -> Result<(), Rejection> {
    let mut sum = K::ZERO;
    let (table, groups) = parts.trees.split_last().ok_or(Rejection::LookUps)?;
    for tree in groups {
        // No root's denominator is 0: its tree's check says so.
        sum += tree.root.0 * tree.root.1.inverse();
    }
    if sum * table.root.1 != table.root.0 {
        return Err(Rejection::LookUps);
    }
    let low = log2_ceil(relation.tokens);
    for (leaves, tree) in relation.groups.iter().zip(trees) {
        let rows = eq_table(&tree.point[low..], argument::leaf_rows(leaves));
        if tree.numerator != argument::numerators_at(leaves, &rows) {
            return Err(Rejection::Numerators);
        }
    }
    let claim = trees.last().ok_or(Rejection::LookUps)?;
    let within = eq_below(&claim.point, relation.table.len());
    let keys = relation.table.key_at(look_up.gamma, &claim.point);
    match claim.denominator == look_up.alpha * within - keys + (K::ONE - within) {
        true => Ok(()),
        false => Err(Rejection::Table),
    }
}
