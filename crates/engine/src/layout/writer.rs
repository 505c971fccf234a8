//! Writes a model file section by section to anything that takes bytes, and gives back the manifest's
//! entry for each. Holds one matrix at a time; never seeks.

use std::io::{self, Write};

use assay_protocol::manifest::{GainEntry, Manifest, MatrixEntry};
use assay_protocol::{B256, keccak256, merkle};

use super::{ALIGNMENT, FOOTER_LEN, LayoutError, MAGIC, MatrixParts, MatrixView, Section};

/// A norm's gains on their way into a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GainParts {
    pub gains: Vec<i32>,
    pub fs: u8,
    pub eps: u64,
}

/// Why a file could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    #[error("could not write the model file: {0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Layout(#[from] LayoutError),
    #[error("section {0} was written twice")]
    Twice(Section),
}

/// Builds one model file.
pub struct FileBuilder<W: Write> {
    to: W,
    offset: u64,
    directory: Vec<(u32, u64, u64)>,
}

impl<W: Write> FileBuilder<W> {
    pub fn new(to: W) -> Self {
        FileBuilder {
            to,
            offset: 0,
            directory: Vec::new(),
        }
    }

    /// Writes a matrix and computes its root.
    pub fn matrix(
        &mut self,
        section: Section,
        parts: &MatrixParts,
    ) -> Result<MatrixEntry, WriteError> {
        let bytes = parts.to_bytes()?;
        self.section(section, &bytes)?;
        let MatrixParts { rows, cols, sh, .. } = *parts;
        let root = MatrixView::parse(rows, cols, sh, &bytes)?.root();
        Ok(MatrixEntry {
            rows,
            cols,
            sh,
            root,
        })
    }

    /// Writes a norm's gains.
    pub fn gain(&mut self, section: Section, parts: &GainParts) -> Result<GainEntry, WriteError> {
        let bytes: Vec<u8> = parts.gains.iter().flat_map(|g| g.to_le_bytes()).collect();
        self.section(section, &bytes)?;
        let root = gain_root(parts.gains.iter().copied());
        Ok(GainEntry {
            len: (bytes.len() / 4) as u32,
            fs: parts.fs,
            eps: parts.eps,
            root,
        })
    }

    /// Writes EXP or ACT; gives the table's root.
    pub fn table(&mut self, section: Section, entries: &[u16]) -> Result<B256, WriteError> {
        let bytes: Vec<u8> = entries.iter().flat_map(|t| t.to_le_bytes()).collect();
        self.section(section, &bytes)?;
        Ok(table_root(entries.iter().copied()))
    }

    /// Writes a RoPE table of (cos, sin) at Q.14, `frequencies` pairs a position; gives its root.
    pub fn rope(
        &mut self,
        index: u8,
        pairs: &[(i16, i16)],
        frequencies: usize,
    ) -> Result<B256, WriteError> {
        let bytes: Vec<u8> = pairs
            .iter()
            .flat_map(|(cos, sin)| [cos.to_le_bytes(), sin.to_le_bytes()])
            .flatten()
            .collect();
        self.section(Section::Rope(index), &bytes)?;
        Ok(rope_root(&bytes, frequencies))
    }

    /// Writes the tokenizer's or the chat template's own bytes; gives their keccak.
    pub fn blob(&mut self, section: Section, bytes: &[u8]) -> Result<B256, WriteError> {
        self.section(section, bytes)?;
        Ok(keccak256(bytes))
    }

    /// Ends the file with the manifest and the directory.
    pub fn finish(mut self, manifest: &Manifest) -> Result<W, WriteError> {
        self.section(Section::Manifest, &manifest.encode())?;
        self.pad()?;
        self.directory.sort_unstable();
        let start = self.offset;
        let mut tail = Vec::new();
        for (tag, offset, len) in &self.directory {
            tail.extend(u64::from(*tag).to_le_bytes());
            tail.extend(offset.to_le_bytes());
            tail.extend(len.to_le_bytes());
        }
        let footer = tail.len();
        tail.resize(footer + FOOTER_LEN, 0);
        let end = start + tail.len() as u64;
        tail[footer..][..16].copy_from_slice(MAGIC);
        tail[footer + 16..][..8].copy_from_slice(&start.to_le_bytes());
        tail[footer + 24..][..4].copy_from_slice(&(self.directory.len() as u32).to_le_bytes());
        tail[footer + 32..][..8].copy_from_slice(&end.to_le_bytes());
        self.to.write_all(&tail)?;
        self.to.flush()?;
        Ok(self.to)
    }

    fn section(&mut self, section: Section, bytes: &[u8]) -> Result<(), WriteError> {
        if self.directory.iter().any(|(tag, ..)| *tag == section.tag()) {
            return Err(WriteError::Twice(section));
        }
        self.pad()?;
        self.directory
            .push((section.tag(), self.offset, bytes.len() as u64));
        self.to.write_all(bytes)?;
        self.offset += bytes.len() as u64;
        Ok(())
    }

    fn pad(&mut self) -> io::Result<()> {
        let padding = self.offset.next_multiple_of(ALIGNMENT as u64) - self.offset;
        self.offset += padding;
        self.to.write_all(&[0; ALIGNMENT][..padding as usize])
    }
}

/// Root over a norm's gains.
pub fn gain_root(gains: impl Iterator<Item = i32>) -> B256 {
    merkle::root(
        &gains
            .map(|g| merkle::leaf(&g.to_be_bytes()))
            .collect::<Vec<_>>(),
    )
}

/// Root over the entries of EXP or ACT.
pub fn table_root(entries: impl Iterator<Item = u16>) -> B256 {
    merkle::root(
        &entries
            .map(|t| merkle::leaf(&t.to_be_bytes()))
            .collect::<Vec<_>>(),
    )
}

/// Root over a RoPE table as it lies in the file; a leaf is a position.
pub fn rope_root(bytes: &[u8], frequencies: usize) -> B256 {
    let leaves: Vec<B256> = bytes
        .chunks(frequencies.max(1) * 4)
        .map(|position| {
            let swapped: Vec<u8> = position
                .chunks_exact(2)
                .flat_map(|short| [short[1], short[0]])
                .collect();
            merkle::leaf(&swapped)
        })
        .collect();
    merkle::root(&leaves)
}
