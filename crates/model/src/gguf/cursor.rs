//! A reader over bytes of unknown origin that checks before it takes.

use std::ops::Range;

use super::GgufError;

pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Cursor { bytes, offset: 0 }
    }

    pub(super) fn offset(&self) -> usize {
        self.offset
    }

    pub(super) fn take(&mut self, len: u64) -> Result<&'a [u8], GgufError> {
        let taken = usize::try_from(len)
            .ok()
            .and_then(|len| self.offset.checked_add(len))
            .and_then(|end| self.bytes.get(self.offset..end))
            .ok_or(GgufError::Truncated {
                offset: self.offset as u64,
                wanted: len,
            })?;
        self.offset += taken.len();
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], GgufError> {
        let taken = self.take(N as u64)?;
        Ok(taken.try_into().expect("take returns what was asked for"))
    }

    pub(super) fn u32(&mut self) -> Result<u32, GgufError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64, GgufError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A number of things that follow. Each takes at least a byte, so more of them than bytes
    /// are left is a lie that must not size an allocation.
    pub(super) fn count(&mut self, what: &'static str, max: u64) -> Result<u64, GgufError> {
        let got = self.u64()?;
        let max = max.min((self.bytes.len() - self.offset) as u64);
        match got <= max {
            true => Ok(got),
            false => Err(GgufError::TooLarge { what, got, max }),
        }
    }

    pub(super) fn text_range(
        &mut self,
        what: &'static str,
        max: u64,
    ) -> Result<Range<usize>, GgufError> {
        let len = self.count(what, max)?;
        let start = self.offset;
        let taken = self.take(len)?;
        match std::str::from_utf8(taken) {
            Ok(_) => Ok(start..self.offset),
            Err(_) => Err(GgufError::NotUtf8 {
                what,
                offset: start as u64,
            }),
        }
    }

    pub(super) fn text(&mut self, what: &'static str, max: u64) -> Result<&'a str, GgufError> {
        let range = self.text_range(what, max)?;
        Ok(std::str::from_utf8(&self.bytes[range]).expect("checked by text_range"))
    }
}
