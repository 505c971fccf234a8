//! From a client's JSON to a job: model, prompt tokens, exact sampler, terms. Everything that can be
//! refused without asking a provider is refused here, so that bad input costs nothing. Never cuts a prompt.

use assay_model::{ChatMessage, EncodeOptions, LoadedModel};
use assay_openai::{ApiError, Fallback, Input, Limits, Surface, parse_chat, parse_completion};
use assay_protocol::{B256, MicroUsd, SamplerParams, Tier, TokenCount, TokenId};
use serde_json::{Map, Value};

use crate::gateway::Gateway;
use crate::http::as_object;
use crate::routing::Wanted;

/// A request that means exactly one computation.
#[derive(Clone)]
pub(crate) struct Job {
    pub(crate) request_id: B256,
    pub(crate) surface: Surface,
    pub(crate) model: LoadedModel,
    pub(crate) prompt: Vec<TokenId>,
    pub(crate) sampler: SamplerParams,
    pub(crate) tier: Tier,
    pub(crate) max_price: Option<MicroUsd>,
    pub(crate) fallback: Fallback,
    pub(crate) stream: bool,
    pub(crate) include_usage: bool,
    /// As the client sent it, for a cloud.
    pub(crate) body: Map<String, Value>,
}

impl Job {
    pub(crate) fn model_name(&self) -> &str {
        &self.model.name
    }

    pub(crate) fn wanted(&self) -> Wanted {
        Wanted {
            prompt: TokenCount(u32::try_from(self.prompt.len()).unwrap_or(u32::MAX)),
            max_tokens: self.sampler.max_tokens,
            max_price: self.max_price,
            proven: self.tier == Tier::Proven,
        }
    }
}

/// Reads and checks a request.
pub(crate) fn job(gateway: &Gateway, surface: Surface, body: &[u8]) -> Result<Job, ApiError> {
    let limits = Limits::default();
    let request = match surface {
        Surface::Chat => parse_chat(body, &limits)?,
        Surface::Completion => parse_completion(body, &limits)?,
    };
    let model = gateway.model(&request.model)?;
    let tier = tier(request.assay.verification, gateway.default_tier())?;
    let prompt = tokens(model, &request.input)?;
    let context = gateway.context(model);
    let room = u64::from(context).saturating_sub(prompt.len() as u64);
    let mut default = u64::from(gateway.limits().output_tokens_default).min(room);
    if tier == Tier::Proven {
        // Who names no length gets what can be proven.
        let provable = gateway.provable(model).saturating_sub(prompt.len() as u64);
        default = default.min(provable.max(1));
    }
    let output = request.sampler.max_tokens.map_or(default, u64::from);
    if output == 0 || output > room {
        return Err(ApiError::context_exceeded(
            context,
            prompt.len() as u64,
            output.max(1),
        ));
    }
    let seed = gateway.random()?;
    // At most `room`, which fits the context's u32.
    let sampler = request
        .sampler
        .complete(seed, u32::try_from(output).unwrap_or(u32::MAX));
    let request_id = match request.assay.request_id {
        Some(id) if gateway.knows(&id)? => {
            let message = "this request id has an answer already: leave it out or draw a new one";
            return Err(
                ApiError::new(409, "invalid_request_error", "request_id_used", message)
                    .at("assay.request_id"),
            );
        }
        Some(id) => id,
        None => gateway.random()?,
    };
    Ok(Job {
        request_id,
        surface,
        model: model.clone(),
        prompt,
        sampler,
        tier,
        max_price: request.assay.max_price,
        fallback: request.assay.fallback.unwrap_or(gateway.default_fallback()),
        stream: request.stream,
        include_usage: request.include_usage,
        body: as_object(body),
    })
}

fn tier(asked: Option<Tier>, default: Tier) -> Result<Tier, ApiError> {
    match asked.unwrap_or(default) {
        tier @ (Tier::None | Tier::Staked | Tier::Optimistic | Tier::Proven) => Ok(tier),
        tier => Err(ApiError::unsupported(
            "assay.verification",
            format!(
                "verification '{}' is not offered yet: ask for 'none', 'staked', 'optimistic' or 'proven'",
                tier.label()
            ),
        )),
    }
}

fn tokens(model: &LoadedModel, input: &Input) -> Result<Vec<TokenId>, ApiError> {
    let (param, tokens) = match input {
        Input::Chat(messages) => {
            let Some(template) = &model.template else {
                let message = format!(
                    "model '{}' has no chat template: use /v1/completions",
                    model.name
                );
                return Err(ApiError::unsupported("model", message));
            };
            let messages: Vec<ChatMessage> = messages
                .iter()
                .map(|m| ChatMessage::new(&m.role, &m.content))
                .collect();
            let tokens = template
                .encode(&model.tokenizer, &messages, true)
                .map_err(|error| ApiError::invalid("messages", error.to_string()))?;
            ("messages", tokens)
        }
        Input::Text(text) => {
            let options = EncodeOptions {
                add_bos: true,
                parse_special: false,
            };
            let tokens = model
                .tokenizer
                .encode(text, options)
                .map_err(|error| ApiError::invalid("prompt", error.to_string()))?;
            ("prompt", tokens)
        }
        Input::Tokens(tokens) => {
            let vocab = model.tokenizer.vocab_size();
            if let Some(id) = tokens.iter().find(|id| **id as usize >= vocab) {
                let message = format!("token id {id} is not below this model's {vocab}");
                return Err(ApiError::invalid("prompt", message));
            }
            ("prompt", tokens.clone())
        }
    };
    if tokens.is_empty() {
        return Err(ApiError::invalid(
            param,
            "the prompt has no tokens: send some text",
        ));
    }
    Ok(tokens)
}
