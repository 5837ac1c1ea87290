//! What a machine has left: room on a file system, memory, processes; and what a directory takes of it.

use std::collections::HashSet;
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use nix::dir::{Dir, Type};
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{FileStat, Mode, fstat, fstatat};
use nix::sys::statvfs::statvfs;

/// Directories within one another that are gone into: each keeps one descriptor open.
const DEPTH_MAX: usize = 64;

/// Something that can run out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// Of it, what everybody may still take.
    pub free: u64,
    /// All of it.
    pub total: u64,
}

/// Bytes and inodes of the file system that holds `path`.
///
/// # Errors
/// There is no such path.
pub fn file_system(path: &Path) -> io::Result<(Room, Room)> {
    let stat = statvfs(path)?;
    let bytes = |blocks: u64| blocks.saturating_mul(stat.fragment_size());
    let room = Room { free: bytes(stat.blocks_available()), total: bytes(stat.blocks()) };
    Ok((room, Room { free: stat.files_available(), total: stat.files() }))
}

/// Bytes of memory, by the kernel's own estimate of what can be had without swapping; `proc(5)`.
pub fn memory() -> io::Result<Room> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let kib = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok())
    };
    let both = kib("MemAvailable").zip(kib("MemTotal"));
    let (free, total) = both.ok_or_else(|| io::Error::other("/proc/meminfo does not say MemAvailable"))?;
    Ok(Room { free: free * 1024, total: total * 1024 })
}

/// Ids of processes and threads.
pub fn processes() -> io::Result<Room> {
    let load = fs::read_to_string("/proc/loadavg")?;
    let running = load.split_whitespace().nth(3).and_then(|field| field.split('/').nth(1)?.parse::<u64>().ok());
    let most = fs::read_to_string("/proc/sys/kernel/pid_max")?.trim().parse::<u64>().ok();
    let (total, used) =
        most.zip(running).ok_or_else(|| io::Error::other("/proc does not say how many processes run"))?;
    Ok(Room { free: total.saturating_sub(used), total })
}

/// What a tree takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// Bytes on the disk.
    pub bytes: u64,
    /// Inodes.
    pub inodes: u64,
    /// Not all of it was counted: there is at least that much.
    pub partly: bool,
}

impl Used {
    /// Both together.
    pub fn and(self, other: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_add(other.bytes),
            inodes: self.inodes.saturating_add(other.inodes),
            partly: self.partly || other.partly,
        }
    }
}

/// Counts `dir`, without following links or leaving its file system, and no more than `left` entries, which it counts down.
/// What goes while it counts is not there; a directory that is not there takes nothing.
///
/// # Errors
/// `dir` cannot be opened.
pub fn used(dir: &Path, left: &mut u64) -> io::Result<Used> {
    let top = match Dir::open(dir, FLAGS, Mode::empty()) {
        Err(nix::Error::ENOENT) => return Ok(Used::default()),
        top => top?,
    };
    let own = fstat(top.as_fd())?;
    let mut count = Count { device: own.st_dev, seen: HashSet::new(), used: Used::default() };
    count.take(&own);
    let mut stack = vec![count.level(top, left)];
    while let Some((dir, within)) = stack.last_mut() {
        let Some(name) = within.pop() else {
            stack.pop();
            continue;
        };
        match Dir::openat(dir.as_fd(), name.as_c_str(), FLAGS, Mode::empty()) {
            Ok(_) if stack.len() >= DEPTH_MAX => count.used.partly = true,
            Ok(next) => stack.push(count.level(next, left)),
            Err(_) => {} // gone meanwhile, or a link now
        }
    }
    Ok(count.used)
}

const FLAGS: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

struct Count {
    device: u64,
    /// Files with several names are one file.
    seen: HashSet<u64>,
    used: Used,
}

impl Count {
    fn take(&mut self, stat: &FileStat) {
        if stat.st_nlink > 1 && stat.st_mode & nix::libc::S_IFMT != nix::libc::S_IFDIR && !self.seen.insert(stat.st_ino)
        {
            return;
        }
        let blocks = u64::try_from(stat.st_blocks).unwrap_or(0);
        self.used = self.used.and(Used { bytes: blocks.saturating_mul(512), inodes: 1, partly: false });
    }

    /// Counts what is directly in a directory; the directories in it.
    fn level(&mut self, mut dir: Dir, left: &mut u64) -> (Dir, Vec<CString>) {
        let mut entries = Vec::new();
        for entry in dir.iter().flatten() {
            if matches!(entry.file_name().to_bytes(), b"." | b"..") {
                continue;
            }
            let Some(fewer) = left.checked_sub(1) else {
                self.used.partly = true;
                break;
            };
            *left = fewer;
            entries.push((entry.file_name().to_owned(), entry.file_type()));
        }
        let mut within = Vec::new();
        for (name, kind) in entries {
            let Ok(stat) = fstatat(dir.as_fd(), name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW) else { continue };
            if stat.st_dev != self.device {
                continue;
            }
            self.take(&stat);
            if kind.is_none_or(|kind| kind == Type::Directory) {
                within.push(name);
            }
        }
        (dir, within)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, missing_docs)]
    use super::*;

    #[test]
    fn a_tree_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        assert_eq!(used(&at("none"), &mut 9).unwrap(), Used::default());
        fs::create_dir_all(at("a/b")).unwrap();
        fs::write(at("a/b/x"), vec![1; 100_000]).unwrap();
        fs::hard_link(at("a/b/x"), at("y")).unwrap();
        std::os::unix::fs::symlink("/", at("root")).unwrap();
        let all = used(dir.path(), &mut 100).unwrap();
        assert!((100_000..150_000).contains(&all.bytes), "{all:?}");
        assert_eq!((all.inodes, all.partly), (5, false), "the directory, a, b, x, root");
        let mut left = 2;
        let part = used(dir.path(), &mut left).unwrap();
        assert!(part.partly && left == 0 && part.inodes <= 3, "{part:?}");
        (0..100).fold(at("deep"), |at, _| {
            fs::create_dir(&at).unwrap();
            at.join("d")
        });
        assert!(used(dir.path(), &mut 1000).unwrap().partly, "too deep");
    }

    #[test]
    fn a_machine_has_some_of_each() {
        let (bytes, inodes) = file_system(Path::new("/tmp")).unwrap();
        for room in [bytes, inodes, memory().unwrap(), processes().unwrap()] {
            assert!(room.free > 0 && room.free <= room.total, "{room:?}");
        }
    }
}
