//! The pass over one sequence, a layer at a time: what a layer computed is the caller's, and only the
//! residual is kept. The order is that of `reference`.

use std::sync::Arc;

use assay_protocol::TokenId;
use assay_protocol::trace::MatrixRef;

use super::attention::Attention;
use super::linear::{Packed, accumulated, linear};
use super::norm::{fixed, normed, quantized};
use super::parts::{Beyond, each_part};
use super::{
    BASE_MIX, BASE_MLP, BfpValues, Clamped, Constants, FixedValues, LayerValues, LinearConstants,
    LinearValues, NormConstants, NormValues, Site, ValuesError,
};
use crate::crew::Crew;
use crate::kernels::Path;
use crate::model::Model;
use crate::ops::{RESIDUAL_MAX, act, arith::rsh};
use crate::pool::{Pool, Threads};
use crate::run::check_tokens;

/// A pass that has come to some layer. Runs the registered model: all its layers.
pub struct Pass<'a> {
    constants: Constants<'a>,
    crew: Crew,
    tokens: usize,
    next: usize,
    residual: Arc<Vec<i32>>,
}

impl<'a> Pass<'a> {
    /// Embeds all tokens.
    pub fn new(
        model: &'a Model,
        tokens: &[TokenId],
        threads: impl Into<Threads>,
    ) -> Result<Pass<'a>, ValuesError> {
        check_tokens(model, tokens, tokens.len())?;
        let constants = Constants::new(model);
        let residual = Arc::new(embedded(&constants, tokens)?);
        Ok(Pass {
            constants,
            crew: Crew {
                pool: Pool::new(threads),
                path: Path::detect(),
            },
            tokens: tokens.len(),
            next: 0,
            residual,
        })
    }

    pub fn constants(&self) -> &Constants<'a> {
        &self.constants
    }

    /// What the next layer takes, or after all layers the final norm: at first the embedded tokens.
    pub fn residual(&self) -> &Arc<Vec<i32>> {
        &self.residual
    }

    /// Runs the next layer; `None` after the last.
    pub fn next_layer(&mut self) -> Option<Result<LayerValues, Clamped>> {
        (self.next < self.constants.layers.len()).then(|| {
            let values = self.layer(self.next)?;
            self.residual = values.residual.clone();
            self.next += 1;
            Ok(values)
        })
    }

    /// The final norm over the residual.
    pub fn final_norm(&self) -> NormValues<BfpValues> {
        let by = &self.constants.final_norm;
        normed(&self.crew, &self.residual, by, self.tokens)
    }

    /// The head's raw sums over the final norm's result: id v of token t at `v·tokens + t`.
    pub fn head(&self, last: &BfpValues) -> Vec<i32> {
        accumulated(
            &self.crew,
            &self.constants.head,
            &Packed::new(&self.crew, last),
        )
    }

    fn layer(&self, number: usize) -> Result<LayerValues, Clamped> {
        let (crew, tokens, constants) = (&self.crew, self.tokens, &self.constants);
        let by = &constants.layers[number];
        let norm = |x, by: &NormConstants<'_>| normed(crew, x, by, tokens);
        let linear = |by: &LinearConstants<'_>, input: &Packed, site| {
            linear(crew, by, input, (site, number))
        };
        let attention = Attention {
            constants,
            layer: by,
            tokens,
        };

        let attention_norm = norm(&self.residual, &by.attention_norm);
        let input = Packed::new(crew, &attention_norm.y);
        let q = linear(&by.q, &input, Site::Q)?;
        let k = linear(&by.k, &input, Site::K)?;
        let v = linear(&by.v, &input, Site::V)?;
        let head_norms = by.gemma.as_ref().map(|gemma| {
            [(&q, &gemma.q_norm), (&k, &gemma.k_norm)].map(|(x, by)| fixed(crew, &x.z, by, tokens))
        });
        let [q_heads, k_heads] = match &head_norms {
            Some([q, k]) => [&q.y, &k.y],
            None => [&q.z, &k.z],
        };
        let q13 = attention.turned(crew, q_heads, by.fractions.q);
        let k13 = attention.turned(crew, k_heads, by.fractions.k);
        let v12 = attention.cached(crew, &v.z);
        let shares = attention.shares(crew, &q13, &k13);
        let mix = attention.mix(crew, &shares.p, &v12);
        let wide: Vec<i64> = mix.iter().map(|mix| (*mix).into()).collect();
        let mix_bfp = quantized(crew, &wide, BASE_MIX, tokens);
        let o = linear(&by.o, &Packed::new(crew, &mix_bfp), Site::O)?;
        let post = by.gemma.as_ref().map(|gemma| &gemma.attention_post);
        let (attention_post, middle) =
            self.added(&self.residual, &o, post, (Site::Middle, number))?;

        let ffn_norm = norm(&middle, &by.ffn_norm);
        let input = Packed::new(crew, &ffn_norm.y);
        let gate = linear(&by.gate, &input, Site::Gate)?;
        let up = linear(&by.up, &input, Site::Up)?;
        let mut product = vec![0; gate.z.len()];
        each_part(&crew.pool, &mut product, tokens, |row, product| {
            let rows = gate.z[row * tokens..].iter().zip(&up.z[row * tokens..]);
            for (product, (gate, up)) in product.iter_mut().zip(rows) {
                *product = act::product(*gate, *up, constants.act);
            }
        });
        let product_bfp = quantized(crew, &product, BASE_MLP, tokens);
        let down = linear(&by.down, &Packed::new(crew, &product_bfp), Site::Down)?;
        let post = by.gemma.as_ref().map(|gemma| &gemma.ffn_post);
        let (ffn_post, residual) = self.added(&middle, &down, post, (Site::Residual, number))?;
        Ok(LayerValues {
            attention_norm,
            q,
            k,
            v,
            head_norms,
            q13,
            k13,
            v12,
            attention: shares,
            mix,
            mix_bfp,
            o,
            attention_post,
            middle,
            ffn_norm,
            gate,
            up,
            product,
            product_bfp,
            down,
            ffn_post,
            residual,
        })
    }

    /// A branch, normed where the architecture says so, added to the residual.
    fn added(
        &self,
        x: &[i32],
        branch: &LinearValues,
        post: Option<&NormConstants<'_>>,
        (site, layer): (Site, usize),
    ) -> Result<Added, Clamped> {
        let tokens = self.tokens;
        let post = post.map(|by| fixed(&self.crew, &branch.z, by, tokens));
        let branch = match &post {
            Some(post) => &post.y,
            None => &branch.z,
        };
        let beyond = Beyond::new();
        let mut sums = vec![0; x.len()];
        each_part(&self.crew.pool, &mut sums, tokens, |row, sums| {
            let rows = x[row * tokens..].iter().zip(&branch[row * tokens..]);
            let results = rows.map(|(x, y)| i64::from(*x) + i64::from(*y));
            beyond.write(row, RESIDUAL_MAX, results, sums, |x| x as i32);
        });
        beyond.found(site, layer)?;
        Ok((post, Arc::new(sums)))
    }
}

/// The branch's norm, and the residual after it.
type Added = (Option<NormValues<FixedValues>>, Arc<Vec<i32>>);

/// The first residual: a column a token.
fn embedded(constants: &Constants<'_>, tokens: &[TokenId]) -> Result<Vec<i32>, Clamped> {
    let width = constants.dims.width as usize;
    let mut w = vec![0; width];
    let mut columns = Vec::with_capacity(width * tokens.len());
    for token in tokens {
        constants.row(MatrixRef::Embedding, *token as usize, &mut w);
        let e = constants.embedding_scale(*token);
        let shift = constants.embedding_shift;
        columns.extend(w.iter().map(|w| rsh(i64::from(*w) * e, shift)));
    }
    let beyond = Beyond::new();
    let mut x = vec![0; columns.len()];
    for (row, x) in x.chunks_exact_mut(tokens.len()).enumerate() {
        let results = (0..tokens.len()).map(|t| columns[t * width + row]);
        beyond.write(row, RESIDUAL_MAX, results, x, |x| x as i32);
    }
    beyond.found(Site::Embedding, 0)?;
    Ok(x)
}
