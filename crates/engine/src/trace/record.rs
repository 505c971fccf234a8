//! One vector on its way into the trace: takes its segments in order, hashes their chunks, keeps the
//! bytes only where they are wanted.

use assay_protocol::trace::{CHUNK, leaf_hash};
use assay_protocol::{B256, merkle};

/// A vector being recorded.
#[derive(Default)]
pub(super) struct Record {
    /// Whether its hash is wanted, and whether its bytes are.
    pub(super) hash: bool,
    pub(super) keep: bool,
    bytes: Vec<u8>,
    chunks: Vec<B256>,
}

impl Record {
    pub(super) fn new(hash: bool, keep: bool) -> Record {
        Record {
            hash,
            keep,
            ..Record::default()
        }
    }

    pub(super) fn wanted(&self) -> bool {
        self.hash || self.keep
    }

    #[inline(always)]
    pub(super) fn i16s(&mut self, segment: &[i16]) {
        self.segment(segment, i16::to_be_bytes);
    }

    #[inline(always)]
    pub(super) fn u16s(&mut self, segment: &[u16]) {
        self.segment(segment, u16::to_be_bytes);
    }

    #[inline(always)]
    pub(super) fn i32s(&mut self, segment: &[i32]) {
        self.segment(segment, i32::to_be_bytes);
    }

    #[inline(always)]
    pub(super) fn u32s(&mut self, segment: &[u32]) {
        self.segment(segment, u32::to_be_bytes);
    }

    #[inline(always)]
    pub(super) fn i64s(&mut self, segment: &[i64]) {
        self.segment(segment, i64::to_be_bytes);
    }

    /// A segment of nothing but zeros, `len` bytes long.
    pub(super) fn zeros(&mut self, len: usize) {
        let start = self.bytes.len();
        self.bytes.resize(start + len, 0);
        self.close(start);
    }

    #[inline(always)]
    fn segment<T: Copy, const N: usize>(&mut self, elements: &[T], encode: fn(T) -> [u8; N]) {
        let start = self.bytes.len();
        self.bytes.resize(start + N * elements.len(), 0);
        let (places, _) = self.bytes[start..].as_chunks_mut::<N>();
        for (place, element) in places.iter_mut().zip(elements) {
            *place = encode(*element);
        }
        self.close(start);
    }

    /// Hashes the segment that starts here.
    fn close(&mut self, start: usize) {
        if self.hash {
            let segment = self.bytes[start..].chunks(CHUNK);
            self.chunks.extend(segment.map(merkle::leaf));
        }
        if !self.keep {
            self.bytes.clear();
        }
    }

    /// The vector's leaf.
    pub(super) fn leaf(&self) -> B256 {
        leaf_hash(&self.chunks)
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}
