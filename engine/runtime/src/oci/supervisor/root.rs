//! The file system of a container, built in its own mount namespace so that nothing of it is visible on the machine
//! and everything of it is gone with its last process.
//!
//! ```text
//! overlay(layers, upper), or the machine's programs · /proc /sys /dev /dev/pts /dev/shm /dev/mqueue  mounts of the pod  ─pivot_root─▶  masks
//! ```
//!
//! Image and volumes are hostile: a mount point is looked up with [`Rooted`] and mounted through its descriptor.
//! Everything a container can write to is mounted `nodev`, so a device it creates cannot be opened; the six
//! devices it has are those of the machine, bound one by one.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::Mode;
use nix::sys::statvfs::FsFlags;
use nix::unistd::{chdir, pivot_root, symlinkat};

mod machine;

use super::Context;
use super::identity::Identity;
use crate::{ContainerConfig, Mount, Root};
use engine_host::rooted::Rooted;

const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
const LINKS: [(&str, &str); 5] = [
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("pts/ptmx", "ptmx"),
];
/// What `/tmp` holds at most in a fenced pod, as its memory; a volume there has its own bound.
const TMP_OPTIONS: &str = "mode=1777,size=64m";
/// The gid of `tty`, as devpts is mounted everywhere.
const DEVPTS_OPTIONS: &str = "newinstance,ptmxmode=0666,mode=0620,gid=5";

/// What of the host a container's root is made from.
pub(super) struct Sources<'a> {
    /// The container's own directory: `upper`, `work`, `root`.
    pub dir: &'a Path,
    /// The pod's shared memory.
    pub shm: &'a Path,
    pub config: &'a ContainerConfig,
}

/// Builds the root and makes it `/`. Runs in the container's first process, before it gives up any right.
pub(super) fn enter(sources: &Sources<'_>, in_between: impl FnOnce(&Rooted) -> io::Result<()>) -> io::Result<()> {
    let config = sources.config;
    // Not private: what follows the machine's mounts could not be made from private ones. Nothing of ours goes there.
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SLAVE, None::<&str>)
        .context(|| "separate the mounts".into())?;
    let root = sources.dir.join("root");
    for name in ["upper", "work", "root"] {
        let path = sources.dir.join(name);
        match fs::create_dir(&path) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                return Err(e).context(|| format!("create {}", path.display()));
            }
            _ => {}
        }
    }
    match &config.root {
        Root::Layers { dir, layers } => overlay(sources, &root, dir, layers)?,
        Root::Machine => machine::build(&root)?,
        Root::Image { .. } => return Err(io::Error::other("the root is an image, needed its unpacked layers")),
    }
    let rooted = Rooted::open(&root)?;
    if config.runner.is_empty() {
        system_mounts(&rooted, sources)?; // a runner has what it needs, and what it runs knows nothing of Linux
    }
    for one in &config.mounts {
        bind(&rooted, one, config).context(|| format!("mount {}", one.destination.display()))?;
    }
    in_between(&rooted)?;
    chdir(&root)?;
    pivot_root(".", ".").context(|| "pivot_root".into())?;
    umount2(".", MntFlags::MNT_DETACH).context(|| "let go of the machine's root".into())?;
    chdir("/")?;
    if !config.privileged {
        for path in crate::MASKED_PATHS {
            mask(path)?;
        }
        for path in crate::READ_ONLY_PATHS {
            read_only(path)?;
        }
    }
    if config.read_only_root || matches!(config.root, Root::Machine) {
        let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | device_flag(config);
        mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).context(|| "make the root read-only".into())?;
    }
    Ok(())
}

fn overlay(sources: &Sources<'_>, root: &Path, dir: &Path, layers: &[String]) -> io::Result<()> {
    let config = sources.config;
    // Relative names keep the options within one page; overlayfs wants the topmost layer first.
    chdir(dir).context(|| format!("enter {}", dir.display()))?;
    let lower = layers.iter().rev().map(String::as_str).collect::<Vec<_>>().join(":");
    let lower = if lower.is_empty() { sources.dir.join("root").display().to_string() } else { lower };
    let upper = sources.dir.join("upper");
    // The root directory's own mode comes from the upper directory: like an image's, not like mkdir's umask.
    fs::set_permissions(&upper, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let options =
        format!("lowerdir={lower},upperdir={},workdir={}", upper.display(), sources.dir.join("work").display());
    // What a container writes to its root ends with it: without `volatile` its end waits until all of it is on disk.
    let volatile = format!("{options},volatile");
    let mounted = match mount(Some("overlay"), root, Some("overlay"), device_flag(config), Some(volatile.as_str())) {
        // Before Linux 5.10 there is no such option.
        Err(Errno::EINVAL) => {
            mount(Some("overlay"), root, Some("overlay"), device_flag(config), Some(options.as_str()))
        }
        other => other,
    };
    mounted.context(|| format!("mount {} layers as overlay", layers.len()))
}

fn system_mounts(rooted: &Rooted, sources: &Sources<'_>) -> io::Result<()> {
    let quiet = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC | MsFlags::MS_NODEV;
    let config = sources.config;
    filesystem(rooted, "proc", "/proc", quiet, "")?;
    let sys = if config.privileged { quiet } else { quiet | MsFlags::MS_RDONLY };
    if !matches!(config.root, Root::Machine) {
        filesystem(rooted, "sysfs", "/sys", sys, "")?;
    }
    if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        filesystem(rooted, "cgroup2", "/sys/fs/cgroup", sys, "")?;
    }
    filesystem(rooted, "tmpfs", "/dev", MsFlags::MS_NOSUID | device_flag(config), "mode=755,size=64k")?;
    filesystem(rooted, "devpts", "/dev/pts", MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC, DEVPTS_OPTIONS)?;
    filesystem(rooted, "mqueue", "/dev/mqueue", quiet, "")?;
    for name in DEVICES {
        let at = Path::new("/dev").join(name);
        bind_flags(rooted, &Mount::new(&at, &at), MsFlags::MS_NOSUID).context(|| format!("give the device {name}"))?;
    }
    let dev = rooted.open_in(Path::new("/dev"), OFlag::O_PATH | OFlag::O_DIRECTORY)?;
    for (to, name) in LINKS {
        symlinkat(to, &dev, name)?;
    }
    bind_flags(rooted, &Mount::new(sources.shm, "/dev/shm"), quiet).context(|| "mount /dev/shm".into())?;
    if config.fenced { filesystem(rooted, "tmpfs", "/tmp", quiet, TMP_OPTIONS) } else { Ok(()) }
}

/// What only the machine's own programs need: files that say who is who.
pub(super) fn accounts(rooted: &Rooted, config: &ContainerConfig, who: &mut Identity) -> io::Result<()> {
    if matches!(config.root, Root::Machine) { machine::accounts(rooted, who) } else { Ok(()) }
}

fn filesystem(rooted: &Rooted, kind: &str, at: &str, flags: MsFlags, options: &str) -> io::Result<()> {
    let target = rooted.create_dir_all(Path::new(at)).context(|| format!("create {at}"))?;
    mount(Some(kind), &through(&target), Some(kind), flags, Some(options)).context(|| format!("mount {kind} on {at}"))
}

pub(super) fn bind(rooted: &Rooted, one: &Mount, config: &ContainerConfig) -> io::Result<()> {
    let flags = if one.read_only { MsFlags::MS_RDONLY } else { MsFlags::empty() };
    let fenced = match (config.fenced, one.read_only) {
        (true, true) => MsFlags::MS_NOSUID,
        // What it has written it cannot run, or load.
        (true, false) => MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC,
        (false, _) => MsFlags::empty(),
    };
    bind_flags(rooted, one, flags | fenced | device_flag(config))
}

fn bind_flags(rooted: &Rooted, one: &Mount, flags: MsFlags) -> io::Result<()> {
    let source = source_of(one)?;
    let is_dir = fs::metadata(through(&source))?.is_dir();
    let target = if is_dir { rooted.create_dir_all(&one.destination)? } else { file_at(rooted, &one.destination)? };
    let bound = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some(&through(&source)), &through(&target), None::<&str>, bound, None::<&str>)?;
    // The descriptor still names what is now covered: look again, and find the mount.
    let mounted = rooted.open_in(&one.destination, OFlag::O_PATH)?;
    if !one.follows_host {
        let alone = MsFlags::MS_PRIVATE | MsFlags::MS_REC;
        mount(None::<&str>, &through(&mounted), None::<&str>, alone, None::<&str>)?;
    }
    let again = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | flags | kept(&mounted)?;
    Ok(mount(None::<&str>, &through(&mounted), None::<&str>, again, None::<&str>)?)
}

/// What the machine refuses at a place of its own stays refused: a remount that does not say it would allow it.
fn kept(mounted: &OwnedFd) -> io::Result<MsFlags> {
    const PAIRS: [(FsFlags, MsFlags); 4] = [
        (FsFlags::ST_RDONLY, MsFlags::MS_RDONLY),
        (FsFlags::ST_NOSUID, MsFlags::MS_NOSUID),
        (FsFlags::ST_NOEXEC, MsFlags::MS_NOEXEC),
        (FsFlags::ST_NODEV, MsFlags::MS_NODEV),
    ];
    let found = nix::sys::statvfs::fstatvfs(mounted)?.flags();
    Ok(PAIRS.iter().filter(|(is, _)| found.contains(*is)).map(|(_, keep)| *keep).collect())
}

fn source_of(one: &Mount) -> io::Result<OwnedFd> {
    match &one.sub_path {
        None => Ok(nix::fcntl::open(&one.source, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?),
        Some(sub) => {
            let volume = Rooted::open(&one.source)?;
            match volume.open_in(sub, OFlag::O_PATH) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => volume.create_dir_all(sub),
                other => other,
            }
        }
    }
}

fn file_at(rooted: &Rooted, path: &Path) -> io::Result<OwnedFd> {
    match rooted.open_in(path, OFlag::O_PATH) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        other => return other,
    }
    let (parent, name) = rooted.parent_of(path)?;
    let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
    drop(openat(&parent, name.as_os_str(), flags, Mode::from_bits_truncate(0o644))?);
    rooted.open_in(path, OFlag::O_PATH)
}

fn mask(path: &str) -> io::Result<()> {
    let masked = match fs::symlink_metadata(path) {
        Err(_) => return Ok(()), // this kernel does not have it
        Ok(found) if found.is_dir() => {
            mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::MS_RDONLY | MsFlags::MS_NODEV, Some("size=0"))
        }
        Ok(_) => mount(Some("/dev/null"), path, None::<&str>, MsFlags::MS_BIND, None::<&str>),
    };
    masked.context(|| format!("mask {path}"))
}

fn read_only(path: &str) -> io::Result<()> {
    match mount(Some(path), path, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>) {
        Err(Errno::ENOENT) => return Ok(()),
        other => other.context(|| format!("protect {path}"))?,
    }
    let flags = MsFlags::MS_BIND
        | MsFlags::MS_REMOUNT
        | MsFlags::MS_RDONLY
        | MsFlags::MS_NOSUID
        | MsFlags::MS_NODEV
        | MsFlags::MS_NOEXEC;
    mount(None::<&str>, path, None::<&str>, flags, None::<&str>).context(|| format!("protect {path}"))
}

fn device_flag(config: &ContainerConfig) -> MsFlags {
    if config.privileged { MsFlags::empty() } else { MsFlags::MS_NODEV }
}

/// The path that names exactly the open file, whatever is renamed meanwhile.
fn through(fd: &impl AsFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()))
}
