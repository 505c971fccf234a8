//! The trace of a statement: the engine's values of the pass, written into the relation's columns, with
//! the remainders and limbs that make each equation exact. Knows no challenge.

use assay_engine::Model;
use assay_engine::ops::arith::rsh;
use assay_engine::ops::attention;
use assay_engine::run::RunError;
use assay_engine::values::{
    AttentionValues, BfpValues, Clamped, Constants, FixedValues, LayerConstants, LayerValues,
    LinearValues, NormValues, Pass, ValuesError,
};

use crate::claim::{Phase, Progress};
use crate::clear::{ChoiceClear, Clear, GreedyClear, LayerClear, NormClear, Peak};
use crate::matrix::TraceMatrix;
use crate::public::Public;
use crate::relation::program::{
    Bfp, HeadColumns, LayerColumns, NormColumns, Positions, RelationError, Root, Rounded, Walk,
};
use crate::relation::table::{LIMB, VALUES_MAX};
use crate::relation::{Column, Held, Leaf, Relation, Shift, Sum, sees};

/// Why a statement has no trace.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WitnessError {
    #[error(transparent)]
    Run(#[from] RunError),
    #[error(
        "the pass saturates, which no proof covers: {0}; the statement can still be audited and disputed"
    )]
    Clamped(#[from] Clamped),
    #[error(transparent)]
    Relation(#[from] RelationError),
    #[error(
        "{column} holds a value that the relation does not admit; the statement can still be audited and disputed"
    )]
    NotAdmitted { column: &'static str },
}

impl From<ValuesError> for WitnessError {
    fn from(error: ValuesError) -> Self {
        match error {
            ValuesError::Run(error) => error.into(),
            ValuesError::Clamped(clamped) => clamped.into(),
        }
    }
}

/// A statement's relation and the trace that fulfils it.
pub struct Witness {
    pub clear: Clear,
    pub relation: Relation,
    pub trace: TraceMatrix,
}

/// Runs the pass over `tokens` and writes down all of it.
pub fn witness(
    model: &Model,
    public: &Public,
    tokens: &[u32],
    positions: Positions,
    greedy: bool,
    threads: usize,
    progress: &mut dyn FnMut(Progress),
) -> Result<Witness, WitnessError> {
    let mut pass = Pass::new(model, tokens, threads)?;
    let constants = &Constants::new(model);
    let mut walk = Walk::new(public, positions);
    let mut to = Cells {
        tokens: positions.tokens,
        values: Vec::new(),
    };
    let (embedded, mut x) = walk.embedding()?;
    to.grow(&walk.relation);
    to.embedding(constants, tokens, &embedded, pass.residual());
    let mut layers = Vec::new();
    let of = constants.layers.len() as u32 + 1;
    for (by, program) in constants.layers.iter().zip(&public.layers) {
        let Some(values) = pass.next_layer() else {
            break;
        };
        let values = values?;
        let clear = layer_clear(&values);
        let columns = walk.layer(program, &clear, &x)?;
        to.grow(&walk.relation);
        to.layer(constants, by, &columns, &values);
        x = columns.residual;
        layers.push(clear);
        progress(Progress {
            phase: Phase::Witness,
            done: layers.len() as u32,
            of,
        });
    }
    let values = pass.final_norm();
    let final_norm = norm_clear(&values);
    let columns = walk.last(&final_norm, &x)?;
    to.grow(&walk.relation);
    to.norm(&columns, &values, constants.final_norm.gains);
    let choice = match greedy {
        true => {
            let (clear, slacks) = greedy_choice(&pass, &values.y);
            let columns = walk.greedy(&columns.bfp, &clear)?;
            to.grow(&walk.relation);
            to.limbs(&columns.terms(), |i, t| slacks[i * positions.tokens + t]);
            ChoiceClear::Greedy(clear)
        }
        false => {
            walk.shown(&columns.bfp);
            let chosen = positions.first_choice..positions.first_choice + positions.choices;
            let row = |row: &[i16]| row[chosen.clone()].to_vec();
            let rows = values.y.x12.chunks(positions.tokens);
            ChoiceClear::Shown(rows.flat_map(row).collect())
        }
    };
    let relation = walk.finish();
    to.grow(&relation);
    to.multiplicities(&relation)?;
    progress(Progress {
        phase: Phase::Witness,
        done: of,
        of,
    });
    Ok(Witness {
        clear: Clear {
            layers,
            final_norm,
            choice,
        },
        trace: TraceMatrix::new(positions.tokens, to.values),
        relation,
    })
}

/// What a greedy sampler takes after every position, and every id's distance from refuting it.
fn greedy_choice(pass: &Pass<'_>, last: &BfpValues) -> (GreedyClear, Vec<i64>) {
    let by = &pass.constants().head;
    let n = last.e.len();
    let mut scaled: Vec<i64> = pass.head(last).into_iter().map(i64::from).collect();
    let shifts: Vec<i32> = last.e.iter().map(|e| by.shift - i32::from(*e)).collect();
    let mut best = vec![(i64::MIN, 0u32); n];
    for (id, row) in scaled.chunks_mut(n).enumerate() {
        let a = i64::from(by.scale(id));
        for ((v, s), best) in row.iter_mut().zip(&shifts).zip(&mut best) {
            *v *= a;
            let logit = rsh(*v, *s);
            if logit > best.0 {
                *best = (logit, id as u32);
            }
        }
    }
    let mut clear = GreedyClear {
        chosen: best.iter().map(|(_, id)| *id).collect(),
        logits: best.iter().map(|(logit, _)| *logit).collect(),
        slacks: vec![0; n],
    };
    for (id, row) in scaled.chunks_mut(n).enumerate() {
        for (t, v) in row.iter_mut().enumerate() {
            let (logit, chosen) = best[t];
            // Shifts that the relation refuses are refused before any slack is read.
            let s = shifts[t].clamp(1, 62);
            let steps = logit + 1 - i64::from((id as u32) < chosen);
            *v = (steps << s) - (1 << (s - 1)) - 1 - *v;
            if id as u32 == chosen {
                clear.slacks[t] = v.unsigned_abs();
            }
        }
    }
    (clear, scaled)
}

fn peak_clear(values: &BfpValues) -> Peak {
    Peak {
        at: values.peak_at.clone(),
        value: values.peak.clone(),
    }
}

fn norm_clear(values: &NormValues<BfpValues>) -> NormClear {
    NormClear {
        ss: values.ss.clone(),
        peak: Some(peak_clear(&values.y)),
    }
}

fn plain_clear<Y>(values: &NormValues<Y>) -> NormClear {
    NormClear {
        ss: values.ss.clone(),
        peak: None,
    }
}

fn layer_clear(values: &LayerValues) -> LayerClear {
    LayerClear {
        attention_norm: norm_clear(&values.attention_norm),
        head_norms: values
            .head_norms
            .as_ref()
            .map(|norms| [plain_clear(&norms[0]), plain_clear(&norms[1])]),
        max_at: values.attention.max_at.clone(),
        max: values.attention.max.clone(),
        sum: values.attention.sum.clone(),
        mix: peak_clear(&values.mix_bfp),
        attention_post: values.attention_post.as_ref().map(plain_clear),
        ffn_norm: norm_clear(&values.ffn_norm),
        product: peak_clear(&values.product_bfp),
        ffn_post: values.ffn_post.as_ref().map(plain_clear),
    }
}

/// The trace as far as it is written.
struct Cells {
    tokens: usize,
    values: Vec<i32>,
}

impl Cells {
    fn grow(&mut self, relation: &Relation) {
        self.values.resize(relation.rows * self.tokens, 0);
    }

    /// `value(i, t)` for all cells of a column.
    fn put(&mut self, column: Column, value: impl Fn(usize, usize) -> i64) {
        for i in 0..column.rows {
            let row = &mut self.values[column.row(i) * self.tokens..][..self.tokens];
            for (t, cell) in row.iter_mut().enumerate() {
                // What does not fit is in no table, and found when look-ups are counted.
                *cell = i32::try_from(value(i, t)).unwrap_or(i32::MIN);
            }
        }
    }

    /// A value in two limbs of 16 bits.
    fn put_wide(&mut self, to: &Sum, value: impl Fn(usize, usize) -> i64) {
        let (lo, hi) = (to.terms[0].0, to.terms[1].0);
        self.put(lo, |i, t| (value(i, t) - to.constant) & 0xffff);
        self.put(hi, |i, t| (value(i, t) - to.constant) >> 16);
    }

    /// A value that is not negative, limb by limb.
    fn limbs(&mut self, to: &[(Column, i64)], value: impl Fn(usize, usize) -> i64) {
        for (limb, (column, _)) in to.iter().enumerate() {
            let by = LIMB as usize * limb;
            self.put(*column, |i, t| value(i, t) >> by & ((1 << LIMB) - 1));
        }
    }

    /// What `rsh(input, s) = out` leaves.
    fn put_remainder(
        &mut self,
        to: &[(Column, i64)],
        shift: &Shift,
        input: impl Fn(usize, usize) -> i64,
        out: impl Fn(usize, usize) -> i64,
    ) {
        self.limbs(to, |i, t| match shift.by[t] {
            s @ 1.. => input(i, t) + (1 << (s - 1)) - (out(i, t) << s),
            _ => 0,
        });
    }

    /// A rounded value and what was cut off to hold it within its limit.
    fn put_held(
        &mut self,
        to: Held,
        remainder: &[(Column, i64)],
        shift: &Shift,
        input: impl Fn(usize, usize) -> i64,
        held: impl Fn(usize, usize) -> i64,
    ) {
        let whole = |i: usize, t: usize| rsh(input(i, t), shift.by[t]);
        self.put(to.value, &held);
        self.put(to.excess, |i, t| whole(i, t) - held(i, t));
        self.put_remainder(remainder, shift, &input, whole);
    }

    fn embedding(&mut self, constants: &Constants<'_>, ids: &[u32], to: &Rounded, x: &[i32]) {
        let (t_len, width) = (self.tokens, to.out.rows());
        let mut w = vec![0i16; width];
        let mut products = vec![0i64; width * t_len];
        for (t, id) in ids.iter().enumerate() {
            constants.row(
                assay_protocol::trace::MatrixRef::Embedding,
                *id as usize,
                &mut w,
            );
            let e = constants.embedding_scale(*id);
            for (i, w) in w.iter().enumerate() {
                products[i * t_len + t] = i64::from(*w) * e;
            }
        }
        let out = |i: usize, t: usize| i64::from(x[i * t_len + t]);
        self.put_wide(&to.out, out);
        let input = |i: usize, t: usize| products[i * t_len + t];
        self.put_remainder(&to.remainder, &to.shift, input, out);
    }

    /// A head's part of a root lies at `from` rows of x.
    fn root<Y>(&mut self, to: &Root, values: &NormValues<Y>, from: usize, vector: usize) {
        let n = self.tokens;
        let ss = &values.ss[vector * n..(vector + 1) * n];
        let inverse: Vec<i64> = ss
            .iter()
            .map(|ss| assay_engine::ops::norm::inverse_root(*ss))
            .collect();
        let at = |i: usize, t: usize| (from + i) * n + t;
        let out = |i: usize, t: usize| i64::from(values.u[at(i, t)]);
        self.put_wide(&to.u, out);
        let input = |i: usize, t: usize| i64::from(values.x[at(i, t)]) * inverse[t];
        let shift = Shift {
            by: vec![23; n],
            down: 0,
            up: 0,
            half: 0,
        };
        self.put_remainder(&to.remainder, &shift, input, out);
    }

    fn bfp(&mut self, to: &Bfp, values: &BfpValues, input: impl Fn(usize, usize) -> i64) {
        let n = self.tokens;
        let out = |i: usize, t: usize| i64::from(values.x12[i * n + t]);
        self.put(to.x12, out);
        self.put_remainder(&to.remainder, &to.shift, input, out);
    }

    fn norm(&mut self, to: &NormColumns, values: &NormValues<BfpValues>, gains: &[i32]) {
        let n = self.tokens;
        self.root(&to.root, values, 0, 0);
        let v = |i: usize, t: usize| i64::from(values.u[i * n + t]) * i64::from(gains[i]);
        self.bfp(&to.bfp, &values.y, v);
    }

    /// A requantized product; its result may be virtual.
    fn linear(
        &mut self,
        remainder: &[(Column, i64)],
        shift: &Shift,
        values: &LinearValues,
        scale: impl Fn(usize) -> u16,
    ) {
        let n = self.tokens;
        let input = |i: usize, t: usize| i64::from(values.acc[i * n + t]) * i64::from(scale(i));
        let out = |i: usize, t: usize| i64::from(values.z[i * n + t]);
        self.put_remainder(remainder, shift, input, out);
    }

    fn projected(&mut self, to: &Rounded, values: &LinearValues, scale: impl Fn(usize) -> u16) {
        let n = self.tokens;
        self.put_wide(&to.out, |i, t| i64::from(values.z[i * n + t]));
        self.linear(&to.remainder, &to.shift, values, scale);
    }

    /// A head's turn; `x` is what is turned.
    fn turned(
        &mut self,
        constants: &Constants<'_>,
        table: usize,
        (to, remainder, shift): (Held, &[(Column, i64)], &Shift),
        x: &[i32],
        out: &[i16],
    ) {
        let n = self.tokens;
        let dim = constants.dims.head_dim as usize;
        let half = dim / 2;
        let mut turned = vec![0i64; x.len()];
        for t in 0..n {
            for f in 0..half {
                let angle = constants.rope(table, t, f);
                let (first, second) = constants.pairing.indices(f, half);
                for head in 0..x.len() / n / dim {
                    let at = |i: usize| (head * dim + i) * n + t;
                    let pair = assay_engine::ops::rope::turn(x[at(first)], x[at(second)], angle);
                    (turned[at(first)], turned[at(second)]) = pair;
                }
            }
        }
        let input = |i: usize, t: usize| turned[i * n + t];
        self.put_held(to, remainder, shift, input, |i, t| {
            i64::from(out[i * n + t])
        });
    }

    fn layer(
        &mut self,
        constants: &Constants<'_>,
        by: &LayerConstants<'_>,
        to: &LayerColumns,
        values: &LayerValues,
    ) {
        let n = self.tokens;
        self.norm(
            &to.attention_norm,
            &values.attention_norm,
            by.attention_norm.gains,
        );
        self.projected(&to.q, &values.q, |r| by.q.scale(r));
        self.projected(&to.k, &values.k, |r| by.k.scale(r));
        self.projected(&to.v, &values.v, |r| by.v.scale(r));
        let (mut q, mut k) = (&values.q.z, &values.k.z);
        if let (Some(columns), Some(norms)) = (&to.gemma, &values.head_norms) {
            let gemma = by.gemma.as_ref().expect("columns of gemma are gemma's");
            let gains = [gemma.q_norm.gains, gemma.k_norm.gains];
            for (((roots, rounded), norm), gains) in columns.heads.iter().zip(norms).zip(gains) {
                self.head_norm(roots, rounded, norm, gains);
            }
            (q, k) = (&norms[0].y, &norms[1].y);
        }
        let place = (to.q13, &to.q13_remainder[..], &to.turn[0]);
        self.turned(constants, by.rope, place, q, &values.q13);
        let place = (to.k13, &to.k13_remainder[..], &to.turn[1]);
        self.turned(constants, by.rope, place, k, &values.k13);
        let v = |i: usize, t: usize| i64::from(values.v.z[i * n + t]);
        let held = |i: usize, t: usize| i64::from(values.v12[i * n + t]);
        self.put_held(to.v12, &to.v12_remainder, &to.cached, v, held);
        for (h, head) in to.heads.iter().enumerate() {
            self.head(
                head,
                (&to.distance, &to.share),
                &values.attention,
                h,
                constants.c,
                by.window,
            );
        }
        self.bfp(&to.mix, &values.mix_bfp, |i, t| {
            i64::from(values.mix[i * n + t])
        });
        let branches = [
            (&values.o, &by.o, &values.attention_post),
            (&values.down, &by.down, &values.ffn_post),
        ];
        for (index, (linear, matrix, post)) in branches.into_iter().enumerate() {
            let scale = |r| matrix.scale(r);
            if let Some((remainder, shift)) = &to.branches[index] {
                self.linear(remainder, shift, linear, scale);
            }
            if let (Some(gemma), Some(post)) = (&to.gemma, post) {
                let columns = &gemma.posts[index];
                self.projected(&columns.branch, linear, scale);
                self.root(&columns.root, post, 0, 0);
                let norm = by.gemma.as_ref().expect("columns of gemma are gemma's");
                let gains = [&norm.attention_post, &norm.ffn_post][index].gains;
                let v = |i: usize, t: usize| i64::from(post.u[i * n + t]) * i64::from(gains[i]);
                let out = |i: usize, t: usize| i64::from(post.y[i * n + t]);
                self.put_remainder(&columns.remainder, &columns.shift, v, out);
            }
        }
        self.put_wide(&to.middle, |i, t| i64::from(values.middle[i * n + t]));
        self.put_wide(&to.residual, |i, t| i64::from(values.residual[i * n + t]));
        self.norm(&to.ffn_norm, &values.ffn_norm, by.ffn_norm.gains);
        self.projected(&to.gate, &values.gate, |r| by.gate.scale(r));
        let ramp = |g: i32| {
            let remainder = constants.act[g.unsigned_abs().min(65_535) as usize];
            i64::from((g.max(0) << 4) - i32::from(remainder))
        };
        self.put(to.h, |i, t| ramp(values.gate.z[i * n + t]));
        self.projected(&to.up, &values.up, |r| by.up.scale(r));
        self.bfp(&to.product, &values.product_bfp, |i, t| {
            values.product[i * n + t]
        });
    }

    fn head_norm(
        &mut self,
        roots: &[Root],
        to: &Rounded,
        values: &NormValues<FixedValues>,
        gains: &[i32],
    ) {
        let n = self.tokens;
        let dim = roots[0].u.rows();
        for (head, root) in roots.iter().enumerate() {
            self.root(root, values, head * dim, head);
        }
        let out = |i: usize, t: usize| i64::from(values.y[i * n + t]);
        self.put_wide(&to.out, out);
        let v = |i: usize, t: usize| i64::from(values.u[i * n + t]) * i64::from(gains[i % dim]);
        self.put_remainder(&to.remainder, &to.shift, v, out);
    }

    fn head(
        &mut self,
        to: &HeadColumns,
        (distance, share): (&Shift, &Shift),
        values: &AttentionValues,
        head: usize,
        c: u32,
        window: usize,
    ) {
        let n = self.tokens;
        let at = |j: usize, t: usize| (head * n + j) * n + t;
        let below = |j: usize, t: usize| values.below[at(j, t)];
        self.put_wide(&to.below, below);
        let scaled = |j: usize, t: usize| below(j, t) * i64::from(c);
        // d keeps its sign where the position is not seen.
        let d = |j: usize, t: usize| rsh(scaled(j, t), distance.by[t]);
        self.put(to.distance, d);
        self.put_remainder(&to.distance_remainder, distance, scaled, d);
        let e = |j: usize, t: usize| match sees(t, j, window) {
            true => i64::from(values.e[at(j, t)]),
            false => 0,
        };
        self.put(to.e, e);
        let reciprocals: Vec<i64> = values.sum[head * n..(head + 1) * n]
            .iter()
            .map(|z| attention::reciprocal(*z) as i64)
            .collect();
        let p = |j: usize, t: usize| i64::from(values.p[at(j, t)]);
        self.put(to.share, p);
        self.put_remainder(
            &to.share_remainder,
            share,
            |j, t| e(j, t) * reciprocals[t],
            p,
        );
    }

    /// Counts all look-ups into the last rows.
    fn multiplicities(&mut self, relation: &Relation) -> Result<(), WitnessError> {
        let n = self.tokens;
        let mut counts = vec![0i32; relation.table.len()];
        for leaf in relation.groups.iter().flatten() {
            let Leaf::Key { tags, values } = leaf else {
                continue;
            };
            let mut tuple = [0i64; VALUES_MAX];
            for i in 0..leaf.rows() {
                for t in 0..n {
                    for (v, column) in tuple.iter_mut().zip(values) {
                        *v = self.values[column.row(i) * n + t].into();
                    }
                    let place = relation.table.find(tags.at(i, t), &tuple[..values.len()]);
                    let Some(place) = place else {
                        let column = relation.name(values[0]);
                        return Err(WitnessError::NotAdmitted { column });
                    };
                    counts[place] += 1;
                }
            }
        }
        let at = relation.multiplicities.first * n;
        self.values[at..at + counts.len()].copy_from_slice(&counts);
        Ok(())
    }
}
