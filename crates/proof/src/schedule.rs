//! The transcript's beginning, and the order of a proof's parts: one list that the prover fills and the
//! verifier reads.

use assay_protocol::codec::{CodecError, Reader, Writer};
use assay_protocol::manifest::Manifest;
use assay_protocol::{Statement, TokenId};

use crate::claim::Claim;
use crate::clear::{Clear, ClearShape};
use crate::codec;
use crate::commit::{self, Commitment};
use crate::committed::{COLUMNS, Layout};
use crate::field::{F, K};
use crate::fractions::FractionProof;
use crate::functional::FunctionalProof;
use crate::products::ProductsProof;
use crate::relation::Relation;
use crate::relation::program::Positions;
use crate::relation::table::PAGE;
use crate::rounds;
use crate::transcript::Transcript;

/// The versioned tag of a proof's bytes, and the transcript's first words.
pub(crate) const VERSION: &str = "assay/proof/v1";
/// Fewest positions that are run: the argument's vectors have some length.
const POSITIONS_MIN: usize = 8;
/// Rows of the trace for each head and each position that it looks at, at least: a score in two limbs, its
/// distance, exponential and share, and the share's remainder in two.
const PAIR_ROWS: usize = 7;

/// A statement longer than what can be proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{positions} positions need {padded} with padding, the model and the argument take {most}")]
pub struct TooLong {
    pub positions: usize,
    pub padded: usize,
    pub most: usize,
}

/// All tokens that are run: the prompt, the answer but for its last token, which nothing follows, and
/// padding up to a power of two. What is causal does not see the padding.
pub(crate) fn tokens(
    claim: &Claim<'_>,
    manifest: &Manifest,
) -> Result<(Vec<TokenId>, Positions), TooLong> {
    let before = &claim.output[..claim.output.len() - 1];
    let mut tokens = [claim.prompt, before].concat();
    let positions = tokens.len();
    let padded = positions.next_power_of_two().max(POSITIONS_MIN);
    let most = positions_max(manifest);
    if padded > most {
        return Err(TooLong {
            positions,
            padded,
            most,
        });
    }
    tokens.resize(padded, 0);
    let positions = Positions {
        tokens: padded,
        first_choice: claim.prompt.len() - 1,
        choices: claim.output.len(),
    };
    Ok((tokens, positions))
}

/// Positions that the model and the argument take: what is beyond is refused before it is allocated.
fn positions_max(manifest: &Manifest) -> usize {
    let dims = &manifest.dims;
    let rows = PAIR_ROWS * dims.layers as usize * dims.heads as usize;
    let fits = |most: &usize| commit::fits(rows.saturating_mul(most * most));
    let mut most = (dims.context_max as usize).min(PAGE);
    while most > 0 && !fits(&most) {
        most /= 2;
    }
    most
}

/// Whether a commitment holds the trace, whose rows depend on the values in the clear too.
pub(crate) fn check_len(relation: &Relation, positions: usize) -> Result<(), TooLong> {
    match commit::fits(committed_len(relation)) {
        true => Ok(()),
        false => Err(TooLong {
            positions,
            padded: relation.tokens,
            most: relation.tokens / 2,
        }),
    }
}

pub(crate) fn clear_shape(manifest: &Manifest, positions: Positions, greedy: bool) -> ClearShape {
    let dims = &manifest.dims;
    ClearShape {
        architecture: manifest.architecture,
        layers: manifest.layers.len(),
        heads: dims.heads as usize,
        kv_heads: dims.kv_heads as usize,
        width: dims.width as usize,
        tokens: positions.tokens,
        choices: positions.choices,
        greedy,
    }
}

/// Everything that the challenges must depend on: which model and statement, which tokens, what is in the
/// clear, and the trace.
pub(crate) fn begin(
    statement: &Statement,
    weights: &Weights,
    tokens: &[TokenId],
    clear: &[u8],
    commitment: &Commitment,
) -> Transcript {
    let mut t = Transcript::new(VERSION);
    t.absorb_bytes("model", statement.model_id.as_slice());
    match weights {
        Weights::Read => t.absorb_bytes("weights read", &[]),
        Weights::Opened(weights) => t.absorb_bytes("weights opened", &weights.0),
    }
    let mut stated = Writer::new("statement");
    stated
        .b256(&statement.model_id)
        .b256(&statement.prompt_root)
        .u32(statement.n_prompt.0)
        .b256(&statement.sampler_hash)
        .b256(&statement.output_root)
        .u32(statement.n_output.0)
        .u8(statement.stop_reason as u8);
    t.absorb_bytes("statement", &stated.finish());
    let ids: Vec<u8> = tokens.iter().flat_map(|id| id.to_be_bytes()).collect();
    t.absorb_bytes("tokens", &ids);
    t.absorb_bytes("clear", clear);
    t.absorb_bytes("trace", &commitment.0);
    t
}

/// Who answers for the weights: the first words of a proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Weights {
    /// Whoever verifies reads them.
    Read,
    /// The proof opens this commitment to them.
    Opened(Commitment),
}

impl Weights {
    pub(crate) fn write(&self, out: &mut Writer) {
        match self {
            Weights::Read => out.u8(0),
            Weights::Opened(commitment) => out.u8(1).b256(&commitment.0.into()),
        };
    }

    pub(crate) fn read(from: &mut Reader<'_>) -> Result<Weights, FormatError> {
        match from.u8()? {
            0 => Ok(Weights::Read),
            1 => Ok(Weights::Opened(Commitment(from.b256()?.0))),
            other => Err(CodecError::BadValue {
                what: "way to answer for the weights",
                value: other.into(),
            })?,
        }
    }
}

/// What opens the weights.
pub(crate) struct WeightsOpened {
    /// The embedding's value at the constraints' point.
    pub(crate) embedded: K,
    pub(crate) functional: FunctionalProof,
    pub(crate) opening: Vec<u8>,
}

/// A proof's parts behind its values in the clear.
pub(crate) struct Parts {
    pub(crate) commitment: Commitment,
    /// Of the work before the look-ups' challenges.
    pub(crate) nonce: F,
    /// One a group of look-ups, and the table's.
    pub(crate) trees: Vec<FractionProof>,
    /// The values of the products at the constraints' point.
    pub(crate) claimed: Vec<K>,
    pub(crate) products: ProductsProof,
    pub(crate) functional: FunctionalProof,
    pub(crate) opening: Vec<u8>,
    pub(crate) weights: Option<WeightsOpened>,
}

/// Leaves of each tree, the table's last.
pub(crate) fn tree_sizes(relation: &Relation) -> Vec<usize> {
    let groups = relation.groups.iter();
    let sizes = groups.map(|leaves| crate::argument::leaf_rows(leaves) * relation.tokens);
    sizes.chain([relation.table.len()]).collect()
}

/// Lengths of the products' vectors: the relation's products, then what is known.
pub(crate) fn product_lens(relation: &Relation) -> Vec<usize> {
    use crate::relation::{Known, Product};
    let t = relation.tokens;
    let product = |product: &Product| match product {
        Product::Matrix { input, .. } => input.rows,
        Product::Scores { query, .. } => query.rows,
        Product::Mix { share, .. } => share.rows,
        Product::Cells { left, .. } => left.rows() * t,
    };
    let known = |known: &Known| match known {
        Known::Squares { input, .. } => input.rows() * t,
        Known::Gather { terms, .. } => terms[0].0.rows * t,
    };
    let products = relation.products.iter().map(product);
    products.chain(relation.known.iter().map(known)).collect()
}

/// Why bytes are no proof of this shape.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    #[error(
        "a proof begins with the words {VERSION}; this is something else, or of another version"
    )]
    Version,
    #[error("a proof has at most {most} bytes, this has {got}")]
    TooLarge { most: usize, got: usize },
    #[error(transparent)]
    Clear(#[from] crate::clear::ClearError),
    #[error(transparent)]
    Elements(#[from] codec::CodecError),
    #[error(transparent)]
    Bytes(#[from] CodecError),
}

impl Parts {
    pub(crate) fn write(&self, out: &mut Writer) {
        out.b256(&self.commitment.0.into());
        let mut elements = Vec::new();
        codec::write_base(&mut elements, self.nonce);
        for tree in &self.trees {
            tree.write(&mut elements);
        }
        codec::write_elements(&mut elements, &self.claimed);
        out.bytes(&elements);
        self.products.write(out);
        self.functional.write(out);
        out.bytes(&self.opening);
        if let Some(weights) = &self.weights {
            rounds::write_element(weights.embedded, out);
            weights.functional.write(out);
            out.bytes(&weights.opening);
        }
    }

    /// `weights`: of the committed weights, where the proof opens them.
    pub(crate) fn read(
        relation: &Relation,
        weights: Option<&Layout>,
        from: &mut Reader<'_>,
    ) -> Result<Parts, FormatError> {
        let commitment = Commitment(from.b256()?.0);
        let mut elements = from.bytes_max(crate::Proof::BYTES_MAX)?;
        let nonce = codec::read_base(&mut elements)?;
        let trees = tree_sizes(relation)
            .into_iter()
            .map(|leaves| FractionProof::read(&mut elements, leaves))
            .collect::<Result<_, _>>()?;
        let claimed = codec::read_elements(&mut elements, relation.products.len())?;
        codec::finish(elements)?;
        Ok(Parts {
            commitment,
            nonce,
            trees,
            claimed,
            products: ProductsProof::read(&product_lens(relation), from)?,
            functional: FunctionalProof::read(relation.rows, relation.tokens, from)?,
            opening: from.bytes_max(crate::Proof::BYTES_MAX)?.to_vec(),
            weights: match weights {
                None => None,
                Some(layout) => Some(WeightsOpened {
                    embedded: rounds::read_element(from)?,
                    functional: FunctionalProof::read(layout.rows, COLUMNS, from)?,
                    opening: from.bytes_max(crate::Proof::BYTES_MAX)?.to_vec(),
                }),
            },
        })
    }
}

/// The clear values' bytes and what follows them.
pub(crate) fn read_clear<'a>(
    from: &mut Reader<'a>,
    shape: &ClearShape,
) -> Result<(Clear, &'a [u8]), FormatError> {
    let bytes = from.bytes_max(crate::Proof::BYTES_MAX)?;
    let mut rest = bytes;
    let clear = Clear::read(&mut rest, shape)?;
    codec::finish(rest)?;
    Ok((clear, bytes))
}

/// Values that are committed: the trace's.
pub(crate) fn committed_len(relation: &Relation) -> usize {
    relation.rows * relation.tokens
}

/// A point of a reduced functional as the commitment to so many values takes it: the matrix's own variables,
/// and as many zeros as the commitment pads with.
pub(crate) fn opening_point(len: usize, point: &[K]) -> Vec<K> {
    use p3_field::PrimeCharacteristicRing;
    let mut point = point.to_vec();
    point.resize(commit::variables(len), K::ZERO);
    point
}
