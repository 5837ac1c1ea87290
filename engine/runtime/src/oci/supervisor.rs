//! A *supervisor* is the parent of one pod's containers: a small process of its own that outlives the kubelet.
//!
//! ```text
//! kubelet ──spawn──▶ main ──fork──▶ supervisor (own session, in the pod's namespaces)
//!    ▲                                  │ one thread, one poll loop
//!    └──── DIR/socket: start, exec, ────┤ writes  DIR/containers/ID/status.json  (durably)
//!          signal, watch, shutdown      │ writes  logs
//!                                       └──▶ containers (killed by the kernel when it dies)
//! ```
//!
//! It has a single thread because only such a process can safely become a container, no runtime because it must
//! stay small (one per pod), and no opinion: what to start comes whole from the kubelet.

mod channel;
mod child;
mod containers;
mod fences;
mod identity;
mod log;
mod processes;
mod root;
pub mod runner;
mod sandbox;
mod seccomp;
mod server;

use std::ffi::{CString, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::ExitCode;

use nix::mount::{MsFlags, mount};
use nix::unistd::{ForkResult, dup2_stderr, dup2_stdin, dup2_stdout, execv, pipe, setsid};

use crate::SandboxConfig;
use engine_host::sys;

/// The socket's name in the sandbox's directory.
pub(crate) const SOCKET: &str = "socket";
/// Says to our own program that it begins the second time.
const SEALED: &str = "sealed";
/// The sandbox's description in its directory.
pub(crate) const SANDBOX_FILE: &str = "sandbox.json";
/// A container's state in its directory.
pub(crate) const STATUS_FILE: &str = "status.json";

/// Runs a supervisor; `args` is the sandbox's directory. Call it before the process has a second thread.
///
/// Returns once the supervisor serves (in a child of its own), or with what went wrong on standard error.
pub fn main(args: &[OsString]) -> ExitCode {
    let done = match args {
        [dir] => launch(Path::new(dir)),
        [dir, word, launcher] if word == SEALED => serve(Path::new(dir), launcher),
        _ => {
            let _ = writeln!(io::stderr(), "the supervisor needs exactly one argument, its directory");
            return ExitCode::from(64);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            let _ = writeln!(io::stderr(), "{e}"); // with standard error closed there is nobody to tell
            ExitCode::FAILURE
        }
    }
}

/// Forks; the parent waits until the child serves or has said why not.
fn launch(dir: &Path) -> io::Result<()> {
    let (read, write) = pipe()?;
    match sys::fork()? {
        ForkResult::Parent { .. } => {
            drop(write);
            let mut said = String::new();
            File::from(read).read_to_string(&mut said)?;
            match said.as_str() {
                "ok" => Ok(()),
                "" => Err(io::Error::other("the supervisor died before it served")),
                why => Err(io::Error::other(why.to_owned())),
            }
        }
        ForkResult::Child => {
            drop(read);
            let mut launcher = File::from(write);
            let Err(e) = enter_and_seal(dir, &launcher);
            let _ = launcher.write_all(e.to_string().as_bytes()); // the launcher then says that we died
            sys::exit_now(1)
        }
    }
}

/// Goes to the pod's namespaces and begins again there, from a read-only view of its own program: a container that gets
/// hold of `/proc/PID/exe` of a process on its way to `execve` can then not write to the node's binary (CVE-2019-5736).
fn enter_and_seal(dir: &Path, launcher: &File) -> io::Result<std::convert::Infallible> {
    setsid()?;
    sandbox::enter(dir, &read_config(dir)?)?;
    let program = dir.join("program");
    File::create(&program)?;
    // The running file itself belongs to the mounts we have just left; its path leads to the same file in ours.
    let own = std::fs::read_link("/proc/self/exe")?;
    let bind = |flags| mount(Some(&own), &program, None::<&str>, MsFlags::MS_BIND | flags, None::<&str>);
    bind(MsFlags::empty()).context(|| format!("seal {}", own.display()))?;
    bind(MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | MsFlags::MS_NOSUID)
        .context(|| format!("seal {}", own.display()))?;
    let mut args: Vec<CString> = Vec::new();
    for arg in std::fs::read("/proc/self/cmdline")?.split(|b| *b == 0) {
        args.push(CString::new(arg).map_err(io::Error::other)?);
    }
    args.pop(); // what follows the last NUL
    for arg in [SEALED.to_owned(), launcher.as_raw_fd().to_string()] {
        args.push(CString::new(arg).map_err(io::Error::other)?);
    }
    let path = CString::new(program.as_os_str().as_bytes()).map_err(io::Error::other)?;
    execv(&path, &args).context(|| "begin again as a sealed program".into())
}

/// Serves in the pod's namespaces until the pod is shut down.
fn serve(dir: &Path, launcher: &OsString) -> io::Result<()> {
    let number = launcher.to_str().and_then(|n| n.parse().ok()).filter(|n| *n > 2);
    let number = number.ok_or_else(|| io::Error::other("a sealed supervisor is only started by its launcher"))?;
    let mut launcher = File::from(sys::adopt(number));
    let config = match listen(dir).and_then(|listener| Ok((listener, read_config(dir)?))) {
        Ok(ready) => ready,
        Err(e) => {
            let _ = launcher.write_all(e.to_string().as_bytes()); // the launcher then says that we died
            return Err(e);
        }
    };
    launcher.write_all(b"ok")?;
    drop(launcher);
    let (listener, config) = config;
    let null = File::options().read(true).write(true).open("/dev/null")?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    dup2_stderr(&null)?;
    server::serve(dir, &listener, &config)
        .inspect_err(|e| note(dir, &format!("the supervisor of pod {} failed: {e}", config.pod_uid)))
}

fn read_config(dir: &Path) -> io::Result<SandboxConfig> {
    let path = dir.join(SANDBOX_FILE);
    let bytes = std::fs::read(&path).context(|| format!("read {}", path.display()))?;
    serde_json::from_slice(&bytes).map_err(io::Error::from).context(|| format!("read {}", path.display()))
}

fn listen(dir: &Path) -> io::Result<UnixListener> {
    // The path may be longer than a socket's name can be: go there instead.
    nix::unistd::chdir(dir)?;
    match std::fs::remove_file(SOCKET) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = UnixListener::bind(SOCKET).context(|| "bind the socket".into())?;
    listener.set_nonblocking(true)?;
    nix::unistd::chdir("/")?;
    Ok(listener)
}

/// Leaves a last word where the kubelet finds it.
fn note(dir: &Path, text: &str) {
    let _ = std::fs::write(dir.join("supervisor.error"), text); // it already is the last resort
}

/// Says what was being done when an error came.
pub(crate) trait Context<T> {
    /// Puts `what` before the error.
    fn context(self, what: impl FnOnce() -> String) -> io::Result<T>;
}

impl<T, E: Into<io::Error>> Context<T> for Result<T, E> {
    fn context(self, what: impl FnOnce() -> String) -> io::Result<T> {
        self.map_err(|e| {
            let e = e.into();
            io::Error::new(e.kind(), format!("{}: {e}", what()))
        })
    }
}
