//! What this node keeps as a witness of others, on disk.
//!
//! ```text
//!   DIR/log/kept/z6Mk….json     the last head of a node, signed by it and by us; two, if it has rewritten its history
//!   DIR/log/kept/z6Mk….leaves   32 bytes each: hashes of its leaves, for it to have them back
//! ```
//! Parties of contracts stay; of strangers the one that was quiet longest goes. There is room for a head of each, and for leaves as long
//! as there is some.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use fluidos_identity::{Envelope, NodeId, read_file, replace_file};
use fluidos_log::{Fit, Hash, SignedHead, Tree, TreeHead, fit, fit_by, open_head};
use fluidos_rear::{Consistency, HeadSubmission, KeptHead, LEAVES_MAX};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::witness::{Decision, judge};

/// As many as there can be live contracts.
const PARTIES_MAX: usize = 1024;
/// Nodes that chose this one by their policy.
const STRANGERS_MAX: usize = 256;
/// Two years of a hundred contracts, in 2 MiB.
const PARTY_LEAVES_MAX: u64 = 65_536;
/// A stranger has them from its counterparties.
const STRANGER_LEAVES_MAX: u64 = 1024;
/// Hashes in all: 64 MiB.
const LEAVES_IN_ALL_MAX: u64 = 2 << 20;
/// Three heads of at most 2 KiB.
const FILE_BYTES_MAX: usize = 64 * 1024;
const HASH_BYTES: u64 = 32;

/// Why nothing was kept.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ShelfError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{0}")]
    Full(String),
    /// The leaves do not give the root.
    #[error("the leaves do not give the root of the head: send them from 0")]
    Leaves,
}

/// What is kept of one node.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
#[serde(rename_all = "camelCase")]
struct Kept {
    head: Envelope,
    #[serde(default)]
    leaves: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rewritten: Option<[Envelope; 2]>,
    /// How the rewritten history was seen, in words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    how: String,
    seen: Timestamp,
    /// What `head` says.
    #[serde(skip)]
    said: Option<TreeHead>,
}

/// What a head that another witness keeps is to the one that is kept here.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Seen {
    /// They fit, or nothing is kept here any more.
    Fits,
    /// Both are kept from now on: the origin has shown two histories.
    Split(String),
    /// It is known already.
    KnownSplit,
    /// Somebody has to show whether the leaves of the shorter are the first of the longer.
    Open { from: u64, to: u64 },
}

/// What this node keeps of others.
#[derive(Debug)]
pub(crate) struct Shelf {
    directory: PathBuf,
    kept: BTreeMap<NodeId, Kept>,
}

/// A head that was shown, and what became of it.
#[derive(Debug)]
pub(crate) struct Shown {
    pub decision: Decision,
    /// Whether it is the first that contradicts what is kept.
    pub first: bool,
    pub kept: KeptHead,
}

impl Shelf {
    /// Reads what is kept. What cannot be read is named and passed over: it must not silence the others.
    pub fn open(directory: &Path) -> Result<Self, ShelfError> {
        let directory = directory.join("kept");
        let failed = |source| ShelfError::Io { path: directory.clone(), source };
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory).map_err(failed)?;
        let mut kept = BTreeMap::new();
        for entry in std::fs::read_dir(&directory).map_err(failed)?.flatten() {
            let path = entry.path();
            if path.extension().is_none_or(|extension| extension != "json") || kept.len() > PARTIES_MAX + STRANGERS_MAX
            {
                continue;
            }
            match read_kept(&path) {
                Ok((origin, one)) => drop(kept.insert(origin, one)),
                Err(reason) => tracing::warn!(path = %path.display(), reason, "what was kept of a node cannot be read"),
            }
        }
        Ok(Self { directory, kept })
    }

    /// Returns what is kept of a node.
    pub fn of(&self, origin: &NodeId) -> KeptHead {
        self.kept.get(origin).map_or_else(KeptHead::default, |kept| KeptHead {
            head: Some(kept.head.clone()),
            leaves: kept.leaves,
            rewritten: kept.rewritten.clone(),
        })
    }

    /// Returns whose history was rewritten, and how that was seen.
    pub fn rewritten(&self) -> Vec<(NodeId, &str)> {
        self.kept
            .iter()
            .filter(|(_, kept)| kept.rewritten.is_some())
            .map(|(origin, kept)| (*origin, kept.how.as_str()))
            .collect()
    }

    /// Returns the logs that are kept, by the last head of each.
    pub fn heads(&self) -> impl Iterator<Item = &TreeHead> {
        self.kept.values().filter_map(|kept| kept.said.as_ref())
    }

    /// Returns who has signed what is kept of a node.
    pub fn signers(&self, origin: &NodeId) -> Vec<NodeId> {
        let head = self.kept.get(origin).and_then(|kept| open_head(&kept.head).ok());
        head.map(|head| head.signers().collect()).unwrap_or_default()
    }

    /// Compares a head that `witness` keeps, whose signature was checked, with what is kept here, by the leaves that are kept if they
    /// decide it. `shown` is what somebody says about the leaves. What does not fit is kept before this returns.
    pub fn compare(
        &mut self,
        other: &SignedHead,
        shown: Option<&Consistency>,
        witness: &NodeId,
    ) -> Result<Seen, ShelfError> {
        let (origin, theirs) = (other.value().origin, other.value());
        let Some(kept) = self.kept.get(&origin).cloned() else { return Ok(Seen::Fits) };
        let Some(ours) = kept.said.clone() else { return Ok(Seen::Fits) };
        let mut found = fit(&ours, theirs);
        if let (Fit::Open { .. }, Some(shown)) = (found, shown) {
            found = fit_by(&ours, theirs, &shown.root, &shown.consistency).unwrap_or(found);
        }
        if matches!(found, Fit::Open { .. }) && theirs.size < ours.size && kept.leaves >= ours.size {
            let leaves: Tree = self.read_leaves(&origin, 0, ours.size)?.into_iter().collect();
            // They count only as far as the origin has signed them.
            if leaves.root() == ours.root && leaves.root_at(theirs.size) != Some(theirs.root) {
                found = Fit::Split;
            } else if leaves.root() == ours.root {
                found = Fit::Fits;
            }
        }
        match found {
            Fit::Fits => Ok(Seen::Fits),
            Fit::Open { from, to } => Ok(Seen::Open { from, to }),
            Fit::Split if kept.rewritten.is_some() => Ok(Seen::KnownSplit),
            Fit::Split => {
                let how = format!(
                    "{} entries were shown here, and {} that do not fit them to {witness}",
                    ours.size, theirs.size
                );
                let both = Some([kept.head.clone(), other.envelope()]);
                self.write(origin, Kept { rewritten: both, how: how.clone(), ..kept })?;
                Ok(Seen::Split(how))
            }
        }
    }

    /// Returns that so many leaves of a node are the beginning of so many, `None` if so many are not kept.
    pub fn consistency(&self, origin: &NodeId, from: u64, to: u64) -> Result<Option<Consistency>, ShelfError> {
        if from > to || self.kept.get(origin).is_none_or(|kept| kept.leaves < to) {
            return Ok(None);
        }
        let leaves: Tree = self.read_leaves(origin, 0, to)?.into_iter().collect();
        let shown = leaves.root_at(from).zip(leaves.consistency(from, to));
        Ok(shown.map(|(root, consistency)| Consistency { root, consistency }))
    }

    /// Returns hashes of leaves of a node, from one on.
    pub fn leaves(&self, origin: &NodeId, from: u64) -> Result<Vec<Hash>, ShelfError> {
        let known = self.kept.get(origin).map_or(0, |kept| kept.leaves);
        let count = known.saturating_sub(from).min(LEAVES_MAX as u64);
        if count == 0 { Ok(Vec::new()) } else { self.read_leaves(origin, from, count) }
    }

    /// Judges a head that a node has shown, whose signature was checked, and keeps what is to be kept; then it is on disk.
    /// `sign` adds our signature.
    pub fn show(
        &mut self,
        new: &SignedHead,
        submission: &HeadSubmission,
        party: impl Fn(&NodeId) -> bool,
        sign: impl FnOnce(&mut SignedHead) -> Result<(), String>,
        now: Timestamp,
    ) -> Result<Shown, ShelfError> {
        let origin = new.value().origin;
        let before = self.kept.get(&origin).cloned();
        let head = before.as_ref().and_then(|kept| open_head(&kept.head).ok());
        let known = before.as_ref().map_or(0, |kept| kept.leaves);
        let root_at = |size| {
            let leaves = (size <= known).then(|| self.read_leaves(&origin, 0, size))?.ok()?;
            Some(leaves.into_iter().collect::<Tree>().root())
        };
        let head = head.as_ref().map(SignedHead::value);
        let first = before.as_ref().is_some_and(|kept| kept.rewritten.is_none());
        let decision = judge(head, new.value(), submission.from, &submission.consistency, root_at);
        match (&decision, before) {
            (Decision::Stand, _) | (Decision::Rewritten(_), None) => {}
            (Decision::Rewritten(how), Some(mut kept)) => {
                if kept.rewritten.is_none() {
                    kept.rewritten = Some([kept.head.clone(), new.envelope()]);
                    kept.how.clone_from(how);
                    self.write(origin, kept)?;
                }
            }
            (Decision::Keep | Decision::BeginAnew, before) => {
                let stays = party(&origin);
                if before.is_none() {
                    self.make_room(stays, &party)?;
                }
                let mut signed = new.clone();
                sign(&mut signed).map_err(ShelfError::Full)?;
                let anew = decision == Decision::BeginAnew;
                let leaves = if anew { 0 } else { known };
                let (rewritten, how) = before.map_or_else(Default::default, |kept| (kept.rewritten, kept.how));
                let said = Some(new.value().clone());
                let kept = Kept { head: signed.envelope(), leaves, rewritten, how, seen: now, said };
                self.write(origin, kept.clone())?;
                self.take_leaves(kept, new, submission, stays)?;
            }
        }
        Ok(Shown { decision, first, kept: self.of(&origin) })
    }

    /// Keeps the leaves that follow those that are kept; they count once they are whole.
    fn take_leaves(
        &mut self,
        mut kept: Kept,
        head: &SignedHead,
        submission: &HeadSubmission,
        party: bool,
    ) -> Result<(), ShelfError> {
        let (origin, size) = (head.value().origin, head.value().size);
        let most = if party { PARTY_LEAVES_MAX } else { STRANGER_LEAVES_MAX };
        let in_all: u64 = self.kept.values().map(|kept| kept.leaves).sum();
        let count = submission.leaves.len() as u64;
        let until = kept.leaves + count;
        if submission.leaves_from != kept.leaves
            || count == 0
            || until > size.min(most)
            || in_all + count > LEAVES_IN_ALL_MAX
        {
            return Ok(());
        }
        let path = self.path(&origin, "leaves");
        let write = || {
            let mut file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path)?;
            file.set_len(kept.leaves * HASH_BYTES)?;
            file.seek(SeekFrom::End(0))?;
            file.write_all(&submission.leaves.iter().flat_map(|hash| hash.0).collect::<Vec<u8>>())?;
            file.sync_all()
        };
        write().map_err(|source| ShelfError::Io { path: path.clone(), source })?;
        let whole = || self.read_leaves(&origin, 0, until).map(|leaves| leaves.into_iter().collect::<Tree>().root());
        if until == size && whole()? != head.value().root {
            kept.leaves = 0;
            self.write(origin, kept)?;
            return Err(ShelfError::Leaves);
        }
        kept.leaves = until;
        self.write(origin, kept)
    }

    fn make_room(&mut self, party: bool, is_party: impl Fn(&NodeId) -> bool) -> Result<(), ShelfError> {
        if party {
            let parties = self.kept.keys().filter(|origin| is_party(origin)).count();
            return if parties < PARTIES_MAX {
                Ok(())
            } else {
                Err(ShelfError::Full("there is no room for another log".into()))
            };
        }
        let strangers = self.kept.iter().filter(|(origin, _)| !is_party(origin));
        if strangers.clone().count() < STRANGERS_MAX {
            return Ok(());
        }
        // What proves something stays longest.
        let oldest = strangers.min_by_key(|(_, kept)| (kept.rewritten.is_some(), kept.seen)).map(|(origin, _)| *origin);
        if let Some(oldest) = oldest {
            for kind in ["json", "leaves"] {
                let path = self.path(&oldest, kind);
                match std::fs::remove_file(&path) {
                    Err(source) if source.kind() != io::ErrorKind::NotFound => {
                        return Err(ShelfError::Io { path, source });
                    }
                    _ => {}
                }
            }
            self.kept.remove(&oldest);
        }
        Ok(())
    }

    fn write(&mut self, origin: NodeId, kept: Kept) -> Result<(), ShelfError> {
        let path = self.path(&origin, "json");
        let failed = |source| ShelfError::Io { path: path.clone(), source };
        let bytes = serde_json::to_vec(&kept).map_err(|error| failed(error.into()))?;
        replace_file(&path, &bytes).map_err(|error| failed(io::Error::other(error)))?;
        self.kept.insert(origin, kept);
        Ok(())
    }

    fn read_leaves(&self, origin: &NodeId, from: u64, count: u64) -> Result<Vec<Hash>, ShelfError> {
        let path = self.path(origin, "leaves");
        let read = || {
            let mut file = File::open(&path)?;
            file.seek(SeekFrom::Start(from * HASH_BYTES))?;
            let mut bytes = Vec::new();
            file.take(count * HASH_BYTES).read_to_end(&mut bytes)?;
            Ok(bytes.as_chunks::<32>().0.iter().map(|bytes| Hash(*bytes)).collect())
        };
        read().map_err(|source| ShelfError::Io { path: path.clone(), source })
    }

    fn path(&self, origin: &NodeId, kind: &str) -> PathBuf {
        let did = origin.to_string();
        self.directory.join(format!("{}.{kind}", did.rsplit(':').next().unwrap_or_default()))
    }
}

fn read_kept(path: &Path) -> Result<(NodeId, Kept), String> {
    let bytes = read_file(path, FILE_BYTES_MAX).map_err(|error| error.to_string())?;
    let mut kept: Kept = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
    let head = open_head(&kept.head).map_err(|error| error.to_string())?;
    kept.said = Some(head.value().clone());
    Ok((head.value().origin, kept))
}

#[cfg(test)]
mod tests {
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
}
