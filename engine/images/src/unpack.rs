//! Unpacks one layer into a directory that overlayfs can use as a lower one.
//!
//! A layer is written by somebody else. Every name in it is looked up below the target with
//! [`Rooted`](engine_host::rooted::Rooted), nothing is ever opened through a link that leads out, and the number of entries and bytes is
//! bounded. Whiteouts become what overlayfs calls them (OCI image specification, "Whiteouts"; kernel
//! documentation, "overlayfs: whiteouts and opaque directories"):
//!
//! ```text
//! .wh.NAME      character device 0/0 called NAME
//! .wh..wh..opq  trusted.overlay.opaque=y on the directory
//! ```

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, SFlag, UtimensatFlags, fchmod, makedev, mkdirat, mknodat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchownat, linkat, symlinkat, unlinkat};
use tar::{Entry, EntryType};

use super::Error;
use super::config::WASM_FILE;
use super::inflate::inflated;
use super::metered::each_entry;
use engine_host::rooted::{Rooted, normal};
use engine_host::sys;

/// Files in one layer: the largest distributions' root file systems have about 500,000.
const ENTRIES_MAX: usize = 1_000_000;
/// Unpacked bytes of one layer: a gzip bomb expands a thousandfold, one of zstd more, honest layers three- to fivefold.
const UNPACKED_MAX: u64 = 64 << 30;

/// Unpacks the layer `blob` (tar, or gzip or zstd of it; or bare WebAssembly) into the empty directory `target`.
pub(crate) fn unpack(what: &str, mut blob: File, target: &Path) -> Result<(), Error> {
    if is_wasm(&mut blob).map_err(Error::io("read", target))? {
        let path = target.join(WASM_FILE);
        let written = File::create_new(&path).and_then(|mut to| io::copy(&mut blob, &mut to));
        return written.map(drop).map_err(Error::io("write", path));
    }
    let reader = inflated(blob).map_err(Error::io("read", target))?;
    let root = Rooted::open(target).map_err(Error::io("open", target))?;
    let mut layer = Layer { root, directories: Vec::new() };
    let mut reader = reader.take(UNPACKED_MAX);
    let failed = |e: io::Error| Error::invalid(what, format!("cannot be read as a tar: {e}"));
    let mut entries = 0;
    each_entry(&mut reader, failed, |entry| {
        entries += 1;
        if entries > ENTRIES_MAX {
            return Err(Error::invalid(what, format!("has more than {ENTRIES_MAX} entries")));
        }
        let path = entry.path().map_err(failed)?.into_owned();
        layer.put(entry, &path).map_err(|e| Error::invalid(what, format!("entry {:.256}: {e}", path.display())))
    })?;
    if reader.limit() == 0 {
        return Err(Error::TooLarge { what: what.to_owned(), max: UNPACKED_MAX });
    }
    layer.settle().map_err(|e| Error::invalid(what, e.to_string()))
}

/// No tar begins with a name of no length that is followed by letters.
fn is_wasm(blob: &mut File) -> io::Result<bool> {
    let mut magic = [0; 4];
    let read = blob.read(&mut magic)?;
    blob.rewind()?;
    Ok(magic[..read] == *b"\0asm")
}

struct Layer {
    root: Rooted,
    /// Modes and times of directories, set last: a read-only directory could not be filled.
    directories: Vec<(PathBuf, u32, TimeSpec)>,
}

impl Layer {
    fn put<R: Read>(&mut self, entry: &mut Entry<'_, R>, path: &Path) -> io::Result<()> {
        let inside = normal(path)?;
        if inside.as_os_str().is_empty() {
            return self.put_root(entry);
        }
        let (parent, name) = self.root.parent_of(&inside)?;
        if let Some(hidden) = name.as_bytes().strip_prefix(b".wh.") {
            return whiteout(&parent, hidden);
        }
        let header = entry.header();
        let mode = header.mode()? & 0o7777;
        let owner = (Some(Uid::from_raw(narrow(header.uid()?)?)), Some(Gid::from_raw(narrow(header.gid()?)?)));
        let time = TimeSpec::new(i64::try_from(header.mtime()?).unwrap_or(0), 0);
        let kind = header.entry_type();
        if kind != EntryType::Directory {
            clear(&parent, &name)?;
        }
        match kind {
            EntryType::Directory => {
                match mkdirat(&parent, name.as_os_str(), Mode::from_bits_truncate(0o755)) {
                    Ok(()) | Err(Errno::EEXIST) => {}
                    Err(e) => return Err(e.into()),
                }
                // A name that was a file or a link before in this same archive becomes the directory it now is.
                if openat(
                    &parent,
                    name.as_os_str(),
                    OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW,
                    Mode::empty(),
                )
                .is_err()
                {
                    clear(&parent, &name)?;
                    mkdirat(&parent, name.as_os_str(), Mode::from_bits_truncate(0o755))?;
                }
                self.directories.push((inside, mode, time));
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
                let fd = openat(&parent, name.as_os_str(), flags, Mode::from_bits_truncate(0o600))?;
                let mut file = File::from(fd);
                io::copy(entry, &mut file)?;
                fchownat(&parent, name.as_os_str(), owner.0, owner.1, AtFlags::AT_SYMLINK_NOFOLLOW)?;
                fchmod(file.as_fd(), Mode::from_bits_truncate(mode))?;
                capability(entry, &file)?;
                utimensat(&parent, name.as_os_str(), &time, &time, UtimensatFlags::NoFollowSymlink)?;
                return Ok(()); // a later change of owner would clear set-uid bits and capabilities
            }
            EntryType::Symlink => {
                let to = entry.link_name()?.ok_or_else(|| io::Error::other("symbolic link without a target"))?;
                symlinkat(to.as_os_str(), &parent, name.as_os_str())?;
            }
            EntryType::Link => {
                let to = entry.link_name()?.ok_or_else(|| io::Error::other("hard link without a target"))?.into_owned();
                let (to_parent, to_name) = self.root.parent_of(&to)?;
                linkat(&to_parent, to_name.as_os_str(), &parent, name.as_os_str(), AtFlags::empty())?;
                return Ok(()); // owner, mode and time are those of the other name
            }
            EntryType::Fifo | EntryType::Char | EntryType::Block => {
                let (flag, device) = match kind {
                    EntryType::Fifo => (SFlag::S_IFIFO, 0),
                    other => {
                        let major = header.device_major()?.unwrap_or(0).into();
                        let minor = header.device_minor()?.unwrap_or(0).into();
                        let flag = if other == EntryType::Char { SFlag::S_IFCHR } else { SFlag::S_IFBLK };
                        (flag, makedev(major, minor))
                    }
                };
                mknodat(&parent, name.as_os_str(), flag, Mode::from_bits_truncate(mode), device)?;
            }
            EntryType::XGlobalHeader | EntryType::XHeader => return Ok(()),
            other => return Err(io::Error::other(format!("has the unknown type {other:?}"))),
        }
        fchownat(&parent, name.as_os_str(), owner.0, owner.1, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        if kind != EntryType::Directory {
            utimensat(&parent, name.as_os_str(), &time, &time, UtimensatFlags::NoFollowSymlink)?;
        }
        Ok(())
    }

    /// `./`: the root directory's own owner and mode.
    fn put_root<R: Read>(&mut self, entry: &Entry<'_, R>) -> io::Result<()> {
        let header = entry.header();
        let time = TimeSpec::new(i64::try_from(header.mtime()?).unwrap_or(0), 0);
        self.directories.push((PathBuf::new(), header.mode()? & 0o7777, time));
        Ok(())
    }

    fn settle(&mut self) -> io::Result<()> {
        for (path, mode, time) in self.directories.drain(..).rev() {
            // A directory that a later entry replaced by something else has no mode to set.
            let Ok(dir) = self.root.open_in(&path, OFlag::O_RDONLY | OFlag::O_DIRECTORY) else { continue };
            fchmod(dir.as_fd(), Mode::from_bits_truncate(mode))?;
            nix::sys::stat::futimens(dir.as_fd(), &time, &time)?;
        }
        Ok(())
    }
}

fn whiteout(parent: &OwnedFd, hidden: &[u8]) -> io::Result<()> {
    if hidden == b".wh..opq" {
        let dir = openat(parent, ".", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
        return sys::set_xattr(dir.as_fd(), c"trusted.overlay.opaque", b"y");
    }
    if hidden.starts_with(b".wh.") {
        return Ok(()); // bookkeeping of an older union file system (.wh..wh.plnk, .wh..wh.aufs)
    }
    let name = OsStr::from_bytes(hidden);
    if hidden.is_empty() || hidden == b"." || hidden == b".." {
        return Err(io::Error::other("is a whiteout of nothing"));
    }
    match mknodat(parent, name, SFlag::S_IFCHR, Mode::empty(), makedev(0, 0)) {
        Ok(()) | Err(Errno::EEXIST) => Ok(()), // the layer itself has the name: what it adds wins
        Err(e) => Err(e.into()),
    }
}

/// Makes way for a name that the archive mentions again.
fn clear(parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
    match unlinkat(parent, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(Errno::EISDIR) => match unlinkat(parent, name, UnlinkatFlags::RemoveDir) {
            Ok(()) => Ok(()),
            Err(e) => Err(io::Error::other(format!("replaces a directory that is not empty: {e}"))),
        },
        Err(e) => Err(e.into()),
    }
}

/// File capabilities are the only extended attribute an image may bring: `trusted.*` would speak to overlayfs.
fn capability<R: Read>(entry: &mut Entry<'_, R>, file: &File) -> io::Result<()> {
    let Some(extensions) = entry.pax_extensions()? else { return Ok(()) };
    for extension in extensions {
        let extension = extension?;
        if extension.key_bytes() == b"SCHILY.xattr.security.capability" {
            sys::set_xattr(file.as_fd(), c"security.capability", extension.value_bytes())?;
        }
    }
    Ok(())
}

fn narrow(id: u64) -> io::Result<u32> {
    u32::try_from(id).map_err(|_| io::Error::other(format!("has the owner {id}, which is no 32-bit id")))
}
