//! The relation of one statement: a walk over the model that names every column, look-up, constraint and
//! product, layer after layer. Beside each part stands why its witness has one admissible value. Writes no
//! witness and reads no trace.

use assay_engine::ops::rope::Pairing;
use assay_engine::ops::{self, bfp};
use assay_engine::values::{BASE_MIX, BASE_MLP, BASE_NORM};
use p3_field::PrimeCharacteristicRing;

use super::table::{Table, Tag};
use super::{
    Angle, ByRow, ByToken, Column, Held, Known, Leaf, ONES, Product, Relation, Shift, Sum, Tags,
    Term, cell, cells, public, sees,
};
use crate::clear::{ChoiceClear, Clear, LayerClear, NormClear, Peak};
use crate::field::{F, signed};
use crate::public::{LayerPublic, LinearPublic, NormPublic, Public};

/// What the clear values cannot be, or the relation cannot hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RelationError {
    #[error("a value in the clear is out of its range: {0}")]
    Clear(&'static str),
    #[error("{0}: its shifts leave the range in which integers do not wrap around the field")]
    Wraps(&'static str),
}

/// The residual lies within ±(2^26 − 1), half of what the engine clamps at: then neither a branch, the
/// difference of two residuals, nor a sum can have been clamped.
const RESIDUAL: i64 = (1 << 26) - 1;
/// Both sides of every equation stay below 2^62.
const WHOLE: i32 = 62;
/// Scores and products of norms in the clear.
const PEAK_MAX: u64 = 1 << 47;
const SCORE_MAX: u64 = 1 << 34;

/// A remainder's limbs, each with its power of two.
pub type Limbs = Vec<(Column, i64)>;

/// Columns of a vector under an exponent.
pub struct Bfp {
    pub x12: Column,
    pub remainder: Limbs,
    pub shift: Shift,
}

/// A rounded result and its remainder.
pub struct Rounded {
    pub out: Sum,
    pub remainder: Limbs,
    pub shift: Shift,
}

/// `u = rsh(x·inv, 23)` of a norm.
pub struct Root {
    pub u: Sum,
    pub remainder: Limbs,
}

pub struct NormColumns {
    pub root: Root,
    pub bfp: Bfp,
}

/// One head's attention.
pub struct HeadColumns {
    pub below: Sum,
    pub distance: Column,
    pub distance_remainder: Limbs,
    pub e: Column,
    pub share: Column,
    pub share_remainder: Limbs,
}

pub struct GemmaColumns {
    /// Of q and k: each head's root, and the result.
    pub heads: [(Vec<Root>, Rounded); 2],
    pub posts: [PostColumns; 2],
}

/// A branch of gemma's and its norm, whose result is the difference of two residuals.
pub struct PostColumns {
    pub branch: Rounded,
    pub root: Root,
    pub remainder: Limbs,
    pub shift: Shift,
}

/// Where a layer's values go.
pub struct LayerColumns {
    pub attention_norm: NormColumns,
    pub q: Rounded,
    pub k: Rounded,
    pub v: Rounded,
    pub q13: Held,
    pub q13_remainder: Limbs,
    pub k13: Held,
    pub k13_remainder: Limbs,
    pub v12: Held,
    pub v12_remainder: Limbs,
    pub turn: [Shift; 2],
    pub cached: Shift,
    pub heads: Vec<HeadColumns>,
    pub distance: Shift,
    pub share: Shift,
    pub mix: Bfp,
    /// Llama's: the remainders of the branches, which are differences of residuals.
    pub branches: [Option<(Limbs, Shift)>; 2],
    pub middle: Sum,
    pub ffn_norm: NormColumns,
    pub gate: Rounded,
    pub h: Column,
    pub up: Rounded,
    pub product: Bfp,
    pub residual: Sum,
    pub gemma: Option<GemmaColumns>,
}

/// The positions that are run, and those that choose a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Positions {
    pub tokens: usize,
    pub first_choice: usize,
    pub choices: usize,
}

/// Builds the relation. Both sides walk alone, so that neither checks what the other does not prove.
pub fn build(
    public: &Public,
    clear: &Clear,
    positions: Positions,
) -> Result<Relation, RelationError> {
    let mut walk = Walk::new(public, positions);
    let (_, mut x) = walk.embedding()?;
    for (layer, clear) in public.layers.iter().zip(&clear.layers) {
        x = walk.layer(layer, clear, &x)?.residual;
    }
    let last = walk.last(&clear.final_norm, &x)?;
    match &clear.choice {
        ChoiceClear::Shown(_) => walk.shown(&last.bfp),
        ChoiceClear::Greedy(greedy) => {
            walk.greedy(&last.bfp, greedy)?;
        }
    }
    Ok(walk.finish())
}

/// The walk, a step at a time: a prover fills each step's columns before the next.
pub struct Walk<'a> {
    public: &'a Public,
    positions: Positions,
    pub relation: Relation,
}

impl<'a> Walk<'a> {
    pub fn new(public: &'a Public, positions: Positions) -> Self {
        let table = Table::new(public.exp(), public.act());
        Walk {
            public,
            positions,
            relation: Relation::new(positions.tokens, table),
        }
    }

    pub(super) fn public(&self) -> &'a Public {
        self.public
    }

    /// The table's multiplicities come last.
    pub fn finish(self) -> Relation {
        let mut relation = self.relation;
        let rows = relation.table.len() / relation.tokens;
        relation.multiplicities = relation.column("multiplicities", rows);
        relation
    }
}

impl Walk<'_> {
    fn width(&self) -> usize {
        self.public.manifest.dims.width as usize
    }

    fn constant(&self, v: i32) -> Vec<i32> {
        vec![v; self.positions.tokens]
    }

    /// A shift whose result has this many bits: result·2^s must not wrap.
    fn shift(
        &mut self,
        name: &'static str,
        by: Vec<i32>,
        bits: i32,
    ) -> Result<Shift, RelationError> {
        // To the left at most 15, as the model's bounds say: what is shifted there is below 2^46.
        if by.iter().any(|s| !(-15..=WHOLE - bits).contains(s)) {
            return Err(RelationError::Wraps(name));
        }
        Ok(self.relation.shift(by))
    }

    fn residual(&mut self) -> Sum {
        let names = ["residual.lo", "residual.hi"];
        let width = self.width();
        self.relation.wide(names, width, RESIDUAL, Tag::Below(2047))
    }

    /// `x = rsh(w·E, shift)`: the row is public, so x is the one value with a remainder below 2^shift.
    pub fn embedding(&mut self) -> Result<(Rounded, Sum), RelationError> {
        self.relation.groups.push(Vec::new());
        let out = self.residual();
        let by = self.constant(self.public.embedding_shift);
        if by[0] < 0 {
            return Err(RelationError::Wraps("embedding"));
        }
        let shift = self.shift("embedding", by, 27)?;
        let remainder = self.relation.remainder(out.rows(), &shift);
        self.relation
            .rounded("embedding", vec![Term::Embedded], &out, &remainder, &shift);
        let rounded = Rounded {
            out: out.clone(),
            remainder,
            shift,
        };
        Ok((rounded, out))
    }

    /// `u = rsh(x·inv, 23)`. The sum of squares is checked by a product, so that inv is the engine's and
    /// |x| ≤ root; |u| < 2^25 keeps u·2^23 from wrapping, hence u and its remainder are unique.
    fn root(&mut self, x: &Sum, clear: &[u64], eps: u64) -> Result<Root, RelationError> {
        let r = &mut self.relation;
        let below_eps = clear.iter().any(|ss| *ss < eps || *ss >= 1 << 63);
        if below_eps {
            return Err(RelationError::Clear("a sum of squares"));
        }
        r.known.push(Known::Squares {
            input: x.clone(),
            sums: clear.iter().map(|ss| ss - eps).collect(),
        });
        let inverse = |ss: &u64| signed(ops::norm::inverse_root(*ss));
        let inverse = r.vector(clear.iter().map(inverse).collect());
        let u = r.wide(["u.lo", "u.hi"], x.rows(), 1 << 25, Tag::Bits(10));
        let shift = r.shift(vec![23; r.tokens]);
        let remainder = r.remainder(x.rows(), &shift);
        let input = cells(x, F::ONE, None, inverse);
        r.rounded("norm: root", input, &u, &remainder, &shift);
        Ok(Root { u, remainder })
    }

    /// The columns of `x12 = rsh(v, base + e)`: e follows from the peak in the clear, which a gather binds
    /// to the vector. It is not too large as |peak| needs it, and not too small as all of x12 lie within
    /// ±2047; but −2047.5·2^s also rounds to −2047 where its magnitude would need a larger e, and that is
    /// x12 = −2047 with remainder 0: excluded as a denominator that is not 0.
    fn bfp(
        &mut self,
        name: &'static str,
        rows: usize,
        base: i32,
        peak: &Peak,
    ) -> Result<Bfp, RelationError> {
        let place = |at: &u32| (*at as usize) < rows;
        let fits = |v: &i64| v.unsigned_abs() <= PEAK_MAX;
        if !peak.at.iter().all(place) || !peak.value.iter().all(fits) {
            return Err(RelationError::Clear(name));
        }
        let by = |v: &i64| base + bfp::exponent(v.abs(), base);
        let by: Vec<i32> = peak.value.iter().map(by).collect();
        let shift = self.shift(name, by, 12)?;
        let r = &mut self.relation;
        let x12 = r.small("x12", rows, ops::X_MAX as u32);
        let remainder = r.remainder(rows, &shift);
        let mut terms = vec![(x12, 1, shift.down)];
        terms.extend(remainder.iter().map(|(column, k)| (*column, *k, ONES)));
        // Where nothing is rounded, −2047 is itself.
        let lowest = |s: &i32| F::from_u64((2047 << *s) + u64::from(*s == 0));
        let constant = r.vector(shift.by.iter().map(lowest).collect());
        r.leaf(Leaf::NotZero {
            terms: terms.clone(),
            constant,
        });
        let half = |s: i32| if s > 0 { 1i64 << (s - 1) } else { 0 };
        let values = peak.value.iter().zip(&shift.by);
        r.known.push(Known::Gather {
            terms,
            at: peak.at.clone(),
            values: values.map(|(v, s)| v + half(*s)).collect(),
        });
        Ok(Bfp {
            x12,
            remainder,
            shift,
        })
    }

    /// `v = u·G` rounded to 12 bits: linear in u, so v is unique as u is.
    fn norm(
        &mut self,
        x: &Sum,
        clear: &NormClear,
        by: &NormPublic,
    ) -> Result<NormColumns, RelationError> {
        let root = self.root(x, &clear.ss, by.eps)?;
        let peak = clear.peak.as_ref().ok_or(RelationError::Clear("norm"))?;
        let bfp = self.bfp("norm", x.rows(), BASE_NORM, peak)?;
        let gains: ByRow = by.gains.iter().map(|g| i64::from(*g)).collect();
        let input = cells(&root.u, F::ONE, Some(&gains), ONES);
        let out = bfp.x12.into();
        self.relation
            .rounded("norm: gain", input, &out, &bfp.remainder, &bfp.shift);
        Ok(NormColumns { root, bfp })
    }

    /// The rounded product of a matrix: acc·A is a function of x12, below 2^46 by the model's bounds.
    fn linear(
        &mut self,
        name: &'static str,
        by: &LinearPublic,
        input: &Bfp,
        base: i32,
        out: &Sum,
        bits: i32,
    ) -> Result<(Limbs, Shift), RelationError> {
        let shifts = input.shift.by.iter().map(|s| by.shift - (s - base));
        let shift = self.shift(name, shifts.collect(), bits)?;
        let r = &mut self.relation;
        let remainder = r.remainder(by.rows, &shift);
        r.products.push(Product::Matrix {
            matrix: by.matrix,
            input: input.x12,
        });
        let product = Term::Product {
            product: r.products.len() - 1,
            tokens: shift.up,
        };
        r.rounded(name, vec![product], out, &remainder, &shift);
        Ok((remainder, shift))
    }

    /// q, k or v: within ±(2^24 − 1), all but the topmost 2^16 values of it, so never clamped.
    fn projected(&mut self, by: &LinearPublic, input: &Bfp) -> Result<Rounded, RelationError> {
        let offset = i64::from(ops::QKV_MAX);
        let out = self
            .relation
            .wide(["qkv.lo", "qkv.hi"], by.rows, offset, Tag::Below(511));
        let (remainder, shift) = self.linear("q, k, v", by, input, BASE_NORM, &out, 25)?;
        Ok(Rounded {
            out,
            remainder,
            shift,
        })
    }

    /// A head's turn by its position's angles, at Q.26, rounded to the layer's fraction and held within 13
    /// bits: the one place, with v's, where values leave their limits on some prompts.
    fn turned(&mut self, input: &Sum, table: usize, shift: &Shift) -> (Held, Limbs) {
        let dim = self.public.manifest.dims.head_dim as usize;
        let r = &mut self.relation;
        let names = ["turned", "turned.excess"];
        let out = r.held(names, input.rows(), ops::QK_MAX as u32);
        let remainder = r.remainder(input.rows(), shift);
        for head in 0..input.rows() / dim {
            let part = |column: Column, second: bool| {
                let head = column.slice(head * dim, dim);
                match self.public.pairing {
                    Pairing::Pairs => head.every_second(usize::from(second)),
                    Pairing::Halves => head.slice(usize::from(second) * dim / 2, dim / 2),
                }
            };
            // (a·cos − b·sin, a·sin + b·cos)
            for second in [false, true] {
                let mut turned = Vec::new();
                for b in [false, true] {
                    let angle = Angle {
                        table,
                        sine: second != b,
                        negative: b && !second,
                    };
                    let side = input.map(|column| part(column, b));
                    turned.extend(side.terms.iter().map(|(column, k)| Term::Turned {
                        column: *column,
                        scale: signed(*k),
                        angle,
                    }));
                    turned.push(Term::TurnedConstant {
                        value: signed(input.constant),
                        angle,
                    });
                }
                let out = out.whole().map(|column| part(column, second));
                let remainder: Vec<_> = remainder
                    .iter()
                    .map(|(column, k)| (part(*column, second), *k))
                    .collect();
                r.rounded("RoPE", turned, &out, &remainder, shift);
            }
        }
        (out, remainder)
    }

    pub fn layer(
        &mut self,
        by: &LayerPublic,
        clear: &LayerClear,
        x: &Sum,
    ) -> Result<LayerColumns, RelationError> {
        self.relation.groups.push(Vec::new());
        let attention_norm = self.norm(x, &clear.attention_norm, &by.attention_norm)?;
        let q = self.projected(&by.q, &attention_norm.bfp)?;
        let k = self.projected(&by.k, &attention_norm.bfp)?;
        let v = self.projected(&by.v, &attention_norm.bfp)?;
        let (mut q_in, mut k_in) = (q.out.clone(), k.out.clone());
        let mut heads_gemma = None;
        if let (Some(gemma), Some([q_clear, k_clear])) = (&by.gemma, &clear.head_norms) {
            let q_norm = self.head_norm(&q_in, q_clear, &gemma.q_norm)?;
            let k_norm = self.head_norm(&k_in, k_clear, &gemma.k_norm)?;
            (q_in, k_in) = (q_norm.1.out.clone(), k_norm.1.out.clone());
            heads_gemma = Some([q_norm, k_norm]);
        }
        let f = by.fractions;
        let turn = |walk: &mut Self, f: i8| {
            let by = walk.constant(26 - i32::from(f));
            walk.shift("RoPE", by, 17)
        };
        let turn = [turn(self, f.q)?, turn(self, f.k)?];
        let (q13, q13_remainder) = self.turned(&q_in, by.rope, &turn[0]);
        let (k13, k13_remainder) = self.turned(&k_in, by.rope, &turn[1]);
        let cached = self.constant(12 - i32::from(f.v));
        let cached = self.shift("v", cached, 17)?;
        let r = &mut self.relation;
        let v12 = r.held(["v12", "v12.excess"], v.out.rows(), ops::V_MAX as u32);
        let v12_remainder = r.remainder(v.out.rows(), &cached);
        let input = cells(&v.out, F::ONE, None, cached.up);
        r.rounded("v", input, &v12.whole(), &v12_remainder, &cached);

        let csh = self.constant(by.csh);
        let distance = self.shift("distance", csh, 18)?;
        let thirty = self.constant(30);
        let share = self.shift("share", thirty, 16)?;
        let d = &self.public.manifest.dims;
        let (n_heads, dim) = (d.heads as usize, d.head_dim as usize);
        let group = n_heads / d.kv_heads as usize;
        let mix = self.bfp("mix", n_heads * dim, BASE_MIX, &clear.mix)?;
        let mut heads = Vec::new();
        for head in 0..n_heads {
            let t = self.positions.tokens;
            let range = head * t..(head + 1) * t;
            let clear = HeadClear {
                max_at: &clear.max_at[range.clone()],
                max: &clear.max[range.clone()],
                sum: &clear.sum[range],
            };
            let query = q13.value.slice(head * dim, dim);
            let key = k13.value.slice(head / group * dim, dim);
            let columns = self.head(by.window, clear, query, key, &distance, &share)?;
            let r = &mut self.relation;
            r.products.push(Product::Mix {
                share: columns.share,
                value: v12.value.slice(head / group * dim, dim),
            });
            let mixed = Term::Product {
                product: r.products.len() - 1,
                tokens: ONES,
            };
            let out = Sum::from(mix.x12.slice(head * dim, dim));
            let remainder = slices(&mix.remainder, head * dim, dim);
            r.rounded("mix", vec![mixed], &out, &remainder, &mix.shift);
            heads.push(columns);
        }
        let posts = by.gemma.as_ref();
        let post = clear.attention_post.as_ref();
        let post = posts.map(|gemma| &gemma.attention_post).zip(post);
        let (middle, attention_branch) = self.branch(&by.o, &mix, BASE_MIX, x, post)?;

        let ffn_norm = self.norm(&middle, &clear.ffn_norm, &by.ffn_norm)?;
        let gate = self.gate(&by.gate, &ffn_norm.bfp)?;
        let offset = i64::from(ops::MLP_MAX);
        let names = ["up.lo", "up.hi"];
        let out = self
            .relation
            .wide(names, by.up.rows, offset, Tag::Below(31));
        let (remainder, shift) = self.linear("up", &by.up, &ffn_norm.bfp, BASE_NORM, &out, 21)?;
        let up = Rounded {
            out,
            remainder,
            shift,
        };
        let product = self.bfp("product", by.up.rows, BASE_MLP, &clear.product)?;
        let r = &mut self.relation;
        r.products.push(Product::Cells {
            left: gate.1.into(),
            right: up.out.clone(),
        });
        let term = Term::Product {
            product: r.products.len() - 1,
            tokens: ONES,
        };
        let out = product.x12.into();
        r.rounded(
            "product",
            vec![term],
            &out,
            &product.remainder,
            &product.shift,
        );
        let post = clear.ffn_post.as_ref();
        let post = posts.map(|gemma| &gemma.ffn_post).zip(post);
        let (residual, ffn_branch) = self.branch(&by.down, &product, BASE_MLP, &middle, post)?;
        let (branches, gemma) = match (attention_branch, ffn_branch, heads_gemma) {
            (Branch::Gemma(a), Branch::Gemma(b), Some(heads)) => (
                [None, None],
                Some(GemmaColumns {
                    heads,
                    posts: [a, b],
                }),
            ),
            (Branch::Llama(a, s), Branch::Llama(b, z), _) => ([Some((a, s)), Some((b, z))], None),
            _ => return Err(RelationError::Clear("post-norms")),
        };
        Ok(LayerColumns {
            attention_norm,
            q,
            k,
            v,
            q13,
            q13_remainder,
            k13,
            k13_remainder,
            v12,
            v12_remainder,
            turn,
            cached,
            heads,
            distance,
            share,
            mix,
            branches,
            middle,
            ffn_norm,
            gate: gate.0,
            h: gate.1,
            up,
            product,
            residual,
            gemma,
        })
    }

    /// Gemma's norm of each head of q or k, to Q.12.
    fn head_norm(
        &mut self,
        x: &Sum,
        clear: &NormClear,
        by: &NormPublic,
    ) -> Result<(Vec<Root>, Rounded), RelationError> {
        let (dim, t) = (
            self.public.manifest.dims.head_dim as usize,
            self.positions.tokens,
        );
        let shift = self.constant(by.shift);
        let shift = self.shift("q and k norms", shift, 25)?;
        // The inverse is a head's: each head has its own root.
        let r = &mut self.relation;
        let names = ["normed.lo", "normed.hi"];
        let out = r.wide(names, x.rows(), 1 << 24, Tag::Bits(9));
        let remainder = r.remainder(x.rows(), &shift);
        let gains: ByRow = by.gains.iter().map(|g| i64::from(*g)).collect();
        let mut roots = Vec::new();
        for head in 0..x.rows() / dim {
            let ss = &clear.ss[head * t..(head + 1) * t];
            let root = self.root(&x.slice(head * dim, dim), ss, by.eps)?;
            let input = cells(&root.u, F::ONE, Some(&gains), ONES);
            let out = out.slice(head * dim, dim);
            let remainder = slices(&remainder, head * dim, dim);
            self.relation
                .rounded("q and k norms", input, &out, &remainder, &shift);
            roots.push(root);
        }
        let rounded = Rounded {
            out,
            remainder,
            shift,
        };
        Ok((roots, rounded))
    }

    fn head(
        &mut self,
        window: usize,
        clear: HeadClear<'_>,
        query: Column,
        key: Column,
        distance: &Shift,
        share: &Shift,
    ) -> Result<HeadColumns, RelationError> {
        let t = self.positions.tokens;
        let seen = |(t, at): (usize, &u32)| sees(t, *at as usize, window);
        if !clear.max_at.iter().enumerate().all(seen) {
            return Err(RelationError::Clear("the place of a largest score"));
        }
        if clear.max.iter().any(|v| v.unsigned_abs() > SCORE_MAX) {
            return Err(RelationError::Clear("a largest score"));
        }
        // Z is at least the largest's own share, 2^15.
        let most = (t as u64) << 15;
        if clear.sum.iter().any(|z| !(1 << 15..=most).contains(z)) {
            return Err(RelationError::Clear("a sum of exponentials"));
        }
        let r = &mut self.relation;
        let causal = |seen, unseen| Tags::Causal {
            seen,
            unseen,
            window,
        };
        // below = max − S ≥ 0 where it is seen, and 0 at the place in the clear: so max is the maximum.
        let lo = r.column("below.lo", t);
        let hi = r.column("below.hi", t);
        r.look_up(Tag::Bits(16), &[lo]);
        r.leaf(Leaf::Key {
            tags: causal(Tag::Bits(16), Tag::Signed(16)),
            values: vec![hi],
        });
        let below = Sum {
            terms: vec![(lo, 1), (hi, 1 << 16)],
            constant: 0,
        };
        r.products.push(Product::Scores { query, key });
        let score = Term::Product {
            product: r.products.len() - 1,
            tokens: ONES,
        };
        let max = r.vector(clear.max.iter().map(|v| signed(*v)).collect());
        let mut terms = vec![score, public(-F::ONE, max)];
        terms.extend(cells(&below, F::ONE, None, ONES));
        r.constraint("score", t, terms);
        r.known.push(Known::Gather {
            terms: vec![(lo, 1, ONES), (hi, 1 << 16, ONES)],
            at: clear.max_at.to_vec(),
            values: vec![0; t],
        });
        // A cell that is not seen has the same equations and e = 0, whatever its distance.
        let d = r.column("distance", t);
        let e = r.column("exponential", t);
        r.leaf(Leaf::Key {
            tags: causal(Tag::Exp, Tag::Unseen),
            values: vec![d, e],
        });
        let distance_remainder = r.remainder(t, distance);
        let c = F::from_u32(self.public.manifest.attention_scale.c);
        let input = cells(&below, c, None, distance.up);
        r.rounded("distance", input, &d.into(), &distance_remainder, distance);
        let sum = r.vector(clear.sum.iter().map(|z| F::from_u64(*z)).collect());
        let total = vec![Term::Total { column: e }, public(F::ONE, sum)];
        r.constraint("sum of exponentials", 1, total);
        let reciprocal = |z: &u64| F::from_u64(ops::attention::reciprocal(*z));
        let reciprocal = r.vector(clear.sum.iter().map(reciprocal).collect());
        let p = r.column("share", t);
        r.look_up(Tag::Bits(16), &[p]);
        let share_remainder = r.remainder(t, share);
        let input = vec![cell(e, 1, reciprocal)];
        r.rounded("share", input, &p.into(), &share_remainder, share);
        Ok(HeadColumns {
            below,
            distance: d,
            distance_remainder,
            e,
            share: p,
            share_remainder,
        })
    }

    /// gate within ±(2^20 − 1) and its activation, from the one table: a function of its two limbs.
    fn gate(&mut self, by: &LinearPublic, input: &Bfp) -> Result<(Rounded, Column), RelationError> {
        let r = &mut self.relation;
        let lo = r.column("gate.lo", by.rows);
        let hi = r.column("gate.hi", by.rows);
        let h = r.column("activation", by.rows);
        r.look_up(Tag::Act, &[hi, lo, h]);
        let out = Sum {
            terms: vec![(lo, 1), (hi, 1 << 16)],
            constant: 0,
        };
        let (remainder, shift) = self.linear("gate", by, input, BASE_NORM, &out, 21)?;
        let gate = Rounded {
            out,
            remainder,
            shift,
        };
        Ok((gate, h))
    }

    /// What a matrix adds to the residual, and the residual after it.
    fn branch(
        &mut self,
        by: &LinearPublic,
        input: &Bfp,
        base: i32,
        x: &Sum,
        post: Option<(&NormPublic, &NormClear)>,
    ) -> Result<(Sum, Branch), RelationError> {
        let next = self.residual();
        let mut added = next.clone();
        added.terms.extend(x.terms.iter().map(|(c, k)| (*c, -*k)));
        added.constant -= x.constant;
        let Some((norm, clear)) = post else {
            let (remainder, shift) = self.linear("branch", by, input, base, &added, 28)?;
            return Ok((next, Branch::Llama(remainder, shift)));
        };
        let offset = i64::from(ops::RESIDUAL_MAX);
        let names = ["branch.lo", "branch.hi"];
        let out = self.relation.wide(names, by.rows, offset, Tag::Below(4095));
        let (remainder, shift) = self.linear("branch", by, input, base, &out, 28)?;
        let root = self.root(&out, &clear.ss, norm.eps)?;
        let gains: ByRow = norm.gains.iter().map(|g| i64::from(*g)).collect();
        let by = self.constant(norm.shift);
        let result = self.shift("post-norm", by, 28)?;
        let r = &mut self.relation;
        let result_remainder = r.remainder(added.rows(), &result);
        let terms = cells(&root.u, F::ONE, Some(&gains), ONES);
        r.rounded("post-norm", terms, &added, &result_remainder, &result);
        let branch = Rounded {
            out,
            remainder,
            shift,
        };
        let post = PostColumns {
            branch,
            root,
            remainder: result_remainder,
            shift: result,
        };
        Ok((next, Branch::Gemma(post)))
    }

    /// The final norm.
    pub fn last(&mut self, clear: &NormClear, x: &Sum) -> Result<NormColumns, RelationError> {
        self.relation.groups.push(Vec::new());
        self.norm(x, clear, &self.public.final_norm)
    }

    /// The last activations are shown where a token is chosen: whoever has the head chooses himself.
    pub fn shown(&mut self, last: &Bfp) {
        let Positions {
            tokens,
            first_choice,
            choices,
        } = self.positions;
        let chosen = |t: usize| F::from_bool((first_choice..first_choice + choices).contains(&t));
        let r = &mut self.relation;
        let chosen: ByToken = r.vector((0..tokens).map(chosen).collect());
        let terms = vec![cell(last.x12, 1, chosen), Term::Shown];
        r.constraint("final activations", last.x12.rows, terms);
    }
}

enum Branch {
    Llama(Limbs, Shift),
    Gemma(PostColumns),
}

struct HeadClear<'a> {
    max_at: &'a [u32],
    max: &'a [i64],
    sum: &'a [u64],
}

fn slices(columns: &[(Column, i64)], from: usize, rows: usize) -> Limbs {
    let slice = |(column, k): &(Column, i64)| (column.slice(from, rows), *k);
    columns.iter().map(slice).collect()
}
