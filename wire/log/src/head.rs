//! Tree heads: what a node signs of its log, and what two of them say together.

use std::fmt;

use fluidos_identity::{Envelope, NodeId, Signed, SignedError};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{Hash, ProofError, TREE_SIZE_MAX, Tree, verify_consistency};

/// `typ` of the signatures over a tree head: the origin's, and those of witnesses.
pub const HEAD_PURPOSE: &str = "fluidos-tree-head+jws";
const VERSION: u32 = 1;

/// Where a log stands: what is signed.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(deny_unknown_fields)]
pub struct TreeHead {
    /// 1.
    pub version: u32,
    /// Whose log it is: the first key of the node, which names the log also after a hand-over.
    pub origin: NodeId,
    /// How often the log was begun anew, because its leaves were lost and its owner accepted that.
    pub epoch: u64,
    /// How many entries there are.
    pub size: u64,
    /// The root of the tree of so many leaves.
    pub root: Hash,
    /// When it was signed.
    pub at: Timestamp,
}

/// A tree head with signatures that hold.
pub type SignedHead = Signed<TreeHead>;

/// Why a head says nothing.
#[derive(Debug, thiserror::Error)]
pub enum HeadError {
    /// It is not signed as it must be.
    #[error("tree head: {0}")]
    Signed(#[from] SignedError),
    /// It says what cannot be.
    #[error("tree head: {what} is {observed}, needed {needed}")]
    Value {
        /// Which value.
        what: &'static str,
        /// What it is.
        observed: String,
        /// What it must be.
        needed: String,
    },
}

impl TreeHead {
    /// Returns the head of a tree, ready to be signed.
    ///
    /// # Errors
    /// [`SignedError`] in theory only.
    pub fn of(tree: &Tree, origin: NodeId, epoch: u64, at: Timestamp) -> Result<SignedHead, SignedError> {
        let at = Timestamp::from_second(at.as_second()).unwrap_or(at);
        let head = Self { version: VERSION, origin, epoch, size: tree.size(), root: tree.root(), at };
        Signed::new(HEAD_PURPOSE, head)
    }
}

impl fmt::Display for TreeHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let root = self.root.to_string();
        write!(f, "{} entries, root {}…, of {}", self.size, &root[..12], self.at)
    }
}

/// Returns a head that somebody sent. Who must have signed it is the caller's to check: the key that speaks for the origin.
///
/// # Errors
/// [`HeadError`].
pub fn open_head(envelope: &Envelope) -> Result<SignedHead, HeadError> {
    let signed: SignedHead = Signed::open(envelope, HEAD_PURPOSE)?;
    let head = signed.value();
    let wrong =
        |what, observed: u64, needed: String| Err(HeadError::Value { what, observed: observed.to_string(), needed });
    if head.version != VERSION {
        return wrong("version", head.version.into(), VERSION.to_string());
    }
    if head.size > TREE_SIZE_MAX {
        return wrong("size", head.size, format!("at most {TREE_SIZE_MAX}"));
    }
    Ok(signed)
}

/// What a new head is to one that is kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It continues it, or is the same.
    Continues,
    /// It is a beginning of it: the node has an older log, or somebody repeats an old head.
    Older,
    /// The node has begun its log anew, and says so.
    BegunAnew,
    /// Two histories of one epoch: one of them was rewritten.
    Rewritten {
        /// How it is seen.
        how: ProofError,
    },
}

/// Judges a head by the one that is kept of the same origin. `proof` shows that `kept` is the beginning of `new`, or for a shorter
/// one that `new` is the beginning of `kept`.
pub fn compare_heads(kept: &TreeHead, new: &TreeHead, proof: &[Hash]) -> Verdict {
    if new.epoch > kept.epoch {
        return Verdict::BegunAnew;
    }
    if new.epoch < kept.epoch {
        return Verdict::Older;
    }
    let shown = if new.size >= kept.size {
        verify_consistency(kept.size, &kept.root, new.size, &new.root, proof).map(|()| Verdict::Continues)
    } else {
        verify_consistency(new.size, &new.root, kept.size, &kept.root, proof).map(|()| Verdict::Older)
    };
    shown.unwrap_or_else(|how| Verdict::Rewritten { how })
}

/// What two heads of one log say together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fit {
    /// One continues the other, or they are of two epochs: that a log was begun anew is no secret.
    Fits,
    /// Two histories of one epoch; anybody who has both can see it.
    Split,
    /// The leaves decide: what is the root of the first `from` of `to`?
    Open {
        /// The smaller size.
        from: u64,
        /// The larger one.
        to: u64,
    },
}

/// Returns what two heads of one origin say together by themselves.
pub fn fit(one: &TreeHead, other: &TreeHead) -> Fit {
    if one.epoch != other.epoch {
        return Fit::Fits;
    }
    let (short, long) = if one.size <= other.size { (one, other) } else { (other, one) };
    if short.size == long.size {
        return if short.root == long.root { Fit::Fits } else { Fit::Split };
    }
    // A tree without leaves is the beginning of every other.
    if short.size == 0 { Fit::Fits } else { Fit::Open { from: short.size, to: long.size } }
}

/// Returns what two heads say together with the root that the longer log had at the size of the shorter head. It need not come from
/// somebody who is believed: only the true one has a path to the root that the origin has signed.
///
/// # Errors
/// [`ProofError`]: the path does not lead from this root to that of the longer head, so it says nothing.
pub fn fit_by(one: &TreeHead, other: &TreeHead, root: &Hash, path: &[Hash]) -> Result<Fit, ProofError> {
    let Fit::Open { from, to } = fit(one, other) else { return Ok(fit(one, other)) };
    let (short, long) = if one.size < other.size { (one, other) } else { (other, one) };
    verify_consistency(from, root, to, &long.root, path)?;
    Ok(if short.root == *root { Fit::Fits } else { Fit::Split })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use fluidos_identity::NodeKey;

    use super::*;
    use crate::leaf_hash;

    fn tree(leaves: &[&str]) -> Tree {
        leaves.iter().map(|leaf| leaf_hash(leaf.as_bytes())).collect()
    }

    fn head(tree: &Tree, epoch: u64) -> TreeHead {
        let key = NodeKey::from_seed([1; 32]).unwrap();
        TreeHead::of(tree, key.id(), epoch, Timestamp::UNIX_EPOCH).unwrap().value().clone()
    }

    #[test]
    fn a_head_is_judged_by_the_one_before() {
        let (short, long) = (tree(&["a", "b"]), tree(&["a", "b", "c"]));
        let proof = long.consistency(2, 3).unwrap();
        let (kept, new) = (head(&short, 0), head(&long, 0));
        assert_eq!(compare_heads(&kept, &new, &proof), Verdict::Continues);
        assert_eq!(compare_heads(&kept, &kept, &[]), Verdict::Continues);
        assert_eq!(compare_heads(&new, &kept, &proof), Verdict::Older);
        // Entries changed, removed, another order; with the best proof that its node could make.
        for forged in [tree(&["a", "x", "c"]), tree(&["b", "c", "d"]), tree(&["b", "a", "c"])] {
            let proof = forged.consistency(2, 3).unwrap();
            let verdict = compare_heads(&kept, &head(&forged, 0), &proof);
            assert!(matches!(verdict, Verdict::Rewritten { .. }), "{verdict:?}");
        }
        assert!(matches!(compare_heads(&new, &head(&tree(&["a", "x"]), 0), &proof), Verdict::Rewritten { .. }));
        assert_eq!(compare_heads(&new, &head(&tree(&["x"]), 1), &[]), Verdict::BegunAnew);
        assert_eq!(compare_heads(&head(&short, 1), &new, &[]), Verdict::Older);
    }

    #[test]
    fn two_heads_that_two_witnesses_keep_fit_or_are_proven_not_to_whoever_gives_the_path() {
        for (from, to) in [(1usize, 2), (2, 3), (3, 7), (4, 8), (5, 6), (6, 13)] {
            let names: Vec<String> = (0..to).map(|leaf| leaf.to_string()).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let (short, long) = (tree(&names[..from]), tree(&names));
            let mut changed = names[..from].to_vec();
            changed[from - 1] = "x";
            let forged = tree(&changed);
            let (from, to) = (from as u64, to as u64);
            let path = long.consistency(from, to).unwrap();
            let (honest, liar, longer) = (head(&short, 0), head(&forged, 0), head(&long, 0));
            assert_eq!(fit(&honest, &longer), Fit::Open { from, to });
            assert_eq!(fit(&honest, &liar), Fit::Split, "one size, two roots");
            let root = short.root();
            for (one, other) in [(&honest, &longer), (&longer, &honest)] {
                assert_eq!(fit_by(one, other, &root, &path), Ok(Fit::Fits));
            }
            assert_eq!(fit_by(&longer, &liar, &root, &path), Ok(Fit::Split));
            // Nobody can blame an honest node, and a liar cannot excuse itself: no other root has a path to the longer head.
            let theirs = forged.root();
            assert!(fit_by(&honest, &longer, &theirs, &path).is_err());
            assert!(fit_by(&liar, &longer, &theirs, &path).is_err());
            assert!(fit_by(&liar, &longer, &theirs, &[]).is_err());
            assert_eq!(fit(&head(&forged, 1), &longer), Fit::Fits, "it says that it has begun anew");
        }
        assert_eq!(fit(&head(&tree(&[]), 0), &head(&tree(&["a"]), 0)), Fit::Fits);
    }

    #[test]
    fn a_head_is_signed_for_this_purpose_and_within_bounds() {
        let key = NodeKey::from_seed([1; 32]).unwrap();
        let mut signed = TreeHead::of(&tree(&["a"]), key.id(), 0, Timestamp::UNIX_EPOCH).unwrap();
        signed.sign(&key).unwrap();
        let opened = open_head(&signed.envelope()).unwrap();
        assert_eq!(opened.value(), signed.value());
        assert!(opened.signed_by(&key.id()));
        let other = Envelope { purpose: "fluidos-contract+jws".into(), ..signed.envelope() };
        assert!(open_head(&other).is_err());
        let huge = TreeHead { size: TREE_SIZE_MAX + 1, ..signed.value().clone() };
        let huge = Signed::new(HEAD_PURPOSE, huge).unwrap();
        assert!(open_head(&huge.envelope()).unwrap_err().to_string().contains("size is 1048577"));
        let later = Signed::new(HEAD_PURPOSE, TreeHead { version: 2, ..signed.value().clone() }).unwrap();
        assert!(open_head(&later.envelope()).unwrap_err().to_string().contains("version is 2, needed 1"));
    }
}
