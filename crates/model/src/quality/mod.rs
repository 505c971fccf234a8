//! What the integer model loses against 32-bit floats over the same GGUF: perplexity, KL divergence,
//! agreement on the most likely token, and clamps, over a checked-in text (`text/README.md`). The
//! report is about quality alone; no verdict about an answer ever rests on it.

mod attend;
mod gemm;
mod reference;

use std::sync::{PoisonError, RwLock};

use assay_engine::ClampCounts;
use assay_engine::run::{self, RunError};
use assay_protocol::TokenId;

use crate::gguf::Gguf;
use crate::import::ImportError;
use crate::loaded::LoadedModel;
use crate::progress::{Progress, Stage};
use crate::template::{ChatMessage, TemplateError};
use crate::tokenizer::{EncodeError, EncodeOptions};
use reference::Reference;

/// Tokens of one sequence: twice Gemma's window.
const SEQUENCE: usize = 1024;
/// Positions whose float logits are held at once; the engine asks for as many at a time.
const CHUNK: usize = 128;

const TEXTS: [(&str, &str); 4] = [
    ("prose", include_str!("text/prose.txt")),
    ("declaration", include_str!("text/declaration.txt")),
    ("licence", include_str!("text/licence.txt")),
    ("documentation", include_str!("text/documentation.txt")),
];
const CHATS: &str = include_str!("text/chat.txt");

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum QualityError {
    #[error("the GGUF: {0}")]
    Gguf(#[from] ImportError),
    #[error("the model: {0}")]
    Run(#[from] RunError),
    #[error(transparent)]
    Encode(#[from] EncodeError),
    #[error(transparent)]
    Template(#[from] TemplateError),
    #[error("the GGUF has {gguf} tokens and the model {model}; name the GGUF it was made from")]
    OtherModel { gguf: usize, model: usize },
}

/// A mean and its standard error.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    pub mean: f64,
    pub error: f64,
}

/// What was found on one text, or on all.
#[derive(Debug, Clone, PartialEq)]
pub struct TextQuality {
    pub text: &'static str,
    /// Predictions that were compared.
    pub predictions: usize,
    pub perplexity_float: f64,
    pub perplexity_integer: f64,
    /// The integer model's perplexity over the float model's, less 1; 0.01 is one percent worse.
    pub perplexity_change: Estimate,
    /// KL divergence of the integer model's distribution from the float model's, in nats.
    pub kl: Estimate,
    /// Share of positions where both find the same token most likely.
    pub top1: Estimate,
}

#[derive(Debug, Clone, PartialEq)]
pub struct QualityReport {
    pub all: TextQuality,
    pub texts: Vec<TextQuality>,
    /// Results of the integer model that stood at their limits; a good model has none.
    pub clamps: ClampCounts,
}

/// One prediction under both models.
#[derive(Debug, Clone, Copy, Default)]
struct Comparison {
    nll_float: f64,
    nll_integer: f64,
    kl: f64,
    same_top: bool,
}

/// Runs both models over the texts. Takes minutes: the float model is written to be right, not quick.
pub fn measure(
    gguf: &Gguf,
    loaded: &LoadedModel,
    progress: &mut dyn FnMut(Progress),
) -> Result<QualityReport, QualityError> {
    measure_on(gguf, loaded, &sequences(loaded)?, progress)
}

/// As [`measure`], over the caller's token sequences.
pub fn measure_on(
    gguf: &Gguf,
    loaded: &LoadedModel,
    texts: &[Text],
    progress: &mut dyn FnMut(Progress),
) -> Result<QualityReport, QualityError> {
    let reference = Reference::new(gguf)?;
    let total: usize = texts.iter().flat_map(|(_, s)| s).map(Vec::len).sum();
    let mut done = 0;
    let mut report = |done: usize| {
        progress(Progress {
            stage: Stage::Quality,
            done: done as u64,
            total: total as u64,
        });
    };
    report(0);
    let mut clamps = ClampCounts::default();
    let mut all = Vec::new();
    let mut per_text = Vec::new();
    for (name, sequences) in texts {
        let mut comparisons = Vec::new();
        for tokens in sequences {
            let (found, clamped) = compare(&reference, loaded, tokens)?;
            comparisons.extend(found);
            clamps = sum(clamps, clamped);
            done += tokens.len();
            report(done);
        }
        per_text.push(TextQuality::of(name, &comparisons));
        all.extend(comparisons);
    }
    Ok(QualityReport {
        all: TextQuality::of("all", &all),
        texts: per_text,
        clamps,
    })
}

/// A text's name and its token sequences.
pub type Text = (&'static str, Vec<Vec<TokenId>>);

/// The texts as token sequences; chats through the model's own template where it has one.
fn sequences(loaded: &LoadedModel) -> Result<Vec<Text>, QualityError> {
    let options = EncodeOptions {
        add_bos: true,
        parse_special: false,
    };
    let mut texts = Vec::new();
    for (name, text) in TEXTS {
        let tokens = loaded.tokenizer.encode(text, options)?;
        let bos = loaded
            .tokenizer
            .spec()
            .bos
            .filter(|bos| tokens.first() == Some(bos));
        let body = &tokens[usize::from(bos.is_some())..];
        let sequences = body
            .chunks(SEQUENCE - 1)
            .map(|chunk| bos.iter().chain(chunk).copied().collect())
            .collect();
        texts.push((name, sequences));
    }
    let mut chats = Vec::new();
    for chat in CHATS.split("%%\n") {
        let mut tokens = match &loaded.template {
            Some(template) => template.encode(&loaded.tokenizer, &turns(chat), false)?,
            None => loaded.tokenizer.encode(chat, options)?,
        };
        tokens.truncate(SEQUENCE);
        chats.push(tokens);
    }
    texts.push(("chat", chats));
    Ok(texts)
}

/// Reads `user: …` and `assistant: …`; a line that opens with neither continues the turn.
fn turns(chat: &str) -> Vec<ChatMessage> {
    let mut turns: Vec<ChatMessage> = Vec::new();
    for line in chat.lines() {
        let opened = ["user", "assistant"].iter().find_map(|role| {
            let rest = line.strip_prefix(role)?.strip_prefix(": ")?;
            Some(ChatMessage::new(role, rest))
        });
        match (opened, turns.last_mut()) {
            (Some(turn), _) => turns.push(turn),
            (None, Some(turn)) => {
                turn.content.push('\n');
                turn.content.push_str(line);
            }
            (None, None) => {}
        }
    }
    turns
}

/// Float logits of the chunk that the engine is at. The engine's threads ask for positions of one
/// chunk at a time; the first to ask computes it.
struct FloatLogits<'a> {
    reference: &'a Reference<'a>,
    hidden: Vec<f32>,
    width: usize,
    vocab: usize,
    chunk: RwLock<Option<(usize, Vec<f32>)>>,
}

impl FloatLogits<'_> {
    fn with<R>(&self, position: usize, look: impl Fn(&[f32]) -> R) -> R {
        let wanted = position / CHUNK;
        loop {
            let chunk = self.chunk.read().unwrap_or_else(PoisonError::into_inner);
            if let Some((at, logits)) = &*chunk
                && *at == wanted
            {
                let start = position % CHUNK * self.vocab;
                return look(&logits[start..start + self.vocab]);
            }
            drop(chunk);
            let mut chunk = self.chunk.write().unwrap_or_else(PoisonError::into_inner);
            if !matches!(&*chunk, Some((at, _)) if *at == wanted) {
                let start = wanted * CHUNK * self.width;
                let end = (start + CHUNK * self.width).min(self.hidden.len());
                let logits = self
                    .reference
                    .logits(&self.hidden[start..end])
                    .expect("the head's shape was checked with the first sequence");
                *chunk = Some((wanted, logits));
            }
        }
    }
}

fn compare(
    reference: &Reference<'_>,
    loaded: &LoadedModel,
    tokens: &[TokenId],
) -> Result<(Vec<Comparison>, ClampCounts), QualityError> {
    let dims = loaded.model.manifest().dims;
    let hidden = reference.hidden(tokens)?;
    let width = dims.width as usize;
    let vocab = reference.logits(&hidden[..width.min(hidden.len())])?.len();
    if vocab != dims.vocab as usize {
        return Err(QualityError::OtherModel {
            gguf: vocab,
            model: dims.vocab as usize,
        });
    }
    let floats = FloatLogits {
        reference,
        hidden,
        width,
        vocab,
        chunk: RwLock::new(None),
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let each = |position: usize, integers: &[i32]| -> Option<Comparison> {
        let next = *tokens.get(position + 1)?;
        Some(floats.with(position, |floats| {
            Comparison::of(floats, integers, next as usize)
        }))
    };
    let (found, clamps) = run::logits(&loaded.model, threads, tokens, 0, &each)?;
    Ok((found.into_iter().flatten().collect(), clamps))
}

impl Comparison {
    /// Float logits and integer logits at Q.16 of one position, and the token that came.
    fn of(floats: &[f32], integers: &[i32], next: usize) -> Self {
        const Q16: f64 = 65_536.0;
        let (mut top_f, mut top_i) = (0, 0);
        for id in 1..floats.len() {
            if floats[id] > floats[top_f] {
                top_f = id;
            }
            if integers[id] > integers[top_i] {
                top_i = id;
            }
        }
        let (max_f, max_i) = (floats[top_f], integers[top_i]);
        let from_max = |integer: i32| (f64::from(integer) - f64::from(max_i)) / Q16;
        let (mut z_f, mut z_i, mut cross) = (0.0f64, 0.0f64, 0.0f64);
        for (float, integer) in floats.iter().zip(integers) {
            let f = float - max_f;
            let i = from_max(*integer) as f32;
            let p = f64::from(f.exp());
            z_f += p;
            z_i += f64::from(i.exp());
            cross += p * f64::from(f - i);
        }
        let (log_f, log_i) = (z_f.ln(), z_i.ln());
        Comparison {
            nll_float: log_f - f64::from(floats[next] - max_f),
            nll_integer: log_i - from_max(integers[next]),
            kl: cross / z_f - log_f + log_i,
            same_top: top_f == top_i,
        }
    }
}

impl TextQuality {
    fn of(text: &'static str, comparisons: &[Comparison]) -> Self {
        let mean = |value: fn(&Comparison) -> f64| Estimate::of(comparisons.iter().map(value));
        let change = mean(|c| c.nll_integer - c.nll_float);
        TextQuality {
            text,
            predictions: comparisons.len(),
            perplexity_float: mean(|c| c.nll_float).mean.exp(),
            perplexity_integer: mean(|c| c.nll_integer).mean.exp(),
            perplexity_change: Estimate {
                mean: change.mean.exp_m1(),
                error: change.error,
            },
            kl: mean(|c| c.kl),
            top1: mean(|c| f64::from(u8::from(c.same_top))),
        }
    }
}

impl Estimate {
    fn of(values: impl ExactSizeIterator<Item = f64> + Clone) -> Self {
        let n = values.len().max(1) as f64;
        let mean = values.clone().sum::<f64>() / n;
        let variance = values.map(|v| (v - mean) * (v - mean)).sum::<f64>() / (n - 1.0).max(1.0);
        Estimate {
            mean,
            error: (variance / n).sqrt(),
        }
    }
}

/// The table as a person reads it.
impl std::fmt::Display for QualityReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let header = [
            "text",
            "predictions",
            "ppl float",
            "ppl integer",
            "change",
            "KL",
            "top-1",
        ];
        let [text, n, float, integer, change, kl, top1] = header;
        writeln!(
            f,
            "{text:<14}{n:>12}{float:>11}{integer:>13}{change:>18}{kl:>20}{top1:>16}"
        )?;
        for row in self.texts.iter().chain([&self.all]) {
            let percent = |e: Estimate| (e.mean * 100.0, e.error * 100.0);
            let (change, change_error) = percent(row.perplexity_change);
            let (top1, top1_error) = percent(row.top1);
            writeln!(
                f,
                "{:<14}{:>12}{:>11.3}{:>13.3}{:>18}{:>20}{:>16}",
                row.text,
                row.predictions,
                row.perplexity_float,
                row.perplexity_integer,
                format!("{change:+.2}% ± {change_error:.2}"),
                format!("{:.5} ± {:.5}", row.kl.mean, row.kl.error),
                format!("{top1:.1}% ± {top1_error:.1}"),
            )?;
        }
        let c = &self.clamps;
        write!(
            f,
            "clamped results: {} (q/k/v {}, after RoPE {}, v {}, gate/up {}, branches {}, residual {}, logits {})",
            c.total(),
            c.qkv,
            c.qk,
            c.v,
            c.mlp,
            c.branch,
            c.residual,
            c.logits
        )
    }
}

fn sum(a: ClampCounts, b: ClampCounts) -> ClampCounts {
    ClampCounts {
        qkv: a.qkv + b.qkv,
        qk: a.qk + b.qk,
        v: a.v + b.v,
        mlp: a.mlp + b.mlp,
        branch: a.branch + b.branch,
        residual: a.residual + b.residual,
        logits: a.logits + b.logits,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_distributions_have_no_divergence() {
        let integers: Vec<i32> = (0..100).map(|i| (i * 37 % 101) << 12).collect();
        let floats: Vec<f32> = integers
            .iter()
            .map(|&i| i as f32 / 65_536.0 + 3.0)
            .collect();
        let same = Comparison::of(&floats, &integers, 7);
        assert!(same.kl.abs() < 1e-6);
        assert!((same.nll_float - same.nll_integer).abs() < 1e-6);
        assert!(same.same_top);
    }

    #[test]
    fn a_divergence_is_what_the_formula_says() {
        // p = (1/2, 1/2), q = (3/4, 1/4): KL = ½·ln(2/3) + ½·ln 2.
        let q = [(3.0f64.ln() * 65_536.0).round() as i32, 0];
        let found = Comparison::of(&[0.0, 0.0], &q, 1);
        let expected = 0.5 * (2.0f64 / 3.0).ln() + 0.5 * 2.0f64.ln();
        assert!((found.kl - expected).abs() < 1e-4);
        assert!((found.nll_integer - 4.0f64.ln()).abs() < 1e-4);
        assert!((found.nll_float - 2.0f64.ln()).abs() < 1e-9);
    }

    #[test]
    fn chats_are_read_as_turns() {
        let turns = turns("user: a\nassistant: b\n\nc\nuser: d\n");
        assert_eq!(turns.len(), 3);
        assert_eq!(turns[1], ChatMessage::new("assistant", "b\n\nc"));
    }

    #[test]
    fn an_estimate_has_its_error() {
        let found = Estimate::of([1.0, 2.0, 3.0, 4.0].into_iter());
        assert_eq!(found.mean, 2.5);
        assert!((found.error - (5.0f64 / 3.0 / 4.0).sqrt()).abs() < 1e-12);
    }
}
