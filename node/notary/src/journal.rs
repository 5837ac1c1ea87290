//! The log on disk: every record in the order in which it was made, synced before it counts.
//!
//! ```text
//!   <16 hex of SHA-256> <record as JSON>\n      one line for each; DIR/log/journal
//! ```
//! A *torn* line is the last one if it is not whole: nobody was told of it, and it is dropped. Checksums find accidents. Who changes a
//! line and its checksum changes the root, which witnesses have.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read as _, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use fluidos_identity::{FileError, read_file, replace_file, sha256_hex};

use crate::book::{Book, Record};

const FILE: &str = "journal";
const DRAFT: &str = "journal.new";
const DAMAGED: &str = "journal.damaged";
/// Why the log is not believed to be whole, until it has been compared with what others keep.
const LOST: &str = "lost";
const REASON_BYTES_MAX: usize = 1024;
const CHECKSUM_LENGTH: usize = 16;
/// A record names a contract and has a digest and a time.
const LINE_BYTES_MAX: u64 = 4096;

/// Why the log cannot be kept on disk.
#[derive(Debug, thiserror::Error)]
#[error("{action} {}: {source}", path.display())]
pub struct JournalError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// What there is on disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Found {
    /// A whole log.
    Whole,
    /// None.
    Nothing,
    /// One that is not what was written, from this byte on.
    Damaged {
        /// Where the bad line begins.
        offset: u64,
        /// What is wrong with it.
        reason: String,
    },
}

/// An open journal.
#[derive(Debug)]
pub struct Journal {
    directory: PathBuf,
    file: File,
    /// A write has failed: what is behind this length is not known.
    broken: Option<u64>,
    length: u64,
}

/// Begins the log of a node that is new, so that it is not taken for one that has lost it. One that is there stays.
///
/// # Errors
/// [`JournalError`].
pub fn begin(directory: &Path) -> Result<(), JournalError> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700).create(directory).map_err(failed("creating directory", directory))?;
    open_file(directory).map(|_| ())?;
    sync_directory(directory)
}

/// Reads the log of a node, whether or not it runs.
///
/// # Errors
/// [`JournalError`] if it cannot be read.
pub fn read(directory: &Path) -> Result<(Book, Found), JournalError> {
    let path = directory.join(FILE);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Book::default(), Found::Nothing)),
        Err(error) => return Err(failed("opening", &path)(error)),
    };
    let (book, _, found) = replay(&file, &path)?;
    Ok((book, found))
}

impl Journal {
    /// Opens the journal of a node that is to run, with the log that it holds, and why that may not be all there was.
    ///
    /// # Errors
    /// [`JournalError`] if it cannot be read or written.
    pub fn open(directory: &Path) -> Result<(Self, Book, Option<String>), JournalError> {
        let (path, lost) = (directory.join(FILE), directory.join(LOST));
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(0o700).create(directory).map_err(failed("creating directory", directory))?;
        let mark = |reason: &str| {
            replace_file(&lost, reason.as_bytes()).map_err(|error| failed("writing", &lost)(io::Error::other(error)))
        };
        // Before there is a journal: a process that is killed here must not take an empty one for whole.
        if !path.exists() {
            mark("there is no log here, and the key is older")?;
        }
        let file = open_file(directory)?;
        let (book, length, found) = replay(&file, &path)?;
        let mut journal = Self { directory: directory.into(), file, broken: None, length };
        if let Found::Damaged { offset, reason } = &found {
            mark(&format!("the log was damaged at byte {offset}: {reason}"))?;
            // What is before the damage may be of use: it is what this node still knows.
            let aside = directory.join(DAMAGED);
            std::fs::copy(&path, &aside).map_err(failed("copying", &aside))?;
            journal.replace(&book)?;
        } else {
            journal.cut(length)?;
        }
        let reason = match read_file(&lost, REASON_BYTES_MAX) {
            Ok(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
            Err(FileError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => None,
            Err(error) => Some(error.to_string()),
        };
        Ok((journal, book, reason))
    }

    /// The log has been compared: it is whole, or what is missing is known.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn compared(&self) -> Result<(), JournalError> {
        let lost = self.directory.join(LOST);
        match std::fs::remove_file(&lost) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("removing", &lost)(error)),
            _ => sync_directory(&self.directory),
        }
    }

    /// Keeps records; when this has returned they are on disk.
    ///
    /// # Errors
    /// [`JournalError`]: they do not count.
    pub fn append(&mut self, records: &[Record]) -> Result<(), JournalError> {
        let path = self.directory.join(FILE);
        if let Some(length) = self.broken {
            self.cut(length)?;
            self.broken = None;
        }
        let lines =
            records.iter().map(line).collect::<io::Result<Vec<_>>>().map_err(failed("writing", &path))?.concat();
        if let Err(error) = self.file.write_all(&lines).and_then(|()| self.file.sync_data()) {
            self.broken = Some(self.length);
            return Err(failed("writing", &path)(error));
        }
        self.length += lines.len() as u64;
        Ok(())
    }

    /// Puts another log in its place: after a crash at any instant there is the old one or the new one.
    ///
    /// # Errors
    /// [`JournalError`]: the old one is there.
    pub fn replace(&mut self, book: &Book) -> Result<(), JournalError> {
        let (draft, path) = (self.directory.join(DRAFT), self.directory.join(FILE));
        let lines = book.records().map(|record| line(&record)).collect::<io::Result<Vec<_>>>();
        let lines = lines.map_err(failed("writing", &draft))?.concat();
        let write = || {
            let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&draft)?;
            file.write_all(&lines)?;
            file.sync_all()?;
            std::fs::rename(&draft, &path)
        };
        write().map_err(failed("writing", &draft))?;
        sync_directory(&self.directory)?;
        self.file = open_file(&self.directory)?;
        (self.length, self.broken) = (lines.len() as u64, None);
        self.file.seek(SeekFrom::End(0)).map(|_| ()).map_err(failed("seeking in", &path))
    }

    fn cut(&mut self, length: u64) -> Result<(), JournalError> {
        let path = self.directory.join(FILE);
        self.file.set_len(length).and_then(|()| self.file.sync_all()).map_err(failed("cutting", &path))?;
        self.file.seek(SeekFrom::End(0)).map(|_| ()).map_err(failed("seeking in", &path))
    }
}

fn open_file(directory: &Path) -> Result<File, JournalError> {
    let path = directory.join(FILE);
    let file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(&path);
    file.map_err(failed("opening", &path))
}

/// Returns the log that the whole lines make, their length, and what is behind them.
fn replay(file: &File, path: &Path) -> Result<(Book, u64, Found), JournalError> {
    let total = file.metadata().map_err(failed("reading", path))?.len();
    let (mut reader, mut offset, mut bytes, mut book) = (BufReader::new(file), 0, Vec::new(), Book::default());
    loop {
        bytes.clear();
        let mut limited = (&mut reader).take(LINE_BYTES_MAX);
        let read = limited.read_until(b'\n', &mut bytes).map_err(failed("reading", path))? as u64;
        if read == 0 {
            return Ok((book, offset, Found::Whole));
        }
        match record(&bytes).and_then(|record| book.apply(&record)) {
            Ok(()) => offset += read,
            Err(reason) if offset + read == total && !bytes.ends_with(b"\n") => {
                tracing::warn!(
                    offset,
                    reason,
                    "the last line of the log is torn: nobody was told of it, and it is dropped"
                );
                return Ok((book, offset, Found::Whole));
            }
            Err(reason) => return Ok((book, offset, Found::Damaged { offset, reason })),
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
    let (sum, json) = line.split_at_checked(CHECKSUM_LENGTH).ok_or("the line is too short")?;
    let json = json.strip_prefix(b" ").ok_or("there is no checksum")?;
    if checksum(json).as_bytes() != sum {
        return Err("the checksum is of other words".into());
    }
    serde_json::from_slice(json).map_err(|error| error.to_string())
}

fn checksum(bytes: &[u8]) -> String {
    sha256_hex(bytes).chars().take(CHECKSUM_LENGTH).collect()
}

fn sync_directory(directory: &Path) -> Result<(), JournalError> {
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed("syncing", directory))
}

fn failed(action: &'static str, path: &Path) -> impl Fn(io::Error) -> JournalError + use<> {
    let path = path.to_owned();
    move |source| JournalError { action, path: path.clone(), source }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use fluidos_log::{Entry, EntryKind, leaf_hash};

    use super::*;

    fn record(name: &str) -> Record {
        let digest = leaf_hash(name.as_bytes());
        Record::Entry(Entry { kind: EntryKind::ContractSigned, of: name.into(), digest, at: None })
    }

    #[test]
    fn what_was_kept_is_there_again_and_what_was_torn_was_never_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        begin(folder.path()).unwrap();
        let (mut journal, book, lost) = Journal::open(folder.path()).unwrap();
        assert_eq!((book, lost), (Book::default(), None), "a new node has lost nothing");
        journal.append(&[Record::Epoch(2), record("a"), record("b")]).unwrap();
        let whole = std::fs::read(&path).unwrap();
        journal.append(&[record("c")]).unwrap();
        let all = std::fs::read(&path).unwrap();
        drop(journal);
        // Killed at any byte of the last write.
        for length in whole.len()..all.len() {
            std::fs::write(&path, &all[..length]).unwrap();
            let (mut journal, book, lost) = Journal::open(folder.path()).unwrap();
            assert_eq!((book.tree().size(), book.epoch(), lost), (2, 2, None), "{length}");
            journal.append(&[record("d")]).unwrap();
            assert_eq!(read(folder.path()).unwrap().0.tree().size(), 3, "{length}");
        }
    }

    #[test]
    fn a_log_that_is_gone_is_not_new_until_it_has_been_compared() {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join("log");
        for _ in 0..2 {
            let (_, _, lost) = Journal::open(&directory).unwrap();
            assert_eq!(lost.as_deref(), Some("there is no log here, and the key is older"), "also after a kill");
        }
        Journal::open(&directory).unwrap().0.compared().unwrap();
        assert_eq!(Journal::open(&directory).unwrap().2, None);
    }

    #[test]
    fn a_changed_byte_is_damage_and_what_was_before_it_is_known() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        begin(folder.path()).unwrap();
        let (mut journal, ..) = Journal::open(folder.path()).unwrap();
        journal.append(&[record("a"), record("b"), record("c")]).unwrap();
        let whole = std::fs::read(&path).unwrap();
        let second = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        for at in [second, second + 20, second + 40] {
            let mut bent = whole.clone();
            bent[at] ^= 1;
            std::fs::write(&path, &bent).unwrap();
            let (_, found) = read(folder.path()).unwrap();
            assert!(matches!(found, Found::Damaged { offset, .. } if offset == second as u64), "{found:?}");
            let (journal, book, lost) = Journal::open(folder.path()).unwrap();
            assert_eq!(book.tree().size(), 1);
            assert!(lost.unwrap().starts_with(&format!("the log was damaged at byte {second}: ")));
            assert_eq!(std::fs::read(folder.path().join(DAMAGED)).unwrap(), bent, "put aside as it was");
            assert_eq!(read(folder.path()).unwrap().1, Found::Whole);
            journal.compared().unwrap();
        }
    }

    #[test]
    fn a_log_is_replaced_whole_and_a_full_disk_keeps_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (mut journal, mut book, _) = Journal::open(folder.path()).unwrap();
        journal.append(&[record("a")]).unwrap();
        book.apply(&Record::Epoch(1)).unwrap();
        book.apply(&record("b")).unwrap();
        journal.replace(&book).unwrap();
        journal.append(&[record("c")]).unwrap();
        let (mut read_back, _) = read(folder.path()).unwrap();
        assert_eq!((read_back.epoch(), read_back.tree().size()), (1, 2));
        let file = std::mem::replace(&mut journal.file, OpenOptions::new().write(true).open("/dev/full").unwrap());
        assert!(journal.append(&[record("d")]).is_err());
        journal.file = file;
        journal.append(&[record("e")]).unwrap();
        read_back.apply(&record("e")).unwrap();
        assert_eq!(read(folder.path()).unwrap(), (read_back, Found::Whole));
    }
}
