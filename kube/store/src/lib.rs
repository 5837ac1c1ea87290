//! A revisioned key-value store: what etcd is to Kubernetes, inside the process.
//!
//! Every write gets the next *revision*, a number that only grows and that orders all writes to all keys. A
//! *watch* from revision *r* delivers every event with a revision above *r*, in order, exactly once. A list
//! and the revision it carries are one consistent snapshot, so list-then-watch misses nothing.
//!
//! ```text
//! writers ──bounded queue──▶ committer ──one batch, one fdatasync──▶ backend (memory | log on disk)
//!                               │ then
//!                               ▼
//!                 state: key → entry, and the history of the last events ──▶ watchers, readers
//! ```
//!
//! One committer thread takes all waiting writes, checks each one's precondition against the state and the
//! writes before it in the group, makes the group durable with a single sync, then shows it. A write is
//! acknowledged only after that: an acknowledged write survives the death of process and machine (`log.rs`, and its exception for renewals).
//!
//! *Compaction*: the history is bounded. Asking for an older revision than it reaches is
//! [`Error::Compacted`], and the caller lists again. After a restart the history begins at the current revision.
//!
//! Limits: values are at most [`VALUE_BYTES_MAX`]; all current entries are held in memory as bytes.

mod backend;
mod commit;
mod error;
mod interest;
mod log;
mod state;
mod watch;

use std::io::{self, Read};
use std::path::Path;
use std::sync::{Arc, RwLock};

use bytes::Bytes;
use tokio::sync::{oneshot, watch as watch_channel};

use crate::backend::Backend;
use crate::commit::Committer;
pub use crate::error::Error;
use crate::interest::{Interests, Waker};
use crate::log::Log;
pub use crate::log::{Key, Sealing};
use crate::state::State;
pub use crate::state::{Entry, Event, EventKind, Page};
pub use crate::watch::Watcher;

/// The order of a write among all writes of this store. 0 is "before everything".
pub type Revision = u64;

/// The largest value, as etcd's default request bound (1.5 MiB).
pub const VALUE_BYTES_MAX: usize = 1_536 * 1024;

/// Writes that may wait for the committer; more make their callers wait. One group is at most this long.
const QUEUE: usize = 1024;

/// What must hold for a write to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precondition {
    /// The key has no value.
    Absent,
    /// The key's value is the one written at this revision.
    Revision(Revision),
}

/// What a write does to its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Put(Bytes),
    Delete,
}

/// One write on its way to the committer.
pub(crate) struct Write {
    pub key: Arc<str>,
    pub precondition: Precondition,
    pub change: Change,
    /// It must survive the loss of power before it is acknowledged.
    pub sync: bool,
    pub done: oneshot::Sender<Result<Revision, Error>>,
}

/// A handle to the store. Clones are cheap and all see the same data; the committer ends with the last one, and the directory is free then.
#[derive(Clone)]
pub struct Store {
    state: Arc<RwLock<State>>,
    committer: Arc<Committer>,
    revision: watch_channel::Receiver<Revision>,
    interests: Interests,
    sealing: Arc<Sealing>,
}

impl Store {
    /// A store that lives as long as the process.
    pub fn memory() -> Result<Self, Error> {
        Self::start(Backend::Memory, State::default(), Sealing::default())
    }

    /// The store in `directory`, created if absent.
    ///
    /// # Errors
    /// [`Error::InUse`] when another process has it open; [`Error::Damaged`] when a file of it is not what was written, [`Error::Format`]
    /// when it is of another version; [`Error::Disk`] when it cannot be read or made.
    pub fn open(directory: &Path) -> Result<Self, Error> {
        Self::open_sealed(directory, Sealing::default())
    }

    /// As [`Store::open`], with some values encrypted on the disk.
    ///
    /// # Errors
    /// Those, and [`Error::Sealing`] when a value cannot be opened with these keys.
    pub fn open_sealed(directory: &Path, sealing: Sealing) -> Result<Self, Error> {
        let (log, state) = Log::open(directory, sealing.clone())?;
        Self::start(Backend::Disk(Box::new(log)), state, sealing)
    }

    /// Makes the store of a directory that holds none yet of a snapshot ([`Store::snapshot`]); the revision at which it begins.
    ///
    /// # Errors
    /// [`Error::Damaged`] when some byte of it is not what was written, in which case nothing was made; [`Error::Exists`] when there is a
    /// store.
    pub fn restore(directory: &Path, source: &mut dyn Read, sealing: &Sealing) -> Result<Revision, Error> {
        log::restore(directory, source, sealing)
    }

    /// Reads a snapshot to its end, without the keys of what is sealed; its revision.
    ///
    /// # Errors
    /// [`Error::Damaged`] when it is not whole.
    pub fn verify(source: &mut dyn Read) -> Result<Revision, Error> {
        log::verify(source)
    }

    fn start(backend: Backend, state: State, sealing: Sealing) -> Result<Self, Error> {
        let (revision_sender, revision) = watch_channel::channel(state.revision());
        let state = Arc::new(RwLock::new(state));
        let interests = Interests::default();
        let waker = Waker::new(interests.clone());
        let committer = Arc::new(commit::spawn(backend, state.clone(), revision_sender, waker)?);
        Ok(Self { state, committer, revision, interests, sealing: Arc::new(sealing) })
    }

    /// Writes `value` under `key` if the precondition holds; the new revision.
    ///
    /// # Errors
    /// [`Error::Exists`], [`Error::NotFound`], [`Error::Conflict`] by precondition; [`Error::TooLarge`];
    /// [`Error::DiskFull`] and [`Error::Disk`] when it could not be made durable, in which case it did not happen.
    pub async fn put(&self, key: &str, precondition: Precondition, value: Bytes) -> Result<Revision, Error> {
        self.write(key, precondition, Change::Put(value), true).await
    }

    /// As [`Store::put`] for what says no more than that something is as it was (a lease, a heartbeat): it survives the death of the process,
    /// and that of the machine once anything else was written. A disk is not worn out by it.
    pub async fn renew(&self, key: &str, precondition: Precondition, value: Bytes) -> Result<Revision, Error> {
        self.write(key, precondition, Change::Put(value), false).await
    }

    /// Removes `key` if its value is the one written at `revision`; the revision of the removal. Errors as [`Store::put`].
    pub async fn delete(&self, key: &str, revision: Revision) -> Result<Revision, Error> {
        self.write(key, Precondition::Revision(revision), Change::Delete, true).await
    }

    async fn write(
        &self,
        key: &str,
        precondition: Precondition,
        change: Change,
        sync: bool,
    ) -> Result<Revision, Error> {
        if let Change::Put(value) = &change
            && value.len() > VALUE_BYTES_MAX
        {
            return Err(Error::TooLarge { key: key.to_owned(), bytes: value.len(), limit: VALUE_BYTES_MAX });
        }
        let (done, answer) = oneshot::channel();
        let write = Write { key: key.into(), precondition, change, sync, done };
        self.committer.send(write).await?;
        answer.await.map_err(|_| Error::Closed)?
    }

    /// The current entry of `key`.
    pub fn get(&self, key: &str) -> Option<Entry> {
        self.read().get(key)
    }

    /// Entries whose key begins with `prefix`, in key order, at most `limit` (0: all), beginning after the
    /// key `after`. With `at` the list is as it was at that revision.
    ///
    /// # Errors
    /// [`Error::Compacted`] when `at` is older than the history; [`Error::Future`] when it is not written yet.
    pub fn list(&self, prefix: &str, after: Option<&str>, limit: usize, at: Option<Revision>) -> Result<Page, Error> {
        self.read().list(prefix, after, limit, at)
    }

    /// Every event on keys that begin with `prefix` and with a revision above `from`.
    ///
    /// # Errors
    /// [`Error::Compacted`] when events above `from` were already forgotten.
    pub fn watch(&self, prefix: &str, from: Revision) -> Result<Watcher, Error> {
        self.read().check_history(from)?;
        let prefix = Arc::from(prefix);
        let changed = self.interests.subscribe(&prefix);
        Ok(Watcher::new(prefix, from, self.state.clone(), changed))
    }

    /// The revision of the newest write.
    pub fn revision(&self) -> Revision {
        self.read().revision()
    }

    /// Returns once the store has reached `revision`.
    pub async fn reached(&self, revision: Revision) -> Result<(), Error> {
        let mut current = self.revision.clone();
        current.wait_for(|now| *now >= revision).await.map(|_| ()).map_err(|_| Error::Closed)
    }

    /// Writes all that holds now to `sink`, as of one revision, which is returned; writers do not wait for it. Sealed values stay sealed.
    ///
    /// # Errors
    /// [`Error::Disk`]: the sink refuses.
    pub fn snapshot(&self, sink: &mut dyn io::Write) -> Result<Revision, Error> {
        let page = self.list("", None, 0, None)?;
        log::write_snapshot(sink, page.entries, page.revision, &self.sealing)?;
        Ok(page.revision)
    }

    /// Bytes of keys and values now held.
    pub fn size_bytes(&self) -> u64 {
        self.read().size_bytes()
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, State> {
        // A panic while the lock was held for writing cannot leave half a group: see `State::apply`.
        self.state.read().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
