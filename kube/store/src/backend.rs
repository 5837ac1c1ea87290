//! Where a group of writes becomes durable. On disk it is fjall, a log-structured engine: one batch goes to
//! its journal and is synced with `fdatasync`.
//!
//! A row of the keyspace `objects` is `key → revision (8 bytes, big endian) ‖ value`; the keyspace `meta`
//! holds `revision`, written in the same batch.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use crate::state::State;
use crate::{Error, Event, EventKind, Revision};

/// Bytes that stay free: the engine's own files must be able to grow when it cleans up, and a journal that
/// hits the end of the disk cannot be continued without opening the store again.
const RESERVE_BYTES: u64 = 32 * 1024 * 1024;
/// The engine's block cache. All reads are served from memory, so it is only for its own compaction.
const CACHE_BYTES: u64 = 512 * 1024;
/// The engine's write buffer.
const MEMTABLE_BYTES: u64 = 2 * 1024 * 1024;
/// The engine's smallest allowed journal bound.
const JOURNAL_BYTES: u64 = 64 * 1024 * 1024;

const REVISION: &str = "revision";

pub(crate) enum Backend {
    Memory,
    Disk(Disk),
}

pub(crate) struct Disk {
    directory: PathBuf,
    database: Database,
    objects: Keyspace,
    meta: Keyspace,
}

impl Backend {
    /// Opens the engine and reads everything it holds.
    pub fn open(directory: &Path) -> Result<(Self, State), Error> {
        let disk = Disk::open(directory)?;
        let state = disk.read()?;
        Ok((Self::Disk(disk), state))
    }

    /// Makes a group durable, all of it or nothing.
    pub fn commit(&mut self, events: &[Event]) -> Result<(), Error> {
        match self {
            Self::Memory => Ok(()),
            Self::Disk(disk) => disk.commit(events),
        }
    }
}

impl Disk {
    fn open(directory: &Path) -> Result<Self, Error> {
        std::fs::create_dir_all(directory).map_err(|e| Error::Disk(format!("{}: {e}", directory.display())))?;
        let database = Database::builder(directory)
            .cache_size(CACHE_BYTES)
            .max_journaling_size(JOURNAL_BYTES)
            .worker_threads(1)
            .open()
            .map_err(|e| match e {
                fjall::Error::Locked => Error::InUse { directory: directory.display().to_string() },
                other => Error::Disk(format!("{}: {other}", directory.display())),
            })?;
        let options = || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES);
        let objects = database.keyspace("objects", options).map_err(disk)?;
        let meta = database.keyspace("meta", options).map_err(disk)?;
        Ok(Self { directory: directory.to_owned(), database, objects, meta })
    }

    fn read(&self) -> Result<State, Error> {
        let revision = match self.meta.get(REVISION).map_err(disk)? {
            Some(bytes) => Revision::from_be_bytes(
                bytes.as_ref().try_into().map_err(|_| Error::Disk("the stored revision is damaged".into()))?,
            ),
            None => 0,
        };
        let mut entries = BTreeMap::new();
        for row in self.objects.iter() {
            let (key, row) = row.into_inner().map_err(disk)?;
            let (key, entry) = decode(&key, &row)?;
            entries.insert(key, entry);
        }
        Ok(State::recovered(entries, revision))
    }

    fn commit(&mut self, events: &[Event]) -> Result<(), Error> {
        self.check_space()?;
        let mut batch = self.database.batch().durability(Some(PersistMode::SyncData));
        for event in events {
            if event.kind == EventKind::Deleted {
                batch.remove(&self.objects, event.key.as_bytes());
            } else {
                batch.insert(&self.objects, event.key.as_bytes(), encode(event.revision, &event.value));
            }
        }
        if let Some(last) = events.last() {
            batch.insert(&self.meta, REVISION, last.revision.to_be_bytes());
        }
        batch.commit().map_err(disk)
    }

    fn check_space(&self) -> Result<(), Error> {
        let stat = rustix::fs::statvfs(&self.directory).map_err(|e| Error::Disk(e.to_string()))?;
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        if free < RESERVE_BYTES {
            let directory = self.directory.display().to_string();
            return Err(Error::DiskFull { directory, free, needed: RESERVE_BYTES });
        }
        Ok(())
    }
}

fn encode(revision: Revision, value: &[u8]) -> Vec<u8> {
    let mut row = Vec::with_capacity(8 + value.len());
    row.extend_from_slice(&revision.to_be_bytes());
    row.extend_from_slice(value);
    row
}

fn decode(key: &[u8], row: &[u8]) -> Result<(Arc<str>, (Revision, Bytes)), Error> {
    let damaged = || Error::Disk(format!("the row of {} is damaged", String::from_utf8_lossy(key)));
    let name = std::str::from_utf8(key).map_err(|_| damaged())?;
    let (revision, value) = row.split_first_chunk::<8>().ok_or_else(damaged)?;
    Ok((name.into(), (Revision::from_be_bytes(*revision), Bytes::copy_from_slice(value))))
}

fn disk(error: fjall::Error) -> Error {
    Error::Disk(error.to_string())
}
