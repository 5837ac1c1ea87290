//! A *rooted* directory answers path look-ups as if it were `/`: no `..`, absolute path or symbolic link
//! written by somebody else (an image's layer, a container's process) can lead out of it.
//!
//! ```text
//! hostile path ──openat2(RESOLVE_IN_ROOT)──▶ descriptor below the root, or an error; never a path string
//! ```
//!
//! Everything that touches files whose names or neighbours are not ours goes through here.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::{Mode, mkdirat};

/// More components than any honest path has; a bound on the look-ups one entry can cause (PATH_MAX is 4096,
/// so 2048 would be the kernel's own limit).
const COMPONENTS_MAX: usize = 256;

/// A directory that look-ups cannot leave.
pub struct Rooted(OwnedFd);

impl Rooted {
    /// Opens `path`, which is ours and trusted.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(open(path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?))
    }

    /// The root itself.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Opens what `path` names below the root, following symbolic links inside it.
    pub fn open_in(&self, path: &Path, flags: OFlag) -> io::Result<OwnedFd> {
        let inside = normal(path)?;
        let name = if inside.as_os_str().is_empty() { Path::new(".") } else { inside.as_path() };
        let how = OpenHow::new()
            .flags(flags | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        // EAGAIN: something was renamed meanwhile and the kernel cannot vouch for the walk; it asks to try again.
        let mut last = Errno::EAGAIN;
        for _ in 0..16 {
            match openat2(&self.0, name, how) {
                Ok(fd) => return Ok(fd),
                Err(Errno::EAGAIN) => last = Errno::EAGAIN,
                Err(e) => return Err(e.into()),
            }
        }
        Err(last.into())
    }

    /// The directory `path` names below the root; what is missing of it is created with mode 0755.
    pub fn create_dir_all(&self, path: &Path) -> io::Result<OwnedFd> {
        let inside = normal(path)?;
        let mut walked = PathBuf::new();
        let mut here = self.open_in(&walked, OFlag::O_PATH | OFlag::O_DIRECTORY)?;
        for component in inside.components() {
            walked.push(component);
            here = match self.open_in(&walked, OFlag::O_PATH | OFlag::O_DIRECTORY) {
                Ok(fd) => fd,
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    match mkdirat(&here, component.as_os_str(), Mode::from_bits_truncate(0o755)) {
                        Ok(()) | Err(Errno::EEXIST) => {}
                        Err(e) => return Err(e.into()),
                    }
                    self.open_in(&walked, OFlag::O_PATH | OFlag::O_DIRECTORY)?
                }
                Err(e) => return Err(e),
            };
        }
        Ok(here)
    }

    /// The directory that holds `path` (created when missing) and the last component's name.
    pub fn parent_of(&self, path: &Path) -> io::Result<(OwnedFd, OsString)> {
        let inside = normal(path)?;
        let name = inside.file_name().map(OsStr::to_owned).ok_or_else(|| refused(path, "it has no last component"))?;
        let parent = inside.parent().unwrap_or(Path::new(""));
        Ok((self.create_dir_all(parent)?, name))
    }
}

/// `path` without a leading `/` and without `.`; `..` and absurd lengths are refused.
pub fn normal(path: &Path) -> io::Result<PathBuf> {
    let mut inside = PathBuf::new();
    for (n, component) in path.components().enumerate() {
        if n >= COMPONENTS_MAX {
            return Err(refused(path, "it has more than 256 components"));
        }
        match component {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) => inside.push(name),
            Component::ParentDir => return Err(refused(path, "it contains ..")),
            Component::Prefix(_) => return Err(refused(path, "it has a prefix")),
        }
    }
    Ok(inside)
}

fn refused(path: &Path, why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("path {} refused: {why}", path.display()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use super::*;

    #[test]
    fn a_symlink_cannot_lead_out() {
        let dir = tempfile::tempdir().unwrap();
        let inside = dir.path().join("root");
        std::fs::create_dir(&inside).unwrap();
        std::os::unix::fs::symlink(dir.path(), inside.join("out")).unwrap();
        std::os::unix::fs::symlink("../..", inside.join("up")).unwrap();
        let root = Rooted::open(&inside).unwrap();
        assert!(root.open_in(Path::new("out/root"), OFlag::O_PATH).is_err());
        assert!(root.open_in(Path::new("up/root"), OFlag::O_PATH).is_err());
        assert!(root.create_dir_all(Path::new("a/../../b")).is_err());
        root.create_dir_all(Path::new("/a/b")).unwrap();
        assert!(inside.join("a/b").is_dir());
    }
}
