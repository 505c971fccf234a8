//! Reads one JSON object field by field: every value is taken once, with its type and range checked, and what is
//! left over is refused by name. Derived deserializers cannot say which parameter was wrong, or what to do.

use crate::ApiError;
use serde_json::{Map, Value};

pub(crate) struct Fields {
    map: Map<String, Value>,
}

impl Fields {
    pub(crate) fn parse(body: &[u8]) -> Result<Self, ApiError> {
        if std::str::from_utf8(body).is_err() {
            return Err(ApiError::malformed(
                "the body is not valid UTF-8: send JSON encoded as UTF-8",
            ));
        }
        match serde_json::from_slice(body) {
            Ok(Value::Object(map)) => Ok(Self { map }),
            Ok(_) => Err(ApiError::malformed(
                "the body is not a JSON object: send {\"model\": …}",
            )),
            Err(error) => Err(ApiError::malformed(format!(
                "the body is not valid JSON: {error}"
            ))),
        }
    }

    pub(crate) fn of(map: Map<String, Value>) -> Self {
        Self { map }
    }

    /// The value, unless absent or null.
    pub(crate) fn take(&mut self, name: &str) -> Option<Value> {
        self.map.remove(name).filter(|value| !value.is_null())
    }

    pub(crate) fn string(&mut self, name: &str) -> Result<Option<String>, ApiError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(ApiError::invalid(
                name,
                format!("'{name}' must be a string"),
            )),
        }
    }

    pub(crate) fn boolean(&mut self, name: &str) -> Result<Option<bool>, ApiError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(value)),
            Some(_) => Err(ApiError::invalid(
                name,
                format!("'{name}' must be true or false"),
            )),
        }
    }

    /// A whole number within `min..=max`; `5.0` counts as 5, as some clients write it.
    pub(crate) fn integer(
        &mut self,
        name: &str,
        min: i64,
        max: i64,
    ) -> Result<Option<i64>, ApiError> {
        let Some(value) = self.take(name) else {
            return Ok(None);
        };
        let whole = value.as_i64().or_else(|| {
            let float = value.as_f64()?;
            (float.fract() == 0.0 && float.abs() <= 9_007_199_254_740_992.0).then_some(float as i64)
        });
        match whole {
            Some(number) if (min..=max).contains(&number) => Ok(Some(number)),
            _ => Err(ApiError::invalid(
                name,
                format!("'{name}' must be a whole number from {min} to {max}"),
            )),
        }
    }

    pub(crate) fn number(
        &mut self,
        name: &str,
        min: f64,
        max: f64,
    ) -> Result<Option<f64>, ApiError> {
        let Some(value) = self.take(name) else {
            return Ok(None);
        };
        match value.as_f64() {
            Some(number) if number >= min && number <= max => Ok(Some(number)),
            _ => Err(ApiError::invalid(
                name,
                format!("'{name}' must be a number from {min} to {max}"),
            )),
        }
    }

    pub(crate) fn object(&mut self, name: &str) -> Result<Option<Map<String, Value>>, ApiError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(map)),
            Some(_) => Err(ApiError::invalid(
                name,
                format!("'{name}' must be an object"),
            )),
        }
    }

    /// Whatever is left must be harmless: known to change nothing, or set to the value that changes nothing.
    pub(crate) fn finish(self) -> Result<(), ApiError> {
        for (name, value) in &self.map {
            if value.is_null() || IGNORED.contains(&name.as_str()) {
                continue;
            }
            match NEUTRAL.iter().find(|row| row.0 == name) {
                Some((_, is_neutral, _)) if is_neutral(value) => {}
                Some((_, _, advice)) => {
                    return Err(ApiError::unsupported(
                        name,
                        format!("'{name}' is not supported here: {advice}"),
                    ));
                }
                None => {
                    let shown: String = name.chars().take(40).collect();
                    return Err(ApiError::unsupported(
                        name,
                        format!(
                            "unknown parameter '{shown}': remove it, or it would be ignored silently"
                        ),
                    ));
                }
            }
        }
        Ok(())
    }
}

/// Labels for the caller's own books; they cannot change the answer.
const IGNORED: &[&str] = &[
    "user",
    "metadata",
    "store",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
    "parallel_tool_calls",
];

type Neutral = (&'static str, fn(&Value) -> bool, &'static str);

/// Parameters that would change the answer, with the value at which they do not.
const NEUTRAL: &[Neutral] = &[
    ("n", is_one, "ask once per answer, or leave n at 1"),
    ("best_of", is_one, "leave best_of at 1"),
    (
        "logprobs",
        is_false,
        "remove it; the receipt proves the tokens instead",
    ),
    ("top_logprobs", is_zero, "remove it"),
    ("echo", is_false, "remove it; you already have the prompt"),
    ("suffix", is_empty, "put the whole text into the prompt"),
    ("presence_penalty", is_zero, "set it to 0 or remove it"),
    ("frequency_penalty", is_zero, "set it to 0 or remove it"),
    ("repetition_penalty", is_one, "set it to 1 or remove it"),
    ("repeat_penalty", is_one, "set it to 1 or remove it"),
    ("min_p", is_zero, "use top_p or top_k instead"),
    ("typical_p", is_one, "use top_p or top_k instead"),
    ("logit_bias", is_empty, "remove it"),
    ("tools", is_empty, "describe the tool in the prompt instead"),
    ("tool_choice", is_auto, "remove it"),
    (
        "functions",
        is_empty,
        "describe the function in the prompt instead",
    ),
    ("function_call", is_auto, "remove it"),
    (
        "response_format",
        is_text,
        "ask for the format in the prompt instead",
    ),
    ("modalities", is_text_list, "only text is served"),
    ("audio", is_empty, "only text is served"),
    ("prediction", is_empty, "remove it"),
    ("reasoning_effort", is_empty, "remove it"),
    ("web_search_options", is_empty, "remove it"),
    ("ignore_eos", is_false, "remove it"),
];

fn is_one(value: &Value) -> bool {
    value.as_f64() == Some(1.0)
}

fn is_zero(value: &Value) -> bool {
    value.as_f64() == Some(0.0)
}

fn is_false(value: &Value) -> bool {
    value.as_bool() == Some(false)
}

fn is_auto(value: &Value) -> bool {
    matches!(value.as_str(), Some("none" | "auto"))
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

fn is_text(value: &Value) -> bool {
    value.get("type").and_then(Value::as_str) == Some("text")
}

fn is_text_list(value: &Value) -> bool {
    value
        .as_array()
        .is_some_and(|items| items.iter().all(|item| item.as_str() == Some("text")))
}
