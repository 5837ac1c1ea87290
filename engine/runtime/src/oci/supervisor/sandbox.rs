//! What the containers of a pod share: the supervisor goes there first, and they are born there.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, open};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::stat::Mode;
use nix::unistd::sethostname;

use super::{Context, fences};
use crate::SandboxConfig;

/// Where the pod's shared memory is mounted, below the sandbox's directory.
pub(super) const SHM: &str = "shm";
/// What container engines give `/dev/shm`.
const SHM_OPTIONS: &str = "mode=1777,size=67108864";

/// Enters the pod's namespaces. Its mounts are seen by the pod's containers only and vanish with the last of them.
pub(super) fn enter(dir: &Path, config: &SandboxConfig) -> io::Result<()> {
    if let Some(path) = &config.netns {
        let netns = open(path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
            .context(|| format!("open network namespace {}", path.display()))?;
        setns(netns, CloneFlags::CLONE_NEWNET).context(|| format!("join network namespace {}", path.display()))?;
    }
    let mut flags = CloneFlags::CLONE_NEWNS;
    flags.set(CloneFlags::CLONE_NEWUTS, config.hostname.is_some());
    flags.set(CloneFlags::CLONE_NEWIPC, !config.host_ipc);
    unshare(flags).context(|| "make the pod's namespaces".into())?;
    if let Some(name) = &config.hostname {
        sethostname(name).context(|| format!("set host name {name}"))?;
    }
    for (name, value) in &config.sysctls {
        let path = sysctl(name);
        fs::write(&path, value).context(|| format!("open {}", path.display()))?;
    }
    // What the machine unmounts goes away here too, and nothing of ours appears there.
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SLAVE, None::<&str>)
        .context(|| "separate the mounts".into())?;
    let quiet = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    tmpfs(&dir.join(SHM), quiet | MsFlags::MS_NOEXEC, SHM_OPTIONS)?;
    for (path, size_bytes) in &config.memory_volumes {
        let size = if *size_bytes == 0 { String::new() } else { format!(",size={size_bytes}") };
        tmpfs(path, quiet, &format!("mode=1777{size}"))?;
    }
    if config.fenced { fences::scope(config) } else { Ok(()) }
}

/// `net.ipv4.x` and `net/ipv4/x` are the same; the first separator says which of the two is meant.
fn sysctl(name: &str) -> PathBuf {
    let slashes = name.find(['.', '/']).is_some_and(|at| name[at..].starts_with('/'));
    let inside = if slashes { name.to_owned() } else { name.replace('.', "/") };
    Path::new("/proc/sys").join(inside)
}

fn tmpfs(path: &PathBuf, flags: MsFlags, options: &str) -> io::Result<()> {
    fs::create_dir_all(path).context(|| format!("create {}", path.display()))?;
    mount(Some("tmpfs"), path, Some("tmpfs"), flags, Some(options)).context(|| format!("mount {}", path.display()))
}
