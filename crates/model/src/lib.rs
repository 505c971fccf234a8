//! From the outside world to the integer model: GGUF import, tokenizer, chat template, pinned download.
//! Start at [`Store`]. Floats stay in `gguf::quant`, `import` and `quality`; nothing that serves,
//! pays for or audits an answer calls those.

pub mod catalog;
mod download;
pub mod gguf;
mod import;
mod loaded;
mod parallel;
mod progress;
pub mod quality;
mod store;
mod stream;
mod template;
mod tokenizer;

pub use catalog::CatalogEntry;
pub use download::{DownloadError, Downloader};
pub use import::{ImportError, import};
pub use loaded::{LoadedModel, OpenError};
pub use progress::{Progress, Stage};
pub use store::{Store, StoreError, StoredModel};
pub use stream::{StopWatcher, TextStream};
pub use template::{ChatMessage, ChatTemplate, TemplateError};
pub use tokenizer::{
    Algorithm, EncodeError, EncodeOptions, Piece, PieceClass, SpecError, Split, TEXT_BYTES_MAX,
    Tokenizer, TokenizerImportError, TokenizerSpec,
};
