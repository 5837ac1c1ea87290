//! One process namespace for all containers of a pod (`shareProcessNamespace`).
//!
//! ```text
//! supervisor ──clone──▶ first process (1): inherits orphans and reaps them; has nothing and may do nothing
//!            └─join 1's namespace, clone──▶ containers (2, 3, …), which see each other
//! ```
//!
//! The first process is there for all to look into, also for a container that may trace others. Therefore it leaves the
//! machine's files for an empty directory, closes every descriptor, and gives up user and capabilities.

use std::convert::Infallible;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, open};
use nix::libc;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::stat::Mode;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, chdir, pipe2, pivot_root};

use super::identity::{self, Identity};
use engine_host::sys;

/// Who owns nothing, by convention of all container engines.
const NOBODY: u32 = 65535;
/// What the first process says when it has nothing left that it could lose.
const READY: &str = "ready";
/// Who forks while he is being killed may slip by once, not for ever: a cgroup has a limit of processes.
const ROUNDS: usize = 64;

/// The namespace and who keeps it open.
#[derive(Default)]
pub(super) struct Shared(Option<(Pid, OwnedFd)>);

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some((pid, _)) = &self.0 {
            // Not reaped, so the id is still its own; the kernel ends who is left inside with it.
            let _ = kill(*pid, Signal::SIGKILL);
            // Commands inside are our children as well: it does not end before they are reaped.
            while waitpid(None::<Pid>, None).is_ok_and(|how| how.pid() != Some(*pid)) {}
        }
    }
}

impl Shared {
    /// The namespace; made when the first container asks, and anew when its first process was killed.
    pub fn processes(&mut self) -> io::Result<OwnedFd> {
        if let Some((_, namespace)) = self.0.as_ref().filter(|(pid, _)| lives(*pid)) {
            return namespace.try_clone();
        }
        let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
        let pid = match sys::clone_process(libc::CLONE_NEWNS | libc::CLONE_NEWPID)? {
            None => {
                let Err(why) = first_process(&write);
                let _ = nix::unistd::write(&write, why.to_string().as_bytes()); // without, the reader says that it died
                sys::exit_now(1)
            }
            Some(pid) => Pid::from_raw(pid),
        };
        drop(write);
        // Nobody joins it before it has let go of everything.
        let mut said = String::new();
        File::from(read).read_to_string(&mut said)?;
        if said != READY {
            return Err(io::Error::other(format!("the pod's first process did not start: {said}")));
        }
        let path = format!("/proc/{pid}/ns/pid");
        let namespace = open(path.as_str(), OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
        let ours = namespace.try_clone()?;
        self.0 = Some((pid, ours));
        Ok(namespace)
    }

    /// Takes note of a reaped process.
    pub fn reaped(&mut self, pid: Pid) {
        if self.0.as_ref().is_some_and(|(first, _)| *first == pid) {
            self.0 = None;
        }
    }
}

/// Whether a process of ours has a memory yet. One that ends lets go of it, then ends who is in its namespace, and only then can be reaped:
/// meanwhile nobody can be begun there (proc(5), `/proc/pid/statm`).
fn lives(pid: Pid) -> bool {
    fs::read_to_string(format!("/proc/{pid}/statm")).is_ok_and(|pages| !pages.starts_with("0 "))
}

fn first_process(ready: &OwnedFd) -> io::Result<Infallible> {
    sys::prctl(libc::PR_SET_DUMPABLE, 0)?;
    sys::default_signals()?;
    let every = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, every, None::<&str>)?;
    // Covers some directory of this process's own view; it becomes the root and all else is let go.
    let (at, flags) = (Path::new("/proc"), MsFlags::MS_RDONLY | MsFlags::MS_NOEXEC | MsFlags::MS_NODEV);
    mount(Some("tmpfs"), at, Some("tmpfs"), flags | MsFlags::MS_NOSUID, Some("size=0"))?;
    chdir(at)?;
    pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    chdir("/")?;
    for capability in 0..64 {
        if !sys::drop_bounding(capability)? {
            break;
        }
    }
    identity::become_user(&Identity { uid: NOBODY, gid: NOBODY, groups: Vec::new(), home: String::new() })?;
    sys::set_capabilities(0)?;
    sys::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong)?;
    let mut orphans = SigSet::empty();
    orphans.add(Signal::SIGCHLD);
    orphans.thread_block()?;
    nix::unistd::write(ready, READY.as_bytes())?; // with the supervisor gone this ends it, too
    sys::close_all()?;
    loop {
        while waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG)).is_ok_and(|how| how != WaitStatus::StillAlive) {}
        orphans.wait()?;
    }
}

/// Kills who is left in these cgroups.
pub(super) fn end(cgroups: &[PathBuf]) {
    let Some(cgroup) = cgroups.first() else { return };
    for _ in 0..ROUNDS {
        let listed = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
        let mut left = listed.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 0).peekable();
        if left.peek().is_none() {
            return;
        }
        for pid in left {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL); // it may have ended meanwhile
        }
    }
}
