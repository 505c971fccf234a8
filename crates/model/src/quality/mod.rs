//! What the integer model loses against 32-bit floats over the same GGUF: perplexity, KL divergence,
//! agreement on the most likely token, and clamps, over a checked-in text (`text/README.md`); beside
//! it, what llama.cpp's way loses in the same comparison. The report is about quality alone; no
//! verdict about an answer ever rests on it.

mod attend;
mod gemm;
mod peer;
mod reference;
mod report;

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
use reference::{Reference, Rounding};
use report::Comparison;
pub use report::{Distance, Estimate, QualityReport, TextQuality};

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

/// Runs the models over the texts. Takes minutes: the float models are written to be right, not quick.
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
    let references = [
        Reference::new(gguf, Rounding::None)?,
        Reference::new(gguf, Rounding::LlamaCpp)?,
    ];
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
            let (found, clamped) = compare(&references, loaded, tokens)?;
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

/// Logits of the float models at the chunk that the engine is at. The engine's threads ask for
/// positions of one chunk at a time; the first to ask computes it.
struct FloatLogits<'a> {
    models: [FloatModel<'a>; 2],
    vocab: usize,
    chunk: RwLock<Option<(usize, [Vec<f32>; 2])>>,
}

/// A float model after its last norm.
struct FloatModel<'a> {
    reference: &'a Reference<'a>,
    hidden: Vec<f32>,
    width: usize,
}

impl FloatModel<'_> {
    fn logits(&self, chunk: usize) -> Vec<f32> {
        let start = chunk * CHUNK * self.width;
        let end = (start + CHUNK * self.width).min(self.hidden.len());
        self.reference
            .logits(&self.hidden[start..end])
            .expect("the head's shape was checked with the first sequence")
    }
}

impl FloatLogits<'_> {
    fn with<R>(&self, position: usize, look: impl Fn([&[f32]; 2]) -> R) -> R {
        let wanted = position / CHUNK;
        loop {
            let chunk = self.chunk.read().unwrap_or_else(PoisonError::into_inner);
            if let Some((at, logits)) = &*chunk
                && *at == wanted
            {
                let start = position % CHUNK * self.vocab;
                return look(logits.each_ref().map(|l| &l[start..start + self.vocab]));
            }
            drop(chunk);
            let mut chunk = self.chunk.write().unwrap_or_else(PoisonError::into_inner);
            if !matches!(&*chunk, Some((at, _)) if *at == wanted) {
                let logits = self.models.each_ref().map(|model| model.logits(wanted));
                *chunk = Some((wanted, logits));
            }
        }
    }
}

/// Every prediction of a sequence: the integer model's and llama.cpp's, each beside the float model's.
fn compare(
    references: &[Reference<'_>; 2],
    loaded: &LoadedModel,
    tokens: &[TokenId],
) -> Result<(Vec<[Comparison; 2]>, ClampCounts), QualityError> {
    let dims = loaded.model.manifest().dims;
    let width = dims.width as usize;
    let model = |reference| -> Result<FloatModel<'_>, ImportError> {
        Ok(FloatModel {
            reference,
            hidden: Reference::hidden(reference, tokens)?,
            width,
        })
    };
    let [exact, llama_cpp] = references;
    let models = [model(exact)?, model(llama_cpp)?];
    let hidden = &models[0].hidden;
    let vocab = exact.logits(&hidden[..width.min(hidden.len())])?.len();
    if vocab != dims.vocab as usize {
        return Err(QualityError::OtherModel {
            gguf: vocab,
            model: dims.vocab as usize,
        });
    }
    let floats = FloatLogits {
        models,
        vocab,
        chunk: RwLock::new(None),
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let each = |position: usize, integers: &[i32]| -> Option<[Comparison; 2]> {
        let next = *tokens.get(position + 1)? as usize;
        Some(floats.with(position, |[exact, llama_cpp]| {
            [
                Comparison::of_integers(exact, integers, next),
                Comparison::of_floats(exact, llama_cpp, next),
            ]
        }))
    };
    let (found, clamps) = run::logits(&loaded.model, threads, tokens, 0, &each)?;
    Ok((found.into_iter().flatten().collect(), clamps))
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
    fn chats_are_read_as_turns() {
        let turns = turns("user: a\nassistant: b\n\nc\nuser: d\n");
        assert_eq!(turns.len(), 3);
        assert_eq!(turns[1], ChatMessage::new("assistant", "b\n\nc"));
    }
}
