//! OpenAI's decimal numbers become the exact integers that a statement binds. Gateway and node both come through
//! here, so one JSON text always means one computation.

use crate::ApiError;
use crate::fields::Fields;
use assay_protocol::sampler::{BETA_MAX, TOP_P_ALL};
use assay_protocol::{B256, SamplerParams, Temperature};
use serde_json::Value;

/// Sampler parameters as asked for; the seed and the most tokens may still be open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SamplerDraft {
    pub temperature: Temperature,
    pub top_k: u32,
    pub top_p_q16: u32,
    pub seed: Option<B256>,
    pub max_tokens: Option<u32>,
    pub stop: Vec<String>,
}

impl SamplerDraft {
    /// Fills what was left open. `seed` must be fresh randomness: whoever knows it beforehand could choose answers.
    pub fn complete(self, seed: B256, max_tokens: u32) -> SamplerParams {
        SamplerParams {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p_q16: self.top_p_q16,
            seed: self.seed.unwrap_or(seed),
            max_tokens: self.max_tokens.unwrap_or(max_tokens),
            stop: self.stop,
        }
    }

    pub(crate) fn exact(params: SamplerParams) -> Self {
        Self {
            temperature: params.temperature,
            top_k: params.top_k,
            top_p_q16: params.top_p_q16,
            seed: Some(params.seed),
            max_tokens: Some(params.max_tokens),
            stop: params.stop,
        }
    }
}

/// Takes `temperature`, `top_p`, `top_k`, `seed`, `stop`, `max_tokens` and `max_completion_tokens`.
pub(crate) fn take(fields: &mut Fields) -> Result<SamplerDraft, ApiError> {
    let temperature = fields.number("temperature", 0.0, 2.0)?.unwrap_or(1.0);
    let top_p = fields.number("top_p", 0.0, 1.0)?.unwrap_or(1.0);
    // Minus one is how llama.cpp and vLLM spell "all".
    let top_k = fields
        .integer("top_k", -1, i64::from(u32::MAX))?
        .unwrap_or(0)
        .max(0);
    let seed = fields.integer("seed", i64::MIN, i64::MAX)?;
    let old = fields.integer("max_tokens", 1, i64::from(u32::MAX))?;
    let new = fields.integer("max_completion_tokens", 1, i64::from(u32::MAX))?;
    if let (Some(old), Some(new)) = (old, new)
        && old != new
    {
        return Err(ApiError::invalid(
            "max_tokens",
            "max_tokens and max_completion_tokens differ: send only max_completion_tokens",
        ));
    }
    let params = SamplerDraft {
        temperature: temperature_of(temperature),
        top_k: u32::try_from(top_k).unwrap_or(u32::MAX),
        top_p_q16: top_p_of(top_p),
        seed: seed.map(seed_of),
        max_tokens: new
            .or(old)
            .map(|count| u32::try_from(count).unwrap_or(u32::MAX)),
        stop: stop_of(fields)?,
    };
    let whole = params.clone().complete(B256::ZERO, 1);
    whole
        .validate()
        .map_err(|error| ApiError::invalid("stop", error.to_string()))?;
    Ok(params)
}

/// `β = rint(256 / T)`. A temperature too small for a β means the largest logit.
fn temperature_of(temperature: f64) -> Temperature {
    let beta = (256.0 / temperature).round_ties_even();
    if temperature <= 0.0 || beta > f64::from(BETA_MAX) {
        Temperature::Greedy
    } else {
        // At most 2^18 by the line above, at least 128 because temperature is at most 2.
        Temperature::Beta(beta as u32)
    }
}

/// Q0.16; `top_p = 0` keeps what the smallest share keeps: the likeliest token.
fn top_p_of(top_p: f64) -> u32 {
    ((top_p * f64::from(TOP_P_ALL)).round_ties_even() as u32).clamp(1, TOP_P_ALL)
}

/// An OpenAI seed is an integer; the sampler's is 32 bytes: the integer, big-endian and sign-extended, on the right.
fn seed_of(seed: i64) -> B256 {
    let mut bytes = [if seed < 0 { 0xff } else { 0 }; 32];
    bytes[24..].copy_from_slice(&seed.to_be_bytes());
    B256::from(bytes)
}

fn stop_of(fields: &mut Fields) -> Result<Vec<String>, ApiError> {
    let wrong = || ApiError::invalid("stop", "'stop' must be a string or a list of strings");
    match fields.take("stop") {
        None => Ok(Vec::new()),
        Some(Value::String(stop)) => Ok(vec![stop]),
        Some(Value::Array(items)) => items
            .into_iter()
            .map(|item| match item {
                Value::String(stop) => Ok(stop),
                _ => Err(wrong()),
            })
            .collect(),
        Some(_) => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimal_numbers_become_pinned_integers() {
        let check = |json: &str, temperature: Temperature, top_p_q16: u32| {
            let draft = take(&mut Fields::parse(json.as_bytes()).unwrap()).unwrap();
            assert_eq!(
                (draft.temperature, draft.top_p_q16),
                (temperature, top_p_q16),
                "{json}"
            );
        };
        check("{}", Temperature::Beta(256), TOP_P_ALL);
        check(r#"{"temperature":0}"#, Temperature::Greedy, TOP_P_ALL);
        check(
            r#"{"temperature":0.7,"top_p":0.9}"#,
            Temperature::Beta(366),
            58_982,
        );
        check(r#"{"temperature":2,"top_p":0}"#, Temperature::Beta(128), 1);
        check(
            r#"{"temperature":1e-3}"#,
            Temperature::Beta(256_000),
            TOP_P_ALL,
        );
        check(r#"{"temperature":1e-300}"#, Temperature::Greedy, TOP_P_ALL);
        check(r#"{"temperature":-0.0}"#, Temperature::Greedy, TOP_P_ALL);
    }

    #[test]
    fn a_seed_is_the_integer_in_big_endian() {
        assert_eq!(seed_of(258).as_slice()[30..], [1, 2]);
        assert_eq!(seed_of(-1), B256::repeat_byte(0xff));
        assert_ne!(seed_of(i64::MAX), seed_of(i64::MIN));
    }

    #[test]
    fn absurd_parameters_are_refused_by_name() {
        let check = |json: &str, param: &str| {
            let error = take(&mut Fields::parse(json.as_bytes()).unwrap()).unwrap_err();
            assert_eq!(
                (error.status, error.body.param.as_deref()),
                (400, Some(param)),
                "{json}"
            );
        };
        check(r#"{"temperature":-0.1}"#, "temperature");
        check(r#"{"temperature":2.1}"#, "temperature");
        check(r#"{"temperature":"hot"}"#, "temperature");
        check(r#"{"top_p":1.5}"#, "top_p");
        check(r#"{"top_k":-2}"#, "top_k");
        check(r#"{"max_tokens":0}"#, "max_tokens");
        check(r#"{"max_tokens":-5}"#, "max_tokens");
        check(r#"{"max_tokens":1.5}"#, "max_tokens");
        check(r#"{"max_tokens":99999999999}"#, "max_tokens");
        check(
            r#"{"max_tokens":4,"max_completion_tokens":5}"#,
            "max_tokens",
        );
        check(r#"{"seed":1.5}"#, "seed");
        check(r#"{"stop":7}"#, "stop");
        check(r#"{"stop":["a",1]}"#, "stop");
        check(r#"{"stop":""}"#, "stop");
        check(r#"{"stop":["a","b","c","d","e"]}"#, "stop");
    }
}
