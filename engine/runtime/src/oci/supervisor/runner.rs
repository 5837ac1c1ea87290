//! A *runner*: our own program, begun anew as the first process of a container, that runs what the kernel cannot.
//!
//! ```text
//! supervisor ─clone─▶ begin ─execve, from the sealed program─▶ enter: root, user, capabilities, seccomp ─▶ "ready" ▶ "go" ─▶ runs `args`
//!                                                                └─ in_between: sees the container's files and the machine's
//! ```
//!
//! It begins before it goes inside: loader and libraries are the machine's, so nothing of the program has to be in the image, and
//! none of the memory of the supervisor (the variables of other containers) comes along. What surrounds it afterwards is what surrounds
//! any container. It has no `/proc`, `/sys` and `/dev`: what it runs knows nothing of Linux, and a file like `/proc/self/mem` would be
//! a way out of it.

use std::convert::Infallible;
use std::ffi::{CString, OsString};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::libc;
use nix::sched::{CloneFlags, unshare};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::{ForkResult, Pid, execve, setsid};

use super::Context;
use super::channel::{Channel, Word};
use super::child::{self, Stdio};
use super::root::{self, Sources};
use crate::{ContainerConfig, Mount};
use engine_host::rooted::Rooted;
use engine_host::sys;

/// The program that is running, which the supervisor has sealed.
const PROGRAM: &str = "/proc/self/exe";

/// Begins the program again: with the container's streams, the channel, and what is to be run.
pub(super) fn begin(channel: &Channel, sources: &Sources<'_>, stdio: Option<Stdio>) -> io::Result<Infallible> {
    let refused = |what| io::Error::other(format!("{what} is not supported by this runtime handler"));
    if sources.config.privileged {
        return Err(refused("a privileged container"));
    }
    let stdio = stdio.ok_or_else(|| refused("a terminal"))?;
    child::streams(&stdio)?;
    let mut config = File::from(memfd_create(c"container", MFdFlags::empty())?);
    config.write_all(&serde_json::to_vec(sources.config)?)?;
    config.rewind()?;
    let own = std::fs::read("/proc/self/cmdline")?;
    let name = own.split(|b| *b == 0).next().unwrap_or_default();
    let numbers = [channel.keep()?.to_string(), config.as_raw_fd().to_string()];
    let words = sources.config.runner.iter().map(String::as_bytes);
    let places = [sources.dir.as_os_str().as_bytes(), sources.shm.as_os_str().as_bytes()];
    let args = std::iter::once(name).chain(words).chain(places).chain(numbers.iter().map(String::as_bytes));
    let args = args.map(CString::new).collect::<Result<Vec<_>, _>>().map_err(io::Error::other)?;
    let nothing: [CString; 0] = []; // the machine's variables are none of its business
    execve(&CString::new(PROGRAM).map_err(io::Error::other)?, &args, &nothing).context(|| "begin the runner".into())
}

/// The container before its runner has gone inside.
pub struct View<'a> {
    channel: &'a Channel,
    rooted: &'a Rooted,
    config: &'a ContainerConfig,
}

impl View<'_> {
    /// What is to be run.
    pub fn config(&self) -> &ContainerConfig {
        self.config
    }

    /// The file that `args` begins with.
    ///
    /// # Errors
    /// There is none, or it is something else than a file.
    pub fn program(&self) -> io::Result<File> {
        let name = &self.config.args[0];
        let refused = |why: &str| io::Error::other(format!("exec: {name:?}: {why}"));
        let path = Path::new("/").join(&self.config.cwd).join(name);
        // O_NONBLOCK: a FIFO in its place must not hold us up.
        let opened = self.rooted.open_in(&path, OFlag::O_RDONLY | OFlag::O_NONBLOCK);
        let file = File::from(opened.map_err(|e| refused(&format!("open {}: {e}", path.display())))?);
        match file.metadata()?.is_file() {
            true => Ok(file),
            false => Err(refused("is no regular file")),
        }
    }

    /// Makes something of the machine visible inside, over whatever the image and the pod have there.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn mount(&self, one: &Mount) -> io::Result<()> {
        root::bind(self.rooted, one, self.config).context(|| format!("mount {}", one.destination.display()))
    }

    /// Forks a process that does `work` (which answers its exit code) outside, with root's rights and the machine's files, and in the container's cgroups. Whoever runs
    /// inside is its parent.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn beside(&self, work: impl FnOnce() -> i32) -> io::Result<Pid> {
        let (mut outside, is_outside) = io::pipe()?;
        match sys::fork()? {
            ForkResult::Parent { child } => {
                drop(is_outside);
                // Whoever is still here when the root is changed would be taken along.
                match outside.read(&mut [0])? {
                    0 => Err(io::Error::other("the process beside the container did not start")),
                    _ => Ok(child),
                }
            }
            ForkResult::Child => {
                let apart = unshare(CloneFlags::CLONE_NEWNS);
                let told = apart.map_err(io::Error::from).and_then(|()| (&is_outside).write_all(b"o"));
                drop((outside, is_outside));
                // The supervisor waits until nobody has it any more.
                if told.is_err() || nix::unistd::close(self.channel.fd().as_raw_fd()).is_err() {
                    sys::exit_now(1);
                }
                sys::exit_now(work())
            }
        }
    }
}

/// Goes inside; `words` are the last ones of the command line. What `in_between` answers is for whoever runs inside.
///
/// # Errors
/// What the process is to end with; the supervisor has been told why.
pub fn enter<T>(
    words: &[OsString],
    in_between: impl FnOnce(&View<'_>) -> io::Result<T>,
) -> Result<(ContainerConfig, T), ExitCode> {
    let begun = match words {
        [dir, shm, channel, config] => number(channel).zip(number(config)).map(|(c, f)| (dir, shm, c, f)),
        _ => None,
    };
    let Some((dir, shm, channel, config)) = begun else {
        let _ = writeln!(io::stderr(), "a runner is only begun by its supervisor"); // with standard error closed there is nobody to tell
        return Err(ExitCode::from(64));
    };
    let channel = Channel::adopt(channel);
    let (dir, shm) = (PathBuf::from(dir), PathBuf::from(shm));
    let entered = read(config).and_then(|config| {
        let found = inside(&channel, &Sources { dir: &dir, shm: &shm, config: &config }, in_between)?;
        Ok((config, found))
    });
    entered.map_err(|why| {
        let _ = channel.say(Word::Failed(why.to_string())); // with the supervisor gone nobody wants to know
        ExitCode::from(127)
    })
}

fn inside<T>(
    channel: &Channel,
    sources: &Sources<'_>,
    in_between: impl FnOnce(&View<'_>) -> io::Result<T>,
) -> io::Result<T> {
    let config = sources.config;
    // A new program may be looked into again; this one may not.
    sys::prctl(libc::PR_SET_DUMPABLE, 0)?;
    let mut found = None;
    let who = child::enter_root(channel, sources, |rooted| {
        found = Some(in_between(&View { channel, rooted, config })?);
        Ok(())
    })?;
    setsid()?;
    let filters = child::give_up(config, &who)?;
    child::ready(channel, config, &filters)?;
    found.ok_or_else(|| io::Error::other("the root was not entered"))
}

fn number(word: &OsString) -> Option<i32> {
    word.to_str()?.parse().ok().filter(|n| *n > 2)
}

fn read(config: i32) -> io::Result<ContainerConfig> {
    let mut bytes = Vec::new();
    File::from(sys::adopt(config)).read_to_end(&mut bytes)?;
    Ok(serde_json::from_slice(&bytes)?)
}

impl Channel {
    /// Keeps it open over `execve`; the number is for [`adopt`](Self::adopt).
    fn keep(&self) -> io::Result<i32> {
        fcntl(self.fd(), FcntlArg::F_SETFD(FdFlag::empty()))?;
        Ok(self.fd().as_raw_fd())
    }

    fn adopt(number: i32) -> Self {
        Self::from(sys::adopt(number))
    }
}
