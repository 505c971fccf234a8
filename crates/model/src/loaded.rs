//! A model file, opened with all that a server of it needs. Opening maps the file and checks its
//! structure; it hashes nothing and copies no weights.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use assay_engine::layout::Section;
use assay_engine::{Bytes, Model};
use assay_protocol::{B256, TokenId, keccak256};

use crate::template::{ChatMessage, ChatTemplate, TemplateError};
use crate::tokenizer::{SpecError, Tokenizer};

/// Why a model file cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot open {path}: {error}")]
    Io {
        path: PathBuf,
        error: std::io::Error,
    },
    #[error("{path}: {error}")]
    Load {
        path: PathBuf,
        error: assay_engine::LoadError,
    },
    #[error("{path}: {error}; import the model again")]
    Tokenizer { path: PathBuf, error: SpecError },
    #[error("{path}: {error}; import the model again")]
    Template { path: PathBuf, error: TemplateError },
    #[error("{path}: the {what} is not the one that the manifest names; import the model again")]
    OtherBlob { path: PathBuf, what: &'static str },
    #[error("{path}: {tokens} tokens in the tokenizer, {vocab} in the model; import it again")]
    Vocabulary {
        path: PathBuf,
        tokens: usize,
        vocab: u32,
    },
}

/// A model, its tokenizer and its chat template; a clone shares them.
#[derive(Debug, Clone)]
pub struct LoadedModel {
    pub name: String,
    pub model: Model,
    pub tokenizer: Tokenizer,
    /// `None` for models that were not made to chat.
    pub template: Option<Arc<ChatTemplate>>,
}

impl LoadedModel {
    /// Opens an integer model file.
    pub fn open(path: &Path, name: &str) -> Result<Self, OpenError> {
        let at = || path.to_owned();
        let io = |error| OpenError::Io { path: at(), error };
        let file = File::open(path).map_err(io)?;
        // SAFETY: the map is read-only; imports replace model files by renaming, never in place.
        // Should another program shrink the file, this one ends by a signal.
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(io)?;
        Self::from_bytes(Arc::new(map), path, name)
    }

    /// Opens a model file's bytes; `path` is what messages call it.
    pub fn from_bytes(bytes: Bytes, path: &Path, name: &str) -> Result<Self, OpenError> {
        let at = || path.to_owned();
        let model = Model::open(bytes).map_err(|error| OpenError::Load { path: at(), error })?;
        let manifest = model.manifest();
        let blob = |section, hash: B256, what| match model.blob(section) {
            Some(bytes) if keccak256(bytes) == hash => Ok(Some(bytes)),
            None if hash.is_zero() => Ok(None),
            _ => Err(OpenError::OtherBlob { path: at(), what }),
        };
        let bytes = blob(Section::Tokenizer, manifest.tokenizer_hash, "tokenizer")?;
        let tokenizer = Tokenizer::from_blob(bytes.unwrap_or_default())
            .map_err(|error| OpenError::Tokenizer { path: at(), error })?;
        if tokenizer.vocab_size() != manifest.dims.vocab as usize {
            return Err(OpenError::Vocabulary {
                path: at(),
                tokens: tokenizer.vocab_size(),
                vocab: manifest.dims.vocab,
            });
        }
        let hash = manifest.chat_template_hash;
        let template = match blob(Section::ChatTemplate, hash, "chat template")? {
            None => None,
            Some(source) => {
                let template = ChatTemplate::of(&String::from_utf8_lossy(source), &tokenizer)
                    .map_err(|error| OpenError::Template { path: at(), error })?;
                Some(Arc::new(template))
            }
        };
        Ok(LoadedModel {
            name: name.to_owned(),
            model,
            tokenizer,
            template,
        })
    }

    /// A conversation's prompt: what the chat endpoint runs. Control tokens come from the template
    /// alone, never from a message.
    pub fn chat_prompt(&self, messages: &[ChatMessage]) -> Result<Vec<TokenId>, TemplateError> {
        let template = self.template.as_ref().ok_or(TemplateError::NoTemplate)?;
        template.encode(&self.tokenizer, messages, true)
    }
}
