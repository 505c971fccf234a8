//! From the outside world to the integer model: GGUF import, tokenizer, chat template, pinned download.

pub mod gguf;
mod stream;
mod template;
mod tokenizer;

pub use stream::{StopWatcher, TextStream};
pub use template::{ChatMessage, ChatTemplate, TemplateError};
pub use tokenizer::{
    Algorithm, EncodeError, EncodeOptions, Piece, PieceClass, SpecError, Split, TEXT_BYTES_MAX,
    Tokenizer, TokenizerImportError, TokenizerSpec,
};
