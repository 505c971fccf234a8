//! What a client asks for, checked. A request that parses means exactly one computation; one that does not is
//! refused with the parameter's name. Whether the model exists, and whether the prompt fits, is decided by whoever
//! holds the model.

use crate::ApiError;
use crate::fields::Fields;
use crate::sampler::{self, SamplerDraft};
use assay_protocol::{B256, MicroUsd, SamplerParams, Tier, TokenId};
use serde_json::Value;

/// Bounds on what is read, before anything is computed.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub messages_max: usize,
    pub prompt_bytes_max: usize,
    pub prompt_tokens_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            messages_max: 2_048,
            prompt_bytes_max: 4 << 20,
            prompt_tokens_max: 1 << 20,
        }
    }
}

/// One turn of a chat. Roles are `system`, `user` and `assistant`; OpenAI's `developer` counts as `system`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub role: String,
    pub content: String,
}

/// What is to be continued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    Chat(Vec<Message>),
    Text(String),
    Tokens(Vec<TokenId>),
}

/// The body's `assay` object: what OpenAI has no words for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AssayRequest {
    pub verification: Option<Tier>,
    /// The most that this one request may cost.
    pub max_price: Option<MicroUsd>,
    pub request_id: Option<B256>,
    /// Read by gateways only: a node is itself the market.
    pub fallback: Option<Fallback>,
}

/// What a gateway may do when nobody in the market can serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fallback {
    /// Refuse.
    Never,
    /// Ask a configured cloud, whose answer nobody can check.
    Cloud,
}

/// A checked request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub model: String,
    pub input: Input,
    pub sampler: SamplerDraft,
    pub stream: bool,
    /// `stream_options.include_usage`.
    pub include_usage: bool,
    pub assay: AssayRequest,
}

/// Reads the body of `/v1/chat/completions`.
pub fn parse_chat(body: &[u8], limits: &Limits) -> Result<Request, ApiError> {
    let mut fields = Fields::parse(body)?;
    let messages = fields.take("messages");
    let input = Input::Chat(messages_of(messages, limits)?);
    finish(fields, input)
}

/// Reads the body of `/v1/completions`; OpenAI's default of 16 tokens holds here.
pub fn parse_completion(body: &[u8], limits: &Limits) -> Result<Request, ApiError> {
    let mut fields = Fields::parse(body)?;
    let input = prompt_of(fields.take("prompt"), limits)?;
    let mut request = finish(fields, input)?;
    request.sampler.max_tokens.get_or_insert(16);
    Ok(request)
}

fn finish(mut fields: Fields, input: Input) -> Result<Request, ApiError> {
    let model = fields.string("model")?.filter(|name| !name.is_empty());
    let Some(model) = model else {
        return Err(ApiError::invalid(
            "model",
            "'model' is missing: name one of GET /v1/models",
        ));
    };
    let stream = fields.boolean("stream")?.unwrap_or(false);
    let mut include_usage = false;
    if let Some(options) = fields.object("stream_options")? {
        if !stream {
            return Err(ApiError::invalid(
                "stream_options",
                "'stream_options' needs \"stream\": true",
            ));
        }
        let mut options = Fields::of(options);
        include_usage = options.boolean("include_usage")?.unwrap_or(false);
        options.boolean("include_obfuscation")?;
        options.finish()?;
    }
    let mut draft = sampler::take(&mut fields)?;
    let mut assay = AssayRequest::default();
    if let Some(extension) = fields.object("assay")? {
        let mut extension = Fields::of(extension);
        assay.verification = extension.take("verification").map(tier_of).transpose()?;
        assay.max_price = extension
            .integer("max_price", 0, i64::MAX)
            .map_err(|error| error.at("assay.max_price"))?
            .map(|price| MicroUsd(price.unsigned_abs()));
        assay.request_id = extension
            .take("request_id")
            .map(request_id_of)
            .transpose()?;
        assay.fallback = extension.take("fallback").map(fallback_of).transpose()?;
        if let Some(exact) = extension.take("sampler") {
            draft = SamplerDraft::exact(sampler_of(exact)?);
        }
        extension.finish()?;
    }
    fields.finish()?;
    Ok(Request {
        model,
        input,
        sampler: draft,
        stream,
        include_usage,
        assay,
    })
}

fn tier_of(value: Value) -> Result<Tier, ApiError> {
    serde_json::from_value(value).map_err(|_| {
        ApiError::invalid(
            "assay.verification",
            "'assay.verification' must be none, staked, optimistic, proven, tolerant or unverified",
        )
    })
}

fn fallback_of(value: Value) -> Result<Fallback, ApiError> {
    serde_json::from_value(value)
        .map_err(|_| ApiError::invalid("assay.fallback", "'assay.fallback' must be never or cloud"))
}

fn request_id_of(value: Value) -> Result<B256, ApiError> {
    serde_json::from_value(value).map_err(|_| {
        ApiError::invalid(
            "assay.request_id",
            "'assay.request_id' must be 0x and 64 hexadecimal digits",
        )
    })
}

fn sampler_of(value: Value) -> Result<SamplerParams, ApiError> {
    let params: SamplerParams = serde_json::from_value(value).map_err(|error| {
        ApiError::invalid(
            "assay.sampler",
            format!("'assay.sampler' does not parse: {error}"),
        )
    })?;
    params
        .validate()
        .map_err(|error| ApiError::invalid("assay.sampler", error.to_string()))?;
    Ok(params)
}

fn messages_of(value: Option<Value>, limits: &Limits) -> Result<Vec<Message>, ApiError> {
    let Some(Value::Array(items)) = value else {
        return Err(ApiError::invalid(
            "messages",
            "'messages' must be a list of {\"role\", \"content\"}",
        ));
    };
    if items.is_empty() || items.len() > limits.messages_max {
        return Err(ApiError::invalid(
            "messages",
            format!(
                "'messages' must hold 1 to {} messages, not {}",
                limits.messages_max,
                items.len()
            ),
        ));
    }
    let messages: Vec<Message> = items
        .into_iter()
        .enumerate()
        .map(|(index, item)| {
            message_of(item).map_err(|error| error.at(&format!("messages[{index}]")))
        })
        .collect::<Result<_, _>>()?;
    let bytes: usize = messages.iter().map(|message| message.content.len()).sum();
    check_bytes("messages", bytes, limits)?;
    Ok(messages)
}

fn message_of(item: Value) -> Result<Message, ApiError> {
    let Value::Object(map) = item else {
        return Err(ApiError::invalid(
            "messages",
            "a message must be an object with 'role' and 'content'",
        ));
    };
    let mut fields = Fields::of(map);
    let role = match fields.string("role")?.as_deref() {
        Some("system" | "developer") => "system",
        Some("user") => "user",
        Some("assistant") => "assistant",
        _ => {
            return Err(ApiError::invalid(
                "role",
                "a message's 'role' must be system, developer, user or assistant",
            ));
        }
    };
    let content = content_of(fields.take("content"))?;
    fields.string("name")?;
    // Clients send an assistant's answer back as they got it.
    for echoed in ["refusal", "annotations", "reasoning_content"] {
        fields.take(echoed);
    }
    for tool in ["tool_calls", "function_call", "audio"] {
        if fields
            .take(tool)
            .is_some_and(|value| value != Value::Array(Vec::new()))
        {
            return Err(ApiError::unsupported(
                tool,
                format!("'{tool}' is not supported here: send plain text"),
            ));
        }
    }
    fields.finish()?;
    Ok(Message {
        role: role.into(),
        content,
    })
}

fn content_of(value: Option<Value>) -> Result<String, ApiError> {
    let wrong = || {
        ApiError::invalid(
            "content",
            "a message's 'content' must be a string or a list of text parts",
        )
    };
    match value {
        Some(Value::String(text)) => Ok(text),
        Some(Value::Array(parts)) => {
            let mut text = String::new();
            for part in parts {
                match (
                    part.get("type").and_then(Value::as_str),
                    part.get("text").and_then(Value::as_str),
                ) {
                    (Some("text"), Some(piece)) => text.push_str(piece),
                    (Some("text"), None) => return Err(wrong()),
                    _ => {
                        return Err(ApiError::unsupported(
                            "content",
                            "only parts of type 'text' are served here",
                        ));
                    }
                }
            }
            Ok(text)
        }
        _ => Err(wrong()),
    }
}

fn prompt_of(value: Option<Value>, limits: &Limits) -> Result<Input, ApiError> {
    let wrong = || ApiError::invalid("prompt", "'prompt' must be a string or a list of token ids");
    match value {
        Some(Value::String(text)) => {
            check_bytes("prompt", text.len(), limits)?;
            Ok(Input::Text(text))
        }
        Some(Value::Array(items)) => match items.first() {
            None => Err(ApiError::invalid(
                "prompt",
                "'prompt' is empty: send at least one token",
            )),
            Some(Value::String(_) | Value::Array(_)) if items.len() == 1 => {
                prompt_of(items.into_iter().next(), limits)
            }
            Some(Value::String(_) | Value::Array(_)) => Err(ApiError::unsupported(
                "prompt",
                "several prompts in one request are not served: send one each",
            )),
            Some(_) if items.len() > limits.prompt_tokens_max => Err(ApiError::invalid(
                "prompt",
                format!("'prompt' has more than {} tokens", limits.prompt_tokens_max),
            )),
            Some(_) => {
                let id = |item: &Value| item.as_u64().and_then(|id| TokenId::try_from(id).ok());
                items
                    .iter()
                    .map(id)
                    .collect::<Option<Vec<_>>>()
                    .map(Input::Tokens)
                    .ok_or_else(wrong)
            }
        },
        _ => Err(wrong()),
    }
}

fn check_bytes(param: &str, bytes: usize, limits: &Limits) -> Result<(), ApiError> {
    if bytes <= limits.prompt_bytes_max {
        return Ok(());
    }
    Err(ApiError::invalid(
        param,
        format!(
            "the prompt has {bytes} bytes, at most {} are read: shorten it",
            limits.prompt_bytes_max
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use assay_protocol::Temperature;

    fn chat(rest: &str) -> Result<Request, ApiError> {
        let body =
            format!(r#"{{"model":"m","messages":[{{"role":"user","content":"hi"}}]{rest}}}"#);
        parse_chat(body.as_bytes(), &Limits::default())
    }

    #[test]
    fn a_plain_chat_request_parses() {
        let request = chat(
            r#","temperature":0,"max_tokens":5,"stream":true,"stream_options":{"include_usage":true}"#,
        );
        let request = request.unwrap();
        assert_eq!(
            request.input,
            Input::Chat(vec![Message {
                role: "user".into(),
                content: "hi".into()
            }])
        );
        assert_eq!(request.sampler.max_tokens, Some(5));
        assert_eq!(request.sampler.temperature, Temperature::Greedy);
        assert!(request.stream && request.include_usage);
    }

    #[test]
    fn parameters_at_their_neutral_value_are_let_through() {
        chat(
            r#","n":1,"presence_penalty":0.0,"frequency_penalty":0,"logprobs":false,"tools":[],"tool_choice":"none",
               "response_format":{"type":"text"},"logit_bias":{},"user":"u","metadata":{"a":"b"},"stop":null,"seed":null"#,
        )
        .unwrap();
    }

    #[test]
    fn what_would_change_the_answer_unheard_is_refused_by_name() {
        let check = |rest: &str, param: &str| {
            let error = chat(rest).unwrap_err();
            assert_eq!(
                (error.status, error.body.param.as_deref()),
                (400, Some(param)),
                "{rest}: {error}"
            );
            assert!(error.body.message.len() > 20, "{error}");
        };
        check(r#","n":2"#, "n");
        check(r#","logprobs":true"#, "logprobs");
        check(r#","top_logprobs":3"#, "top_logprobs");
        check(r#","tools":[{"type":"function"}]"#, "tools");
        check(r#","tool_choice":"required""#, "tool_choice");
        check(r#","presence_penalty":0.5"#, "presence_penalty");
        check(r#","frequency_penalty":-1"#, "frequency_penalty");
        check(r#","logit_bias":{"1":5}"#, "logit_bias");
        check(
            r#","response_format":{"type":"json_object"}"#,
            "response_format",
        );
        check(r#","min_p":0.1"#, "min_p");
        check(r#","frobnicate":1"#, "frobnicate");
        check(r#","stream":"yes""#, "stream");
        check(
            r#","stream_options":{"include_usage":true}"#,
            "stream_options",
        );
        check(r#","model":7"#, "model");
        check(r#","assay":{"verification":"maybe"}"#, "assay.verification");
        check(r#","assay":{"request_id":"0x12"}"#, "assay.request_id");
        check(r#","assay":{"max_price":-1}"#, "assay.max_price");
        check(r#","assay":{"fallback":"maybe"}"#, "assay.fallback");
        check(r#","assay":{"sampler":{}}"#, "assay.sampler");
    }

    #[test]
    fn bad_bodies_are_refused() {
        let check = |body: &[u8], code: &str| {
            let error = parse_chat(body, &Limits::default()).unwrap_err();
            assert_eq!(
                (error.status, error.body.code.as_deref()),
                (400, Some(code)),
                "{error}"
            );
        };
        check(b"", "malformed_body");
        check(b"{", "malformed_body");
        check(b"[]", "malformed_body");
        check(
            b"{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"\xff\"}]}",
            "malformed_body",
        );
        check(
            br#"{"model":"m","temperature":1e999,"messages":[]}"#,
            "malformed_body",
        );
        check(
            br#"{"model":"m","messages":[{"role":"user","content":"\ud800"}]}"#,
            "malformed_body",
        );
        check(br#"{"model":"m"}"#, "invalid_value");
        check(br#"{"model":"m","messages":[]}"#, "invalid_value");
        check(br#"{"model":"m","messages":"hi"}"#, "invalid_value");
        check(
            br#"{"model":"m","messages":[{"role":"robot","content":"hi"}]}"#,
            "invalid_value",
        );
        check(
            br#"{"model":"m","messages":[{"role":"user","content":7}]}"#,
            "invalid_value",
        );
        check(
            br#"{"messages":[{"role":"user","content":"hi"}]}"#,
            "invalid_value",
        );
        let image = br#"{"model":"m","messages":[{"role":"user","content":[{"type":"image_url","image_url":{}}]}]}"#;
        check(image, "unsupported_parameter");
        let deep = format!(
            "{{\"model\":{}1{}}}",
            "[".repeat(100_000),
            "]".repeat(100_000)
        );
        check(deep.as_bytes(), "malformed_body");
    }

    #[test]
    fn an_exact_sampler_replaces_the_decimal_numbers() {
        let exact = SamplerParams {
            top_k: 7,
            ..SamplerParams::greedy(9)
        };
        let json = serde_json::to_string(&exact).unwrap();
        let request = chat(&format!(
            r#","temperature":1.5,"assay":{{"sampler":{json}}}"#
        ))
        .unwrap();
        assert_eq!(request.sampler.complete(B256::repeat_byte(9), 1), exact);
    }

    #[test]
    fn prompts_come_as_text_or_ids() {
        let parse = |prompt: &str| {
            let body = format!(r#"{{"model":"m","prompt":{prompt}}}"#);
            parse_completion(body.as_bytes(), &Limits::default()).map(|request| request.input)
        };
        assert_eq!(parse(r#""hi""#), Ok(Input::Text("hi".into())));
        assert_eq!(parse(r#"["hi"]"#), Ok(Input::Text("hi".into())));
        assert_eq!(parse("[1,2]"), Ok(Input::Tokens(vec![1, 2])));
        assert_eq!(parse("[[1,2]]"), Ok(Input::Tokens(vec![1, 2])));
        for bad in [
            "[]",
            "[[]]",
            "[-1]",
            "[1.5]",
            "[4294967296]",
            "[1,\"a\"]",
            "7",
            "null",
            r#"["a","b"]"#,
        ] {
            assert_eq!(parse(bad).unwrap_err().status, 400, "{bad}");
        }
    }
}
