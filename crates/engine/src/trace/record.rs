//! One vector on its way into the trace: takes its segments in order, hashes their chunks, keeps the
//! bytes only where they are wanted.

use std::ops::Range;

use assay_protocol::B256;
use assay_protocol::trace::CHUNK;

use super::hash;
use crate::kernels::{Hash, Path};

/// Bytes after which the chunks so far are hashed: enough to hash many at a time.
const PENDING: usize = 64 << 10;

/// A vector being recorded.
pub(super) struct Record {
    path: Path,
    /// Whether its hash is wanted, and whether its bytes are.
    hash: bool,
    keep: bool,
    bytes: Vec<u8>,
    /// Chunks of `bytes` that are not hashed yet.
    pending: Vec<Range<usize>>,
    chunks: Vec<Hash>,
}

impl Record {
    pub(super) fn new(path: Path) -> Record {
        Record {
            path,
            hash: false,
            keep: false,
            bytes: Vec::new(),
            pending: Vec::new(),
            chunks: Vec::new(),
        }
    }

    /// Starts another vector in the same memory.
    pub(super) fn start(&mut self, hash: bool, keep: bool) {
        (self.hash, self.keep) = (hash, keep);
        self.bytes.clear();
        self.pending.clear();
        self.chunks.clear();
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

    /// Cuts the segment that starts here into chunks.
    fn close(&mut self, start: usize) {
        let end = self.bytes.len();
        if self.hash {
            let chunk = |at: usize| at..end.min(at + CHUNK);
            self.pending.extend((start..end).step_by(CHUNK).map(chunk));
            let first = self.pending.first().map_or(end, |chunk| chunk.start);
            if end - first >= PENDING {
                self.flush();
            }
        } else if !self.keep {
            self.bytes.clear();
        }
    }

    fn flush(&mut self) {
        let pending = self.pending.drain(..).map(|chunk| &self.bytes[chunk]);
        self.chunks.extend(hash::leaves(self.path, pending));
        if !self.keep {
            self.bytes.clear();
        }
    }

    /// The vector's leaf, where it is wanted, and its bytes, where they are.
    pub(super) fn finish(&mut self) -> (Option<B256>, Option<Vec<u8>>) {
        self.flush();
        let leaf = self.hash.then(|| hash::root(self.path, &self.chunks));
        let bytes = self.keep.then(|| std::mem::take(&mut self.bytes));
        (leaf, bytes)
    }
}
