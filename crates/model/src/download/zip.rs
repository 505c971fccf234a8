//! Reads one member of a zip archive, stored or deflated, and never more of it than announced.
//! No other feature of zip: an archive that uses one (zip64, encryption) is refused.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Take};

use flate2::read::DeflateDecoder;

const END_MAGIC: u32 = 0x0605_4b50;
const ENTRY_MAGIC: u32 = 0x0201_4b50;
const LOCAL_MAGIC: u32 = 0x0403_4b50;
const END_LEN: usize = 22;
/// A comment may follow the end record.
const END_SEARCH: u64 = END_LEN as u64 + 65_535;
const DIRECTORY_BYTES_MAX: u32 = 1 << 20;

#[derive(Debug, thiserror::Error)]
pub(super) enum ZipError {
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("is no zip archive")]
    NotZip,
    #[error("has a damaged directory")]
    Damaged,
    #[error("has no member {0}")]
    NoMember(String),
    #[error("uses a zip feature that is not supported")]
    Unsupported,
    #[error("member has {got} bytes, {expected} expected")]
    Length { got: u64, expected: u64 },
}

/// The contents of a member.
pub(super) struct Member(Take<Contents>);

enum Contents {
    Stored(Take<File>),
    Deflated(Box<DeflateDecoder<Take<File>>>),
}

impl Read for Contents {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Contents::Stored(file) => file.read(buffer),
            Contents::Deflated(decoder) => decoder.read(buffer),
        }
    }
}

impl Read for Member {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Member {
    pub(super) fn open(mut file: File, name: &str, expected: u64) -> Result<Self, ZipError> {
        let directory = directory(&mut file)?;
        let entry = find(&directory, name)?;
        if entry.size != expected {
            return Err(ZipError::Length {
                got: entry.size,
                expected,
            });
        }
        let mut local = [0; 30];
        file.seek(SeekFrom::Start(entry.offset))?;
        file.read_exact(&mut local)?;
        if u32_at(&local, 0) != Some(LOCAL_MAGIC) {
            return Err(ZipError::Damaged);
        }
        let skip = u64::from(entry_u16(&local, 26)?) + u64::from(entry_u16(&local, 28)?);
        file.seek(SeekFrom::Current(skip as i64))?;
        let packed = file.take(entry.packed);
        let contents = match entry.method {
            0 => Contents::Stored(packed),
            8 => Contents::Deflated(Box::new(DeflateDecoder::new(packed))),
            _ => return Err(ZipError::Unsupported),
        };
        Ok(Member(contents.take(expected)))
    }
}

struct Entry {
    method: u16,
    packed: u64,
    size: u64,
    offset: u64,
}

/// The bytes of the central directory.
fn directory(file: &mut File) -> Result<Vec<u8>, ZipError> {
    let len = file.seek(SeekFrom::End(0))?;
    let start = len.saturating_sub(END_SEARCH);
    file.seek(SeekFrom::Start(start))?;
    let mut tail = Vec::new();
    file.take(END_SEARCH).read_to_end(&mut tail)?;
    let end = (0..tail.len().saturating_sub(END_LEN - 1))
        .rev()
        .find(|&at| u32_at(&tail, at) == Some(END_MAGIC))
        .ok_or(ZipError::NotZip)?;
    let size = u32_at(&tail, end + 12).ok_or(ZipError::Damaged)?;
    let offset = u32_at(&tail, end + 16).ok_or(ZipError::Damaged)?;
    if size == u32::MAX || offset == u32::MAX {
        return Err(ZipError::Unsupported);
    }
    if size > DIRECTORY_BYTES_MAX || u64::from(offset) + u64::from(size) > len {
        return Err(ZipError::Damaged);
    }
    file.seek(SeekFrom::Start(offset.into()))?;
    let mut directory = vec![0; size as usize];
    file.read_exact(&mut directory)?;
    Ok(directory)
}

fn find(directory: &[u8], name: &str) -> Result<Entry, ZipError> {
    let mut at = 0;
    while at < directory.len() {
        let entry = &directory[at..];
        if u32_at(entry, 0) != Some(ENTRY_MAGIC) {
            return Err(ZipError::Damaged);
        }
        let word = |at| u32_at(entry, at).ok_or(ZipError::Damaged);
        let name_len = usize::from(entry_u16(entry, 28)?);
        let rest_len = usize::from(entry_u16(entry, 30)?) + usize::from(entry_u16(entry, 32)?);
        if entry.get(46..46 + name_len) == Some(name.as_bytes()) {
            // Bit 0 of the flags says that the member is encrypted.
            let encrypted = entry_u16(entry, 8)? & 1 == 1;
            let (packed, size, offset) = (word(20)?, word(24)?, word(42)?);
            if encrypted || [packed, size, offset].contains(&u32::MAX) {
                return Err(ZipError::Unsupported);
            }
            return Ok(Entry {
                method: entry_u16(entry, 10)?,
                packed: packed.into(),
                size: size.into(),
                offset: offset.into(),
            });
        }
        at += 46 + name_len + rest_len;
    }
    Err(ZipError::NoMember(name.to_owned()))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(word.try_into().ok()?))
}

fn entry_u16(bytes: &[u8], at: usize) -> Result<u16, ZipError> {
    match bytes.get(at..at + 2) {
        Some(&[low, high]) => Ok(u16::from_le_bytes([low, high])),
        _ => Err(ZipError::Damaged),
    }
}
