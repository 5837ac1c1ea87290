//! The tree: appended to, never changed; answers for every size that it has had.
//!
//! Level k keeps the roots of the complete subtrees of 2^k leaves, so any root or proof takes logarithmically many of them. That is
//! twice the leaves in memory, 64 bytes each.

use crate::hash::{Hash, empty_root, node_hash};

/// A contract and its months are some dozen entries, so a node that signs a hundred contracts a day fills this in some years.
pub const TREE_SIZE_MAX: u64 = 1 << 20;

/// A Merkle tree over hashes of leaves.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tree {
    levels: Vec<Vec<Hash>>,
}

impl Tree {
    /// Returns how many leaves there are.
    pub fn size(&self) -> u64 {
        self.leaves().len() as u64
    }

    /// Returns the hashes of the leaves.
    pub fn leaves(&self) -> &[Hash] {
        self.levels.first().map_or(&[], Vec::as_slice)
    }

    /// Appends a leaf by its hash; `false` and nothing if the tree is full.
    pub fn push(&mut self, leaf: Hash) -> bool {
        if self.size() >= TREE_SIZE_MAX {
            return false;
        }
        let mut node = leaf;
        for level in 0.. {
            if self.levels.len() == level {
                self.levels.push(Vec::new());
            }
            let nodes = &mut self.levels[level];
            nodes.push(node);
            match nodes.as_slice() {
                [.., left, right] if nodes.len().is_multiple_of(2) => node = node_hash(left, right),
                _ => break,
            }
        }
        true
    }

    /// Returns the root.
    pub fn root(&self) -> Hash {
        self.hash(0, self.size())
    }

    /// Returns the root that the tree had at a size, `None` if it was never so large.
    pub fn root_at(&self, size: u64) -> Option<Hash> {
        (size <= self.size()).then(|| self.hash(0, size))
    }

    /// Returns what shows that a leaf is in the tree of a size (PATH of RFC 9162 §2.1.3.1), `None` if it is not.
    pub fn inclusion(&self, index: u64, size: u64) -> Option<Vec<Hash>> {
        if index >= size || size > self.size() {
            return None;
        }
        let (mut begin, mut end, mut path) = (0, size, Vec::new());
        while end - begin > 1 {
            let middle = begin + split(end - begin);
            if index < middle {
                path.push(self.hash(middle, end));
                end = middle;
            } else {
                path.push(self.hash(begin, middle));
                begin = middle;
            }
        }
        path.reverse();
        Some(path)
    }

    /// Returns what shows that the tree of one size is the beginning of that of another (PROOF of RFC 9162 §2.1.4.1); empty for
    /// equal sizes and from 0, `None` if there were no such trees.
    pub fn consistency(&self, from: u64, to: u64) -> Option<Vec<Hash>> {
        if from > to || to > self.size() {
            return None;
        }
        if from == 0 {
            return Some(Vec::new());
        }
        let (mut begin, mut end, mut path, mut whole) = (0, to, Vec::new(), true);
        while end != from {
            let middle = begin + split(end - begin);
            if from <= middle {
                path.push(self.hash(middle, end));
                end = middle;
            } else {
                path.push(self.hash(begin, middle));
                (begin, whole) = (middle, false);
            }
        }
        // The old root itself need not be shown: who asks has it.
        if !whole {
            path.push(self.hash(begin, end));
        }
        path.reverse();
        Some(path)
    }

    /// The hash of the leaves from `begin` up to `end`, which a split of a tree of ours has given.
    fn hash(&self, begin: u64, end: u64) -> Hash {
        let count = end - begin;
        if count == 0 {
            return empty_root();
        }
        if count.is_power_of_two() {
            // Splits go at the largest power of two, so what is complete is aligned.
            return self.levels[count.ilog2() as usize][(begin / count) as usize];
        }
        let middle = begin + split(count);
        node_hash(&self.hash(begin, middle), &self.hash(middle, end))
    }
}

impl FromIterator<Hash> for Tree {
    /// Takes as many as a tree holds.
    fn from_iter<I: IntoIterator<Item = Hash>>(leaves: I) -> Self {
        let mut tree = Self::default();
        let _full = leaves.into_iter().any(|leaf| !tree.push(leaf));
        tree
    }
}

/// The largest power of two below a count of at least 2.
fn split(count: u64) -> u64 {
    1 << (count - 1).ilog2()
}
