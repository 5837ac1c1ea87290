//! Where writes become durable: a *log* that is only appended to, and now and then a *snapshot* that makes the older part of it
//! superfluous.
//!
//! ```text
//!  directory/  lock                     one process at a time; says where the log ends while it is closed
//!              0000000007.snapshot      what held when log 7 began, and perhaps later
//!              0000000007.log           ┌ begin ┐┌ writes ┐┌ writes ┐ … ┌ closed ┐
//!              0000000008.log           the newest: commit appends here, one fdatasync for a group
//!
//!  open:   newest snapshot ──▶ its log ──▶ each later log      (rows are absolute: the last one of a key holds)
//!  rotate: when a log outweighs what it stands for, the next one begins, a snapshot is written beside the writers, older files go
//! ```
//!
//! Everything current is in memory anyway (`state.rs`), so the file is only ever read at the start: there is no tree, no cache and no
//! merge on disk. A snapshot is taken in slices while writes go on; what changes meanwhile stands in the next log, which is read after it.
//!
//! **Damage.** Each record carries checksums and says how far the log was durable when it was written (`record.rs`). A crash can only tear
//! what was not durable yet: whatever else does not check is damage, and [`Error::Damaged`]; nothing is served then. Where a log that was
//! closed ends is written beside it. Only of the last group before a crash it cannot be told whether it rotted or was never finished.
//!
//! **Renewals** ([`crate::Store::renew`]) are written and not synced: the next sync of anything takes them along. They survive the
//! death of the process, not that of the machine. So that no revision is given twice after such a loss, opening a log that
//! was not closed skips [`RENEWALS`] revisions, and no more than that are ever unsynced.

mod record;
mod recover;
mod seal;
mod snapshot;

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};
use std::thread::JoinHandle;

use rustix::fs::{FallocateFlags, FlockOperation};

pub use self::seal::{Key, Sealing};
pub(crate) use self::snapshot::{restore, verify, write as write_snapshot};

use self::record::{Op, Row, Writer};
use crate::state::State;
use crate::{Error, Event, EventKind, Revision};

/// The number of this format. Another one is refused.
pub(crate) const FORMAT: u32 = 1;
/// Unsynced revisions at most, and what is skipped when they may have been lost.
pub(crate) const RENEWALS: u64 = 1_000;
/// Bytes that stay free, so that a snapshot can still be written and the log shrink.
const RESERVE_BYTES: u64 = 32 * 1024 * 1024;
/// The file grows in such steps: an append then changes no metadata of the file system, which makes its sync quicker.
const STEP_BYTES: u64 = 1024 * 1024;
/// A log may be this long before it is rotated, however little it stands for.
const LOG_BYTES_MIN: u64 = 4 * 1024 * 1024;
/// A larger buffer is given back after its group.
const BUFFER_BYTES_KEPT: usize = 256 * 1024;

/// The open log of a directory.
pub(crate) struct Log {
    directory: PathBuf,
    sealing: Arc<Sealing>,
    file: File,
    generation: u64,
    /// Where the next record goes, and how far the file is allocated.
    end: u64,
    allocated: u64,
    /// Everything up to this place and this revision survives the loss of power.
    durable_end: u64,
    durable: Revision,
    newest: Revision,
    writer: Writer,
    /// A sync that failed may have lost what it should have kept: nothing is written after it.
    poisoned: Option<Error>,
    snapshot: Option<JoinHandle<()>>,
    /// Bytes of the snapshot that this log goes on from.
    below: Arc<std::sync::atomic::AtomicU64>,
    /// Some value is not sealed as it should be: a snapshot is due.
    reseal: bool,
    /// Held, and says where a closed log ends.
    lock: File,
}

impl Log {
    /// Opens the directory, made if absent, and reads all of it.
    pub fn open(directory: &Path, sealing: Sealing) -> Result<(Self, State), Error> {
        std::fs::create_dir_all(directory).map_err(|e| disk(directory, &e))?;
        let lock = lock(directory)?;
        let sealing = Arc::new(sealing);
        let found = recover::read(directory, &sealing)?;
        recover::check_end(&found, &lock, directory)?;
        let file = match found.end {
            Some(end) => {
                let path = log_path(directory, found.generation);
                let file = OpenOptions::new().read(true).write(true).open(&path).map_err(|e| disk(&path, &e))?;
                // What follows was torn, or allocated and never used: it must not come to stand behind new records.
                file.set_len(end).map_err(|e| disk(&path, &e))?;
                file
            }
            None => create(directory, found.generation)?,
        };
        let revision = if found.closed { found.revision } else { found.revision + RENEWALS };
        let state = State::recovered(found.entries, revision);
        let end = found.end.unwrap_or(0);
        let mut log = Self {
            directory: directory.to_owned(),
            sealing,
            file,
            generation: found.generation,
            end,
            allocated: end,
            durable_end: end,
            durable: revision,
            newest: revision,
            writer: Writer::default(),
            poisoned: None,
            snapshot: None,
            below: Arc::new(found.snapshot_bytes.into()),
            reseal: found.reseal,
            lock,
        };
        log.mark(if end > 0 { Op::Opened } else { Op::Begin })?;
        log.lock.set_len(0).and_then(|()| log.lock.sync_data()).map_err(|e| disk(&directory.join("lock"), &e))?;
        recover::sweep(directory, found.base);
        Ok((log, state))
    }

    /// Makes a group durable, or, unless `sync`, writes it.
    ///
    /// # Errors
    /// None of the group happened.
    pub fn commit(&mut self, events: &[Event], sync: bool) -> Result<(), Error> {
        if let Some(error) = &self.poisoned {
            return Err(error.clone());
        }
        for event in events {
            let deleted = event.kind == EventKind::Deleted;
            let value = if deleted { &[][..] } else { &event.value };
            let op = if deleted { Op::Delete } else { Op::Put };
            self.writer.row(&Row { op, revision: event.revision, key: event.key.as_bytes(), value }, &self.sealing)?;
        }
        let newest = events.last().map_or(self.newest, |event| event.revision);
        let sync = sync || newest > self.durable + RENEWALS;
        self.append(newest, sync)
    }

    /// Rotates the log when it outweighs what it stands for. `state` holds all that was committed.
    pub fn maintain(&mut self, state: &Arc<RwLock<State>>) {
        let below = self.below.load(std::sync::atomic::Ordering::Acquire);
        let busy = self.snapshot.as_ref().is_some_and(|thread| !thread.is_finished());
        let due = self.reseal || self.end >= LOG_BYTES_MIN.max(below.saturating_mul(2));
        if busy || self.poisoned.is_some() || !due {
            return;
        }
        self.reseal = false;
        if let Err(error) = self.rotate(state) {
            tracing::error!(%error, "the log cannot be rotated, and grows");
        }
    }

    fn rotate(&mut self, state: &Arc<RwLock<State>>) -> Result<(), Error> {
        check_space(&self.directory, 0)?;
        self.mark(Op::Closed)?;
        let generation = self.generation + 1;
        let file = create(&self.directory, generation)?;
        (self.file, self.generation) = (file, generation);
        (self.end, self.allocated, self.durable_end) = (0, 0, 0);
        self.mark(Op::Begin)?;
        let (directory, sealing, state, below) =
            (self.directory.clone(), self.sealing.clone(), state.clone(), self.below.clone());
        let work = move || match snapshot::take(&directory, generation, &state, &sealing) {
            Ok(bytes) => {
                below.store(bytes, std::sync::atomic::Ordering::Release);
                recover::sweep(&directory, generation);
            }
            Err(error) => tracing::error!(%error, "no snapshot: the log before it is kept"),
        };
        let thread = std::thread::Builder::new().name("store-snapshot".into()).stack_size(256 * 1024).spawn(work);
        self.snapshot = Some(thread.map_err(|e| Error::Disk(format!("cannot start the snapshot: {e}")))?);
        Ok(())
    }

    fn close(&mut self) -> Result<(), Error> {
        self.mark(Op::Closed)?;
        let end = format!("{} {}\n", self.generation, self.end);
        let written = self.lock.write_all_at(end.as_bytes(), 0).and_then(|()| self.lock.sync_data());
        written.map_err(|e| disk(&self.directory.join("lock"), &e))
    }

    /// Appends a record that says something about the log itself, and syncs.
    fn mark(&mut self, op: Op) -> Result<(), Error> {
        let value = if op == Op::Begin { FORMAT.to_le_bytes().to_vec() } else { Vec::new() };
        self.writer.row(&Row { op, revision: self.newest, key: &[], value: &value }, &self.sealing)?;
        self.append(self.newest, true)
    }

    /// Appends what the writer holds, up to revision `newest`.
    fn append(&mut self, newest: Revision, sync: bool) -> Result<(), Error> {
        let result = self.append_whole(newest, sync);
        self.writer.clear(BUFFER_BYTES_KEPT);
        result
    }

    fn append_whole(&mut self, newest: Revision, sync: bool) -> Result<(), Error> {
        let bytes = self.writer.finish(self.durable_end);
        let length = bytes.len() as u64;
        let path = log_path(&self.directory, self.generation);
        allocate(&self.file, &self.directory, &mut self.allocated, self.end, length)?;
        if let Err(error) = self.file.write_all_at(bytes, self.end) {
            // Half a record must not come to stand behind the next one.
            let cut = self.file.set_len(self.end);
            self.allocated = self.end;
            let error = disk(&path, &error);
            if cut.is_err() {
                self.poisoned = Some(error.clone());
            }
            return Err(error);
        }
        if sync && let Err(error) = self.file.sync_data() {
            let error = disk(&path, &error);
            self.poisoned = Some(error.clone());
            return Err(error);
        }
        self.end += length;
        self.newest = newest;
        if sync {
            (self.durable, self.durable_end) = (newest, self.end);
        }
        Ok(())
    }
}

impl Drop for Log {
    /// Says that the log ends here, so that nothing that is missing from it can pass for a crash.
    fn drop(&mut self) {
        if self.poisoned.is_none()
            && let Err(error) = self.close()
        {
            tracing::warn!(%error, "the log was not closed");
        }
        if let Some(thread) = self.snapshot.take() {
            let _ = thread.join(); // it has told of its errors
        }
    }
}

fn allocate(file: &File, directory: &Path, allocated: &mut u64, end: u64, length: u64) -> Result<(), Error> {
    if end + length <= *allocated {
        return Ok(());
    }
    let wanted = (end + length - *allocated).next_multiple_of(STEP_BYTES);
    check_space(directory, wanted)?;
    match rustix::fs::fallocate(file, FallocateFlags::empty(), *allocated, wanted) {
        Ok(()) => *allocated += wanted,
        // A file system that cannot: appending alone is as right, and a little slower.
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {}
        Err(rustix::io::Errno::NOSPC) => return Err(full(directory, 0, wanted)),
        Err(error) => return Err(Error::Disk(format!("{}: {error}", directory.display()))),
    }
    Ok(())
}

fn check_space(directory: &Path, wanted: u64) -> Result<(), Error> {
    let stat = rustix::fs::statvfs(directory).map_err(|e| Error::Disk(e.to_string()))?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    if free < RESERVE_BYTES + wanted { Err(full(directory, free, RESERVE_BYTES + wanted)) } else { Ok(()) }
}

fn full(directory: &Path, free: u64, needed: u64) -> Error {
    Error::DiskFull { directory: directory.display().to_string(), free, needed }
}

fn lock(directory: &Path) -> Result<File, Error> {
    let path = directory.join("lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(&path)
        .map_err(|e| disk(&path, &e))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(Error::InUse { directory: directory.display().to_string() }),
        Err(error) => Err(Error::Disk(format!("{}: {error}", path.display()))),
    }
}

fn create(directory: &Path, generation: u64) -> Result<File, Error> {
    let path = log_path(directory, generation);
    let file = OpenOptions::new()
        .create_new(true)
        .read(true)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(|e| disk(&path, &e))?;
    sync_directory(directory)?;
    Ok(file)
}

/// A file that was made, renamed or removed is so for good only after this.
fn sync_directory(directory: &Path) -> Result<(), Error> {
    File::open(directory).and_then(|it| it.sync_all()).map_err(|e| disk(directory, &e))
}

fn log_path(directory: &Path, generation: u64) -> PathBuf {
    directory.join(format!("{generation:010}.log"))
}

fn snapshot_path(directory: &Path, generation: u64) -> PathBuf {
    directory.join(format!("{generation:010}.snapshot"))
}

fn disk(path: &Path, error: &std::io::Error) -> Error {
    Error::Disk(format!("{}: {error}", path.display()))
}
