//! What happens between `clone` and `execve`: the first process of a container, and commands that join one.
//!
//! ```text
//! init   cgroups · new mounts, pids · root · terminal ─┐
//! exec   cgroups · setns pids ─clone─ setns mounts ────┴─▶ user, capabilities, seccomp · "ready" ▶ "go" · execve
//! ```
//!
//! In a fenced sandbox Landlock comes before the user: the kernel asks for a right there, and paths are looked up.
//!
//! The order of the last part is the kernel's: without no_new_privs a filter needs CAP_SYS_ADMIN, so it comes
//! before capabilities are given up; with no_new_privs it comes last. The parent-death signal is cleared by every
//! change of user and is set after it; the "go" of the supervisor closes the gap before it.

use std::ffi::{CString, OsStr};
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::libc;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid, chdir, dup2_stderr, dup2_stdin, dup2_stdout, execve, fchown, setsid};

use seccompiler::BpfProgram;

use super::channel::{Channel, Word};
use super::identity::{self, Identity};
use super::root::{self, Sources};
use super::{Context, fences, runner, seccomp};
use crate::capabilities;
use crate::{ContainerConfig, Seccomp};
use engine_host::rooted::Rooted;
use engine_host::sys;

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The three standard streams of a program without a terminal.
pub(super) struct Stdio {
    pub input: OwnedFd,
    pub output: OwnedFd,
    pub error: OwnedFd,
}

/// Namespaces of a running container.
pub(super) struct Joined {
    pub mounts: OwnedFd,
    pub pids: OwnedFd,
    pub cgroup: OwnedFd,
}

/// Becomes the container's program, or tells why not and ends. With another's processes (`beside`) it starts a sibling
/// that becomes it, for only children are born into another namespace.
pub(super) fn init(channel: &Channel, sources: &Sources<'_>, stdio: Option<Stdio>, beside: Option<OwnedFd>) -> ! {
    let sibling = beside.map(|pids| {
        setns(&pids, CloneFlags::CLONE_NEWPID).context(|| "join the process namespace".into())?;
        sys::clone_process(libc::CLONE_PARENT)
    });
    let why = match sibling.transpose() {
        Ok(Some(Some(pid))) => {
            let _ = channel.say(Word::Pid(pid)); // with the supervisor gone nobody wants to know
            sys::exit_now(0)
        }
        Ok(_) => match try_init(channel, sources, stdio) {
            Err(why) => why,
        },
        Err(why) => why,
    };
    let _ = channel.say(Word::Failed(why.to_string())); // with the supervisor gone nobody wants to know
    sys::exit_now(127)
}

fn try_init(channel: &Channel, sources: &Sources<'_>, stdio: Option<Stdio>) -> io::Result<std::convert::Infallible> {
    let config = sources.config;
    prepare(config)?;
    if !config.runner.is_empty() {
        return runner::begin(channel, sources, stdio);
    }
    let who = enter_root(channel, sources, |_| Ok(()))?;
    finish(channel, config, &config.args, &who, config.tty, stdio)
}

/// Goes where the container is; `in_between` sees its files and the machine's.
pub(super) fn enter_root(
    channel: &Channel,
    sources: &Sources<'_>,
    in_between: impl FnOnce(&Rooted) -> io::Result<()>,
) -> io::Result<Identity> {
    let config = sources.config;
    unshare(CloneFlags::CLONE_NEWCGROUP).context(|| "make a cgroup namespace".into())?;
    adjust_oom_score(config.oom_score_adj)?;
    let mut who = Identity::default();
    root::enter(sources, |rooted| {
        let found = identity::resolve(rooted, &config.user)?;
        who = if config.fenced { identity::unprivileged(found, &config.user) } else { found };
        root::accounts(rooted, config, &mut who)?;
        make_cwd(rooted, &config.cwd, &who)?;
        in_between(rooted)
    })?;
    channel.say(Word::Identity(who.clone()))?;
    Ok(who)
}

/// Joins a container and becomes a command in it. Runs as a process in between, whose sibling it starts.
pub(super) fn exec(
    channel: &Channel,
    config: &ContainerConfig,
    who: &Identity,
    joined: &Joined,
    command: &[String],
    tty: bool,
    stdio: Option<Stdio>,
) -> ! {
    let started = (|| {
        prepare(config)?;
        setns(&joined.pids, CloneFlags::CLONE_NEWPID).context(|| "join the process namespace".into())?;
        sys::clone_process(libc::CLONE_PARENT)
    })();
    let why = match started {
        Ok(Some(pid)) => {
            let _ = channel.say(Word::Pid(pid)); // as above
            sys::exit_now(0)
        }
        Ok(None) => match try_exec(channel, config, who, joined, command, tty, stdio) {
            Err(why) => why,
        },
        Err(why) => why,
    };
    let _ = channel.say(Word::Failed(why.to_string()));
    sys::exit_now(127)
}

fn try_exec(
    channel: &Channel,
    config: &ContainerConfig,
    who: &Identity,
    joined: &Joined,
    command: &[String],
    tty: bool,
    stdio: Option<Stdio>,
) -> io::Result<std::convert::Infallible> {
    adjust_oom_score(config.oom_score_adj)?;
    setns(&joined.cgroup, CloneFlags::CLONE_NEWCGROUP).context(|| "join the cgroup namespace".into())?;
    setns(&joined.mounts, CloneFlags::CLONE_NEWNS).context(|| "join the mount namespace".into())?;
    finish(channel, config, command, who, tty, stdio)
}

fn prepare(config: &ContainerConfig) -> io::Result<()> {
    // Until execve nobody inside may look into this process or its descriptors.
    sys::prctl(libc::PR_SET_DUMPABLE, 0)?;
    sys::default_signals()?;
    umask(Mode::from_bits_truncate(0o022));
    for dir in &config.cgroups {
        fs::write(dir.join("cgroup.procs"), "0").context(|| format!("enter cgroup {}", dir.display()))?;
    }
    Ok(())
}

/// Less than the machine's own value takes CAP_SYS_RESOURCE, which is often missing: then the value stays.
fn adjust_oom_score(wanted: i32) -> io::Result<()> {
    match fs::write("/proc/self/oom_score_adj", wanted.to_string()) {
        Err(e) if wanted < 0 && e.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        other => other.context(|| format!("set oom_score_adj {wanted}")),
    }
}

fn make_cwd(rooted: &Rooted, cwd: &str, who: &Identity) -> io::Result<()> {
    let path = Path::new(if cwd.is_empty() { "/" } else { cwd });
    if rooted.open_in(path, OFlag::O_PATH).is_ok() {
        return Ok(());
    }
    rooted.create_dir_all(path).context(|| format!("create working directory {cwd}"))?;
    let dir = rooted.open_in(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
    Ok(fchown(&dir, Some(Uid::from_raw(who.uid)), Some(Gid::from_raw(who.gid)))?)
}

/// From here on the root is the container's.
fn finish(
    channel: &Channel,
    config: &ContainerConfig,
    args: &[String],
    who: &Identity,
    tty: bool,
    stdio: Option<Stdio>,
) -> io::Result<std::convert::Infallible> {
    setsid()?;
    match stdio {
        Some(stdio) if !tty => streams(&stdio)?,
        _ => terminal(channel, who)?,
    }
    let filters = give_up(config, who)?;
    let env = environment(config, who, tty);
    let program = look_up(&args[0], &env)?;
    ready(channel, config, &filters)?;
    let text = |s: &str| CString::new(s).map_err(|_| io::Error::other("an argument or variable contains a NUL byte"));
    let args = args.iter().map(|a| text(a)).collect::<io::Result<Vec<_>>>()?;
    let env = env.iter().map(|e| text(e)).collect::<io::Result<Vec<_>>>()?;
    let path = CString::new(program.as_os_str().as_bytes()).map_err(io::Error::other)?;
    execve(&path, &args, &env)
        .map_err(|e| io::Error::other(format!("exec {}: {}", program.display(), words(&e.into()))))
}

/// Becomes the container's user with the container's rights; answers the filters that are still to come.
pub(super) fn give_up(config: &ContainerConfig, who: &Identity) -> io::Result<Vec<BpfProgram>> {
    let permitted = sys::permitted_capabilities()?;
    let missing = config.capabilities & !permitted;
    if missing != 0 && !config.privileged {
        let name = capabilities::first_name(missing).unwrap_or("?");
        return Err(io::Error::other(format!("cannot give CAP_{name}: the node does not have it itself")));
    }
    let granted = config.capabilities & permitted;
    let filters = match &config.seccomp {
        _ if config.privileged => Vec::new(),
        Seccomp::Unconfined => Vec::new(),
        Seccomp::RuntimeDefault => seccomp::runtime_default(granted)?,
        Seccomp::Profile(text) => seccomp::profile(text)?,
    };
    if !config.no_new_privs {
        seccomp::install(&filters)?;
    }
    for capability in 0..64 {
        if granted & (1 << capability) == 0 && !sys::drop_bounding(capability)? {
            break;
        }
    }
    if config.fenced {
        fences::files(config)?;
    }
    sys::prctl(libc::PR_SET_KEEPCAPS, 1)?;
    identity::become_user(who).context(|| format!("become user {}:{}", who.uid, who.gid))?;
    sys::prctl(libc::PR_SET_KEEPCAPS, 0)?;
    sys::set_capabilities(granted).context(|| "set capabilities".into())?;
    if config.no_new_privs {
        sys::prctl(libc::PR_SET_NO_NEW_PRIVS, 1)?;
    }
    let cwd = if config.cwd.is_empty() { "/" } else { config.cwd.as_str() };
    chdir(cwd).context(|| format!("chdir to cwd ({cwd})"))?;
    Ok(filters)
}

/// The last steps before the program: after them nothing but what it may do itself is possible.
pub(super) fn ready(channel: &Channel, config: &ContainerConfig, filters: &[BpfProgram]) -> io::Result<()> {
    if config.no_new_privs {
        seccomp::install(filters)?;
    }
    // Nobody runs unwatched: with its supervisor gone, this process is killed too.
    sys::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong)?;
    channel.say(Word::Ready)?;
    channel.wait_for_go()
}

pub(super) fn streams(stdio: &Stdio) -> io::Result<()> {
    dup2_stdin(&stdio.input)?;
    dup2_stdout(&stdio.output)?;
    Ok(dup2_stderr(&stdio.error)?)
}

/// A terminal of the container's own, so that programs inside find its name; our end goes to the supervisor.
fn terminal(channel: &Channel, who: &Identity) -> io::Result<()> {
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let ours = open("/dev/pts/ptmx", flags, Mode::empty()).context(|| "open a terminal".into())?;
    let number = sys::unlock_terminal(ours.as_fd()).context(|| "unlock the terminal".into())?;
    let theirs =
        open(Path::new(&format!("/dev/pts/{number}")), flags, Mode::empty()).context(|| "open the terminal".into())?;
    fchown(&theirs, Some(Uid::from_raw(who.uid)), None)?;
    sys::set_controlling_terminal(theirs.as_fd()).context(|| "take the terminal".into())?;
    dup2_stdin(&theirs)?;
    dup2_stdout(&theirs)?;
    dup2_stderr(&theirs)?;
    channel.say(Word::Terminal(ours))
}

fn environment(config: &ContainerConfig, who: &Identity, tty: bool) -> Vec<String> {
    let mut env = config.env.clone();
    let has = |env: &[String], name: &str| env.iter().any(|e| e.split('=').next() == Some(name));
    let defaults = [("PATH", DEFAULT_PATH), ("HOME", who.home.as_str())];
    let terminal = tty.then_some(("TERM", "xterm"));
    for (name, value) in defaults.into_iter().chain(terminal) {
        if !has(&env, name) {
            env.push(format!("{name}={value}"));
        }
    }
    env
}

/// Finds the program as a shell would, with the container's own PATH.
fn look_up(program: &str, env: &[String]) -> io::Result<PathBuf> {
    if program.contains('/') {
        let may_run = nix::unistd::access(program, nix::unistd::AccessFlags::X_OK).is_ok();
        return match fs::metadata(program) {
            Ok(found) if found.is_dir() => Err(io::Error::other(format!("exec: {program:?}: is a directory"))),
            Ok(_) if !may_run => Err(io::Error::other(format!("exec: {program:?}: permission denied"))),
            Ok(_) => Ok(PathBuf::from(program)),
            Err(e) => Err(io::Error::other(format!("exec: {program:?}: stat {program}: {}", words(&e)))),
        };
    }
    let path = env.iter().find_map(|e| e.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH);
    for dir in path.split(':') {
        let candidate = Path::new(if dir.is_empty() { "." } else { dir }).join(OsStr::new(program));
        if nix::unistd::access(&candidate, nix::unistd::AccessFlags::X_OK).is_ok() && candidate.is_file() {
            return Ok(candidate);
        }
    }
    Err(io::Error::other(format!("exec: {program:?}: executable file not found in $PATH")))
}

fn words(e: &io::Error) -> String {
    match e.raw_os_error() {
        Some(code) => Errno::from_raw(code).desc().to_lowercase(),
        None => e.to_string(),
    }
}
