//! From a checked request to an order: one model, exact prompt tokens, an exact sampler and a ceiling. Whatever does not
//! fit is refused here, before anybody pays; nothing is ever cut to make it fit.

use assay_model::{ChatMessage, EncodeOptions, LoadedModel};
use assay_openai::{ApiError, Input, Request, SamplerDraft};
use assay_payments::ceiling;
use assay_protocol::{
    B256, MicroUsd, ModelId, Price, ProofOffer, SamplerParams, Tier, TokenCount, TokenId,
};

/// A model with its price and the longest context it is served with.
#[derive(Clone)]
pub(crate) struct Ware {
    pub(crate) loaded: LoadedModel,
    pub(crate) id: ModelId,
    pub(crate) price: Price,
    pub(crate) context_max: u32,
    /// The terms on which its answers are proven, without a time.
    pub(crate) proof: Option<ProofOffer>,
}

/// Exactly what is to be computed, and the most that it may cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Order {
    pub(crate) prompt: Vec<TokenId>,
    pub(crate) sampler: SamplerParams,
    pub(crate) tier: Tier,
    pub(crate) request_id: B256,
    /// Of the answer. A proof is paid apart, when it is there.
    pub(crate) ceiling: MicroUsd,
    /// The terms of the proof that is wanted with it.
    pub(crate) proof: Option<ProofOffer>,
}

/// What the node adds where the request is silent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fill {
    pub(crate) seed: B256,
    pub(crate) request_id: B256,
    pub(crate) max_tokens: u32,
}

/// The ware that a request names, by name or by id.
pub(crate) fn find(wares: &[Ware], model: &str) -> Option<usize> {
    let by_id = model.parse::<B256>().ok();
    wares
        .iter()
        .position(|ware| ware.loaded.name == model || Some(ware.id) == by_id)
}

/// Makes the order. Takes as long as tokenizing takes.
pub(crate) fn order(ware: &Ware, request: Request, fill: Fill) -> Result<Order, ApiError> {
    let tier = request.assay.verification.unwrap_or(Tier::Staked);
    let proof = proof_terms(ware, tier)?;
    let (field, prompt) = tokens(ware, request.input)?;
    let sampler = fit(ware, &prompt, request.sampler, fill).map_err(|error| error.at(field))?;
    let count = TokenCount(u32::try_from(prompt.len()).unwrap_or(u32::MAX));
    let ceiling = ceiling(&ware.price, count, sampler.max_tokens).map_err(|_| {
        ApiError::invalid(
            "max_tokens",
            "the price of so many tokens overflows: ask for fewer",
        )
    })?;
    let whole = match &proof {
        None => ceiling,
        Some(proof) => with_proof(proof, ceiling, count, sampler.max_tokens)?,
    };
    if let Some(max) = request.assay.max_price
        && whole > max
    {
        let mut error = ApiError::invalid(
            "assay.max_price",
            format!(
                "this request may cost up to {whole}, more than your {max}: lower max_tokens or raise max_price"
            ),
        );
        error.body.code = Some("price_above_max".into());
        return Err(error);
    }
    Ok(Order {
        prompt,
        sampler,
        tier,
        request_id: request.assay.request_id.unwrap_or(fill.request_id),
        ceiling,
        proof,
    })
}

/// The terms of the proof that a tier asks for. No receipt says a tier that is not delivered here.
fn proof_terms(ware: &Ware, tier: Tier) -> Result<Option<ProofOffer>, ApiError> {
    match (tier, ware.proof) {
        (Tier::None | Tier::Staked | Tier::Optimistic, _) => Ok(None),
        (Tier::Proven, Some(proof)) => Ok(Some(proof)),
        (_, proof) => {
            let offered = match proof {
                Some(_) => "none, staked, optimistic or proven",
                None => "none, staked or optimistic",
            };
            Err(ApiError::unsupported(
                "assay.verification",
                format!(
                    "'{}' is not offered by this node: ask for {offered}",
                    tier.label()
                ),
            ))
        }
    }
}

/// The most that the answer and its proof may cost together, if so many tokens are proven at all.
fn with_proof(
    proof: &ProofOffer,
    answer: MicroUsd,
    prompt: TokenCount,
    max_tokens: u32,
) -> Result<MicroUsd, ApiError> {
    let tokens = u64::from(prompt.0) + u64::from(max_tokens);
    if tokens > u64::from(proof.max_tokens.0) {
        let message = format!(
            "prompt and answer may have {tokens} tokens together, this node proves up to {}: lower max_tokens",
            proof.max_tokens.0
        );
        return Err(ApiError::invalid("max_tokens", message));
    }
    let charge = proof.charge(prompt, TokenCount(max_tokens));
    charge
        .and_then(|charge| answer.checked_add(charge))
        .map_err(|_| {
            ApiError::invalid(
                "max_tokens",
                "the price of such a proof overflows: ask for fewer tokens",
            )
        })
}

fn tokens(ware: &Ware, input: Input) -> Result<(&'static str, Vec<TokenId>), ApiError> {
    let loaded = &ware.loaded;
    let (field, prompt) = match input {
        Input::Tokens(ids) => {
            let size = loaded.tokenizer.vocab_size();
            let outside = |id: &&TokenId| usize::try_from(**id).is_ok_and(|id| id >= size);
            if let Some(id) = ids.iter().find(outside) {
                let message = format!(
                    "token id {id} is outside the model's vocabulary of {size}: tokenize for this model"
                );
                return Err(ApiError::invalid("prompt", message));
            }
            ("prompt", ids)
        }
        Input::Text(text) => {
            let options = EncodeOptions {
                add_bos: true,
                parse_special: false,
            };
            let encoded = loaded.tokenizer.encode(&text, options);
            (
                "prompt",
                encoded.map_err(|error| ApiError::invalid("prompt", error.to_string()))?,
            )
        }
        Input::Chat(messages) => {
            let turns: Vec<_> = messages
                .into_iter()
                .map(|m| ChatMessage {
                    role: m.role,
                    content: m.content,
                })
                .collect();
            let encoded = loaded.chat_prompt(&turns);
            (
                "messages",
                encoded.map_err(|error| ApiError::invalid("messages", error.to_string()))?,
            )
        }
    };
    if prompt.is_empty() {
        return Err(ApiError::invalid(
            field,
            "the prompt has no tokens: send some text",
        ));
    }
    Ok((field, prompt))
}

fn fit(
    ware: &Ware,
    prompt: &[TokenId],
    draft: SamplerDraft,
    fill: Fill,
) -> Result<SamplerParams, ApiError> {
    let room = u64::from(ware.context_max).saturating_sub(prompt.len() as u64);
    let asked = draft.max_tokens;
    if room == 0 || asked.is_some_and(|asked| u64::from(asked) > room) {
        let output = asked.unwrap_or(1);
        return Err(ApiError::context_exceeded(
            ware.context_max,
            prompt.len() as u64,
            u64::from(output),
        ));
    }
    // `room` is at most the context, which is a u32.
    let usual = fill.max_tokens.min(room as u32);
    let sampler = draft.complete(fill.seed, usual);
    sampler
        .validate()
        .map_err(|error| ApiError::invalid("max_tokens", error.to_string()))?;
    Ok(sampler)
}
