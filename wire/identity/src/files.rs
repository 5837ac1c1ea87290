//! Small files that must be whole: credentials, status lists, statements.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Why a file could not be read or written. The owner must mend it.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
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
    /// It is longer than what it should be can be.
    #[error("{}: more than {max} bytes", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// The most that is read.
        max: usize,
    },
}

/// Returns the bytes of a file of at most so many.
///
/// # Errors
/// [`FileError`] if it cannot be read or is longer.
pub fn read_file(path: &Path, bytes_max: usize) -> Result<Vec<u8>, FileError> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed("opening", path))?;
    file.take(bytes_max as u64 + 1).read_to_end(&mut bytes).map_err(failed("reading", path))?;
    if bytes.len() > bytes_max { Err(FileError::TooLong { path: path.into(), max: bytes_max }) } else { Ok(bytes) }
}

/// Puts bytes at `path`, instead of what was there. Others may read it: there are no secrets in it.
///
/// *Guarantees*: after a crash at any instant the file has the old bytes or the new ones, and once this has returned the new
/// ones.
///
/// # Errors
/// [`FileError`] if it cannot be written; then the old bytes are there.
pub fn replace_file(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let draft = directory.join(format!(".{name}.{}", std::process::id()));
    let written = write(&draft, bytes).and_then(|()| fs::rename(&draft, path));
    if let Err(error) = written {
        let _ = fs::remove_file(&draft); // it may not be there, and the first error is the one that matters
        return Err(failed("writing", path)(error));
    }
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed("syncing", directory))
}

fn write(draft: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(draft)?;
    file.write_all(bytes)?;
    file.sync_all()
}

pub(crate) fn failed(action: &'static str, path: &Path) -> impl Fn(io::Error) -> FileError {
    move |source| FileError::Io { action, path: path.into(), source }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_read_up_to_its_bound() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("list");
        replace_file(&path, b"old and longer").unwrap();
        replace_file(&path, b"new").unwrap();
        assert_eq!(read_file(&path, 3).unwrap(), b"new");
        assert!(matches!(read_file(&path, 2), Err(FileError::TooLong { .. })));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no draft is left behind");
        assert!(replace_file(&dir.path().join("none/list"), b"x").is_err());
    }
}
