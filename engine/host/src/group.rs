//! Gives a tree of files to a group: what a volume that several pods use needs, when they are of several users.
//!
//! Pods may write to the tree meanwhile, so nothing is looked up by a path: each directory is opened in its parent, and
//! links are given away, never followed.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{FileStat, Mode, fchmod, fstat};
use nix::unistd::{Gid, fchown, fchownat};

/// Deeper than any honest tree; a bound on the descriptors that are held.
const DEPTH_MAX: usize = 256;

/// Gives everything below `root`, and `root` itself, to `group`: it may read and write, and what is made in a directory
/// later is its, too. With `only_if_other` nothing is done when `root` is so already.
///
/// # Errors
/// Something cannot be given; what was before it has been.
pub fn give(root: &Path, group: u32, only_if_other: bool) -> io::Result<()> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let root = nix::fcntl::open(root, flags, Mode::empty())?;
    let found = fstat(&root)?;
    if only_if_other && found.st_gid == group && mode_for(&found) == found.st_mode & 0o7777 {
        return Ok(());
    }
    directory(root, group, 0)
}

fn directory(fd: OwnedFd, group: u32, depth: usize) -> io::Result<()> {
    if depth > DEPTH_MAX {
        return Err(io::Error::other("a volume has more than 256 directories in each other"));
    }
    let mut dir = Dir::from_fd(fd.try_clone()?)?;
    for entry in dir.iter() {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        match one(&fd, name, entry.file_type(), group, depth) {
            // It went meanwhile.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
    }
    // The root last: while it is not given, all of it is done again.
    own(&fd, group)
}

fn one(parent: &OwnedFd, name: &std::ffi::CStr, kind: Option<Type>, group: u32, depth: usize) -> io::Result<()> {
    if kind == Some(Type::Symlink) {
        return Ok(fchownat(parent, name, None, Some(Gid::from_raw(group)), AtFlags::AT_SYMLINK_NOFOLLOW)?);
    }
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    match openat(parent, name, flags | OFlag::O_DIRECTORY, Mode::empty()) {
        Ok(fd) => return directory(fd, group, depth + 1),
        Err(Errno::ENOTDIR | Errno::ELOOP) => {}
        Err(e) => return Err(e.into()),
    }
    match kind {
        Some(Type::File) => match openat(parent, name, flags, Mode::empty()) {
            Ok(fd) => own(&fd, group),
            Err(Errno::ELOOP) => Ok(()), // a link now; the next who starts gives it away
            Err(e) => Err(e.into()),
        },
        // Sockets and the like are not opened: who has their directory's rights may connect.
        _ => Ok(fchownat(parent, name, None, Some(Gid::from_raw(group)), AtFlags::AT_SYMLINK_NOFOLLOW)?),
    }
}

fn own(fd: &impl AsFd, group: u32) -> io::Result<()> {
    let found = fstat(fd)?;
    fchown(fd, None, Some(Gid::from_raw(group)))?;
    Ok(fchmod(fd, Mode::from_bits_truncate(mode_for(&found)))?)
}

/// The mode with the group's rights added; a directory hands its group down.
fn mode_for(found: &FileStat) -> u32 {
    let is_dir = found.st_mode & nix::libc::S_IFMT == nix::libc::S_IFDIR;
    found.st_mode & 0o7777 | if is_dir { 0o2770 } else { 0o660 }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    /// Needs root, as all of this does.
    #[test]
    fn a_tree_and_nothing_else_is_given() {
        let dir = tempfile::tempdir().unwrap();
        let (root, other) = (dir.path().join("root"), dir.path().join("other"));
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::create_dir(&other).unwrap();
        for file in [root.join("a/b/file"), other.join("file")] {
            fs::write(&file, "").unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        }
        symlink(&other, root.join("out")).unwrap();
        symlink(other.join("file"), root.join("link")).unwrap();
        let seen = |path: &Path| {
            let found = fs::symlink_metadata(path).unwrap();
            (found.gid(), found.mode() & 0o7777)
        };
        give(&root, 4321, false).unwrap();
        assert_eq!(seen(&root), (4321, 0o2775));
        assert_eq!(seen(&root.join("a/b")), (4321, 0o2775));
        assert_eq!(seen(&root.join("a/b/file")), (4321, 0o660));
        assert_eq!((seen(&root.join("out")).0, seen(&root.join("link")).0), (4321, 4321));
        assert_eq!((seen(&other).0, seen(&other.join("file"))), (0, (0, 0o600)), "links are not followed");
        // A root that is right is taken for all of it, if that is the policy.
        fs::write(root.join("new"), "").unwrap();
        std::os::unix::fs::chown(root.join("new"), None, Some(0)).unwrap();
        give(&root, 4321, true).unwrap();
        assert_eq!(seen(&root.join("new")).0, 0);
        give(&root, 4321, false).unwrap();
        assert_eq!(seen(&root.join("new")).0, 4321);
    }
}
