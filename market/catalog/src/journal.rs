//! The journal: every change in the order of its acknowledgement, on disk before it is acknowledged.
//!
//! ```text
//!   <16 hex of SHA-256> <record as JSON>\n      one line for each change; DIR/journal
//! ```
//! A *torn line* is the last one if it is not whole: its writing was cut off, so nobody was told that it stands; it is dropped. A line
//! that is not whole before others is damage, and no start. The journal is *compacted* when it has grown to twice what the book
//! needs: the book is written beside it, synced, and renamed over it.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::book::{Book, Record};

const FILE: &str = "journal";
const DRAFT: &str = "journal.new";
const LOCK: &str = "journal.lock";
/// Smaller is not worth compacting.
const COMPACT_BYTES_MIN: u64 = 1024 * 1024;
/// A record is an envelope of at most 4 KiB in base64, with a signature and a name.
const LINE_BYTES_MAX: u64 = 16 * 1024;

/// Why the journal cannot be used, or a change not be kept.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The system refused.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is not what was written. The owner must decide: put a copy there, or move it away and begin anew.
    #[error("{}: damaged at byte {offset}: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where the bad line begins.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
}

impl JournalError {
    /// Whether there is no room left.
    pub fn is_full(&self) -> bool {
        let kind = match self {
            Self::Io { source, .. } => source.kind(),
            Self::Damaged { .. } => return false,
        };
        matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
    }
}

/// An open journal. One process has it.
#[derive(Debug)]
pub struct Journal {
    directory: PathBuf,
    file: File,
    length: u64,
    /// At this length it is compacted.
    compact_at: u64,
    compact_min: u64,
    /// A write has failed: what is on disk after `length` is not known, so nothing is added until the file is a new one.
    broken: bool,
    /// Held while this lives.
    _lock: File,
}

impl Journal {
    /// Opens the journal of a directory, and applies what it holds to the book.
    ///
    /// # Errors
    /// [`JournalError`]: somebody else has it, it cannot be read, or is damaged.
    pub fn open(directory: &Path, book: &mut Book) -> Result<Self, JournalError> {
        let at = |action| move |path: &Path| failed(action, path);
        let lock_path = directory.join(LOCK);
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(&lock_path);
        let lock = lock.map_err(at("opening")(&lock_path))?;
        lock.try_lock().map_err(|error| at("locking")(&lock_path)(error.into()))?;
        let path = directory.join(FILE);
        let file = OpenOptions::new().read(true).append(true).create(true).open(&path);
        let mut file = file.map_err(at("opening")(&path))?;
        let length = replay(&file, &path, book)?;
        // The torn line goes, so that the next one does not begin in it.
        file.set_len(length).and_then(|()| file.sync_all()).map_err(at("cutting")(&path))?;
        file.seek(SeekFrom::End(0)).map_err(at("seeking in")(&path))?;
        sync_directory(directory)?;
        let directory = directory.to_owned();
        let compact_at = COMPACT_BYTES_MIN.max(length * 2);
        Ok(Self { directory, file, length, compact_at, compact_min: COMPACT_BYTES_MIN, broken: false, _lock: lock })
    }

    /// Keeps a change; when this has returned, it is on disk. `book` is what stands without it.
    ///
    /// # Errors
    /// [`JournalError::Io`]: it may or may not be kept, and must not be acknowledged.
    pub(crate) fn append(&mut self, record: &Record, book: &Book) -> Result<(), JournalError> {
        if self.broken || self.length >= self.compact_at {
            self.compact(book)?;
        }
        let path = self.directory.join(FILE);
        let line = line(record).map_err(failed("writing", &path))?;
        let written = self.file.write_all(&line).and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            self.broken = true;
            return Err(failed("writing", &path)(error));
        }
        self.length += line.len() as u64;
        Ok(())
    }

    /// Makes the next write fail as on a full disk (full(4)).
    #[cfg(test)]
    pub(crate) fn on_a_full_disk(&mut self) {
        if let Ok(file) = OpenOptions::new().write(true).open("/dev/full") {
            self.file = file;
        }
    }

    /// Compacts sooner than a megabyte.
    #[cfg(test)]
    pub(crate) fn compact_beyond(&mut self, length: u64) {
        self.compact_min = length;
        self.compact_at = length;
    }

    fn compact(&mut self, book: &Book) -> Result<(), JournalError> {
        let draft = self.directory.join(DRAFT);
        let written = write_all(&draft, book).and_then(|written| {
            std::fs::rename(&draft, self.directory.join(FILE))?;
            Ok(written)
        });
        let (file, length) = written.map_err(|error| {
            let _ = std::fs::remove_file(&draft); // it takes room; the first error is the one that matters
            failed("compacting", &draft)(error)
        })?;
        // From here on the new file is the journal, also if its name is not yet on disk: then the next change does not succeed.
        (self.file, self.length, self.broken) = (file, length, true);
        self.compact_at = self.compact_min.max(length * 2);
        sync_directory(&self.directory)?;
        self.broken = false;
        Ok(())
    }
}

fn write_all(path: &Path, book: &Book) -> io::Result<(File, u64)> {
    let file = OpenOptions::new().create(true).truncate(true).write(true).open(path)?;
    let (mut writer, mut length) = (BufWriter::new(file), 0);
    for record in book.records() {
        let line = line(&record)?;
        writer.write_all(&line)?;
        length += line.len() as u64;
    }
    let file = writer.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.sync_all()?;
    Ok((file, length))
}

/// Applies all whole lines; returns their length.
fn replay(file: &File, path: &Path, book: &mut Book) -> Result<u64, JournalError> {
    let total = file.metadata().map_err(failed("reading", path))?.len();
    let (mut reader, mut offset, mut bytes) = (BufReader::new(file), 0, Vec::new());
    loop {
        bytes.clear();
        let mut limited = io::Read::take(&mut reader, LINE_BYTES_MAX);
        let read = limited.read_until(b'\n', &mut bytes).map_err(failed("reading", path))? as u64;
        if read == 0 {
            return Ok(offset);
        }
        let applied = record(&bytes).and_then(|record| book.apply(record));
        match applied {
            Ok(()) => offset += read,
            Err(reason) if offset + read == total => {
                tracing::warn!(
                    offset,
                    reason,
                    "the last line of the journal is torn: it was never acknowledged, and is dropped"
                );
                return Ok(offset);
            }
            Err(reason) => return Err(JournalError::Damaged { path: path.into(), offset, reason }),
        }
    }
}

fn line(record: &Record) -> io::Result<Vec<u8>> {
    let json = serde_json::to_vec(record)?;
    let mut line = checksum(&json).into_bytes();
    line.push(b' ');
    line.extend_from_slice(&json);
    line.push(b'\n');
    Ok(line)
}

fn record(line: &[u8]) -> Result<Record, String> {
    let line = line.strip_suffix(b"\n").ok_or("the line has no end")?;
    let (sum, json) = line.split_at_checked(16).ok_or("the line is too short")?;
    let json = json.strip_prefix(b" ").ok_or("there is no checksum")?;
    if checksum(json).as_bytes() != sum {
        return Err("the checksum is of other words".into());
    }
    serde_json::from_slice(json).map_err(|error| error.to_string())
}

fn checksum(bytes: &[u8]) -> String {
    Sha256::digest(bytes)[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn sync_directory(directory: &Path) -> Result<(), JournalError> {
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed("syncing", directory))
}

fn failed(action: &'static str, path: &Path) -> impl Fn(io::Error) -> JournalError + use<> {
    let path = path.to_owned();
    move |source| JournalError::Io { action, path: path.clone(), source }
}
