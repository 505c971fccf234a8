//! Full pages found again by what they hold: a tree whose nodes are pages and whose edges are their tokens.
//! The tokens themselves are compared, never a hash of them, so that no two prompts are ever mixed up. Pages
//! that nobody uses any more stay until their room is wanted, the longest unused first.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use assay_protocol::{B256, TokenId};

use crate::cache::{PAGE, Page};

/// Names a page in the tree; never given twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Node(u64);

/// What a page comes after.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Parent {
    /// Nothing; requests of different salts share nothing.
    Start(B256),
    Page(Node),
}

type Key = (Parent, [TokenId; PAGE]);

struct Entry {
    page: Arc<Page>,
    key: Key,
    /// Sequences that hold it. Whoever holds a page holds all before it.
    users: usize,
    /// Pages in the tree that come after it.
    children: usize,
    /// When it was last let go.
    left: u64,
}

/// The tree.
#[derive(Default)]
pub(super) struct Prefixes {
    nodes: BTreeMap<Node, Entry>,
    index: BTreeMap<Key, Node>,
    /// Pages that nobody uses and none comes after, the longest unused first.
    leaves: BTreeSet<(u64, Node)>,
    idle: usize,
    next: u64,
    clock: u64,
}

impl Prefixes {
    /// The page with these tokens, of which there must be a full page's.
    pub(super) fn find(&self, parent: Parent, tokens: &[TokenId]) -> Option<Node> {
        let tokens = tokens.try_into().ok()?;
        self.index.get(&(parent, tokens)).copied()
    }

    /// Pages in the tree, and how many of them nobody uses.
    pub(super) fn count(&self) -> (usize, usize) {
        (self.nodes.len(), self.idle)
    }

    pub(super) fn is_idle(&self, node: Node) -> bool {
        self.nodes[&node].users == 0
    }

    /// Takes a page into use; its parent is held already.
    pub(super) fn hold(&mut self, node: Node) -> Arc<Page> {
        let entry = self.entry(node);
        entry.users += 1;
        let (page, users, left) = (entry.page.clone(), entry.users, entry.left);
        if users == 1 {
            self.idle -= 1;
            self.leaves.remove(&(left, node));
        }
        page
    }

    /// Lets a page go; those after it have been let go already.
    pub(super) fn release(&mut self, node: Node) {
        self.clock += 1;
        let clock = self.clock;
        let entry = self.entry(node);
        entry.users -= 1;
        if entry.users == 0 {
            entry.left = clock;
            let leaf = entry.children == 0;
            self.idle += 1;
            if leaf {
                self.leaves.insert((clock, node));
            }
        }
    }

    /// Adds a page that is not in the tree, held by who adds it.
    pub(super) fn insert(&mut self, parent: Parent, tokens: &[TokenId], page: Arc<Page>) -> Node {
        let tokens = tokens.try_into().expect("a full page's tokens");
        let (key, node) = ((parent, tokens), Node(self.next));
        self.next += 1;
        let before = self.index.insert(key, node);
        assert!(before.is_none(), "a page is in the tree once");
        if let Parent::Page(parent) = parent {
            self.entry(parent).children += 1;
        }
        let entry = Entry {
            page,
            key,
            users: 1,
            children: 0,
            left: 0,
        };
        self.nodes.insert(node, entry);
        node
    }

    /// Takes the longest unused page out of the tree.
    pub(super) fn evict(&mut self) -> Option<Arc<Page>> {
        let (_, node) = self.leaves.pop_first()?;
        let entry = self.nodes.remove(&node).expect("a leaf is in the tree");
        self.index.remove(&entry.key);
        self.idle -= 1;
        if let Parent::Page(parent) = entry.key.0 {
            let above = self.entry(parent);
            above.children -= 1;
            if above.children == 0 && above.users == 0 {
                let left = above.left;
                self.leaves.insert((left, parent));
            }
        }
        Some(entry.page)
    }

    fn entry(&mut self, node: Node) -> &mut Entry {
        self.nodes
            .get_mut(&node)
            .expect("a held page is in the tree")
    }
}
