//! The containers of one pod: started, watched, remembered.
//!
//! What became of each is written to `containers/ID/status.json` before anybody is told, so that it is known even
//! when this process dies right after.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, open};
use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::sys::wait::WaitStatus;
use nix::unistd::{Pid, pipe2};

use super::channel::Channel;
use super::child::{self, Joined, Stdio};
use super::identity::Identity;
use super::log::{Log, Stream};
use super::processes::{self, Shared};
use super::root::Sources;
use super::{STATUS_FILE, fences, sandbox};
use crate::cgroups::oom_kills;
use crate::oci::remains::{CONTAINERS_DIR, remains};
use crate::{ContainerConfig, ContainerStatus, Finished, SandboxConfig};
use engine_host::files::write_durably;
use engine_host::sys;

/// Containers remembered per pod: each of a pod's containers keeps its current and its previous run, and a pod has
/// far fewer than 100 of them; more means that the kubelet does not forget, and starting is refused.
const CONTAINERS_MAX: usize = 256;
/// What a container that could not be started ends with, as every kubelet reports it.
const START_ERROR_CODE: i32 = 128;

pub(super) struct Containers {
    dir: PathBuf,
    all: BTreeMap<String, Container>,
    /// Runs of an earlier supervisor of this pod: remembered, never running.
    earlier: BTreeMap<String, ContainerStatus>,
    /// The process namespace that all share, if they do.
    shared: Option<Shared>,
    /// Whether the sandbox is.
    fenced: bool,
}

struct Container {
    config: ContainerConfig,
    status: ContainerStatus,
    identity: Identity,
    log: Log,
    streams: Vec<Stream>,
    /// What its standard input is fed from; none without one, with a terminal, or when the only feeder has it.
    input: Option<OwnedFd>,
}

/// A command that runs in a container.
pub(super) struct Exec {
    pub pid: i32,
    pub terminal: Option<OwnedFd>,
}

impl Containers {
    pub fn new(dir: &Path, config: &SandboxConfig) -> Self {
        let earlier = remains(dir).into_iter().map(|status| (status.id.clone(), status)).collect();
        let shared = config.share_processes.then(Shared::default);
        Self { dir: dir.to_owned(), all: BTreeMap::new(), earlier, shared, fenced: config.fenced }
    }

    pub fn statuses(&self) -> Vec<ContainerStatus> {
        self.earlier.values().chain(self.all.values().map(|c| &c.status)).cloned().collect()
    }

    pub fn running(&self) -> bool {
        self.all.values().any(|c| c.status.finished.is_none())
    }

    /// Starts a container; one that could not be started is remembered as finished too.
    pub fn start(&mut self, mut config: ContainerConfig) -> Result<ContainerStatus, String> {
        config.fenced |= self.fenced;
        config.no_new_privs |= config.fenced;
        let proper = config.id.len() == 64 && config.id.bytes().all(|b| b.is_ascii_hexdigit());
        let known = self.all.contains_key(&config.id) || self.earlier.contains_key(&config.id);
        if !proper || known || config.args.is_empty() {
            return Err(format!("container {:?}: needs a new id of 64 hexadecimal digits and a program", config.id));
        }
        if self.all.len() + self.earlier.len() >= CONTAINERS_MAX {
            return Err(format!("this pod remembers {CONTAINERS_MAX} containers already"));
        }
        let dir = self.dir.join(CONTAINERS_DIR).join(&config.id);
        fs::create_dir_all(&dir).map_err(|e| format!("create {}: {e}", dir.display()))?;
        let log = Log::open(&config.log).map_err(|e| format!("open the log {}: {e}", config.log.display()))?;
        let mut status = ContainerStatus {
            id: config.id.clone(),
            name: config.name.clone(),
            attempt: config.attempt,
            pid: None,
            started_at_ns: now_ns(),
            finished: None,
        };
        let launched = fences::refused(&config)
            .map_or(Ok(()), Err)
            .and_then(|()| self.processes_for(&config))
            .and_then(|pids| launch(&dir, &self.dir.join(sandbox::SHM), &config, pids));
        let (identity, streams, input, failed) = match launched {
            Ok((pid, identity, streams, input)) => {
                status.pid = Some(pid);
                (identity, streams, input, None)
            }
            Err(why) => (Identity::default(), Vec::new(), None, Some(why)),
        };
        if let Some(why) = &failed {
            let error = Some(why.clone());
            let at_ns = now_ns();
            status.finished =
                Some(Finished { at_ns, exit_code: START_ERROR_CODE, signal: 0, oom_killed: false, lost: false, error });
        }
        let written = self.write(&status);
        let id = config.id.clone();
        self.all.insert(id.clone(), Container { config, status: status.clone(), identity, log, streams, input });
        match (failed, written) {
            (Some(why), _) => Err(why),
            (None, Err(e)) => {
                // Nobody would find it after our death: better not to run it.
                self.signal(&id, libc::SIGKILL);
                Err(format!("container {id}: its state cannot be written: {e}"))
            }
            (None, Ok(())) => Ok(status),
        }
    }

    /// The process namespace that the container joins; none when it has one of its own, or sees the machine's.
    fn processes_for(&mut self, config: &ContainerConfig) -> Result<Option<OwnedFd>, String> {
        match (&config.beside, &mut self.shared) {
            (Some(name), _) => self.processes_of(name).map(Some),
            (None, Some(shared)) if !config.host_pid => shared.processes().map(Some).map_err(|e| e.to_string()),
            _ => Ok(None),
        }
    }

    /// The process namespace of the container of that name.
    fn processes_of(&self, name: &str) -> Result<OwnedFd, String> {
        let running = self.all.values().filter(|c| c.status.name == name);
        match running.filter_map(|c| c.status.pid).next_back() {
            Some(pid) => namespace(pid, "pid"),
            None => Err(format!("unable to find target container {name}")),
        }
    }

    /// Copies a running container's output to `output` and `error` from now on, and answers what feeds its input.
    pub fn attach(
        &mut self,
        id: &str,
        stdin: bool,
        output: OwnedFd,
        error: OwnedFd,
    ) -> Result<Option<OwnedFd>, String> {
        let running = self.all.get_mut(id).filter(|c| c.status.finished.is_none());
        let container = running.ok_or_else(|| format!("container {id} is not running"))?;
        let text = |e: io::Error| e.to_string();
        let mut terminal = None;
        let (mut output, mut error) = (Some(output), Some(error));
        for stream in &mut container.streams {
            terminal = stream.terminal().map(|fd| fd.try_clone_to_owned()).transpose().map_err(text)?.or(terminal);
            if let Some(to) = if stream.name() == "stdout" { output.take() } else { error.take() } {
                stream.copy_to(to).map_err(text)?;
            }
        }
        match (&container.input, terminal) {
            (_, terminal @ Some(_)) => Ok(terminal),
            _ if !stdin => Ok(None),
            // With `stdinOnce` it is given away: closed there, it has ended for the program.
            _ if container.config.stdin_once => Ok(container.input.take()),
            (input, None) => input.as_ref().map(OwnedFd::try_clone).transpose().map_err(text),
        }
    }

    /// Runs a command in a container.
    pub fn exec(&self, id: &str, command: &[String], tty: bool, stdio: Option<Stdio>) -> Result<Exec, String> {
        let running = self.all.get(id).filter(|c| c.status.finished.is_none());
        let Some((container, pid)) = running.and_then(|c| Some((c, c.status.pid?))) else {
            return Err(format!("container {id} is not running"));
        };
        if command.is_empty() || (stdio.is_none() && !tty) {
            return Err("a command needs a program, and three descriptors unless it has a terminal".to_owned());
        }
        let joined =
            Joined { mounts: namespace(pid, "mnt")?, pids: namespace(pid, "pid")?, cgroup: namespace(pid, "cgroup")? };
        let (ours, theirs) = Channel::pair().map_err(|e| e.to_string())?;
        match sys::clone_process(0).map_err(|e| e.to_string())? {
            None => {
                drop(ours);
                child::exec(&theirs, &container.config, &container.identity, &joined, command, tty, stdio)
            }
            Some(_) => {
                drop((theirs, stdio));
                let started = ours.attend()?;
                let pid = started.pid.ok_or("the command started without saying its process id")?;
                Ok(Exec { pid, terminal: started.terminal })
            }
        }
    }

    /// Signals a container's first process; one that does not run is fine.
    pub fn signal(&self, id: &str, signal: i32) {
        let Some(container) = self.all.get(id).filter(|c| c.status.finished.is_none()) else { return };
        if let (Some(pid), Ok(signal)) = (container.status.pid, Signal::try_from(signal)) {
            // Not reaped yet, so the id is still its own; if it just ended, nothing is to be signalled.
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }

    pub fn kill_all(&self) {
        for id in self.all.keys() {
            self.signal(id, libc::SIGKILL);
        }
    }

    /// Forgets a finished container and removes its files.
    pub fn forget(&mut self, id: &str) -> Result<(), String> {
        match self.all.get(id) {
            None if !self.earlier.contains_key(id) => return Ok(()),
            Some(c) if c.status.finished.is_none() => return Err(format!("container {id} still runs")),
            _ => {}
        }
        let dir = self.dir.join(CONTAINERS_DIR).join(id);
        match fs::remove_dir_all(&dir) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(format!("remove {}: {e}", dir.display())),
            _ => {}
        }
        self.all.remove(id);
        self.earlier.remove(id);
        Ok(())
    }

    /// Takes note of a reaped process; answers the container that it was.
    pub fn reaped(&mut self, pid: Pid, how: WaitStatus) -> Option<String> {
        let is_it = |c: &&mut Container| c.status.pid == Some(pid.as_raw()) && c.status.finished.is_none();
        let Some(container) = self.all.values_mut().find(is_it) else {
            self.shared.iter_mut().for_each(|shared| shared.reaped(pid));
            return None;
        };
        if self.shared.is_some() || container.config.host_pid || container.config.beside.is_some() {
            // It was no first process, with which the kernel ends all others.
            processes::end(&container.config.cgroups);
        }
        // Everything it wrote is in the pipes by now; a stream that others hold open is read on.
        let log = &mut container.log;
        container.streams.retain_mut(|s| s.pump(log));
        let (exit_code, signal) = exit_code(how);
        let oom_killed = container.config.oom_file.as_deref().is_some_and(|f| oom_kills(f) > 0);
        container.input = None;
        container.status.pid = None;
        container.status.finished =
            Some(Finished { at_ns: now_ns(), exit_code, signal, oom_killed, lost: false, error: None });
        let status = container.status.clone();
        if self.write(&status).is_err() {
            // The disk is full; whoever asks this process still gets the truth, and after its death "lost".
        }
        Some(status.id)
    }

    /// Every stream that can be read, with whom it belongs to.
    pub fn streams(&self) -> impl Iterator<Item = (&str, usize, &Stream)> {
        self.all.iter().flat_map(|(id, c)| c.streams.iter().enumerate().map(move |(n, s)| (id.as_str(), n, s)))
    }

    pub fn pump(&mut self, id: &str) {
        if let Some(container) = self.all.get_mut(id) {
            let log = &mut container.log;
            container.streams.retain_mut(|s| s.pump(log));
        }
    }

    fn write(&self, status: &ContainerStatus) -> io::Result<()> {
        let path = self.dir.join(CONTAINERS_DIR).join(&status.id).join(STATUS_FILE);
        write_durably(&path, &serde_json::to_vec(status)?, 0o600)
    }
}

type Launched = (i32, Identity, Vec<Stream>, Option<OwnedFd>);

/// A namespace of a process of ours that has not been reaped.
fn namespace(pid: i32, name: &str) -> Result<OwnedFd, String> {
    let path = format!("/proc/{pid}/ns/{name}");
    open(path.as_str(), OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).map_err(|e| format!("open {path}: {e}"))
}

/// `beside` is the process namespace to be in, if it is not a new one.
fn launch(dir: &Path, shm: &Path, config: &ContainerConfig, beside: Option<OwnedFd>) -> Result<Launched, String> {
    let text = |e: io::Error| e.to_string();
    let (ours, theirs) = Channel::pair().map_err(text)?;
    let (stdio, mut streams, input) = match config.tty {
        true => (None, Vec::new(), None),
        false => pipes(config.stdin).map(|(s, p, i)| (Some(s), p, i)).map_err(text)?,
    };
    let own = match config.host_pid || beside.is_some() {
        true => libc::CLONE_NEWNS,
        false => libc::CLONE_NEWNS | libc::CLONE_NEWPID,
    };
    match sys::clone_process(own).map_err(text)? {
        None => {
            drop(ours);
            child::init(&theirs, &Sources { dir, shm, config }, stdio, beside)
        }
        Some(pid) => {
            drop((theirs, stdio));
            let started = ours.attend().inspect_err(|_| {
                // It may hang in a mount; it is reaped like any child.
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            })?;
            if let Some(terminal) = started.terminal {
                streams.push(Stream::new("stdout", terminal, true).map_err(text)?);
            }
            Ok((started.pid.unwrap_or(pid), started.identity.unwrap_or_default(), streams, input))
        }
    }
}

fn pipes(stdin: bool) -> io::Result<(Stdio, Vec<Stream>, Option<OwnedFd>)> {
    let (out_read, output) = pipe2(OFlag::O_CLOEXEC)?;
    let (error_read, error) = pipe2(OFlag::O_CLOEXEC)?;
    let (input, feed) = match stdin {
        true => pipe2(OFlag::O_CLOEXEC).map(|(read, write)| (read, Some(write)))?,
        false => (open("/dev/null", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?, None),
    };
    let streams = vec![Stream::new("stdout", out_read, false)?, Stream::new("stderr", error_read, false)?];
    Ok((Stdio { input, output, error }, streams, feed))
}

/// A shell's view of how a process ended, and the signal.
pub(super) fn exit_code(how: WaitStatus) -> (i32, i32) {
    match how {
        WaitStatus::Exited(_, code) => (code, 0),
        WaitStatus::Signaled(_, signal, _) => (128 + signal as i32, signal as i32),
        _ => (255, 0), // not an end; waitpid is never asked for anything else
    }
}

/// Unix time in nanoseconds; fits until the year 2262.
pub(super) fn now_ns() -> i64 {
    i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}
