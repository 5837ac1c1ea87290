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
mod tests;
