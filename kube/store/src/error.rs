//! What can go wrong, and what the caller may do about it.

use crate::Revision;

/// Why a request to the store was not carried out. After any error the request has had no effect.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// Correct: use another key, or write with the revision found.
    #[error("{key} exists already, at revision {found}")]
    Exists {
        /// The key.
        key: String,
        /// Its revision.
        found: Revision,
    },
    /// Correct: the key has no value to replace or remove.
    #[error("{key} does not exist")]
    NotFound {
        /// The key.
        key: String,
    },
    /// Read again, then retry: somebody wrote in between.
    #[error("{key} is at revision {found}, not {expected}")]
    Conflict {
        /// The key.
        key: String,
        /// The revision that the writer had read.
        expected: Revision,
        /// The revision that it has.
        found: Revision,
    },
    /// Correct: the value is too large.
    #[error("{key}: {bytes} bytes, and at most {limit} fit")]
    TooLarge {
        /// The key.
        key: String,
        /// The value's length.
        bytes: usize,
        /// [`crate::VALUE_BYTES_MAX`].
        limit: usize,
    },
    /// List again: the history does not reach back to this revision.
    #[error("revision {asked} has been compacted; the oldest is {oldest}")]
    Compacted {
        /// The revision asked for.
        asked: Revision,
        /// The oldest one known.
        oldest: Revision,
    },
    /// Wait: this revision has not been written yet.
    #[error("revision {asked} is in the future; the newest is {newest}")]
    Future {
        /// The revision asked for.
        asked: Revision,
        /// The newest one.
        newest: Revision,
    },
    /// Free space, then retry.
    #[error("the disk of {directory} is full: {free} bytes are free and {needed} are kept in reserve")]
    DiskFull {
        /// Where the store lies.
        directory: String,
        /// Bytes free.
        free: u64,
        /// Bytes that must stay free.
        needed: u64,
    },
    /// Give up: the disk refused. Until the store is opened again every write is refused.
    #[error("the disk refused: {0}")]
    Disk(String),
    /// Give up, and restore a backup: what a file holds is not what was written.
    #[error("{file} is damaged at byte {offset}: {problem}")]
    Damaged {
        /// The file.
        file: String,
        /// Where in it.
        offset: u64,
        /// What does not check.
        problem: String,
    },
    /// Use the version that made it: the directory is in a format that is not known here.
    #[error("{directory} is in {found}; known here is format {known}")]
    Format {
        /// The directory or file.
        directory: String,
        /// What it is in.
        found: String,
        /// The format that is known.
        known: u32,
    },
    /// Correct the keys: a value cannot be sealed or opened.
    #[error("{0}")]
    Sealing(String),
    /// Give up: another process has this directory open.
    #[error("{directory} is in use by another process")]
    InUse {
        /// The directory.
        directory: String,
    },
    /// Give up: the store has been closed.
    #[error("the store is closed")]
    Closed,
}
