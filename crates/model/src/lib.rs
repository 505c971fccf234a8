//! From the outside world to the integer model: GGUF import, tokenizer, chat template, pinned download.

pub mod catalog;
mod download;
pub mod gguf;
mod progress;
mod stream;
mod template;
mod tokenizer;

pub use catalog::CatalogEntry;
pub use download::{DownloadError, Downloader};
pub use progress::{Progress, Stage};
pub use stream::{StopWatcher, TextStream};
pub use template::{ChatMessage, ChatTemplate, TemplateError};
pub use tokenizer::{
    Algorithm, EncodeError, EncodeOptions, Piece, PieceClass, SpecError, Split, TEXT_BYTES_MAX,
    Tokenizer, TokenizerImportError, TokenizerSpec,
};
