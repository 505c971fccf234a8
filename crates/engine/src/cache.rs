//! Keys and values of sequences, in pages of [`PAGE`] positions that come from a bounded pool. A page holds
//! all layers of its positions and is shared by every sequence that begins alike; only who owns a page alone
//! writes it. What order a page keeps inside is known here and to the kernels alone.

use std::sync::Arc;

use assay_protocol::manifest::Dims;

use crate::layout::PANEL;

/// Positions in a page.
pub(crate) const PAGE: usize = 32;

/// Elements that a cache line holds.
const LINE: usize = 32;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) layers: usize,
    pub(crate) kv_heads: usize,
    /// A multiple of 16.
    pub(crate) head_dim: usize,
}

impl Shape {
    pub(crate) fn of(dims: &Dims) -> Shape {
        Shape {
            layers: dims.layers as usize,
            kv_heads: dims.kv_heads as usize,
            head_dim: dims.head_dim as usize,
        }
    }

    /// Elements that one head of one layer keeps in a page: of keys, and again of values.
    fn part(self) -> usize {
        PAGE * self.head_dim
    }

    fn page_elements(self) -> usize {
        2 * self.layers * self.kv_heads * self.part()
    }

    pub(crate) fn page_bytes(self) -> usize {
        self.page_elements() * size_of::<i16>()
    }
}

/// One allocation: layer after layer, head after head, the keys of all positions and then the values.
pub(crate) struct Page {
    data: Vec<i16>,
    /// Where the first cache line begins.
    start: usize,
}

impl Page {
    /// Memory is zeroed lazily by the allocator, so that what is not used costs nothing.
    pub(crate) fn new(shape: Shape) -> Page {
        let data = vec![0; shape.page_elements() + LINE - 1];
        // Alignment is for speed alone; where it cannot be had, any start will do.
        let start = data.as_ptr().align_offset(64).min(LINE - 1);
        Page { data, start }
    }

    /// Keys of one head, and its values.
    fn parts(&self, shape: Shape, layer: usize, head: usize) -> (&[i16], &[i16]) {
        let part = shape.part();
        let at = self.start + (layer * shape.kv_heads + head) * 2 * part;
        self.data[at..at + 2 * part].split_at(part)
    }

    fn parts_mut(&mut self, shape: Shape, layer: usize, head: usize) -> (&mut [i16], &mut [i16]) {
        let part = shape.part();
        let at = self.start + (layer * shape.kv_heads + head) * 2 * part;
        self.data[at..at + 2 * part].split_at_mut(part)
    }
}

/// Keys lie by sixteen positions, in pairs of elements, position after position: the rows of a strip.
fn store_key(keys: &mut [i16], dim: usize, slot: usize, k: &[i16]) {
    let lanes = &mut keys[slot / PANEL * PANEL * dim..][..PANEL * dim];
    for (pair, k) in lanes.chunks_exact_mut(2 * PANEL).zip(k.chunks_exact(2)) {
        pair[slot % PANEL * 2..][..2].copy_from_slice(k);
    }
}

/// Values lie in pairs of positions, element by element: the rows of a strip are elements.
fn store_value(values: &mut [i16], dim: usize, slot: usize, v: &[i16]) {
    let pair = &mut values[(slot & !1) * dim..][..2 * dim];
    for (to, v) in pair[slot & 1..].iter_mut().step_by(2).zip(v) {
        *to = *v;
    }
}

/// The cache of one sequence, all layers.
pub(crate) struct Cache {
    shape: Shape,
    pages: Vec<Arc<Page>>,
    /// Positions that hold keys and values of every layer.
    pub(crate) len: usize,
}

impl Cache {
    /// A cache with pages of its own for `capacity` positions.
    pub(crate) fn new(shape: Shape, capacity: usize) -> Cache {
        let pages = (0..capacity.div_ceil(PAGE)).map(|_| Arc::new(Page::new(shape)));
        Cache {
            shape,
            pages: pages.collect(),
            len: 0,
        }
    }

    /// A cache that has no pages yet.
    pub(crate) fn empty(shape: Shape) -> Cache {
        Cache::new(shape, 0)
    }

    /// Positions that its pages have room for.
    pub(crate) fn capacity(&self) -> usize {
        self.pages.len() * PAGE
    }

    pub(crate) fn page(&self, index: usize) -> &Arc<Page> {
        &self.pages[index]
    }

    pub(crate) fn push(&mut self, page: Arc<Page>) {
        self.pages.push(page);
    }

    /// Puts a page that holds the same in a page's place, or behind the last one; gives what was there.
    pub(crate) fn replace(&mut self, index: usize, page: Arc<Page>) -> Option<Arc<Page>> {
        if index == self.pages.len() {
            self.pages.push(page);
            return None;
        }
        Some(std::mem::replace(&mut self.pages[index], page))
    }

    pub(crate) fn into_pages(self) -> impl Iterator<Item = Arc<Page>> {
        self.pages.into_iter()
    }

    /// Stores one position's k and v, each head after head.
    pub(crate) fn store(&mut self, layer: usize, position: usize, k: &[i16], v: &[i16]) {
        let (shape, slot) = (self.shape, position % PAGE);
        let page = Arc::get_mut(&mut self.pages[position / PAGE])
            .expect("only a page's one owner writes it");
        let dim = shape.head_dim;
        for (head, (k, v)) in k.chunks_exact(dim).zip(v.chunks_exact(dim)).enumerate() {
            let (keys, values) = page.parts_mut(shape, layer, head);
            store_key(keys, dim, slot, k);
            store_value(values, dim, slot, v);
        }
    }

    /// A head's keys in the page with this number.
    pub(crate) fn keys(&self, layer: usize, head: usize, page: usize) -> &[i16] {
        self.pages[page].parts(self.shape, layer, head).0
    }

    /// A head's values in the page with this number.
    pub(crate) fn values(&self, layer: usize, head: usize, page: usize) -> &[i16] {
        self.pages[page].parts(self.shape, layer, head).1
    }

    /// One element of a stored value.
    pub(crate) fn value(&self, layer: usize, head: usize, position: usize, element: usize) -> i16 {
        let (values, slot) = (self.values(layer, head, position / PAGE), position % PAGE);
        values[(slot & !1) * self.shape.head_dim + 2 * element + (slot & 1)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape {
        layers: 2,
        kv_heads: 3,
        head_dim: 16,
    };

    #[test]
    fn what_is_stored_is_found_by_head_and_position() {
        let positions = 2 * PAGE + 5;
        let mut cache = Cache::new(SHAPE, positions);
        let element =
            |position: usize, head: usize, i: usize| (position * 100 + head * 20 + i) as i16;
        for position in 0..positions {
            let k: Vec<i16> = (0..48).map(|n| element(position, n / 16, n % 16)).collect();
            let v: Vec<i16> = k.iter().map(|k| -k).collect();
            cache.store(1, position, &k, &v);
        }
        for position in 0..positions {
            for head in 0..3 {
                for i in 0..16 {
                    let expected = element(position, head, i);
                    let keys = cache.keys(1, head, position / PAGE);
                    let (group, lane) = (position % PAGE / 16, position % 16);
                    assert_eq!(keys[group * 256 + i / 2 * 32 + lane * 2 + i % 2], expected);
                    assert_eq!(cache.value(1, head, position, i), -expected);
                }
            }
        }
        for page in 0..3 {
            assert!(cache.keys(0, 0, page).iter().all(|k| *k == 0));
            assert_eq!(cache.keys(0, 0, page).as_ptr().align_offset(64), 0);
        }
    }

    #[test]
    #[should_panic(expected = "only a page's one owner writes it")]
    fn a_shared_page_is_never_written() {
        let mut cache = Cache::new(SHAPE, PAGE);
        let _second = cache.pages[0].clone();
        cache.store(0, 0, &[0; 48], &[0; 48]);
    }
}
