//! The one integer file that a model lives in: memory-mappable, little-endian, every section aligned
//! to 64 bytes. [`FileBuilder`] writes it, [`File`] reads it; neither opens a path or trusts a length.
//!
//! Sections come in any order; a directory of `(tag, offset, length)` in ascending order of tag and a
//! 64-byte footer end the file, so that a writer needs no seek. The file packs weights as codes
//! ([`MatrixView`]); the manifest commits to the plain weights that the codes stand for.

mod matrix;
mod reader;
mod tags;
mod writer;

pub use matrix::{BLOCK, Codes, Format, MatrixParts, MatrixView, PANEL};
pub use reader::{File, manifest_range};
pub use tags::{LayerPart, Section};
pub use writer::{FileBuilder, GainParts, WriteError, gain_root, rope_root, table_root};

/// Every section starts at a multiple of this.
pub const ALIGNMENT: usize = 64;
/// Entries of the EXP table.
pub const EXP_LEN: usize = 256;
/// Entries of the ACT table.
pub const ACT_LEN: usize = 65_536;

const FOOTER_LEN: usize = 64;
const MAGIC: &[u8; 16] = b"assay.integer.v2";
const ENTRY_LEN: usize = 24;
const SECTIONS_MAX: usize = 1 << 16;

/// Why bytes are not a model file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    #[error("file of {len} bytes is no integer model file; import the model again")]
    NotAModel { len: usize },
    #[error(
        "file announces {announced} bytes and has {len}; it is cut short, import the model again"
    )]
    WrongLength { announced: u64, len: usize },
    #[error("directory of {count} sections at offset {offset} does not fit the file")]
    Directory { count: u32, offset: u64 },
    #[error("section {0} is out of place")]
    Misplaced(Section),
    #[error("section {0} is missing")]
    Missing(Section),
    #[error("section {section} has {got} bytes, {expected} expected")]
    SectionLength {
        section: Section,
        expected: usize,
        got: usize,
    },
    #[error("unknown section tag {0:#x}")]
    UnknownTag(u32),
    #[error("matrix of {rows} by {cols} has a shape or code format that does not exist")]
    Matrix { rows: u32, cols: u32 },
    #[error("manifest: {0}")]
    Manifest(#[from] assay_protocol::codec::CodecError),
}
