//! Where keys and values of all sequences lie: a bounded number of pages, reused and never given back, some
//! of them shared. A sequence is admitted only if it can run to its end, so nothing admitted ever runs out.

use std::sync::Arc;

use assay_protocol::{B256, TokenId};

use super::prefixes::{Node, Parent, Prefixes};
use crate::cache::{Cache, PAGE, Page, Shape};

/// How full a batcher's memory is, in pages of [`MemoryUse::PAGE_POSITIONS`] positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryUse {
    pub pages_max: usize,
    /// Held by sequences or promised to them.
    pub pages_taken: usize,
    /// Kept for requests that begin alike; they give way to whoever needs their room.
    pub pages_kept: usize,
}

impl MemoryUse {
    pub const PAGE_POSITIONS: usize = PAGE;
}

/// The pages of a batcher.
pub(super) struct Memory {
    shape: Shape,
    share: bool,
    pages_max: usize,
    /// Pages that exist.
    made: usize,
    free: Vec<Arc<Page>>,
    /// Pages that sequences own alone, or may still ask for. With those of the tree that are in use never
    /// more than there may be.
    promised: usize,
    prefixes: Prefixes,
}

/// Where one sequence's keys and values lie. Goes back by [`Memory::release`].
pub(super) struct Place {
    pub(super) cache: Cache,
    salt: B256,
    /// Its first pages, as they are named in the tree; all others are its own.
    shared: Vec<Node>,
    /// Pages that it owns or may ask for.
    promised: usize,
}

impl Place {
    /// The page that it fills comes after this one.
    pub(super) fn parent(&self) -> Parent {
        self.shared
            .last()
            .map_or(Parent::Start(self.salt), |node| Parent::Page(*node))
    }
}

/// There is no room now.
#[derive(Debug)]
pub(super) struct Full;

impl Memory {
    pub(super) fn new(shape: Shape, bytes_max: usize, share: bool) -> Memory {
        Memory {
            shape,
            share,
            pages_max: bytes_max / shape.page_bytes(),
            made: 0,
            free: Vec::new(),
            promised: 0,
            prefixes: Prefixes::default(),
        }
    }

    pub(super) fn usage(&self) -> MemoryUse {
        let (all, idle) = self.prefixes.count();
        MemoryUse {
            pages_max: self.pages_max,
            pages_taken: self.promised + all - idle,
            pages_kept: idle,
        }
    }

    /// The most positions that a sequence can have.
    pub(super) fn positions_max(&self) -> usize {
        self.pages_max * PAGE
    }

    /// A place for a sequence of at most so many positions, which starts with what is known of its prompt.
    pub(super) fn admit(
        &mut self,
        salt: B256,
        prompt: &[TokenId],
        positions: usize,
    ) -> Result<Place, Full> {
        let known = self.known(salt, prompt);
        let woken = known
            .iter()
            .filter(|node| self.prefixes.is_idle(**node))
            .count();
        let promised = positions.div_ceil(PAGE) - known.len();
        if self.usage().pages_taken + promised + woken > self.pages_max {
            return Err(Full);
        }
        self.promised += promised;
        let mut cache = Cache::empty(self.shape);
        for node in &known {
            cache.push(self.prefixes.hold(*node));
        }
        cache.len = known.len() * PAGE;
        Ok(Place {
            cache,
            salt,
            shared: known,
            promised,
        })
    }

    /// The pages in the tree that a prompt begins with. Its last token is always run: what follows from it
    /// is in no page.
    fn known(&self, salt: B256, prompt: &[TokenId]) -> Vec<Node> {
        let mut known = Vec::new();
        if !self.share {
            return known;
        }
        let mut parent = Parent::Start(salt);
        for tokens in prompt[..prompt.len() - 1].chunks_exact(PAGE) {
            let Some(node) = self.prefixes.find(parent, tokens) else {
                break;
            };
            known.push(node);
            parent = Parent::Page(node);
        }
        known
    }

    /// Takes over pages that others have filled since with what this sequence still has to run.
    pub(super) fn adopt(&mut self, place: &mut Place, tokens: &[TokenId]) {
        while let Some(page) = shareable(place, tokens)
            && let Some(node) = self.prefixes.find(place.parent(), page)
        {
            self.join(place, node);
            place.cache.len = place.shared.len() * PAGE;
        }
    }

    /// Puts a page of the tree in the place of the sequence's own.
    fn join(&mut self, place: &mut Place, node: Node) {
        let page = self.prefixes.hold(node);
        let own = place.cache.replace(place.shared.len(), page);
        self.free.extend(own);
        place.shared.push(node);
        place.promised -= 1;
        self.promised -= 1;
    }

    /// Pages for so many positions, which were promised.
    pub(super) fn grow(&mut self, place: &mut Place, positions: usize) {
        while place.cache.capacity() < positions {
            let page = self.take();
            place.cache.push(page);
        }
    }

    fn take(&mut self) -> Arc<Page> {
        if let Some(page) = self.free.pop() {
            return page;
        }
        if self.made < self.pages_max {
            self.made += 1;
            return Arc::new(Page::new(self.shape));
        }
        self.prefixes.evict().expect("what was promised is there")
    }

    /// Lets others find the pages that are full by now; `tokens` are the sequence's.
    pub(super) fn publish(&mut self, place: &mut Place, tokens: &[TokenId]) {
        if !self.share {
            return;
        }
        while let full = place.shared.len()
            && (full + 1) * PAGE <= place.cache.len
        {
            let (parent, tokens) = (place.parent(), &tokens[full * PAGE..(full + 1) * PAGE]);
            // Another may have filled the same: its bits are the same, so one of the two is enough.
            if let Some(node) = self.prefixes.find(parent, tokens) {
                self.join(place, node);
            } else {
                let page = place.cache.page(full).clone();
                place
                    .shared
                    .push(self.prefixes.insert(parent, tokens, page));
                place.promised -= 1;
                self.promised -= 1;
            }
        }
    }

    pub(super) fn release(&mut self, place: Place) {
        self.promised -= place.promised;
        let own = place.cache.into_pages().skip(place.shared.len());
        self.free.extend(own);
        for node in place.shared.iter().rev() {
            self.prefixes.release(*node);
        }
    }
}

/// The tokens of the page that a sequence fills, if what follows from them is known without running all.
pub(super) fn shareable<'a>(place: &Place, tokens: &'a [TokenId]) -> Option<&'a [TokenId]> {
    let full = place.shared.len();
    let end = (full + 1) * PAGE;
    (end < tokens.len()).then(|| &tokens[full * PAGE..end])
}
