//! The canonical codec: the one byte encoding of everything that is hashed outside EIP-712.
//!
//! Integers are big-endian, lengths are `u32` and bounded by the reader, every message opens
//! with its domain tag, and a reader refuses bytes left over. One value has one encoding.

use alloy_primitives::{B256, keccak256};

/// Longest string or byte field that a reader accepts unless told otherwise.
pub const FIELD_BYTES_MAX: usize = 1 << 20;

/// Builds the canonical bytes of one value.
#[derive(Debug, Clone)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// Starts a message with its versioned domain tag, such as `assay/manifest/v1`.
    pub fn new(tag: &str) -> Self {
        let mut writer = Writer { bytes: Vec::new() };
        writer.str(tag);
        writer
    }

    pub fn u8(&mut self, value: u8) -> &mut Self {
        self.bytes.push(value);
        self
    }

    pub fn u16(&mut self, value: u16) -> &mut Self {
        self.raw(&value.to_be_bytes())
    }

    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.raw(&value.to_be_bytes())
    }

    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.raw(&value.to_be_bytes())
    }

    pub fn i64(&mut self, value: i64) -> &mut Self {
        self.raw(&value.to_be_bytes())
    }

    pub fn b256(&mut self, value: &B256) -> &mut Self {
        self.raw(value.as_slice())
    }

    /// A length (of a list that follows).
    ///
    /// # Panics
    /// If `len` exceeds `u32`: our own values never do.
    pub fn len(&mut self, len: usize) -> &mut Self {
        self.u32(u32::try_from(len).expect("a list of ours has fewer than 2^32 items"))
    }

    pub fn bytes(&mut self, value: &[u8]) -> &mut Self {
        self.len(value.len());
        self.raw(value)
    }

    pub fn str(&mut self, value: &str) -> &mut Self {
        self.bytes(value.as_bytes())
    }

    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }

    /// The keccak-256 of the canonical bytes.
    pub fn hash(&self) -> B256 {
        keccak256(&self.bytes)
    }

    fn raw(&mut self, value: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(value);
        self
    }
}

/// Why bytes are not the canonical encoding of a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    #[error("message is cut short: {wanted} bytes wanted at offset {offset}, {left} left")]
    Truncated {
        offset: usize,
        wanted: usize,
        left: usize,
    },
    #[error("{extra} bytes follow the end of the message")]
    TrailingBytes { extra: usize },
    #[error("expected a message tagged {expected:?}")]
    WrongTag { expected: String },
    #[error("field at offset {offset} announces {len} items, {max} allowed")]
    TooLong {
        offset: usize,
        len: usize,
        max: usize,
    },
    #[error("text at offset {offset} is not UTF-8")]
    NotUtf8 { offset: usize },
    #[error("{value} is no valid {what}")]
    BadValue { what: &'static str, value: u64 },
}

/// Reads canonical bytes back, never trusting a length.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Reader<'a> {
    /// Opens a message and checks its domain tag.
    pub fn new(tag: &str, bytes: &'a [u8]) -> Result<Self, CodecError> {
        let mut reader = Reader { bytes, offset: 0 };
        match reader.bytes_max(tag.len()) {
            Ok(found) if found == tag.as_bytes() => Ok(reader),
            _ => Err(CodecError::WrongTag {
                expected: tag.to_owned(),
            }),
        }
    }

    pub fn u8(&mut self) -> Result<u8, CodecError> {
        Ok(self.array::<1>()?[0])
    }

    pub fn u16(&mut self) -> Result<u16, CodecError> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    pub fn u32(&mut self) -> Result<u32, CodecError> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    pub fn u64(&mut self) -> Result<u64, CodecError> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    pub fn i64(&mut self) -> Result<i64, CodecError> {
        Ok(i64::from_be_bytes(self.array()?))
    }

    pub fn b256(&mut self) -> Result<B256, CodecError> {
        Ok(B256::from(self.array()?))
    }

    /// A list's length, refused above `max`.
    pub fn len(&mut self, max: usize) -> Result<usize, CodecError> {
        let offset = self.offset;
        let len = self.u32()? as usize;
        if len > max {
            return Err(CodecError::TooLong { offset, len, max });
        }
        Ok(len)
    }

    pub fn bytes(&mut self) -> Result<&'a [u8], CodecError> {
        self.bytes_max(FIELD_BYTES_MAX)
    }

    pub fn bytes_max(&mut self, max: usize) -> Result<&'a [u8], CodecError> {
        let len = self.len(max)?;
        self.take(len)
    }

    pub fn str(&mut self) -> Result<&'a str, CodecError> {
        let offset = self.offset;
        std::str::from_utf8(self.bytes()?).map_err(|_| CodecError::NotUtf8 { offset })
    }

    /// Ends the message; anything left over makes it another message.
    pub fn finish(self) -> Result<(), CodecError> {
        match self.bytes.len() - self.offset {
            0 => Ok(()),
            extra => Err(CodecError::TrailingBytes { extra }),
        }
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], CodecError> {
        let left = self.bytes.len() - self.offset;
        if len > left {
            return Err(CodecError::Truncated {
                offset: self.offset,
                wanted: len,
                left,
            });
        }
        let taken = &self.bytes[self.offset..self.offset + len];
        self.offset += len;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], CodecError> {
        let taken = self.take(N)?;
        Ok(taken.try_into().expect("take returns what was asked for"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        let mut writer = Writer::new("t/v1");
        writer.u8(1).u16(2).u32(3).u64(4).i64(-5).str("ab");
        writer.finish()
    }

    #[test]
    fn the_encoding_is_spelled_out() {
        assert_eq!(
            hex::encode(sample()),
            "00000004742f7631010002000000030000000000000004fffffffffffffffb000000026162"
        );
    }

    #[test]
    fn what_was_written_is_read() {
        let bytes = sample();
        let mut reader = Reader::new("t/v1", &bytes).unwrap();
        assert_eq!(reader.u8(), Ok(1));
        assert_eq!(reader.u16(), Ok(2));
        assert_eq!(reader.u32(), Ok(3));
        assert_eq!(reader.u64(), Ok(4));
        assert_eq!(reader.i64(), Ok(-5));
        assert_eq!(reader.str(), Ok("ab"));
        assert_eq!(reader.finish(), Ok(()));
    }

    #[test]
    fn hostile_bytes_are_refused() {
        let bytes = sample();
        assert!(matches!(
            Reader::new("other/v1", &bytes),
            Err(CodecError::WrongTag { .. })
        ));
        let reader = Reader::new("t/v1", &bytes).unwrap();
        assert_eq!(
            reader.finish(),
            Err(CodecError::TrailingBytes { extra: 29 })
        );
        let mut huge = Writer::new("t/v1");
        huge.u32(u32::MAX);
        let huge = huge.finish();
        let mut reader = Reader::new("t/v1", &huge).unwrap();
        assert!(matches!(reader.bytes(), Err(CodecError::TooLong { .. })));
        let mut reader = Reader::new("t/v1", &huge[..10]).unwrap();
        assert!(matches!(reader.u32(), Err(CodecError::Truncated { .. })));
    }
}
