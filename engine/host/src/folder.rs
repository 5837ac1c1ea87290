//! A *folder* of small files that is looked at again and again: what has come, changed or gone since the last time.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What tells that a file has changed: its inode, its length, when it was written.
type Print = (u64, u64, i64, i64);

/// See the head of this file. Nothing is read that has not changed.
#[derive(Debug)]
pub struct Folder {
    dir: PathBuf,
    files_max: usize,
    file_max: u64,
    known: BTreeMap<OsString, Print>,
}

/// What there is now.
#[derive(Debug, Default)]
pub struct Looked {
    /// The names of all files that count, sorted.
    pub there: Vec<OsString>,
    /// Those that are new or have changed, and what is in them.
    pub read: Vec<(OsString, io::Result<Vec<u8>>)>,
    /// How many more there are than are read.
    pub beyond: usize,
}

impl Folder {
    /// A folder in which `files_max` files of `file_max` bytes each are read.
    pub fn new(dir: PathBuf, files_max: usize, file_max: u64) -> Self {
        Self { dir, files_max, file_max, known: BTreeMap::new() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// Looks. A folder that is not there has no files; names that begin with a dot are somebody's work in progress.
    ///
    /// # Errors
    /// It cannot be listed; what was known stays so.
    pub fn look(&mut self) -> io::Result<Looked> {
        let mut found = Vec::new();
        let entries = match fs::read_dir(&self.dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            entries => Some(entries?),
        };
        for entry in entries.into_iter().flatten() {
            let entry = entry?;
            let name = entry.file_name();
            let Ok(meta) = fs::metadata(entry.path()) else { continue }; // gone meanwhile, or a link to nothing
            if meta.is_file() && !name.as_encoded_bytes().starts_with(b".") {
                found.push((name, (meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec())));
            }
        }
        found.sort_unstable();
        let beyond = found.len().saturating_sub(self.files_max);
        found.truncate(self.files_max);
        let changed = found.iter().filter(|(name, print)| self.known.get(name) != Some(print));
        let read = changed.map(|(name, _)| (name.clone(), self.read(name))).collect();
        let there = found.iter().map(|(name, _)| name.clone()).collect();
        self.known = found.into_iter().collect();
        Ok(Looked { there, read, beyond })
    }

    fn read(&self, name: &OsString) -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        fs::File::open(self.dir.join(name))?.take(self.file_max + 1).read_to_end(&mut text)?;
        match text.len() as u64 > self.file_max {
            true => Err(io::Error::other(format!("it has more than {} bytes", self.file_max))),
            false => Ok(text),
        }
    }
}
