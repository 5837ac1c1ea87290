//! What a witness does with a head that it is shown: pure.

use fluidos_log::{Hash, TreeHead, Verdict, compare_heads};

/// What becomes of a head.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Decision {
    /// It is kept, in the place of the one before.
    Keep,
    /// It is kept, and what was known of the leaves is not of this log: the node has begun anew.
    BeginAnew,
    /// Nothing changes: the node is told what is kept, and shows what continues it.
    Stand,
    /// Both are kept: the node has rewritten its history.
    Rewritten(String),
}

/// Judges a head by the one that is kept. `from` is which size the node took for the kept one, `proof` shows that this one continues
/// it. `root_at` tells the root of so many of the leaves that are kept, if they are.
pub(crate) fn judge(
    kept: Option<&TreeHead>,
    new: &TreeHead,
    from: u64,
    proof: &[Hash],
    root_at: impl FnOnce(u64) -> Option<Hash>,
) -> Decision {
    let Some(kept) = kept else { return Decision::Keep };
    if new.epoch == kept.epoch && new.size < kept.size {
        // An older head is no crime, if it is one.
        return match root_at(new.size) {
            Some(root) if root != new.root => Decision::Rewritten(format!(
                "of the {} entries that were shown before, these are not the first",
                kept.size
            )),
            _ => Decision::Stand,
        };
    }
    if new.epoch == kept.epoch && from != kept.size {
        return Decision::Stand;
    }
    match compare_heads(kept, new, proof) {
        Verdict::Continues => Decision::Keep,
        Verdict::BegunAnew => Decision::BeginAnew,
        Verdict::Older => Decision::Stand,
        Verdict::Rewritten { how } => Decision::Rewritten(how.to_string()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use fluidos_identity::NodeKey;
    use fluidos_log::{Tree, leaf_hash};
    use jiff::Timestamp;

    use super::*;

    fn tree(leaves: &[&str]) -> Tree {
        leaves.iter().map(|leaf| leaf_hash(leaf.as_bytes())).collect()
    }

    fn head(tree: &Tree, epoch: u64) -> TreeHead {
        let origin = NodeKey::from_seed([1; 32]).unwrap().id();
        TreeHead::of(tree, origin, epoch, Timestamp::UNIX_EPOCH).unwrap().value().clone()
    }

    #[test]
    fn only_what_continues_is_kept_and_what_contradicts_is_told() {
        let (two, three) = (tree(&["a", "b"]), tree(&["a", "b", "c"]));
        let proof = three.consistency(2, 3).unwrap();
        let (kept, new) = (head(&two, 0), head(&three, 0));
        let at = |size| two.root_at(size);
        assert_eq!(judge(None, &new, 0, &[], at), Decision::Keep);
        assert_eq!(judge(Some(&kept), &new, 2, &proof, at), Decision::Keep);
        assert_eq!(judge(Some(&kept), &kept, 2, &[], at), Decision::Keep);
        assert_eq!(judge(Some(&kept), &new, 0, &[], at), Decision::Stand, "it did not know what is kept");
        assert_eq!(judge(Some(&kept), &head(&tree(&["z"]), 1), 0, &[], at), Decision::BeginAnew);
        let at = |size| three.root_at(size);
        assert_eq!(judge(Some(&new), &kept, 2, &[], at), Decision::Stand, "older is no crime");
        assert_eq!(judge(Some(&new), &kept, 2, &[], |_| None), Decision::Stand);
        assert_eq!(judge(Some(&head(&two, 1)), &new, 2, &proof, at), Decision::Stand, "an epoch that is over");
        // One entry changed, one removed, all of it forked and signed again.
        for forged in [tree(&["a", "x", "c"]), tree(&["a", "c", "d"]), tree(&["x", "y", "z", "a"])] {
            let proof = forged.consistency(2, forged.size()).unwrap();
            let decision = judge(Some(&kept), &head(&forged, 0), 2, &proof, |_| None);
            assert!(matches!(decision, Decision::Rewritten(_)), "{decision:?}");
        }
        let shorter = judge(Some(&new), &head(&tree(&["a", "x"]), 0), 3, &[], at);
        assert!(matches!(shorter, Decision::Rewritten(_)), "{shorter:?}");
        let same = judge(Some(&new), &head(&tree(&["a", "b", "x"]), 0), 3, &[], at);
        assert!(matches!(same, Decision::Rewritten(_)), "{same:?}");
    }
}
