//! Keys and values of one sequence: bounded when made, never grown. Keys lie position after position,
//! values in pairs of positions element by element, which is the order the mix reads them in.

/// The cache of one sequence, all layers.
pub(crate) struct Cache {
    layers: Vec<LayerCache>,
    shape: Shape,
    /// Positions that hold keys and values of every layer.
    pub(crate) len: usize,
}

struct LayerCache {
    k: Vec<i16>,
    v: Vec<i16>,
}

#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) layers: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
}

impl Cache {
    /// Room for `capacity` positions. Memory is zeroed lazily by the allocator, so that what is reserved
    /// costs nothing before it is used.
    pub(crate) fn new(shape: Shape, capacity: usize) -> Cache {
        let len = shape.kv_heads * capacity.next_multiple_of(2) * shape.head_dim;
        let layer = || LayerCache {
            k: vec![0; len],
            v: vec![0; len],
        };
        Cache {
            layers: (0..shape.layers).map(|_| layer()).collect(),
            shape,
            len: 0,
        }
    }

    fn head_len(&self, layer: usize) -> usize {
        self.layers[layer].k.len() / self.shape.kv_heads
    }

    /// Stores one position's k and v, each head after head.
    pub(crate) fn store(&mut self, layer: usize, position: usize, k: &[i16], v: &[i16]) {
        let (dim, len) = (self.shape.head_dim, self.head_len(layer));
        let layer = &mut self.layers[layer];
        for (head, (k, v)) in k.chunks_exact(dim).zip(v.chunks_exact(dim)).enumerate() {
            layer.k[head * len + position * dim..][..dim].copy_from_slice(k);
            let pair = &mut layer.v[head * len + (position & !1) * dim..][..2 * dim];
            for (slot, v) in pair[position & 1..].iter_mut().step_by(2).zip(v) {
                *slot = *v;
            }
        }
    }

    /// A head's keys from position `from` on.
    pub(crate) fn keys(&self, layer: usize, head: usize, from: usize) -> &[i16] {
        let len = self.head_len(layer);
        &self.layers[layer].k[head * len..(head + 1) * len][from * self.shape.head_dim..]
    }

    /// A head's values from the even position `from` on, in pairs.
    pub(crate) fn value_pairs(&self, layer: usize, head: usize, from: usize) -> &[i16] {
        debug_assert!(from.is_multiple_of(2));
        let len = self.head_len(layer);
        &self.layers[layer].v[head * len..(head + 1) * len][from * self.shape.head_dim..]
    }

    /// One element of a stored value.
    pub(crate) fn value(&self, layer: usize, head: usize, position: usize, element: usize) -> i16 {
        let pairs = self.value_pairs(layer, head, position & !1);
        pairs[2 * element + (position & 1)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_is_found_by_head_and_position() {
        let shape = Shape {
            layers: 2,
            kv_heads: 3,
            head_dim: 4,
        };
        let mut cache = Cache::new(shape, 5);
        let element =
            |position: usize, head: usize, i: usize| (position * 100 + head * 10 + i) as i16;
        for position in 0..5 {
            let k: Vec<i16> = (0..12).map(|n| element(position, n / 4, n % 4)).collect();
            let v: Vec<i16> = k.iter().map(|k| -k).collect();
            cache.store(1, position, &k, &v);
        }
        for position in 0..5 {
            for head in 0..3 {
                for i in 0..4 {
                    let expected = element(position, head, i);
                    assert_eq!(cache.keys(1, head, position)[i], expected);
                    assert_eq!(cache.value(1, head, position, i), -expected);
                }
            }
        }
        assert!(cache.keys(0, 0, 0).iter().all(|k| *k == 0));
    }
}
