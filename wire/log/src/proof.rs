//! Checking proofs, with nothing but two roots and the nodes that somebody sent (RFC 9162 §2.1.3.2 and §2.1.4.2).

use crate::Hash;
use crate::hash::node_hash;

/// A proof in a tree of 2^63 leaves has no more.
pub const PROOF_NODES_MAX: usize = 64;

/// Why a proof shows nothing.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ProofError {
    /// The numbers make no sense together.
    #[error("no tree of {to} leaves has {what} {from}")]
    Sizes {
        /// `leaf` or `beginning`.
        what: &'static str,
        /// Which leaf, or the earlier size.
        from: u64,
        /// The later size.
        to: u64,
    },
    /// It has more or fewer nodes than it must.
    #[error("a proof of {observed} nodes from {from} to {to} leaves has too few or too many")]
    Length {
        /// How many there are.
        observed: usize,
        /// Which leaf, or the earlier size.
        from: u64,
        /// The later size.
        to: u64,
    },
    /// It leads to another root.
    #[error("the proof leads to root {observed}, needed {needed}")]
    Root {
        /// Where it leads.
        observed: Hash,
        /// What was to be shown.
        needed: Hash,
    },
}

/// Checks that a leaf is in a tree.
///
/// # Errors
/// [`ProofError`]: it does not show that.
pub fn verify_inclusion(leaf: &Hash, index: u64, size: u64, root: &Hash, path: &[Hash]) -> Result<(), ProofError> {
    if index >= size {
        return Err(ProofError::Sizes { what: "leaf", from: index, to: size });
    }
    let length = || ProofError::Length { observed: path.len(), from: index, to: size };
    let (mut node, mut last, mut hash) = (index, size - 1, *leaf);
    for sibling in path {
        if last == 0 {
            return Err(length());
        }
        if node & 1 == 1 || node == last {
            hash = node_hash(sibling, &hash);
            while node & 1 == 0 && node != 0 {
                (node, last) = (node >> 1, last >> 1);
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        (node, last) = (node >> 1, last >> 1);
    }
    if last != 0 {
        return Err(length());
    }
    leads_to(hash, root)
}

/// Checks that a tree is the beginning of another. A tree of no leaves is the beginning of every tree.
///
/// # Errors
/// [`ProofError`]: it does not show that.
pub fn verify_consistency(from: u64, old: &Hash, to: u64, new: &Hash, path: &[Hash]) -> Result<(), ProofError> {
    if from > to {
        return Err(ProofError::Sizes { what: "beginning", from, to });
    }
    let length = || ProofError::Length { observed: path.len(), from, to };
    if from == 0 || from == to {
        if !path.is_empty() {
            return Err(length());
        }
        return if from == to { leads_to(*old, new) } else { Ok(()) };
    }
    // A complete old tree is a node of the new one, and need not be sent.
    let (first, rest) = match (from.is_power_of_two(), path) {
        (true, path) => (*old, path),
        (false, [first, rest @ ..]) => (*first, rest),
        (false, []) => return Err(length()),
    };
    let shift = (from - 1).trailing_ones();
    let (mut node, mut last) = ((from - 1) >> shift, (to - 1) >> shift);
    let (mut before, mut after) = (first, first);
    for sibling in rest {
        if last == 0 {
            return Err(length());
        }
        if node & 1 == 1 || node == last {
            before = node_hash(sibling, &before);
            after = node_hash(sibling, &after);
            while node & 1 == 0 && node != 0 {
                (node, last) = (node >> 1, last >> 1);
            }
        } else {
            after = node_hash(&after, sibling);
        }
        (node, last) = (node >> 1, last >> 1);
    }
    if last != 0 {
        return Err(length());
    }
    leads_to(before, old)?;
    leads_to(after, new)
}

fn leads_to(observed: Hash, needed: &Hash) -> Result<(), ProofError> {
    if observed == *needed { Ok(()) } else { Err(ProofError::Root { observed, needed: *needed }) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use ct_merkle::mem_backed_tree::MemoryBackedTree;
    use proptest::prelude::*;
    use sha2::Sha256;

    use super::*;
    use crate::{Tree, leaf_hash};

    /// Leaves and roots of the tests of Certificate Transparency (RFC 6962's reference implementation).
    const KNOWN: [(&str, &str); 8] = [
        ("", "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"),
        ("00", "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"),
        ("10", "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77"),
        ("2021", "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7"),
        ("3031", "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4"),
        ("40414243", "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef"),
        ("5051525354555657", "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c"),
        ("606162636465666768696a6b6c6d6e6f", "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"),
    ];

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }

    fn tree(size: u64) -> Tree {
        (0..size).map(|leaf| leaf_hash(&leaf.to_be_bytes())).collect()
    }

    #[test]
    fn roots_are_those_of_certificate_transparency() {
        let mut tree = Tree::default();
        for (leaf, root) in KNOWN {
            assert!(tree.push(leaf_hash(&bytes(leaf))));
            assert_eq!(tree.root().to_string(), root, "of {} leaves", tree.size());
        }
        assert_eq!(tree.root_at(3).unwrap().to_string(), KNOWN[2].1);
        assert_eq!(tree.root_at(9), None);
    }

    #[test]
    fn every_small_tree_proves_every_leaf_and_every_beginning_of_itself() {
        let tree = tree(40);
        for to in 1..=40u64 {
            let root = tree.root_at(to).unwrap();
            for from in 0..=to {
                let path = tree.consistency(from, to).unwrap();
                verify_consistency(from, &tree.root_at(from).unwrap(), to, &root, &path).unwrap();
            }
            for index in 0..to {
                let leaf = tree.leaves()[usize::try_from(index).unwrap()];
                let path = tree.inclusion(index, to).unwrap();
                verify_inclusion(&leaf, index, to, &root, &path).unwrap();
                assert!(verify_inclusion(&leaf, index + 1, to, &root, &path).is_err(), "{index} of {to}");
            }
        }
        assert_eq!((tree.consistency(3, 41), tree.consistency(4, 3)), (None, None));
        assert_eq!((tree.inclusion(3, 3), tree.inclusion(0, 41)), (None, None));
    }

    /// Another implementation makes the same proofs, and takes ours.
    #[test]
    fn another_implementation_makes_and_takes_the_same_proofs() {
        let mut other = MemoryBackedTree::<Sha256, Vec<u8>>::new();
        for size in 1..=33u64 {
            other.push((size - 1).to_be_bytes().to_vec());
            let tree = tree(size);
            assert_eq!(other.root().as_bytes().as_slice(), tree.root().0);
            for from in 1..size {
                let made = other.prove_consistency(usize::try_from(size - from).unwrap());
                let ours = tree.consistency(from, size).unwrap().iter().flat_map(|node| node.0).collect::<Vec<_>>();
                assert_eq!(made.as_bytes(), ours, "{from} to {size}");
            }
            for index in 0..size {
                let made = other.prove_inclusion(usize::try_from(index).unwrap());
                let ours = tree.inclusion(index, size).unwrap().iter().flat_map(|node| node.0).collect::<Vec<_>>();
                assert_eq!(made.as_bytes(), ours, "{index} of {size}");
            }
        }
    }

    fn hash() -> impl Strategy<Value = Hash> {
        any::<[u8; 32]>().prop_map(Hash)
    }

    proptest! {
        #[test]
        fn a_changed_leaf_is_seen_from_every_size_behind_it(
            to in 2u64..300, at in any::<prop::sample::Index>(), from in any::<prop::sample::Index>(), other in hash()
        ) {
            let honest = tree(to);
            let changed = at.index(usize::try_from(to).unwrap() - 1);
            let from = changed as u64 + 1 + from.index(usize::try_from(to).unwrap() - changed - 1) as u64;
            let rewritten: Tree = honest.leaves().iter().enumerate()
                .map(|(index, leaf)| if index == changed { other } else { *leaf }).collect();
            let old = honest.root_at(from).unwrap();
            // Neither its own proof nor the honest one leads from what the witness keeps to the rewritten root.
            for path in [rewritten.consistency(from, to).unwrap(), honest.consistency(from, to).unwrap()] {
                prop_assert!(verify_consistency(from, &old, to, &rewritten.root(), &path).is_err());
            }
        }

        #[test]
        fn what_is_cut_shifted_or_made_up_proves_nothing(
            to in 2u64..300, from in any::<prop::sample::Index>(), node in any::<prop::sample::Index>(), other in hash()
        ) {
            let tree = tree(to);
            let from = 1 + from.index(usize::try_from(to).unwrap() - 1) as u64;
            let (old, new) = (tree.root_at(from).unwrap(), tree.root());
            let path = tree.consistency(from, to).unwrap();
            let check = |path: &[Hash]| verify_consistency(from, &old, to, &new, path);
            prop_assert_eq!(check(&path), Ok(()));
            prop_assert!(path.len() <= PROOF_NODES_MAX);
            prop_assert!(check(&path[1..]).is_err());
            let mut longer = path.clone();
            longer.push(other);
            prop_assert!(check(&longer).is_err());
            let mut bent = path.clone();
            bent[node.index(path.len())] = other;
            prop_assert!(check(&bent).is_err());
            prop_assert!(verify_consistency(from, &other, to, &new, &path).is_err());
            prop_assert!(verify_consistency(from, &old, to, &other, &path).is_err());
            let inclusion = tree.inclusion(from - 1, to).unwrap();
            let leaf = tree.leaves()[usize::try_from(from).unwrap() - 1];
            prop_assert!(verify_inclusion(&other, from - 1, to, &new, &inclusion).is_err());
            prop_assert!(verify_inclusion(&leaf, from - 1, to, &new, &inclusion[1..]).is_err());
        }

        #[test]
        fn whatever_is_sent_is_answered(from in any::<u64>(), to in any::<u64>(), old in hash(), new in hash(),
                                        path in prop::collection::vec(hash(), 0..70)) {
            let _ = verify_consistency(from, &old, to, &new, &path);
            let _ = verify_inclusion(&old, from, to, &new, &path);
        }
    }
}
