//! Finds sections in the bytes of a model file. Every offset and length is checked against the bytes
//! that are there; nothing is allocated beyond the directory's own size.

use std::ops::Range;

use assay_protocol::manifest::Manifest;

use super::{ALIGNMENT, ENTRY_LEN, FOOTER_LEN, LayoutError, MAGIC, SECTIONS_MAX, Section};

/// The directory of a model file: where each section lies.
#[derive(Debug, Clone)]
pub struct File {
    /// Ascending by tag.
    sections: Vec<(Section, Range<usize>)>,
}

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(
        bytes[at..at + 8]
            .try_into()
            .expect("eight bytes were sliced"),
    )
}

fn half(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(
        bytes[at..at + 4]
            .try_into()
            .expect("four bytes were sliced"),
    )
}

impl File {
    /// Reads footer and directory.
    pub fn parse(bytes: &[u8]) -> Result<File, LayoutError> {
        let len = bytes.len();
        let footer = len
            .checked_sub(FOOTER_LEN)
            .map(|start| &bytes[start..])
            .filter(|footer| &footer[..MAGIC.len()] == MAGIC)
            .ok_or(LayoutError::NotAModel { len })?;
        let (offset, count, announced) = (word(footer, 16), half(footer, 24), word(footer, 32));
        if announced != len as u64 {
            return Err(LayoutError::WrongLength { announced, len });
        }
        let wrong = LayoutError::Directory { count, offset };
        let start = usize::try_from(offset).map_err(|_| wrong.clone())?;
        let expected_end = start.checked_add(count as usize * ENTRY_LEN);
        if count as usize > SECTIONS_MAX || expected_end != Some(len - FOOTER_LEN) {
            return Err(wrong);
        }
        let mut sections = Vec::with_capacity(count as usize);
        let mut last = None;
        for entry in bytes[start..len - FOOTER_LEN].chunks_exact(ENTRY_LEN) {
            let tag = half(entry, 0);
            let section = Section::from_tag(tag).ok_or(LayoutError::UnknownTag(tag))?;
            let end = word(entry, 8).checked_add(word(entry, 16));
            let aligned = word(entry, 8).is_multiple_of(ALIGNMENT as u64);
            if half(entry, 4) != 0
                || last >= Some(tag)
                || !aligned
                || end.is_none_or(|end| end > offset)
            {
                return Err(LayoutError::Misplaced(section));
            }
            last = Some(tag);
            // Both lie below `offset`, which fits a usize.
            let from = word(entry, 8) as usize;
            sections.push((section, from..from + word(entry, 16) as usize));
        }
        Ok(File { sections })
    }

    /// Where a section lies in the file.
    pub fn range(&self, section: Section) -> Result<Range<usize>, LayoutError> {
        self.sections
            .binary_search_by_key(&section.tag(), |(section, _)| section.tag())
            .map(|found| self.sections[found].1.clone())
            .map_err(|_| LayoutError::Missing(section))
    }

    /// Where a section lies, if it has exactly this length.
    pub fn range_of(&self, section: Section, expected: usize) -> Result<Range<usize>, LayoutError> {
        let range = self.range(section)?;
        match range.len() {
            got if got == expected => Ok(range),
            got => Err(LayoutError::SectionLength {
                section,
                expected,
                got,
            }),
        }
    }

    /// The manifest, decoded.
    pub fn manifest(&self, bytes: &[u8]) -> Result<Manifest, LayoutError> {
        Ok(Manifest::decode(&bytes[self.range(Section::Manifest)?])?)
    }
}

/// Where the manifest's bytes lie. An importer that calibrates writes the file with any fractions,
/// measures, and overwrites exactly these bytes: a manifest's length does not depend on its numbers.
pub fn manifest_range(bytes: &[u8]) -> Result<Range<usize>, LayoutError> {
    File::parse(bytes)?.range(Section::Manifest)
}
