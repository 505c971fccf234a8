//! A tokenizer out of a GGUF's metadata. The only file of the tokenizer that knows a GGUF.

use std::collections::HashMap;

use assay_protocol::TokenId;

use super::spec::{Algorithm, PIECES_MAX, Piece, PieceClass, SpecError, Split, TokenizerSpec};
use crate::gguf::{Gguf, GgufError};

/// Names of tokens that end a turn, whatever the metadata's one `eos` is (llama.cpp's list).
const END_NAMES: [&str; 9] = [
    "<|im_end|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end|>",
    "<|end_of_text|>",
    "<end_of_turn>",
    "<eos>",
    "</s>",
];

/// Why a GGUF's tokenizer cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerImportError {
    #[error(transparent)]
    Gguf(#[from] GgufError),
    #[error(transparent)]
    Spec(#[from] SpecError),
    #[error("tokenizer model {0:?} is not supported, only gpt2 and llama are")]
    Model(String),
    #[error("pre-tokenizer {0:?} is not supported, only smollm and gpt-2 are")]
    PreTokenizer(String),
    #[error("{what}: {got} entries for {pieces} tokens")]
    Count {
        what: &'static str,
        got: usize,
        pieces: usize,
    },
    #[error("token {id} has the unknown type {class}")]
    Class { id: usize, class: i64 },
    #[error("merge {0} is not two tokens of the vocabulary")]
    Merge(usize),
    #[error("{0} is no token id")]
    TokenId(&'static str),
}

impl TokenizerSpec {
    pub fn from_gguf(gguf: &Gguf) -> Result<Self, TokenizerImportError> {
        let texts: Vec<&str> = gguf.strings("tokenizer.ggml.tokens")?.collect();
        let count = texts.len();
        if count > PIECES_MAX {
            return Err(SpecError::PieceCount(count).into());
        }
        let classes = gguf.ints("tokenizer.ggml.token_type")?;
        same_count("token types", classes.len(), count)?;
        let model = gguf.string("tokenizer.ggml.model")?;
        let bytes_of: fn(&str) -> Option<Box<[u8]>> = match model {
            "gpt2" => unmap_letters,
            "llama" => |text| Some(text.replace('▁', " ").into_bytes().into()),
            other => return Err(TokenizerImportError::Model(other.to_owned())),
        };
        let mut pieces = Vec::with_capacity(count);
        for (id, (&text, &class)) in texts.iter().zip(&classes).enumerate() {
            pieces.push(piece(id, text, class, bytes_of)?);
        }
        let algorithm = match model {
            "gpt2" => bpe(gguf, &texts)?,
            _ => spm(gguf, count)?,
        };

        let id = |key: &'static str| -> Result<Option<TokenId>, TokenizerImportError> {
            match Gguf::optional(gguf.uint(key))? {
                None => Ok(None),
                Some(id) if id < count as u64 => Ok(Some(id as TokenId)),
                Some(_) => Err(TokenizerImportError::TokenId(key)),
            }
        };
        let mut eos: Vec<TokenId> = id("tokenizer.ggml.eos_token_id")?.into_iter().collect();
        eos.extend(id("tokenizer.ggml.eot_token_id")?);
        for (id, piece) in (0..).zip(&pieces) {
            if piece.class == PieceClass::Control
                && END_NAMES
                    .iter()
                    .any(|name| name.as_bytes() == &*piece.bytes)
            {
                eos.push(id);
            }
        }
        eos.sort_unstable();
        eos.dedup();
        let spec = TokenizerSpec {
            algorithm,
            pieces,
            bos: id("tokenizer.ggml.bos_token_id")?,
            eos,
            // SentencePiece models open every text with it unless they say otherwise.
            add_bos: Gguf::optional(gguf.bool("tokenizer.ggml.add_bos_token"))?
                .unwrap_or(model == "llama"),
        };
        spec.check()?;
        Ok(spec)
    }
}

fn same_count(what: &'static str, got: usize, pieces: usize) -> Result<(), TokenizerImportError> {
    match got == pieces {
        true => Ok(()),
        false => Err(TokenizerImportError::Count { what, got, pieces }),
    }
}

fn piece(
    id: usize,
    text: &str,
    class: i64,
    bytes_of: fn(&str) -> Option<Box<[u8]>>,
) -> Result<Piece, TokenizerImportError> {
    let verbatim = || text.as_bytes().into();
    let (class, bytes) = match class {
        1 => (PieceClass::Normal, bytes_of(text).unwrap_or_else(verbatim)),
        // Unknown and unused tokens stand for no text, as control tokens do.
        2 | 3 | 5 => (PieceClass::Control, verbatim()),
        4 => (PieceClass::UserDefined, verbatim()),
        6 => {
            let byte = text
                .strip_prefix("<0x")
                .and_then(|rest| rest.strip_suffix('>'))
                .and_then(|digits| u8::from_str_radix(digits, 16).ok())
                .ok_or(TokenizerImportError::Class { id, class })?;
            (PieceClass::Byte, Box::from([byte]))
        }
        class => return Err(TokenizerImportError::Class { id, class }),
    };
    Ok(Piece { bytes, class })
}

fn bpe(gguf: &Gguf, texts: &[&str]) -> Result<Algorithm, TokenizerImportError> {
    let split = match gguf.string("tokenizer.ggml.pre")? {
        "smollm" => Split::SmolLm,
        "gpt-2" | "gpt2" | "default" => Split::Gpt2,
        other => return Err(TokenizerImportError::PreTokenizer(other.to_owned())),
    };
    let ids: HashMap<&str, TokenId> = texts.iter().copied().zip(0..).collect();
    let mut merges = Vec::new();
    for (n, merge) in gguf.strings("tokenizer.ggml.merges")?.enumerate() {
        let pair = merge
            .split_once(' ')
            .and_then(|(left, right)| Some((*ids.get(left)?, *ids.get(right)?)));
        merges.push(pair.ok_or(TokenizerImportError::Merge(n))?);
    }
    Ok(Algorithm::Bpe { split, merges })
}

fn spm(gguf: &Gguf, count: usize) -> Result<Algorithm, TokenizerImportError> {
    let scores = gguf.floats("tokenizer.ggml.scores")?;
    same_count("scores", scores.len(), count)?;
    // `+ 0.0` makes minus zero zero: the two are one score.
    let scores: Vec<f32> = scores.iter().map(|score| score + 0.0).collect();
    let mut sorted = scores.clone();
    sorted.sort_unstable_by(|a, b| b.total_cmp(a));
    sorted.dedup();
    let rank = |score: &f32| sorted.partition_point(|other| other.total_cmp(score).is_gt()) as u32;
    Ok(Algorithm::Spm {
        space_prefix: Gguf::optional(gguf.bool("tokenizer.ggml.add_space_prefix"))?.unwrap_or(true),
        ranks: scores.iter().map(rank).collect(),
    })
}

/// GPT-2 writes each byte as a printable letter; this undoes it. `None` where a letter is no byte.
fn unmap_letters(text: &str) -> Option<Box<[u8]>> {
    text.chars().map(letter_to_byte).collect()
}

fn letter_to_byte(letter: char) -> Option<u8> {
    let code = u32::from(letter);
    match code {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => Some(code as u8),
        // The bytes that print as nothing follow in order from U+0100.
        0x100..=0x120 => Some((code - 0x100) as u8),
        0x121..=0x142 => Some((code - 0x121 + 0x7f) as u8),
        0x143 => Some(0xad),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_one_letter() {
        let mut bytes: Vec<u8> = (0..0x200)
            .filter_map(char::from_u32)
            .filter_map(letter_to_byte)
            .collect();
        bytes.sort_unstable();
        assert!(bytes.iter().copied().eq(0..=255));
        assert_eq!(letter_to_byte('Ġ'), Some(b' '));
        assert_eq!(letter_to_byte('Ċ'), Some(b'\n'));
    }
}
