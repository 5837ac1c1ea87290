//! Mounts on the machine that a runtime cannot be asked for: a part of a volume, which must not lead out of it, and volumes in memory.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use engine_host::rooted::Rooted;
use nix::fcntl::OFlag;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{SFlag, fstat};

/// Shows what `inside` names below `volume` at `at`, which is ours; a directory that is not there is made. No link leads out.
pub(crate) fn bind(volume: &Path, inside: &Path, at: &Path) -> io::Result<()> {
    let root = Rooted::open(volume)?;
    let found = match root.open_in(inside, OFlag::O_PATH) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => root.create_dir_all(inside)?,
        found => found?,
    };
    let is_dir = SFlag::from_bits_truncate(fstat(&found)?.st_mode & SFlag::S_IFMT.bits()) == SFlag::S_IFDIR;
    if let Some(parent) = at.parent() {
        fs::create_dir_all(parent)?;
    }
    if is_dir {
        fs::create_dir_all(at)?;
    } else {
        File::create(at)?;
    }
    let source = PathBuf::from(format!("/proc/self/fd/{}", found.as_raw_fd()));
    Ok(mount(Some(&source), at, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)?)
}

/// A volume in memory of so many bytes (0: half of the machine's), unless it is there.
pub(crate) fn memory(at: &Path, size_bytes: u64) -> io::Result<()> {
    fs::create_dir_all(at)?;
    if mounted_below(at)?.iter().any(|found| found == at) {
        return Ok(());
    }
    let size = if size_bytes == 0 { String::new() } else { format!(",size={size_bytes}") };
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    Ok(mount(Some("tmpfs"), at, Some("tmpfs"), flags, Some(format!("mode=1777{size}").as_str()))?)
}

/// Takes away what is mounted at and below `dir`. Absence is fine.
pub(crate) fn unmount_below(dir: &Path) -> io::Result<()> {
    for at in mounted_below(dir)?.iter().rev() {
        umount2(at, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)?;
    }
    Ok(())
}

/// How often something is mounted at `at`.
pub(crate) fn layers_at(at: &Path) -> io::Result<usize> {
    Ok(mounted_below(at)?.iter().filter(|found| *found == at).count())
}

/// What is mounted at and below `dir`, in the order in which it was.
fn mounted_below(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let text = fs::read("/proc/self/mountinfo")?;
    let places = text.split(|b| *b == b'\n').filter_map(|line| line.split(|b| *b == b' ').nth(4)).map(unescaped);
    Ok(places.filter(|place| place.starts_with(dir)).collect())
}

/// The kernel writes a space, a tab, a line's end and a backslash as `\040`.
fn unescaped(text: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, next)) = rest.split_first() {
        let octal = rest.get(1..4).and_then(|three| u8::from_str_radix(std::str::from_utf8(three).ok()?, 8).ok());
        match octal.filter(|_| *first == b'\\') {
            Some(byte) => {
                bytes.push(byte);
                rest = &rest[4..];
            }
            None => {
                bytes.push(*first);
                rest = next;
            }
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, missing_docs)]
    use super::*;

    #[test]
    fn places_are_read() {
        assert_eq!(unescaped(b"/a\\040b\\134c"), Path::new("/a b\\c"));
        assert!(mounted_below(Path::new("/")).unwrap().contains(&PathBuf::from("/proc")));
        assert_eq!(layers_at(Path::new("/nowhere")).unwrap(), 0);
    }
}
