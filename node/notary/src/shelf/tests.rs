#![allow(clippy::unwrap_used, clippy::panic)]
use fluidos_identity::NodeKey;
use fluidos_log::{TreeHead, leaf_hash};

use super::*;

fn key(seed: u32) -> NodeKey {
    let mut bytes = [7; 32];
    bytes[..4].copy_from_slice(&seed.to_be_bytes());
    NodeKey::from_seed(bytes).unwrap()
}

fn tree(leaves: std::ops::Range<u32>) -> Tree {
    leaves.map(|leaf| leaf_hash(&leaf.to_be_bytes())).collect()
}

fn signed(key: &NodeKey, tree: &Tree) -> SignedHead {
    let mut head = TreeHead::of(tree, key.id(), 0, Timestamp::UNIX_EPOCH).unwrap();
    head.sign(key).unwrap();
    head
}

fn show(shelf: &mut Shelf, key: &NodeKey, tree: &Tree, from: u64, now: i64) -> Result<Shown, ShelfError> {
    show_leaves(shelf, key, tree, from, now, tree.leaves())
}

fn show_leaves(
    shelf: &mut Shelf,
    node: &NodeKey,
    tree: &Tree,
    from: u64,
    now: i64,
    leaves: &[Hash],
) -> Result<Shown, ShelfError> {
    let head = signed(node, tree);
    let known = shelf.of(&node.id()).leaves;
    let submission = HeadSubmission {
        head: head.envelope(),
        from,
        consistency: tree.consistency(from.min(tree.size()), tree.size()).unwrap(),
        leaves_from: known,
        leaves: leaves.iter().skip(usize::try_from(known).unwrap()).copied().collect(),
    };
    let sign = |head: &mut SignedHead| head.sign(&key(1000)).map_err(|error| error.to_string());
    shelf.show(&head, &submission, |origin| *origin == key(0).id(), sign, Timestamp::from_second(now).unwrap())
}

#[test]
fn a_head_is_kept_over_a_restart_with_both_signatures_and_its_leaves() {
    let folder = tempfile::tempdir().unwrap();
    let mut shelf = Shelf::open(folder.path()).unwrap();
    assert_eq!(show(&mut shelf, &key(0), &tree(0..3), 0, 0).unwrap().decision, Decision::Keep);
    assert_eq!(show(&mut shelf, &key(0), &tree(0..9), 3, 0).unwrap().decision, Decision::Keep);
    let shelf = Shelf::open(folder.path()).unwrap();
    let kept = shelf.of(&key(0).id());
    let head = open_head(&kept.head.unwrap()).unwrap();
    assert_eq!((head.value().size, kept.leaves), (9, 9));
    assert_eq!(head.signers().collect::<Vec<_>>(), [key(0).id(), key(1000).id()]);
    assert_eq!(shelf.leaves(&key(0).id(), 4).unwrap(), tree(0..9).leaves()[4..]);
    assert!(shelf.leaves(&key(0).id(), 9).unwrap().is_empty() && shelf.leaves(&key(1).id(), 0).unwrap().is_empty());
}

#[test]
fn a_rewritten_history_is_refused_and_both_heads_stay() {
    let folder = tempfile::tempdir().unwrap();
    let mut shelf = Shelf::open(folder.path()).unwrap();
    show(&mut shelf, &key(0), &tree(0..3), 0, 0).unwrap();
    // Forked and signed again, and cut off: of the leaves that are kept it is not the beginning.
    for (forged, from) in [(tree(1..5), 3), (tree(1..3), 3)] {
        let shown = show(&mut shelf, &key(0), &forged, from, 0).unwrap();
        assert!(matches!(shown.decision, Decision::Rewritten(_)), "{shown:?}");
        let kept = Shelf::open(folder.path()).unwrap().of(&key(0).id());
        assert_eq!(open_head(&kept.head.unwrap()).unwrap().value().root, tree(0..3).root());
        let [before, after] = kept.rewritten.unwrap().map(|head| open_head(&head).unwrap());
        assert!(before.signed_by(&key(0).id()) && after.signed_by(&key(0).id()));
        assert_eq!((before.value().root, after.value().root), (tree(0..3).root(), tree(1..5).root()));
    }
    let [(liar, how)] = shelf.rewritten()[..] else { panic!("{:?}", shelf.rewritten()) };
    assert_eq!(liar, key(0).id());
    assert!(how.contains("leads to root"), "{how}");
}

#[test]
fn leaves_that_do_not_give_the_root_are_not_kept() {
    let folder = tempfile::tempdir().unwrap();
    let mut shelf = Shelf::open(folder.path()).unwrap();
    let refused = show_leaves(&mut shelf, &key(0), &tree(0..3), 0, 0, tree(1..4).leaves()).unwrap_err();
    assert!(matches!(refused, ShelfError::Leaves));
    assert_eq!(shelf.of(&key(0).id()).leaves, 0);
    show(&mut shelf, &key(0), &tree(0..3), 3, 0).unwrap();
    assert_eq!(shelf.of(&key(0).id()).leaves, 3);
    // A stranger's are few.
    let long = tree(0..1025);
    let all = show(&mut shelf, &key(1), &long, 0, 0).unwrap();
    assert_eq!((all.decision, all.kept.leaves), (Decision::Keep, 0));
}

#[test]
fn what_another_witness_keeps_is_compared_and_kept_if_it_does_not_fit() {
    let compare = |shelf: &mut Shelf, theirs: &Tree, shown: Option<&Consistency>| {
        shelf.compare(&signed(&key(0), theirs), shown, &key(7).id()).unwrap()
    };
    let of = |tree: &Tree, from, to| Consistency {
        root: tree.root_at(from).unwrap(),
        consistency: tree.consistency(from, to).unwrap(),
    };
    let (mut forged, mut longer) = (tree(0..3), tree(0..3));
    [9u32, 5].into_iter().for_each(|leaf| assert!(forged.push(leaf_hash(&leaf.to_be_bytes()))));
    [3u32, 4].into_iter().for_each(|leaf| assert!(longer.push(leaf_hash(&leaf.to_be_bytes()))));
    let shelf = |leaves: &[Hash]| {
        let folder = tempfile::tempdir().unwrap();
        let mut shelf = Shelf::open(folder.path()).unwrap();
        show_leaves(&mut shelf, &key(0), &tree(0..4), 0, 0, leaves).unwrap();
        (folder, shelf)
    };
    // The own leaves decide about a shorter head; about a longer one somebody has to show them.
    let (folder, mut with) = shelf(tree(0..4).leaves());
    assert_eq!(compare(&mut with, &tree(0..3), None), Seen::Fits);
    assert_eq!(compare(&mut with, &longer, None), Seen::Open { from: 4, to: 5 });
    assert_eq!(with.consistency(&key(0).id(), 3, 4).unwrap(), Some(of(&tree(0..4), 3, 4)));
    assert_eq!(with.consistency(&key(0).id(), 3, 5).unwrap(), None);
    assert_eq!(with.consistency(&key(0).id(), 4, 3).unwrap(), None);
    assert!(matches!(compare(&mut with, &tree(1..4), None), Seen::Split(_)));
    assert_eq!(compare(&mut with, &forged, Some(&of(&forged, 4, 5))), Seen::KnownSplit);
    let again = Shelf::open(folder.path()).unwrap();
    assert!(again.rewritten()[0].1.contains(&key(7).id().to_string()), "{:?}", again.rewritten());
    let both = again.of(&key(0).id()).rewritten.unwrap().map(|head| open_head(&head).unwrap().value().root);
    assert_eq!(both, [tree(0..4).root(), tree(1..4).root()]);

    let (_folder, mut without) = shelf(&[]);
    assert_eq!(compare(&mut without, &tree(1..4), None), Seen::Open { from: 3, to: 4 });
    assert_eq!(compare(&mut without, &longer, Some(&of(&longer, 4, 5))), Seen::Fits);
    // A path that leads elsewhere says nothing, whoever gives it.
    assert_eq!(compare(&mut without, &longer, Some(&of(&forged, 4, 5))), Seen::Open { from: 4, to: 5 });
    assert!(matches!(compare(&mut without, &forged, Some(&of(&forged, 4, 5))), Seen::Split(_)));
    assert_eq!(without.compare(&signed(&key(1), &forged), None, &key(7).id()).unwrap(), Seen::Fits, "not kept");
}

#[test]
fn strangers_do_not_fill_it_and_parties_stay() {
    let folder = tempfile::tempdir().unwrap();
    let mut shelf = Shelf::open(folder.path()).unwrap();
    show(&mut shelf, &key(0), &tree(0..1), 0, 0).unwrap();
    for seed in 1..=260 {
        show(&mut shelf, &key(seed), &tree(0..1), 0, i64::from(seed)).unwrap();
    }
    assert_eq!(shelf.kept.len(), 1 + STRANGERS_MAX);
    assert!(shelf.of(&key(0).id()).head.is_some() && shelf.of(&key(260).id()).head.is_some());
    assert!(shelf.of(&key(4).id()).head.is_none(), "the one that was quiet longest went");
    assert_eq!(Shelf::open(folder.path()).unwrap().kept.len(), 1 + STRANGERS_MAX);
}
